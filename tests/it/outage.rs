//! A store that is away: renders and model calls go on, and nothing is lost when it is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use prompt_engine::{
    Activation, Aggregate, AggregateQuery, Appended, CostConfig, CostRevision, CostStore,
    DropReason, Error, ErrorKind, ExecutionId, Filter, Folded, LlmExecution, MemoryStore, Page,
    PageQuery, PastCost, PriceList, Prompt, PromptEngine, PromptId, PromptStore, PromptVersion,
    Prune, Pruned, PrunedSums, Rebuild, Rebuilt, Record, RecordQuery, RecordStore, Recorded,
    Restored, Result, Revised, Slug, Status, StreamEvent, TimeRange, Timestamp, Usage, UsageId,
    VersionDraft, params,
};
use tokio::sync::Notify;

use crate::support::{Act, Scripted, engine_over, engine_with, reply};

/// A store in memory that can be cut off, and whose next answer can be held back.
#[derive(Debug, Default)]
pub(crate) struct Flaky {
    store: MemoryStore,
    pub(crate) away: AtomicBool,
    pub(crate) hold: AtomicBool,
    pub(crate) release: Notify,
}

impl Flaky {
    fn reach(&self) -> Result<&MemoryStore> {
        if self.away.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Unavailable, "the store is away"));
        }
        Ok(&self.store)
    }

    /// Keeps an answer that was read until it is released, if one is to be held.
    async fn held<T>(&self, answer: Result<T>) -> Result<T> {
        if self.hold.swap(false, Ordering::Relaxed) {
            self.release.notified().await;
        }
        answer
    }
}

#[async_trait]
impl PromptStore for Flaky {
    async fn insert_prompt(&self, prompt: &Prompt, versions: &[PromptVersion]) -> Result<()> {
        self.reach()?.insert_prompt(prompt, versions).await
    }
    async fn update_prompt(&self, prompt: &Prompt, version: Option<&PromptVersion>) -> Result<()> {
        self.reach()?.update_prompt(prompt, version).await
    }
    async fn prompt_by_slug(&self, slug: &Slug) -> Result<Option<Prompt>> {
        self.held(self.reach()?.prompt_by_slug(slug).await).await
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
    async fn aggregate(&self, query: &AggregateQuery) -> Result<Aggregate> {
        self.reach()?.aggregate(query).await
    }
    async fn fold(&self) -> Result<Folded> {
        self.reach()?.fold().await
    }
    async fn rebuild(&self, part: Rebuild) -> Result<Rebuilt> {
        self.reach()?.rebuild(part).await
    }
    async fn restore(&self, sums: &[PrunedSums]) -> Result<Restored> {
        self.reach()?.restore(sums).await
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
    async fn slowest_executions(
        &self,
        range: &TimeRange,
        filter: &Filter,
        limit: u32,
    ) -> Result<Vec<LlmExecution>> {
        self.reach()?.slowest_executions(range, filter, limit).await
    }
    async fn revise_costs(&self, revisions: &[CostRevision]) -> Result<Vec<Revised>> {
        self.reach()?.revise_costs(revisions).await
    }
    async fn past_costs(&self, ids: &[ExecutionId]) -> Result<Vec<Vec<PastCost>>> {
        self.reach()?.past_costs(ids).await
    }
    async fn prune(&self, prune: &Prune) -> Result<Pruned> {
        self.reach()?.prune(prune).await
    }
    async fn compact(&self) -> Result<()> {
        self.reach()?.compact().await
    }
    async fn raw_horizon(&self) -> Result<Option<Timestamp>> {
        self.reach()?.raw_horizon().await
    }
}

#[async_trait]
impl CostStore for Flaky {
    async fn cost_configs(&self) -> Result<PriceList> {
        self.held(self.reach()?.cost_configs().await).await
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

/// An engine whose store is away and whose queue is full.
async fn full_engine(store: &Arc<Flaky>) -> PromptEngine {
    let settings = PromptEngine::builder().queue_bytes(8 * 1024);
    let engine = engine_over(store.clone(), settings).await;
    engine.render("greet", params! { "name" => "A" }).await.unwrap();
    engine.flush().await;
    store.away.store(true, Ordering::Relaxed);
    while !engine.render("greet", params! { "name" => "A" }).await.unwrap().recorded().is_dropped()
    {
    }
    engine
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_drops_and_counts_the_record_and_the_model_call_goes_on() {
    let store = Arc::new(Flaky::default());
    let engine = full_engine(&store).await;
    let before = engine.recorder().counters().dropped;
    let client = Scripted::new([Act::Reply(reply("Hello!")), Act::Hang]);
    let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    assert_eq!(engine.recorder().counters().dropped, before + 1);
    let done = rendered.execute_with(&client).await.unwrap();
    assert_eq!(done.reply.content.as_deref(), Some("Hello!"));
    assert!(matches!(done.recorded, Recorded::Dropped(DropReason::QueueFull)), "{}", done.recorded);
    assert_eq!(engine.recorder().counters().dropped, before + 2);
    {
        let mut call = std::pin::pin!(rendered.execute_with(&client).into_future());
        assert!(futures::poll!(&mut call).is_pending());
    }
    assert_eq!(engine.recorder().counters().dropped, before + 3);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_found_the_queue_full_is_recorded_if_there_is_room_when_it_ends() {
    let store = Arc::new(Flaky::default());
    let engine = full_engine(&store).await;
    let client = Scripted::new([Act::Stream(vec![Ok(StreamEvent::End(Box::new(reply("Hi"))))])]);
    let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    let mut stream = rendered.execute_with(&client).stream().await.unwrap();
    store.away.store(false, Ordering::Relaxed);
    engine.flush().await;
    stream.reply().await.unwrap();
    assert!(matches!(stream.recorded(), Some(Recorded::Queued)));
    engine.flush().await;
    let stored = store.execution(stream.execution_id()).await.unwrap().unwrap();
    assert_eq!(stored.status, Status::Success);
}

#[tokio::test(start_paused = true)]
async fn a_call_too_large_for_the_room_that_is_left_is_recorded_with_its_texts_cut() {
    let store = Arc::new(Flaky::default());
    let settings = PromptEngine::builder().queue_bytes(64 * 1024);
    let engine = engine_over(store.clone(), settings).await;
    engine.render("greet", params! { "name" => "A" }).await.unwrap();
    engine.flush().await;

    store.away.store(true, Ordering::Relaxed);
    let client = Scripted::new([Act::Reply(reply("Hello!"))]);
    let rendered = engine.render("greet", params! { "name" => "x".repeat(14_000) }).await.unwrap();
    let done = rendered.execute_with(&client).await.unwrap();
    assert!(!done.recorded.is_dropped(), "{}", done.recorded);
    store.away.store(false, Ordering::Relaxed);
    engine.flush().await;
    let stored = store.execution(done.execution.id).await.unwrap().unwrap();
    assert_eq!((stored.cost, stored.tokens), (done.execution.cost, done.execution.tokens));
    assert!(stored.payload.unwrap().messages_sent[1].content.contains("[cut: "));
}

#[tokio::test]
async fn many_open_calls_share_the_queue_and_each_has_a_place() {
    let engine = engine_with(PromptEngine::builder().queue_bytes(64 * 1024)).await;
    let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    let hang = || Act::StreamThenHang(vec![Ok(StreamEvent::Text("Hi".to_owned()))]);
    let client = Scripted::new((0..20).map(|_| hang()));
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(rendered.execute_with(&client).stream().await.unwrap());
        engine.flush().await;
    }
    let ids: Vec<ExecutionId> = streams.iter().map(|stream| stream.execution_id()).collect();
    // The last first: none before it has given its room back.
    while let Some(stream) = streams.pop() {
        drop(stream);
    }
    engine.flush().await;
    assert_eq!(engine.recorder().counters().dropped, 0);
    for id in ids {
        let stored = engine.store().execution(id).await.unwrap().unwrap();
        assert_eq!(stored.status, Status::Cancelled);
    }
}

#[tokio::test]
async fn a_prompt_that_was_read_before_a_change_does_not_hide_the_change() {
    let store = Arc::new(Flaky::default());
    let engine = engine_over(store.clone(), PromptEngine::builder()).await;
    store.hold.store(true, Ordering::Relaxed);
    let early = engine.render("greet", params! { "name" => "A" }).into_future();
    let mut early = std::pin::pin!(early);
    assert!(futures::poll!(&mut early).is_pending());
    let edit = VersionDraft { content: "Hi {{name}}".to_owned(), ..VersionDraft::default() };
    let slug: Slug = "greet".parse().unwrap();
    engine.prompts().add_version(&slug, edit, Activation::Activate).await.unwrap();
    store.release.notify_one();
    assert_eq!(early.await.unwrap().version(), 1);
    assert_eq!(engine.render("greet", params! { "name" => "A" }).await.unwrap().version(), 2);
}
