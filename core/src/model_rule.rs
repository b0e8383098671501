//! Which models a price is for.
//! Invariant: names are compared without regard to case; a rule that was validated never fails.

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::label::Label;

/// Which models a price is for. A pattern may match any part of a name.
///
/// # Example: all previews but those that speak
/// ```
/// use prompt_engine_core::{Label, ModelRule};
/// let rule = ModelRule::All(vec![
///     ModelRule::StartsWith(Label::new("gemini-2.5-pro")?),
///     ModelRule::Not(Box::new(ModelRule::EndsWith(Label::new("-tts")?))),
/// ]);
/// assert!(rule.matches("Gemini-2.5-pro-preview"));
/// assert!(!rule.matches("gemini-2.5-pro-preview-tts"));
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelRule {
    /// The model of exactly this name.
    Equals(Label),
    /// Every model whose name starts so.
    StartsWith(Label),
    /// Every model whose name ends so.
    EndsWith(Label),
    /// Every model whose name has this in it.
    Contains(Label),
    /// Every model whose name the pattern finds something in.
    Regex(Label),
    /// Every model that one of these is for.
    Any(Vec<ModelRule>),
    /// Every model that all of these are for.
    All(Vec<ModelRule>),
    /// Every model that this is not for.
    Not(Box<ModelRule>),
}

impl ModelRule {
    /// How deep rules may be nested.
    pub const MOST_NESTED: usize = 8;

    /// Whether `model` is meant. A pattern that is none matches nothing.
    pub fn matches(&self, model: &str) -> bool {
        Matcher::new(self).matches(&model.to_lowercase())
    }

    /// The same rule with its texts in lower case: rules that differ in case mean the same models.
    pub(crate) fn folded(&self) -> Self {
        let lower = |text: &Label| Label::lossy(&text.to_lowercase());
        let all = |rules: &[Self]| rules.iter().map(Self::folded).collect();
        match self {
            Self::Equals(text) => Self::Equals(lower(text)),
            Self::StartsWith(text) => Self::StartsWith(lower(text)),
            Self::EndsWith(text) => Self::EndsWith(lower(text)),
            Self::Contains(text) => Self::Contains(lower(text)),
            Self::Regex(pattern) => Self::Regex(pattern.clone()), // \D is not \d
            Self::Any(rules) => Self::Any(all(rules)),
            Self::All(rules) => Self::All(all(rules)),
            Self::Not(rule) => Self::Not(Box::new(rule.folded())),
        }
    }

    /// Checks that texts are not empty, patterns are patterns, and nothing is nested too deep.
    ///
    /// # Errors
    /// `Invalid`, saying what is wrong.
    pub fn validate(&self) -> Result<()> {
        self.validate_at(0)
    }

    fn validate_at(&self, depth: usize) -> Result<()> {
        if depth >= Self::MOST_NESTED {
            let most = Self::MOST_NESTED;
            return Err(Error::invalid(format!("a model rule is nested deeper than {most}")));
        }
        match self {
            Self::Equals(text)
            | Self::StartsWith(text)
            | Self::EndsWith(text)
            | Self::Contains(text)
            | Self::Regex(text)
                if text.is_empty() =>
            {
                Err(Error::invalid("a model rule has an empty text"))
            }
            Self::Equals(_) | Self::StartsWith(_) | Self::EndsWith(_) | Self::Contains(_) => Ok(()),
            Self::Regex(pattern) => pattern_of(pattern).map(drop).map_err(|error| {
                Error::invalid(format!("a model rule has the pattern {pattern:?}, which is none"))
                    .with_source(error)
            }),
            Self::Any(rules) | Self::All(rules) if rules.is_empty() => {
                Err(Error::invalid("a model rule of several has none"))
            }
            Self::Any(rules) | Self::All(rules) => {
                rules.iter().try_for_each(|rule| rule.validate_at(depth + 1))
            }
            Self::Not(rule) => rule.validate_at(depth + 1),
        }
    }
}

/// The most memory a pattern may take.
const PATTERN_BYTES: usize = 1 << 20;

fn pattern_of(pattern: &str) -> Result<Regex, regex::Error> {
    regex::RegexBuilder::new(pattern).case_insensitive(true).size_limit(PATTERN_BYTES).build()
}

/// A rule made ready to be asked often, with names in lower case.
#[derive(Debug)]
pub(crate) enum Matcher {
    Equals(Box<str>),
    StartsWith(Box<str>),
    EndsWith(Box<str>),
    Contains(Box<str>),
    /// Built when it is first asked: most patterns never are.
    Regex(Box<str>, std::sync::OnceLock<Option<Regex>>),
    Any(Vec<Matcher>),
    All(Vec<Matcher>),
    Not(Box<Matcher>),
}

impl Matcher {
    pub(crate) fn new(rule: &ModelRule) -> Self {
        let lower = |text: &Label| text.to_lowercase().into_boxed_str();
        let all = |rules: &[ModelRule]| rules.iter().map(Self::new).collect();
        match rule {
            ModelRule::Equals(text) => Self::Equals(lower(text)),
            ModelRule::StartsWith(text) => Self::StartsWith(lower(text)),
            ModelRule::EndsWith(text) => Self::EndsWith(lower(text)),
            ModelRule::Contains(text) => Self::Contains(lower(text)),
            ModelRule::Regex(text) => Self::Regex(text.as_str().into(), Default::default()),
            ModelRule::Any(rules) => Self::Any(all(rules)),
            ModelRule::All(rules) => Self::All(all(rules)),
            ModelRule::Not(rule) => Self::Not(Box::new(Self::new(rule))),
        }
    }

    /// Whether the model of this name, in lower case, is meant.
    pub(crate) fn matches(&self, model: &str) -> bool {
        match self {
            Self::Equals(text) => model == &**text,
            Self::StartsWith(text) => model.starts_with(&**text),
            Self::EndsWith(text) => model.ends_with(&**text),
            Self::Contains(text) => model.contains(&**text),
            Self::Regex(pattern, built) => {
                let built = built.get_or_init(|| pattern_of(pattern).ok());
                built.as_ref().is_some_and(|regex| regex.is_match(model))
            }
            Self::Any(rules) => rules.iter().any(|rule| rule.matches(model)),
            Self::All(rules) => rules.iter().all(|rule| rule.matches(model)),
            Self::Not(rule) => !rule.matches(model),
        }
    }

    /// How many letters of a name the rule says at most.
    pub(crate) fn says(&self) -> usize {
        match self {
            Self::Equals(text)
            | Self::StartsWith(text)
            | Self::EndsWith(text)
            | Self::Contains(text)
            | Self::Regex(text, _) => text.len(),
            Self::Any(rules) | Self::All(rules) => rules.iter().map(Self::says).max().unwrap_or(0),
            Self::Not(_) => 0,
        }
    }

    /// The names that the rule says in full, which can be looked up.
    pub(crate) fn names(&self, add: &mut impl FnMut(&str)) {
        match self {
            Self::Equals(name) => add(name),
            Self::Any(rules) => rules.iter().for_each(|rule| rule.names(add)),
            _ => {}
        }
    }

    /// Whether the rule means models besides those that it [names](Self::names).
    pub(crate) fn is_open(&self) -> bool {
        match self {
            Self::Equals(_) => false,
            Self::Any(rules) => rules.iter().any(Self::is_open),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: &str) -> ModelRule {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_rule_compares_without_regard_to_case() {
        for (json, yes, no) in [
            (r#"{"equals": "GPT-4o"}"#, "gpt-4O", "gpt-4o-mini"),
            (r#"{"starts_with": "gpt-4O"}"#, "GPT-4o-mini", "my-gpt-4o"),
            (r#"{"ends_with": "-Mini"}"#, "gpt-4o-mini", "gpt-4o-mini-x"),
            (r#"{"contains": "4O-M"}"#, "gpt-4o-mini", "gpt-4o"),
            (r#"{"regex": "^gpt-\\d+$"}"#, "GPT-44", "gpt-4o"),
            (r#"{"regex": "^[A-Z]+-X$"}"#, "gpt-x", "gpt-4"),
            (r#"{"any": [{"equals": "a"}, {"equals": "b"}]}"#, "B", "c"),
            (r#"{"all": [{"contains": "a"}, {"contains": "b"}]}"#, "BA", "b"),
            (r#"{"not": {"equals": "a"}}"#, "b", "A"),
        ] {
            let rule = rule(json);
            rule.validate().unwrap();
            assert!(rule.matches(yes), "{json} {yes}");
            assert!(!rule.matches(no), "{json} {no}");
        }
    }

    #[test]
    fn a_rule_that_cannot_work_is_refused() {
        for (json, named) in [
            (r#"{"equals": ""}"#, "empty text"),
            (r#"{"any": []}"#, "has none"),
            (r#"{"any": [{"regex": "("}]}"#, "the pattern \"(\""),
            (r#"{"not": {"contains": ""}}"#, "empty text"),
        ] {
            assert!(rule(json).validate().unwrap_err().to_string().contains(named), "{json}");
        }
        let deep =
            (0..9).fold(rule(r#"{"equals": "a"}"#), |rule, _| ModelRule::Not(Box::new(rule)));
        assert!(deep.validate().unwrap_err().to_string().contains("deeper"));
        assert!(!rule(r#"{"regex": "("}"#).matches("("));
    }
}
