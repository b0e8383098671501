//! One physical call under way, told of once it ends: to the recorder, where a prompt is executed,
//! and to those who listen for attempts.
//! Invariant: each call is told of exactly once; one that is dropped is told of as cancelled.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::OptionFuture;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::engine::{Call, Finished, Measured, RenderedPrompt, Settling, extend};
use crate::id::ExecutionId;
use crate::label::Label;
use crate::listeners::tell;
use crate::llm::{ChatReply, ChatRequest, LlmError, StreamEvent};
use crate::tokens::TokenCounts;

/// One physical call to a model that has ended, however it did.
#[derive(Debug, Clone)]
pub struct Attempt<'a> {
    /// The id of the call; that of its [`LlmExecution`](crate::LlmExecution) where a prompt is executed.
    pub id: ExecutionId,
    /// The provider that was asked.
    pub provider: &'a str,
    /// The model that was asked.
    pub model: &'a str,
    /// The turn of the conversation that it was for, from 1 for each question.
    pub turn: u32,
    /// Its number within the turn, from 1: a retry and a fallback count on.
    pub number: u32,
    /// What was sent.
    pub request: &'a ChatRequest,
    /// What was answered, or why it failed. Whoever dropped the call cancelled it.
    pub outcome: Result<&'a ChatReply, &'a LlmError>,
    /// The time from the request to the end.
    pub latency: Duration,
    /// The time from the request to the first token, text or not; `None` where none was streamed.
    pub time_to_first_token: Option<Duration>,
}

/// Someone who is told of every attempt.
pub(crate) type AttemptListener = Arc<dyn Fn(&Attempt<'_>) + Send + Sync>;

/// What executions are recorded under.
#[derive(Debug, Clone)]
pub(crate) struct Recording<'a> {
    pub(crate) rendered: &'a RenderedPrompt,
    pub(crate) metadata: Map<String, Value>,
}

/// A call that is about to be sent.
#[derive(Debug)]
pub(super) struct Departure<'a> {
    pub(super) provider: &'a str,
    pub(super) request: Arc<ChatRequest>,
    pub(super) turn: u32,
    pub(super) number: u32,
}

pub(crate) struct Flight {
    id: ExecutionId,
    call: Option<Call>,
    /// Taken when the call has ended.
    told: Option<Told>,
    started: Instant,
    first_token: Option<Duration>,
    heard: Heard,
}

/// What the provider told of a call before its end.
#[derive(Default)]
struct Heard {
    http_status: Option<u16>,
    request_id: Option<String>,
    used: Option<TokenCounts>,
}

struct Told {
    listeners: Arc<[AttemptListener]>,
    provider: Label,
    request: Arc<ChatRequest>,
    turn: u32,
    number: u32,
}

impl Flight {
    pub(super) async fn begin(
        departure: Departure<'_>,
        recording: Option<&Recording<'_>>,
        listeners: Arc<[AttemptListener]>,
    ) -> Self {
        let id = ExecutionId::new();
        let Departure { provider, request, turn, number } = departure;
        let provider = Label::lossy(provider);
        let call = match recording {
            Some(Recording { rendered, metadata }) => {
                let (provider, request) = (provider.clone(), Arc::clone(&request));
                Some(rendered.begin(id, provider, request, metadata.clone()).await)
            }
            None => None,
        };
        let told = Told { listeners, provider, request, turn, number };
        let (started, heard) = (Instant::now(), Heard::default());
        Self { id, call, told: Some(told), started, first_token: None, heard }
    }

    pub(crate) fn id(&self) -> ExecutionId {
        self.id
    }

    pub(super) fn span(&self) -> tracing::Span {
        self.call.as_ref().map_or_else(tracing::Span::none, |call| call.span().clone())
    }

    /// Notes what an event tells beside the answer.
    pub(super) fn hear(&mut self, event: &StreamEvent) {
        match event {
            StreamEvent::Head { http_status, request_id } => {
                self.heard.http_status = *http_status;
                self.heard.request_id.clone_from(request_id);
            }
            StreamEvent::Started { model, .. } => {
                if let Some(call) = &mut self.call {
                    call.started(model.as_deref());
                }
            }
            StreamEvent::Usage(tokens) => self.heard.used = Some(*tokens),
            StreamEvent::Token | StreamEvent::Text(_) | StreamEvent::End(_) => {}
        }
    }

    /// Text that was streamed; empty for a token that is no text.
    pub(super) fn saw(&mut self, text: &str) {
        self.first_token.get_or_insert_with(|| self.started.elapsed());
        if let Some(call) = &mut self.call {
            call.saw(text);
        }
    }

    /// The same error with what was heard before it.
    pub(super) fn mark(&self, error: LlmError) -> LlmError {
        self.heard.mark(error)
    }

    /// Ends the call; what this returns hands its record over.
    pub(super) fn end(&mut self, outcome: Result<&ChatReply, &LlmError>) -> OptionFuture<Settling> {
        self.tell(outcome);
        let finished = self.call.as_mut().and_then(|call| match outcome {
            Ok(reply) => call.succeed(reply, Measured::default()),
            Err(error) => call.fail(error, Measured::default()),
        });
        finished.map(Finished::settle).into()
    }

    fn tell(&mut self, outcome: Result<&ChatReply, &LlmError>) {
        let Some(told) = self.told.take().filter(|told| !told.listeners.is_empty()) else { return };
        let attempt = Attempt {
            id: self.id,
            provider: &told.provider,
            model: &told.request.model,
            turn: told.turn,
            number: told.number,
            request: &told.request,
            outcome,
            latency: self.started.elapsed(),
            time_to_first_token: self.first_token,
        };
        tell(&told.listeners, "on_attempt", |listener| listener(&attempt));
    }
}

impl Heard {
    fn mark(&self, mut error: LlmError) -> LlmError {
        let Self { http_status, request_id, used } = self;
        if let (None, Some(status)) = (error.http_status(), http_status) {
            error = error.with_http_status(*status);
        }
        let used = used.filter(|_| error.tokens().is_none());
        if request_id.is_none() && used.is_none() {
            return error;
        }
        let mut metadata = Map::new();
        metadata.extend(request_id.iter().map(|id| ("request_id".to_owned(), json!(id))));
        // Not the tokens of the call: what it used beyond these, nobody said.
        metadata.extend(used.map(|used| ("usage_so_far".to_owned(), json!(used))));
        extend(&mut metadata, error.metadata().clone());
        error.with_metadata(Value::Object(metadata))
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.told.is_none() {
            return;
        }
        let error = self.mark(LlmError::cancelled());
        self.tell(Err(&error));
        let finished = self.call.as_mut().and_then(|call| call.fail(&error, Measured::default()));
        if let Some(finished) = finished {
            finished.hand_over();
        }
    }
}

impl fmt::Debug for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight").field("id", &self.id).finish_non_exhaustive()
    }
}
