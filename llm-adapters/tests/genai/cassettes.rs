//! Recorded answers of real servers, read by the client that [`Provider::client`] gives for each.
//! What is expected is read from the recording by other means than the clients' own.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::Uri;
use prompt_engine_core::{
    ChatReply, ChatRequest, Cost, ErrorCategory, Message, PriceBook, PriceRequest,
};
use prompt_engine_llm::Provider;
use serde_json::Value;

use super::{drain, serve};
use crate::recorded::{answer, is_streamed, load};

/// Who answered: the recordings of OpenAI and Azure are read in the tests of that client.
fn provider(cassette: &Value) -> Option<Provider> {
    let provider: Provider = cassette["provider"].as_str()?.parse().ok()?;
    (provider != Provider::OpenAi).then_some(provider)
}

/// What the wire says: text, tools with their arguments, finish reason, usage.
#[derive(Debug, Default, PartialEq)]
struct Said {
    text: String,
    tools: Vec<(String, Value)>,
    finish: Option<String>,
    /// Input, output, read from a cache, written to one, of that for an hour, reasoning.
    usage: Option<[u64; 6]>,
}

impl Said {
    fn by(reply: &ChatReply) -> Self {
        let arguments = |text: &str| serde_json::from_str(text).expect("arguments");
        Self {
            text: reply.content.clone().unwrap_or_default(),
            tools: reply
                .tool_calls
                .iter()
                .map(|call| (call.name.clone(), arguments(&call.arguments)))
                .collect(),
            finish: reply.finish_reason.clone(),
            usage: reply.tokens.map(|t| {
                [t.input, t.output, t.cache_read, t.cache_write, t.cache_write_1h, t.reasoning]
            }),
        }
    }

    fn on_the_wire(provider: Provider, body: &str, streamed: bool) -> Self {
        let values: Vec<Value> = if streamed {
            body.lines()
                .filter_map(|line| line.strip_prefix("data: "))
                .filter(|data| *data != "[DONE]")
                .map(|data| serde_json::from_str(data).expect("a frame"))
                .collect()
        } else {
            vec![serde_json::from_str(body).expect("a body")]
        };
        match provider {
            Provider::Anthropic => Self::of_anthropic(&values),
            Provider::Gemini => Self::of_gemini(&values),
            _ => Self::of_completions(&values, if streamed { "delta" } else { "message" }),
        }
    }

    fn of_anthropic(values: &[Value]) -> Self {
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
                    said.tools.push((name, block["input"].clone()));
                    json.clear();
                }
            }
            let delta = &value["delta"];
            said.text += delta["text"].as_str().unwrap_or_default();
            if let (Some(part), Some(last)) =
                (delta["partial_json"].as_str(), said.tools.last_mut())
            {
                json += part;
                last.1 = serde_json::from_str(&json).unwrap_or_else(|_| last.1.clone());
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

    fn of_gemini(values: &[Value]) -> Self {
        let mut said = Self::default();
        for value in values {
            let candidate = &value["candidates"][0];
            for part in candidate["content"]["parts"].as_array().into_iter().flatten() {
                if part["thought"] != true {
                    said.text += part["text"].as_str().unwrap_or_default();
                }
                if let Some(name) = part["functionCall"]["name"].as_str() {
                    said.tools.push((name.to_owned(), part["functionCall"]["args"].clone()));
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

    fn of_completions(values: &[Value], part: &str) -> Self {
        let mut said = Self::default();
        let mut arguments: Vec<String> = Vec::new();
        for value in values {
            let usages = [&value["usage"], &value["x_groq"]["usage"]];
            if let Some(usage) = usages.into_iter().find(|usage| usage.is_object()) {
                let at = |path: &str| usage.pointer(path).and_then(Value::as_u64).unwrap_or(0);
                said.usage = Some([
                    at("/prompt_tokens"),
                    at("/completion_tokens"),
                    at("/prompt_tokens_details/cached_tokens"),
                    0,
                    0,
                    at("/completion_tokens_details/reasoning_tokens"),
                ]);
            }
            let choice = &value["choices"][0];
            said.finish = choice["finish_reason"].as_str().map(str::to_owned).or(said.finish);
            let message = &choice[part];
            said.text += message["content"].as_str().unwrap_or_default();
            for call in message["tool_calls"].as_array().into_iter().flatten() {
                if let Some(name) = call["function"]["name"].as_str() {
                    said.tools.push((name.to_owned(), Value::Null));
                    arguments.push(String::new());
                }
                if let Some(text) = arguments.last_mut() {
                    *text += call["function"]["arguments"].as_str().unwrap_or_default();
                }
            }
        }
        for (tool, text) in said.tools.iter_mut().zip(arguments) {
            tool.1 = serde_json::from_str(&text).expect("arguments");
        }
        said
    }
}

fn expected_error(id: &str) -> Option<ErrorCategory> {
    use ErrorCategory as C;
    Some(match id {
        "c073" | "c075" | "c089" | "c105" | "c108" | "c109" => C::InvalidRequest,
        "c090" | "c100" | "c110" | "c115" | "c123" => C::Authentication,
        "c104" | "c118" | "c121" => C::ContextLength,
        "c087" | "c116" => C::RateLimit,
        "q03" | "q05" => C::Overloaded,
        "q04" => C::Server,
        // Cohere's own API of version 2, where the client asks its Chat Completions.
        "c122" => C::Server,
        _ => return None,
    })
}

#[tokio::test]
async fn every_recorded_answer_is_read_as_the_wire_says() {
    let Some(cassettes) = load(|cassette| provider(cassette).is_some()) else { return };
    assert!(cassettes.len() >= 40, "only {} recordings", cassettes.len());
    let cassettes = Arc::new(cassettes);
    let served = Arc::clone(&cassettes);
    let url = serve(move |uri: Uri, _: Bytes| answer(&served, &uri)).await;
    let book = PriceBook::seed();
    let (mut replies, mut errors, mut priced) = (0, 0, 0);
    let mut tags: BTreeMap<&str, [u32; 2]> = BTreeMap::new();
    for (id, cassette) in cassettes.iter() {
        let provider = provider(cassette).expect("a provider");
        let client = provider.client("key".into(), Some(&format!("{url}/{id}/v1"))).expect(id);
        let request = ChatRequest::new("recorded", vec![Message::user("hi")]);
        let streamed = is_streamed(cassette);
        let body = cassette["response"]["body"].as_str().unwrap_or_default();
        let outcome = if streamed {
            drain(client.as_ref(), &request).await.map(|(texts, reply)| {
                assert_eq!(texts.concat(), reply.content.clone().unwrap_or_default(), "{id}");
                reply
            })
        } else {
            client.chat(&request).await.map_err(|error| (Vec::new(), error))
        };
        let failed = outcome.is_err();
        match (outcome, expected_error(id)) {
            (Ok(reply), None) => {
                assert_eq!(
                    Said::by(&reply),
                    Said::on_the_wire(provider, body, streamed),
                    "{id}: {provider}"
                );
                let oracle = &cassette["oracle_genai_prices_0_2_3"];
                assert_third_party_agrees(id, &reply, oracle);
                priced +=
                    u32::from(assert_price_agrees(id, client.provider(), &reply, &book, oracle));
                replies += 1;
            }
            (Err((_, error)), Some(category)) => {
                assert_eq!(error.category(), category, "{id}: {error}");
                let status = cassette["response"]["status"].as_u64();
                if status != Some(200) {
                    assert_eq!(error.http_status().map(u64::from), status, "{id}");
                    let told = ["/error/message", "/detail", "/message"].iter().find_map(|path| {
                        let body: Value = serde_json::from_str(body).ok()?;
                        body.pointer(path)?.as_str().map(str::to_owned)
                    });
                    assert_eq!(Some(error.message().to_owned()), told, "{id}");
                }
                errors += 1;
            }
            (outcome, expected) => panic!("{id}: {outcome:?} instead of {expected:?}"),
        }
        for tag in cassette["tags"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            tags.entry(tag).or_default()[usize::from(failed)] += 1;
        }
    }
    assert!(replies >= 25 && errors >= 18, "{replies} replies, {errors} errors");
    assert!(priced >= 25, "{priced} prices");
    // By tag, for people: `--nocapture` shows it.
    for (tag, [replies, errors]) in tags {
        println!("{tag}: {replies} replies, {errors} errors");
    }
}

#[tokio::test]
async fn the_cost_that_openrouter_reports_has_the_digits_of_the_wire() {
    let usage = r#""usage":{"prompt_tokens":1,"completion_tokens":1,"cost":0.000123456789}"#;
    let url = serve(move |_: Uri, body: Bytes| {
        let body = String::from_utf8_lossy(&body);
        match body.contains(r#""stream":true"#) {
            true => {
                let data = format!(
                    r#"{{"id":"1","choices":[{{"delta":{{}},"finish_reason":"stop"}}],{usage}}}"#
                );
                (
                    [("content-type", "text/event-stream")],
                    format!("data: {data}\n\ndata: [DONE]\n\n"),
                )
            }
            false => {
                let body =
                    format!(r#"{{"id":"1","choices":[{{"message":{{"content":""}}}}],{usage}}}"#);
                ([("content-type", "application/json")], body)
            }
        }
    })
    .await;
    let client = Provider::OpenRouter.client("key".into(), Some(&url)).expect("a client");
    let request = ChatRequest::new("openai/gpt-5", vec![Message::user("hi")]);
    let plain = client.chat(&request).await.expect("a reply");
    let (_, streamed) = drain(client.as_ref(), &request).await.expect("a stream");
    for reply in [plain, streamed] {
        assert_eq!(reply.reported_cost, Some("0.000123456789".parse().expect("an amount")));
    }
}

/// Token counts that genai-prices took from the same bytes.
fn assert_third_party_agrees(id: &str, reply: &ChatReply, oracle: &Value) {
    let Some(usage) = oracle["usage"].as_object() else { return };
    let tokens = reply.tokens.expect(id);
    assert!(tokens.check().is_ok(), "{id}: {tokens:?}");
    for (name, count) in [
        ("input_tokens", tokens.input),
        ("output_tokens", tokens.output),
        ("cache_read_tokens", tokens.cache_read),
        ("cache_write_tokens", tokens.cache_write),
        ("cache_write_1h_tokens", tokens.cache_write_1h),
        ("output_reasoning_tokens", tokens.reasoning),
        ("input_audio_tokens", tokens.audio_input),
        ("output_audio_tokens", tokens.audio_output),
    ] {
        if let Some(expected) = usage.get(name) {
            assert_eq!(expected, count, "{id}: {name}");
        }
    }
}

/// The price that genai-prices computed, where it did.
fn assert_price_agrees(
    id: &str,
    provider: &str,
    reply: &ChatReply,
    book: &PriceBook,
    oracle: &Value,
) -> bool {
    let Some(expected) = oracle["total_price"].as_str() else { return false };
    let tokens = reply.tokens.expect(id).check().expect(id);
    let quote = book.price(&PriceRequest {
        provider,
        model: "recorded",
        response_model: reply.model.as_deref(),
        at: oracle["price_at"].as_str().expect(id).parse().expect(id),
        tokens: Some(&tokens),
        service_tier: reply.service_tier.as_deref(),
    });
    let Cost::Priced { usd, .. } = quote.cost else { panic!("{id}: {:?}", quote.cost) };
    assert_eq!(usd, expected.parse().expect(id), "{id}");
    true
}
