//! The client of Anthropic and of every server that speaks its Messages API.

mod limit;
mod reply;
mod request;
mod schema;

use prompt_engine_core::{ChatReply, ChatRequest, LlmError, TokenCounts};
use secrecy::SecretString;
use serde_json::Value;

use crate::Provider;
use crate::client::ModelClient;
use crate::connection::{Api, Connection, Delivery, Head, Signature};

const SIGNATURE: Signature =
    Signature { header: "x-api-key", scheme: "", further: &[("anthropic-version", "2023-06-01")] };

/// A client of Anthropic, and of every server that speaks its Messages API.
///
/// - `extra` fields of a request go into its body as they are; an object `output_config` is completed
///   with the form of the answer that the request asks for.
/// - Anthropic wants a limit of output tokens: without `max_tokens` it is the most that the model can,
///   and 64,000 for a model that is not known.
/// - The [`signature`](prompt_engine_core::ToolCall::signature) of a tool call holds the thoughts before
///   it, which go back with it.
/// - The form of an answer goes out as Anthropic takes it: objects are closed, and `oneOf` is `anyOf`.
/// - Ids of tool calls that Anthropic refuses, because another provider made them, because they are
///   empty or there already, go out in a form that it takes.
///
/// # Example: Claude, and a gateway that speaks like Anthropic
/// ```
/// use prompt_engine_core::LlmClient as _;
/// use prompt_engine_llm::Anthropic;
/// let claude = Anthropic::new("sk-ant-…".into());
/// assert_eq!(claude.provider(), "anthropic");
/// let gateway = Anthropic::new("key".into())
///     .with_base_url("https://llm.example.com/anthropic/v1")?
///     .with_provider_name("gateway");
/// assert_eq!(gateway.provider(), "gateway");
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
pub type Anthropic = ModelClient<Messages>;

impl Anthropic {
    /// A client of Anthropic with `api_key`; an empty key sends none.
    pub fn new(api_key: SecretString) -> Self {
        Self::over(Connection::to(Provider::Anthropic, &api_key, SIGNATURE))
    }
}

/// The Messages API.
#[derive(Debug)]
pub struct Messages;

impl Api for Messages {
    const CLIENT: &'static str = "Anthropic";
    const ANSWER: &'static str = "message";
    type Frames = reply::Blocks;

    fn path(_: &str, _: Delivery) -> Result<String, LlmError> {
        Ok("/messages".to_owned())
    }

    fn body(request: &ChatRequest, delivery: Delivery, _: &str) -> Result<Value, LlmError> {
        request::body(request, delivery)
    }

    fn reply(value: &Value, _: &str, head: &Head) -> Result<Option<ChatReply>, LlmError> {
        Ok(reply::read(value, head))
    }

    fn tokens(value: &Value) -> Option<TokenCounts> {
        reply::tokens(value.get("usage")?)
    }
}
