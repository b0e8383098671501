//! The form of an answer as Anthropic takes it. Pure.
//! After <https://platform.claude.com/docs/en/build-with-claude/structured-outputs>: every object says
//! that it has no further fields, and there is no `oneOf`.

use serde_json::{Map, Value, json};

/// `schema` with closed objects; what says otherwise itself is left as it is.
pub(super) fn closed(schema: &Value) -> Value {
    let Value::Object(fields) = schema else { return schema.clone() };
    let mut closed_fields = Map::new();
    for (name, value) in fields {
        let name = match name.as_str() {
            "oneOf" if !fields.contains_key("anyOf") => "anyOf",
            name => name,
        };
        closed_fields.insert(name.to_owned(), within(name, value));
    }
    let is_object = fields.get("type").is_some_and(|kind| kind == "object");
    if is_object || fields.contains_key("properties") {
        closed_fields.entry("additionalProperties").or_insert(json!(false));
    }
    Value::Object(closed_fields)
}

/// The value of the keyword `name`, with the schemas in it closed.
fn within(name: &str, value: &Value) -> Value {
    match (name, value) {
        ("properties" | "patternProperties" | "$defs" | "definitions", Value::Object(schemas)) => {
            schemas.iter().map(|(name, schema)| (name.clone(), closed(schema))).collect()
        }
        ("allOf" | "anyOf" | "oneOf" | "prefixItems" | "items", Value::Array(schemas)) => {
            schemas.iter().map(closed).collect()
        }
        ("items" | "additionalProperties" | "not", _) => closed(value),
        _ => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_closed_wherever_they_are_and_nothing_else_is_touched() {
        let open = json!({"type": "object", "properties": {
            "properties": {"type": "array", "items": {"properties": {}}},
            "kind": {"oneOf": [{"type": "object"}, {"type": "null"}]},
            "free": {"type": "object", "additionalProperties": {"type": "object"}},
            "fixed": {"const": {"type": "object"}, "enum": [{"type": "object"}]},
        }, "$defs": {"d": {"type": "object"}}});
        let no = false;
        let expected = json!({"type": "object", "additionalProperties": no, "properties": {
            "properties": {"type": "array", "items": {"properties": {}, "additionalProperties": no}},
            "kind": {"anyOf": [{"type": "object", "additionalProperties": no}, {"type": "null"}]},
            "free": {"type": "object",
                "additionalProperties": {"type": "object", "additionalProperties": no}},
            "fixed": {"const": {"type": "object"}, "enum": [{"type": "object"}]},
        }, "$defs": {"d": {"type": "object", "additionalProperties": no}}});
        assert_eq!(closed(&open), expected);
    }
}
