//! The client of Gemini and of every server that speaks its `generateContent`.

mod reply;
mod request;

use prompt_engine_core::{ChatReply, ChatRequest, LlmError, TokenCounts};
use secrecy::SecretString;
use serde_json::Value;

use crate::Provider;
use crate::client::ModelClient;
use crate::connection::{Api, Connection, Delivery, Head, Signature};
use crate::wording::refusal;

const SIGNATURE: Signature = Signature { header: "x-goog-api-key", scheme: "", further: &[] };

/// A client of the Gemini API, and of every server that speaks its `generateContent`.
///
/// - `extra` fields of a request go into its body as they are; an object `generationConfig` is completed
///   with what the request says elsewhere.
/// - The [`signature`](prompt_engine_core::ToolCall::signature) of a tool call holds what Gemini signed of
///   the thoughts before it, and goes back with it.
/// - A picture at a URL must say in its name of what kind it is, such as `.png`.
///
/// # Example: a client, and what records call it
/// ```
/// use prompt_engine_core::LlmClient as _;
/// use prompt_engine_llm::Gemini;
/// assert_eq!(Gemini::new("key".into()).provider(), "google");
/// ```
pub type Gemini = ModelClient<GenerateContent>;

impl Gemini {
    /// A client of the Gemini API with `api_key`; an empty key sends none.
    pub fn new(api_key: SecretString) -> Self {
        Self::over(Connection::to(Provider::Gemini, &api_key, SIGNATURE))
    }
}

/// `generateContent` and `streamGenerateContent` of the Gemini API.
#[derive(Debug)]
pub struct GenerateContent;

impl Api for GenerateContent {
    const CLIENT: &'static str = "Gemini";
    const ANSWER: &'static str = "response of Gemini";
    type Frames = reply::Candidates;

    fn path(model: &str, delivery: Delivery) -> Result<String, LlmError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '@');
        // As Gemini lists them, or the name alone.
        let (kind, name) = match model.split_once('/') {
            Some((kind @ ("models" | "tunedModels"), name)) => (kind, name),
            _ => ("models", model),
        };
        if name.is_empty() || !name.chars().all(plain) {
            return Err(refusal(format!("{model:?} is no name of a Gemini model")));
        }
        Ok(match delivery {
            Delivery::Whole => format!("/{kind}/{name}:generateContent"),
            Delivery::Streamed => format!("/{kind}/{name}:streamGenerateContent?alt=sse"),
        })
    }

    fn body(request: &ChatRequest, _: Delivery, _: &str) -> Result<Value, LlmError> {
        request::body(request)
    }

    fn reply(value: &Value, _: &str, head: &Head) -> Result<Option<ChatReply>, LlmError> {
        Ok(reply::read(value, head))
    }

    fn tokens(value: &Value) -> Option<TokenCounts> {
        reply::tokens(value.get("usageMetadata")?)
    }
}

/// The id of the call `number` of the tool `name` where Gemini gave it none.
fn stand_in(name: &str, number: usize) -> String {
    format!("call#{name}#{number}")
}

/// The name of the tool, where `id` is a stand-in.
fn stood_in_for(id: &str) -> Option<&str> {
    let (name, number) = id.strip_prefix("call#")?.rsplit_once('#')?;
    (!name.is_empty() && number.parse::<usize>().is_ok()).then_some(name)
}
