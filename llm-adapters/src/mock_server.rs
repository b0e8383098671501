//! A small OpenAI-compatible model server on loopback, for demos and tests. No network, no key.
//! Invariant: the same request gets the same answer; what goes wrong is asked for, never random.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::{StreamExt, stream};
use prompt_engine_core::{Error, ErrorKind, Result};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// A model server on `127.0.0.1`, speaking `POST /v1/chat/completions` plain and streamed.
///
/// The reply is made from the last user message; token counts are a quarter of the characters.
/// A model of that name, or the mark in square brackets in the last user message, such as
/// `[fail:429]`, asks for a fault; several are joined by commas:
///
/// | mark | what happens |
/// |---|---|
/// | `fail:STATUS` | that HTTP status with the error body OpenAI sends, and `retry-after: 2` for 429 and 503 |
/// | `error:CODE` | HTTP 400 (429 for `insufficient_quota`) with that error code |
/// | `hang` | no answer, ever |
/// | `slow` | 20 ms before the answer, and before each piece of a stream |
/// | `stall` | a stream that begins and then says nothing |
/// | `cut` | the connection closes in the middle of the answer |
/// | `garbage` | HTTP 200 with a page of HTML |
/// | `frame-error` | an error frame in the middle of a stream |
/// | `nousage` | no usage, even if asked for |
/// | `echo-key` | HTTP 401 whose message repeats the key |
/// | `tool` | a call of the first tool of the request, with the message as its argument `input` |
///
/// Stops when dropped, answers under way included.
#[derive(Debug)]
pub struct MockServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

#[derive(Debug, Default)]
struct Shared {
    requests: AtomicU64,
    latency: OnceLock<(RangeInclusive<Duration>, u64)>,
}

impl MockServer {
    /// Starts a server on a free port, with a thread of its own; no runtime is needed.
    ///
    /// # Errors
    /// `Unavailable` if there is no port or no thread to have.
    pub fn start() -> Result<Self> {
        let failed = |source: std::io::Error| {
            Error::new(ErrorKind::Unavailable, "cannot start the mock server").with_source(source)
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("mock-server")
            .enable_all()
            .build()
            .map_err(failed)?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared::default());
        let router = Router::new()
            .route("/v1/chat/completions", post(complete))
            .with_state(Arc::clone(&shared));
        let entered = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
        drop(entered);
        runtime.spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, shared, runtime: Some(runtime) })
    }

    /// The same server with a wait before each answer, within `range` and the same for the same
    /// `seed` and number of the request. A second setting is ignored.
    #[must_use]
    pub fn with_latency(self, range: RangeInclusive<Duration>, seed: u64) -> Self {
        drop(self.shared.latency.set((range, seed)));
        self
    }

    /// The base URL for a client, such as `http://127.0.0.1:40001/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// How many requests have arrived.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }
}

impl Drop for MockServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The wait of request `number`: a splitmix64 of it and the seed, spread over the range.
fn latency(range: &RangeInclusive<Duration>, seed: u64, number: u64) -> Duration {
    let mut mixed = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    let width = range.end().saturating_sub(*range.start());
    let micros = u64::try_from(width.as_micros()).unwrap_or(u64::MAX).saturating_add(1);
    *range.start() + Duration::from_micros(mixed % micros)
}

async fn complete(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Response {
    let number = shared.requests.fetch_add(1, Ordering::SeqCst);
    if let Some((range, seed)) = shared.latency.get() {
        tokio::time::sleep(latency(range, *seed, number)).await;
    }
    let Ok(request) = serde_json::from_slice::<Value>(&body) else {
        return failure(400, "invalid_request_error", None, "the body is no JSON");
    };
    if !request["messages"].is_array() {
        return failure(400, "invalid_request_error", None, "you must provide messages");
    }
    let asked = Asked::read(&request);
    if let Some(response) = asked.refusal(&headers) {
        return response;
    }
    if asked.has("hang") {
        std::future::pending::<()>().await;
    }
    if asked.has("slow") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let answer = Answer::make(&request, &asked);
    if request["stream"] == true { answer.streamed(&request, &asked) } else { answer.plain(&asked) }
}

/// What the model's name and the last user message ask for.
struct Asked {
    marks: Vec<String>,
    message: String,
}

impl Asked {
    fn read(request: &Value) -> Self {
        let messages = request["messages"].as_array();
        let message = messages
            .into_iter()
            .flatten()
            .rfind(|message| message["role"] == "user")
            .map(|message| content(&message["content"]))
            .unwrap_or_default();
        let model = request["model"].as_str().unwrap_or_default();
        let mut marks: Vec<_> = model.split(',').map(|mark| mark.trim().to_owned()).collect();
        for (at, _) in message.match_indices('[') {
            if let Some((inner, _)) = message[at + 1..].split_once(']') {
                marks.extend(inner.split(',').map(|mark| mark.trim().to_owned()));
            }
        }
        Self { marks, message }
    }

    fn has(&self, mark: &str) -> bool {
        self.marks.iter().any(|asked| asked == mark)
    }

    fn value(&self, prefix: &str) -> Option<&str> {
        self.marks.iter().find_map(|mark| mark.strip_prefix(prefix))
    }

    /// The answer that is no completion, if one is asked for.
    fn refusal(&self, headers: &HeaderMap) -> Option<Response> {
        if let Some(status) = self.value("fail:").and_then(|status| status.parse().ok()) {
            let (kind, code, message) = match status {
                401 => ("invalid_request_error", Some("invalid_api_key"), "Incorrect API key"),
                403 => ("permission_error", None, "You may not use this model"),
                404 => ("invalid_request_error", Some("model_not_found"), "No such model"),
                429 => ("requests", Some("rate_limit_exceeded"), "Rate limit reached"),
                503 => ("service_unavailable", None, "The engine is currently overloaded"),
                500..=599 => ("server_error", None, "The server had an error"),
                _ => ("invalid_request_error", None, "The request is wrong"),
            };
            return Some(failure(status, kind, code, message));
        }
        if let Some(code) = self.value("error:") {
            let status = if code == "insufficient_quota" { 429 } else { 400 };
            return Some(failure(status, "invalid_request_error", Some(code), "As you asked"));
        }
        if self.has("echo-key") {
            let key = headers.get(header::AUTHORIZATION).and_then(|key| key.to_str().ok());
            let message = format!("Incorrect API key provided: {}", key.unwrap_or_default());
            return Some(failure(401, "invalid_request_error", None, &message));
        }
        self.has("garbage").then(|| {
            let page = "<html><body>It works!</body></html>";
            ([(header::CONTENT_TYPE, "text/html")], page).into_response()
        })
    }
}

fn failure(status: u16, kind: &str, code: Option<&str>, message: &str) -> Response {
    let body = json!({"error": {"message": message, "type": kind, "param": null, "code": code}});
    let known = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (known, axum::Json(body)).into_response();
    let headers = response.headers_mut();
    headers.insert("x-request-id", header::HeaderValue::from_static("req_mock"));
    if matches!(status, 429 | 503) {
        headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("2"));
    }
    response
}

fn content(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    }
}

/// About a token for four characters, and at least one.
fn count(text: &str) -> usize {
    text.chars().count().div_ceil(4).max(1)
}

struct Answer {
    id: String,
    model: String,
    text: String,
    tool: Option<(String, String)>,
    usage: Value,
}

impl Answer {
    fn make(request: &Value, asked: &Asked) -> Self {
        let messages = request["messages"].as_array().map_or(&[][..], Vec::as_slice);
        let input: usize = messages.iter().map(|m| count(&content(&m["content"])) + 4).sum();
        let last = messages.last().unwrap_or(&Value::Null);
        let tool = (asked.has("tool") && last["role"] != "tool").then(|| {
            let name = request["tools"][0]["function"]["name"].as_str().unwrap_or("lookup");
            (name.to_owned(), json!({"input": asked.message}).to_string())
        });
        let start: String = asked.message.chars().take(60).collect();
        let text = match (&tool, last["role"] == "tool") {
            (Some(_), _) => String::new(),
            (None, true) => format!("The tool says: {}", content(&last["content"])),
            (None, false) => format!("You said \"{start}\". This answer comes from a mock server."),
        };
        let output = count(tool.as_ref().map_or(&text, |(_, arguments)| arguments));
        let hash = asked.message.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self {
            id: format!("chatcmpl-mock-{hash:016x}"),
            model: request["model"].as_str().unwrap_or("mock").to_owned(),
            text,
            tool,
            usage: json!({
                "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
                "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
            }),
        }
    }

    fn finish_reason(&self) -> &'static str {
        if self.tool.is_some() { "tool_calls" } else { "stop" }
    }

    fn tool_calls(&self) -> Value {
        self.tool
            .iter()
            .map(|(name, arguments)| {
                json!({"index": 0, "id": "call_mock", "type": "function",
                "function": {"name": name, "arguments": arguments}})
            })
            .collect()
    }

    fn plain(&self, asked: &Asked) -> Response {
        let mut message = json!({"role": "assistant", "content": self.text, "refusal": null});
        if self.tool.is_some() {
            message["content"] = Value::Null;
            message["tool_calls"] = self.tool_calls();
        }
        let mut body = json!({
            "id": self.id, "object": "chat.completion", "created": 0, "model": self.model,
            "choices": [{"index": 0, "message": message, "logprobs": null,
                "finish_reason": self.finish_reason()}],
            "usage": self.usage, "service_tier": "default", "system_fingerprint": "fp_mock",
        });
        if asked.has("nousage") {
            body["usage"] = Value::Null;
        }
        let text = body.to_string();
        if asked.has("cut") {
            let half = text.chars().take(40).collect();
            return sent("application/json", vec![half], true, Duration::ZERO, false);
        }
        sent("application/json", vec![text], false, Duration::ZERO, false)
    }

    fn streamed(&self, request: &Value, asked: &Asked) -> Response {
        let chunk = |choices: Value, usage: &Value| {
            json!({"id": self.id, "object": "chat.completion.chunk", "created": 0,
                "model": self.model, "service_tier": "default", "system_fingerprint": "fp_mock",
                "choices": choices, "usage": usage})
        };
        let none = Value::Null;
        let delta = |delta: Value, reason: Option<&str>| {
            let choice = json!({"index": 0, "delta": delta, "finish_reason": reason});
            format!("data: {}\n\n", chunk(json!([choice]), &none))
        };
        let mut frames = vec![delta(json!({"role": "assistant", "content": ""}), None)];
        match &self.tool {
            Some((name, arguments)) => {
                let head = json!({"index": 0, "id": "call_mock", "type": "function",
                    "function": {"name": name, "arguments": ""}});
                frames.push(delta(json!({"tool_calls": [head]}), None));
                for piece in pieces(arguments) {
                    let part = json!({"index": 0, "function": {"arguments": piece}});
                    frames.push(delta(json!({"tool_calls": [part]}), None));
                }
            }
            None => frames.extend(
                pieces(&self.text).into_iter().map(|piece| delta(json!({"content": piece}), None)),
            ),
        }
        let cut = asked.has("cut");
        if cut || asked.has("frame-error") {
            frames.truncate(frames.len().div_ceil(2));
        }
        if asked.has("stall") {
            frames.truncate(1);
        }
        if asked.has("frame-error") {
            let error = json!({"error": {"message": "Rate limit reached", "type": "tokens",
                "code": "rate_limit_exceeded"}});
            frames.push(format!("data: {error}\n\n"));
        } else if !cut && !asked.has("stall") {
            frames.push(delta(json!({}), Some(self.finish_reason())));
            let usage = request["stream_options"]["include_usage"] == true;
            if usage && !asked.has("nousage") {
                frames.push(format!("data: {}\n\n", chunk(json!([]), &self.usage)));
            }
            frames.push("data: [DONE]\n\n".to_owned());
        }
        let pause = Duration::from_millis(if asked.has("slow") { 20 } else { 0 });
        sent("text/event-stream", frames, cut, pause, asked.has("stall"))
    }
}

/// Words with the spaces before them.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for letter in text.chars() {
        match pieces.last_mut() {
            Some(piece) if letter != ' ' => piece.push(letter),
            _ => pieces.push(letter.to_string()),
        }
    }
    pieces
}

/// A success of `parts`, one after the other; `cut` closes the connection after them, `stall` never ends.
fn sent(
    kind: &'static str,
    parts: Vec<String>,
    cut: bool,
    pause: Duration,
    stall: bool,
) -> Response {
    let parts = stream::iter(parts.into_iter().map(Ok)).then(move |part| async move {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        part
    });
    let end = stream::once(async move {
        if stall {
            std::future::pending::<()>().await;
        }
        // What was said before the cut is to arrive.
        tokio::time::sleep(Duration::from_millis(5)).await;
        Err(std::io::Error::other("cut, as asked"))
    });
    let end = end.take(usize::from(cut || stall));
    let headers = [(header::CONTENT_TYPE.as_str(), kind), ("x-request-id", "req_mock")];
    (headers, Body::from_stream(parts.chain(end))).into_response()
}
