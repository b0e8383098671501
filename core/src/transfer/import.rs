//! Writing the lines of an export into a store, in batches, each of which is repeatable.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde::Serialize;

use super::{Counts, Line};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CostConfigId, ExecutionId, PromptId};
use crate::price::{CostConfig, PriceLine};
use crate::prompt::{Prompt, PromptVersion};
use crate::pruned::PrunedSums;
use crate::query::{Order, PageQuery, RecordQuery};
use crate::record::{LlmExecution, Record};
use crate::recorder::weight;
use crate::store::{CostRevision, PastCost, Prune, Restored, Revised, Store};
use crate::time::{TimeRange, Timestamp};

/// Records of one batch.
const RECORDS: usize = 2_000;
/// Bytes of one batch; a single record may be larger.
const BYTES: usize = 16 * 1024 * 1024;
/// How many revisions a prompt may have gone on since it was last imported.
const MOST_REVISIONS: u64 = 100_000;
/// How often prices, or a prompt, are tried where others write them at the same moment.
const ATTEMPTS: u32 = 5;
/// Sums of pruned records of one batch.
const SUMS: usize = 1_000;
/// Prices and prompts are small against what comes with the records.
const PROMPTS: usize = 1_000;

/// An import under way.
#[derive(Debug)]
pub struct Import {
    store: Arc<dyn Store>,
    started: bool,
    /// The moment before which this store takes no records.
    horizon: Option<Timestamp>,
    prices: Vec<CostConfig>,
    prompts: Vec<(Prompt, Vec<PromptVersion>)>,
    pruned: Vec<PrunedSums>,
    records: Vec<Record>,
    /// What they weigh.
    bytes: usize,
    /// What executions of the batch cost before.
    past: Vec<(ExecutionId, Vec<PastCost>)>,
    /// The last execution that was left out.
    left_out: Option<ExecutionId>,
    read: Counts,
    done: Imported,
}

/// What an import did. What was not new was there already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// How many lines there were of each kind.
    pub read: Counts,
    /// Prices that were new or had changed.
    pub new_prices: u64,
    /// Prompts that were new or had changed.
    pub new_prompts: u64,
    /// Sums of pruned records that were new.
    pub new_pruned: u64,
    /// Usages and executions that were new, or finished pending ones.
    pub new_records: u64,
    /// Costs that were changed after they had been stored.
    pub new_costs: u64,
    /// Prices that do not go with those that are here, which stay.
    pub other_prices: u64,
    /// Costs that were changed otherwise here, and stay.
    pub other_costs: u64,
    /// Sums of pruned records that were left out: those here add up to something else.
    pub other_pruned: u64,
    /// Sums of pruned records that were left out until this store is pruned up to then, too: none of
    /// their records are here, and may still come.
    pub unpruned: u64,
    /// Records from before the raw horizon of this store, which were left out.
    pub before_horizon: u64,
    /// Whether the last line was there, so that nothing is missing.
    pub complete: bool,
}

impl Import {
    /// An import into `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            started: false,
            horizon: None,
            prices: Vec::new(),
            prompts: Vec::new(),
            pruned: Vec::new(),
            records: Vec::new(),
            bytes: 0,
            past: Vec::new(),
            left_out: None,
            read: Counts::default(),
            done: Imported::default(),
        }
    }

    /// What was done so far: what was pushed since the last batch is not in it.
    pub fn done(&self) -> Imported {
        Imported { read: self.read, ..self.done }
    }

    /// Takes a line, and stores a batch when there are enough of them.
    ///
    /// # Errors
    /// - `Invalid` for a line that is out of place, and for what the store refuses.
    /// - `Unsupported` for another version of the format.
    /// - `Conflict` where the store has a prompt that was changed otherwise, or another one of that
    ///   slug.
    /// - Whatever else the store answers. What was stored before stays.
    pub async fn push(&mut self, line: Line) -> Result<()> {
        if !self.started {
            return self.start(&line).await;
        }
        if self.done.complete {
            return Err(Error::invalid("a line follows the last one"));
        }
        self.read.note(&line);
        if !matches!(line, Line::Version(_)) {
            self.check_last_prompt()?;
        }
        match line {
            Line::PromptEngineExport(_) => return Err(Error::invalid("a second first line")),
            Line::Price(price) => self.prices.push(price),
            Line::Prompt(prompt) => {
                if self.prompts.len() >= PROMPTS {
                    self.store_prompts().await?;
                }
                self.prompts.push((prompt, Vec::new()));
            }
            Line::Version(version) => match self.prompts.last_mut() {
                Some((prompt, versions)) if prompt.id == version.prompt_id => {
                    versions.push(version)
                }
                _ => return Err(Error::invalid("a version that does not follow its prompt")),
            },
            Line::RawHorizon(horizon) => {
                self.store_prompts().await?;
                self.raise_horizon(horizon).await?;
            }
            Line::Pruned(sums) => {
                if self.pruned.len() >= SUMS {
                    self.store_pruned().await?;
                }
                self.pruned.push(sums);
            }
            Line::Usage(usage) => self.record(usage.into()).await?,
            Line::Execution(execution) => self.record(execution.into()).await?,
            Line::PastCosts { execution, costs } => match self.records.last() {
                Some(Record::Execution(last)) if last.id == execution => {
                    self.past.push((execution, costs));
                }
                _ if self.left_out == Some(execution) => {}
                _ => return Err(Error::invalid("past costs that do not follow their execution")),
            },
            Line::End(counts) => {
                if let Some((what, said, read)) = counts.difference(&self.read) {
                    return Err(Error::invalid(format!(
                        "the last line says that there are {said} {what}, and there were {read}"
                    )));
                }
                self.done.complete = true;
            }
        }
        Ok(())
    }

    /// Stores what is left.
    ///
    /// # Errors
    /// As [`Import::push`].
    pub async fn finish(mut self) -> Result<Imported> {
        // What may have been cut short, a prompt before its last version or an execution before its
        // past costs, is left to the next import as a whole.
        if !self.done.complete {
            self.prompts.pop_if(|(prompt, versions)| !is_whole(prompt, versions));
            self.records.pop_if(|record| matches!(record, Record::Execution(_)));
        }
        self.flush().await?;
        Ok(self.done())
    }

    /// Stores what was pushed, which must not end between an execution and its past costs.
    async fn flush(&mut self) -> Result<()> {
        self.store_prices().await?;
        self.store_prompts().await?;
        self.store_pruned().await?;
        self.store_records().await
    }

    async fn start(&mut self, line: &Line) -> Result<()> {
        line.check_first()?;
        self.horizon = self.store.raw_horizon().await?;
        self.started = true;
        Ok(())
    }

    async fn record(&mut self, record: Record) -> Result<()> {
        if self.horizon.is_some_and(|horizon| record.created_at() < horizon) {
            self.done.before_horizon += 1;
            if let Record::Execution(execution) = record {
                self.left_out = Some(execution.id);
            }
            return Ok(());
        }
        if self.records.len() >= RECORDS || self.bytes >= BYTES {
            self.flush().await?;
        }
        self.bytes += weight(&record);
        self.records.push(record);
        Ok(())
    }

    /// Writes prices that are not there as they are, all at once.
    async fn store_prices(&mut self) -> Result<()> {
        if self.prices.is_empty() {
            return Ok(());
        }
        let prices = std::mem::take(&mut self.prices);
        let mut attempts = ATTEMPTS;
        loop {
            let list = self.store.cost_configs().await?;
            let (new, others) = merged(&list.configs, prices.clone());
            let stored = match new.is_empty() {
                true => Ok(()),
                false => self.store.put_cost_configs(&new, list.generation).await,
            };
            match stored {
                Err(error) if error.kind() == ErrorKind::Conflict && attempts > 1 => attempts -= 1,
                Err(error) => return Err(error),
                Ok(()) => {
                    self.done.new_prices += new.len() as u64;
                    self.done.other_prices += others;
                    return Ok(());
                }
            }
        }
    }

    async fn store_prompts(&mut self) -> Result<()> {
        self.store_prices().await?;
        for (prompt, versions) in std::mem::take(&mut self.prompts) {
            let mut attempts = ATTEMPTS;
            let new = loop {
                match self.store_prompt(&prompt, &versions).await {
                    // Somebody else may import the same; what he wrote is looked at again.
                    Err(error) if error.kind() == ErrorKind::Conflict && attempts > 1 => {
                        attempts -= 1;
                    }
                    Err(error) if error.kind() == ErrorKind::Conflict => {
                        let sentence =
                            format!("the prompt {} of the export cannot be stored", prompt.slug);
                        return Err(Error::conflict(sentence).with_source(error));
                    }
                    other => break other?,
                }
            };
            self.done.new_prompts += u64::from(new);
        }
        Ok(())
    }

    /// Stores a prompt; tells whether there was anything to do.
    async fn store_prompt(&self, prompt: &Prompt, versions: &[PromptVersion]) -> Result<bool> {
        match self.store.prompt(prompt.id).await? {
            None => self.store.insert_prompt(prompt, versions).await.map(|()| true),
            Some(stored) => self.advance(&stored, prompt, versions).await,
        }
    }

    /// Checks that the last prompt has all its versions.
    fn check_last_prompt(&self) -> Result<()> {
        match self.prompts.last() {
            Some((prompt, versions)) if !is_whole(prompt, versions) => {
                Err(Error::invalid(format!(
                    "the prompt {} lacks versions: it has {} of {}",
                    prompt.slug,
                    versions.len(),
                    prompt.latest_version
                )))
            }
            _ => Ok(()),
        }
    }

    /// Brings the stored prompt to the revision of the file; tells whether there was anything to do.
    async fn advance(
        &self,
        stored: &Prompt,
        prompt: &Prompt,
        versions: &[PromptVersion],
    ) -> Result<bool> {
        let changed_here = || {
            Error::conflict(format!(
                "the prompt {} was changed here: it has revision {}, and that of the export is {}",
                stored.slug, stored.revision, prompt.revision
            ))
        };
        // What went on here is newer than the export.
        if stored == prompt || stored.revision > prompt.revision {
            return Ok(false);
        }
        let mut new = versions.iter().filter(|version| version.number > stored.latest_version);
        let missing = prompt.latest_version.saturating_sub(stored.latest_version);
        let steps = prompt.revision - stored.revision;
        // Every version came with a revision of its own.
        let steps_fit = steps >= u64::from(missing) && (1..=MOST_REVISIONS).contains(&steps);
        if stored.slug != prompt.slug || !steps_fit {
            return Err(changed_here());
        }
        if !self.has_all(prompt.id, versions, stored.latest_version).await? {
            return Err(changed_here());
        }
        let mut step = stored.clone();
        while step.revision < prompt.revision {
            let version = new.next();
            step.revision += 1;
            step.latest_version = version.map_or(step.latest_version, |version| version.number);
            if step.revision == prompt.revision {
                step = prompt.clone();
            }
            self.store.update_prompt(&step, version).await?;
        }
        Ok(true)
    }

    /// Whether the stored versions up to `latest` are those of the export.
    async fn has_all(&self, id: PromptId, versions: &[PromptVersion], latest: u32) -> Result<bool> {
        let mut expected = versions.iter().filter(|version| version.number <= latest).rev();
        let mut page = PageQuery { limit: 100, after: None };
        loop {
            let stored = self.store.list_versions(id, &page).await?;
            if !stored.items.iter().all(|version| expected.next() == Some(version)) {
                return Ok(false);
            }
            match stored.next {
                Some(next) => page.after = Some(next),
                None => return Ok(expected.next().is_none()),
            }
        }
    }

    /// Takes over the horizon of the export, unless this store has records from before it.
    async fn raise_horizon(&mut self, horizon: Timestamp) -> Result<()> {
        if self.horizon.is_some_and(|here| here >= horizon) {
            return Ok(());
        }
        let older = RecordQuery {
            range: TimeRange { from: None, to: Some(horizon) },
            order: Order::OldestFirst,
            page: PageQuery { limit: 1, after: None },
            ..RecordQuery::default()
        };
        if !self.store.list_usages(&older).await?.items.is_empty()
            || !self.store.list_executions(&older).await?.items.is_empty()
        {
            return Ok(());
        }
        let prune = Prune { payloads_before: None, raw_before: Some(horizon), limit: 1 };
        self.store.prune(&prune).await?;
        self.horizon = Some(horizon);
        Ok(())
    }

    async fn store_pruned(&mut self) -> Result<()> {
        if !self.pruned.is_empty() {
            let sums = std::mem::take(&mut self.pruned);
            let Restored { new, other, unpruned } = self.store.restore(&sums).await?;
            self.done.new_pruned += new;
            self.done.other_pruned += other;
            self.done.unpruned += unpruned;
        }
        Ok(())
    }

    async fn store_records(&mut self) -> Result<()> {
        if self.records.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        let mut records = std::mem::take(&mut self.records);
        let past: HashMap<ExecutionId, Vec<PastCost>> =
            std::mem::take(&mut self.past).into_iter().collect();
        // What an execution costs now; stored first is what it cost at first.
        let mut present = Vec::with_capacity(past.len());
        for record in &mut records {
            if let Record::Execution(execution) = record
                && let Some(first) = past.get(&execution.id).and_then(|costs| costs.first())
            {
                present.push(execution.clone());
                execution.cost = Some(first.cost);
                execution.priced_model.clone_from(&first.priced_model);
            }
        }
        self.done.new_records += self.store.append(&records).await?.stored;
        if present.is_empty() {
            return Ok(());
        }
        let ids: Vec<ExecutionId> = present.iter().map(|execution| execution.id).collect();
        let there = self.store.past_costs(&ids).await?;
        let mut revisions = Vec::new();
        for (execution, there) in present.iter().zip(there) {
            if let Some(costs) = past.get(&execution.id) {
                revisions.extend(revisions_of(execution, costs, there.len()));
            }
        }
        let outcomes = self.store.revise_costs(&revisions).await?;
        let changed = outcomes.iter().filter(|outcome| **outcome == Revised::Changed).count();
        self.done.new_costs += changed as u64;
        if changed == outcomes.len() {
            return Ok(());
        }
        // Another import may have made the same ones since.
        let there = self.store.past_costs(&ids).await?;
        let other: HashSet<ExecutionId> = (ids.iter().zip(&there))
            .filter(|(id, there)| past.get(*id) != Some(*there))
            .map(|(id, _)| *id)
            .collect();
        let other = revisions.iter().zip(&outcomes).filter(|(revision, outcome)| {
            **outcome != Revised::Changed && other.contains(&revision.id)
        });
        self.done.other_costs += other.count() as u64;
        Ok(())
    }
}

/// Those of `prices` that are to be written beside `here`, and how many stay away: a price that was
/// closed or replaced here is further on than the one that was not, and two of one line that overlap
/// are two truths, of which the one that is here stays.
fn merged(here: &[CostConfig], prices: Vec<CostConfig>) -> (Vec<CostConfig>, u64) {
    let mut kept: HashMap<CostConfigId, CostConfig> =
        here.iter().map(|price| (price.id, price.clone())).collect();
    let mut lines: HashMap<PriceLine, BTreeSet<CostConfigId>> = HashMap::new();
    for price in here {
        lines.entry(price.line()).or_default().insert(price.id);
    }
    let (mut new, mut others) = (Vec::new(), 0);
    // What closes a price makes room for the one after it.
    let (known, unknown): (Vec<_>, Vec<_>) =
        prices.into_iter().partition(|price| kept.contains_key(&price.id));
    for price in known.into_iter().chain(unknown) {
        let stored = kept.get(&price.id);
        if stored == Some(&price) || stored.is_some_and(|stored| !goes_on(stored, &price)) {
            continue;
        }
        let line = lines.entry(price.line()).or_default();
        let beside = line.iter().filter(|id| **id != price.id).filter_map(|id| kept.get(id));
        if CostConfig::check_overlaps(beside.chain([&price])).is_err() {
            others += 1;
            continue;
        }
        line.insert(price.id);
        kept.insert(price.id, price.clone());
        new.push(price);
    }
    (new, others)
}

/// Whether `price` is a later form of `stored`: replaced since, or closed earlier.
fn goes_on(stored: &CostConfig, price: &CostConfig) -> bool {
    let closed = |price: &CostConfig| price.valid_to.unwrap_or(Timestamp::MAX);
    match (stored.replaced_at, price.replaced_at) {
        (None, Some(_)) => true,
        (Some(_), None) => false,
        _ => closed(price) < closed(stored),
    }
}

/// Whether all versions of a prompt are there; they count from 1.
fn is_whole(prompt: &Prompt, versions: &[PromptVersion]) -> bool {
    versions.iter().map(|version| version.number).eq(1..=prompt.latest_version)
}

/// The revisions that lead from the first of `costs` to what `execution` costs now, without the
/// first `done` of them.
fn revisions_of<'a>(
    execution: &'a LlmExecution,
    costs: &'a [PastCost],
    done: usize,
) -> impl Iterator<Item = CostRevision> + 'a {
    let now = execution.cost.map(|cost| (cost, execution.priced_model.clone()));
    let after = costs.iter().skip(1).map(|next| (next.cost, next.priced_model.clone())).chain(now);
    (0..).zip(costs).zip(after).skip(done).map(|((number, past), (new, priced_model))| {
        CostRevision {
            id: execution.id,
            expected: past.cost,
            // Another import may be at it, and a cost may have been there and back.
            past: Some(number),
            new,
            priced_model,
            at: past.replaced_at,
        }
    })
}
