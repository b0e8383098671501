//! Revising costs: compare and set, each for itself, all in one step.

use std::sync::Arc;

use futures::future::join_all;

use super::Fixture;
use super::arbitrary::{at, call, label, pending, pico, reported, usage};
use crate::aggregate::AggregateQuery;
use crate::cost::{Cost, UnpricedReason};
use crate::id::{CostConfigId, ExecutionId};
use crate::record::{LlmExecution, Record};
use crate::store::{CostRevision, PastCost, Prune, Revised};

async fn past(fx: &Fixture, id: ExecutionId) -> Vec<PastCost> {
    fx.store.past_costs(&[id]).await.unwrap().concat()
}

fn revision(execution: &LlmExecution, expected: Cost, new: Cost) -> CostRevision {
    let (id, priced_model) = (execution.id, Some(label("revised")));
    CostRevision { id, expected, past: None, new, priced_model, at: at(1_000) }
}

/// Nothing to revise is nothing revised.
pub async fn no_revisions_have_no_outcomes(fx: Fixture) {
    assert_eq!(fx.store.revise_costs(&[]).await.unwrap(), []);
}

/// Each revision has its own outcome, in order; one that fails does not stop the others.
pub async fn each_revision_has_its_outcome(fx: Fixture) {
    let used = usage(at(0));
    let open = pending(&used, at(0));
    let (_, first) = call(at(1));
    let (_, second) = call(at(2));
    let records: [Record; 4] =
        [used.into(), open.clone().into(), first.clone().into(), second.clone().into()];
    fx.append(&records).await;
    let unknown = LlmExecution { id: ExecutionId::new(), ..first.clone() };
    let new = Cost::Priced { usd: pico(7), config: CostConfigId::new() };
    let revisions = [
        revision(&first, reported(1_234_567), new),
        revision(&open, reported(1), new),
        revision(&unknown, first.cost.unwrap(), new),
        revision(&second, second.cost.unwrap(), new),
    ];
    let outcomes = fx.store.revise_costs(&revisions).await.unwrap();
    let expected = [Revised::Mismatch, Revised::Mismatch, Revised::NotFound, Revised::Changed];
    assert_eq!(outcomes, expected);
    assert_eq!(fx.store.execution(open.id).await.unwrap(), Some(open));
    assert_eq!(fx.store.execution(first.id).await.unwrap(), Some(first));
    assert_eq!(fx.store.execution(unknown.id).await.unwrap(), None);
    let revised = LlmExecution { cost: Some(new), priced_model: Some(label("revised")), ..second };
    assert_eq!(fx.store.execution(revised.id).await.unwrap(), Some(revised));
}

/// A cost is the expected one only if amount, price, kind and reason all are.
pub async fn an_expected_cost_is_compared_in_all_its_parts(fx: Fixture) {
    let config = CostConfigId::new();
    let costs = [
        Cost::Priced { usd: pico(5), config },
        Cost::Priced { usd: pico(5), config: CostConfigId::new() },
        Cost::Priced { usd: pico(6), config },
        reported(5),
        reported(0),
        Cost::unpriced(UnpricedReason::UnknownModel),
        Cost::unpriced(UnpricedReason::NoUsage),
    ];
    let (_, mut execution) = call(at(0));
    execution.cost = Some(costs[0]);
    fx.append(&[execution.clone().into()]).await;
    for (place, now) in costs.iter().enumerate() {
        for other in costs.iter().filter(|other| *other != now) {
            let revisions = [revision(&execution, *other, reported(99))];
            assert_eq!(fx.store.revise_costs(&revisions).await.unwrap(), [Revised::Mismatch]);
        }
        let next = costs[(place + 1) % costs.len()];
        let revisions = [revision(&execution, *now, next)];
        assert_eq!(fx.store.revise_costs(&revisions).await.unwrap(), [Revised::Changed]);
        let stored = fx.store.execution(execution.id).await.unwrap().unwrap();
        assert_eq!(stored.cost, Some(next));
    }
}

/// Revisions of one execution in one call come one after the other.
pub async fn revisions_of_one_execution_come_one_after_the_other(fx: Fixture) {
    let (_, execution) = call(at(0));
    fx.append(&[execution.clone().into()]).await;
    let first = execution.cost.unwrap();
    let mut last = revision(&execution, reported(1), reported(2));
    last.priced_model = None;
    let revisions =
        [revision(&execution, first, reported(1)), revision(&execution, first, reported(9)), last];
    let outcomes = fx.store.revise_costs(&revisions).await.unwrap();
    assert_eq!(outcomes, [Revised::Changed, Revised::Mismatch, Revised::Changed]);
    let stored = fx.store.execution(execution.id).await.unwrap();
    let expected = LlmExecution { cost: Some(reported(2)), priced_model: None, ..execution };
    assert_eq!(stored, Some(expected));
}

/// Each cost that was replaced is kept, oldest first, and one that was not leaves nothing.
pub async fn replaced_costs_are_kept_oldest_first(fx: Fixture) {
    let (_, execution) = call(at(0));
    let (_, other) = call(at(0));
    fx.append(&[execution.clone().into(), other.clone().into()]).await;
    assert_eq!(past(&fx, execution.id).await, []);
    assert_eq!(past(&fx, ExecutionId::new()).await, []);
    let first = execution.cost.unwrap();
    let unknown = Cost::unpriced(UnpricedReason::MissingRate);
    let costs = [first, reported(1), unknown, Cost::LocalCache, first];
    let mut revisions = Vec::new();
    for (n, pair) in (0..).zip(costs.windows(2)) {
        let priced_model = (n != 1).then(|| label("revised"));
        revisions.push(CostRevision {
            priced_model,
            at: at(10 - n),
            ..revision(&execution, pair[0], pair[1])
        });
    }
    // Some in one call and some in another, with a mismatch between them.
    fx.store.revise_costs(&revisions[..2]).await.unwrap();
    fx.store.revise_costs(&[revision(&execution, reported(77), reported(8))]).await.unwrap();
    fx.store.revise_costs(&revisions[2..]).await.unwrap();
    let models = [execution.priced_model, Some(label("revised")), None, Some(label("revised"))];
    let expected: Vec<PastCost> = (0..)
        .zip(costs.into_iter().zip(models))
        .map(|(n, (cost, priced_model))| PastCost { cost, priced_model, replaced_at: at(10 - n) })
        .collect();
    assert_eq!(past(&fx, execution.id).await, expected);
    assert_eq!(past(&fx, other.id).await, []);
    let id = execution.id;
    let fx = fx.reopened().await;
    assert_eq!(past(&fx, id).await, expected);
}

/// Revisions that count past costs are made once, by however many, also where the cost is back where
/// it was.
pub async fn revisions_that_count_past_costs_are_made_once(fx: Fixture) {
    let (_, execution) = call(at(0));
    fx.append(&[execution.clone().into()]).await;
    let first = execution.cost.unwrap();
    let step = |past, expected, new| CostRevision {
        past: Some(past),
        ..revision(&execution, expected, new)
    };
    let there_and_back = [step(0, first, reported(1)), step(1, reported(1), first)];
    let outcomes = join_all((0..8).map(|_| fx.store.revise_costs(&there_and_back))).await;
    let changed = outcomes.into_iter().filter(|outcome| {
        let outcome = outcome.as_ref().unwrap();
        assert!(outcome == &[Revised::Changed; 2] || outcome == &[Revised::Mismatch; 2]);
        outcome[0] == Revised::Changed
    });
    assert_eq!(changed.count(), 1);
    let costs = |past: Vec<PastCost>| past.into_iter().map(|past| past.cost).collect::<Vec<_>>();
    assert_eq!(costs(past(&fx, execution.id).await), [first, reported(1)]);
    for (past, outcome) in [(1, Revised::Mismatch), (3, Revised::Mismatch), (2, Revised::Changed)] {
        let revisions = [step(past, first, reported(2))];
        assert_eq!(fx.store.revise_costs(&revisions).await.unwrap(), [outcome]);
    }
}

/// The past costs of several executions come as a list each, in the order that was asked for.
pub async fn past_costs_of_many_come_one_list_each(fx: Fixture) {
    let calls: Vec<LlmExecution> = (0..50).map(|n| call(at(n)).1).collect();
    let records: Vec<Record> = calls.iter().cloned().map(Record::from).collect();
    fx.append(&records).await;
    let revise = |call: &LlmExecution| revision(call, call.cost.unwrap(), reported(9));
    let revisions: Vec<CostRevision> = calls.iter().skip(1).step_by(2).map(revise).collect();
    fx.store.revise_costs(&revisions).await.unwrap();
    let ids: Vec<ExecutionId> = calls.iter().rev().map(|call| call.id).collect();
    let lists = fx.store.past_costs(&ids).await.unwrap();
    let expected: Vec<Vec<Cost>> = (0..50_usize)
        .rev()
        .map(|n| if n % 2 == 1 { vec![calls[n].cost.unwrap()] } else { vec![] })
        .collect();
    let found: Vec<Vec<Cost>> =
        lists.iter().map(|list| list.iter().map(|past| past.cost).collect()).collect();
    assert_eq!(found, expected);
    let twice = [calls[1].id, ExecutionId::new(), calls[1].id];
    let lens: Vec<usize> =
        fx.store.past_costs(&twice).await.unwrap().iter().map(Vec::len).collect();
    assert_eq!(lens, [1, 0, 1]);
    assert!(fx.store.past_costs(&[]).await.unwrap().is_empty());
}

/// Past costs go with their execution, and with no other.
pub async fn past_costs_go_with_their_execution(fx: Fixture) {
    let (_, old) = call(at(0));
    let (_, young) = call(at(905));
    fx.append(&[old.clone().into(), young.clone().into()]).await;
    let revisions = [&old, &young].map(|of| revision(of, of.cost.unwrap(), reported(1)));
    fx.store.revise_costs(&revisions).await.unwrap();
    let prune = Prune { payloads_before: Some(at(909)), raw_before: None, limit: 10 };
    fx.store.prune(&prune).await.unwrap();
    assert_eq!(past(&fx, old.id).await.len(), 1);
    let prune = Prune { payloads_before: None, raw_before: Some(at(900)), limit: 10 };
    fx.store.prune(&prune).await.unwrap();
    assert_eq!(past(&fx, old.id).await, []);
    assert_eq!(past(&fx, young.id).await.len(), 1);
}

/// Sums follow a revision, from known to unknown and back.
pub async fn sums_follow_a_revision(fx: Fixture) {
    let (_, execution) = call(at(0));
    fx.append(&[execution.clone().into()]).await;
    let unknown = Cost::unpriced(UnpricedReason::MissingRate);
    let steps = [
        (execution.cost.unwrap(), unknown, (0, 1, 0)),
        (unknown, reported(3), (1, 0, 3)),
        (reported(3), reported(i128::from(i64::MAX)), (1, 0, i128::from(i64::MAX))),
    ];
    for (expected, new, sums) in steps {
        fx.store.revise_costs(&[revision(&execution, expected, new)]).await.unwrap();
        let rows = fx.store.aggregate(&AggregateQuery::default()).await.unwrap().rows;
        let of = &rows[0].measures;
        assert_eq!((of.priced, of.unpriced, of.cost_pico), sums);
    }
}

/// Many revise the same executions at once: one wins each, and sums are those of the winners.
pub async fn of_racing_revisers_exactly_one_wins_each_execution(fx: Fixture) {
    let executions: Vec<LlmExecution> = (0..20).map(|n| call(at(n * 700)).1).collect();
    let records: Vec<Record> = executions.iter().cloned().map(Record::from).collect();
    fx.append(&records).await;
    let revisers = (1..=8).map(|reviser| {
        let store = Arc::clone(&fx.store);
        let mut revisions: Vec<CostRevision> =
            executions.iter().map(|of| revision(of, of.cost.unwrap(), reported(reviser))).collect();
        // Not all in the same order: a store must not depend on it.
        revisions.rotate_left(usize::try_from(reviser).unwrap() * 2);
        tokio::spawn(async move {
            let mut changed = Vec::new();
            for part in revisions.chunks(3) {
                let outcomes = store.revise_costs(part).await.unwrap();
                for (revision, outcome) in part.iter().zip(outcomes) {
                    match outcome {
                        Revised::Changed => changed.push((revision.id, reviser)),
                        Revised::Mismatch => {}
                        Revised::NotFound => panic!("{} is not found", revision.id),
                    }
                }
            }
            changed
        })
    });
    let mut winners: Vec<(ExecutionId, i128)> =
        join_all(revisers).await.into_iter().flat_map(Result::unwrap).collect();
    winners.sort();
    let mut ids: Vec<ExecutionId> = executions.iter().map(|execution| execution.id).collect();
    ids.sort();
    assert_eq!(winners.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
    for (id, reviser) in &winners {
        let stored = fx.store.execution(*id).await.unwrap().unwrap();
        assert_eq!(stored.cost, Some(reported(*reviser)));
    }
    let rows = fx.store.aggregate(&AggregateQuery::default()).await.unwrap().rows;
    let sum: i128 = winners.iter().map(|(_, reviser)| reviser).sum();
    assert_eq!((rows[0].measures.cost_pico, rows[0].measures.priced), (sum, 20));
}
