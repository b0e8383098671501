//! Recorded answers of real servers, served byte for byte and read by the client of who answered.
//! What is expected is read from the recording by other means than the clients' own, and from what
//! genai-prices made of the same bytes.

mod said;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Uri;
use axum::response::Response;
use prompt_engine_core::{
    ChatReply, ChatRequest, ErrorCategory, LlmClient, LlmError, Message, PriceBook, PriceRequest,
};
use prompt_engine_llm::{Anthropic, Gemini, OpenAi, Provider};
use serde::Deserialize;
use serde_json::Value;

use super::{KEY, drain, serve};
use said::Said;

/// One exchange with a server.
#[derive(Debug, Deserialize)]
struct Recording {
    id: String,
    provider: String,
    api: String,
    tags: Vec<String>,
    request: Option<Asked>,
    response: Answer,
    #[serde(rename = "oracle_genai_prices_0_2_3")]
    genai_prices: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Asked {
    body: Value,
}

#[derive(Debug, Deserialize)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Recording {
    /// All of them; `None` without a folder of them, which fails in CI.
    fn all() -> Option<Vec<Self>> {
        let Some(folder) = std::env::var_os("PROMPT_ENGINE_TEST_DATA") else {
            assert!(
                std::env::var_os("CI").is_none_or(|ci| ci != "true"),
                "PROMPT_ENGINE_TEST_DATA must name the folder of recordings"
            );
            eprintln!("skipped: PROMPT_ENGINE_TEST_DATA does not name a folder of recordings");
            return None;
        };
        let folders = ["open", "quoted_errors"].map(|part| {
            let folder = Path::new(&folder).join("cassettes").join(part);
            std::fs::read_dir(folder).expect("a folder of recordings")
        });
        let paths = folders.into_iter().flatten().map(|entry| entry.expect("an entry").path());
        let recordings = paths.filter(|path| path.extension().is_some_and(|end| end == "json"));
        let read = |path| {
            let text = std::fs::read_to_string(path).expect("a recording");
            serde_json::from_str(&text).expect("a recording of the known form")
        };
        Some(recordings.map(read).collect())
    }

    fn is_streamed(&self) -> bool {
        self.tags.iter().any(|tag| tag == "stream")
    }

    /// The response, its body in pieces of seven bytes.
    fn answer(&self) -> Response {
        let Answer { status, headers, body } = &self.response;
        let response = Response::builder().status(*status);
        let response = headers.iter().fold(response, |response, header| {
            let (name, value) = header;
            response.header(name, value)
        });
        let pieces = body.as_bytes().chunks(7).map(|piece| Ok::<_, io::Error>(piece.to_vec()));
        let pieces = futures::stream::iter(pieces.collect::<Vec<_>>());
        response.body(Body::from_stream(pieces)).expect("a response")
    }

    /// The client of who answered, asking at `url`.
    fn client(&self, url: &str) -> Arc<dyn LlmClient> {
        let provider = match (self.provider.as_str(), self.api.as_str()) {
            ("azure", _) => return Arc::new(openai(url).with_provider_name("azure")),
            ("openai", "responses") => Provider::OpenAiResponses,
            (name, _) => name.parse().expect("a provider"),
        };
        provider.client(KEY.into(), Some(url)).expect("a client")
    }

    /// The category of the error that it is; `None` for an answer.
    fn error(&self) -> Option<ErrorCategory> {
        use ErrorCategory as C;
        Some(match self.id.as_str() {
            "c033" | "c034" | "c035" | "c037" | "c048" | "c049" | "c073" | "c075" | "c089"
            | "c093" | "c105" | "c108" | "c109" => C::InvalidRequest,
            "c046" | "c090" | "c100" | "c110" | "c115" | "c123" => C::Authentication,
            "c104" | "c118" | "c121" => C::ContextLength,
            "c087" | "c116" | "q01" | "q02" => C::RateLimit,
            "q03" | "q05" => C::Overloaded,
            "q04" | "q06" => C::Server,
            // Cohere's own API of version 2, where the client asks its Chat Completions.
            "c122" => C::Server,
            _ => return None,
        })
    }
}

fn openai(url: &str) -> OpenAi {
    OpenAi::new(KEY.into()).with_base_url(url).expect("a base URL")
}

/// What `client` makes of a recording, whose name is `id`.
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
    let Some(mut recordings) = Recording::all() else { return };
    recordings.retain(|recording| recording.api != "embeddings");
    assert!(recordings.len() >= 79, "only {} recordings", recordings.len());
    let recordings = Arc::new(recordings);
    let served = Arc::clone(&recordings);
    // The first part of the path names the recording.
    let url = serve(move |uri: Uri, _| {
        let id = uri.path().split('/').nth(1).unwrap_or_default();
        served.iter().find(|recording| recording.id == id).expect("a recording").answer()
    })
    .await;
    let book = PriceBook::seed();
    let (mut replies, mut errors, mut prices) = (0, 0, 0);
    for recording in recordings.iter() {
        let id = &recording.id;
        let url = format!("{url}/{id}/v1");
        let client = recording.client(&url);
        let streamed = recording.is_streamed();
        match (outcome(client.as_ref(), streamed, id).await, recording.error()) {
            (Ok(reply), None) => {
                assert_reply(recording, &reply);
                prices += usize::from(assert_price(recording, client.provider(), &reply, &book));
                replies += 1;
            }
            (Err(error), Some(category)) => {
                assert_error(recording, &error, category);
                // An answer that is no success says the same to every client.
                if recording.response.status != 200 {
                    let (chat, responses) = (openai(&url), openai(&url).responses());
                    let anthropic = Anthropic::new(KEY.into()).with_base_url(&url).expect("a URL");
                    let gemini = Gemini::new(KEY.into()).with_base_url(&url).expect("a URL");
                    let clients: [&dyn LlmClient; 4] = [&chat, &responses, &anthropic, &gemini];
                    for (client, streamed) in clients.iter().flat_map(|c| [(c, false), (c, true)]) {
                        let error = outcome(*client, streamed, id).await.expect_err(id);
                        assert_error(recording, &error, category);
                    }
                }
                errors += 1;
            }
            (outcome, expected) => panic!("{id}: {outcome:?} instead of {expected:?}"),
        }
    }
    assert!(replies >= 48 && errors >= 31, "{replies} replies, {errors} errors");
    assert!(prices >= 46, "{prices} prices");
}

/// What the wire says, and the counts that genai-prices took from it.
fn assert_reply(recording: &Recording, reply: &ChatReply) {
    let id = &recording.id;
    assert_eq!(Said::by(reply), Said::on_the_wire(recording), "{id}");
    if let Some(recorded) = recording.response.headers.get("x-request-id") {
        assert_eq!(reply.metadata["request_id"], *recorded, "{id}");
    }
    if id == "c119" {
        assert_eq!(reply.reported_cost.map(|usd| usd.to_string()).as_deref(), Some("0.00995"));
    }
    let tokens = reply.tokens.unwrap_or_default();
    assert!(tokens.check().is_ok(), "{id}: {tokens:?}");
    let Some(usage) = recording.genai_prices.as_ref().map(|oracle| &oracle["usage"]) else {
        return;
    };
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

/// The price that genai-prices computed, at the moment that it names; whether it names one.
fn assert_price(
    recording: &Recording,
    provider: &str,
    reply: &ChatReply,
    book: &PriceBook,
) -> bool {
    let id = &recording.id;
    let Some(oracle) = &recording.genai_prices else { return false };
    let Some(expected) = oracle["total_price"].as_str() else { return false };
    let tokens = reply.tokens.expect(id).check().expect(id);
    let asked = recording.request.as_ref().and_then(|asked| asked.body["model"].as_str());
    let quote = book.price(&PriceRequest {
        provider,
        model: asked.unwrap_or("recorded"),
        response_model: reply.model.as_deref(),
        at: oracle["price_at"].as_str().expect(id).parse().expect(id),
        tokens: Some(&tokens),
        service_tier: reply.service_tier.as_deref(),
    });
    assert_eq!(quote.cost.usd(), Some(expected.parse().expect(id)), "{id}: {quote:?}");
    true
}

fn assert_error(recording: &Recording, error: &LlmError, category: ErrorCategory) {
    let Recording { id, response: Answer { status, headers, body }, .. } = recording;
    assert_eq!(error.category(), category, "{id}: {error}");
    if *status == 200 {
        return;
    }
    assert_eq!(error.http_status(), Some(*status), "{id}");
    let body: Value = serde_json::from_str(body).expect(id);
    let told = ["/error/message", "/detail", "/message"]
        .iter()
        .find_map(|path| body.pointer(path)?.as_str());
    assert_eq!(Some(error.message()), told, "{id}");
    if let Some(recorded) = headers.get("x-request-id") {
        assert_eq!(error.metadata()["request_id"], *recorded, "{id}");
    }
}
