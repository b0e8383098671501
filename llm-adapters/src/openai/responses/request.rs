//! The JSON body of a Responses request. Pure.
//! Invariant: what [`ChatRequest::extra`] says wins; in `text` field by field.

use prompt_engine_core::{ChatRequest, Image, Message, OutputSchema, Role, ToolCall, ToolSpec};
use serde_json::{Map, Value, json};

use super::super::wording::{self, deliver, only_calls};
use super::reply::REASONING;
use crate::connection::Delivery;

/// Fields that build on stored responses: whoever sets one decides what is stored.
const STORED: [&str; 4] = ["store", "background", "conversation", "previous_response_id"];

/// The body of `request`.
pub(super) fn body(request: &ChatRequest, delivery: Delivery) -> Value {
    let mut body = Map::new();
    body.insert("model".into(), json!(request.model));
    let leading = request.messages.iter().take_while(|message| message.role == Role::System);
    let leading: Vec<_> = leading.map(|message| message.content.as_str()).collect();
    if !leading.is_empty() {
        body.insert("instructions".into(), json!(leading.join("\n\n")));
    }
    let rest = &request.messages[leading.len()..];
    body.insert("input".into(), rest.iter().flat_map(items).collect());
    if let Some(temperature) = request.temperature {
        body.insert("temperature".into(), json!(temperature));
    }
    if let Some(limit) = request.max_tokens {
        body.insert("max_output_tokens".into(), json!(limit));
    }
    if !request.tools.is_empty() {
        body.insert("tools".into(), request.tools.iter().map(tool).collect());
    }
    if !STORED.iter().any(|name| request.extra.contains_key(*name)) {
        body.insert("store".into(), json!(false));
    }
    body.extend(request.extra.clone());
    if let Some(OutputSchema { name, schema }) = &request.output_schema {
        let format = json!({"type": "json_schema", "name": name, "schema": schema, "strict": true});
        // Verbosity lies beside the format.
        let text = body.entry("text").or_insert_with(|| json!({}));
        if let Some(fields) = text.as_object_mut() {
            fields.entry("format").or_insert(format);
        }
    }
    deliver(&mut body, delivery);
    Value::Object(body)
}

/// The items that a message is: what is said, the calls made with it, or the result of one.
fn items(message: &Message) -> Vec<Value> {
    if message.role == Role::Tool {
        let call_id = message.tool_call_id.as_deref().unwrap_or_default();
        let output = content(message);
        return vec![json!({"type": "function_call_output", "call_id": call_id, "output": output})];
    }
    let mut items = Vec::new();
    if !only_calls(message) {
        items.push(json!({"role": message.role.as_str(), "content": content(message)}));
    }
    for call in &message.tool_calls {
        items.extend(reasoning(call));
        let ToolCall { id, name, arguments, .. } = call;
        items.push(
            json!({"type": "function_call", "call_id": id, "name": name, "arguments": arguments}),
        );
    }
    items
}

fn content(message: &Message) -> Value {
    let picture = |picture: &Image| json!({"type": "input_image", "image_url": picture.url()});
    wording::content(message, "input_text", picture)
}

/// The reasoning that led to `call`, where it came with it. What another provider signed is none.
fn reasoning(call: &ToolCall) -> Option<Value> {
    let item: Value = serde_json::from_str(call.signature.as_deref()?).ok()?;
    (item.get("type")? == REASONING).then_some(item)
}

/// Tools are strict here unless told otherwise, and a schema that is not made for it is refused.
fn tool(tool: &ToolSpec) -> Value {
    let mut function = wording::function(tool);
    function["type"] = json!("function");
    function["strict"] = json!(false);
    function
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_becomes_instructions_and_items() {
        let call = ToolCall {
            id: "c".into(),
            name: "f".into(),
            arguments: "{}".into(),
            ..ToolCall::default()
        };
        let mut said = Message::assistant("");
        said.tool_calls = vec![call];
        let picture = Image::from_url("https://e.org/a.png");
        let mut request = ChatRequest::new(
            "m",
            vec![
                Message::system("Be brief."),
                Message::system("Be kind."),
                Message::user("hi"),
                Message::assistant("hello"),
                Message::user("what is it?").with_image(picture),
                said,
                Message::tool("c", "4"),
                Message::system("Now be long."),
            ],
        );
        request.temperature = Some(0.5);
        request.max_tokens = Some(7);
        let image = json!({"type": "input_image", "image_url": "https://e.org/a.png"});
        let text = json!({"type": "input_text", "text": "what is it?"});
        assert_eq!(
            body(&request, Delivery::Whole),
            json!({
                "model": "m",
                "instructions": "Be brief.\n\nBe kind.",
                "input": [
                    {"role": "user", "content": "hi"},
                    {"role": "assistant", "content": "hello"},
                    {"role": "user", "content": [text, image]},
                    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                    {"type": "function_call_output", "call_id": "c", "output": "4"},
                    {"role": "system", "content": "Now be long."},
                ],
                "temperature": 0.5,
                "max_output_tokens": 7,
                "store": false,
            })
        );
    }

    #[test]
    fn tools_are_flat_and_a_schema_lies_beside_what_extra_says_of_the_text() {
        let mut request = ChatRequest::new("m", vec![Message::user("hi")]);
        let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}});
        request.tools = vec![ToolSpec::new("weather", "now").with_parameters(parameters.clone())];
        let schema = json!({"type": "object"});
        request.output_schema =
            Some(OutputSchema { name: "answer".into(), schema: schema.clone() });
        request.extra.insert("text".into(), json!({"verbosity": "low"}));
        let body = body(&request, Delivery::Whole);
        assert_eq!(
            body["tools"],
            json!([{"type": "function", "name": "weather", "description": "now",
                "parameters": parameters, "strict": false}])
        );
        let format = json!({"type": "json_schema", "name": "answer", "schema": schema,
            "strict": true});
        assert_eq!(body["text"], json!({"verbosity": "low", "format": format}));
    }

    #[test]
    fn extra_wins_and_what_builds_on_stored_responses_is_left_to_it() {
        let mut request = ChatRequest::new("m", vec![Message::user("hi")]);
        request.max_tokens = Some(7);
        request.extra.insert("max_output_tokens".into(), json!(8));
        request.extra.insert("stream_options".into(), json!({"include_obfuscation": false}));
        request.extra.insert("stream".into(), json!(false));
        let streamed = body(&request, Delivery::Streamed);
        assert_eq!(
            (&streamed["max_output_tokens"], &streamed["stream"]),
            (&json!(8), &json!(true))
        );
        assert_eq!(streamed["stream_options"], json!({"include_obfuscation": false}));
        let plain = body(&request, Delivery::Whole);
        assert!(plain.get("stream").is_none() && plain.get("stream_options").is_none());
        assert_eq!(plain["store"], false);
        for (name, value) in
            [("previous_response_id", json!("resp_1")), ("background", json!(true))]
        {
            let mut request = ChatRequest::new("m", Vec::new());
            request.extra.insert(name.into(), value.clone());
            let body = body(&request, Delivery::Whole);
            assert_eq!((body.get("store"), &body[name]), (None, &value));
        }
        request.extra.insert("store".into(), json!(true));
        assert_eq!(body(&request, Delivery::Whole)["store"], true);
    }

    #[test]
    fn reasoning_goes_back_before_the_call_it_led_to() {
        let call = |id: &str, signature: Option<String>| ToolCall {
            id: id.into(),
            signature,
            ..ToolCall::default()
        };
        let item = json!({"type": "reasoning", "id": "rs_1", "summary": [],
            "encrypted_content": "gAAAA"});
        let mut said = Message::assistant("");
        said.tool_calls =
            vec![call("a", Some(item.to_string())), call("b", Some("of another".into()))];
        let body = body(&ChatRequest::new("m", vec![said]), Delivery::Whole);
        assert_eq!(body["input"][0], item);
        let ids = [&body["input"][1]["call_id"], &body["input"][2]["call_id"]];
        assert_eq!(ids, [&json!("a"), &json!("b")]);
        assert_eq!(body["input"].as_array().map(Vec::len), Some(3));
    }
}
