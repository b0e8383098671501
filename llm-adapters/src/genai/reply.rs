//! What an answer has said so far, and the [`Reader`] that each protocol has.
//! Invariant: an odd field never fails a reply; where counts are sent again, the largest stands.

use prompt_engine_core::{ChatReply, TokenCounts, ToolCall};
use serde_json::{Map, Value, json};

/// Reads the answers of one protocol: one body, or the frames of one stream.
pub(super) trait Reader: Send {
    /// Notes a body; `false` where it holds no answer.
    fn whole(&mut self, body: &Value) -> bool;

    /// Notes a frame.
    fn frame(&mut self, frame: &Value) -> Step;

    /// What has been said so far.
    fn draft(&self) -> &Draft;

    /// The reply, once it is whole. Leaves nothing behind.
    fn reply(&mut self) -> ChatReply;
}

/// What a frame brought.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Step {
    /// Text for the caller.
    pub(super) text: String,
    /// Whether the model made anything: text, a thought, a part of a tool call.
    pub(super) token: bool,
    /// Whether nothing follows.
    pub(super) last: bool,
}

#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) id: Option<String>,
    pub(super) model: Option<String>,
    pub(super) text: Option<String>,
    pub(super) finish_reason: Option<String>,
    /// Further fields for the metadata.
    pub(super) kept: Map<String, Value>,
    usage: Value,
}

impl Draft {
    pub(super) fn push_text(&mut self, text: &str) {
        self.text.get_or_insert_default().push_str(text);
    }

    pub(super) fn note_usage(&mut self, usage: Option<&Value>) {
        if let Some(usage) = usage.filter(|usage| usage.is_object()) {
            keep_largest(&mut self.usage, usage);
        }
    }

    /// The reply with its usage read by `tokens` and its tier from the field `tier` of the usage.
    pub(super) fn reply(
        self,
        tool_calls: Vec<ToolCall>,
        tokens: impl FnOnce(&Value) -> Option<TokenCounts>,
        tier: &str,
    ) -> ChatReply {
        let mut metadata = self.kept;
        if let Some(id) = self.id {
            metadata.insert("id".into(), json!(id));
        }
        let tokens = tokens(&self.usage);
        let service_tier = text(&self.usage, tier).map(str::to_owned);
        if !self.usage.is_null() {
            metadata.insert("usage".into(), self.usage);
        }
        ChatReply {
            content: self.text,
            tool_calls,
            finish_reason: self.finish_reason,
            model: self.model,
            tokens,
            service_tier,
            http_status: Some(200), // the one success of both protocols
            metadata: if metadata.is_empty() { Value::Null } else { Value::Object(metadata) },
            ..ChatReply::default()
        }
    }
}

/// Whether `value` reports an error in the place of an answer.
pub(super) fn has_error(value: &Value) -> bool {
    value.get("error").is_some_and(|error| !error.is_null())
}

/// A text that is there and not empty.
pub(super) fn text<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// A count that is there. One that is no number of tokens becomes one that no check lets pass.
pub(super) fn count(usage: &Value, pointer: &str) -> Option<u64> {
    let field = usage.pointer(pointer).filter(|field| !field.is_null())?;
    let text = match field {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Some(text.strip_suffix(".0").unwrap_or(&text).parse().unwrap_or(u64::MAX))
}

fn keep_largest(known: &mut Value, said: &Value) {
    match (known, said) {
        (_, Value::Null) => {}
        (Value::Object(known), Value::Object(said)) => {
            for (name, value) in said {
                keep_largest(known.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Number(known), Value::Number(said)) if known.as_u64() >= said.as_u64() => {}
        (known, said) => *known = said.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_count_stands_and_nothing_takes_one_away() {
        let mut draft = Draft::default();
        draft.note_usage(Some(&json!({"in": 9, "out": 1, "cache": {"hour": 4}, "tier": "a"})));
        draft.note_usage(Some(&json!({"in": 0, "out": 7, "cache": {"hour": 0}, "tier": null})));
        draft.note_usage(Some(&json!("odd")));
        draft.note_usage(Some(&json!({"out": 5, "cache": null})));
        assert_eq!(draft.usage, json!({"in": 9, "out": 7, "cache": {"hour": 4}, "tier": "a"}));
    }

    #[test]
    fn a_count_that_is_none_lets_no_check_pass() {
        let usage = json!({"a": "12", "b": 3.0, "c": -1, "d": null, "e": {"f": 4}});
        let read = ["/a", "/b", "/c", "/d", "/e/f", "/g"].map(|place| count(&usage, place));
        assert_eq!(read, [Some(12), Some(3), Some(u64::MAX), None, Some(4), None]);
    }
}
