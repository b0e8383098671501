//! Where requests go and what they carry.
//! Invariant: a key never leaves but as a header that is marked as sensitive.

use prompt_engine_core::{ErrorCategory, LlmError, Result};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use crate::http::{self, Redactor};

/// Words that end a word of the name of a header or of a field of a query that carries a secret, at one
/// server or another: `authorization`, `api-key`, `x-goog-api-key`, `apiKey`, `access_token`, `sig`.
const SECRET_WORDS: [&str; 9] =
    ["auth", "authorization", "cookie", "key", "password", "secret", "sig", "signature", "token"];

/// A server and what its requests are signed with.
pub(crate) trait Endpoint: Send + Sync {
    fn base_url(&self) -> &str;

    /// The same key for the server at `url`.
    fn at(&self, url: &str) -> Result<Box<dyn Endpoint>>;

    /// The whole URL of `path`, which begins with a slash.
    fn url(&self, path: &str) -> String;

    /// The headers of a request.
    fn headers(&self) -> Result<HeaderMap, LlmError>;

    /// What must never be shown, beside the values of headers whose names say so.
    fn secrets(&self) -> Vec<SecretString>;
}

/// How an API wants its key, and what else its headers say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signature {
    pub(crate) header: &'static str,
    /// What stands before the key, with its space.
    pub(crate) scheme: &'static str,
    pub(crate) further: &'static [(&'static str, &'static str)],
}

/// A base URL and a key of the caller's; an empty key is not sent.
pub(crate) struct Own {
    base_url: String,
    key: SecretString,
    signature: Signature,
}

impl Own {
    pub(crate) fn new(base_url: &str, key: &SecretString, signature: Signature) -> Box<Self> {
        let key = key.expose_secret().trim().into();
        Box::new(Self { base_url: base_url.to_owned(), key, signature })
    }
}

impl Endpoint for Own {
    fn base_url(&self) -> &str {
        &self.base_url
    }

    fn at(&self, url: &str) -> Result<Box<dyn Endpoint>> {
        Ok(Self::new(&http::base_url(url)?, &self.key, self.signature))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base_url)
    }

    fn headers(&self) -> Result<HeaderMap, LlmError> {
        let Signature { header, scheme, further } = self.signature;
        let fixed = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut headers: HeaderMap = further.iter().map(fixed).collect();
        let key = self.key.expose_secret();
        if !key.is_empty() {
            let value = HeaderValue::from_str(&format!("{scheme}{key}"));
            headers.insert(header, value.map_err(|_| unfit("the API key"))?);
        }
        Ok(headers)
    }

    fn secrets(&self) -> Vec<SecretString> {
        vec![self.key.clone()]
    }
}

/// The headers of a request to `endpoint`, and what must never be shown of them.
pub(super) fn signed(endpoint: &dyn Endpoint) -> Result<(HeaderMap, Redactor), LlmError> {
    let mut headers = endpoint.headers()?;
    let mut secrets = endpoint.secrets();
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

/// A request that cannot be signed, for what `what` holds.
pub(crate) fn unfit(what: &str) -> LlmError {
    let message = format!("{what} holds characters that no HTTP header can carry");
    LlmError::new(ErrorCategory::Authentication, message)
}

/// Whether a header or a field of a query of that name carries a secret.
pub(crate) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let mut words = name.split(|c: char| !c.is_ascii_alphanumeric());
    words.any(|word| SECRET_WORDS.iter().any(|secret| word.ends_with(secret)))
}
