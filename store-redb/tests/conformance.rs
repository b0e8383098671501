//! The suite that every store passes, over a fresh file for each case.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use prompt_engine_core::conformance::Fixture;
use prompt_engine_core::{Result, Store};
use prompt_engine_store_redb::{RedbConfig, RedbStore};

async fn open() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let config = RedbConfig::new(folder.path().join("prompts.redb"));
    let store = RedbStore::open(config.clone()).await.unwrap();
    let reopen = move || {
        let config = config.clone();
        async move { Result::Ok(Arc::new(RedbStore::open(config).await?) as Arc<dyn Store>) }
    };
    Fixture::new(store, reopen).with_guard(folder)
}

prompt_engine_core::conformance_suite!(open);
