//! Recorded answers of real servers, served byte for byte, against what the wire says.
//! The expectation is read from the recording by other means than the client's own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use prompt_engine_core::{ChatReply, ChatRequest, ErrorCategory, LlmClient, Message};
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
    for (part, wanted) in [("open", "_chat_completions_"), ("quoted_errors", "")] {
        let folder = Path::new(&folder).join("cassettes").join(part);
        for entry in std::fs::read_dir(&folder).expect("a folder of recordings") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            if path.extension().is_none_or(|end| end != "json")
                || !name.is_some_and(|name| name.contains(wanted))
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
    fn on_the_wire(body: &str, streamed: bool) -> Self {
        let values: Vec<Value> = if streamed {
            body.lines()
                .filter_map(|line| line.strip_prefix("data: "))
                .filter(|data| *data != "[DONE]")
                .map(|data| serde_json::from_str(data).expect("a frame"))
                .collect()
        } else {
            vec![serde_json::from_str(body).expect("a body")]
        };
        let mut said = Self::default();
        for value in &values {
            if let Some(usage) = value.get("usage").filter(|usage| !usage.is_null()) {
                let at = |path: &str| usage.pointer(path).and_then(Value::as_u64).unwrap_or(0);
                said.usage = Some([
                    at("/prompt_tokens"),
                    at("/completion_tokens"),
                    at("/prompt_tokens_details/cached_tokens"),
                    at("/completion_tokens_details/reasoning_tokens"),
                ]);
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

fn expected_error(id: &str) -> Option<ErrorCategory> {
    use ErrorCategory as C;
    Some(match id {
        "c033" | "c034" | "c035" | "c037" | "c093" | "c105" | "c108" | "c109" => C::InvalidRequest,
        "c100" | "c110" | "c115" | "c123" => C::Authentication,
        "c104" | "c118" | "c121" => C::ContextLength,
        "c116" | "q01" | "q02" => C::RateLimit,
        "q03" | "q05" => C::Overloaded,
        "q04" | "q06" => C::Server,
        // Cohere's own API, which is no Chat Completions.
        "c122" => C::Server,
        _ => return None,
    })
}

#[tokio::test]
async fn every_recorded_answer_is_read_as_the_wire_says() {
    let Some(cassettes) = load() else { return };
    assert!(cassettes.len() >= 40, "only {} recordings", cassettes.len());
    let cassettes = Arc::new(cassettes);
    let served = Arc::clone(&cassettes);
    let url = serve(move |uri: Uri, _: Bytes| answer(&served, &uri)).await;
    let (mut replies, mut errors) = (0, 0);
    for (id, cassette) in cassettes.iter() {
        let client = client(&format!("{url}/{id}/v1"));
        let request = ChatRequest::new("recorded", vec![Message::user("hi")]);
        let streamed =
            cassette["tags"].as_array().is_some_and(|tags| tags.iter().any(|tag| tag == "stream"));
        let body = cassette["response"]["body"].as_str().unwrap_or_default();
        let outcome = if streamed {
            drain(&client, &request).await.map(|(texts, reply)| {
                assert_eq!(texts.concat(), reply.content.clone().unwrap_or_default(), "{id}");
                reply
            })
        } else {
            client.chat(&request).await.map_err(|error| (Vec::new(), error))
        };
        match (outcome, expected_error(id)) {
            (Ok(reply), None) => {
                assert_eq!(Said::by(&reply), Said::on_the_wire(body, streamed), "{id}");
                let tokens = reply.tokens;
                assert!(tokens.is_none_or(|tokens| tokens.check().is_ok()), "{id}: {tokens:?}");
                assert_third_party_agrees(id, &reply, &cassette["oracle_genai_prices_0_2_3"]);
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
    }
    assert!(replies >= 20 && errors >= 20, "{replies} replies, {errors} errors");
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
