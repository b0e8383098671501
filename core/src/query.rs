//! What lists can be asked for, and how they are paged.
//! Invariant: a cursor names the last thing that was seen, so pages stay stable while others write.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::id::{PromptId, UsageId};
use crate::label::Label;
use crate::record::{Attribution, LlmExecution, Usage};
use crate::status::Status;
use crate::time::{TimeRange, Timestamp};

/// Which records count. Every field that is set must match.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Filter {
    /// Of this prompt.
    pub prompt: Option<PromptId>,
    /// Of this version number.
    pub version: Option<u32>,
    /// Of this environment.
    pub environment: Option<Label>,
    /// Of this provider.
    pub provider: Option<Label>,
    /// That asked this model.
    pub model: Option<Label>,
    /// Of this session.
    pub session: Option<Label>,
    /// Of this user.
    pub user: Option<Label>,
    /// In one of these statuses; any, if empty.
    pub statuses: Vec<Status>,
}

impl Filter {
    /// Whether a usage cannot be told to match, because the filter asks for what only an execution has.
    pub fn needs_execution(&self) -> bool {
        self.provider.is_some() || self.model.is_some() || !self.statuses.is_empty()
    }

    fn matches_attribution(&self, of: &Attribution) -> bool {
        self.prompt.is_none_or(|prompt| prompt == of.prompt)
            && self.version.is_none_or(|version| version == of.version)
            && self.environment.as_ref().is_none_or(|label| *label == of.environment)
            && (self.session.is_none() || self.session == of.session)
            && (self.user.is_none() || self.user == of.user)
    }

    /// Whether `usage` counts.
    pub fn matches_usage(&self, usage: &Usage) -> bool {
        !self.needs_execution() && self.matches_attribution(&usage.attribution)
    }

    /// Whether `execution` counts.
    pub fn matches_execution(&self, execution: &LlmExecution) -> bool {
        self.matches_attribution(&execution.attribution)
            && self.provider.as_ref().is_none_or(|label| *label == execution.provider)
            && self.model.as_ref().is_none_or(|label| *label == execution.model)
            && (self.statuses.is_empty() || self.statuses.contains(&execution.status))
    }
}

/// In which order records are listed: by time, then id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// The newest first.
    #[default]
    NewestFirst,
    /// The oldest first: whoever pages through a growing store in this order misses none.
    OldestFirst,
}

impl Order {
    /// Whether a thing that stands at `place` comes behind one at `after`.
    pub fn is_behind<T: Ord>(self, place: &T, after: &T) -> bool {
        match self {
            Self::NewestFirst => place < after,
            Self::OldestFirst => place > after,
        }
    }
}

/// A list of usages or executions.
///
/// # Example: everything that is kept, from the start
/// ```
/// use prompt_engine_core::{Order, RecordQuery};
/// let all = RecordQuery { order: Order::OldestFirst, payloads: true, ..RecordQuery::default() };
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RecordQuery {
    /// When they started.
    pub range: TimeRange,
    /// Which of them.
    pub filter: Filter,
    /// Only those of this usage.
    pub usage: Option<UsageId>,
    /// In which order.
    pub order: Order,
    /// Whether their payloads are read too.
    pub payloads: bool,
    /// Which page.
    pub page: PageQuery,
}

/// Which page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct PageQuery {
    /// At most so many things.
    pub limit: u32,
    /// After the end of this page.
    pub after: Option<Cursor>,
}

impl Default for PageQuery {
    fn default() -> Self {
        Self { limit: 50, after: None }
    }
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Where the next one starts; `None` on the last.
    pub next: Option<Cursor>,
}

impl<T> Page<T> {
    /// Makes a page of `limit` things from a list that was read one longer, if there were so many.
    pub fn from_overread(mut items: Vec<T>, limit: u32, cursor: impl Fn(&T) -> Cursor) -> Self {
        let limit = limit as usize;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = if more { items.last().map(cursor) } else { None };
        Self { items, next }
    }
}

/// The place in a list behind a thing; its text form is opaque and safe in a URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Cursor {
    /// Behind a usage.
    Usage(Timestamp, [u8; 16]),
    /// Behind an execution.
    Execution(Timestamp, [u8; 16]),
    /// Behind the prompt of a slug.
    Prompt(String),
    /// Behind a version.
    Version(u32),
}

impl Cursor {
    /// The error for a cursor that a list cannot start at.
    pub fn foreign(&self) -> Error {
        Error::invalid(format!("the cursor {self} is of another list"))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (letter, at, id) = match self {
            Self::Usage(at, id) => ('u', at, id),
            Self::Execution(at, id) => ('e', at, id),
            Self::Prompt(slug) => return write!(f, "p.{slug}"),
            Self::Version(number) => return write!(f, "v.{number}"),
        };
        write!(f, "{letter}.{}.", at.as_micros())?;
        id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (letter, rest) = text.split_once('.')?;
            match letter {
                "p" => return Some(Self::Prompt(rest.to_owned())),
                "v" => return rest.parse().ok().map(Self::Version),
                _ => {}
            }
            let (micros, hex) = rest.split_once('.')?;
            let at = Timestamp::from_micros(micros.parse().ok()?).ok()?;
            let mut id = [0; 16];
            if hex.len() != 32 || !hex.is_ascii() {
                return None;
            }
            for (index, byte) in id.iter_mut().enumerate() {
                *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).ok()?;
            }
            match letter {
                "u" => Some(Self::Usage(at, id)),
                "e" => Some(Self::Execution(at, id)),
                _ => None,
            }
        };
        parse().ok_or_else(|| Error::invalid(format!("{text:?} is not a cursor of a list")))
    }
}

impl Serialize for Cursor {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}
