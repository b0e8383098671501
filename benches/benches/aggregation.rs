//! The five questions over 100,000 calls in each store, beside a full scan of the same rows for the
//! same questions. Every range is another; before any is timed, answers of both kinds are compared with
//! each other and with a recount of the set.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use prompt_engine_benches::{Calls, Observed, Question, Set, printed_machine};
use prompt_engine_core::{Analytics, GroupBy, Record, Source, Store};
use prompt_engine_store_postgres::{PostgresConfig, PostgresStore};
use prompt_engine_store_redb::{RedbConfig, RedbStore};
use prompt_engine_store_sqlite::{SqliteConfig, SqliteStore};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, raw_sql};
use tokio::runtime::Runtime;

const SEED: u64 = 17;
const CALLS: u64 = 100_000;
const BATCH: usize = 4_096;
const SERVER: &str = "TEST_POSTGRES_URL";
const QUESTIONS: [Question; 5] = [
    Question::UsageStats,
    Question::PromptPerformance,
    Question::Costs(GroupBy::Prompt),
    Question::ErrorAnalysis,
    Question::TopPrompts,
];
const SOURCES: [(&str, Source); 2] = [("any", Source::Any), ("records", Source::Records)];

/// Appends the set, without texts, and folds all of it.
async fn fill(store: &dyn Store, set: &Arc<Set>) {
    for (prompt, versions) in set.stored_prompts("a bench") {
        store.insert_prompt(&prompt, &versions).await.expect("a prompt");
    }
    let mut calls = Calls::of(Arc::clone(set), u64::MAX);
    let mut left = usize::try_from(CALLS).expect("a small number");
    while left > 0 {
        let records: Vec<Record> = (calls.by_ref().take(BATCH.min(left)))
            .flat_map(|call| [call.usage.into(), call.execution.into()])
            .collect();
        left -= records.len() / 2;
        store.append(&records).await.expect("an append");
    }
    while store.fold().await.expect("a fold").more {}
}

/// A store whose answers all come from `source`.
fn answering(store: &Arc<dyn Store>, source: Source) -> (Analytics, Arc<Observed>) {
    let observed = Arc::new(Observed::new(Arc::clone(store)).answering_from(source));
    (Analytics::new(Arc::<Observed>::clone(&observed)), observed)
}

/// Every source gives the same answer, and the right one.
async fn compared(set: &Set, store: &Arc<dyn Store>, name: &str) {
    for question in QUESTIONS {
        for run in 0..3 {
            let asked = question.asked(set, run);
            let mut replies = Vec::new();
            for (_, source) in SOURCES {
                let (analytics, observed) = answering(store, source);
                let reply = question.ask(&analytics, &*observed, set, &asked).await;
                replies.push(reply.expect("an answer"));
                if run == 0 {
                    let (mut raw_rows, mut cells) = (0, 0);
                    for reading in observed.take_readings() {
                        raw_rows += reading.raw_rows;
                        cells += reading.cells;
                    }
                    let question = question.name();
                    println!("{question}/{name}/{source:?}: {raw_rows} rows, {cells} cells");
                }
            }
            assert_eq!(replies[0], replies[1], "{question:?}: the sources differ");
            let right = question.right_answer(set, &asked);
            let checked = replies[0].answer(set, question).check(&right);
            assert_eq!(checked, Ok(()), "{question:?}");
        }
    }
}

fn measured(criterion: &mut Criterion, runtime: &Runtime, store: &Arc<dyn Store>, name: &str) {
    let set = Arc::new(Set::new(SEED, CALLS, 90));
    runtime.block_on(async {
        fill(&**store, &set).await;
        compared(&set, store, name).await;
    });
    let runs = AtomicU32::new(100);
    for question in QUESTIONS {
        let mut group = criterion.benchmark_group(format!("aggregate/{}", question.name()));
        for (source_name, source) in SOURCES {
            let (analytics, observed) = answering(store, source);
            let id = BenchmarkId::new(format!("{CALLS}/{name}"), source_name);
            group.bench_function(id, |bench| {
                bench.to_async(runtime).iter(async || {
                    let asked = question.asked(&set, runs.fetch_add(1, Ordering::Relaxed));
                    question.ask(&analytics, &*observed, &set, &asked).await.expect("an answer")
                });
                drop(observed.take_readings());
            });
        }
        group.finish();
    }
}

fn aggregation(criterion: &mut Criterion) {
    printed_machine(SEED);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let sqlite = SqliteConfig::new(at("prompts.db"));
    let store: Arc<dyn Store> =
        Arc::new(runtime.block_on(SqliteStore::open(sqlite)).expect("a store"));
    measured(criterion, &runtime, &store, "sqlite");
    let redb = RedbConfig::new(at("prompts.redb"));
    let store: Arc<dyn Store> = Arc::new(runtime.block_on(RedbStore::open(redb)).expect("a store"));
    measured(criterion, &runtime, &store, "redb");
    drop(store);
    match std::env::var(SERVER) {
        Ok(server) => on_a_server(criterion, &runtime, &server, folder.path()),
        Err(_) => {
            println!("postgres: needs a server, as `cargo xtask postgres -- cargo bench …` has one")
        }
    }
}

/// In a schema that is removed again.
fn on_a_server(criterion: &mut Criterion, runtime: &Runtime, server: &str, folder: &Path) {
    let path = folder.to_string_lossy().to_lowercase();
    let letters: String = path.chars().filter(char::is_ascii_alphanumeric).collect();
    let schema = format!("bench_{}", &letters[letters.len().saturating_sub(20)..]);
    let config = PostgresConfig::from_url(server).expect("a configuration").with_schema(&schema);
    let store: Arc<dyn Store> =
        Arc::new(runtime.block_on(PostgresStore::open(config)).expect("a store"));
    measured(criterion, runtime, &store, "postgres");
    drop(store);
    let sql = AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE"));
    let dropped = runtime
        .block_on(async { PgConnection::connect(server).await?.execute(raw_sql(sql)).await });
    dropped.expect("the schema is removed");
}

criterion_group! {
    name = benches;
    // A scan takes tens of milliseconds: few samples say enough.
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(3));
    targets = aggregation
}
criterion_main!(benches);
