//! Recording by hand, for those who call models on their own.

use prompt_engine::{
    ChatRequest, ErrorCategory, ErrorKind, ExecutionLog, ExecutionOutcome, Label, LlmError,
    Message, Status, UsageLog,
};
use serde_json::{Value, json};

use crate::support::{engine, reply};

fn log() -> ExecutionLog {
    ExecutionLog {
        provider: Label::new("openai").unwrap(),
        request: ChatRequest::new("gpt-4o", vec![Message::user("Hello A")]),
        metadata: Value::Null,
    }
}

#[tokio::test]
async fn a_call_made_elsewhere_is_recorded_under_its_usage() {
    let engine = engine().await;
    let service = engine.observability();
    let usage = UsageLog { content: "Hello A".to_owned(), ..UsageLog::default() };
    let usage = service.log_usage(&"greet".parse().unwrap(), usage).await.unwrap();
    let handle = service.log_execution(&usage, log()).await;
    let id = handle.id();
    let outcome = ExecutionOutcome {
        reply: reply("Hello!"),
        latency_ms: Some(1_234),
        time_to_first_token_ms: Some(56),
    };
    service.update_execution(handle, outcome).await.unwrap();

    engine.flush().await;
    let stored = engine.store().execution(id).await.unwrap().unwrap();
    assert_eq!((stored.usage_id, stored.status), (usage.id(), Status::Success));
    assert_eq!((stored.latency_ms, stored.time_to_first_token_ms), (Some(1_234), Some(56)));
    assert_eq!(stored.cost.unwrap().usd(), Some("0.003".parse().unwrap()));
}

#[tokio::test]
async fn a_failure_and_a_dropped_handle_are_recorded_as_what_they_are() {
    let engine = engine().await;
    let service = engine.observability();
    let slug = "greet".parse().unwrap();
    let usage = service.log_usage(&slug, UsageLog::default()).await.unwrap();
    let handle = service.log_execution(&usage, log()).await;
    let failed = handle.id();
    let error = LlmError::new(ErrorCategory::Billing, "no credit");
    service.log_execution_error(handle, &error).await.unwrap();
    let handle = service.log_execution(&usage, log()).await;
    let dropped = handle.id();
    drop(handle);

    engine.flush().await;
    let stored = engine.store().execution(failed).await.unwrap().unwrap();
    assert_eq!(stored.error_category, Some(ErrorCategory::Billing));
    let stored = engine.store().execution(dropped).await.unwrap().unwrap();
    assert_eq!(stored.status, Status::Cancelled);
}

#[tokio::test]
async fn a_render_alone_is_marked_and_an_unknown_prompt_is_named() {
    let engine = engine().await;
    let service = engine.observability();
    let mark = UsageLog { metadata: json!({ "why": "preview" }), ..UsageLog::default() };
    let usage = service.log_render_only(&"greet".parse().unwrap(), mark).await.unwrap();
    engine.flush().await;
    let stored = engine.store().usage(usage.id()).await.unwrap().unwrap();
    let metadata = &stored.payload.as_ref().unwrap().metadata;
    assert_eq!((&metadata["render_only"], &metadata["why"]), (&json!(true), &json!("preview")));

    let gone = service.log_usage(&"gone".parse().unwrap(), UsageLog::default()).await;
    let error = gone.unwrap_err();
    assert_eq!((error.kind(), error.to_string().contains("gone")), (ErrorKind::NotFound, true));
}
