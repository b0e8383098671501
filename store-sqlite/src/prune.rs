//! Deleting what is old, a bounded batch at a time, oldest first.
//! Invariants: the raw horizon moves in the transaction that deletes, and never back; no record
//! before [`PAYLOADS_FROM`] has a payload, so that what was pruned is not walked again.

use prompt_engine_core::codec::Place;
use prompt_engine_core::cube::horizon_of;
use prompt_engine_core::{Prune, Pruned};
use rusqlite::{Connection, Rows};

use crate::error::Outcome;
use crate::payloads;
use crate::schema::{meta, set_meta};

/// The time before which records were deleted and are refused.
pub(crate) const RAW_HORIZON: &str = "raw_horizon";
/// The time before which no record has a payload.
pub(crate) const PAYLOADS_FROM: &str = "payloads_from";

/// The statements that differ between the two tables of records.
struct Table {
    /// The oldest payloads in a range of time.
    payloads: &'static str,
    /// Makes a record forget its payload.
    forget: &'static str,
    /// The key of the last of the oldest records, and whether more follow.
    oldest: &'static str,
    /// Deletes the payloads of the records up to a key.
    delete_payloads: &'static str,
    /// Deletes the records up to a key.
    delete: &'static str,
    /// Deletes what else belongs to the records up to a key.
    also: &'static [&'static str],
}

macro_rules! table {
    ($name:literal, also: [$($also:literal)?]) => {
        Table {
            payloads: concat!(
                "SELECT created_at, id, payload FROM ",
                $name,
                " WHERE created_at >= ? AND created_at < ? AND payload IS NOT NULL
                  ORDER BY created_at, id LIMIT ?"
            ),
            forget: concat!(
                "UPDATE ",
                $name,
                " SET payload = NULL WHERE created_at = ? AND id = ?"
            ),
            oldest: concat!(
                "SELECT created_at, id FROM ",
                $name,
                " WHERE created_at < ? ORDER BY created_at, id LIMIT ?"
            ),
            delete_payloads: concat!(
                "DELETE FROM prompt_engine_payloads WHERE id IN (SELECT payload FROM ",
                $name,
                " WHERE (created_at, id) <= (?, ?) AND payload IS NOT NULL) RETURNING data"
            ),
            delete: concat!("DELETE FROM ", $name, " WHERE (created_at, id) <= (?, ?)"),
            also: &[$(concat!("DELETE FROM ", $also, " WHERE (created_at, id) <= (?, ?)"))?],
        }
    };
}

const USAGES: Table = table!("prompt_engine_usages", also: []);
const EXECUTIONS: Table =
    table!("prompt_engine_llm_executions", also: ["prompt_engine_cost_revisions"]);

/// Deletes one batch; the caller commits.
pub(crate) fn prune(conn: &Connection, prune: &Prune) -> Outcome<Pruned> {
    let mut pruned = Pruned { done: true, ..Pruned::default() };
    // Where the payloads lay that are deleted.
    let mut places = Vec::new();
    if let Some(before) = prune.raw_before.map(horizon_of) {
        let before = before.as_micros();
        for (table, sum) in [(&USAGES, &mut pruned.usages), (&EXECUTIONS, &mut pruned.executions)] {
            let (records, done) = delete_records(conn, table, before, prune.limit, &mut places)?;
            *sum = records;
            pruned.done &= done;
        }
        if meta(conn, RAW_HORIZON)?.is_none_or(|horizon| horizon < before) {
            set_meta(conn, RAW_HORIZON, before)?;
        }
    }
    if let Some(before) = prune.payloads_before {
        let before = before.as_micros();
        let (payloads, done) = delete_payloads(conn, before, prune.limit, &mut places)?;
        pruned.payloads = payloads;
        pruned.done &= done;
    }
    payloads::forget(conn, places)?;
    Ok(pruned)
}

/// Deletes the oldest records of `table`, with their payloads; answers how many, and whether none
/// are left.
fn delete_records(
    conn: &Connection,
    table: &Table,
    before: i64,
    limit: u32,
    places: &mut Vec<Place>,
) -> Outcome<(u64, bool)> {
    let mut select = conn.prepare_cached(table.oldest)?;
    let keys = select
        .query_map((before, i64::from(limit) + 1), |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<Vec<(i64, [u8; 16])>>>()?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let done = keys.len() <= limit;
    let Some(last) = keys.iter().take(limit).next_back() else {
        return Ok((0, done));
    };
    add_places(places, conn.prepare_cached(table.delete_payloads)?.query(*last)?)?;
    for also in table.also {
        conn.prepare_cached(also)?.execute(*last)?;
    }
    let records = conn.prepare_cached(table.delete)?.execute(*last)?;
    Ok((number(records), done))
}

/// Deletes the oldest payloads of both tables; answers how many, and whether none are left.
fn delete_payloads(
    conn: &Connection,
    before: i64,
    limit: u32,
    places: &mut Vec<Place>,
) -> Outcome<(u64, bool)> {
    let from = meta(conn, PAYLOADS_FROM)?.unwrap_or(i64::MIN);
    if from >= before {
        return Ok((0, true));
    }
    let mut found = Vec::new();
    for table in [&USAGES, &EXECUTIONS] {
        let mut select = conn.prepare_cached(table.payloads)?;
        let mut rows = select.query((from, before, i64::from(limit) + 1))?;
        while let Some(row) = rows.next()? {
            let (at, id, payload): (i64, [u8; 16], i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            found.push((at, id, payload, table.forget));
        }
    }
    found.sort_unstable();
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    // What is first among those left still has its payload; all before it have none.
    let next = found.get(limit).map(|(at, ..)| *at);
    found.truncate(limit);
    let mut delete =
        conn.prepare_cached("DELETE FROM prompt_engine_payloads WHERE id = ? RETURNING data")?;
    for (at, id, payload, forget) in &found {
        conn.prepare_cached(forget)?.execute((at, id))?;
        add_places(places, delete.query([payload])?)?;
    }
    set_meta(conn, PAYLOADS_FROM, next.unwrap_or(before))?;
    Ok((number(found.len()), next.is_none()))
}

/// Adds where payloads lay that were deleted; what cannot be read is in no pack that could be named.
fn add_places(places: &mut Vec<Place>, mut deleted: Rows<'_>) -> Outcome<()> {
    while let Some(row) = deleted.next()? {
        places.extend(Place::of(row.get_ref(0)?.as_blob()?).unwrap_or_default());
    }
    Ok(())
}

fn number(rows: usize) -> u64 {
    u64::try_from(rows).unwrap_or(u64::MAX)
}
