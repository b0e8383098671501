//! Where requests go and what they carry: a key and a base URL, or a client that the caller built.
//! Invariant: a key never leaves but as a header that is marked as sensitive.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use async_openai::config::Config;
use prompt_engine_core::{Error, ErrorCategory, LlmError, Result};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use crate::http::{self, Redactor};

const OPENAI_BASE_URL: &str = "https://api.openai.com/v1";

/// Headers that carry keys at one server or another.
const SECRET_HEADERS: [&str; 5] =
    ["authorization", "proxy-authorization", "api-key", "x-api-key", "cookie"];

pub(super) enum Endpoint {
    Own {
        base_url: String,
        key: SecretString,
    },
    /// What a client of async-openai was built with. It may change between two calls.
    Handed(Arc<dyn Config>),
}

impl Endpoint {
    pub(super) fn openai(key: &SecretString) -> Self {
        let key = key.expose_secret().trim().into();
        Self::Own { base_url: OPENAI_BASE_URL.to_owned(), key }
    }

    /// The same key for the server at `url`.
    pub(super) fn at(&self, url: &str) -> Result<Self> {
        let base_url = http::base_url(url)?;
        let Self::Own { key, .. } = self else {
            let why = "a client that was handed in has a base URL of its own";
            return Err(Error::invalid(format!("{base_url:?} cannot be the base URL: {why}")));
        };
        Ok(Self::Own { base_url, key: key.clone() })
    }

    pub(super) fn base_url(&self) -> &str {
        match self {
            Self::Own { base_url, .. } => base_url,
            Self::Handed(config) => config.api_base(),
        }
    }

    /// Whether requests go to OpenAI itself.
    pub(super) fn is_openai(&self) -> bool {
        self.base_url().trim_end_matches('/') == OPENAI_BASE_URL
    }

    pub(super) fn url(&self, path: &str) -> String {
        match self {
            Self::Own { base_url, .. } => format!("{base_url}{path}"),
            Self::Handed(config) => config.url(path),
        }
    }

    pub(super) fn query(&self) -> Vec<(&str, &str)> {
        match self {
            Self::Own { .. } => Vec::new(),
            Self::Handed(config) => config.query(),
        }
    }

    /// The headers of a request, and what must never be shown of them.
    pub(super) fn headers(&self) -> Result<(HeaderMap, Redactor), LlmError> {
        let unfit = |what: &str| {
            let message = format!("{what} holds characters that no HTTP header can carry");
            LlmError::new(ErrorCategory::Authentication, message)
        };
        let key = match self {
            Self::Own { key, .. } => key,
            Self::Handed(config) => config.api_key(),
        };
        let bearer = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret()))
            .map_err(|_| unfit("the API key"))?;
        let mut headers = match self {
            Self::Own { .. } if key.expose_secret().is_empty() => HeaderMap::new(),
            Self::Own { .. } => [(AUTHORIZATION, bearer)].into_iter().collect(),
            // async-openai panics on an organization or a project that no header can carry.
            Self::Handed(config) => catch_unwind(AssertUnwindSafe(|| config.headers()))
                .map_err(|_| unfit("the configuration of the client"))?,
        };
        let mut secrets = vec![key.clone()];
        for (name, value) in &mut headers {
            if is_secret(name) || value.is_sensitive() {
                value.set_sensitive(true);
                let text = value.to_str().unwrap_or_default();
                // Behind the scheme, such as `Bearer`.
                secrets.push(text.rsplit(' ').next().unwrap_or_default().into());
            }
        }
        Ok((headers, Redactor::new(secrets)))
    }
}

fn is_secret(name: &HeaderName) -> bool {
    SECRET_HEADERS.contains(&name.as_str())
}
