//! Which store a URL means.
//! Invariant: a URL never says more than where and how to store; a build without a store says
//! which feature a URL needs.

use std::ops::Deref;
use std::sync::Arc;

use prompt_engine_core::{Engine, EngineBuilder, Error, FileUrl, MemoryStore, Result, Store};

/// An [`Engine`] that knows how to open a store by its URL; all else is the engine's.
///
/// # Example: the store of a test
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use prompt_engine::PromptEngine;
/// let engine = PromptEngine::connect("memory:").await?;
/// assert!(engine.prompts().list().await?.is_empty());
/// # Ok::<(), prompt_engine::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct PromptEngine(Engine);

impl PromptEngine {
    /// An engine with default settings over the store of `url`: `sqlite://prompts.db`,
    /// `redb://prompts.redb`, `postgres://host/database` or `memory:`. Each store says in its
    /// configuration which parameters its URL takes.
    ///
    /// # Errors
    /// `Invalid` for a URL that means no store, `Unsupported` for a store that this build lacks, and
    /// whatever the store answers when it is opened.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::connect_with(url, EngineBuilder::default()).await
    }

    /// The same with settings of your own. A durable engine opens the store so that a commit
    /// survives the loss of power.
    ///
    /// # Errors
    /// As [`PromptEngine::connect`].
    pub async fn connect_with(url: &str, settings: EngineBuilder) -> Result<Self> {
        let store = open_store(url, settings.is_durable()).await?;
        Self::with_store(store, settings).await
    }

    /// An engine over a store of your own.
    ///
    /// # Errors
    /// Whatever the store answers when it is first read.
    pub async fn with_store(store: Arc<dyn Store>, settings: EngineBuilder) -> Result<Self> {
        settings.build(store).await.map(Self)
    }

    /// The settings of an engine, for [`PromptEngine::connect_with`].
    pub fn builder() -> EngineBuilder {
        Engine::builder()
    }
}

impl Deref for PromptEngine {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.0
    }
}

/// Opens the store of `url`; `durable` makes a commit survive the loss of power where the store
/// leaves the choice, as SQLite does.
///
/// # Errors
/// As [`PromptEngine::connect`].
pub async fn open_store(url: &str, durable: bool) -> Result<Arc<dyn Store>> {
    match url.split_once(':').map(|(scheme, _)| scheme) {
        Some("memory") if url == "memory:" => Ok(Arc::new(MemoryStore::default())),
        Some("sqlite") => open_sqlite(url, durable).await,
        Some("redb") => open_redb(url).await,
        Some("postgres" | "postgresql") => open_postgres(url).await,
        _ => Err(Error::invalid(format!(
            "{} is no URL of a store; try sqlite://prompts.db, redb://prompts.redb, \
             postgres://host/database or memory:",
            without_secrets(url)
        ))),
    }
}

/// Where the store of `url` would be made, in words without a secret; `None` if it is there. It makes
/// nothing, so that whoever only reads can ask before opening.
///
/// # Errors
/// As [`PromptEngine::connect`].
pub async fn missing_store(url: &str) -> Result<Option<String>> {
    match url.split_once(':').map(|(scheme, _)| scheme) {
        Some("sqlite") => missing_sqlite(url).await,
        Some("redb") => {
            let path = FileUrl::parse(url, "redb")?.path;
            Ok((!path.exists()).then(|| path.display().to_string()))
        }
        Some("postgres" | "postgresql") => missing_postgres(url).await,
        _ => Ok(None),
    }
}

#[cfg(feature = "sqlite")]
async fn missing_sqlite(url: &str) -> Result<Option<String>> {
    use prompt_engine_store_sqlite::{SqliteConfig, SqliteStore};
    SqliteStore::missing(&SqliteConfig::from_url(url)?).await
}

#[cfg(not(feature = "sqlite"))]
async fn missing_sqlite(_: &str) -> Result<Option<String>> {
    Err(missing("sqlite"))
}

#[cfg(feature = "postgres")]
async fn missing_postgres(url: &str) -> Result<Option<String>> {
    use prompt_engine_store_postgres::{PostgresConfig, PostgresStore};
    PostgresStore::missing(&PostgresConfig::from_url(url)?).await
}

#[cfg(not(feature = "postgres"))]
async fn missing_postgres(_: &str) -> Result<Option<String>> {
    Err(missing("postgres"))
}

#[cfg(feature = "sqlite")]
async fn open_sqlite(url: &str, durable: bool) -> Result<Arc<dyn Store>> {
    use prompt_engine_store_sqlite::{SqliteConfig, SqliteStore, Synchronous};
    let config = SqliteConfig::from_url(url)?;
    let config = if durable { config.with_synchronous(Synchronous::Full) } else { config };
    Ok(Arc::new(SqliteStore::open(config).await?))
}

#[cfg(not(feature = "sqlite"))]
async fn open_sqlite(_: &str, _: bool) -> Result<Arc<dyn Store>> {
    Err(missing("sqlite"))
}

#[cfg(feature = "redb")]
async fn open_redb(url: &str) -> Result<Arc<dyn Store>> {
    use prompt_engine_store_redb::{RedbConfig, RedbStore};
    Ok(Arc::new(RedbStore::open(RedbConfig::from_url(url)?).await?))
}

#[cfg(not(feature = "redb"))]
async fn open_redb(_: &str) -> Result<Arc<dyn Store>> {
    Err(missing("redb"))
}

#[cfg(feature = "postgres")]
async fn open_postgres(url: &str) -> Result<Arc<dyn Store>> {
    use prompt_engine_store_postgres::{PostgresConfig, PostgresStore};
    Ok(Arc::new(PostgresStore::open(PostgresConfig::from_url(url)?).await?))
}

#[cfg(not(feature = "postgres"))]
async fn open_postgres(_: &str) -> Result<Arc<dyn Store>> {
    Err(missing("postgres"))
}

#[cfg(not(all(feature = "sqlite", feature = "redb", feature = "postgres")))]
fn missing(feature: &str) -> Error {
    Error::new(
        prompt_engine_core::ErrorKind::Unsupported,
        format!(
            "this build of prompt-engine lacks the store `{feature}`; enable its feature `{feature}`"
        ),
    )
}

/// The URL as it may be shown: with a user or a setting in it, any part but the scheme may be a secret.
fn without_secrets(url: &str) -> String {
    if !url.contains(['@', '=']) {
        return format!("{url:?}");
    }
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    format!("\"{scheme}:…\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_url_that_means_no_store_is_refused_without_its_secrets() {
        // Without the store the sentence is about the feature.
        let server = if cfg!(feature = "postgres") { "host.invalid" } else { "`postgres`" };
        for (url, says) in [
            ("postgres://u:hunter2@host.invalid/db", server),
            ("postgres://host.invalid/db?user=u&password=hunter2", server),
            ("mysql:u:hunter2@host", "mysql:…"),
        ] {
            let error = open_store(url, false).await.unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
            assert!(error.contains(says), "{error}");
        }
        let error = open_store("password=hunter2", false).await.unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
        for url in ["prompts.db", "ftp://prompts.db"] {
            let error = open_store(url, false).await.unwrap_err().to_string();
            assert!(error.contains(url), "{error}");
        }
    }
}
