//! What is bounded, and what an answer of an unlooked-for form still says, plain and streamed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use futures::StreamExt;
use prompt_engine_core::{ErrorCategory, LlmClient, LlmError};
use serde_json::json;

use super::{Api, BOTH, ask, begun, client, drain, events, limited, serve, whole};

/// A body that begins as `start` and repeats `piece` for ever.
fn endless(start: &str, piece: &'static [u8]) -> Body {
    let start = futures::stream::iter([Ok::<_, Infallible>(Bytes::from(start.to_owned()))]);
    let rest = futures::stream::repeat_with(move || Ok(Bytes::from_static(piece)));
    Body::from_stream(start.chain(rest))
}

const PIECE: &[u8] = &[b'x'; 1 << 20];

/// The error of a call, which must end within twenty seconds.
async fn error_of(client: &Arc<dyn LlmClient>, streamed: bool) -> LlmError {
    let call = async {
        match streamed {
            false => client.chat(&ask("hi")).await.expect_err("an error"),
            true => drain(client, &ask("hi")).await.expect_err("an error").1,
        }
    };
    tokio::time::timeout(Duration::from_secs(20), call).await.expect("it ends")
}

#[tokio::test]
async fn a_body_without_end_is_read_to_its_bound_and_no_further() {
    let url = serve(|_, _| endless("{\"content\": \"", PIECE)).await;
    for api in BOTH {
        let client = client(api, &url);
        let error = error_of(&client, false).await;
        assert_eq!(error.category(), ErrorCategory::Server);
        assert_eq!(error.to_string(), "the answer is longer than 64 MiB");
        let error = error_of(&client, true).await;
        assert_eq!(error.to_string(), "a frame of the stream is longer than 64 MiB");
    }
}

#[tokio::test]
async fn a_frame_without_end_is_read_to_its_bound_and_a_slow_one_to_the_timeout() {
    for api in BOTH {
        let url =
            serve(move |_, _| events(endless(&(begun(api) + "data: {\"type\": \""), PIECE))).await;
        let error = error_of(&client(api, &url), true).await;
        assert_eq!(error.to_string(), "a frame of the stream is longer than 64 MiB");

        let url = serve(move |_, _| {
            let piece = futures::stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                Some((Ok::<_, Infallible>(Bytes::from_static(b"xxxxxxxx")), ()))
            });
            let start = futures::stream::iter([Ok(Bytes::from_static(b"data: {\"type\": \""))]);
            events(Body::from_stream(start.chain(piece)))
        })
        .await;
        let limit = Duration::from_millis(300);
        let error = error_of(&limited(api, &url, limit, limit), true).await;
        assert_eq!(error.category(), ErrorCategory::Timeout, "{error}");
    }
}

#[tokio::test]
async fn a_stream_that_is_answered_in_one_piece_is_a_reply_or_an_error_with_its_status() {
    for api in BOTH {
        let url = serve(move |_, _| axum::Json(whole(api))).await;
        let (texts, reply) = drain(&client(api, &url), &ask("hi")).await.expect("a reply");
        assert_eq!((texts.concat().as_str(), reply.content.as_deref()), ("Hello", Some("Hello")));
        assert!(reply.finish_reason.is_some() && reply.tokens.is_some(), "{reply:?}");

        let error = match api {
            Api::Anthropic => json!({"type": "error",
                "error": {"type": "rate_limit_error", "message": "No."}}),
            Api::Gemini => json!({"error": {"code": 429, "message": "No."}}),
        };
        for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::OK] {
            let body = error.clone();
            let url = serve(move |_, _| (status, axum::Json(body.clone()))).await;
            let error = error_of(&client(api, &url), true).await;
            assert_eq!(error.category(), ErrorCategory::RateLimit, "{api:?} {status}");
            assert_eq!(error.message(), "No.");
            if status != StatusCode::OK {
                assert_eq!(error.http_status(), Some(429));
            }
        }
    }
    // Gemini sends a list where the field `alt` of the query is lost.
    let url = serve(|_, _| axum::Json(json!([whole(Api::Gemini)]))).await;
    let (texts, _) = drain(&client(Api::Gemini, &url), &ask("hi")).await.expect("a reply");
    assert_eq!(texts.concat(), "Hello");
}

#[tokio::test]
async fn a_success_has_the_id_of_its_request() {
    for api in BOTH {
        let url = serve(move |_, _| ([("request-id", "req_1")], axum::Json(whole(api)))).await;
        let reply = client(api, &url).chat(&ask("hi")).await.expect("a reply");
        assert_eq!(
            (&reply.metadata["request_id"], reply.http_status),
            (&json!("req_1"), Some(200))
        );

        let last = match api {
            Api::Anthropic => json!({"type": "message_stop"}),
            Api::Gemini => json!({"candidates": [{"finishReason": "STOP"}]}),
        };
        let url = serve(move |_, _| {
            let body = begun(api) + &format!("data: {last}\n\n");
            let headers = [(header::CONTENT_TYPE, "text/event-stream")];
            (headers, [("request-id", "req_2")], body).into_response()
        })
        .await;
        let (_, reply) = drain(&client(api, &url), &ask("hi")).await.expect("a reply");
        assert_eq!(reply.metadata["request_id"], "req_2");
    }
}
