//! The OpenAI Chat Completions client, for OpenAI and every server that speaks like it.
//! Invariant: one call is one HTTP request; usage is always asked for; no text that leaves holds the key.
//! async-openai addresses, signs and writes the request; the answer is read here, leniently.

mod error;
mod reply;
mod request;
mod sse;
mod stream;
mod transport;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use prompt_engine_core::{ChatReply, ChatRequest, ChatStream, Error, LlmClient, LlmError, Result};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use error::Redactor;
use transport::{Answer, Transport};

const OPENAI_BASE_URL: &str = "https://api.openai.com/v1";

/// A client of the OpenAI Chat Completions API and of every server compatible with it.
///
/// Nothing is sent before the first call, and no environment variable but those of a proxy is read.
/// `max_tokens` goes out as `max_completion_tokens` to OpenAI itself, whose newer models refuse
/// the older name, and as `max_tokens` to every other server.
///
/// # Example: a server of one's own
/// ```
/// use prompt_engine_llm::OpenAi;
/// let client = OpenAi::new("no-key".into()).with_base_url("http://127.0.0.1:8080/v1")?;
/// assert!(OpenAi::new("no-key".into()).with_base_url("127.0.0.1:8080").is_err());
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
pub struct OpenAi {
    key: SecretString,
    base_url: String,
    provider: String,
    timeout: Duration,
    connect_timeout: Duration,
    first_token_timeout: Option<Duration>,
    transport: OnceLock<Result<Transport, LlmError>>,
}

impl OpenAi {
    /// A client of OpenAI with `api_key`; an empty key sends none, as local servers like it.
    pub fn new(api_key: SecretString) -> Self {
        // An error says that a provider is installed already, which is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        Self {
            key: api_key.expose_secret().trim().into(),
            base_url: OPENAI_BASE_URL.to_owned(),
            provider: "openai".to_owned(),
            timeout: Duration::from_secs(600),
            connect_timeout: Duration::from_secs(10),
            first_token_timeout: None,
            transport: OnceLock::new(),
        }
    }

    /// The same client for the server at `url`, the part before `/chat/completions`.
    ///
    /// # Errors
    /// `Invalid`, naming the URL, unless it is an `http` or `https` URL without query and fragment.
    pub fn with_base_url(mut self, url: &str) -> Result<Self> {
        let refuse = |why: &str| {
            Err(Error::invalid(format!("{url:?} is no base URL of a model server: {why}")))
        };
        let parsed = match reqwest::Url::parse(url.trim()) {
            Ok(parsed) => parsed,
            Err(why) => return refuse(&why.to_string()),
        };
        if !matches!(parsed.scheme(), "http" | "https") {
            return refuse("it must begin with http:// or https://");
        }
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return refuse("it must have no query and no fragment");
        }
        self.base_url = parsed.as_str().trim_end_matches('/').to_owned();
        self.transport = OnceLock::new();
        Ok(self)
    }

    /// The same client with the provider's name that records and prices use; `openai` by default.
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
        self.transport = OnceLock::new();
        self
    }

    /// The same client with the most time from a request to the first token of its stream;
    /// by default only the total limits it.
    #[must_use]
    pub fn with_first_token_timeout(mut self, timeout: Duration) -> Self {
        self.first_token_timeout = Some(timeout);
        self
    }

    fn transport(&self) -> Result<&Transport, LlmError> {
        self.transport
            .get_or_init(|| Transport::new(&self.base_url, &self.key, self.connect_timeout))
            .as_ref()
            .map_err(Clone::clone)
    }

    /// Sends the request, once, and hands back a successful answer whose body is not yet read.
    async fn send(
        &self,
        request: &ChatRequest,
        streamed: bool,
        limits: Limits,
    ) -> Result<(Answer, Arc<Redactor>), LlmError> {
        let transport = self.transport()?;
        let body = request::body(request, streamed, self.base_url == OPENAI_BASE_URL);
        let redactor = Arc::new(Redactor::new(self.key.clone()));
        let mut answer = limits.hold(transport.post(&body)).await??;
        if answer.status().is_success() {
            return Ok((answer, redactor));
        }
        let text = limits.hold(answer.text()).await??;
        Err(error::from_answer(answer.status().as_u16(), answer.headers(), &text, &redactor))
    }
}

#[async_trait]
impl LlmClient for OpenAi {
    fn provider(&self) -> &str {
        &self.provider
    }

    async fn chat(&self, request: &ChatRequest) -> Result<ChatReply, LlmError> {
        let limits = Limits::new(self.timeout, None);
        let (mut answer, redactor) = self.send(request, false, limits).await?;
        let text = limits.hold(answer.text()).await??;
        reply::parse(&text, answer.headers(), &redactor)
    }

    async fn stream(&self, request: &ChatRequest) -> Result<ChatStream, LlmError> {
        let limits = Limits::new(self.timeout, self.first_token_timeout);
        let (answer, redactor) = self.send(request, true, limits).await?;
        Ok(stream::events(answer, limits, redactor).boxed())
    }
}

impl fmt::Debug for OpenAi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAi")
            .field("provider", &self.provider)
            .field("base_url", &self.base_url)
            .finish_non_exhaustive()
    }
}

/// The times by which one call must have its first token and its end.
#[derive(Debug, Clone, Copy)]
struct Limits {
    start: Instant,
    total: Duration,
    first_token: Option<Duration>,
}

impl Limits {
    fn new(total: Duration, first_token: Option<Duration>) -> Self {
        Self { start: Instant::now(), total, first_token }
    }

    /// The same limits once the first token is there.
    fn after_first_token(mut self) -> Self {
        self.first_token = None;
        self
    }

    /// Waits for `work` as long as the nearer limit allows.
    async fn hold<T>(&self, work: impl Future<Output = T>) -> Result<T, LlmError> {
        let (limit, what) = match self.first_token {
            Some(first) if first < self.total => (first, "no first token"),
            _ => (self.total, "no complete answer"),
        };
        // A limit beyond what the clock can hold is no limit.
        let Some(deadline) = self.start.checked_add(limit) else { return Ok(work.await) };
        tokio::time::timeout_at(deadline, work)
            .await
            .map_err(|_| error::timeout(format!("{what} from the model within {limit:?}")))
    }
}
