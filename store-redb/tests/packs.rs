//! Packs of payloads as they lie in the file: what is in them, what pruning leaves, and damage. What the
//! bytes of a pack mean is tested in core, what every store does with them in the conformance suite.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use prompt_engine_core::codec::{self, Pack, Place};
use prompt_engine_core::conformance::arbitrary::{Arbitrary, at, call, pending};
use prompt_engine_core::{
    Error, ErrorKind, LlmExecution, Order, Prune, Record, RecordQuery, RecordStore, Result, Usage,
    UsagePayload,
};
use prompt_engine_store_redb::{RedbConfig, RedbStore};
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use serde::de::IgnoredAny;
use tempfile::tempdir;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const USAGE_PAYLOADS: TableDefinition<'_, [u8; 24], &[u8]> = TableDefinition::new("usage_payloads");
const EXECUTION_PAYLOADS: TableDefinition<'_, [u8; 24], &[u8]> =
    TableDefinition::new("execution_payloads");
const PACKS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("payload_packs");

async fn open(path: &Path) -> RedbStore {
    RedbStore::open(RedbConfig::new(path)).await.unwrap()
}

/// Calls a second apart, each with 2,000 letters that no compressor makes much less of.
fn calls(count: i64) -> Vec<(Usage, LlmExecution)> {
    let mut random = Arbitrary::new(7, 1).rng;
    let mut one = |second| {
        let (mut usage, execution) = call(at(second));
        let content = (0..2_000).map(|_| random.alphanumeric()).collect();
        usage.payload = Some(Arc::new(UsagePayload { content, ..Default::default() }));
        (usage, execution)
    };
    (0..count).map(&mut one).collect()
}

fn records(calls: &[(Usage, LlmExecution)]) -> Vec<Record> {
    calls.iter().flat_map(|(u, e)| [u.clone().into(), e.clone().into()]).collect()
}

/// All that is kept, with payloads, in order.
async fn stored(store: &RedbStore) -> Result<Vec<(Usage, LlmExecution)>> {
    let mut query = RecordQuery { order: Order::OldestFirst, ..RecordQuery::default() };
    (query.payloads, query.page.limit) = (true, 1_000);
    let usages = store.list_usages(&query).await?.items;
    let executions = store.list_executions(&query).await?.items;
    Ok(usages.into_iter().zip(executions).collect())
}

/// The pieces of each pack of a closed file.
fn pieces(path: &Path) -> BTreeMap<u64, Vec<Vec<u8>>> {
    let database = Database::open(path).unwrap();
    let transaction = database.begin_read().unwrap();
    let mut packs: BTreeMap<u64, Vec<Vec<u8>>> = BTreeMap::new();
    for entry in transaction.open_table(PACKS).unwrap().iter().unwrap() {
        let (key, piece) = entry.unwrap();
        packs.entry(key.value().0).or_default().push(piece.value().to_vec());
    }
    packs
}

/// The packs of a closed file.
fn packs(path: &Path) -> BTreeMap<u64, Pack> {
    let read =
        |(number, pieces): (_, Vec<Vec<u8>>)| (number, Pack::read(&pieces.concat()).unwrap());
    pieces(path).into_iter().map(read).collect()
}

/// Where the payloads of the usages of a closed file lie; `None` for one that lies alone.
fn places(path: &Path) -> Vec<Option<Place>> {
    let database = Database::open(path).unwrap();
    let transaction = database.begin_read().unwrap();
    let table = transaction.open_table(USAGE_PAYLOADS).unwrap();
    table.iter().unwrap().map(|entry| Place::of(entry.unwrap().1.value()).unwrap()).collect()
}

/// Works on the table of pieces of a closed file.
fn change(path: &Path, work: impl FnOnce(&mut redb::Table<'_, (u64, u32), &'static [u8]>)) {
    let database = Database::open(path).unwrap();
    let transaction = database.begin_write().unwrap();
    work(&mut transaction.open_table(PACKS).unwrap());
    transaction.commit().unwrap();
}

/// Makes of a closed file that holds these calls one of format 2, where all payloads lie alone.
fn without_packs(path: &Path, calls: &[(Usage, LlmExecution)]) {
    let database = Database::open(path).unwrap();
    let transaction = database.begin_write().unwrap();
    assert!(transaction.delete_table(PACKS).unwrap());
    {
        let mut usages = transaction.open_table(USAGE_PAYLOADS).unwrap();
        let mut executions = transaction.open_table(EXECUTION_PAYLOADS).unwrap();
        for (usage, execution) in calls {
            let start = (usage.created_at.as_micros().cast_unsigned() ^ 1 << 63).to_be_bytes();
            let place = |id: [u8; 16]| <[u8; 24]>::try_from([&start[..], &id].concat()).unwrap();
            let payload = codec::encode(usage.payload.as_ref().unwrap()).unwrap();
            assert!(usages.insert(place(usage.id.to_bytes()), &*payload).unwrap().is_some());
            let payload = codec::encode(execution.payload.as_ref().unwrap()).unwrap();
            let id = execution.id.to_bytes();
            assert!(executions.insert(place(id), &*payload).unwrap().is_some());
        }
        let mut meta = transaction.open_table(META).unwrap();
        meta.insert("format", &[1, 0x80, 0, 0, 0, 0, 0, 0, 2][..]).unwrap();
    }
    transaction.commit().unwrap();
}

#[tokio::test]
async fn a_file_of_format_2_keeps_its_payloads_and_gets_packs() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("older.redb");
    let calls = calls(30);
    let (old, new) = calls.split_at(20);
    let store = open(&path).await;
    store.append(&records(old)).await.unwrap();
    drop(store);
    without_packs(&path, old);

    let store = open(&path).await;
    assert!(!store.created());
    assert_eq!(stored(&store).await.unwrap(), old);
    store.append(&records(new)).await.unwrap();
    assert_eq!(stored(&store).await.unwrap(), calls);
    drop(store);
    assert_eq!(places(&path).iter().filter(|place| place.is_none()).count(), 20);
    assert_eq!(packs(&path).len(), 1);
    // Those that lie alone expire with those that do not.
    let store = open(&path).await;
    let prune = Prune { payloads_before: Some(at(100)), raw_before: None, limit: 1_000 };
    assert_eq!(store.prune(&prune).await.unwrap().payloads, 60);
    drop(store);
    assert_eq!((packs(&path).len(), places(&path).len()), (0, 0));
}

#[tokio::test]
async fn payloads_that_are_stored_together_lie_in_one_pack() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("packs.redb");
    let calls = calls(3);
    let store = open(&path).await;
    // One that has no company, and one that will be replaced.
    store.append(&[calls[0].0.clone().into()]).await.unwrap();
    let mut open_call = pending(&calls[1].0, at(1));
    open_call.payload = calls[1].1.payload.clone();
    store.append(&[calls[1].0.clone().into(), open_call.into()]).await.unwrap();
    drop(store);
    assert_eq!(packs(&path).len(), 0);
    let store = open(&path).await;
    store.append(&records(&calls[2..])).await.unwrap();
    store.append(&[calls[0].1.clone().into()]).await.unwrap();
    drop(store);
    let packs = packs(&path);
    assert_eq!(packs.keys().collect::<Vec<_>>(), [&1]);
    assert_eq!(packs[&1].get::<UsagePayload>(0).unwrap(), **calls[2].0.payload.as_ref().unwrap());
    assert_eq!(places(&path), [None, None, Some(Place { pack: 1, line: 0 })]);
}

#[tokio::test]
async fn a_record_that_was_there_leaves_nothing_in_a_new_pack() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("overlap.redb");
    let calls = calls(8);
    let store = open(&path).await;
    store.append(&records(&calls[..4])).await.unwrap();
    store.append(&records(&calls[..4])).await.unwrap();
    store.append(&records(&calls[2..])).await.unwrap();
    assert_eq!(stored(&store).await.unwrap(), calls);
    drop(store);
    let packs = packs(&path);
    assert_eq!(packs.keys().collect::<Vec<_>>(), [&1, &2]);
    let there = |pack: &Pack, line| pack.get::<IgnoredAny>(line).is_ok();
    assert!((0..8).all(|line| there(&packs[&1], line)));
    assert!((0..4).all(|line| !there(&packs[&2], line)));
    assert!((4..12).all(|line| there(&packs[&2], line)));
}

/// Were pieces a little longer, redb would give each two pages; a little shorter, and room is left.
#[tokio::test]
async fn a_piece_fills_a_leaf() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("pieces.redb");
    let store = open(&path).await;
    for calls in calls(1_000).chunks(100) {
        store.append(&records(calls)).await.unwrap();
    }
    drop(store);
    let pieces = pieces(&path);
    let full = pieces.values().map(|pieces| pieces.len() - 1).sum::<usize>();
    let lengths = pieces.values().flat_map(|pieces| &pieces[..pieces.len() - 1]).map(Vec::len);
    assert!(full > 300 && lengths.max() == Some(4_076), "{full}");
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_read().unwrap();
    let table = transaction.open_table(PACKS).unwrap();
    let stats = table.stats().unwrap();
    assert!(stats.leaf_pages() <= table.len().unwrap(), "{stats:?}");
    assert!(stats.fragmented_bytes() < stats.stored_bytes() / 20, "{stats:?}");
}

#[tokio::test]
async fn what_is_pruned_is_gone_from_its_pack() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("pruned.redb");
    let mut calls = calls(30);
    let store = open(&path).await;
    store.append(&records(&calls)).await.unwrap();
    drop(store);
    let before = pieces(&path)[&1].len();

    let store = open(&path).await;
    let prune = Prune { payloads_before: Some(at(20)), raw_before: None, limit: 25 };
    assert_eq!(store.prune(&prune).await.unwrap().payloads, 25);
    assert_eq!(store.prune(&prune).await.unwrap().payloads, 15);
    for (usage, execution) in &mut calls[..20] {
        (usage.payload, execution.payload) = (None, None);
    }
    assert_eq!(stored(&store).await.unwrap(), calls);
    drop(store);
    let pack = &packs(&path)[&1];
    for line in 0..60 {
        assert_eq!(pack.get::<IgnoredAny>(line).is_ok(), line >= 40, "{line}");
    }
    let after = pieces(&path)[&1].len();
    assert!(after <= before / 2, "{before} pieces became {after}");

    // Records take along what is left, and a pack that has forgotten all is none.
    let store = open(&path).await;
    let prune = Prune { payloads_before: None, raw_before: Some(at(900)), limit: 1_000 };
    assert_eq!(store.prune(&prune).await.unwrap().usages, 30);
    drop(store);
    assert_eq!(pieces(&path).len(), 0);
}

/// redb shortens a file seldom, but writes again where something lay before, and when it is compacted.
#[tokio::test]
async fn the_room_of_what_was_pruned_is_used_again_or_given_back() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("rounds.redb");
    let store = open(&path).await;
    let mut lengths = Vec::new();
    for round in 0..10 {
        let mut calls = calls(200);
        for (usage, execution) in &mut calls {
            let later = std::time::Duration::from_secs(round * 900);
            usage.created_at = usage.created_at.saturating_add(later);
            execution.created_at = execution.created_at.saturating_add(later);
        }
        store.append(&records(&calls)).await.unwrap();
        let before = calls[199].0.created_at.saturating_add(std::time::Duration::from_secs(1));
        let prune = Prune { payloads_before: Some(before), raw_before: None, limit: 10_000 };
        assert_eq!(store.prune(&prune).await.unwrap().payloads, 400);
        lengths.push(std::fs::metadata(&path).unwrap().len());
    }
    assert!(lengths[9] <= lengths[2], "{lengths:?}");
    store.compact().await.unwrap();
    let compacted = std::fs::metadata(&path).unwrap().len();
    assert!(compacted < lengths[9] / 4 * 3, "{lengths:?}, then {compacted}");
}

/// What is done to the pieces of a pack, and what of its neighbours' payloads is said then.
#[tokio::test]
async fn a_damaged_pack_is_refused_and_the_rest_is_read() {
    let folder = tempdir().unwrap();
    let whole = folder.path().join("whole.redb");
    let calls = calls(30);
    let store = open(&whole).await;
    store.append(&records(&calls)).await.unwrap();
    drop(store);
    let pieces = pieces(&whole).remove(&1).unwrap();
    let last = u32::try_from(pieces.len()).unwrap() - 1;
    assert!(last > 5);

    type Damage = Box<dyn FnOnce(&mut redb::Table<'_, (u64, u32), &'static [u8]>)>;
    let put = |number, piece: Vec<u8>| -> Damage {
        Box::new(move |table| drop(table.insert((1, number), &*piece).unwrap()))
    };
    let remove =
        |number| -> Damage { Box::new(move |table| drop(table.remove((1, number)).unwrap())) };
    let turned = |piece: &[u8], at: usize| {
        let mut piece = piece.to_vec();
        piece[at] ^= 0xff;
        piece
    };
    let damages: [(&str, Damage); 9] = [
        ("no pieces", Box::new(|table| table.retain(|_, _| false).unwrap())),
        ("the first is missing", remove(0)),
        ("one is missing", remove(3)),
        ("the last is missing", remove(last)),
        ("one more", put(last + 1, vec![1; 9])),
        ("a number is missing", put(last + 2, vec![1; 9])),
        ("one is cut off", put(2, pieces[2][..1_000].to_vec())),
        ("one is empty", put(1, Vec::new())),
        ("no frame", put(0, turned(&pieces[0], 4))),
    ];
    for (number, (name, damage)) in (0..).zip(damages) {
        let path = folder.path().join(format!("damaged-{number}.redb"));
        std::fs::copy(&whole, &path).unwrap();
        change(&path, damage);
        let store = open(&path).await;
        let refused = |error: Error| {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {}", error.chain());
            assert!(error.to_string().contains("damaged-"), "{name}: {error}");
        };
        refused(stored(&store).await.unwrap_err());
        refused(store.usage(calls[3].0.id).await.unwrap_err());
        let rows = store.list_usages(&RecordQuery::default()).await.unwrap().items;
        assert_eq!(rows.len(), 30, "{name}");
        // A call that is stored now is in no other's way.
        let (usage, execution) = call(at(99));
        store.append(&[usage.clone().into(), execution.into()]).await.unwrap();
        assert_eq!(store.usage(usage.id).await.unwrap(), Some(usage), "{name}");
        // What is damaged hinders no pruning.
        let prune = Prune { payloads_before: Some(at(99)), raw_before: None, limit: 1_000 };
        assert_eq!(store.prune(&prune).await.unwrap().payloads, 60, "{name}");
    }
}
