//! The chunks of a streamed Chat Completions answer.
//! Invariant: `[DONE]` or a finish reason makes an answer whole.

use std::collections::VecDeque;

use prompt_engine_core::{ChatReply, LlmError, StreamEvent};
use serde_json::Value;

use super::super::answer::Head;
use super::super::error;
use super::super::facts::Facts;
use super::super::stream::{End, Frame, Frames, Step};
use super::reply::{self, Tools};
use crate::json::{has_error, text};

#[derive(Debug, Default)]
pub(in super::super) struct Chunks {
    started: bool,
    /// Whether any chunk held a choice.
    answered: bool,
    text: Option<String>,
    tools: Tools,
    facts: Facts,
    finish_reason: Option<String>,
}

impl Frames for Chunks {
    fn take(
        &mut self,
        frame: &Frame<'_>,
        head: &Head,
        ready: &mut VecDeque<StreamEvent>,
    ) -> Result<Step, LlmError> {
        self.facts.note(frame.value, frame.raw);
        let choices = frame.value.get("choices").and_then(Value::as_array);
        if !self.started && (self.facts.id.is_some() || choices.is_some_and(|c| !c.is_empty())) {
            self.started = true;
            let (model, id) = (self.facts.model.clone(), self.facts.id.clone());
            ready.push_back(StreamEvent::Started { model, id });
        }
        let mut token = false;
        for choice in choices.into_iter().flatten().filter(reply::is_first) {
            if has_error(choice) {
                return Err(error::from_value(choice, head));
            }
            token |= self.take_choice(choice, ready);
        }
        Ok(if token { Step::Token } else { Step::More })
    }

    fn finish(&mut self, end: End, head: &Head) -> Option<ChatReply> {
        let whole = match end {
            End::Said => self.answered,
            End::Closed => self.finish_reason.is_some(),
        };
        whole.then(|| {
            let Self { text, tools, facts, finish_reason, .. } = std::mem::take(self);
            facts.reply(text, tools.into_calls(), finish_reason.as_deref(), head)
        })
    }
}

impl Chunks {
    /// Whether the model said something.
    fn take_choice(&mut self, choice: &Value, ready: &mut VecDeque<StreamEvent>) -> bool {
        self.answered = true;
        if let Some(reason) = text(choice, "finish_reason") {
            self.finish_reason = Some(reason.to_owned());
        }
        let Some(delta) = choice.get("delta") else { return false };
        let mut token =
            ["reasoning", "reasoning_content"].iter().any(|name| text(delta, name).is_some());
        if let Some(text) = reply::content(delta).filter(|text| !text.is_empty()) {
            self.text.get_or_insert_default().push_str(&text);
            ready.push_back(StreamEvent::Text(text));
            token = true;
        }
        if let Some(refusal) = text(delta, "refusal") {
            self.facts.refusal.get_or_insert_default().push_str(refusal);
            token = true;
        }
        self.tools.note(delta);
        token || !self.tools.is_empty()
    }
}
