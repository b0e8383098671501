//! Many processes on one schema: they open a new one at once; they append the same records in different
//! orders, and fold what these change; they append more than one fold keeps up with. The parent starts this same program as each of them. No harness: the program
//! is all.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and speak")]

mod records;
mod server;
mod stored;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prompt_engine_core::cube::LOT_CHANGES;
use prompt_engine_core::{
    AggregateQuery, Dimension, ExecutionId, LlmExecution, MemoryStore, Rebuild, Record,
    RecordStore, Source, Usage, UsageId,
};
use prompt_engine_store_postgres::{PostgresConfig, PostgresStore};
use tokio::task::JoinSet;

use records::{attribution, finished, pending, usage};
use server::Schema;

const OPENERS: usize = 10;
const WRITERS: u64 = 8;
const CALLS: i64 = 600;
/// Calls that each of the processes appends that flood the store.
const POURED: i64 = 4_000;

/// What a child is to do.
const TASK: &str = "PROMPT_ENGINE_PROCESSES_TASK";
/// In which schema.
const URL: &str = "PROMPT_ENGINE_PROCESSES_URL";

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match std::env::var(TASK) {
        Ok(task) => runtime.block_on(child(&task)),
        Err(_) => {
            runtime.block_on(openers());
            runtime.block_on(writers());
            runtime.block_on(flood());
            println!("test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
        }
    }
}

/// Starts a process that says that it is ready, and begins when its standard input ends.
fn start(task: &str, schema: &Schema) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .env(TASK, task)
        .env(URL, schema.url().as_str())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n");
    child
}

/// Lets all of `children` begin, and answers what each said at its end.
fn run(mut children: Vec<Child>) -> Vec<String> {
    children.iter_mut().for_each(|child| drop(child.stdin.take()));
    let said = children.into_iter().map(|child| {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "a process failed");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    });
    said.collect()
}

async fn child(task: &str) {
    let config = PostgresConfig::from_url(&std::env::var(URL).unwrap()).unwrap();
    // Its batches take turns on four connections, on a machine that has eight such processes.
    let config = config.with_acquire_timeout(Duration::from_secs(60));
    println!("ready");
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_line(&mut String::new()).unwrap();
    let store = PostgresStore::open(config).await.unwrap();
    match task.split_once(' ') {
        Some(("write", writer)) => println!("{}", write(store, writer.parse().unwrap()).await),
        Some(("flood", writer)) => println!("{}", pour(store, writer.parse().unwrap()).await),
        _ => println!("{}", store.created()),
    }
}

/// Ten processes open a schema that is not there: all succeed, and one made it.
async fn openers() {
    let schema = Schema::new();
    let said = run((0..OPENERS).map(|_| start("open", &schema)).collect());
    assert_eq!(said.iter().filter(|created| *created == "true").count(), 1, "{said:?}");
    assert_eq!(said.len(), OPENERS);
    assert!(!schema.open().await.created());
    println!("{OPENERS} processes opened a new schema at once, and one made it");
}

/// The records of all writers: each process makes the same, from their place alone.
fn all() -> Vec<(Usage, LlmExecution)> {
    let call = |n: i64| {
        let mut of = attribution();
        of.version = 1 + u32::try_from(n % 5).unwrap();
        of.user = (n % 3 == 0).then(|| format!("user-{}", n % 7).parse().unwrap());
        let mut bytes = [0x11; 16];
        // In no order: the ids of calls that follow each other are far apart.
        bytes[..8]
            .copy_from_slice(&n.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        let id = UsageId::from_bytes(bytes);
        let usage = Usage { id, attribution: of.clone(), ..usage(n) };
        bytes[15] = 0x22;
        let id = ExecutionId::from_bytes(bytes);
        let call = LlmExecution { id, usage_id: usage.id, attribution: of, ..pending(n) };
        (usage, call)
    };
    (0..CALLS).map(call).collect()
}

/// Numbers in an order that `seed` decides.
fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let place = usize::try_from(state >> 33).unwrap() % (last + 1);
        order.swap(last, place);
    }
    order
}

/// Appends all records, in an order of its own: those that are pending first, then the finished
/// ones, several batches at once. Answers how many it stored.
async fn write(store: PostgresStore, writer: u64) -> u64 {
    let calls = all();
    let mut stored = 0;
    let folder = tokio::spawn({
        let store = store.clone();
        async move {
            loop {
                store.fold().await.unwrap();
            }
        }
    });
    for ends in [false, true] {
        let order = shuffled(calls.len(), 2 * writer + u64::from(ends));
        let mut appends = JoinSet::new();
        for part in order.chunks(37) {
            let batch: Vec<Record> = part
                .iter()
                .flat_map(|n| {
                    let (usage, call) = calls[*n].clone();
                    let call = if ends { finished(call) } else { call };
                    [call.into(), usage.into()]
                })
                .collect();
            let store = store.clone();
            appends.spawn(async move { store.append(&batch).await.unwrap().stored });
        }
        stored += appends.join_all().await.iter().sum::<u64>();
    }
    // In the middle of a fold, as it may be.
    folder.abort();
    stored
}

/// Appends calls of its own, in all hours of a day. Answers how many.
async fn pour(store: PostgresStore, writer: i64) -> u64 {
    for part in 0..POURED / 50 {
        let call = |n: i64| {
            let second = (part * 50 + n) * 86_400 / POURED + writer;
            let mut call = finished(pending(second));
            call.latency_ms = Some(second.unsigned_abs() % 900);
            let call = LlmExecution { payload: None, ..call };
            [Usage { payload: None, ..usage(second) }.into(), call.into()]
        };
        let batch: Vec<Record> = (0..50).flat_map(call).collect();
        assert_eq!(store.append(&batch).await.unwrap().stored, 100);
    }
    POURED.unsigned_abs()
}

async fn fold_all(store: &PostgresStore) {
    while store.fold().await.unwrap().more {}
}

/// Asks until it is told to end: every answer is of one moment, and nothing is counted less than
/// before. Answers how many it asked for.
async fn watch(store: PostgresStore, done: Arc<AtomicBool>) -> u64 {
    let (mut asked, mut last) = (0, 0);
    while !done.load(Ordering::Relaxed) {
        let answer = store.aggregate(&AggregateQuery::default()).await.unwrap();
        let found = &answer.rows[0].measures;
        assert_eq!(found.uses, Some(found.executions()), "a batch is all or nothing");
        assert!(found.executions() >= last, "{} after {last}", found.executions());
        last = found.executions();
        asked += 1;
    }
    asked
}

/// Eight processes append as fast as they can: what waits for a fold stays some lots, though only
/// one of them folds at a time, and nothing is lost or counted twice.
async fn flood() {
    let schema = Schema::new();
    let store = schema.open().await;
    let children: Vec<Child> =
        (0..WRITERS).map(|writer| start(&format!("flood {writer}"), &schema)).collect();
    let children = tokio::task::spawn_blocking(|| run(children));
    let mut conn = schema.connect().await;
    let (mut most, mut looks) = (0, 0);
    while !children.is_finished() {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT coalesce(sum(changes), 0)::bigint FROM prompt_engine_changes",
        )
        .fetch_one(&mut conn)
        .await
        .unwrap();
        most = most.max(waiting.unsigned_abs());
        looks += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let poured: u64 =
        children.await.unwrap().iter().map(|poured| poured.parse::<u64>().unwrap()).sum();
    assert!(most < 3 * LOT_CHANGES, "{most} changes waited");
    assert!(most < 2 * poured * 3 / 4, "nobody folded");
    for folds in [false, true] {
        if folds {
            fold_all(&store).await;
        }
        for group_by in [Vec::new(), vec![Dimension::Prompt, Dimension::Model]] {
            let query = AggregateQuery { group_by, ..AggregateQuery::default() };
            let rows = store.aggregate(&query).await.unwrap().rows;
            assert_eq!(rows[0].measures.executions(), poured);
            let query = AggregateQuery { source: Source::Records, ..query };
            assert_eq!(rows, store.aggregate(&query).await.unwrap().rows);
        }
    }
    println!(
        "{WRITERS} processes appended {poured} calls: at most {most} changes waited, in {looks} looks"
    );
}

/// Eight processes append the same records, and all fold what these change: no deadlock reaches one,
/// each record is stored once and counted once, and sums are those of the reference store.
async fn writers() {
    let schema = Schema::new();
    let store = schema.open().await;
    let children: Vec<Child> =
        (0..WRITERS).map(|writer| start(&format!("write {writer}"), &schema)).collect();
    let done = Arc::new(AtomicBool::new(false));
    let watching = tokio::spawn(watch(store.clone(), Arc::clone(&done)));
    let said = tokio::task::spawn_blocking(|| run(children)).await.unwrap();
    done.store(true, Ordering::Relaxed);
    let asked = watching.await.unwrap();
    let stored: u64 = said.iter().map(|stored| stored.parse::<u64>().unwrap()).sum();
    let calls = all();
    let reference = MemoryStore::new();
    for (usage, call) in &calls {
        reference.append(&[usage.clone().into(), finished(call.clone()).into()]).await.unwrap();
    }
    for step in ["appended", "folded", "rebuilt"] {
        match step {
            "folded" => fold_all(&store).await,
            "rebuilt" => drop(store.rebuild(Rebuild::Hour(calls[0].0.created_at)).await.unwrap()),
            _ => {}
        }
        let by = vec![Dimension::Version, Dimension::Model];
        for group_by in [Vec::new(), vec![Dimension::Prompt], by] {
            let query = AggregateQuery { group_by, ..AggregateQuery::default() };
            let expected = reference.aggregate(&query).await.unwrap().rows;
            assert_eq!(store.aggregate(&query).await.unwrap().rows, expected, "{step}");
            let query = AggregateQuery { source: Source::Records, ..query };
            assert_eq!(store.aggregate(&query).await.unwrap().rows, expected, "{step}");
        }
    }
    for (usage, call) in &calls {
        let expected = (Some(usage.clone()), Some(finished(call.clone())));
        let found = (store.usage(usage.id).await.unwrap(), store.execution(call.id).await.unwrap());
        assert_eq!(found, expected);
    }
    assert_eq!(stored::payloads(&mut schema.connect().await).await, (0, 2 * calls.len()));
    // A render, the beginning of its call, and its end; or the end alone, where it came first.
    let count = u64::try_from(calls.len()).unwrap();
    assert!((2 * count..=3 * count).contains(&stored), "{stored} of {count} calls");
    println!(
        "{WRITERS} processes appended {count} calls each, the same ones, and folded, while somebody \
         asked {asked} times: stored {said:?}"
    );
}
