//! How a [`Recorder`](super::Recorder) works: plain values, checked nowhere else.

use std::time::Duration;

use crate::redaction::Redaction;

/// When a caller gets its answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Once the record is queued: what a service wants.
    #[default]
    Buffered,
    /// After the commit, or after the commit timeout: what a command line wants.
    Durable,
}

/// What happens to a record when the queue is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Overload {
    /// It is dropped, counted and reported; the caller never waits.
    #[default]
    Shed,
    /// The caller waits for room.
    Block,
}

/// Of which calls the payloads are stored: texts, parameters, messages, answers, metadata. All else
/// (tokens, costs, latencies, status, labels) is stored of every call.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Payloads {
    /// Of every call.
    #[default]
    All,
    /// Of none.
    MetricsOnly,
    /// Of this share of the usages, 0 to 1, and of all their calls. Which they are follows from the
    /// id of the usage alone, so a usage and its calls are kept or left together.
    Sampled(f64),
}

/// The settings of a [`Recorder`](super::Recorder).
///
/// # Example: a recorder whose callers wait for the disk
/// ```
/// use prompt_engine_core::{Mode, RecorderConfig};
/// let config = RecorderConfig::new().with_mode(Mode::Durable);
/// assert_eq!(config.queue_bytes, 32 * 1024 * 1024);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RecorderConfig {
    /// When a caller gets its answer.
    pub mode: Mode,
    /// What happens to a record when the queue is full.
    pub overload: Overload,
    /// The most memory that records and reservations take together, in bytes: 2 KiB to 4 GiB.
    pub queue_bytes: usize,
    /// How long a caller of [`Mode::Durable`] waits for its commit.
    pub commit_timeout: Duration,
    /// The most records of one append.
    pub batch_records: usize,
    /// The most bytes of one append; a single record may be larger.
    pub batch_bytes: usize,
    /// What is taken out of texts before they are stored.
    pub redaction: Redaction,
    /// Of which calls the payloads are stored.
    pub payloads: Payloads,
    /// Whether the payload of a call that failed or timed out is stored whatever `payloads` says.
    pub failed_payloads: bool,
    /// The most bytes of a payload, in memory; what is beyond is cut and marked. 1 KiB at least.
    pub max_payload_bytes: Option<usize>,
}

impl Default for RecorderConfig {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            overload: Overload::default(),
            queue_bytes: 32 * 1024 * 1024,
            commit_timeout: Duration::from_secs(5),
            batch_records: 4_096,
            batch_bytes: 4 * 1024 * 1024,
            redaction: Redaction::default(),
            payloads: Payloads::default(),
            failed_payloads: false,
            max_payload_bytes: None,
        }
    }
}

impl RecorderConfig {
    /// The settings of a service: buffered, shedding, 32 MiB.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with another [`Self::mode`].
    #[must_use]
    pub fn with_mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// The same with another [`Self::overload`].
    #[must_use]
    pub fn with_overload(mut self, overload: Overload) -> Self {
        self.overload = overload;
        self
    }

    /// The same with another [`Self::queue_bytes`].
    #[must_use]
    pub fn with_queue_bytes(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// The same with another [`Self::commit_timeout`].
    #[must_use]
    pub fn with_commit_timeout(mut self, timeout: Duration) -> Self {
        self.commit_timeout = timeout;
        self
    }

    /// The same with another [`Self::batch_records`].
    #[must_use]
    pub fn with_batch_records(mut self, records: usize) -> Self {
        self.batch_records = records;
        self
    }

    /// The same with another [`Self::batch_bytes`].
    #[must_use]
    pub fn with_batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// The same with another [`Self::redaction`].
    #[must_use]
    pub fn with_redaction(mut self, redaction: Redaction) -> Self {
        self.redaction = redaction;
        self
    }

    /// The same with other [`Self::payloads`].
    #[must_use]
    pub fn with_payloads(mut self, payloads: Payloads) -> Self {
        self.payloads = payloads;
        self
    }

    /// The same with [`Self::failed_payloads`].
    #[must_use]
    pub fn with_failed_payloads(mut self) -> Self {
        self.failed_payloads = true;
        self
    }

    /// The same with another [`Self::max_payload_bytes`].
    #[must_use]
    pub fn with_max_payload_bytes(mut self, bytes: usize) -> Self {
        self.max_payload_bytes = Some(bytes);
        self
    }
}
