//! An answer whose body is not yet read, and what came with it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use prompt_engine_core::LlmError;
use reqwest::Response;
use reqwest::header::HeaderMap;
use serde_json::{Map, Value};

use super::error;
use super::redactor::Redactor;

/// The most bytes of an answer that is read whole, and of one frame of a stream.
pub(super) const MAX_BYTES: usize = 64 << 20;

/// Where servers write the id of a request, for their support to find it: OpenAI and most, Azure,
/// Anthropic.
const REQUEST_ID: [&str; 3] = ["x-request-id", "apim-request-id", "request-id"];

/// What stands before the body of an answer, and what must not be shown of the request.
#[derive(Debug, Default)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) redactor: Redactor,
}

impl Head {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The id of the request as the field of metadata that it becomes.
    pub(super) fn request_id(&self) -> Option<(String, Value)> {
        let id = REQUEST_ID.iter().find_map(|name| self.header(name))?;
        Some(("request_id".to_owned(), self.redactor.text(id).into()))
    }

    /// How long the server asks to wait: `retry-after-ms`, or `retry-after` in seconds or as a date.
    pub(super) fn retry_after(&self, now: DateTime<Utc>) -> Option<Duration> {
        let number = |text: &str| text.trim().parse::<f64>().ok();
        if let Some(ms) = self.header("retry-after-ms").and_then(number) {
            return Duration::try_from_secs_f64(ms / 1000.0).ok();
        }
        let asked = self.header("retry-after")?;
        if let Some(seconds) = number(asked) {
            return Duration::try_from_secs_f64(seconds).ok();
        }
        let date = DateTime::parse_from_rfc2822(asked.trim()).ok()?.with_timezone(&Utc);
        // A date that is past asks for no wait.
        Some((date - now).to_std().unwrap_or_default())
    }

    /// The same error with the id of the request, unless it has metadata.
    pub(super) fn mark(&self, error: LlmError) -> LlmError {
        match self.request_id() {
            Some(id) if error.metadata().is_null() => {
                error.with_metadata(Value::Object(Map::from_iter([id])))
            }
            _ => error,
        }
    }
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: Head,
    body: Response,
}

impl Answer {
    pub(super) fn new(mut response: Response, redactor: Redactor) -> Self {
        let status = response.status().as_u16();
        let headers = std::mem::take(response.headers_mut());
        Self { head: Head { status, headers, redactor }, body: response }
    }

    pub(super) fn is_success(&self) -> bool {
        self.body.status().is_success()
    }

    /// The next bytes of the body; `None` at its end.
    pub(super) async fn chunk(&mut self) -> Result<Option<impl AsRef<[u8]> + use<>>, LlmError> {
        self.body.chunk().await.map_err(error::broken)
    }

    /// What is left of the body.
    pub(super) async fn text(&mut self) -> Result<String, LlmError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            bytes.extend_from_slice(chunk.as_ref());
            if bytes.len() > MAX_BYTES {
                return Err(error::unreadable("the answer is longer than 64 MiB", ""));
            }
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_asked_for_in_milliseconds_in_seconds_or_by_a_date() {
        let now = "2026-11-26T12:00:00Z".parse().expect("a moment");
        for (name, value, expected) in [
            ("retry-after", "2", Some(2000)),
            ("retry-after", " 0.5 ", Some(500)),
            ("retry-after-ms", "1500", Some(1500)),
            ("retry-after", "Thu, 26 Nov 2026 12:01:30 GMT", Some(90_000)),
            ("retry-after", "Thu, 26 Nov 2026 11:00:00 GMT", Some(0)),
            ("retry-after", "soon", None),
            ("retry-after", "-1", None),
            ("retry-after", "NaN", None),
            ("retry-after", "1e300", None),
        ] {
            let mut head = Head::default();
            head.headers.insert(name, value.parse().expect("a header"));
            let wait = head.retry_after(now).map(|wait| wait.as_millis());
            assert_eq!(wait, expected, "{name}: {value}");
        }
    }
}
