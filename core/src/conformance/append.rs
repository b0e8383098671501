//! Appending records: all or nothing, once and for all, in any order.

use std::sync::Arc;

use futures::future::join_all;

use super::arbitrary::{Arbitrary, at, call, finished, label, pending, usage};
use super::{Fixture, refused};
use crate::aggregate::AggregateQuery;
use crate::cost::{Cost, UnpricedReason};
use crate::error::ErrorKind;
use crate::id::{PromptId, UsageId};
use crate::record::{Attribution, ExecutionPayload, LlmExecution, Record};
use crate::status::{ErrorCategory, Status};
use crate::store::Appended;

fn appended(stored: u64, unchanged: u64) -> Appended {
    Appended { stored, unchanged }
}

/// Every field of both kinds of record comes back.
pub async fn records_read_back_as_written(fx: Fixture) {
    let mut random = Arbitrary::new(21, 86_400);
    let mut records: Vec<Record> = (0..60).flat_map(|_| random.records()).collect();
    let (mut usage, mut execution) = call(at(0));
    usage.attribution.version = u32::MAX;
    execution.attribution.version = u32::MAX;
    execution.http_status = Some(u16::MAX);
    execution.latency_ms = Some(0);
    let (last, mut bare) = call(at(1));
    bare.payload = None;
    bare.latency_ms = None;
    let mut bare_usage = last;
    bare_usage.payload = None;
    records.extend([usage.into(), execution.into(), bare_usage.into(), bare.into()]);
    let result = fx.append(&records).await;
    assert_eq!(result, appended(records.len() as u64, 0));
    all_are_stored(&fx, &records).await;
    assert_eq!(fx.store.usage(UsageId::new()).await.unwrap(), None);
    assert_eq!(fx.store.execution(crate::ExecutionId::new()).await.unwrap(), None);
}

/// Fails unless each of `records` is stored as it is.
pub(super) async fn all_are_stored(fx: &Fixture, records: &[Record]) {
    for record in records {
        let stored = match record {
            Record::Usage(usage) => fx.store.usage(usage.id).await.unwrap().map(Record::from),
            Record::Execution(execution) => {
                fx.store.execution(execution.id).await.unwrap().map(Record::from)
            }
        };
        assert_eq!(stored.as_ref(), Some(record));
    }
}

/// A batch of nothing is one.
pub async fn an_empty_batch_changes_nothing(fx: Fixture) {
    assert_eq!(fx.append(&[]).await, appended(0, 0));
}

/// One refused record among good ones leaves none of them, wherever it stands.
pub async fn a_refused_record_takes_its_whole_batch_with_it(fx: Fixture) {
    let (stored, execution) = call(at(0));
    fx.append(&[stored.clone().into(), execution.clone().into()]).await;
    let other_time = LlmExecution { created_at: at(1), ..execution.clone() };
    let invalid = LlmExecution { cost: None, ..call(at(2)).1 };
    for (offender, kind) in [(other_time, ErrorKind::Conflict), (invalid, ErrorKind::Invalid)] {
        for place in 0..=4 {
            let (a, b) = (call(at(10)), call(at(11)));
            let open = pending(&stored, at(12));
            let mut batch: Vec<Record> =
                vec![a.0.into(), a.1.into(), b.1.into(), open.clone().into()];
            let good = batch.clone();
            batch.insert(place, offender.clone().into());
            let error = refused(fx.store.append(&batch).await, kind);
            let id = offender.id.to_string();
            assert!(error.to_string().contains(&id), "{error} does not name the execution {id}");
            for record in &good {
                let found = match record {
                    Record::Usage(usage) => fx.store.usage(usage.id).await.unwrap().is_some(),
                    Record::Execution(e) => fx.store.execution(e.id).await.unwrap().is_some(),
                };
                assert!(!found, "{} of a refused batch is stored", record.name());
            }
        }
    }
    let rows = fx.store.aggregate(&AggregateQuery::default()).await.unwrap().rows;
    assert_eq!((rows[0].measures.uses, rows[0].measures.executions()), (Some(1), 1));
    all_are_stored(&fx, &[stored.into(), execution.into()]).await;
}

/// A refused batch does not finish the pending execution that it would have.
pub async fn a_refused_batch_leaves_pending_executions_pending(fx: Fixture) {
    let used = usage(at(0));
    let open = pending(&used, at(0));
    fx.append(&[used.into(), open.clone().into()]).await;
    let invalid = LlmExecution { cost: None, ..call(at(2)).1 };
    let batch = [finished(&open).into(), invalid.into()];
    refused(fx.store.append(&batch).await, ErrorKind::Invalid);
    assert_eq!(fx.store.execution(open.id).await.unwrap(), Some(open));
}

/// The same batch again changes nothing, and says so.
pub async fn the_same_batch_again_changes_nothing(fx: Fixture) {
    let mut random = Arbitrary::new(22, 86_400);
    let records: Vec<Record> = (0..20).flat_map(|_| random.records()).collect();
    let count = records.len() as u64;
    assert_eq!(fx.append(&records).await, appended(count, 0));
    let before = fx.store.aggregate(&AggregateQuery::default()).await.unwrap().rows;
    assert_eq!(fx.append(&records).await, appended(0, count));
    all_are_stored(&fx, &records).await;
    assert_eq!(fx.store.aggregate(&AggregateQuery::default()).await.unwrap().rows, before);
}

/// Batches that share records store each once.
pub async fn overlapping_batches_store_each_record_once(fx: Fixture) {
    let mut random = Arbitrary::new(23, 86_400);
    let mut records: Vec<Record> = (0..40).flat_map(|_| random.records()).collect();
    records.truncate(60);
    assert_eq!(fx.append(&records[..30]).await, appended(30, 0));
    assert_eq!(fx.append(&records[20..50]).await, appended(20, 10));
    assert_eq!(fx.append(&records[..60]).await, appended(10, 50));
    all_are_stored(&fx, &records).await;
}

/// A record twice in a batch is stored once.
pub async fn a_record_twice_in_a_batch_is_stored_once(fx: Fixture) {
    let (used, execution) = call(at(0));
    let batch: [Record; 5] = [
        used.clone().into(),
        execution.clone().into(),
        used.into(),
        execution.clone().into(),
        execution.into(),
    ];
    assert_eq!(fx.append(&batch).await, appended(2, 3));
    let rows = fx.store.aggregate(&AggregateQuery::default()).await.unwrap().rows;
    assert_eq!((rows[0].measures.uses, rows[0].measures.executions()), (Some(1), 1));
}

/// A batch counts as if its records came one after the other: pending, final, late ones.
pub async fn a_batch_may_begin_and_end_the_same_execution(fx: Fixture) {
    let used = usage(at(0));
    let open = pending(&used, at(0));
    let done = finished(&open);
    let later = LlmExecution { status: Status::Cancelled, ..done.clone() };
    let batch = [open.clone().into(), done.clone().into(), later.into(), open.into(), used.into()];
    assert_eq!(fx.append(&batch).await, appended(3, 2));
    assert_eq!(fx.store.execution(done.id).await.unwrap(), Some(done));
}

/// Two records of one id in a batch conflict as if they came apart.
pub async fn records_of_one_batch_may_conflict_with_each_other(fx: Fixture) {
    let (used, execution) = call(at(0));
    let other = LlmExecution { model: label("gpt-4o-mini"), ..execution.clone() };
    let batch = [execution.clone().into(), other.into()];
    refused(fx.store.append(&batch).await, ErrorKind::Conflict);
    assert_eq!(fx.store.execution(execution.id).await.unwrap(), None);
    let mut late = used.clone();
    late.created_at = at(1);
    refused(fx.store.append(&[used.clone().into(), late.into()]).await, ErrorKind::Conflict);
    assert_eq!(fx.store.usage(used.id).await.unwrap(), None);
}

/// Whatever of a record never changes, conflicts when it does: in pending and in final ones.
pub async fn what_never_changes_conflicts_when_it_does(fx: Fixture) {
    let (mut used, mut execution) = call(at(0));
    for of in [&mut used.attribution, &mut execution.attribution] {
        of.session = Some(label("s1"));
    }
    let open = pending(&used, at(0));
    let stored = [used.clone().into(), execution.clone().into(), open.clone().into()];
    fx.append(&stored).await;
    let of = used.attribution.clone();
    let attributions = [
        Attribution { prompt: PromptId::new(), ..of.clone() },
        Attribution { version: 2, ..of.clone() },
        Attribution { environment: label("staging"), ..of.clone() },
        Attribution { session: None, ..of.clone() },
        Attribution { session: Some(label("s2")), ..of.clone() },
        Attribution { user: Some(label("")), ..of },
    ];
    let mut offenders: Vec<Record> = Vec::new();
    let mut changed = used.clone();
    changed.created_at = super::arbitrary::at_micros(1);
    offenders.push(changed.into());
    for attribution in &attributions {
        offenders.push(crate::Usage { attribution: attribution.clone(), ..used.clone() }.into());
    }
    for of in [&execution, &open, &finished(&open)] {
        let of = || of.clone();
        let created_at = super::arbitrary::at_micros(1);
        offenders.push(LlmExecution { created_at, ..of() }.into());
        offenders.push(LlmExecution { usage_id: UsageId::new(), ..of() }.into());
        offenders.push(LlmExecution { model: label("GPT-4o"), ..of() }.into());
        for attribution in &attributions {
            let attribution = attribution.clone();
            offenders.push(LlmExecution { attribution, ..of() }.into());
        }
    }
    for offender in offenders {
        let error =
            refused(fx.store.append(std::slice::from_ref(&offender)).await, ErrorKind::Conflict);
        let id = offender.name().split_once(' ').unwrap().1.to_owned();
        assert!(error.to_string().contains(&id), "{error} does not name {id}");
    }
    all_are_stored(&fx, &stored).await;
}

/// A finished execution replaces all of its pending self, the payload too.
pub async fn a_final_execution_replaces_its_pending_self(fx: Fixture) {
    let used = usage(at(0));
    let open = pending(&used, at(0));
    assert_eq!(fx.append(&[used.into(), open.clone().into()]).await, appended(2, 0));
    assert_eq!(fx.store.execution(open.id).await.unwrap().as_ref(), Some(&open));
    let mut done = finished(&open);
    done.payload = Some(Arc::new(ExecutionPayload {
        response_content: Some("Another".to_owned()),
        ..ExecutionPayload::default()
    }));
    assert_eq!(fx.append(&[done.clone().into()]).await, appended(1, 0));
    assert_eq!(fx.store.execution(open.id).await.unwrap(), Some(done));
    let rows = fx.store.aggregate(&AggregateQuery::default()).await.unwrap().rows;
    assert_eq!(rows[0].measures.executions(), 1);
    assert_eq!(rows[0].measures.in_status(Status::Pending), 0);
}

/// A pending one that comes late changes nothing, and so does a second pending one.
pub async fn a_late_pending_execution_is_ignored(fx: Fixture) {
    let used = usage(at(0));
    let open = pending(&used, at(0));
    let again = LlmExecution { payload: None, ..open.clone() };
    fx.append(&[open.clone().into()]).await;
    assert_eq!(fx.append(&[again.clone().into()]).await, appended(0, 1));
    assert_eq!(fx.store.execution(open.id).await.unwrap().as_ref(), Some(&open));
    let done = finished(&open);
    fx.append(&[done.clone().into()]).await;
    assert_eq!(fx.append(&[again.into(), open.into()]).await, appended(0, 2));
    assert_eq!(fx.store.execution(done.id).await.unwrap(), Some(done));
}

/// The first final one wins, whatever the later one says.
pub async fn the_first_final_execution_wins(fx: Fixture) {
    let (_, first) = call(at(0));
    let second = LlmExecution {
        status: Status::Error,
        error_category: Some(ErrorCategory::Server),
        cost: Some(Cost::unpriced(UnpricedReason::NoUsage)),
        tokens: None,
        payload: None,
        ..first.clone()
    };
    assert_eq!(fx.append(&[first.clone().into()]).await, appended(1, 0));
    let before = fx.store.aggregate(&AggregateQuery::default()).await.unwrap().rows;
    assert_eq!(fx.append(&[second.into()]).await, appended(0, 1));
    assert_eq!(fx.store.execution(first.id).await.unwrap(), Some(first));
    assert_eq!(fx.store.aggregate(&AggregateQuery::default()).await.unwrap().rows, before);
}

/// An execution may come before its usage, and may stay without it.
pub async fn an_execution_may_come_before_its_usage(fx: Fixture) {
    let (used, execution) = call(at(0));
    fx.append(&[execution.clone().into()]).await;
    all_are_stored(&fx, &[execution.clone().into()]).await;
    let rows = fx.store.aggregate(&AggregateQuery::default()).await.unwrap().rows;
    assert_eq!((rows[0].measures.uses, rows[0].measures.executions()), (Some(0), 1));
    assert_eq!(fx.append(&[used.clone().into()]).await, appended(1, 0));
    all_are_stored(&fx, &[used.into(), execution.into()]).await;
}

/// A record may be of a prompt that this store does not know.
pub async fn a_record_needs_no_prompt(fx: Fixture) {
    let (used, execution) = call(at(0));
    assert_eq!(fx.store.prompt(used.attribution.prompt).await.unwrap(), None);
    fx.append(&[used.into(), execution.into()]).await;
}

/// An execution that contradicts itself is refused by name.
pub async fn an_invalid_execution_is_refused(fx: Fixture) {
    let used = usage(at(0));
    let open = pending(&used, at(0));
    let done = finished(&open);
    let huge = Cost::Reported { usd: crate::Usd::from_pico(i128::from(i64::MAX) + 1).unwrap() };
    let invalid = [
        LlmExecution { completed_at: done.completed_at, ..open.clone() },
        LlmExecution { cost: done.cost, ..open.clone() },
        LlmExecution { tokens: done.tokens, ..open.clone() },
        LlmExecution { error_category: Some(ErrorCategory::Other), ..open },
        LlmExecution { completed_at: None, ..done.clone() },
        LlmExecution { cost: None, ..done.clone() },
        LlmExecution { error_category: Some(ErrorCategory::Other), ..done.clone() },
        LlmExecution { cost: Some(huge), ..done },
    ];
    for execution in invalid {
        let result = fx.store.append(&[execution.clone().into()]).await;
        let error = refused(result, ErrorKind::Invalid);
        assert!(error.to_string().contains(&execution.id.to_string()), "{error}");
        assert_eq!(fx.store.execution(execution.id).await.unwrap(), None);
    }
}

/// Ten thousand records are one batch, and nothing of them is lost.
pub async fn ten_thousand_records_are_one_batch(fx: Fixture) {
    let mut random = Arbitrary::new(24, 30 * 86_400);
    let mut records: Vec<Record> = Vec::new();
    while records.len() < 10_000 {
        records.extend(random.records());
    }
    records.truncate(10_000);
    assert_eq!(fx.append(&records).await, appended(10_000, 0));
    let usages = records.iter().filter(|r| matches!(r, Record::Usage(_))).count() as u64;
    let rows = fx.store.aggregate(&AggregateQuery::default()).await.unwrap().rows;
    assert_eq!(rows[0].measures.uses, Some(usages));
    assert_eq!(rows[0].measures.executions(), 10_000 - usages);
    all_are_stored(&fx, &records[9_900..]).await;
    assert_eq!(fx.append(&records).await, appended(0, 10_000));
}

/// Many tasks append at once, and nothing is lost or counted twice.
pub async fn concurrent_appends_lose_nothing(fx: Fixture) {
    let mut random = Arbitrary::new(25, 86_400);
    let shared: Vec<Record> = (0..5).flat_map(|_| random.records()).collect();
    let mut all = shared.clone();
    let mut writers = Vec::new();
    for _ in 0..16 {
        let own: Vec<Record> = (0..10).flat_map(|_| random.records()).collect();
        all.extend(own.clone());
        let (store, shared) = (Arc::clone(&fx.store), shared.clone());
        writers.push(tokio::spawn(async move {
            let mut stored = 0;
            for batch in own.chunks(3) {
                stored += store.append(batch).await.unwrap().stored;
            }
            stored + store.append(&shared).await.unwrap().stored
        }));
    }
    let stored: u64 = join_all(writers).await.into_iter().map(Result::unwrap).sum();
    assert_eq!(stored, all.len() as u64);
    all_are_stored(&fx, &all).await;
    let query = AggregateQuery::default();
    let rows = fx.store.aggregate(&query).await.unwrap().rows;
    assert_eq!(rows, super::recount::recount(&all, &query));
}

/// Of many tasks that finish one execution, one does.
pub async fn of_racing_final_executions_exactly_one_wins(fx: Fixture) {
    let used = usage(at(0));
    let open = pending(&used, at(0));
    fx.append(&[used.into(), open.clone().into()]).await;
    let finals: Vec<LlmExecution> =
        (0..16).map(|n| LlmExecution { latency_ms: Some(n), ..finished(&open) }).collect();
    let writers = finals.iter().cloned().map(|done| {
        let store = Arc::clone(&fx.store);
        tokio::spawn(async move { store.append(&[done.into()]).await.unwrap().stored })
    });
    let stored: Vec<u64> = join_all(writers).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(stored.iter().sum::<u64>(), 1, "{stored:?}");
    let winner = stored.iter().position(|n| *n == 1).unwrap();
    assert_eq!(fx.store.execution(open.id).await.unwrap().as_ref(), Some(&finals[winner]));
    let rows = fx.store.aggregate(&AggregateQuery::default()).await.unwrap().rows;
    assert_eq!(rows[0].measures.latency_ms.count(), 1);
    assert_eq!(rows[0].measures.latency_ms.sum(), winner as u128);
}

/// JSON is stored up to a depth that can be read back, and refused beyond.
pub async fn json_nested_too_deep_is_refused(fx: Fixture) {
    let nested = |levels: usize| {
        (0..levels).fold(serde_json::Value::Null, |inner, _| serde_json::Value::Array(vec![inner]))
    };
    let with = |levels: usize| {
        let mut usage = usage(at(0));
        if let Some(payload) = usage.payload.as_mut().map(Arc::make_mut) {
            payload.metadata.insert("deep".to_owned(), nested(levels));
        }
        usage
    };
    let deepest = with(Record::MOST_NESTED);
    fx.append(&[deepest.clone().into()]).await;
    assert_eq!(fx.store.usage(deepest.id).await.unwrap(), Some(deepest));
    let error = fx.store.append(&[with(Record::MOST_NESTED + 1).into()]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}
