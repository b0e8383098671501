//! A store moves from SQLite to PostgreSQL to redb and back: the same export, byte for byte, and the
//! same answers, in each.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod stores;

use std::sync::Arc;

use prompt_engine::transfer::{Export, Import, Line};
use prompt_engine::{
    AggregateQuery, AggregateRow, Bucket, BucketWidth, CostRevision, Dimension, Filter, Prune,
    Record, Store, open_store, testkit,
};
use stores::{Place, rounds};

async fn export(store: &Arc<dyn Store>) -> Vec<u8> {
    let mut export = Export::new(Arc::clone(store));
    let mut bytes = Vec::new();
    while let Some(lines) = export.next().await.unwrap() {
        for line in lines {
            serde_json::to_writer(&mut bytes, &line).unwrap();
            bytes.push(b'\n');
        }
    }
    bytes
}

async fn import(store: &Arc<dyn Store>, bytes: &[u8]) {
    let mut import = Import::new(Arc::clone(store));
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        import.push(serde_json::from_slice::<Line>(line).unwrap()).await.unwrap();
    }
    assert!(import.finish().await.unwrap().complete);
}

/// Fills a store with something of everything.
async fn fill(store: &dyn Store) {
    store.put_cost_configs(&prompt_engine::seed_prices(), 0).await.unwrap();
    for slug in ["a", "b"] {
        let (mut prompt, first) = testkit::prompt(slug);
        prompt.name = "NUL \0 and \u{10ffff}".to_owned();
        store.insert_prompt(&prompt, &[first]).await.unwrap();
        let second = testkit::next(&prompt, 2);
        store.update_prompt(&second, Some(&testkit::version(&prompt, 2))).await.unwrap();
    }
    let mut revisions = Vec::new();
    for block in 0..rounds(3, 100) {
        let mut records: Vec<Record> = Vec::new();
        for n in 0..1_000_i64 {
            let moment = testkit::at(i64::try_from(block).unwrap() * 3_600 + n);
            let (usage, mut execution) = testkit::call(moment);
            match n % 10 {
                0 => execution = testkit::pending(&usage, moment),
                1 => execution = testkit::failed(&testkit::pending(&usage, moment)),
                2 => revisions.push(CostRevision {
                    id: execution.id,
                    expected: execution.cost.unwrap(),
                    past: None,
                    new: testkit::reported(i128::from(n)),
                    priced_model: None,
                    at: testkit::at(n),
                }),
                _ => {}
            }
            records.extend([usage.into(), execution.into()]);
        }
        store.append(&records).await.unwrap();
        store.revise_costs(&std::mem::take(&mut revisions)).await.unwrap();
    }
    let (payloads_before, raw_before) = (Some(testkit::at(3_900)), Some(testkit::at(3_600)));
    store.prune(&Prune { payloads_before, raw_before, limit: 1_000_000 }).await.unwrap();
}

async fn answers(store: &dyn Store) -> Vec<AggregateRow> {
    let bucket = Some(Bucket { width: BucketWidth::Hour, zone: "Asia/Kolkata".parse().unwrap() });
    let group_by = vec![Dimension::Provider, Dimension::Model, Dimension::Environment];
    let statuses = vec![prompt_engine::Status::Error, prompt_engine::Status::Pending];
    let filter = Filter { statuses, ..Filter::default() };
    let mut rows = Vec::new();
    for query in [
        AggregateQuery::default(),
        AggregateQuery { bucket, group_by, ..AggregateQuery::default() },
        AggregateQuery { filter, ..AggregateQuery::default() },
    ] {
        rows.extend(store.aggregate(&query).await.unwrap().rows);
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_moves_through_all_and_back_and_stays_the_same() {
    let places = [Place::sqlite(), Place::postgres(), Place::redb(), Place::sqlite()];
    let first = open_store(&places[0].url, true).await.unwrap();
    fill(&*first).await;
    let (bytes, expected) = (export(&first).await, answers(&*first).await);
    for place in &places[1..] {
        let store = open_store(&place.url, true).await.unwrap();
        import(&store, &bytes).await;
        import(&store, &bytes).await;
        assert!(export(&store).await == bytes, "{} exports something else", place.name);
        assert!(answers(&*store).await == expected, "{} answers something else", place.name);
    }
}
