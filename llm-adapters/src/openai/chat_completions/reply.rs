//! A Chat Completions answer as a [`ChatReply`], from whatever shape compatible servers give it.
//! Invariant: an odd field never fails a reply; only an answer without any choice does.

use prompt_engine_core::{ChatReply, LlmError, ToolCall};
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::connection::{Facts, Head, error};
use crate::json::{has_error, text};

/// The reply in the body of a success, `value`, parsed from `raw`.
pub(super) fn read(value: &Value, raw: &str, head: &Head) -> Result<Option<ChatReply>, LlmError> {
    let choices = value.get("choices").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let Some(choice) = choices.iter().find(is_first).or(choices.first()) else { return Ok(None) };
    let mut facts = Facts::default();
    facts.note(value, raw);
    if has_error(choice) {
        return Err(error::paid(error::from_value(choice, head), facts.tokens));
    }
    let empty = Value::Null;
    let message = choice.get("message").unwrap_or(&empty);
    facts.finish_reason = text(choice, "finish_reason").map(str::to_owned);
    if let Some(refusal) = text(message, "refusal") {
        facts.kept.insert("refusal".into(), refusal.into());
    }
    let calls = Tools::of_message(message).into_calls();
    Ok(Some(facts.reply(content(message), calls, head)))
}

/// Whether a choice is the answer: further ones are asked for with `n`.
pub(super) fn is_first(choice: &&Value) -> bool {
    choice.get("index").and_then(Value::as_u64).unwrap_or(0) == 0
}

/// The text of a message or of a delta: a string, or the text parts of a list.
pub(super) fn content(message: &Value) -> Option<String> {
    match message.get("content")? {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            Some(parts.iter().filter_map(|part| part.get("text")?.as_str()).collect())
        }
        _ => None,
    }
}

/// Tool calls, put together from one message or from the deltas of a stream.
#[derive(Debug, Default)]
pub(super) struct Tools {
    calls: Vec<(Option<u64>, ToolCall)>,
}

impl Tools {
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    pub(super) fn into_calls(self) -> Vec<ToolCall> {
        self.calls.into_iter().map(|(_, call)| call).collect()
    }

    /// The tool calls of a message, each of which is whole.
    fn of_message(message: &Value) -> Self {
        let mut tools = Self::default();
        for part in parts(message) {
            let mut call = ToolCall::default();
            add(&mut call, part);
            tools.calls.push((None, call));
        }
        tools.note_old_form(message);
        tools
    }

    /// Notes the tool calls of a delta.
    pub(super) fn note(&mut self, delta: &Value) {
        for part in parts(delta) {
            let index = part.get("index").and_then(Value::as_u64);
            let name = text(function(part), "name");
            add(self.place(index, text(part, "id"), name), part);
        }
        self.note_old_form(delta);
    }

    /// Notes the form before tools; some servers still speak it.
    fn note_old_form(&mut self, message: &Value) {
        if let Some(function) = message.get("function_call").filter(|call| call.is_object()) {
            add_function(self.place(Some(0), None, None), function);
        }
    }

    /// The call that a part belongs to: the latest of its index, or without one that of its id, or
    /// the latest of all, unless it has a name; a new call where there is none. Where nothing but names
    /// tells calls apart, one that is not whole goes on under its name, which some servers repeat.
    ///
    /// Some servers give every call the index 0, and some every part of a call an id of its own: of
    /// the same index, only a part with another id and a name begins a new call.
    fn place(&mut self, index: Option<u64>, id: Option<&str>, name: Option<&str>) -> &mut ToolCall {
        let known = self.calls.iter().rposition(|(at, call)| match (index, id) {
            (Some(_), Some(id)) if name.is_some() => {
                *at == index && (call.id.is_empty() || call.id == id)
            }
            (Some(_), _) => *at == index,
            (None, Some(id)) => call.id == id,
            (None, None) => name.is_none_or(|name| call.name == name && !is_whole(call)),
        });
        let at = known.unwrap_or_else(|| {
            self.calls.push((index, ToolCall::default()));
            self.calls.len() - 1
        });
        &mut self.calls[at].1
    }
}

/// Whether nothing can follow its arguments. JSON is parsed only where it may be at its end.
fn is_whole(call: &ToolCall) -> bool {
    call.arguments.trim_end().ends_with('}')
        && serde_json::from_str::<IgnoredAny>(&call.arguments).is_ok()
}

fn parts(message: &Value) -> impl Iterator<Item = &Value> {
    message.get("tool_calls").and_then(Value::as_array).into_iter().flatten()
}

fn function(part: &Value) -> &Value {
    part.get("function").unwrap_or(part)
}

fn add(call: &mut ToolCall, part: &Value) {
    if let Some(id) = text(part, "id") {
        id.clone_into(&mut call.id);
    }
    add_function(call, function(part));
}

fn add_function(call: &mut ToolCall, function: &Value) {
    if let Some(name) = text(function, "name") {
        name.clone_into(&mut call.name);
    }
    match function.get("arguments") {
        Some(Value::String(part)) => call.arguments.push_str(part),
        Some(whole @ Value::Object(_)) => call.arguments = whole.to_string(),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::ChatCompletions;
    use super::*;
    use crate::connection;

    fn read(body: &str) -> Result<ChatReply, LlmError> {
        connection::read::<ChatCompletions>(body, &Head::default())
    }

    #[test]
    fn odd_fields_do_not_break_a_reply() {
        let body = r#"{"id":7,"model":null,"choices":[{"index":"0","message":{"content":[
            {"type":"thinking"},{"type":"text","text":"a"},{"type":"text","text":"b"}],
            "tool_calls":[{"function":{"name":"f","arguments":{"x":1}}}]},"finish_reason":3}],
            "usage":{"prompt_tokens":-1,"completion_tokens":"4"}}"#;
        let reply = read(body).expect("a reply");
        assert_eq!(reply.content.as_deref(), Some("ab"));
        assert_eq!(reply.tool_calls[0].arguments, r#"{"x":1}"#);
        let tokens = reply.tokens.expect("tokens");
        assert_eq!(tokens.output, 4);
        assert!(tokens.check().is_err());
    }

    #[test]
    fn calls_of_one_index_are_told_apart_by_id_and_name() {
        let call =
            |id: &str| json!({"index": 0, "id": id, "function": {"name": "f", "arguments": "{}"}});
        let mut tools = Tools::default();
        tools.note(&json!({"tool_calls": [call("a"), call("b")]}));
        let calls = tools.into_calls();
        let calls: Vec<_> =
            calls.iter().map(|call| (call.id.as_str(), call.arguments.as_str())).collect();
        assert_eq!(calls, [("a", "{}"), ("b", "{}")]);
    }

    #[test]
    fn calls_without_ids_are_calls_of_their_own() {
        let functions = json!([{"name": "f", "arguments": "{}"}, {"name": "g", "arguments": {}}]);
        let calls = |wrap: fn(&Value) -> Value| -> Value {
            functions.as_array().expect("functions").iter().map(wrap).collect()
        };
        let names = |calls: Vec<ToolCall>| -> Vec<(String, String)> {
            calls.into_iter().map(|call| (call.name, call.arguments)).collect()
        };
        let expected = ["f", "g"].map(|name| (name.to_owned(), "{}".to_owned()));
        for calls in [
            calls(|function| json!({"function": function})),
            calls(|function| json!({"id": "", "function": function})),
            calls(|function| json!({"id": "same", "function": function})),
            calls(|function| json!({"index": 0, "function": function})),
        ] {
            let body = json!({"choices": [{"message": {"tool_calls": calls}}]});
            let reply = read(&body.to_string()).expect("a reply");
            assert_eq!(names(reply.tool_calls), expected, "{calls}");
        }
        // In a stream, too, where nothing but the name tells them apart, even one that is repeated.
        let mut tools = Tools::default();
        for function in functions.as_array().expect("functions") {
            tools.note(&json!({"tool_calls": [{"function": function}]}));
        }
        assert_eq!(names(tools.into_calls()), expected);
        let mut tools = Tools::default();
        for part in ["{\"a\":", "{}", ", \"b\":1}", "{}"] {
            tools.note(&json!({"tool_calls": [{"function": {"name": "f", "arguments": part}}]}));
        }
        let expected = ["{\"a\":{}, \"b\":1}", "{}"].map(|said| ("f".to_owned(), said.to_owned()));
        assert_eq!(names(tools.into_calls()), expected);
    }

    #[test]
    fn of_two_choices_the_one_of_index_0_is_the_answer_wherever_it_stands() {
        let choice = |index: u64, text: &str| json!({"index": index, "message": {"content": text}});
        let content = |choices: Value| {
            let reply = read(&json!({"choices": choices}).to_string()).expect("a reply");
            reply.content
        };
        assert_eq!(content(json!([choice(1, "b"), choice(0, "a")])).as_deref(), Some("a"));
        assert_eq!(content(json!([choice(1, "b")])).as_deref(), Some("b"));
    }

    #[test]
    fn an_error_in_a_success_is_an_error() {
        let error = read(r#"{"error":{"message":"slow down","code":429}}"#).expect_err("an error");
        assert_eq!(error.category(), prompt_engine_core::ErrorCategory::RateLimit);
    }
}
