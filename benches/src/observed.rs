//! A store that notes what is asked of another, and what the answers say of how they came about.

use std::mem::take;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use prompt_engine_core::{
    Aggregate, AggregateQuery, Appended, CostConfig, CostRevision, CostStore, ExecutionId, Filter,
    Folded, LlmExecution, Page, PageQuery, PastCost, PriceList, Prompt, PromptId, PromptStore,
    PromptVersion, Prune, Pruned, PrunedSums, Reading, Rebuild, Rebuilt, Record, RecordQuery,
    RecordStore, Restored, Result, Revised, Slug, Source, Store, TimeRange, Timestamp, Usage,
    UsageId,
};

/// What was noted.
#[derive(Debug, Default)]
struct Notes {
    batches: Vec<usize>,
    readings: Vec<Reading>,
}

/// A store that notes how many records each append had, and what was read for each aggregate.
#[derive(Debug)]
pub struct Observed {
    store: Arc<dyn Store>,
    source: Option<Source>,
    notes: Mutex<Notes>,
}

impl Observed {
    /// Observes `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, source: None, notes: Mutex::default() }
    }

    /// Has every aggregate answered from `source`, whatever the question says.
    #[must_use]
    pub fn answering_from(mut self, source: Source) -> Self {
        self.source = Some(source);
        self
    }

    /// How many records each append had since they were last taken.
    pub fn take_batches(&self) -> Vec<usize> {
        take(&mut self.notes().batches)
    }

    /// What was read for each aggregate since they were last taken.
    pub fn take_readings(&self) -> Vec<Reading> {
        take(&mut self.notes().readings)
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl RecordStore for Observed {
    async fn append(&self, records: &[Record]) -> Result<Appended> {
        let appended = self.store.append(records).await?;
        self.notes().batches.push(records.len());
        Ok(appended)
    }
    async fn aggregate(&self, query: &AggregateQuery) -> Result<Aggregate> {
        let answer = match self.source {
            None => self.store.aggregate(query).await?,
            Some(source) => {
                self.store.aggregate(&AggregateQuery { source, ..query.clone() }).await?
            }
        };
        self.notes().readings.push(answer.reading.clone());
        Ok(answer)
    }
    async fn fold(&self) -> Result<Folded> {
        self.store.fold().await
    }
    async fn rebuild(&self, part: Rebuild) -> Result<Rebuilt> {
        self.store.rebuild(part).await
    }
    async fn restore(&self, sums: &[PrunedSums]) -> Result<Restored> {
        self.store.restore(sums).await
    }
    async fn usage(&self, id: UsageId) -> Result<Option<Usage>> {
        self.store.usage(id).await
    }
    async fn execution(&self, id: ExecutionId) -> Result<Option<LlmExecution>> {
        self.store.execution(id).await
    }
    async fn list_usages(&self, query: &RecordQuery) -> Result<Page<Usage>> {
        self.store.list_usages(query).await
    }
    async fn list_executions(&self, query: &RecordQuery) -> Result<Page<LlmExecution>> {
        self.store.list_executions(query).await
    }
    async fn slowest_executions(
        &self,
        range: &TimeRange,
        filter: &Filter,
        limit: u32,
    ) -> Result<Vec<LlmExecution>> {
        self.store.slowest_executions(range, filter, limit).await
    }
    async fn revise_costs(&self, revisions: &[CostRevision]) -> Result<Vec<Revised>> {
        self.store.revise_costs(revisions).await
    }
    async fn past_costs(&self, ids: &[ExecutionId]) -> Result<Vec<Vec<PastCost>>> {
        self.store.past_costs(ids).await
    }
    async fn prune(&self, prune: &Prune) -> Result<Pruned> {
        self.store.prune(prune).await
    }
    async fn compact(&self) -> Result<()> {
        self.store.compact().await
    }
    async fn raw_horizon(&self) -> Result<Option<Timestamp>> {
        self.store.raw_horizon().await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl PromptStore for Observed {
    async fn insert_prompt(&self, prompt: &Prompt, versions: &[PromptVersion]) -> Result<()> {
        self.store.insert_prompt(prompt, versions).await
    }
    async fn update_prompt(&self, prompt: &Prompt, version: Option<&PromptVersion>) -> Result<()> {
        self.store.update_prompt(prompt, version).await
    }
    async fn prompt_by_slug(&self, slug: &Slug) -> Result<Option<Prompt>> {
        self.store.prompt_by_slug(slug).await
    }
    async fn prompt(&self, id: PromptId) -> Result<Option<Prompt>> {
        self.store.prompt(id).await
    }
    async fn list_prompts(&self, page: &PageQuery) -> Result<Page<Prompt>> {
        self.store.list_prompts(page).await
    }
    async fn version(&self, prompt: PromptId, number: u32) -> Result<Option<PromptVersion>> {
        self.store.version(prompt, number).await
    }
    async fn list_versions(
        &self,
        prompt: PromptId,
        page: &PageQuery,
    ) -> Result<Page<PromptVersion>> {
        self.store.list_versions(prompt, page).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl CostStore for Observed {
    async fn cost_configs(&self) -> Result<PriceList> {
        self.store.cost_configs().await
    }
    async fn price_generation(&self) -> Result<u64> {
        self.store.price_generation().await
    }
    async fn put_cost_configs(&self, configs: &[CostConfig], expected: u64) -> Result<()> {
        self.store.put_cost_configs(configs, expected).await
    }
}
