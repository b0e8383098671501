//! When a call that failed is made again, and how long to wait before. Pure: no clock, no chance.
//! Invariant: no wait is longer than the longest one that the policy allows.

use std::borrow::Cow;
use std::time::Duration;

use crate::llm::LlmError;
use crate::status::ErrorCategory;

/// When a call that failed is made again.
///
/// By default three attempts in all, with half a second before the second and twice as long before
/// each further one, at most 30 seconds, each shortened by up to a half at random. Made again are
/// calls that failed for a reason that passes: `rate_limit`, `overloaded`, `server`, `network` and
/// `timeout`.
///
/// Where the provider says how long to wait, that is waited if it is longer. If it asks for more
/// than the longest wait, the call is not made again: an error now, or another model, serves a
/// caller better than minutes of silence.
///
/// # Example: how long is waited after the second attempt
/// ```
/// use std::time::Duration;
/// use prompt_engine_core::{ErrorCategory, LlmError, RetryPolicy};
///
/// let policy = RetryPolicy::default().with_jitter_percent(0);
/// let limited = LlmError::new(ErrorCategory::RateLimit, "slow down");
/// assert_eq!(policy.delay(2, &limited, 0), Some(Duration::from_secs(1)));
///
/// let soon = limited.clone().with_retry_after(Duration::from_secs(7));
/// assert_eq!(policy.delay(2, &soon, 0), Some(Duration::from_secs(7)));
/// let late = limited.with_retry_after(Duration::from_secs(600));
/// assert_eq!(policy.delay(2, &late, 0), None);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    max_attempts: u32,
    base_delay: Duration,
    factor: u32,
    max_delay: Duration,
    jitter_percent: u8,
    categories: Cow<'static, [ErrorCategory]>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        use ErrorCategory::{Network, Overloaded, RateLimit, Server, Timeout};
        Self {
            max_attempts: 3,
            base_delay: Duration::from_millis(500),
            factor: 2,
            max_delay: Duration::from_secs(30),
            jitter_percent: 50,
            categories: Cow::Borrowed(&[RateLimit, Overloaded, Server, Network, Timeout]),
        }
    }
}

impl RetryPolicy {
    /// One attempt and no more: what holds where nothing else is asked for.
    pub fn none() -> Self {
        Self::default().with_max_attempts(1)
    }

    /// Makes at most so many attempts, the first one included; 0 counts as 1.
    #[must_use]
    pub fn with_max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// Waits so long after the first attempt.
    #[must_use]
    pub fn with_base_delay(mut self, delay: Duration) -> Self {
        self.base_delay = delay;
        self
    }

    /// Waits so many times longer after each further attempt.
    #[must_use]
    pub fn with_factor(mut self, factor: u32) -> Self {
        self.factor = factor;
        self
    }

    /// Never waits longer than this; a provider that asks for more is not asked again.
    #[must_use]
    pub fn with_max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = delay;
        self
    }

    /// Shortens each wait at random by up to so many percent, so that callers that failed together
    /// do not come back together. More than 100 counts as 100.
    #[must_use]
    pub fn with_jitter_percent(mut self, percent: u8) -> Self {
        self.jitter_percent = percent;
        self
    }

    /// Makes calls again that failed for one of these reasons, and no others.
    #[must_use]
    pub fn with_categories(mut self, categories: impl IntoIterator<Item = ErrorCategory>) -> Self {
        self.categories = categories.into_iter().collect();
        self
    }

    /// How long to wait before the next attempt, or `None` to give up.
    ///
    /// `attempt`: the number of the attempt that failed with `error`, from 1. `chance`: any number,
    /// a new one each time; it decides how much the wait is shortened.
    pub fn delay(&self, attempt: u32, error: &LlmError, chance: u64) -> Option<Duration> {
        if attempt >= self.max_attempts || !self.categories.contains(&error.category()) {
            return None;
        }
        let times = self.factor.saturating_pow(attempt.saturating_sub(1));
        let full = self.base_delay.saturating_mul(times).min(self.max_delay);
        let percent = u64::from(self.jitter_percent.min(100));
        // Thousandths of the wait that are taken off: any of 0 to ten times the percentage.
        let off = u32::try_from(chance % (percent * 10 + 1)).unwrap_or_default();
        let wait = full - full / 1_000 * off;
        match error.retry_after() {
            Some(asked) if asked > self.max_delay => None,
            Some(asked) => Some(wait.max(asked)),
            None => Some(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(category: ErrorCategory) -> LlmError {
        LlmError::new(category, "no")
    }

    #[test]
    fn waits_grow_by_the_factor_up_to_the_longest() {
        let policy = RetryPolicy::default()
            .with_max_attempts(6)
            .with_base_delay(Duration::from_secs(1))
            .with_factor(3)
            .with_max_delay(Duration::from_secs(20))
            .with_jitter_percent(0);
        let waits: Vec<_> = (1..=6)
            .map(|attempt| policy.delay(attempt, &error(ErrorCategory::Server), 7))
            .map(|delay| delay.map(|delay| delay.as_secs()))
            .collect();
        assert_eq!(waits, [Some(1), Some(3), Some(9), Some(20), Some(20), None]);
    }

    #[test]
    fn what_does_not_pass_is_not_tried_again() {
        let policy = RetryPolicy::default();
        let again: Vec<_> = ErrorCategory::ALL
            .iter()
            .filter(|category| policy.delay(1, &error(**category), 0).is_some())
            .map(|category| category.as_str())
            .collect();
        assert_eq!(again, ["rate_limit", "timeout", "network", "overloaded", "server"]);
        let other = RetryPolicy::default().with_categories([ErrorCategory::Other]);
        assert!(other.delay(1, &error(ErrorCategory::Other), 0).is_some());
        assert_eq!(other.delay(1, &error(ErrorCategory::Server), 0), None);
        assert_eq!(RetryPolicy::none().delay(1, &error(ErrorCategory::Server), 0), None);
    }

    #[test]
    fn chance_shortens_a_wait_by_no_more_than_its_share() {
        let policy = RetryPolicy::default().with_base_delay(Duration::from_secs(1));
        let wait = |chance| policy.delay(1, &error(ErrorCategory::Server), chance).unwrap();
        assert_eq!(wait(0), Duration::from_secs(1));
        assert_eq!(wait(500), Duration::from_millis(500));
        assert_eq!(wait(501), Duration::from_secs(1));
    }

    #[test]
    fn a_provider_that_asks_for_as_long_as_is_allowed_is_asked_again() {
        let policy = RetryPolicy::default().with_max_delay(Duration::from_secs(30));
        let asked = |secs| {
            let error = error(ErrorCategory::RateLimit).with_retry_after(Duration::from_secs(secs));
            policy.delay(1, &error, 3)
        };
        assert_eq!(asked(30), Some(Duration::from_secs(30)));
        assert_eq!(asked(31), None);
    }

    proptest! {
        #[test]
        fn no_policy_waits_longer_than_its_longest(
            attempts: u32, base: Duration, factor: u32, longest: Duration, jitter: u8,
            attempt: u32, asked: Option<Duration>, chance: u64,
        ) {
            let policy = RetryPolicy::default()
                .with_max_attempts(attempts)
                .with_base_delay(base)
                .with_factor(factor)
                .with_max_delay(longest)
                .with_jitter_percent(jitter);
            let mut error = error(ErrorCategory::RateLimit);
            if let Some(asked) = asked {
                error = error.with_retry_after(asked);
            }
            match policy.delay(attempt, &error, chance) {
                Some(wait) => prop_assert!(
                    wait <= longest && attempt < attempts && asked.is_none_or(|asked| wait >= asked)
                ),
                None => prop_assert!(
                    attempt >= attempts || asked.is_some_and(|asked| asked > longest)
                ),
            }
        }
    }
}
