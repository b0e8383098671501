//! [`MemoryStore`]: the reference meaning of the store traits, and the oracle of the tests.
//! Invariant: nothing is derived, indexed or cached; every answer is read off the records
//! themselves, so that the code can be checked against the contract by reading it.

mod prices;
mod prompts;
mod prune;
mod restore;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use self::prune::{remains_of_call, remains_of_usage};
use crate::aggregate::{Aggregate, AggregateQuery, Reading, Recount};
use crate::cube::{Cube, misses, rounds};
use crate::error::Result;
use crate::id::{CostConfigId, ExecutionId, PromptId, UsageId};
use crate::price::CostConfig;
use crate::prompt::{Prompt, PromptVersion};
use crate::pruned::PrunedSums;
use crate::query::{Cursor, Filter, Order, Page, RecordQuery};
use crate::record::{LlmExecution, Record, Usage};
use crate::refusal;
use crate::store::{
    Appended, CostRevision, Folded, PastCost, Prune, Pruned, Rebuild, Rebuilt, RecordStore,
    Restored, Revised,
};
use crate::time::{TimeRange, Timestamp};

/// A store in memory, for tests and for programs that need to keep nothing.
///
/// Cloning it clones the handle: both see the same data, which goes with the last of them.
/// Every call is one step under one lock. Lists and sums walk over all records.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    prompts: BTreeMap<PromptId, Prompt>,
    versions: BTreeMap<(PromptId, u32), PromptVersion>,
    usages: BTreeMap<UsageId, Usage>,
    executions: BTreeMap<ExecutionId, LlmExecution>,
    past_costs: BTreeMap<ExecutionId, Vec<PastCost>>,
    horizon: Option<Timestamp>,
    /// What sums keep of records that were pruned: no more than cubes have, each at the start of its
    /// quarter of an hour.
    pruned_usages: Vec<Usage>,
    pruned_calls: Vec<LlmExecution>,
    /// Those of records that were pruned in another store.
    restored: Vec<PrunedSums>,
    prices: BTreeMap<CostConfigId, CostConfig>,
    generation: u64,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// No call leaves the state half changed when it panics, so a poisoned lock is a good one.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn aggregate(&self, query: &AggregateQuery) -> Aggregate {
        let mut recount = Recount::new(query);
        let cube = Cube::covering(query);
        let live = |at: Timestamp| self.horizon.is_none_or(|horizon| at >= horizon);
        for usage in self.usages.values() {
            if live(usage.created_at) {
                recount.usage(usage);
            } else if cube.is_some() {
                // It is next to go, and counts as if it were gone.
                recount.usage(&remains_of_usage(usage));
            }
        }
        for call in self.executions.values() {
            if live(call.created_at) {
                recount.execution(call);
            } else if cube.is_some() {
                remains_of_call(call).iter().for_each(|call| recount.execution(call));
            }
        }
        if cube.is_some() {
            self.pruned_usages.iter().for_each(|usage| recount.usage(usage));
            self.pruned_calls.iter().for_each(|call| recount.execution(call));
            self.restored.iter().for_each(|sums| recount.pruned(sums));
        }
        let reading = Reading {
            raw_rows: (self.usages.len() + self.executions.len()) as u64,
            rounded: cube.is_some() && rounds(query, self.horizon),
            missing_before: cube.is_none().then(|| misses(query, self.horizon)).flatten(),
            ..Reading::default()
        };
        Aggregate { rows: recount.finish(), reading }
    }
}

/// One page of what was `found`, which is sorted and starts behind the cursor.
fn page_of<T: Clone>(found: Vec<&T>, limit: u32, cursor: impl Fn(&T) -> Cursor) -> Page<T> {
    let one_longer = (limit as usize).saturating_add(1);
    Page::from_overread(found.into_iter().take(one_longer).cloned().collect(), limit, cursor)
}

/// Where a record stands in a list.
type Place = (Timestamp, [u8; 16]);

/// One page of the records that were `found`, in the order of `query` and behind `after`.
fn page_of_records<'a, T: Clone + 'a>(
    found: impl Iterator<Item = &'a T>,
    query: &RecordQuery,
    after: Option<Place>,
    place: impl Fn(&T) -> Place,
    cursor: impl Fn(Timestamp, [u8; 16]) -> Cursor,
) -> Page<T> {
    let is_behind =
        |record: &&T| after.is_none_or(|after| query.order.is_behind(&place(record), &after));
    let mut found: Vec<&T> = found.filter(is_behind).collect();
    found.sort_by_key(|record| place(record));
    if query.order == Order::NewestFirst {
        found.reverse();
    }
    page_of(found, query.page.limit, |record| {
        let (at, id) = place(record);
        cursor(at, id)
    })
}

/// The records of a batch that change something, over the state that they will change.
struct Batch<'s, 'a> {
    state: &'s State,
    usages: BTreeMap<UsageId, &'a Usage>,
    executions: BTreeMap<ExecutionId, &'a LlmExecution>,
    appended: Appended,
}

impl<'a> Batch<'_, 'a> {
    fn add(&mut self, record: &'a Record) -> Result<()> {
        if let Some(horizon) = self.state.horizon
            && record.created_at() < horizon
        {
            return Err(refusal::before_horizon(record, horizon));
        }
        let changes = match record {
            Record::Usage(usage) => self.add_usage(usage),
            Record::Execution(execution) => self.add_execution(execution),
        };
        let changes = changes.map_err(|what| refusal::stored_with_another(record.name(), what))?;
        if changes {
            self.appended.stored += 1;
        } else {
            self.appended.unchanged += 1;
        }
        Ok(())
    }

    /// Whether the usage is new; an error names what differs from the stored one.
    fn add_usage(&mut self, new: &'a Usage) -> Result<bool, &'static str> {
        let stored = self.usages.get(&new.id).copied().or(self.state.usages.get(&new.id));
        let Some(stored) = stored else {
            self.usages.insert(new.id, new);
            return Ok(true);
        };
        if stored.created_at != new.created_at {
            return Err("start time");
        }
        if stored.attribution != new.attribution {
            return Err("attribution");
        }
        Ok(false)
    }

    /// Whether the execution is new or ends a pending one; an error names what differs.
    fn add_execution(&mut self, new: &'a LlmExecution) -> Result<bool, &'static str> {
        let stored = self.executions.get(&new.id).copied();
        let Some(stored) = stored.or(self.state.executions.get(&new.id)) else {
            self.executions.insert(new.id, new);
            return Ok(true);
        };
        if stored.created_at != new.created_at {
            return Err("start time");
        }
        if stored.attribution != new.attribution {
            return Err("attribution");
        }
        if stored.usage_id != new.usage_id {
            return Err("usage");
        }
        if stored.model != new.model {
            return Err("asked model");
        }
        let finishes = !stored.status.is_final() && new.status.is_final();
        if finishes {
            self.executions.insert(new.id, new);
        }
        Ok(finishes)
    }
}

#[async_trait]
impl RecordStore for MemoryStore {
    async fn append(&self, records: &[Record]) -> Result<Appended> {
        records.iter().try_for_each(Record::validate)?;
        let mut state = self.state();
        let mut batch = Batch {
            state: &state,
            usages: BTreeMap::new(),
            executions: BTreeMap::new(),
            appended: Appended::default(),
        };
        for record in records {
            batch.add(record)?;
        }
        let Batch { usages, executions, appended, .. } = batch;
        state.usages.extend(usages.into_iter().map(|(id, usage)| (id, usage.clone())));
        state.executions.extend(executions.into_iter().map(|(id, call)| (id, call.clone())));
        Ok(appended)
    }

    async fn aggregate(&self, query: &AggregateQuery) -> Result<Aggregate> {
        Ok(self.state().aggregate(query))
    }

    async fn fold(&self) -> Result<Folded> {
        Ok(Folded::default())
    }

    async fn rebuild(&self, _: Rebuild) -> Result<Rebuilt> {
        Ok(Rebuilt::default())
    }

    async fn restore(&self, sums: &[PrunedSums]) -> Result<Restored> {
        self.state().restore(sums)
    }

    async fn usage(&self, id: UsageId) -> Result<Option<Usage>> {
        Ok(self.state().usages.get(&id).cloned())
    }

    async fn execution(&self, id: ExecutionId) -> Result<Option<LlmExecution>> {
        Ok(self.state().executions.get(&id).cloned())
    }

    async fn list_usages(&self, query: &RecordQuery) -> Result<Page<Usage>> {
        let after = match &query.page.after {
            None => None,
            Some(Cursor::Usage(at, id)) => Some((*at, *id)),
            Some(other) => return Err(other.foreign()),
        };
        let state = self.state();
        let found = state
            .usages
            .values()
            .filter(|usage| query.range.contains(usage.created_at))
            .filter(|usage| query.filter.matches_usage(usage))
            .filter(|usage| query.usage.is_none_or(|id| id == usage.id));
        let place = |usage: &Usage| (usage.created_at, usage.id.to_bytes());
        let mut page = page_of_records(found, query, after, place, Cursor::Usage);
        if !query.payloads {
            page.items.iter_mut().for_each(|usage| usage.payload = None);
        }
        Ok(page)
    }

    async fn list_executions(&self, query: &RecordQuery) -> Result<Page<LlmExecution>> {
        let after = match &query.page.after {
            None => None,
            Some(Cursor::Execution(at, id)) => Some((*at, *id)),
            Some(other) => return Err(other.foreign()),
        };
        let state = self.state();
        let found = state
            .executions
            .values()
            .filter(|execution| query.range.contains(execution.created_at))
            .filter(|execution| query.filter.matches_execution(execution))
            .filter(|execution| query.usage.is_none_or(|id| id == execution.usage_id));
        let place = |execution: &LlmExecution| (execution.created_at, execution.id.to_bytes());
        let mut page = page_of_records(found, query, after, place, Cursor::Execution);
        if !query.payloads {
            page.items.iter_mut().for_each(|execution| execution.payload = None);
        }
        Ok(page)
    }

    async fn slowest_executions(
        &self,
        range: &TimeRange,
        filter: &Filter,
        limit: u32,
    ) -> Result<Vec<LlmExecution>> {
        let state = self.state();
        let mut found: Vec<&LlmExecution> = state
            .executions
            .values()
            .filter(|execution| range.contains(execution.created_at))
            .filter(|execution| filter.matches_execution(execution))
            .filter(|execution| execution.latency_ms.is_some())
            .collect();
        found.sort_by_key(|call| Reverse((call.latency_ms, call.created_at, call.id)));
        found.truncate(limit as usize);
        Ok(found.into_iter().map(|call| LlmExecution { payload: None, ..call.clone() }).collect())
    }

    async fn revise_costs(&self, revisions: &[CostRevision]) -> Result<Vec<Revised>> {
        let mut state = self.state();
        let mut changed: BTreeMap<ExecutionId, LlmExecution> = BTreeMap::new();
        let mut past = Vec::new();
        let mut outcomes = Vec::with_capacity(revisions.len());
        for revision in revisions {
            let stored = changed.get(&revision.id).or(state.executions.get(&revision.id));
            let Some(stored) = stored else {
                outcomes.push(Revised::NotFound);
                continue;
            };
            let before = || {
                let in_this_call = past.iter().filter(|(id, _)| *id == revision.id).count();
                (state.past_costs.get(&revision.id).map_or(0, Vec::len) + in_this_call) as u64
            };
            // A pending execution has no cost, so it never has the expected one.
            if stored.cost != Some(revision.expected)
                || revision.past.is_some_and(|past| past != before())
            {
                outcomes.push(Revised::Mismatch);
                continue;
            }
            let revised = LlmExecution {
                cost: Some(revision.new),
                priced_model: revision.priced_model.clone(),
                ..stored.clone()
            };
            revised.validate()?;
            let (cost, priced_model) = (revision.expected, stored.priced_model.clone());
            past.push((stored.id, PastCost { cost, priced_model, replaced_at: revision.at }));
            changed.insert(revised.id, revised);
            outcomes.push(Revised::Changed);
        }
        state.executions.extend(changed);
        for (id, cost) in past {
            state.past_costs.entry(id).or_default().push(cost);
        }
        Ok(outcomes)
    }

    async fn past_costs(&self, ids: &[ExecutionId]) -> Result<Vec<Vec<PastCost>>> {
        let state = self.state();
        Ok(ids.iter().map(|id| state.past_costs.get(id).cloned().unwrap_or_default()).collect())
    }

    async fn prune(&self, prune: &Prune) -> Result<Pruned> {
        Ok(self.state().prune(prune))
    }

    async fn compact(&self) -> Result<()> {
        Ok(())
    }

    async fn raw_horizon(&self) -> Result<Option<Timestamp>> {
        Ok(self.state().horizon)
    }
}
