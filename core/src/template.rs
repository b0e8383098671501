//! Templates: finding `{{name}}` in a text and putting values in their place.
//! Invariants: one pass, linear in the text whatever braces it holds; a value is never scanned again.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::parameter::{Parameter, ParameterType, text_of};

/// The values of parameters by name; see [`params!`](crate::params).
pub type Params = BTreeMap<String, Value>;

/// Makes [`Params`] of names and values; a value is all that is `Into<serde_json::Value>`.
///
/// # Example: names and values
/// ```
/// use prompt_engine_core::params;
/// let params = params! { "name" => "John", "n" => 3, "tags" => vec!["a", "b"] };
/// assert_eq!(params["n"], 3);
/// ```
#[macro_export]
macro_rules! params {
    ($($name:expr => $value:expr),* $(,)?) => {
        $crate::Params::from([
            $((::std::string::String::from($name), ::std::convert::Into::into($value)),)*
        ])
    };
}

/// A text with places for values: `{{name}}`, or `{{name.field}}` for a field of a JSON value.
///
/// A name is `[A-Za-z_][A-Za-z0-9_]*`; spaces and tabs may stand inside the braces. All other braces are
/// text: those of JSON, `{%`, three or more in a row, and ones that are never closed.
///
/// # Example: values are not scanned again
/// ```
/// use prompt_engine_core::{Template, params};
/// let template = Template::parse(r#"{"to": "{{ user.name }}", "says": "{{text}}"}"#);
/// assert_eq!(template.names(), ["user", "text"]);
/// let user = serde_json::json!({"name": "Ann"});
/// let text = template.render(&params! { "user" => user, "text" => "{{user}}" })?;
/// assert_eq!(text, r#"{"to": "Ann", "says": "{{user}}"}"#);
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template<'a> {
    places: Vec<Place<'a>>,
    /// The text after the last place.
    tail: &'a str,
}

/// The text before a place, and the path that the place names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place<'a> {
    before: &'a str,
    path: &'a str,
}

impl<'a> Template<'a> {
    /// The most bytes that a rendered text may have.
    pub const MAX_RENDERED_BYTES: usize = 256 * 1024 * 1024;

    /// Finds the places in `source`. Every text is a template.
    pub fn parse(source: &'a str) -> Self {
        let bytes = source.as_bytes();
        let mut places = Vec::new();
        let (mut text_start, mut position) = (0, 0);
        while let Some(found) = source[position..].find('{') {
            let open = position + found;
            let braces = bytes[open..].iter().take_while(|byte| **byte == b'{').count();
            position = open + braces;
            if braces != 2 {
                continue;
            }
            // Where no path is found, nothing up to the stop can open another place: go on from there.
            match path_at(bytes, position) {
                Ok((from, to, end)) => {
                    let before = &source[text_start..open];
                    places.push(Place { before, path: &source[from..to] });
                    (text_start, position) = (end, end);
                }
                Err(stop) => position = stop,
            }
        }
        Self { places, tail: &source[text_start..] }
    }

    /// The names of the parameters that the text takes, in order of first appearance, each once.
    /// `{{a.b}}` takes the parameter `a`.
    pub fn names(&self) -> Vec<&'a str> {
        let mut seen = HashSet::new();
        self.paths().map(root).filter(|name| seen.insert(*name)).collect()
    }

    /// What stands in the braces of each place, in order, repeats included.
    pub fn paths(&self) -> impl Iterator<Item = &'a str> + use<'a, '_> {
        self.places.iter().map(|place| place.path)
    }

    /// The text with `values` in their places: strings as they are, null as nothing, numbers by their digits,
    /// arrays and objects as compact JSON.
    ///
    /// # Errors
    /// `Invalid`, naming the place, where its value or the field of it is missing, or where the text would
    /// be longer than [`Self::MAX_RENDERED_BYTES`].
    pub fn render(&self, values: &Params) -> Result<String> {
        let mut texts: HashMap<&str, Cow<'_, str>> = HashMap::new();
        let mut rendered = String::new();
        for Place { before, path } in &self.places {
            if !texts.contains_key(path) {
                texts.insert(path, text_of(look_up(values, path)?));
            }
            let text = texts.get(path).map_or("", |text| text);
            if rendered.len() + before.len() + text.len() > Self::MAX_RENDERED_BYTES {
                return Err(Error::invalid(format!(
                    "the rendered text is longer than {} bytes at {{{{{path}}}}}",
                    Self::MAX_RENDERED_BYTES
                )));
            }
            rendered.push_str(before);
            rendered.push_str(text);
        }
        rendered.push_str(self.tail);
        Ok(rendered)
    }
}

/// The parameters that a prompt takes, in order of first appearance in its content, then in its system
/// message. Types are inferred as [`Parameter::infer`] does; one whose field is taken (`{{a.b}}`) is JSON.
///
/// # Example: types from names
/// ```
/// use prompt_engine_core::{ParameterType, detect_parameters};
/// let found = detect_parameters("{{user_id}} {{order.total}}", Some("Answer in {{language}}."));
/// let kinds: Vec<_> = found.iter().map(|p| (p.name.as_str(), p.kind)).collect();
/// assert_eq!(kinds, [
///     ("user_id", ParameterType::Integer),
///     ("order", ParameterType::Json),
///     ("language", ParameterType::String),
/// ]);
/// ```
pub fn detect_parameters(content: &str, system_message: Option<&str>) -> Vec<Parameter> {
    let mut found: Vec<Parameter> = Vec::new();
    let mut index_of = HashMap::new();
    for source in [Some(content), system_message].into_iter().flatten() {
        for path in Template::parse(source).paths() {
            let name = root(path);
            let index = *index_of.entry(name).or_insert_with(|| {
                let position = u32::try_from(found.len()).unwrap_or(u32::MAX);
                found.push(Parameter::infer(name, position));
                found.len() - 1
            });
            if name.len() < path.len() {
                found[index].kind = ParameterType::Json;
            }
        }
    }
    found
}

/// The value of each of `parameters`: what is `given`, else its default, else null where it is not required.
/// A null that is given for an optional parameter of another type than JSON counts as not given.
///
/// # Errors
/// `Invalid`, naming the parameters, where a required one is missing, one is given that is not among
/// `parameters`, or a value has the wrong type or breaks a rule.
///
/// # Example: strict
/// ```
/// use prompt_engine_core::{Parameter, params, resolve};
/// let parameters = [Parameter::infer("name", 0)];
/// assert!(resolve(&parameters, params! { "name" => "Ann" }).is_ok());
/// assert!(resolve(&parameters, params! {}).is_err());
/// assert!(resolve(&parameters, params! { "name" => "Ann", "nam" => "Ann" }).is_err());
/// ```
pub fn resolve(parameters: &[Parameter], mut given: Params) -> Result<Params> {
    let mut values = Params::new();
    let mut missing = Vec::new();
    for parameter in parameters {
        let name = &parameter.name;
        let is_absent = |value: &Value| {
            value.is_null() && !parameter.required && parameter.kind != ParameterType::Json
        };
        let value = match (given.remove(name).filter(|v| !is_absent(v)), &parameter.default) {
            (Some(value), _) => parameter.check(&value)?,
            (None, Some(default)) => parameter.check(default)?,
            (None, None) if parameter.required => {
                missing.push(name.as_str());
                continue;
            }
            (None, None) => Value::Null,
        };
        values.insert(name.clone(), value);
    }
    if !given.is_empty() {
        let unknown: Vec<_> = given.keys().map(String::as_str).collect();
        let known: Vec<_> = parameters.iter().map(|p| p.name.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(Error::invalid(format!(
            "no such parameter: {}; the prompt takes {known}",
            unknown.join(", ")
        )));
    }
    if !missing.is_empty() {
        return Err(Error::invalid(format!("missing parameter: {}", missing.join(", "))));
    }
    Ok(values)
}

/// The name of the parameter that a path starts with.
fn root(path: &str) -> &str {
    path.split_once('.').map_or(path, |(root, _)| root)
}

fn look_up<'v>(values: &'v Params, path: &str) -> Result<&'v Value> {
    let mut parts = path.split('.');
    let name = parts.next().unwrap_or(path);
    let mut value =
        values.get(name).ok_or_else(|| Error::invalid(format!("missing parameter: {name}")))?;
    for part in parts {
        // An optional parameter that is not given has no fields either.
        if value.is_null() {
            break;
        }
        value = value.get(part).ok_or_else(|| {
            Error::invalid(format!(
                "the value of parameter {name} has no {part} for {{{{{path}}}}}"
            ))
        })?;
    }
    Ok(value)
}

/// The start and end of the path that starts at `position`, and the end of the braces that close it;
/// else the byte at which it is clear that there is none.
fn path_at(bytes: &[u8], position: usize) -> Result<(usize, usize, usize), usize> {
    let skip = |from: usize, what: fn(u8) -> bool| {
        from + bytes[from..].iter().take_while(|byte| what(**byte)).count()
    };
    let is_space = |byte: u8| matches!(byte, b' ' | b'\t');
    let from = skip(position, is_space);
    let mut to = from;
    loop {
        if !bytes.get(to).is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_') {
            return Err(to);
        }
        to = skip(to, |byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if bytes.get(to) != Some(&b'.') {
            break;
        }
        to += 1;
    }
    let close = skip(to, is_space);
    if bytes[close..].starts_with(b"}}") { Ok((from, to, close + 2)) } else { Err(close) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn only_two_braces_around_a_name_are_a_place() {
        for (source, rendered) in [
            ("{{a}}", "1"),
            ("{{ a }}{{\ta}}", "11"),
            ("{\"x\": {{a}}}", "{\"x\": 1}"),
            ("{{o.k}} {{ o.in.k }}", "v w"),
            ("{{{a}}}", "{{{a}}}"),
            ("{{{{a}}}}", "{{{{a}}}}"),
            ("{% if a %}{a}{{}}", "{% if a %}{a}{{}}"),
            ("{{a", "{{a"),
            ("{{a}", "{{a}"),
            ("{{a} }", "{{a} }"),
            ("{{a {{a}}", "{{a 1"),
            (
                "{{1a}}{{a-b}}{{a b}}{{.a}}{{a.}}{{a..b}}",
                "{{1a}}{{a-b}}{{a b}}{{.a}}{{a.}}{{a..b}}",
            ),
            ("{{\u{e9}}}{{a\u{e9}}}{{a}}\0", "{{\u{e9}}}{{a\u{e9}}}1\0"),
            ("{{\na}}", "{{\na}}"),
            ("", ""),
        ] {
            let values = params! { "a" => 1, "o" => json!({"k": "v", "in": {"k": "w"}}) };
            assert_eq!(Template::parse(source).render(&values).unwrap(), rendered, "{source}");
        }
    }

    #[test]
    fn names_come_once_and_in_order_of_appearance() {
        let template = Template::parse("{{b}} {{a.x}} {{b}} {{a}} {{_c1}} {{a.y}}");
        assert_eq!(template.names(), ["b", "a", "_c1"]);
        assert_eq!(template.paths().count(), 6);
    }

    #[test]
    fn a_value_is_never_scanned_again() {
        let values = params! { "a" => "{{b}}", "b" => "{{a}}", "open" => "{{" };
        assert_eq!(Template::parse("{{a}}{{b}}").render(&values).unwrap(), "{{b}}{{a}}");
        assert_eq!(Template::parse("{{open}}a}}").render(&values).unwrap(), "{{a}}");
    }

    #[test]
    fn a_missing_value_or_field_is_named() {
        let values = params! { "a" => json!({"b": 1}), "none" => Value::Null };
        for (source, named) in [("{{x}}", "x"), ("{{a.c}}", "{{a.c}}"), ("{{a.b.d}}", "{{a.b.d}}")]
        {
            let error = Template::parse(source).render(&values).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
        }
        assert_eq!(Template::parse("[{{none}}{{none.field}}]").render(&values).unwrap(), "[]");
    }

    // A scan that is not linear does not end within a day here.
    #[test]
    fn ten_megabytes_of_any_braces_are_scanned_in_one_pass() {
        for piece in ["{", "{{", "{{ ", "{{a", "{{a.", "{{a ", "{{{a}}", " {{a}", "}", "{{a}} "] {
            let source = piece.repeat(10_000_000 / piece.len());
            let places = if piece == "{{a}} " { 10_000_000 / piece.len() } else { 0 };
            assert_eq!(Template::parse(&source).places.len(), places, "{piece}");
        }
        let spaces = format!("{{{{{}", " ".repeat(10_000_000));
        assert_eq!(Template::parse(&spaces).tail.len(), spaces.len());
    }

    #[test]
    fn a_text_that_would_fill_the_memory_is_refused() {
        let source = "{{a}}".repeat(1_000);
        let values = params! { "a" => "x".repeat(1_000_000) };
        let error = Template::parse(&source).render(&values).unwrap_err();
        assert!(error.to_string().contains("{{a}}"), "{error}");
    }

    proptest! {
        #[test]
        fn a_text_without_places_stays_as_it_is(source in "[{} a%.é\n\"]{0,40}") {
            let template = Template::parse(&source);
            let values = params! { "a" => "{{a}}", "aa" => "{{aa}}", "aaa" => "{{aaa}}" };
            let mut parts: String = template.places.iter().map(|p| p.before).collect();
            parts.push_str(template.tail);
            prop_assert!(source.len() >= parts.len());
            if template.places.is_empty() {
                prop_assert_eq!(template.render(&values).unwrap(), source);
            }
        }
    }

    #[test]
    fn parameters_are_detected_in_both_texts() {
        let found =
            detect_parameters("{{b}} {{user}} {{is_admin}}", Some("{{ b }} {{user.id}} {{z_at}}"));
        let kinds: Vec<_> =
            found.iter().map(|p| (p.position, p.name.as_str(), p.kind, p.required)).collect();
        assert_eq!(
            kinds,
            [
                (0, "b", ParameterType::String, true),
                (1, "user", ParameterType::Json, true),
                (2, "is_admin", ParameterType::Boolean, true),
                (3, "z_at", ParameterType::Datetime, true),
            ]
        );
        assert!(found.iter().all(|parameter| parameter.validate().is_ok()));
    }

    #[test]
    fn defaults_fill_in_and_an_optional_parameter_is_null() {
        let parameters = [
            Parameter { default: Some(json!("Ann")), ..Parameter::infer("name", 0) },
            Parameter { required: false, ..Parameter::infer("note", 1) },
            Parameter {
                required: false,
                default: Some(json!(7)),
                ..Parameter::infer("n_count", 2)
            },
        ];
        let expected = params! { "name" => "Ann", "note" => Value::Null, "n_count" => 7 };
        assert_eq!(resolve(&parameters, params! {}).unwrap(), expected);
        // What was resolved, as a usage keeps it, resolves to itself.
        assert_eq!(resolve(&parameters, expected.clone()).unwrap(), expected);
        let given = params! { "name" => "Bob", "note" => "hi", "n_count" => 1 };
        assert_eq!(resolve(&parameters, given.clone()).unwrap(), given);
    }

    #[test]
    fn missing_unknown_and_wrong_values_are_refused_by_name() {
        let parameters = [Parameter::infer("name", 0), Parameter::infer("user_id", 1)];
        for (given, named) in [
            (params! {}, "missing parameter: name, user_id"),
            (params! { "name" => "Ann" }, "missing parameter: user_id"),
            (params! { "name" => "Ann", "user_id" => 1, "nme" => "x" }, "no such parameter: nme"),
            (
                params! { "name" => "Ann", "user_id" => "1" },
                "parameter user_id takes a whole number",
            ),
            (params! { "name" => Value::Null, "user_id" => 1 }, "parameter name takes a text"),
        ] {
            let error = resolve(&parameters, given).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}
