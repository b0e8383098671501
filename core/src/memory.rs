//! [`MemoryStore`]: the reference meaning of the store traits, and the oracle of the tests.
//! Invariant: nothing is derived, indexed or cached; every answer is read off the records
//! themselves, so that the code can be checked against the contract by reading it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::aggregate::{Aggregate, AggregateQuery, Reading, Recount};
use crate::cube::{Cube, horizon_of, misses, rounds};
use crate::error::{Error, Result};
use crate::id::{CostConfigId, ExecutionId, PromptId, UsageId};
use crate::price::CostConfig;
use crate::prompt::{Prompt, PromptVersion};
use crate::query::{Cursor, Filter, Order, Page, PageQuery, RecordQuery};
use crate::record::{Attribution, LlmExecution, Record, Usage};
use crate::refusal;
use crate::slug::Slug;
use crate::store::{
    Appended, CostRevision, CostStore, Folded, PastCost, PriceList, PromptStore, Prune, Pruned,
    Rebuild, Rebuilt, RecordStore, Revised,
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

/// One page of what was `found`, which is sorted and starts behind the cursor.
fn page_of<T: Clone>(found: Vec<&T>, limit: u32, cursor: impl Fn(&T) -> Cursor) -> Page<T> {
    let one_longer = (limit as usize).saturating_add(1);
    Page::from_overread(found.into_iter().take(one_longer).cloned().collect(), limit, cursor)
}

#[async_trait]
impl PromptStore for MemoryStore {
    async fn insert_prompt(&self, prompt: &Prompt, versions: &[PromptVersion]) -> Result<()> {
        let mut state = self.state();
        if state.prompts.contains_key(&prompt.id) {
            return Err(refusal::prompt_id_taken(prompt.id));
        }
        if state.prompts.values().any(|other| other.slug == prompt.slug) {
            return Err(refusal::slug_taken(&prompt.slug));
        }
        let numbers: BTreeSet<u32> = versions.iter().map(|version| version.number).collect();
        if numbers.len() < versions.len() {
            return Err(Error::conflict(format!(
                "two versions of the prompt {} have one number",
                prompt.slug
            )));
        }
        state.prompts.insert(prompt.id, prompt.clone());
        for version in versions {
            state.versions.insert((prompt.id, version.number), version.clone());
        }
        Ok(())
    }

    async fn update_prompt(&self, prompt: &Prompt, version: Option<&PromptVersion>) -> Result<()> {
        let mut state = self.state();
        let Some(stored) = state.prompts.get(&prompt.id) else {
            return Err(refusal::no_prompt(prompt.id));
        };
        if stored.revision.checked_add(1) != Some(prompt.revision) {
            return Err(refusal::prompt_changed(&stored.slug, stored.revision));
        }
        if let Some(version) = version
            && state.versions.contains_key(&(prompt.id, version.number))
        {
            return Err(refusal::version_exists(&stored.slug, version.number));
        }
        let prompt =
            Prompt { slug: stored.slug.clone(), created_at: stored.created_at, ..prompt.clone() };
        let id = prompt.id;
        state.prompts.insert(id, prompt);
        if let Some(version) = version {
            state.versions.insert((id, version.number), version.clone());
        }
        Ok(())
    }

    async fn prompt_by_slug(&self, slug: &Slug) -> Result<Option<Prompt>> {
        Ok(self.state().prompts.values().find(|prompt| prompt.slug == *slug).cloned())
    }

    async fn prompt(&self, id: PromptId) -> Result<Option<Prompt>> {
        Ok(self.state().prompts.get(&id).cloned())
    }

    async fn list_prompts(&self, page: &PageQuery) -> Result<Page<Prompt>> {
        let after = match &page.after {
            None => None,
            Some(Cursor::Prompt(slug)) => Some(slug.as_str()),
            Some(other) => return Err(other.foreign()),
        };
        let state = self.state();
        let mut found: Vec<&Prompt> = state
            .prompts
            .values()
            .filter(|prompt| after.is_none_or(|after| prompt.slug.as_str() > after))
            .collect();
        found.sort_by_key(|prompt| prompt.slug.as_str());
        Ok(page_of(found, page.limit, |prompt| Cursor::Prompt(prompt.slug.as_str().to_owned())))
    }

    async fn version(&self, prompt: PromptId, number: u32) -> Result<Option<PromptVersion>> {
        Ok(self.state().versions.get(&(prompt, number)).cloned())
    }

    async fn list_versions(
        &self,
        prompt: PromptId,
        page: &PageQuery,
    ) -> Result<Page<PromptVersion>> {
        let after = match &page.after {
            None => None,
            Some(Cursor::Version(number)) => Some(*number),
            Some(other) => return Err(other.foreign()),
        };
        let state = self.state();
        let mut found: Vec<&PromptVersion> = state
            .versions
            .range((prompt, 0)..=(prompt, u32::MAX))
            .map(|(_, version)| version)
            .filter(|version| after.is_none_or(|after| version.number < after))
            .collect();
        found.sort_by_key(|version| Reverse(version.number));
        Ok(page_of(found, page.limit, |version| Cursor::Version(version.number)))
    }
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
        let state = self.state();
        let mut recount = Recount::new(query);
        let cube = Cube::covering(query);
        let live = |at: Timestamp| state.horizon.is_none_or(|horizon| at >= horizon);
        for usage in state.usages.values() {
            if live(usage.created_at) {
                recount.usage(usage);
            } else if cube.is_some() {
                // It is next to go, and counts as if it were gone.
                recount.usage(&remains_of_usage(usage));
            }
        }
        for call in state.executions.values() {
            if live(call.created_at) {
                recount.execution(call);
            } else if cube.is_some() {
                remains_of_call(call).iter().for_each(|call| recount.execution(call));
            }
        }
        if cube.is_some() {
            state.pruned_usages.iter().for_each(|usage| recount.usage(usage));
            state.pruned_calls.iter().for_each(|call| recount.execution(call));
        }
        let reading = Reading {
            raw_rows: (state.usages.len() + state.executions.len()) as u64,
            rounded: cube.is_some() && rounds(query, state.horizon),
            missing_before: cube.is_none().then(|| misses(query, state.horizon)).flatten(),
            ..Reading::default()
        };
        Ok(Aggregate { rows: recount.finish(), reading })
    }

    async fn fold(&self) -> Result<Folded> {
        Ok(Folded::default())
    }

    async fn rebuild(&self, _: Rebuild) -> Result<Rebuilt> {
        Ok(Rebuilt::default())
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
        let place = |usage: &Usage| (usage.created_at, usage.id.to_bytes());
        let state = self.state();
        let mut found: Vec<&Usage> = state
            .usages
            .values()
            .filter(|usage| query.range.contains(usage.created_at))
            .filter(|usage| query.filter.matches_usage(usage))
            .filter(|usage| query.usage.is_none_or(|id| id == usage.id))
            .filter(|usage| after.is_none_or(|after| query.order.is_behind(&place(usage), &after)))
            .collect();
        found.sort_by_key(|usage| place(usage));
        if query.order == Order::NewestFirst {
            found.reverse();
        }
        let mut page = page_of(found, query.page.limit, |usage| {
            Cursor::Usage(usage.created_at, usage.id.to_bytes())
        });
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
        let place = |execution: &LlmExecution| (execution.created_at, execution.id.to_bytes());
        let state = self.state();
        let mut found: Vec<&LlmExecution> = state
            .executions
            .values()
            .filter(|execution| query.range.contains(execution.created_at))
            .filter(|execution| query.filter.matches_execution(execution))
            .filter(|execution| query.usage.is_none_or(|id| id == execution.usage_id))
            .filter(|call| after.is_none_or(|after| query.order.is_behind(&place(call), &after)))
            .collect();
        found.sort_by_key(|execution| place(execution));
        if query.order == Order::NewestFirst {
            found.reverse();
        }
        let mut page = page_of(found, query.page.limit, |execution| {
            Cursor::Execution(execution.created_at, execution.id.to_bytes())
        });
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
            // A pending execution has no cost, so it never has the expected one.
            if stored.cost != Some(revision.expected) {
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
        let mut state = self.state();
        let limit = prune.limit as usize;
        let mut pruned = Pruned { done: true, ..Pruned::default() };
        if let Some(before) = prune.raw_before.map(horizon_of) {
            state.horizon = state.horizon.max(Some(before));
            let (ids, all) = oldest(&state.usages, limit, |usage| {
                (usage.created_at < before).then_some(usage.created_at)
            });
            pruned.usages = ids.len() as u64;
            pruned.done &= all;
            for id in &ids {
                let gone = state.usages.remove(id);
                state.pruned_usages.extend(gone.iter().map(remains_of_usage));
            }
            let (ids, all) = oldest(&state.executions, limit, |execution| {
                (execution.created_at < before).then_some(execution.created_at)
            });
            pruned.executions = ids.len() as u64;
            pruned.done &= all;
            for id in &ids {
                let gone = state.executions.remove(id);
                state.pruned_calls.extend(gone.iter().filter_map(remains_of_call));
                state.past_costs.remove(id);
            }
        }
        if let Some(before) = prune.payloads_before {
            let State { usages, executions, .. } = &mut *state;
            let mut payloads: Vec<(Timestamp, [u8; 16], Expiring<'_>)> = Vec::new();
            for (id, usage) in usages {
                if usage.created_at < before && usage.payload.is_some() {
                    let payload = Expiring::Usage(usage);
                    payloads.push((payload.created_at(), id.to_bytes(), payload));
                }
            }
            for (id, execution) in executions {
                if execution.created_at < before && execution.payload.is_some() {
                    let payload = Expiring::Execution(execution);
                    payloads.push((payload.created_at(), id.to_bytes(), payload));
                }
            }
            payloads.sort_by_key(|(at, id, _)| (*at, *id));
            pruned.done &= payloads.len() <= limit;
            for (_, _, payload) in payloads.into_iter().take(limit) {
                payload.expire();
                pruned.payloads += 1;
            }
        }
        Ok(pruned)
    }

    async fn raw_horizon(&self) -> Result<Option<Timestamp>> {
        Ok(self.state().horizon)
    }
}

/// What sums keep of a usage that was pruned.
fn remains_of_usage(usage: &Usage) -> Usage {
    let Usage { id, attribution, created_at, payload: _ } = usage;
    Usage {
        id: *id,
        attribution: Attribution { session: None, user: None, ..attribution.clone() },
        created_at: horizon_of(*created_at),
        payload: None,
    }
}

/// What sums keep of a call that was pruned: nothing of one that had not finished.
fn remains_of_call(call: &LlmExecution) -> Option<LlmExecution> {
    call.status.is_final().then(|| LlmExecution {
        attribution: Attribution { session: None, user: None, ..call.attribution.clone() },
        created_at: horizon_of(call.created_at),
        payload: None,
        ..call.clone()
    })
}

/// A record that has a payload to delete.
enum Expiring<'a> {
    Usage(&'a mut Usage),
    Execution(&'a mut LlmExecution),
}

impl Expiring<'_> {
    fn created_at(&self) -> Timestamp {
        match self {
            Self::Usage(usage) => usage.created_at,
            Self::Execution(execution) => execution.created_at,
        }
    }

    fn expire(self) {
        match self {
            Self::Usage(usage) => usage.payload = None,
            Self::Execution(execution) => execution.payload = None,
        }
    }
}

/// The ids of the oldest `limit` of those that `doomed` gives a time, and whether that is all.
fn oldest<K: Copy + Ord, V>(
    map: &BTreeMap<K, V>,
    limit: usize,
    doomed: impl Fn(&V) -> Option<Timestamp>,
) -> (Vec<K>, bool) {
    let mut found: Vec<(Timestamp, K)> =
        map.iter().filter_map(|(id, value)| doomed(value).map(|at| (at, *id))).collect();
    found.sort();
    let all = found.len() <= limit;
    (found.into_iter().take(limit).map(|(_, id)| id).collect(), all)
}

#[async_trait]
impl CostStore for MemoryStore {
    async fn cost_configs(&self) -> Result<PriceList> {
        let state = self.state();
        let configs = state.prices.values().cloned().collect();
        Ok(PriceList { generation: state.generation, configs })
    }

    async fn price_generation(&self) -> Result<u64> {
        Ok(self.state().generation)
    }

    async fn put_cost_configs(&self, configs: &[CostConfig], expected: u64) -> Result<()> {
        let mut state = self.state();
        if state.generation != expected {
            return Err(refusal::prices_changed(state.generation, expected));
        }
        let mut prices = state.prices.clone();
        for config in configs {
            config.validate()?;
            prices.insert(config.id, config.clone());
        }
        CostConfig::check_overlaps(prices.values())?;
        state.prices = prices;
        state.generation += 1;
        Ok(())
    }
}
