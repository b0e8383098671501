//! PromptEngine: a versioned store for the prompts of a Rust service, and complete sight of their use.
//!
//! `render` a prompt and a [`Usage`] is recorded; run it through a client and every physical call
//! becomes an [`LlmExecution`] with messages, answer, tokens, latency, cost, status and error;
//! [`Engine::analytics`] answers what it all cost, how it performs, what fails, what is used most.
//!
//! # Example: from a prompt to what it cost
//! ```
//! use prompt_engine::{NewPrompt, PromptEngine, StatsQuery, VersionDraft, params};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let engine = PromptEngine::connect("memory:").await?; // or sqlite://prompts.db
//! let draft = VersionDraft { content: "Welcome, {{name}}!".into(), ..VersionDraft::default() };
//! engine.prompts().create(NewPrompt::new("welcome-mail".parse()?, draft)).await?;
//!
//! let rendered = engine.render("welcome-mail", params! { "name" => "John" }).session("abc123").await?;
//! assert_eq!(rendered.content(), "Welcome, John!");
//!
//! engine.flush().await;
//! let stats = engine.analytics().usage_stats(&StatsQuery::default()).await?;
//! assert_eq!(stats.total_uses, Some(1));
//! # Ok::<(), prompt_engine::Error>(())
//! # }).unwrap();
//! ```
//!
//! # Features
//! | feature | what it adds |
//! |---|---|
//! | `sqlite` (default) | the embedded store, URL `sqlite://path/to/file.db` |
//! | `redb` | the embedded store on redb, one process at a time, URL `redb://path/to/file.redb` |
//! | `postgres` | the store that many processes share, URL `postgres://user@host/database` |
//! | `testkit` | factories for every domain type, and a model client that follows a script |
//! | `openai` | the clients of OpenAI, Chat Completions and Responses, and of every server that speaks like it |
//! | `anthropic` | the client of Anthropic, and of every server that speaks its Messages API |
//! | `gemini` | the client of the Gemini API |
//!
//! The store in memory, URL `memory:`, is always there: it is meant for tests.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod connect;

pub use connect::{PromptEngine, missing_store, open_store};
pub use prompt_engine_core::*;

/// The client of Anthropic, and of every server that speaks its Messages API.
#[cfg(feature = "anthropic")]
pub mod anthropic {
    pub use prompt_engine_llm::{Anthropic, Messages, ModelClient};
    pub use secrecy::SecretString;
}

/// The client of the Gemini API.
#[cfg(feature = "gemini")]
pub mod gemini {
    pub use prompt_engine_llm::{Gemini, GenerateContent, ModelClient};
    pub use secrecy::SecretString;
}

/// The clients of OpenAI and of every server that speaks like it, over Chat Completions or Responses.
#[cfg(feature = "openai")]
pub mod openai {
    pub use prompt_engine_llm::{ChatCompletions, ModelClient, OpenAi, OpenAiResponses, Responses};
    pub use secrecy::SecretString;
}

/// The providers by name, and a client of each.
#[cfg(any(feature = "anthropic", feature = "gemini", feature = "openai"))]
pub use prompt_engine_llm::Provider;

/// The store that many processes share.
#[cfg(feature = "postgres")]
pub mod postgres {
    pub use prompt_engine_store_postgres::*;
}

/// The embedded store on redb.
#[cfg(feature = "redb")]
pub mod redb {
    pub use prompt_engine_store_redb::*;
}

/// The embedded store.
#[cfg(feature = "sqlite")]
pub mod sqlite {
    pub use prompt_engine_store_sqlite::*;
}
