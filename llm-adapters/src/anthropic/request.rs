//! The JSON body of a Messages request. Pure.
//! Invariant: what [`ChatRequest::extra`] says wins, in `output_config` field by field; each tool call
//! has an id of its own, which its result repeats.

use std::collections::HashSet;

use prompt_engine_core::{
    ChatRequest, Image, LlmError, Message, OutputSchema, Role, ToolCall, ToolSpec,
};
use serde_json::{Map, Value, json};

use super::limit::max_output;
use super::schema;
use crate::connection::Delivery;
use crate::wording::{self, Calls};

/// The body of `request`.
pub(super) fn body(request: &ChatRequest, delivery: Delivery) -> Result<Value, LlmError> {
    let mut body = Map::new();
    body.insert("model".into(), json!(request.model));
    if let Some(system) = wording::instructions(&request.messages) {
        body.insert("system".into(), json!(system));
    }
    body.insert("messages".into(), messages(&request.messages)?);
    if !request.tools.is_empty() {
        body.insert("tools".into(), request.tools.iter().map(tool).collect());
    }
    if let Some(temperature) = request.temperature {
        body.insert("temperature".into(), json!(temperature));
    }
    let limit = request.max_tokens.unwrap_or_else(|| max_output(&request.model));
    body.insert("max_tokens".into(), json!(limit));
    body.extend(request.extra.clone());
    if let Some(OutputSchema { schema, .. }) = &request.output_schema {
        let format = json!({"type": "json_schema", "schema": schema::closed(schema)});
        // The effort lies beside the format.
        let config = body.entry("output_config").or_insert_with(|| json!({}));
        if let Some(fields) = config.as_object_mut() {
            fields.entry("format").or_insert(format);
        }
    }
    body.insert("stream".into(), json!(delivery == Delivery::Streamed));
    Ok(Value::Object(body))
}

fn messages(messages: &[Message]) -> Result<Value, LlmError> {
    let mut turns = Vec::with_capacity(messages.len());
    let mut ids = Ids::default();
    for (place, message) in messages.iter().enumerate() {
        wording::check(message)?;
        let parts = match message.role {
            Role::System => continue,
            Role::User => said(message)?,
            Role::Assistant => answered(message, place, &mut ids),
            Role::Tool => vec![result(message, &mut ids)],
        };
        // Anthropic refuses an empty message, so an assistant that said nothing is left out.
        if !parts.is_empty() {
            wording::push(&mut turns, message.role, parts);
        }
    }
    Ok(turns.into_iter().map(turn).collect())
}

fn turn((role, mut parts): (Role, Vec<Value>)) -> Value {
    let role = if role == Role::Assistant { "assistant" } else { "user" };
    let content = match parts.as_mut_slice() {
        [only] if only["type"] == "text" => only["text"].take(),
        _ => Value::Array(parts),
    };
    json!({"role": role, "content": content})
}

fn text(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

fn said(message: &Message) -> Result<Vec<Value>, LlmError> {
    let Message { content, images, .. } = message;
    let mut parts = Vec::new();
    if is_said(content) || images.is_empty() {
        parts.push(text(content));
    }
    for image in images {
        parts.push(picture(image)?);
    }
    Ok(parts)
}

fn picture(image: &Image) -> Result<Value, LlmError> {
    let source = match wording::embedded(image)? {
        Some((media_type, data)) => {
            json!({"type": "base64", "media_type": media_type, "data": data})
        }
        None => json!({"type": "url", "url": image.url()}),
    };
    Ok(json!({"type": "image", "source": source}))
}

fn answered<'m>(message: &'m Message, place: usize, ids: &mut Ids<'m>) -> Vec<Value> {
    let Message { content, tool_calls, .. } = message;
    if !tool_calls.is_empty() {
        ids.calls.clear();
    }
    let mut calls = tool_calls.iter().map(|call| {
        let (id, input) = (ids.make(&call.id, place), wording::arguments(call));
        json!({"type": "tool_use", "id": id, "name": call.name, "input": input})
    });
    let signed: Vec<Value> = tool_calls.iter().flat_map(signed).collect();
    let in_order = signed.iter().any(|block| block["type"] == "tool_use");
    let mut parts = Vec::with_capacity(signed.len() + 1 + tool_calls.len());
    for block in signed {
        match block["type"].as_str() {
            Some("tool_use") => parts.extend(calls.next()),
            Some("text") if block["text"].as_str().is_none_or(|said| !is_said(said)) => {}
            _ => parts.push(block),
        }
    }
    if !in_order && is_said(content) {
        parts.push(text(content));
    }
    parts.extend(calls);
    parts
}

/// Anthropic refuses a text of white space alone.
fn is_said(text: &str) -> bool {
    !text.trim().is_empty()
}

/// The blocks that came with `call` and must go back as they came: thoughts, and where they were not the
/// first, all texts, and marks of the calls. What another provider signed is none.
fn signed(call: &ToolCall) -> Vec<Value> {
    let signature = call.signature.as_deref().unwrap_or_default();
    let blocks: Vec<Value> = serde_json::from_str(signature).unwrap_or_default();
    let own = ["thinking", "redacted_thinking", "text", "tool_use"];
    let is_own = |block: &Value| block["type"].as_str().is_some_and(|kind| own.contains(&kind));
    blocks.into_iter().filter(is_own).collect()
}

fn result(message: &Message, ids: &mut Ids<'_>) -> Value {
    let id = message.tool_call_id.as_deref().unwrap_or_default();
    let id = ids.calls.answer(id).cloned().unwrap_or_else(|| fitted(id));
    json!({"type": "tool_result", "tool_use_id": id, "content": message.content})
}

fn tool(tool: &ToolSpec) -> Value {
    let ToolSpec { name, description, parameters } = tool;
    let mut tool = json!({"name": name, "input_schema": parameters});
    if !description.is_empty() {
        tool["description"] = json!(description);
    }
    tool
}

/// The ids under which tool calls go out.
#[derive(Default)]
struct Ids<'m> {
    used: HashSet<String>,
    calls: Calls<'m, String>,
}

impl<'m> Ids<'m> {
    /// The id for a call of the message at `place`: `id` itself where Anthropic takes it. Stand-ins
    /// for ids that Gemini did not give have a `#` and begin anew in each turn, and some servers give
    /// no id, or the same to several calls.
    fn make(&mut self, id: &'m str, place: usize) -> String {
        let mut made = fitted(id);
        if made != id || self.used.contains(&made) {
            made = format!("{made}_{place}");
        }
        let base = made.clone();
        let mut number = 2;
        while self.used.contains(&made) {
            made = format!("{base}_{number}");
            number += 1;
        }
        self.used.insert(made.clone());
        self.calls.add(id, made.clone());
        made
    }
}

/// `id` in the letters that Anthropic takes.
fn fitted(id: &str) -> String {
    if id.is_empty() {
        return "call".to_owned();
    }
    let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    id.chars().map(|c| if fit(c) { c } else { '_' }).collect()
}
