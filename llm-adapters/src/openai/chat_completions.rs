//! How Chat Completions is spoken.

mod reply;
mod request;
mod stream;

use prompt_engine_core::{ChatReply, ChatRequest, LlmError};
use serde_json::Value;

use super::answer::Head;
use super::connection::Api;

pub(super) struct ChatCompletions;

impl Api for ChatCompletions {
    const PATH: &'static str = "/chat/completions";
    const ANSWER: &'static str = "chat completion";
    type Frames = stream::Chunks;

    fn body(request: &ChatRequest, streamed: bool, to_openai: bool) -> Value {
        request::body(request, streamed, to_openai)
    }

    fn reply(body: &str, head: &Head) -> Result<ChatReply, LlmError> {
        reply::parse(body, head)
    }
}
