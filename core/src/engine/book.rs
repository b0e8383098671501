//! The price book that an engine prices with, renewed when the prices of the store change.
//! Invariant: pricing never waits for the store; a change is looked for every 15 seconds, whether
//! calls are made or not; of two readings the one that was begun later is kept.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::error::Result;
use crate::price_book::PriceBook;
use crate::store::Store;

/// Half of the 30 seconds within which a change must be seen.
const CHECK_EVERY: Duration = Duration::from_secs(15);

#[derive(Debug, Clone)]
pub(super) struct BookCell(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// What calls are priced with: read without a lock.
    book: ArcSwap<PriceBook>,
    readings: Mutex<Readings>,
}

#[derive(Debug, Default)]
struct Readings {
    generation: u64,
    /// Readings of the store that were begun.
    begun: u64,
    /// Which of them the book is from.
    kept: u64,
}

impl BookCell {
    /// Reads the prices, and on the current runtime looks for changes as long as the engine lives.
    pub(super) async fn load(store: &Arc<dyn Store>) -> Result<Self> {
        let cell = Self(Arc::default());
        cell.reload(store).await?;
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(watch(Arc::downgrade(&cell.0), Arc::downgrade(store)));
        }
        Ok(cell)
    }

    pub(super) fn current(&self) -> Arc<PriceBook> {
        self.0.book.load_full()
    }

    async fn renew(&self, store: &Arc<dyn Store>) -> Result<()> {
        let known = self.readings(|readings| readings.generation);
        if store.price_generation().await? != known {
            self.reload(store).await?;
        }
        Ok(())
    }

    pub(super) async fn reload(&self, store: &Arc<dyn Store>) -> Result<()> {
        let reading = self.readings(|readings| {
            readings.begun += 1;
            readings.begun
        });
        let list = store.cost_configs().await?;
        let book = Arc::new(PriceBook::new(&list.configs));
        self.readings(|readings| {
            if readings.kept < reading {
                readings.generation = list.generation;
                readings.kept = reading;
                self.0.book.store(book);
            }
        });
        Ok(())
    }

    fn readings<T>(&self, of: impl FnOnce(&mut Readings) -> T) -> T {
        of(&mut self.0.readings.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Looks for changes until the engine is gone. It holds neither the book nor the store meanwhile.
async fn watch(book: Weak<Shared>, store: Weak<dyn Store>) {
    loop {
        tokio::time::sleep(CHECK_EVERY).await;
        let (Some(book), Some(store)) = (book.upgrade(), store.upgrade()) else { return };
        if let Err(error) = BookCell(book).renew(&store).await {
            tracing::warn!(error = %error.chain(), "prices could not be checked for changes");
        }
    }
}
