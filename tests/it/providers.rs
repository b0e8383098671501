//! Calls to Anthropic and Gemini from the request to what was paid, against servers on loopback.

use std::convert::Infallible;
use std::future::IntoFuture;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use futures::StreamExt;
use futures::future::join_all;
use prompt_engine::{
    Cost, ErrorCategory, LlmExecution, PromptEngine, RecordQuery, Status, UnpricedReason, params,
};
use prompt_engine_llm::Provider;
use serde_json::json;

use crate::support::engine;

/// A server that answers everything with `answer`.
async fn serve(answer: impl IntoResponse + Clone + Send + Sync + 'static) -> String {
    serve_each(move || answer.clone()).await
}

/// A server whose answers are made one by one.
async fn serve_each<R: IntoResponse + 'static>(
    answer: impl Fn() -> R + Clone + Send + Sync + 'static,
) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let router = Router::new().fallback(move || {
        let answer = answer().into_response();
        async move { answer }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

async fn recorded(engine: &PromptEngine, execution: &LlmExecution) -> LlmExecution {
    engine.flush().await;
    let stored = engine.store().execution(execution.id).await.unwrap().unwrap();
    assert_eq!(&stored, execution);
    stored
}

#[tokio::test]
async fn a_call_to_anthropic_pays_for_cache_writes_by_how_long_they_last() {
    let usage = json!({"input_tokens": 1000, "output_tokens": 50, "cache_read_input_tokens": 2000,
        "cache_creation_input_tokens": 300, "service_tier": "standard",
        "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200}});
    let url = serve(axum::Json(json!({"id": "msg_1", "model": "claude-sonnet-4-6",
        "content": [{"type": "text", "text": "Hello!"}], "stop_reason": "end_turn", "usage": usage})))
    .await;
    let client = Provider::Anthropic.client("key".into(), Some(&url)).unwrap();
    let engine = engine().await;
    let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    let done = rendered.execute_with(&client).model("claude-sonnet-4-6").await.unwrap();

    let stored = recorded(&engine, &done.execution).await;
    assert_eq!((stored.provider.as_str(), stored.status), ("anthropic", Status::Success));
    let tokens = stored.tokens.unwrap();
    assert_eq!((tokens.input, tokens.cache_write, tokens.cache_write_1h), (3300, 300, 200));
    // 1000 at 3, 2000 at 0.30, 100 at 3.75, 200 at 6 and 50 at 15 dollars per million.
    assert_eq!(stored.cost.unwrap().usd(), Some("0.005925".parse().unwrap()));
    let payload = stored.payload.unwrap();
    assert_eq!(payload.response_content.as_deref(), Some("Hello!"));
    assert_eq!(payload.response_metadata["usage"], usage);
}

#[tokio::test]
async fn a_stream_that_does_not_end_keeps_what_was_told_and_is_not_priced_for_it() {
    let usage = json!({"input_tokens": 1000, "output_tokens": 1});
    let start = json!({"type": "message_start", "message": {"id": "m1", "usage": usage}});
    let delta = json!({"type": "content_block_delta", "index": 0,
        "delta": {"type": "text_delta", "text": "Hel"}});
    let head = [("content-type", "text/event-stream"), ("request-id", "req_1")];
    let said = format!("data: {start}\n\ndata: {delta}\n\n");
    let ends = serve((head, said.clone())).await;
    let stalls = serve_each(move || {
        let said = futures::stream::iter([Ok::<_, Infallible>(said.clone())]);
        (head, Body::from_stream(said.chain(futures::stream::pending())))
    })
    .await;

    let engine = engine().await;
    let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    for (url, way) in
        [(&ends, Status::Error), (&stalls, Status::Timeout), (&stalls, Status::Cancelled)]
    {
        let client = Provider::Anthropic.client("key".into(), Some(url)).unwrap();
        let mut call = rendered.execute_with(&client).model("claude-sonnet-4-6");
        if way == Status::Timeout {
            call = call.timeout(Duration::from_secs(2));
        }
        let mut stream = call.stream().await.unwrap();
        let id = stream.execution_id();
        match way {
            Status::Cancelled => drop(stream.by_ref().take(4).collect::<Vec<_>>().await),
            _ => drop(stream.reply().await.unwrap_err()),
        }
        drop(stream);

        engine.flush().await;
        let stored = engine.store().execution(id).await.unwrap().unwrap();
        assert_eq!((stored.status, stored.http_status), (way, Some(200)));
        assert_eq!(
            (stored.tokens, stored.cost),
            (None, Some(Cost::unpriced(UnpricedReason::NoUsage)))
        );
        let payload = stored.payload.unwrap();
        assert_eq!(payload.response_content.as_deref(), Some("Hel"));
        let kept = &payload.response_metadata;
        assert_eq!(
            (&kept["request_id"], &kept["usage_so_far"]["input"]),
            (&json!("req_1"), &json!(1000))
        );
    }
}

#[tokio::test]
async fn a_call_that_is_given_up_after_the_head_of_its_answer_keeps_what_the_head_told() {
    let stalls = |status: StatusCode| {
        serve_each(move || {
            let begun = futures::stream::iter([Ok::<_, Infallible>("{")]);
            let body = Body::from_stream(begun.chain(futures::stream::pending()));
            (status, [("content-type", "application/json"), ("x-request-id", "req_1")], body)
        })
    };
    let urls = [stalls(StatusCode::OK).await, stalls(StatusCode::TOO_MANY_REQUESTS).await];
    let engine = engine().await;
    let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    let soon = Duration::from_secs(2);
    let (rendered, urls) = (&rendered, &urls);
    let providers = ["openai", "openai-responses", "anthropic", "gemini"];
    let asked = providers.iter().flat_map(|provider| urls.iter().map(move |url| (provider, url)));
    join_all(asked.map(|(provider, url)| async move {
        let provider: Provider = provider.parse().unwrap();
        let client = provider.client("key".into(), Some(url)).unwrap();
        let call = || rendered.execute_with(&client).model("m");
        let (plain, streamed, dropped) = tokio::join!(
            call().timeout(soon).into_future(),
            call().timeout(soon).stream(),
            tokio::time::timeout(soon, call().into_future()),
        );
        for late in [plain.unwrap_err(), streamed.unwrap_err()] {
            assert_eq!(late.error().metadata(), &json!({"request_id": "req_1"}));
        }
        assert!(dropped.is_err());
    }))
    .await;

    engine.flush().await;
    let query = RecordQuery { payloads: true, ..RecordQuery::default() };
    let stored = engine.store().list_executions(&query).await.unwrap().items;
    for call in &stored {
        assert_eq!(call.payload.as_ref().unwrap().response_metadata["request_id"], "req_1");
    }
    let ended = |status, http| {
        let ended = |call: &&LlmExecution| call.status == status && call.http_status == Some(http);
        stored.iter().filter(ended).count()
    };
    for http in [200, 429] {
        assert_eq!((ended(Status::Timeout, http), ended(Status::Cancelled, http)), (8, 4));
    }
}

#[tokio::test]
async fn a_stream_of_gemini_pays_for_its_thoughts() {
    let frame = json!({"responseId": "r1", "modelVersion": "gemini-2.5-flash",
        "candidates": [{"content": {"parts": [{"text": "Hello!"}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 9622, "cachedContentTokenCount": 9609,
            "candidatesTokenCount": 35, "thoughtsTokenCount": 136, "serviceTier": "standard"}});
    let url =
        serve(([(header::CONTENT_TYPE, "text/event-stream")], format!("data: {frame}\n\n"))).await;
    let client = Provider::Gemini.client("key".into(), Some(&url)).unwrap();
    let engine = engine().await;
    let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    let mut stream =
        rendered.execute_with(&client).model("gemini-2.5-flash").stream().await.unwrap();
    while let Some(event) = stream.next().await {
        event.unwrap();
    }

    let stored = recorded(&engine, stream.execution().unwrap()).await;
    assert_eq!((stored.provider.as_str(), stored.status), ("google", Status::Success));
    assert!(stored.time_to_first_token_ms.is_some());
    assert_eq!(stored.tokens.map(|tokens| (tokens.output, tokens.reasoning)), Some((171, 136)));
    assert_eq!(stored.cost.unwrap().usd(), Some("0.00071967".parse().unwrap()));
}

#[tokio::test]
async fn a_refusal_is_recorded_with_its_class_and_status() {
    let body =
        json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
    let url = serve((StatusCode::from_u16(529).unwrap(), axum::Json(body))).await;
    let client = Provider::Anthropic.client("key".into(), Some(&url)).unwrap();
    let engine = engine().await;
    let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    let error = rendered.execute_with(&client).await.unwrap_err();

    let stored = recorded(&engine, error.execution().unwrap()).await;
    assert_eq!((stored.status, stored.http_status), (Status::Error, Some(529)));
    assert_eq!(stored.error_category, Some(ErrorCategory::Overloaded));
}
