//! What a prompt takes: typed, with defaults and rules. Values are JSON; nothing is converted silently.
//! Invariant: a value that passed [`Parameter::check`] has the type and keeps the rules of its parameter.

use std::borrow::Cow;

use regex::Regex;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{BoxError, Error, Result};
use crate::status::named;
use crate::time::{Zone, parse_date, parse_moment};

named! {
    /// The type of a parameter.
    ParameterType, "parameter type" {
        /// Any text.
        String = 0 "string",
        /// A whole number, as a JSON number of 64 bits.
        Integer = 1 "integer",
        /// An exact number of up to 28 digits: a JSON number, or a text where all digits shall stay.
        Decimal = 2 "decimal",
        /// True or false.
        Boolean = 3 "boolean",
        /// A text that [`parse_moment`](crate::parse_moment) reads.
        Datetime = 4 "datetime",
        /// A text such as `2026-01-31`.
        Date = 5 "date",
        /// A JSON array.
        Array = 6 "array",
        /// Any JSON.
        Json = 7 "json",
    }
}

/// What the values of a parameter must keep.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rules {
    /// The fewest characters of a string, items of an array.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_length: Option<u64>,
    /// The most characters of a string, items of an array.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u64>,
    /// A regular expression that must match somewhere in a string; `^` and `$` make it match the whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// The least number.
    #[serde(with = "rust_decimal::serde::str_option", skip_serializing_if = "Option::is_none")]
    pub min: Option<Decimal>,
    /// The greatest number.
    #[serde(with = "rust_decimal::serde::str_option", skip_serializing_if = "Option::is_none")]
    pub max: Option<Decimal>,
}

/// One thing that a prompt takes.
///
/// # Example: strict types
/// ```
/// use prompt_engine_core::{Parameter, ParameterType};
/// let parameter = Parameter::infer("item_count", 0);
/// assert_eq!(parameter.kind, ParameterType::Integer);
/// assert!(parameter.check(&3.into()).is_ok());
/// assert!(parameter.check(&"3".into()).is_err());
/// assert_eq!(parameter.parse_text("3")?, 3);
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    /// The name in `{{name}}`: `[A-Za-z_][A-Za-z0-9_]*`.
    pub name: String,
    /// The type of its values.
    #[serde(rename = "type")]
    pub kind: ParameterType,
    /// Whether a render without it, and without a default, is refused.
    pub required: bool,
    /// The value where none is given.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// A value to show.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub example: Option<Value>,
    /// What it is for.
    #[serde(default)]
    pub description: Option<String>,
    /// What its values must keep.
    #[serde(default)]
    pub rules: Rules,
    /// Where it stands among the parameters of its prompt.
    #[serde(default)]
    pub position: u32,
}

impl Parameter {
    /// A required parameter without rules, its type inferred from its name: the ends `_id _count _number _qty
    /// _quantity` make an integer, `_at _date _time` a datetime, `_price _amount _cost _total` a decimal,
    /// `_list _array _items` an array; a word `is`, `has`, `can` or `should` before another makes a boolean.
    pub fn infer(name: impl Into<String>, position: u32) -> Self {
        let name = name.into();
        let kind = infer_type(&name);
        Self {
            name,
            kind,
            required: true,
            default: None,
            example: None,
            description: None,
            rules: Rules::default(),
            position,
        }
    }

    /// Checks the parameter itself.
    ///
    /// # Errors
    /// `Invalid`, naming the parameter, where its name is none, a rule does not suit its type, the pattern is
    /// no regular expression, a least is above its greatest, or its default breaks its type or rules.
    pub fn validate(&self) -> Result<()> {
        let name = &self.name;
        if !is_name(name) {
            return Err(Error::invalid(format!(
                "{name:?} is no name of a parameter; it takes letters, digits and _, and starts with no digit"
            )));
        }
        let Rules { min_length, max_length, pattern, min, max } = &self.rules;
        let has_length = matches!(self.kind, ParameterType::String | ParameterType::Array);
        let is_number = matches!(self.kind, ParameterType::Integer | ParameterType::Decimal);
        for (rule, given, suits) in [
            ("min_length", min_length.is_some(), has_length),
            ("max_length", max_length.is_some(), has_length),
            ("pattern", pattern.is_some(), self.kind == ParameterType::String),
            ("min", min.is_some(), is_number),
            ("max", max.is_some(), is_number),
        ] {
            if given && !suits {
                return Err(Error::invalid(format!(
                    "the rule {rule} of parameter {name} does not suit its type {}",
                    self.kind
                )));
            }
        }
        if let (Some(min), Some(max)) = (min_length, max_length)
            && min > max
        {
            return Err(Error::invalid(format!(
                "the min_length {min} of parameter {name} is above its max_length {max}"
            )));
        }
        if let (Some(min), Some(max)) = (min, max)
            && min > max
        {
            return Err(Error::invalid(format!(
                "the min {min} of parameter {name} is above its max {max}"
            )));
        }
        self.regex()?;
        if let Some(default) = &self.default {
            self.check(default).map_err(|error| {
                Error::invalid(format!("the default of parameter {name} does not fit"))
                    .with_source(error)
            })?;
        }
        Ok(())
    }

    /// `value` if it has the type and keeps the rules.
    ///
    /// # Errors
    /// `Invalid`, naming the parameter and what was expected.
    pub fn check(&self, value: &Value) -> Result<Value> {
        let name = &self.name;
        let rules = &self.rules;
        let fits = match (self.kind, value) {
            (ParameterType::String, Value::String(text)) => {
                self.check_length(text.chars().count(), "characters")?;
                if let Some(regex) = self.regex()?
                    && !regex.is_match(text)
                {
                    return Err(Error::invalid(format!(
                        "parameter {name} must match the pattern {regex}, and {} does not",
                        excerpt(value)
                    )));
                }
                true
            }
            (ParameterType::Array, Value::Array(items)) => {
                self.check_length(items.len(), "items")?;
                true
            }
            (ParameterType::Integer | ParameterType::Decimal, _) => match self.number(value) {
                None => false,
                Some(number) => {
                    if let Some(min) = rules.min.filter(|min| number < *min) {
                        return Err(Error::invalid(format!(
                            "parameter {name} must be at least {min}, and {} is less",
                            excerpt(value)
                        )));
                    }
                    if let Some(max) = rules.max.filter(|max| number > *max) {
                        return Err(Error::invalid(format!(
                            "parameter {name} must be at most {max}, and {} is more",
                            excerpt(value)
                        )));
                    }
                    true
                }
            },
            (ParameterType::Datetime, Value::String(text)) => {
                parse_moment(text, Zone::UTC)
                    .map_err(|error| self.mismatch(value, Some(error.into())))?;
                true
            }
            (ParameterType::Date, Value::String(text)) => parse_date(text)
                .map_err(|error| self.mismatch(value, Some(error.into())))?
                .is_some(),
            (ParameterType::Boolean, Value::Bool(_)) | (ParameterType::Json, _) => true,
            _ => false,
        };
        if fits { Ok(value.clone()) } else { Err(self.mismatch(value, None)) }
    }

    /// The value that `text` writes, as on a command line: a string is taken as it is, a decimal keeps its
    /// digits, an array and JSON are written as JSON.
    ///
    /// # Errors
    /// `Invalid`, naming the parameter and what was expected.
    pub fn parse_text(&self, text: &str) -> Result<Value> {
        let as_text = || Value::String(text.to_owned());
        let value = match self.kind {
            ParameterType::String
            | ParameterType::Decimal
            | ParameterType::Datetime
            | ParameterType::Date => as_text(),
            ParameterType::Integer => match (text.parse::<i64>(), text.parse::<u64>()) {
                (Ok(number), _) => number.into(),
                (_, Ok(number)) => number.into(),
                _ => as_text(),
            },
            ParameterType::Boolean => text.parse::<bool>().map_or_else(|_| as_text(), Value::Bool),
            ParameterType::Array | ParameterType::Json => serde_json::from_str(text)
                .map_err(|error| self.mismatch(&as_text(), Some(error.into())))?,
        };
        self.check(&value)
    }

    fn check_length(&self, length: usize, unit: &str) -> Result<()> {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        let name = &self.name;
        if let Some(min) = self.rules.min_length.filter(|min| length < *min) {
            return Err(Error::invalid(format!(
                "parameter {name} must have at least {min} {unit}, and has {length}"
            )));
        }
        if let Some(max) = self.rules.max_length.filter(|max| length > *max) {
            return Err(Error::invalid(format!(
                "parameter {name} must have at most {max} {unit}, and has {length}"
            )));
        }
        Ok(())
    }

    fn number(&self, value: &Value) -> Option<Decimal> {
        match value {
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(whole), _) => Some(whole.into()),
                (_, Some(whole)) => Some(whole.into()),
                _ if self.kind == ParameterType::Integer => None,
                _ => decimal(&number.to_string()),
            },
            Value::String(text) if self.kind == ParameterType::Decimal => decimal(text),
            _ => None,
        }
    }

    fn regex(&self) -> Result<Option<Regex>> {
        let Some(pattern) = &self.rules.pattern else { return Ok(None) };
        Regex::new(pattern).map(Some).map_err(|error| {
            Error::invalid(format!(
                "the pattern {pattern:?} of parameter {} is no regular expression",
                self.name
            ))
            .with_source(error)
        })
    }

    fn mismatch(&self, value: &Value, source: Option<BoxError>) -> Error {
        let expected = match self.kind {
            ParameterType::String => "a text",
            ParameterType::Integer => "a whole number",
            ParameterType::Decimal => "a number of at most 28 digits",
            ParameterType::Boolean => "true or false",
            ParameterType::Datetime => "a time such as 2026-01-31T10:00:00Z",
            ParameterType::Date => "a date such as 2026-01-31",
            ParameterType::Array => "a JSON array",
            ParameterType::Json => "JSON",
        };
        let error = Error::invalid(format!(
            "parameter {} takes {expected}, not {}",
            self.name,
            excerpt(value)
        ));
        match source {
            Some(source) => error.with_source(source),
            None => error,
        }
    }
}

/// What a value looks like in a rendered text: a string as it is, null as nothing, numbers by their digits,
/// arrays and objects as compact JSON, keys in order.
pub fn text_of(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        Value::Null => Cow::Borrowed(""),
        Value::Array(_) | Value::Object(_) => {
            // A build keeps keys as they came where some crate turns on `serde_json/preserve_order`.
            let mut sorted = value.clone();
            sorted.sort_all_objects();
            Cow::Owned(sorted.to_string())
        }
        other => Cow::Owned(other.to_string()),
    }
}

/// Whether `text` is `[A-Za-z_][A-Za-z0-9_]*`.
fn is_name(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn infer_type(name: &str) -> ParameterType {
    let name = name.to_ascii_lowercase();
    let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    // Whole words, so that `analysis_text` stays a text.
    let asks = |word: &str| name.starts_with(word) || name.contains(&format!("_{word}"));
    if ends(&["_id", "_count", "_number", "_qty", "_quantity"]) {
        ParameterType::Integer
    } else if ends(&["_at", "_date", "_time"]) {
        ParameterType::Datetime
    } else if ends(&["_price", "_amount", "_cost", "_total"]) {
        ParameterType::Decimal
    } else if ["is_", "has_", "can_", "should_"].into_iter().any(asks) {
        ParameterType::Boolean
    } else if ends(&["_list", "_array", "_items"]) {
        ParameterType::Array
    } else {
        ParameterType::String
    }
}

/// An exact decimal, in plain or scientific digits; `None` where digits would be lost.
fn decimal(text: &str) -> Option<Decimal> {
    Decimal::from_str_exact(text).ok().or_else(|| {
        text.contains(['e', 'E']).then(|| Decimal::from_scientific(text).ok()).flatten()
    })
}

/// The start of a value, to show in an error.
fn excerpt(value: &Value) -> String {
    let (text, quoted) = match value {
        Value::String(text) => (Cow::Borrowed(text.as_str()), true),
        other => (Cow::Owned(other.to_string()), false),
    };
    let start: String = text.chars().take(40).collect();
    let more = if start.len() < text.len() { "…" } else { "" };
    if quoted { format!("{start:?}{more}") } else { format!("{start}{more}") }
}

/// Reads a field that is there as `Some`, null included: null is a value of type JSON.
fn present<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(d).map(Some)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(kind: ParameterType) -> Parameter {
        Parameter { kind, ..Parameter::infer("p", 0) }
    }

    #[test]
    fn the_type_is_inferred_from_the_name() {
        for (name, kind) in [
            ("name", ParameterType::String),
            ("user_id", ParameterType::Integer),
            ("qty", ParameterType::String),
            ("item_quantity", ParameterType::Integer),
            ("created_at", ParameterType::Datetime),
            ("due_date", ParameterType::Datetime),
            ("unit_price", ParameterType::Decimal),
            ("order_total", ParameterType::Decimal),
            ("is_admin", ParameterType::Boolean),
            ("user_has_paid", ParameterType::Boolean),
            ("analysis_text", ParameterType::String),
            ("order_items", ParameterType::Array),
            ("is_at", ParameterType::Datetime),
        ] {
            assert_eq!(Parameter::infer(name, 0).kind, kind, "{name}");
        }
    }

    #[test]
    fn a_value_of_another_type_is_refused_by_name() {
        let values = [
            json!("text"),
            json!(3),
            json!(2.5),
            json!(true),
            json!("2026-01-31T10:00:00Z"),
            json!("2026-01-31"),
            json!([1]),
            json!({"a": 1}),
            json!("2.50"),
            json!(null),
        ];
        for (kind, fits) in [
            (ParameterType::String, vec![0, 4, 5, 8]),
            (ParameterType::Integer, vec![1]),
            (ParameterType::Decimal, vec![1, 2, 8]),
            (ParameterType::Boolean, vec![3]),
            (ParameterType::Datetime, vec![4, 5]),
            (ParameterType::Date, vec![5]),
            (ParameterType::Array, vec![6]),
            (ParameterType::Json, (0..10).collect()),
        ] {
            for (index, value) in values.iter().enumerate() {
                match of(kind).check(value) {
                    Ok(kept) => assert!(kept == *value && fits.contains(&index), "{kind} {value}"),
                    Err(error) => {
                        assert!(!fits.contains(&index), "{kind} {value} {error}");
                        assert!(error.to_string().contains("parameter p takes"), "{error}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_broken_rule_is_named() {
        let rules = Rules {
            min_length: Some(2),
            max_length: Some(3),
            pattern: Some("^[a-zé]+$".into()),
            ..Rules::default()
        };
        let text = Parameter { rules, ..of(ParameterType::String) };
        text.validate().unwrap();
        assert!(text.check(&json!("ééé")).is_ok());
        for (value, named) in [("a", "at least 2"), ("abcd", "at most 3"), ("AB", "pattern")] {
            let error = text.check(&json!(value)).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
        }
        let rules = Rules { min: "0.5".parse().ok(), max: "10".parse().ok(), ..Rules::default() };
        let number = Parameter { rules, ..of(ParameterType::Decimal) };
        assert!(number.check(&json!(0.5)).is_ok() && number.check(&json!("10.000")).is_ok());
        assert!(number.check(&json!("0.4999999999999999999999999")).is_err());
        assert!(number.check(&json!(11)).is_err());
    }

    #[test]
    fn a_parameter_that_contradicts_itself_is_refused() {
        let broken: [fn(&mut Parameter); 8] = [
            |p| p.name = "a.b".into(),
            |p| p.name = String::new(),
            |p| p.name = "1a".into(),
            |p| p.rules.pattern = Some("(".into()),
            |p| p.default = Some(json!(1)),
            |p| {
                p.rules.min_length = Some(2);
                p.rules.max_length = Some(1);
            },
            |p| p.rules.min = Some(Decimal::ONE),
            |p| {
                p.kind = ParameterType::Integer;
                p.rules.min = Some(Decimal::TEN);
                p.rules.max = Some(Decimal::ONE);
            },
        ];
        for (index, breaks) in broken.into_iter().enumerate() {
            let mut parameter = of(ParameterType::String);
            parameter.validate().unwrap();
            breaks(&mut parameter);
            assert!(parameter.validate().is_err(), "case {index}");
        }
    }

    #[test]
    fn text_is_read_as_the_type_and_keeps_its_digits() {
        for (kind, text, value) in [
            (ParameterType::String, "3", json!("3")),
            (ParameterType::Integer, "-3", json!(-3)),
            (ParameterType::Integer, "18446744073709551615", json!(u64::MAX)),
            (ParameterType::Decimal, "19.90", json!("19.90")),
            (ParameterType::Boolean, "true", json!(true)),
            (ParameterType::Date, "2026-01-31", json!("2026-01-31")),
            (ParameterType::Array, "[1, \"a\"]", json!([1, "a"])),
            (ParameterType::Json, "{\"a\": null}", json!({"a": null})),
        ] {
            assert_eq!(of(kind).parse_text(text).unwrap(), value);
        }
        for (kind, text) in [
            (ParameterType::Integer, "3.0"),
            (ParameterType::Decimal, "abc"),
            (ParameterType::Decimal, "0.12345678901234567890123456789012"),
            (ParameterType::Boolean, "yes"),
            (ParameterType::Date, "2026-02-30"),
            (ParameterType::Datetime, "noon"),
            (ParameterType::Array, "{}"),
            (ParameterType::Json, "{"),
        ] {
            let error = of(kind).parse_text(text).unwrap_err();
            assert!(error.to_string().contains("parameter p"), "{error}");
        }
    }

    #[test]
    fn a_parameter_reads_back_from_json() {
        let parameter = Parameter {
            default: Some(Value::Null),
            example: None,
            rules: Rules { min: "0.10".parse().ok(), ..Rules::default() },
            ..of(ParameterType::Json)
        };
        let value = serde_json::to_value(&parameter).unwrap();
        assert_eq!(value["type"], "json");
        assert_eq!(value["rules"], json!({"min": "0.10"}));
        assert_eq!(serde_json::from_value::<Parameter>(value).unwrap(), parameter);
    }

    #[test]
    fn values_render_as_text_digits_and_compact_json() {
        for (value, text) in [
            (json!("a \"b\""), "a \"b\""),
            (json!("19.90"), "19.90"),
            (json!(0.1), "0.1"),
            (json!(u64::MAX), "18446744073709551615"),
            (json!(true), "true"),
            (json!(null), ""),
            (json!([1, null, {"a": "b"}]), "[1,null,{\"a\":\"b\"}]"),
        ] {
            assert_eq!(text_of(&value), text);
        }
    }
}
