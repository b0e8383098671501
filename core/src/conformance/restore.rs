//! Taking in what records add up to that were pruned in another store.

use std::sync::Arc;

use super::aggregate::arbitrary_query;
use super::arbitrary::{Arbitrary, at};
use super::{Fixture, refused};
use crate::cube::{Cube, horizon_of};
use crate::error::ErrorKind;
use crate::memory::MemoryStore;
use crate::pruned::{PrunedOf, PrunedSums};
use crate::record::Record;
use crate::status::Status;
use crate::store::{Prune, RecordStore, Restored};
use crate::time::{TimeRange, Timestamp};

const SPAN: i64 = 2 * 86_400;

fn horizon() -> Timestamp {
    horizon_of(at(SPAN - 3_600))
}

/// Records of a version range of their own, those that finished alone: of others nothing is left.
fn records(seed: u64, versions_above: u32) -> Vec<Record> {
    let mut random = Arbitrary::new(seed, SPAN);
    let mut records: Vec<Record> = (0..60).flat_map(|_| random.records()).collect();
    records.retain(|record| match record {
        Record::Usage(_) => true,
        Record::Execution(call) => call.status.is_final(),
    });
    for record in &mut records {
        match record {
            Record::Usage(usage) => usage.attribution.version += versions_above,
            Record::Execution(call) => call.attribution.version += versions_above,
        }
    }
    records
}

async fn prune(store: &dyn RecordStore) {
    let prune = Prune { payloads_before: None, raw_before: Some(horizon()), limit: u32::MAX };
    store.prune(&prune).await.unwrap();
}

async fn pruned(records: &[Record]) -> MemoryStore {
    let store = MemoryStore::new();
    store.append(records).await.unwrap();
    prune(&store).await;
    store
}

async fn sums_of(store: &dyn RecordStore) -> Vec<PrunedSums> {
    let range = TimeRange { from: None, to: Some(horizon()) };
    PrunedSums::of(store, range).await.unwrap()
}

/// Answers from cubes are those of a store that pruned the records itself.
async fn answers_as(store: &dyn RecordStore, expected: &dyn RecordStore) {
    let mut random = Arbitrary::new(7, SPAN);
    let mut asked = 0;
    while asked < 40 {
        let query = arbitrary_query(&mut random);
        if Cube::covering(&query).is_some() {
            let rows = store.aggregate(&query).await.unwrap().rows;
            assert_eq!(rows, expected.aggregate(&query).await.unwrap().rows, "{query:?}");
            asked += 1;
        }
    }
}

/// Sums come over whole, in parts, and once.
pub async fn sums_of_pruned_records_are_taken_in_once(fx: Fixture) {
    let mut records = records(61, 0);
    records.retain(|record| record.created_at() < horizon());
    let from = pruned(&records).await;
    let sums = sums_of(&from).await;
    prune(&*fx.store).await;
    let mut new = 0;
    for part in sums.chunks(sums.len() / 3) {
        new += fx.store.restore(part).await.unwrap().new;
    }
    assert_eq!(new, sums.len() as u64);
    answers_as(&*fx.store, &from).await;
    let fx = fx.reopened().await;
    assert_eq!(fx.store.restore(&sums).await.unwrap(), Restored::default());
    assert_eq!(fx.store.restore(&[]).await.unwrap(), Restored::default());
    answers_as(&*fx.store, &from).await;
    assert_eq!(sums_of(&*fx.store).await, sums);
}

/// Those that are here stay, in the same quarters as well, and so do records that are not pruned.
pub async fn sums_come_beside_those_that_are_here(fx: Fixture) {
    let (here, there) = (records(62, 0), records(63, 1_000));
    let sums = sums_of(&pruned(&there).await).await;
    fx.append(&here).await;
    prune(&*fx.store).await;
    let done = Restored { new: sums.len() as u64, ..Restored::default() };
    assert_eq!(fx.store.restore(&sums).await.unwrap(), done);
    let gone = there.into_iter().filter(|record| record.created_at() < horizon());
    let all: Vec<Record> = here.into_iter().chain(gone).collect();
    let both = pruned(&all).await;
    answers_as(&*fx.store, &both).await;
    while fx.store.fold().await.unwrap().more {}
    answers_as(&*fx.store, &both).await;
}

/// What another store pruned and this one still has is not counted again.
pub async fn sums_of_records_that_are_here_change_nothing(fx: Fixture) {
    let records = records(64, 0);
    let sums = sums_of(&pruned(&records).await).await;
    fx.append(&records).await;
    let model = MemoryStore::new();
    model.append(&records).await.unwrap();
    assert_eq!(fx.store.restore(&sums).await.unwrap(), Restored::default());
    answers_as(&*fx.store, &model).await;
    // The same once they were pruned here, too.
    prune(&*fx.store).await;
    assert_eq!(fx.store.restore(&sums).await.unwrap(), Restored::default());
    assert_eq!(sums_of(&*fx.store).await, sums);
}

/// A sum that differs, or of which records may still come, changes nothing and is counted; the others of
/// its batch come.
pub async fn sums_that_contradict_are_left_out_and_the_others_come(fx: Fixture) {
    let sums = sums_of(&pruned(&records(65, 0)).await).await;
    let all = sums.len() as u64;
    // Without a horizon records may still come.
    let none = Restored { unpruned: all, ..Restored::default() };
    assert_eq!(fx.store.restore(&sums).await.unwrap(), none);
    assert_eq!(sums_of(&*fx.store).await, []);
    prune(&*fx.store).await;
    let is = |wanted: fn(&PrunedOf) -> bool| sums.iter().find(|sums| wanted(&sums.of)).unwrap();
    let uses = is(|of| matches!(of, PrunedOf::Uses(_)));
    let calls = is(|of| matches!(of, PrunedOf::Calls(_)));
    let at_the_horizon = PrunedSums { quarter: horizon(), ..uses.clone() };
    let batch = [vec![at_the_horizon.clone()], sums.clone()].concat();
    let done = Restored { new: all, other: 0, unpruned: 1 };
    assert_eq!(fx.store.restore(&batch).await.unwrap(), done);
    assert_eq!(sums_of(&*fx.store).await, sums);

    let new = PrunedSums { version: 999, ..uses.clone() };
    let more = PrunedSums { of: PrunedOf::Uses(1_000), ..uses.clone() };
    let mut later = calls.clone();
    if let PrunedOf::Calls(calls) = &mut later.of {
        calls.unpriced += 1;
        *calls.statuses.entry(Status::Success).or_default() += 1;
    }
    let batch = [more, new.clone(), at_the_horizon, later];
    for new in [1, 0] {
        let done = Restored { new, other: 2, unpruned: 1 };
        assert_eq!(fx.store.restore(&batch).await.unwrap(), done);
    }
    let mut now = sums_of(&*fx.store).await;
    now.retain(|sums| *sums != new);
    assert_eq!(now, sums);
}

/// Of a batch with one, none comes.
pub async fn sums_that_no_records_add_up_to_are_refused(fx: Fixture) {
    let sums = sums_of(&pruned(&records(65, 0)).await).await;
    prune(&*fx.store).await;
    let new = sums[0].clone();
    let none = PrunedSums { of: PrunedOf::Uses(0), ..new.clone() };
    let inside = PrunedSums { quarter: at(1), ..new.clone() };
    for wrong in [none, inside, new] {
        let batch = [sums.clone(), vec![wrong]].concat();
        refused(fx.store.restore(&batch).await, ErrorKind::Invalid);
        assert_eq!(sums_of(&*fx.store).await, []);
    }
}

/// Of several at once, all together take in each sum once.
pub async fn racing_restores_count_nothing_twice(fx: Fixture) {
    let from = pruned(&records(66, 0)).await;
    let sums = sums_of(&from).await;
    prune(&*fx.store).await;
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let (store, sums) = (Arc::clone(&fx.store), sums.clone());
            tokio::spawn(async move { store.restore(&sums).await.unwrap().new })
        })
        .collect();
    let mut new = 0;
    for task in tasks {
        new += task.await.unwrap();
    }
    assert_eq!(new, sums.len() as u64);
    assert_eq!(sums_of(&*fx.store).await, sums);
}
