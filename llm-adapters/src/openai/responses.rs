//! How the Responses API is spoken.

mod reply;
mod request;
mod stream;

use prompt_engine_core::{ChatReply, ChatRequest, LlmError};
use serde_json::Value;

use super::answer::Head;
use super::connection::{Api, Delivery};
use super::endpoint::Endpoint;

pub(super) struct Responses;

impl Api for Responses {
    const PATH: &'static str = "/responses";
    const ANSWER: &'static str = "response";
    type Frames = stream::Events;

    fn body(request: &ChatRequest, delivery: Delivery, _: &Endpoint) -> Value {
        request::body(request, delivery)
    }

    fn reply(body: &str, head: &Head) -> Result<ChatReply, LlmError> {
        reply::parse(body, head)
    }
}
