//! What went wrong, as an [`LlmError`]: from what the provider calls it, from the status, and only
//! then from its text.
//! Invariant: whatever a server says has the key taken out before it is in an error.

use std::time::Duration;

use chrono::Utc;
use genai::webc::Error as WebError;
use genai::{BoxError, Error as GenAiError};
use prompt_engine_core::{ErrorCategory, LlmError};
use reqwest::header::HeaderMap;
use secrecy::SecretString;
use serde_json::{Map, Value, json};

use crate::http::{self, Redactor, excerpt, header, quoting, retry_after};
use crate::json;

/// Makes the errors of one call.
#[derive(Debug)]
pub(super) struct Judge {
    redactor: Redactor,
    base_url: String,
}

impl Judge {
    pub(super) fn new(key: SecretString, base_url: &str) -> Self {
        Self { redactor: Redactor::new([key]), base_url: base_url.to_owned() }
    }

    /// The body that genai could not read, else the error.
    pub(super) fn body_or_error(&self, why: GenAiError) -> Result<Value, LlmError> {
        match why {
            GenAiError::ChatResponseGeneration { response_body, .. } => Ok(*response_body),
            GenAiError::WebModelCall {
                webc_error:
                    WebError::ResponseFailedNotJson { body, .. }
                    | WebError::ResponseFailedInvalidJson { body, .. },
                ..
            } => serde_json::from_str(&body)
                .map_err(|_| self.unreadable("the server's answer is no JSON", &body)),
            other => Err(self.of_call(other)),
        }
    }

    pub(super) fn of_call(&self, why: GenAiError) -> LlmError {
        match why {
            GenAiError::HttpError { status, body, headers, .. }
            | GenAiError::WebModelCall {
                webc_error: WebError::ResponseFailedStatus { status, body, headers },
                ..
            } => self.of_answer(status.as_u16(), &headers, &body),
            GenAiError::WebModelCall { webc_error: WebError::Reqwest(why), .. } => {
                http::failed(why, &self.base_url)
            }
            GenAiError::WebStream { error, .. } => self.of_stream(error),
            GenAiError::ChatResponse { body, .. } => self.of_value(&body),
            // What else genai says of a call is said before it is sent.
            other => {
                LlmError::new(ErrorCategory::InvalidRequest, self.redactor.text(&other.to_string()))
            }
        }
    }

    /// A stream says in a box what made it fail, an answer that is no success included.
    fn of_stream(&self, why: BoxError) -> LlmError {
        match why.downcast::<GenAiError>() {
            Ok(why) => self.of_call(*why),
            Err(why) => match why.downcast::<reqwest::Error>() {
                Ok(why) => http::failed(*why, &self.base_url),
                Err(_) => self.unreadable("the stream is no text", ""),
            },
        }
    }

    fn of_answer(&self, status: u16, headers: &HeaderMap, body: &str) -> LlmError {
        let value = serde_json::from_str(body).unwrap_or(Value::Null);
        let error = Reported::read(&value);
        let message = match (error.message, status, header(headers, "location")) {
            (_, 300..=399, Some(place)) => {
                format!("the server answered HTTP {status} and points to {place}")
            }
            (Some(said), ..) => said.to_owned(),
            (None, ..) => {
                quoting(&format!("the server answered HTTP {status}"), &self.redactor.text(body))
            }
        };
        let id = header(headers, "request-id").or_else(|| header(headers, "x-request-id"));
        let made = self.make(&error, Some(status), &message, id).with_http_status(status);
        match retry_after(headers, Utc::now()).or(error.retry_after()) {
            Some(wait) => made.with_retry_after(wait),
            None => made,
        }
    }

    /// The error that a body of a success, or a frame of a stream, reports.
    pub(super) fn of_value(&self, value: &Value) -> LlmError {
        let error = Reported::read(value);
        let whole = || excerpt(&self.redactor.value(value).to_string());
        let message = error.message.map_or_else(whole, str::to_owned);
        let made = self.make(&error, error.status(), &message, None);
        let made = match error.status() {
            Some(status) => made.with_http_status(status),
            None => made,
        };
        match error.retry_after() {
            Some(wait) => made.with_retry_after(wait),
            None => made,
        }
    }

    fn make(
        &self,
        error: &Reported<'_>,
        status: Option<u16>,
        message: &str,
        request_id: Option<&str>,
    ) -> LlmError {
        let mut metadata = Map::new();
        if let Some(id) = request_id.or(error.request_id) {
            metadata.insert("request_id".into(), json!(self.redactor.text(id)));
        }
        if !error.object.is_null() {
            metadata.insert("error".into(), self.redactor.value(error.object));
        }
        let category = error.category(status);
        let mut made = LlmError::new(category, self.redactor.text(message));
        if let Some(code) = error.word {
            made = made.with_code(self.redactor.text(code));
        }
        if metadata.is_empty() { made } else { made.with_metadata(Value::Object(metadata)) }
    }

    /// A success that cannot be read.
    pub(super) fn unreadable(&self, message: &str, body: &str) -> LlmError {
        http::unreadable(message, &self.redactor.text(body)).with_http_status(200)
    }
}

/// What a server says about an error: `{"error": {…}}`, or that in a list, as Gemini has it at times.
struct Reported<'v> {
    object: &'v Value,
    message: Option<&'v str>,
    /// Anthropic's `error.type`, Gemini's `error.status`.
    word: Option<&'v str>,
    request_id: Option<&'v str>,
}

impl<'v> Reported<'v> {
    fn read(value: &'v Value) -> Self {
        let value = value.get(0).unwrap_or(value);
        let object = json::error_of(value).unwrap_or(value);
        let text = |name| json::text(object, name);
        let word = text("status").or_else(|| text("type")).filter(|word| *word != "error");
        Self {
            object,
            message: object.as_str().or_else(|| text("message")),
            word,
            request_id: json::text(value, "request_id"),
        }
    }

    /// The status that Gemini repeats in the body.
    fn status(&self) -> Option<u16> {
        let code = self.object.get("code")?.as_u64()?;
        u16::try_from(code).ok().filter(|status| (400..600).contains(status))
    }

    fn details(&self) -> impl Iterator<Item = &'v Value> {
        self.object.get("details").and_then(Value::as_array).into_iter().flatten()
    }

    /// Gemini's `"retryDelay": "48.5s"`.
    fn retry_after(&self) -> Option<Duration> {
        let delay = self.details().find_map(|detail| detail.get("retryDelay")?.as_str())?;
        Duration::try_from_secs_f64(delay.strip_suffix('s')?.parse().ok()?).ok()
    }

    fn category(&self, status: Option<u16>) -> ErrorCategory {
        use ErrorCategory as C;
        let by_word = match self.word.unwrap_or_default() {
            "authentication_error" | "UNAUTHENTICATED" => Some(C::Authentication),
            "permission_error" | "PERMISSION_DENIED" => Some(C::Permission),
            "billing_error" => Some(C::Billing),
            "rate_limit_error" | "RESOURCE_EXHAUSTED" => Some(C::RateLimit),
            "overloaded_error" | "UNAVAILABLE" => Some(C::Overloaded),
            "timeout_error" | "DEADLINE_EXCEEDED" => Some(C::Timeout),
            "api_error" | "INTERNAL" | "UNKNOWN" => Some(C::Server),
            "invalid_request_error"
            | "not_found_error"
            | "request_too_large"
            | "INVALID_ARGUMENT"
            | "FAILED_PRECONDITION"
            | "OUT_OF_RANGE"
            | "NOT_FOUND" => Some(C::InvalidRequest),
            _ => None,
        };
        let by_status = || status.map_or(C::Server, http::category);
        match by_word.unwrap_or_else(by_status) {
            C::InvalidRequest => self.what_is_invalid(),
            C::Permission if self.has_reason("BILLING_DISABLED") => C::Billing,
            C::Permission if self.has_reason("API_KEY_INVALID") => C::Authentication,
            category => category,
        }
    }

    /// Both providers call a prompt that is too long, and an account without money, invalid.
    fn what_is_invalid(&self) -> ErrorCategory {
        let message = self.message.unwrap_or_default().to_ascii_lowercase();
        let says = |parts: &[&str]| parts.iter().any(|part| message.contains(part));
        if says(&["credit balance is too low", "enable billing"]) {
            ErrorCategory::Billing
        } else if self.has_reason("API_KEY_INVALID")
            || says(&["api key not valid", "api key expired"])
        {
            ErrorCategory::Authentication
        } else if says(&[
            "prompt is too long",
            "context limit",
            "context length",
            "context window",
            "exceeds the maximum number of tokens",
            "too many tokens",
        ]) {
            ErrorCategory::ContextLength
        } else if says(&["content filtering policy"]) {
            ErrorCategory::ContentFilter
        } else {
            ErrorCategory::InvalidRequest
        }
    }

    fn has_reason(&self, reason: &str) -> bool {
        self.details().any(|detail| json::text(detail, "reason") == Some(reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge() -> Judge {
        Judge::new("sk-secret".into(), "http://host/v1")
    }

    #[test]
    fn the_word_of_the_provider_decides_then_the_status_then_the_text() {
        use ErrorCategory as C;
        let anthropic = |kind: &str, message: &str| json!({"type": "error", "error": {"type": kind, "message": message}});
        let gemini = |status: &str, message: &str| json!({"error": {"code": 400, "status": status, "message": message}});
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
            (401, anthropic("authentication_error", "invalid x-api-key"), C::Authentication),
            (402, anthropic("billing_error", "pay"), C::Billing),
            (403, anthropic("permission_error", "no"), C::Permission),
            (404, anthropic("not_found_error", "model: claude-9"), C::InvalidRequest),
            (413, anthropic("request_too_large", "32 MB"), C::InvalidRequest),
            (429, anthropic("rate_limit_error", "slow down"), C::RateLimit),
            (500, anthropic("api_error", "oh"), C::Server),
            (504, anthropic("timeout_error", "late"), C::Timeout),
            (529, anthropic("overloaded_error", "Overloaded"), C::Overloaded),
            (529, Value::Null, C::Overloaded),
            (418, Value::Null, C::InvalidRequest),
            (502, Value::Null, C::Server),
            (402, Value::Null, C::Billing),
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
            (503, json!([gemini("UNAVAILABLE", "overloaded")]), C::Overloaded),
            (504, gemini("DEADLINE_EXCEEDED", "late"), C::Timeout),
        ];
        for (status, body, expected) in cases {
            let error = judge().of_answer(status, &HeaderMap::new(), &body.to_string());
            assert_eq!(error.category(), expected, "{status} {body}");
            assert_eq!(error.http_status(), Some(status));
        }
    }

    #[test]
    fn gemini_says_in_its_body_how_long_to_wait() {
        let body = json!({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED",
            "details": [{"@type": "Help"}, {"retryDelay": "48.5s"}]}});
        let error = judge().of_answer(429, &HeaderMap::new(), &body.to_string());
        assert_eq!(error.retry_after(), Some(Duration::from_millis(48_500)));
        assert_eq!(error.code(), Some("RESOURCE_EXHAUSTED"));
    }

    #[test]
    fn an_echoed_key_is_nowhere_in_the_error() {
        let body = json!({"error": {"type": "sk-secret", "message": "wrong key sk-secret"},
            "request_id": "sk-secret"});
        let error = judge().of_answer(401, &HeaderMap::new(), &body.to_string());
        assert_eq!(error.message(), "wrong key [redacted]");
        assert!(!format!("{error:?}").contains("sk-secret"), "{error:?}");
    }

    #[test]
    fn a_key_where_a_text_is_cut_is_not_half_in_the_error() {
        let key = "sk-secret-0123456789";
        let judge = Judge::new(key.into(), "http://host/v1");
        let body = format!("{}{key} and more", "x".repeat(195));
        let value = json!({"odd": format!("{}{key}", "x".repeat(187))});
        for error in [judge.of_answer(500, &HeaderMap::new(), &body), judge.of_value(&value)] {
            assert!(error.message().contains("xxx[red"), "{error}");
            assert!(!format!("{error:?}").contains("sk-"), "{error:?}");
        }
    }
}
