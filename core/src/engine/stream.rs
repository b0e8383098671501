//! A streamed answer that records itself: at its end, at its failure, or when it is dropped.
//! Invariant: the last item comes after the record is handed over.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use tokio::time::{Instant, Sleep};

use super::call::{Call, Finished, Measured};
use super::execute::too_late;
use crate::id::ExecutionId;
use crate::llm::{ChatReply, ChatStream, LlmError, StreamEvent};
use crate::record::LlmExecution;
use crate::recorder::Recorded;
use crate::status::ErrorCategory;

type Item = Result<StreamEvent, LlmError>;

/// The answer of a model as it is made. Dropping it ends the call, which is then recorded as
/// cancelled with the text that was seen.
pub struct ExecutionStream {
    call: Call,
    stream: Option<ChatStream>,
    deadline: Option<(Pin<Box<Sleep>>, Duration)>,
    settling: Option<(BoxFuture<'static, (LlmExecution, Recorded)>, Item)>,
    finished: Option<(LlmExecution, Recorded)>,
}

impl ExecutionStream {
    pub(super) fn new(
        call: Call,
        stream: ChatStream,
        deadline: Option<(Instant, Duration)>,
    ) -> Self {
        let deadline =
            deadline.map(|(at, timeout)| (Box::pin(tokio::time::sleep_until(at)), timeout));
        Self { call, stream: Some(stream), deadline, settling: None, finished: None }
    }

    /// The id of the execution.
    pub fn execution_id(&self) -> ExecutionId {
        self.call.id
    }

    /// The call as it was recorded; `None` until the stream has ended.
    pub fn execution(&self) -> Option<&LlmExecution> {
        self.finished.as_ref().map(|(execution, _)| execution)
    }

    /// What became of the record; `None` until the stream has ended.
    pub fn recorded(&self) -> Option<&Recorded> {
        self.finished.as_ref().map(|(_, recorded)| recorded)
    }

    /// Reads the rest of the stream and gives the whole reply.
    ///
    /// # Errors
    /// What the client says when the stream fails.
    pub async fn reply(&mut self) -> Result<ChatReply, LlmError> {
        while let Some(event) = self.next().await {
            if let StreamEvent::End(reply) = event? {
                return Ok(*reply);
            }
        }
        Err(LlmError::new(ErrorCategory::Other, "the stream was read to its end before"))
    }

    /// Starts to settle a finished call; `item` is given once that is done.
    fn settle(&mut self, finished: Option<Finished>, item: Item) {
        self.stream = None;
        self.deadline = None;
        if let Some(finished) = finished {
            self.settling = Some((finished.settle().boxed(), item));
        }
    }

    fn fail(&mut self, error: LlmError) {
        let finished = self.call.fail(&error, Measured::default());
        self.settle(finished, Err(error));
    }
}

impl Stream for ExecutionStream {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        let this = &mut *self;
        loop {
            if let Some((settled, _)) = &mut this.settling {
                let Poll::Ready(finished) = settled.poll_unpin(cx) else { return Poll::Pending };
                this.finished = Some(finished);
                return Poll::Ready(this.settling.take().map(|(_, item)| item));
            }
            let Some(stream) = &mut this.stream else { return Poll::Ready(None) };
            let span = this.call.span().clone();
            let polled = span.in_scope(|| stream.poll_next_unpin(cx));
            match polled {
                Poll::Ready(Some(Ok(StreamEvent::End(reply)))) => {
                    let finished = this.call.succeed(&reply, Measured::default());
                    this.settle(finished, Ok(StreamEvent::End(reply)));
                }
                Poll::Ready(Some(Ok(event))) => {
                    match &event {
                        StreamEvent::Started { model, .. } => this.call.started(model.as_deref()),
                        StreamEvent::Text(text) => this.call.saw(text),
                        StreamEvent::End(_) => {}
                    }
                    return Poll::Ready(Some(Ok(event)));
                }
                Poll::Ready(Some(Err(error))) => this.fail(error),
                Poll::Ready(None) => this.fail(LlmError::new(
                    ErrorCategory::Network,
                    "the stream ended before the answer was whole",
                )),
                Poll::Pending => {
                    let Some((sleep, timeout)) = &mut this.deadline else { return Poll::Pending };
                    if sleep.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    let timeout = *timeout;
                    this.fail(too_late(timeout));
                }
            }
        }
    }
}

impl fmt::Debug for ExecutionStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecutionStream").field("call", &self.call).finish_non_exhaustive()
    }
}
