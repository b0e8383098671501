//! Recording for those who render or call models on their own.
//! Invariant: a handle is finished once; one that is dropped is recorded as cancelled.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::Engine;
use super::call::{Call, Finished, Measured, RecordedCall};
use super::render::extend;
use crate::error::{Error, Result};
use crate::id::{ExecutionId, UsageId};
use crate::label::Label;
use crate::llm::{ChatReply, ChatRequest, LlmError};
use crate::record::{Attribution, LlmExecution, Usage, UsagePayload};
use crate::recorder::Recorded;
use crate::slug::Slug;
use crate::time::Timestamp;

/// Records usages and executions. Get it from [`Engine::observability`].
///
/// In a durable engine each call gives the error that kept a record out of the store; in a
/// buffered one it gives none, and what became of the record is in the answer.
#[derive(Debug, Clone)]
pub struct ObservabilityService {
    engine: Engine,
}

/// A render that was made elsewhere.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UsageLog {
    /// The version that was rendered; the active one, unless set.
    pub version: Option<u32>,
    /// The values that were filled in.
    pub parameters: Map<String, Value>,
    /// The rendered text.
    pub content: String,
    /// The rendered system message.
    pub system_message: Option<String>,
    /// The session it belongs to.
    pub session: Option<Label>,
    /// The user it was done for.
    pub user: Option<Label>,
    /// The environment; the engine's, unless set.
    pub environment: Option<Label>,
    /// Anything else, added to the engine's default metadata.
    pub metadata: Value,
}

/// A usage that was logged: what executions are logged under.
#[derive(Debug, Clone)]
pub struct UsageHandle {
    id: UsageId,
    attribution: Attribution,
    recorded: Recorded,
}

impl UsageHandle {
    /// The id of the usage.
    pub fn id(&self) -> UsageId {
        self.id
    }

    /// What became of the record.
    pub fn recorded(&self) -> &Recorded {
        &self.recorded
    }
}

/// A call that is about to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct ExecutionLog {
    /// The provider.
    pub provider: Label,
    /// What is sent.
    pub request: ChatRequest,
    /// Anything else.
    pub metadata: Value,
}

/// A call that is under way. Finish it with [`ObservabilityService::update_execution`] or
/// [`ObservabilityService::log_execution_error`].
#[derive(Debug)]
#[must_use = "a handle that is dropped is recorded as cancelled"]
pub struct ExecutionHandle {
    call: Call,
}

impl ExecutionHandle {
    /// The id of the execution.
    pub fn id(&self) -> ExecutionId {
        self.call.id
    }

    /// Text that was streamed, or an empty one for a token that is no text, such as a part of a
    /// tool call: the first sets the time to the first token.
    pub fn saw(&mut self, text: &str) {
        self.call.saw(text);
    }
}

/// How a call ended well.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExecutionOutcome {
    /// What was answered.
    pub reply: ChatReply,
    /// The latency in milliseconds; the time since it was logged, unless set.
    pub latency_ms: Option<u64>,
    /// The time to the first token in milliseconds; as seen by [`ExecutionHandle::saw`], unless set.
    pub time_to_first_token_ms: Option<u64>,
}

impl ObservabilityService {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    /// Records a render that was made elsewhere.
    ///
    /// # Errors
    /// `NotFound` for an unknown prompt or version; in a durable engine also what kept it out of the store.
    pub async fn log_usage(&self, slug: &Slug, log: UsageLog) -> Result<UsageHandle> {
        let inner = &self.engine.inner;
        let prompt = inner.cache.prompt(&inner.store, slug, false).await?;
        let number = log.version.or(prompt.active_version).unwrap_or(prompt.latest_version);
        inner.cache.version(&inner.store, &prompt, number).await?;
        let attribution = Attribution {
            prompt: prompt.id,
            version: number,
            environment: log.environment.unwrap_or_else(|| inner.environment.clone()),
            session: log.session,
            user: log.user,
        };
        let mut metadata = inner.default_metadata.clone();
        extend(&mut metadata, log.metadata);
        let id = UsageId::new();
        let usage = Usage {
            id,
            attribution: attribution.clone(),
            created_at: Timestamp::now(),
            payload: Some(Arc::new(UsagePayload {
                parameters: log.parameters,
                content: log.content,
                system_message: log.system_message,
                metadata,
            })),
        };
        let recorded = inner.recorder.record(usage.into()).await;
        self.check(&recorded)?;
        Ok(UsageHandle { id, attribution, recorded })
    }

    /// Records a render that will not be executed: a preview, an export. It is a usage like any
    /// other, marked `render_only` in its metadata.
    ///
    /// # Errors
    /// As [`ObservabilityService::log_usage`].
    pub async fn log_render_only(&self, slug: &Slug, mut log: UsageLog) -> Result<UsageHandle> {
        let mut metadata = Map::new();
        extend(&mut metadata, log.metadata);
        metadata.insert("render_only".to_owned(), true.into());
        log.metadata = Value::Object(metadata);
        self.log_usage(slug, log).await
    }

    /// Records that a call is about to be sent: its time runs from here.
    pub async fn log_execution(&self, usage: &UsageHandle, log: ExecutionLog) -> ExecutionHandle {
        let mut metadata = Map::new();
        extend(&mut metadata, log.metadata);
        let call = Call::begin(
            &self.engine,
            ExecutionId::new(),
            usage.id,
            usage.attribution.clone(),
            log.provider,
            log.request.into(),
            metadata,
        )
        .await;
        ExecutionHandle { call }
    }

    /// Records how a call ended well, priced at the moment it was sent.
    ///
    /// # Errors
    /// In a durable engine, what kept it out of the store.
    pub async fn update_execution(
        &self,
        mut handle: ExecutionHandle,
        outcome: ExecutionOutcome,
    ) -> Result<LlmExecution> {
        let ExecutionOutcome { reply, latency_ms, time_to_first_token_ms } = outcome;
        let measured = Measured { latency_ms, time_to_first_token_ms };
        let finished = handle.call.succeed(&reply, measured);
        self.settle(finished).await
    }

    /// Records how a call failed.
    ///
    /// # Errors
    /// In a durable engine, what kept it out of the store.
    pub async fn log_execution_error(
        &self,
        mut handle: ExecutionHandle,
        error: &LlmError,
    ) -> Result<LlmExecution> {
        let finished = handle.call.fail(error, Measured::default());
        self.settle(finished).await
    }

    async fn settle(&self, finished: Option<Finished>) -> Result<LlmExecution> {
        let Some(finished) = finished else {
            return Err(Error::conflict("the execution was finished before"));
        };
        let RecordedCall { execution, recorded } = finished.settle().await;
        self.check(&recorded)?;
        Ok(execution)
    }

    fn check(&self, recorded: &Recorded) -> Result<()> {
        if self.engine.inner.durable { recorded.check() } else { Ok(()) }
    }
}
