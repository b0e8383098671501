//! What is redb's own: opening, files that are not ours or damaged, one process at a time. What
//! every store does is in the conformance suite; disks that fail are in `src/store/tests.rs`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use prompt_engine_core::conformance::arbitrary::{Arbitrary, at, call as finished};
use prompt_engine_core::{
    AggregateQuery, AggregateRow, Attribution, BucketWidth, CostStore, Cube, Detail, Dimension,
    Error, ErrorKind, ExecutionId, ExecutionPayload, LlmExecution, Order, PromptId, Rebuild,
    Record, RecordQuery, RecordStore, Result, Source, Timestamp, Usage, UsageId, UsagePayload,
};
use prompt_engine_store_redb::{RedbConfig, RedbStore};
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use tempfile::tempdir;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const CHANGES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("changes");
const CELLS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("cells");
const PAYLOAD_PACKS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("payload_packs");
const CELL_DURATIONS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("cell_durations");

async fn open(path: &Path) -> Result<RedbStore> {
    RedbStore::open(RedbConfig::new(path)).await
}

#[track_caller]
fn refused(result: Result<RedbStore>, kind: ErrorKind, says: &str) -> Error {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{}", error.chain());
    assert!(error.chain().contains(says), "{}", error.chain());
    error
}

/// A usage and its call, each with a payload.
fn call(n: u8) -> (Usage, LlmExecution) {
    let attribution = Attribution {
        prompt: PromptId::from_bytes([n % 3; 16]),
        version: 1,
        environment: "production".parse().unwrap(),
        session: Some(format!("session {n}").parse().unwrap()),
        user: None,
    };
    let usage = Usage {
        id: UsageId::from_bytes([n; 16]),
        attribution: attribution.clone(),
        created_at: Timestamp::from_micros(i64::from(n)).unwrap(),
        payload: Some(Arc::new(UsagePayload {
            content: format!("{n} ").repeat(300),
            ..Default::default()
        })),
    };
    let mut execution = LlmExecution::pending(
        ExecutionId::from_bytes([n; 16]),
        usage.id,
        attribution,
        "openai".parse().unwrap(),
        "gpt-4o".parse().unwrap(),
        usage.created_at,
    );
    let response_content = Some("x".repeat(usize::from(n)));
    execution.payload = Some(Arc::new(ExecutionPayload { response_content, ..Default::default() }));
    (usage, execution)
}

async fn filled(path: &Path) -> u8 {
    let calls = 60;
    let store = open(path).await.unwrap();
    for n in 0..calls {
        let (usage, execution) = call(n);
        store.append(&[usage.into(), execution.into()]).await.unwrap();
    }
    calls
}

/// All that is kept, each read back with its payload.
async fn everything(store: &RedbStore) -> Result<(Vec<Usage>, Vec<LlmExecution>)> {
    let mut query = RecordQuery { order: Order::OldestFirst, ..RecordQuery::default() };
    (query.payloads, query.page.limit) = (true, 1_000);
    store.aggregate(&AggregateQuery::default()).await?;
    store.cost_configs().await?;
    let usages = store.list_usages(&query).await?.items;
    Ok((usages, store.list_executions(&query).await?.items))
}

#[tokio::test]
async fn a_missing_folder_is_named() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("no/such/prompts.redb");
    let error = refused(open(&path).await, ErrorKind::Invalid, "does not exist");
    assert!(error.chain().contains("no/such"), "{}", error.chain());
}

#[tokio::test]
async fn a_folder_is_no_file() {
    let folder = tempdir().unwrap();
    refused(open(folder.path()).await, ErrorKind::Invalid, "it is a folder");
}

#[tokio::test]
async fn a_second_handle_is_told_that_the_file_is_open() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("prompts.redb");
    let store = open(&path).await.unwrap();
    let error = refused(open(&path).await, ErrorKind::Unavailable, "is already open");
    assert!(error.to_string().contains("prompts.redb"), "{error}");
    assert!(store.created());
    drop(store);
    assert!(!open(&path).await.unwrap().created());
}

#[tokio::test]
async fn a_file_that_is_no_database_stays_as_it_is() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    for text in ["short".to_owned(), "not a database, just notes. ".repeat(10_000)] {
        fs::write(&path, &text).unwrap();
        refused(open(&path).await, ErrorKind::Corrupt, "notes.txt is not a redb database");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[tokio::test]
async fn tables_of_others_in_the_file_are_left_alone() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("app.redb");
    let theirs = TableDefinition::<&str, u64>::new("theirs");
    let database = redb::Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(theirs).unwrap().insert("x", 7).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(open(&path).await.unwrap().created());
    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_read().unwrap();
    assert_eq!(transaction.open_table(theirs).unwrap().get("x").unwrap().unwrap().value(), 7);
}

#[tokio::test]
async fn a_newer_format_is_refused_with_both_versions() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("newer.redb");
    drop(open(&path).await.unwrap());
    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let version = [1, 0x80, 0, 0, 0, 0, 0, 0, 42];
    transaction.open_table(META).unwrap().insert("format", &version[..]).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = refused(open(&path).await, ErrorKind::Unsupported, "format version 42");
    assert!(error.to_string().contains("knows version 3"), "{error}");
}

/// However much is missing at its end, the file is refused or gives back what was written; it is
/// never emptied, and nothing panics its way out.
#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_file_is_refused() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("whole.redb");
    let calls = filled(&path).await;
    let whole = fs::read(&path).unwrap();
    let cut = folder.path().join("cut.redb");
    let mut refusals = 0;
    for length in (1..whole.len()).step_by(whole.len() / 97) {
        fs::write(&cut, &whole[..length]).unwrap();
        let read = match open(&cut).await {
            Ok(store) => everything(&store).await,
            Err(error) => Err(error),
        };
        match read {
            Ok((usages, executions)) => {
                assert_eq!((usages.len(), executions.len()), (calls.into(), calls.into()));
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{length}: {}", error.chain());
                assert!(error.to_string().contains("cut.redb"), "{error}");
                refusals += 1;
            }
        }
    }
    assert!(refusals > 60, "only {refusals} refusals");
}

/// Whatever bytes are overwritten, an answer is an error or right about what it answers. redb checks no
/// page that it reads, so the keys of payloads may be what was hit: these are missing then, as if they
/// had expired.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_refused() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("whole.redb");
    filled(&path).await;
    let whole = fs::read(&path).unwrap();
    let expected: (Vec<Usage>, Vec<LlmExecution>) = (0..60).map(call).unzip();
    let damaged = folder.path().join("damaged.redb");
    let mut refusals = 0;
    for start in (0..whole.len() - 512).step_by(whole.len() / 97) {
        let mut bytes = whole.clone();
        bytes[start..start + 512].iter_mut().for_each(|byte| *byte ^= 0x5a);
        fs::write(&damaged, &bytes).unwrap();
        let read = match open(&damaged).await {
            Ok(store) => everything(&store).await,
            Err(error) => Err(error),
        };
        match read {
            Ok(mut found) => {
                for (found, expected) in found.0.iter_mut().zip(&expected.0) {
                    found.payload = found.payload.take().or_else(|| expected.payload.clone());
                }
                for (found, expected) in found.1.iter_mut().zip(&expected.1) {
                    found.payload = found.payload.take().or_else(|| expected.payload.clone());
                }
                assert!(found == expected, "damage at {start} was not noticed");
            }
            Err(error) => {
                let kind = error.kind();
                let refused = matches!(kind, ErrorKind::Corrupt | ErrorKind::Unsupported);
                assert!(refused, "{start}: {kind:?}: {}", error.chain());
                assert!(error.to_string().contains("damaged.redb"), "{error}");
                refusals += 1;
            }
        }
    }
    assert!(refusals > 5, "only {refusals} refusals");
}

/// A number as the table `meta` has it.
fn number(number: i64) -> [u8; 9] {
    let mut value = [1; 9];
    value[1..].copy_from_slice(&(number.cast_unsigned() ^ 1 << 63).to_be_bytes());
    value
}

/// What is asked of each cube.
fn questions(source: Source) -> Vec<AggregateQuery> {
    let dimensions = [
        vec![],
        vec![Dimension::Prompt, Dimension::Version],
        vec![Dimension::Model],
        vec![Dimension::Prompt, Dimension::Model],
    ];
    let query = |group_by| AggregateQuery { group_by, source, ..AggregateQuery::default() };
    dimensions.into_iter().map(query).collect()
}

async fn answers(store: &RedbStore, source: Source) -> Result<Vec<Vec<AggregateRow>>> {
    let mut answers = Vec::new();
    for query in questions(source) {
        answers.push(store.aggregate(&query).await?.rows);
    }
    Ok(answers)
}

async fn fold_all(store: &RedbStore) {
    while store.fold().await.unwrap().more {}
}

/// Makes of a closed file one of format 1, whose raw horizon is this one.
fn without_cells(path: &Path, horizon: Timestamp) {
    let database = redb::Database::open(path).unwrap();
    let transaction = database.begin_write().unwrap();
    assert!(transaction.delete_table(CHANGES).unwrap());
    assert!(transaction.delete_table(CELLS).unwrap());
    assert!(transaction.delete_table(CELL_DURATIONS).unwrap());
    assert!(transaction.delete_table(PAYLOAD_PACKS).unwrap());
    {
        let mut meta = transaction.open_table(META).unwrap();
        meta.remove("folded").unwrap();
        meta.insert("format", &number(1)[..]).unwrap();
        meta.insert("raw_horizon", &number(horizon.as_micros())[..]).unwrap();
    }
    transaction.commit().unwrap();
}

#[tokio::test]
async fn a_file_of_format_1_gets_cells_of_its_records() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("older.redb");
    let store = open(&path).await.unwrap();
    let mut random = Arbitrary::new(81, 5 * 86_400);
    let mut records: Vec<Record> = (0..200).flat_map(|_| random.records()).collect();
    // One lies in the quarter of the horizon, before it: it was next to be pruned.
    let horizon = at(86_400 + 900);
    records.retain(|record| record.created_at() >= horizon);
    let (usage, execution) = finished(at(86_400 + 60));
    records.extend([usage.into(), execution.into()]);
    store.append(&records).await.unwrap();
    store.fold().await.unwrap();
    let everything = answers(&store, Source::Records).await.unwrap();
    drop(store);
    without_cells(&path, at(86_400 + 100));

    let store = open(&path).await.unwrap();
    assert!(!store.created());
    assert_eq!(store.raw_horizon().await.unwrap(), Some(horizon));
    // What lies before it is in the cells alone.
    assert_eq!(answers(&store, Source::Any).await.unwrap(), everything);
    fold_all(&store).await;
    assert_eq!(answers(&store, Source::Any).await.unwrap(), everything);
    assert_ne!(answers(&store, Source::Records).await.unwrap(), everything);
    let reading = store.aggregate(&AggregateQuery::default()).await.unwrap().reading;
    assert_eq!((reading.cube, reading.unfolded), (Some(Cube::Totals), 0));
    // It is one of this format from here on, and what is added counts once.
    let (usage, execution) = finished(horizon);
    store.append(&[usage.clone().into(), execution.into()]).await.unwrap();
    drop(store);
    let store = open(&path).await.unwrap();
    assert_eq!(store.usage(usage.id).await.unwrap(), Some(usage));
    let rows = store.aggregate(&AggregateQuery::default()).await.unwrap().rows;
    assert_eq!(rows[0].measures.uses, everything[0][0].measures.uses.map(|uses| uses + 1));
}

/// Changes the values of the cells of a table that `pick` picks: each second is cut off, the others get
/// what another cell has.
fn damage(
    database: &redb::Database,
    table: TableDefinition<'_, &[u8], &[u8]>,
    pick: impl Fn(&[u8]) -> bool,
) -> usize {
    let transaction = database.begin_write().unwrap();
    let mut damaged = 0;
    {
        let mut table = transaction.open_table(table).unwrap();
        let mut cells = Vec::new();
        for entry in table.iter().unwrap() {
            let (key, value) = entry.unwrap();
            cells.push((key.value().to_vec(), value.value().to_vec()));
        }
        let last = cells.last().unwrap().1.clone();
        for (key, value) in cells.into_iter().filter(|(key, _)| pick(key)) {
            let value = if damaged % 2 == 0 { &value[..value.len() / 2] } else { &last };
            table.insert(&*key, value).unwrap();
            damaged += 1;
        }
    }
    transaction.commit().unwrap();
    damaged
}

#[tokio::test]
async fn damaged_cells_are_made_anew_from_their_records() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("cells.redb");
    let day = 86_400;
    let mut random = Arbitrary::new(82, 2 * day);
    let records: Vec<Record> = (0..200).flat_map(|_| random.records()).collect();
    let (waiting, folded) = records.split_at(records.len() / 4);
    for (name, waits) in [("all folded", false), ("some wait", true)] {
        let path = path.with_extension(name);
        let store = open(&path).await.unwrap();
        store.append(folded).await.unwrap();
        fold_all(&store).await;
        if waits {
            store.append(waiting).await.unwrap();
        }
        let expected = answers(&store, Source::Records).await.unwrap();
        assert_eq!(answers(&store, Source::Any).await.unwrap(), expected);
        drop(store);
        let database = redb::Database::open(&path).unwrap();
        assert!(damage(&database, CELLS, |_| true) > 100);
        assert!(damage(&database, CELL_DURATIONS, |key| key[0] != Cube::Totals.code()) > 100);
        drop(database);

        let store = open(&path).await.unwrap();
        let error = answers(&store, Source::Any).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {}", error.chain());
        assert!(error.to_string().contains("cells."), "{name}: {error}");
        if waits {
            // They are in nobody's way, and say that they are damaged.
            assert!(store.fold().await.unwrap().changes > 0, "{name}");
            assert!(answers(&store, Source::Any).await.is_err(), "{name}");
        }
        // What was spread over two days may touch three.
        for hour in -24..3 * 24 {
            store.rebuild(Rebuild::Hour(at(hour * 3_600))).await.unwrap();
        }
        for hour in [-24, 0, 24, 48] {
            store.rebuild(Rebuild::Day(at(hour * 3_600))).await.unwrap();
        }
        assert_eq!(store.fold().await.unwrap().changes, 0, "{name}");
        assert_eq!(answers(&store, Source::Any).await.unwrap(), expected, "{name}");
        // And cells of every width are right, also by themselves.
        for width in BucketWidth::ALL {
            let zone = "UTC".parse().unwrap();
            let bucket = Some(prompt_engine_core::Bucket { width: *width, zone });
            for (cubes, rows) in questions(Source::Any).into_iter().zip(questions(Source::Records))
            {
                let cubes = AggregateQuery { bucket, detail: Detail::Full, ..cubes };
                let rows = AggregateQuery { bucket, detail: Detail::Full, ..rows };
                assert_eq!(
                    store.aggregate(&cubes).await.unwrap().rows,
                    store.aggregate(&rows).await.unwrap().rows,
                    "{name}: {width}"
                );
            }
        }
    }
}

/// A store is closed when its last handle is dropped, also while it folds in the background.
#[tokio::test]
async fn a_dropped_store_is_closed_whatever_it_is_at() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("prompts.redb");
    let mut uses = 0;
    for round in 0..2 {
        let store = open(&path).await.unwrap();
        let usage = |n: i64| Usage { payload: None, ..finished(at(round * 86_400 + n)).0 };
        let records: Vec<Record> = (0..8_200).map(|n| usage(n).into()).collect();
        uses += records.len() as u64;
        store.append(&records).await.unwrap();
        // The fold has been asked for; it may get as far as it likes before the store is dropped.
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
    }
    let store = open(&path).await.unwrap();
    let rows = store.aggregate(&AggregateQuery::default()).await.unwrap().rows;
    assert_eq!(rows[0].measures.uses, Some(uses));
}

/// Folds, rebuilds and appends that meet, some of which nobody waits for any more, count everything once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn folds_and_rebuilds_at_once_count_everything_once() {
    let folder = tempdir().unwrap();
    let store = open(&folder.path().join("prompts.redb")).await.unwrap();
    let mut random = Arbitrary::new(83, 20_000);
    for round in 0..15 {
        let mut tasks = Vec::new();
        for number in 0..4 {
            let records: Vec<Record> = (0..4).flat_map(|_| random.records()).collect();
            let (append, fold) = (store.clone(), store.clone());
            tasks.push(tokio::spawn(async move {
                append.append(&records).await.unwrap();
                if number == 0 {
                    append.rebuild(Rebuild::Hour(at(7_200))).await.unwrap();
                }
                append.fold().await.unwrap();
            }));
            let given_up = tokio::spawn(async move { fold.fold().await });
            tokio::task::yield_now().await;
            given_up.abort();
        }
        for task in tasks {
            task.await.unwrap();
        }
        let expected = answers(&store, Source::Records).await.unwrap();
        assert_eq!(answers(&store, Source::Any).await.unwrap(), expected, "round {round}");
    }
}
