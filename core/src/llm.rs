//! The neutral words of a model call: request, reply, stream events, error, and the [`LlmClient`] trait.
//! Invariant: one call of a client is one physical request; no wire type of a provider appears here.
//! Adapters translate to and from these types; the engine records them and never sees HTTP.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::BoxError;
use crate::money::Usd;
use crate::status::{ErrorCategory, Status};
use crate::tokens::TokenCounts;

/// A client of one provider of models.
///
/// # Behavior
/// - Each call sends exactly one physical request: a client never retries and never falls back,
///   so that every request is seen, timed and paid for in the open.
/// - Dropping the future of [`LlmClient::chat`] or the stream of [`LlmClient::stream`] ends the call.
/// - A stream that succeeds ends with exactly one [`StreamEvent::End`]; a stream that fails ends
///   with exactly one error, and a connection that closes before the answer is whole is
///   [`ErrorCategory::Network`]. What was streamed before an error is the caller's to keep.
/// - No error text holds the key.
#[async_trait]
pub trait LlmClient: fmt::Debug + Send + Sync + 'static {
    /// The provider's name, such as `openai`: what records are grouped by and prices are found by.
    fn provider(&self) -> &str;

    /// Sends the request and returns the whole reply.
    async fn chat(&self, request: &ChatRequest) -> Result<ChatReply, LlmError>;

    /// Sends the request and returns the reply as it is made.
    async fn stream(&self, request: &ChatRequest) -> Result<ChatStream, LlmError>;
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
}

/// A reply as it is made; see [`LlmClient`] for how it ends.
pub type ChatStream = BoxStream<'static, Result<StreamEvent, LlmError>>;

/// What is asked of a model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChatRequest {
    /// The model asked.
    pub model: String,
    /// The conversation so far.
    pub messages: Vec<Message>,
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
    pub fn new(model: impl Into<String>, messages: Vec<Message>) -> Self {
        Self { model: model.into(), messages, ..Self::default() }
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

/// Who speaks in a [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The instructions.
    System,
    /// The one who asks.
    User,
    /// The model.
    Assistant,
    /// The result of a tool that the model called.
    Tool,
}

impl Role {
    /// The name, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said; empty where an assistant only calls tools.
    #[serde(default)]
    pub content: String,
    /// The pictures that go with it, behind the text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Image>,
    /// The tools that an assistant calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call that a tool message answers: [`ToolCall::id`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

impl Message {
    fn of(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            images: Vec::new(),
            tool_calls: Vec::new(),
            tool_call_id: None,
        }
    }

    /// The instructions.
    pub fn system(content: impl Into<String>) -> Self {
        Self::of(Role::System, content)
    }

    /// A message of the one who asks.
    pub fn user(content: impl Into<String>) -> Self {
        Self::of(Role::User, content)
    }

    /// A message of the model; add [`Message::tool_calls`] where it called tools.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::of(Role::Assistant, content)
    }

    /// The result of the tool call `tool_call_id`.
    pub fn tool(tool_call_id: impl Into<String>, content: impl Into<String>) -> Self {
        Self { tool_call_id: Some(tool_call_id.into()), ..Self::of(Role::Tool, content) }
    }

    /// The same message with a picture more.
    #[must_use]
    pub fn with_image(mut self, image: Image) -> Self {
        self.images.push(image);
        self
    }
}

/// A text is a message of the one who asks.
impl<T: Into<String>> From<T> for Message {
    fn from(text: T) -> Self {
        Self::user(text)
    }
}

/// A picture in a message: where it lies, or the picture itself as a `data:` URL.
///
/// # Example: a picture of one's own
/// ```
/// use prompt_engine_core::Image;
/// assert_eq!(Image::from_bytes("image/png", b"\x89PNG").url(), "data:image/png;base64,iVBORw==");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Image(pub(crate) String);

impl Image {
    /// The picture at `url`, which the provider must be able to read.
    pub fn from_url(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The picture `bytes` of the media type `media_type`, such as `image/png`.
    pub fn from_bytes(media_type: &str, bytes: &[u8]) -> Self {
        Self(format!("data:{media_type};base64,{}", BASE64_STANDARD.encode(bytes)))
    }

    /// The URL, `http`, `https` or `data`.
    pub fn url(&self) -> &str {
        &self.0
    }
}

/// A tool that the model wants called.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ToolCall {
    /// The provider's id of the call; a tool message answers it.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments as the model wrote them: JSON text, not checked.
    pub arguments: String,
    /// What the provider wants back with the call, opaque: Gemini's thought signature, Anthropic's
    /// thinking blocks, the sealed reasoning item of OpenAI's Responses. Adapters leave out what
    /// another provider made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
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
    /// The provider began to answer; at most once, before everything else.
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
    /// The whole reply, text included; last, and always there on success.
    End(Box<ChatReply>),
}

/// Why a call to a model failed.
///
/// Branch on [`LlmError::category`]; `Display` is one sentence without a key, `source()` the rest.
///
/// # Example: what a record keeps of it
/// ```
/// use prompt_engine_core::{ErrorCategory, LlmError, Status};
/// let error = LlmError::new(ErrorCategory::RateLimit, "too many requests").with_http_status(429);
/// assert_eq!(error.status(), Status::Error);
/// assert_eq!(error.to_string(), "too many requests");
/// assert_eq!(LlmError::new(ErrorCategory::Timeout, "too late").status(), Status::Timeout);
/// ```
#[derive(Debug, Clone)]
pub struct LlmError(Box<Details>);

#[derive(Debug, Clone)]
struct Details {
    category: ErrorCategory,
    message: String,
    http_status: Option<u16>,
    code: Option<String>,
    retry_after: Option<Duration>,
    metadata: Value,
    source: Option<Arc<dyn StdError + Send + Sync + 'static>>,
}

impl LlmError {
    /// An error of `category` whose sentence is `message`.
    pub fn new(category: ErrorCategory, message: impl Into<String>) -> Self {
        Self(Box::new(Details {
            category,
            message: message.into(),
            http_status: None,
            code: None,
            retry_after: None,
            metadata: Value::Null,
            source: None,
        }))
    }

    /// A call that the caller gave up.
    pub fn cancelled() -> Self {
        Self::new(ErrorCategory::Cancelled, "the call was cancelled")
    }

    /// The same error with the HTTP status of the answer.
    #[must_use]
    pub fn with_http_status(mut self, status: u16) -> Self {
        self.0.http_status = Some(status);
        self
    }

    /// The same error with the provider's code.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.0.code = Some(code.into());
        self
    }

    /// The same error with the time to wait before another request.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// The same error with what else the provider said.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Value) -> Self {
        self.0.metadata = metadata;
        self
    }

    /// The same error with what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// Why the call failed, to branch on.
    pub fn category(&self) -> ErrorCategory {
        self.0.category
    }

    /// The sentence, the provider's own where it sent one.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The HTTP status of the answer, if there was one.
    pub fn http_status(&self) -> Option<u16> {
        self.0.http_status
    }

    /// The provider's code, such as `insufficient_quota`.
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// How long the provider asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// What else the provider said: request id, error object. `Null` where there is nothing.
    pub fn metadata(&self) -> &Value {
        &self.0.metadata
    }

    /// The status of a call that ended with this error.
    pub fn status(&self) -> Status {
        match self.0.category {
            ErrorCategory::Timeout => Status::Timeout,
            ErrorCategory::Cancelled => Status::Cancelled,
            _ => Status::Error,
        }
    }
}

impl fmt::Display for LlmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl StdError for LlmError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_without_tools_has_no_tool_fields_in_json() {
        let text = serde_json::to_value(Message::user("hi")).expect("a message is JSON");
        assert_eq!(text, json!({"role": "user", "content": "hi"}));
        let tool: Message =
            serde_json::from_value(json!({"role": "tool", "content": "4", "tool_call_id": "c1"}))
                .expect("a tool message");
        assert_eq!(tool, Message::tool("c1", "4"));
    }

    #[test]
    fn an_error_is_small_and_says_how_the_call_ended() {
        assert_eq!(size_of::<LlmError>(), size_of::<usize>());
        assert_eq!(LlmError::cancelled().status(), Status::Cancelled);
        let error = LlmError::new(ErrorCategory::Network, "the connection broke")
            .with_source(std::io::Error::other("reset by peer"));
        assert_eq!(error.clone().source().map(ToString::to_string), Some("reset by peer".into()));
        assert_eq!(error.to_string(), "the connection broke");
    }
}
