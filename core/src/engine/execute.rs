//! Executing a rendered prompt with a model client: one LlmExecution for the physical call.
//! Invariant: the caller gets the client's own answer or error, whatever became of the record.

use std::fmt;
use std::future::IntoFuture;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::{Map, Value};
use tracing::Instrument;

use super::call::{Call, Finished, Measured};
use super::render::{RenderedPrompt, extend};
use super::stream::ExecutionStream;
use crate::label::Label;
use crate::llm::{ChatReply, ChatRequest, LlmClient, LlmError};
use crate::record::LlmExecution;
use crate::recorder::Recorded;
use crate::status::ErrorCategory;

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

    /// Gives the call up after so long; it is then recorded as a timeout.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    fn request(&mut self) -> Result<ChatRequest, ExecuteError> {
        let model = self.model.take().or_else(|| self.rendered.model().map(str::to_owned));
        let model = model.ok_or_else(|| {
            let slug = self.rendered.slug();
            let message = format!("the prompt `{slug}` names no model, and neither does the call");
            ExecuteError {
                error: LlmError::new(ErrorCategory::InvalidRequest, message),
                recorded: None,
            }
        })?;
        Ok(ChatRequest {
            model,
            messages: self.rendered.messages(),
            temperature: self.rendered.temperature(),
            max_tokens: self.rendered.max_tokens(),
            extra: std::mem::take(&mut self.extra),
            ..ChatRequest::default()
        })
    }

    async fn begin(&mut self, request: &ChatRequest) -> Call {
        Call::begin(
            &self.rendered.engine,
            self.rendered.usage_id(),
            self.rendered.attribution.clone(),
            Label::lossy(self.client.provider()),
            request,
            std::mem::take(&mut self.metadata),
        )
        .await
    }

    async fn run(mut self) -> Result<Executed, ExecuteError> {
        let request = self.request()?;
        let mut call = self.begin(&request).await;
        let answer = self.client.chat(&request).instrument(call.span().clone());
        let answer = within(self.timeout, answer).await;
        let measured = Measured::default();
        match answer {
            Ok(reply) => {
                let (execution, recorded) = settled(call.succeed(&reply, measured)).await;
                Ok(Executed { execution, reply, recorded })
            }
            Err(error) => {
                let recorded = settled(call.fail(&error, measured)).await;
                Err(ExecuteError { error, recorded: Some(Box::new(recorded)) })
            }
        }
    }

    /// Sends it and gives the answer as it is made.
    ///
    /// # Errors
    /// The client's, if the stream cannot be started; the failed call is recorded.
    pub async fn stream(mut self) -> Result<ExecutionStream, ExecuteError> {
        let request = self.request()?;
        let mut call = self.begin(&request).await;
        let now = tokio::time::Instant::now();
        let deadline = self.timeout.and_then(|timeout| Some((now.checked_add(timeout)?, timeout)));
        let answer = self.client.stream(&request).instrument(call.span().clone());
        match within(self.timeout, answer).await {
            Ok(stream) => Ok(ExecutionStream::new(call, stream, deadline)),
            Err(error) => {
                let recorded = settled(call.fail(&error, Measured::default())).await;
                Err(ExecuteError { error, recorded: Some(Box::new(recorded)) })
            }
        }
    }
}

async fn settled(finished: Option<Finished>) -> (LlmExecution, Recorded) {
    match finished {
        Some(finished) => finished.settle().await,
        None => unreachable!("a call is finished once, by whoever holds it"),
    }
}

async fn within<T>(
    timeout: Option<Duration>,
    answer: impl Future<Output = Result<T, LlmError>>,
) -> Result<T, LlmError> {
    match timeout {
        None => answer.await,
        Some(timeout) => match tokio::time::timeout(timeout, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(too_late(timeout)),
        },
    }
}

pub(super) fn too_late(timeout: Duration) -> LlmError {
    LlmError::new(ErrorCategory::Timeout, format!("no answer within {timeout:?}"))
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
}

/// A call that failed. `Display` is the client's own sentence.
#[derive(Debug)]
pub struct ExecuteError {
    error: LlmError,
    recorded: Option<Box<(LlmExecution, Recorded)>>,
}

impl ExecuteError {
    /// What the client said.
    pub fn error(&self) -> &LlmError {
        &self.error
    }

    /// The call as it was recorded; `None` if nothing was sent.
    pub fn execution(&self) -> Option<&LlmExecution> {
        self.recorded.as_deref().map(|(execution, _)| execution)
    }

    /// What became of the record; `None` if nothing was sent.
    pub fn recorded(&self) -> Option<&Recorded> {
        self.recorded.as_deref().map(|(_, recorded)| recorded)
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
