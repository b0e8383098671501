//! Cells and changes: a schema that had none gets them, damaged ones are made right, a fold starts by
//! itself. What every store does is in the conformance suite.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod records;
mod server;

use std::time::{Duration, Instant};

use prompt_engine_core::{
    AggregateQuery, AggregateRow, Bucket, BucketWidth, Cost, CostRevision, Dimension, ErrorKind,
    LlmExecution, Prune, Rebuild, Record, RecordStore, Revised, Source, Timestamp, UnpricedReason,
    Usage,
};
use prompt_engine_store_postgres::PostgresStore;
use sqlx::{AssertSqlSafe, Executor, PgConnection, query_scalar, raw_sql};
use tokio::task::yield_now;

use records::{at, finished, pending, usage};
use server::Schema;

/// A usage and a finished call without payloads, and now and then a pending one.
fn some(second: i64) -> Vec<Record> {
    let mut call = finished(pending(second));
    call.model = format!("model-{}", second % 3).parse().unwrap();
    call.latency_ms = Some(second.unsigned_abs() % 700);
    let call = LlmExecution { payload: None, ..call };
    let mut records = vec![Usage { payload: None, ..usage(second) }.into(), call.into()];
    if second % 5 == 0 {
        records.push(LlmExecution { payload: None, ..pending(second) }.into());
    }
    records
}

/// The answers to some questions.
async fn answers(store: &PostgresStore, source: Source) -> Vec<Vec<AggregateRow>> {
    let zone = "Asia/Kathmandu".parse().unwrap();
    let mut answers = Vec::new();
    for (group_by, width) in [
        (Vec::new(), None),
        (vec![Dimension::Prompt, Dimension::Version], Some(BucketWidth::Day)),
        (vec![Dimension::Environment], Some(BucketWidth::QuarterHour)),
        (vec![Dimension::Model], Some(BucketWidth::Hour)),
        (vec![Dimension::Prompt, Dimension::Model], None),
    ] {
        let bucket = width.map(|width| Bucket { width, zone });
        let query = AggregateQuery { group_by, bucket, source, ..AggregateQuery::default() };
        answers.push(store.aggregate(&query).await.unwrap().rows);
    }
    answers
}

async fn waiting(conn: &mut PgConnection) -> i64 {
    let sum = "SELECT coalesce(sum(changes), 0)::bigint FROM prompt_engine_changes";
    query_scalar(sum).fetch_one(conn).await.unwrap()
}

async fn fold_all(store: &PostgresStore) {
    while store.fold().await.unwrap().more {}
}

/// Makes of a schema one of version 1.
async fn go_back(conn: &mut PgConnection) {
    let sql = "DROP TABLE prompt_engine_changes, prompt_engine_cells, prompt_engine_payload_packs;
        UPDATE prompt_engine_meta SET value = 1 WHERE name = 'schema'";
    conn.execute(raw_sql(sql)).await.unwrap();
}

#[tokio::test]
async fn a_schema_of_version_1_gets_changes_of_all_its_records() {
    let schema = Schema::new();
    let store = schema.open().await;
    // More than one lot of changes, in more than one day.
    for part in 0..5 {
        let records: Vec<Record> = (0..1_000).flat_map(|n| some(part * 20_000 + n * 7)).collect();
        store.append(&records).await.unwrap();
    }
    let expected = answers(&store, Source::Records).await;
    drop(store);
    let mut conn = schema.connect().await;
    go_back(&mut conn).await;
    let store = schema.open().await;
    assert!(!store.created());
    assert_eq!(waiting(&mut conn).await, 10_000, "a usage and a finished call each");
    let lots: i64 = query_scalar("SELECT count(*) FROM prompt_engine_changes")
        .fetch_one(&mut conn)
        .await
        .unwrap();
    assert_eq!(lots, 2);
    assert_eq!(answers(&store, Source::Any).await, expected);
    fold_all(&store).await;
    assert_eq!(answers(&store, Source::Any).await, expected);
    // Nothing is begun twice.
    drop(schema.open().await);
    assert_eq!(waiting(&mut conn).await, 0);
}

#[tokio::test]
async fn the_horizon_of_a_schema_of_version_1_moves_to_the_end_of_its_quarter() {
    let schema = Schema::new();
    let store = schema.open().await;
    let records: Vec<Record> = (0..40).flat_map(|n| some(n * 60)).collect();
    store.append(&records).await.unwrap();
    let before = Prune { payloads_before: None, raw_before: Some(at(1_000)), limit: 1_000 };
    store.prune(&before).await.unwrap();
    let horizon = store.raw_horizon().await.unwrap().unwrap();
    drop(store);
    let mut conn = schema.connect().await;
    for (inside, moved) in [(0, 0), (1, 900_000_000), (1, 900_000_000)] {
        go_back(&mut conn).await;
        let sql = format!(
            "UPDATE prompt_engine_meta SET value = {} WHERE name = 'raw_horizon'",
            horizon.as_micros() + inside
        );
        conn.execute(raw_sql(AssertSqlSafe(sql))).await.unwrap();
        let store = schema.open().await;
        let expected = Timestamp::from_micros(horizon.as_micros() + moved).unwrap();
        assert_eq!(store.raw_horizon().await.unwrap(), Some(expected));
        let (_, call) = (usage(0), finished(pending(0)));
        let early = LlmExecution { created_at: horizon, ..call };
        assert_eq!(store.append(&[early.into()]).await.is_ok(), moved == 0);
    }
}

#[tokio::test]
async fn damaged_cells_are_made_right_by_a_rebuild() {
    let schema = Schema::new();
    let store = schema.open().await;
    // Six hours of two days.
    let records: Vec<Record> = (0..600).flat_map(|n| some(n * 36)).collect();
    store.append(&records).await.unwrap();
    fold_all(&store).await;
    let mut conn = schema.connect().await;
    for (damage, readable) in [
        ("UPDATE prompt_engine_cells SET sums = '\\x01'", false),
        ("UPDATE prompt_engine_cells SET durations = '\\x01ff'", false),
        ("DELETE FROM prompt_engine_cells WHERE start % 7 = 0 OR width = 1", true),
        (
            "UPDATE prompt_engine_cells AS c SET sums = other.sums FROM prompt_engine_cells AS other
             WHERE (other.cube, other.width) = (c.cube, c.width) AND other.start < c.start",
            true,
        ),
    ] {
        conn.execute(raw_sql(damage)).await.unwrap();
        // Some changes wait, all over the place.
        let records: Vec<Record> = (0..6).flat_map(|n| some(n * 3_600)).collect();
        store.append(&records).await.unwrap();
        let sum = store.aggregate(&AggregateQuery::default()).await;
        match sum {
            Ok(_) => assert!(readable, "{damage}"),
            Err(error) => {
                assert!(!readable, "{damage}");
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", error.chain());
            }
        }
        // What cannot be read is in nobody's way, and is not made readable by what is added to it.
        fold_all(&store).await;
        assert_eq!(waiting(&mut conn).await, 0);
        let sum = store.aggregate(&AggregateQuery::default()).await;
        assert_eq!(sum.is_ok(), readable, "{damage}");
        let mut records = 0;
        for hour in 0..7 {
            store.append(&some(hour * 3_600)).await.unwrap();
            records += store.rebuild(Rebuild::Hour(at(hour * 3_600))).await.unwrap().records;
        }
        assert!(records >= 1_300, "{records}");
        for day in [0, 86_400] {
            store.rebuild(Rebuild::Day(at(day))).await.unwrap();
        }
        let expected = answers(&store, Source::Records).await;
        assert_eq!(answers(&store, Source::Any).await, expected, "{damage}");
    }
}

#[tokio::test]
async fn a_fold_starts_by_itself_where_a_lot_waits() {
    let schema = Schema::new();
    let store = schema.open().await;
    let mut conn = schema.connect().await;
    let records: Vec<Record> = (0..4_800).flat_map(|n| some(5 * n + 1)).collect();
    store.append(&records[..8_000]).await.unwrap();
    assert_eq!(waiting(&mut conn).await, 8_000);
    store.append(&records[8_000..]).await.unwrap();
    let started = Instant::now();
    while waiting(&mut conn).await >= 8_192 {
        assert!(started.elapsed() < Duration::from_secs(30), "nobody folds");
        yield_now().await;
    }
    // A change of costs may be what fills a lot, too.
    let calls = records.iter().filter_map(|record| match record {
        Record::Execution(call) => Some(call),
        Record::Usage(_) => None,
    });
    let unpriced = Cost::unpriced(UnpricedReason::NoUsage);
    let revisions = calls.map(|call| CostRevision {
        id: call.id,
        expected: call.cost.unwrap(),
        past: None,
        new: unpriced,
        priced_model: None,
        at: at(0),
    });
    let revisions: Vec<CostRevision> = revisions.collect();
    let again = revisions.iter().cloned();
    let again = again.map(|it| CostRevision { expected: unpriced, new: it.expected, ..it });
    let again: Vec<CostRevision> = again.collect();
    let done = store.revise_costs(&revisions).await.unwrap();
    assert!(done.iter().all(|done| *done == Revised::Changed));
    store.revise_costs(&again).await.unwrap();
    store.revise_costs(&revisions).await.unwrap();
    let started = Instant::now();
    while waiting(&mut conn).await >= 8_192 {
        assert!(started.elapsed() < Duration::from_secs(30), "nobody folds");
        yield_now().await;
    }
    let (any, records) =
        (answers(&store, Source::Any).await, answers(&store, Source::Records).await);
    assert_eq!(any, records);
}
