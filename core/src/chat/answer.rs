//! What a chat gives back: the answer, the error, and the events of an answer as it is made.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::channel::mpsc;
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use serde::de::DeserializeOwned;

use crate::engine::RecordedCall;
use crate::error::{Error, Result};
use crate::llm::{ChatReply, LlmError, Message, ToolCall};
use crate::status::ErrorCategory;

/// What a chat answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The last reply of the model, which called no tools.
    pub reply: ChatReply,
    /// What was said after the question, in order: the calls of tools, their results, the reply.
    pub messages: Vec<Message>,
    /// Every physical call as it was recorded, in order, failed ones too; none where the chat was
    /// asked without a rendered prompt.
    pub calls: Vec<RecordedCall>,
}

impl Answer {
    /// The text of the reply; empty where there is none.
    pub fn text(&self) -> &str {
        self.reply.content.as_deref().unwrap_or_default()
    }

    /// The text of the reply as a value of `T`, such as [`serde_json::Value`]: for a chat with a schema.
    ///
    /// # Errors
    /// `Invalid` if the text is no JSON of a `T`, or there is none.
    ///
    /// # Example: an answer of two fields
    /// ```
    /// use prompt_engine_core::{Answer, ChatReply};
    /// #[derive(serde::Deserialize)]
    /// struct City { name: String, people: u64 }
    ///
    /// let reply = ChatReply { content: Some(r#"{"name": "Oslo", "people": 700000}"#.into()), ..ChatReply::default() };
    /// let answer = Answer { reply, messages: Vec::new(), calls: Vec::new() };
    /// let city: City = answer.json()?;
    /// assert_eq!((city.name.as_str(), city.people), ("Oslo", 700_000));
    /// # Ok::<(), prompt_engine_core::Error>(())
    /// ```
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        let Some(text) = self.reply.content.as_deref().filter(|text| !text.trim().is_empty())
        else {
            return Err(Error::invalid("the model answered no text, where JSON was expected"));
        };
        serde_json::from_str(text).map_err(|error| {
            Error::invalid(format!("the answer is not the JSON that was expected: {error}"))
                .with_source(error)
        })
    }
}

/// Why a chat gave no answer. `Display` is one sentence, the client's own where it failed.
#[derive(Debug)]
pub struct ChatError(Box<Details>);

#[derive(Debug)]
struct Details {
    cause: Cause,
    messages: Vec<Message>,
    calls: Vec<RecordedCall>,
}

#[derive(Debug)]
pub(super) enum Cause {
    Llm(LlmError),
    ToolLimit(u32),
}

impl From<LlmError> for Cause {
    fn from(error: LlmError) -> Self {
        Self::Llm(error)
    }
}

impl ChatError {
    pub(super) fn new(cause: Cause, messages: Vec<Message>, calls: Vec<RecordedCall>) -> Self {
        Self(Box::new(Details { cause, messages, calls }))
    }

    /// Why it failed, to branch on: `other` where the limit of tool turns was reached.
    pub fn category(&self) -> ErrorCategory {
        self.error().map_or(ErrorCategory::Other, LlmError::category)
    }

    /// What the client said the last time, or the timeout or cancellation that ended the chat.
    pub fn error(&self) -> Option<&LlmError> {
        match &self.0.cause {
            Cause::Llm(error) => Some(error),
            Cause::ToolLimit(_) => None,
        }
    }

    /// The limit, where the model wanted to call tools in more turns than it may.
    pub fn tool_limit(&self) -> Option<u32> {
        match self.0.cause {
            Cause::Llm(_) => None,
            Cause::ToolLimit(limit) => Some(limit),
        }
    }

    /// What was said after the question in turns that were whole.
    pub fn messages(&self) -> &[Message] {
        &self.0.messages
    }

    /// Every physical call as it was recorded, in order; see [`Answer::calls`].
    pub fn calls(&self) -> &[RecordedCall] {
        &self.0.calls
    }
}

impl fmt::Display for ChatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.cause {
            Cause::Llm(error) => error.fmt(f),
            Cause::ToolLimit(limit) => {
                write!(f, "the model still calls tools after {limit} turns, which is the limit")
            }
        }
    }
}

impl std::error::Error for ChatError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error().and_then(std::error::Error::source)
    }
}

/// A part of an answer that is being made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ChatEvent {
    /// The next piece of text, never empty.
    Text(String),
    /// The model calls a tool.
    ToolCall(ToolCall),
    /// The result that the model is told, a message of the role `tool`.
    ToolResult(Message),
    /// The answer, text included; last, and always there on success.
    Answer(Box<Answer>),
}

/// An answer as it is made: a [`Stream`] that ends with [`ChatEvent::Answer`] or one error.
/// Dropping it cancels what is under way.
pub struct AnswerStream<'a> {
    /// Taken when it has ended. It works on only while the stream is polled.
    run: Option<BoxFuture<'a, Result<Answer, ChatError>>>,
    events: mpsc::Receiver<ChatEvent>,
}

impl<'a> AnswerStream<'a> {
    /// `run` must wait until each event that it sends is received.
    pub(super) fn new(
        run: BoxFuture<'a, Result<Answer, ChatError>>,
        events: mpsc::Receiver<ChatEvent>,
    ) -> Self {
        Self { run: Some(run), events }
    }
}

impl Stream for AnswerStream<'_> {
    type Item = Result<ChatEvent, ChatError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(run) = &mut self.run else { return Poll::Ready(None) };
        if let Poll::Ready(end) = run.poll_unpin(cx) {
            self.run = None;
            let end = end.map(|answer| ChatEvent::Answer(Box::new(answer)));
            return Poll::Ready(Some(end));
        }
        self.events.poll_next_unpin(cx).map(|event| event.map(Ok))
    }
}

impl fmt::Debug for AnswerStream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerStream").field("ended", &self.run.is_none()).finish_non_exhaustive()
    }
}
