//! Deleting old payloads and old records, and the horizon that this leaves.

use super::append::all_are_stored;
use super::arbitrary::{Arbitrary, at, at_micros, call, pending};
use super::{Fixture, refused};
use crate::aggregate::{AggregateQuery, Dimension};
use crate::error::ErrorKind;
use crate::query::RecordQuery;
use crate::record::{LlmExecution, Record, Usage};
use crate::store::{Prune, Pruned};
use crate::time::{Bucket, BucketWidth, Timestamp};

fn raw(before: Timestamp, limit: u32) -> Prune {
    Prune { payloads_before: None, raw_before: Some(before), limit }
}

fn payloads(before: Timestamp, limit: u32) -> Prune {
    Prune { payloads_before: Some(before), raw_before: None, limit }
}

/// Appends a usage and an execution at each second until `count`.
async fn calls(fx: &Fixture, count: i64) -> Vec<(Usage, LlmExecution)> {
    let calls: Vec<_> = (0..count).map(|n| call(at(n))).collect();
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
    let pruned = fx.store.prune(&payloads(at(3), 100)).await.unwrap();
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
    let again = fx.store.prune(&payloads(at(3), 100)).await.unwrap();
    assert_eq!(again, Pruned { done: true, ..Pruned::default() });
    // The same records again bring no payload back.
    let (usage, execution) = calls[0].clone();
    assert_eq!(fx.append(&[usage.into(), execution.clone().into()]).await.unchanged, 2);
    assert_eq!(fx.store.execution(execution.id).await.unwrap().unwrap().payload, None);
}

/// Records go with their payloads, out of every answer.
pub async fn records_before_a_moment_are_deleted_everywhere(fx: Fixture) {
    let calls = calls(&fx, 6).await;
    let pruned = fx.store.prune(&raw(at(3), 100)).await.unwrap();
    assert_eq!((pruned.usages, pruned.executions, pruned.done), (3, 3, true));
    assert_eq!(fx.store.raw_horizon().await.unwrap(), Some(at(3)));
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
    let rows = fx.store.aggregate(&AggregateQuery::default()).await.unwrap().rows;
    assert_eq!((rows[0].measures.uses, rows[0].measures.executions()), (Some(3), 3));
    let query = AggregateQuery { group_by: vec![Dimension::Prompt], ..AggregateQuery::default() };
    assert_eq!(fx.store.aggregate(&query).await.unwrap().rows.len(), 3);
}

/// A call of prune deletes at most its limit of each, the oldest first, and says whether more is left.
pub async fn a_prune_is_bounded_and_says_whether_it_is_done(fx: Fixture) {
    let calls = calls(&fx, 10).await;
    for (count, done) in [(3, false), (6, false), (8, true)] {
        let pruned = fx.store.prune(&raw(at(8), 3)).await.unwrap();
        assert_eq!(pruned.done, done, "{count} are deleted");
        for (n, (usage, execution)) in calls.iter().enumerate() {
            let kept = n >= count;
            assert_eq!(fx.store.usage(usage.id).await.unwrap().is_some(), kept, "{n}");
            assert_eq!(fx.store.execution(execution.id).await.unwrap().is_some(), kept, "{n}");
        }
        let rows = fx.store.aggregate(&AggregateQuery::default()).await.unwrap().rows;
        let left = 10 - count as u64;
        assert_eq!((rows[0].measures.uses, rows[0].measures.executions()), (Some(left), left));
    }
    let mut deleted = 0;
    for _ in 0..4 {
        let pruned = fx.store.prune(&payloads(at(10), 1)).await.unwrap();
        assert_eq!(pruned.payloads, 1);
        deleted += pruned.payloads;
        assert_eq!(pruned.done, deleted == 4);
    }
}

/// A record from before the horizon is refused by name, with its batch; one at the horizon is not.
pub async fn a_record_before_the_horizon_is_refused(fx: Fixture) {
    calls(&fx, 5).await;
    fx.store.prune(&raw(at(3), 100)).await.unwrap();
    let (usage, execution) = call(at_micros(2_999_999));
    let open = pending(&usage, at_micros(2_999_999));
    let offenders: [Record; 3] = [usage.into(), execution.into(), open.into()];
    for offender in offenders {
        let (good, _) = call(at(9));
        let batch = [good.clone().into(), offender.clone()];
        let error = refused(fx.store.append(&batch).await, ErrorKind::Invalid);
        let id = offender.name().split_once(' ').unwrap().1.to_owned();
        let text = error.to_string();
        assert!(text.contains(&id) && text.contains("before the raw horizon"), "{text}");
        assert_eq!(fx.store.usage(good.id).await.unwrap(), None);
    }
    let (usage, execution) = call(at(3));
    assert_eq!(fx.append(&[usage.into(), execution.into()]).await.stored, 2);
    let fx = fx.reopened().await;
    let (usage, _) = call(at(2));
    refused(fx.store.append(&[usage.into()]).await, ErrorKind::Invalid);
}

/// The horizon never moves back, and is kept.
pub async fn the_horizon_never_moves_back(fx: Fixture) {
    calls(&fx, 10).await;
    fx.store.prune(&raw(at(5), 100)).await.unwrap();
    let pruned = fx.store.prune(&raw(at(2), 100)).await.unwrap();
    assert_eq!(pruned, Pruned { done: true, ..Pruned::default() });
    assert_eq!(fx.store.raw_horizon().await.unwrap(), Some(at(5)));
    fx.store.prune(&payloads(at(9), 100)).await.unwrap();
    let fx = fx.reopened().await;
    assert_eq!(fx.store.raw_horizon().await.unwrap(), Some(at(5)));
    fx.store.prune(&raw(at(7), 100)).await.unwrap();
    assert_eq!(fx.store.raw_horizon().await.unwrap(), Some(at(7)));
}

/// What is left after a prune adds up as if the rest had never been.
pub async fn sums_after_a_prune_are_those_of_what_is_left(fx: Fixture) {
    let mut random = Arbitrary::new(51, 4 * 86_400);
    let mut records: Vec<Record> = (0..100).flat_map(|_| random.records()).collect();
    fx.append(&records).await;
    for day in 1..4 {
        let before = at(day * 86_400 - 5_000);
        while !fx.store.prune(&raw(before, 20)).await.unwrap().done {}
        records.retain(|record| record.created_at() >= before);
        for width in BucketWidth::ALL {
            let zone = "Europe/Berlin".parse().unwrap();
            let query = AggregateQuery {
                bucket: Some(Bucket { width: *width, zone }),
                group_by: vec![Dimension::Environment, Dimension::Version],
                ..AggregateQuery::default()
            };
            let rows = fx.store.aggregate(&query).await.unwrap().rows;
            assert_eq!(rows, super::recount::recount(&records, &query), "day {day}, {width}");
        }
        let query = AggregateQuery::default();
        let rows = fx.store.aggregate(&query).await.unwrap().rows;
        assert_eq!(rows, super::recount::recount(&records, &query), "day {day}");
    }
}
