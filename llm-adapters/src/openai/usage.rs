//! What an answer used: tokens and, where a server says it, cost. Pure.
//! Invariant: a cost is read from the digits on the wire, never through a float.

use std::str::FromStr;

use prompt_engine_core::{TokenCounts, Usd};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::json::count;

/// The counts of a usage object; `None` where it counts neither input nor output.
/// A count that is no number of tokens becomes one that no check lets pass.
pub(super) fn tokens(usage: &Value) -> Option<TokenCounts> {
    let first = |paths: &[&str]| paths.iter().find_map(|path| count(usage, path));
    let input = first(&["/prompt_tokens", "/input_tokens"]);
    let output = first(&["/completion_tokens", "/output_tokens"]);
    if input.is_none() && output.is_none() {
        return None;
    }
    let either = |input: &str, output: &str| first(&[input, output]).unwrap_or(0);
    let mut tokens = TokenCounts {
        input: input.unwrap_or(0),
        output: output.unwrap_or(0),
        cache_read: first(&[
            "/prompt_tokens_details/cached_tokens",
            "/input_tokens_details/cached_tokens",
            "/prompt_cache_hit_tokens",
        ])
        .unwrap_or(0),
        cache_write: either(
            "/prompt_tokens_details/cache_write_tokens",
            "/input_tokens_details/cache_write_tokens",
        ),
        cache_write_1h: 0,
        reasoning: either(
            "/completion_tokens_details/reasoning_tokens",
            "/output_tokens_details/reasoning_tokens",
        ),
        audio_input: either(
            "/prompt_tokens_details/audio_tokens",
            "/input_tokens_details/audio_tokens",
        ),
        audio_output: either(
            "/completion_tokens_details/audio_tokens",
            "/output_tokens_details/audio_tokens",
        ),
    };
    // xAI counts reasoning beside the completion; the total gives it away.
    let apart = tokens.output.saturating_add(tokens.reasoning);
    if tokens.reasoning > 0 && first(&["/total_tokens"]) == Some(tokens.input.saturating_add(apart))
    {
        tokens.output = apart;
    }
    Some(tokens)
}

/// The cost in the usage object of `raw`, from its digits: `cost` as OpenRouter has it, or its `total_cost`
/// as Perplexity has it.
pub(super) fn cost(raw: &str) -> Option<Usd> {
    #[derive(Deserialize)]
    struct Body<'r> {
        #[serde(borrow)]
        usage: Usage<'r>,
    }
    #[derive(Deserialize)]
    struct Usage<'r> {
        #[serde(borrow)]
        cost: &'r RawValue,
    }
    #[derive(Deserialize)]
    struct Parts<'r> {
        #[serde(borrow)]
        total_cost: &'r RawValue,
    }
    let body: Body<'_> = serde_json::from_str(raw).ok()?;
    let cost = body.usage.cost.get();
    if cost.starts_with('{') {
        let parts: Parts<'_> = serde_json::from_str(cost).ok()?;
        return amount(parts.total_cost.get());
    }
    amount(cost)
}

fn amount(number: &str) -> Option<Usd> {
    let number = number.trim_matches('"');
    let exact = Decimal::from_str(number).or_else(|_| Decimal::from_scientific(number)).ok()?;
    (!exact.is_sign_negative() || exact.is_zero()).then(|| Usd::rounded(exact))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cost_keeps_its_digits() {
        for (wire, expected) in [
            ("0.00014", Some("0.00014")),
            ("1.5E-6", Some("0.0000015")),
            ("0.1000000000000000055", Some("0.1")),
            ("0", Some("0")),
            (r#"{"total_cost": 0.00995}"#, Some("0.00995")),
            ("-1", None),
            ("null", None),
        ] {
            let body = format!(r#"{{"usage":{{"prompt_tokens":1,"cost":{wire}}}}}"#);
            assert_eq!(cost(&body).map(|usd| usd.to_string()).as_deref(), expected, "{wire}");
        }
    }

    #[test]
    fn reasoning_counted_apart_is_put_into_the_output() {
        let usage = json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 45,
            "completion_tokens_details": {"reasoning_tokens": 30}});
        assert_eq!(tokens(&usage).map(|t| (t.output, t.reasoning)), Some((35, 30)));
    }

    #[test]
    fn audio_is_counted_on_both_sides() {
        let usage = json!({"prompt_tokens": 40, "completion_tokens": 30,
            "prompt_tokens_details": {"audio_tokens": 25, "text_tokens": 15},
            "completion_tokens_details": {"audio_tokens": 20}});
        let counted = tokens(&usage).expect("tokens");
        assert_eq!((counted.audio_input, counted.audio_output), (25, 20));
        assert_eq!((counted.input, counted.output), (40, 30));
    }
}
