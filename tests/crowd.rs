//! Eight processes write into one SQLite file at once: nobody is told that it is locked, and all
//! that they wrote is there. The parent starts this same program as the children. No harness: the
//! program is both.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and speak")]

mod stores;

use std::process::{Command, Stdio};

use prompt_engine::params;
use stores::{Echo, Place, assert_sound, close, engine};

const PROCESSES: usize = 8;
/// Of each process; a call is two records, a usage and an execution.
const CALLS: usize = 1_000;
/// Calls under way in each process.
const TASKS: usize = 10;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match std::env::var("PROMPT_ENGINE_CROWD_CHILD") {
        Ok(url) => runtime.block_on(child(&url)),
        Err(_) => runtime.block_on(parent()),
    }
}

/// Makes its calls, and fails if any record was refused or is not saved in the end.
async fn child(url: &str) {
    let engine = engine(url).await;
    let tasks = (0..TASKS).map(|_| {
        let engine = engine.clone();
        tokio::spawn(async move {
            for _ in 0..CALLS / TASKS {
                let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
                let done = rendered.execute_with(&Echo).await.unwrap();
                rendered.recorded().check().unwrap();
                done.recorded.check().unwrap();
            }
        })
    });
    for task in futures::future::join_all(tasks).await {
        task.unwrap();
    }
    close(engine).await;
}

async fn parent() {
    let place = Place::sqlite();
    place.make().await;
    let spawn = |_| {
        Command::new(std::env::current_exe().unwrap())
            .env("PROMPT_ENGINE_CROWD_CHILD", &place.url)
            .stdin(Stdio::null())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..PROCESSES).map(spawn).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success(), "a process was refused");
    }
    let engine = place.engine().await;
    let (usages, executions) = assert_sound(&**engine.store()).await;
    let all = PROCESSES * CALLS;
    assert_eq!((usages.len(), executions.len()), (all, all));
    println!("{PROCESSES} processes, {} records each, all there", 2 * CALLS);
    println!("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
}
