//! Disks that fail: full at any write, gone at any sync. The disk is in memory.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prompt_engine_core::conformance::arbitrary::Arbitrary;
use prompt_engine_core::{
    AggregateQuery, AggregateRow, Attribution, Dimension, ErrorKind, PromptId, Record, RecordStore,
    Source, Timestamp, Usage, UsageId, UsagePayload,
};
use redb::{Database, StorageBackend};

use super::{RedbStore, begin, set_meta};
use crate::error::Outcome;
use crate::layout::{CELL_DURATIONS, CELLS, CHANGES, PAYLOAD_PACKS, WITHOUT_CELLS};

/// A disk that stays when a database is closed.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    bytes: Vec<u8>,
    /// How many writes still find room; all, if none is set.
    room: Option<usize>,
    /// What survives the loss of power, at each sync.
    synced: Vec<Vec<u8>>,
    keeps_synced: bool,
}

impl Disk {
    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(bytes: Vec<u8>) -> Self {
        let disk = Self::default();
        disk.platter().bytes = bytes;
        disk
    }

    async fn store(&self) -> prompt_engine_core::Result<RedbStore> {
        let disk = self.clone();
        let open = move || -> Outcome<Database> {
            Ok(Database::builder().create_with_backend(disk.clone())?)
        };
        RedbStore::open_by(PathBuf::from("a disk"), Box::new(open)).await
    }
}

impl Platter {
    fn take_room(&mut self) -> io::Result<()> {
        match &mut self.room {
            Some(0) => Err(io::ErrorKind::StorageFull.into()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

fn at(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.platter().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.platter();
        let bytes = platter.bytes.get(at(offset)..at(offset) + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.platter();
        if at(len) > platter.bytes.len() {
            platter.take_room()?;
        }
        platter.bytes.resize(at(len), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.platter();
        if platter.keeps_synced {
            let bytes = platter.bytes.clone();
            platter.synced.push(bytes);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platter = self.platter();
        platter.take_room()?;
        let range = at(offset)..at(offset) + data.len();
        platter.bytes.get_mut(range).ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        Ok(())
    }
}

/// A batch whose records are told apart by `number`.
fn batch(number: u8) -> Vec<Record> {
    let usage = |n: u8| Usage {
        id: UsageId::from_bytes([number, n, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        attribution: Attribution {
            prompt: PromptId::from_bytes([number; 16]),
            version: 1,
            environment: format!("environment {number}").parse().unwrap(),
            session: Some("s".parse().unwrap()),
            user: None,
        },
        created_at: Timestamp::from_micros(i64::from(n)).unwrap(),
        payload: Some(Arc::new(UsagePayload {
            content: format!("{number}/{n} ").repeat(200),
            ..Default::default()
        })),
    };
    (0..20).map(|n| usage(n).into()).collect()
}

async fn uses(store: &RedbStore) -> u64 {
    let rows = store.aggregate(&AggregateQuery::default()).await.unwrap().rows;
    rows[0].measures.uses.unwrap()
}

async fn assert_all_there(store: &RedbStore, batches: u8, note: &str) {
    for number in 0..batches {
        for record in batch(number) {
            let Record::Usage(usage) = record else { unreachable!("all are usages") };
            let found = store.usage(usage.id).await.unwrap();
            assert_eq!(found, Some(usage), "{note}");
        }
    }
}

/// Whichever write finds the disk full: the batch is refused with a clear error and leaves no
/// trace, what was acknowledged stays, and when there is room again the same handle goes on.
#[tokio::test]
async fn a_disk_that_is_full_at_any_write_costs_one_batch_and_no_more() {
    let disk = Disk::default();
    let store = disk.store().await.unwrap();
    store.append(&batch(0)).await.unwrap();
    drop(store);
    let start = disk.platter().bytes.clone();
    let mut refused = 0;
    for room in 0.. {
        let disk = Disk::of(start.clone());
        let store = disk.store().await.unwrap();
        disk.platter().room = Some(room);
        let mut acknowledged = 1;
        let mut error = None;
        while acknowledged < 4 && error.is_none() {
            match store.append(&batch(acknowledged)).await {
                Ok(_) => acknowledged += 1,
                Err(failed) => error = Some(failed),
            }
        }
        disk.platter().room = None;
        let note = format!("room for {room} writes");
        assert_all_there(&store, acknowledged, &note).await;
        assert_eq!(uses(&store).await, 20 * u64::from(acknowledged), "{note}");
        let Some(error) = error else { break };
        refused += 1;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{note}: {}", error.chain());
        assert!(error.to_string().contains("the disk is full"), "{note}: {}", error.chain());
        assert_eq!(store.append(&batch(acknowledged)).await.unwrap().stored, 20, "{note}");
        drop(store);
        let store = disk.store().await.unwrap();
        assert_all_there(&store, acknowledged + 1, &note).await;
    }
    assert!(refused > 20, "only {refused} writes were ever refused");
}

/// Whenever the power goes, what was acknowledged before is there, and nothing is half there.
#[tokio::test]
async fn a_disk_that_stops_at_any_sync_has_all_that_was_acknowledged() {
    let disk = Disk::default();
    let store = disk.store().await.unwrap();
    disk.platter().keeps_synced = true;
    // After which sync each batch was acknowledged.
    let mut acknowledged = Vec::new();
    for number in 0..6 {
        store.append(&batch(number)).await.unwrap();
        acknowledged.push(disk.platter().synced.len());
        if number % 2 == 1 {
            assert_eq!(store.fold().await.unwrap().changes, 40);
        }
    }
    let synced = std::mem::take(&mut disk.platter().synced);
    drop(store);
    for (sync, bytes) in (1..).zip(synced) {
        let store = Disk::of(bytes).store().await.unwrap();
        let batches = acknowledged.iter().filter(|last| **last <= sync).count();
        let note = format!("power lost after sync {sync}");
        assert_all_there(&store, u8::try_from(batches).unwrap(), &note).await;
        let stored = uses(&store).await;
        assert!(stored.is_multiple_of(20), "{note}: half a batch, {stored}");
        assert!(stored >= 20 * batches as u64, "{note}: {stored}");
        assert_cubes_are_right(&store, &note).await;
    }
}

/// The answers of every cube, or of the records.
async fn answers(store: &RedbStore, source: Source) -> Vec<Vec<AggregateRow>> {
    let mut answers = Vec::new();
    for group_by in [
        vec![],
        vec![Dimension::Prompt],
        vec![Dimension::Provider],
        vec![Dimension::Version, Dimension::Model],
    ] {
        let query = AggregateQuery { group_by, source, ..AggregateQuery::default() };
        answers.push(store.aggregate(&query).await.unwrap().rows);
    }
    answers
}

async fn assert_cubes_are_right(store: &RedbStore, note: &str) {
    assert_eq!(answers(store, Source::Any).await, answers(store, Source::Records).await, "{note}");
}

/// A disk with folded and with waiting changes.
async fn half_folded() -> (Vec<u8>, Vec<Vec<AggregateRow>>) {
    let disk = Disk::default();
    let store = disk.store().await.unwrap();
    let mut random = Arbitrary::new(91, 86_400);
    for fold in [true, false] {
        let records: Vec<Record> = (0..40).flat_map(|_| random.records()).collect();
        store.append(&records).await.unwrap();
        if fold {
            store.fold().await.unwrap();
        }
    }
    let expected = answers(&store, Source::Records).await;
    drop(store);
    let bytes = disk.platter().bytes.clone();
    (bytes, expected)
}

/// Whichever write finds the disk full: a fold loses nothing and counts nothing twice, and the same
/// handle folds when there is room again.
#[tokio::test]
async fn a_fold_that_finds_the_disk_full_at_any_write_changes_no_answer() {
    let (start, expected) = half_folded().await;
    let mut refused = 0;
    for room in 0.. {
        let disk = Disk::of(start.clone());
        let store = disk.store().await.unwrap();
        disk.platter().room = Some(room);
        let folded = store.fold().await;
        disk.platter().room = None;
        let note = format!("room for {room} writes");
        assert_eq!(answers(&store, Source::Any).await, expected, "{note}");
        let Err(error) = folded else {
            assert_eq!(store.fold().await.unwrap().changes, 0, "{note}");
            break;
        };
        refused += 1;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{note}: {}", error.chain());
        assert!(store.fold().await.unwrap().changes > 0, "{note}");
        assert_eq!(answers(&store, Source::Any).await, expected, "{note}");
        drop(store);
        let store = disk.store().await.unwrap();
        assert_eq!(store.fold().await.unwrap().changes, 0, "{note}");
        assert_eq!(answers(&store, Source::Any).await, expected, "{note}");
    }
    assert!(refused > 10, "only {refused} writes were ever refused");
}

/// Whichever write finds the disk full while a file of format 1 gets its cells: it stays what it was, and
/// is opened when there is room again.
#[tokio::test]
async fn a_file_that_finds_the_disk_full_as_it_gets_cells_gets_them_later() {
    let (bytes, expected) = half_folded().await;
    let older = Disk::of(bytes);
    let database = Database::builder().create_with_backend(older.clone()).unwrap();
    let transaction = begin(&database).unwrap();
    transaction.delete_table(CHANGES).unwrap();
    transaction.delete_table(CELLS).unwrap();
    transaction.delete_table(CELL_DURATIONS).unwrap();
    transaction.delete_table(PAYLOAD_PACKS).unwrap();
    set_meta(&transaction, super::FORMAT_NAME, WITHOUT_CELLS).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let start = older.platter().bytes.clone();
    let mut refused = 0;
    for room in 0.. {
        let disk = Disk::of(start.clone());
        disk.platter().room = Some(room);
        let opened = disk.store().await;
        disk.platter().room = None;
        let note = format!("room for {room} writes");
        let (store, done) = match opened {
            Ok(store) => (store, true),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{note}: {}", error.chain());
                (disk.store().await.unwrap(), false)
            }
        };
        refused += usize::from(!done);
        assert_eq!(answers(&store, Source::Any).await, expected, "{note}");
        store.fold().await.unwrap();
        assert_eq!(answers(&store, Source::Any).await, expected, "{note}");
        if done {
            break;
        }
    }
    assert!(refused > 10, "only {refused} writes were ever refused");
}
