//! Deleting what is old, a bounded batch at a time, oldest first.
//! Invariant: the raw horizon moves in the transaction that deletes, and never back, while no
//! record is written.

use prompt_engine_core::cube::horizon_of;
use prompt_engine_core::{Prune, Pruned, Timestamp};
use sqlx::{PgConnection, query, query_as, query_scalar};

use crate::error::Outcome;
use crate::payloads;
use crate::wire::Moment;

/// The time before which records were deleted and are refused.
pub(crate) const RAW_HORIZON: &str = "raw_horizon";

/// What of a deleted payload says where it lay, if it did not lie alone: see `docs/payloads.md`.
macro_rules! place {
    () => {
        "CASE WHEN substr(p.data, 1, 1) = '\\x02' THEN p.data END AS place"
    };
}

/// Deletes the oldest usages with their payloads; answers how many, and the places of these.
const DELETE_USAGES: &str = concat!(
    "WITH doomed AS (
        SELECT created_at, id FROM prompt_engine_usages
        WHERE created_at < $1 ORDER BY created_at, id LIMIT $2
    ), payloads AS (
        DELETE FROM prompt_engine_usage_payloads AS p USING doomed
        WHERE p.created_at = doomed.created_at AND p.id = doomed.id RETURNING ",
    place!(),
    "), usages AS (
        DELETE FROM prompt_engine_usages AS u USING doomed WHERE u.id = doomed.id RETURNING 1
    )
    SELECT (SELECT count(*) FROM usages),
        ARRAY(SELECT place FROM payloads WHERE place IS NOT NULL)"
);

/// Deletes the oldest executions with their payloads and past costs; answers how many, and the places
/// of the payloads.
const DELETE_EXECUTIONS: &str = concat!(
    "WITH doomed AS (
        SELECT created_at, id FROM prompt_engine_llm_executions
        WHERE created_at < $1 ORDER BY created_at, id LIMIT $2
    ), payloads AS (
        DELETE FROM prompt_engine_llm_execution_payloads AS p USING doomed
        WHERE p.created_at = doomed.created_at AND p.id = doomed.id RETURNING ",
    place!(),
    "), revisions AS (
        DELETE FROM prompt_engine_cost_revisions AS r USING doomed
        WHERE r.created_at = doomed.created_at AND r.id = doomed.id
    ), executions AS (
        DELETE FROM prompt_engine_llm_executions AS e USING doomed WHERE e.id = doomed.id RETURNING 1
    )
    SELECT (SELECT count(*) FROM executions),
        ARRAY(SELECT place FROM payloads WHERE place IS NOT NULL)"
);

const OLD_RECORDS: &str = "
SELECT EXISTS (SELECT 1 FROM prompt_engine_usages WHERE created_at < $1)
    OR EXISTS (SELECT 1 FROM prompt_engine_llm_executions WHERE created_at < $1)";

/// Deletes the oldest payloads of both tables; answers how many, and their places.
const DELETE_PAYLOADS: &str = concat!(
    "WITH doomed AS (
        (SELECT created_at, id, 0 AS kind FROM prompt_engine_usage_payloads
         WHERE created_at < $1 ORDER BY created_at, id LIMIT $2)
        UNION ALL
        (SELECT created_at, id, 1 FROM prompt_engine_llm_execution_payloads
         WHERE created_at < $1 ORDER BY created_at, id LIMIT $2)
        ORDER BY created_at, id, kind LIMIT $2
    ), usages AS (
        DELETE FROM prompt_engine_usage_payloads AS p USING doomed
        WHERE kind = 0 AND p.created_at = doomed.created_at AND p.id = doomed.id RETURNING ",
    place!(),
    "), executions AS (
        DELETE FROM prompt_engine_llm_execution_payloads AS p USING doomed
        WHERE kind = 1 AND p.created_at = doomed.created_at AND p.id = doomed.id RETURNING ",
    place!(),
    "), deleted AS (SELECT place FROM usages UNION ALL SELECT place FROM executions)
    SELECT (SELECT count(*) FROM deleted),
        ARRAY(SELECT place FROM deleted WHERE place IS NOT NULL)"
);

const OLD_PAYLOADS: &str = "
SELECT EXISTS (SELECT 1 FROM prompt_engine_usage_payloads WHERE created_at < $1)
    OR EXISTS (SELECT 1 FROM prompt_engine_llm_execution_payloads WHERE created_at < $1)";

/// Deletes one batch; the caller commits.
pub(crate) async fn prune(conn: &mut PgConnection, prune: &Prune) -> Outcome<Pruned> {
    let mut pruned = Pruned { done: true, ..Pruned::default() };
    // Where the payloads lay that are deleted.
    let mut places = Vec::new();
    if let Some(before) = prune.raw_before.map(horizon_of) {
        pruned.usages = delete(conn, DELETE_USAGES, before, prune.limit, &mut places).await?;
        pruned.executions =
            delete(conn, DELETE_EXECUTIONS, before, prune.limit, &mut places).await?;
        pruned.done &= !any(conn, OLD_RECORDS, before).await?;
        query(
            "INSERT INTO prompt_engine_meta AS stored (name, value) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET value = greatest(stored.value, excluded.value)",
        )
        .bind(RAW_HORIZON)
        .bind(before.as_micros())
        .execute(&mut *conn)
        .await?;
    }
    if let Some(before) = prune.payloads_before {
        pruned.payloads = delete(conn, DELETE_PAYLOADS, before, prune.limit, &mut places).await?;
        pruned.done &= !any(conn, OLD_PAYLOADS, before).await?;
    }
    payloads::forget(conn, &places).await?;
    Ok(pruned)
}

/// Deletes; answers how many, and adds the places of payloads.
async fn delete(
    conn: &mut PgConnection,
    delete: &'static str,
    before: Timestamp,
    limit: u32,
    places: &mut Vec<Vec<u8>>,
) -> Outcome<u64> {
    let delete = query_as(delete).bind(Moment(before)).bind(i64::from(limit));
    let (deleted, of_payloads): (i64, Vec<Vec<u8>>) = delete.fetch_one(&mut *conn).await?;
    places.extend(of_payloads);
    Ok(deleted.cast_unsigned())
}

async fn any(conn: &mut PgConnection, exists: &'static str, before: Timestamp) -> Outcome<bool> {
    Ok(query_scalar(exists).bind(Moment(before)).fetch_one(conn).await?)
}
