//! Where payloads lie: alone, or in a pack with those that were stored together; see `docs/payloads.md`.
//! Invariant: a pack holds the payloads whose places are kept, and no others.

use std::borrow::Cow;
use std::collections::BTreeMap;

use prompt_engine_core::codec::{self, Encoded, Pack, Packed, Packing, Packs, Place, encode_ahead};
use prompt_engine_core::{Error, Record};
use serde::de::DeserializeOwned;
use sqlx::postgres::{PgArguments, PgBindIterExt, PgRow};
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, query};
use tokio::sync::{Mutex, OnceCell};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::error::{Fault, Outcome, joined};
use crate::rows::{get, optional};

/// Packs that are in memory at once while a page of records is read: of up to 512 KiB each.
const READ_PACKS: usize = 16;
/// Packs that are in memory at once while payloads are taken out of them.
const PACKS: usize = 64;

/// The payloads of a batch, encoded on another thread while its rows are on their way.
pub(crate) struct Payloads {
    task: Mutex<Option<JoinHandle<Outcome<Vec<Sealed>>>>>,
    done: OnceCell<Vec<Sealed>>,
}

/// Records, and the pack that their payloads lie in.
pub(crate) struct Sealed {
    pub(crate) records: Vec<Encoded>,
    pub(crate) pack: Option<Vec<u8>>,
}

fn sealed(packed: Result<Packed, Error>) -> Result<Sealed, Error> {
    let Packed { records, pack } = packed?;
    Ok(Sealed { records, pack: pack.map(Packing::finish).transpose()? })
}

impl Payloads {
    /// Begins to encode those of `records`.
    pub(crate) fn start(records: &[Record]) -> Outcome<Self> {
        let encoding = encode_ahead(records)?;
        let task = spawn_blocking(move || Ok(encoding.map(sealed).collect::<Result<_, _>>()?));
        Ok(Self { task: Mutex::new(Some(task)), done: OnceCell::new() })
    }

    /// The records in order, once their payloads are encoded: the same ones each time.
    pub(crate) async fn get(&self) -> Outcome<&[Sealed]> {
        let wait = || async {
            // It stays here until it is done: whoever waits may give up, and come again.
            let mut task = self.task.lock().await;
            let done = joined(task.as_mut().ok_or(Fault::Panicked)?.await);
            *task = None;
            done
        };
        Ok(self.done.get_or_try_init(wait).await?)
    }
}

/// `pack` without the lines of records that were there before; `None` where nothing is left.
pub(crate) async fn used(pack: &[u8], unused: Vec<u32>) -> Outcome<Option<Cow<'_, [u8]>>> {
    if unused.is_empty() {
        return Ok(Some(pack.into()));
    }
    let pack = pack.to_vec();
    let forgotten = joined(spawn_blocking(move || Ok(Pack::forget(pack, &unused)?)).await)?;
    Ok(forgotten.map(Cow::Owned))
}

const SELECT_PACKS: &str = "SELECT id, data FROM prompt_engine_payload_packs WHERE id = ANY ($1)";

/// Rows of records, and those of their payloads that lie in packs.
pub(crate) struct Rows<T> {
    pub(crate) rows: Vec<PgRow>,
    /// Where the payload stands in a row.
    column: usize,
    packed: Vec<Option<T>>,
}

impl<T: DeserializeOwned + Send + 'static> Rows<T> {
    /// The rows that `select` finds. The caller holds a snapshot if it asks for payloads.
    pub(crate) async fn read(
        conn: &mut PgConnection,
        select: Query<'_, Postgres, PgArguments>,
        column: usize,
    ) -> Outcome<Self> {
        let rows = select.fetch_all(&mut *conn).await?;
        // The rows whose payloads lie in each pack.
        let mut wanted: BTreeMap<u64, Vec<Wanted>> = BTreeMap::new();
        for (row, of) in rows.iter().enumerate() {
            let Some(bytes) = get::<Option<&[u8]>>(of, column)? else { continue };
            if let Some(Place { pack, .. }) = Place::of(bytes)? {
                wanted.entry(pack).or_default().push(Wanted { row, place: bytes.to_vec() });
            }
        }
        let mut packed: Vec<Option<T>> = Vec::new();
        packed.resize_with(rows.len(), || None);
        while !wanted.is_empty() {
            let numbers: Vec<i64> =
                wanted.keys().take(READ_PACKS).map(|pack| pack.cast_signed()).collect();
            let mut group = Vec::with_capacity(numbers.len());
            for row in query(SELECT_PACKS).bind(&numbers).fetch_all(&mut *conn).await? {
                let number = get::<i64>(&row, 0)?.cast_unsigned();
                if let Some(wanted) = wanted.remove(&number) {
                    group.push((get(&row, 1)?, wanted));
                }
            }
            if group.len() < numbers.len() {
                return Err(Error::corrupt("a pack is not there").into());
            }
            for (row, payload) in joined(spawn_blocking(move || unpack(group)).await)? {
                packed[row] = Some(payload);
            }
        }
        Ok(Self { rows, column, packed })
    }

    /// The payload of each row.
    pub(crate) fn payloads(&mut self) -> Outcome<Vec<Option<T>>> {
        let packed = std::mem::take(&mut self.packed);
        let each = self.rows.iter().zip(packed).map(|(row, packed)| match packed {
            Some(payload) => Ok(Some(payload)),
            None => optional(get(row, self.column)?, |alone: &[u8]| Ok(codec::decode(alone)?)),
        });
        each.collect()
    }
}

/// A row, and the bytes that say where its payload lies.
struct Wanted {
    row: usize,
    place: Vec<u8>,
}

/// The payloads of rows that lie in some packs; each of these is unpacked once, and then gone.
fn unpack<T: DeserializeOwned>(group: Vec<(Vec<u8>, Vec<Wanted>)>) -> Outcome<Vec<(usize, T)>> {
    let mut payloads = Vec::new();
    for (pack, wanted) in group {
        let (mut pack, mut packs) = (Some(pack), Packs::default());
        for Wanted { row, place } in wanted {
            payloads.push((row, packs.decode(&place, |_| Outcome::Ok(pack.take()))?));
        }
    }
    Ok(payloads)
}

/// Packs of payloads that were deleted. Nobody else changes one: who prunes holds the lock of the schema.
const CHANGE_PACKS: &str = "
WITH gone AS (
    DELETE FROM prompt_engine_payload_packs WHERE id = ANY ($1)
)
UPDATE prompt_engine_payload_packs AS p SET data = new.data
FROM unnest($2::bigint[], $3::bytea[]) AS new (id, data) WHERE p.id = new.id";

/// Takes the payloads that lay at `places` out of their packs. The caller holds the lock of the schema
/// alone.
pub(crate) async fn forget(conn: &mut PgConnection, places: &[Vec<u8>]) -> Outcome<()> {
    let mut packs: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
    for place in places {
        // What cannot be read is in no pack that could be named.
        if let Ok(Some(Place { pack, line })) = Place::of(place) {
            packs.entry(pack.cast_signed()).or_default().push(line);
        }
    }
    let numbers: Vec<i64> = packs.keys().copied().collect();
    for part in numbers.chunks(PACKS) {
        let mut old = Vec::with_capacity(part.len());
        // A pack that is not there has forgotten them.
        for row in query(SELECT_PACKS).bind(part).fetch_all(&mut *conn).await? {
            let number = get(&row, 0)?;
            let lines = packs.remove(&number).unwrap_or_default();
            old.push((number, get::<Vec<u8>>(&row, 1)?, lines));
        }
        let forgetting = spawn_blocking(move || {
            let new = old
                .into_iter()
                .map(|(number, pack, lines)| Ok((number, Pack::forget(pack, &lines)?)));
            new.collect::<Outcome<Vec<(i64, Option<Vec<u8>>)>>>()
        });
        let new = joined(forgetting.await)?;
        let gone = new.iter().filter(|(_, pack)| pack.is_none()).map(|(number, _)| *number);
        let kept = new.iter().filter_map(|(number, pack)| Some((*number, pack.as_deref()?)));
        query(CHANGE_PACKS)
            .bind(gone.bind_iter())
            .bind(kept.clone().map(|(number, _)| number).bind_iter())
            .bind(kept.map(|(_, pack)| pack).bind_iter())
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}
