//! The neutral words of a model call: request, reply, stream events, and the [`LlmClient`] trait.
//! Invariant: one call of a client is one physical request; no wire type of a provider appears here.
//! Adapters translate to and from these types; the engine records them and never sees HTTP.

mod error;
mod message;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub use self::error::LlmError;
pub use self::message::{Image, Message, Role, ToolCall};
use crate::money::Usd;
use crate::tokens::TokenCounts;

/// A client of one provider of models.
///
/// # Behavior
/// - Each call sends exactly one physical request: a client never retries and never falls back,
///   so that every request is seen, timed and paid for in the open.
/// - Dropping the future of [`LlmClient::chat`] or the stream of [`LlmClient::stream`] ends the call.
/// - A stream that succeeds ends with exactly one [`StreamEvent::End`]; a stream that fails ends
///   with exactly one error, and a connection that closes before the answer is whole is
///   [`ErrorCategory::Network`](crate::ErrorCategory::Network). What was streamed before an error is the caller's to keep.
/// - What a server refuses may be an error of the call, or of the stream behind its head.
/// - No error text holds the key.
#[async_trait]
pub trait LlmClient: fmt::Debug + Send + Sync + 'static {
    /// The provider's name, such as `openai`: what records are grouped by and prices are found by.
    fn provider(&self) -> &str;

    /// Sends the request and returns the whole reply.
    async fn chat(&self, request: &ChatRequest) -> Result<ChatReply, LlmError>;

    /// Sends the request and returns the reply as it is made.
    async fn stream(&self, request: &ChatRequest) -> Result<ChatStream, LlmError>;

    /// [`LlmClient::chat`] in two steps: [`StreamEvent::Head`] when the server begins to answer, and
    /// [`StreamEvent::End`] with the whole reply, or an error. Who records calls asks in this way, so
    /// that of one that is given up between the two it is known how the server began: the engine asks for
    /// whole answers by this, and not by `chat`. By default it is `chat`, and there is only the end; a
    /// client that wraps another one passes it on where it passes `chat` on as it is.
    async fn chat_events(&self, request: &ChatRequest) -> Result<ChatStream, LlmError> {
        let reply = self.chat(request).await?;
        Ok(stream::iter([Ok(StreamEvent::End(Box::new(reply)))]).boxed())
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<C: LlmClient + ?Sized> LlmClient for Arc<C> {
    fn provider(&self) -> &str {
        (**self).provider()
    }

    async fn chat(&self, request: &ChatRequest) -> Result<ChatReply, LlmError> {
        (**self).chat(request).await
    }

    async fn stream(&self, request: &ChatRequest) -> Result<ChatStream, LlmError> {
        (**self).stream(request).await
    }

    async fn chat_events(&self, request: &ChatRequest) -> Result<ChatStream, LlmError> {
        (**self).chat_events(request).await
    }
}

/// A reply as it is made; see [`LlmClient`] for how it ends.
pub type ChatStream = BoxStream<'static, Result<StreamEvent, LlmError>>;

/// What is asked of a model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChatRequest {
    /// The model asked.
    pub model: String,
    /// The conversation so far, shared with the records of the call.
    pub messages: Arc<[Message]>,
    /// Sampling temperature; the provider's default when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// The most output tokens; the provider's default when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// The tools that the model may call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ToolSpec>,
    /// The form that the answer must have; free text when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<OutputSchema>,
    /// Fields of the provider, passed through as they are: `service_tier`, `tool_choice`, `seed`.
    /// They win over the fields that an adapter writes from the ones above.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}

impl ChatRequest {
    /// A request to `model` with `messages` and the provider's defaults.
    pub fn new(model: impl Into<String>, messages: impl Into<Arc<[Message]>>) -> Self {
        Self { model: model.into(), messages: messages.into(), ..Self::default() }
    }
}

/// A tool that a model may call, as the model is told of it.
///
/// # Example: a tool with one parameter
/// ```
/// use prompt_engine_core::ToolSpec;
/// use serde_json::json;
/// let weather = ToolSpec::new("weather", "The weather of a city, now").with_parameters(json!({
///     "type": "object",
///     "properties": {"city": {"type": "string"}},
///     "required": ["city"],
/// }));
/// assert_eq!(weather.name, "weather");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolSpec {
    /// The name that [`ToolCall::name`] repeats.
    pub name: String,
    /// What it does and when to call it, for the model to read.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The JSON Schema of its arguments, an object.
    pub parameters: Value,
}

impl ToolSpec {
    /// A tool without parameters.
    pub fn new(name: impl Into<String>, description: impl Into<String>) -> Self {
        let parameters = json!({"type": "object", "properties": {}});
        Self { name: name.into(), description: description.into(), parameters }
    }

    /// The same tool with arguments of the JSON Schema `parameters`.
    #[must_use]
    pub fn with_parameters(mut self, parameters: Value) -> Self {
        self.parameters = parameters;
        self
    }
}

/// The form that an answer must have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputSchema {
    /// What the form is called: letters, digits, `_` and `-`.
    pub name: String,
    /// The JSON Schema, an object.
    pub schema: Value,
}

/// What a model answered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChatReply {
    /// The text; `None` where the provider sent none, as with tool calls and refusals.
    pub content: Option<String>,
    /// The tools that the model wants called.
    pub tool_calls: Vec<ToolCall>,
    /// Why the model stopped, in the provider's word: `stop`, `length`, `tool_calls`.
    pub finish_reason: Option<String>,
    /// The model that answered, as the provider names it.
    pub model: Option<String>,
    /// Token usage as reported, unchecked; `None` where the provider reported none.
    pub tokens: Option<TokenCounts>,
    /// The service tier that served it, as the provider names it; `batch` for an answer of a batch.
    pub service_tier: Option<String>,
    /// The cost of the call where the provider reports one.
    pub reported_cost: Option<Usd>,
    /// Whether it came from a cache of the caller's own, so that no provider was asked and it cost nothing.
    pub from_local_cache: bool,
    /// The HTTP status of the answer, where it came over HTTP.
    pub http_status: Option<u16>,
    /// What else is worth keeping: response id, system fingerprint, refusal, request id, the usage object as it came. `Null` where there is nothing.
    pub metadata: Value,
}

/// A part of a streamed reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamEvent {
    /// The head of the server's answer is there, and nothing of what it answers; at most once, before
    /// everything else. An error that the server answers follows it.
    Head {
        /// The HTTP status, where the answer comes over HTTP.
        http_status: Option<u16>,
        /// The server's id of the request, for its support to find it.
        request_id: Option<String>,
    },
    /// The provider began to answer; at most once, before all that follows here.
    Started {
        /// The model that answers.
        model: Option<String>,
        /// The provider's id of the response.
        id: Option<String>,
    },
    /// The model made something that is no text: a thought, a part of a tool call, a refusal. At
    /// most once, before the first text; it ends the wait for the first token.
    Token,
    /// The next piece of text, never empty.
    Text(String),
    /// The token usage so far, unchecked, in place of what was told before, from a provider that tells
    /// it ahead of the end. What the whole answer used is in its [`ChatReply::tokens`]; one that breaks
    /// off has used at least this.
    Usage(TokenCounts),
    /// The whole reply, text included; last, and always there on success.
    End(Box<ChatReply>),
}
