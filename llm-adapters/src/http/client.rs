//! The HTTP client that requests are sent with.
//! Invariant: it sends each request once: no redirect is followed and nothing is sent again.

use std::time::Duration;

use prompt_engine_core::{ErrorCategory, LlmError};
use reqwest::{Client, redirect, retry};

use super::is_loopback;

/// Makes ring the TLS library of the process, unless it has one.
pub(crate) fn install_tls() {
    // An error says that a provider is installed already, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// A client of the server at `base_url`; one on this machine is reached without a proxy.
pub(crate) fn client(base_url: &str, connect_timeout: Duration) -> Result<Client, LlmError> {
    let mut builder = Client::builder()
        .connect_timeout(connect_timeout)
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .user_agent(concat!("prompt-engine/", env!("CARGO_PKG_VERSION")));
    if is_loopback(base_url) {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|source| {
        LlmError::new(ErrorCategory::Other, "cannot set up an HTTP client").with_source(source)
    })
}
