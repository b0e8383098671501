//! The server that tests use, and a schema of it for each, gone when the test ends.
#![allow(dead_code, reason = "no test uses all of it")]

use std::thread;

use prompt_engine_store_postgres::{PostgresConfig, PostgresStore};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, raw_sql};
use url::Url;
use uuid::Uuid;

/// The URL of the server.
///
/// # Panics
/// Without one, with a sentence that says how to get it: a test that is left out looks like one
/// that passed.
pub(crate) fn url() -> Url {
    let Ok(url) = std::env::var("TEST_POSTGRES_URL") else {
        panic!(
            "TEST_POSTGRES_URL names no PostgreSQL server: run `cargo xtask test`, which starts \
             one, or set it to the URL of a server where schemas may be made"
        )
    };
    url.parse().unwrap()
}

/// A connection of the test's own.
pub(crate) async fn connect() -> PgConnection {
    PgConnection::connect(url().as_str()).await.unwrap()
}

/// A schema that is dropped with this.
pub(crate) struct Schema {
    /// Its name, and that of the connections of stores in it.
    pub(crate) name: String,
    server: Url,
}

impl Schema {
    /// A name that nobody else has; the store makes the schema.
    pub(crate) fn new() -> Self {
        Self { name: format!("pe_{}", Uuid::now_v7().simple()), server: url() }
    }

    /// The URL of a store in it.
    pub(crate) fn url(&self) -> Url {
        let mut url = self.server.clone();
        url.query_pairs_mut()
            .append_pair("schema", &self.name)
            .append_pair("application_name", &self.name)
            .append_pair("max_connections", "4");
        url
    }

    /// How to open a store in it.
    pub(crate) fn config(&self) -> PostgresConfig {
        PostgresConfig::from_url(self.url().as_str()).unwrap()
    }

    /// A store in it.
    pub(crate) async fn open(&self) -> PostgresStore {
        PostgresStore::open(self.config()).await.unwrap()
    }

    /// A connection of the test's own, whose tables are those of the schema.
    pub(crate) async fn connect(&self) -> PgConnection {
        let mut conn = connect().await;
        let sql = format!("SET search_path = \"{}\"", self.name);
        conn.execute(raw_sql(AssertSqlSafe(sql))).await.unwrap();
        conn
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        // A test that failed may leave a transaction behind, which would be waited for.
        let sql = format!(
            "SET client_min_messages = warning;
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE application_name = '{name}';
             DROP SCHEMA IF EXISTS \"{name}\" CASCADE",
            name = self.name
        );
        // A runtime cannot be started on a thread of another one.
        let dropped = thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                connect().await.execute(raw_sql(AssertSqlSafe(sql))).await.unwrap();
            });
        });
        if dropped.join().is_err() {
            eprintln!("the schema {} is left behind", self.name);
        }
    }
}
