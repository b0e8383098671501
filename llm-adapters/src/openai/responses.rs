//! How the Responses API is spoken.

mod reply;
mod request;
mod stream;

use prompt_engine_core::{ChatReply, ChatRequest, LlmError, TokenCounts};
use serde_json::Value;

use super::facts;
use crate::connection::{Api, Delivery, Head};

/// The Responses API.
#[derive(Debug)]
pub struct Responses;

impl Api for Responses {
    const CLIENT: &'static str = "OpenAiResponses";
    const ANSWER: &'static str = "response";
    type Frames = stream::Events;

    fn path(_: &str, _: Delivery) -> Result<String, LlmError> {
        Ok("/responses".to_owned())
    }

    fn body(request: &ChatRequest, delivery: Delivery, _: &str) -> Result<Value, LlmError> {
        Ok(request::body(request, delivery))
    }

    fn reply(value: &Value, raw: &str, head: &Head) -> Result<Option<ChatReply>, LlmError> {
        if value.get("output").is_none() && value.get("status").is_none() {
            return Ok(None);
        }
        reply::read(value, raw, None, head).map(Some)
    }

    fn tokens(value: &Value) -> Option<TokenCounts> {
        facts::tokens(value)
    }
}
