//! One HTTP request.
//! Invariant: it is sent once; neither a redirect nor anything of ours repeats it.
//!
//! async-openai says where a request of its client goes and what signs it, and nothing more: sending
//! through it would retry four statuses in silence, drop the headers of an answer, refuse an error
//! whose `code` is a number, and not tell a stream that ended from one that broke.

use prompt_engine_core::LlmError;
use reqwest::Client;
use serde_json::Value;

use super::answer::Answer;
use super::endpoint::Endpoint;
use crate::http;

/// Sends `body` to `path` of `endpoint`.
pub(super) async fn post(
    client: &Client,
    endpoint: &Endpoint,
    path: &str,
    body: &Value,
) -> Result<Answer, LlmError> {
    let (headers, redactor) = endpoint.headers()?;
    let url = endpoint.url(path);
    let request = client.post(&url).query(&endpoint.query()).headers(headers).json(body);
    match request.send().await {
        Ok(response) => Ok(Answer::new(response, redactor)),
        Err(source) => Err(http::failed(source, &url)),
    }
}
