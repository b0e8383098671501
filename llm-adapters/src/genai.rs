//! The client of Anthropic and of Gemini, over genai.
//! Invariant: one call is one HTTP request; no variable of the environment but those of a proxy is
//! read; no text that leaves holds the key, and nothing that a server says is logged. genai words,
//! addresses and signs the request and cuts a stream into frames; what a server says is read here,
//! leniently, because genai drops the service tier and what it does not know, and counts in 32 bits.

mod anthropic;
mod error;
mod gemini;
mod reply;
mod request;
mod stream;

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use genai::adapter::AdapterKind;
use genai::resolver::{AuthData, Endpoint};
use genai::{Client, ModelIden, ServiceTarget};
use prompt_engine_core::{
    ChatReply, ChatRequest, ChatStream, ErrorCategory, LlmClient, LlmError, Result,
};
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use tracing::Dispatch;
use tracing::instrument::{WithDispatch, WithSubscriber};

use crate::Provider;
use crate::http::{self, Limits};
use crate::json;
use error::Judge;
use reply::Reader;

/// What a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// The Messages API of Anthropic.
    Anthropic,
    /// `generateContent` of the Gemini API.
    Gemini,
}

impl Protocol {
    fn adapter(self) -> AdapterKind {
        match self {
            Self::Anthropic => AdapterKind::Anthropic,
            Self::Gemini => AdapterKind::Gemini,
        }
    }

    /// Who made it.
    fn provider(self) -> Provider {
        match self {
            Self::Anthropic => Provider::Anthropic,
            Self::Gemini => Provider::Gemini,
        }
    }

    fn reader(self) -> Box<dyn Reader> {
        match self {
            Self::Anthropic => Box::<anthropic::Messages>::default(),
            Self::Gemini => Box::<gemini::Candidates>::default(),
        }
    }
}

/// A client of Anthropic, of Gemini, and of every server that speaks like one of them.
///
/// Nothing is sent before the first call. `extra` fields of a request go into its body as they are;
/// an object `generationConfig` or `output_config` is completed with what the request says elsewhere.
/// Anthropic wants a limit of output tokens: without `max_tokens` it is the most that the model can.
/// The [`signature`](prompt_engine_core::ToolCall::signature) of a tool call holds what Gemini or
/// Anthropic signed of the thoughts before it.
///
/// Nothing that a server says is logged, so what genai does runs without a subscriber; with that, tracing
/// takes it that there are subscribers, and records of a program that has none and uses the crate `log`
/// go there no more.
///
/// The length of an answer is bounded by its timeout alone, where the client `OpenAi` ends
/// at 64 MiB: give it base URLs of servers that you trust.
///
/// # Example: Claude, and a gateway that speaks like Anthropic
/// ```
/// use prompt_engine_core::LlmClient;
/// use prompt_engine_llm::{GenAi, Protocol};
/// let claude = GenAi::new(Protocol::Anthropic, "sk-ant-…".into());
/// assert_eq!(claude.provider(), "anthropic");
/// let gateway = GenAi::new(Protocol::Anthropic, "key".into())
///     .with_base_url("https://llm.example.com/anthropic/v1")?
///     .with_provider_name("gateway");
/// assert_eq!(gateway.provider(), "gateway");
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
pub struct GenAi {
    protocol: Protocol,
    key: SecretString,
    base_url: String,
    provider: String,
    timeout: Duration,
    connect_timeout: Duration,
    first_token_timeout: Option<Duration>,
    client: OnceLock<Result<Client, LlmError>>,
}

impl GenAi {
    /// A client of the provider that made `protocol`; records and prices call it `anthropic` or `google`.
    pub fn new(protocol: Protocol, api_key: SecretString) -> Self {
        http::install_tls();
        let provider = protocol.provider();
        Self {
            protocol,
            key: api_key.expose_secret().trim().into(),
            base_url: provider.base_url().to_owned(),
            provider: provider.record_name().to_owned(),
            timeout: Duration::from_secs(600),
            connect_timeout: Duration::from_secs(10),
            first_token_timeout: None,
            client: OnceLock::new(),
        }
    }

    /// The same client for the server at `url`, the part before `/messages` or `/models`.
    ///
    /// # Errors
    /// `Invalid`, naming the URL, unless it is an `http` or `https` URL without user, query and fragment.
    pub fn with_base_url(mut self, url: &str) -> Result<Self> {
        self.base_url = http::base_url(url)?;
        self.client = OnceLock::new();
        Ok(self)
    }

    /// The same client with the provider's name that records and prices use.
    #[must_use]
    pub fn with_provider_name(mut self, name: impl Into<String>) -> Self {
        self.provider = name.into();
        self
    }

    /// The same client with the most time that a call may take, streaming included; 600 s by default.
    #[must_use]
    pub fn with_timeout(mut self, total: Duration) -> Self {
        self.timeout = total;
        self
    }

    /// The same client with the most time that connecting may take; 10 s by default.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self.client = OnceLock::new();
        self
    }

    /// The same client with the most time from a request to the first token of its stream;
    /// by default only the total limits it.
    #[must_use]
    pub fn with_first_token_timeout(mut self, timeout: Duration) -> Self {
        self.first_token_timeout = Some(timeout);
        self
    }

    fn client(&self) -> Result<&Client, LlmError> {
        self.client.get_or_init(|| self.connect()).as_ref().map_err(Clone::clone)
    }

    fn connect(&self) -> Result<Client, LlmError> {
        if HeaderValue::from_str(self.key.expose_secret()).is_err() {
            let message = "the API key holds characters that no HTTP header can carry";
            return Err(LlmError::new(ErrorCategory::Authentication, message));
        }
        let http = http::client(&self.base_url, self.connect_timeout)?;
        Client::builder()
            .with_reqwest(http)
            .build()
            .map_err(|_| LlmError::new(ErrorCategory::Other, "cannot set up an HTTP client"))
    }

    /// Where a request for `model` goes. Nothing of it is looked up in the environment.
    fn target(&self, model: String) -> ServiceTarget {
        ServiceTarget {
            endpoint: Endpoint::from_owned(format!("{}/", self.base_url)),
            auth: AuthData::from_single(self.key.expose_secret()),
            model: ModelIden::new(self.protocol.adapter(), model),
        }
    }

    fn judge(&self) -> Judge {
        Judge::new(self.key.clone(), &self.base_url)
    }
}

#[async_trait]
impl LlmClient for GenAi {
    fn provider(&self) -> &str {
        &self.provider
    }

    async fn chat(&self, request: &ChatRequest) -> Result<ChatReply, LlmError> {
        let limits = Limits::new(self.timeout, None);
        let asked = request::ask(self.protocol, request)?;
        let options = asked.options.with_capture_raw_body(true);
        let target = self.target(asked.model);
        let judge = self.judge();
        let call = unlogged(self.client()?.exec_chat(target, asked.chat, Some(&options)));
        let body = match limits.hold(call).await? {
            Ok(answer) => answer.captured_raw_body.unwrap_or_default(),
            // What genai cannot read may be read here.
            Err(why) => judge.body_or_error(why)?,
        };
        if json::has_error(&body) {
            return Err(judge.of_value(&body));
        }
        let mut reader = self.protocol.reader();
        if !reader.whole(&body) {
            return Err(judge.unreadable("the server's answer is no reply", &body.to_string()));
        }
        Ok(reader.reply())
    }

    async fn stream(&self, request: &ChatRequest) -> Result<ChatStream, LlmError> {
        let limits = Limits::new(self.timeout, self.first_token_timeout);
        let asked = request::ask(self.protocol, request)?;
        let (frames, options) = stream::Frames::tap(asked.options);
        let target = self.target(asked.model);
        let judge = self.judge();
        let call = unlogged(self.client()?.exec_chat_stream(target, asked.chat, Some(&options)));
        let answer = call.await.map_err(|why| judge.of_call(why))?;
        let pump = stream::Pump::new(answer.stream, frames, self.protocol.reader(), limits, judge);
        Ok(pump.start().await?.boxed())
    }
}

/// `work` of genai without what it logs: bodies and frames, at all levels, as a server sent them.
fn unlogged<W: Future>(work: W) -> WithDispatch<W> {
    work.with_subscriber(Dispatch::none())
}

impl fmt::Debug for GenAi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenAi")
            .field("provider", &self.provider)
            .field("protocol", &self.protocol)
            .field("base_url", &self.base_url)
            .finish_non_exhaustive()
    }
}
