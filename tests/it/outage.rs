//! A store that is away: renders and model calls go on, and nothing is lost when it is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use prompt_engine::{
    AggregateQuery, AggregateRow, Appended, CostConfig, CostRevision, CostStore, Error, ErrorKind,
    ExecutionId, LlmExecution, MemoryStore, Page, PageQuery, PriceList, Prompt, PromptEngine,
    PromptId, PromptStore, PromptVersion, Prune, Pruned, Record, RecordQuery, RecordStore, Result,
    Revised, Slug, Timestamp, Usage, UsageId, params,
};

use crate::support::{Act, Scripted, engine_over, reply};

/// A store in memory that can be cut off.
#[derive(Debug, Default)]
struct Flaky {
    store: MemoryStore,
    away: AtomicBool,
}

impl Flaky {
    fn reach(&self) -> Result<&MemoryStore> {
        if self.away.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Unavailable, "the store is away"));
        }
        Ok(&self.store)
    }
}

#[async_trait]
impl PromptStore for Flaky {
    async fn insert_prompt(&self, prompt: &Prompt, first: Option<&PromptVersion>) -> Result<()> {
        self.reach()?.insert_prompt(prompt, first).await
    }
    async fn update_prompt(&self, prompt: &Prompt, version: Option<&PromptVersion>) -> Result<()> {
        self.reach()?.update_prompt(prompt, version).await
    }
    async fn prompt_by_slug(&self, slug: &Slug) -> Result<Option<Prompt>> {
        self.reach()?.prompt_by_slug(slug).await
    }
    async fn prompt(&self, id: PromptId) -> Result<Option<Prompt>> {
        self.reach()?.prompt(id).await
    }
    async fn list_prompts(&self, page: &PageQuery) -> Result<Page<Prompt>> {
        self.reach()?.list_prompts(page).await
    }
    async fn version(&self, prompt: PromptId, number: u32) -> Result<Option<PromptVersion>> {
        self.reach()?.version(prompt, number).await
    }
    async fn list_versions(&self, id: PromptId, page: &PageQuery) -> Result<Page<PromptVersion>> {
        self.reach()?.list_versions(id, page).await
    }
}

#[async_trait]
impl RecordStore for Flaky {
    async fn append(&self, records: &[Record]) -> Result<Appended> {
        self.reach()?.append(records).await
    }
    async fn aggregate(&self, query: &AggregateQuery) -> Result<Vec<AggregateRow>> {
        self.reach()?.aggregate(query).await
    }
    async fn usage(&self, id: UsageId) -> Result<Option<Usage>> {
        self.reach()?.usage(id).await
    }
    async fn execution(&self, id: ExecutionId) -> Result<Option<LlmExecution>> {
        self.reach()?.execution(id).await
    }
    async fn list_usages(&self, query: &RecordQuery) -> Result<Page<Usage>> {
        self.reach()?.list_usages(query).await
    }
    async fn list_executions(&self, query: &RecordQuery) -> Result<Page<LlmExecution>> {
        self.reach()?.list_executions(query).await
    }
    async fn revise_costs(&self, revisions: &[CostRevision]) -> Result<Vec<Revised>> {
        self.reach()?.revise_costs(revisions).await
    }
    async fn prune(&self, prune: &Prune) -> Result<Pruned> {
        self.reach()?.prune(prune).await
    }
    async fn raw_horizon(&self) -> Result<Option<Timestamp>> {
        self.reach()?.raw_horizon().await
    }
}

#[async_trait]
impl CostStore for Flaky {
    async fn cost_configs(&self) -> Result<PriceList> {
        self.reach()?.cost_configs().await
    }
    async fn price_generation(&self) -> Result<u64> {
        self.reach()?.price_generation().await
    }
    async fn put_cost_configs(&self, configs: &[CostConfig], expected: u64) -> Result<()> {
        self.reach()?.put_cost_configs(configs, expected).await
    }
}

#[tokio::test(start_paused = true)]
async fn renders_and_calls_go_on_while_the_store_is_away_and_all_is_stored_once_it_is_back() {
    let store = Arc::new(Flaky::default());
    let settings = PromptEngine::builder().prompt_ttl(std::time::Duration::ZERO);
    let engine = engine_over(store.clone(), settings).await;
    engine.render("greet", params! { "name" => "A" }).await.unwrap();
    engine.flush().await;

    store.away.store(true, Ordering::Relaxed);
    let client = Scripted::new([Act::Reply(reply("Hello!"))]);
    let rendered = engine.render("greet", params! { "name" => "B" }).await.unwrap();
    let done = rendered.execute_with(&client).await.unwrap();
    assert!(!done.recorded.is_dropped());
    let unseen = engine.render("never-seen", params! {}).await.unwrap_err();
    assert_eq!(unseen.kind(), ErrorKind::Unavailable);

    store.away.store(false, Ordering::Relaxed);
    engine.flush().await;
    assert_eq!(store.execution(done.execution.id).await.unwrap(), Some(done.execution));
    let usages = store.list_usages(&RecordQuery::default()).await.unwrap().items;
    assert_eq!(usages.len(), 2);
}
