//! The schema and its versions. A migration is never edited once released; a change is a new one.
//! Invariant: the version is read and moved under the write lock, so that processes that open a
//! new file at once make its tables once. (rusqlite_migration reads it before it takes the lock.)

use std::time::Instant;

use prompt_engine_core::BucketWidth;
use prompt_engine_core::cube::cell_of;
use rusqlite::{Connection, OptionalExtension};

use crate::cells;
use crate::error::{Fault, Outcome};
use crate::prune::RAW_HORIZON;
use crate::rows::moment;
use crate::store::begin;

/// The migrations in order: the first makes version 1.
const MIGRATIONS: [&str; 4] = [
    include_str!("../migrations/0001_initial.sql"),
    include_str!("../migrations/0002_prices.sql"),
    include_str!("../migrations/0003_cubes.sql"),
    include_str!("../migrations/0004_packs.sql"),
];
/// The first version that has cells.
const CELLS: i64 = 3;

/// The version that this build writes.
fn newest() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// Brings the schema up to date; tells whether there was none before.
pub(crate) fn migrate(conn: &Connection, deadline: Instant) -> Outcome<bool> {
    // The usual case takes no lock.
    if known(version(conn)?)? == newest() {
        return Ok(false);
    }
    let transaction = begin(conn, deadline)?;
    let found = known(version(&transaction)?)?;
    let done = usize::try_from(found).unwrap_or(0);
    for migration in &MIGRATIONS[done..] {
        transaction.execute_batch(migration)?;
    }
    if (1..CELLS).contains(&found) {
        start_cells(&transaction)?;
    }
    set_meta(&transaction, "schema", newest())?;
    transaction.commit()?;
    Ok(found == 0)
}

/// Gives a store that had none the changes that its cells are made from. Its raw horizon moves to the
/// end of its quarter of an hour, since what is left of that quarter is in the cells alone.
fn start_cells(conn: &Connection) -> Outcome<()> {
    if let Some(horizon) = meta(conn, RAW_HORIZON)? {
        let quarter = cell_of(BucketWidth::QuarterHour, moment(horizon)?);
        let whole = if quarter.from == horizon { horizon } else { quarter.to };
        set_meta(conn, RAW_HORIZON, whole)?;
    }
    cells::start(conn)
}

/// Whether the tables are there.
pub(crate) fn is_there(conn: &Connection) -> Outcome<bool> {
    Ok(version(conn)? > 0)
}

/// The version of the schema; 0 if there is none.
fn version(conn: &Connection) -> Outcome<i64> {
    let exists: bool = conn.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'prompt_engine_meta')",
        [],
        |row| row.get(0),
    )?;
    Ok(if exists { meta(conn, "schema")?.unwrap_or(0) } else { 0 })
}

/// `found`, if this build can work with it.
fn known(found: i64) -> Outcome<i64> {
    match found {
        _ if found > newest() => Err(Fault::NewerSchema { found, known: newest() }),
        _ if found < 0 => Err(Fault::Row(format!("the schema version is {found}"))),
        _ => Ok(found),
    }
}

/// The number kept under `name`.
pub(crate) fn meta(conn: &Connection, name: &str) -> Outcome<Option<i64>> {
    let mut statement =
        conn.prepare_cached("SELECT value FROM prompt_engine_meta WHERE name = ?")?;
    Ok(statement.query_row([name], |row| row.get(0)).optional()?)
}

/// Keeps `value` under `name`.
pub(crate) fn set_meta(conn: &Connection, name: &str, value: i64) -> Outcome<()> {
    conn.prepare_cached(
        "INSERT INTO prompt_engine_meta (name, value) VALUES (?, ?)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )?
    .execute((name, value))?;
    Ok(())
}
