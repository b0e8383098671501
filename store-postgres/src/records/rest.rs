//! What an append writes behind its rows: payloads, the packs in which they lie, and changes.
//! Invariant: a pack is written in the transaction that writes the places in it, and without the lines
//! of records that were there before.

use std::borrow::Cow;

use prompt_engine_core::codec::{Encoded, Payload};
use prompt_engine_core::{Error, ErrorKind, Timestamp};
use sqlx::postgres::PgBindIterExt;
use sqlx::types::Uuid;
use sqlx::{PgConnection, query, query_scalar};

use super::{Done, ROWS};
use crate::batch::{Id, Identity};
use crate::cells::Kept;
use crate::error::Outcome;
use crate::payloads::{Sealed, used};
use crate::wire::Moment;

/// Bytes of payloads and packs written by one statement at most, the last one aside: a message to the
/// server ends at 1 GiB.
const BYTES: usize = 16 * 1024 * 1024;
/// Bytes of a row of them beside its data, about.
const KEY: usize = 32;

/// The payload of a record, or its place, to be written.
struct PayloadRow<'a> {
    id: Uuid,
    created_at: Timestamp,
    data: Cow<'a, [u8]>,
}

/// A pack to be written.
struct PackRow<'a> {
    number: i64,
    data: Cow<'a, [u8]>,
}

/// What is to be written of the payloads of a batch.
#[derive(Default)]
struct Rest<'a> {
    usages: Vec<PayloadRow<'a>>,
    executions: Vec<PayloadRow<'a>>,
    packs: Vec<PackRow<'a>>,
    /// Calls that were pending and have no payload any more.
    without: Vec<(Timestamp, Uuid)>,
}

impl<'a> Rest<'a> {
    async fn of(encoded: &'a [Sealed], done: &Done) -> Outcome<Self> {
        let mut rest = Self::default();
        let mut numbers = done.numbers.iter().flat_map(|first| *first..*first + i64::from(ROWS));
        for Sealed { records, pack } in encoded {
            let number = numbers.next().ok_or_else(no_number)?;
            let mut unused = Vec::new();
            for Encoded { record, payload } in records {
                let Identity { id, created_at, .. } = Identity::of(record);
                if !done.changed(&id) {
                    if let Payload::Line(line) = payload {
                        unused.push(*line);
                    }
                    continue;
                }
                match (id, payload.kept(number.cast_unsigned())) {
                    (Id::Usage(id), Some(data)) => {
                        rest.usages.push(PayloadRow { id, created_at, data });
                    }
                    (Id::Execution(id), Some(data)) => {
                        rest.executions.push(PayloadRow { id, created_at, data });
                    }
                    (Id::Execution(id), None) if done.finished.contains(&id) => {
                        rest.without.push((created_at, id));
                    }
                    (_, None) => {}
                }
            }
            if let Some(pack) = pack
                && let Some(data) = used(pack, unused).await?
            {
                rest.packs.push(PackRow { number, data });
            }
        }
        Ok(rest)
    }
}

fn no_number() -> Error {
    Error::new(ErrorKind::Unexpected, "there are more packs than records")
}

/// Writes the payloads of what is new, replaces those of calls that were pending, and keeps the
/// changes, in as few statements as the size of a message allows; answers how many changes waited
/// before, if it was to look.
pub(super) async fn insert(
    conn: &mut PgConnection,
    encoded: &[Sealed],
    done: &Done,
    kept: &Kept,
    look: bool,
) -> Outcome<Option<u64>> {
    let rest = Rest::of(encoded, done).await?;
    if !rest.without.is_empty() {
        query(DELETE_EXECUTION_PAYLOADS)
            .bind(rest.without.iter().map(|(created_at, _)| Moment(*created_at)).bind_iter())
            .bind(rest.without.iter().map(|(_, id)| *id).bind_iter())
            .execute(&mut *conn)
            .await?;
    }
    let (mut usages, mut executions) = (&rest.usages[..], &rest.executions[..]);
    let mut packs = &rest.packs[..];
    let mut kept = Some(kept).filter(|kept| kept.len() > 0);
    let mut waiting = None;
    while !(usages.is_empty() && executions.is_empty() && packs.is_empty() && kept.is_none()) {
        let mut size = 0;
        let part = Part {
            usages: cut(&mut usages, &mut size, |payload| &payload.data),
            executions: cut(&mut executions, &mut size, |payload| &payload.data),
            packs: cut(&mut packs, &mut size, |pack| &pack.data),
        };
        let last = usages.is_empty() && executions.is_empty() && packs.is_empty();
        let changes = if last { kept.take() } else { None };
        let found = insert_part(conn, &part, changes, look && last).await?;
        waiting = waiting.or(found);
    }
    Ok(waiting)
}

/// What one statement writes.
struct Part<'p> {
    usages: &'p [PayloadRow<'p>],
    executions: &'p [PayloadRow<'p>],
    packs: &'p [PackRow<'p>],
}

/// Takes as many of `rows` as one statement takes behind others of `size`.
fn cut<'p, T>(rows: &mut &'p [T], size: &mut usize, data: impl Fn(&T) -> &[u8]) -> &'p [T] {
    let before = *size;
    let fits = rows.iter().take_while(|row| {
        *size += KEY + data(row).len();
        *size <= BYTES
    });
    // One that is larger than a statement should be has a statement of its own.
    let fits = fits.count().max(usize::from(before == 0)).min(rows.len());
    let part;
    (part, *rows) = rows.split_at(fits);
    part
}

const INSERT_REST: &str = "
WITH usage AS (
    INSERT INTO prompt_engine_usage_payloads (created_at, id, data)
    SELECT * FROM unnest($1::timestamptz[], $2::uuid[], $3::bytea[])
    ON CONFLICT (created_at, id) DO UPDATE SET data = excluded.data
), execution AS (
    INSERT INTO prompt_engine_llm_execution_payloads (created_at, id, data)
    SELECT * FROM unnest($4::timestamptz[], $5::uuid[], $6::bytea[])
    ON CONFLICT (created_at, id) DO UPDATE SET data = excluded.data
), pack AS (
    INSERT INTO prompt_engine_payload_packs (id, data)
    SELECT * FROM unnest($7::bigint[], $8::bytea[])
), kept AS (
    INSERT INTO prompt_engine_changes (changes, data)
    SELECT * FROM unnest($9::bigint[], $10::bytea[])
)
SELECT sum(changes)::bigint FROM prompt_engine_changes WHERE $11";

const DELETE_EXECUTION_PAYLOADS: &str = "
DELETE FROM prompt_engine_llm_execution_payloads AS p
USING unnest($1::timestamptz[], $2::uuid[]) AS gone (created_at, id)
WHERE p.created_at = gone.created_at AND p.id = gone.id";

async fn insert_part(
    conn: &mut PgConnection,
    part: &Part<'_>,
    kept: Option<&Kept>,
    look: bool,
) -> Outcome<Option<u64>> {
    let mut insert = query_scalar(INSERT_REST);
    for payloads in [part.usages, part.executions] {
        insert = insert
            .bind(payloads.iter().map(|payload| Moment(payload.created_at)).bind_iter())
            .bind(payloads.iter().map(|payload| payload.id).bind_iter())
            .bind(payloads.iter().map(|payload| &*payload.data).bind_iter());
    }
    let waiting: Option<i64> = insert
        .bind(part.packs.iter().map(|pack| pack.number).bind_iter())
        .bind(part.packs.iter().map(|pack| &*pack.data).bind_iter())
        .bind(kept.map_or(&[][..], |kept| &kept.counts))
        .bind(kept.map_or(&[][..], |kept| &kept.values))
        .bind(look)
        .fetch_one(conn)
        .await?;
    Ok(look.then(|| waiting.unwrap_or(0).cast_unsigned()))
}
