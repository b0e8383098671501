//! What both APIs of OpenAI and of servers that speak like it say beside text and tools.

use prompt_engine_core::TokenCounts;
use serde_json::{Value, json};

use super::usage;
use crate::connection::Facts;
use crate::json::text;

impl Facts {
    /// Notes what `value`, parsed from `raw`, says. The latest word stands, but of usage the largest.
    pub(super) fn note(&mut self, value: &Value, raw: &str) {
        if let Some(id) = text(value, "id") {
            self.id = Some(id.to_owned());
        }
        if let Some(model) = text(value, "model") {
            self.model = Some(model.to_owned());
        }
        if let Some(tier) = text(value, "service_tier") {
            self.service_tier = Some(tier.to_owned());
        }
        for name in ["system_fingerprint", "provider"] {
            if let Some(said) = text(value, name) {
                self.kept.insert(name.into(), json!(said));
            }
        }
        // Groq puts the usage of a stream into a field of its own, Moonshot into the last choice.
        let places = ["/usage", "/x_groq/usage", "/choices/0/usage"];
        let usage = places
            .map(|place| value.pointer(place))
            .into_iter()
            .flatten()
            .find(|usage| usage.is_object());
        let Some(usage) = usage else { return };
        let sum = |tokens: TokenCounts| tokens.input.saturating_add(tokens.output);
        let tokens = usage::tokens(usage);
        // Some servers count up from frame to frame, and some say zero at the end.
        if tokens.map(sum) < self.tokens.map(sum) {
            return;
        }
        self.tokens = tokens;
        if let Some(tier) = text(usage, "service_tier") {
            self.service_tier.get_or_insert_with(|| tier.to_owned());
        }
        if usage.get("cost").is_some() {
            self.cost = usage::cost(raw).or(self.cost);
        }
        self.usage = usage.clone();
    }
}

/// What `value` says that it used.
pub(super) fn tokens(value: &Value) -> Option<TokenCounts> {
    let mut facts = Facts::default();
    facts.note(value, "");
    facts.tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(usages: &[Value]) -> Option<[u64; 2]> {
        let mut facts = Facts::default();
        for usage in usages {
            let value = json!({"usage": usage});
            facts.note(&value, &value.to_string());
        }
        facts.tokens.map(|tokens| [tokens.input, tokens.output])
    }

    #[test]
    fn of_several_usages_the_largest_counts() {
        let usage = |input, output| json!({"prompt_tokens": input, "completion_tokens": output});
        assert_eq!(noted(&[usage(9, 1), usage(9, 2), usage(9, 30)]), Some([9, 30]));
        assert_eq!(noted(&[usage(9, 30), usage(0, 0)]), Some([9, 30]));
        assert_eq!(noted(&[usage(9, 0), Value::Null, json!({})]), Some([9, 0]));
        assert_eq!(noted(&[Value::Null, json!({"total_time": 1})]), None);
    }

    #[test]
    fn usage_beside_the_last_words_counts() {
        let usage = json!({"prompt_tokens": 9, "completion_tokens": 4});
        let value = json!({"choices": [{"delta": {}, "finish_reason": "stop", "usage": usage}]});
        let mut facts = Facts::default();
        facts.note(&value, &value.to_string());
        assert_eq!(facts.tokens.map(|tokens| (tokens.input, tokens.output)), Some((9, 4)));
    }
}
