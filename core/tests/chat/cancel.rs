//! Questions that are given up, by dropping them or from another task, in each phase.

use std::iter::repeat_n;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt, poll};
use prompt_engine_core::testkit::{Act, Scripted, reply};
use prompt_engine_core::{Chat, ErrorCategory, RetryPolicy, Status, tool_fn};

use crate::support::{Log, calls, end, executions, fail, line, rendered, say, spec, text};

/// Where a question hangs when it is given up.
#[derive(Debug, Clone, Copy)]
enum Phase {
    BeforeTheAnswer,
    InAStream,
    InATool,
    InAWait,
}

impl Phase {
    const ALL: [Self; 4] = [Self::BeforeTheAnswer, Self::InAStream, Self::InATool, Self::InAWait];

    fn script(self) -> Vec<Act> {
        match self {
            Self::BeforeTheAnswer => vec![Act::Hang],
            Self::InAStream => vec![Act::StreamThenHang(vec![text("Hel")])],
            Self::InATool => vec![Act::Reply(calls("t", ""))],
            Self::InAWait => vec![fail(ErrorCategory::Server)],
        }
    }

    /// How the one call of it ends.
    fn end(self) -> (Status, &'static str) {
        match self {
            Self::BeforeTheAnswer | Self::InAStream => {
                (Status::Cancelled, "1.1 openai/m cancelled")
            }
            Self::InATool => (Status::Success, "1.1 openai/m ok"),
            Self::InAWait => (Status::Error, "1.1 openai/m server"),
        }
    }
}

fn hanging_chat(phase: Phase, log: &Log<String>) -> (Chat, Arc<Scripted>) {
    let client = Arc::new(Scripted::new(phase.script()));
    let log = log.clone();
    let chat = Chat::new(Arc::clone(&client), "m")
        .with_tool(tool_fn(spec("t"), async |_| std::future::pending().await))
        .with_retries(RetryPolicy::default().with_base_delay(Duration::from_secs(5)))
        .on_attempt(move |attempt| log.add(line(attempt)));
    (chat, client)
}

#[tokio::test(start_paused = true)]
async fn a_question_that_is_dropped_is_told_of_and_recorded_in_every_phase() {
    for phase in Phase::ALL {
        let (engine, rendered) = rendered().await;
        let log = Log::default();
        let (chat, client) = hanging_chat(phase, &log);
        let mut asked = rendered.execute_with(&chat);
        if let Phase::InAStream = phase {
            asked = asked.on_text(|_| {});
        }
        let mut run = asked.into_future();
        assert!(poll!(&mut run).is_pending(), "{phase:?}");
        drop(run);
        let stored = executions(&engine).await;
        let (status, told) = phase.end();
        assert_eq!((stored.len(), stored[0].status), (1, status), "{phase:?}");
        assert_eq!((log.take(), client.requests()), (vec![told.to_owned()], 1), "{phase:?}");
        if let Phase::InAStream = phase {
            let payload = stored[0].payload.as_ref().unwrap();
            assert_eq!(payload.response_content.as_deref(), Some("Hel"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_that_is_cancelled_fails_as_cancelled_in_every_phase() {
    for phase in Phase::ALL {
        let (engine, rendered) = rendered().await;
        let log = Log::default();
        let (chat, client) = hanging_chat(phase, &log);
        let canceller = chat.canceller();
        let mut asked = rendered.execute_with(&chat);
        if let Phase::InAStream = phase {
            asked = asked.on_text(|_| {});
        }
        let cancel = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            canceller.cancel();
        };
        let (end, ()) = futures::join!(asked.into_future(), cancel);
        let failed = end.unwrap_err();
        assert_eq!(failed.category(), ErrorCategory::Cancelled, "{phase:?}");
        let stored = executions(&engine).await;
        let (status, told) = phase.end();
        assert_eq!((stored.len(), stored[0].status), (1, status), "{phase:?}");
        assert_eq!(failed.calls()[0].execution, stored[0], "{phase:?}");
        assert_eq!((log.take(), client.requests()), (vec![told.to_owned()], 1), "{phase:?}");
        if status == Status::Cancelled {
            assert_eq!(stored[0].latency_ms, Some(1_000));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_chat_that_was_cancelled_has_no_half_turn_and_can_be_asked_again() {
    for phase in Phase::ALL {
        let (mut chat, _client) = hanging_chat(phase, &Log::default());
        let asked = chat.ask("Go").on_text(|_| {});
        let asked = if let Phase::InAStream = phase {
            asked
        } else {
            drop(asked);
            chat.ask("Go")
        };
        assert!(asked.into_future().now_or_never().is_none(), "{phase:?}");
        assert!(chat.messages().is_empty(), "{phase:?}");
    }
    let client = Scripted::new([Act::Hang, say("Hello")]);
    let mut chat = Chat::new(client, "m");
    let canceller = chat.canceller();
    let asked = chat.ask("Go");
    canceller.cancel();
    assert_eq!(asked.await.unwrap_err().category(), ErrorCategory::Cancelled);
    assert_eq!(chat.ask("Go").await.unwrap().text(), "Hello", "later questions are not touched");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_tool_leaves_the_turns_before_it() {
    let client = Scripted::new([Act::Reply(calls("quick", "")), Act::Reply(calls("slow", ""))]);
    let mut chat = Chat::new(client, "m")
        .with_tool(tool_fn(spec("quick"), async |_| Ok("1".to_owned())))
        .with_tool(tool_fn(spec("slow"), async |_| std::future::pending().await));
    let late = chat.ask("Go").timeout(Duration::from_secs(2)).await.unwrap_err();
    assert_eq!(late.category(), ErrorCategory::Timeout);
    assert_eq!(late.messages(), &chat.messages()[1..]);
    assert_eq!(chat.messages().len(), 3, "the question and the turn of the quick tool");
}

#[tokio::test]
async fn a_stream_that_is_dropped_cancels_what_is_under_way() {
    let (engine, rendered) = rendered().await;
    let log = Log::default();
    let (chat, _client) = hanging_chat(Phase::InAStream, &log);
    let mut stream = rendered.execute_with(&chat).stream();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    assert_eq!(executions(&engine).await[0].status, Status::Cancelled);
    assert_eq!(log.take(), ["1.1 openai/m cancelled"]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_never_behind_is_ended_by_its_limits_too() {
    let (engine, rendered) = rendered().await;
    // More than a task may poll in one go: what waits would be told to come back.
    let fast = || Act::Stream(repeat_n(text("a"), 2_000).chain([end(reply("no"))]).collect());
    let chat = Chat::new(Scripted::new([fast(), fast()]), "m");
    let canceller = chat.canceller();
    let mut seen = 0;
    let asked = rendered.execute_with(&chat).on_text(|_| {
        seen += 1;
        if seen == 1_000 {
            canceller.cancel();
        }
    });
    assert_eq!(asked.await.unwrap_err().category(), ErrorCategory::Cancelled);
    assert_eq!(seen, 1_000);

    let asked = rendered.execute_with(&chat).timeout(Duration::ZERO).on_text(|_| {});
    assert_eq!(asked.await.unwrap_err().category(), ErrorCategory::Timeout);
    let stored = executions(&engine).await;
    assert_eq!((stored[0].status, stored[1].status), (Status::Cancelled, Status::Timeout));
}

#[tokio::test]
async fn the_sentence_of_a_cancelled_call_is_one() {
    let (engine, rendered) = rendered().await;
    let log = Log::default();
    let lines = log.clone();
    let chat = Chat::new(Scripted::new([Act::Hang]), "m")
        .on_attempt(move |attempt| lines.add(attempt.outcome.unwrap_err().to_string()));
    assert!(rendered.execute_with(&chat).into_future().now_or_never().is_none());
    let stored = executions(&engine).await;
    let recorded = stored[0].payload.as_ref().unwrap().error_message.as_deref();
    assert_eq!(recorded, Some("the call was cancelled"));
    assert_eq!(log.take(), ["the call was cancelled"]);
}

#[tokio::test]
async fn a_listener_that_panics_loses_no_record_of_a_dropped_call() {
    let (engine, rendered) = rendered().await;
    let chat = Chat::new(Scripted::new([Act::Hang]), "m").on_attempt(|_| panic!("in a listener"));
    assert!(rendered.execute_with(&chat).into_future().now_or_never().is_none());
    assert_eq!(executions(&engine).await[0].status, Status::Cancelled);
}
