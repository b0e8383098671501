//! Clients of OpenAI and of every server that speaks like it: Chat Completions and Responses.
//! Invariant: one call is one HTTP request; usage is always asked for; no text that leaves holds a key.
//! Requests are written and answers are read here, leniently, whoever signs them.

mod answer;
mod chat_completions;
mod connection;
mod endpoint;
mod error;
mod facts;
mod responses;
mod sse;
mod stream;
mod transport;
mod usage;
mod wording;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_openai::config::Config;
use async_trait::async_trait;
use prompt_engine_core::{ChatReply, ChatRequest, ChatStream, LlmClient, LlmError, Result};
use secrecy::SecretString;

use chat_completions::ChatCompletions;
use connection::Connection;
use endpoint::Endpoint;
use responses::Responses;

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
pub struct OpenAi(Connection);

impl OpenAi {
    /// A client of OpenAI with `api_key`; an empty key sends none, as local servers like it.
    pub fn new(api_key: SecretString) -> Self {
        Self(Connection::new(Endpoint::openai(&api_key)))
    }

    /// A client whose requests go where those of `client` go, with its base URL, key, organization,
    /// project, headers and query: OpenAI, Azure, or a [`Config`] of one's own, which is asked again
    /// for each request.
    ///
    /// The client's HTTP client and services cannot be taken out of it, and it would retry in
    /// silence: requests are sent by an HTTP client of ours, or by that of
    /// [`OpenAi::with_http_client`].
    ///
    /// # Example: a client for Azure
    /// ```
    /// use async_openai::{Client, config::AzureConfig};
    /// use prompt_engine_llm::OpenAi;
    /// let config = AzureConfig::new()
    ///     .with_api_base("https://example.openai.azure.com")
    ///     .with_deployment_id("gpt-4o")
    ///     .with_api_version("2024-12-01-preview")
    ///     .with_api_key("key");
    /// # let http = reqwest_client();
    /// let client = OpenAi::from_client(&Client::build(http, config)).with_provider_name("azure");
    /// # fn reqwest_client() -> reqwest::Client {
    /// #     let _installs_tls = OpenAi::new("".into());
    /// #     reqwest::Client::new()
    /// # }
    /// ```
    pub fn from_client<C>(client: &async_openai::Client<C>) -> Self
    where
        C: Config + Clone + 'static,
    {
        Self(Connection::new(Endpoint::Handed(Arc::new(client.config().clone()))))
    }

    /// The same client for the server at `url`, the part before `/chat/completions`.
    ///
    /// # Errors
    /// `Invalid`, naming the URL, unless it is an `http` or `https` URL without user, query and fragment,
    /// and after [`OpenAi::from_client`].
    pub fn with_base_url(mut self, url: &str) -> Result<Self> {
        self.0.endpoint = self.0.endpoint.at(url)?;
        Ok(Self(self.0.changed()))
    }

    /// The same client with the provider's name that records and prices use; `openai` by default.
    #[must_use]
    pub fn with_provider_name(mut self, name: impl Into<String>) -> Self {
        self.0.provider = name.into();
        self
    }

    /// The same client with the most time that a call may take, streaming included; 600 s by default.
    #[must_use]
    pub fn with_timeout(mut self, total: Duration) -> Self {
        self.0.timeout = total;
        self
    }

    /// The same client with the most time that connecting may take; 10 s by default. An HTTP client
    /// of one's own has its own.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.0.connect_timeout = timeout;
        Self(self.0.changed())
    }

    /// The same client with the most time from a request to the first token of its stream;
    /// by default only the total limits it.
    #[must_use]
    pub fn with_first_token_timeout(mut self, timeout: Duration) -> Self {
        self.0.first_token_timeout = Some(timeout);
        self
    }

    /// The same client, sending through `http`: its proxies, certificates and connections.
    ///
    /// What it repeats or follows on its own is then sent more than once and seen once: set
    /// `redirect::Policy::none()` and `retry::never()`, as clients of ours have it. Secrets among
    /// its default headers are not known here, and not redacted where a server echoes them.
    #[must_use]
    pub fn with_http_client(mut self, http: reqwest::Client) -> Self {
        self.0.http = Some(http);
        self
    }

    /// The client of the Responses API of the same server, with the same settings.
    pub fn responses(self) -> OpenAiResponses {
        OpenAiResponses(self.0)
    }
}

#[async_trait]
impl LlmClient for OpenAi {
    fn provider(&self) -> &str {
        &self.0.provider
    }

    async fn chat(&self, request: &ChatRequest) -> Result<ChatReply, LlmError> {
        self.0.chat::<ChatCompletions>(request).await
    }

    async fn stream(&self, request: &ChatRequest) -> Result<ChatStream, LlmError> {
        self.0.stream::<ChatCompletions>(request).await
    }
}

impl fmt::Debug for OpenAi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_as("OpenAi", f)
    }
}

/// A client of the OpenAI Responses API. Settings are those of [`OpenAi`]: make one and take its
/// [`OpenAi::responses`].
///
/// - Each request holds the whole conversation, and `store: false`: OpenAI keeps responses for 30 days
///   otherwise, which those who come from Chat Completions do not expect and nothing here needs.
///   `store`, or what builds on stored responses (`background`, `conversation`,
///   `previous_response_id`), in [`ChatRequest::extra`] leaves that to the server.
/// - Tools are not strict and a schema is, as in Chat Completions.
/// - The finish reason is why a response is incomplete, such as `max_output_tokens`, and else its
///   status: `completed`, or `queued` for one that is made in the background and has no answer yet.
/// - With `include: ["reasoning.encrypted_content"]` in `extra`, reasoning comes with the tool call that
///   it led to, as its signature, and goes back with it.
///
/// # Example: the same server, the other API
/// ```
/// use prompt_engine_core::LlmClient as _;
/// use prompt_engine_llm::OpenAi;
/// let client = OpenAi::new("no-key".into()).with_base_url("http://127.0.0.1:8080/v1")?.responses();
/// assert_eq!(client.provider(), "openai");
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
pub struct OpenAiResponses(Connection);

impl OpenAiResponses {
    /// A client of OpenAI with `api_key`.
    pub fn new(api_key: SecretString) -> Self {
        OpenAi::new(api_key).responses()
    }
}

#[async_trait]
impl LlmClient for OpenAiResponses {
    fn provider(&self) -> &str {
        &self.0.provider
    }

    async fn chat(&self, request: &ChatRequest) -> Result<ChatReply, LlmError> {
        self.0.chat::<Responses>(request).await
    }

    async fn stream(&self, request: &ChatRequest) -> Result<ChatStream, LlmError> {
        self.0.stream::<Responses>(request).await
    }
}

impl fmt::Debug for OpenAiResponses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_as("OpenAiResponses", f)
    }
}
