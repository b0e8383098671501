//! What an engine records of calls of both clients: also the id under which the provider knows them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Bytes;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use prompt_engine_core::{
    Engine, Label, LlmClient, LlmExecution, MemoryStore, NewPrompt, RecordQuery, Status,
    VersionDraft, params,
};
use serde_json::{Value, json};

use super::{client, serve};

/// Refuses the first request of each API and answers the others.
fn answer(uri: &Uri, body: &Bytes, number: usize) -> Response {
    let request: Value = serde_json::from_slice(body).expect("a JSON body");
    let id = format!("req_{number}");
    if number.is_multiple_of(3) {
        let headers = [("x-request-id", id.as_str()), ("retry-after", "2")];
        return (StatusCode::TOO_MANY_REQUESTS, headers, "{}").into_response();
    }
    let usage = json!({"input_tokens": 9, "output_tokens": 2});
    let part = json!({"type": "output_text", "text": "Hi!"});
    let answer = match uri.path() {
        "/responses" => json!({"model": "gpt-4o-2024-08-06", "status": "completed",
            "output": [{"type": "message", "content": [part]}], "usage": usage}),
        _ => json!({"model": "gpt-4o-2024-08-06", "usage": usage,
            "choices": [{"message": {"content": "Hi!"}, "finish_reason": "stop"}]}),
    };
    let (kind, text) = match (uri.path(), &request["stream"]) {
        ("/responses", Value::Bool(true)) => {
            let ended = json!({"type": "response.completed", "response": answer});
            ("text/event-stream", format!("data: {ended}\n\n"))
        }
        _ => ("application/json", answer.to_string()),
    };
    ([("content-type", kind), ("x-request-id", id.as_str())], text).into_response()
}

#[tokio::test]
async fn every_attempt_is_recorded_with_the_id_of_its_request() {
    let engine =
        Engine::builder().build(Arc::new(MemoryStore::default())).await.expect("an engine");
    let draft = VersionDraft {
        content: "Hi".to_owned(),
        model: Some(Label::new("gpt-4o").expect("a model")),
        ..VersionDraft::default()
    };
    let slug = "greet".parse().expect("a slug");
    engine.prompts().create(NewPrompt::new(slug, draft)).await.expect("a prompt");
    let rendered = engine.render("greet", params! {}).await.expect("a text");

    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let url = serve(move |uri: Uri, body: Bytes| {
        answer(&uri, &body, counted.fetch_add(1, Ordering::SeqCst))
    })
    .await;
    let chat = client(&url);
    let responses = client(&url).responses();
    let clients: [&dyn LlmClient; 2] = [&chat, &responses];
    for client in clients {
        rendered.execute_with(client).await.expect_err("a refusal");
        rendered.execute_with(client).await.expect("a reply");
        let mut stream = rendered.execute_with(client).stream().await.expect("a stream");
        stream.reply().await.expect("a reply");
    }

    engine.flush().await;
    let store = engine.store();
    let page = store.list_executions(&RecordQuery::default()).await.expect("executions");
    let mut recorded = Vec::new();
    for item in &page.items {
        recorded.push(store.execution(item.id).await.expect("a store").expect("an execution"));
    }
    assert_eq!(recorded.len(), count.load(Ordering::SeqCst), "one execution for each request");
    recorded.sort_by_key(|execution| execution.id);
    let said = |execution: &LlmExecution, name: &str| {
        execution.payload.as_ref().expect("a payload").response_metadata[name].clone()
    };
    for (number, execution) in recorded.iter().enumerate() {
        assert_eq!(said(execution, "request_id"), format!("req_{number}"));
        if number.is_multiple_of(3) {
            assert_eq!((execution.status, execution.http_status), (Status::Error, Some(429)));
            assert_eq!(said(execution, "retry_after_ms"), 2000);
        } else {
            assert_eq!((execution.status, execution.http_status), (Status::Success, Some(200)));
            assert_eq!(execution.tokens.map(|tokens| tokens.total()), Some(11));
            assert_eq!(execution.response_model.as_deref(), Some("gpt-4o-2024-08-06"));
        }
    }
}
