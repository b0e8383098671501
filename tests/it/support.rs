//! A model client that says what a test tells it to, and an engine with one prompt.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use prompt_engine::{
    ChatReply, ChatRequest, ChatStream, EngineBuilder, Label, LlmClient, LlmError, MemoryStore,
    NewPrompt, PromptEngine, Store, StreamEvent, TokenCounts, VersionDraft,
};

/// What a [`Scripted`] client does with its next request.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "a test makes a handful of them")]
pub(crate) enum Act {
    Reply(ChatReply),
    Fail(LlmError),
    Hang,
    Stream(Vec<Result<StreamEvent, LlmError>>),
    StreamThenHang(Vec<Result<StreamEvent, LlmError>>),
}

/// A client that follows a script.
#[derive(Debug)]
pub(crate) struct Scripted {
    acts: Mutex<Vec<Act>>,
    pub(crate) requests: AtomicU64,
}

impl Scripted {
    pub(crate) fn new(acts: impl IntoIterator<Item = Act>) -> Self {
        let mut acts: Vec<Act> = acts.into_iter().collect();
        acts.reverse();
        Self { acts: Mutex::new(acts), requests: AtomicU64::new(0) }
    }

    fn next(&self) -> Act {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.acts.lock().unwrap().pop().expect("the script has an act for each request")
    }
}

#[async_trait::async_trait]
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

/// A reply of 1,000 tokens in, 400 of them cached, and 100 out: 0.003 dollars at gpt-4o.
pub(crate) fn reply(text: &str) -> ChatReply {
    ChatReply {
        content: Some(text.to_owned()),
        finish_reason: Some("stop".to_owned()),
        model: Some("gpt-4o-2024-08-06".to_owned()),
        tokens: Some(TokenCounts {
            input: 1_000,
            cache_read: 400,
            output: 100,
            ..TokenCounts::default()
        }),
        http_status: Some(200),
        ..ChatReply::default()
    }
}

pub(crate) async fn engine() -> PromptEngine {
    engine_with(PromptEngine::builder()).await
}

/// An engine over a store in memory with the prompt `greet`.
pub(crate) async fn engine_with(settings: EngineBuilder) -> PromptEngine {
    engine_over(Arc::new(MemoryStore::default()), settings).await
}

/// The same over a store of the test's own.
pub(crate) async fn engine_over(store: Arc<dyn Store>, settings: EngineBuilder) -> PromptEngine {
    let engine = PromptEngine::with_store(store, settings).await.unwrap();
    let draft = VersionDraft {
        content: "Hello {{name}}".to_owned(),
        system_message: Some("Be kind to {{name}}.".to_owned()),
        model: Some(Label::new("gpt-4o").unwrap()),
        temperature: Some(0.5),
        max_tokens: Some(50),
        ..VersionDraft::default()
    };
    engine.prompts().create(NewPrompt::new("greet".parse().unwrap(), draft)).await.unwrap();
    engine
}
