//! How Chat Completions is spoken.

mod reply;
mod request;
mod stream;

use prompt_engine_core::{ChatReply, ChatRequest, LlmError};
use serde_json::Value;

use super::answer::Head;
use super::connection::{Api, Delivery};
use super::endpoint::Endpoint;

pub(super) struct ChatCompletions;

impl Api for ChatCompletions {
    const PATH: &'static str = "/chat/completions";
    const ANSWER: &'static str = "chat completion";
    type Frames = stream::Chunks;

    fn body(request: &ChatRequest, delivery: Delivery, endpoint: &Endpoint) -> Value {
        // OpenAI's reasoning models refuse the older name, and other servers know no newer one.
        let limit = if endpoint.is_openai() { "max_completion_tokens" } else { "max_tokens" };
        request::body(request, delivery, limit)
    }

    fn reply(body: &str, head: &Head) -> Result<ChatReply, LlmError> {
        reply::parse(body, head)
    }
}
