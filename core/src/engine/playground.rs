//! Trying prompts out: one render, one call, and a plain sentence where it fails.
//! Invariant: what is tried is recorded like any other use, marked `source: playground`.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Engine;
use super::execute::ExecuteError;
use crate::error::Error;
use crate::llm::{LlmClient, LlmError};
use crate::record::LlmExecution;
use crate::recorder::Recorded;
use crate::status::ErrorCategory;
use crate::template::Params;

/// Tries prompts out. Get it from [`Engine::playground`].
///
/// # Example: one prompt, one model
/// ```
/// use prompt_engine_core::testkit::{Act, Scripted, reply};
/// use prompt_engine_core::{Engine, MemoryStore, NewPrompt, PlaygroundRequest, VersionDraft, params};
/// # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
/// let engine = Engine::builder().build(std::sync::Arc::new(MemoryStore::default())).await?;
/// let draft = VersionDraft { content: "Hello {{name}}".into(), ..VersionDraft::default() };
/// engine.prompts().create(NewPrompt::new("greet".parse()?, draft)).await?;
///
/// let client = Scripted::new([Act::Reply(reply("Hello to you!"))]);
/// let request = PlaygroundRequest::new("greet", params! { "name" => "Ada" }).model("gpt-4o");
/// let tried = engine.playground().execute(&client, request).await?;
/// assert_eq!(tried.response.as_deref(), Some("Hello to you!"));
/// assert_eq!((tried.provider.as_str(), tried.model.as_str()), ("openai", "gpt-4o"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct PlaygroundExecutor {
    engine: Engine,
}

/// What to try.
#[derive(Debug, Clone, Default, PartialEq)]
#[must_use = "nothing is tried until it is executed"]
pub struct PlaygroundRequest {
    slug: String,
    params: Params,
    version: Option<u32>,
    model: Option<String>,
    temperature: Option<f64>,
    max_tokens: Option<u32>,
    options: Map<String, Value>,
    timeout: Option<Duration>,
}

impl PlaygroundRequest {
    /// The prompt of `slug`, filled in with `params`: its active version or, without one, its latest.
    pub fn new(slug: impl Into<String>, params: impl Into<Params>) -> Self {
        Self { slug: slug.into(), params: params.into(), ..Self::default() }
    }

    /// Tries this version.
    pub fn version(mut self, number: u32) -> Self {
        self.version = Some(number);
        self
    }

    /// Asks this model in place of the version's.
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// Takes this temperature in place of the version's.
    pub fn temperature(mut self, temperature: f64) -> Self {
        self.temperature = Some(temperature);
        self
    }

    /// Takes this maximum of output tokens in place of the version's.
    pub fn max_tokens(mut self, max_tokens: u32) -> Self {
        self.max_tokens = Some(max_tokens);
        self
    }

    /// Passes a field of the provider through as it is.
    pub fn option(mut self, name: impl Into<String>, value: Value) -> Self {
        self.options.insert(name.into(), value);
        self
    }

    /// Gives the call up after so long.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

impl PlaygroundExecutor {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    /// Renders the prompt, sends it to `client` (which is of a provider and has the key), and waits
    /// for the whole answer.
    ///
    /// # Errors
    /// [`PlaygroundError::Prompt`] if the prompt cannot be rendered: nothing was sent. Otherwise
    /// [`PlaygroundError::Call`]; the failed call is recorded.
    pub async fn execute(
        &self,
        client: &dyn LlmClient,
        request: PlaygroundRequest,
    ) -> Result<PlaygroundResult, PlaygroundError> {
        let mut render = self.engine.render(request.slug, request.params);
        render = render.metadata(json!({ "source": "playground" }));
        if let Some(number) = request.version {
            render = render.version(number);
        }
        if let Some(model) = request.model {
            render = render.model(model);
        }
        if let Some(temperature) = request.temperature {
            render = render.temperature(temperature);
        }
        if let Some(max_tokens) = request.max_tokens {
            render = render.max_tokens(max_tokens);
        }
        let rendered = render.await.map_err(PlaygroundError::Prompt)?;
        let mut execute = rendered.execute_with(client);
        if let Some(timeout) = request.timeout {
            execute = execute.timeout(timeout);
        }
        for (name, value) in request.options {
            execute = execute.option(name, value);
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
