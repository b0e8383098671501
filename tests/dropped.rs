//! Many streams open at once, each read half and then given up with its task: every call is stored
//! once, as cancelled, with the text that was seen of it, and memory does not grow from round to
//! round. 10,000 at once under `cargo xtask torture`. No harness: it prints what it measures.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and speak")]

mod stores;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures::StreamExt;
use prompt_engine::{
    ChatReply, ChatRequest, ChatStream, ErrorCategory, ExecutionStream, LlmClient, LlmError,
    PromptEngine, RecorderCounters, Status, StreamEvent, params,
};
use stores::{Place, assert_sound, rounds};
use tokio::task::JoinSet;

/// Streams that are opened between two looks at whether the store keeps up: what is tested is many
/// open calls, not a queue that overflows.
const BURST: usize = 500;
/// Pieces of text that a stream has, of which half are read.
const PIECES: usize = 20;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(run(rounds(500, 10_000), rounds(3, 6)));
    println!("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
}

/// A piece of the answer to who is greeted.
fn piece(name: &str, number: usize) -> String {
    format!("{number} of {PIECES}: a piece of the answer to {name}, which goes on. ")
}

/// Streams pieces that follow from what it is asked, and never comes to an end.
#[derive(Debug)]
struct Endless;

#[async_trait::async_trait]
impl LlmClient for Endless {
    fn provider(&self) -> &str {
        "openai"
    }

    async fn chat(&self, _: &ChatRequest) -> Result<ChatReply, LlmError> {
        unreachable!("all is streamed")
    }

    async fn stream(&self, request: &ChatRequest) -> Result<ChatStream, LlmError> {
        let name = request.messages[0].content.replace("Hello ", "");
        let started = StreamEvent::Started { model: Some("gpt-4o".to_owned()), id: None };
        let pieces = (0..PIECES).map(move |number| StreamEvent::Text(piece(&name, number)));
        let events = futures::stream::iter([started].into_iter().chain(pieces).map(Ok));
        Ok(events.chain(futures::stream::pending()).boxed())
    }
}

async fn run(streams: usize, rounds: usize) {
    let place = Place::sqlite();
    place.make().await;
    let settings = PromptEngine::builder();
    let engine = PromptEngine::connect_with(&place.url, settings).await.unwrap();
    for round in 0..rounds {
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        let (opened, mut waiting) = tokio::sync::mpsc::unbounded_channel();
        for first in (0..streams).step_by(BURST) {
            let burst = first..streams.min(first + BURST);
            for stream in burst.clone() {
                let (engine, opened) = (engine.clone(), opened.clone());
                tasks.spawn(async move {
                    let _held = half(&engine, round * streams + stream).await;
                    opened.send(()).unwrap();
                    std::future::pending::<()>().await;
                });
            }
            for _ in burst {
                waiting.recv().await.unwrap();
            }
            engine.flush().await;
        }
        let (open, open_memory) = (start.elapsed(), memory());
        tasks.shutdown().await;
        engine.flush().await;
        let RecorderCounters { queued, committed: _, dropped, refused, queued_bytes } =
            engine.recorder().counters();
        assert_eq!((queued, dropped, refused, queued_bytes), (0, 0, 0, 0));
        println!(
            "round {}: {streams} streams open after {open:?}, all stored after {:?}; resident \
             memory {open_memory} kB with all open, {} kB after",
            round + 1,
            start.elapsed(),
            memory()
        );
    }
    verify(&engine, streams * rounds).await;
    assert_eq!(engine.shutdown(Duration::from_secs(60)).await, 0, "a record was not saved");
}

/// Opens the stream of a number and reads half of it.
async fn half(engine: &PromptEngine, number: usize) -> ExecutionStream {
    let rendered = engine.render("greet", params! { "name" => number.to_string() }).await.unwrap();
    rendered.recorded().check().unwrap();
    let mut stream = rendered.execute_with(&Endless).stream().await.unwrap();
    // What begins it is an event, too.
    for _ in 0..=PIECES / 2 {
        stream.next().await.unwrap().unwrap();
    }
    stream
}

/// Every call is there once, cancelled, with what was seen, under a usage of its own.
async fn verify(engine: &PromptEngine, all: usize) {
    let (usages, executions) = assert_sound(&**engine.store()).await;
    assert_eq!((usages.len(), executions.len()), (all, all));
    let mut seen = HashSet::new();
    let mut of_usages = HashSet::new();
    for execution in executions {
        assert_eq!(execution.status, Status::Cancelled, "{}", execution.id);
        assert_eq!(execution.error_category, Some(ErrorCategory::Cancelled));
        assert!(execution.time_to_first_token_ms.is_some());
        assert!(of_usages.insert(execution.usage_id));
        let payload = execution.payload.unwrap();
        let name = payload.messages_sent[0].content.replace("Hello ", "");
        let expected: String = (0..PIECES / 2).map(|number| piece(&name, number)).collect();
        assert_eq!(payload.response_content, Some(expected));
        assert!(seen.insert(name.parse::<usize>().unwrap()));
    }
    assert!((0..all).all(|number| seen.contains(&number)));
    assert!(usages.iter().all(|usage| of_usages.contains(&usage.id)));
    println!("{all} calls, each stored once as cancelled, with the half that was read");
}

/// The resident memory of this process in kB, as Linux counts it; 0 elsewhere.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or(0)
}
