//! Clients of OpenAI and of every server that speaks like it: Chat Completions and Responses.
//! Invariant: usage is always asked for. Requests are written and answers are read here, leniently,
//! whoever signs them.

mod chat_completions;
mod facts;
mod handed_in;
mod responses;
mod usage;
mod wording;

use async_openai::config::Config;
use secrecy::SecretString;

use crate::client::ModelClient;
use crate::connection::{Connection, Signature};
use crate::provider::Provider;
pub use chat_completions::ChatCompletions;
use handed_in::HandedIn;
pub use responses::Responses;

const SIGNATURE: Signature = Signature { header: "authorization", scheme: "Bearer ", further: &[] };

/// A client of the OpenAI Chat Completions API and of every server compatible with it.
///
/// `max_tokens` goes out as `max_completion_tokens` to OpenAI itself and to its models at Azure, whose
/// newer ones refuse the older name, and as `max_tokens` to every other server. Where that is wrong, as
/// it may be for an old API version of Azure, the field in a request's `extra` goes out as it is.
///
/// # Example: a server of one's own
/// ```
/// use prompt_engine_llm::OpenAi;
/// let client = OpenAi::new("no-key".into()).with_base_url("http://127.0.0.1:8080/v1")?;
/// assert!(OpenAi::new("no-key".into()).with_base_url("127.0.0.1:8080").is_err());
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
pub type OpenAi = ModelClient<ChatCompletions>;

impl OpenAi {
    /// A client of OpenAI with `api_key`; an empty key sends none, as local servers like it.
    pub fn new(api_key: SecretString) -> Self {
        Self::over(Connection::to(Provider::OpenAi, &api_key, SIGNATURE))
    }

    /// A client whose requests go where those of `client` go, with its base URL, key, organization,
    /// project, headers and query: OpenAI, Azure, or a [`Config`] of one's own, which is asked again
    /// for each request.
    ///
    /// The client's HTTP client and services cannot be taken out of it, and it would retry in
    /// silence: requests are sent by an HTTP client of ours, or by that of
    /// [`ModelClient::with_http_client`].
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
        let endpoint = HandedIn(client.config().clone());
        Self::over(Connection::new(Provider::OpenAi.record_name(), Box::new(endpoint)))
    }

    /// The client of the Responses API of the same server, with the same settings.
    pub fn responses(self) -> OpenAiResponses {
        self.speaking()
    }
}

/// A client of the OpenAI Responses API.
///
/// - Each request holds the whole conversation, and `store: false`: OpenAI keeps responses for 30 days
///   otherwise, which those who come from Chat Completions do not expect and nothing here needs.
///   `store`, or what builds on stored responses (`background`, `conversation`,
///   `previous_response_id`), in [`ChatRequest::extra`](prompt_engine_core::ChatRequest::extra) leaves
///   that to the server.
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
pub type OpenAiResponses = ModelClient<Responses>;

impl OpenAiResponses {
    /// A client of OpenAI with `api_key`.
    pub fn new(api_key: SecretString) -> Self {
        OpenAi::new(api_key).responses()
    }
}
