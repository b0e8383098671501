//! What `generateContent` answers: one response, or the same in pieces.
//! Invariant: of several candidates, which are asked for with `candidateCount`, that of index 0 is the answer.

use prompt_engine_core::{ChatReply, LlmError, TokenCounts, ToolCall};
use serde_json::{Value, json};

use super::stand_in;
use crate::connection::{End, Facts, Frame, Frames, Head, Step};
use crate::json::{count, text};

/// The reply in `body`, one response or a list of its pieces, as Gemini sends a stream that is not
/// asked for as events; `None` where it is none.
pub(super) fn read(body: &Value, head: &Head) -> Option<ChatReply> {
    let pieces = body.as_array().map_or(std::slice::from_ref(body), Vec::as_slice);
    let answers = |piece: &Value| {
        ["candidates", "promptFeedback"]
            .iter()
            .any(|name| piece.get(name).is_some_and(|field| !field.is_null()))
    };
    let mut candidates = Candidates::default();
    for piece in pieces {
        candidates.note(piece);
    }
    pieces.iter().any(answers).then(|| candidates.reply(head))
}

#[derive(Debug, Default)]
pub(crate) struct Candidates {
    facts: Facts,
    text: Option<String>,
    calls: Vec<ToolCall>,
}

impl Frames for Candidates {
    fn take(&mut self, frame: &Frame<'_>, _: &Head) -> Result<Step, LlmError> {
        Ok(self.note(frame.value))
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn finish(&mut self, _: End, head: &Head) -> Option<ChatReply> {
        self.facts.finish_reason.is_some().then(|| std::mem::take(self).reply(head))
    }
}

impl Candidates {
    fn reply(self, head: &Head) -> ChatReply {
        let Self { mut facts, text: content, calls } = self;
        facts.service_tier = text(&facts.usage, "serviceTier").map(str::to_owned);
        facts.reply(content, calls, head)
    }

    /// Notes a response, or a piece of one.
    fn note(&mut self, frame: &Value) -> Step {
        if let Some(id) = text(frame, "responseId") {
            self.facts.id = Some(id.to_owned());
        }
        if let Some(model) = text(frame, "modelVersion") {
            self.facts.model = Some(model.to_owned());
        }
        self.facts.note_usage(frame.get("usageMetadata"), tokens);
        // A prompt that is refused has no candidate, and is paid for.
        if let Some(feedback) = frame.get("promptFeedback") {
            let reason = text(feedback, "blockReason").map(str::to_owned);
            self.facts.finish_reason = reason.or(self.facts.finish_reason.take());
            self.facts.kept.insert("prompt_feedback".into(), feedback.clone());
        }
        let first =
            |candidate: &&Value| candidate.get("index").and_then(Value::as_u64).unwrap_or(0) == 0;
        let mut candidates =
            frame.get("candidates").and_then(Value::as_array).into_iter().flatten();
        let Some(candidate) = candidates.find(first) else { return Step::default() };
        if let Some(reason) = text(candidate, "finishReason") {
            self.facts.finish_reason = Some(reason.to_owned());
        }
        if let Some(said) = text(candidate, "finishMessage") {
            self.facts.kept.insert("finish_message".into(), json!(said));
        }
        let mut step = Step::default();
        let parts = candidate.pointer("/content/parts").and_then(Value::as_array);
        for part in parts.into_iter().flatten() {
            self.part(part, &mut step);
        }
        step
    }

    fn part(&mut self, part: &Value, step: &mut Step) {
        if let Some(call) = part.get("functionCall").filter(|call| call.is_object()) {
            step.token = true;
            let name = text(call, "name").unwrap_or_default();
            let call = ToolCall {
                id: text(call, "id")
                    .map_or_else(|| stand_in(name, self.calls.len()), str::to_owned),
                name: name.to_owned(),
                arguments: match call.get("args") {
                    None | Some(Value::Null) => "{}".to_owned(),
                    Some(arguments) => arguments.to_string(),
                },
                signature: text(part, "thoughtSignature").map(str::to_owned),
            };
            self.calls.push(call);
            return;
        }
        let Some(said) = part.get("text").and_then(Value::as_str) else { return };
        step.token |= !said.is_empty();
        if part.get("thought").and_then(Value::as_bool) != Some(true) {
            self.text.get_or_insert_default().push_str(said);
            step.text.push_str(said);
        }
    }
}

/// Gemini counts thoughts beside the candidates, and what its own tools read beside the prompt;
/// what came from a cache is a part of the prompt.
pub(super) fn tokens(usage: &Value) -> Option<TokenCounts> {
    let input = count(usage, "/promptTokenCount");
    let output = count(usage, "/candidatesTokenCount");
    let reasoning = count(usage, "/thoughtsTokenCount");
    if input.is_none() && output.is_none() && reasoning.is_none() {
        return None;
    }
    let part = |pointer| count(usage, pointer).unwrap_or(0);
    let reasoning = reasoning.unwrap_or(0);
    Some(TokenCounts {
        input: input.unwrap_or(0).saturating_add(part("/toolUsePromptTokenCount")),
        output: output.unwrap_or(0).saturating_add(reasoning),
        cache_read: part("/cachedContentTokenCount"),
        reasoning,
        // Audio that came from a cache is counted there.
        audio_input: audio(usage, "promptTokensDetails")
            .saturating_sub(audio(usage, "cacheTokensDetails")),
        audio_output: audio(usage, "candidatesTokensDetails"),
        ..TokenCounts::default()
    })
}

fn audio(usage: &Value, list: &str) -> u64 {
    let parts = usage.get(list).and_then(Value::as_array).into_iter().flatten();
    parts
        .filter(|part| text(part, "modality") == Some("AUDIO"))
        .filter_map(|part| count(part, "/tokenCount"))
        .fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thoughts_and_tools_are_put_into_their_wholes() {
        let usage = json!({"promptTokenCount": 100, "cachedContentTokenCount": 60,
            "toolUsePromptTokenCount": 7, "candidatesTokenCount": 20, "thoughtsTokenCount": 30,
            "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 50}],
            "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 45}]});
        let counts = tokens(&usage).expect("counts");
        assert_eq!((counts.input, counts.cache_read, counts.audio_input), (107, 60, 5));
        assert_eq!((counts.output, counts.reasoning), (50, 30));
        assert!(counts.check().is_ok());
        assert_eq!(tokens(&json!({"totalTokenCount": 3})), None);
    }

    #[test]
    fn a_thought_is_no_text_and_a_call_without_an_id_gets_one() {
        let mut reader = Candidates::default();
        let head = Head::default();
        let step = reader.note(&json!({"candidates": [{"content": {"parts": [
            {"text": "hm", "thought": true}, {"text": "Hi"}, {"text": " there"},
            {"functionCall": {"name": "f"}, "thoughtSignature": "c2ln"},
            {"functionCall": {"name": "f", "args": {"x": 1}, "id": "own"}},
            {"functionCall": {"name": "g", "args": null}}]}}]}));
        assert_eq!(step, Step { text: "Hi there".into(), token: true, ..Step::default() });
        let reply = reader.reply(&head);
        let calls: Vec<_> = reply
            .tool_calls
            .iter()
            .map(|call| (call.id.as_str(), call.arguments.as_str()))
            .collect();
        assert_eq!(calls, [("call#f#0", "{}"), ("own", r#"{"x":1}"#), ("call#g#2", "{}")]);
        assert_eq!(reply.tool_calls[0].signature.as_deref(), Some("c2ln"));
        assert_eq!((reply.tokens, reply.metadata), (None, Value::Null));
    }

    #[test]
    fn of_two_candidates_the_one_of_index_0_is_the_answer_wherever_it_stands() {
        let candidate = |index: u64, text: &str| json!({"index": index, "content": {"parts": [{"text": text}]}, "finishReason": "STOP"});
        let [first, second] = [candidate(0, "Bern"), candidate(1, "Rome")];
        let head = Head::default();
        let mut reader = Candidates::default();
        assert_eq!(reader.note(&json!({"candidates": [second]})), Step::default());
        assert_eq!(reader.note(&json!({"candidates": [second, first]})).text, "Bern");
        assert_eq!(reader.reply(&head).content.as_deref(), Some("Bern"));
    }

    #[test]
    fn a_prompt_that_is_refused_is_a_reply_without_text() {
        let refused = json!({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
            "usageMetadata": {"promptTokenCount": 9}});
        let reply = read(&refused, &Head::default()).expect("a reply");
        assert_eq!(reply.finish_reason.as_deref(), Some("PROHIBITED_CONTENT"));
        assert_eq!((reply.content, reply.tokens.map(|tokens| tokens.input)), (None, Some(9)));
    }

    #[test]
    fn a_list_of_pieces_is_one_reply() {
        let piece = |text: &str| json!({"candidates": [{"content": {"parts": [{"text": text}]}}]});
        let last = json!({"candidates": [{"finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 9}});
        let reply =
            read(&json!([piece("Ber"), piece("n"), last]), &Head::default()).expect("a reply");
        assert_eq!(
            (reply.content.as_deref(), reply.finish_reason.as_deref()),
            (Some("Bern"), Some("STOP"))
        );
        assert_eq!(read(&json!([]), &Head::default()), None);
    }
}
