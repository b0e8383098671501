//! The model test: random operations on a store and on a [`MemoryStore`], compared at every step.
//! A failure names its seed and step; `PROMPT_ENGINE_SEED` runs one seed again.

use std::fmt::Debug;

use super::aggregate::arbitrary_query;
use super::arbitrary::{Arbitrary, at, bytes, label, next, price, prompt, version};
use super::{Fixture, seeds};
use crate::aggregate::{Aggregate, AggregateQuery};
use crate::error::{ErrorKind, Result};
use crate::id::{CostConfigId, ExecutionId, PromptId};
use crate::memory::MemoryStore;
use crate::price::CostConfig;
use crate::prompt::{Prompt, PromptVersion};
use crate::query::{Order, PageQuery, RecordQuery};
use crate::record::{LlmExecution, Record};
use crate::store::{
    CostRevision, CostStore, PriceList, PromptStore, Prune, Pruned, Rebuild, RecordStore, Store,
};

const STEPS: usize = 120;
const SPAN: i64 = 3 * 86_400;

/// Any sequence of operations has the results, and leaves the answers, that the reference has.
pub async fn any_sequence_of_operations_matches_the_memory_store(fx: Fixture) {
    let mut fx = fx;
    // Seeds share the store: all that they write, and ask for, has ids of its own but for sums.
    let model = MemoryStore::new();
    for seed in seeds(&[1, 2, 3]) {
        let mut run = Run {
            random: Arbitrary::new(seed, SPAN),
            model: model.clone(),
            sent: Vec::new(),
            prompts: Vec::new(),
            seed,
            step: 0,
            doing: "",
        };
        for step in 0..STEPS {
            run.step = step;
            if run.random.rng.u8(..40) == 0 {
                fx = fx.reopened().await;
            }
            run.write(&*fx.store).await;
            run.compare(&*fx.store).await;
        }
    }
}

struct Run {
    random: Arbitrary,
    model: MemoryStore,
    sent: Vec<Record>,
    prompts: Vec<Prompt>,
    seed: u64,
    step: usize,
    doing: &'static str,
}

/// Names the seed of a panic that names none, such as one inside a store.
impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { seed, step, doing, .. } = self;
            eprintln!("PROMPT_ENGINE_SEED={seed} fails at step {step} ({doing})");
        }
    }
}

fn kind<T>(result: Result<T>) -> Result<T, ErrorKind> {
    result.map_err(|error| error.kind())
}

impl Run {
    #[track_caller]
    fn same<T: Debug + PartialEq>(&self, found: Result<T>, expected: Result<T>, what: &dyn Debug) {
        let chain = found.as_ref().err().map(|error| error.chain());
        let (found, expected) = (kind(found), kind(expected));
        assert!(
            found == expected,
            "seed {}, step {} ({}): {what:#?}\n found {found:#?} {chain:?}\n expected {expected:#?}\n\
             run it again with PROMPT_ENGINE_SEED={}",
            self.seed,
            self.step,
            self.doing,
            self.seed,
        );
    }

    async fn write(&mut self, store: &dyn Store) {
        match self.random.rng.u8(..22) {
            0..=8 => self.append(store).await,
            20 => drop(store.fold().await.unwrap()),
            21 => self.rebuild(store).await,
            9..=11 => self.revise(store).await,
            12 => self.prune(store).await,
            13..=16 => self.prompt(store).await,
            _ => self.prices(store).await,
        }
    }

    /// A batch of new and known records with at most one that must be refused, so that it does
    /// not matter which of two a store would name.
    async fn append(&mut self, store: &dyn Store) {
        self.doing = "append";
        let horizon = self.model.raw_horizon().await.unwrap();
        let old = |record: &Record| horizon.is_some_and(|horizon| record.created_at() < horizon);
        let mut batch: Vec<Record> = Vec::new();
        for _ in 0..self.random.rng.usize(0..12) {
            let new = self.random.records();
            batch.extend(new.into_iter().filter(|record| !old(record)));
        }
        let known: Vec<Record> = self.sent.iter().filter(|record| !old(record)).cloned().collect();
        for _ in 0..self.random.rng.usize(0..8) {
            if known.is_empty() {
                break;
            }
            let record = self.random.one(&known);
            batch.push(match record {
                Record::Execution(execution) if self.random.rng.bool() => {
                    self.random.finished(&execution).into()
                }
                Record::Execution(execution) if self.random.rng.bool() => {
                    let (payload, of) = (execution.payload.clone(), execution);
                    let (usage, at) = (of.usage_id, of.created_at);
                    let (provider, model) = (of.provider, of.model);
                    let again =
                        LlmExecution::pending(of.id, usage, of.attribution, provider, model, at);
                    LlmExecution { payload, ..again }.into()
                }
                record => record,
            });
        }
        self.random.rng.shuffle(&mut batch);
        if self.random.rng.u8(..5) == 0 {
            let offender = self.offender(&known).await;
            let place = self.random.rng.usize(..=batch.len());
            batch.insert(place, offender);
        }
        let found = store.append(&batch).await;
        let expected = self.model.append(&batch).await;
        if expected.is_ok() {
            self.sent.extend(batch.clone());
        }
        self.same(found, expected, &batch);
    }

    async fn offender(&mut self, known: &[Record]) -> Record {
        let usage = self.random.usage();
        let pending = self.random.pending(&usage);
        let horizon = self.model.raw_horizon().await.unwrap();
        match (self.random.rng.u8(..3), horizon) {
            (0, Some(horizon)) => {
                let before = std::time::Duration::from_micros(self.random.rng.u64(1..1_000_000));
                let created_at = horizon.saturating_sub(before);
                crate::Usage { created_at, ..usage }.into()
            }
            (1, _) if !known.is_empty() => {
                let mut record = self.random.one(known);
                match &mut record {
                    Record::Usage(usage) => usage.attribution.version += 10,
                    Record::Execution(call) => call.model = label("another"),
                }
                record
            }
            _ => LlmExecution { cost: None, ..self.random.finished(&pending) }.into(),
        }
    }

    /// Changes no answer, so the reference does nothing.
    async fn rebuild(&mut self, store: &dyn Store) {
        self.doing = "rebuild";
        let moment = self.random.moment();
        store.rebuild(Rebuild::Hour(moment)).await.unwrap();
        if self.random.rng.bool() {
            store.rebuild(Rebuild::Day(moment)).await.unwrap();
        }
    }

    async fn revise(&mut self, store: &dyn Store) {
        self.doing = "revise";
        let mut revisions = Vec::new();
        for _ in 0..self.random.rng.usize(0..10) {
            let mut id = ExecutionId::from_bytes(bytes(&mut self.random.rng));
            if !self.sent.is_empty()
                && let Record::Execution(execution) = self.random.one(&self.sent)
            {
                id = execution.id;
            }
            let stored = self.model.execution(id).await.unwrap();
            let expected = match stored.and_then(|execution| execution.cost) {
                Some(cost) if self.random.rng.u8(..5) > 0 => cost,
                _ => self.random.cost(),
            };
            let new = self.random.cost();
            let priced_model = self.random.maybe_label(&["gpt-4o", "claude"]);
            let at = at(self.random.rng.i64(0..1_000));
            revisions.push(CostRevision { id, expected, past: None, new, priced_model, at });
        }
        let found = store.revise_costs(&revisions).await;
        let expected = self.model.revise_costs(&revisions).await;
        self.same(found, expected, &revisions);
    }

    /// Prunes to the end on both: which payloads of one moment go first is a store's own affair.
    async fn prune(&mut self, store: &dyn Store) {
        self.doing = "prune";
        let mut before = |most: i64| {
            let seconds = self.random.rng.i64(0..most);
            self.random.rng.bool().then(|| at(seconds))
        };
        let prune = Prune {
            raw_before: before(SPAN / 4),
            payloads_before: before(SPAN / 2),
            limit: self.random.rng.u32(5..50),
        };
        async fn to_the_end(store: &dyn Store, prune: &Prune) -> Result<Pruned> {
            let mut all = Pruned::default();
            while !all.done {
                let part = store.prune(prune).await?;
                let most = u64::from(prune.limit);
                assert!(part.usages <= most && part.executions <= most && part.payloads <= most);
                let deleted = part.usages + part.executions + part.payloads;
                assert!(part.done || deleted > 0, "a prune that deletes nothing is not done");
                all.usages += part.usages;
                all.executions += part.executions;
                all.done = part.done;
                // Of a record that goes, the payload may have gone before it or goes with it.
                if prune.raw_before.is_none() {
                    all.payloads += part.payloads;
                }
            }
            Ok(all)
        }
        let expected = to_the_end(&self.model, &prune).await;
        self.same(to_the_end(store, &prune).await, expected, &prune);
    }

    async fn prompt(&mut self, store: &dyn Store) {
        if self.prompts.is_empty() || self.random.rng.u8(..4) == 0 {
            self.doing = "insert a prompt";
            let slugs = ["a", "b", "a-b", "b-a", "c", "0", "z", "-", "aa", "ab"];
            let slug = format!("s{}-{}", self.random.rng.u8(..9), self.random.one(&slugs));
            let (mut new, mut first) = prompt(&slug);
            let id = PromptId::from_bytes(bytes(&mut self.random.rng));
            (new.id, first.prompt_id) = (id, id);
            let versions: Vec<PromptVersion> = (0..self.random.rng.u32(0..4))
                .map(|n| PromptVersion { number: n + 1, ..first.clone() })
                .collect();
            new.latest_version = versions.last().map_or(0, |last| last.number);
            let found = store.insert_prompt(&new, &versions).await;
            let expected = self.model.insert_prompt(&new, &versions).await;
            if expected.is_ok() {
                self.prompts.push(new.clone());
            }
            return self.same(found, expected, &new);
        }
        self.doing = "update a prompt";
        let id = self.random.one(&self.prompts).id;
        let stored = self.model.prompt(id).await.unwrap().unwrap();
        let number = stored.latest_version + self.random.rng.u32(0..2);
        let number = number.max(1);
        let mut changed = next(&stored, number);
        if self.random.rng.u8(..5) == 0 {
            changed.revision = self.random.rng.u64(0..8);
        }
        if self.random.rng.u8(..10) == 0 {
            changed.id = PromptId::from_bytes(bytes(&mut self.random.rng));
        }
        changed.name = self.random.text();
        let version = version(&changed, number);
        let version = self.random.rng.bool().then_some(&version);
        let found = store.update_prompt(&changed, version).await;
        let expected = self.model.update_prompt(&changed, version).await;
        self.same(found, expected, &(changed, version));
    }

    async fn prices(&mut self, store: &dyn Store) {
        self.doing = "put prices";
        let known = self.model.cost_configs().await.unwrap().configs;
        let stale = self.random.rng.u8(..5) == 0;
        let mut configs = Vec::new();
        for _ in 0..self.random.rng.usize(1..3) {
            let from = self.random.rng.i64(0..20);
            let model = self.random.one(&["a", "b", "c", "d", "e", "f"]);
            let mut config = CostConfig {
                id: CostConfigId::from_bytes(bytes(&mut self.random.rng)),
                valid_from: self.random.rng.bool().then(|| at(from)),
                valid_to: self.random.rng.bool().then(|| at(from + self.random.rng.i64(1..20))),
                replaced_at: (self.random.rng.u8(..6) == 0).then(|| at(from)),
                ..price(model)
            };
            if !known.is_empty() && self.random.rng.bool() {
                config.id = self.random.one(&known).id;
            }
            if stale {
                // A change that is both late and wrong may be refused for either.
                config.model = label(&config.id.to_string());
            }
            configs.push(config);
        }
        if configs.len() == 2 && (stale || configs[0].id == configs[1].id) {
            configs.pop();
        }
        let late = u64::from(stale);
        let generation = store.price_generation().await.unwrap();
        let found = store.put_cost_configs(&configs, generation + late).await;
        let generation = self.model.price_generation().await.unwrap();
        let expected = self.model.put_cost_configs(&configs, generation + late).await;
        self.same(found, expected, &configs);
    }

    /// Asks both the same questions.
    async fn compare(&mut self, store: &dyn Store) {
        if let Some(Record::Execution(execution)) =
            self.sent.get(self.step % self.sent.len().max(1))
        {
            let id = execution.id;
            let found = store.past_costs(&[id, ExecutionId::new(), id]).await;
            let expected = self.model.past_costs(&[id, ExecutionId::new(), id]).await;
            self.same(found, expected, &id);
        }
        self.doing = match self.doing {
            "append" => "asked after append",
            "revise" => "asked after revise",
            "prune" => "asked after prune",
            "put prices" => "asked after put prices",
            _ => "asked after a prompt was written",
        };
        let questions = [
            AggregateQuery::default(),
            arbitrary_query(&mut self.random),
            arbitrary_query(&mut self.random),
        ];
        for query in questions {
            // What was read for an answer is a store's own affair; what it cannot say is not.
            let said = |answer: Result<Aggregate>| {
                answer.map(|Aggregate { rows, reading }| {
                    (rows, reading.rounded, reading.missing_before)
                })
            };
            let expected = said(self.model.aggregate(&query).await);
            self.same(said(store.aggregate(&query).await), expected, &query);
        }
        let AggregateQuery { range, filter, .. } = arbitrary_query(&mut self.random);
        let limit = self.random.rng.u32(1..30);
        let page = PageQuery { limit, after: None };
        let mut query = RecordQuery { range, filter, page, ..RecordQuery::default() };
        query.order = self.random.one(&[Order::NewestFirst, Order::OldestFirst]);
        query.payloads = self.random.rng.bool();
        if self.random.rng.u8(..6) == 0
            && !self.sent.is_empty()
            && let Record::Usage(usage) = self.random.one(&self.sent)
        {
            query.usage = Some(usage.id);
        }
        loop {
            let expected = self.model.list_executions(&query).await;
            let next = expected.as_ref().unwrap().next.clone();
            self.same(store.list_executions(&query).await, expected, &query);
            if next.is_none() || self.random.rng.bool() {
                break;
            }
            query.page.after = next;
        }
        query.page.after = None;
        loop {
            let expected = self.model.list_usages(&query).await;
            let next = expected.as_ref().unwrap().next.clone();
            self.same(store.list_usages(&query).await, expected, &query);
            if next.is_none() || self.random.rng.bool() {
                break;
            }
            query.page.after = next;
        }
        let RecordQuery { range, filter, .. } = query;
        let expected = self.model.slowest_executions(&range, &filter, limit).await;
        let found = store.slowest_executions(&range, &filter, limit).await;
        self.same(found, expected, &"the slowest");
        for _ in 0..4 {
            if self.sent.is_empty() {
                break;
            }
            match self.random.one(&self.sent) {
                Record::Usage(usage) => {
                    let expected = self.model.usage(usage.id).await;
                    self.same(store.usage(usage.id).await, expected, &usage.id);
                }
                Record::Execution(execution) => {
                    let expected = self.model.execution(execution.id).await;
                    self.same(store.execution(execution.id).await, expected, &execution.id);
                }
            }
        }
        let page = PageQuery { limit: self.random.rng.u32(1..5), after: None };
        self.same(store.list_prompts(&page).await, self.model.list_prompts(&page).await, &page);
        if !self.prompts.is_empty() {
            let of = self.random.one(&self.prompts);
            let expected = self.model.prompt_by_slug(&of.slug).await;
            self.same(store.prompt_by_slug(&of.slug).await, expected, &of.slug);
            let expected = self.model.list_versions(of.id, &page).await;
            self.same(store.list_versions(of.id, &page).await, expected, &of.slug);
        }
        // How a generation counts is a store's own affair.
        let configs = |list: Result<PriceList>| list.map(|list| list.configs);
        let expected = configs(self.model.cost_configs().await);
        self.same(configs(store.cost_configs().await), expected, &"prices");
        self.same(store.raw_horizon().await, self.model.raw_horizon().await, &"horizon");
    }
}
