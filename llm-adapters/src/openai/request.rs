//! The JSON body of a Chat Completions request. Pure.
//! Invariant: what [`ChatRequest::extra`] says wins, except that a stream always asks for usage.

use prompt_engine_core::{ChatRequest, Message, ToolCall};
use serde_json::{Map, Value, json};

/// The body of `request`; `newer_names` for OpenAI itself, whose reasoning models refuse `max_tokens`.
pub(super) fn body(request: &ChatRequest, streamed: bool, newer_names: bool) -> Value {
    let mut body = Map::new();
    body.insert("model".into(), json!(request.model));
    body.insert("messages".into(), request.messages.iter().map(message).collect());
    if let Some(temperature) = request.temperature {
        body.insert("temperature".into(), json!(temperature));
    }
    let names = ["max_tokens", "max_completion_tokens"];
    if let Some(limit) = request.max_tokens
        && !names.iter().any(|name| request.extra.contains_key(*name))
    {
        body.insert(names[usize::from(newer_names)].into(), json!(limit));
    }
    body.extend(request.extra.clone());
    if streamed {
        body.insert("stream".into(), json!(true));
        let options = body.entry("stream_options").or_insert_with(|| json!({}));
        if !options.is_object() {
            *options = json!({});
        }
        options["include_usage"] = json!(true);
    } else {
        body.remove("stream");
        body.remove("stream_options");
    }
    Value::Object(body)
}

fn message(message: &Message) -> Value {
    let mut fields = Map::new();
    fields.insert("role".into(), json!(message.role.as_str()));
    let only_tools = message.content.is_empty() && !message.tool_calls.is_empty();
    let content = if only_tools { Value::Null } else { json!(message.content) };
    fields.insert("content".into(), content);
    if !message.tool_calls.is_empty() {
        fields.insert("tool_calls".into(), message.tool_calls.iter().map(tool_call).collect());
    }
    if let Some(id) = &message.tool_call_id {
        fields.insert("tool_call_id".into(), json!(id));
    }
    Value::Object(fields)
}

fn tool_call(call: &ToolCall) -> Value {
    json!({
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_wins_and_a_stream_asks_for_usage() {
        let mut request = ChatRequest::new("m", vec![Message::user("hi")]);
        request.max_tokens = Some(7);
        request.extra.insert("temperature".into(), json!(0.5));
        request.extra.insert("stream_options".into(), json!({"include_obfuscation": false}));
        let streamed = body(&request, true, false);
        assert_eq!(streamed["max_tokens"], 7);
        assert_eq!(streamed["temperature"], 0.5);
        assert_eq!(streamed["stream"], true);
        assert_eq!(
            streamed["stream_options"],
            json!({"include_obfuscation": false, "include_usage": true})
        );
        let plain = body(&request, false, true);
        assert_eq!(plain["max_completion_tokens"], 7);
        assert!(plain.get("max_tokens").is_none() && plain.get("stream_options").is_none());
    }

    #[test]
    fn an_assistant_that_only_calls_tools_has_null_content() {
        let call = ToolCall { id: "c".into(), name: "f".into(), arguments: "{}".into() };
        let mut said = Message::assistant("");
        said.tool_calls = vec![call];
        let request = ChatRequest::new("m", vec![said, Message::tool("c", "4")]);
        assert_eq!(
            body(&request, false, false)["messages"],
            json!([
                {"role": "assistant", "content": null, "tool_calls": [
                    {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
                {"role": "tool", "content": "4", "tool_call_id": "c"},
            ])
        );
    }
}
