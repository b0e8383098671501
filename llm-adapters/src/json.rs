//! Fields of what a server says, read leniently. Pure.

use serde_json::Value;

/// A text that is there and not empty.
pub(crate) fn text<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// The error that `value` reports in the place of an answer: its field `error`, where that says
/// anything, since some servers have an empty one in every answer; that of the first of a list, as
/// Gemini has it at times; or all of what calls itself an error, as vLLM does.
pub(crate) fn error_of(value: &Value) -> Option<&Value> {
    let value = value.get(0).unwrap_or(value);
    let says = |error: &&Value| match error {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    };
    let itself = || (text(value, "object") == Some("error")).then_some(value);
    value.get("error").filter(says).or_else(itself)
}

/// Whether `value` reports an error in the place of an answer.
pub(crate) fn has_error(value: &Value) -> bool {
    error_of(value).is_some()
}

/// A count that is there. One that is no number of tokens becomes one that no check lets pass.
pub(crate) fn count(usage: &Value, pointer: &str) -> Option<u64> {
    let field = usage.pointer(pointer).filter(|field| !field.is_null())?;
    let text = match field {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Some(text.strip_suffix(".0").unwrap_or(&text).parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_that_says_nothing_is_none() {
        for nothing in [json!(null), json!(false), json!(""), json!({}), json!([])] {
            assert!(!has_error(&json!({"error": nothing, "choices": []})), "{nothing}");
        }
        for error in [json!("no"), json!({"code": 1}), json!(["no"]), json!(true)] {
            assert!(has_error(&json!({"error": error})), "{error}");
        }
    }

    #[test]
    fn an_error_may_be_in_a_list_or_call_itself_one() {
        for value in [
            json!([{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}]),
            json!({"object": "error", "message": "too long", "code": 400}),
        ] {
            assert!(has_error(&value), "{value}");
        }
        assert!(!has_error(&json!([{"object": "list", "error": null}])));
    }

    #[test]
    fn a_count_that_is_none_lets_no_check_pass() {
        let usage = json!({"a": "12", "b": 3.0, "c": -1, "d": null, "e": {"f": 4}});
        let read = ["/a", "/b", "/c", "/d", "/e/f", "/g"].map(|place| count(&usage, place));
        assert_eq!(read, [Some(12), Some(3), Some(u64::MAX), None, Some(4), None]);
    }
}
