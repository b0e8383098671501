//! `render`: fill in a prompt and record the use.
//! Invariant: the values of `--var` are converted here and nowhere else; the engine converts nothing.

use clap::Args;
use owo_colors::OwoColorize;
use prompt_engine::{Label, Parameter, Params, PromptEngine, PromptVersion, RenderedPrompt, Slug};
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::failure::Failure;
use crate::filters::parse_object;
use crate::output::{self, heading, say};

/// What to render.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  prompt-engine render welcome --var name=Ada --var item_count=3 --json"
)]
pub(crate) struct RenderArgs {
    #[command(flatten)]
    what: WhatArgs,
}

/// A prompt, its values, and what the use counts for.
#[derive(Debug, Args)]
pub(crate) struct WhatArgs {
    /// The prompt.
    slug: Slug,
    /// A value: the text after = is read as the type of the parameter; arrays and JSON are written as JSON.
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = parse_var)]
    vars: Vec<(String, String)>,
    /// The version; the active one, unless given.
    #[arg(long, value_name = "NUMBER")]
    version: Option<u32>,
    /// The model to ask in place of the version's.
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    model: Option<Label>,
    /// The temperature in place of the version's.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = parse_temperature)]
    temperature: Option<f64>,
    /// The most tokens of the answer in place of the version's.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: Option<u32>,
    /// The session it belongs to.
    #[arg(long, value_name = "NAME")]
    session: Option<Label>,
    /// The user it is done for.
    #[arg(long, value_name = "NAME")]
    user: Option<Label>,
    /// The environment it counts for.
    #[arg(long, value_name = "NAME")]
    env: Option<Label>,
    /// Anything else to keep with it, as a JSON object.
    #[arg(long, value_name = "JSON", value_parser = parse_object)]
    metadata: Option<Map<String, Value>>,
}

impl WhatArgs {
    /// Renders it, and so records the use.
    pub(crate) async fn render(&self, engine: &PromptEngine) -> Result<RenderedPrompt, Failure> {
        let params = values(engine, &self.slug, &self.vars).await?;
        let mut render = engine.render(self.slug.as_str(), params);
        if let Some(version) = self.version {
            render = render.version(version);
        }
        if let Some(model) = &self.model {
            render = render.model(model.as_str());
        }
        if let Some(temperature) = self.temperature {
            render = render.temperature(temperature);
        }
        if let Some(max_tokens) = self.max_tokens {
            render = render.max_tokens(max_tokens);
        }
        if let Some(session) = &self.session {
            render = render.session(session.as_str());
        }
        if let Some(user) = &self.user {
            render = render.user(user.as_str());
        }
        if let Some(env) = &self.env {
            render = render.environment(env.as_str());
        }
        if let Some(metadata) = &self.metadata {
            render = render.metadata(Value::Object(metadata.clone()));
        }
        Ok(render.await?)
    }
}

/// The values of `--var`, as the parameters of the prompt want them.
pub(crate) async fn values(
    engine: &PromptEngine,
    slug: &Slug,
    vars: &[(String, String)],
) -> Result<Params, Failure> {
    let prompt = engine.prompts().get(slug).await?;
    let mut params = Params::new();
    for (name, text) in vars {
        let known = prompt.parameters.iter().find(|parameter| parameter.name == *name).cloned();
        let parameter = known.unwrap_or_else(|| Parameter::infer(name.as_str(), 0));
        if params.insert(name.clone(), parameter.parse_text(text)?).is_some() {
            return Err(Failure::usage(format!("--var: {name} is given twice")));
        }
    }
    Ok(params)
}

pub(crate) async fn run(args: RenderArgs, context: &Context) -> Result<(), Failure> {
    let engine = context.open().await?;
    let rendered = args.what.render(&engine).await?;
    // A use that is not in the store is no success, whatever the text.
    let closed = saved(rendered.recorded()).and(context.close(&engine).await);
    print(&rendered, context)?;
    closed
}

fn print(rendered: &RenderedPrompt, context: &Context) -> Result<(), Failure> {
    if context.json() {
        return output::document(&json!({
            "usage_id": rendered.usage_id(),
            "prompt": rendered.slug(),
            "version": rendered.version(),
            "status": rendered.status(),
            "content": rendered.content(),
            "system_message": rendered.system_message(),
            "model": rendered.model(),
            "temperature": rendered.temperature(),
            "max_tokens": rendered.max_tokens(),
            "parameters": rendered.parameters(),
            "messages": rendered.messages(),
        }));
    }
    if let Some(system) = rendered.system_message() {
        heading("System message")?;
        output::text(system)?;
        say("")?;
        say("")?;
        heading("Content")?;
    }
    output::text(rendered.content())?;
    say("")?;
    output::note(
        format_args!(
            "{} version {}, usage {}",
            rendered.slug(),
            rendered.version(),
            rendered.usage_id()
        )
        .dimmed(),
    );
    Ok(())
}

/// Refuses to go on where a record is lost.
pub(crate) fn saved(recorded: &prompt_engine::Recorded) -> Result<(), Failure> {
    recorded.check().map_err(|error| {
        Failure::failed(format!("the record could not be saved: {}", error.chain()))
    })
}

pub(crate) fn parse_name(text: &str) -> Result<Label, String> {
    match text.trim() {
        "" => Err("it is empty".to_owned()),
        _ => text.parse().map_err(|error: prompt_engine::Error| error.chain()),
    }
}

pub(crate) fn parse_temperature(text: &str) -> Result<f64, String> {
    let number = text.parse().ok();
    number
        .filter(|number| PromptVersion::TEMPERATURES.contains(number))
        .ok_or("give 0 to 2".to_owned())
}

pub(crate) fn parse_var(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE, such as name=Ada".to_owned()),
    }
}
