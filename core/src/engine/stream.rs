//! A streamed answer that records itself: at its end, at its failure, or when it is dropped.
//! Invariant: the last item comes after the record is handed over.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::{Stream, StreamExt};

use super::call::RecordedCall;
use crate::attempts::Live;
use crate::id::ExecutionId;
use crate::llm::{ChatReply, LlmError, StreamEvent};
use crate::record::LlmExecution;
use crate::recorder::Recorded;

/// The answer of a model as it is made. Dropping it ends the call, which is then recorded as
/// cancelled with the text that was seen.
#[derive(Debug)]
pub struct ExecutionStream {
    live: Live,
    earlier: Vec<RecordedCall>,
}

impl ExecutionStream {
    pub(super) fn new(live: Live, earlier: Vec<RecordedCall>) -> Self {
        Self { live, earlier }
    }

    /// The id of the execution.
    pub fn execution_id(&self) -> ExecutionId {
        self.live.execution_id()
    }

    /// The call as it was recorded; `None` until the stream has ended.
    pub fn execution(&self) -> Option<&LlmExecution> {
        self.live.call().map(|call| &call.execution)
    }

    /// What became of the record; `None` until the stream has ended.
    pub fn recorded(&self) -> Option<&Recorded> {
        self.live.call().map(|call| &call.recorded)
    }

    /// The calls that failed before this one, in order: see [`Execute::retries`](crate::Execute::retries).
    pub fn earlier(&self) -> &[RecordedCall] {
        &self.earlier
    }

    /// Reads the rest of the stream and gives the whole reply.
    ///
    /// # Errors
    /// What the client says when the stream fails.
    pub async fn reply(&mut self) -> Result<ChatReply, LlmError> {
        self.live.reply().await
    }
}

impl Stream for ExecutionStream {
    type Item = Result<StreamEvent, LlmError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.live.poll_next_unpin(cx)
    }
}
