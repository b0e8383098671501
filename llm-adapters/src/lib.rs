//! Model clients for PromptEngine. Wire types of a provider never leave this crate.
//! Invariant: one call of a client is one physical request; nothing here retries.

#[cfg(feature = "genai")]
mod genai;
#[cfg(any(feature = "genai", feature = "openai"))]
mod http;
#[cfg(any(feature = "genai", feature = "openai"))]
mod json;
#[cfg(feature = "mock-server")]
mod mock_server;
#[cfg(feature = "openai")]
mod openai;
mod provider;

#[cfg(feature = "genai")]
pub use genai::{GenAi, Protocol};
#[cfg(feature = "mock-server")]
pub use mock_server::MockServer;
#[cfg(feature = "openai")]
pub use openai::{OpenAi, OpenAiResponses};
pub use provider::Provider;
