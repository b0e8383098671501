//! Kill -9 of a process that writes durably: whatever it acknowledged is in the file afterwards.
//! The parent starts this same program as the child, which prints an id for every commit that it
//! was told of, kills it at a random moment and looks the ids up. No harness: the program is both.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and speak")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use prompt_engine::{
    AggregateQuery, NewPrompt, PromptEngine, Recorded, UsageId, VersionDraft, params,
};

const ROUNDS: usize = 50;
const WRITERS: usize = 8;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match std::env::var("PROMPT_ENGINE_KILL_CHILD") {
        Ok(path) => runtime.block_on(child(Path::new(&path))),
        Err(_) => runtime.block_on(parent()),
    }
}

async fn open(path: &Path) -> PromptEngine {
    let url = format!("sqlite://{}", path.display());
    PromptEngine::connect_with(&url, PromptEngine::builder().durable()).await.unwrap()
}

/// Renders from several tasks until it is killed.
async fn child(path: &Path) {
    let engine = open(path).await;
    let writers = (0..WRITERS).map(|_| {
        let engine = engine.clone();
        tokio::spawn(async move {
            loop {
                let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
                if matches!(rendered.recorded(), Recorded::Committed) {
                    // One write a line, so that a line is there whole or not at all.
                    let line = format!("{}\n", rendered.usage_id());
                    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                }
            }
        })
    });
    futures::future::join_all(writers).await;
}

async fn parent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("killed.db");
    let engine = open(&path).await;
    let draft = VersionDraft { content: "Hello {{name}}".to_owned(), ..VersionDraft::default() };
    engine.prompts().create(NewPrompt::new("greet".parse().unwrap(), draft)).await.unwrap();
    drop(engine);

    let mut acknowledged: Vec<UsageId> = Vec::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env("PROMPT_ENGINE_KILL_CHILD", &path)
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
        let ids: Vec<UsageId> = seen.into_iter().chain(rest).map(|l| l.parse().unwrap()).collect();
        assert!(ids.len() >= wait_for, "the child of round {round} ended by itself");

        let engine = open(&path).await;
        for id in &ids {
            let found = engine.store().usage(*id).await.unwrap();
            let payload = found.and_then(|usage| usage.payload);
            assert_eq!(payload.map(|p| p.content).as_deref(), Some("Hello A"), "{id}");
        }
        acknowledged.extend(ids);
    }
    let engine = open(&path).await;
    let all = engine.store().aggregate(&AggregateQuery::default()).await.unwrap();
    let stored = all[0].measures.uses.unwrap();
    assert!(stored >= acknowledged.len() as u64);
    println!("kill -9: {ROUNDS} rounds, {} acknowledged, {stored} stored", acknowledged.len());
    println!("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
}
