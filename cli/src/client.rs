//! The client of a provider: from its name, its key in the environment, and its server.
//! Invariant: a key comes from the environment alone, so that no shell history keeps it.

use std::env::{self, VarError};
use std::sync::Arc;

use prompt_engine::openai::OpenAi;
use prompt_engine::{LlmClient, Provider};

use crate::failure::Failure;

/// The client of the provider `name`, at `base_url` where one is given.
///
/// A name that is not known is that of a server which speaks like OpenAI, and needs a URL. No such
/// server is given the key of another: its own is in the variable of its name, if it wants one.
pub(crate) fn client(name: &str, base_url: Option<&str>) -> Result<Arc<dyn LlmClient>, Failure> {
    let refused = |error: prompt_engine::Error| Failure::option("--base-url", &error);
    let Ok(provider) = name.parse::<Provider>() else {
        let Some(url) = base_url else {
            return Err(Failure::usage(format!(
                "{name:?} is no provider: choose one of {}; a server that speaks like OpenAI may have \
                 any name with --base-url",
                Provider::ALL.map(|one| one.to_string()).join(", ")
            )));
        };
        let client = OpenAi::new(key(&key_variable(name))?.into()).with_provider_name(name);
        return Ok(Arc::new(client.with_base_url(url).map_err(refused)?));
    };
    let key = match provider.key_variable() {
        Some(variable) => {
            let key = key(variable)?;
            if key.trim().is_empty() && base_url.is_none() {
                return Err(Failure::failed(format!(
                    "{variable} is not set: set it, or name a server of your own with --base-url"
                )));
            }
            key
        }
        None => String::new(),
    };
    provider.client(key.into(), base_url).map_err(refused)
}

fn key(variable: &str) -> Result<String, Failure> {
    match env::var(variable) {
        Ok(key) => Ok(key),
        Err(VarError::NotPresent) => Ok(String::new()),
        Err(VarError::NotUnicode(_)) => Err(Failure::failed(format!("{variable} is no text"))),
    }
}

/// `HOUSE_LLM_API_KEY` for `house-llm`.
fn key_variable(name: &str) -> String {
    let upper = |letter: char| match letter {
        letter if letter.is_ascii_alphanumeric() => letter.to_ascii_uppercase(),
        _ => '_',
    };
    format!("{}_API_KEY", name.chars().map(upper).collect::<String>())
}
