//! The suite that every store passes, over MemoryStore.

use std::sync::Arc;

use prompt_engine_core::conformance::Fixture;
use prompt_engine_core::{MemoryStore, Store, conformance_suite};

async fn open() -> Fixture {
    let store = MemoryStore::new();
    let same = store.clone();
    Fixture::new(store, move || {
        let same = Arc::new(same.clone());
        async move { Ok(same as Arc<dyn Store>) }
    })
}

conformance_suite!(open);
