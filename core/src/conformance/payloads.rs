//! Texts of records that are stored together: each comes back, and goes, on its own, whatever was stored
//! beside it.

use std::sync::Arc;

use super::Fixture;
use super::append::all_are_stored;
use super::arbitrary::{at, call, pending};
use crate::query::{Order, RecordQuery};
use crate::record::{ExecutionPayload, LlmExecution, Record, Usage, UsagePayload};
use crate::store::Prune;

/// What all of them say, so that their texts are alike.
const INSTRUCTIONS: &str = "Answer in one sentence, and name the order that you speak of. ";

/// `count` calls, one a second from `first` on, each with texts of its own.
fn calls(first: i64, count: i64) -> Vec<(Usage, LlmExecution)> {
    (first..first + count).map(|n| told(n, &INSTRUCTIONS.repeat(3))).collect()
}

fn told(n: i64, text: &str) -> (Usage, LlmExecution) {
    let (mut usage, mut execution) = call(at(n));
    let content = format!("{text}{n}");
    usage.payload =
        Some(Arc::new(UsagePayload { content: content.clone(), ..UsagePayload::default() }));
    let response_content = Some(format!("{content}: yes"));
    execution.payload = Some(Arc::new(ExecutionPayload { response_content, ..Default::default() }));
    (usage, execution)
}

fn records(calls: &[(Usage, LlmExecution)]) -> Vec<Record> {
    calls.iter().flat_map(|(u, e)| [u.clone().into(), e.clone().into()]).collect()
}

fn silent((mut usage, mut execution): (Usage, LlmExecution)) -> (Usage, LlmExecution) {
    usage.payload = None;
    execution.payload = None;
    (usage, execution)
}

async fn forget(fx: &Fixture, before: i64) -> u64 {
    let before = Prune { payloads_before: Some(at(before)), raw_before: None, limit: 1_000 };
    fx.store.prune(&before).await.unwrap().payloads
}

/// Texts of one batch expire one after the other, and those that are left are whole.
pub async fn texts_of_one_batch_expire_one_by_one(fx: Fixture) {
    let mut calls = calls(0, 90);
    fx.append(&records(&calls)).await;
    let mut gone = 0;
    for before in [1, 2, 31, 32, 33, 64, 89, 90] {
        let expired = forget(&fx, before).await;
        assert_eq!(expired, 2 * u64::try_from(before - gone).unwrap());
        for gone in gone..before {
            let place = &mut calls[usize::try_from(gone).unwrap()];
            *place = silent(place.clone());
        }
        gone = before;
        all_are_stored(&fx, &records(&calls)).await;
    }
    // Another batch has nothing to do with them.
    let more = records(&self::calls(100, 40));
    fx.append(&more).await;
    all_are_stored(&fx, &more).await;
    all_are_stored(&fx, &records(&calls)).await;
}

/// A batch that repeats a part of another stores the rest of it, in whatever order they expire.
pub async fn batches_that_overlap_store_each_text_once(fx: Fixture) {
    let mut calls = calls(0, 60);
    assert_eq!(fx.append(&records(&calls[..40])).await.stored, 80);
    let again = fx.append(&records(&calls[20..])).await;
    assert_eq!((again.stored, again.unchanged), (40, 40));
    assert_eq!(fx.append(&records(&calls)).await.unchanged, 120);
    all_are_stored(&fx, &records(&calls)).await;
    for before in [30, 45] {
        forget(&fx, before).await;
        for call in &mut calls[..usize::try_from(before).unwrap()] {
            *call = silent(call.clone());
        }
        all_are_stored(&fx, &records(&calls)).await;
    }
    assert_eq!(forget(&fx, 60).await, 30);
}

/// A call that ends has the texts of its end, whether it began in the same batch, in an earlier one
/// among others, or ended without any.
pub async fn a_call_that_ends_among_others_has_the_texts_of_its_end(fx: Fixture) {
    let mut calls = calls(0, 30);
    calls[7].1.payload = None;
    let mut batch = Vec::new();
    for (usage, execution) in &calls {
        let sent = ExecutionPayload {
            error_message: Some(INSTRUCTIONS.to_owned()),
            ..ExecutionPayload::default()
        };
        let begun = LlmExecution {
            id: execution.id,
            provider: execution.provider.clone(),
            model: execution.model.clone(),
            payload: Some(sent.into()),
            ..pending(usage, execution.created_at)
        };
        batch.extend([Record::from(usage.clone()), begun.into()]);
    }
    // The first ten end in the batch in which they begin.
    batch.extend(calls[..10].iter().map(|(_, execution)| Record::from(execution.clone())));
    fx.append(&batch).await;
    let ended: Vec<Record> = calls[10..].iter().map(|(_, e)| e.clone().into()).collect();
    fx.append(&ended).await;
    all_are_stored(&fx, &records(&calls)).await;
    assert_eq!(forget(&fx, 15).await, 29);
    for call in &mut calls[..15] {
        *call = silent(call.clone());
    }
    all_are_stored(&fx, &records(&calls)).await;
}

/// Texts of any length lie side by side; a page has them in its order, before and after a reopening.
pub async fn long_and_short_texts_come_back_page_by_page(fx: Fixture) {
    let lengths = [0, 1, 40, 3_000, 70_000, 300_000, 5, 900_000, 20, 4_060, 4_090, 16_000];
    let calls: Vec<_> =
        (0..).zip(lengths).map(|(n, len)| told(n, &"é\n\"x".repeat(len / 5))).collect();
    fx.append(&records(&calls)).await;
    let fx = fx.reopened().await;
    for order in [Order::OldestFirst, Order::NewestFirst] {
        let mut expected: Vec<_> = calls.iter().map(|(_, execution)| execution.clone()).collect();
        if order == Order::NewestFirst {
            expected.reverse();
        }
        let mut query = RecordQuery { order, payloads: true, ..RecordQuery::default() };
        query.page.limit = 5;
        let mut found = Vec::new();
        loop {
            let page = fx.store.list_executions(&query).await.unwrap();
            found.extend(page.items);
            query.page.after = page.next;
            if query.page.after.is_none() {
                break;
            }
        }
        assert_eq!(found, expected);
    }
    all_are_stored(&fx, &records(&calls)).await;
}
