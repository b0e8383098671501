//! Short texts that records are grouped and filtered by: environment, provider, model, session, user.
//! Invariant: no NUL and at most 256 bytes, so that every store can index them.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A dimension text: UTF-8 without NUL, at most [`Label::MAX_BYTES`] bytes. Cloning is cheap.
///
/// # Example: what is refused
/// ```
/// use prompt_engine_core::Label;
/// assert_eq!(Label::new("gpt-4o")?.as_str(), "gpt-4o");
/// assert!(Label::new("a\0b").is_err());
/// assert!(Label::new("x".repeat(257)).is_err());
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label(Arc<str>);

impl Label {
    /// The most bytes a label may have.
    pub const MAX_BYTES: usize = 256;

    /// A label of `text`.
    ///
    /// # Errors
    /// `Invalid` if the text holds NUL or is longer than [`Label::MAX_BYTES`].
    pub fn new(text: impl Into<Arc<str>>) -> Result<Self> {
        let text = text.into();
        let refuse = |what: String| {
            let start: String = text.chars().take(24).collect();
            let more = if start.len() < text.len() { "…" } else { "" };
            Err(Error::invalid(format!("the text {start:?}{more} {what}")))
        };
        if text.contains('\0') {
            return refuse("holds a NUL character".to_owned());
        }
        if text.len() > Self::MAX_BYTES {
            return refuse(format!("is {} bytes long, more than {}", text.len(), Self::MAX_BYTES));
        }
        Ok(Self(text))
    }

    /// A label from a text that must not be refused, such as a model name that a server answered:
    /// NUL is dropped and what is beyond [`Label::MAX_BYTES`] is cut.
    pub fn lossy(text: &str) -> Self {
        if text.len() <= Self::MAX_BYTES && !text.contains('\0') {
            return Self(text.into());
        }
        let mut clean: String = text.chars().filter(|c| *c != '\0').collect();
        let mut end = clean.len().min(Self::MAX_BYTES);
        while !clean.is_char_boundary(end) {
            end -= 1;
        }
        clean.truncate(end);
        Self(clean.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Label {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// So that maps of labels can be asked for a text.
impl Borrow<str> for Label {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Label {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl Serialize for Label {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}
