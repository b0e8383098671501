//! What the Messages API answers: one message, or the events that build it up.
//! Invariant: an odd field never fails a reply; a block is put together by its index, and blocks keep
//! their order.

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
        Value::String(said) => message.blocks.push((0, Block::Text(said.clone()))),
        _ => return None,
    }
    Some(message.reply(head))
}

/// The blocks of a message.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    facts: Facts,
    /// Each with its index.
    blocks: Vec<(u64, Block)>,
    /// Whether a last frame came.
    stopped: bool,
    /// Whether a stream said what its answer used; its start only says what was used by then.
    counted: bool,
}

#[derive(Debug)]
enum Block {
    Text(String),
    /// `thinking` or `redacted_thinking`, as it came.
    Thought(Value),
    Call(ToolCall),
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
                let usage = value.get("usage");
                self.counted |= usage.is_some_and(|used| count(used, "/output_tokens").is_some());
                self.facts.note_usage(usage, tokens);
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
        whole.then(|| {
            if !self.counted {
                self.facts.tokens = None;
            }
            std::mem::take(self).reply(head)
        })
    }
}

impl Blocks {
    fn reply(self, head: &Head) -> ChatReply {
        let Self { mut facts, blocks, .. } = self;
        let signature = signature(&blocks);
        let (mut content, mut calls) = (None::<String>, Vec::new());
        for (_, block) in blocks {
            match block {
                Block::Text(text) => content.get_or_insert_default().push_str(&text),
                Block::Thought(_) => {}
                Block::Call(mut call) => {
                    if call.arguments.is_empty() {
                        call.arguments.push_str("{}");
                    }
                    calls.push(call);
                }
            }
        }
        if let Some(first) = calls.first_mut() {
            first.signature = signature;
        }
        facts.service_tier = text(&facts.usage, "service_tier").map(str::to_owned);
        facts.reply(content, calls, head)
    }

    fn note(&mut self, message: &Value) {
        if let Some(id) = text(message, "id") {
            self.facts.id = Some(id.to_owned());
        }
        if let Some(model) = text(message, "model") {
            self.facts.model = Some(model.to_owned());
        }
        self.stop(message);
        self.facts.note_usage(message.get("usage"), tokens);
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

    /// The latest block of that index.
    fn at(&mut self, place: u64) -> Option<&mut Block> {
        self.blocks.iter_mut().rfind(|(at, _)| *at == place).map(|(_, block)| block)
    }

    fn block(&mut self, place: u64, block: &Value) -> Step {
        match text(block, "type") {
            Some("text") => self.text(place, block),
            Some("tool_use") => {
                let field = |name| text(block, name).unwrap_or_default().to_owned();
                // A stream begins with an empty object and sends the text of the real one after it.
                let input =
                    block.get("input").filter(|input| !input.is_null() && **input != json!({}));
                let arguments = input.map(Value::to_string).unwrap_or_default();
                let call =
                    ToolCall { id: field("id"), name: field("name"), arguments, signature: None };
                self.blocks.push((place, Block::Call(call)));
                Step { token: true, ..Step::default() }
            }
            Some("thinking" | "redacted_thinking") => {
                self.blocks.push((place, Block::Thought(block.clone())));
                Step { token: true, ..Step::default() }
            }
            // What a tool of the server did is no text and no call of ours.
            _ => Step::default(),
        }
    }

    fn delta(&mut self, place: u64, delta: &Value) -> Step {
        match text(delta, "type") {
            Some("text_delta") => return self.text(place, delta),
            Some("input_json_delta") => {
                let block = self.at(place);
                if let (Some(Block::Call(call)), Some(part)) = (block, text(delta, "partial_json"))
                {
                    call.arguments.push_str(part);
                }
            }
            Some(kind @ ("thinking_delta" | "signature_delta")) => {
                let name = kind.trim_end_matches("_delta");
                let block = self.at(place);
                if let (Some(Block::Thought(thought)), Some(part)) = (block, text(delta, name)) {
                    match thought.get_mut(name) {
                        Some(Value::String(known)) => known.push_str(part),
                        _ => thought[name] = json!(part),
                    }
                }
            }
            _ => return Step::default(),
        }
        Step { token: true, ..Step::default() }
    }

    fn text(&mut self, place: u64, said: &Value) -> Step {
        let Some(said) = said.get("text").and_then(Value::as_str) else { return Step::default() };
        match self.at(place) {
            Some(Block::Text(known)) => known.push_str(said),
            _ => self.blocks.push((place, Block::Text(said.to_owned()))),
        }
        Step { text: said.to_owned(), token: !said.is_empty(), ..Step::default() }
    }
}

/// What goes back with the first tool call: the thoughts. Where one of them follows a text or a call,
/// all blocks in their order, since Anthropic refuses thoughts in another; a call is a bare mark there.
fn signature(blocks: &[(u64, Block)]) -> Option<String> {
    let is_thought = |(_, block): &&(u64, Block)| matches!(block, Block::Thought(_));
    let first = blocks.iter().take_while(is_thought).count();
    let thoughts = blocks.iter().filter(is_thought).count();
    if thoughts == 0 {
        return None;
    }
    let kept = if thoughts == first { &blocks[..first] } else { blocks };
    let kept: Value = kept
        .iter()
        .map(|(_, block)| match block {
            Block::Text(text) => json!({"type": "text", "text": text}),
            Block::Thought(thought) => thought.clone(),
            Block::Call(_) => json!({"type": "tool_use"}),
        })
        .collect();
    Some(kept.to_string())
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
    fn thoughts_between_other_blocks_keep_their_place() {
        let thought = |said: &str| json!({"type": "thinking", "thinking": said, "signature": "c"});
        let (first, second) = (thought("a"), thought("b"));
        let text = json!({"type": "text", "text": "Let me see."});
        let call = json!({"type": "tool_use", "id": "t1", "name": "f", "input": {}});
        let body = json!({"content": [first, text, second, call]});
        let reply = read(&body, &Head::default()).expect("a reply");
        assert_eq!(reply.content.as_deref(), Some("Let me see."));
        let kept = json!([first, text, second, {"type": "tool_use"}]).to_string();
        assert_eq!(reply.tool_calls[0].signature, Some(kept));
    }

    #[test]
    fn what_a_stream_used_at_its_start_is_not_what_its_answer_used() {
        for (at_the_end, output) in [
            (json!({"output_tokens": 9}), Some(9)),
            (json!({"input_tokens": 3}), None),
            (Value::Null, None),
        ] {
            let mut streamed = Blocks::default();
            for frame in [
                json!({"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 1}}}),
                json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": at_the_end}),
            ] {
                let name = text(&frame, "type").expect("a name");
                let frame = Frame { name, raw: "", value: &frame };
                streamed.take(&frame, &Head::default()).expect("a frame");
            }
            let reply = streamed.finish(End::Closed, &Head::default()).expect("a reply");
            assert_eq!(reply.tokens.map(|tokens| tokens.output), output);
            assert_eq!(reply.metadata["usage"]["input_tokens"], 3);
        }
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
