//! `run`: fill in a prompt, ask a model, and record the call.
//! Invariant: whatever ends the call, its execution is recorded, and its id is said.

use std::pin::pin;
use std::time::Duration;

use clap::Args;
use futures::StreamExt;
use owo_colors::OwoColorize;
use prompt_engine::{
    ExecuteError, LlmExecution, PromptEngine, RecordQuery, Recorded, StreamEvent, UsageId,
};
use serde_json::{Value, json};

use crate::client::client;
use crate::context::Context;
use crate::executions::{latency, long_cost, say_call};
use crate::failure::Failure;
use crate::interrupt::interrupted;
use crate::output::{self, printable, say};
use crate::record_json;
use crate::render::{WhatArgs, parse_name, saved};
use crate::table::number;

/// What to run.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  OPENAI_API_KEY=… prompt-engine run welcome --var name=Ada --stream\n  \
    ANTHROPIC_API_KEY=… prompt-engine run welcome --var name=Ada --provider anthropic --model claude-sonnet-4-5\n  \
    prompt-engine run welcome --var name=Ada --base-url http://127.0.0.1:8080/v1 --model local"
)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    what: WhatArgs,
    /// The server, the part before /chat/completions or the like; the provider's own, unless given.
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// Who is asked: openai, openai-responses, anthropic, gemini and so on. Any other name is that of a
    /// server that speaks like OpenAI, and needs --base-url; the key of `house` is in HOUSE_API_KEY. Records
    /// name whose models they are: `google` for gemini, `openai` for both APIs.
    #[arg(long, value_name = "NAME", default_value = "openai", value_parser = parse_name)]
    provider: prompt_engine::Label,
    /// Print the answer as it is made.
    #[arg(long)]
    stream: bool,
    /// Give the call up after so many seconds.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = parse_seconds)]
    timeout: Option<Duration>,
    /// A field of the provider's request, passed on as it is: --option 'service_tier="flex"'.
    #[arg(long = "option", value_name = "NAME=JSON", value_parser = parse_option)]
    options: Vec<(String, Value)>,
}

/// How a call ended.
struct Ended {
    execution: LlmExecution,
    recorded: Recorded,
    failure: Option<String>,
}

pub(crate) async fn run(args: RunArgs, context: &Context) -> Result<(), Failure> {
    let client = client(args.provider.as_str(), args.base_url.as_deref())?;
    let engine = context.open().await?;
    let mut stop = pin!(interrupted());
    let rendered = args.what.render(&engine).await?;
    saved(rendered.recorded())?;
    let mut execute = rendered.execute_with(&client);
    if let Some(timeout) = args.timeout {
        execute = execute.timeout(timeout);
    }
    for (name, value) in args.options {
        execute = execute.option(name, value);
    }
    let live = args.stream && !context.json();
    let ended = if args.stream {
        tokio::select! {
            ended = stream(execute, live) => Some(ended),
            () = &mut stop => {
                if live {
                    // Ends the line that the answer was printed on.
                    output::note("");
                }
                None
            }
        }
    } else {
        tokio::select! {
            ended = async {
                match execute.await {
                    Ok(done) => Ok(Ended {
                        execution: done.execution,
                        recorded: done.recorded,
                        failure: None,
                    }),
                    Err(error) => failed(&error),
                }
            } => Some(ended),
            () = &mut stop => None,
        }
    };
    // Also where the call was given up: what was seen of it is recorded. An answer was paid for, and
    // is printed even if its record is lost.
    let closed = context.close(&engine).await;
    let ended = match ended {
        Some(ended) => ended,
        None => cancelled(&engine, rendered.usage_id()).await,
    };
    let ended = match ended {
        Ok(ended) => ended,
        Err(failure) => return Err(closed.err().unwrap_or(failure)),
    };
    let id = ended.execution.id;
    if context.json() {
        let mut document = record_json::execution(&ended.execution, rendered.slug());
        document.insert("execution_id".to_owned(), json!(id));
        document.insert("recorded".to_owned(), json!(recorded_name(&ended.recorded)));
        output::document(&document)?;
    } else if ended.failure.is_none() {
        answer(&ended.execution, live)?;
        output::note(summary(&ended.execution).dimmed());
    }
    match ended.failure {
        Some(sentence) => {
            if let Err(Failure::Failed(lost)) = closed {
                output::note(lost);
            }
            Err(Failure::failed(sentence))
        }
        None => saved(&ended.recorded).and(closed),
    }
}

async fn stream(execute: prompt_engine::Execute<'_>, live: bool) -> Result<Ended, Failure> {
    let mut stream = match execute.stream().await {
        Ok(stream) => stream,
        Err(error) => return failed(&error),
    };
    let mut failure = None;
    let mut open_line = false;
    while let Some(event) = stream.next().await {
        match event {
            Ok(StreamEvent::Text(text)) if live => {
                output::text(&text)?;
                open_line = !text.ends_with('\n');
            }
            Ok(_) => {}
            Err(error) => failure = Some(error),
        }
    }
    if open_line {
        say("")?;
    }
    match (stream.execution(), stream.recorded()) {
        (Some(execution), Some(recorded)) => Ok(Ended {
            failure: failure.map(|error| sentence(&error, execution)),
            execution: execution.clone(),
            recorded: recorded.clone(),
        }),
        _ => Err(Failure::failed("the stream ended without saying how")),
    }
}

fn failed(error: &ExecuteError) -> Result<Ended, Failure> {
    match (error.execution(), error.recorded()) {
        (Some(execution), Some(recorded)) => Ok(Ended {
            failure: Some(sentence(error.error(), execution)),
            execution: execution.clone(),
            recorded: recorded.clone(),
        }),
        // Nothing was sent.
        _ => Err(Failure::failed(format!("{}; give one with --model", error.error()))),
    }
}

fn sentence(error: &prompt_engine::LlmError, execution: &LlmExecution) -> String {
    let http = error.http_status().map_or(String::new(), |status| format!(", HTTP {status}"));
    let said = error.message().trim().trim_end_matches('.');
    let wait = error.retry_after().map_or(String::new(), |wait| {
        format!(", retry after {}", latency(u64::try_from(wait.as_millis()).ok()))
    });
    let (category, id) = (error.category(), execution.id);
    format!("the call failed ({category}{http}{wait}): {said}; execution {id}")
}

/// The call that was given up, as it was recorded.
async fn cancelled(engine: &PromptEngine, usage: UsageId) -> Result<Ended, Failure> {
    let query = RecordQuery { usage: Some(usage), payloads: true, ..RecordQuery::default() };
    let calls = engine.store().list_executions(&query).await?.items;
    let Some(execution) = calls.into_iter().next() else {
        return Err(Failure::failed("the call was cancelled before it was sent"));
    };
    // Where its end was lost, the store knows of its beginning.
    let recorded = if execution.status.is_final() { Recorded::Committed } else { Recorded::Queued };
    let failure = Some(format!("the call was cancelled; execution {}", execution.id));
    Ok(Ended { execution, recorded, failure })
}

/// Prints what was answered, but the text that was printed as it came.
fn answer(execution: &LlmExecution, live: bool) -> Result<(), Failure> {
    let Some(payload) = &execution.payload else { return Ok(()) };
    if let Some(content) = payload.response_content.as_ref().filter(|_| !live) {
        output::text(content)?;
        say("")?;
    }
    for call in &payload.tool_calls {
        say_call(call)?;
    }
    Ok(())
}

fn summary(execution: &LlmExecution) -> String {
    let mut parts = vec![
        execution.status.to_string(),
        format!("{}/{}", execution.provider, execution.model),
        execution.tokens.map_or("tokens unknown".to_owned(), |tokens| {
            format!("{} input + {} output tokens", number(tokens.input), number(tokens.output))
        }),
    ];
    let first = execution.time_to_first_token_ms;
    parts.push(match first {
        Some(first) => {
            format!(
                "{} ({} to the first token)",
                latency(execution.latency_ms),
                latency(Some(first))
            )
        }
        None => latency(execution.latency_ms),
    });
    parts.push(format!("cost: {}", long_cost(execution)));
    parts.push(format!("execution {}", execution.id));
    printable(&parts.join(" | ")).into_owned()
}

pub(crate) fn recorded_name(recorded: &Recorded) -> &'static str {
    match recorded {
        Recorded::Committed => "committed",
        Recorded::Queued => "queued",
        Recorded::Dropped(_) => "dropped",
    }
}

/// Fields that say what is asked of whom, and are recorded as the prompt and the command have them.
const NO_OPTIONS: [&str; 6] = ["model", "messages", "input", "contents", "stream", ""];

/// A time that a call may take, up to a day.
pub(crate) fn parse_seconds(text: &str) -> Result<Duration, String> {
    let time = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.filter(|time| !time.is_zero() && *time <= Duration::from_secs(86_400))
        .ok_or_else(|| "write seconds, such as 30 or 0.5, at most 86400".to_owned())
}

pub(crate) fn parse_option(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=JSON, such as top_p=0.5")?;
    if NO_OPTIONS.contains(&name) {
        return Err(format!("{name:?} is no option: the prompt and the command say it"));
    }
    let value = serde_json::from_str(value).map_err(|error| format!("it is no JSON: {error}"))?;
    Ok((name.to_owned(), value))
}
