//! Kill -9 of a process that writes durably, for each store: whatever it acknowledged is there
//! afterwards, nothing is half there, and the sums are those of a recount. The parent starts this
//! same program as the child, which prints the ids of every call that it was told was committed,
//! and kills it at a random moment. No harness: the program is both.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and speak")]

mod stores;

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use prompt_engine::{ExecutionId, Recorded, Status, UsageId, params};
use stores::{Echo, Place, assert_sound, close, engine, rounds};

const WRITERS: usize = 8;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match std::env::var("PROMPT_ENGINE_KILL_CHILD") {
        Ok(url) => runtime.block_on(child(&url)),
        Err(_) => {
            let places = Place::all();
            for place in &places {
                runtime.block_on(parent(place));
            }
            let passed = places.len();
            println!(
                "test result: ok. {passed} passed; 0 failed; 0 ignored; 0 measured; 0 filtered out"
            );
        }
    }
}

/// Makes calls from several tasks until it is killed.
async fn child(url: &str) {
    let engine = engine(url).await;
    let writers = (0..WRITERS).map(|_| {
        let engine = engine.clone();
        tokio::spawn(async move {
            loop {
                let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
                let done = rendered.execute_with(&Echo).await.unwrap();
                let committed = [rendered.recorded(), &done.recorded];
                if committed.iter().all(|recorded| matches!(recorded, Recorded::Committed)) {
                    // One write a line, so that a line is there whole or not at all.
                    let line = format!("{} {}\n", rendered.usage_id(), done.execution.id);
                    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                }
            }
        })
    });
    futures::future::join_all(writers).await;
}

async fn parent(place: &Place) {
    place.make().await;
    let rounds = rounds(12, 200);
    let mut acknowledged: HashSet<(UsageId, ExecutionId)> = HashSet::new();
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env("PROMPT_ENGINE_KILL_CHILD", &place.url)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // A different number of commits each round, so that the blow falls anywhere in a batch.
        let wait_for = 1 + round * 37 % 101;
        let seen = lines.by_ref().take(wait_for).map(|line| line.unwrap()).collect::<Vec<_>>();
        child.kill().unwrap();
        child.wait().unwrap();
        let rest = lines.map(|line| line.unwrap());
        let ids: Vec<(UsageId, ExecutionId)> = seen.into_iter().chain(rest).map(ids).collect();
        assert!(ids.len() >= wait_for, "{}: the child of round {round} ended", place.name);

        let engine = place.engine().await;
        for (usage, execution) in &ids {
            let found = engine.store().usage(*usage).await.unwrap();
            let payload = found.and_then(|usage| usage.payload);
            assert_eq!(payload.as_ref().map(|p| &*p.content), Some("Hello A"), "{usage}");
            let found = engine.store().execution(*execution).await.unwrap();
            let status = found.as_ref().map(|execution| execution.status);
            assert_eq!(status, Some(Status::Success), "{execution}");
            let payload = found.and_then(|execution| execution.payload).unwrap();
            assert_eq!(payload.response_content, Some("Hello A".repeat(50)), "{execution}");
        }
        acknowledged.extend(ids);
        close(engine).await;
    }
    let engine = place.engine().await;
    let (usages, executions) = assert_sound(&**engine.store()).await;
    println!(
        "{}: kill -9, {rounds} rounds, {} calls acknowledged, {} usages and {} executions stored",
        place.name,
        acknowledged.len(),
        usages.len(),
        executions.len()
    );
    let stored: HashSet<(UsageId, ExecutionId)> =
        executions.iter().map(|execution| (execution.usage_id, execution.id)).collect();
    assert!(acknowledged.is_subset(&stored), "{}: an acknowledged call is gone", place.name);
}

fn ids(line: String) -> (UsageId, ExecutionId) {
    let (usage, execution) = line.split_once(' ').unwrap();
    (usage.parse().unwrap(), execution.parse().unwrap())
}
