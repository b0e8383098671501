//! A response object as a [`ChatReply`], plain or from the last event of a stream.
//! Invariant: an odd field never fails a reply; only an answer that is no response, or one that
//! says of itself that it failed, does.

use prompt_engine_core::{ChatReply, ErrorCategory, LlmError, ToolCall};
use serde_json::Value;

use crate::connection::{Facts, Head, error};
use crate::json::{has_error, text};

/// The type of the items that hold what a model thought.
pub(super) const REASONING: &str = "reasoning";

/// The reply that `response`, parsed from `raw`, holds; `items` are its output where it holds none.
pub(super) fn read(
    response: &Value,
    raw: &str,
    items: Option<&[Value]>,
    head: &Head,
) -> Result<ChatReply, LlmError> {
    let mut facts = Facts::default();
    facts.note(response, raw);
    let status = text(response, "status");
    if let Some(error) = failure(response, status, head) {
        return Err(error::paid(error, facts.tokens));
    }
    let own = response.get("output").and_then(Value::as_array).filter(|own| !own.is_empty());
    let mut output = Output::default();
    for item in own.map_or(items.unwrap_or_default(), Vec::as_slice) {
        output.take(item);
    }
    let Output { content, refusal, annotations, calls, others, .. } = output;
    if let Some(refusal) = refusal {
        facts.kept.insert("refusal".into(), refusal.into());
    }
    if !annotations.is_empty() {
        facts.kept.insert("annotations".into(), annotations.into());
    }
    if !others.is_empty() {
        facts.kept.insert("other_items".into(), others.into());
    }
    let reason = response.pointer("/incomplete_details/reason").and_then(Value::as_str);
    facts.finish_reason = reason.or(status).map(str::to_owned);
    Ok(facts.reply(content, calls, head))
}

/// What became of a response that is no reply.
fn failure(response: &Value, status: Option<&str>, head: &Head) -> Option<LlmError> {
    if has_error(response) {
        return Some(error::from_value(response, head));
    }
    let (category, message) = match status? {
        "failed" => {
            (ErrorCategory::Server, "the server says that the response failed, and not why")
        }
        "cancelled" => (ErrorCategory::Cancelled, "the response was cancelled at the server"),
        _ => return None,
    };
    Some(LlmError::new(category, message))
}

/// What the items of an output say.
#[derive(Default)]
struct Output {
    content: Option<String>,
    refusal: Option<String>,
    annotations: Vec<Value>,
    calls: Vec<ToolCall>,
    /// The types of items that are neither: what the server did on its own, such as `web_search_call`.
    others: Vec<Value>,
    /// Reasoning that can be sent back, until the call that it led to.
    reasoning: Option<String>,
}

impl Output {
    fn take(&mut self, item: &Value) {
        match text(item, "type").unwrap_or("message") {
            "message" => self.take_message(item),
            "function_call" => {
                let arguments = match item.get("arguments") {
                    Some(Value::String(arguments)) => arguments.clone(),
                    Some(whole @ Value::Object(_)) => whole.to_string(),
                    _ => String::new(),
                };
                self.call(item, arguments);
            }
            // Its input is free text.
            "custom_tool_call" => {
                self.call(item, text(item, "input").unwrap_or_default().to_owned());
            }
            REASONING => {
                let sealed = text(item, "encrypted_content").is_some();
                self.reasoning = sealed.then(|| item.to_string());
            }
            other => self.others.push(other.into()),
        }
    }

    fn take_message(&mut self, item: &Value) {
        let parts = match item.get("content") {
            Some(Value::Array(parts)) => parts.as_slice(),
            Some(Value::String(whole)) => {
                return self.content.get_or_insert_default().push_str(whole);
            }
            _ => return,
        };
        for part in parts {
            if let Some(refusal) = text(part, "refusal") {
                self.refusal.get_or_insert_default().push_str(refusal);
            }
            if let Some(said) = part.get("text").and_then(Value::as_str) {
                self.content.get_or_insert_default().push_str(said);
            }
            let annotations = part.get("annotations").and_then(Value::as_array);
            self.annotations.extend(annotations.into_iter().flatten().cloned());
        }
    }

    fn call(&mut self, item: &Value, arguments: String) {
        let id = text(item, "call_id").or_else(|| text(item, "id")).unwrap_or_default().to_owned();
        let name = text(item, "name").unwrap_or_default().to_owned();
        self.calls.push(ToolCall { id, name, arguments, signature: self.reasoning.take() });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Responses;
    use super::*;
    use crate::connection;

    fn read(value: &Value) -> Result<ChatReply, LlmError> {
        let head = Head { status: 200, ..Head::default() };
        connection::read::<Responses>(&value.to_string(), &head)
    }

    fn part(text: &str) -> Value {
        json!({"type": "output_text", "text": text, "annotations": []})
    }

    #[test]
    fn text_calls_and_what_else_happened_are_kept_apart() {
        let cited = json!({"type": "output_text", "text": "b",
            "annotations": [{"type": "url_citation", "url": "https://e.org"}]});
        let thought = json!({"type": "reasoning", "id": "rs", "summary": [],
            "encrypted_content": "gAAAA"});
        let reply = read(&json!({
            "id": "resp_1", "model": "m-1", "status": "completed", "service_tier": "flex",
            "output": [
                {"type": "web_search_call", "id": "ws", "status": "completed"},
                {"type": "message", "role": "assistant", "content": [part("a"), cited]},
                thought,
                {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}"},
                {"type": "function_call", "call_id": "c2", "name": "g", "arguments": {"x": 1}},
                {"type": "message", "content": [part("c"), {"type": "unheard_of"}]},
            ],
            "usage": {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 4},
                "output_tokens": 8, "output_tokens_details": {"reasoning_tokens": 5}},
        }))
        .expect("a reply");
        assert_eq!(reply.content.as_deref(), Some("abc"));
        let calls: Vec<_> =
            reply.tool_calls.iter().map(|c| (c.id.as_str(), c.arguments.as_str())).collect();
        assert_eq!(calls, [("c1", "{}"), ("c2", r#"{"x":1}"#)]);
        let signature = reply.tool_calls[0].signature.as_deref().expect("a signature");
        assert_eq!(serde_json::from_str::<Value>(signature).expect("JSON"), thought);
        assert_eq!(reply.tool_calls[1].signature, None);
        assert_eq!(reply.finish_reason.as_deref(), Some("completed"));
        assert_eq!(reply.service_tier.as_deref(), Some("flex"));
        assert_eq!(reply.metadata["other_items"], json!(["web_search_call"]));
        assert_eq!(reply.metadata["annotations"][0]["url"], "https://e.org");
        let tokens = reply.tokens.expect("tokens");
        assert_eq!((tokens.input, tokens.cache_read), (9, 4));
        assert_eq!((tokens.output, tokens.reasoning), (8, 5));
    }

    #[test]
    fn the_finish_reason_is_why_it_is_incomplete_and_else_the_status() {
        for (response, expected) in [
            (
                json!({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"},
                "output": []}),
                Some("max_output_tokens"),
            ),
            (json!({"status": "incomplete", "output": []}), Some("incomplete")),
            (json!({"status": "queued", "output": [], "usage": null}), Some("queued")),
            (json!({"status": "in_progress"}), Some("in_progress")),
            (json!({"output": []}), None),
        ] {
            let reply = read(&response).expect("a reply");
            assert_eq!(reply.finish_reason.as_deref(), expected);
            assert_eq!((reply.content, reply.tokens), (None, None));
        }
    }

    #[test]
    fn a_refusal_is_no_content() {
        let refusal = json!({"type": "refusal", "refusal": "I cannot."});
        let message = json!({"type": "message", "content": [refusal]});
        let reply = read(&json!({"status": "completed", "output": [message]})).expect("a reply");
        assert_eq!(reply.content, None);
        assert_eq!(reply.metadata["refusal"], "I cannot.");
    }

    #[test]
    fn what_failed_is_an_error_of_its_category() {
        use ErrorCategory as C;
        let failed = |code: &str, message: &str| json!({"status": "failed", "error": {"code": code, "message": message}});
        let flagged = "Your prompt was flagged as potentially violating our usage policy.";
        for (response, category, code) in [
            (failed("server_error", "sorry"), C::Server, Some("server_error")),
            (failed("rate_limit_exceeded", "slow"), C::RateLimit, Some("rate_limit_exceeded")),
            (
                failed("context_length_exceeded", "long"),
                C::ContextLength,
                Some("context_length_exceeded"),
            ),
            (failed("invalid_prompt", flagged), C::ContentFilter, Some("invalid_prompt")),
            (failed("invalid_prompt", "no"), C::InvalidRequest, Some("invalid_prompt")),
            (
                failed("image_content_policy_violation", "no"),
                C::ContentFilter,
                Some("image_content_policy_violation"),
            ),
            (failed("image_too_large", "no"), C::InvalidRequest, Some("image_too_large")),
            (failed("vector_store_timeout", "late"), C::Timeout, Some("vector_store_timeout")),
            (json!({"status": "failed", "error": null}), C::Server, None),
            (json!({"status": "cancelled", "output": []}), C::Cancelled, None),
            (json!({"object": "list", "data": []}), C::Server, None),
        ] {
            let error = read(&response).expect_err("an error");
            assert_eq!((error.category(), error.code()), (category, code), "{response}");
        }
    }
}
