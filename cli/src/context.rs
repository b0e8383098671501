//! What every command is given: where the store is, and whether to print JSON.
//! Invariant: a command that only reads never makes a store.

use std::sync::Arc;
use std::time::Duration;

use prompt_engine::{PromptEngine, Store, missing_store, open_store};

use crate::failure::Failure;
use crate::table::count;

/// The store that is used where none is named.
pub(crate) const DEFAULT_STORE: &str = "sqlite://prompt_engine.db";

/// How long a command waits at its end for its records to be safe.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// What every command is given.
#[derive(Debug)]
pub(crate) struct Context {
    store: String,
    json: bool,
}

impl Context {
    pub(crate) fn new(store: String, json: bool) -> Self {
        Self { store, json }
    }

    /// Whether to print JSON.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// The store alone, as it is; it must be there.
    pub(crate) async fn store(&self) -> Result<Arc<dyn Store>, Failure> {
        self.must_be_there().await?;
        self.store_or_create().await
    }

    /// The store alone, without any prices of the library where it is made.
    pub(crate) async fn store_or_create(&self) -> Result<Arc<dyn Store>, Failure> {
        Ok(open_store(&self.store, true).await?)
    }

    /// The engine on a store that must be there.
    pub(crate) async fn open(&self) -> Result<PromptEngine, Failure> {
        self.must_be_there().await?;
        self.open_or_create().await
    }

    async fn must_be_there(&self) -> Result<(), Failure> {
        if let Some(path) = self.missing().await? {
            return Err(Failure::failed(format!(
                "there is no store at {path}; `prompt-engine prompt create` makes one there, \
                 `prompt-engine demo` shows one, and --store names another"
            )));
        }
        Ok(())
    }

    /// The engine on a store that is made where it is not there.
    pub(crate) async fn open_or_create(&self) -> Result<PromptEngine, Failure> {
        Ok(PromptEngine::connect_with(&self.store, PromptEngine::builder().durable()).await?)
    }

    /// Waits until all that was recorded is safe.
    pub(crate) async fn close(&self, engine: &PromptEngine) -> Result<(), Failure> {
        match engine.shutdown(SHUTDOWN).await {
            0 => Ok(()),
            lost => Err(Failure::failed(format!(
                "{} could not be saved: the store did not take it within {SHUTDOWN:?}; another \
                 program may hold it, or its disk may be full",
                count(lost, "record")
            ))),
        }
    }

    /// Where the store would be, if it is not there.
    pub(crate) async fn missing(&self) -> Result<Option<String>, Failure> {
        Ok(missing_store(&self.store).await?)
    }
}
