//! Deleting what is old, in memory.
//! Invariant: what sums keep of it is no more than cubes have, each at the start of its quarter of an
//! hour.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::State;
use crate::cube::horizon_of;
use crate::record::{Attribution, ExecutionPayload, LlmExecution, Usage, UsagePayload};
use crate::store::{Prune, Pruned};
use crate::time::Timestamp;

impl State {
    /// Deletes what `prune` asks for, the oldest first.
    pub(super) fn prune(&mut self, prune: &Prune) -> Pruned {
        let limit = prune.limit as usize;
        let mut pruned = Pruned { done: true, ..Pruned::default() };
        if let Some(before) = prune.raw_before.map(horizon_of) {
            self.horizon = self.horizon.max(Some(before));
            let (ids, all) = oldest(&self.usages, before, limit, |usage| usage.created_at);
            pruned.usages = ids.len() as u64;
            pruned.done &= all;
            for id in &ids {
                let gone = self.usages.remove(id);
                self.pruned_usages.extend(gone.iter().map(remains_of_usage));
            }
            let (ids, all) = oldest(&self.executions, before, limit, |call| call.created_at);
            pruned.executions = ids.len() as u64;
            pruned.done &= all;
            for id in &ids {
                let gone = self.executions.remove(id);
                self.pruned_calls.extend(gone.iter().filter_map(remains_of_call));
                self.past_costs.remove(id);
            }
        }
        if let Some(before) = prune.payloads_before {
            let mut payloads: Vec<(Timestamp, [u8; 16], Expiring<'_>)> = Vec::new();
            for (id, usage) in &mut self.usages {
                if usage.created_at < before && usage.payload.is_some() {
                    let payload = Expiring::Usage(&mut usage.payload);
                    payloads.push((usage.created_at, id.to_bytes(), payload));
                }
            }
            for (id, call) in &mut self.executions {
                if call.created_at < before && call.payload.is_some() {
                    let payload = Expiring::Execution(&mut call.payload);
                    payloads.push((call.created_at, id.to_bytes(), payload));
                }
            }
            payloads.sort_by_key(|(at, id, _)| (*at, *id));
            pruned.done &= payloads.len() <= limit;
            for (_, _, payload) in payloads.into_iter().take(limit) {
                match payload {
                    Expiring::Usage(payload) => *payload = None,
                    Expiring::Execution(payload) => *payload = None,
                }
                pruned.payloads += 1;
            }
        }
        pruned
    }
}

/// What sums keep of a usage that was pruned.
pub(super) fn remains_of_usage(usage: &Usage) -> Usage {
    let Usage { id, attribution, created_at, payload: _ } = usage;
    Usage {
        id: *id,
        attribution: Attribution { session: None, user: None, ..attribution.clone() },
        created_at: horizon_of(*created_at),
        payload: None,
    }
}

/// What sums keep of a call that was pruned: nothing of one that had not finished.
pub(super) fn remains_of_call(call: &LlmExecution) -> Option<LlmExecution> {
    call.status.is_final().then(|| LlmExecution {
        attribution: Attribution { session: None, user: None, ..call.attribution.clone() },
        created_at: horizon_of(call.created_at),
        payload: None,
        ..call.clone()
    })
}

/// A payload to delete.
enum Expiring<'a> {
    Usage(&'a mut Option<Arc<UsagePayload>>),
    Execution(&'a mut Option<Arc<ExecutionPayload>>),
}

/// The ids of the oldest `limit` of those from before `before`, and whether that is all.
fn oldest<K: Copy + Ord, V>(
    map: &BTreeMap<K, V>,
    before: Timestamp,
    limit: usize,
    created_at: impl Fn(&V) -> Timestamp,
) -> (Vec<K>, bool) {
    let places = map.iter().map(|(id, value)| (created_at(value), *id));
    let mut found: Vec<_> = places.filter(|(at, _)| *at < before).collect();
    found.sort();
    let all = found.len() <= limit;
    (found.into_iter().take(limit).map(|(_, id)| id).collect(), all)
}
