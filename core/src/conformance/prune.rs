//! Deleting old payloads and old records, and the horizon that this leaves.

use super::aggregate::arbitrary_query;
use super::append::all_are_stored;
use super::arbitrary::{Arbitrary, at, at_micros, call, pending};
use super::{Fixture, refused};
use crate::aggregate::{AggregateQuery, Dimension, Source};
use crate::cube::Cube;
use crate::error::ErrorKind;
use crate::query::RecordQuery;
use crate::record::{LlmExecution, Record, Usage};
use crate::store::{Prune, Pruned};
use crate::time::{TimeRange, Timestamp};

fn raw(before: Timestamp, limit: u32) -> Prune {
    Prune { payloads_before: None, raw_before: Some(before), limit }
}

fn payloads(before: Timestamp, limit: u32) -> Prune {
    Prune { payloads_before: Some(before), raw_before: None, limit }
}

/// The start of a quarter of an hour: horizons lie at those.
fn quarter(n: i64) -> Timestamp {
    at(900 * n)
}

/// Appends a usage and an execution some seconds into each quarter of an hour until `count`.
async fn calls(fx: &Fixture, count: i64) -> Vec<(Usage, LlmExecution)> {
    let calls: Vec<_> = (0..count).map(|n| call(at(900 * n + 7))).collect();
    let records: Vec<Record> =
        calls.iter().flat_map(|(u, e)| [u.clone().into(), e.clone().into()]).collect();
    fx.append(&records).await;
    calls
}

/// Nothing to delete is deleted, and there is no horizon.
pub async fn pruning_nothing_changes_nothing(fx: Fixture) {
    let done = Pruned { done: true, ..Pruned::default() };
    let nothing = Prune { payloads_before: None, raw_before: None, limit: 10 };
    assert_eq!(fx.store.prune(&nothing).await.unwrap(), done);
    assert_eq!(fx.store.raw_horizon().await.unwrap(), None);
    let records: Vec<Record> =
        calls(&fx, 3).await.into_iter().flat_map(|(u, e)| [u.into(), e.into()]).collect();
    assert_eq!(fx.store.prune(&nothing).await.unwrap(), done);
    assert_eq!(fx.store.prune(&payloads(at(0), 10)).await.unwrap(), done);
    assert_eq!(fx.store.raw_horizon().await.unwrap(), None);
    assert_eq!(fx.store.prune(&raw(at(0), 10)).await.unwrap(), done);
    all_are_stored(&fx, &records).await;
}

/// Payloads expire on their own: records and sums stay as they are.
pub async fn payloads_expire_and_their_records_stay(fx: Fixture) {
    let calls = calls(&fx, 6).await;
    let query = AggregateQuery { group_by: vec![Dimension::Prompt], ..AggregateQuery::default() };
    let before = fx.store.aggregate(&query).await.unwrap().rows;
    let pruned = fx.store.prune(&payloads(quarter(3), 100)).await.unwrap();
    assert_eq!(pruned, Pruned { payloads: 6, done: true, ..Pruned::default() });
    assert_eq!(fx.store.raw_horizon().await.unwrap(), None);
    for (n, (usage, execution)) in calls.iter().enumerate() {
        let mut expected = (usage.clone(), execution.clone());
        if n < 3 {
            expected.0.payload = None;
            expected.1.payload = None;
        }
        all_are_stored(&fx, &[expected.0.into(), expected.1.into()]).await;
    }
    assert_eq!(fx.store.aggregate(&query).await.unwrap().rows, before);
    let again = fx.store.prune(&payloads(quarter(3), 100)).await.unwrap();
    assert_eq!(again, Pruned { done: true, ..Pruned::default() });
    // The same records again bring no payload back.
    let (usage, execution) = calls[0].clone();
    assert_eq!(fx.append(&[usage.into(), execution.clone().into()]).await.unchanged, 2);
    assert_eq!(fx.store.execution(execution.id).await.unwrap().unwrap().payload, None);
}

/// Records go with their payloads, from the start of a quarter of an hour on; sums keep them.
pub async fn records_before_a_moment_are_deleted_everywhere(fx: Fixture) {
    let calls = calls(&fx, 6).await;
    let pruned = fx.store.prune(&raw(at(900 * 3 + 899), 100)).await.unwrap();
    assert_eq!((pruned.usages, pruned.executions, pruned.done), (3, 3, true));
    assert_eq!(fx.store.raw_horizon().await.unwrap(), Some(quarter(3)));
    for (usage, execution) in &calls[..3] {
        assert_eq!(fx.store.usage(usage.id).await.unwrap(), None);
        assert_eq!(fx.store.execution(execution.id).await.unwrap(), None);
    }
    for (usage, execution) in calls[3..].iter().cloned() {
        all_are_stored(&fx, &[usage.into(), execution.into()]).await;
    }
    let query = RecordQuery::default();
    assert_eq!(fx.store.list_usages(&query).await.unwrap().items.len(), 3);
    assert_eq!(fx.store.list_executions(&query).await.unwrap().items.len(), 3);
    for (source, count) in [(Source::Any, 6), (Source::Records, 3)] {
        let query = AggregateQuery { source, ..AggregateQuery::default() };
        let answer = fx.store.aggregate(&query).await.unwrap();
        let found = &answer.rows[0].measures;
        assert_eq!((found.uses, found.executions()), (Some(count), count), "{source:?}");
        let missing = (source == Source::Records).then(|| quarter(3));
        assert_eq!(answer.reading.missing_before, missing);
        let query = AggregateQuery { group_by: vec![Dimension::Prompt], ..query };
        let rows = fx.store.aggregate(&query).await.unwrap().rows;
        assert_eq!(rows.len() as u64, count, "{source:?}");
    }
}

/// What is stored stays as it is while the space of what was deleted is given back, and others go on.
pub async fn compacting_changes_nothing(fx: Fixture) {
    fx.store.compact().await.unwrap();
    let calls = calls(&fx, 40).await;
    assert!(fx.store.prune(&raw(quarter(30), 1_000)).await.unwrap().done);
    let query = AggregateQuery { group_by: vec![Dimension::Prompt], ..AggregateQuery::default() };
    let before = fx.store.aggregate(&query).await.unwrap().rows;
    let all = RecordQuery::default();
    let new = call(quarter(50));
    let new: [Record; 2] = [new.0.into(), new.1.into()];
    let (compacted, appended, listed) =
        tokio::join!(fx.store.compact(), fx.store.append(&new), fx.store.list_usages(&all),);
    compacted.unwrap();
    assert_eq!(appended.unwrap().stored, 2);
    assert!((10..=11).contains(&listed.unwrap().items.len()));
    let fx = fx.reopened().await;
    fx.store.compact().await.unwrap();
    let kept = calls[30..].iter().cloned().flat_map(|(u, e)| [u.into(), e.into()]);
    all_are_stored(&fx, &kept.chain(new).collect::<Vec<_>>()).await;
    let range = TimeRange { from: None, to: Some(quarter(50)) };
    let after = fx.store.aggregate(&AggregateQuery { range, ..query }).await.unwrap().rows;
    assert_eq!(after, before);
}

/// A call of prune deletes at most its limit of each, the oldest first, and says whether more is left.
pub async fn a_prune_is_bounded_and_says_whether_it_is_done(fx: Fixture) {
    let calls = calls(&fx, 10).await;
    for (count, done) in [(3, false), (6, false), (8, true)] {
        let pruned = fx.store.prune(&raw(quarter(8), 3)).await.unwrap();
        assert_eq!(pruned.done, done, "{count} are deleted");
        for (n, (usage, execution)) in calls.iter().enumerate() {
            let kept = n >= count;
            assert_eq!(fx.store.usage(usage.id).await.unwrap().is_some(), kept, "{n}");
            assert_eq!(fx.store.execution(execution.id).await.unwrap().is_some(), kept, "{n}");
        }
        let rows = fx.store.aggregate(&AggregateQuery::default()).await.unwrap().rows;
        assert_eq!((rows[0].measures.uses, rows[0].measures.executions()), (Some(10), 10));
        // Those that are next to go count no longer as records, either.
        let query = AggregateQuery { source: Source::Records, ..AggregateQuery::default() };
        let rows = fx.store.aggregate(&query).await.unwrap().rows;
        assert_eq!((rows[0].measures.uses, rows[0].measures.executions()), (Some(2), 2));
    }
    let mut deleted = 0;
    for _ in 0..4 {
        let pruned = fx.store.prune(&payloads(quarter(10), 1)).await.unwrap();
        assert_eq!(pruned.payloads, 1);
        deleted += pruned.payloads;
        assert_eq!(pruned.done, deleted == 4);
    }
}

/// A record from before the horizon is refused by name, with its batch; one at the horizon is not.
pub async fn a_record_before_the_horizon_is_refused(fx: Fixture) {
    calls(&fx, 5).await;
    fx.store.prune(&raw(quarter(3), 100)).await.unwrap();
    let (usage, execution) = call(at_micros(900 * 3_000_000 - 1));
    let open = pending(&usage, at_micros(900 * 3_000_000 - 1));
    let offenders: [Record; 3] = [usage.into(), execution.into(), open.into()];
    for offender in offenders {
        let (good, _) = call(quarter(9));
        let batch = [good.clone().into(), offender.clone()];
        let error = refused(fx.store.append(&batch).await, ErrorKind::Invalid);
        let id = offender.name().split_once(' ').unwrap().1.to_owned();
        let text = error.to_string();
        assert!(text.contains(&id) && text.contains("before the raw horizon"), "{text}");
        assert_eq!(fx.store.usage(good.id).await.unwrap(), None);
    }
    let (usage, execution) = call(quarter(3));
    assert_eq!(fx.append(&[usage.into(), execution.into()]).await.stored, 2);
    let fx = fx.reopened().await;
    let (usage, _) = call(quarter(2));
    refused(fx.store.append(&[usage.into()]).await, ErrorKind::Invalid);
}

/// The horizon never moves back, and is kept.
pub async fn the_horizon_never_moves_back(fx: Fixture) {
    calls(&fx, 10).await;
    fx.store.prune(&raw(quarter(5), 100)).await.unwrap();
    let pruned = fx.store.prune(&raw(quarter(2), 100)).await.unwrap();
    assert_eq!(pruned, Pruned { done: true, ..Pruned::default() });
    assert_eq!(fx.store.raw_horizon().await.unwrap(), Some(quarter(5)));
    fx.store.prune(&payloads(quarter(9), 100)).await.unwrap();
    let fx = fx.reopened().await;
    assert_eq!(fx.store.raw_horizon().await.unwrap(), Some(quarter(5)));
    fx.store.prune(&raw(quarter(7), 100)).await.unwrap();
    assert_eq!(fx.store.raw_horizon().await.unwrap(), Some(quarter(7)));
}

/// Sums stay as they were, but that each record that was pruned counts at the start of its quarter of an
/// hour, and a call that had not finished no more. What no cube has is of what is left alone.
pub async fn sums_stay_after_a_prune(fx: Fixture) {
    let mut random = Arbitrary::new(51, 4 * 86_400);
    let mut records: Vec<Record> = (0..100).flat_map(|_| random.records()).collect();
    fx.append(&records).await;
    for day in 1..4 {
        fx.store.fold().await.unwrap();
        let horizon = at(day * 86_400 - 8_100);
        while !fx.store.prune(&raw(horizon, 20)).await.unwrap().done {}
        records.retain_mut(|record| remains(record, horizon));
        let live = records.iter().filter(|record| record.created_at() >= horizon);
        let live: Vec<Record> = live.cloned().collect();
        for _ in 0..40 {
            let query = arbitrary_query(&mut random);
            let answer = fx.store.aggregate(&query).await.unwrap();
            let cube = Cube::covering(&query);
            let counted = if cube.is_some() { &records } else { &live };
            assert_eq!(answer.rows, super::recount::recount(counted, &query), "{day}: {query:?}");
            let inside = |end: Option<Timestamp>| {
                end.is_some_and(|end| end < horizon && end.as_micros() % 900_000_000 != 0)
            };
            let TimeRange { from, to } = query.range;
            // Buckets of a zone that is no whole quarters from UTC.
            let odd = query.bucket.is_some_and(|bucket| bucket.zone.to_string() == "+00:07")
                && from.is_none_or(|from| from < horizon)
                && from.zip(to).is_none_or(|(from, to)| from < to);
            let rounded = cube.is_some() && (odd || inside(from) || inside(to));
            assert_eq!(answer.reading.rounded, rounded, "{query:?}");
        }
    }
}

/// Makes of a record what sums keep of it; false if nothing.
fn remains(record: &mut Record, horizon: Timestamp) -> bool {
    let (at, of) = match record {
        Record::Usage(usage) => (&mut usage.created_at, &mut usage.attribution),
        Record::Execution(call) if call.created_at >= horizon => return true,
        Record::Execution(call) if !call.status.is_final() => return false,
        Record::Execution(call) => (&mut call.created_at, &mut call.attribution),
    };
    if *at < horizon {
        (of.session, of.user) = (None, None);
        let micros = at.as_micros();
        *at = Timestamp::from_micros(micros - micros.rem_euclid(900_000_000)).unwrap();
    }
    true
}
