//! The name by which code asks for a prompt.
//! Invariant: lower-case ASCII letters, digits and hyphens, 1 to 256 bytes.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The unique name of a prompt: `[a-z0-9-]+`, at most [`Slug::MAX_BYTES`] bytes. Cloning is cheap.
///
/// # Example: what is refused
/// ```
/// use prompt_engine_core::Slug;
/// assert_eq!(Slug::new("welcome-mail")?.as_str(), "welcome-mail");
/// assert!(Slug::new("Welcome Mail").is_err());
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slug(Arc<str>);

impl Slug {
    /// The most bytes a slug may have.
    pub const MAX_BYTES: usize = 256;

    /// The slug `text`.
    ///
    /// # Errors
    /// `Invalid`, naming the text, where it is empty, too long, or holds another character.
    pub fn new(text: impl Into<Arc<str>>) -> Result<Self> {
        let text = text.into();
        if text.is_empty() {
            return Err(Error::invalid("the slug \"\" is empty"));
        }
        if text.len() > Self::MAX_BYTES {
            let start: String = text.chars().take(24).collect();
            return Err(Error::invalid(format!(
                "the slug {start:?}… is {} bytes long, more than {}",
                text.len(),
                Self::MAX_BYTES
            )));
        }
        if let Some(wrong) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
            return Err(Error::invalid(format!(
                "the slug {text:?} holds {wrong:?}; only a to z, 0 to 9 and - may be in a slug"
            )));
        }
        Ok(Self(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Slug {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Slug {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl Serialize for Slug {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Slug {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slug_reads_back_what_it_prints() {
        for text in ["a", "welcome-mail", "-", "0", &"x".repeat(256)] {
            let slug: Slug = text.parse().unwrap();
            assert_eq!(slug.to_string(), text);
            let json = serde_json::to_string(&slug).unwrap();
            assert_eq!(serde_json::from_str::<Slug>(&json).unwrap(), slug);
        }
    }

    #[test]
    fn what_is_no_slug_is_refused_by_name() {
        for text in ["", "A", "a b", "a_b", "ä", "a\0", "a/b", "a\n", &"x".repeat(257)] {
            let error = Slug::new(text).unwrap_err();
            let start: String = text.chars().take(24).collect();
            assert!(error.to_string().contains(&format!("{start:?}")), "{error}");
            assert!(serde_json::from_value::<Slug>(text.into()).is_err());
        }
    }
}
