//! Executing: what is recorded of a call, however it ends.

use std::time::Duration;

use futures::StreamExt;
use prompt_engine::{
    ChatReply, Cost, ErrorCategory, LlmError, LlmExecution, PromptEngine, RecordQuery, Status,
    StreamEvent, TokenCounts, UnpricedReason, params,
};
use serde_json::json;

use crate::support::{Act, Scripted, engine, reply};

/// The one execution that the engine has recorded, with its payload.
async fn only_execution(engine: &PromptEngine) -> LlmExecution {
    engine.flush().await;
    let page = engine.store().list_executions(&RecordQuery::default()).await.unwrap();
    assert_eq!(page.items.len(), 1);
    engine.store().execution(page.items[0].id).await.unwrap().unwrap()
}

fn text(text: &str) -> Result<StreamEvent, LlmError> {
    Ok(StreamEvent::Text(text.to_owned()))
}

fn end(text: &str) -> Result<StreamEvent, LlmError> {
    Ok(StreamEvent::End(Box::new(reply(text))))
}

#[tokio::test]
async fn a_call_is_recorded_with_what_was_sent_answered_and_paid() {
    let engine = engine().await;
    let client = Scripted::new([Act::Reply(reply("Hello!"))]);
    let rendered = engine.render("greet", params! { "name" => "A" }).session("s").await.unwrap();
    let done = rendered.execute_with(&client).metadata(json!({ "source": "api" })).await.unwrap();
    assert_eq!(done.reply.content.as_deref(), Some("Hello!"));

    let stored = only_execution(&engine).await;
    assert_eq!(stored, done.execution);
    assert_eq!((stored.status, stored.http_status), (Status::Success, Some(200)));
    assert_eq!(stored.usage_id, rendered.usage_id());
    assert_eq!(stored.attribution.session.as_deref(), Some("s"));
    assert_eq!(stored.model.as_str(), "gpt-4o");
    assert_eq!(stored.response_model.as_deref(), Some("gpt-4o-2024-08-06"));
    assert_eq!(stored.priced_model.as_deref(), Some("gpt-4o"));
    assert_eq!(stored.cost.unwrap().usd(), Some("0.003".parse().unwrap()));
    assert_eq!(stored.tokens.unwrap().cache_read, 400);
    assert!(stored.latency_ms.is_some() && stored.completed_at.is_some());
    let payload = stored.payload.unwrap();
    assert_eq!(*payload.messages_sent, rendered.messages());
    assert_eq!(payload.settings["temperature"], 0.5);
    assert_eq!(payload.response_content.as_deref(), Some("Hello!"));
    assert_eq!(payload.finish_reason.as_deref(), Some("stop"));
    assert_eq!(payload.response_metadata["source"], "api");
}

#[tokio::test]
async fn a_failed_call_gives_the_clients_error_and_is_recorded_with_its_class() {
    let engine = engine().await;
    let error = LlmError::new(ErrorCategory::RateLimit, "slow down").with_http_status(429);
    let client = Scripted::new([Act::Fail(error)]);
    let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    let failed = rendered.execute_with(&client).await.unwrap_err();
    assert_eq!(failed.to_string(), "slow down");

    let stored = only_execution(&engine).await;
    assert_eq!(failed.execution(), Some(&stored));
    assert_eq!((stored.status, stored.http_status), (Status::Error, Some(429)));
    assert_eq!(stored.error_category, Some(ErrorCategory::RateLimit));
    assert_eq!(stored.cost, Some(Cost::unpriced(UnpricedReason::NoUsage)));
    assert_eq!(stored.payload.unwrap().error_message.as_deref(), Some("slow down"));
    assert_eq!(client.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_an_answer_is_recorded_as_a_timeout() {
    let engine = engine().await;
    let client = Scripted::new([Act::Hang]);
    let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    let late = rendered.execute_with(&client).timeout(Duration::from_secs(3)).await.unwrap_err();
    assert_eq!(late.error().category(), ErrorCategory::Timeout);
    assert_eq!(only_execution(&engine).await.status, Status::Timeout);
}

#[tokio::test]
async fn a_future_that_is_dropped_is_recorded_as_cancelled() {
    let engine = engine().await;
    let client = Scripted::new([Act::Hang]);
    let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    {
        let mut call = std::pin::pin!(rendered.execute_with(&client).into_future());
        assert!(futures::poll!(&mut call).is_pending());
        engine.flush().await;
        let page = engine.store().list_executions(&RecordQuery::default()).await.unwrap();
        assert_eq!(page.items[0].status, Status::Pending);
    }
    let stored = only_execution(&engine).await;
    assert_eq!(stored.status, Status::Cancelled);
    assert_eq!(stored.error_category, Some(ErrorCategory::Cancelled));
}

#[tokio::test]
async fn a_stream_is_recorded_once_it_has_ended() {
    let engine = engine().await;
    let client = Scripted::new([Act::Stream(vec![text("Hel"), text("lo"), end("Hello")])]);
    let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    let mut stream = rendered.execute_with(&client).stream().await.unwrap();
    let mut seen = String::new();
    while let Some(event) = stream.next().await {
        if let StreamEvent::Text(text) = event.unwrap() {
            seen.push_str(&text);
        }
    }
    assert_eq!(seen, "Hello");
    let stored = only_execution(&engine).await;
    assert_eq!(stream.execution(), Some(&stored));
    assert_eq!(stored.status, Status::Success);
    assert!(stored.time_to_first_token_ms.is_some());
    assert_eq!(stored.payload.unwrap().response_content.as_deref(), Some("Hello"));
}

#[tokio::test]
async fn a_stream_that_is_dropped_is_recorded_with_what_was_seen() {
    let engine = engine().await;
    let client = Scripted::new([Act::StreamThenHang(vec![text("Hel")])]);
    let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    let mut stream = rendered.execute_with(&client).stream().await.unwrap();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    let stored = only_execution(&engine).await;
    assert_eq!(stored.status, Status::Cancelled);
    assert_eq!(stored.payload.unwrap().response_content.as_deref(), Some("Hel"));
}

#[tokio::test]
async fn a_stream_that_breaks_is_recorded_with_what_was_seen() {
    let engine = engine().await;
    let broken = Err(LlmError::new(ErrorCategory::Overloaded, "no capacity"));
    let client =
        Scripted::new([Act::Stream(vec![text("Hel"), broken]), Act::Stream(vec![text("Hel")])]);
    let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    let mut stream = rendered.execute_with(&client).stream().await.unwrap();
    assert_eq!(stream.reply().await.unwrap_err().category(), ErrorCategory::Overloaded);
    let stored = only_execution(&engine).await;
    assert_eq!(stored.error_category, Some(ErrorCategory::Overloaded));
    assert_eq!(stored.payload.unwrap().response_content.as_deref(), Some("Hel"));

    let mut stream = rendered.execute_with(&client).stream().await.unwrap();
    assert_eq!(stream.reply().await.unwrap_err().category(), ErrorCategory::Network);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_stalls_is_recorded_as_a_timeout() {
    let engine = engine().await;
    let client = Scripted::new([Act::StreamThenHang(vec![text("Hel")])]);
    let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    let call = rendered.execute_with(&client).timeout(Duration::from_secs(3));
    let mut stream = call.stream().await.unwrap();
    assert_eq!(stream.reply().await.unwrap_err().category(), ErrorCategory::Timeout);
    assert_eq!(only_execution(&engine).await.status, Status::Timeout);
}

#[tokio::test]
async fn one_render_executed_twice_is_one_usage_and_two_executions() {
    let engine = engine().await;
    let client = Scripted::new([Act::Reply(reply("a")), Act::Reply(reply("b"))]);
    let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    rendered.execute_with(&client).await.unwrap();
    rendered.execute_with(&client).await.unwrap();
    engine.flush().await;
    let all = RecordQuery::default();
    assert_eq!(engine.store().list_usages(&all).await.unwrap().items.len(), 1);
    assert_eq!(engine.store().list_executions(&all).await.unwrap().items.len(), 2);
}

#[tokio::test]
async fn a_failed_call_is_recorded_with_what_it_used_and_paid_for() {
    let engine = engine().await;
    let failed = |tokens| LlmError::new(ErrorCategory::Server, "it failed").with_tokens(tokens);
    let used = reply("a").tokens.unwrap();
    let odd = TokenCounts { input: 1, cache_read: 2, ..TokenCounts::default() };
    let acts = [Act::Reply(reply("a")), Act::Fail(failed(used)), Act::Fail(failed(odd))];
    let client = Scripted::new(acts);
    let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    let paid = rendered.execute_with(&client).await.unwrap().execution;
    assert!(paid.cost.unwrap().usd().is_some());

    let error = rendered.execute_with(&client).await.unwrap_err();
    let execution = error.execution().unwrap();
    assert_eq!((execution.status, execution.tokens), (Status::Error, paid.tokens));
    assert_eq!((execution.cost, &execution.priced_model), (paid.cost, &paid.priced_model));

    let error = rendered.execute_with(&client).await.unwrap_err();
    let execution = error.execution().unwrap();
    let reason = execution.cost.unwrap().reason();
    assert_eq!((execution.tokens, reason), (None, Some(UnpricedReason::InconsistentUsage)));
    let metadata = &execution.payload.as_ref().unwrap().response_metadata;
    assert_eq!(metadata["inconsistent_usage"]["cache_read"], 2);
}

#[tokio::test]
async fn a_reported_cost_wins_and_contradicting_counts_leave_the_call_unpriced() {
    let engine = engine().await;
    let reported = ChatReply { reported_cost: Some("0.5".parse().unwrap()), ..reply("a") };
    let counts = TokenCounts { input: 1, cache_read: 2, ..TokenCounts::default() };
    let odd = ChatReply { tokens: Some(counts), ..reply("b") };
    let none = ChatReply { tokens: None, ..reply("c") };
    let client = Scripted::new([Act::Reply(reported), Act::Reply(odd), Act::Reply(none)]);
    let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();

    let done = rendered.execute_with(&client).await.unwrap();
    assert_eq!(done.execution.cost, Some(Cost::Reported { usd: "0.5".parse().unwrap() }));
    let done = rendered.execute_with(&client).await.unwrap();
    let reason = done.execution.cost.unwrap().reason();
    assert_eq!(reason, Some(UnpricedReason::InconsistentUsage));
    assert_eq!(done.execution.tokens, None);
    let metadata = &done.execution.payload.as_ref().unwrap().response_metadata;
    assert_eq!(metadata["inconsistent_usage"]["cache_read"], 2);
    let done = rendered.execute_with(&client).await.unwrap();
    assert_eq!(done.execution.cost.unwrap().reason(), Some(UnpricedReason::NoUsage));
}

#[tokio::test]
async fn without_a_model_nothing_is_sent() {
    let engine = engine().await;
    let draft = prompt_engine::VersionDraft { content: "x".to_owned(), ..Default::default() };
    let new = prompt_engine::NewPrompt::new("bare".parse().unwrap(), draft);
    engine.prompts().create(new).await.unwrap();
    let client = Scripted::new([Act::Reply(reply("a"))]);
    let rendered = engine.render("bare", params! {}).await.unwrap();
    let error = rendered.execute_with(&client).await.unwrap_err();
    assert!(error.to_string().contains("`bare`") && error.execution().is_none(), "{error}");
    assert_eq!(client.requests(), 0);
    rendered.execute_with(&client).model("gpt-4o").await.unwrap();
}

#[tokio::test]
async fn a_stream_may_have_all_the_time_in_the_world_and_is_over_once_it_has_ended() {
    let engine = engine().await;
    let client = Scripted::new([Act::Stream(vec![end("Hello")])]);
    let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    let call = rendered.execute_with(&client).timeout(Duration::MAX);
    let mut stream = call.stream().await.unwrap();
    assert!(matches!(stream.next().await, Some(Ok(StreamEvent::End(_)))));
    assert!(stream.next().await.is_none() && stream.next().await.is_none());
    assert_eq!(only_execution(&engine).await.status, Status::Success);
}
