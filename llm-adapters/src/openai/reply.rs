//! A Chat Completions answer as a [`ChatReply`], from whatever shape compatible servers give it.
//! Invariant: an odd field never fails a reply; only an answer without any choice does.
//! A cost is read from the digits on the wire, never through a float.

use std::str::FromStr;

use prompt_engine_core::{ChatReply, LlmError, TokenCounts, ToolCall, Usd};
use reqwest::header::HeaderMap;
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::error::{self, Redactor};
use super::transport::header;

/// The reply in the body of a success.
pub(super) fn parse(
    body: &str,
    headers: &HeaderMap,
    redactor: &Redactor,
) -> Result<ChatReply, LlmError> {
    let unreadable = || {
        let message = "the server's answer is no chat completion";
        error::unreadable(message, &redactor.text(body)).with_http_status(200)
    };
    let value: Value = serde_json::from_str(body).map_err(|_| unreadable())?;
    if has_error(&value) {
        return Err(error::from_frame(&value, headers, redactor));
    }
    let choice = value.pointer("/choices/0").ok_or_else(unreadable)?;
    if has_error(choice) {
        return Err(error::from_frame(choice, headers, redactor));
    }
    let empty = Value::Null;
    let message = choice.get("message").unwrap_or(&empty);
    let mut facts = Facts::default();
    facts.note(&value, body);
    let mut tools = Tools::default();
    tools.note(message);
    facts.refusal = text(message, "refusal").map(str::to_owned);
    Ok(facts.reply(content(message), tools, text(choice, "finish_reason"), headers))
}

/// Whether `value` reports an error in the place of an answer.
pub(super) fn has_error(value: &Value) -> bool {
    value.get("error").is_some_and(|error| !error.is_null())
}

/// A text that is there and not empty.
pub(super) fn text<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// The text of a message or of a delta: a string, or the text parts of a list.
pub(super) fn content(message: &Value) -> Option<String> {
    match message.get("content")? {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            Some(parts.iter().filter_map(|part| part.get("text")?.as_str()).collect())
        }
        _ => None,
    }
}

/// What a body, or the chunks of a stream, say beside text and tools. The latest word stands.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) id: Option<String>,
    pub(super) model: Option<String>,
    pub(super) refusal: Option<String>,
    service_tier: Option<String>,
    kept: Map<String, Value>,
    tokens: Option<TokenCounts>,
    cost: Option<Usd>,
}

impl Facts {
    /// Notes what `value`, parsed from `raw`, says.
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
        // Groq puts the usage of a stream into a field of its own.
        let usage = [value.get("usage"), value.pointer("/x_groq/usage")]
            .into_iter()
            .flatten()
            .find(|usage| usage.is_object());
        let Some(usage) = usage else { return };
        if let Some(tokens) = tokens(usage) {
            self.tokens = Some(tokens);
        }
        if let Some(tier) = text(usage, "service_tier") {
            self.service_tier.get_or_insert_with(|| tier.to_owned());
        }
        if usage.get("cost").is_some() {
            self.cost = cost(raw).or(self.cost);
        }
        self.kept.insert("usage".into(), usage.clone());
    }

    /// The reply that these facts complete.
    pub(super) fn reply(
        self,
        content: Option<String>,
        tools: Tools,
        finish_reason: Option<&str>,
        headers: &HeaderMap,
    ) -> ChatReply {
        let mut metadata = self.kept;
        if let Some(id) = self.id {
            metadata.insert("id".into(), json!(id));
        }
        if let Some(refusal) = self.refusal {
            metadata.insert("refusal".into(), json!(refusal));
        }
        if let Some(id) = header(headers, "x-request-id") {
            metadata.insert("request_id".into(), json!(id));
        }
        ChatReply {
            content,
            tool_calls: tools.calls.into_iter().map(|(_, call)| call).collect(),
            finish_reason: finish_reason.map(str::to_owned),
            model: self.model,
            tokens: self.tokens,
            service_tier: self.service_tier,
            reported_cost: self.cost,
            from_local_cache: false,
            http_status: Some(200), // the one success of this API
            metadata: if metadata.is_empty() { Value::Null } else { Value::Object(metadata) },
        }
    }
}

/// Tool calls, put together from one message or from the deltas of a stream.
#[derive(Debug, Default)]
pub(super) struct Tools {
    calls: Vec<(Option<u64>, ToolCall)>,
}

impl Tools {
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Notes the tool calls of a message or of a delta.
    pub(super) fn note(&mut self, message: &Value) {
        for part in message.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
            let id = text(part, "id");
            let function = part.get("function").unwrap_or(part);
            let call = self.place(part.get("index").and_then(Value::as_u64), id);
            if let Some(id) = id {
                id.clone_into(&mut call.id);
            }
            add_function(call, function);
        }
        // The form before tools; some servers still speak it.
        if let Some(function) = message.get("function_call").filter(|call| call.is_object()) {
            add_function(self.place(Some(0), None), function);
        }
    }

    /// The call that a part belongs to: that of its index; without one, a new call where the part
    /// brings an id, else the latest.
    fn place(&mut self, index: Option<u64>, id: Option<&str>) -> &mut ToolCall {
        let known = match (index, id) {
            (Some(_), _) => self.calls.iter().position(|(at, _)| *at == index),
            (None, Some(id)) => self.calls.iter().position(|(_, call)| call.id == id),
            (None, None) => self.calls.len().checked_sub(1),
        };
        let at = known.unwrap_or_else(|| {
            self.calls.push((index, ToolCall::default()));
            self.calls.len() - 1
        });
        &mut self.calls[at].1
    }
}

fn add_function(call: &mut ToolCall, function: &Value) {
    if let Some(name) = text(function, "name") {
        name.clone_into(&mut call.name);
    }
    match function.get("arguments") {
        Some(Value::String(part)) => call.arguments.push_str(part),
        Some(whole @ Value::Object(_)) => call.arguments = whole.to_string(),
        _ => {}
    }
}

/// The counts of a usage object; `None` where it counts neither input nor output.
/// A count that is no number of tokens becomes one that no check lets pass.
fn tokens(usage: &Value) -> Option<TokenCounts> {
    let first = |paths: &[&str]| {
        let field = paths.iter().find_map(|path| usage.pointer(path).filter(|v| !v.is_null()))?;
        Some(count(field))
    };
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

fn count(field: &Value) -> u64 {
    let text = match field {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.strip_suffix(".0").unwrap_or(&text).parse().unwrap_or(u64::MAX)
}

/// The cost in a usage object, from its digits: `cost` as OpenRouter has it, or its `total_cost`
/// as Perplexity has it.
fn cost(raw: &str) -> Option<Usd> {
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
    use super::*;

    fn read(body: &str) -> Result<ChatReply, LlmError> {
        parse(body, &HeaderMap::new(), &Redactor::new("".into()))
    }

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
            let body = format!(
                r#"{{"choices":[{{"message":{{"content":"x"}}}}],"usage":{{"prompt_tokens":1,"cost":{wire}}}}}"#
            );
            let cost = read(&body).expect("a reply").reported_cost.map(|usd| usd.to_string());
            assert_eq!(cost.as_deref(), expected, "{wire}");
        }
    }

    #[test]
    fn odd_fields_do_not_break_a_reply() {
        let body = r#"{"id":7,"model":null,"choices":[{"index":"0","message":{"content":[
            {"type":"thinking"},{"type":"text","text":"a"},{"type":"text","text":"b"}],
            "tool_calls":[{"function":{"name":"f","arguments":{"x":1}}}]},"finish_reason":3}],
            "usage":{"prompt_tokens":-1,"completion_tokens":"4"}}"#;
        let reply = read(body).expect("a reply");
        assert_eq!(reply.content.as_deref(), Some("ab"));
        assert_eq!(reply.tool_calls[0].arguments, r#"{"x":1}"#);
        let tokens = reply.tokens.expect("tokens");
        assert_eq!(tokens.output, 4);
        assert!(tokens.check().is_err());
    }

    #[test]
    fn reasoning_counted_apart_is_put_into_the_output() {
        let usage = json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 45,
            "completion_tokens_details": {"reasoning_tokens": 30}});
        assert_eq!(tokens(&usage).map(|t| (t.output, t.reasoning)), Some((35, 30)));
    }

    #[test]
    fn an_error_in_a_success_is_an_error() {
        let error = read(r#"{"error":{"message":"slow down","code":429}}"#).expect_err("an error");
        assert_eq!(error.category(), prompt_engine_core::ErrorCategory::RateLimit);
    }
}
