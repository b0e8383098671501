//! A fresh place for each store that several processes open by its URL.
//! Invariant: a place goes away with its value; nothing is shared between two of them.
#![allow(dead_code, reason = "no test needs all of it")]

#[path = "../../store-postgres/tests/server.rs"]
mod server;

use std::any::Any;
use std::time::Duration;

use prompt_engine::{
    AggregateQuery, AggregateRow, Bucket, BucketWidth, ChatReply, ChatRequest, ChatStream,
    Dimension, LlmClient, LlmError, LlmExecution, MemoryStore, NewPrompt, Order, PromptEngine,
    Record, RecordQuery, RecordStore, Store, Usage, VersionDraft, testkit,
};
use server::Schema;

/// Where a store may be made.
pub(crate) struct Place {
    pub(crate) name: &'static str,
    pub(crate) url: String,
    /// What goes with it: a folder, or a schema.
    _guard: Box<dyn Any>,
}

impl Place {
    fn of_file(name: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("{name}://{}", folder.path().join("store").display());
        Self { name, url, _guard: Box::new(folder) }
    }

    pub(crate) fn sqlite() -> Self {
        Self::of_file("sqlite")
    }

    pub(crate) fn redb() -> Self {
        Self::of_file("redb")
    }

    pub(crate) fn postgres() -> Self {
        let schema = Schema::new();
        let url = schema.url().to_string();
        Self { name: "postgres", url, _guard: Box::new(schema) }
    }

    pub(crate) fn all() -> Vec<Self> {
        vec![Self::sqlite(), Self::redb(), Self::postgres()]
    }

    /// An engine whose callers wait for the disk.
    pub(crate) async fn engine(&self) -> PromptEngine {
        engine(&self.url).await
    }

    /// Makes the store, with the prompt `greet`.
    pub(crate) async fn make(&self) {
        let engine = self.engine().await;
        let draft = VersionDraft {
            content: "Hello {{name}}".to_owned(),
            model: Some("gpt-4o".parse().unwrap()),
            ..VersionDraft::default()
        };
        engine.prompts().create(NewPrompt::new("greet".parse().unwrap(), draft)).await.unwrap();
        close(engine).await;
    }
}

/// An engine over the store of `url`, whose callers wait for the disk.
pub(crate) async fn engine(url: &str) -> PromptEngine {
    PromptEngine::connect_with(url, PromptEngine::builder().durable()).await.unwrap()
}

/// Ends an engine, so that another process can open its store.
pub(crate) async fn close(engine: PromptEngine) {
    assert_eq!(engine.shutdown(Duration::from_secs(10)).await, 0, "a record was not saved");
}

/// Answers at once.
#[derive(Debug)]
pub(crate) struct Echo;

#[async_trait::async_trait]
impl LlmClient for Echo {
    fn provider(&self) -> &str {
        "openai"
    }

    async fn chat(&self, request: &ChatRequest) -> Result<ChatReply, LlmError> {
        Ok(testkit::reply(&request.messages[0].content.repeat(50)))
    }

    async fn stream(&self, _: &ChatRequest) -> Result<ChatStream, LlmError> {
        unreachable!("nothing is streamed")
    }
}

/// Everything that a store lists, with payloads.
pub(crate) async fn everything(store: &dyn Store) -> (Vec<Usage>, Vec<LlmExecution>) {
    let mut query = RecordQuery { order: Order::OldestFirst, ..RecordQuery::default() };
    (query.payloads, query.page.limit) = (true, 5_000);
    let (mut usages, mut executions) = (Vec::new(), Vec::new());
    loop {
        let page = store.list_usages(&query).await.unwrap();
        usages.extend(page.items);
        let Some(next) = page.next else { break };
        query.page.after = Some(next);
    }
    query.page.after = None;
    loop {
        let page = store.list_executions(&query).await.unwrap();
        executions.extend(page.items);
        let Some(next) = page.next else { break };
        query.page.after = Some(next);
    }
    (usages, executions)
}

/// Checks that nothing is half there: what is listed is found by its id, with its payload, and the
/// sums of the store are those of a recount of what it lists.
pub(crate) async fn assert_sound(store: &dyn Store) -> (Vec<Usage>, Vec<LlmExecution>) {
    let (usages, executions) = everything(store).await;
    let recount = MemoryStore::new();
    for usage in &usages {
        assert!(usage.payload.is_some(), "usage {} has no payload", usage.id);
        assert_eq!(store.usage(usage.id).await.unwrap().as_ref(), Some(usage));
    }
    for execution in &executions {
        assert!(execution.payload.is_some(), "execution {} has no payload", execution.id);
        assert_eq!(store.execution(execution.id).await.unwrap().as_ref(), Some(execution));
    }
    let records = usages.iter().cloned().map(Record::from);
    let records: Vec<Record> =
        records.chain(executions.iter().cloned().map(Record::from)).collect();
    recount.append(&records).await.unwrap();
    let found = sums(store).await;
    assert!(found == sums(&recount).await, "the sums are not those of a recount");
    (usages, executions)
}

async fn sums(store: &dyn RecordStore) -> Vec<AggregateRow> {
    let bucket = Some(Bucket { width: BucketWidth::Hour, zone: "UTC".parse().unwrap() });
    let group_by = vec![Dimension::Prompt, Dimension::Version, Dimension::Environment];
    let mut rows = Vec::new();
    for query in [
        AggregateQuery { bucket, group_by, ..AggregateQuery::default() },
        AggregateQuery { group_by: vec![Dimension::Model], ..AggregateQuery::default() },
        AggregateQuery::default(),
    ] {
        rows.extend(store.aggregate(&query).await.unwrap().rows);
    }
    rows
}

/// How much of the full measure a test does: all of it under `cargo xtask torture`.
pub(crate) fn rounds(few: usize, all: usize) -> usize {
    if std::env::var_os("PROMPT_ENGINE_TORTURE").is_some() { all } else { few }
}
