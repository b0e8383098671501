//! Prompts and their versions. Plain data: a store writes what it is given, ids and times included.
//! Invariant: a [`PromptVersion`] never changes; what would change it makes the next one.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::id::PromptId;
use crate::label::Label;
use crate::parameter::Parameter;
use crate::slug::Slug;
use crate::status::named;
use crate::time::Timestamp;

named! {
    /// Whether a prompt is in use.
    PromptStatus, "prompt status" {
        /// Being written.
        Draft = 0 "draft",
        /// In use.
        Active = 1 "active",
        /// Put away, with all that is known of its use.
        Archived = 2 "archived",
    }
}

/// A prompt: what all its versions share.
///
/// # Example: a prompt is checked before it is stored
/// ```
/// use prompt_engine_core::{Prompt, PromptId, PromptStatus, Timestamp};
/// let now = Timestamp::now();
/// let mut prompt = Prompt {
///     id: PromptId::new(),
///     slug: "welcome-mail".parse()?,
///     name: "Welcome mail".into(),
///     description: None,
///     status: PromptStatus::Active,
///     parameters: vec![],
///     active_version: Some(1),
///     latest_version: 1,
///     revision: 1,
///     created_at: now,
///     updated_at: now,
/// };
/// prompt.validate()?;
/// prompt.name.clear();
/// assert!(prompt.validate().is_err());
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prompt {
    /// Identifies the prompt, whatever it is called.
    pub id: PromptId,
    /// The name by which code asks for it; unique.
    pub slug: Slug,
    /// The name that people read.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Whether it is in use.
    pub status: PromptStatus,
    /// What its text takes, in order of [`Parameter::position`].
    pub parameters: Vec<Parameter>,
    /// The version that is rendered; `None` while there are only drafts.
    pub active_version: Option<u32>,
    /// The highest version there is.
    pub latest_version: u32,
    /// Counts writes; a store refuses a stale one.
    pub revision: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last written.
    pub updated_at: Timestamp,
}

impl Prompt {
    /// Checks all rules that one prompt can be checked for by itself.
    ///
    /// # Errors
    /// `Invalid`, naming the prompt, for an empty name, two parameters of one name, a parameter that
    /// breaks a rule, and an active version beyond the latest.
    pub fn validate(&self) -> Result<()> {
        let slug = &self.slug;
        if self.name.trim().is_empty() {
            return Err(Error::invalid(format!("the name of prompt {slug} is empty")));
        }
        let mut names = HashSet::new();
        for parameter in &self.parameters {
            parameter.validate()?;
            if !names.insert(parameter.name.as_str()) {
                let name = &parameter.name;
                return Err(Error::invalid(format!("prompt {slug} has two parameters {name}")));
            }
        }
        match self.active_version {
            Some(active) if active == 0 || active > self.latest_version => {
                let latest = self.latest_version;
                Err(Error::invalid(format!(
                    "the active version {active} of prompt {slug} is not within 1 to {latest}"
                )))
            }
            _ => Ok(()),
        }
    }
}

/// One immutable version of a prompt.
///
/// # Example: settings are checked before they are stored
/// ```
/// use prompt_engine_core::{PromptId, PromptVersion, Timestamp};
/// let mut version = PromptVersion {
///     prompt_id: PromptId::new(),
///     number: 1,
///     content: "Hello {{name}}".into(),
///     system_message: None,
///     model: Some("gpt-4o".parse()?),
///     temperature: Some(0.2),
///     max_tokens: None,
///     metadata: serde_json::json!({}),
///     change_description: None,
///     author: None,
///     created_at: Timestamp::now(),
/// };
/// version.validate()?;
/// version.temperature = Some(2.5);
/// assert!(version.validate().is_err());
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromptVersion {
    /// Whose version it is.
    pub prompt_id: PromptId,
    /// 1, 2, 3 … within the prompt.
    pub number: u32,
    /// The template of the user message; any text, NUL included.
    pub content: String,
    /// The template of the system message; any text, NUL included.
    pub system_message: Option<String>,
    /// The model to ask.
    pub model: Option<Label>,
    /// How freely the model picks, 0 to 2.
    pub temperature: Option<f64>,
    /// The most tokens the model may answer with.
    pub max_tokens: Option<u32>,
    /// Whatever else belongs to the version: a JSON object.
    pub metadata: serde_json::Value,
    /// Why it was made.
    pub change_description: Option<String>,
    /// Who made it.
    pub author: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl PromptVersion {
    /// The most bytes that the content, and the system message, may have.
    pub const MAX_TEXT_BYTES: usize = 16 * 1024 * 1024;
    /// The temperatures that a version may have.
    pub const TEMPERATURES: RangeInclusive<f64> = 0.0..=2.0;

    /// Checks all rules that one version can be checked for by itself.
    ///
    /// # Errors
    /// `Invalid`, naming the setting and the version, where one is out of its range.
    pub fn validate(&self) -> Result<()> {
        let number = self.number;
        if number == 0 {
            return Err(Error::invalid("version 0 cannot be: versions count from 1"));
        }
        let texts =
            [("content", Some(&self.content)), ("system message", self.system_message.as_ref())];
        for (what, text) in texts {
            let bytes = text.map_or(0, String::len);
            if bytes > Self::MAX_TEXT_BYTES {
                return Err(Error::invalid(format!(
                    "the {what} of version {number} is {bytes} bytes long, more than {}",
                    Self::MAX_TEXT_BYTES
                )));
            }
        }
        if let Some(temperature) = self.temperature.filter(|t| !Self::TEMPERATURES.contains(t)) {
            return Err(Error::invalid(format!(
                "the temperature {temperature} of version {number} is not within 0 to 2"
            )));
        }
        if self.max_tokens == Some(0) {
            return Err(Error::invalid(format!(
                "the max tokens of version {number} are 0; give 1 or more, or none for no limit"
            )));
        }
        if crate::record::too_deep(&self.metadata) {
            return Err(Error::invalid(format!(
                "the metadata of version {number} is nested deeper than {} levels",
                crate::Record::MOST_NESTED
            )));
        }
        if !self.metadata.is_object() {
            return Err(Error::invalid(format!(
                "the metadata of version {number} is no JSON object"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn prompt() -> Prompt {
        let at = Timestamp::from_micros(0).unwrap();
        Prompt {
            id: PromptId::new(),
            slug: "welcome-mail".parse().unwrap(),
            name: "Welcome".into(),
            description: Some("A greeting".into()),
            status: PromptStatus::Draft,
            parameters: vec![Parameter::infer("name", 0), Parameter::infer("user_id", 1)],
            active_version: None,
            latest_version: 1,
            revision: 1,
            created_at: at,
            updated_at: at,
        }
    }

    fn version() -> PromptVersion {
        PromptVersion {
            prompt_id: PromptId::new(),
            number: 1,
            content: "a\0b {{name}} \u{10ffff}".into(),
            system_message: Some(String::new()),
            model: Some("gpt-4o".parse().unwrap()),
            temperature: Some(0.7),
            max_tokens: Some(1),
            metadata: json!({"team": "growth"}),
            change_description: None,
            author: None,
            created_at: Timestamp::from_micros(0).unwrap(),
        }
    }

    #[test]
    fn prompts_and_versions_read_back_from_json() {
        let (prompt, version) = (prompt(), version());
        prompt.validate().unwrap();
        version.validate().unwrap();
        let text = serde_json::to_string(&prompt).unwrap();
        assert_eq!(serde_json::from_str::<Prompt>(&text).unwrap(), prompt);
        let text = serde_json::to_string(&version).unwrap();
        assert_eq!(serde_json::from_str::<PromptVersion>(&text).unwrap(), version);
    }

    #[test]
    fn a_prompt_that_breaks_a_rule_is_refused() {
        let broken: [fn(&mut Prompt); 5] = [
            |p| p.name = " ".into(),
            |p| p.parameters.push(Parameter::infer("name", 2)),
            |p| p.parameters.push(Parameter::infer("not a name", 2)),
            |p| p.active_version = Some(2),
            |p| p.active_version = Some(0),
        ];
        for (index, breaks) in broken.into_iter().enumerate() {
            let mut prompt = prompt();
            breaks(&mut prompt);
            assert!(prompt.validate().is_err(), "case {index}");
        }
    }

    #[test]
    fn a_version_that_breaks_a_rule_is_refused() {
        let broken: [fn(&mut PromptVersion); 10] = [
            |v| v.metadata = (0..200).fold(json!({}), |inner, _| json!({ "a": inner })),
            |v| v.number = 0,
            |v| v.temperature = Some(-0.1),
            |v| v.temperature = Some(2.1),
            |v| v.temperature = Some(f64::NAN),
            |v| v.temperature = Some(f64::INFINITY),
            |v| v.max_tokens = Some(0),
            |v| v.metadata = json!([]),
            |v| v.content = "x".repeat(PromptVersion::MAX_TEXT_BYTES + 1),
            |v| v.system_message = Some("x".repeat(PromptVersion::MAX_TEXT_BYTES + 1)),
        ];
        for (index, breaks) in broken.into_iter().enumerate() {
            let mut version = version();
            breaks(&mut version);
            assert!(version.validate().is_err(), "case {index}");
        }
    }
}
