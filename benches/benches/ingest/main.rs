//! Durable ingest into each store: calls of 1, 64 and 2,000 concurrent callers, each answered after
//! its synced commit, against raw inserts of the very rows, index entries and payload bytes that
//! were stored, in the batches that were observed, into a store of the same schema and settings.
//! Five interleaved pairs; the medians are printed, and every row is counted on both sides.
//! Read the ratio of few callers with care: both sides sync equally often, but where a sync takes
//! longer for a thread that does nothing else (strace: 3.8 against 1.1 ms), the raw side pays it.

mod postgres;
mod redb;
mod sqlite;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prompt_engine_benches::{Call, Calls, Observed, median, printed_machine};
use prompt_engine_core::{
    AggregateQuery, Mode, Overload, Record, RecordStore, Recorded, Recorder, RecorderConfig, Store,
};

const SEED: u64 = 11;
const PAIRS: usize = 5;
/// Calls of the measure of the disk.
const DISK_CALLS: usize = 20_000;
/// Concurrent callers, and how many calls each makes.
const LOADS: [(usize, usize); 3] = [(1, 1_000), (64, 150), (2_000, 6)];

/// Ingests `calls` through a recorder; answers the time and the batches.
async fn ours(store: Arc<dyn Store>, calls: Vec<Call>, callers: usize) -> (Duration, Vec<usize>) {
    let store = Arc::new(Observed::new(store));
    let settings = RecorderConfig::new()
        .with_mode(Mode::Durable)
        .with_overload(Overload::Block)
        .with_commit_timeout(Duration::from_secs(600));
    let recorder = Recorder::new(Arc::<Observed>::clone(&store), settings);
    let count = calls.len();
    let mut shares: Vec<Vec<Call>> = (0..callers).map(|_| Vec::new()).collect();
    for (n, call) in calls.into_iter().enumerate() {
        shares[n % callers].push(call);
    }
    let start = Instant::now();
    let tasks: Vec<_> = shares
        .into_iter()
        .map(|share| {
            let recorder = recorder.clone();
            tokio::spawn(async move {
                for Call { usage, execution } in share {
                    let queued = recorder.record_now(usage.into());
                    assert!(matches!(queued, Recorded::Queued), "{queued}");
                    let committed = recorder.record(execution.into()).await;
                    assert!(matches!(committed, Recorded::Committed), "{committed}");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("every call is committed");
    }
    let took = start.elapsed();
    assert_eq!(recorder.shutdown(Duration::from_secs(60)).await, 0);
    let rows = store.aggregate(&AggregateQuery::default()).await.expect("an answer").rows;
    assert_eq!(rows[0].measures.uses, u64::try_from(count).ok());
    assert_eq!(rows[0].measures.finished(), rows[0].measures.executions());
    assert_eq!(u64::try_from(count), Ok(rows[0].measures.executions()));
    (took, store.take_batches())
}

/// A store of its kind: how it is opened, and what raw inserts into it take.
trait Subject {
    /// As it is printed.
    const NAME: &'static str;

    /// Opens the store in `folder`, to sync every commit.
    fn open(folder: &Path) -> impl Future<Output = Arc<dyn Store>> + Send;

    /// Inserts what the store in `ours` holds into one in `raw`, made by the same code and empty: the
    /// same rows, indexes and payload bytes in the same `batches`, and nothing else. Answers how long
    /// it took.
    fn raw(ours: &Path, raw: &Path, batches: &[usize]) -> Duration;

    /// What the store in `folder` takes on the disk, in bytes.
    fn size(folder: &Path) -> u64;
}

async fn load<S: Subject>(calls: &mut Calls, callers: usize, each: usize) {
    let count = callers * each;
    let (mut rates, mut raw_rates, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut mean_batch = Vec::new();
    for _ in 0..PAIRS {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let (our_folder, raw_folder) = (folder.path().join("ours"), folder.path().join("raw"));
        for folder in [&our_folder, &raw_folder] {
            std::fs::create_dir(folder).expect("a folder");
        }
        let store = S::open(&our_folder).await;
        let (took, batches) = ours(store, calls.by_ref().take(count).collect(), callers).await;
        // The same schema and settings, from the same code; then only inserts.
        drop(S::open(&raw_folder).await);
        let observed = batches.clone();
        let raw_took =
            tokio::task::spawn_blocking(move || S::raw(&our_folder, &raw_folder, &observed))
                .await
                .expect("raw inserts do not panic");
        let calls = f64::from(u32::try_from(count).expect("a small number"));
        let appends = f64::from(u32::try_from(batches.len()).expect("a small number"));
        rates.push(calls / took.as_secs_f64());
        raw_rates.push(calls / raw_took.as_secs_f64());
        ratios.push(raw_took.as_secs_f64() / took.as_secs_f64());
        mean_batch.push(2.0 * calls / appends);
    }
    let note = if callers == 1 { "; decided by the time of a sync, not by the code" } else { "" };
    println!(
        "ingest/durable/{callers} callers/{}: {count} calls, {:.0} calls/s; raw {:.0} calls/s; \
         ratio {:.2} (target >= 0.9; pairs {}); {:.0} records a batch{note}",
        S::NAME,
        median(&mut rates),
        median(&mut raw_rates),
        median(&mut ratios),
        ratios.iter().map(|ratio| format!("{ratio:.2}")).collect::<Vec<_>>().join(" "),
        median(&mut mean_batch),
    );
}

/// What a call takes on the disk.
async fn disk<S: Subject>(calls: &mut Calls) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let store = S::open(folder.path()).await;
    let calls: Vec<Call> = calls.by_ref().take(DISK_CALLS).collect();
    for batch in calls.chunks(512) {
        let records: Vec<Record> = batch
            .iter()
            .flat_map(|call| [call.usage.clone().into(), call.execution.clone().into()])
            .collect();
        let appended = store.append(&records).await.expect("an append");
        assert_eq!(usize::try_from(appended.stored), Ok(records.len()));
    }
    drop(store);
    let bytes = S::size(folder.path()) / DISK_CALLS as u64;
    println!("disk/{}: {bytes} bytes a call of {DISK_CALLS} (target <= 2,500)", S::NAME);
}

async fn all<S: Subject>(only: Option<&str>) {
    if only.is_some_and(|only| only != S::NAME) {
        return;
    }
    let mut calls = Calls::new(SEED, 10_000_000);
    disk::<S>(&mut calls).await;
    for (callers, each) in LOADS {
        load::<S>(&mut calls, callers, each).await;
    }
}

fn main() {
    printed_machine(SEED);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    // `cargo bench --bench ingest -- redb` measures one store.
    let only = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    runtime.block_on(async {
        all::<sqlite::Sqlite>(only.as_deref()).await;
        all::<redb::Redb>(only.as_deref()).await;
        if postgres::is_there() {
            all::<postgres::Postgres>(only.as_deref()).await;
        } else {
            println!(
                "postgres: needs a server, as `cargo xtask postgres -- cargo bench …` has one"
            );
        }
    });
}
