//! Answers as they are made.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use prompt_engine_core::testkit::{Act, Scripted, reply};
use prompt_engine_core::{
    Attempt, Chat, ChatEvent, ChatReply, ChatRequest, ChatStream, Cost, Engine, ErrorCategory,
    LlmClient, LlmError, Message, Status, StreamEvent, TokenCounts, UnpricedReason, tool_fn,
};
use serde_json::{Value, json};

use crate::support::{Log, calls, end, error, executions, rendered, rendered_by, say, spec, text};

fn tool_chat(acts: impl IntoIterator<Item = Act>) -> Chat {
    Chat::new(Scripted::new(acts), "gpt-4o")
        .with_tool(tool_fn(spec("t"), async |_| Ok("1".to_owned())))
}

/// An event in one word.
fn word(event: ChatEvent) -> String {
    match event {
        ChatEvent::Text(text) => text,
        ChatEvent::ToolCall(call) => format!("call {}", call.name),
        ChatEvent::ToolResult(message) => format!("result {}", message.content),
        ChatEvent::Answer(answer) => format!("answer {}", answer.text()),
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn text_calls_and_results_come_as_they_are_made_and_the_answer_last() {
    let (engine, rendered) = rendered().await;
    let script = || {
        [
            Act::Stream(vec![Ok(StreamEvent::Token), text("Let me see"), end(calls("t", ""))]),
            Act::Stream(vec![text("It is "), text("1"), end(reply("It is 1"))]),
        ]
    };
    let lines = ["Let me see", "call t", "result 1", "It is ", "1", "answer It is 1"];
    let chat = tool_chat(script());
    let stream = rendered.execute_with(&chat).stream();
    drop(chat); // The stream stands on its own.
    let seen: Vec<_> = stream.map(|event| word(event.unwrap())).collect().await;
    assert_eq!(seen, lines);
    let stored = executions(&engine).await;
    assert!(stored.iter().all(|call| call.time_to_first_token_ms.is_some()));
    assert_eq!(stored.len(), 2);

    let mut chat = tool_chat(script());
    let mut stream = chat.ask("Go").stream();
    let mut seen = Vec::new();
    while let Some(event) = stream.next().await {
        seen.push(word(event.unwrap()));
    }
    assert!(stream.next().await.is_none());
    drop(stream);
    assert_eq!(seen, lines);
    assert_eq!(chat.messages().len(), 4);
}

#[tokio::test]
async fn a_callback_gets_each_piece_of_text() {
    let mut chat = Chat::new(
        Scripted::new([Act::Stream(vec![text("Hel"), text("lo"), end(reply("Hello"))])]),
        "m",
    );
    let mut pieces = Vec::new();
    let answer = chat.ask("Go").on_text(|text| pieces.push(text.to_owned())).await.unwrap();
    assert_eq!((pieces.join("|").as_str(), answer.text()), ("Hel|lo", "Hello"));
    assert_eq!(chat.messages(), [Message::user("Go"), Message::assistant("Hello")]);
}

#[tokio::test]
async fn nothing_is_read_ahead_of_whoever_reads_the_stream() {
    let client =
        Arc::new(Scripted::new([Act::Stream(vec![text("a"), end(calls("t", ""))]), say("never")]));
    let log = Log::default();
    let lines = log.clone();
    let mut chat = Chat::new(Arc::clone(&client), "m")
        .before_tool_call(move |call| lines.add(call.name.clone()));
    let mut stream = chat.ask("Go").stream();
    assert_eq!(client.requests(), 0);
    stream.next().await.unwrap().unwrap();
    assert_eq!(client.requests(), 1);
    assert!(log.take().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_error_inside_a_stream_is_its_last_item_and_is_recorded_with_what_was_seen() {
    let (engine, rendered) = rendered().await;
    for (events, category) in [
        (vec![text("Hel"), Err(error(ErrorCategory::Overloaded))], ErrorCategory::Overloaded),
        (vec![text("Hel")], ErrorCategory::Network),
        (vec![Err(error(ErrorCategory::Server))], ErrorCategory::Server),
        (vec![], ErrorCategory::Network),
    ] {
        let seen = (events.len() > 1 || category == ErrorCategory::Network).then_some("Hel");
        let seen = seen.filter(|_| !events.is_empty());
        let chat = Chat::new(Scripted::new([Act::Stream(events)]), "m");
        let mut items: Vec<_> = rendered.execute_with(&chat).stream().collect().await;
        let failed = items.pop().unwrap().unwrap_err();
        assert_eq!(failed.category(), category);
        assert!(items.iter().all(Result::is_ok));
        let call = &failed.calls()[0].execution;
        assert_eq!(call.payload.as_ref().unwrap().response_content.as_deref(), seen);
        assert_eq!(call.cost, Some(Cost::unpriced(UnpricedReason::NoUsage)));
        assert_eq!(executions(&engine).await.last(), Some(call));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_provider_told_before_a_call_broke_off_is_told_and_recorded() {
    let (engine, rendered) = rendered_by(Engine::builder()).await;
    let used = TokenCounts { input: 9, output: 2, ..TokenCounts::default() };
    let told = || {
        let (http_status, request_id) = (Some(200), Some("req_1".to_owned()));
        let head = StreamEvent::Head { http_status, request_id };
        vec![Ok(head), text("Hel"), Ok(StreamEvent::Usage(used))]
    };
    let broken = |error| Act::Stream(told().into_iter().chain([Err(error)]).collect());
    let named = error(ErrorCategory::Server)
        .with_http_status(500)
        .with_tokens(TokenCounts { input: 10, ..used })
        .with_metadata(json!({"request_id": "req_2"}));
    for (act, status, request_id, input, so_far) in [
        (broken(error(ErrorCategory::Server)), 200, "req_1", None, json!(9)),
        (broken(named), 500, "req_2", Some(10), Value::Null),
        (Act::StreamThenHang(told()), 200, "req_1", None, json!(9)),
    ] {
        let attempts = Log::default();
        let log = attempts.clone();
        let chat = Chat::new(Scripted::new([act]), "gpt-4o").on_attempt(move |attempt| {
            let error = attempt.outcome.unwrap_err();
            log.add((error.http_status(), error.metadata().clone()));
        });
        let asked = rendered.execute_with(&chat).on_text(|_| {});
        let _ended = tokio::time::timeout(Duration::from_secs(1), asked.into_future()).await;

        let call = executions(&engine).await.pop().unwrap();
        let metadata = &call.payload.as_ref().unwrap().response_metadata;
        assert_eq!(call.http_status, Some(status));
        assert_eq!(
            (&metadata["request_id"], call.tokens.map(|of| of.input)),
            (&json!(request_id), input)
        );
        let found = metadata.get("usage_so_far").map_or(Value::Null, |used| used["input"].clone());
        assert_eq!(
            (found, call.cost.and_then(|cost| cost.usd()).is_some()),
            (so_far, input.is_some())
        );
        assert_eq!(attempts.take(), [(Some(status), Value::Object(metadata.clone()))]);
    }
}

#[tokio::test]
async fn a_stream_without_usage_has_no_tokens_and_no_cost_and_one_with_it_is_priced() {
    let (engine, rendered) = rendered_by(Engine::builder()).await;
    let bare = ChatReply { tokens: None, ..reply("Hi") };
    let chat = tool_chat([
        Act::Stream(vec![text("Hi"), end(bare)]),
        Act::Stream(vec![text("Hi"), end(reply("Hi"))]),
    ]);
    for _ in 0..2 {
        rendered.execute_with(&chat).on_text(|_| {}).await.unwrap();
    }
    let [bare, counted] = executions(&engine).await.try_into().unwrap();
    assert_eq!((bare.status, bare.tokens), (Status::Success, None));
    assert_eq!(bare.cost, Some(Cost::unpriced(UnpricedReason::NoUsage)));
    assert_eq!(counted.tokens.unwrap().input, 1_000);
    assert_eq!(counted.cost.unwrap().usd(), Some("0.003".parse().unwrap()));
}

/// Says nothing for two seconds, then something, and ends a second later.
#[derive(Debug)]
struct Slow;

#[async_trait]
impl LlmClient for Slow {
    fn provider(&self) -> &str {
        "slow"
    }

    async fn chat(&self, _: &ChatRequest) -> Result<ChatReply, LlmError> {
        Err(error(ErrorCategory::Other))
    }

    async fn stream(&self, _: &ChatRequest) -> Result<ChatStream, LlmError> {
        let after = |secs, event| async move {
            tokio::time::sleep(Duration::from_secs(secs)).await;
            event
        };
        let started = Ok(StreamEvent::Started { model: None, id: None });
        let events = [after(1, started), after(1, text("Hi")), after(1, end(reply("Hi")))];
        Ok(stream::iter(events).then(|event| event).boxed())
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_token_is_timed_from_the_request_and_unknown_where_there_is_none() {
    let (engine, rendered) = rendered().await;
    let log = Log::default();
    let lines = log.clone();
    let told =
        move |attempt: &Attempt<'_>| lines.add((attempt.time_to_first_token, attempt.latency));
    let chat = Chat::new(Slow, "m").on_attempt(told.clone());
    rendered.execute_with(&chat).on_text(|_| {}).await.unwrap();
    let cut = rendered.execute_with(&chat).timeout(Duration::from_millis(2_500)).on_text(|_| {});
    cut.await.unwrap_err();
    let without = [Act::Stream(vec![end(calls("t", ""))]), Act::StreamThenHang(vec![])];
    let chat = tool_chat(without).on_attempt(told);
    let timed = rendered.execute_with(&chat).timeout(Duration::from_secs(1)).on_text(|_| {});
    timed.await.unwrap_err();

    let times = [(Some(2_000), 3_000), (Some(2_000), 2_500), (None, 0), (None, 1_000)];
    let stored = executions(&engine).await;
    let recorded =
        stored.iter().map(|call| (call.time_to_first_token_ms, call.latency_ms.unwrap()));
    assert_eq!(recorded.collect::<Vec<_>>(), times);
    let heard =
        times.map(|(first, end)| (first.map(Duration::from_millis), Duration::from_millis(end)));
    assert_eq!(log.take(), heard);
}
