//! redb: keys and values are read out of the file as they lie there, and inserted with the driver.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prompt_engine_core::Store;
use prompt_engine_core::codec::Place;
use prompt_engine_store_redb::{RedbConfig, RedbStore};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition};

use crate::Subject;

const FILE: &str = "prompts.redb";

/// The tables of a kind of record: see docs/redb-format.md.
struct Kind {
    rows: TableDefinition<'static, [u8; 24], &'static [u8]>,
    ids: TableDefinition<'static, [u8; 16], &'static [u8]>,
    index: TableDefinition<'static, &'static [u8], ()>,
    payloads: TableDefinition<'static, [u8; 24], &'static [u8]>,
}

const KINDS: [Kind; 2] = [
    Kind {
        rows: TableDefinition::new("usages"),
        ids: TableDefinition::new("usage_ids"),
        index: TableDefinition::new("usage_index"),
        payloads: TableDefinition::new("usage_payloads"),
    },
    Kind {
        rows: TableDefinition::new("executions"),
        ids: TableDefinition::new("execution_ids"),
        index: TableDefinition::new("execution_index"),
        payloads: TableDefinition::new("execution_payloads"),
    },
];

/// The pieces of the packs of payloads: the number of a pack, and that of a piece of it.
const PACKS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("payload_packs");

pub(crate) struct Redb;

impl Subject for Redb {
    const NAME: &'static str = "redb";

    async fn open(folder: &Path) -> Arc<dyn Store> {
        Arc::new(RedbStore::open(RedbConfig::new(folder.join(FILE))).await.expect("a store"))
    }

    fn raw(ours: &Path, raw: &Path, batches: &[usize]) -> Duration {
        let database = Database::open(ours.join(FILE)).expect("the file");
        let records = stored(&database.begin_read().expect("a snapshot")).expect("the records");
        assert_eq!(records.len(), batches.iter().sum::<usize>());
        let cache = RedbConfig::new("").cache_bytes;
        let raw = Database::builder().set_cache_size(cache).open(raw.join(FILE)).expect("a file");
        inserted(&raw, &records, batches).expect("raw inserts")
    }

    fn size(folder: &Path) -> u64 {
        std::fs::metadata(folder.join(FILE)).expect("a file").len()
    }
}

/// A stored record: its kind, and its keys and values in each table.
struct Record {
    kind: usize,
    place: [u8; 24],
    row: Vec<u8>,
    id: Vec<u8>,
    index: Vec<Vec<u8>>,
    payload: Vec<u8>,
    /// The pieces of the pack that was begun with it: it was stored in the batch of its first record.
    pieces: Vec<Piece>,
}

/// A piece of a pack: its key and its bytes.
type Piece = ((u64, u32), Vec<u8>);

/// All records in the order of their ids, which is that in which they were made.
fn stored(txn: &ReadTransaction) -> Result<Vec<Record>, redb::Error> {
    let mut records = Vec::new();
    for (kind, tables) in KINDS.iter().enumerate() {
        let mut index: HashMap<[u8; 24], Vec<Vec<u8>>> = HashMap::new();
        for entry in txn.open_table(tables.index)?.iter()? {
            let key = entry?.0.value().to_vec();
            let place = *key.last_chunk().expect("a place at the end");
            index.entry(place).or_default().push(key);
        }
        let ids = txn.open_table(tables.ids)?;
        let payloads = txn.open_table(tables.payloads)?;
        for entry in txn.open_table(tables.rows)?.iter()? {
            let (place, row) = entry?;
            let place = place.value();
            let id = ids.get(id_of(&place))?.expect("an id").value().to_vec();
            let payload = payloads.get(place)?.expect("a payload").value().to_vec();
            let index = index.remove(&place).unwrap_or_default();
            let (row, pieces) = (row.value().to_vec(), Vec::new());
            records.push(Record { kind, place, row, id, index, payload, pieces });
        }
    }
    records.sort_by_key(|record| id_of(&record.place));
    let mut packs = packs(txn)?;
    for record in &mut records {
        if let Some(place) = Place::of(&record.payload).expect("a payload or its place") {
            record.pieces = packs.remove(&place.pack).unwrap_or_default();
        }
    }
    assert!(packs.is_empty(), "each pack has a record");
    Ok(records)
}

/// The pieces of each pack.
fn packs(txn: &ReadTransaction) -> Result<HashMap<u64, Vec<Piece>>, redb::Error> {
    let mut packs: HashMap<u64, Vec<Piece>> = HashMap::new();
    for entry in txn.open_table(PACKS)?.iter()? {
        let (key, piece) = entry?;
        packs.entry(key.value().0).or_default().push((key.value(), piece.value().to_vec()));
    }
    Ok(packs)
}

fn id_of(place: &[u8; 24]) -> [u8; 16] {
    *place.last_chunk().expect("16 bytes")
}

/// Inserts `records` in `batches` and answers how long it took.
fn inserted(
    database: &Database,
    records: &[Record],
    batches: &[usize],
) -> Result<Duration, redb::Error> {
    let start = Instant::now();
    let mut rest = records;
    for batch in batches {
        let (now, later) = rest.split_at(*batch);
        rest = later;
        let mut txn = database.begin_write()?;
        txn.set_quick_repair(true);
        for (kind, tables) in KINDS.iter().enumerate() {
            let mut rows = txn.open_table(tables.rows)?;
            let mut ids = txn.open_table(tables.ids)?;
            let mut index = txn.open_table(tables.index)?;
            let mut payloads = txn.open_table(tables.payloads)?;
            for record in now.iter().filter(|record| record.kind == kind) {
                rows.insert(record.place, &*record.row)?;
                ids.insert(id_of(&record.place), &*record.id)?;
                for key in &record.index {
                    index.insert(&**key, ())?;
                }
                payloads.insert(record.place, &*record.payload)?;
            }
        }
        let mut packs = txn.open_table(PACKS)?;
        for (key, piece) in now.iter().flat_map(|record| &record.pieces) {
            packs.insert(key, &**piece)?;
        }
        drop(packs);
        txn.commit()?;
    }
    let took = start.elapsed();
    assert!(rest.is_empty(), "the batches hold every record");
    let txn = database.begin_read()?;
    for tables in KINDS {
        let count = redb::ReadableTableMetadata::len(&txn.open_table(tables.rows)?)?;
        assert_eq!(usize::try_from(count), Ok(records.len() / 2));
    }
    Ok(took)
}
