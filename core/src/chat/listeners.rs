//! Who listens to a chat. Invariant: several listeners of one event are all told, in the order in
//! which they were added.

use std::sync::Arc;

use crate::attempts::AttemptListener;
use crate::listeners::tell;
use crate::llm::{Message, ToolCall};

type Listener<T> = Arc<dyn Fn(&T) + Send + Sync>;
type ResultListener = Arc<dyn Fn(&ToolCall, &str) + Send + Sync>;

#[derive(Clone, Default)]
pub(super) struct Listeners {
    pub(super) before_message: Vec<Arc<dyn Fn() + Send + Sync>>,
    pub(super) after_message: Vec<Listener<Message>>,
    pub(super) before_tool_call: Vec<Listener<ToolCall>>,
    pub(super) after_tool_result: Vec<ResultListener>,
    pub(super) on_attempt: Vec<AttemptListener>,
}

impl Listeners {
    pub(super) fn before_message(&self) {
        tell(&self.before_message, "before_message", |listener| listener());
    }

    pub(super) fn after_message(&self, message: &Message) {
        tell(&self.after_message, "after_message", |listener| listener(message));
    }

    pub(super) fn before_tool_call(&self, call: &ToolCall) {
        tell(&self.before_tool_call, "before_tool_call", |listener| listener(call));
    }

    pub(super) fn after_tool_result(&self, call: &ToolCall, result: &str) {
        tell(&self.after_tool_result, "after_tool_result", |listener| listener(call, result));
    }
}
