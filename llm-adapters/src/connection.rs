//! What the clients share: a server, the times that a call may take, and one call of any API.
//! Invariant: one call is one HTTP request; neither a redirect nor anything of ours repeats it. No
//! answer is read without bounds, and no error, finish reason or metadata holds the key.

mod answer;
mod endpoint;
pub(crate) mod error;
mod facts;
mod sse;
mod stream;

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use futures::stream::once;
use futures::{StreamExt, TryFutureExt, future};
use prompt_engine_core::{ChatReply, ChatRequest, ChatStream, LlmError, StreamEvent, TokenCounts};
use secrecy::SecretString;
use serde_json::Value;

use crate::Provider;
use crate::http::{self, Limits};
use crate::json::has_error;
use answer::Answer;
pub(crate) use answer::Head;
use endpoint::Own;
pub(crate) use endpoint::{Endpoint, Signature};
#[cfg(feature = "openai")]
pub(crate) use endpoint::{is_secret, unfit};
pub(crate) use facts::Facts;
pub(crate) use stream::{End, Frame, Frames, Step};

/// How an answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// In one piece.
    Whole,
    /// As it is made.
    Streamed,
}

/// One of the ways to ask a model.
pub(crate) trait Api: Send + 'static {
    /// What the client is called.
    const CLIENT: &'static str;
    /// What an answer is called where it is none.
    const ANSWER: &'static str;
    /// What puts a reply together from a stream.
    type Frames: Frames;

    /// Where a request for `model` goes, behind the base URL.
    fn path(model: &str, delivery: Delivery) -> Result<String, LlmError>;

    /// The body of `request` for the server at `base_url`.
    fn body(request: &ChatRequest, delivery: Delivery, base_url: &str) -> Result<Value, LlmError>;

    /// The reply in `value`, parsed from `raw`, which is the body of a success and reports no error;
    /// `None` where it is no answer.
    fn reply(value: &Value, raw: &str, head: &Head) -> Result<Option<ChatReply>, LlmError>;

    /// What `value`, the body of a success that holds no reply, says that it used.
    fn tokens(value: &Value) -> Option<TokenCounts>;
}

/// The reply in `body`, that of a success.
pub(crate) fn read<A: Api>(body: &str, head: &Head) -> Result<ChatReply, LlmError> {
    let no_answer = || error::no_answer(A::ANSWER, body, head);
    let value = serde_json::from_str(body).map_err(|_| no_answer())?;
    let failed = if has_error(&value) {
        error::from_value(&value, head)
    } else if let Some(reply) = A::reply(&value, body, head)? {
        return Ok(reply);
    } else {
        no_answer()
    };
    Err(error::paid(failed, A::tokens(&value)))
}

/// The whole reply in `answer`.
async fn whole<A: Api>(mut answer: Answer, limits: Limits) -> Result<ChatReply, LlmError> {
    if !answer.is_success() {
        return Err(answer.refusal(limits).await);
    }
    let reply = match limits.hold(answer.text()).await.flatten() {
        Ok(text) => read::<A>(&text, &answer.head),
        Err(error) => Err(error),
    };
    reply.map_err(|error| answer.head.mark(error))
}

pub(crate) struct Connection {
    pub(crate) endpoint: Box<dyn Endpoint>,
    pub(crate) provider: String,
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) first_token_timeout: Option<Duration>,
    /// The caller's own.
    pub(crate) http: Option<reqwest::Client>,
    own_http: OnceLock<Result<reqwest::Client, LlmError>>,
}

impl Connection {
    /// A connection to `provider` itself.
    pub(crate) fn to(provider: Provider, key: &SecretString, signature: Signature) -> Self {
        let endpoint = Own::new(provider.base_url(), key, signature);
        Self::new(provider.record_name(), endpoint)
    }

    pub(crate) fn new(provider: &str, endpoint: Box<dyn Endpoint>) -> Self {
        http::install_tls();
        Self {
            endpoint,
            provider: provider.to_owned(),
            timeout: Duration::from_secs(600),
            connect_timeout: Duration::from_secs(10),
            first_token_timeout: None,
            http: None,
            own_http: OnceLock::new(),
        }
    }

    /// The whole reply.
    pub(crate) async fn chat<A: Api>(&self, request: &ChatRequest) -> Result<ChatReply, LlmError> {
        let limits = Limits::new(self.timeout, None);
        whole::<A>(self.send::<A>(request, Delivery::Whole, limits).await?, limits).await
    }

    /// The whole reply, and before it how the server begins to answer.
    pub(crate) async fn chat_events<A: Api>(
        &self,
        request: &ChatRequest,
    ) -> Result<ChatStream, LlmError> {
        let limits = Limits::new(self.timeout, None);
        let answer = self.send::<A>(request, Delivery::Whole, limits).await?;
        let head = future::ready(Ok(answer.head.event()));
        let end = whole::<A>(answer, limits).map_ok(|reply| StreamEvent::End(Box::new(reply)));
        Ok(once(head).chain(once(end)).boxed())
    }

    /// The reply as it is made.
    pub(crate) async fn stream<A: Api>(
        &self,
        request: &ChatRequest,
    ) -> Result<ChatStream, LlmError> {
        let limits = Limits::new(self.timeout, self.first_token_timeout);
        let answer = self.send::<A>(request, Delivery::Streamed, limits).await?;
        Ok(stream::events::<A>(answer, limits).boxed())
    }

    /// Sends the request, once, and hands back the answer, whose body is not yet read.
    async fn send<A: Api>(
        &self,
        request: &ChatRequest,
        delivery: Delivery,
        limits: Limits,
    ) -> Result<Answer, LlmError> {
        let body = A::body(request, delivery, self.endpoint.base_url())?;
        let url = self.endpoint.url(&A::path(&request.model, delivery)?);
        let (headers, redactor) = endpoint::signed(self.endpoint.as_ref())?;
        let sent = self.http()?.post(&url).headers(headers);
        match limits.hold(sent.json(&body).send()).await? {
            Ok(response) => Ok(Answer::new(response, url, redactor)),
            Err(source) => Err(http::failed(source, &url)),
        }
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
    pub(crate) fn changed(mut self) -> Self {
        self.own_http = OnceLock::new();
        self
    }

    pub(crate) fn fmt_as(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("provider", &self.provider)
            .field("base_url", &http::shown(self.endpoint.base_url()))
            .finish_non_exhaustive()
    }
}
