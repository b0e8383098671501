//! PostgreSQL is stopped at once and started again under 200 calls a second, while changes are folded:
//! renders and model calls go on as if nothing had happened, and afterwards every record is stored
//! once and counted once. No harness: it is the only one that may stop the server that other tests
//! use.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and speak")]

mod stores;

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prompt_engine::{ExecutionId, PromptEngine, UsageId, params};
use stores::{Echo, Place, assert_sound, close, rounds};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

/// Calls a second.
const RATE: u64 = 200;
/// Changes that were folded.
static FOLDED: AtomicU64 = AtomicU64::new(0);

fn main() {
    let Some(server) = Server::of_the_tests() else {
        assert!(std::env::var_os("CI").is_none(), "the server of the tests is not one to stop");
        println!("skipped: TEST_POSTGRES_DATA names no server that may be stopped");
        return;
    };
    tokio::runtime::Runtime::new().unwrap().block_on(restart(&server));
    println!("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
}

/// The throwaway server of `cargo xtask test`.
struct Server {
    pg_ctl: PathBuf,
    data: PathBuf,
    log: PathBuf,
}

impl Server {
    fn of_the_tests() -> Option<Self> {
        let of = |name| std::env::var_os(name).map(PathBuf::from);
        let pg_ctl = of("TEST_POSTGRES_BIN")?.join("pg_ctl");
        Some(Self { pg_ctl, data: of("TEST_POSTGRES_DATA")?, log: of("TEST_POSTGRES_LOG")? })
    }

    /// `pg_ctl`, as the one who owns the data.
    fn ctl(&self) -> Command {
        let mut command = Command::new(&self.pg_ctl);
        command.arg("-D").arg(&self.data).arg("-w").current_dir("/");
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            use std::os::unix::process::CommandExt;
            let owner = std::fs::metadata(&self.data).unwrap();
            command.uid(owner.uid()).gid(owner.gid());
        }
        command
    }

    async fn run(&self, args: &[&str]) {
        let mut command = self.ctl();
        command.args(args).arg("-l").arg(&self.log);
        let status = tokio::task::spawn_blocking(move || {
            command.stdout(std::process::Stdio::null()).status().unwrap()
        });
        assert!(status.await.unwrap().success(), "pg_ctl {args:?}");
    }

    async fn stop(&self) {
        self.run(&["-m", "immediate", "stop"]).await;
    }

    async fn start(&self) {
        self.run(&["start"]).await;
    }
}

/// Makes one call, which must not notice anything; answers how long our part of it took at most.
async fn call(engine: PromptEngine) -> (UsageId, ExecutionId, Duration) {
    let start = Instant::now();
    let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    let done = rendered.execute_with(&Echo).await.unwrap();
    let took = start.elapsed();
    assert!(!rendered.recorded().is_dropped() && !done.recorded.is_dropped());
    (rendered.usage_id(), done.execution.id, took)
}

async fn restart(server: &Server) {
    let place = Place::postgres();
    place.make().await;
    let engine = PromptEngine::connect(&place.url).await.unwrap();
    // Read once, so that it is known when the server is not there.
    call(engine.clone()).await;

    let away = Duration::from_secs(rounds(3, 10) as u64);
    let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut calls = JoinSet::new();
    // Folds are stopped in the middle, too. What one says of a server that is away does not matter.
    let folder = tokio::spawn({
        let engine = engine.clone();
        async move {
            let mut folded = 0;
            loop {
                folded += engine.store().fold().await.map_or(0, |done| done.changes);
                FOLDED.store(folded, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    let mut outage = std::pin::pin!(async {
        let second = Duration::from_secs(1);
        tokio::time::sleep(second).await;
        server.stop().await;
        tokio::time::sleep(away).await;
        server.start().await;
        tokio::time::sleep(second).await;
    });
    loop {
        tokio::select! {
            () = &mut outage => break,
            _ = ticks.tick() => drop(calls.spawn(call(engine.clone()))),
        }
    }
    let (mut usages, mut executions) = (HashSet::new(), HashSet::new());
    let mut slowest = Duration::ZERO;
    while let Some(call) = calls.join_next().await {
        let (usage, execution, took) = call.unwrap();
        usages.insert(usage);
        executions.insert(execution);
        slowest = slowest.max(took);
    }
    let made = usages.len();
    assert!(slowest < away / 2, "a call waited for the server: {slowest:?}");
    folder.abort();
    let folded = FOLDED.load(Ordering::Relaxed);
    assert!(folded > 0, "nothing was folded");
    close(engine).await;

    let engine = place.engine().await;
    let (stored_usages, stored_executions) = assert_sound(&**engine.store()).await;
    // The one before it all is there, too.
    assert_eq!((stored_usages.len(), stored_executions.len()), (made + 1, made + 1));
    assert!(usages.is_subset(&stored_usages.iter().map(|usage| usage.id).collect()));
    assert!(executions.is_subset(&stored_executions.iter().map(|call| call.id).collect()));
    println!(
        "PostgreSQL was away for {away:?}: {made} calls at {RATE} a second, all there once, {folded} \
         changes folded meanwhile; the slowest took {slowest:?}, the model's part included"
    );
}
