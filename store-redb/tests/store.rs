//! What is redb's own: opening, files that are not ours or damaged, one process at a time. What
//! every store does is in the conformance suite; disks that fail are in `src/store/tests.rs`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;

use prompt_engine_core::{
    AggregateQuery, Attribution, CostStore, Error, ErrorKind, ExecutionId, ExecutionPayload,
    LlmExecution, Order, PromptId, RecordQuery, RecordStore, Result, Timestamp, Usage, UsageId,
    UsagePayload,
};
use prompt_engine_store_redb::{RedbConfig, RedbStore};
use tempfile::tempdir;

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
        payload: Some(UsagePayload { content: format!("{n} ").repeat(300), ..Default::default() }),
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
    execution.payload = Some(ExecutionPayload { response_content, ..Default::default() });
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
    let theirs = redb::TableDefinition::<&str, u64>::new("theirs");
    let database = redb::Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(theirs).unwrap().insert("x", 7).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(open(&path).await.unwrap().created());
    let database = redb::Database::open(&path).unwrap();
    let transaction = redb::ReadableDatabase::begin_read(&database).unwrap();
    assert_eq!(transaction.open_table(theirs).unwrap().get("x").unwrap().unwrap().value(), 7);
}

#[tokio::test]
async fn a_newer_format_is_refused_with_both_versions() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("newer.redb");
    drop(open(&path).await.unwrap());
    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let meta = redb::TableDefinition::<&str, &[u8]>::new("meta");
    let version = [1, 0x80, 0, 0, 0, 0, 0, 0, 42];
    transaction.open_table(meta).unwrap().insert("format", &version[..]).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = refused(open(&path).await, ErrorKind::Unsupported, "format version 42");
    assert!(error.to_string().contains("knows version 1"), "{error}");
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

/// Whatever bytes are overwritten, an answer is an error or right about what it answers.
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
            Ok(found) => assert!(found == expected, "damage at {start} was not noticed"),
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
