//! How Chat Completions is spoken.

mod reply;
mod request;
mod stream;

use prompt_engine_core::{ChatReply, ChatRequest, LlmError, TokenCounts};
use reqwest::Url;
use serde_json::Value;

use super::facts;
use crate::connection::{Api, Delivery, Head};

/// How the hosts of OpenAI and of its models at Azure end: before it comes a region, as in
/// `eu.api.openai.com`, or a resource, as in `mine.openai.azure.com`.
const OPENAI_HOSTS: [&str; 3] =
    ["api.openai.com", "openai.azure.com", "cognitiveservices.azure.com"];

/// The Chat Completions API.
#[derive(Debug)]
pub struct ChatCompletions;

impl Api for ChatCompletions {
    const CLIENT: &'static str = "OpenAi";
    const ANSWER: &'static str = "chat completion";
    type Frames = stream::Chunks;

    fn path(_: &str, _: Delivery) -> Result<String, LlmError> {
        Ok("/chat/completions".to_owned())
    }

    fn body(request: &ChatRequest, delivery: Delivery, base_url: &str) -> Result<Value, LlmError> {
        // OpenAI's reasoning models refuse the older name, and other servers know no newer one.
        let limit = if is_openai(base_url) { "max_completion_tokens" } else { "max_tokens" };
        Ok(request::body(request, delivery, limit))
    }

    fn reply(value: &Value, raw: &str, head: &Head) -> Result<Option<ChatReply>, LlmError> {
        reply::read(value, raw, head)
    }

    fn tokens(value: &Value) -> Option<TokenCounts> {
        facts::tokens(value)
    }
}

/// Whether requests go to OpenAI itself, in any of its regions, or to its models at Azure.
fn is_openai(base_url: &str) -> bool {
    let url = Url::parse(base_url).ok();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
    OPENAI_HOSTS.iter().any(|known| {
        host.strip_suffix(known).is_some_and(|before| before.is_empty() || before.ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openai_is_known_by_its_host_in_every_region() {
        for url in [
            "https://api.openai.com/v1/",
            "https://EU.api.openai.com/v1",
            "https://mine.openai.azure.com/openai/v1",
            "https://mine.cognitiveservices.azure.com/openai/v1",
        ] {
            assert!(is_openai(url), "{url}");
        }
        for url in [
            "https://api.openai.com.example.org/v1",
            "https://example.org/api.openai.com",
            "https://notopenai.azure.com/v1",
        ] {
            assert!(!is_openai(url), "{url}");
        }
    }
}
