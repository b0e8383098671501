//! The engine: prompts rendered, calls executed, both recorded, over one store.
//! Invariant: observing never harms the observed. A store that is slow, full or gone costs a
//! model call nothing; what became of a record is said by [`Recorded`](crate::Recorded).

mod book;
mod builder;
mod cache;
mod call;
mod execute;
mod observe;
mod playground;
mod prices;
mod prompts;
mod render;
mod reprice;
mod retention;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

pub use builder::EngineBuilder;
pub use call::RecordedCall;
pub(crate) use call::{Call, Finished, Measured, Settling};
pub use execute::{Execute, ExecuteError, Executed, Executor};
pub use observe::{
    ExecutionHandle, ExecutionLog, ExecutionOutcome, ObservabilityService, UsageHandle, UsageLog,
};
pub use playground::{PlaygroundError, PlaygroundExecutor, PlaygroundResult};
pub use prices::{LoadedPrices, Prices};
pub use prompts::{Activation, NewPrompt, PromptUpdate, Prompts, VersionDraft};
pub(crate) use render::extend;
pub use render::{Render, RenderedPrompt};
pub use reprice::{CostChange, KnownCost, Reprice, Repriced};
pub use retention::{Expired, PrunePreview, PruneProgress, Retention};
pub use stream::ExecutionStream;

use crate::analytics::Analytics;
use crate::doctor::Doctor;
use crate::error::Result;
use crate::label::Label;
use crate::price_book::PriceBook;
use crate::recorder::Recorder;
use crate::store::Store;
use crate::template::Params;
use crate::time::TimeRange;

use book::BookCell;
use cache::PromptCache;

/// Prompts, their use, and what it cost. Cloning clones the handle.
///
/// # Example: render a prompt and record its use
/// ```
/// use std::sync::Arc;
/// use prompt_engine_core::{Engine, MemoryStore, NewPrompt, VersionDraft, params};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let engine = Engine::builder().build(Arc::new(MemoryStore::default())).await?;
/// let draft = VersionDraft { content: "Welcome, {{name}}!".into(), ..VersionDraft::default() };
/// engine.prompts().create(NewPrompt::new("welcome-mail".parse()?, draft)).await?;
///
/// let rendered = engine.render("welcome-mail", params! { "name" => "John" }).session("abc123").await?;
/// assert_eq!(rendered.content(), "Welcome, John!");
/// # Ok::<(), prompt_engine_core::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<dyn Store>,
    recorder: Recorder,
    environment: Label,
    default_metadata: Map<String, Value>,
    capture_content: bool,
    durable: bool,
    cache: PromptCache,
    book: BookCell,
}

impl Engine {
    /// The settings of a new engine; see [`EngineBuilder::build`].
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    /// The store that the engine works on.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    /// The recorder between the engine and its store.
    pub fn recorder(&self) -> &Recorder {
        &self.inner.recorder
    }

    /// The environment that records are attributed to unless a render says otherwise.
    pub fn environment(&self) -> &Label {
        &self.inner.environment
    }

    /// Creates and changes prompts.
    pub fn prompts(&self) -> Prompts {
        Prompts::new(self.clone())
    }

    /// Renders the prompt of `slug`: await what this returns. See [`Render`].
    pub fn render(&self, slug: impl Into<String>, params: impl Into<Params>) -> Render {
        Render::new(self.clone(), slug.into(), params.into())
    }

    /// What it all cost, how it performs, what fails, what is used most.
    pub fn analytics(&self) -> Analytics {
        Analytics::new(Arc::clone(&self.inner.store))
    }

    /// Records usages and executions of those who call models on their own.
    pub fn observability(&self) -> ObservabilityService {
        ObservabilityService::new(self.clone())
    }

    /// Lists and sets prices, and brings those of the library up to date.
    pub fn prices(&self) -> Prices {
        Prices::new(self.clone())
    }

    /// The prices that calls are priced with now. A change in the store is seen within 30 seconds.
    pub fn price_book(&self) -> Arc<PriceBook> {
        self.inner.book.current()
    }

    /// Prices the calls of `range` again, with the prices that the store has now: preview it or
    /// apply it. See [`Reprice`].
    pub fn reprice(&self, range: TimeRange) -> Reprice {
        Reprice::new(self.clone(), range)
    }

    /// Checks the sums that answers come from against the records, and makes them anew. See
    /// [`Doctor`].
    pub fn doctor(&self) -> Doctor {
        Doctor::new(Arc::clone(&self.inner.store))
    }

    /// What is older than it is to be kept: preview it or delete it. See [`Expired`].
    ///
    /// # Errors
    /// `Invalid` if nothing is to be deleted at all, or something is to be kept for no time or from
    /// before the year 0001.
    pub fn retain(&self, retention: Retention) -> Result<Expired> {
        Expired::new(self.clone(), retention)
    }

    /// Waits until everything that was recorded before is in the store, or was refused by it.
    pub async fn flush(&self) {
        self.inner.recorder.flush().await;
    }

    /// Stops recording after what is queued is saved, at the latest after `timeout`. Returns how
    /// many records were not saved.
    pub async fn shutdown(&self, timeout: Duration) -> u64 {
        self.inner.recorder.shutdown(timeout).await
    }

    pub(crate) async fn reload_prices(&self) -> Result<()> {
        self.inner.book.reload(&self.inner.store).await
    }
}
