//! The JSON body of a request to Gemini. Pure.
//! Invariant: what [`ChatRequest::extra`] says wins, in `generationConfig` field by field.

use prompt_engine_core::{
    ChatRequest, Image, LlmError, Message, OutputSchema, Role, ToolCall, ToolSpec,
};
use serde_json::{Map, Value, json};

use super::stood_in_for;
use crate::wording::{self, Calls, refusal};

/// What Gemini takes from its third generation on in the place of a signature that is not there.
/// Source: <https://ai.google.dev/gemini-api/docs/thought-signatures>, November 2026.
const NO_SIGNATURE: &str = "skip_thought_signature_validator";

/// Where files lie that were uploaded to Gemini: it knows their media types.
const OWN_FILES: &str = "https://generativelanguage.googleapis.com/";

/// The body of `request`.
pub(super) fn body(request: &ChatRequest) -> Result<Value, LlmError> {
    let mut body = Map::new();
    if let Some(system) = wording::instructions(&request.messages) {
        body.insert("systemInstruction".into(), json!({"parts": [{"text": system}]}));
    }
    body.insert("contents".into(), contents(request)?);
    if !request.tools.is_empty() {
        let functions: Value = request.tools.iter().map(function).collect();
        body.insert("tools".into(), json!([{"functionDeclarations": functions}]));
    }
    body.extend(request.extra.clone());
    body.remove("stream");
    let own = config(request);
    if !own.is_empty() {
        let config = body.entry("generationConfig").or_insert_with(|| json!({}));
        if let Some(fields) = config.as_object_mut() {
            for (name, value) in own {
                fields.entry(name).or_insert(value);
            }
        }
    }
    Ok(Value::Object(body))
}

fn config(request: &ChatRequest) -> Map<String, Value> {
    let mut config = Map::new();
    if let Some(temperature) = request.temperature {
        config.insert("temperature".into(), json!(temperature));
    }
    if let Some(limit) = request.max_tokens {
        config.insert("maxOutputTokens".into(), json!(limit));
    }
    if let Some(OutputSchema { schema, .. }) = &request.output_schema {
        config.insert("responseMimeType".into(), json!("application/json"));
        config.insert("responseJsonSchema".into(), schema.clone());
    }
    config
}

fn contents(request: &ChatRequest) -> Result<Value, LlmError> {
    let mut turns = Vec::with_capacity(request.messages.len());
    let mut calls = Calls::default();
    // A name without a number, such as `gemini-flash-latest`, is one of the newest.
    let wants_signature = !["gemini-1", "gemini-2"].iter().any(|old| request.model.contains(old));
    for message in &*request.messages {
        wording::check(message)?;
        let parts = match message.role {
            Role::System => continue,
            Role::User => said(message)?,
            Role::Assistant => answered(message, wants_signature, &mut calls),
            Role::Tool => vec![result(message, &mut calls)],
        };
        if !parts.is_empty() {
            wording::push(&mut turns, message.role, parts);
        }
    }
    Ok(turns.into_iter().map(turn).collect())
}

fn turn((role, parts): (Role, Vec<Value>)) -> Value {
    let role = if role == Role::Assistant { "model" } else { "user" };
    json!({"role": role, "parts": parts})
}

fn said(message: &Message) -> Result<Vec<Value>, LlmError> {
    let Message { content, images, .. } = message;
    let mut parts = Vec::new();
    if !content.is_empty() || images.is_empty() {
        parts.push(json!({"text": content}));
    }
    for image in images {
        parts.push(picture(image)?);
    }
    Ok(parts)
}

fn picture(image: &Image) -> Result<Value, LlmError> {
    if let Some((media_type, data)) = wording::embedded(image)? {
        return Ok(json!({"inline_data": {"mime_type": media_type, "data": data}}));
    }
    let url = image.url();
    let media_type = media_type(url);
    if media_type.is_none() && !url.starts_with(OWN_FILES) {
        return Err(refusal(format!(
            "Gemini wants the media type of the picture at {url:?}, which its name does not say; \
             send it as a data: URL"
        )));
    }
    let mut file = json!({"file_uri": url});
    if let Some(media_type) = media_type {
        file["mime_type"] = json!(media_type);
    }
    Ok(json!({"file_data": file}))
}

fn media_type(url: &str) -> Option<&'static str> {
    let path = url.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    match path.rsplit_once('.')?.1 {
        "png" => Some("image/png"),
        "jpg" | "jpeg" => Some("image/jpeg"),
        "webp" => Some("image/webp"),
        "gif" => Some("image/gif"),
        "heic" => Some("image/heic"),
        "heif" => Some("image/heif"),
        _ => None,
    }
}

fn answered<'m>(
    message: &'m Message,
    wants_signature: bool,
    calls: &mut Calls<'m, &'m ToolCall>,
) -> Vec<Value> {
    let Message { content, tool_calls, .. } = message;
    let mut parts = Vec::new();
    if !content.is_empty() {
        parts.push(json!({"text": content}));
    }
    if !tool_calls.is_empty() {
        calls.clear();
    }
    for (number, call) in tool_calls.iter().enumerate() {
        calls.add(&call.id, call);
        let mut function = json!({"name": call.name, "args": wording::arguments(call)});
        if let Some(id) = own_id(call) {
            function["id"] = json!(id);
        }
        let mut part = json!({"functionCall": function});
        // What begins as JSON is a thought of Anthropic or of OpenAI.
        let signature = call.signature.as_deref().filter(|said| !said.starts_with(['[', '{']));
        if let Some(signature) =
            signature.or((wants_signature && number == 0).then_some(NO_SIGNATURE))
        {
            part["thoughtSignature"] = json!(signature);
        }
        parts.push(part);
    }
    parts
}

/// The id that Gemini, or another provider, gave to `call`. Calls without one are matched in order.
fn own_id(call: &ToolCall) -> Option<&str> {
    Some(call.id.as_str()).filter(|id| !id.is_empty() && stood_in_for(id).is_none())
}

/// The result of a call under the name of its tool, which Gemini wants.
fn result(message: &Message, calls: &mut Calls<'_, &ToolCall>) -> Value {
    let named = message.tool_call_id.as_deref().unwrap_or_default();
    let (name, id) = match calls.answer(named) {
        Some(call) => (call.name.as_str(), own_id(call)),
        None => (stood_in_for(named).unwrap_or(named), None),
    };
    let response = json!({"name": name, "content": message.content});
    let mut result = json!({"name": name, "response": response});
    if let Some(id) = id {
        result["id"] = json!(id);
    }
    json!({"functionResponse": result})
}

fn function(tool: &ToolSpec) -> Value {
    let ToolSpec { name, description, parameters } = tool;
    let mut function = json!({"name": name, "parametersJsonSchema": parameters});
    if !description.is_empty() {
        function["description"] = json!(description);
    }
    function
}
