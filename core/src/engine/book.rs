//! The price book that an engine prices with, renewed when the prices of the store change.
//! Invariant: pricing never waits for the store; a change is looked for at most every 15 seconds.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::price_book::PriceBook;
use crate::store::Store;

/// Half of the 30 seconds within which a change must be seen.
const CHECK_EVERY: Duration = Duration::from_secs(15);

#[derive(Debug, Clone)]
pub(super) struct BookCell(Arc<RwLock<State>>);

#[derive(Debug)]
struct State {
    book: Arc<PriceBook>,
    generation: u64,
    checked: Instant,
}

impl BookCell {
    pub(super) async fn load(store: &Arc<dyn Store>) -> Result<Self> {
        let list = store.cost_configs().await?;
        let book = Arc::new(PriceBook::new(list.configs));
        let state = State { book, generation: list.generation, checked: Instant::now() };
        Ok(Self(Arc::new(RwLock::new(state))))
    }

    /// The book; where it was not checked for a while, a check is started beside.
    pub(super) fn current(&self, store: &Arc<dyn Store>) -> Arc<PriceBook> {
        let (book, stale) = {
            let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
            (Arc::clone(&state.book), state.checked.elapsed() >= CHECK_EVERY)
        };
        if stale && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.write(|state| state.checked = Instant::now());
            let (cell, store) = (self.clone(), Arc::clone(store));
            runtime.spawn(async move {
                if let Err(error) = cell.renew(&store).await {
                    tracing::warn!(error = %error.chain(), "prices could not be checked for changes");
                }
            });
        }
        book
    }

    async fn renew(&self, store: &Arc<dyn Store>) -> Result<()> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).generation;
        if store.price_generation().await? != known {
            self.reload(store).await?;
        }
        Ok(())
    }

    pub(super) async fn reload(&self, store: &Arc<dyn Store>) -> Result<()> {
        let list = store.cost_configs().await?;
        let book = Arc::new(PriceBook::new(list.configs));
        self.write(|state| {
            *state = State { book, generation: list.generation, checked: Instant::now() };
        });
        Ok(())
    }

    fn write(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}
