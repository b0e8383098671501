//! What goes wrong between us and a server, plain and streamed, as both APIs have it:
//! each has its category, none hangs, and none costs a second request.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect};
use futures::StreamExt;
use prompt_engine_core::{ErrorCategory, LlmClient, LlmError, StreamEvent};
use prompt_engine_llm::{Anthropic, Gemini};
use serde_json::{Value, json};

use super::{
    Api, BOTH, KEY, ask, assert_dropping_ends, begun, client, drain, events, limited, serve,
    serve_router, whole,
};

const LONG: Duration = Duration::from_secs(600);

/// The errors of a plain call and of a streamed one, each of which must end within ten seconds.
async fn both_errors(client: &Arc<dyn LlmClient>) -> [(Vec<String>, LlmError); 2] {
    let calls = async {
        let plain = client.chat(&ask("hi")).await.expect_err("an error");
        let streamed = drain(client, &ask("hi")).await.expect_err("an error");
        [(Vec::new(), plain), streamed]
    };
    tokio::time::timeout(Duration::from_secs(10), calls).await.expect("no call hangs")
}

/// Answers two requests, the plain one first, with bytes that end before the length that was promised.
fn break_off(plain: &'static str, streamed: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for (kind, body) in [("application/json", plain), ("text/event-stream", &streamed)] {
            let (mut connection, _) = listener.accept().expect("a request");
            let mut asked = Vec::new();
            let mut bytes = [0; 4096];
            while !asked.ends_with(b"}") {
                let read = connection.read(&mut bytes).expect("a request");
                asked.extend_from_slice(&bytes[..read]);
            }
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: 9999\r\n\r\n");
            connection.write_all((head + body).as_bytes()).expect("half an answer");
        }
    });
    url
}

fn is_streamed(uri: &axum::http::Uri, body: &[u8]) -> bool {
    let asked: Value = serde_json::from_slice(body).unwrap_or_default();
    asked["stream"] == true || uri.path().ends_with(":streamGenerateContent")
}

#[tokio::test]
async fn every_refusal_has_its_category_and_costs_one_request() {
    use ErrorCategory as C;
    let cases = [
        (400, "invalid_request_error", "INVALID_ARGUMENT", C::InvalidRequest),
        (401, "authentication_error", "UNAUTHENTICATED", C::Authentication),
        (403, "permission_error", "PERMISSION_DENIED", C::Permission),
        (404, "not_found_error", "NOT_FOUND", C::InvalidRequest),
        (429, "rate_limit_error", "RESOURCE_EXHAUSTED", C::RateLimit),
        (500, "api_error", "INTERNAL", C::Server),
        (503, "api_error_of_a_proxy", "UNAVAILABLE", C::Overloaded),
        (529, "overloaded_error", "ODD", C::Overloaded),
    ];
    for api in BOTH {
        for (status, kind, name, category) in cases {
            let (body, code) = match api {
                Api::Anthropic => {
                    (json!({"type": "error", "error": {"type": kind, "message": "No."}}), kind)
                }
                Api::Gemini => {
                    (json!({"error": {"code": status, "status": name, "message": "No."}}), name)
                }
            };
            let requests = Arc::new(AtomicUsize::new(0));
            let seen = Arc::clone(&requests);
            let url = serve(move |_, _| {
                seen.fetch_add(1, Ordering::Relaxed);
                let status = StatusCode::from_u16(status).expect("a status");
                let headers = [("retry-after", "7"), ("request-id", "req_1")];
                (status, headers, axum::Json(body.clone()))
            })
            .await;
            for (texts, error) in both_errors(&client(api, &url)).await {
                let shown = format!("{api:?} {status}: {error:?}");
                assert!(texts.is_empty(), "{shown}");
                assert_eq!((error.category(), error.message()), (category, "No."), "{shown}");
                assert_eq!(error.http_status(), Some(status), "{shown}");
                assert_eq!(error.code(), Some(code), "{shown}");
                assert_eq!(error.retry_after(), Some(Duration::from_secs(7)), "{shown}");
                assert_eq!(error.metadata()["request_id"], "req_1", "{shown}");
            }
            assert_eq!(requests.load(Ordering::Relaxed), 2, "{api:?} {status}");
        }
    }
}

#[tokio::test]
async fn a_server_that_never_answers_times_out() {
    let url = serve_router(Router::new().fallback(std::future::pending::<StatusCode>)).await;
    for api in BOTH {
        let client = limited(api, &url, Duration::from_millis(150), LONG);
        for (_, error) in both_errors(&client).await {
            assert_eq!(error.category(), ErrorCategory::Timeout, "{error}");
            assert_eq!(error.to_string(), "no complete answer from the model within 150ms");
        }
    }
}

#[tokio::test]
async fn a_first_token_that_does_not_come_times_out_and_a_plain_call_has_none() {
    for api in BOTH {
        let url = serve(move |uri, body| match is_streamed(&uri, &body) {
            true => {
                events(Body::from_stream(futures::stream::pending::<Result<String, Infallible>>()))
            }
            false => axum::Json(whole(api)).into_response(),
        })
        .await;
        let client = limited(api, &url, LONG, Duration::from_millis(150));
        let (_, error) = drain(&client, &ask("hi")).await.expect_err("an error");
        assert_eq!(error.category(), ErrorCategory::Timeout);
        assert_eq!(error.to_string(), "no first token from the model within 150ms");
        let reply = client.chat(&ask("hi")).await.expect("a reply");
        assert_eq!(reply.content.as_deref(), Some("Hello"));
    }
}

#[tokio::test]
async fn a_stream_that_stalls_after_its_first_token_has_the_rest_of_the_time() {
    for api in BOTH {
        let url = serve(move |_, _| {
            let parts = futures::stream::iter([Ok::<_, Infallible>(begun(api))]);
            events(Body::from_stream(parts.chain(futures::stream::pending())))
        })
        .await;
        let client = limited(api, &url, Duration::from_secs(3), Duration::from_secs(2));
        let (texts, error) = drain(&client, &ask("hi")).await.expect_err("an error");
        assert_eq!(texts, ["Hel"]);
        assert_eq!(error.to_string(), "no complete answer from the model within 3s");
    }
}

#[tokio::test]
async fn the_first_token_is_told_of_once_where_it_is_no_text() {
    use StreamEvent::{Head, Started, Text, Token};
    for api in BOTH {
        let thought = match api {
            Api::Anthropic => {
                let start = json!({"type": "message_start", "message": {"id": "m1"}});
                let block = json!({"type": "content_block_start", "index": 1,
                    "content_block": {"type": "thinking", "thinking": "hm"}});
                let delta = json!({"type": "content_block_delta", "index": 1,
                    "delta": {"type": "thinking_delta", "thinking": "!"}});
                format!("data: {start}\n\ndata: {block}\n\ndata: {delta}\n\n")
            }
            Api::Gemini => {
                let part = json!({"text": "hm", "thought": true});
                let data = json!({"candidates": [{"content": {"parts": [part]}}]});
                format!("data: {data}\n\ndata: {data}\n\n")
            }
        };
        for (body, silent) in
            [(thought.clone() + &begun(api), true), (begun(api) + &thought, false)]
        {
            let url = serve(move |_, _| events(Body::from(body.clone()))).await;
            let stream = client(api, &url).stream(&ask("hi")).await.expect("a stream");
            let told = async |event: Result<_, _>| {
                event.ok().filter(|event| !matches!(event, StreamEvent::Usage(_)))
            };
            let seen: Vec<_> = stream.filter_map(told).collect().await;
            let tokens = seen.iter().filter(|event| matches!(event, Token)).count();
            assert_eq!(tokens, usize::from(silent), "{api:?}: {seen:?}");
            assert!(matches!(seen[..2], [Head { .. }, Started { .. }]), "{api:?}: {seen:?}");
            assert!(matches!(seen[usize::from(silent) + 2], Text(_)), "{api:?}: {seen:?}");
        }
    }
}

#[tokio::test]
async fn bytes_that_break_off_are_a_network_error_and_what_was_streamed_is_kept() {
    for api in BOTH {
        let url = break_off(r#"{"content": [{"ty"#, begun(api));
        let [(_, plain), (texts, streamed)] = both_errors(&client(api, &url)).await;
        for error in [plain, streamed] {
            assert_eq!(error.category(), ErrorCategory::Network, "{error}");
            assert_eq!(error.to_string(), "the connection closed before the answer was whole");
            assert_eq!(error.http_status(), Some(200), "what answered was no refusal");
        }
        assert_eq!(texts, ["Hel"]);
    }
}

#[tokio::test]
async fn usage_that_was_told_before_a_strange_end_is_not_what_the_answer_used() {
    for api in BOTH {
        let body = begun(api) + "data: [DONE]\n\n";
        let url = serve(move |_, _| events(Body::from(body.clone()))).await;
        let (texts, error) = drain(&client(api, &url), &ask("hi")).await.expect_err("an error");
        assert_eq!((texts.concat().as_str(), error.tokens()), ("Hel", None), "{api:?}");
    }
}

#[tokio::test]
async fn what_came_whole_is_an_answer_however_the_connection_ends() {
    for api in BOTH {
        let end = match api {
            Api::Anthropic => {
                let data = json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"},
                    "usage": {"output_tokens": 2}});
                format!("event: message_delta\ndata: {data}\n\n")
            }
            Api::Gemini => {
                let data = json!({"candidates": [{"finishReason": "STOP"}],
                    "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2}});
                format!("data: {data}\n\n")
            }
        };
        let url = break_off("", begun(api) + &end);
        let client = client(api, &url);
        client.chat(&ask("hi")).await.expect_err("half an answer");
        let (texts, reply) = drain(&client, &ask("hi")).await.expect("an answer");
        assert_eq!((texts.concat().as_str(), reply.content.as_deref()), ("Hel", Some("Hel")));
        assert_eq!(reply.tokens.map(|tokens| (tokens.input, tokens.output)), Some((3, 2)));
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_before_its_usage_is_no_answer() {
    let data = json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}});
    let url = break_off("", begun(Api::Anthropic) + &format!("data: {data}\n\n"));
    for (texts, error) in both_errors(&client(Api::Anthropic, &url)).await {
        assert!(texts.is_empty() || texts.concat() == "Hel");
        assert_eq!(error.category(), ErrorCategory::Network);
    }
}

#[tokio::test]
async fn an_error_whose_explanation_does_not_come_has_its_status() {
    let answer = || async {
        let stalls = futures::stream::once(async { Ok::<_, Infallible>("{\"error\":") });
        let body = Body::from_stream(stalls.chain(futures::stream::pending()));
        let head = [("retry-after", "9"), ("request-id", "req_1")];
        (StatusCode::TOO_MANY_REQUESTS, head, body)
    };
    let url = serve_router(Router::new().fallback(answer)).await;
    let [anthropic, gemini] = BOTH.map(|api| client(api, &url));
    let request = ask("hi");
    let calls = async {
        let (plain, streamed) = (anthropic.chat(&request), drain(&gemini, &request));
        let (plain, streamed) = tokio::join!(plain, streamed);
        [plain.expect_err("an error"), streamed.expect_err("an error").1]
    };
    let errors = tokio::time::timeout(Duration::from_secs(10), calls).await.expect("no call hangs");
    for error in errors {
        assert_eq!((error.category(), error.http_status()), (ErrorCategory::RateLimit, Some(429)));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(9)));
        assert_eq!(error.metadata()["request_id"], "req_1");
    }
}

#[tokio::test]
async fn a_compressed_answer_is_named_and_nulls_are_no_answer() {
    for api in BOTH {
        let answer = || async { ([(header::CONTENT_ENCODING, "gzip")], "\u{1f}\u{8b}") };
        let url = serve_router(Router::new().fallback(answer)).await;
        let error = client(api, &url).chat(&ask("hi")).await.expect_err("an error");
        assert_eq!(error.to_string(), "the server's answer is compressed (gzip), unasked");
        let nulls = || async { r#"{"content":null,"candidates":null,"error":null}"# };
        let url = serve_router(Router::new().fallback(nulls)).await;
        let error = client(api, &url).chat(&ask("hi")).await.expect_err("an error");
        assert!(error.to_string().starts_with("the server's answer is no "), "{error}");
    }
}

#[tokio::test]
async fn a_stream_that_ends_cleanly_but_early_is_a_network_error() {
    for api in BOTH {
        for rest in ["", "data: {\"type\": \"content_bl"] {
            let url = serve(move |_, _| events(Body::from(begun(api) + rest))).await;
            let (texts, error) = drain(&client(api, &url), &ask("hi")).await.expect_err("an error");
            assert_eq!(
                (texts.concat().as_str(), error.category()),
                ("Hel", ErrorCategory::Network)
            );
        }
    }
}

#[tokio::test]
async fn a_finish_reason_makes_a_stream_whole() {
    for api in BOTH {
        let last = match api {
            Api::Anthropic => {
                json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"},
                "usage": {"output_tokens": 5}})
            }
            Api::Gemini => json!({"candidates": [{"finishReason": "end_turn"}],
                "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 5}}),
        };
        let rest = format!("event: message_delta\ndata: {last}\n\n");
        let url = serve(move |_, _| events(Body::from(begun(api) + &rest))).await;
        let (_, reply) = drain(&client(api, &url), &ask("hi")).await.expect("a stream");
        assert_eq!(reply.content.as_deref(), Some("Hel"));
        assert_eq!(reply.finish_reason.as_deref(), Some("end_turn"));
        assert_eq!(reply.tokens.map(|tokens| (tokens.input, tokens.output)), Some((3, 5)));
    }
}

#[tokio::test]
async fn a_stream_without_usage_has_no_tokens() {
    let frames = [
        json!({"type": "message_start", "message": {"id": "m1", "content": []}}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}),
        json!({"type": "message_stop"}),
    ];
    let body = frames
        .map(|frame| format!("event: {}\ndata: {frame}\n\n", frame["type"].as_str().unwrap_or("")))
        .concat();
    let url = serve(move |_, _| events(Body::from(body.clone()))).await;
    let client_of_anthropic = client(Api::Anthropic, &url);
    let (_, reply) = drain(&client_of_anthropic, &ask("hi")).await.expect("a stream");
    assert_eq!((reply.tokens, reply.content), (None, None));

    let frame = json!({"candidates": [{"finishReason": "STOP"}]});
    let url = serve(move |_, _| events(Body::from(format!("data: {frame}\n\n")))).await;
    let (_, reply) = drain(&client(Api::Gemini, &url), &ask("hi")).await.expect("a stream");
    assert_eq!(reply.tokens, None);
}

#[tokio::test]
async fn a_frame_that_is_no_json_is_a_server_error() {
    for api in BOTH {
        for odd in ["<html>", "{\"type\": \"content_bl"] {
            let rest = format!("data: {odd}\n\ndata: {{}}\n\n");
            let url = serve(move |_, _| events(Body::from(begun(api) + &rest))).await;
            let (texts, error) = drain(&client(api, &url), &ask("hi")).await.expect_err("an error");
            assert_eq!((texts.concat().as_str(), error.category()), ("Hel", ErrorCategory::Server));
            assert_eq!(error.to_string(), format!("a frame of the stream is no JSON: {odd}"));
        }
    }
}

#[tokio::test]
async fn a_success_that_is_no_answer_is_a_server_error() {
    for api in BOTH {
        for (kind, body) in [
            ("text/html", "<html>Sorry</html>"),
            ("application/json", r#"{"content": [{"ty"#),
            ("application/json", "[]"),
            ("application/json", "{}"),
        ] {
            let url = serve(move |_, _| ([(header::CONTENT_TYPE, kind)], body)).await;
            let error = client(api, &url).chat(&ask("hi")).await.expect_err(body);
            assert_eq!(error.category(), ErrorCategory::Server, "{body}: {error}");
            assert!(error.to_string().ends_with(body), "{error}");
            let (_, error) = drain(&client(api, &url), &ask("hi")).await.expect_err("an error");
            assert_ne!(error.category(), ErrorCategory::InvalidRequest, "{body}: {error}");
        }
    }
}

#[tokio::test]
async fn an_answer_of_another_media_type_is_read_all_the_same() {
    for api in BOTH {
        let body = whole(api).to_string();
        let url = serve(move |_, _| ([(header::CONTENT_TYPE, "text/plain")], body.clone())).await;
        let reply = client(api, &url).chat(&ask("hi")).await.expect("a reply");
        assert_eq!(reply.content.as_deref(), Some("Hello"));
    }
}

#[tokio::test]
async fn an_error_inside_a_success_has_its_category() {
    use ErrorCategory as C;
    let cases = [
        (
            Api::Anthropic,
            json!({"type": "error", "error": {"type": "overloaded_error", "message": "No."}}),
            C::Overloaded,
        ),
        (
            Api::Anthropic,
            json!({"type": "error", "error": {"type": "rate_limit_error", "message": "No."}}),
            C::RateLimit,
        ),
        (
            Api::Gemini,
            json!({"error": {"code": 503, "message": "No.", "status": "UNAVAILABLE"}}),
            C::Overloaded,
        ),
        (Api::Gemini, json!({"error": {"code": 500, "message": "No."}}), C::Server),
    ];
    for (api, error, category) in cases {
        let url = serve(move |uri, body| match is_streamed(&uri, &body) {
            true => {
                let rest = format!("event: error\ndata: {error}\n\n");
                events(Body::from(begun(api) + &rest))
            }
            false => axum::Json(error.clone()).into_response(),
        })
        .await;
        let [(_, plain), (texts, streamed)] = both_errors(&client(api, &url)).await;
        assert_eq!(texts, ["Hel"]);
        for error in [plain, streamed] {
            assert_eq!((error.category(), error.message()), (category, "No."), "{error:?}");
        }
    }
}

#[tokio::test]
async fn no_connection_and_a_closed_one_are_network_errors() {
    for api in BOTH {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let closing = std::thread::spawn(move || {
            for _ in 0..2 {
                drop(listener.accept());
            }
        });
        for (_, error) in both_errors(&client(api, &url)).await {
            assert_eq!(error.category(), ErrorCategory::Network, "{error}");
            assert!(
                error.to_string().ends_with("closed the connection without an answer"),
                "{error}"
            );
        }
        closing.join().expect("the listener is gone");
        for (_, error) in both_errors(&client(api, &url)).await {
            assert_eq!(error.category(), ErrorCategory::Network, "{error}");
            assert!(error.to_string().starts_with("cannot connect to 127.0.0.1:"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    for api in BOTH {
        let url = serve(|_, _| Redirect::temporary("/elsewhere")).await;
        for (_, error) in both_errors(&client(api, &url)).await {
            assert_eq!(error.to_string(), "the server answered HTTP 307 and points to /elsewhere");
        }
    }
}

#[tokio::test]
async fn a_key_that_the_server_echoes_is_redacted() {
    for api in BOTH {
        let router = Router::new().fallback(|headers: HeaderMap| async move {
            let key = ["x-api-key", "x-goog-api-key"].iter().find_map(|name| headers.get(*name));
            let key = key.and_then(|key| key.to_str().ok()).unwrap_or("none");
            let body = json!({"error": {"message": format!("no such key: {key}"), "type": key}});
            (StatusCode::UNAUTHORIZED, [("request-id", key.to_owned())], axum::Json(body))
        });
        let url = serve_router(router).await;
        let client = client(api, &url);
        for (_, error) in both_errors(&client).await {
            assert_eq!(error.to_string(), "no such key: [redacted]");
            let shown = format!("{error:?} {client:?}");
            assert!(!shown.contains(KEY), "{shown}");
        }
    }
}

#[tokio::test]
async fn a_key_that_no_header_can_carry_is_an_authentication_error() {
    for api in BOTH {
        let client: Arc<dyn LlmClient> = match api {
            Api::Anthropic => Arc::new(Anthropic::new("two\nlines".into())),
            Api::Gemini => Arc::new(Gemini::new("two\nlines".into())),
        };
        for (_, error) in both_errors(&client).await {
            assert_eq!(error.category(), ErrorCategory::Authentication);
        }
    }
}

#[tokio::test]
async fn dropping_a_stream_ends_the_call() {
    for api in BOTH {
        assert_dropping_ends(begun(api), |url| client(api, url)).await;
    }
}

#[test]
fn a_base_url_that_is_none_is_refused_by_name() {
    for url in ["127.0.0.1:8080", "ftp://host/v1", "", "http://", "http://host/v1?key=1"] {
        let error = Gemini::new(KEY.into()).with_base_url(url).expect_err(url);
        // A query may hold a key.
        let shown = url.replace("?key=1", "…");
        assert!(error.to_string().starts_with(&format!("{shown:?} is no base URL")), "{error}");
    }
}
