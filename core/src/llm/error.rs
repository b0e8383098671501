//! Why a call to a model failed.
//! Invariant: no text of it holds a key; whoever makes one sees to that.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::error::BoxError;
use crate::status::{ErrorCategory, Status};
use crate::tokens::TokenCounts;

/// Why a call to a model failed.
///
/// Branch on [`LlmError::category`]; `Display` is one sentence without a key, `source()` the rest.
///
/// # Example: what a record keeps of it
/// ```
/// use prompt_engine_core::{ErrorCategory, LlmError, Status};
/// let error = LlmError::new(ErrorCategory::RateLimit, "too many requests").with_http_status(429);
/// assert_eq!(error.status(), Status::Error);
/// assert_eq!(error.to_string(), "too many requests");
/// assert_eq!(LlmError::new(ErrorCategory::Timeout, "too late").status(), Status::Timeout);
/// ```
#[derive(Debug, Clone)]
pub struct LlmError(Box<Details>);

#[derive(Debug, Clone)]
struct Details {
    category: ErrorCategory,
    message: String,
    http_status: Option<u16>,
    code: Option<String>,
    retry_after: Option<Duration>,
    tokens: Option<TokenCounts>,
    metadata: Value,
    source: Option<Arc<dyn StdError + Send + Sync + 'static>>,
}

impl LlmError {
    /// An error of `category` whose sentence is `message`.
    pub fn new(category: ErrorCategory, message: impl Into<String>) -> Self {
        Self(Box::new(Details {
            category,
            message: message.into(),
            http_status: None,
            code: None,
            retry_after: None,
            tokens: None,
            metadata: Value::Null,
            source: None,
        }))
    }

    /// A call that the caller gave up.
    pub fn cancelled() -> Self {
        Self::new(ErrorCategory::Cancelled, "the call was cancelled")
    }

    /// The same error with the HTTP status of the answer.
    #[must_use]
    pub fn with_http_status(mut self, status: u16) -> Self {
        self.0.http_status = Some(status);
        self
    }

    /// The same error with the provider's code.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.0.code = Some(code.into());
        self
    }

    /// The same error with the time to wait before another request.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// The same error with the token usage that the provider reported, unchecked: of an answer that
    /// failed after the model worked on it, which is paid for.
    ///
    /// # Example: a response that failed
    /// ```
    /// use prompt_engine_core::{ErrorCategory, LlmError, TokenCounts};
    /// let tokens = TokenCounts { input: 9, output: 4, ..TokenCounts::default() };
    /// let error = LlmError::new(ErrorCategory::Server, "the response failed").with_tokens(tokens);
    /// assert_eq!(error.tokens(), Some(tokens));
    /// ```
    #[must_use]
    pub fn with_tokens(mut self, tokens: TokenCounts) -> Self {
        self.0.tokens = Some(tokens);
        self
    }

    /// The same error with what else the provider said.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Value) -> Self {
        self.0.metadata = metadata;
        self
    }

    /// The same error with what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// Why the call failed, to branch on.
    pub fn category(&self) -> ErrorCategory {
        self.0.category
    }

    /// The sentence, the provider's own where it sent one.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The HTTP status of the answer, if there was one.
    pub fn http_status(&self) -> Option<u16> {
        self.0.http_status
    }

    /// The provider's code, such as `insufficient_quota`.
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// How long the provider asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Token usage as reported, unchecked; `None` where the provider reported none.
    pub fn tokens(&self) -> Option<TokenCounts> {
        self.0.tokens
    }

    /// What else the provider said: request id, error object. `Null` where there is nothing.
    pub fn metadata(&self) -> &Value {
        &self.0.metadata
    }

    /// The status of a call that ended with this error.
    pub fn status(&self) -> Status {
        match self.0.category {
            ErrorCategory::Timeout => Status::Timeout,
            ErrorCategory::Cancelled => Status::Cancelled,
            _ => Status::Error,
        }
    }
}

impl fmt::Display for LlmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl StdError for LlmError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_small_and_says_how_the_call_ended() {
        assert_eq!(size_of::<LlmError>(), size_of::<usize>());
        assert_eq!(LlmError::cancelled().status(), Status::Cancelled);
        let error = LlmError::new(ErrorCategory::Network, "the connection broke")
            .with_source(std::io::Error::other("reset by peer"));
        assert_eq!(error.clone().source().map(ToString::to_string), Some("reset by peer".into()));
        assert_eq!(error.to_string(), "the connection broke");
    }
}
