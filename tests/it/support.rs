//! An engine with one prompt.

use std::sync::Arc;

pub(crate) use prompt_engine::testkit::{Act, Scripted, reply};
use prompt_engine::{
    EngineBuilder, Label, MemoryStore, NewPrompt, PromptEngine, Store, VersionDraft,
};

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
