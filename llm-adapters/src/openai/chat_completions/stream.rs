//! The chunks of a streamed Chat Completions answer.
//! Invariant: `[DONE]` or a finish reason makes an answer whole.

use prompt_engine_core::{ChatReply, LlmError};
use serde_json::Value;

use super::reply::{self, Tools};
use crate::connection::{End, Facts, Frame, Frames, Head, Step, error};
use crate::json::{has_error, text};

#[derive(Debug, Default)]
pub(crate) struct Chunks {
    /// Whether any chunk held a choice.
    answered: bool,
    text: Option<String>,
    refusal: String,
    tools: Tools,
    facts: Facts,
}

impl Frames for Chunks {
    const SAYS_DONE: bool = true;

    fn take(&mut self, frame: &Frame<'_>, head: &Head) -> Result<Step, LlmError> {
        self.facts.note(frame.value, frame.raw);
        let choices = frame.value.get("choices").and_then(Value::as_array);
        let mut step = Step::default();
        for choice in choices.into_iter().flatten().filter(reply::is_first) {
            if has_error(choice) {
                return Err(error::from_value(choice, head));
            }
            self.take_choice(choice, &mut step);
        }
        Ok(step)
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn finish(&mut self, end: End, head: &Head) -> Option<ChatReply> {
        let whole = match end {
            End::Said => self.answered,
            End::Closed => self.facts.finish_reason.is_some(),
        };
        whole.then(|| {
            let Self { text, refusal, tools, mut facts, .. } = std::mem::take(self);
            if !refusal.is_empty() {
                facts.kept.insert("refusal".into(), refusal.into());
            }
            facts.reply(text, tools.into_calls(), head)
        })
    }
}

impl Chunks {
    fn take_choice(&mut self, choice: &Value, step: &mut Step) {
        self.answered = true;
        if let Some(reason) = text(choice, "finish_reason") {
            self.facts.finish_reason = Some(reason.to_owned());
        }
        let Some(delta) = choice.get("delta") else { return };
        let thought = ["reasoning", "reasoning_content"];
        step.token |= thought.iter().any(|name| text(delta, name).is_some());
        if let Some(text) = reply::content(delta).filter(|text| !text.is_empty()) {
            self.text.get_or_insert_default().push_str(&text);
            step.text.push_str(&text);
            step.token = true;
        }
        if let Some(refusal) = text(delta, "refusal") {
            self.refusal.push_str(refusal);
            step.token = true;
        }
        self.tools.note(delta);
        step.token |= !self.tools.is_empty();
    }
}
