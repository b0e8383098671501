//! What is SQLite's own: opening, files that are not ours, several handles on one file, payloads
//! apart from hot rows, the view. What every store does is in the conformance suite.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prompt_engine_core::{
    Attribution, Cost, CostConfigId, CostRevision, CostStore, ErrorKind, ExecutionId,
    ExecutionPayload, Label, LlmExecution, ModelRule, PromptId, PromptStore, Prune, Record,
    RecordQuery, RecordStore, Revised, Status, Timestamp, TokenCounts, UnpricedReason, Usage,
    UsageId, UsagePayload,
};
use prompt_engine_store_sqlite::{SqliteConfig, SqliteStore, Synchronous};
use rusqlite::Connection;
use rust_decimal::Decimal;
use tempfile::{TempDir, tempdir};

async fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(SqliteConfig::new(path)).await.unwrap()
}

async fn fresh() -> (TempDir, SqliteStore) {
    let folder = tempdir().unwrap();
    let store = open(&folder.path().join("prompts.db")).await;
    (folder, store)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000 + second * 1_000_000).unwrap()
}

fn attribution() -> Attribution {
    Attribution {
        prompt: PromptId::from_bytes([7; 16]),
        version: 3,
        environment: "production".parse().unwrap(),
        session: Some("s' \" %_".parse().unwrap()),
        user: None,
    }
}

fn usage(second: i64) -> Usage {
    Usage {
        id: UsageId::new(),
        attribution: attribution(),
        created_at: at(second),
        payload: Some(Arc::new(UsagePayload {
            content: "Hello\0\u{10ffff}".into(),
            ..Default::default()
        })),
    }
}

fn pending(second: i64) -> LlmExecution {
    let provider = "openai".parse().unwrap();
    let model = "gpt-4o".parse().unwrap();
    let (id, usage) = (ExecutionId::new(), UsageId::new());
    let mut call = LlmExecution::pending(id, usage, attribution(), provider, model, at(second));
    call.payload = Some(Arc::new(ExecutionPayload {
        response_content: Some("still to come".into()),
        ..Default::default()
    }));
    call
}

fn finished(mut call: LlmExecution) -> LlmExecution {
    let counts = TokenCounts { input: 100, output: 7, cache_read: 40, ..Default::default() };
    call.status = Status::Success;
    call.response_model = Some("gpt-4o-2024-08-06".parse().unwrap());
    call.priced_model = Some("gpt-4o".parse().unwrap());
    call.tokens = Some(counts.check().unwrap());
    let config = CostConfigId::from_bytes([9; 16]);
    call.cost = Some(Cost::Priced { usd: "0.000000000001".parse().unwrap(), config });
    call.latency_ms = Some(u64::MAX);
    call.completed_at = Some(at(99));
    call.payload = Some(Arc::new(ExecutionPayload {
        response_content: Some("x".repeat(10_000)),
        ..Default::default()
    }));
    call
}

#[tokio::test]
async fn a_missing_folder_is_named() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("no/such/prompts.db");
    let error = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.chain().contains("no/such"), "{}", error.chain());
    assert!(error.chain().contains("does not exist"), "{}", error.chain());
}

#[tokio::test]
async fn a_look_for_the_store_makes_nothing() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("prompts.db");
    let missing = || async { SqliteStore::missing(&SqliteConfig::new(&path)).await.unwrap() };
    let named = Some(path.display().to_string());
    assert_eq!(missing().await, named);
    assert!(!path.exists());
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    let before = std::fs::read(&path).unwrap();
    assert_eq!(missing().await, named);
    assert_eq!(std::fs::read(&path).unwrap(), before);
    open(&path).await;
    assert_eq!(missing().await, None);
}

#[tokio::test]
async fn a_folder_is_no_file() {
    let folder = tempdir().unwrap();
    let error = SqliteStore::open(SqliteConfig::new(folder.path())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.chain().contains("it is a folder"), "{}", error.chain());
}

#[tokio::test]
async fn a_file_that_is_no_database_stays_as_it_is() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    let text = "not a database, just notes. ".repeat(100);
    std::fs::write(&path, &text).unwrap();
    let error = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("notes.txt is not a SQLite database"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn a_file_of_schema_version_1_is_brought_up_to_date_with_all_that_is_in_it() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("old.db");
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch(include_str!("../migrations/0001_initial.sql")).unwrap();
    conn.execute_batch(
        r#"
        INSERT INTO prompt_engine_meta VALUES ('schema', 1), ('price_generation', 5);
        INSERT INTO prompt_engine_terms VALUES
            (1, 0, x'07070707070707070707070707070707'), (2, 1, CAST('production' AS BLOB)),
            (3, 2, CAST('openai' AS BLOB)),
            (4, 3, CAST('gpt-4o' AS BLOB));
        INSERT INTO prompt_engine_cost_configs VALUES
            (x'01010101010101010101010101010101', 0, 'openai', 1, 'gpt-4o-2024', NULL, NULL, 7,
             '{"input":"2.5","output":null}', NULL, 'old'),
            (x'02020202020202020202020202020202', 1, 'openai', 0, 'gpt-4o', 'flex', 3, NULL,
             '{"input":"3","output":"10"}', '0.5', NULL);
        INSERT INTO prompt_engine_llm_executions
            (created_at, id, usage_id, prompt, version, environment, provider, model, status,
             input, output, cache_read, cache_write, cache_write_1h, reasoning, audio_input,
             audio_output, cost_kind, cost_reason, completed_at)
        VALUES (9, x'03030303030303030303030303030303', x'04040404040404040404040404040404', 1, 3, 2,
             3, 4, 1, 100, 10, 0, 0, 0, 0, 0, 0, 2, 0, 10);
        INSERT INTO prompt_engine_payloads VALUES (5, CAST(x'00' || '{"response_content":"yes"}' AS BLOB));
        UPDATE prompt_engine_llm_executions SET payload = 5;
        "#,
    )
    .unwrap();
    drop(conn);
    let store = open(&path).await;
    let list = store.cost_configs().await.unwrap();
    assert_eq!((list.generation, list.configs.len()), (5, 2));
    let (seed, user) = (&list.configs[0], &list.configs[1]);
    let label = |text: &str| Label::new(text).unwrap();
    assert_eq!(seed.rule, ModelRule::StartsWith(label("gpt-4o-2024")));
    assert_eq!((&seed.model, seed.replaced_at), (&label("gpt-4o-2024"), None));
    assert_eq!((seed.rates.input, seed.rates.output), (Some(Decimal::new(25, 1)), None));
    assert_eq!(
        (&user.rule, user.per_request),
        (&ModelRule::Equals(label("gpt-4o")), Some(Decimal::new(5, 1)))
    );
    assert!(user.tiers.is_empty() && user.windows.is_empty());
    let call = store.execution(ExecutionId::from_bytes([3; 16])).await.unwrap().unwrap();
    assert_eq!((call.service_tier, call.tokens.unwrap().input), (None, 100));
    assert_eq!(call.cost, Some(Cost::unpriced(UnpricedReason::UnknownModel)));
    assert_eq!(call.payload.unwrap().response_content.as_deref(), Some("yes"));
    assert_eq!(store.past_costs(&[call.id]).await.unwrap(), [[]]);
    let conn = Connection::open(&path).unwrap();
    let shown: (String, Option<String>) = conn
        .query_row("SELECT cost_kind, service_tier FROM prompt_engine_calls", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!(shown, ("unpriced".to_owned(), None));
}

#[tokio::test]
async fn a_newer_schema_is_refused_with_both_versions() {
    let (folder, store) = fresh().await;
    let path = store.path().to_owned();
    drop(store);
    let conn = Connection::open(&path).unwrap();
    conn.execute("UPDATE prompt_engine_meta SET value = 42 WHERE name = 'schema'", []).unwrap();
    let error = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("schema version 42"), "{error}");
    assert!(error.to_string().contains("up to 4"), "{error}");
    drop(folder);
}

#[tokio::test]
async fn only_the_open_that_makes_the_store_created_it() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("prompts.db");
    let opens = (0..8).map(|_| tokio::spawn(SqliteStore::open(SqliteConfig::new(&path))));
    let mut created = 0;
    for open in opens.collect::<Vec<_>>() {
        created += u32::from(open.await.unwrap().unwrap().created());
    }
    assert_eq!(created, 1);
    assert!(!open(&path).await.created());
}

#[tokio::test]
async fn tables_of_others_in_the_file_are_left_alone() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("app.db");
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("CREATE TABLE theirs (x); PRAGMA user_version = 12;").unwrap();
    drop(conn);
    assert!(open(&path).await.created());
    let conn = Connection::open(&path).unwrap();
    let version: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert_eq!(version, 12);
}

#[tokio::test]
async fn a_new_file_has_the_settings_of_the_format() {
    let (_folder, store) = fresh().await;
    let conn = Connection::open(store.path()).unwrap();
    let pragma = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(pragma("PRAGMA page_size"), 16_384);
    assert_eq!(pragma("PRAGMA auto_vacuum"), 2);
    let mode: String = conn.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let (_folder, store) = fresh().await;
    let (usage, call) = (usage(1), finished(pending(2)));
    store.append(&[usage.clone().into(), call.clone().into()]).await.unwrap();
    let path = store.path().to_owned();
    drop(store);
    let config = SqliteConfig::new(&path).with_synchronous(Synchronous::Full);
    let store = SqliteStore::open(config).await.unwrap();
    assert_eq!(store.usage(usage.id).await.unwrap(), Some(usage));
    assert_eq!(store.execution(call.id).await.unwrap(), Some(call));
}

#[tokio::test]
async fn two_handles_share_terms_and_see_each_other() {
    let (_folder, one) = fresh().await;
    let two = open(one.path()).await;
    // A batch that fails gives a key to "lost"; the same key must not be remembered for it.
    let mut lost = pending(1);
    lost.model = "lost".parse().unwrap();
    let mut broken = pending(1);
    broken.completed_at = Some(at(2));
    one.append(&[lost.into(), broken.into()]).await.unwrap_err();
    for (number, store) in [&two, &one, &two, &one].into_iter().enumerate() {
        let mut call = pending(i64::try_from(number).unwrap());
        call.model = format!("model-{}", number / 2).parse().unwrap();
        store.append(&[call.clone().into()]).await.unwrap();
        for reader in [&one, &two] {
            assert_eq!(reader.execution(call.id).await.unwrap().as_ref(), Some(&call));
        }
    }
}

#[tokio::test]
async fn many_writers_on_two_handles_lose_nothing() {
    let (_folder, one) = fresh().await;
    let two = open(one.path()).await;
    let mut tasks = Vec::new();
    for number in 0..40 {
        let store = if number % 2 == 0 { one.clone() } else { two.clone() };
        tasks.push(tokio::spawn(async move {
            store.append(&[Record::from(usage(number)), pending(number).into()]).await
        }));
    }
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap().stored, 2);
    }
    let rows = two.aggregate(&Default::default()).await.unwrap().rows;
    assert_eq!((rows[0].measures.uses, rows[0].measures.executions()), (Some(40), 40));
}

#[tokio::test]
async fn a_file_locked_for_too_long_is_unavailable() {
    let (_folder, store) = fresh().await;
    let config = SqliteConfig::new(store.path()).with_busy_timeout(Duration::from_millis(20));
    let store = SqliteStore::open(config).await.unwrap();
    let other = Connection::open(store.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.append(&[usage(1).into()]).await.unwrap_err();
    assert!(error.is_retryable());
    assert!(error.to_string().contains("is busy"), "{error}");
    assert_eq!(store.usage(UsageId::new()).await.unwrap(), None);
    other.execute_batch("ROLLBACK").unwrap();
    store.append(&[usage(1).into()]).await.unwrap();
}

#[tokio::test]
async fn a_finished_call_takes_the_place_of_its_payload() {
    let (_folder, store) = fresh().await;
    let call = pending(1);
    store.append(&[call.clone().into()]).await.unwrap();
    let done = finished(call);
    store.append(&[done.clone().into(), done.clone().into()]).await.unwrap();
    assert_eq!(store.execution(done.id).await.unwrap(), Some(done));
    let conn = Connection::open(store.path()).unwrap();
    let (payloads, bytes): (i64, i64) = conn
        .query_row("SELECT count(*), sum(length(data)) FROM prompt_engine_payloads", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!(payloads, 1);
    assert!(bytes < 1_000, "{bytes} bytes of a compressible payload");
}

#[tokio::test]
async fn pruning_leaves_no_payload_behind_and_finds_late_ones() {
    let (_folder, store) = fresh().await;
    let records: Vec<Record> = (0..10)
        .flat_map(|second| [usage(second).into(), finished(pending(second)).into()])
        .collect();
    store.append(&records).await.unwrap();
    let revisions: Vec<CostRevision> = records
        .iter()
        .filter_map(|record| match record {
            Record::Execution(call) => Some(call),
            Record::Usage(_) => None,
        })
        .map(|call| CostRevision {
            id: call.id,
            expected: call.cost.unwrap(),
            past: None,
            new: Cost::LocalCache,
            priced_model: None,
            at: at(50),
        })
        .collect();
    store.revise_costs(&revisions).await.unwrap();
    let payloads = Prune { payloads_before: Some(at(5)), raw_before: None, limit: 4 };
    let mut deleted = Vec::new();
    loop {
        let pruned = store.prune(&payloads).await.unwrap();
        deleted.push(pruned.payloads);
        if pruned.done {
            break;
        }
    }
    assert_eq!(deleted, [4, 4, 2]);
    assert_eq!(store.prune(&payloads).await.unwrap().payloads, 0);
    store.append(&[usage(1).into()]).await.unwrap();
    assert_eq!(store.prune(&payloads).await.unwrap().payloads, 1);
    let raw = Prune { payloads_before: None, raw_before: Some(at(100)), limit: 1000 };
    let pruned = store.prune(&raw).await.unwrap();
    assert_eq!((pruned.usages, pruned.executions, pruned.done), (11, 10, true));
    assert_eq!(store.raw_horizon().await.unwrap(), Some(at(100)));
    let conn = Connection::open(store.path()).unwrap();
    for table in ["prompt_engine_payloads", "prompt_engine_cost_revisions"] {
        let count = format!("SELECT count(*) FROM {table}");
        let left: i64 = conn.query_row(&count, [], |row| row.get(0)).unwrap();
        assert_eq!(left, 0, "{table}");
    }
}

#[tokio::test]
async fn a_cost_is_revised_only_from_the_expected_one() {
    let (_folder, store) = fresh().await;
    let call = finished(pending(1));
    store.append(&[call.clone().into()]).await.unwrap();
    let new = Cost::unpriced(UnpricedReason::UnknownModel);
    let (id, at) = (call.id, at(9));
    let revision =
        |expected| CostRevision { id, expected, past: None, new, priced_model: None, at };
    let first = revision(call.cost.unwrap());
    let outcomes = store.revise_costs(&[first.clone(), first]).await.unwrap();
    assert_eq!(outcomes, [Revised::Changed, Revised::Mismatch]);
    assert_eq!(store.execution(call.id).await.unwrap().unwrap().cost, Some(new));
}

#[tokio::test]
async fn every_filter_finds_its_rows_on_its_index() {
    let (_folder, store) = fresh().await;
    let (open, done) = (pending(1), finished(pending(2)));
    store.append(&[open.clone().into(), done.clone().into()]).await.unwrap();
    let ids = async |query: RecordQuery| {
        let page = store.list_executions(&query).await.unwrap();
        page.items.into_iter().map(|call| call.id).collect::<Vec<_>>()
    };
    let mut query = RecordQuery::default();
    assert_eq!(ids(query.clone()).await, [done.id, open.id]);
    query.filter.statuses = vec![Status::Pending];
    assert_eq!(ids(query.clone()).await, [open.id]);
    query.filter.statuses = vec![Status::Timeout, Status::Error];
    assert!(ids(query.clone()).await.is_empty());
    query.filter.statuses = vec![Status::Pending, Status::Success];
    query.filter.session = attribution().session;
    assert_eq!(ids(query.clone()).await, [done.id, open.id]);
    query.filter.model = Some("never-seen".parse().unwrap());
    assert!(ids(query).await.is_empty());
    let of_usage = RecordQuery { usage: Some(done.usage_id), ..Default::default() };
    assert_eq!(ids(of_usage).await, [done.id]);
}

#[tokio::test]
async fn a_person_can_read_the_calls() {
    let (_folder, store) = fresh().await;
    let call = finished(pending(1));
    store.append(&[call.clone().into()]).await.unwrap();
    let conn = Connection::open(store.path()).unwrap();
    let row: [String; 6] = conn
        .query_row(
            "SELECT id, created_at, model, status, cost_usd, environment FROM prompt_engine_calls",
            [],
            |row| {
                Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?])
            },
        )
        .unwrap();
    let expected = [
        call.id.to_string(),
        call.created_at.to_string(),
        "gpt-4o".to_owned(),
        "success".to_owned(),
        "0.000000000001".to_owned(),
        "production".to_owned(),
    ];
    assert_eq!(row, expected);
}

#[tokio::test]
async fn a_damaged_file_is_reported_and_not_believed() {
    let (_folder, store) = fresh().await;
    let call = finished(pending(1));
    store.append(&[call.clone().into()]).await.unwrap();
    let conn = Connection::open(store.path()).unwrap();
    conn.execute("UPDATE prompt_engine_llm_executions SET status = 77", []).unwrap();
    let error = store.execution(call.id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.chain().contains("77 is no status"), "{}", error.chain());
    assert!(store.prompt(PromptId::new()).await.unwrap().is_none());
}

#[test]
fn urls_say_what_is_wrong_with_them() {
    let config = SqliteConfig::from_url("sqlite:///var/a%20b.db?busy_timeout_ms=50&readers=2");
    let config = config.unwrap();
    assert_eq!(config.path, Path::new("/var/a b.db"));
    assert_eq!((config.busy_timeout, config.readers), (Duration::from_millis(50), 2));
    for (url, kind, word) in [
        ("sqlite://a.db?mode=ro", ErrorKind::Invalid, "\"mode\""),
        ("sqlite://a.db?synchronous=off", ErrorKind::Invalid, "synchronous"),
        ("sqlite://a.db?busy_timeout_ms=-1", ErrorKind::Invalid, "busy_timeout_ms"),
        ("sqlite://", ErrorKind::Invalid, "no file"),
        ("sqlite://100%.db", ErrorKind::Invalid, "%25"),
        ("postgres://a", ErrorKind::Invalid, "sqlite://"),
        ("sqlite::memory:", ErrorKind::Unsupported, "memory:"),
    ] {
        let error = SqliteConfig::from_url(url).unwrap_err();
        assert_eq!(error.kind(), kind, "{url}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[tokio::test]
async fn pruning_gives_the_space_back() {
    let (_folder, store) = fresh().await;
    let calls: Vec<Record> = (0..2_000).map(|n| finished(pending(n)).into()).collect();
    store.append(&calls).await.unwrap();
    let conn = Connection::open(store.path()).unwrap();
    let pages = |name: &str| -> i64 {
        conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0)).unwrap()
    };
    let full = pages("page_count");
    let all = Prune { payloads_before: None, raw_before: Some(at(3_000)), limit: 2_000 };
    assert!(store.prune(&all).await.unwrap().done);
    assert_eq!(pages("freelist_count"), 0);
    assert!(pages("page_count") < full / 2, "{} of {full} are left", pages("page_count"));
}
