//! The URL of a store that is one file: `scheme://path?parameter=value&…`.
//! Invariant: nothing is guessed; what is not understood is refused, by name and with the URL.

use std::path::PathBuf;

use crate::error::{Error, Result};

/// A parsed URL of a file. `scheme://prompts.db` is relative, `scheme:///var/prompts.db` absolute;
/// in the path `%3F` stands for `?` and `%25` for `%`.
///
/// # Example: a path and a parameter
/// ```
/// use prompt_engine_core::FileUrl;
/// let url = FileUrl::parse("sqlite://my%20prompts.db?readers=2", "sqlite")?;
/// assert_eq!(url.path.to_str(), Some("my prompts.db"));
/// assert_eq!(url.parameters().collect::<Vec<_>>(), [("readers", "2")]);
/// assert!(FileUrl::parse("sqlite://100%.db", "sqlite").is_err());
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileUrl<'a> {
    /// The file.
    pub path: PathBuf,
    url: &'a str,
    parameters: &'a str,
}

impl<'a> FileUrl<'a> {
    /// Parses `url`, which must be one of `scheme`.
    ///
    /// # Errors
    /// `Invalid` if it is of another scheme, names no file, or its path cannot be decoded.
    pub fn parse(url: &'a str, scheme: &str) -> Result<Self> {
        let refuse = |what: String| Err(Error::invalid(format!("{url:?}: {what}")));
        let rest = url.strip_prefix(scheme).and_then(|rest| rest.strip_prefix(':'));
        let Some(rest) = rest else {
            return refuse(format!("this URL should start with {scheme}://"));
        };
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (path, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        if path.is_empty() {
            return refuse("it names no file".to_owned());
        }
        match percent_decoded(path) {
            Some(path) => Ok(Self { path: path.into(), url, parameters }),
            None => refuse("a % in the path must be written %25".to_owned()),
        }
    }

    /// The parameters, as name and value.
    pub fn parameters(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let given = self.parameters.split('&').filter(|parameter| !parameter.is_empty());
        given.map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
    }

    /// The error for a parameter whose value is not what it `takes`.
    pub fn wrong_value(&self, name: &str, value: &str, takes: &str) -> Error {
        Error::invalid(format!("{:?}: {name} takes {takes}, not {value:?}", self.url))
    }

    /// The error for a parameter that is not one of `known`, a list in words.
    pub fn unknown(&self, name: &str, known: &str) -> Error {
        Error::invalid(format!("{:?}: {name:?} is not a parameter; there are {known}", self.url))
    }
}

/// `text` with `%XX` replaced by the byte; `None` if an escape is not one, or the bytes are no text.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (hex, after) = rest.split_at_checked(2)?;
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|n| u8::try_from(n).ok());
        bytes.push(16 * digit(hex[0])? + digit(hex[1])?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}
