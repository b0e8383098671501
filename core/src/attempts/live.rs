//! An answer as it comes. A whole answer is a stream, too, of a head and an end, so all calls end here.
//! Invariant: the last item comes after the call was told of and its record handed over.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::future::{BoxFuture, OptionFuture};
use futures::{FutureExt, Stream, StreamExt};

use super::flight::Flight;
use super::limits::Limits;
use crate::engine::{RecordedCall, Settling};
use crate::id::ExecutionId;
use crate::llm::{ChatReply, ChatStream, LlmError, StreamEvent};
use crate::status::ErrorCategory;

type Item = Result<StreamEvent, LlmError>;

pub(crate) struct Live {
    flight: Flight,
    /// Taken when the call has ended.
    stream: Option<ChatStream>,
    /// Events that were read while the first token was waited for; maybe the end.
    ahead: VecDeque<StreamEvent>,
    limits: Limits,
    /// Ends when one of `limits` is reached; made when it is first waited for.
    limit: Option<BoxFuture<'static, LlmError>>,
    settling: Option<(OptionFuture<Settling>, Item)>,
    call: Option<RecordedCall>,
}

impl Live {
    pub(super) fn new(flight: Flight, stream: ChatStream) -> Self {
        Self {
            flight,
            stream: Some(stream),
            ahead: VecDeque::new(),
            limits: Limits::default(),
            limit: None,
            settling: None,
            call: None,
        }
    }

    fn limit_by(&mut self, limits: &Limits) {
        self.limits = limits.clone();
        self.limit = None;
    }

    pub(crate) fn execution_id(&self) -> ExecutionId {
        self.flight.id()
    }

    /// The call as it was recorded, once it has ended.
    pub(crate) fn call(&self) -> Option<&RecordedCall> {
        self.call.as_ref()
    }

    pub(crate) fn into_call(mut self) -> Option<RecordedCall> {
        self.call.take()
    }

    /// Reads on until there is a first token, or the end of an answer without one, within `first`;
    /// from there on `rest` holds. What was read is still the caller's to read.
    pub(super) async fn first_token(
        &mut self,
        first: &Limits,
        rest: &Limits,
    ) -> Result<(), LlmError> {
        self.limit_by(first);
        loop {
            match poll_fn(|cx| self.poll_event(cx)).await {
                Ok(event) => {
                    use StreamEvent::{End, Text, Token};
                    let there = matches!(event, Token | Text(_) | End(_));
                    self.ahead.push_back(event);
                    if there {
                        break;
                    }
                }
                Err(error) => {
                    self.end(Err(error));
                    return self.next().await.unwrap_or_else(|| Err(broken())).map(drop);
                }
            }
        }
        self.limit_by(rest);
        Ok(())
    }

    /// Reads the rest and gives the whole reply.
    pub(crate) async fn reply(&mut self) -> Result<ChatReply, LlmError> {
        while let Some(event) = self.next().await {
            if let StreamEvent::End(reply) = event? {
                return Ok(*reply);
            }
        }
        Err(LlmError::new(ErrorCategory::Other, "the stream was read to its end before"))
    }

    /// What the client sends next, or what ends the call before.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Item> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(broken())) };
        let item = match self.flight.span().in_scope(|| stream.poll_next_unpin(cx)) {
            Poll::Ready(Some(Ok(event))) => {
                // It counts however late it is.
                self.flight.hear(&event);
                match event {
                    // What a whole answer consists of.
                    StreamEvent::Head { .. } | StreamEvent::End(_) => Ok(event),
                    _ => self.limits.passed().map_or(Ok(event), Err),
                }
            }
            Poll::Ready(item) => item.unwrap_or_else(|| Err(broken())),
            Poll::Pending => {
                let limit = self.limit.get_or_insert_with(|| self.limits.reached());
                Err(ready!(limit.poll_unpin(cx)))
            }
        };
        match &item {
            Ok(StreamEvent::Token) => self.flight.saw(""),
            Ok(StreamEvent::Text(text)) => self.flight.saw(text),
            _ => {}
        }
        Poll::Ready(item)
    }

    /// Ends the call; the last item is given once its record is handed over.
    fn end(&mut self, outcome: Result<Box<ChatReply>, LlmError>) {
        let outcome = outcome.map_err(|error| self.flight.mark(error));
        self.stream = None;
        self.ahead.clear();
        let settled = self.flight.end(outcome.as_deref());
        self.settling = Some((settled, outcome.map(StreamEvent::End)));
    }
}

fn broken() -> LlmError {
    LlmError::new(ErrorCategory::Network, "the stream ended before the answer was whole")
}

impl Stream for Live {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        let this = &mut *self;
        loop {
            if let Some((settled, _)) = &mut this.settling {
                this.call = ready!(settled.poll_unpin(cx));
                return Poll::Ready(this.settling.take().map(|(_, item)| item));
            }
            if this.stream.is_none() {
                return Poll::Ready(None);
            }
            let item = match this.ahead.pop_front() {
                Some(event) => Ok(event),
                None => ready!(this.poll_event(cx)),
            };
            match item {
                Ok(StreamEvent::End(reply)) => this.end(Ok(reply)),
                Err(error) => this.end(Err(error)),
                event => return Poll::Ready(Some(event)),
            }
        }
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("flight", &self.flight).finish_non_exhaustive()
    }
}
