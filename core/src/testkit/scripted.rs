//! A model client without a model.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use futures::StreamExt;

use crate::llm::{ChatReply, ChatRequest, ChatStream, LlmClient, LlmError, StreamEvent};

/// What a [`Scripted`] client does with its next request.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "a test makes a handful of them")]
pub enum Act {
    /// Answers.
    Reply(ChatReply),
    /// Fails, whichever way it is asked.
    Fail(LlmError),
    /// Never answers.
    Hang,
    /// Streams these, and ends.
    Stream(Vec<Result<StreamEvent, LlmError>>),
    /// Streams these, and never ends.
    StreamThenHang(Vec<Result<StreamEvent, LlmError>>),
}

/// A client of the provider `openai` that follows a script, an act for each request.
///
/// # Panics
/// Where a request finds no act left, or one that is not for it.
#[derive(Debug)]
pub struct Scripted {
    acts: Mutex<VecDeque<Act>>,
    requests: AtomicU64,
}

impl Scripted {
    /// A client that does `acts`, one after the other.
    pub fn new(acts: impl IntoIterator<Item = Act>) -> Self {
        Self { acts: Mutex::new(acts.into_iter().collect()), requests: AtomicU64::new(0) }
    }

    /// How many requests it got.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    fn next(&self) -> Act {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let mut acts = self.acts.lock().unwrap_or_else(PoisonError::into_inner);
        acts.pop_front().expect("the script has an act for each request")
    }
}

#[async_trait]
impl LlmClient for Scripted {
    fn provider(&self) -> &str {
        "openai"
    }

    async fn chat(&self, _: &ChatRequest) -> Result<ChatReply, LlmError> {
        match self.next() {
            Act::Reply(reply) => Ok(reply),
            Act::Fail(error) => Err(error),
            Act::Hang => std::future::pending().await,
            act => panic!("{act:?} is for a stream"),
        }
    }

    async fn stream(&self, _: &ChatRequest) -> Result<ChatStream, LlmError> {
        match self.next() {
            Act::Stream(events) => Ok(futures::stream::iter(events).boxed()),
            Act::StreamThenHang(events) => {
                Ok(futures::stream::iter(events).chain(futures::stream::pending()).boxed())
            }
            Act::Fail(error) => Err(error),
            act => panic!("{act:?} is not for a stream"),
        }
    }
}
