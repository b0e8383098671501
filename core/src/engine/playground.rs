//! Trying prompts out: one render, one call, and a plain sentence where it fails.
//! Invariant: what is tried is recorded like any other use, marked `source: playground`.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::execute::ExecuteError;
use super::render::Render;
use crate::error::Error;
use crate::llm::{LlmClient, LlmError};
use crate::record::LlmExecution;
use crate::recorder::Recorded;
use crate::status::ErrorCategory;

/// Tries prompts out: renders one, sends it once, and waits for the whole answer.
///
/// # Example: one prompt, one model
/// ```
/// use prompt_engine_core::testkit::{Act, Scripted, reply};
/// use prompt_engine_core::{
///     Engine, MemoryStore, NewPrompt, PlaygroundExecutor, VersionDraft, params,
/// };
/// # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
/// let engine = Engine::builder().build(std::sync::Arc::new(MemoryStore::default())).await?;
/// let draft = VersionDraft { content: "Hello {{name}}".into(), ..VersionDraft::default() };
/// engine.prompts().create(NewPrompt::new("greet".parse()?, draft)).await?;
///
/// let client = Scripted::new([Act::Reply(reply("Hello to you!"))]);
/// let render = engine.render("greet", params! { "name" => "Ada" }).model("gpt-4o");
/// let tried = PlaygroundExecutor::new().execute(&client, render).await?;
/// assert_eq!(tried.response.as_deref(), Some("Hello to you!"));
/// assert_eq!((tried.provider.as_str(), tried.model.as_str()), ("openai", "gpt-4o"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PlaygroundExecutor {
    options: Map<String, Value>,
    timeout: Option<Duration>,
}

impl PlaygroundExecutor {
    /// One that passes nothing on, and waits as long as the client does.
    pub fn new() -> Self {
        Self::default()
    }

    /// Passes a field of the provider through as it is.
    #[must_use]
    pub fn option(mut self, name: impl Into<String>, value: Value) -> Self {
        self.options.insert(name.into(), value);
        self
    }

    /// Gives the call up after so long.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Makes `render`, sends it to `client` (which is of a provider and has the key), and waits for
    /// the whole answer.
    ///
    /// # Errors
    /// [`PlaygroundError::Prompt`] if the prompt cannot be rendered: nothing was sent. Otherwise
    /// [`PlaygroundError::Call`]; the failed call is recorded.
    pub async fn execute(
        &self,
        client: &dyn LlmClient,
        render: Render,
    ) -> Result<PlaygroundResult, PlaygroundError> {
        let render = render.metadata(json!({ "source": "playground" }));
        let rendered = render.await.map_err(PlaygroundError::Prompt)?;
        let mut execute = rendered.execute_with(client);
        if let Some(timeout) = self.timeout {
            execute = execute.timeout(timeout);
        }
        for (name, value) in &self.options {
            execute = execute.option(name, value.clone());
        }
        let done = execute.await.map_err(PlaygroundError::Call)?;
        let execution = done.execution;
        Ok(PlaygroundResult {
            response: done.reply.content,
            execution_time: Duration::from_millis(execution.latency_ms.unwrap_or(0)),
            token_count: execution.tokens.map(|tokens| tokens.total()),
            model: execution.model.to_string(),
            provider: execution.provider.to_string(),
            execution,
            recorded: done.recorded,
        })
    }
}

/// What came of a try.
#[derive(Debug, Clone)]
pub struct PlaygroundResult {
    /// The text of the answer; `None` where the model sent none, as when it calls tools.
    pub response: Option<String>,
    /// How long the call took, to the millisecond.
    pub execution_time: Duration,
    /// Input and output tokens together; `None` where the provider reported none.
    pub token_count: Option<u64>,
    /// The model that was asked.
    pub model: String,
    /// The provider that was asked.
    pub provider: String,
    /// The call as it was recorded, with its cost.
    pub execution: LlmExecution,
    /// What became of the record.
    pub recorded: Recorded,
}

/// Why a try failed. `Display` is one plain sentence, `source()` the rest.
#[derive(Debug)]
pub enum PlaygroundError {
    /// The prompt cannot be rendered.
    Prompt(Error),
    /// The call failed.
    Call(ExecuteError),
}

impl PlaygroundError {
    /// The call as it was recorded; `None` if nothing was sent.
    pub fn execution(&self) -> Option<&LlmExecution> {
        match self {
            Self::Prompt(_) => None,
            Self::Call(error) => error.execution(),
        }
    }
}

impl fmt::Display for PlaygroundError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = match self {
            Self::Prompt(error) => return error.fmt(f),
            Self::Call(error) => error.error(),
        };
        match (plain(error), error.category()) {
            (Some(sentence), _) => f.write_str(sentence),
            (None, ErrorCategory::Network) => write!(f, "Network error: {error}"),
            (None, ErrorCategory::Timeout) => write!(f, "The model took too long: {error}"),
            (None, _) => error.fmt(f),
        }
    }
}

/// The sentence that stands for whatever the provider said.
fn plain(error: &LlmError) -> Option<&'static str> {
    match error.category() {
        ErrorCategory::Authentication => Some("Invalid API key"),
        ErrorCategory::RateLimit => Some("Rate limit exceeded. Please try again later."),
        _ => None,
    }
}

impl std::error::Error for PlaygroundError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Prompt(error) => error.source(),
            Self::Call(error) if plain(error.error()).is_some() => Some(error.error()),
            Self::Call(error) => error.source(),
        }
    }
}
