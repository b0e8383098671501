//! What became of a record. Invariant: only [`Recorded::Committed`] is an acknowledgement.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind};

/// What became of a record, as far as its caller waited to see.
#[derive(Debug, Clone)]
#[must_use = "a record may have been dropped"]
pub enum Recorded {
    /// The store has it.
    Committed,
    /// It is queued; the store does not have it yet.
    Queued,
    /// It is lost.
    Dropped(DropReason),
}

/// Why a record was dropped.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum DropReason {
    /// The queue had no room for it.
    QueueFull,
    /// The store refuses it, and would refuse it again.
    Refused(Arc<Error>),
    /// The recorder does not run, or stopped before the record was committed.
    ShutDown,
}

impl Recorded {
    /// Whether the record is lost.
    pub fn is_dropped(&self) -> bool {
        matches!(self, Self::Dropped(_))
    }

    /// The error of a record that was dropped, for callers that must hear of it.
    ///
    /// # Errors
    /// `Unavailable` where the queue was full or the recorder stopped; else the store's refusal.
    pub fn check(&self) -> Result<(), Error> {
        match self {
            Self::Committed | Self::Queued => Ok(()),
            Self::Dropped(reason) => Err(reason.clone().into()),
        }
    }
}

impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Committed => f.write_str("committed"),
            Self::Queued => f.write_str("queued"),
            Self::Dropped(reason) => write!(f, "dropped: {reason}"),
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::QueueFull => f.write_str("the recorder's queue is full"),
            Self::Refused(error) => write!(f, "the store refused it: {}", error.chain()),
            Self::ShutDown => f.write_str("the recorder has stopped"),
        }
    }
}

impl From<DropReason> for Error {
    fn from(reason: DropReason) -> Self {
        match reason {
            // The error itself where nobody else holds it, so that its source is kept.
            DropReason::Refused(error) => Arc::try_unwrap(error)
                .unwrap_or_else(|error| Self::new(error.kind(), error.chain())),
            other => Self::new(ErrorKind::Unavailable, other.to_string()),
        }
    }
}
