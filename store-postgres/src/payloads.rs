//! Where payloads lie: alone, or in a pack with those that were stored together; see `docs/payloads.md`.
//! Invariant: a pack holds the payloads whose places are kept, and no others.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use prompt_engine_core::codec::{Pack, Packed, Packs, Place, encode_ahead};
use prompt_engine_core::{Error, Record};
use serde::de::DeserializeOwned;
use sqlx::postgres::{PgArguments, PgBindIterExt, PgRow};
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, query};
use tokio::sync::{Mutex, OnceCell};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::error::{Fault, Outcome, joined};
use crate::rows::{get, optional};

/// Packs that are in memory at once while payloads are taken out of them.
const PACKS: usize = 64;

/// The payloads of a batch, encoded on other threads while its rows are on their way.
pub(crate) struct Payloads {
    task: Mutex<Option<JoinHandle<Outcome<Vec<Packed>>>>>,
    done: OnceCell<Vec<Packed>>,
}

impl Payloads {
    /// Begins to encode those of `records`.
    pub(crate) fn start(records: &[Record]) -> Outcome<Self> {
        let encoding = encode_ahead(records)?;
        let task = spawn_blocking(move || Ok(encoding.collect::<Result<_, Error>>()?));
        Ok(Self { task: Mutex::new(Some(task)), done: OnceCell::new() })
    }

    /// The records in order, once their payloads are encoded: the same ones each time.
    pub(crate) async fn get(&self) -> Outcome<&[Packed]> {
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

/// Rows of records, and the packs in which their payloads lie.
pub(crate) struct Rows {
    pub(crate) rows: Vec<PgRow>,
    /// Where the payload stands in a row.
    column: usize,
    packs: HashMap<u64, Vec<u8>>,
}

const SELECT_PACKS: &str = "SELECT id, data FROM prompt_engine_payload_packs WHERE id = ANY ($1)";

impl Rows {
    /// The rows that `select` finds. The caller holds a snapshot if it asks for payloads.
    pub(crate) async fn read(
        conn: &mut PgConnection,
        select: Query<'_, Postgres, PgArguments>,
        column: usize,
    ) -> Outcome<Self> {
        let rows = select.fetch_all(&mut *conn).await?;
        let mut numbers = Vec::new();
        for row in &rows {
            let place = get::<Option<&[u8]>>(row, column)?.map(Place::of).transpose()?;
            numbers.extend(place.flatten().map(|place| place.pack.cast_signed()));
        }
        numbers.sort_unstable();
        numbers.dedup();
        let mut packs = HashMap::with_capacity(numbers.len());
        if !numbers.is_empty() {
            for row in query(SELECT_PACKS).bind(numbers).fetch_all(conn).await? {
                packs.insert(get::<i64>(&row, 0)?.cast_unsigned(), get(&row, 1)?);
            }
        }
        Ok(Self { rows, column, packs })
    }

    /// The payload of each row.
    pub(crate) fn payloads<T: DeserializeOwned>(&mut self) -> Outcome<Vec<Option<T>>> {
        let data = self.rows.iter().map(|row| get(row, self.column));
        let data = data.collect::<Outcome<Vec<Option<&[u8]>>>>()?;
        // Places in one pack begin alike, so that each pack is unpacked once, and then gone.
        let mut order: Vec<usize> = (0..data.len()).collect();
        order.sort_unstable_by_key(|row| data[*row]);
        let mut payloads: Vec<Option<T>> = Vec::new();
        payloads.resize_with(data.len(), || None);
        let mut unpacked = Packs::default();
        for row in order {
            payloads[row] = optional(data[row], |data| {
                unpacked.decode(data, |number| Outcome::Ok(self.packs.remove(&number)))
            })?;
        }
        Ok(payloads)
    }
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
