//! The times by which one call must have its first token and its end.

use std::time::Duration;

use prompt_engine_core::{ErrorCategory, LlmError};
use tokio::time::Instant;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    start: Instant,
    total: Duration,
    first_token: Option<Duration>,
}

impl Limits {
    pub(crate) fn new(total: Duration, first_token: Option<Duration>) -> Self {
        Self { start: Instant::now(), total, first_token }
    }

    /// The same limits, and at most `time` from now.
    pub(crate) fn within(self, time: Duration) -> Self {
        let total = self.total.min(self.start.elapsed().saturating_add(time));
        Self { total, first_token: None, ..self }
    }

    /// The same limits once the first token is there.
    pub(crate) fn after_first_token(mut self) -> Self {
        self.first_token = None;
        self
    }

    /// Waits for `work` as long as the nearer limit allows.
    pub(crate) async fn hold<T>(&self, work: impl Future<Output = T>) -> Result<T, LlmError> {
        let (limit, what) = match self.first_token {
            Some(first) if first < self.total => (first, "no first token"),
            _ => (self.total, "no complete answer"),
        };
        // A limit beyond what the clock can hold is no limit.
        let Some(deadline) = self.start.checked_add(limit) else { return Ok(work.await) };
        tokio::time::timeout_at(deadline, work).await.map_err(|_| {
            let message = format!("{what} from the model within {limit:?}");
            LlmError::new(ErrorCategory::Timeout, message)
        })
    }
}
