//! What ends a call before its answer: a deadline, or somebody's word.
//! Invariant: a whole answer that is there when the limit is reached is taken.

use std::pin::pin;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Either, select};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::llm::LlmError;
use crate::status::ErrorCategory;

/// Limits of a call, or of all the calls of one question.
#[derive(Debug, Clone, Default)]
pub(crate) struct Limits {
    deadline: Option<Deadline>,
    /// Changes when everything is to end.
    cancel: Option<watch::Receiver<u64>>,
}

#[derive(Debug, Clone, Copy)]
struct Deadline {
    at: Instant,
    /// What is not there by then.
    missing: &'static str,
    within: Duration,
}

impl Deadline {
    fn missed(self) -> LlmError {
        let Self { missing, within, .. } = self;
        LlmError::new(ErrorCategory::Timeout, format!("no {missing} within {within:?}"))
    }
}

impl Limits {
    /// The same limits, and the end of them where `cancel` changes.
    pub(crate) fn with_cancel(mut self, cancel: watch::Receiver<u64>) -> Self {
        self.cancel = Some(cancel);
        self
    }

    /// The same limits, and `missing` within a time from now. A time without end is none.
    pub(crate) fn with_timeout(mut self, within: Option<Duration>, missing: &'static str) -> Self {
        let at = within.and_then(|within| Some((Instant::now().checked_add(within)?, within)));
        if let Some((at, within)) = at
            && self.deadline.is_none_or(|deadline| at < deadline.at)
        {
            self.deadline = Some(Deadline { at, missing, within });
        }
        self
    }

    /// Whether there is time left after `wait`.
    pub(crate) fn allow(&self, wait: Duration) -> bool {
        let Some(deadline) = &self.deadline else { return true };
        Instant::now().checked_add(wait).is_some_and(|end| end < deadline.at)
    }

    /// The limit that was reached by now. It asks the clock and the word themselves: a task that
    /// never waits lets no timer fire.
    pub(crate) fn passed(&self) -> Option<LlmError> {
        if self.cancel.as_ref().is_some_and(|cancel| cancel.borrow().has_changed()) {
            return Some(LlmError::cancelled());
        }
        self.deadline.filter(|deadline| deadline.at <= Instant::now()).map(Deadline::missed)
    }

    /// Waits for the first of the limits, and says which it was.
    pub(crate) fn reached(&self) -> BoxFuture<'static, LlmError> {
        let Self { deadline, mut cancel } = self.clone();
        let late = async move {
            let Some(deadline) = deadline else { return std::future::pending().await };
            tokio::time::sleep_until(deadline.at).await;
            deadline.missed()
        };
        let cancelled = async move {
            if let Some(cancel) = &mut cancel
                && cancel.changed().await.is_ok()
            {
                return LlmError::cancelled();
            }
            // Nobody is left to cancel it.
            std::future::pending().await
        };
        async move { select(pin!(cancelled), pin!(late)).await.factor_first().0 }.boxed()
    }

    /// What `answer` gives, or the limit that was reached before.
    pub(crate) async fn within<T>(
        &self,
        answer: impl Future<Output = Result<T, LlmError>>,
    ) -> Result<T, LlmError> {
        if self.deadline.is_none() && self.cancel.is_none() {
            return answer.await;
        }
        match select(pin!(answer), self.reached()).await {
            Either::Left((answer, _)) => answer,
            Either::Right((limit, _)) => Err(limit),
        }
    }
}
