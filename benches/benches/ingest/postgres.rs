//! PostgreSQL: rows are read out of the tables with COPY, and inserted with COPY, which is the fastest
//! that the server takes. Each folder of the bench stands for a schema of its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use prompt_engine_core::Store;
use prompt_engine_core::codec::Place;
use prompt_engine_store_postgres::{PostgresConfig, PostgresStore};
use sqlx::postgres::PgPoolCopyExt;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool, raw_sql};
use tokio::runtime::Handle;

use crate::Subject;

const SERVER: &str = "TEST_POSTGRES_URL";
/// Rows and payloads of usages, then of executions, which are those of each call.
const TABLES: [&str; 4] = [
    "prompt_engine_usages",
    "prompt_engine_usage_payloads",
    "prompt_engine_llm_executions",
    "prompt_engine_llm_execution_payloads",
];
const PACKS: &str = "prompt_engine_payload_packs";

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

/// The lines of a table, by id, which is the order in which they were made.
async fn lines(pool: &PgPool, schema: &str, table: &str) -> sqlx::Result<Vec<Vec<u8>>> {
    let sql = format!("COPY (SELECT * FROM {schema}.{table} ORDER BY id) TO STDOUT");
    let mut stream = pool.copy_out_raw(&sql).await?;
    let mut lines = Vec::new();
    while let Some(line) = stream.try_next().await? {
        lines.push(line.to_vec());
    }
    Ok(lines)
}

/// The line of each pack, under the first record in it and the number of the pack.
async fn packs(pool: &PgPool, schema: &str) -> sqlx::Result<BTreeMap<(usize, u64), Vec<u8>>> {
    let mut firsts: BTreeMap<u64, usize> = BTreeMap::new();
    for (kind, table) in [TABLES[1], TABLES[3]].iter().enumerate() {
        let sql = format!("SELECT data FROM {schema}.{table} ORDER BY id");
        let kept: Vec<Vec<u8>> = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(pool).await?;
        for (call, data) in kept.iter().enumerate() {
            if let Some(place) = Place::of(data).expect("a payload or its place") {
                let first = firsts.entry(place.pack).or_insert(usize::MAX);
                *first = (2 * call + kind).min(*first);
            }
        }
    }
    let lines = lines(pool, schema, PACKS).await?;
    assert_eq!(firsts.len(), lines.len());
    Ok(firsts.into_iter().map(|(pack, first)| (first, pack)).zip(lines).collect())
}

/// Copies all that `ours` holds into `raw` in `batches` of records; answers how long it took.
async fn copied(ours: &str, raw: &str, batches: &[usize]) -> sqlx::Result<Duration> {
    let pool = PgPool::connect(&server()).await?;
    let mut tables = Vec::new();
    for table in TABLES {
        tables.push(lines(&pool, ours, table).await?);
    }
    let packs = packs(&pool, ours).await?;
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
                copy(&mut conn, TABLES[table], tables[table][range.clone()].concat()).await?;
            }
        }
        let begun: Vec<&[u8]> = packs.range((from, 0)..(to, 0)).map(|(_, line)| &**line).collect();
        if !begun.is_empty() {
            copy(&mut conn, PACKS, begun.concat()).await?;
        }
        conn.execute("COMMIT").await?;
        done = to;
    }
    let took = start.elapsed();
    for (table, rows) in
        TABLES.map(|table| (table, calls)).into_iter().chain([(PACKS, packs.len())])
    {
        let sql = AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        let count: i64 = sqlx::query_scalar(sql).fetch_one(&mut conn).await?;
        assert_eq!(usize::try_from(count), Ok(rows));
    }
    Ok(took)
}

async fn copy(conn: &mut PgConnection, table: &str, lines: Vec<u8>) -> sqlx::Result<()> {
    let mut copy = conn.copy_in_raw(&format!("COPY {table} FROM STDIN")).await?;
    copy.send(lines).await?;
    copy.finish().await?;
    Ok(())
}
