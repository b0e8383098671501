//! The providers by name: where they are, which variable holds their key, which client speaks to them.
//! Invariant: a name is parsed as it is printed, and records and prices know it by its record name.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use prompt_engine_core::{Error, LlmClient, Result};
use secrecy::SecretString;

/// A provider of models.
///
/// # Example: a client by the name of its provider
/// ```
/// use prompt_engine_llm::Provider;
/// let provider: Provider = "groq".parse()?;
/// assert_eq!(provider.key_variable(), Some("GROQ_API_KEY"));
/// # #[cfg(feature = "openai")]
/// assert_eq!(provider.client("gsk-…".into(), None)?.provider(), "groq");
/// let unknown = "grok".parse::<Provider>().unwrap_err().to_string();
/// assert!(unknown.starts_with(r#""grok" is no provider: choose one of openai, openai-responses, anthropic, "#));
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Provider {
    /// OpenAI, by its Chat Completions.
    OpenAi,
    /// OpenAI, by its Responses.
    OpenAiResponses,
    /// Anthropic.
    Anthropic,
    /// Google's Gemini API.
    Gemini,
    /// Ollama on this machine.
    Ollama,
    /// Groq.
    Groq,
    /// Mistral.
    Mistral,
    /// DeepSeek.
    DeepSeek,
    /// xAI.
    Xai,
    /// OpenRouter.
    OpenRouter,
    /// Cohere, by its Chat Completions.
    Cohere,
    /// Perplexity.
    Perplexity,
    /// Together AI.
    Together,
    /// Fireworks.
    Fireworks,
    /// Cerebras.
    Cerebras,
}

/// What is known of a provider.
struct Facts {
    name: &'static str,
    /// What records and prices call it.
    record_name: &'static str,
    key_variable: Option<&'static str>,
    base_url: &'static str,
}

impl Provider {
    /// All of them, in the order in which they are listed.
    pub const ALL: [Self; 15] = [
        Self::OpenAi,
        Self::OpenAiResponses,
        Self::Anthropic,
        Self::Gemini,
        Self::Ollama,
        Self::Groq,
        Self::Mistral,
        Self::DeepSeek,
        Self::Xai,
        Self::OpenRouter,
        Self::Cohere,
        Self::Perplexity,
        Self::Together,
        Self::Fireworks,
        Self::Cerebras,
    ];

    const fn facts(self) -> Facts {
        let (name, record_name, key_variable, base_url) = match self {
            Self::OpenAi => {
                ("openai", "openai", Some("OPENAI_API_KEY"), "https://api.openai.com/v1")
            }
            Self::OpenAiResponses => {
                ("openai-responses", "openai", Some("OPENAI_API_KEY"), "https://api.openai.com/v1")
            }
            Self::Anthropic => (
                "anthropic",
                "anthropic",
                Some("ANTHROPIC_API_KEY"),
                "https://api.anthropic.com/v1",
            ),
            Self::Gemini => (
                "gemini",
                "google",
                Some("GEMINI_API_KEY"),
                "https://generativelanguage.googleapis.com/v1beta",
            ),
            Self::Ollama => ("ollama", "ollama", None, "http://localhost:11434/v1"),
            Self::Groq => ("groq", "groq", Some("GROQ_API_KEY"), "https://api.groq.com/openai/v1"),
            Self::Mistral => {
                ("mistral", "mistral", Some("MISTRAL_API_KEY"), "https://api.mistral.ai/v1")
            }
            Self::DeepSeek => {
                ("deepseek", "deepseek", Some("DEEPSEEK_API_KEY"), "https://api.deepseek.com/v1")
            }
            Self::Xai => ("xai", "x-ai", Some("XAI_API_KEY"), "https://api.x.ai/v1"),
            Self::OpenRouter => (
                "openrouter",
                "openrouter",
                Some("OPENROUTER_API_KEY"),
                "https://openrouter.ai/api/v1",
            ),
            Self::Cohere => (
                "cohere",
                "cohere",
                Some("COHERE_API_KEY"),
                "https://api.cohere.ai/compatibility/v1",
            ),
            Self::Perplexity => (
                "perplexity",
                "perplexity",
                Some("PERPLEXITY_API_KEY"),
                "https://api.perplexity.ai",
            ),
            Self::Together => {
                ("together", "together", Some("TOGETHER_API_KEY"), "https://api.together.xyz/v1")
            }
            Self::Fireworks => (
                "fireworks",
                "fireworks",
                Some("FIREWORKS_API_KEY"),
                "https://api.fireworks.ai/inference/v1",
            ),
            Self::Cerebras => {
                ("cerebras", "cerebras", Some("CEREBRAS_API_KEY"), "https://api.cerebras.ai/v1")
            }
        };
        Facts { name, record_name, key_variable, base_url }
    }

    /// Its name, as it is parsed and printed.
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// What records and prices call it: `openai` for both of OpenAI's, `google` for Gemini, `x-ai` for
    /// xAI, else its name.
    pub const fn record_name(self) -> &'static str {
        self.facts().record_name
    }

    /// The variable of the environment that holds its key by custom; `None` where it wants none.
    /// Nothing here reads it.
    pub const fn key_variable(self) -> Option<&'static str> {
        self.facts().key_variable
    }

    /// The base URL of its API.
    pub const fn base_url(self) -> &'static str {
        self.facts().base_url
    }

    /// A client of it, by its own API or at `base_url`. Nothing is sent before the first call.
    ///
    /// # Errors
    /// `Invalid` where `base_url` is none, or where this build lacks the feature for it: `anthropic`,
    /// `gemini`, or `openai` for the others.
    pub fn client(self, key: SecretString, base_url: Option<&str>) -> Result<Arc<dyn LlmClient>> {
        let base_url = base_url.unwrap_or(self.base_url());
        match self {
            #[cfg(feature = "anthropic")]
            Self::Anthropic => Ok(Arc::new(crate::Anthropic::new(key).with_base_url(base_url)?)),
            #[cfg(not(feature = "anthropic"))]
            Self::Anthropic => self.missing("anthropic", key, base_url),
            #[cfg(feature = "gemini")]
            Self::Gemini => Ok(Arc::new(crate::Gemini::new(key).with_base_url(base_url)?)),
            #[cfg(not(feature = "gemini"))]
            Self::Gemini => self.missing("gemini", key, base_url),
            #[cfg(feature = "openai")]
            Self::OpenAiResponses => {
                Ok(Arc::new(crate::OpenAiResponses::new(key).with_base_url(base_url)?))
            }
            #[cfg(feature = "openai")]
            _ => {
                let client = crate::OpenAi::new(key).with_base_url(base_url)?;
                Ok(Arc::new(client.with_provider_name(self.record_name())))
            }
            #[cfg(not(feature = "openai"))]
            _ => self.missing("openai", key, base_url),
        }
    }

    #[cfg(not(all(feature = "anthropic", feature = "gemini", feature = "openai")))]
    fn missing(self, feature: &str, _: SecretString, _: &str) -> Result<Arc<dyn LlmClient>> {
        Err(Error::invalid(format!(
            "this build has no client of {self}: it lacks the feature `{feature}`"
        )))
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Provider {
    type Err = Error;

    /// Reads a name, or what records call the provider.
    fn from_str(text: &str) -> Result<Self> {
        let named = |provider: &Self| text == provider.name() || text == provider.record_name();
        Self::ALL.into_iter().find(named).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::invalid(format!("{text:?} is no provider: choose one of {names}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use prompt_engine_core::seed_models;

    use super::*;

    #[test]
    fn a_name_is_parsed_as_it_is_printed_and_so_is_what_records_call_it() {
        for provider in Provider::ALL {
            assert_eq!(provider.to_string().parse::<Provider>().ok(), Some(provider));
            let recorded = provider.record_name().parse::<Provider>().ok();
            assert_eq!(recorded.map(Provider::record_name), Some(provider.record_name()));
            let variable = provider.key_variable();
            assert!(variable.is_none_or(|name| name.ends_with("_API_KEY")), "{provider}");
        }
    }

    #[test]
    fn the_prices_of_the_library_know_every_provider_by_its_record_name() {
        for provider in Provider::ALL.into_iter().filter(|provider| *provider != Provider::Ollama) {
            let name = provider.record_name();
            assert!(seed_models().iter().any(|model| model.provider.as_str() == name), "{name}");
        }
    }

    #[cfg(all(feature = "anthropic", feature = "gemini", feature = "openai"))]
    #[test]
    fn every_provider_has_a_client_that_records_it_by_its_record_name() {
        for provider in Provider::ALL {
            let client = provider.client("key".into(), None).expect("a client");
            assert_eq!(client.provider(), provider.record_name());
            let moved =
                provider.client("key".into(), Some("http://127.0.0.1:1/v1")).expect("a client");
            assert!(format!("{moved:?}").contains("127.0.0.1:1"), "{moved:?}");
            assert!(provider.client("key".into(), Some("nowhere")).is_err());
        }
    }

    #[cfg(not(feature = "gemini"))]
    #[test]
    fn a_build_without_a_client_says_which_feature_it_lacks() {
        let error = Provider::Gemini.client("key".into(), None).expect_err("no client");
        assert!(error.to_string().ends_with("it lacks the feature `gemini`"), "{error}");
    }
}
