//! What requests to Anthropic and to Gemini have in common. Pure.
//! Invariant: nothing that was asked for is dropped in silence: what has no place is refused by name.

use prompt_engine_core::{ErrorCategory, Image, LlmError, Message, Role, ToolCall};
use serde_json::{Value, json};

pub(crate) fn refusal(message: impl Into<String>) -> LlmError {
    LlmError::new(ErrorCategory::InvalidRequest, message)
}

/// Refuses a message that holds what its role has no place for.
pub(crate) fn check(message: &Message) -> Result<(), LlmError> {
    let Message { role, images, tool_calls, tool_call_id, .. } = message;
    if *role != Role::User && !images.is_empty() {
        return Err(refusal(format!(
            "a picture goes with a message of the user, not of the {role}"
        )));
    }
    if *role != Role::Assistant && !tool_calls.is_empty() {
        return Err(refusal(format!("tools are called by the assistant, not by the {role}")));
    }
    if *role == Role::Tool && tool_call_id.is_none() {
        return Err(refusal("the result of a tool names no call in tool_call_id"));
    }
    Ok(())
}

/// The instructions, which both want apart from the conversation.
pub(crate) fn instructions(messages: &[Message]) -> Option<String> {
    let system = messages.iter().filter(|message| message.role == Role::System);
    let texts: Vec<_> = system.map(|message| message.content.as_str()).collect();
    (!texts.is_empty()).then(|| texts.join("\n\n"))
}

/// Adds `parts` to the conversation; both want all results of a turn in one message of the user.
pub(crate) fn push(turns: &mut Vec<(Role, Vec<Value>)>, role: Role, parts: Vec<Value>) {
    match turns.last_mut() {
        Some((Role::Tool, last)) if role == Role::Tool => last.extend(parts),
        _ => turns.push((role, parts)),
    }
}

/// The arguments of `call` as the object that both want. What the model wrote and is none goes back
/// as a text in one, so that it sees what it wrote.
pub(crate) fn arguments(call: &ToolCall) -> Value {
    match call.arguments.trim() {
        "" => json!({}),
        text => match serde_json::from_str(text) {
            Ok(arguments @ Value::Object(_)) => arguments,
            _ => json!({"malformed": call.arguments}),
        },
    }
}

/// The media type and the base64 of a picture that is no URL of the network.
pub(crate) fn embedded(image: &Image) -> Result<Option<(&str, &str)>, LlmError> {
    let Some(data) = image.url().strip_prefix("data:") else { return Ok(None) };
    let parts = data.split_once(";base64,");
    parts.map(Some).ok_or_else(|| {
        refusal("a picture in a data: URL must be of the form data:TYPE;base64,DATA")
    })
}

/// The calls of the latest message that made any, each with what its result must be known by.
#[derive(Debug)]
pub(crate) struct Calls<'m, T>(Vec<Open<'m, T>>);

#[derive(Debug)]
struct Open<'m, T> {
    id: &'m str,
    known_by: T,
    answered: bool,
}

impl<T> Default for Calls<'_, T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'m, T> Calls<'m, T> {
    /// Forgets the calls of the message before.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn add(&mut self, id: &'m str, known_by: T) {
        self.0.push(Open { id, known_by, answered: false });
    }

    /// What the result that names the call `id` must be known by. Of several calls of one id, each
    /// result answers the first that has none; `None` where nothing was called so.
    pub(crate) fn answer(&mut self, id: &str) -> Option<&T> {
        let open = self.0.iter().position(|call| call.id == id && !call.answered);
        let at = open.or_else(|| self.0.iter().rposition(|call| call.id == id))?;
        self.0[at].answered = true;
        Some(&self.0[at].known_by)
    }
}
