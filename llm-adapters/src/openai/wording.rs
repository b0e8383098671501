//! What the requests of both APIs of OpenAI word alike. Pure.

use prompt_engine_core::{Image, Message, ToolSpec};
use serde_json::{Map, Value, json};

use crate::connection::Delivery;

/// Asks for a stream, or for none, whatever `body` says of it.
pub(super) fn deliver(body: &mut Map<String, Value>, delivery: Delivery) {
    if delivery == Delivery::Streamed {
        body.insert("stream".into(), json!(true));
    } else {
        body.remove("stream");
        body.remove("stream_options");
    }
}

/// Whether `message` says nothing and only calls tools.
pub(super) fn only_calls(message: &Message) -> bool {
    message.content.is_empty() && !message.tool_calls.is_empty()
}

/// The text of `message`; with pictures, parts: the text, of type `kind`, where there is one, and
/// behind it each as `picture` words it.
pub(super) fn content(message: &Message, kind: &str, picture: fn(&Image) -> Value) -> Value {
    let Message { content, images, .. } = message;
    if images.is_empty() {
        return json!(content);
    }
    let text = (!content.is_empty()).then(|| json!({"type": kind, "text": content}));
    text.into_iter().chain(images.iter().map(picture)).collect()
}

/// `tool` by its name, its parameters and, where it has one, its description.
pub(super) fn function(tool: &ToolSpec) -> Value {
    let ToolSpec { name, description, parameters } = tool;
    let mut function = json!({"name": name, "parameters": parameters});
    if !description.is_empty() {
        function["description"] = json!(description);
    }
    function
}
