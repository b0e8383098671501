//! The events of a streamed response.
//! Invariant: only an event that holds the ended response makes an answer whole, and what it says
//! counts; what came before it fills in what a server leaves out there.

use prompt_engine_core::{ChatReply, LlmError};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::reply;
use crate::connection::{End, Facts, Frame, Frames, Head, Step, error};
use crate::json::text;

#[derive(Debug, Default)]
pub(crate) struct Events {
    /// The id and the model.
    facts: Facts,
    text: String,
    refusal: String,
    /// Items of the output that are done.
    items: Vec<Value>,
    /// The reply, once the response has ended.
    reply: Option<ChatReply>,
}

impl Frames for Events {
    fn take(&mut self, frame: &Frame<'_>, head: &Head) -> Result<Step, LlmError> {
        let response = frame.value.get("response").filter(|response| response.is_object());
        if let Some(response) = response {
            self.facts.note(response, "");
        }
        let delta = text(frame.value, "delta");
        let mut step = Step { token: delta.is_some(), ..Step::default() };
        match (frame.name, response, delta) {
            ("response.completed" | "response.incomplete", Some(response), _) => {
                let reply = self.whole(response, frame.raw, head)?;
                // What was said and not streamed.
                let rest = reply.content.as_deref().and_then(|all| all.strip_prefix(&self.text));
                step.text = rest.unwrap_or_default().to_owned();
                step.last = true;
                self.reply = Some(reply);
            }
            ("response.failed" | "response.cancelled", response, _) => {
                let reported = response.unwrap_or(frame.value);
                return Err(match reply::read(reported, frame.raw, None, head) {
                    Err(error) => error,
                    Ok(_) => error::from_value(reported, head),
                });
            }
            ("response.output_text.delta", _, Some(delta)) => {
                self.text.push_str(delta);
                step.text = delta.to_owned();
            }
            ("response.refusal.delta", _, Some(delta)) => self.refusal.push_str(delta),
            ("response.output_item.done", ..) => {
                self.items.extend(frame.value.get("item").cloned());
            }
            _ => {}
        }
        Ok(step)
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn finish(&mut self, _: End, _: &Head) -> Option<ChatReply> {
        self.reply.take()
    }
}

impl Events {
    fn whole(&mut self, response: &Value, raw: &str, head: &Head) -> Result<ChatReply, LlmError> {
        #[derive(Deserialize)]
        struct Ended<'r> {
            #[serde(borrow)]
            response: &'r RawValue,
        }
        let raw = serde_json::from_str::<Ended<'_>>(raw).map_or("", |ended| ended.response.get());
        let mut reply = reply::read(response, raw, Some(&self.items), head)?;
        reply.tokens = reply.tokens.or(self.facts.tokens);
        if reply.content.is_none() && !self.text.is_empty() {
            reply.content = Some(self.text.clone());
        }
        if !self.refusal.is_empty() && reply.metadata.get("refusal").is_none() {
            let refusal = std::mem::take(&mut self.refusal);
            match &mut reply.metadata {
                Value::Object(fields) => {
                    fields.insert("refusal".to_owned(), refusal.into());
                }
                other => *other = serde_json::json!({"refusal": refusal}),
            }
        }
        Ok(reply)
    }
}
