//! Where a store is: what it takes on the disk, and how it is left after a fill.

use std::path::{Path, PathBuf};

use prompt_engine_core::{FileUrl, Store};
use prompt_engine_store_postgres::PostgresConfig;
use rusqlite::Connection;
use sqlx::{AssertSqlSafe, Connection as _, Executor, PgConnection, raw_sql};

use crate::Outcome;

/// Where a store is.
#[derive(Debug)]
pub(crate) enum Place {
    Sqlite(PathBuf),
    Redb(PathBuf),
    Postgres { url: String, schema: Option<String> },
}

impl Place {
    /// The place that `url` names.
    pub(crate) fn parse(url: &str) -> Outcome<Self> {
        match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("sqlite") => Ok(Self::Sqlite(FileUrl::parse(url, "sqlite")?.path)),
            Some("redb") => Ok(Self::Redb(FileUrl::parse(url, "redb")?.path)),
            Some("postgres" | "postgresql") => {
                let PostgresConfig { url, schema, .. } = PostgresConfig::from_url(url)?;
                Ok(Self::Postgres { url, schema })
            }
            Some("memory") => Err("a store in memory is gone before it is asked; take \
                                   sqlite://FILE, redb://FILE or postgres://HOST/DATABASE"
                .into()),
            _ => Err("--store takes sqlite://FILE, redb://FILE or postgres://HOST/DATABASE".into()),
        }
    }

    /// What kind of store it is.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Redb(_) => "redb",
            Self::Postgres { .. } => "postgres",
        }
    }

    /// Takes from an empty store the indexes that no append needs; answers how to make them again.
    /// Building them from sorted rows takes a fraction of the time of keeping them up.
    pub(crate) fn drop_indexes(&self) -> Outcome<Vec<String>> {
        let Self::Sqlite(path) = self else { return Ok(Vec::new()) };
        let conn = Connection::open(path)?;
        let mut select = conn.prepare(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql LIKE 'CREATE INDEX%'
                 AND tbl_name IN ('prompt_engine_usages', 'prompt_engine_llm_executions')",
        )?;
        let found = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let found: Vec<(String, String)> = found.collect::<Result<_, _>>()?;
        for (name, _) in &found {
            conn.execute_batch(&format!("DROP INDEX {name}"))?;
        }
        Ok(found.into_iter().map(|(_, sql)| sql).collect())
    }

    /// Makes the indexes again that [`Self::drop_indexes`] took.
    pub(crate) fn make_indexes(&self, indexes: &[String]) -> Outcome<()> {
        let Self::Sqlite(path) = self else { return Ok(()) };
        let conn = Connection::open(path)?;
        conn.execute_batch("PRAGMA cache_size = -262144; PRAGMA threads = 2")?;
        for sql in indexes {
            conn.execute_batch(sql)?;
        }
        Ok(())
    }

    /// Leaves a store that was filled and closed as it is once it has been idle for a while: a
    /// checkpoint, or a vacuum, which a server does by itself within a minute.
    pub(crate) async fn settle(&self) -> Outcome<()> {
        match self {
            Self::Sqlite(path) => {
                let conn = Connection::open(path)?;
                conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
            }
            Self::Redb(_) => {}
            Self::Postgres { .. } => {
                let (mut conn, tables) = self.tables().await?;
                for (table, _) in tables {
                    let sql = AssertSqlSafe(format!("VACUUM (ANALYZE) {table}"));
                    conn.execute(raw_sql(sql)).await?;
                }
            }
        }
        Ok(())
    }

    /// What the store takes on the disk: all of its files, or its tables with their indexes.
    pub(crate) async fn bytes(&self) -> Outcome<u64> {
        match self {
            Self::Sqlite(path) => {
                let beside = |end: &str| {
                    let mut name = path.clone().into_os_string();
                    name.push(end);
                    PathBuf::from(name)
                };
                Ok(length(path)? + length(&beside("-wal"))? + length(&beside("-shm"))?)
            }
            Self::Redb(path) => length(path),
            Self::Postgres { .. } => {
                let (_, tables) = self.tables().await?;
                Ok(tables.into_iter().map(|(_, bytes)| bytes.cast_unsigned()).sum())
            }
        }
    }

    /// A connection, and our tables with their sizes.
    async fn tables(&self) -> Outcome<(PgConnection, Vec<(String, i64)>)> {
        let Self::Postgres { url, schema } = self else {
            return Err("only a server has tables to be asked for".into());
        };
        let mut conn = PgConnection::connect(url).await?;
        let tables = sqlx::query_as(
            "SELECT c.oid::regclass::text, pg_total_relation_size(c.oid) FROM pg_class AS c
             JOIN pg_namespace AS n ON n.oid = c.relnamespace
             WHERE n.nspname = coalesce($1, current_schema()) AND c.relkind = 'r'
                 AND c.relname LIKE 'prompt\\_engine\\_%'",
        )
        .bind(schema)
        .fetch_all(&mut conn)
        .await?;
        Ok((conn, tables))
    }
}

/// How long a file is; 0 if there is none.
fn length(path: &Path) -> Outcome<u64> {
    match std::fs::metadata(path) {
        Ok(file) => Ok(file.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Closes a store. Some close their file on another thread, when the last that uses it ends.
pub(crate) async fn close(store: std::sync::Arc<dyn Store>) {
    drop(store);
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
}
