//! An engine with one prompt, and scripts.

use std::sync::{Arc, Mutex};

use prompt_engine_core::testkit::{Act, reply};
use prompt_engine_core::{
    Attempt, ChatReply, Engine, EngineBuilder, ErrorCategory, Label, LlmError, LlmExecution,
    MemoryStore, NewPrompt, Order, PageQuery, RecordQuery, RenderedPrompt, StreamEvent, ToolCall,
    ToolSpec, VersionDraft, params,
};
use serde_json::Value;

/// An engine over a store in memory, without prices, and its prompt `greet`, rendered.
pub(crate) async fn rendered() -> (Engine, RenderedPrompt) {
    rendered_by(Engine::builder().without_seed_prices()).await
}

/// The same by an engine of these settings.
pub(crate) async fn rendered_by(settings: EngineBuilder) -> (Engine, RenderedPrompt) {
    let engine = settings.build(Arc::new(MemoryStore::default())).await.unwrap();
    let draft = VersionDraft {
        content: "Hello {{name}}".to_owned(),
        system_message: Some("Be kind.".to_owned()),
        model: Some(Label::new("gpt-4o").unwrap()),
        temperature: Some(0.5),
        max_tokens: Some(50),
        ..VersionDraft::default()
    };
    engine.prompts().create(NewPrompt::new("greet".parse().unwrap(), draft)).await.unwrap();
    let rendered = engine.render("greet", params! { "name" => "Ada" }).await.unwrap();
    (engine, rendered)
}

/// All executions that are stored, the oldest first, with their payloads.
pub(crate) async fn executions(engine: &Engine) -> Vec<LlmExecution> {
    engine.flush().await;
    let query = RecordQuery {
        order: Order::OldestFirst,
        payloads: true,
        page: PageQuery { limit: 10_000, after: None },
        ..RecordQuery::default()
    };
    engine.store().list_executions(&query).await.unwrap().items
}

pub(crate) fn error(category: ErrorCategory) -> LlmError {
    LlmError::new(category, format!("it is {category}"))
}

pub(crate) fn fail(category: ErrorCategory) -> Act {
    Act::Fail(error(category))
}

pub(crate) fn say(text: &str) -> Act {
    Act::Reply(reply(text))
}

/// A reply that calls the tool `name`.
pub(crate) fn calls(name: &str, arguments: &str) -> ChatReply {
    let call = ToolCall {
        id: format!("call-{name}"),
        name: name.to_owned(),
        arguments: arguments.to_owned(),
        signature: Some("signed".to_owned()),
    };
    ChatReply { content: None, tool_calls: vec![call], ..reply("") }
}

pub(crate) fn text(text: &str) -> Result<StreamEvent, LlmError> {
    Ok(StreamEvent::Text(text.to_owned()))
}

pub(crate) fn end(reply: ChatReply) -> Result<StreamEvent, LlmError> {
    Ok(StreamEvent::End(Box::new(reply)))
}

/// A tool without parameters.
pub(crate) fn spec(name: &str) -> ToolSpec {
    ToolSpec::new(name, "A tool")
}

/// A list that listeners write into.
#[derive(Debug, Clone)]
pub(crate) struct Log<T>(Arc<Mutex<Vec<T>>>);

impl<T> Default for Log<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Log<T> {
    pub(crate) fn add(&self, line: T) {
        self.0.lock().unwrap().push(line);
    }

    pub(crate) fn take(&self) -> Vec<T> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// How an attempt ended: `2.1 openai/gpt-4o ok`.
pub(crate) fn line(attempt: &Attempt<'_>) -> String {
    let Attempt { provider, model, turn, number, outcome, .. } = attempt;
    let end = outcome.map_or_else(|error| error.category().to_string(), |_| "ok".to_owned());
    format!("{turn}.{number} {provider}/{model} {end}")
}

/// What a tool got as its arguments.
pub(crate) fn written(arguments: &Value) -> String {
    format!("got {arguments}")
}
