//! One message of a conversation: who speaks, the text, pictures, and the tools that are called.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

/// Who speaks in a [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The instructions.
    System,
    /// The one who asks.
    User,
    /// The model.
    Assistant,
    /// The result of a tool that the model called.
    Tool,
}

impl Role {
    /// The name, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said; empty where an assistant only calls tools.
    #[serde(default)]
    pub content: String,
    /// The pictures that go with it, behind the text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Image>,
    /// The tools that an assistant calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call that a tool message answers: [`ToolCall::id`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

impl Message {
    fn of(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            images: Vec::new(),
            tool_calls: Vec::new(),
            tool_call_id: None,
        }
    }

    /// The instructions.
    pub fn system(content: impl Into<String>) -> Self {
        Self::of(Role::System, content)
    }

    /// A message of the one who asks.
    pub fn user(content: impl Into<String>) -> Self {
        Self::of(Role::User, content)
    }

    /// A message of the model; add [`Message::tool_calls`] where it called tools.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::of(Role::Assistant, content)
    }

    /// The result of the tool call `tool_call_id`.
    pub fn tool(tool_call_id: impl Into<String>, content: impl Into<String>) -> Self {
        Self { tool_call_id: Some(tool_call_id.into()), ..Self::of(Role::Tool, content) }
    }

    /// The same message with a picture more.
    #[must_use]
    pub fn with_image(mut self, image: Image) -> Self {
        self.images.push(image);
        self
    }
}

/// A text is a message of the one who asks.
impl<T: Into<String>> From<T> for Message {
    fn from(text: T) -> Self {
        Self::user(text)
    }
}

/// A picture in a message: where it lies, or the picture itself as a `data:` URL.
///
/// # Example: a picture of one's own
/// ```
/// use prompt_engine_core::Image;
/// assert_eq!(Image::from_bytes("image/png", b"\x89PNG").url(), "data:image/png;base64,iVBORw==");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Image(pub(crate) String);

impl Image {
    /// The picture at `url`, which the provider must be able to read.
    pub fn from_url(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The picture `bytes` of the media type `media_type`, such as `image/png`.
    pub fn from_bytes(media_type: &str, bytes: &[u8]) -> Self {
        Self(format!("data:{media_type};base64,{}", BASE64_STANDARD.encode(bytes)))
    }

    /// The URL, `http`, `https` or `data`.
    pub fn url(&self) -> &str {
        &self.0
    }
}

/// A tool that the model wants called.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ToolCall {
    /// The provider's id of the call; a tool message answers it.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments as the model wrote them: JSON text, not checked.
    pub arguments: String,
    /// What the provider wants back with the call, opaque: Gemini's thought signature, Anthropic's
    /// thinking blocks, the sealed reasoning item of OpenAI's Responses. Adapters leave out what
    /// another provider made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_without_tools_has_no_tool_fields_in_json() {
        let text = serde_json::to_value(Message::user("hi")).expect("a message is JSON");
        assert_eq!(text, json!({"role": "user", "content": "hi"}));
        let tool: Message =
            serde_json::from_value(json!({"role": "tool", "content": "4", "tool_call_id": "c1"}))
                .expect("a tool message");
        assert_eq!(tool, Message::tool("c1", "4"));
    }
}
