//! PostgreSQL: rows are read out of the tables with COPY, and inserted with COPY, which is the fastest
//! that the server takes. Each folder of the bench stands for a schema of its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use prompt_engine_core::Store;
use prompt_engine_store_postgres::{PostgresConfig, PostgresStore};
use sqlx::postgres::PgPoolCopyExt;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool, raw_sql};
use tokio::runtime::Handle;

use crate::Subject;

const SERVER: &str = "TEST_POSTGRES_URL";
/// Rows and payloads of usages, then of executions.
const TABLES: [&str; 4] = [
    "prompt_engine_usages",
    "prompt_engine_usage_payloads",
    "prompt_engine_llm_executions",
    "prompt_engine_llm_execution_payloads",
];

/// Whether a server is named.
pub(crate) fn is_there() -> bool {
    std::env::var_os(SERVER).is_some()
}

fn server() -> String {
    std::env::var(SERVER).expect("the URL of a server")
}

/// The schema that stands for `folder`.
fn schema(folder: &Path) -> String {
    let path = folder.to_string_lossy().to_lowercase();
    let letters: String = path.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("bench_{}", &letters[letters.len().saturating_sub(40)..])
}

pub(crate) struct Postgres;

impl Subject for Postgres {
    const NAME: &'static str = "postgres";

    async fn open(folder: &Path) -> Arc<dyn Store> {
        let url = server();
        let join = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{join}schema={}", schema(folder));
        let config = PostgresConfig::from_url(&url).expect("a configuration");
        Arc::new(PostgresStore::open(config).await.expect("a store"))
    }

    fn raw(ours: &Path, raw: &Path, batches: &[usize]) -> Duration {
        Handle::current()
            .block_on(copied(&schema(ours), &schema(raw), batches))
            .expect("raw inserts")
    }

    fn size(folder: &Path) -> u64 {
        let sql = format!(
            "SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class AS c
             JOIN pg_namespace AS n ON n.oid = c.relnamespace
             WHERE n.nspname = '{}' AND c.relkind = 'r'",
            schema(folder)
        );
        let size = async {
            let mut conn = PgConnection::connect(&server()).await?;
            sqlx::query_scalar::<_, i64>(AssertSqlSafe(sql)).fetch_one(&mut conn).await
        };
        tokio::task::block_in_place(|| Handle::current().block_on(size))
            .expect("a size")
            .cast_unsigned()
    }
}

/// The lines of each table, by id, which is the order in which they were made.
async fn lines(pool: &PgPool, schema: &str) -> sqlx::Result<[Vec<Vec<u8>>; 4]> {
    let mut tables: [Vec<Vec<u8>>; 4] = Default::default();
    for (table, lines) in TABLES.iter().zip(&mut tables) {
        let sql = format!("COPY (SELECT * FROM {schema}.{table} ORDER BY id) TO STDOUT");
        let mut stream = pool.copy_out_raw(&sql).await?;
        while let Some(line) = stream.try_next().await? {
            lines.push(line.to_vec());
        }
    }
    Ok(tables)
}

/// Copies all that `ours` holds into `raw` in `batches` of records; answers how long it took.
async fn copied(ours: &str, raw: &str, batches: &[usize]) -> sqlx::Result<Duration> {
    let pool = PgPool::connect(&server()).await?;
    let tables = lines(&pool, ours).await?;
    let calls = tables[0].len();
    assert!(tables.iter().all(|lines| lines.len() == calls), "a row and a payload for each record");
    assert_eq!(2 * calls, batches.iter().sum::<usize>());
    let mut conn = PgConnection::connect(&server()).await?;
    conn.execute(raw_sql(AssertSqlSafe(format!("SET search_path = {raw}")))).await?;
    let start = Instant::now();
    let mut done = 0;
    for batch in batches {
        // Records alternate: a usage, and its execution.
        let (from, to) = (done, done + batch);
        let parts = BTreeMap::from([(0, from.div_ceil(2)..to.div_ceil(2)), (2, from / 2..to / 2)]);
        conn.execute("BEGIN").await?;
        for (first, range) in parts {
            for table in [first, first + 1] {
                let sql = format!("COPY {} FROM STDIN", TABLES[table]);
                let mut copy = conn.copy_in_raw(&sql).await?;
                copy.send(tables[table][range.clone()].concat()).await?;
                copy.finish().await?;
            }
        }
        conn.execute("COMMIT").await?;
        done = to;
    }
    let took = start.elapsed();
    for table in TABLES {
        let sql = AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        let count: i64 = sqlx::query_scalar(sql).fetch_one(&mut conn).await?;
        assert_eq!(usize::try_from(count), Ok(calls));
    }
    Ok(took)
}
