//! What tracking adds to a model call: `execute_with` beside the same client alone, in turn, in one
//! run. Logging is on, the queue is never full, and in the end the store has every row, or the bench
//! fails. With and without redaction, over a store in memory and over SQLite.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt;
use prompt_engine_benches::{Latencies, Prose, printed_machine};
use prompt_engine_core::{
    AggregateQuery, ChatReply, ChatRequest, ChatStream, Engine, EngineBuilder, LlmClient, LlmError,
    MemoryStore, NewPrompt, RecordStore, Redaction, RenderedPrompt, Status, Store, TokenCounts,
    VersionDraft, params,
};
use prompt_engine_store_sqlite::{SqliteConfig, SqliteStore};

const SEED: u64 = 7;
/// Calls between two flushes: what they queue is well below the bound of the queue.
const BURST: usize = 500;
const BURSTS: usize = 40;

/// Answers at once, with a text of 1.5 kB: all that is left of a call is what is added to it.
#[derive(Debug)]
struct Instantly(ChatReply);

#[async_trait]
impl LlmClient for Instantly {
    fn provider(&self) -> &str {
        "openai"
    }

    async fn chat(&self, _: &ChatRequest) -> Result<ChatReply, LlmError> {
        Ok(self.0.clone())
    }

    async fn stream(&self, _: &ChatRequest) -> Result<ChatStream, LlmError> {
        Ok(futures::stream::empty().boxed())
    }
}

fn main() {
    // `cargo bench` says so; `cargo test` only wants to know that it starts.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    printed_machine(SEED);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        for redacts in [false, true] {
            measure("memory", Arc::new(MemoryStore::new()), redacts).await;
            let folder = tempfile::tempdir().expect("a folder");
            let config = SqliteConfig::new(folder.path().join("overhead.db"));
            let store = SqliteStore::open(config).await.expect("a store");
            measure("SQLite", Arc::new(store), redacts).await;
        }
    });
}

fn settings(redacts: bool) -> EngineBuilder {
    match redacts {
        false => Engine::builder(),
        true => Engine::builder().redact(Redaction::new().emails().phones().cards().keys()),
    }
}

async fn measure(name: &str, store: Arc<dyn Store>, redacts: bool) {
    let prose = Prose::default();
    let mut rng = fastrand::Rng::with_seed(SEED);
    let engine = settings(redacts).build(Arc::clone(&store)).await.expect("an engine");
    let draft = VersionDraft {
        content: format!("{} {{{{question}}}}", prose.text(&mut rng, 200)),
        system_message: Some(prose.text(&mut rng, 300)),
        model: Some("gpt-4o".parse().expect("a label")),
        ..VersionDraft::default()
    };
    let slug = "overhead".parse().expect("a slug");
    engine.prompts().create(NewPrompt::new(slug, draft)).await.expect("a prompt");
    let client = Instantly(ChatReply {
        content: Some(prose.text(&mut rng, 1_500)),
        finish_reason: Some("stop".to_owned()),
        model: Some("gpt-4o-2024-08-06".to_owned()),
        tokens: Some(TokenCounts { input: 400, output: 300, ..TokenCounts::default() }),
        http_status: Some(200),
        ..ChatReply::default()
    });

    let (mut bare, mut tracked) = (Latencies::default(), Latencies::default());
    let mut drain = Duration::ZERO;
    for _ in 0..BURSTS {
        let mut renders = Vec::with_capacity(BURST);
        for _ in 0..BURST {
            let question = prose.text(&mut rng, 1_000);
            let params = params! { "question" => question };
            renders.push(engine.render("overhead", params).await.expect("a render"));
        }
        engine.flush().await;
        let start = Instant::now();
        for rendered in &renders {
            one(rendered, &client, &mut bare, &mut tracked).await;
        }
        engine.flush().await;
        drain += start.elapsed();
    }

    let calls = u64::try_from(BURST * BURSTS).expect("a small number");
    assert_parity(&*store, &engine, calls).await;
    let with = if redacts { "with redaction" } else { "without redaction" };
    let (bare_p50, bare_p99) = bare.print(&format!("{name}, {with}: the client alone"));
    let (p50, p99) = tracked.print(&format!("{name}, {with}: execute_with"));
    println!(
        "  added: p50 {:?} (target: at most 5 µs), p99 {:?} (target: at most 50 µs); {calls} calls \
         there, {:?} of a call until they were",
        p50.saturating_sub(bare_p50),
        p99.saturating_sub(bare_p99),
        drain / u32::try_from(BURST * BURSTS).expect("a small number"),
    );
}

/// A call by the client alone and the same by the engine. A request is made for both.
async fn one(
    rendered: &RenderedPrompt,
    client: &Instantly,
    bare: &mut Latencies,
    tracked: &mut Latencies,
) {
    let start = Instant::now();
    let request = ChatRequest::new("gpt-4o", rendered.messages());
    let reply = client.chat(&request).await;
    bare.push(start.elapsed());
    let start = Instant::now();
    let done = rendered.execute_with(client).await;
    tracked.push(start.elapsed());
    assert_eq!(done.expect("an answer").reply, reply.expect("an answer"));
}

/// The store has `calls` usages and as many finished executions.
async fn assert_parity(store: &dyn RecordStore, engine: &Engine, calls: u64) {
    let rows = store.aggregate(&AggregateQuery::default()).await.expect("an answer").rows;
    let measures = &rows[0].measures;
    assert_eq!((measures.uses, measures.finished()), (Some(calls), calls));
    assert_eq!(measures.in_status(Status::Pending), 0);
    let counters = engine.recorder().counters();
    assert_eq!((counters.queued, counters.dropped, counters.refused), (0, 0, 0));
}
