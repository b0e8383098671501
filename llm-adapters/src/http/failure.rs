//! Why a request has no answer, or none that is whole.
//! Invariant: no message and no source holds a URL that may hold a key.

use prompt_engine_core::{ErrorCategory, LlmError};
use reqwest::{Error, Url};

use super::quoting;

/// What a status says, where nothing says more.
pub(crate) fn category(status: u16) -> ErrorCategory {
    use ErrorCategory as C;
    match status {
        401 => C::Authentication,
        402 => C::Billing,
        403 => C::Permission,
        408 | 504 | 522 | 524 => C::Timeout,
        429 => C::RateLimit,
        // 498: Groq has no capacity for the flex tier.
        498 | 503 | 529 => C::Overloaded,
        300..=499 => C::InvalidRequest,
        _ => C::Server,
    }
}

/// A request to `url` that got no answer, or one that broke.
pub(crate) fn failed(source: Error, url: &str) -> LlmError {
    if source.is_body() || source.is_decode() {
        return broken(source);
    }
    let place = Url::parse(url)
        .ok()
        .and_then(|url| Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?)));
    let place = place.as_deref().unwrap_or("the server");
    let (category, message) = if source.is_timeout() {
        let what = if source.is_connect() { "no connection to" } else { "no answer from" };
        (ErrorCategory::Timeout, format!("{what} {place} in time"))
    } else if source.is_builder() {
        (ErrorCategory::InvalidRequest, "the request cannot be written".to_owned())
    } else if source.is_connect() {
        (ErrorCategory::Network, format!("cannot connect to {place}: {}", cause(&source)))
    } else {
        (ErrorCategory::Network, format!("{place} closed the connection without an answer"))
    };
    LlmError::new(category, message).with_source(source.without_url())
}

/// What lies at the bottom of an error: that a connection was refused, a name is not known, a
/// certificate is not trusted.
fn cause(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |error| error.source())
        .last()
        .map_or_else(|| "no cause is known".to_owned(), ToString::to_string)
}

/// A body that ended before its end.
fn broken(source: Error) -> LlmError {
    let error = if source.is_timeout() {
        LlmError::new(ErrorCategory::Timeout, "the answer did not go on in time")
    } else {
        cut_short()
    };
    error.with_source(source.without_url())
}

/// An answer that is not whole.
pub(crate) fn cut_short() -> LlmError {
    LlmError::new(ErrorCategory::Network, "the connection closed before the answer was whole")
}

/// A success that cannot be read; `body` must be redacted.
pub(crate) fn unreadable(message: &str, body: &str) -> LlmError {
    LlmError::new(ErrorCategory::Server, quoting(message, body))
}
