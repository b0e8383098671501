//! `playground`: one prompt, several models or versions, side by side.
//! Invariants: every try is recorded like any other call; one that fails does not stop the others; an
//! answer that came is printed, also where others were given up.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use comfy_table::Color;
use futures::FutureExt;
use futures::future::join_all;
use prompt_engine::{
    LlmClient, LlmExecution, Params, PlaygroundError, PlaygroundExecutor, PlaygroundResult,
    PromptEngine, Recorded, Slug,
};
use serde_json::{Value, json};

use crate::client::client;
use crate::context::Context;
use crate::executions::{latency, short_cost};
use crate::failure::Failure;
use crate::interrupt::interrupted;
use crate::output;
use crate::render::{parse_temperature, parse_var, saved, values};
use crate::run::{parse_option, parse_seconds, recorded_name};
use crate::table::{cell, count, number, show, table, whole};

/// What to try.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  prompt-engine playground welcome --var name=Ada \
    --with openai/gpt-4o-mini --with anthropic/claude-sonnet-4 --version 3 --version 4")]
pub(crate) struct PlaygroundArgs {
    /// The prompt.
    slug: Slug,
    /// A value: the text after = is read as the type of the parameter; arrays and JSON are written as JSON.
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = parse_var)]
    vars: Vec<(String, String)>,
    /// A model to ask: its provider, as in `run --provider`, a slash, its name. Repeat it to compare models.
    #[arg(long = "with", value_name = "PROVIDER/MODEL", required = true, value_parser = parse_model)]
    with: Vec<(String, String)>,
    /// A version to try; the active one, unless given. Repeat it to compare versions.
    #[arg(long = "version", value_name = "NUMBER")]
    versions: Vec<u32>,
    /// The server of a provider. Repeat it for several.
    #[arg(long = "base-url", value_name = "PROVIDER=URL", value_parser = parse_server)]
    base_urls: Vec<(String, String)>,
    /// The temperature in place of the version's.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = parse_temperature)]
    temperature: Option<f64>,
    /// The most tokens of an answer in place of the version's.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: Option<u32>,
    /// Give a call up after so many seconds.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = parse_seconds)]
    timeout: Option<Duration>,
    /// A field of the providers' requests, passed on as it is: --option 'seed=7'.
    #[arg(long = "option", value_name = "NAME=JSON", value_parser = parse_option)]
    options: Vec<(String, Value)>,
}

/// What stands in the place of an answer that was not waited for.
const CANCELLED: &str = "cancelled";

/// One model and one version.
struct Try<'a> {
    client: Arc<dyn LlmClient>,
    provider: &'a str,
    model: &'a str,
    version: Option<u32>,
}

/// What came of it; `None` if it was given up before it came to its end.
type Tried = Option<Result<PlaygroundResult, PlaygroundError>>;

pub(crate) async fn run(args: PlaygroundArgs, context: &Context) -> Result<(), Failure> {
    let tries = tries(&args)?;
    let engine = context.open().await?;
    let stop = interrupted().shared();
    let params = values(&engine, &args.slug, &args.vars).await?;
    let tried = join_all(tries.iter().map(async |one| {
        tokio::select! {
            biased;
            tried = attempt(one, &args, &params, &engine) => Some(tried),
            // The call that is given up is recorded as cancelled.
            () = stop.clone() => None,
        }
    }));
    let tried: Vec<Tried> = tried.await;
    let closed = context.close(&engine).await;
    // What is wrong with the prompt or its values is wrong with every try.
    if let Some(Some(Err(PlaygroundError::Prompt(error)))) = tried.first()
        && tried.iter().all(|tried| tried.is_some() && execution(tried).is_none())
    {
        return Err(Failure::failed(error.chain()));
    }
    if context.json() {
        output::lines(tries.iter().zip(&tried).map(|(one, tried)| document(one, tried)))?;
    } else {
        print(&tries, &tried, !args.versions.is_empty())?;
    }
    // A call that is not in the store is no success, whatever was answered.
    tried.iter().filter_map(recorded).try_for_each(saved)?;
    closed?;
    let of = count(u64::try_from(tries.len()).unwrap_or(u64::MAX), "call");
    let cancelled = tried.iter().filter(|tried| tried.is_none()).count();
    let failed = tried.iter().flatten().filter(|tried| tried.is_err()).count();
    match (cancelled, failed) {
        (0, 0) => Ok(()),
        (0, failed) => Err(Failure::failed(format!("{failed} of {of} failed"))),
        (cancelled, _) => Err(Failure::failed(format!(
            "{cancelled} of {of} cancelled; `prompt-engine executions list` shows those that were sent"
        ))),
    }
}

fn tries(args: &PlaygroundArgs) -> Result<Vec<Try<'_>>, Failure> {
    for (name, _) in &args.base_urls {
        if !args.with.iter().any(|(provider, _)| provider == name) {
            return Err(Failure::usage(format!("--base-url: no --with asks {name:?}")));
        }
    }
    let versions = match args.versions.as_slice() {
        [] => vec![None],
        some => some.iter().copied().map(Some).collect(),
    };
    let mut tries = Vec::new();
    for (provider, model) in &args.with {
        let server = args.base_urls.iter().find(|(name, _)| name == provider);
        let client = client(provider, server.map(|(_, url)| url.as_str()))?;
        tries.extend(versions.iter().map(|version| Try {
            client: Arc::clone(&client),
            provider,
            model,
            version: *version,
        }));
    }
    Ok(tries)
}

async fn attempt(
    one: &Try<'_>,
    args: &PlaygroundArgs,
    params: &Params,
    engine: &PromptEngine,
) -> Result<PlaygroundResult, PlaygroundError> {
    let mut render = engine.render(args.slug.as_str(), params.clone()).model(one.model);
    if let Some(version) = one.version {
        render = render.version(version);
    }
    if let Some(temperature) = args.temperature {
        render = render.temperature(temperature);
    }
    if let Some(max_tokens) = args.max_tokens {
        render = render.max_tokens(max_tokens);
    }
    let mut playground = PlaygroundExecutor::new();
    if let Some(timeout) = args.timeout {
        playground = playground.timeout(timeout);
    }
    for (name, value) in &args.options {
        playground = playground.option(name, value.clone());
    }
    playground.execute(&*one.client, render).await
}

fn execution(tried: &Tried) -> Option<&LlmExecution> {
    match tried.as_ref()? {
        Ok(tried) => Some(&tried.execution),
        Err(error) => error.execution(),
    }
}

/// What became of the record; `None` if nothing was sent.
fn recorded(tried: &Tried) -> Option<&Recorded> {
    match tried.as_ref()? {
        Ok(tried) => Some(&tried.recorded),
        Err(PlaygroundError::Call(error)) => error.recorded(),
        Err(PlaygroundError::Prompt(_)) => None,
    }
}

fn print(tries: &[Try<'_>], tried: &[Tried], versions: bool) -> Result<(), Failure> {
    let mut columns = vec!["Model", "Output", ">Latency", ">Tokens", ">Cost"];
    if versions {
        columns.insert(1, ">Version");
    }
    let mut rows = table(&columns);
    for (one, tried) in tries.iter().zip(tried) {
        let seen = execution(tried);
        let tokens = seen.and_then(|seen| seen.tokens).map(|tokens| number(tokens.total()));
        let mut row = vec![
            cell(format!("{}/{}", one.provider, one.model)),
            said(tried),
            cell(latency(seen.and_then(|seen| seen.latency_ms))),
            cell(tokens.unwrap_or_else(|| "-".to_owned())),
            cell(seen.map_or("-".to_owned(), short_cost)),
        ];
        if let Some(version) = one.version {
            row.insert(1, cell(format!("v{version}")));
        }
        rows.add_row(row);
    }
    let last = columns.len() - 1;
    [last - 2, last - 1, last].into_iter().for_each(|index| whole(&mut rows, index));
    show(&rows)
}

/// What the model said, or why it did not.
fn said(tried: &Tried) -> comfy_table::Cell {
    match tried {
        None => cell(CANCELLED).fg(Color::Yellow),
        Some(Err(error)) => cell(error.to_string()).fg(Color::Red),
        Some(Ok(tried)) => match (&tried.response, &tried.execution.payload) {
            (Some(text), _) => cell(text),
            (None, Some(payload)) => {
                let calls = &payload.tool_calls;
                let calls = calls.iter().map(|call| format!("{} {}", call.name, call.arguments));
                cell(calls.collect::<Vec<_>>().join("\n"))
            }
            (None, None) => cell(""),
        },
    }
}

fn document(one: &Try<'_>, tried: &Tried) -> Value {
    let seen = execution(tried);
    let (done, error) = match tried {
        None => (None, Some(CANCELLED.to_owned())),
        Some(Err(error)) => (None, Some(error.to_string())),
        Some(Ok(done)) => (Some(done), None),
    };
    json!({
        "provider": one.provider,
        "model": one.model,
        "version": seen.map(|seen| seen.attribution.version).or(one.version),
        "response": done.and_then(|done| done.response.as_ref()),
        "error": error,
        "latency_ms": seen.and_then(|seen| seen.latency_ms),
        "token_count": seen.and_then(|seen| seen.tokens).map(|tokens| tokens.total()),
        "cost_usd": seen.and_then(|seen| seen.cost?.usd()),
        "execution_id": seen.map(|seen| seen.id),
        "recorded": recorded(tried).map(recorded_name),
    })
}

fn parse_model(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((provider, model)) if !provider.is_empty() && !model.is_empty() => {
            Ok((provider.to_owned(), model.to_owned()))
        }
        _ => Err("write PROVIDER/MODEL, such as openai/gpt-4o-mini".to_owned()),
    }
}

fn parse_server(text: &str) -> Result<(String, String), String> {
    let (provider, url) = text
        .split_once('=')
        .ok_or("write PROVIDER=URL, such as openai=http://127.0.0.1:8080/v1")?;
    Ok((provider.to_owned(), url.to_owned()))
}
