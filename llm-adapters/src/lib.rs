//! Model clients for PromptEngine. Wire types of a provider never leave this crate.
//! Invariant: one call of a client is one physical request; nothing here retries.

#[cfg(feature = "anthropic")]
mod anthropic;
#[cfg(any(feature = "anthropic", feature = "gemini", feature = "openai"))]
mod client;
#[cfg(any(feature = "anthropic", feature = "gemini", feature = "openai"))]
mod connection;
#[cfg(feature = "gemini")]
mod gemini;
#[cfg(any(feature = "anthropic", feature = "gemini", feature = "openai"))]
mod http;
#[cfg(any(feature = "anthropic", feature = "gemini", feature = "openai"))]
mod json;
#[cfg(feature = "mock-server")]
mod mock_server;
#[cfg(feature = "openai")]
mod openai;
mod provider;
#[cfg(any(feature = "anthropic", feature = "gemini"))]
mod wording;

#[cfg(feature = "anthropic")]
pub use anthropic::{Anthropic, Messages};
#[cfg(any(feature = "anthropic", feature = "gemini", feature = "openai"))]
pub use client::ModelClient;
#[cfg(feature = "gemini")]
pub use gemini::{Gemini, GenerateContent};
#[cfg(feature = "mock-server")]
pub use mock_server::MockServer;
#[cfg(feature = "openai")]
pub use openai::{ChatCompletions, OpenAi, OpenAiResponses, Responses};
pub use provider::Provider;
