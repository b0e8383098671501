//! What an answer says: as the wire has it, and as a client read it.

use std::collections::BTreeMap;

use prompt_engine_core::ChatReply;
use serde_json::Value;

use super::Recording;

#[derive(Debug, Default, PartialEq)]
pub(super) struct Said {
    text: String,
    /// The names of the tools that it calls, and their arguments.
    tools: Vec<(String, String)>,
    finish: Option<String>,
    /// Input, output, read from a cache, written to one, of that for an hour, reasoning.
    usage: Option<[u64; 6]>,
}

impl Said {
    pub(super) fn by(reply: &ChatReply) -> Self {
        let tools = reply.tool_calls.iter();
        Self {
            text: reply.content.clone().unwrap_or_default(),
            tools: tools.map(|call| (call.name.clone(), call.arguments.clone())).collect(),
            finish: reply.finish_reason.clone(),
            usage: reply.tokens.map(|t| {
                [t.input, t.output, t.cache_read, t.cache_write, t.cache_write_1h, t.reasoning]
            }),
        }
    }

    pub(super) fn on_the_wire(recording: &Recording) -> Self {
        let body = &recording.response.body;
        let streamed = recording.is_streamed();
        let values: Vec<Value> = if streamed {
            body.lines()
                .filter_map(|line| line.strip_prefix("data: "))
                .filter(|data| *data != "[DONE]")
                .map(|data| serde_json::from_str(data).expect("a frame"))
                .collect()
        } else {
            vec![serde_json::from_str(body).expect("a body")]
        };
        match recording.api.as_str() {
            "messages" => Self::in_messages(&values),
            "generate_content" => Self::in_contents(&values),
            "responses" => Self::in_responses(&values, streamed),
            _ => Self::in_completions(&values, if streamed { "delta" } else { "message" }),
        }
    }

    fn in_completions(values: &[Value], part: &str) -> Self {
        let mut said = Self::default();
        for value in values {
            let usages = [&value["usage"], &value["x_groq"]["usage"]];
            if let Some(usage) = usages.into_iter().find(|usage| usage.is_object()) {
                said.usage = Some(usage_of(usage, "prompt", "completion"));
            }
            let choice = &value["choices"][0];
            said.finish = choice["finish_reason"].as_str().map(str::to_owned).or(said.finish);
            let message = &choice[part];
            said.text += message["content"].as_str().unwrap_or_default();
            let calls = message["tool_calls"].as_array().into_iter().flatten();
            for (place, call) in calls.enumerate() {
                let index =
                    call["index"].as_u64().map(|index| usize::try_from(index).expect("an index"));
                let place = index.unwrap_or(place);
                said.tools.resize(said.tools.len().max(place + 1), Default::default());
                said.tools[place].0 += call["function"]["name"].as_str().unwrap_or_default();
                said.tools[place].1 += call["function"]["arguments"].as_str().unwrap_or_default();
            }
        }
        said
    }

    /// From the deltas and finished items of a stream, or from the one object.
    fn in_responses(values: &[Value], streamed: bool) -> Self {
        let mut said = Self::default();
        for value in values {
            let response = if streamed { &value["response"] } else { value };
            if response["usage"].is_object() {
                said.usage = Some(usage_of(&response["usage"], "input", "output"));
            }
            let reason = response["incomplete_details"]["reason"].as_str();
            said.finish =
                reason.or(response["status"].as_str()).map(str::to_owned).or(said.finish.take());
            if value["type"] == "response.output_text.delta" {
                said.text += value["delta"].as_str().expect("a delta");
            }
            let items = if streamed {
                let done = value["type"] == "response.output_item.done";
                Vec::from_iter(done.then_some(&value["item"]))
            } else {
                Vec::from_iter(value["output"].as_array().into_iter().flatten())
            };
            for item in items {
                if item["type"] == "function_call" {
                    let text = |name: &str| item[name].as_str().expect("a text").to_owned();
                    said.tools.push((text("name"), text("arguments")));
                }
                for part in item["content"].as_array().into_iter().flatten().filter(|_| !streamed) {
                    said.text += part["text"].as_str().unwrap_or_default();
                }
            }
        }
        said
    }

    fn in_messages(values: &[Value]) -> Self {
        let mut said = Self::default();
        let mut json = String::new();
        let mut usage = BTreeMap::new();
        for value in values {
            let message = if value["message"].is_object() { &value["message"] } else { value };
            let blocks = message["content"].as_array().into_iter().flatten();
            for block in blocks.chain([&value["content_block"]]) {
                said.text += block["text"].as_str().unwrap_or_default();
                if block["type"] == "tool_use" {
                    let name = block["name"].as_str().expect("a name").to_owned();
                    said.tools.push((name, block["input"].to_string()));
                    json.clear();
                }
            }
            let delta = &value["delta"];
            said.text += delta["text"].as_str().unwrap_or_default();
            json += delta["partial_json"].as_str().unwrap_or_default();
            // The parts come behind an empty object, and a call without arguments keeps it.
            if let Some(last) = said.tools.last_mut().filter(|_| !json.is_empty()) {
                last.1.clone_from(&json);
            }
            for place in [message, delta] {
                said.finish = place["stop_reason"].as_str().map(str::to_owned).or(said.finish);
            }
            let counts = &message["usage"];
            for name in [
                "/input_tokens",
                "/output_tokens",
                "/cache_read_input_tokens",
                "/cache_creation_input_tokens",
                "/cache_creation/ephemeral_1h_input_tokens",
                "/output_tokens_details/thinking_tokens",
            ] {
                if let Some(count) = counts.pointer(name).and_then(Value::as_u64) {
                    usage.insert(name, count);
                }
            }
        }
        let of = |name: &str| usage.get(name).copied().unwrap_or(0);
        let (read, written) = (of("/cache_read_input_tokens"), of("/cache_creation_input_tokens"));
        said.usage = (!usage.is_empty()).then(|| {
            [
                of("/input_tokens") + read + written,
                of("/output_tokens"),
                read,
                written,
                of("/cache_creation/ephemeral_1h_input_tokens"),
                of("/output_tokens_details/thinking_tokens"),
            ]
        });
        said
    }

    fn in_contents(values: &[Value]) -> Self {
        let mut said = Self::default();
        for value in values {
            let candidate = &value["candidates"][0];
            for part in candidate["content"]["parts"].as_array().into_iter().flatten() {
                if part["thought"] != true {
                    said.text += part["text"].as_str().unwrap_or_default();
                }
                if let Some(name) = part["functionCall"]["name"].as_str() {
                    said.tools.push((name.to_owned(), part["functionCall"]["args"].to_string()));
                }
            }
            said.finish = candidate["finishReason"].as_str().map(str::to_owned).or(said.finish);
            if let Some(usage) = value.get("usageMetadata") {
                let of = |name: &str| usage[name].as_u64().unwrap_or(0);
                let thoughts = of("thoughtsTokenCount");
                said.usage = Some([
                    of("promptTokenCount") + of("toolUsePromptTokenCount"),
                    of("candidatesTokenCount") + thoughts,
                    of("cachedContentTokenCount"),
                    0,
                    0,
                    thoughts,
                ]);
            }
        }
        said
    }
}

fn usage_of(usage: &Value, input: &str, output: &str) -> [u64; 6] {
    let at = |path: String| usage.pointer(&path).and_then(Value::as_u64).unwrap_or(0);
    [
        at(format!("/{input}_tokens")),
        at(format!("/{output}_tokens")),
        at(format!("/{input}_tokens_details/cached_tokens")),
        at(format!("/{input}_tokens_details/cache_write_tokens")),
        0,
        at(format!("/{output}_tokens_details/reasoning_tokens")),
    ]
}
