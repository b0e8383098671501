//! The JSON body of a Chat Completions request. Pure.
//! Invariant: what [`ChatRequest::extra`] says wins, except that a stream always asks for usage.

use prompt_engine_core::{ChatRequest, Image, Message, OutputSchema, ToolCall, ToolSpec};
use serde_json::{Map, Value, json};

use super::super::wording::{content, deliver, function, only_calls};
use crate::connection::Delivery;

/// The fields that limit the output, of which a server wants one.
const LIMITS: [&str; 2] = ["max_tokens", "max_completion_tokens"];

/// The body of `request`, whose limit of output tokens is the field `limit`.
pub(super) fn body(request: &ChatRequest, delivery: Delivery, limit: &str) -> Value {
    let mut body = Map::new();
    body.insert("model".into(), json!(request.model));
    body.insert("messages".into(), request.messages.iter().map(message).collect());
    if let Some(temperature) = request.temperature {
        body.insert("temperature".into(), json!(temperature));
    }
    if let Some(most) = request.max_tokens
        && !LIMITS.iter().any(|name| request.extra.contains_key(*name))
    {
        body.insert(limit.into(), json!(most));
    }
    if !request.tools.is_empty() {
        body.insert("tools".into(), request.tools.iter().map(tool).collect());
    }
    if let Some(OutputSchema { name, schema }) = &request.output_schema {
        let schema = json!({"name": name, "schema": schema, "strict": true});
        body.insert(
            "response_format".into(),
            json!({"type": "json_schema", "json_schema": schema}),
        );
    }
    body.extend(request.extra.clone());
    deliver(&mut body, delivery);
    if delivery == Delivery::Streamed {
        let options = body.entry("stream_options").or_insert_with(|| json!({}));
        if !options.is_object() {
            *options = json!({});
        }
        options["include_usage"] = json!(true);
    }
    Value::Object(body)
}

fn message(message: &Message) -> Value {
    let mut fields = Map::new();
    fields.insert("role".into(), json!(message.role.as_str()));
    let content = if only_calls(message) { Value::Null } else { content(message, "text", picture) };
    fields.insert("content".into(), content);
    if !message.tool_calls.is_empty() {
        fields.insert("tool_calls".into(), message.tool_calls.iter().map(tool_call).collect());
    }
    if let Some(id) = &message.tool_call_id {
        fields.insert("tool_call_id".into(), json!(id));
    }
    Value::Object(fields)
}

fn picture(picture: &Image) -> Value {
    json!({"type": "image_url", "image_url": {"url": picture.url()}})
}

fn tool(tool: &ToolSpec) -> Value {
    json!({"type": "function", "function": function(tool)})
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
        let streamed = body(&request, Delivery::Streamed, "max_tokens");
        assert_eq!(streamed["max_tokens"], 7);
        assert_eq!(streamed["temperature"], 0.5);
        assert_eq!(streamed["stream"], true);
        assert_eq!(
            streamed["stream_options"],
            json!({"include_obfuscation": false, "include_usage": true})
        );
        let plain = body(&request, Delivery::Whole, "max_completion_tokens");
        assert_eq!(plain["max_completion_tokens"], 7);
        assert!(plain.get("max_tokens").is_none() && plain.get("stream_options").is_none());
    }

    #[test]
    fn tools_a_schema_and_pictures_have_the_form_of_the_wire() {
        let picture =
            Message::user("what is it?").with_image(Image::from_url("https://e.org/a.png"));
        let mut request = ChatRequest::new("m", vec![picture]);
        let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}});
        request.tools = vec![ToolSpec::new("weather", "").with_parameters(parameters.clone())];
        let schema = json!({"type": "object"});
        request.output_schema =
            Some(OutputSchema { name: "answer".into(), schema: schema.clone() });
        let body = body(&request, Delivery::Whole, "max_completion_tokens");
        assert_eq!(
            body["messages"][0]["content"],
            json!([
                {"type": "text", "text": "what is it?"},
                {"type": "image_url", "image_url": {"url": "https://e.org/a.png"}},
            ])
        );
        let function = json!({"name": "weather", "parameters": parameters});
        assert_eq!(body["tools"], json!([{"type": "function", "function": function}]));
        let format = json!({"name": "answer", "schema": schema, "strict": true});
        assert_eq!(body["response_format"], json!({"type": "json_schema", "json_schema": format}));
    }

    #[test]
    fn an_assistant_that_only_calls_tools_has_null_content() {
        let call = ToolCall {
            id: "c".into(),
            name: "f".into(),
            arguments: "{}".into(),
            ..ToolCall::default()
        };
        let mut said = Message::assistant("");
        said.tool_calls = vec![call];
        let request = ChatRequest::new("m", vec![said, Message::tool("c", "4")]);
        assert_eq!(
            body(&request, Delivery::Whole, "max_tokens")["messages"],
            json!([
                {"role": "assistant", "content": null, "tool_calls": [
                    {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
                {"role": "tool", "content": "4", "tool_call_id": "c"},
            ])
        );
    }
}
