//! Where the file is and how it is used. Nothing is checked here that only opening can tell.

use std::path::PathBuf;
use std::time::Duration;

use prompt_engine_core::{Error, ErrorKind, FileUrl, Result};

/// When a commit counts as written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Synchronous {
    /// With the next checkpoint: a power failure may take the last commits, never the file.
    #[default]
    Normal,
    /// At once: a commit survives a power failure.
    Full,
}

/// How to open a [`SqliteStore`](crate::SqliteStore).
///
/// # Example: from a URL
/// ```
/// use prompt_engine_store_sqlite::{SqliteConfig, Synchronous};
/// let config = SqliteConfig::from_url("sqlite://prompts.db?synchronous=full")?;
/// assert_eq!(config.path.to_str(), Some("prompts.db"));
/// assert_eq!(config.synchronous, Synchronous::Full);
/// assert!(SqliteConfig::from_url("sqlite://prompts.db?sync=full").is_err());
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SqliteConfig {
    /// The file; it is created if it does not exist.
    pub path: PathBuf,
    /// How long to wait for another writer.
    pub busy_timeout: Duration,
    /// When a commit counts as written.
    pub synchronous: Synchronous,
    /// How many reads may run at once.
    pub readers: usize,
}

impl SqliteConfig {
    /// The file at `path`, a busy timeout of 5 s, [`Synchronous::Normal`] and 4 readers.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            busy_timeout: Duration::from_secs(5),
            synchronous: Synchronous::Normal,
            readers: 4,
        }
    }

    /// Waits up to `timeout` for another writer.
    #[must_use]
    pub fn with_busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// Sets when a commit counts as written.
    #[must_use]
    pub fn with_synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// Lets up to `readers` reads run at once (at least one).
    #[must_use]
    pub fn with_readers(mut self, readers: usize) -> Self {
        self.readers = readers.max(1);
        self
    }

    /// The configuration of `sqlite://<path>?<parameters>`: `sqlite://prompts.db` is relative,
    /// `sqlite:///var/prompts.db` is absolute. Parameters: `synchronous` (`normal`, `full`),
    /// `busy_timeout_ms` and `readers`. In the path, `%3F` stands for `?` and `%25` for `%`.
    ///
    /// # Errors
    /// `Invalid`, naming the parameter, if it is not known or has no such value; `Unsupported` for
    /// a database in memory.
    pub fn from_url(url: &str) -> Result<Self> {
        let url = FileUrl::parse(url, "sqlite")?;
        if url.path.as_os_str() == ":memory:" {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "SQLite is for files here; for a store in memory use memory:",
            ));
        }
        let mut config = Self::new(&url.path);
        for (name, value) in url.parameters() {
            match name {
                "synchronous" => {
                    config.synchronous = match value {
                        "normal" => Synchronous::Normal,
                        "full" => Synchronous::Full,
                        _ => return Err(url.wrong_value(name, value, "normal or full")),
                    };
                }
                "busy_timeout_ms" => {
                    let ms: u32 =
                        value.parse().map_err(|_| url.wrong_value(name, value, "milliseconds"))?;
                    config.busy_timeout = Duration::from_millis(ms.into());
                }
                "readers" => {
                    config.readers = match value.parse() {
                        Ok(readers @ 1..=256) => readers,
                        _ => return Err(url.wrong_value(name, value, "a number from 1 to 256")),
                    };
                }
                _ => return Err(url.unknown(name, "synchronous, busy_timeout_ms and readers")),
            }
        }
        Ok(config)
    }
}
