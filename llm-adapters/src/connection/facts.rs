//! What an answer says beside its text and its tool calls.

use prompt_engine_core::{ChatReply, TokenCounts, ToolCall, Usd};
use serde_json::{Map, Value, json};

use super::Head;

/// What a body, or the frames of a stream, say beside text and tools.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) id: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) finish_reason: Option<String>,
    pub(crate) service_tier: Option<String>,
    pub(crate) tokens: Option<TokenCounts>,
    pub(crate) cost: Option<Usd>,
    /// The usage as it came.
    pub(crate) usage: Value,
    /// What else is worth keeping and has no field of its own.
    pub(crate) kept: Map<String, Value>,
}

impl Facts {
    /// Notes a usage that may be told again, in parts: of each count the largest stands. `tokens`
    /// reads the counts of what is known by then.
    #[cfg(any(feature = "anthropic", feature = "gemini"))]
    pub(crate) fn note_usage(
        &mut self,
        usage: Option<&Value>,
        tokens: fn(&Value) -> Option<TokenCounts>,
    ) {
        if let Some(usage) = usage.filter(|usage| usage.is_object()) {
            keep_largest(&mut self.usage, usage);
            self.tokens = tokens(&self.usage);
        }
    }

    /// The reply that these facts complete.
    pub(crate) fn reply(
        self,
        content: Option<String>,
        tool_calls: Vec<ToolCall>,
        head: &Head,
    ) -> ChatReply {
        let mut metadata = self.kept;
        if let Some(id) = self.id {
            metadata.insert("id".into(), json!(id));
        }
        if !self.usage.is_null() {
            metadata.insert("usage".into(), self.usage);
        }
        if let Some(id) = head.request_id() {
            metadata.insert("request_id".into(), json!(id));
        }
        ChatReply {
            content,
            tool_calls,
            finish_reason: self.finish_reason.map(|reason| head.redactor.text(&reason)),
            model: self.model.map(|model| head.redactor.text(&model)),
            tokens: self.tokens,
            service_tier: self.service_tier.map(|tier| head.redactor.text(&tier)),
            reported_cost: self.cost,
            from_local_cache: false,
            http_status: Some(head.status),
            metadata: match metadata.is_empty() {
                true => Value::Null,
                false => head.redactor.value(&Value::Object(metadata)),
            },
        }
    }
}

#[cfg(any(feature = "anthropic", feature = "gemini"))]
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

#[cfg(all(test, any(feature = "anthropic", feature = "gemini")))]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_echoes_of_a_key_is_not_kept() {
        let redactor = crate::http::Redactor::new(["sk-h0nt3r".into()]);
        let head = Head { redactor, ..Head::default() };
        let echo = || Some("bad sk-h0nt3r".to_owned());
        let mut facts = Facts {
            model: echo(),
            finish_reason: echo(),
            service_tier: echo(),
            ..Facts::default()
        };
        facts.kept.insert("finish_message".into(), json!("key sk-h0nt3r is old"));
        let reply = facts.reply(Some("sk-h0nt3r".into()), Vec::new(), &head);
        for fact in [reply.model, reply.finish_reason, reply.service_tier] {
            assert_eq!(fact.as_deref(), Some("bad [redacted]"));
        }
        assert_eq!(reply.metadata, json!({"finish_message": "key [redacted] is old"}));
        // The answer itself is the caller's; what is stored of it is for the redaction of the engine.
        assert_eq!(reply.content.as_deref(), Some("sk-h0nt3r"));
    }

    #[test]
    fn the_largest_count_stands_and_nothing_takes_one_away() {
        let mut facts = Facts::default();
        facts.note_usage(
            Some(&json!({"in": 9, "out": 1, "cache": {"hour": 4}, "tier": "a"})),
            |_| None,
        );
        facts.note_usage(
            Some(&json!({"in": 0, "out": 7, "cache": {"hour": 0}, "tier": null})),
            |_| None,
        );
        facts.note_usage(Some(&json!("odd")), |_| None);
        facts.note_usage(Some(&json!({"out": 5, "cache": null})), |_| None);
        assert_eq!(facts.usage, json!({"in": 9, "out": 7, "cache": {"hour": 4}, "tier": "a"}));
    }
}
