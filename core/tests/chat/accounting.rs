//! The property that all accounting stands on: a request that a client saw is an attempt that was
//! told of and an execution that is stored, whatever happens.

use std::sync::Arc;
use std::time::Duration;

use prompt_engine_core::testkit::{Act, Scripted, reply};
use prompt_engine_core::{Chat, ErrorCategory, RetryPolicy, Status, tool_fn};
use proptest::prelude::*;

use crate::support::{Log, calls, end, error, executions, rendered, spec, text};

/// What a model does with a request, asked either way.
#[derive(Debug, Clone)]
enum Deed {
    Say,
    CallTools,
    Fail(ErrorCategory),
    /// In a stream, after its first token.
    Break(ErrorCategory),
    Hang,
}

fn deed() -> impl Strategy<Value = Deed> {
    let category = || prop::sample::select(ErrorCategory::ALL);
    prop_oneof![
        2 => Just(Deed::Say),
        4 => Just(Deed::CallTools),
        3 => category().prop_map(Deed::Fail),
        1 => category().prop_map(Deed::Break),
        1 => Just(Deed::Hang),
    ]
}

fn act(deed: &Deed, streamed: bool) -> Act {
    match (deed, streamed) {
        (Deed::Say, false) => Act::Reply(reply("Hi")),
        (Deed::Say, true) => Act::Stream(vec![text("Hi"), end(reply("Hi"))]),
        (Deed::CallTools, false) => Act::Reply(calls("t", "{}")),
        (Deed::CallTools, true) => Act::Stream(vec![end(calls("t", "{}"))]),
        (Deed::Fail(category), _) | (Deed::Break(category), false) => Act::Fail(error(*category)),
        (Deed::Break(category), true) => Act::Stream(vec![text("H"), Err(error(*category))]),
        (Deed::Hang, false) => Act::Hang,
        (Deed::Hang, true) => Act::StreamThenHang(vec![text("H")]),
    }
}

/// How a question is given up.
#[derive(Debug, Clone, Copy)]
enum GiveUp {
    Timeout(u64),
    Cancel(u64),
    Drop(u64),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn each_request_is_one_attempt_and_one_execution(
        deeds in prop::collection::vec(deed(), 1..12),
        others in prop::collection::vec(deed(), 0..4),
        streamed: bool,
        attempts in 1..4u32,
        give_up in prop_oneof![
            (1..100u64).prop_map(GiveUp::Timeout),
            (1..100u64).prop_map(GiveUp::Cancel),
            (1..100u64).prop_map(GiveUp::Drop),
        ],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (engine, rendered) = rendered().await;
            // A script ends with a call that hangs, so that there is always an act.
            let script = |deeds: &[Deed]| {
                let hang = [act(&Deed::Hang, streamed)];
                let acts = deeds.iter().map(|deed| act(deed, streamed)).chain(hang);
                Arc::new(Scripted::new(acts))
            };
            let (client, other) = (script(&deeds), script(&others));
            let told = Log::default();
            let log = told.clone();
            let chat = Chat::new(Arc::clone(&client), "a")
                .with_fallback(Arc::clone(&other), "b")
                .with_retries(RetryPolicy::default().with_max_attempts(attempts))
                .with_tool(tool_fn(spec("t"), async |_| {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    Ok(String::new())
                }))
                .on_attempt(move |attempt| {
                    let category = attempt.outcome.err().map(|error| error.category());
                    log.add((attempt.id, attempt.model.to_owned(), category));
                });
            let mut asked = rendered.execute_with(&chat);
            if streamed {
                asked = asked.on_text(|_| {});
            }
            let after = |secs| tokio::time::sleep(Duration::from_secs(secs));
            let end = match give_up {
                GiveUp::Timeout(secs) => Some(asked.timeout(Duration::from_secs(secs)).await),
                GiveUp::Cancel(secs) => {
                    let canceller = chat.canceller();
                    let cancel = async { after(secs).await; canceller.cancel() };
                    Some(futures::join!(asked.into_future(), cancel).0)
                }
                GiveUp::Drop(secs) => {
                    tokio::select! { end = asked.into_future() => Some(end), () = after(secs) => None }
                }
            };

            let stored = executions(&engine).await;
            let seen = client.requests() + other.requests();
            prop_assert_eq!(stored.len() as u64, seen);
            let told = told.take();
            prop_assert_eq!(told.len() as u64, seen);
            for (id, model, category) in &told {
                let execution = stored.iter().find(|execution| execution.id == *id).unwrap();
                prop_assert_eq!(execution.model.as_str(), model);
                prop_assert_eq!(execution.error_category, *category);
                prop_assert!(execution.status != Status::Pending);
            }
            if let Some(end) = end {
                let calls = end.as_ref().map_or_else(|failed| failed.calls(), |done| &done.calls);
                let returned: Vec<_> = calls.iter().map(|call| call.execution.id).collect();
                prop_assert_eq!(returned, told.iter().map(|told| told.0).collect::<Vec<_>>());
            }
            Ok(())
        })?;
    }
}
