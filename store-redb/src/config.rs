//! Where the file is and how it is used. Nothing is checked here that only opening can tell.

use std::path::PathBuf;

use prompt_engine_core::{FileUrl, Result};

const MIB: usize = 1024 * 1024;

/// How to open a [`RedbStore`](crate::RedbStore).
///
/// # Example: from a URL
/// ```
/// use prompt_engine_store_redb::RedbConfig;
/// let config = RedbConfig::from_url("redb://prompts.redb?cache_mib=64")?;
/// assert_eq!(config.path.to_str(), Some("prompts.redb"));
/// assert_eq!(config.cache_bytes, 64 * 1024 * 1024);
/// assert!(RedbConfig::from_url("redb://prompts.redb?cache=64").is_err());
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedbConfig {
    /// The file; it is created if it does not exist.
    pub path: PathBuf,
    /// How much of the file is kept in memory at most.
    pub cache_bytes: usize,
}

impl RedbConfig {
    /// The file at `path`, and a cache of 32 MiB.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), cache_bytes: 32 * MIB }
    }

    /// Keeps up to `bytes` of the file in memory.
    #[must_use]
    pub fn with_cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// The configuration of `redb://<path>?<parameters>`: `redb://prompts.redb` is relative,
    /// `redb:///var/prompts.redb` is absolute. The one parameter is `cache_mib`. In the path, `%3F`
    /// stands for `?` and `%25` for `%`.
    ///
    /// # Errors
    /// `Invalid`, naming the parameter, if it is not known or has no such value.
    pub fn from_url(url: &str) -> Result<Self> {
        let url = FileUrl::parse(url, "redb")?;
        let mut config = Self::new(&url.path);
        for (name, value) in url.parameters() {
            match name {
                "cache_mib" => {
                    config.cache_bytes = match value.parse() {
                        Ok(mib @ 1..=65_536) => mib * MIB,
                        _ => return Err(url.wrong_value(name, value, "a number from 1 to 65536")),
                    };
                }
                _ => return Err(url.unknown(name, "cache_mib and no other")),
            }
        }
        Ok(config)
    }
}
