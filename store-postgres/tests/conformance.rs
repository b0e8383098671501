//! The suite that every store passes, over a fresh schema for each case.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod server;

use std::sync::Arc;

use prompt_engine_core::conformance::Fixture;
use prompt_engine_core::{Result, Store};
use prompt_engine_store_postgres::PostgresStore;

use server::Schema;

async fn open() -> Fixture {
    let schema = Schema::new();
    let config = schema.config();
    let store = PostgresStore::open(config.clone()).await.unwrap();
    let reopen = move || {
        let config = config.clone();
        async move { Result::Ok(Arc::new(PostgresStore::open(config).await?) as Arc<dyn Store>) }
    };
    Fixture::new(store, reopen).with_guard(schema)
}

prompt_engine_core::conformance_suite!(open);
