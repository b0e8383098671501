//! Calls that are made again, and models that are fallen back on.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use prompt_engine_core::testkit::{Act, Scripted};
use prompt_engine_core::{Chat, ErrorCategory, RetryPolicy, Status, StreamEvent, tool_fn};
use tokio::time::Instant;

use crate::support::{Log, calls, end, error, executions, fail, line, rendered, say, spec, text};

fn steady() -> RetryPolicy {
    RetryPolicy::default().with_jitter_percent(0).with_base_delay(Duration::from_secs(1))
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_limited_is_made_again_when_the_provider_says() {
    let (engine, rendered) = rendered().await;
    let limited = error(ErrorCategory::RateLimit).with_retry_after(Duration::from_secs(7));
    let client = Scripted::new([Act::Fail(limited.with_http_status(429)), say("Hello")]);
    let start = Instant::now();
    let done = rendered.execute_with(&client).retries(steady()).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(7));
    assert_eq!(done.reply.content.as_deref(), Some("Hello"));

    let stored = executions(&engine).await;
    assert_eq!(stored, [done.earlier[0].execution.clone(), done.execution.clone()]);
    assert_eq!((stored[0].status, stored[0].http_status), (Status::Error, Some(429)));
    assert_eq!(stored[1].status, Status::Success);
    assert!(stored.iter().all(|execution| execution.usage_id == rendered.usage_id()));
    assert_eq!(client.requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_asks_for_minutes_is_not_waited_for() {
    let (engine, rendered) = rendered().await;
    let limited = error(ErrorCategory::RateLimit).with_retry_after(Duration::from_secs(300));
    let client = Scripted::new([Act::Fail(limited)]);
    let failed = rendered.execute_with(&client).retries(steady()).await.unwrap_err();
    assert_eq!(failed.error().retry_after(), Some(Duration::from_secs(300)));
    assert_eq!((failed.calls().len(), executions(&engine).await.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn attempts_are_used_up_and_errors_that_do_not_pass_are_not_tried_again() {
    let (engine, rendered) = rendered().await;
    let client = Scripted::new([
        fail(ErrorCategory::Overloaded),
        fail(ErrorCategory::Network),
        fail(ErrorCategory::Server),
        fail(ErrorCategory::Authentication),
    ]);
    let start = Instant::now();
    let failed = rendered.execute_with(&client).retries(steady()).await.unwrap_err();
    assert_eq!(failed.error().category(), ErrorCategory::Server);
    assert_eq!(start.elapsed(), Duration::from_secs(1 + 2));
    let ids: Vec<_> = failed.calls().iter().map(|call| call.execution.id).collect();
    assert_eq!(failed.execution().map(|execution| execution.id), ids.last().copied());
    let failed = rendered.execute_with(&client).retries(steady()).await.unwrap_err();
    assert_eq!(failed.error().category(), ErrorCategory::Authentication);
    assert_eq!(executions(&engine).await.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_begun_again_before_its_first_token_and_never_after() {
    let (engine, rendered) = rendered().await;
    let started = || Ok(StreamEvent::Started { model: Some("gpt-4o".to_owned()), id: None });
    let client = Scripted::new([
        fail(ErrorCategory::Overloaded),
        Act::Stream(vec![started(), Err(error(ErrorCategory::Server))]),
        Act::Stream(vec![started(), text("Hel"), Err(error(ErrorCategory::Server))]),
    ]);
    let mut stream = rendered.execute_with(&client).retries(steady()).stream().await.unwrap();
    assert_eq!(stream.earlier().len(), 2);
    assert_eq!(stream.reply().await.unwrap_err().category(), ErrorCategory::Server);
    assert_eq!(client.requests(), 3);
    let stored = executions(&engine).await;
    assert!(stored.iter().all(|execution| execution.status == Status::Error));
    assert_eq!(stream.execution(), stored.last());
    let seen = stored[2].payload.as_ref().unwrap().response_content.as_deref();
    assert_eq!(seen, Some("Hel"));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_no_text_is_a_first_token() {
    let (engine, rendered) = rendered().await;
    let token = || Ok(StreamEvent::Token);
    let client = Scripted::new([
        Act::Stream(vec![token(), Err(error(ErrorCategory::Server))]),
        Act::StreamThenHang(vec![token()]),
    ]);
    let mut broken = rendered.execute_with(&client).retries(steady()).stream().await.unwrap();
    assert!(matches!(broken.next().await, Some(Ok(StreamEvent::Token))));
    assert_eq!(broken.reply().await.unwrap_err().category(), ErrorCategory::Server);
    assert_eq!(client.requests(), 1, "it is not begun again");

    let call = rendered.execute_with(&client).first_token_timeout(Duration::from_secs(1));
    let mut slow = call.timeout(Duration::from_secs(60)).stream().await.unwrap();
    assert_eq!(slow.reply().await.unwrap_err().message(), "no whole answer within 60s");
    let stored = executions(&engine).await;
    assert!(stored.iter().all(|call| call.time_to_first_token_ms == Some(0)));
    assert!(stored.iter().all(|call| call.payload.as_ref().unwrap().response_content.is_none()));
}

#[tokio::test(start_paused = true)]
async fn the_time_for_all_is_not_waited_away() {
    let (engine, rendered) = rendered().await;
    let client =
        Scripted::new([fail(ErrorCategory::Server), Act::Hang, fail(ErrorCategory::Server)]);
    let start = Instant::now();
    let call = rendered.execute_with(&client).retries(steady()).timeout(Duration::from_secs(5));
    assert_eq!(call.await.unwrap_err().error().category(), ErrorCategory::Timeout);
    assert_eq!((start.elapsed(), client.requests()), (Duration::from_secs(5), 2));
    let stored = executions(&engine).await;
    assert_eq!((stored[1].status, stored[1].latency_ms), (Status::Timeout, Some(4_000)));

    // A wait that would outlast the time is not begun.
    let start = Instant::now();
    let call = rendered.execute_with(&client).retries(steady()).timeout(Duration::from_secs(1));
    assert_eq!(call.await.unwrap_err().error().category(), ErrorCategory::Server);
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn another_model_is_asked_once_the_retries_of_one_are_used_up() {
    let (engine, rendered) = rendered().await;
    let first =
        Arc::new(Scripted::new([fail(ErrorCategory::Overloaded), fail(ErrorCategory::Overloaded)]));
    let second = Arc::new(Scripted::new([fail(ErrorCategory::Billing)]).with_provider("anthropic"));
    let third = Arc::new(Scripted::new([say("Hello")]).with_provider("google"));
    let log = Log::default();
    let lines = log.clone();
    let chat = Chat::new(Arc::clone(&first), "gpt-4o-mini")
        .with_retries(steady().with_max_attempts(2))
        .with_fallback(Arc::clone(&second), "claude-sonnet-4")
        .with_fallback(Arc::clone(&third), "gemini-2.5-flash")
        .on_attempt(move |attempt| lines.add(line(attempt)));
    let answer = rendered.execute_with(&chat).await.unwrap();
    assert_eq!(answer.text(), "Hello");
    let tried = [
        "1.1 openai/gpt-4o-mini overloaded",
        "1.2 openai/gpt-4o-mini overloaded",
        "1.3 anthropic/claude-sonnet-4 billing",
        "1.4 google/gemini-2.5-flash ok",
    ];
    assert_eq!(log.take(), tried);
    let asked: Vec<_> = executions(&engine)
        .await
        .into_iter()
        .map(|execution| format!("{}/{}", execution.provider, execution.model))
        .collect();
    assert_eq!(asked, tried.map(|line| line.split(' ').nth(1).unwrap().to_owned()));
    assert_eq!(third.seen()[0].model, "gemini-2.5-flash");
}

#[tokio::test(start_paused = true)]
async fn a_model_that_answered_is_asked_in_the_next_turn_and_the_first_in_the_next_question() {
    let first = Scripted::new([fail(ErrorCategory::Other), say("Back")]);
    let second = Scripted::new([Act::Reply(calls("t", "")), say("ok")]).with_provider("other");
    let log = Log::default();
    let lines = log.clone();
    let mut chat = Chat::new(first, "a")
        .with_fallback(second, "b")
        .with_tool(tool_fn(spec("t"), async |_| Ok(String::new())))
        .on_attempt(move |attempt| lines.add(line(attempt)));
    chat.ask("Go").await.unwrap();
    assert_eq!(log.take(), ["1.1 openai/a other", "1.2 other/b ok", "2.1 other/b ok"]);
    chat.ask("Again").await.unwrap();
    assert_eq!(log.take(), ["1.1 openai/a ok"]);
}

#[tokio::test(start_paused = true)]
async fn no_other_model_is_asked_what_it_could_not_mend() {
    use ErrorCategory::{Cancelled, ContentFilter, InvalidRequest};
    for category in ErrorCategory::ALL {
        let second = Arc::new(Scripted::new([say("Hello")]));
        let mut chat = Chat::new(Scripted::new([fail(*category)]), "a")
            .with_fallback(Arc::clone(&second), "b");
        let answer = chat.ask("Go").await;
        let final_for_all = [InvalidRequest, ContentFilter, Cancelled].contains(category);
        assert_eq!((answer.is_err(), second.requests() == 0), (final_for_all, final_for_all));
    }
    // When the time for the question is over, nobody else is asked, either.
    let second = Arc::new(Scripted::new([say("Hello")]));
    let mut chat =
        Chat::new(Scripted::new([Act::Hang]), "a").with_fallback(Arc::clone(&second), "b");
    let late = chat.ask("Go").timeout(Duration::from_secs(1)).await.unwrap_err();
    assert_eq!((late.category(), second.requests()), (ErrorCategory::Timeout, 0));
}

#[tokio::test(start_paused = true)]
async fn a_model_without_a_first_token_in_time_is_given_up_for_another() {
    let (engine, rendered) = rendered().await;
    let slow = Scripted::new([Act::StreamThenHang(vec![])]);
    let fast = Scripted::new([Act::Stream(vec![text("Hi"), end(Default::default())])]);
    let chat = Chat::new(slow, "slow").with_fallback(fast, "fast");
    let mut seen = String::new();
    let asked = rendered.execute_with(&chat).first_token_timeout(Duration::from_secs(3));
    asked.on_text(|text| seen.push_str(text)).await.unwrap();
    assert_eq!(seen, "Hi");
    let stored = executions(&engine).await;
    assert_eq!((stored[0].status, stored[0].latency_ms), (Status::Timeout, Some(3_000)));
    let sentence = stored[0].payload.as_ref().unwrap().error_message.as_deref();
    assert_eq!(sentence, Some("no token within 3s"));
}

#[tokio::test(start_paused = true)]
async fn after_its_first_token_a_stream_may_take_its_time() {
    let (_engine, rendered) = rendered().await;
    let client = Scripted::new([Act::StreamThenHang(vec![text("Hi")])]);
    let call = rendered.execute_with(&client).first_token_timeout(Duration::from_secs(1));
    let mut stream = call.timeout(Duration::from_secs(60)).stream().await.unwrap();
    let start = Instant::now();
    let late = stream.reply().await.unwrap_err();
    assert_eq!(late.message(), "no whole answer within 60s");
    assert_eq!(start.elapsed(), Duration::from_secs(60));
}
