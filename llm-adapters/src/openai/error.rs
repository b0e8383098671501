//! What went wrong, as an [`LlmError`]: from the status, the provider's code, and only then its text.
//! Invariant: whatever the server says passes the redactor, so that no error holds a key.

use chrono::Utc;
use prompt_engine_core::{ErrorCategory, LlmError};
use serde_json::{Map, Value};

use super::answer::Head;
use crate::http::{self, excerpt, quoting};
use crate::json::{error_of, text};

/// The error of an answer that is no success.
pub(super) fn from_answer(body: &str, head: &Head) -> LlmError {
    let status = head.status;
    let value: Value = serde_json::from_str(body).unwrap_or(Value::Null);
    let said = Said::read(&value);
    let mut message = match said.message {
        Some(text) => text.to_owned(),
        None => quoting(&format!("the server answered HTTP {status}"), &head.redactor.text(body)),
    };
    if let (300..=399, Some(place)) = (status, head.header("location")) {
        message = format!("the server answered HTTP {status} and points to {place}");
    }
    let error = LlmError::new(category(Some(status), &said), head.redactor.text(&message))
        .with_http_status(status)
        .with_metadata(metadata(&value, head));
    let error = with_code(error, &said, head);
    match http::retry_after(&head.headers, Utc::now()) {
        Some(wait) => error.with_retry_after(wait),
        None => error,
    }
}

/// The error that `value`, a frame of a stream or the body of a success, reports.
pub(super) fn from_value(value: &Value, head: &Head) -> LlmError {
    let said = Said::read(value);
    let whole = || excerpt(&head.redactor.value(value).to_string());
    let message = said.message.map_or_else(whole, str::to_owned);
    let error = LlmError::new(category(None, &said), head.redactor.text(&message))
        .with_metadata(metadata(value, head));
    let error = with_code(error, &said, head);
    match said.status {
        Some(status) => error.with_http_status(status),
        None => error,
    }
}

fn with_code(error: LlmError, said: &Said<'_>, head: &Head) -> LlmError {
    match said.code.or(said.kind) {
        Some(code) => error.with_code(head.redactor.text(code)),
        None => error,
    }
}

/// A success whose body holds no `what`.
pub(super) fn no_answer(what: &str, body: &str, head: &Head) -> LlmError {
    http::unreadable(&format!("the server's answer is no {what}"), &head.redactor.text(body))
        .with_http_status(head.status)
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
        let inner = error_of(value).unwrap_or(value);
        let text = |name| text(inner, name);
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
        // A frame of that type, which says nothing more.
        let kind = text("type").filter(named).filter(|kind| *kind != "error");
        Self { message, code, kind, status }
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
    if word(&[
        "context_length",
        "too_many_prompt_tokens",
        "exceed_context_size",
        "tokens_limit_reached",
    ]) {
        return C::ContextLength;
    }
    if word(&["content_filter", "_policy", "contentfilter", "responsibleaipolicy"]) {
        return C::ContentFilter;
    }
    if word(&["invalid_prompt"]) && text(&["policy", "policies"]) {
        return C::ContentFilter;
    }
    if word(&["rate_limit"]) {
        return C::RateLimit;
    }
    if word(&["invalid_api_key", "authentication_error"]) {
        return C::Authentication;
    }
    if word(&["overloaded", "slow_down"]) {
        return C::Overloaded;
    }
    match status.or(said.status) {
        Some(400 | 413 | 422)
            if text(&[
                "context length",
                "context window",
                "maximum prompt length",
                "maximum number of tokens",
                "prompt is too long",
                "too many tokens",
            ]) =>
        {
            C::ContextLength
        }
        Some(status) => http::category(status),
        None if word(&["permission"]) => C::Permission,
        None if word(&["timeout"]) => C::Timeout,
        None if text(&["maximum context length"]) => C::ContextLength,
        // A response that failed for its input says `invalid_prompt` or `image_parse_error`.
        None if word(&["invalid_", "not_found", "tool_use_failed", "image"]) => C::InvalidRequest,
        None if words.iter().all(String::is_empty) && text(&["rate limit"]) => C::RateLimit,
        None if words.iter().all(String::is_empty) && text(&["overloaded"]) => C::Overloaded,
        None => C::Server,
    }
}

fn metadata(value: &Value, head: &Head) -> Value {
    let mut fields: Map<String, Value> = head.request_id().into_iter().collect();
    if !value.is_null() {
        let error = error_of(value).unwrap_or(value);
        fields.insert("error".into(), head.redactor.value(error));
    }
    if fields.is_empty() { Value::Null } else { Value::Object(fields) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::http::Redactor;

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
        for (status, body, expected) in cases {
            let head = Head { status, ..Head::default() };
            let error = from_answer(&body.to_string(), &head);
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
            let error = from_value(&frame, &Head::default());
            assert_eq!(error.category(), expected, "{frame}");
        }
    }

    #[test]
    fn an_error_in_a_list_is_read_like_one_that_is_not() {
        let error = json!({"message": "too fast", "code": 429, "status": "RESOURCE_EXHAUSTED"});
        let body = json!([{"error": error}]);
        let head = Head { status: 429, ..Head::default() };
        for read in [from_answer(&body.to_string(), &head), from_value(&body, &head)] {
            assert_eq!((read.message(), read.code()), ("too fast", Some("RESOURCE_EXHAUSTED")));
            assert_eq!(
                (read.category(), read.http_status()),
                (ErrorCategory::RateLimit, Some(429))
            );
            assert_eq!(read.metadata()["error"], error);
        }
    }

    #[test]
    fn an_echoed_key_is_nowhere_in_the_error() {
        let redactor = Redactor::new(["sk-secret".into()]);
        let head = Head { status: 401, redactor, ..Head::default() };
        let body = r#"{"error":{"message":"wrong key sk-secret","param":"sk-secret"}}"#;
        let error = from_answer(body, &head);
        assert_eq!(error.message(), "wrong key [redacted]");
        assert!(!format!("{error:?}").contains("sk-secret"));
    }

    #[test]
    fn a_key_where_a_text_is_cut_is_not_half_in_the_error() {
        let key = "sk-secret-0123456789";
        let head = Head { redactor: Redactor::new([key.into()]), ..Head::default() };
        let body = format!("{}{key} and more", "x".repeat(195));
        let value = serde_json::json!({"odd": format!("{}{key}", "x".repeat(187))});
        for error in [from_answer(&body, &head), from_value(&value, &head)] {
            assert!(error.message().contains("xxx[red"), "{error}");
            assert!(!format!("{error:?}").contains("sk-"), "{error:?}");
        }
    }
}
