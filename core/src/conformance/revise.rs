//! Revising costs: compare and set, each for itself, all in one step.

use std::sync::Arc;

use futures::future::join_all;

use super::Fixture;
use super::arbitrary::{at, call, label, pending, pico, reported, usage};
use crate::aggregate::AggregateQuery;
use crate::cost::{Cost, UnpricedReason};
use crate::id::{CostConfigId, ExecutionId};
use crate::record::{LlmExecution, Record};
use crate::store::{CostRevision, Revised};

fn revision(execution: &LlmExecution, expected: Cost, new: Cost) -> CostRevision {
    CostRevision { id: execution.id, expected, new, priced_model: Some(label("revised")) }
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
        let rows = fx.store.aggregate(&AggregateQuery::default()).await.unwrap();
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
    let rows = fx.store.aggregate(&AggregateQuery::default()).await.unwrap();
    let sum: i128 = winners.iter().map(|(_, reviser)| reviser).sum();
    assert_eq!((rows[0].measures.cost_pico, rows[0].measures.priced), (sum, 20));
}
