//! SQLite: rows are read out of the file as they lie there, and inserted with the driver.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prompt_engine_core::Store;
use prompt_engine_core::codec::Place;
use prompt_engine_store_sqlite::{SqliteConfig, SqliteStore, Synchronous};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use crate::Subject;

const FILE: &str = "prompts.db";

pub(crate) struct Sqlite;

impl Subject for Sqlite {
    const NAME: &'static str = "sqlite";

    async fn open(folder: &Path) -> Arc<dyn Store> {
        let config = SqliteConfig::new(folder.join(FILE)).with_synchronous(Synchronous::Full);
        Arc::new(SqliteStore::open(config).await.expect("a store"))
    }

    fn raw(ours: &Path, raw: &Path, batches: &[usize]) -> Duration {
        let rows = stored(&ours.join(FILE)).expect("the rows that were stored");
        assert_eq!(rows.len(), batches.iter().sum::<usize>());
        inserted(&raw.join(FILE), &rows, batches).expect("raw inserts")
    }

    fn size(folder: &Path) -> u64 {
        std::fs::metadata(folder.join(FILE)).expect("a file").len()
    }
}

/// A stored record: its table, its row, what it keeps of its payload, and the pack that begins with it.
struct Row {
    table: usize,
    values: Vec<Value>,
    payload: (i64, Vec<u8>),
    pack: Option<(i64, Vec<u8>)>,
}

const TABLES: [&str; 2] = ["prompt_engine_usages", "prompt_engine_llm_executions"];

/// All records of a file in the order in which they were stored.
fn stored(path: &Path) -> rusqlite::Result<Vec<Row>> {
    let conn = Connection::open(path)?;
    let mut rows = Vec::new();
    for (table, name) in TABLES.iter().enumerate() {
        let mut select = conn.prepare(&format!(
            "SELECT p.id, p.data, t.* FROM {name} t JOIN prompt_engine_payloads p ON p.id = t.payload"
        ))?;
        let columns = select.column_count();
        let found = select.query_map([], |row| {
            let values = (2..columns).map(|at| row.get(at)).collect::<rusqlite::Result<_>>()?;
            Ok(Row { table, values, payload: (row.get(0)?, row.get(1)?), pack: None })
        })?;
        for row in found {
            rows.push(row?);
        }
    }
    rows.sort_by_key(|row| row.payload.0);
    let mut select = conn.prepare("SELECT id, data FROM prompt_engine_payload_packs")?;
    let mut packs = select
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<HashMap<i64, Vec<u8>>>>()?;
    for row in &mut rows {
        let place = Place::of(&row.payload.1).expect("a place, or a payload");
        let number = place.map(|place| place.pack.cast_signed());
        row.pack = number.and_then(|number| packs.remove_entry(&number));
    }
    assert!(packs.is_empty(), "each pack has a first record");
    Ok(rows)
}

/// Inserts `rows` in `batches` into a fresh file and answers how long it took.
fn inserted(path: &Path, rows: &[Row], batches: &[usize]) -> rusqlite::Result<Duration> {
    let conn = Connection::open(path)?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    let mode: String = conn.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    assert_eq!(mode, "wal");
    let inserts: Vec<String> = TABLES
        .iter()
        .enumerate()
        .map(|(table, name)| {
            let columns = rows.iter().find(|row| row.table == table).map_or(1, |r| r.values.len());
            format!("INSERT INTO {name} VALUES ({})", vec!["?"; columns].join(", "))
        })
        .collect();
    let start = Instant::now();
    let mut rest = rows;
    for batch in batches {
        let (now, later) = rest.split_at(*batch);
        rest = later;
        conn.execute_batch("BEGIN IMMEDIATE")?;
        for row in now {
            conn.prepare_cached(&inserts[row.table])?.execute(params_from_iter(&row.values))?;
            conn.prepare_cached("INSERT INTO prompt_engine_payloads (id, data) VALUES (?, ?)")?
                .execute((row.payload.0, &row.payload.1))?;
            if let Some(pack) = &row.pack {
                conn.prepare_cached(
                    "INSERT INTO prompt_engine_payload_packs (id, data) VALUES (?, ?)",
                )?
                .execute((pack.0, &pack.1))?;
            }
        }
        conn.execute_batch("COMMIT")?;
    }
    let took = start.elapsed();
    assert!(rest.is_empty(), "the batches hold every row");
    for name in TABLES {
        let count: i64 =
            conn.query_row(&format!("SELECT count(*) FROM {name}"), [], |row| row.get(0))?;
        assert_eq!(usize::try_from(count), Ok(rows.len() / 2));
    }
    Ok(took)
}
