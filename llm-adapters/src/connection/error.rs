//! What went wrong, as an [`LlmError`]: from the provider's code, from the status, and only then from
//! its text. The words of all providers are read alike, since servers speak like several of them.
//! Invariant: whatever the server says passes the redactor, so that no error holds a key.

use std::time::Duration;

use chrono::Utc;
use prompt_engine_core::{ErrorCategory, LlmError, TokenCounts};
use serde_json::{Map, Value};

use super::Head;
use crate::http::{self, excerpt, quoting};
use crate::json::{error_of, text};

/// The most characters of what a server says about an error: several times what any says.
const MESSAGE_CHARS: usize = 4_000;
/// The most bytes of the object that says it; of a larger one the start of its text is kept.
const ERROR_BYTES: usize = 16 * 1024;

/// The error of an answer that is no success.
pub(super) fn from_answer(body: &str, head: &Head) -> LlmError {
    let status = head.status;
    let value: Value = serde_json::from_str(body).unwrap_or(Value::Null);
    let said = Said::read(&value);
    let mut message = match (said.message, status, head.header("location")) {
        (_, 300..=399, Some(place)) => {
            format!("the server answered HTTP {status} and points to {place}")
        }
        (Some(text), ..) => text.to_owned(),
        (None, ..) => {
            quoting(&format!("the server answered HTTP {status}"), &head.redactor.text(body))
        }
    };
    if matches!(status, 404 | 405) && said.code.or(said.kind).is_none() {
        // Nobody there may know the API: then the address is what is wrong.
        message = format!("{} ({})", message.trim_end_matches('.'), http::shown(&head.url));
    }
    let wait = http::retry_after(&head.headers, Utc::now());
    said.error(Some(status), &message, wait, head).with_metadata(metadata(&value, head))
}

/// The error that `value`, a frame of a stream or the body of a success, reports.
pub(crate) fn from_value(value: &Value, head: &Head) -> LlmError {
    let said = Said::read(value);
    let whole = || excerpt(&head.redactor.value(value).to_string());
    let message = said.message.map_or_else(whole, str::to_owned);
    said.error(said.status, &message, None, head).with_metadata(metadata(value, head))
}

/// The same error with what the answer used, where it says that.
pub(crate) fn paid(error: LlmError, tokens: Option<TokenCounts>) -> LlmError {
    match tokens {
        Some(tokens) => error.with_tokens(tokens),
        None => error,
    }
}

/// A success whose body, which begins with `start`, holds no `what`.
pub(super) fn no_answer(what: &str, start: &str, head: &Head) -> LlmError {
    let error = match head.header("content-encoding") {
        Some(coding) if !coding.eq_ignore_ascii_case("identity") => {
            let coding = head.redactor.text(coding);
            http::unreadable(&format!("the server's answer is compressed ({coding}), unasked"), "")
        }
        _ => {
            let message = format!("the server's answer is no {what}");
            http::unreadable(&message, &head.redactor.start(start))
        }
    };
    error.with_http_status(head.status)
}

/// What a server says about an error, in any of the forms that servers use:
/// `{"error": {…}}`, `{"error": "…"}`, `{"message": …}`, `{"detail": …}`.
struct Said<'v> {
    message: Option<&'v str>,
    /// `code`, or Gemini's `status`.
    code: Option<&'v str>,
    /// `type`.
    kind: Option<&'v str>,
    status: Option<u16>,
    /// Gemini's list of what else there is to say.
    details: &'v [Value],
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
        let details = inner.get("details").and_then(Value::as_array);
        Self { message, code, kind, status, details: details.map_or(&[], Vec::as_slice) }
    }

    fn error(
        &self,
        status: Option<u16>,
        message: &str,
        wait: Option<Duration>,
        head: &Head,
    ) -> LlmError {
        let message = http::start(head.redactor.text(message), MESSAGE_CHARS);
        let mut error = LlmError::new(self.category(status), message);
        if let Some(status) = status {
            error = error.with_http_status(status);
        }
        if let Some(code) = self.code.or(self.kind) {
            error = error.with_code(excerpt(&head.redactor.text(code)));
        }
        match wait.or_else(|| self.retry_after()) {
            Some(wait) => error.with_retry_after(wait),
            None => error,
        }
    }

    /// Gemini's `"retryDelay": "48.5s"`.
    fn retry_after(&self) -> Option<Duration> {
        let delay = self.details.iter().find_map(|detail| detail.get("retryDelay")?.as_str())?;
        Duration::try_from_secs_f64(delay.strip_suffix('s')?.parse().ok()?).ok()
    }

    fn category(&self, status: Option<u16>) -> ErrorCategory {
        use ErrorCategory as C;
        let category = self.category_of_code().unwrap_or_else(|| match status {
            Some(status) => http::category(status),
            None => self.category_of_words(),
        });
        match category {
            C::Permission if self.has_reason("BILLING_DISABLED") => C::Billing,
            C::Permission if self.has_reason("API_KEY_INVALID") => C::Authentication,
            C::InvalidRequest => self.what_is_invalid(),
            category => category,
        }
    }

    /// What codes say that say more than their status.
    fn category_of_code(&self) -> Option<ErrorCategory> {
        use ErrorCategory as C;
        let named = |parts: &[&str]| self.is_called(parts);
        if named(&["insufficient_quota", "insufficient_balance", "billing", "payment_required"]) {
            return Some(C::Billing);
        }
        if named(&[
            "context_length",
            "too_many_prompt_tokens",
            "exceed_context_size",
            "tokens_limit_reached",
        ]) {
            return Some(C::ContextLength);
        }
        let filtered =
            named(&["content_filter", "_policy", "contentfilter", "responsibleaipolicy"]);
        if filtered || (named(&["invalid_prompt"]) && self.says(&["policy", "policies"])) {
            return Some(C::ContentFilter);
        }
        if named(&["rate_limit"]) {
            return Some(C::RateLimit);
        }
        if named(&["invalid_api_key", "authentication_error"]) {
            return Some(C::Authentication);
        }
        named(&["overloaded", "slow_down"]).then_some(C::Overloaded)
    }

    /// What is said where there is no status.
    fn category_of_words(&self) -> ErrorCategory {
        use ErrorCategory as C;
        let named = |parts: &[&str]| self.is_called(parts);
        let nameless = self.code.or(self.kind).is_none();
        if named(&["unauthenticated"]) {
            C::Authentication
        } else if named(&["permission"]) {
            C::Permission
        } else if named(&["timeout", "deadline_exceeded"]) {
            C::Timeout
        } else if named(&["resource_exhausted"]) || (nameless && self.says(&["rate limit"])) {
            C::RateLimit
        } else if named(&["unavailable"]) || (nameless && self.says(&["overloaded"])) {
            C::Overloaded
        } else if named(&[
            // A response that failed for its input says `invalid_prompt` or `image_parse_error`.
            "invalid_",
            "not_found",
            "tool_use_failed",
            "image",
            "request_too_large",
            "failed_precondition",
            "out_of_range",
        ]) {
            C::InvalidRequest
        } else if self.says(&["maximum context length"]) {
            C::ContextLength
        } else {
            C::Server
        }
    }

    /// Several providers call a prompt that is too long, and an account without money, invalid.
    fn what_is_invalid(&self) -> ErrorCategory {
        if self.says(&["credit balance is too low", "enable billing"]) {
            ErrorCategory::Billing
        } else if self.has_reason("API_KEY_INVALID")
            || self.says(&["api key not valid", "api key expired"])
        {
            ErrorCategory::Authentication
        } else if self.says(&[
            "context length",
            "context limit",
            "context window",
            "maximum prompt length",
            "maximum number of tokens",
            "prompt is too long",
            "too many tokens",
        ]) {
            ErrorCategory::ContextLength
        } else if self.says(&["content filtering policy"]) {
            ErrorCategory::ContentFilter
        } else {
            ErrorCategory::InvalidRequest
        }
    }

    fn has_reason(&self, reason: &str) -> bool {
        self.details.iter().any(|detail| text(detail, "reason") == Some(reason))
    }

    /// Whether the code or the type holds one of `parts`.
    fn is_called(&self, parts: &[&str]) -> bool {
        [self.code, self.kind].into_iter().flatten().any(|word| {
            let word = word.to_ascii_lowercase();
            parts.iter().any(|part| word.contains(part))
        })
    }

    /// Whether the message holds one of `parts`.
    fn says(&self, parts: &[&str]) -> bool {
        self.message.is_some_and(|message| {
            let message = message.to_ascii_lowercase();
            parts.iter().any(|part| message.contains(part))
        })
    }
}

fn metadata(value: &Value, head: &Head) -> Value {
    let mut fields = Map::new();
    // Anthropic repeats it in the body.
    let in_body = || text(value, "request_id").map(|id| head.redactor.text(id));
    if let Some(id) = head.request_id().or_else(in_body) {
        fields.insert("request_id".into(), id.into());
    }
    if !value.is_null() {
        let error = head.redactor.value(error_of(value).unwrap_or(value));
        let text = error.to_string();
        let whole = text.len() <= ERROR_BYTES;
        fields.insert(
            "error".into(),
            if whole { error } else { http::start(text, MESSAGE_CHARS).into() },
        );
    }
    if fields.is_empty() { Value::Null } else { Value::Object(fields) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::http::Redactor;

    fn assert_categories(cases: &[(u16, Value, ErrorCategory)]) {
        for (status, body, expected) in cases {
            let head = Head { status: *status, ..Head::default() };
            let error = from_answer(&body.to_string(), &head);
            assert_eq!(error.category(), *expected, "{status} {body}");
            assert_eq!(error.http_status(), Some(*status));
        }
    }

    #[test]
    fn what_a_server_says_without_end_is_kept_from_its_start() {
        let body = json!({"error": {"message": "é".repeat(100_000), "code": "c".repeat(100_000)}});
        let error = from_answer(&body.to_string(), &Head { status: 500, ..Head::default() });
        assert_eq!(error.message(), "é".repeat(4_000) + "…");
        assert_eq!(error.code().map(|code| code.chars().count()), Some(201));
        let kept = error.metadata()["error"].as_str().expect("the start of a text");
        assert!(kept.starts_with("{\"code\":\"ccc") && kept.chars().count() == 4_001);
    }

    #[test]
    fn a_place_where_nobody_knows_the_api_is_named() {
        let url = "http://h/chat/completions".to_owned();
        let head = Head { url, status: 404, ..Head::default() };
        let said = |body: &str| from_answer(body, &head).message().to_owned();
        assert_eq!(said(r#"{"detail":"Not Found."}"#), "Not Found (http://h/chat/completions)");
        let bare = "the server answered HTTP 404: nothing (http://h/chat/completions)";
        assert_eq!(said("nothing"), bare);
        let model = r#"{"error":{"message":"No such model.","code":"model_not_found"}}"#;
        assert_eq!(said(model), "No such model.");
    }

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
        assert_categories(&cases);
    }

    #[test]
    fn anthropic_and_gemini_say_it_in_words_of_their_own() {
        use ErrorCategory as C;
        let anthropic = |kind: &str, message: &str| json!({"type": "error", "error": {"type": kind, "message": message}});
        let gemini = |status: &str, message: &str| json!({"error": {"code": 400, "status": status, "message": message}});
        let reason = |reason: &str| json!({"error": {"status": "PERMISSION_DENIED", "details": [{"reason": reason}]}});
        let cases = [
            (400, anthropic("invalid_request_error", "messages: at least one"), C::InvalidRequest),
            (
                400,
                anthropic("invalid_request_error", "prompt is too long: 210000 tokens > 200000"),
                C::ContextLength,
            ),
            (
                400,
                anthropic("invalid_request_error", "Your credit balance is too low to access"),
                C::Billing,
            ),
            (
                400,
                anthropic("invalid_request_error", "Output blocked by content filtering policy"),
                C::ContentFilter,
            ),
            (401, anthropic("authentication_error", "invalid x-api-key"), C::Authentication),
            (402, anthropic("billing_error", "pay"), C::Billing),
            (403, anthropic("permission_error", "no"), C::Permission),
            (404, anthropic("not_found_error", "model: claude-9"), C::InvalidRequest),
            (413, anthropic("request_too_large", "32 MB"), C::InvalidRequest),
            (429, anthropic("rate_limit_error", "slow down"), C::RateLimit),
            (500, anthropic("api_error", "oh"), C::Server),
            (504, anthropic("timeout_error", "late"), C::Timeout),
            (529, anthropic("overloaded_error", "Overloaded"), C::Overloaded),
            (
                400,
                gemini(
                    "INVALID_ARGUMENT",
                    "The input token count (9) exceeds the maximum number of tokens allowed (8).",
                ),
                C::ContextLength,
            ),
            (400, gemini("INVALID_ARGUMENT", "API key not valid. Please"), C::Authentication),
            (400, gemini("FAILED_PRECONDITION", "Please enable billing"), C::Billing),
            (403, gemini("PERMISSION_DENIED", "no"), C::Permission),
            (403, reason("BILLING_DISABLED"), C::Billing),
            (403, reason("API_KEY_INVALID"), C::Authentication),
            (503, json!([gemini("UNAVAILABLE", "overloaded")]), C::Overloaded),
            (504, gemini("DEADLINE_EXCEEDED", "late"), C::Timeout),
        ];
        assert_categories(&cases);
    }

    #[test]
    fn gemini_says_in_its_body_how_long_to_wait() {
        let body = json!({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED",
            "details": [{"@type": "Help"}, {"retryDelay": "48.5s"}]}});
        let head = Head { status: 429, ..Head::default() };
        for error in [from_answer(&body.to_string(), &head), from_value(&body, &head)] {
            assert_eq!(error.retry_after(), Some(Duration::from_millis(48_500)));
            assert_eq!(error.code(), Some("RESOURCE_EXHAUSTED"));
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
            (json!({"error": {"type": "overloaded_error"}}), C::Overloaded),
            (json!({"error": {"type": "timeout_error"}}), C::Timeout),
            (json!({"error": {"type": "not_found_error"}}), C::InvalidRequest),
            (json!({"error": {"type": "api_error"}}), C::Server),
            (
                json!({"error": {"type": "invalid_request_error", "message": "prompt is too long"}}),
                C::ContextLength,
            ),
            (json!({"error": {"status": "RESOURCE_EXHAUSTED"}}), C::RateLimit),
            (json!({"error": {"status": "UNAVAILABLE"}}), C::Overloaded),
            (json!({"error": {"status": "UNAUTHENTICATED"}}), C::Authentication),
            (json!({"error": {"status": "DEADLINE_EXCEEDED"}}), C::Timeout),
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
        let body = json!({"error": {"type": "sk-secret", "message": "wrong key sk-secret",
            "param": "sk-secret"}, "request_id": "sk-secret"});
        let error = from_answer(&body.to_string(), &head);
        assert_eq!(error.message(), "wrong key [redacted]");
        assert!(!format!("{error:?}").contains("sk-secret"));
    }

    #[test]
    fn a_key_where_a_text_is_cut_is_not_half_in_the_error() {
        let key = "sk-secret-0123456789";
        let head = Head { redactor: Redactor::new([key.into()]), ..Head::default() };
        let body = format!("{}{key} and more", "x".repeat(195));
        let value = json!({"odd": format!("{}{key}", "x".repeat(187))});
        for error in [from_answer(&body, &head), from_value(&value, &head)] {
            assert!(error.message().contains("xxx[red"), "{error}");
            assert!(!format!("{error:?}").contains("sk-"), "{error:?}");
        }
    }
}
