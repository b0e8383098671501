//! One HTTP request over async-openai, and its answer as it came.
//! Invariant: the request is sent once; neither async-openai, nor reqwest, nor a redirect repeats it.
//!
//! async-openai retries four statuses in silence, drops the headers of an answer, cannot read an
//! error whose `code` is a number, and cannot tell a stream that ended from one that broke. A tower
//! service of our own therefore sends the request that it builds and hands the raw answer back
//! through its error channel, the only way that no layer of it reads.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::Duration;

use async_openai::config::Config;
use async_openai::error::OpenAIError;
use async_openai::middleware::HttpRequestFactory;
use prompt_engine_core::{ErrorCategory, LlmError};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Response, StatusCode, Url, redirect, retry};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::error;

/// The most bytes of an answer that is read whole, and of one frame of a stream.
pub(super) const MAX_BYTES: usize = 64 << 20;

pub(super) struct Transport {
    client: async_openai::Client<Arc<dyn Config>>,
    base_url: String,
}

impl Transport {
    pub(super) fn new(
        base_url: &str,
        key: &SecretString,
        connect_timeout: Duration,
    ) -> Result<Self, LlmError> {
        let endpoint = Endpoint::new(base_url, key)?;
        let mut builder = reqwest::Client::builder()
            .connect_timeout(connect_timeout)
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .user_agent(concat!("prompt-engine/", env!("CARGO_PKG_VERSION")));
        if is_loopback(base_url) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|source| {
            LlmError::new(ErrorCategory::Other, "cannot set up an HTTP client").with_source(source)
        })?;
        let config: Arc<dyn Config> = Arc::new(endpoint);
        let client =
            async_openai::Client::build(http.clone(), config).with_http_service(SendOnce { http });
        Ok(Self { client, base_url: base_url.to_owned() })
    }

    /// Sends `body` to `/chat/completions`.
    pub(super) async fn post(&self, body: &Value) -> Result<Answer, LlmError> {
        match self.client.chat().create_byot::<_, Value>(body).await {
            Err(OpenAIError::Boxed(boxed)) => match boxed.downcast::<HandedOver>() {
                Ok(handed) => handed.take(),
                Err(other) => Err(error::unsent(other)),
            },
            Err(OpenAIError::Reqwest(cause)) => Err(error::from_reqwest(cause, &self.base_url)),
            Err(other) => Err(error::unsent(other)),
            // The service never answers `Ok`.
            Ok(_) => Err(error::unreadable("the answer was read by nobody", "")),
        }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("base_url", &self.base_url).finish_non_exhaustive()
    }
}

fn is_loopback(base_url: &str) -> bool {
    let Ok(url) = Url::parse(base_url) else { return false };
    url.host_str().is_some_and(|host| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}

/// Where requests go. async-openai's own configuration reads the environment and panics on a key
/// that no header can carry.
struct Endpoint {
    base_url: String,
    key: SecretString,
    headers: HeaderMap,
}

impl Endpoint {
    fn new(base_url: &str, key: &SecretString) -> Result<Self, LlmError> {
        let mut headers = HeaderMap::new();
        if !key.expose_secret().is_empty() {
            let value = format!("Bearer {}", key.expose_secret());
            let mut value = HeaderValue::from_str(&value).map_err(|_| {
                let message = "the API key holds characters that no HTTP header can carry";
                LlmError::new(ErrorCategory::Authentication, message)
            })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(Self { base_url: base_url.to_owned(), key: key.clone(), headers })
    }
}

impl Config for Endpoint {
    fn headers(&self) -> HeaderMap {
        self.headers.clone()
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base_url)
    }

    fn query(&self) -> Vec<(&str, &str)> {
        Vec::new()
    }

    fn api_base(&self) -> &str {
        &self.base_url
    }

    fn api_key(&self) -> &SecretString {
        &self.key
    }
}

/// Sends a request once and hands its answer over unread.
#[derive(Clone)]
struct SendOnce {
    http: reqwest::Client,
}

impl tower::Service<HttpRequestFactory> for SendOnce {
    type Response = Response;
    type Error = OpenAIError;
    type Future = Pin<Box<dyn Future<Output = Result<Response, OpenAIError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), OpenAIError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, factory: HttpRequestFactory) -> Self::Future {
        let http = self.http.clone();
        Box::pin(async move {
            let response = http.execute(factory.build().await?).await?;
            Err(OpenAIError::Boxed(Box::new(HandedOver(Mutex::new(Some(response))))))
        })
    }
}

/// An answer on its way through the error channel.
#[derive(Debug)]
struct HandedOver(Mutex<Option<Response>>);

impl HandedOver {
    fn take(self) -> Result<Answer, LlmError> {
        self.0
            .into_inner()
            .ok()
            .flatten()
            .map(Answer)
            .ok_or_else(|| error::unreadable("the answer was handed over twice", ""))
    }
}

impl fmt::Display for HandedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an answer, handed over unread")
    }
}

impl std::error::Error for HandedOver {}

/// An answer whose body is not yet read.
#[derive(Debug)]
pub(super) struct Answer(Response);

impl Answer {
    pub(super) fn status(&self) -> StatusCode {
        self.0.status()
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        self.0.headers()
    }

    /// Whether the body is one JSON value and no stream of events.
    pub(super) fn is_json(&self) -> bool {
        header(self.headers(), "content-type").is_some_and(|kind| kind.contains("json"))
    }

    /// The next bytes of the body; `None` at its end.
    pub(super) async fn chunk(&mut self) -> Result<Option<impl AsRef<[u8]> + use<>>, LlmError> {
        self.0.chunk().await.map_err(error::broken)
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

/// The text of a header.
pub(super) fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
