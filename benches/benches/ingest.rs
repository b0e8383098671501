//! Durable ingest into SQLite: calls of 1, 64 and 2,000 concurrent callers, each
//! answered after its commit with `synchronous=FULL`, against raw inserts of the very rows that
//! were stored, in the batches that were observed, into a file of the same schema and page size.
//! Five interleaved pairs; the medians are printed, and every row is counted on both sides.
//! Read the ratio of few callers with care: both sides sync equally often, but where a sync takes
//! longer for a thread that does nothing else (strace: 3.8 against 1.1 ms), the raw side pays it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use prompt_engine_benches::{Call, Calls, median, printed_machine};
use prompt_engine_core::{
    AggregateQuery, AggregateRow, Appended, CostRevision, ExecutionId, LlmExecution, Mode,
    Overload, Page, PastCost, Prune, Pruned, Record, RecordQuery, RecordStore, Recorded, Recorder,
    RecorderConfig, Result, Revised, Timestamp, Usage, UsageId,
};
use prompt_engine_store_sqlite::{SqliteConfig, SqliteStore, Synchronous};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

const SEED: u64 = 11;
const PAIRS: usize = 5;
/// Concurrent callers, and how many calls each makes.
const LOADS: [(usize, usize); 3] = [(1, 1_000), (64, 150), (2_000, 6)];

/// A store that notes how many records each append had.
#[derive(Debug)]
struct Observed {
    store: SqliteStore,
    batches: Mutex<Vec<usize>>,
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl RecordStore for Observed {
    async fn append(&self, records: &[Record]) -> Result<Appended> {
        let appended = self.store.append(records).await?;
        self.batches.lock().unwrap_or_else(PoisonError::into_inner).push(records.len());
        Ok(appended)
    }
    async fn aggregate(&self, query: &AggregateQuery) -> Result<Vec<AggregateRow>> {
        self.store.aggregate(query).await
    }
    async fn usage(&self, id: UsageId) -> Result<Option<Usage>> {
        self.store.usage(id).await
    }
    async fn execution(&self, id: ExecutionId) -> Result<Option<LlmExecution>> {
        self.store.execution(id).await
    }
    async fn list_usages(&self, query: &RecordQuery) -> Result<Page<Usage>> {
        self.store.list_usages(query).await
    }
    async fn list_executions(&self, query: &RecordQuery) -> Result<Page<LlmExecution>> {
        self.store.list_executions(query).await
    }
    async fn revise_costs(&self, revisions: &[CostRevision]) -> Result<Vec<Revised>> {
        self.store.revise_costs(revisions).await
    }
    async fn past_costs(&self, ids: &[ExecutionId]) -> Result<Vec<Vec<PastCost>>> {
        self.store.past_costs(ids).await
    }
    async fn prune(&self, prune: &Prune) -> Result<Pruned> {
        self.store.prune(prune).await
    }
    async fn raw_horizon(&self) -> Result<Option<Timestamp>> {
        self.store.raw_horizon().await
    }
}

fn config(path: &Path) -> SqliteConfig {
    SqliteConfig::new(path).with_synchronous(Synchronous::Full)
}

/// Ingests `calls` through a recorder; answers the time and the batches.
async fn ours(path: &Path, calls: Vec<Call>, callers: usize) -> (Duration, Vec<usize>) {
    let store = SqliteStore::open(config(path)).await.expect("a store");
    let store = Arc::new(Observed { store, batches: Mutex::default() });
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
    let rows = store.aggregate(&AggregateQuery::default()).await.expect("an answer");
    assert_eq!(rows[0].measures.uses, u64::try_from(count).ok());
    assert_eq!(rows[0].measures.finished(), rows[0].measures.executions());
    assert_eq!(u64::try_from(count), Ok(rows[0].measures.executions()));
    let batches = store.batches.lock().unwrap_or_else(PoisonError::into_inner).clone();
    (took, batches)
}

/// A stored record: its table, its row, and its payload.
struct Row {
    table: usize,
    values: Vec<Value>,
    payload: (i64, Value),
}

const TABLES: [&str; 2] = ["prompt_engine_usages", "prompt_engine_llm_executions"];

/// All records of a file in the order in which they were stored.
fn stored(path: &Path) -> rusqlite::Result<Vec<Row>> {
    let conn = Connection::open(path)?;
    let mut rows = Vec::new();
    for (table, name) in TABLES.iter().enumerate() {
        let mut select = conn.prepare(&format!(
            "SELECT p.id, p.data, t.* FROM {name} t JOIN prompt_engine_payloads p ON p.id = t.payload"
        ))?;
        let columns = select.column_count();
        let found = select.query_map([], |row| {
            let values = (2..columns).map(|at| row.get(at)).collect::<rusqlite::Result<_>>()?;
            Ok(Row { table, values, payload: (row.get(0)?, row.get(1)?) })
        })?;
        for row in found {
            rows.push(row?);
        }
    }
    rows.sort_by_key(|row| row.payload.0);
    Ok(rows)
}

/// Inserts `rows` in `batches` into a fresh file and answers how long it took.
fn raw(path: &Path, rows: &[Row], batches: &[usize]) -> rusqlite::Result<Duration> {
    let conn = Connection::open(path)?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    let mode: String = conn.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    assert_eq!(mode, "wal");
    let inserts: Vec<String> = TABLES
        .iter()
        .enumerate()
        .map(|(table, name)| {
            let columns = rows.iter().find(|row| row.table == table).map_or(1, |r| r.values.len());
            format!("INSERT INTO {name} VALUES ({})", vec!["?"; columns].join(", "))
        })
        .collect();
    let start = Instant::now();
    let mut rest = rows;
    for batch in batches {
        let (now, later) = rest.split_at(*batch);
        rest = later;
        conn.execute_batch("BEGIN IMMEDIATE")?;
        for row in now {
            conn.prepare_cached(&inserts[row.table])?.execute(params_from_iter(&row.values))?;
            conn.prepare_cached("INSERT INTO prompt_engine_payloads (id, data) VALUES (?, ?)")?
                .execute((row.payload.0, &row.payload.1))?;
        }
        conn.execute_batch("COMMIT")?;
    }
    let took = start.elapsed();
    assert!(rest.is_empty(), "the batches hold every row");
    for name in TABLES {
        let count: i64 =
            conn.query_row(&format!("SELECT count(*) FROM {name}"), [], |row| row.get(0))?;
        assert_eq!(usize::try_from(count), Ok(rows.len() / 2));
    }
    Ok(took)
}

async fn load(calls: &mut Calls, callers: usize, each: usize) {
    let count = callers * each;
    let (mut rates, mut raw_rates, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut mean_batch = Vec::new();
    for _ in 0..PAIRS {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let (file, raw_file) = (folder.path().join("ours.db"), folder.path().join("raw.db"));
        let (took, batches) = ours(&file, calls.by_ref().take(count).collect(), callers).await;
        // The same schema, page size and settings, from the same code; then only inserts.
        drop(SqliteStore::open(config(&raw_file)).await.expect("a store"));
        let observed = batches.clone();
        let raw_took = tokio::task::spawn_blocking(move || {
            let rows = stored(&file).expect("the rows that were stored");
            assert_eq!(rows.len(), 2 * count);
            raw(&raw_file, &rows, &observed).expect("raw inserts")
        })
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
        "ingest/durable/{callers} callers/sqlite full: {count} calls, {:.0} calls/s; raw {:.0} \
         calls/s; ratio {:.2} (target >= 0.9; pairs {}); {:.0} records a batch{note}",
        median(&mut rates),
        median(&mut raw_rates),
        median(&mut ratios),
        ratios.iter().map(|ratio| format!("{ratio:.2}")).collect::<Vec<_>>().join(" "),
        median(&mut mean_batch),
    );
}

fn main() {
    printed_machine(SEED);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime");
    let mut calls = Calls::new(SEED, 1_000_000);
    for (callers, each) in LOADS {
        runtime.block_on(load(&mut calls, callers, each));
    }
}
