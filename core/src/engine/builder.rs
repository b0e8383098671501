//! The settings of an engine. One place, [`EngineBuilder::build`], validates them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::book::BookCell;
use super::cache::PromptCache;
use super::{Engine, Inner};
use crate::error::{Error, Result};
use crate::label::Label;
use crate::recorder::{Mode, Overload, Payloads, Recorder, RecorderConfig};
use crate::redaction::Redaction;
use crate::store::Store;

/// The environment variable that names the environment where the builder does not.
const ENVIRONMENT: &str = "PROMPT_ENGINE_ENV";

/// Settings of an [`Engine`].
#[derive(Debug, Clone)]
pub struct EngineBuilder {
    environment: Option<Label>,
    recorder: RecorderConfig,
    durable: bool,
    prompt_ttl: Duration,
    seed_prices: bool,
    default_metadata: Map<String, Value>,
    capture_content: bool,
}

impl Default for EngineBuilder {
    fn default() -> Self {
        Self {
            environment: None,
            recorder: RecorderConfig::default(),
            durable: false,
            prompt_ttl: Duration::from_secs(10),
            seed_prices: true,
            default_metadata: default_metadata(),
            capture_content: false,
        }
    }
}

/// Host name and library version: where a record came from.
fn default_metadata() -> Map<String, Value> {
    let host = hostname::get().map(|name| name.to_string_lossy().into_owned());
    let mut metadata = Map::new();
    if let Ok(host) = host {
        metadata.insert("host".to_owned(), host.into());
    }
    metadata.insert("prompt_engine".to_owned(), env!("CARGO_PKG_VERSION").into());
    metadata
}

impl EngineBuilder {
    /// The environment of all records; else the variable `PROMPT_ENGINE_ENV`, else `development`.
    #[must_use]
    pub fn environment(mut self, environment: Label) -> Self {
        self.environment = Some(environment);
        self
    }

    /// Records are acknowledged only once they are committed. Without it they are buffered.
    #[must_use]
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self.recorder = self.recorder.with_mode(Mode::Durable);
        self
    }

    /// Whether [`EngineBuilder::durable`] was asked for.
    pub fn is_durable(&self) -> bool {
        self.durable
    }

    /// What happens to a record when the queue is full.
    #[must_use]
    pub fn overload(mut self, overload: Overload) -> Self {
        self.recorder = self.recorder.with_overload(overload);
        self
    }

    /// How many bytes may wait to be stored (32 MiB unless set).
    #[must_use]
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.recorder = self.recorder.with_queue_bytes(bytes);
        self
    }

    /// How long a durable record waits for its commit before it is said to be queued (5 seconds unless set).
    #[must_use]
    pub fn commit_timeout(mut self, timeout: Duration) -> Self {
        self.recorder = self.recorder.with_commit_timeout(timeout);
        self
    }

    /// How long a prompt that was read is taken as it was (10 seconds unless set).
    #[must_use]
    pub fn prompt_ttl(mut self, ttl: Duration) -> Self {
        self.prompt_ttl = ttl;
        self
    }

    /// A store that has no prices yet is left without.
    #[must_use]
    pub fn without_seed_prices(mut self) -> Self {
        self.seed_prices = false;
        self
    }

    /// What every usage's metadata starts from, in place of host name and library version.
    #[must_use]
    pub fn default_metadata(mut self, metadata: Map<String, Value>) -> Self {
        self.default_metadata = metadata;
        self
    }

    /// Takes secrets out of texts before they are stored. Several calls add up.
    ///
    /// # Example: an address that a user typed is not stored
    /// ```
    /// use std::sync::Arc;
    /// use prompt_engine_core::{
    ///     Engine, MemoryStore, NewPrompt, RecordStore, Redaction, VersionDraft, params,
    /// };
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let engine = Engine::builder()
    ///     .redact(Redaction::new().emails().keys())
    ///     .build(Arc::new(MemoryStore::default()))
    ///     .await?;
    /// let draft = VersionDraft { content: "Write to {{who}}".into(), ..VersionDraft::default() };
    /// engine.prompts().create(NewPrompt::new("write".parse()?, draft)).await?;
    ///
    /// let rendered = engine.render("write", params! { "who" => "ann@example.com" }).await?;
    /// assert_eq!(rendered.content(), "Write to ann@example.com");
    /// engine.flush().await;
    /// let stored = engine.store().usage(rendered.usage_id()).await?.and_then(|usage| usage.payload);
    /// assert_eq!(stored.unwrap_or_default().content, "Write to [email]");
    /// # Ok::<(), prompt_engine_core::Error>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn redact(mut self, redaction: Redaction) -> Self {
        let before = std::mem::take(&mut self.recorder.redaction);
        self.recorder = self.recorder.with_redaction(before.and(redaction));
        self
    }

    /// Of which calls the payloads are stored: texts, parameters, messages, answers, metadata (of all,
    /// unless set).
    #[must_use]
    pub fn payloads(mut self, payloads: Payloads) -> Self {
        self.recorder = self.recorder.with_payloads(payloads);
        self
    }

    /// Stores the payloads of calls that failed or timed out, whatever [`EngineBuilder::payloads`]
    /// says: what was sent and what the error said. Their usages are not among them.
    #[must_use]
    pub fn failed_payloads(mut self) -> Self {
        self.recorder = self.recorder.with_failed_payloads();
        self
    }

    /// The most bytes of a payload; what is beyond is cut and marked, as in `…[cut: 12345 bytes]`.
    /// Bytes are those in memory, maps and lists included; 1 KiB at least.
    #[must_use]
    pub fn max_payload_bytes(mut self, bytes: usize) -> Self {
        self.recorder = self.recorder.with_max_payload_bytes(bytes);
        self
    }

    /// Puts messages and answers into tracing spans too, redacted as they are stored. Which calls'
    /// payloads are stored, and how much of them, is another matter.
    #[must_use]
    pub fn capture_content(mut self) -> Self {
        self.capture_content = true;
        self
    }

    /// An engine over `store`. Must be called on a tokio runtime, on which the recorder then works.
    ///
    /// # Errors
    /// `Invalid` if `PROMPT_ENGINE_ENV` is no label, or if the share of payloads is not 0 to 1;
    /// whatever the store answers when it is first read.
    pub async fn build(self, store: Arc<dyn Store>) -> Result<Engine> {
        let environment = match self.environment {
            Some(environment) => environment,
            None => match std::env::var(ENVIRONMENT) {
                Ok(name) if !name.is_empty() => Label::new(name)?,
                _ => Label::new("development")?,
            },
        };
        if let Payloads::Sampled(share) = self.recorder.payloads
            && !(0.0..=1.0).contains(&share)
        {
            return Err(Error::invalid(format!(
                "the share of payloads to store is {share}; it must be 0 to 1"
            )));
        }
        if self.seed_prices && store.price_generation().await? == 0 {
            let seeded = store.put_cost_configs(&crate::seed::seed_prices(), 0).await;
            // Somebody else may seed at the same moment: then the prices are there.
            seeded.or_else(|error| match error.kind() {
                crate::ErrorKind::Conflict => Ok(()),
                _ => Err(error),
            })?;
        }
        let book = BookCell::load(&store).await?;
        let records: Arc<dyn Store> = Arc::clone(&store);
        let recorder = Recorder::new(records, self.recorder);
        Ok(Engine {
            inner: Arc::new(Inner {
                store,
                recorder,
                environment,
                default_metadata: self.default_metadata,
                capture_content: self.capture_content,
                durable: self.durable,
                cache: PromptCache::new(self.prompt_ttl),
                book,
            }),
        })
    }
}
