//! The client of any API: its settings, and [`LlmClient`] over one [`Connection`].

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use async_trait::async_trait;
use prompt_engine_core::{ChatReply, ChatRequest, ChatStream, LlmClient, LlmError, Result};

use crate::connection::{Api, Connection};

/// A client of a server of models that speaks the API `A`; each API has a name for its client, such
/// as `OpenAi`, and makes it there.
///
/// Nothing is sent before the first call, each call is one request, and no environment variable but
/// those of a proxy is read. An answer is read up to 64 MiB, a stream up to 256 MiB, and both up to
/// the timeout.
///
/// # Example: a server of one's own that may take its time, but not to begin
/// ```
/// # #[cfg(feature = "openai")] {
/// use std::time::Duration;
///
/// use prompt_engine_core::LlmClient as _;
/// use prompt_engine_llm::OpenAi;
/// let client = OpenAi::new("key".into())
///     .with_base_url("https://models.example.com/v1")?
///     .with_provider_name("house")
///     .with_timeout(Duration::from_secs(1800))
///     .with_first_token_timeout(Duration::from_secs(20));
/// assert_eq!(client.provider(), "house");
/// # }
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
pub struct ModelClient<A> {
    connection: Connection,
    api: PhantomData<fn() -> A>,
}

impl<A> ModelClient<A> {
    pub(crate) fn over(connection: Connection) -> Self {
        Self { connection, api: PhantomData }
    }

    /// The same client for the server at `url`, the part before the path of the API, such as
    /// `/chat/completions`, `/messages` or `/models`.
    ///
    /// # Errors
    /// `Invalid`, naming the URL, unless it is an `http` or `https` URL without user, query and fragment,
    /// and for a client that sends where one that was handed in does.
    pub fn with_base_url(mut self, url: &str) -> Result<Self> {
        self.connection.endpoint = self.connection.endpoint.at(url)?;
        Ok(Self::over(self.connection.changed()))
    }

    /// The same client with the provider's name that records and prices use; by default that of who
    /// made the API: `openai`, `anthropic`, `google`.
    #[must_use]
    pub fn with_provider_name(mut self, name: impl Into<String>) -> Self {
        self.connection.provider = name.into();
        self
    }

    /// The same client with the most time that a call may take, streaming included; 600 s by default.
    #[must_use]
    pub fn with_timeout(mut self, total: Duration) -> Self {
        self.connection.timeout = total;
        self
    }

    /// The same client with the most time that connecting may take; 10 s by default. An HTTP client
    /// of one's own has its own.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connection.connect_timeout = timeout;
        Self::over(self.connection.changed())
    }

    /// The same client with the most time from a request to the first token of its stream;
    /// by default only the total limits it.
    #[must_use]
    pub fn with_first_token_timeout(mut self, timeout: Duration) -> Self {
        self.connection.first_token_timeout = Some(timeout);
        self
    }

    /// The same client, sending through `http`: its proxies, certificates and connections.
    ///
    /// What it repeats or follows on its own is then sent more than once and seen once: set
    /// `redirect::Policy::none()` and `retry::never()`, as clients of ours have it. Secrets among
    /// its default headers are not known here, and not redacted where a server echoes them.
    #[must_use]
    pub fn with_http_client(mut self, http: reqwest::Client) -> Self {
        self.connection.http = Some(http);
        self
    }

    /// The client of another API of the same server, with the same settings.
    #[cfg(feature = "openai")]
    pub(crate) fn speaking<B>(self) -> ModelClient<B> {
        ModelClient::over(self.connection)
    }
}

#[async_trait]
impl<A: Api> LlmClient for ModelClient<A> {
    fn provider(&self) -> &str {
        &self.connection.provider
    }

    async fn chat(&self, request: &ChatRequest) -> Result<ChatReply, LlmError> {
        self.connection.chat::<A>(request).await
    }

    async fn stream(&self, request: &ChatRequest) -> Result<ChatStream, LlmError> {
        self.connection.stream::<A>(request).await
    }

    async fn chat_events(&self, request: &ChatRequest) -> Result<ChatStream, LlmError> {
        self.connection.chat_events::<A>(request).await
    }
}

impl<A: Api> fmt::Debug for ModelClient<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.connection.fmt_as(A::CLIENT, f)
    }
}
