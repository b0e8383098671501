//! Where requests go and what they carry: a key and a base URL, or a client that the caller built.
//! Invariant: a key never leaves but as a header that is marked as sensitive.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use async_openai::config::Config;
use prompt_engine_core::{Error, ErrorCategory, LlmError, Result};
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use crate::http::{self, Redactor};

const OPENAI_BASE_URL: &str = "https://api.openai.com/v1";

/// Its own host; those of its regions, such as `eu.api.openai.com`, end in it.
const OPENAI_HOST: &str = "api.openai.com";

/// Words that end a word of the name of a header or of a field of a query that carries a secret, at one
/// server or another: `authorization`, `api-key`, `x-goog-api-key`, `apiKey`, `access_token`, `sig`.
const SECRET_WORDS: [&str; 9] =
    ["auth", "authorization", "cookie", "key", "password", "secret", "sig", "signature", "token"];

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

    /// Whether requests go to OpenAI itself, in any of its regions.
    pub(super) fn is_openai(&self) -> bool {
        let url = Url::parse(self.base_url()).ok();
        let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
        host == OPENAI_HOST || host.strip_suffix(OPENAI_HOST).is_some_and(|at| at.ends_with('.'))
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
        secrets.extend(self.secrets_of_url());
        for (name, value) in &mut headers {
            if is_secret(name.as_str()) || value.is_sensitive() {
                value.set_sensitive(true);
                let text = value.to_str().unwrap_or_default();
                // Behind the scheme, such as `Bearer`.
                secrets.push(text.rsplit(' ').next().unwrap_or_default().into());
            }
        }
        Ok((headers, Redactor::new(secrets)))
    }

    /// The secrets in the query of a client that was handed in, as they are and as a URL holds them.
    fn secrets_of_url(&self) -> Vec<SecretString> {
        let Self::Handed(config) = self else { return Vec::new() };
        let Ok(mut url) = Url::parse(&config.url("")) else { return Vec::new() };
        url.query_pairs_mut().extend_pairs(config.query());
        let read = url.query_pairs().filter(|(name, _)| is_secret(name));
        let read = read.map(|(_, value)| value.into_owned().into());
        let raw = url.query().unwrap_or_default().split('&');
        let raw = raw.filter_map(|field| field.split_once('=')).filter(|(name, _)| is_secret(name));
        read.chain(raw.map(|(_, value)| value.into())).collect()
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let mut words = name.split(|c: char| !c.is_ascii_alphanumeric());
    words.any(|word| SECRET_WORDS.iter().any(|secret| word.ends_with(secret)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openai_is_known_by_its_host_in_every_region() {
        let is_openai = |url: &str| {
            let endpoint = Endpoint::openai(&"key".into()).at(url).expect("a base URL");
            endpoint.is_openai()
        };
        for url in ["https://api.openai.com/v1/", "https://EU.api.openai.com/v1"] {
            assert!(is_openai(url), "{url}");
        }
        for url in
            ["https://api.openai.com.example.org/v1", "https://openai.azure.com/api.openai.com"]
        {
            assert!(!is_openai(url), "{url}");
        }
    }
}
