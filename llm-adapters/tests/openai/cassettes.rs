//! Recorded answers of real servers, served byte for byte, against what the wire says.
//! The expectation is read from the recording by other means than the client's own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use prompt_engine_core::{
    ChatReply, ChatRequest, ErrorCategory, LlmClient, LlmError, Message, PriceBook, PriceRequest,
};
use serde_json::Value;

use super::{client, drain, serve};

fn load() -> Option<BTreeMap<String, Value>> {
    let Some(folder) = std::env::var_os("PROMPT_ENGINE_TEST_DATA") else {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "PROMPT_ENGINE_TEST_DATA must name the folder of recordings"
        );
        eprintln!("skipped: PROMPT_ENGINE_TEST_DATA does not name a folder of recordings");
        return None;
    };
    let mut cassettes = BTreeMap::new();
    let parts: [(&str, &[&str]); 2] =
        [("open", &["_chat_completions_", "_responses_"]), ("quoted_errors", &[""])];
    for (part, wanted) in parts {
        let folder = Path::new(&folder).join("cassettes").join(part);
        for entry in std::fs::read_dir(&folder).expect("a folder of recordings") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            if path.extension().is_none_or(|end| end != "json")
                || !name.is_some_and(|name| wanted.iter().any(|wanted| name.contains(wanted)))
            {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a recording");
            let cassette: Value = serde_json::from_str(&text).expect("a recording is JSON");
            let id = cassette["id"].as_str().expect("an id").to_owned();
            cassettes.insert(id, cassette);
        }
    }
    Some(cassettes)
}

/// The recording named by the path, its body in pieces of seven bytes.
fn answer(cassettes: &BTreeMap<String, Value>, uri: &Uri) -> Response {
    let id = uri.path().split('/').nth(1).unwrap_or_default();
    let recorded = &cassettes[id]["response"];
    let status = recorded["status"].as_u64().and_then(|status| u16::try_from(status).ok());
    let status = StatusCode::from_u16(status.expect("a status")).expect("a status");
    let mut response = Response::builder().status(status);
    for (name, value) in recorded["headers"].as_object().into_iter().flatten() {
        response = response.header(name, value.as_str().expect("a header"));
    }
    let body = recorded["body"].as_str().unwrap_or_default().as_bytes().to_vec();
    let pieces: Vec<_> =
        body.chunks(7).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
    response.body(Body::from_stream(futures::stream::iter(pieces))).expect("a response")
}

/// What the wire says: text, names and arguments of tools, finish reason, usage.
#[derive(Debug, Default, PartialEq)]
struct Said {
    text: String,
    tools: Vec<(String, String)>,
    finish: Option<String>,
    /// Input, output, cached, reasoning.
    usage: Option<[u64; 4]>,
}

impl Said {
    fn on_the_wire(cassette: &Value) -> Self {
        let body = cassette["response"]["body"].as_str().unwrap_or_default();
        let streamed = is(cassette, "stream");
        let values: Vec<Value> = if streamed {
            body.lines()
                .filter_map(|line| line.strip_prefix("data: "))
                .filter(|data| *data != "[DONE]")
                .map(|data| serde_json::from_str(data).expect("a frame"))
                .collect()
        } else {
            vec![serde_json::from_str(body).expect("a body")]
        };
        match cassette["api"].as_str() {
            Some("responses") => Self::in_a_response(&values, streamed),
            _ => Self::in_completions(&values, streamed),
        }
    }

    fn in_completions(values: &[Value], streamed: bool) -> Self {
        let mut said = Self::default();
        for value in values {
            if let Some(usage) = value.get("usage").filter(|usage| !usage.is_null()) {
                said.usage = Some(usage_of(usage, "prompt", "completion"));
            }
            let choice = &value["choices"][0];
            said.finish =
                choice["finish_reason"].as_str().map(str::to_owned).or(said.finish.take());
            let message = &choice[if streamed { "delta" } else { "message" }];
            said.text += message["content"].as_str().unwrap_or_default();
            for (place, call) in message["tool_calls"].as_array().into_iter().flatten().enumerate()
            {
                let place =
                    call["index"].as_u64().map_or(place, |i| usize::try_from(i).unwrap_or(0));
                said.tools.resize(said.tools.len().max(place + 1), Default::default());
                said.tools[place].0 += call["function"]["name"].as_str().unwrap_or_default();
                said.tools[place].1 += call["function"]["arguments"].as_str().unwrap_or_default();
            }
        }
        said
    }

    /// From the deltas and finished items of a stream, or from the one object.
    fn in_a_response(values: &[Value], streamed: bool) -> Self {
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

    fn by(reply: &ChatReply) -> Self {
        Self {
            text: reply.content.clone().unwrap_or_default(),
            tools: reply
                .tool_calls
                .iter()
                .map(|call| (call.name.clone(), call.arguments.clone()))
                .collect(),
            finish: reply.finish_reason.clone(),
            usage: reply.tokens.map(|t| [t.input, t.output, t.cache_read, t.reasoning]),
        }
    }
}

fn usage_of(usage: &Value, input: &str, output: &str) -> [u64; 4] {
    let at = |path: String| usage.pointer(&path).and_then(Value::as_u64).unwrap_or(0);
    [
        at(format!("/{input}_tokens")),
        at(format!("/{output}_tokens")),
        at(format!("/{input}_tokens_details/cached_tokens")),
        at(format!("/{output}_tokens_details/reasoning_tokens")),
    ]
}

fn is(cassette: &Value, tag: &str) -> bool {
    cassette["tags"].as_array().is_some_and(|tags| tags.iter().any(|t| t == tag))
}

fn expected_error(id: &str) -> Option<ErrorCategory> {
    use ErrorCategory as C;
    Some(match id {
        "c033" | "c034" | "c035" | "c037" | "c093" | "c105" | "c108" | "c109" => C::InvalidRequest,
        "c048" | "c049" => C::InvalidRequest,
        "c046" | "c100" | "c110" | "c115" | "c123" => C::Authentication,
        "c104" | "c118" | "c121" => C::ContextLength,
        "c116" | "q01" | "q02" => C::RateLimit,
        "q03" | "q05" => C::Overloaded,
        "q04" | "q06" => C::Server,
        // Cohere's own API, which is no Chat Completions.
        "c122" => C::Server,
        _ => return None,
    })
}

/// What `client` makes of its recording.
async fn outcome(client: &dyn LlmClient, streamed: bool, id: &str) -> Result<ChatReply, LlmError> {
    let request = ChatRequest::new("recorded", vec![Message::user("hi")]);
    if !streamed {
        return client.chat(&request).await;
    }
    let (texts, reply) = drain(client, &request).await.map_err(|(_, error)| error)?;
    assert_eq!(texts.concat(), reply.content.clone().unwrap_or_default(), "{id}");
    Ok(reply)
}

#[tokio::test]
async fn every_recorded_answer_is_read_as_the_wire_says() {
    let Some(cassettes) = load() else { return };
    assert!(cassettes.len() >= 50, "only {} recordings", cassettes.len());
    let cassettes = Arc::new(cassettes);
    let served = Arc::clone(&cassettes);
    let url = serve(move |uri: Uri, _: Bytes| answer(&served, &uri)).await;
    let book = PriceBook::seed();
    let (mut replies, mut errors, mut prices) = (0, 0, 0);
    for (id, cassette) in cassettes.iter() {
        let chat = client(&format!("{url}/{id}/v1"));
        let responses = client(&format!("{url}/{id}/v1")).responses();
        let [own, other]: [&dyn LlmClient; 2] = match cassette["api"].as_str() {
            Some("responses") => [&responses, &chat],
            _ => [&chat, &responses],
        };
        let streamed = is(cassette, "stream");
        match (outcome(own, streamed, id).await, expected_error(id)) {
            (Ok(reply), None) => {
                assert_eq!(Said::by(&reply), Said::on_the_wire(cassette), "{id}");
                let tokens = reply.tokens;
                assert!(tokens.is_none_or(|tokens| tokens.check().is_ok()), "{id}: {tokens:?}");
                assert_third_party_agrees(id, &reply, &cassette["oracle_genai_prices_0_2_3"]);
                prices += usize::from(assert_price(id, &reply, cassette, &book));
                let recorded = cassette["response"]["headers"]["x-request-id"].as_str();
                assert_eq!(reply.metadata["request_id"].as_str(), recorded, "{id}");
                replies += 1;
            }
            (Err(error), Some(category)) => {
                assert_error(id, &error, category, cassette);
                // An answer that is no success says the same to every client.
                if cassette["response"]["status"] != 200 {
                    for (client, streamed) in [(own, true), (other, false), (other, true)] {
                        let error = outcome(client, streamed, id).await.expect_err(id);
                        assert_error(id, &error, category, cassette);
                    }
                }
                errors += 1;
            }
            (outcome, expected) => panic!("{id}: {outcome:?} instead of {expected:?}"),
        }
    }
    assert!(replies >= 25 && errors >= 23, "{replies} replies, {errors} errors");
    assert!(prices >= 25, "{prices} prices");
}

fn assert_error(id: &str, error: &LlmError, category: ErrorCategory, cassette: &Value) {
    assert_eq!(error.category(), category, "{id}: {error}");
    let response = &cassette["response"];
    if response["status"] == 200 {
        return;
    }
    assert_eq!(error.http_status().map(u64::from), response["status"].as_u64(), "{id}");
    let body: Value = serde_json::from_str(response["body"].as_str().expect(id)).expect(id);
    let told = ["/error/message", "/detail", "/message"]
        .iter()
        .find_map(|path| body.pointer(path)?.as_str());
    assert_eq!(Some(error.message()), told, "{id}");
    let recorded = response["headers"]["x-request-id"].as_str();
    assert_eq!(error.metadata()["request_id"].as_str(), recorded, "{id}");
}

/// The price that genai-prices computed, at the moment that it names; whether it names one.
fn assert_price(id: &str, reply: &ChatReply, cassette: &Value, book: &PriceBook) -> bool {
    let oracle = &cassette["oracle_genai_prices_0_2_3"];
    let Some(expected) = oracle["total_price"].as_str() else { return false };
    let tokens = reply.tokens.expect(id).check().expect(id);
    let quote = book.price(&PriceRequest {
        provider: cassette["provider"].as_str().expect(id),
        model: cassette["request"]["body"]["model"].as_str().unwrap_or_default(),
        response_model: reply.model.as_deref(),
        at: oracle["price_at"].as_str().expect(id).parse().expect(id),
        tokens: Some(&tokens),
        service_tier: reply.service_tier.as_deref(),
    });
    assert_eq!(quote.cost.usd(), Some(expected.parse().expect(id)), "{id}: {quote:?}");
    true
}

/// Token counts that genai-prices took from the same bytes.
fn assert_third_party_agrees(id: &str, reply: &ChatReply, oracle: &Value) {
    let Some(usage) = oracle["usage"].as_object() else { return };
    let tokens = reply.tokens.expect(id);
    for (name, count) in [
        ("input_tokens", tokens.input),
        ("output_tokens", tokens.output),
        ("cache_read_tokens", tokens.cache_read),
        ("cache_write_tokens", tokens.cache_write),
        ("output_reasoning_tokens", tokens.reasoning),
        ("input_audio_tokens", tokens.audio_input),
        ("output_audio_tokens", tokens.audio_output),
    ] {
        if let Some(expected) = usage.get(name) {
            assert_eq!(expected, count, "{id}: {name}");
        }
    }
    if id == "c119" {
        assert_eq!(reply.reported_cost.map(|usd| usd.to_string()).as_deref(), Some("0.00995"));
    }
}
