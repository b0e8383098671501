//! An answer whose body is not yet read, and what came with it.

use std::time::Duration;

use prompt_engine_core::{LlmError, StreamEvent};
use reqwest::Response;
use reqwest::header::HeaderMap;
use serde_json::json;

use super::error;
use crate::http::{self, Limits, Redactor};

/// The most bytes of an answer that is read whole, and of one frame of a stream.
pub(crate) const MAX_BYTES: usize = 64 << 20;

/// How long the explanation of an error is waited for: the status and the headers say most.
const EXPLANATION: Duration = Duration::from_secs(3);

/// Where servers write the id of a request, for their support to find it: OpenAI and most, Azure,
/// Anthropic.
const REQUEST_ID: [&str; 3] = ["x-request-id", "apim-request-id", "request-id"];

/// What stands before the body of an answer, and of the request who was asked and what must not be shown.
#[derive(Debug, Default)]
pub(crate) struct Head {
    /// Who was asked.
    pub(crate) url: String,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) redactor: Redactor,
}

impl Head {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        http::header(&self.headers, name)
    }

    /// The id of the request, without secrets.
    pub(crate) fn request_id(&self) -> Option<String> {
        let id = REQUEST_ID.iter().find_map(|name| self.header(name))?;
        Some(self.redactor.text(id))
    }

    /// What there is to tell of the answer before its body.
    pub(crate) fn event(&self) -> StreamEvent {
        StreamEvent::Head { http_status: Some(self.status), request_id: self.request_id() }
    }

    /// The same error with the status, unless it has one, and the id of the request, unless it has
    /// metadata.
    pub(crate) fn mark(&self, mut error: LlmError) -> LlmError {
        if error.http_status().is_none() {
            error = error.with_http_status(self.status);
        }
        match self.request_id() {
            Some(id) if error.metadata().is_null() => {
                error.with_metadata(json!({"request_id": id}))
            }
            _ => error,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: Head,
    body: Response,
}

impl Answer {
    pub(crate) fn new(mut response: Response, url: String, redactor: Redactor) -> Self {
        let status = response.status().as_u16();
        let headers = std::mem::take(response.headers_mut());
        Self { head: Head { url, status, headers, redactor }, body: response }
    }

    pub(crate) fn is_success(&self) -> bool {
        self.body.status().is_success()
    }

    /// The error that an answer explains which is no success.
    pub(crate) async fn refusal(&mut self, limits: Limits) -> LlmError {
        let explanation = limits.within(EXPLANATION).hold(self.text()).await.flatten();
        match explanation {
            Ok(text) => error::from_answer(&text, &self.head),
            // The status says more than that its explanation was cut off.
            Err(cause) => error::from_answer("", &self.head).with_source(cause),
        }
    }

    /// The next bytes of the body; `None` at its end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<impl AsRef<[u8]> + use<>>, LlmError> {
        let chunk = self.body.chunk().await;
        chunk.map_err(|source| http::failed(source, self.body.url().as_str()))
    }

    /// What is left of the body.
    pub(crate) async fn text(&mut self) -> Result<String, LlmError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            bytes.extend_from_slice(chunk.as_ref());
            if bytes.len() > MAX_BYTES {
                return Err(http::unreadable("the answer is longer than 64 MiB", ""));
            }
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
