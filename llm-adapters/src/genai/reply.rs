//! What an answer has said so far, and the [`Reader`] that each protocol has.
//! Invariant: an odd field never fails a reply; where counts are sent again, the largest stands.

use prompt_engine_core::{ChatReply, TokenCounts, ToolCall};
use serde_json::{Map, Value, json};

use crate::json::text;

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
}
