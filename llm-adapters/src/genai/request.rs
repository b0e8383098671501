//! A [`ChatRequest`] in genai's words. Pure.
//! Invariant: nothing that was asked for is dropped in silence: what genai or the protocol has no
//! place for is refused by name, and the model's name reaches the provider as it was given.

use genai::chat::{
    ChatMessage, ChatOptions, ChatRequest as Words, ChatRole, ContentPart, JsonSchemaDialect,
    JsonSpec, ReasoningEffort, Tool, ToolCall as Call, ToolResponse, sanitize_json_schema,
};
use prompt_engine_core::{
    ChatRequest, ErrorCategory, Image, LlmError, Message, OutputSchema, Role, ToolCall, ToolSpec,
};
use serde_json::{Map, Value, json};

use super::Protocol;

/// What is handed to genai.
#[derive(Debug)]
pub(super) struct Asked {
    /// The model by the name under which genai leaves it alone.
    pub(super) model: String,
    pub(super) chat: Words,
    pub(super) options: ChatOptions,
}

/// What to hand to genai for `request`.
pub(super) fn ask(protocol: Protocol, request: &ChatRequest) -> Result<Asked, LlmError> {
    let mut options = ChatOptions {
        temperature: request.temperature,
        max_tokens: request.max_tokens,
        ..ChatOptions::default()
    };
    let mut extra = request.extra.clone();
    extra.remove("stream");
    let mut model = request.model.clone();
    // genai takes a last word such as `-high` off the name and asks for reasoning by it.
    let suffixed = ReasoningEffort::from_model_name(&model).0.is_some();
    match protocol {
        Protocol::Anthropic => {
            extra.entry("model").or_insert_with(|| json!(request.model));
            if suffixed {
                model.push('-');
            }
            if let Some(OutputSchema { schema, .. }) = &request.output_schema
                && let Some(Value::Object(config)) = extra.get_mut("output_config")
            {
                let schema = sanitize_json_schema(schema, JsonSchemaDialect::AnthropicStructured);
                let format = json!({"type": "json_schema", "schema": schema});
                config.entry("format").or_insert(format);
            }
        }
        Protocol::Gemini => {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '@');
            if model.is_empty() || !model.chars().all(plain) {
                return Err(refusal(format!("{model:?} is no name of a Gemini model")));
            }
            if suffixed {
                options.reasoning_effort = Some(ReasoningEffort::Zero);
            }
            if let Some(Value::Object(config)) = extra.get_mut("generationConfig") {
                complete(config, request);
            }
        }
    }
    if let Some(OutputSchema { name, schema }) = &request.output_schema {
        options.response_format = Some(JsonSpec::new(name, schema.clone()).into());
    }
    if !extra.is_empty() {
        options.extra_body = Some(Value::Object(extra));
    }
    let mut chat = Words::new(messages(protocol, &request.messages)?);
    if !request.tools.is_empty() {
        chat = chat.with_tools(request.tools.iter().map(tool));
    }
    Ok(Asked { model, chat, options })
}

/// An object of the caller's stands in the place of genai's, so it gets what genai would have put there.
fn complete(config: &mut Map<String, Value>, request: &ChatRequest) {
    let mut own = Map::new();
    if let Some(temperature) = request.temperature {
        own.insert("temperature".into(), json!(temperature));
    }
    if let Some(limit) = request.max_tokens {
        own.insert("maxOutputTokens".into(), json!(limit));
    }
    if let Some(OutputSchema { schema, .. }) = &request.output_schema {
        own.insert("responseMimeType".into(), json!("application/json"));
        own.insert("responseJsonSchema".into(), schema.clone());
    }
    for (name, value) in own {
        config.entry(name).or_insert(value);
    }
}

fn messages(protocol: Protocol, messages: &[Message]) -> Result<Vec<ChatMessage>, LlmError> {
    let mut words: Vec<ChatMessage> = Vec::with_capacity(messages.len());
    // The message whose calls are answered.
    let mut caller = 0;
    for (place, message) in messages.iter().enumerate() {
        if !message.tool_calls.is_empty() {
            caller = place;
        }
        let parts = parts(protocol, message, caller)?;
        if parts.is_empty() {
            continue;
        }
        match words.last_mut() {
            // Both protocols want all results of a turn in one message.
            Some(last) if last.role == ChatRole::Tool && message.role == Role::Tool => {
                last.content.extend(parts);
            }
            _ => words.push(ChatMessage::new(role(message.role), parts)),
        }
    }
    Ok(words)
}

fn role(role: Role) -> ChatRole {
    match role {
        Role::System => ChatRole::System,
        Role::User => ChatRole::User,
        Role::Assistant => ChatRole::Assistant,
        Role::Tool => ChatRole::Tool,
    }
}

/// The id of a call made in the message at `caller`, as `protocol` takes it. Anthropic takes letters,
/// digits, `_` and `-`, and no id twice; stand-ins for ids that Gemini did not give have a `#`, and
/// begin anew in each turn.
fn id_for(protocol: Protocol, id: &str, caller: usize) -> String {
    let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if protocol != Protocol::Anthropic || id.chars().all(fit) {
        return id.to_owned();
    }
    let fitted: String = id.chars().map(|c| if fit(c) { c } else { '_' }).collect();
    format!("{fitted}_{caller}")
}

fn parts(
    protocol: Protocol,
    message: &Message,
    caller: usize,
) -> Result<Vec<ContentPart>, LlmError> {
    let Message { role, content, images, tool_calls, tool_call_id } = message;
    if *role != Role::User && !images.is_empty() {
        return Err(refusal(format!(
            "a picture goes with a message of the user, not of the {role}"
        )));
    }
    if *role != Role::Assistant && !tool_calls.is_empty() {
        return Err(refusal(format!("tools are called by the assistant, not by the {role}")));
    }
    if *role == Role::Tool {
        let id = tool_call_id
            .as_deref()
            .ok_or_else(|| refusal("the result of a tool names no call in tool_call_id".into()))?;
        let id = id_for(protocol, id, caller);
        return Ok(vec![ToolResponse::new(id, content.as_str()).into()]);
    }
    let mut parts = thoughts(protocol, tool_calls);
    // Anthropic refuses an empty text, so an assistant that said nothing is left out.
    let text_only = images.is_empty() && tool_calls.is_empty();
    if !content.is_empty() || (text_only && *role != Role::Assistant) {
        parts.push(ContentPart::from_text(content));
    }
    for picture in images {
        parts.push(image(protocol, picture)?);
    }
    for call in tool_calls {
        parts.push(tool_call(protocol, call, caller)?.into());
    }
    Ok(parts)
}

/// The thoughts that led to `calls`, which Anthropic wants back before them.
fn thoughts(protocol: Protocol, calls: &[ToolCall]) -> Vec<ContentPart> {
    if protocol != Protocol::Anthropic {
        return Vec::new();
    }
    let signatures = calls.iter().filter_map(|call| call.signature.as_deref());
    signatures
        // A signature of another provider is none of Anthropic's thoughts.
        .filter_map(|signature| serde_json::from_str::<Vec<Value>>(signature).ok())
        .flatten()
        .map(|thought| ContentPart::from_custom(thought, None))
        .collect()
}

fn tool_call(protocol: Protocol, call: &ToolCall, caller: usize) -> Result<Call, LlmError> {
    let ToolCall { id, name, arguments, signature } = call;
    let fn_arguments = match arguments.trim() {
        "" => json!({}),
        text => serde_json::from_str(text).unwrap_or_default(),
    };
    if !fn_arguments.is_object() {
        let message =
            format!("the arguments of the call {id:?} of the tool {name:?} are no JSON object");
        return Err(refusal(message));
    }
    // What begins as JSON is a thought of Anthropic or of OpenAI.
    let of_gemini =
        |signature: &&String| protocol == Protocol::Gemini && !signature.starts_with(['[', '{']);
    Ok(Call {
        call_id: id_for(protocol, id, caller),
        fn_name: name.clone(),
        fn_arguments,
        thought_signatures: signature.as_ref().filter(of_gemini).map(|said| vec![said.clone()]),
    })
}

fn tool(tool: &ToolSpec) -> Tool {
    let ToolSpec { name, description, parameters } = tool;
    let words = Tool::new(name.as_str()).with_schema(parameters.clone());
    if description.is_empty() { words } else { words.with_description(description) }
}

fn image(protocol: Protocol, image: &Image) -> Result<ContentPart, LlmError> {
    let url = image.url();
    if let Some(data) = url.strip_prefix("data:") {
        let (media_type, base64) = data.split_once(";base64,").ok_or_else(|| {
            refusal("a picture in a data: URL must be of the form data:TYPE;base64,DATA".into())
        })?;
        return Ok(ContentPart::from_binary_base64(media_type, base64, None));
    }
    if protocol == Protocol::Anthropic {
        // genai leaves the picture of a URL out.
        let source = json!({"type": "url", "url": url});
        return Ok(ContentPart::from_custom(json!({"type": "image", "source": source}), None));
    }
    let media_type = media_type(url).ok_or_else(|| {
        refusal(format!(
            "Gemini wants the media type of the picture at {url:?}, which its name does not say; \
             send it as a data: URL"
        ))
    })?;
    Ok(ContentPart::from_binary_url(media_type, url, None))
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

fn refusal(message: String) -> LlmError {
    LlmError::new(ErrorCategory::InvalidRequest, message)
}
