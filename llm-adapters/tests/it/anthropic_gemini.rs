//! The clients of Anthropic and Gemini against servers on loopback.

mod bounds;
mod faults;
mod logs;
mod requests;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use prompt_engine_core::LlmClient;
use prompt_engine_llm::{Anthropic, Gemini, ModelClient};
use serde_json::{Value, json};

use super::{KEY, ask, assert_dropping_ends, drain, serve, serve_router};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Api {
    Anthropic,
    Gemini,
}

const BOTH: [Api; 2] = [Api::Anthropic, Api::Gemini];

fn client(api: Api, base_url: &str) -> Arc<dyn LlmClient> {
    let long = Duration::from_secs(600);
    limited(api, base_url, long, long)
}

/// A client with the most time for a call, and for its first token.
fn limited(api: Api, base_url: &str, total: Duration, first: Duration) -> Arc<dyn LlmClient> {
    fn set<A>(
        client: ModelClient<A>,
        url: &str,
        total: Duration,
        first: Duration,
    ) -> ModelClient<A> {
        let client = client.with_base_url(url).expect("a base URL");
        client.with_timeout(total).with_first_token_timeout(first)
    }
    match api {
        Api::Anthropic => Arc::new(set(Anthropic::new(KEY.into()), base_url, total, first)),
        Api::Gemini => Arc::new(set(Gemini::new(KEY.into()), base_url, total, first)),
    }
}

/// The first part of a stream that says `Hel` and goes on.
fn begun(api: Api) -> String {
    match api {
        Api::Anthropic => [
            ("message_start", json!({"type": "message_start", "message": {"id": "m1",
                "model": "claude", "content": [], "usage": {"input_tokens": 3, "output_tokens": 1}}})),
            ("content_block_start", json!({"type": "content_block_start", "index": 0,
                "content_block": {"type": "text", "text": ""}})),
            ("content_block_delta", json!({"type": "content_block_delta", "index": 0,
                "delta": {"type": "text_delta", "text": "Hel"}})),
        ]
        .map(|(name, data)| format!("event: {name}\ndata: {data}\n\n"))
        .concat(),
        Api::Gemini => {
            let data = json!({"candidates": [{"content": {"parts": [{"text": "Hel"}]}}],
                "modelVersion": "gemini", "responseId": "r1"});
            format!("data: {data}\n\n")
        }
    }
}

fn whole(api: Api) -> Value {
    match api {
        Api::Anthropic => json!({"id": "m1", "type": "message", "model": "claude",
            "content": [{"type": "text", "text": "Hello"}], "stop_reason": "end_turn",
            "usage": {"input_tokens": 3, "output_tokens": 2}}),
        Api::Gemini => json!({"candidates": [{"content": {"parts": [{"text": "Hello"}]},
            "finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 3}}),
    }
}

fn events(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}
