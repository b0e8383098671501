//! Where a client that the caller built sends its requests.
//!
//! async-openai says where a request of its client goes and what signs it, and nothing more: sending
//! through it would retry four statuses in silence, drop the headers of an answer, refuse an error
//! whose `code` is a number, and not tell a stream that ended from one that broke.

use std::panic::{AssertUnwindSafe, catch_unwind};

use async_openai::config::Config;
use prompt_engine_core::{Error, LlmError, Result};
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use crate::connection::{Endpoint, is_secret, unfit};
use crate::http;

/// What a client of async-openai was built with. It may change between two calls.
pub(super) struct HandedIn<C>(pub(super) C);

impl<C: Config> Endpoint for HandedIn<C> {
    fn base_url(&self) -> &str {
        self.0.api_base()
    }

    fn at(&self, url: &str) -> Result<Box<dyn Endpoint>> {
        let base_url = http::base_url(url)?;
        let why = "a client that was handed in has a base URL of its own";
        Err(Error::invalid(format!("{base_url:?} cannot be the base URL: {why}")))
    }

    fn url(&self, path: &str) -> String {
        let url = self.0.url(path);
        let query = self.0.query();
        match Url::parse(&url) {
            Ok(mut parsed) if !query.is_empty() => {
                parsed.query_pairs_mut().extend_pairs(query);
                parsed.into()
            }
            // Sending says what is wrong with it.
            _ => url,
        }
    }

    fn headers(&self) -> Result<HeaderMap, LlmError> {
        HeaderValue::from_str(self.0.api_key().expose_secret())
            .map_err(|_| unfit("the API key"))?;
        // async-openai panics on an organization or a project that no header can carry.
        catch_unwind(AssertUnwindSafe(|| self.0.headers()))
            .map_err(|_| unfit("the configuration of the client"))
    }

    /// The key, and the secrets in the query, as they are and as a URL holds them.
    fn secrets(&self) -> Vec<SecretString> {
        let mut secrets = vec![self.0.api_key().clone()];
        let Ok(url) = Url::parse(&self.url("")) else { return secrets };
        let read = url.query_pairs().filter(|(name, _)| is_secret(name));
        secrets.extend(read.map(|(_, value)| value.into_owned().into()));
        let raw = url.query().unwrap_or_default().split('&');
        let raw = raw.filter_map(|field| field.split_once('=')).filter(|(name, _)| is_secret(name));
        secrets.extend(raw.map(|(_, value)| value.into()));
        secrets
    }
}
