//! The OpenAI clients against servers on loopback.

mod engine;
mod faults;
mod handed_in;
mod streams;

use std::error::Error as _;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::Uri;
use prompt_engine_core::{ChatRequest, ErrorCategory, LlmClient, Message, Status};
use prompt_engine_llm::{MockServer, OpenAi};
use serde_json::{Value, json};

use super::{KEY, ask, assert_dropping_ends, drain, say, serve, serve_router};

fn mock() -> (MockServer, OpenAi) {
    let server = MockServer::start().expect("a mock server");
    let client = client(&server.base_url());
    (server, client)
}

fn client(base_url: &str) -> OpenAi {
    OpenAi::new(KEY.into()).with_base_url(base_url).expect("a base URL")
}

#[tokio::test]
async fn a_plain_reply_comes_with_usage_model_and_metadata() {
    let (server, client) = mock();
    let reply = client.chat(&ask("Hello")).await.expect("a reply");
    assert!(reply.content.as_deref().is_some_and(|text| text.contains("\"Hello\"")));
    assert_eq!(reply.finish_reason.as_deref(), Some("stop"));
    assert_eq!(reply.model.as_deref(), Some("model-1"));
    let tokens = reply.tokens.expect("usage");
    assert_eq!((tokens.input, tokens.output > 0), (3 + 4 + 2 + 4, true));
    assert_eq!(reply.metadata["request_id"], "req_mock");
    assert_eq!(reply.service_tier.as_deref(), Some("default"));
    assert_eq!(reply.metadata["usage"]["prompt_tokens"], tokens.input);
    assert_eq!(client.provider(), "openai");
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_stream_says_what_the_plain_reply_says() {
    let (server, client) = mock();
    let plain = client.chat(&ask("Grüße, 世界")).await.expect("a reply");
    let (texts, streamed) = drain(&client, &ask("Grüße, 世界")).await.expect("a stream");
    assert!(texts.len() > 5 && texts.iter().all(|text| !text.is_empty()));
    assert_eq!(Some(texts.concat()), streamed.content);
    assert_eq!(streamed, plain);
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn tool_calls_are_whole_plain_and_streamed() {
    let (_server, client) = mock();
    let mut request = ask("[tool] What is the weather?");
    let tool = json!({"type": "function", "function": {"name": "weather", "parameters": {}}});
    request.extra.insert("tools".into(), json!([tool]));
    let plain = client.chat(&request).await.expect("a reply");
    assert_eq!(plain.content, None);
    assert_eq!(plain.finish_reason.as_deref(), Some("tool_calls"));
    let call = &plain.tool_calls[0];
    assert_eq!((call.id.as_str(), call.name.as_str()), ("call_mock", "weather"));
    let arguments: Value = serde_json::from_str(&call.arguments).expect("arguments");
    assert_eq!(arguments["input"], "[tool] What is the weather?");
    let (texts, streamed) = drain(&client, &request).await.expect("a stream");
    assert!(texts.is_empty());
    assert_eq!(streamed, plain);

    let mut said = Message::assistant("");
    said.tool_calls = plain.tool_calls.clone();
    say(&mut request, [said, Message::tool("call_mock", "sunny")]);
    let reply = client.chat(&request).await.expect("a reply");
    assert_eq!(reply.content.as_deref(), Some("The tool says: sunny"));
}

#[tokio::test]
async fn a_server_without_usage_gives_no_tokens() {
    let (_server, client) = mock();
    let plain = client.chat(&ask("[nousage]")).await.expect("a reply");
    let (_, streamed) = drain(&client, &ask("[nousage]")).await.expect("a stream");
    assert_eq!((plain.tokens, streamed.tokens), (None, None));
}

#[tokio::test]
async fn every_refusal_has_its_category_and_costs_one_request() {
    use ErrorCategory as C;
    let cases = [
        ("fail:400", C::InvalidRequest),
        ("fail:401", C::Authentication),
        ("fail:402", C::Billing),
        ("fail:403", C::Permission),
        ("fail:404", C::InvalidRequest),
        ("fail:408", C::Timeout),
        ("fail:429", C::RateLimit),
        ("fail:500", C::Server),
        ("fail:502", C::Server),
        ("fail:503", C::Overloaded),
        ("fail:504", C::Timeout),
        ("fail:529", C::Overloaded),
        ("error:insufficient_quota", C::Billing),
        ("error:context_length_exceeded", C::ContextLength),
        ("error:content_filter", C::ContentFilter),
        ("garbage", C::Server),
        ("cut", C::Network),
    ];
    let (server, client) = mock();
    for (number, (model, category)) in cases.into_iter().enumerate() {
        let request = ChatRequest::new(model, vec![Message::user("hi")]);
        let error = client.chat(&request).await.expect_err(model);
        assert_eq!(error.category(), category, "{model}: {error}");
        let (_, streamed) = drain(&client, &request).await.expect_err(model);
        assert_eq!(streamed.category(), category, "{model}: {streamed}");
        assert_eq!(server.requests(), 2 * (number as u64 + 1), "{model}");
        if let Some(status) = model.strip_prefix("fail:") {
            assert_eq!(error.http_status().map(|s| s.to_string()).as_deref(), Some(status));
            assert_eq!(error.metadata()["request_id"], "req_mock");
        }
        let waits = matches!(model, "fail:429" | "fail:503" | "error:insufficient_quota");
        assert_eq!(error.retry_after(), waits.then_some(Duration::from_secs(2)), "{model}");
    }
}

#[tokio::test]
async fn an_error_says_the_provider_s_words_and_code() {
    let (_server, client) = mock();
    let error = client.chat(&ask("[error:insufficient_quota]")).await.expect_err("an error");
    assert_eq!(error.to_string(), "As you asked");
    assert_eq!(error.code(), Some("insufficient_quota"));
    let error = client.chat(&ask("[garbage]")).await.expect_err("an error");
    assert!(error.to_string().contains("no chat completion: <html>"), "{error}");
}

#[tokio::test]
async fn a_key_that_the_server_echoes_is_redacted() {
    let (_server, client) = mock();
    let error = client.chat(&ask("[echo-key]")).await.expect_err("an error");
    assert_eq!(error.to_string(), "Incorrect API key provided: Bearer [redacted]");
    let shown = format!("{error:?} {client:?}");
    assert!(!shown.contains(KEY), "{shown}");
}

#[tokio::test]
async fn a_key_that_no_header_can_carry_is_an_authentication_error() {
    let error = OpenAi::new("two\nlines".into()).chat(&ask("hi")).await.expect_err("an error");
    assert_eq!(error.category(), ErrorCategory::Authentication);
}

#[tokio::test]
async fn a_server_that_never_answers_times_out() {
    let (server, client) = mock();
    let client = client.with_timeout(Duration::from_millis(200));
    let error = client.chat(&ask("[hang]")).await.expect_err("an error");
    assert_eq!((error.category(), error.status()), (ErrorCategory::Timeout, Status::Timeout));
    assert_eq!(error.to_string(), "no complete answer from the model within 200ms");
    let (texts, error) = drain(&client, &ask("[stall]")).await.expect_err("an error");
    assert_eq!((texts.len(), error.status()), (0, Status::Timeout));
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn a_first_token_that_does_not_come_times_out() {
    let (_server, client) = mock();
    let client = client.with_first_token_timeout(Duration::from_millis(150));
    for mark in ["[stall]", "[hang]"] {
        let (_, error) = drain(&client, &ask(mark)).await.expect_err("an error");
        assert_eq!(error.to_string(), "no first token from the model within 150ms");
    }
    let reply = client.chat(&ask("[slow]")).await.expect("a plain call has no first token");
    assert!(reply.content.is_some());
}

#[tokio::test]
async fn a_stream_cut_in_the_middle_keeps_its_text_and_fails() {
    let (_server, client) = mock();
    let (texts, error) = drain(&client, &ask("[cut]")).await.expect_err("an error");
    assert!(!texts.is_empty());
    assert_eq!(error.category(), ErrorCategory::Network);
    let (texts, error) = drain(&client, &ask("[frame-error]")).await.expect_err("an error");
    assert!(!texts.is_empty());
    assert_eq!(error.category(), ErrorCategory::RateLimit);
    assert_eq!(error.to_string(), "Rate limit reached");
}

#[tokio::test]
async fn a_stream_that_ends_cleanly_but_early_is_a_network_error() {
    let half = r#"data: {"id":"1","choices":[{"index":0,"delta":{"content":"Hel"}}]}"#;
    for (body, whole) in [
        (format!("{half}\n\n"), false),
        (format!("{half}\n\ndata: {{\"id\":\"1\",\"cho"), false),
        (format!("{half}\n\ndata: [DONE]"), true),
        (format!("{}\n\n", half.replace("}}]", "},\"finish_reason\":\"stop\"}]")), true),
    ] {
        let said = body.clone();
        let url = serve(move |_, _| ([("content-type", "text/event-stream")], said.clone())).await;
        match drain(&client(&url), &ask("hi")).await {
            Ok((texts, reply)) => {
                assert!(whole, "{body}");
                assert_eq!(
                    (texts.concat().as_str(), reply.content.as_deref()),
                    ("Hel", Some("Hel"))
                );
            }
            Err((texts, error)) => {
                assert!(!whole, "{body}: {error}");
                assert_eq!(texts.concat(), "Hel");
                assert_eq!(error.category(), ErrorCategory::Network);
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_stream_is_understood() {
    let body = json!({"id": "1", "model": "m", "choices": [{"message": {"content": "whole"}}]});
    let url = serve(move |_, _| axum::Json(body.clone())).await;
    let (texts, reply) = drain(&client(&url), &ask("hi")).await.expect("a stream");
    assert_eq!((texts.concat().as_str(), reply.content.as_deref()), ("whole", Some("whole")));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let seen = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&seen);
    let url = serve(move |_, _| {
        *counted.lock().expect("a count") += 1;
        axum::response::Redirect::temporary("/elsewhere")
    })
    .await;
    let error = client(&url).chat(&ask("hi")).await.expect_err("an error");
    assert!(error.to_string().contains("points to /elsewhere"), "{error}");
    assert_eq!(*seen.lock().expect("a count"), 1);
}

#[tokio::test]
async fn no_connection_and_a_closed_one_are_network_errors() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    let closing = std::thread::spawn(move || drop(listener.accept()));
    let error = client(&url).chat(&ask("hi")).await.expect_err("an error");
    assert_eq!(error.category(), ErrorCategory::Network, "{error}");
    assert!(error.to_string().contains("without an answer"), "{error}");
    closing.join().expect("the listener is gone");
    let error = client(&url).chat(&ask("hi")).await.expect_err("an error");
    assert_eq!(error.category(), ErrorCategory::Network, "{error}");
    assert!(error.to_string().starts_with("cannot connect to 127.0.0.1:"), "{error}");
    assert!(error.to_string().contains(": Connection refused"), "{error}");
    assert!(error.source().is_some());
}

#[tokio::test]
async fn dropping_a_stream_ends_the_call() {
    let first = r#"data: {"id":"1","choices":[{"index":0,"delta":{"content":"a"}}]}"#;
    assert_dropping_ends(format!("{first}\n\n"), client).await;
}

#[tokio::test]
async fn the_request_is_what_was_asked_and_usage_is_asked_for() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let url = serve(move |uri: Uri, body: Bytes| {
        let body: Value = serde_json::from_slice(&body).expect("a JSON body");
        kept.lock().expect("the bodies").push((uri.path().to_owned(), body));
        (axum::http::StatusCode::IM_A_TEAPOT, "short and stout")
    })
    .await;
    let client = client(&format!("{url}/v1/"));
    let mut request = ask("hi");
    request.temperature = Some(0.25);
    request.max_tokens = Some(9);
    let error = client.chat(&request).await.expect_err("a teapot");
    assert_eq!(error.to_string(), "the server answered HTTP 418: short and stout");
    let (_, streamed) = drain(&client, &request).await.expect_err("a teapot");
    assert_eq!(streamed.to_string(), error.to_string());
    let mut expected = json!({
        "model": "model-1", "temperature": 0.25, "max_tokens": 9,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
    });
    let seen = seen.lock().expect("the bodies");
    assert_eq!(seen[0], ("/v1/chat/completions".to_owned(), expected.clone()));
    expected["stream"] = json!(true);
    expected["stream_options"] = json!({"include_usage": true});
    assert_eq!(seen[1].1, expected);
}

#[test]
fn a_base_url_that_is_none_is_refused_by_name() {
    for url in ["127.0.0.1:8080", "ftp://host/v1", "", "http://", "http://host/v1?key=1"] {
        let error = OpenAi::new(KEY.into()).with_base_url(url).expect_err(url);
        // A query may hold a key.
        let shown = url.replace("?key=1", "…");
        assert!(error.to_string().starts_with(&format!("{shown:?} is no base URL")), "{error}");
    }
}

#[tokio::test]
async fn a_mock_server_stops_when_dropped() {
    let (server, client) = mock();
    let waiting = tokio::spawn(async move { client.chat(&ask("[hang]")).await });
    while server.requests() == 0 {
        tokio::task::yield_now().await;
    }
    drop(server);
    let error = waiting.await.expect("a task").expect_err("an error");
    assert_eq!(error.category(), ErrorCategory::Network);
}

#[tokio::test]
async fn latency_is_kept() {
    let wait = Duration::from_millis(30);
    let server = MockServer::start().expect("a mock server").with_latency(wait..=wait, 7);
    let start = std::time::Instant::now();
    client(&server.base_url()).chat(&ask("hi")).await.expect("a reply");
    assert!(start.elapsed() >= wait);
}
