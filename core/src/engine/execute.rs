//! Executing a rendered prompt with a model client: one LlmExecution for each physical call.
//! Invariant: the caller gets the client's own answer or error, whatever became of the record.

use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::{Map, Value};

use super::call::RecordedCall;
use super::render::{RenderedPrompt, extend};
use super::stream::ExecutionStream;
use crate::attempts::{Attempts, Limits, Live, Recording, Target, Way};
use crate::llm::{ChatReply, ChatRequest, LlmClient, LlmError};
use crate::record::LlmExecution;
use crate::recorder::Recorded;
use crate::retry::RetryPolicy;
use crate::status::ErrorCategory;

/// What a rendered prompt can be executed with: any [`LlmClient`], or a [`Chat`](crate::Chat).
pub trait Executor {
    /// The call about to be made: set what differs, then await or stream it.
    type Execution<'a>
    where
        Self: 'a;

    /// What [`RenderedPrompt::execute_with`] returns.
    fn execute<'a>(&'a self, rendered: &'a RenderedPrompt) -> Self::Execution<'a>;
}

impl<C: LlmClient> Executor for C {
    type Execution<'a> = Execute<'a>;

    fn execute<'a>(&'a self, rendered: &'a RenderedPrompt) -> Execute<'a> {
        Execute::new(rendered, self)
    }
}

impl Executor for dyn LlmClient {
    type Execution<'a> = Execute<'a>;

    fn execute<'a>(&'a self, rendered: &'a RenderedPrompt) -> Execute<'a> {
        Execute::new(rendered, self)
    }
}

/// A call about to be made: set what differs, then await it, or [`Execute::stream`] it.
#[derive(Debug)]
#[must_use = "nothing is sent until it is awaited or streamed"]
pub struct Execute<'a> {
    rendered: &'a RenderedPrompt,
    client: &'a dyn LlmClient,
    model: Option<String>,
    metadata: Map<String, Value>,
    extra: Map<String, Value>,
    timeout: Option<Duration>,
    first_token: Option<Duration>,
    retries: RetryPolicy,
}

impl<'a> Execute<'a> {
    pub(super) fn new(rendered: &'a RenderedPrompt, client: &'a dyn LlmClient) -> Self {
        Self {
            rendered,
            client,
            model: None,
            metadata: Map::new(),
            extra: Map::new(),
            timeout: None,
            first_token: None,
            retries: RetryPolicy::none(),
        }
    }

    /// Asks this model in place of the rendered prompt's.
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// Adds the fields of a JSON object to the metadata of the execution.
    pub fn metadata(mut self, metadata: Value) -> Self {
        extend(&mut self.metadata, metadata);
        self
    }

    /// Passes a field of the provider through as it is: `tools`, `response_format`, `service_tier`.
    pub fn option(mut self, name: impl Into<String>, value: Value) -> Self {
        self.extra.insert(name.into(), value);
        self
    }

    /// Gives up after so long, retries included; the call under way is then recorded as a timeout.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Gives each streamed call up that has no token after so long, of text or of anything else; it
    /// is recorded as a timeout.
    pub fn first_token_timeout(mut self, timeout: Duration) -> Self {
        self.first_token = Some(timeout);
        self
    }

    /// Makes calls again that fail for a reason that passes, each with an execution of its own.
    /// Without it, one call is made. A stream is never begun again after its first token.
    ///
    /// # Example: a model that is busy once
    /// ```
    /// # use std::sync::Arc;
    /// # use prompt_engine_core::testkit::{self, Act, Scripted};
    /// # use prompt_engine_core::{Engine, ErrorCategory, LlmError, MemoryStore, RetryPolicy, Status, params};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
    /// # let engine = Engine::builder().build(Arc::new(MemoryStore::new())).await?;
    /// # let (prompt, version) = testkit::prompt("greet");
    /// # engine.store().insert_prompt(&prompt, &[version]).await?;
    /// let busy = LlmError::new(ErrorCategory::Overloaded, "no capacity");
    /// let client = Scripted::new([Act::Fail(busy), Act::Reply(testkit::reply("Hello!"))]);
    /// let rendered = engine.render("greet", params! { "name" => "Ada", "item_count" => 3 }).await?;
    /// let done = rendered.execute_with(&client).retries(RetryPolicy::default()).await.unwrap();
    /// assert_eq!(done.earlier[0].execution.status, Status::Error);
    /// assert_eq!(done.execution.status, Status::Success);
    /// # Ok::<(), prompt_engine_core::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn retries(mut self, policy: RetryPolicy) -> Self {
        self.retries = policy;
        self
    }

    /// Makes calls until one answers. Gives the calls that failed before it, too.
    async fn answer(self, way: Way) -> Result<(Live, Vec<RecordedCall>), ExecuteError> {
        let Some(model) = self.model.as_deref().or(self.rendered.model()) else {
            let slug = self.rendered.slug();
            let message = format!("the prompt `{slug}` names no model, and neither does the call");
            let error = LlmError::new(ErrorCategory::InvalidRequest, message);
            return Err(ExecuteError { error, calls: Vec::new() });
        };
        let mut attempts = Attempts {
            targets: vec![Target { client: self.client, model }],
            retries: &self.retries,
            way,
            limits: Limits::default().with_timeout(self.timeout, "whole answer"),
            first_token: self.first_token,
            recording: Some(Recording { rendered: self.rendered, metadata: self.metadata }),
            listeners: Arc::default(),
            turn: 1,
            calls: Vec::new(),
        };
        let request = ChatRequest {
            temperature: self.rendered.temperature(),
            max_tokens: self.rendered.max_tokens(),
            extra: self.extra,
            ..ChatRequest::new(model, self.rendered.messages())
        };
        match attempts.ask(request).await {
            Ok(live) => Ok((live, attempts.calls)),
            Err(error) => Err(ExecuteError { error, calls: attempts.calls }),
        }
    }

    async fn run(self) -> Result<Executed, ExecuteError> {
        let (mut live, mut calls) = self.answer(Way::Whole).await?;
        let reply = live.reply().await;
        let call = live.into_call();
        match (reply, call) {
            (Ok(reply), Some(RecordedCall { execution, recorded })) => {
                Ok(Executed { execution, reply, recorded, earlier: calls })
            }
            (Ok(_), None) => unreachable!("an answer was read to its end, and so recorded"),
            (Err(error), call) => {
                calls.extend(call);
                Err(ExecuteError { error, calls })
            }
        }
    }

    /// Sends it and gives the answer as it is made, once its first token is there.
    ///
    /// # Errors
    /// The client's, if there is no first token; the failed calls are recorded.
    pub async fn stream(self) -> Result<ExecutionStream, ExecuteError> {
        let (live, earlier) = self.answer(Way::Streamed).await?;
        Ok(ExecutionStream::new(live, earlier))
    }
}

impl<'a> IntoFuture for Execute<'a> {
    type Output = Result<Executed, ExecuteError>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// A call that was answered.
#[derive(Debug, Clone)]
pub struct Executed {
    /// The call as it was recorded.
    pub execution: LlmExecution,
    /// What the model answered.
    pub reply: ChatReply,
    /// What became of the record.
    pub recorded: Recorded,
    /// The calls that failed before it, in order: see [`Execute::retries`].
    pub earlier: Vec<RecordedCall>,
}

/// A call that failed. `Display` is the client's own sentence.
#[derive(Debug)]
pub struct ExecuteError {
    error: LlmError,
    calls: Vec<RecordedCall>,
}

impl ExecuteError {
    /// What the client said the last time.
    pub fn error(&self) -> &LlmError {
        &self.error
    }

    /// The last call as it was recorded; `None` if nothing was sent.
    pub fn execution(&self) -> Option<&LlmExecution> {
        self.calls.last().map(|call| &call.execution)
    }

    /// What became of its record; `None` if nothing was sent.
    pub fn recorded(&self) -> Option<&Recorded> {
        self.calls.last().map(|call| &call.recorded)
    }

    /// All calls that were made, in order, each of which failed.
    pub fn calls(&self) -> &[RecordedCall] {
        &self.calls
    }

    /// The client's error alone.
    pub fn into_error(self) -> LlmError {
        self.error
    }
}

impl fmt::Display for ExecuteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for ExecuteError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}
