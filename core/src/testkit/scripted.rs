//! A model client without a model.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

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

/// A client that follows a script, an act for each request. Its provider is `openai`, unless set.
///
/// # Panics
/// Where a request finds no act left, or one that is not for it.
#[derive(Debug)]
pub struct Scripted {
    provider: String,
    acts: Mutex<VecDeque<Act>>,
    requests: Mutex<Vec<ChatRequest>>,
}

impl Scripted {
    /// A client that does `acts`, one after the other.
    pub fn new(acts: impl IntoIterator<Item = Act>) -> Self {
        let acts = Mutex::new(acts.into_iter().collect());
        Self { provider: "openai".to_owned(), acts, requests: Mutex::default() }
    }

    /// The same client of another provider.
    #[must_use]
    pub fn with_provider(mut self, provider: &str) -> Self {
        provider.clone_into(&mut self.provider);
        self
    }

    /// How many requests it got.
    pub fn requests(&self) -> u64 {
        self.lock_requests().len() as u64
    }

    /// The requests that it got, in order.
    pub fn seen(&self) -> Vec<ChatRequest> {
        self.lock_requests().clone()
    }

    fn lock_requests(&self) -> MutexGuard<'_, Vec<ChatRequest>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, request: &ChatRequest) -> Act {
        self.lock_requests().push(request.clone());
        let mut acts = self.acts.lock().unwrap_or_else(PoisonError::into_inner);
        acts.pop_front().expect("the script has an act for each request")
    }
}

#[async_trait]
impl LlmClient for Scripted {
    fn provider(&self) -> &str {
        &self.provider
    }

    async fn chat(&self, request: &ChatRequest) -> Result<ChatReply, LlmError> {
        match self.next(request) {
            Act::Reply(reply) => Ok(reply),
            Act::Fail(error) => Err(error),
            Act::Hang => std::future::pending().await,
            act => panic!("{act:?} is for a stream"),
        }
    }

    async fn stream(&self, request: &ChatRequest) -> Result<ChatStream, LlmError> {
        match self.next(request) {
            Act::Stream(events) => Ok(futures::stream::iter(events).boxed()),
            Act::StreamThenHang(events) => {
                Ok(futures::stream::iter(events).chain(futures::stream::pending()).boxed())
            }
            Act::Fail(error) => Err(error),
            act => panic!("{act:?} is not for a stream"),
        }
    }
}
