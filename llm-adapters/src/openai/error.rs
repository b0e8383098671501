//! What went wrong, as an [`LlmError`]: from the status, the provider's code, and only then its text.
//! Invariant: whatever the server says passes the [`Redactor`], so that no error holds the key.

use std::time::Duration;

use prompt_engine_core::error::BoxError;
use prompt_engine_core::{ErrorCategory, LlmError};
use reqwest::header::HeaderMap;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};

use super::transport::header;

/// Takes the key out of what a server echoes.
#[derive(Debug)]
pub(super) struct Redactor(SecretString);

impl Redactor {
    pub(super) fn new(key: SecretString) -> Self {
        Self(key)
    }

    pub(super) fn text(&self, text: &str) -> String {
        let key = self.0.expose_secret();
        // A key this short is a placeholder, and a part of ordinary words.
        if key.len() < 4 { text.to_owned() } else { text.replace(key, "[redacted]") }
    }

    fn value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => items.iter().map(|item| self.value(item)).collect(),
            Value::Object(fields) => {
                fields.iter().map(|(name, item)| (self.text(name), self.value(item))).collect()
            }
            other => other.clone(),
        }
    }
}

/// The error of an answer that is no success.
pub(super) fn from_answer(
    status: u16,
    headers: &HeaderMap,
    body: &str,
    redactor: &Redactor,
) -> LlmError {
    let value: Value = serde_json::from_str(body).unwrap_or(Value::Null);
    let said = Said::read(&value);
    let mut message = match said.message {
        Some(text) => text.to_owned(),
        None => match excerpt(body) {
            text if text.is_empty() => format!("the server answered HTTP {status}"),
            text => format!("the server answered HTTP {status}: {text}"),
        },
    };
    if let (300..=399, Some(place)) = (status, header(headers, "location")) {
        message = format!("the server answered HTTP {status} and points to {place}");
    }
    let mut error = LlmError::new(category(Some(status), &said), redactor.text(&message))
        .with_http_status(status)
        .with_metadata(metadata(headers, &value, redactor));
    if let Some(code) = said.code.or(said.kind) {
        error = error.with_code(redactor.text(code));
    }
    match retry_after(headers) {
        Some(wait) => error.with_retry_after(wait),
        None => error,
    }
}

/// The error that `value`, a frame of a stream or the body of a success, reports.
pub(super) fn from_frame(value: &Value, headers: &HeaderMap, redactor: &Redactor) -> LlmError {
    let said = Said::read(value);
    let message = said.message.map_or_else(|| excerpt(&value.to_string()), str::to_owned);
    let mut error = LlmError::new(category(None, &said), redactor.text(&message))
        .with_metadata(metadata(headers, value, redactor));
    if let Some(status) = said.status {
        error = error.with_http_status(status);
    }
    match said.code.or(said.kind) {
        Some(code) => error.with_code(redactor.text(code)),
        None => error,
    }
}

/// A request that never became one.
pub(super) fn unsent(source: impl Into<BoxError>) -> LlmError {
    LlmError::new(ErrorCategory::InvalidRequest, "the request cannot be written")
        .with_source(source)
}

/// A request that got no answer.
pub(super) fn from_reqwest(source: reqwest::Error, base_url: &str) -> LlmError {
    let place = reqwest::Url::parse(base_url).map_or_else(
        |_| "the server".to_owned(),
        |url| match (url.host_str(), url.port_or_known_default()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            _ => "the server".to_owned(),
        },
    );
    if source.is_timeout() {
        return timeout(format!("no connection to {place} in time"));
    }
    if source.is_builder() {
        return unsent(source.without_url());
    }
    let message = if source.is_connect() {
        format!("cannot connect to {place}")
    } else {
        format!("{place} closed the connection without an answer")
    };
    LlmError::new(ErrorCategory::Network, message).with_source(source.without_url())
}

/// A body that ended before its end.
pub(super) fn broken(source: reqwest::Error) -> LlmError {
    cut_short().with_source(source.without_url())
}

/// An answer that is not whole.
pub(super) fn cut_short() -> LlmError {
    let message = "the connection closed before the answer was whole";
    LlmError::new(ErrorCategory::Network, message)
}

/// A limit of ours that passed.
pub(super) fn timeout(message: String) -> LlmError {
    LlmError::new(ErrorCategory::Timeout, message)
}

/// A success that cannot be read; `body` must be redacted.
pub(super) fn unreadable(message: &str, body: &str) -> LlmError {
    let message = match excerpt(body) {
        text if text.is_empty() => message.to_owned(),
        text => format!("{message}: {text}"),
    };
    LlmError::new(ErrorCategory::Server, message)
}

/// What a server says about an error, in any of the forms that servers use:
/// `{"error": {…}}`, `{"error": "…"}`, `{"message": …}`, `{"detail": …}`.
#[derive(Default)]
struct Said<'v> {
    message: Option<&'v str>,
    code: Option<&'v str>,
    kind: Option<&'v str>,
    status: Option<u16>,
}

impl<'v> Said<'v> {
    fn read(value: &'v Value) -> Self {
        let inner = value.get("error").filter(|error| !error.is_null()).unwrap_or(value);
        let text = |name: &str| inner.get(name).and_then(Value::as_str).filter(|t| !t.is_empty());
        let message = inner
            .as_str()
            .or_else(|| text("message"))
            .or_else(|| text("detail"))
            .or_else(|| inner.pointer("/message/detail/0/msg").and_then(Value::as_str))
            .or_else(|| inner.pointer("/detail/0/msg").and_then(Value::as_str));
        let status = ["code", "status_code", "status"].into_iter().find_map(|name| {
            let field = inner.get(name)?;
            let number = field.as_u64().or_else(|| field.as_str()?.parse().ok())?;
            u16::try_from(number).ok().filter(|status| (400..600).contains(status))
        });
        let named = |text: &&str| text.parse::<u64>().is_err();
        let code = text("code").filter(named).or_else(|| text("status").filter(named));
        Self { message, code, kind: text("type").filter(named), status }
    }
}

fn category(status: Option<u16>, said: &Said<'_>) -> ErrorCategory {
    use ErrorCategory as C;
    let words = [said.code, said.kind].map(|word| word.unwrap_or_default().to_ascii_lowercase());
    let word = |parts: &[&str]| words.iter().any(|w| parts.iter().any(|part| w.contains(part)));
    let message = said.message.unwrap_or_default().to_ascii_lowercase();
    let text = |parts: &[&str]| parts.iter().any(|part| message.contains(part));

    // Codes that say more than their status.
    if word(&["insufficient_quota", "insufficient_balance", "billing", "payment_required"]) {
        return C::Billing;
    }
    if word(&["context_length", "too_many_prompt_tokens", "exceed_context_size"]) {
        return C::ContextLength;
    }
    if word(&["content_filter", "content_policy", "contentfilter", "responsibleaipolicy"]) {
        return C::ContentFilter;
    }
    if word(&["rate_limit"]) {
        return C::RateLimit;
    }
    if word(&["invalid_api_key", "authentication_error"]) {
        return C::Authentication;
    }
    if word(&["overloaded"]) {
        return C::Overloaded;
    }
    match status.or(said.status) {
        Some(401) => C::Authentication,
        Some(402) => C::Billing,
        Some(403) => C::Permission,
        Some(408 | 504 | 522 | 524) => C::Timeout,
        Some(429) => C::RateLimit,
        Some(503 | 529) => C::Overloaded,
        Some(400 | 413 | 422)
            if text(&[
                "maximum context length",
                "context length",
                "context window",
                "prompt is too long",
                "too many tokens",
            ]) =>
        {
            C::ContextLength
        }
        Some(300..=499) => C::InvalidRequest,
        Some(_) => C::Server,
        None if word(&["permission"]) => C::Permission,
        None if word(&["timeout"]) => C::Timeout,
        None if text(&["maximum context length"]) => C::ContextLength,
        None if word(&["invalid_request", "not_found", "tool_use_failed"]) => C::InvalidRequest,
        None if words.iter().all(String::is_empty) && text(&["rate limit"]) => C::RateLimit,
        None if words.iter().all(String::is_empty) && text(&["overloaded"]) => C::Overloaded,
        None => C::Server,
    }
}

/// `retry-after-ms` or `retry-after` in seconds; a date, which no model server is known to send, is ignored.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |name| header(headers, name)?.trim().parse::<f64>().ok();
    let seconds = match number("retry-after-ms") {
        Some(ms) => ms / 1000.0,
        None => number("retry-after")?,
    };
    Duration::try_from_secs_f64(seconds).ok()
}

fn metadata(headers: &HeaderMap, value: &Value, redactor: &Redactor) -> Value {
    let mut fields = Map::new();
    if let Some(id) = header(headers, "x-request-id") {
        fields.insert("request_id".into(), json!(redactor.text(id)));
    }
    if !value.is_null() {
        let error = value.get("error").filter(|error| !error.is_null()).unwrap_or(value);
        fields.insert("error".into(), redactor.value(error));
    }
    if fields.is_empty() { Value::Null } else { Value::Object(fields) }
}

/// The start of a text, on one line.
fn excerpt(text: &str) -> String {
    const CHARS: usize = 200;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_code_decide_the_category() {
        use ErrorCategory as C;
        let cases: [(u16, Value, C); 22] = [
            (401, json!({"detail": "Invalid API Key"}), C::Authentication),
            (403, json!({"error": {"message": "no"}}), C::Permission),
            (402, json!({"error": {"message": "no credit", "code": 402}}), C::Billing),
            (429, json!({"error": {"code": "insufficient_quota", "message": "q"}}), C::Billing),
            (
                429,
                json!({"error": {"type": "tokens", "code": "rate_limit_exceeded"}}),
                C::RateLimit,
            ),
            (413, json!({"error": {"code": "rate_limit_exceeded"}}), C::RateLimit),
            (400, json!({"error": {"code": "context_length_exceeded"}}), C::ContextLength),
            (400, json!({"error": {"message": "maximum context length is 9"}}), C::ContextLength),
            (400, json!({"error": {"code": "content_filter"}}), C::ContentFilter),
            (400, json!({"error": {"code": "content_policy_violation"}}), C::ContentFilter),
            (400, json!({"error": {"message": "bad"}}), C::InvalidRequest),
            (404, json!({"error": {"code": "model_not_found"}}), C::InvalidRequest),
            (413, Value::Null, C::InvalidRequest),
            (422, json!({"detail": [{"msg": "field required"}]}), C::InvalidRequest),
            (307, Value::Null, C::InvalidRequest),
            (408, Value::Null, C::Timeout),
            (504, Value::Null, C::Timeout),
            (503, json!({"error": {"code": 503, "status": "UNAVAILABLE"}}), C::Overloaded),
            (529, json!({"error": {"type": "overloaded_error"}}), C::Overloaded),
            (500, json!({"error": {"type": "server_error"}}), C::Server),
            (502, Value::Null, C::Server),
            (520, Value::Null, C::Server),
        ];
        let redactor = Redactor::new("".into());
        for (status, body, expected) in cases {
            let error = from_answer(status, &HeaderMap::new(), &body.to_string(), &redactor);
            assert_eq!(error.category(), expected, "{status} {body}");
            assert_eq!(error.http_status(), Some(status));
        }
    }

    #[test]
    fn a_frame_is_judged_by_what_it_says() {
        use ErrorCategory as C;
        let cases = [
            (json!({"error": {"message": "x", "code": 502}}), C::Server),
            (json!({"error": {"message": "x", "code": "429"}}), C::RateLimit),
            (
                json!({"error": {"type": "invalid_request_error", "status_code": 400}}),
                C::InvalidRequest,
            ),
            (json!({"error": "Rate limit reached"}), C::RateLimit),
            (json!({"error": {"type": "server_error"}}), C::Server),
        ];
        for (frame, expected) in cases {
            let error = from_frame(&frame, &HeaderMap::new(), &Redactor::new("".into()));
            assert_eq!(error.category(), expected, "{frame}");
        }
    }

    #[test]
    fn an_echoed_key_is_nowhere_in_the_error() {
        let redactor = Redactor::new("sk-secret".into());
        let body = r#"{"error":{"message":"wrong key sk-secret","param":"sk-secret"}}"#;
        let error = from_answer(401, &HeaderMap::new(), body, &redactor);
        assert_eq!(error.message(), "wrong key [redacted]");
        assert!(!format!("{error:?}").contains("sk-secret"));
    }
}
