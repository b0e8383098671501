//! Where payloads lie: alone, or in a pack with those that were stored together; see `docs/payloads.md`.
//! Invariant: a pack holds the payloads whose places are kept, and no others.

use prompt_engine_core::codec::{Pack, Packs, Place};
use rusqlite::{Connection, OptionalExtension};
use serde::de::DeserializeOwned;

use crate::error::Outcome;
use crate::rows::optional;

/// Writes the payloads of one transaction. The row that names one is written first, and may turn out
/// to be there.
pub(crate) struct Payloads<'a> {
    conn: &'a Connection,
    next: i64,
    next_pack: i64,
}

impl<'a> Payloads<'a> {
    pub(crate) fn new(conn: &'a Connection) -> Outcome<Self> {
        let (next, next_pack) = conn
            .prepare_cached(
                "SELECT (SELECT coalesce(max(id), 0) + 1 FROM prompt_engine_payloads),
                        (SELECT coalesce(max(id), 0) + 1 FROM prompt_engine_payload_packs)",
            )?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(Self { conn, next, next_pack })
    }

    /// The id that the next payload gets.
    pub(crate) fn next_id(&self) -> i64 {
        self.next
    }

    /// The number that the next pack gets.
    pub(crate) fn next_pack(&self) -> u64 {
        self.next_pack.cast_unsigned()
    }

    /// Keeps `data` under the next id.
    pub(crate) fn insert(&mut self, data: Option<&[u8]>) -> Outcome<()> {
        let Some(data) = data else { return Ok(()) };
        self.conn
            .prepare_cached("INSERT INTO prompt_engine_payloads (id, data) VALUES (?, ?)")?
            .execute((self.next, data))?;
        self.next += 1;
        Ok(())
    }

    /// Replaces what is under `old`, which lies alone; answers the id of `data`.
    pub(crate) fn replace(
        &mut self,
        old: Option<i64>,
        data: Option<&[u8]>,
    ) -> Outcome<Option<i64>> {
        match (old, data) {
            (Some(old), Some(data)) => {
                self.conn
                    .prepare_cached("UPDATE prompt_engine_payloads SET data = ? WHERE id = ?")?
                    .execute((data, old))?;
                Ok(Some(old))
            }
            (Some(old), None) => {
                self.conn
                    .prepare_cached("DELETE FROM prompt_engine_payloads WHERE id = ?")?
                    .execute([old])?;
                Ok(None)
            }
            (None, Some(data)) => {
                let id = self.next;
                self.insert(Some(data))?;
                Ok(Some(id))
            }
            (None, None) => Ok(None),
        }
    }

    /// Keeps `pack` under the next number, without the lines of records that were there before.
    pub(crate) fn insert_pack(&mut self, pack: Vec<u8>, unused: &[u32]) -> Outcome<()> {
        let Some(pack) = Pack::forget(pack, unused)? else { return Ok(()) };
        self.conn
            .prepare_cached("INSERT INTO prompt_engine_payload_packs (id, data) VALUES (?, ?)")?
            .execute((self.next_pack, pack))?;
        self.next_pack += 1;
        Ok(())
    }
}

/// Takes payloads that were deleted out of their packs.
pub(crate) fn forget(conn: &Connection, mut places: Vec<Place>) -> Outcome<()> {
    places.sort_unstable();
    for of_one in places.chunk_by(|a, b| a.pack == b.pack) {
        let number = of_one[0].pack;
        // A pack that is not there has forgotten them.
        let Some(pack) = pack(conn, number)? else { continue };
        let lines: Vec<u32> = of_one.iter().map(|place| place.line).collect();
        match Pack::forget(pack, &lines)? {
            Some(pack) => conn
                .prepare_cached("UPDATE prompt_engine_payload_packs SET data = ? WHERE id = ?")?
                .execute((pack, number.cast_signed()))?,
            None => conn
                .prepare_cached("DELETE FROM prompt_engine_payload_packs WHERE id = ?")?
                .execute([number.cast_signed()])?,
        };
    }
    Ok(())
}

fn pack(conn: &Connection, number: u64) -> Outcome<Option<Vec<u8>>> {
    Ok(conn
        .prepare_cached("SELECT data FROM prompt_engine_payload_packs WHERE id = ?")?
        .query_row([number.cast_signed()], |row| row.get(0))
        .optional()?)
}

/// The payload of an id.
pub(crate) fn read<T: DeserializeOwned>(conn: &Connection, id: Option<i64>) -> Outcome<Option<T>> {
    let Some(id) = id else { return Ok(None) };
    let data = conn
        .prepare_cached("SELECT data FROM prompt_engine_payloads WHERE id = ?")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    decoded(conn, &mut Packs::default(), data)
}

/// The payload that is kept as `data`.
pub(crate) fn decoded<T: DeserializeOwned>(
    conn: &Connection,
    packs: &mut Packs,
    data: Option<Vec<u8>>,
) -> Outcome<Option<T>> {
    optional(data, |data| packs.decode(&data, |number| pack(conn, number)))
}
