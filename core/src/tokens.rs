//! Token usage of one call, in the inclusive convention of OpenTelemetry and OpenAI:
//! `input` holds cache reads, cache writes and audio; `output` holds reasoning and audio.
//! Invariant of [`TokenUsage`]: no part exceeds its whole and no count exceeds [`TokenCounts::MAX`].

use std::ops::Deref;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Token counts as somebody reported them, not yet checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenCounts {
    /// All input tokens: with cache reads, cache writes and audio.
    pub input: u64,
    /// All output tokens: with reasoning and audio.
    pub output: u64,
    /// Input tokens read from the provider's cache.
    pub cache_read: u64,
    /// Input tokens written to the provider's cache, the 1-hour part included.
    pub cache_write: u64,
    /// The part of `cache_write` that is kept for an hour.
    pub cache_write_1h: u64,
    /// Output tokens spent on reasoning.
    pub reasoning: u64,
    /// Input tokens of audio.
    pub audio_input: u64,
    /// Output tokens of audio.
    pub audio_output: u64,
}

impl TokenCounts {
    /// The most tokens one call can be believed to have.
    pub const MAX: u64 = 1_000_000_000_000;

    /// The counts in the order of the fields: how stores write them.
    pub fn to_array(self) -> [u64; 8] {
        let Self {
            input,
            output,
            cache_read,
            cache_write,
            cache_write_1h,
            reasoning,
            audio_input,
            audio_output,
        } = self;
        [
            input,
            output,
            cache_read,
            cache_write,
            cache_write_1h,
            reasoning,
            audio_input,
            audio_output,
        ]
    }

    /// The counts, checked.
    ///
    /// # Errors
    /// `Invalid`, naming the count, where a part exceeds its whole or a count exceeds [`Self::MAX`].
    pub fn check(self) -> Result<TokenUsage> {
        let too_many = |what: &str, count: u64| {
            Err(Error::invalid(format!("{what} of {count} tokens is more than {}", Self::MAX)))
        };
        if self.input > Self::MAX {
            return too_many("an input", self.input);
        }
        if self.output > Self::MAX {
            return too_many("an output", self.output);
        }
        let within = |part: &[u64], whole: u64| {
            part.iter().try_fold(0_u64, |sum, n| sum.checked_add(*n)).is_some_and(|s| s <= whole)
        };
        if !within(&[self.cache_read, self.cache_write, self.audio_input], self.input) {
            return Err(Error::invalid(format!(
                "cache and audio tokens ({} + {} + {}) exceed the {} input tokens that include them",
                self.cache_read, self.cache_write, self.audio_input, self.input
            )));
        }
        if !within(&[self.cache_write_1h], self.cache_write) {
            return Err(Error::invalid(format!(
                "{} one-hour cache tokens exceed the {} cache write tokens that include them",
                self.cache_write_1h, self.cache_write
            )));
        }
        if !within(&[self.reasoning, self.audio_output], self.output) {
            return Err(Error::invalid(format!(
                "reasoning and audio tokens ({} + {}) exceed the {} output tokens that include them",
                self.reasoning, self.audio_output, self.output
            )));
        }
        Ok(TokenUsage(self))
    }
}

/// Checked token usage of one call; read its counts as fields of [`TokenCounts`].
///
/// # Example: parts within their whole
/// ```
/// use prompt_engine_core::TokenCounts;
/// let usage = TokenCounts { input: 100, cache_read: 40, output: 7, ..Default::default() }.check()?;
/// assert_eq!(usage.total(), 107);
/// assert!(TokenCounts { input: 1, cache_read: 2, ..Default::default() }.check().is_err());
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "TokenCounts", into = "TokenCounts")]
pub struct TokenUsage(TokenCounts);

impl TokenUsage {
    /// Input and output together.
    pub fn total(&self) -> u64 {
        self.0.input + self.0.output
    }
}

impl Deref for TokenUsage {
    type Target = TokenCounts;

    fn deref(&self) -> &TokenCounts {
        &self.0
    }
}

impl From<TokenUsage> for TokenCounts {
    fn from(usage: TokenUsage) -> Self {
        usage.0
    }
}

impl TryFrom<TokenCounts> for TokenUsage {
    type Error = Error;

    fn try_from(counts: TokenCounts) -> Result<Self> {
        counts.check()
    }
}
