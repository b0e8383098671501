//! Deleting what is old, a bounded batch at a time, oldest first.
//! Invariant: the raw horizon moves in the transaction that deletes, and never back, while no
//! record is written.

use prompt_engine_core::cube::horizon_of;
use prompt_engine_core::{Prune, Pruned, Timestamp};
use sqlx::{PgConnection, query, query_scalar};

use crate::error::Outcome;
use crate::wire::Moment;

/// The time before which records were deleted and are refused.
pub(crate) const RAW_HORIZON: &str = "raw_horizon";

/// Deletes the oldest usages with their payloads; answers how many.
const DELETE_USAGES: &str = "
WITH doomed AS (
    SELECT created_at, id FROM prompt_engine_usages
    WHERE created_at < $1 ORDER BY created_at, id LIMIT $2
), payloads AS (
    DELETE FROM prompt_engine_usage_payloads AS p USING doomed
    WHERE p.created_at = doomed.created_at AND p.id = doomed.id
), usages AS (
    DELETE FROM prompt_engine_usages AS u USING doomed WHERE u.id = doomed.id RETURNING 1
)
SELECT count(*) FROM usages";

/// Deletes the oldest executions with their payloads and past costs; answers how many.
const DELETE_EXECUTIONS: &str = "
WITH doomed AS (
    SELECT created_at, id FROM prompt_engine_llm_executions
    WHERE created_at < $1 ORDER BY created_at, id LIMIT $2
), payloads AS (
    DELETE FROM prompt_engine_llm_execution_payloads AS p USING doomed
    WHERE p.created_at = doomed.created_at AND p.id = doomed.id
), revisions AS (
    DELETE FROM prompt_engine_cost_revisions AS r USING doomed
    WHERE r.created_at = doomed.created_at AND r.id = doomed.id
), executions AS (
    DELETE FROM prompt_engine_llm_executions AS e USING doomed WHERE e.id = doomed.id RETURNING 1
)
SELECT count(*) FROM executions";

const OLD_RECORDS: &str = "
SELECT EXISTS (SELECT 1 FROM prompt_engine_usages WHERE created_at < $1)
    OR EXISTS (SELECT 1 FROM prompt_engine_llm_executions WHERE created_at < $1)";

/// Deletes the oldest payloads of both tables; answers how many.
const DELETE_PAYLOADS: &str = "
WITH doomed AS (
    (SELECT created_at, id, 0 AS kind FROM prompt_engine_usage_payloads
     WHERE created_at < $1 ORDER BY created_at, id LIMIT $2)
    UNION ALL
    (SELECT created_at, id, 1 FROM prompt_engine_llm_execution_payloads
     WHERE created_at < $1 ORDER BY created_at, id LIMIT $2)
    ORDER BY created_at, id, kind LIMIT $2
), usages AS (
    DELETE FROM prompt_engine_usage_payloads AS p USING doomed
    WHERE kind = 0 AND p.created_at = doomed.created_at AND p.id = doomed.id RETURNING 1
), executions AS (
    DELETE FROM prompt_engine_llm_execution_payloads AS p USING doomed
    WHERE kind = 1 AND p.created_at = doomed.created_at AND p.id = doomed.id RETURNING 1
)
SELECT (SELECT count(*) FROM usages) + (SELECT count(*) FROM executions)";

const OLD_PAYLOADS: &str = "
SELECT EXISTS (SELECT 1 FROM prompt_engine_usage_payloads WHERE created_at < $1)
    OR EXISTS (SELECT 1 FROM prompt_engine_llm_execution_payloads WHERE created_at < $1)";

/// Deletes one batch; the caller commits.
pub(crate) async fn prune(conn: &mut PgConnection, prune: &Prune) -> Outcome<Pruned> {
    let mut pruned = Pruned { done: true, ..Pruned::default() };
    if let Some(before) = prune.raw_before.map(horizon_of) {
        pruned.usages = delete(conn, DELETE_USAGES, before, prune.limit).await?;
        pruned.executions = delete(conn, DELETE_EXECUTIONS, before, prune.limit).await?;
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
        pruned.payloads = delete(conn, DELETE_PAYLOADS, before, prune.limit).await?;
        pruned.done &= !any(conn, OLD_PAYLOADS, before).await?;
    }
    Ok(pruned)
}

async fn delete(
    conn: &mut PgConnection,
    delete: &'static str,
    before: Timestamp,
    limit: u32,
) -> Outcome<u64> {
    let delete = query_scalar(delete).bind(Moment(before)).bind(i64::from(limit));
    let deleted: i64 = delete.fetch_one(conn).await?;
    Ok(deleted.cast_unsigned())
}

async fn any(conn: &mut PgConnection, exists: &'static str, before: Timestamp) -> Outcome<bool> {
    Ok(query_scalar(exists).bind(Moment(before)).fetch_one(conn).await?)
}
