//! What the Messages API answers: one message, or the events that build it up.
//! Invariant: an odd field never fails a reply; a tool call and a thought are put together by the index of their block.

use prompt_engine_core::{ChatReply, LlmError, TokenCounts, ToolCall};
use serde_json::{Value, json};

use crate::connection::{End, Facts, Frame, Frames, Head, Step};
use crate::json::{count, text};

/// The reply in the message `body`; `None` where it is none.
pub(super) fn read(body: &Value, head: &Head) -> Option<ChatReply> {
    let mut message = Blocks::default();
    message.note(body);
    match body.get("content")? {
        Value::Array(blocks) => {
            for (place, block) in (0..).zip(blocks) {
                message.block(place, block);
            }
        }
        Value::String(said) => message.push_text(said),
        _ => return None,
    }
    Some(message.reply(head))
}

/// The blocks of a message.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    facts: Facts,
    text: Option<String>,
    calls: Vec<(u64, ToolCall)>,
    /// The blocks `thinking` and `redacted_thinking`, which go back with the tool calls they led to.
    thoughts: Vec<(u64, Value)>,
    /// Whether a last frame came.
    stopped: bool,
}

impl Frames for Blocks {
    fn take(&mut self, frame: &Frame<'_>, _: &Head) -> Result<Step, LlmError> {
        let Frame { name, value, .. } = frame;
        let place = value.get("index").and_then(Value::as_u64).unwrap_or(0);
        let mut step = Step::default();
        match *name {
            "message_start" => {
                if let Some(message) = value.get("message") {
                    self.note(message);
                }
            }
            "content_block_start" => {
                if let Some(block) = value.get("content_block") {
                    step = self.block(place, block);
                }
            }
            "content_block_delta" => {
                if let Some(delta) = value.get("delta") {
                    step = self.delta(place, delta);
                }
            }
            "message_delta" => {
                if let Some(delta) = value.get("delta") {
                    self.stop(delta);
                }
                self.facts.note_usage(value.get("usage"));
            }
            "message_stop" => {
                self.stopped = true;
                step.last = true;
            }
            _ => {}
        }
        Ok(step)
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn finish(&mut self, _: End, head: &Head) -> Option<ChatReply> {
        let whole = self.stopped || self.facts.finish_reason.is_some();
        whole.then(|| std::mem::take(self).reply(head))
    }
}

impl Blocks {
    fn reply(self, head: &Head) -> ChatReply {
        let Self { mut facts, text: content, calls, thoughts, .. } = self;
        let mut calls: Vec<_> = calls.into_iter().map(|(_, call)| call).collect();
        for call in &mut calls {
            if call.arguments.is_empty() {
                call.arguments.push_str("{}");
            }
        }
        if let (Some(first), false) = (calls.first_mut(), thoughts.is_empty()) {
            let thoughts: Value = thoughts.into_iter().map(|(_, thought)| thought).collect();
            first.signature = Some(thoughts.to_string());
        }
        facts.tokens = tokens(&facts.usage);
        facts.service_tier = text(&facts.usage, "service_tier").map(str::to_owned);
        facts.reply(content, calls, head)
    }

    fn push_text(&mut self, text: &str) {
        self.text.get_or_insert_default().push_str(text);
    }

    fn note(&mut self, message: &Value) {
        if let Some(id) = text(message, "id") {
            self.facts.id = Some(id.to_owned());
        }
        if let Some(model) = text(message, "model") {
            self.facts.model = Some(model.to_owned());
        }
        self.stop(message);
        self.facts.note_usage(message.get("usage"));
    }

    fn stop(&mut self, said: &Value) {
        if let Some(reason) = text(said, "stop_reason") {
            self.facts.finish_reason = Some(reason.to_owned());
        }
        for name in ["stop_sequence", "stop_details"] {
            if let Some(detail) = said.get(name).filter(|detail| !detail.is_null()) {
                self.facts.kept.insert(name.into(), detail.clone());
            }
        }
    }

    fn block(&mut self, place: u64, block: &Value) -> Step {
        match text(block, "type") {
            Some("text") => self.text(block),
            Some("tool_use") => {
                let field = |name| text(block, name).unwrap_or_default().to_owned();
                // A stream begins with an empty object and sends the text of the real one after it.
                let input =
                    block.get("input").filter(|input| !input.is_null() && **input != json!({}));
                let arguments = input.map(Value::to_string).unwrap_or_default();
                let call =
                    ToolCall { id: field("id"), name: field("name"), arguments, signature: None };
                self.calls.push((place, call));
                Step { token: true, ..Step::default() }
            }
            Some("thinking" | "redacted_thinking") => {
                self.thoughts.push((place, block.clone()));
                Step { token: true, ..Step::default() }
            }
            // What a tool of the server did is no text and no call of ours.
            _ => Step::default(),
        }
    }

    fn delta(&mut self, place: u64, delta: &Value) -> Step {
        match text(delta, "type") {
            Some("text_delta") => return self.text(delta),
            Some("input_json_delta") => {
                let call = self.calls.iter_mut().rfind(|(at, _)| *at == place);
                if let (Some((_, call)), Some(part)) = (call, text(delta, "partial_json")) {
                    call.arguments.push_str(part);
                }
            }
            Some(kind @ ("thinking_delta" | "signature_delta")) => {
                let name = kind.trim_end_matches("_delta");
                let thought = self.thoughts.iter_mut().rfind(|(at, _)| *at == place);
                if let (Some((_, Value::Object(fields))), Some(part)) = (thought, text(delta, name))
                {
                    let known = fields.get(name).and_then(Value::as_str).unwrap_or_default();
                    fields.insert(name.into(), json!(format!("{known}{part}")));
                }
            }
            _ => return Step::default(),
        }
        Step { token: true, ..Step::default() }
    }

    fn text(&mut self, said: &Value) -> Step {
        let Some(said) = said.get("text").and_then(Value::as_str) else { return Step::default() };
        self.push_text(said);
        Step { text: said.to_owned(), token: !said.is_empty(), ..Step::default() }
    }
}

/// Anthropic counts cache reads and writes beside the input; thoughts are a part of the output.
pub(super) fn tokens(usage: &Value) -> Option<TokenCounts> {
    let input = count(usage, "/input_tokens");
    let output = count(usage, "/output_tokens");
    if input.is_none() && output.is_none() {
        return None;
    }
    let part = |pointer| count(usage, pointer).unwrap_or(0);
    let hour = part("/cache_creation/ephemeral_1h_input_tokens");
    let by_time = hour.saturating_add(part("/cache_creation/ephemeral_5m_input_tokens"));
    let cache_write = count(usage, "/cache_creation_input_tokens").unwrap_or(by_time);
    let cache_read = part("/cache_read_input_tokens");
    Some(TokenCounts {
        input: input.unwrap_or(0).saturating_add(cache_write).saturating_add(cache_read),
        output: output.unwrap_or(0),
        cache_read,
        cache_write,
        cache_write_1h: hour,
        reasoning: part("/output_tokens_details/thinking_tokens"),
        ..TokenCounts::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_writes_are_kept_apart_by_how_long_they_last() {
        let usage = json!({"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 30,
            "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20}});
        let counts = tokens(&usage).expect("counts");
        assert_eq!((counts.input, counts.cache_read), (140, 100));
        assert_eq!((counts.cache_write, counts.cache_write_1h), (30, 20));
        assert!(counts.check().is_ok());
        assert_eq!(tokens(&json!({"service_tier": "standard"})), None);
    }

    #[test]
    fn odd_fields_do_not_break_a_reply() {
        let read = |body: Value| read(&body, &Head::default());
        let reply = read(json!({"id": 7, "model": null, "content": [
            {"type": "tool_use", "id": null, "name": "f"}, {"type": "text", "text": 5}, "odd",
            {"type": "tool_use", "id": "t", "name": "g", "input": null},
            {"type": "new_kind", "text": "not ours"}, {"type": "text", "text": "a"}],
            "usage": {"input_tokens": -1, "output_tokens": "4"}}))
        .expect("a reply");
        assert_eq!((reply.content.as_deref(), reply.model), (Some("a"), None));
        let calls: Vec<_> =
            reply.tool_calls.iter().map(|c| (c.name.as_str(), c.arguments.as_str())).collect();
        assert_eq!(calls, [("f", "{}"), ("g", "{}")]);
        assert!(reply.tokens.is_some_and(|tokens| tokens.output == 4 && tokens.check().is_err()));
        let plain = read(json!({"content": "plain"})).expect("a reply");
        assert_eq!(plain.content.as_deref(), Some("plain"));
        assert_eq!(read(json!({"content": null})), None);
    }

    #[test]
    fn a_stream_builds_what_the_whole_message_says() {
        let call =
            json!({"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Bern"}});
        let thought = json!({"type": "thinking", "thinking": "hm", "signature": "c2ln"});
        let usage = json!({"input_tokens": 3, "output_tokens": 9});
        let body = json!({"id": "m1", "model": "claude", "stop_reason": "tool_use", "usage": usage,
            "content": [thought, {"type": "text", "text": " Let me see"}, call]});
        let head = Head::default();
        let plain = read(&body, &head).expect("a reply");
        assert_eq!(plain.content.as_deref(), Some(" Let me see"));
        assert_eq!(plain.tool_calls[0].signature, Some(json!([thought]).to_string()));

        let delta = |place: u64, delta: Value| json!({"type": "content_block_delta", "index": place, "delta": delta});
        let start = |place: u64, block: Value| json!({"type": "content_block_start", "index": place, "content_block": block});
        let mut streamed = Blocks::default();
        let mut last = |value: Value| {
            let name = text(&value, "type").expect("a name");
            let frame = Frame { name, raw: "", value: &value };
            streamed.take(&frame, &head).expect("a frame").last
        };
        for frame in [
            json!({"type": "message_start", "message": {"id": "m1", "model": "claude", "content": [],
                "usage": {"input_tokens": 3, "output_tokens": 1}}}),
            start(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
            delta(0, json!({"type": "thinking_delta", "thinking": "h"})),
            delta(0, json!({"type": "thinking_delta", "thinking": "m"})),
            delta(0, json!({"type": "signature_delta", "signature": "c2ln"})),
            start(1, json!({"type": "text", "text": ""})),
            delta(1, json!({"type": "text_delta", "text": " Let me see"})),
            start(2, json!({"type": "tool_use", "id": "t1", "name": "weather", "input": {}})),
            delta(2, json!({"type": "input_json_delta", "partial_json": "{\"city\":"})),
            delta(2, json!({"type": "input_json_delta", "partial_json": "\"Bern\"}"})),
            json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"},
                "usage": {"output_tokens": 9}}),
        ] {
            assert!(!last(frame));
        }
        assert!(last(json!({"type": "message_stop"})));
        assert_eq!(streamed.finish(End::Said, &head), Some(plain));
    }
}
