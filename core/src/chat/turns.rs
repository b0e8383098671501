//! The turns of one question: the model speaks, its tools are called, until it calls none.
//! Invariant: the history grows by whole turns: calls of tools stand in it only with all results.

use futures::channel::mpsc;
use futures::{SinkExt, StreamExt};

use super::Settings;
use super::answer::{Answer, Cause, ChatError, ChatEvent};
use super::tool::result_of;
use crate::attempts::{Attempts, Limits};
use crate::llm::{ChatReply, ChatRequest, LlmError, Message, StreamEvent, ToolCall};
use crate::status::ErrorCategory;

pub(super) struct Turns<'a> {
    pub(super) settings: &'a Settings,
    /// What is asked in every turn, but for the messages.
    pub(super) request: ChatRequest,
    pub(super) history: &'a mut Vec<Message>,
    /// Joins the history with the first turn that is whole.
    pub(super) question: Vec<Message>,
    pub(super) attempts: Attempts<'a>,
    pub(super) limits: Limits,
    pub(super) output: Output<'a>,
}

/// Someone who reads text as it is made.
type TextReader<'a> = Box<dyn FnMut(&str) + Send + 'a>;

/// Where an answer goes while it is made.
#[derive(Default)]
pub(super) struct Output<'a> {
    pub(super) on_text: Option<TextReader<'a>>,
    pub(super) events: Option<mpsc::Sender<ChatEvent>>,
}

impl Output<'_> {
    pub(super) fn is_wanted(&self) -> bool {
        self.on_text.is_some() || self.events.is_some()
    }

    async fn text(&mut self, text: String) {
        if let Some(on_text) = &mut self.on_text {
            on_text(&text);
        }
        self.event(|| ChatEvent::Text(text)).await;
    }

    /// Waits until the event is received.
    async fn event(&mut self, event: impl FnOnce() -> ChatEvent) {
        if let Some(events) = &mut self.events {
            // The receiver lives as long as what runs this.
            let _ = events.send(event()).await;
        }
    }
}

impl Turns<'_> {
    pub(super) async fn run(mut self) -> Result<Answer, ChatError> {
        let mut said = Vec::new();
        let end = self.take_turns(&mut said).await;
        let calls = self.attempts.calls;
        match end {
            Ok(reply) => Ok(Answer { reply, messages: said, calls }),
            Err(cause) => Err(ChatError::new(cause, said, calls)),
        }
    }

    async fn take_turns(&mut self, said: &mut Vec<Message>) -> Result<ChatReply, Cause> {
        let mut with_tools = 0;
        loop {
            let reply = self.reply().await?;
            let message = Message {
                tool_calls: reply.tool_calls.clone(),
                ..Message::assistant(reply.content.clone().unwrap_or_default())
            };
            let mut turn = Vec::new();
            // Providers take no history with an empty message in it.
            if !message.content.trim().is_empty() || !message.tool_calls.is_empty() {
                self.settings.listeners.after_message(&message);
                turn.push(message);
            }
            if !reply.tool_calls.is_empty() {
                if with_tools == self.settings.tool_limit {
                    return Err(Cause::ToolLimit(with_tools));
                }
                with_tools += 1;
                for call in &reply.tool_calls {
                    turn.push(self.call_tool(call).await?);
                }
            }
            said.extend(turn.iter().cloned());
            self.history.append(&mut self.question);
            self.history.append(&mut turn);
            if reply.tool_calls.is_empty() {
                return Ok(reply);
            }
            self.attempts.turn += 1;
        }
    }

    /// What the model says next.
    async fn reply(&mut self) -> Result<ChatReply, LlmError> {
        self.settings.listeners.before_message();
        let instructions = self.settings.instructions.as_deref().map(Message::system);
        let before = self.history.iter().chain(&self.question).cloned();
        let messages = instructions.into_iter().chain(before).collect();
        let mut live = self.attempts.ask(ChatRequest { messages, ..self.request.clone() }).await?;
        let end = loop {
            match live.next().await {
                Some(Ok(StreamEvent::Text(text))) => self.output.text(text).await,
                Some(Ok(StreamEvent::End(reply))) => break Ok(*reply),
                Some(Ok(_)) => {}
                Some(Err(error)) => break Err(error),
                None => break Err(LlmError::new(ErrorCategory::Other, "the answer has no end")),
            }
        };
        self.attempts.calls.extend(live.into_call());
        end
    }

    async fn call_tool(&mut self, call: &ToolCall) -> Result<Message, LlmError> {
        let listeners = &self.settings.listeners;
        listeners.before_tool_call(call);
        self.output.event(|| ChatEvent::ToolCall(call.clone())).await;
        listeners.before_message();
        let result = async { Ok(result_of(call, &self.settings.tools).await) };
        let result = self.limits.within(result).await?;
        listeners.after_tool_result(call, &result);
        let message = Message::tool(&call.id, result);
        listeners.after_message(&message);
        self.output.event(|| ChatEvent::ToolResult(message.clone())).await;
        Ok(message)
    }
}
