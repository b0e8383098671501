//! What the clients share: a server, the times that a call may take, and one call of either API.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use futures::StreamExt;
use prompt_engine_core::{ChatReply, ChatRequest, ChatStream, LlmError};
use serde_json::Value;

use super::answer::{Answer, Head};
use super::endpoint::Endpoint;
use super::stream::{self, Frames};
use super::{error, transport};
use crate::http::{self, Limits};

/// How an answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// In one piece.
    Whole,
    /// As it is made.
    Streamed,
}

/// One of the ways to ask a model.
pub(super) trait Api: Send + 'static {
    /// Where requests go, behind the base URL.
    const PATH: &'static str;
    /// What an answer is called where it is none.
    const ANSWER: &'static str;
    /// What puts a reply together from a stream.
    type Frames: Frames;

    /// The body of `request`, in the words that `endpoint` understands.
    fn body(request: &ChatRequest, delivery: Delivery, endpoint: &Endpoint) -> Value;

    /// The reply in the body of a success.
    fn reply(body: &str, head: &Head) -> Result<ChatReply, LlmError>;
}

pub(super) struct Connection {
    pub(super) endpoint: Endpoint,
    pub(super) provider: String,
    pub(super) timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) first_token_timeout: Option<Duration>,
    /// The caller's own.
    pub(super) http: Option<reqwest::Client>,
    own_http: OnceLock<Result<reqwest::Client, LlmError>>,
}

impl Connection {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        http::install_tls();
        Self {
            endpoint,
            provider: "openai".to_owned(),
            timeout: Duration::from_secs(600),
            connect_timeout: Duration::from_secs(10),
            first_token_timeout: None,
            http: None,
            own_http: OnceLock::new(),
        }
    }

    /// The whole reply.
    pub(super) async fn chat<A: Api>(&self, request: &ChatRequest) -> Result<ChatReply, LlmError> {
        let limits = Limits::new(self.timeout, None);
        let mut answer = self.send::<A>(request, Delivery::Whole, limits).await?;
        let reply = match limits.hold(answer.text()).await.flatten() {
            Ok(text) => A::reply(&text, &answer.head),
            Err(error) => Err(error),
        };
        reply.map_err(|error| answer.head.mark(error))
    }

    /// The reply as it is made.
    pub(super) async fn stream<A: Api>(
        &self,
        request: &ChatRequest,
    ) -> Result<ChatStream, LlmError> {
        let limits = Limits::new(self.timeout, self.first_token_timeout);
        let answer = self.send::<A>(request, Delivery::Streamed, limits).await?;
        Ok(stream::events::<A>(answer, limits).boxed())
    }

    /// Sends the request, once, and hands back a successful answer whose body is not yet read.
    async fn send<A: Api>(
        &self,
        request: &ChatRequest,
        delivery: Delivery,
        limits: Limits,
    ) -> Result<Answer, LlmError> {
        let body = A::body(request, delivery, &self.endpoint);
        let sent = transport::post(self.http()?, &self.endpoint, A::PATH, &body);
        let mut answer = limits.hold(sent).await??;
        if answer.is_success() {
            return Ok(answer);
        }
        let text = limits.hold(answer.text()).await.flatten();
        Err(match text {
            Ok(text) => error::from_answer(&text, &answer.head),
            // The status says more than that its explanation was cut off.
            Err(cause) => error::from_answer("", &answer.head).with_source(cause),
        })
    }

    fn http(&self) -> Result<&reqwest::Client, LlmError> {
        if let Some(http) = &self.http {
            return Ok(http);
        }
        self.own_http
            .get_or_init(|| http::client(self.endpoint.base_url(), self.connect_timeout))
            .as_ref()
            .map_err(Clone::clone)
    }

    /// Forgets the HTTP client that was made for other settings.
    pub(super) fn changed(mut self) -> Self {
        self.own_http = OnceLock::new();
        self
    }

    pub(super) fn fmt_as(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("provider", &self.provider)
            .field("base_url", &http::shown(self.endpoint.base_url()))
            .finish_non_exhaustive()
    }
}
