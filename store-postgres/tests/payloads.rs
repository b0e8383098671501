//! Payloads that lie in packs: what is in one, what is taken out of it, schemas that had none, damage.
//! What every store does is in the conformance suite.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod records;
mod server;
mod stored;

use std::sync::Arc;

use prompt_engine_core::{
    ErrorKind, ExecutionPayload, LlmExecution, Message, Order, PageQuery, Prune, Record,
    RecordQuery, RecordStore, Usage, UsagePayload,
};
use prompt_engine_store_postgres::PostgresStore;
use sqlx::{AssertSqlSafe, Executor, query_as, query_scalar, raw_sql};

use records::{at, finished, pending, usage};
use server::Schema;

/// A render and its finished call, each with a text of its own.
fn pair(second: i64) -> [Record; 2] {
    let mut usage = usage(second);
    Arc::make_mut(usage.payload.as_mut().unwrap()).content = format!("render {second}");
    let mut call = finished(pending(second));
    Arc::make_mut(call.payload.as_mut().unwrap()).response_content =
        Some(format!("answer {second}"));
    [usage.into(), LlmExecution { created_at: at(second), ..call }.into()]
}

/// All of a store, oldest first.
async fn all(store: &PostgresStore) -> (Vec<Usage>, Vec<LlmExecution>) {
    let page = PageQuery { limit: 10_000, after: None };
    let order = Order::OldestFirst;
    let query = RecordQuery { page, order, payloads: true, ..RecordQuery::default() };
    let usages = store.list_usages(&query).await.unwrap().items;
    (usages, store.list_executions(&query).await.unwrap().items)
}

/// The usages and the executions of `records`.
fn apart(records: &[Record]) -> (Vec<Usage>, Vec<LlmExecution>) {
    let (mut usages, mut calls) = (Vec::new(), Vec::new());
    for record in records {
        match record {
            Record::Usage(usage) => usages.push(usage.clone()),
            Record::Execution(call) => calls.push(call.clone()),
        }
    }
    (usages, calls)
}

/// Reads each of `records` by its id and compares it.
async fn compare(store: &PostgresStore, records: &[Record]) {
    for record in records {
        match record {
            Record::Usage(usage) => {
                assert_eq!(store.usage(usage.id).await.unwrap().as_ref(), Some(usage));
            }
            Record::Execution(call) => {
                assert_eq!(store.execution(call.id).await.unwrap().as_ref(), Some(call));
            }
        }
    }
}

/// A text that does not compress but where it is repeated.
fn noise(mut seed: u64, length: usize) -> String {
    let mut letter = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from_digit(u32::try_from(seed >> 60).unwrap(), 16).unwrap()
    };
    (0..length).map(|_| letter()).collect()
}

#[tokio::test]
async fn a_call_that_repeats_what_was_rendered_for_it_takes_it_once() {
    let schema = Schema::new();
    let store = schema.open().await;
    let records: Vec<Record> = (0..100)
        .flat_map(|second: i64| {
            let text = noise(second.unsigned_abs() + 1, 3_000);
            let mut usage = usage(second);
            usage.payload =
                Some(Arc::new(UsagePayload { content: text.clone(), ..Default::default() }));
            let messages_sent = [Message::user(text)].into();
            let payload = Some(Arc::new(ExecutionPayload { messages_sent, ..Default::default() }));
            let call = LlmExecution { payload, ..finished(pending(second)) };
            [usage.into(), call.into()]
        })
        .collect();
    store.append(&records).await.unwrap();
    let mut conn = schema.connect().await;
    assert_eq!(stored::payloads(&mut conn).await, (0, 200));
    let bytes = "SELECT sum(length(data)) FROM prompt_engine_payload_packs";
    let bytes: i64 = query_scalar(bytes).fetch_one(&mut conn).await.unwrap();
    // Each is half as long once compressed, being of 16 letters.
    assert!((150_000..200_000).contains(&bytes), "{bytes}");
    compare(&store, &records).await;
}

#[tokio::test]
async fn a_page_of_many_packs_is_read_whole() {
    let schema = Schema::new();
    let store = schema.open().await;
    let records: Vec<Record> = (0..70).flat_map(pair).collect();
    // Moments and packs do not come in one order.
    for batch in records[..40].rchunks(2).chain(records[40..].chunks(2)) {
        store.append(batch).await.unwrap();
    }
    let mut conn = schema.connect().await;
    let packs = "SELECT count(*) FROM prompt_engine_payload_packs";
    let packs: i64 = query_scalar(packs).fetch_one(&mut conn).await.unwrap();
    assert!(packs > 60, "{packs}");
    assert_eq!(all(&store).await, apart(&records));
    // One that is not there is damage, whichever it is.
    let delete = "DELETE FROM prompt_engine_payload_packs
                  WHERE id = (SELECT max(id) FROM prompt_engine_payload_packs)";
    conn.execute(delete).await.unwrap();
    let page = PageQuery { limit: 200, after: None };
    let query = RecordQuery { page, payloads: true, ..RecordQuery::default() };
    let error = store.list_usages(&query).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", error.chain());
}

#[tokio::test]
async fn what_was_there_is_not_packed_again() {
    let schema = Schema::new();
    let store = schema.open().await;
    let mut conn = schema.connect().await;
    let records: Vec<Record> = (0..30).flat_map(pair).collect();
    store.append(&records[..40]).await.unwrap();
    assert_eq!(stored::payloads(&mut conn).await, (0, 40));
    // Some of the old, some of the new, some twice.
    let batch = [&records[30..], &records[50..]].concat();
    let done = store.append(&batch).await.unwrap();
    assert_eq!((done.stored, done.unchanged), (20, 20));
    assert_eq!(stored::payloads(&mut conn).await, (0, 60));
    store.append(&records).await.unwrap();
    assert_eq!(stored::payloads(&mut conn).await, (0, 60));
    let packs = "SELECT count(*) FROM prompt_engine_payload_packs";
    let packs: i64 = query_scalar(packs).fetch_one(&mut conn).await.unwrap();
    assert_eq!(packs, 2);
    compare(&store, &records).await;
}

#[tokio::test]
async fn a_pending_payload_lies_alone_until_the_call_ends() {
    let schema = Schema::new();
    let store = schema.open().await;
    let mut conn = schema.connect().await;
    let calls: Vec<LlmExecution> = (0..6).map(pending).collect();
    let begun: Vec<Record> = calls.iter().cloned().map(Record::from).collect();
    store.append(&begun).await.unwrap();
    assert_eq!(stored::payloads(&mut conn).await, (6, 0));
    // Three end, one of them without a payload, and two begin and end at once.
    let mut ended: Vec<LlmExecution> = calls[..3].iter().cloned().map(finished).collect();
    ended[1].payload = None;
    let both: Vec<LlmExecution> = (6..8).map(pending).collect();
    let mut batch: Vec<Record> = both.iter().cloned().map(Record::from).collect();
    ended.extend(both.into_iter().map(finished));
    batch.extend(ended.iter().cloned().map(Record::from));
    assert_eq!(store.append(&batch).await.unwrap().stored, 7);
    assert_eq!(stored::payloads(&mut conn).await, (3, 4));
    // What ended is not begun again.
    assert_eq!(store.append(&begun[..3]).await.unwrap().unchanged, 3);
    assert_eq!(stored::payloads(&mut conn).await, (3, 4));
    ended.extend(calls[3..].iter().cloned());
    let ended: Vec<Record> = ended.into_iter().map(Record::from).collect();
    compare(&store, &ended).await;
}

#[tokio::test]
async fn prunes_and_appends_at_once_lose_nothing() {
    let schema = Schema::new();
    let (one, two) = (schema.open().await, schema.open().await);
    // Packs of all times, so that each batch of a prune is about some of each.
    let records: Vec<[Record; 2]> = (0..300).map(pair).collect();
    for first in 0..10 {
        let batch: Vec<Record> =
            records.iter().skip(first).step_by(10).flatten().cloned().collect();
        one.append(&batch).await.unwrap();
    }
    let later: Vec<[Record; 2]> = (300..500).map(pair).collect();
    let prunes = [
        (one.clone(), Prune { payloads_before: Some(at(200)), raw_before: None, limit: 17 }),
        // The second 100 is the first of a quarter of an hour.
        (
            two.clone(),
            Prune { payloads_before: Some(at(250)), raw_before: Some(at(100)), limit: 23 },
        ),
    ];
    let prunes = prunes.map(|(store, prune)| {
        tokio::spawn(async move { while !store.prune(&prune).await.unwrap().done {} })
    });
    // A place and its pack are of one moment, whatever is deleted between their statements.
    let reader = tokio::spawn({
        let store = one.clone();
        async move {
            loop {
                all(&store).await;
            }
        }
    });
    for batch in later.chunks(8) {
        two.append(&batch.concat()).await.unwrap();
    }
    for prune in prunes {
        prune.await.unwrap();
    }
    assert!(!reader.is_finished(), "a reader failed");
    reader.abort();
    let mut conn = schema.connect().await;
    assert_eq!(stored::payloads(&mut conn).await, (0, 500));
    let mut kept: Vec<Record> = records[100..].iter().chain(&later).flatten().cloned().collect();
    for record in kept.iter_mut().filter(|record| record.created_at() < at(250)) {
        match record {
            Record::Usage(usage) => usage.payload = None,
            Record::Execution(call) => call.payload = None,
        }
    }
    compare(&one, &kept).await;
    assert_eq!(all(&one).await, apart(&kept));
}

#[tokio::test]
async fn a_schema_of_version_2_keeps_its_payloads() {
    let schema = Schema::new();
    let store = schema.open().await;
    let mut conn = schema.connect().await;
    let records: Vec<Record> = (0..6).flat_map(pair).collect();
    for record in &records {
        store.append(std::slice::from_ref(record)).await.unwrap();
    }
    drop(store);
    let sql = "DROP TABLE prompt_engine_payload_packs;
        UPDATE prompt_engine_meta SET value = 2 WHERE name = 'schema'";
    conn.execute(raw_sql(sql)).await.unwrap();
    let store = schema.open().await;
    assert!(!store.created());
    compare(&store, &records).await;
    let later: Vec<Record> = (6..9).flat_map(pair).collect();
    store.append(&later).await.unwrap();
    assert_eq!(stored::payloads(&mut conn).await, (12, 6));
    let both = [records, later].concat();
    assert_eq!(all(&store).await, apart(&both));
    let prune = Prune { payloads_before: Some(at(7)), raw_before: None, limit: 100 };
    assert_eq!(store.prune(&prune).await.unwrap().payloads, 14);
    assert_eq!(stored::payloads(&mut conn).await, (0, 4));
}

#[tokio::test]
async fn damage_is_reported_and_hides_no_row() {
    let schema = Schema::new();
    let store = schema.open().await;
    let mut conn = schema.connect().await;
    let records: Vec<Record> = (0..20).flat_map(pair).collect();
    store.append(&records).await.unwrap();
    let (Record::Usage(usage), Record::Execution(call)) = (&records[0], &records[1]) else {
        panic!("a render and its call")
    };
    let prune = Prune { payloads_before: Some(at(1)), raw_before: None, limit: 2 };
    for (damage, kind) in [
        ("payload_packs SET data = '\\x01'", ErrorKind::Corrupt),
        ("payload_packs SET data = '\\x01010203'", ErrorKind::Corrupt),
        ("payload_packs SET data = '\\x01000a'", ErrorKind::Corrupt),
        ("payload_packs SET data = '\\x77'", ErrorKind::Unsupported),
        ("payload_packs SET id = id + 1", ErrorKind::Corrupt),
        ("usage_payloads SET data = '\\x02'", ErrorKind::Corrupt),
    ] {
        let sql = format!("UPDATE prompt_engine_{damage}");
        conn.execute(raw_sql(AssertSqlSafe(sql))).await.unwrap();
        let error = store.usage(usage.id).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{damage}: {}", error.chain());
        let query = RecordQuery { payloads: true, ..RecordQuery::default() };
        assert_eq!(store.list_usages(&query).await.unwrap_err().kind(), kind, "{damage}");
        let query = RecordQuery { payloads: false, ..query };
        assert_eq!(store.list_usages(&query).await.unwrap().items.len(), 20);
    }
    assert_eq!(store.execution(call.id).await.unwrap_err().kind(), ErrorKind::Corrupt);
    // What is damaged hinders no pruning.
    assert_eq!(store.prune(&prune).await.unwrap().payloads, 2);
    let left = "SELECT count(*) FROM prompt_engine_usage_payloads";
    let left: i64 = query_scalar(left).fetch_one(&mut conn).await.unwrap();
    assert_eq!(left, 19);
}

#[tokio::test]
async fn large_packs_are_written_by_several_statements() {
    let schema = Schema::new();
    let store = schema.open().await;
    // A short text and one of megabytes in each pack; more than one statement takes in all.
    let records: Vec<Record> = (0..18)
        .map(|second: i64| {
            let mut usage = usage(second);
            let length = if second % 2 == 0 { 100 } else { 5_000_000 };
            Arc::make_mut(usage.payload.as_mut().unwrap()).content =
                noise(second.unsigned_abs() + 1, length);
            usage.into()
        })
        .collect();
    assert_eq!(store.append(&records).await.unwrap().stored, 18);
    let mut conn = schema.connect().await;
    let packs = "SELECT count(*), sum(length(data)) FROM prompt_engine_payload_packs";
    let (packs, bytes): (i64, i64) = query_as(packs).fetch_one(&mut conn).await.unwrap();
    assert_eq!(packs, 9);
    assert!(bytes > 16 * 1024 * 1024, "{bytes}");
    assert_eq!(stored::payloads(&mut conn).await, (0, 18));
    for record in &records {
        let Record::Usage(usage) = record else { panic!("all are usages") };
        assert!(store.usage(usage.id).await.unwrap().as_ref() == Some(usage));
    }
}
