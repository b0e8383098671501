//! Files that are cut short or overwritten: refused with the name of the file, never a panic, never
//! silently emptied.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;

use prompt_engine_core::testkit::{at, call};
use prompt_engine_core::{
    AggregateQuery, CostStore, ErrorKind, Order, Prune, Record, RecordQuery, RecordStore, Result,
};
use prompt_engine_store_sqlite::{SqliteConfig, SqliteStore};
use rusqlite::Connection;
use tempfile::tempdir;

const CALLS: usize = 300;

/// A file with calls in it, closed, so that all of it is in the file itself.
async fn filled(path: &Path) -> Vec<u8> {
    let store = SqliteStore::open(SqliteConfig::new(path)).await.unwrap();
    let records: Vec<Record> = (0..300)
        .flat_map(|n| {
            let (usage, execution) = call(at(n));
            [Record::from(usage), execution.into()]
        })
        .collect();
    store.append(&records).await.unwrap();
    drop(store);
    fs::read(path).unwrap()
}

/// How many usages and executions can be read, all with their payloads.
async fn readable(path: &Path) -> Result<(usize, usize)> {
    let store = SqliteStore::open(SqliteConfig::new(path)).await?;
    let mut query = RecordQuery { order: Order::OldestFirst, ..RecordQuery::default() };
    (query.payloads, query.page.limit) = (true, 10_000);
    store.aggregate(&AggregateQuery::default()).await?;
    store.cost_configs().await?;
    let usages = store.list_usages(&query).await?.items.len();
    Ok((usages, store.list_executions(&query).await?.items.len()))
}

#[tokio::test]
async fn a_file_that_was_cut_short_is_refused_or_whole() {
    let folder = tempdir().unwrap();
    let whole = filled(&folder.path().join("whole.db")).await;
    let cut = folder.path().join("cut.db");
    let mut refusals = 0;
    // A file shorter than a page holds nothing that could be lost: SQLite takes it for a new one.
    for length in (4_096..whole.len()).step_by(whole.len() / 61) {
        fs::write(&cut, &whole[..length]).unwrap();
        match readable(&cut).await {
            Ok(found) => assert_eq!(found, (CALLS, CALLS), "cut after {length} bytes"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{length}: {}", error.chain());
                assert!(error.to_string().contains("cut.db"), "{}", error.chain());
                assert_eq!(fs::read(&cut).unwrap().len(), length, "it was not left alone");
                refusals += 1;
            }
        }
    }
    assert!(refusals > 55, "only {refusals} refusals");
}

#[tokio::test]
async fn a_file_that_was_overwritten_is_refused_or_all_there() {
    let folder = tempdir().unwrap();
    let whole = filled(&folder.path().join("whole.db")).await;
    let damaged = folder.path().join("damaged.db");
    let mut refusals = 0;
    for start in (0..whole.len() - 2_048).step_by(4_096) {
        let mut bytes = whole.clone();
        bytes[start..start + 2_048].iter_mut().for_each(|byte| *byte ^= 0x5a);
        fs::write(&damaged, &bytes).unwrap();
        for log in ["db-wal", "db-shm"] {
            drop(fs::remove_file(damaged.with_extension(log)));
        }
        match readable(&damaged).await {
            Ok(found) => assert_eq!(found, (CALLS, CALLS), "damaged at {start}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{start}: {}", error.chain());
                assert!(error.to_string().contains("damaged.db"), "{}", error.chain());
                refusals += 1;
            }
        }
    }
    assert!(refusals > 20, "only {refusals} refusals");
}

#[tokio::test]
async fn a_damaged_pack_fails_who_reads_it_and_hinders_no_pruning() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("prompts.db");
    filled(&path).await;
    let conn = Connection::open(&path).unwrap();
    let damaged = "UPDATE prompt_engine_payload_packs SET data = substr(data, 1, 20) WHERE id = 1";
    assert_eq!(conn.execute(damaged, []).unwrap(), 1);
    let lost = "DELETE FROM prompt_engine_payload_packs WHERE id = 2";
    assert_eq!(conn.execute(lost, []).unwrap(), 1);
    let error = readable(&path).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("prompts.db"), "{}", error.chain());
    let store = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
    // The second cut lies within the first pack, the last behind both.
    for (before, pruned) in [(2, 4), (10, 16), (200, 380)] {
        let prune = Prune { payloads_before: Some(at(before)), raw_before: None, limit: 1_000 };
        assert_eq!(store.prune(&prune).await.unwrap().payloads, pruned);
    }
    let left = "SELECT count(*) FROM prompt_engine_payload_packs WHERE id < 3";
    assert_eq!(conn.query_row(left, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    assert_eq!(readable(&path).await.unwrap(), (CALLS, CALLS));
}
