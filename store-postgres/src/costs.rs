//! Changing the costs of calls, and the costs that they had before.
//! Invariant: a cost is compared and changed under the lock of its row, and rows are locked in the
//! order of ids, as an append locks them.

use std::collections::{BTreeMap, HashMap};

use prompt_engine_core::{
    CostRevision, Error, ExecutionId, Label, LlmExecution, PastCost, Revised, Timestamp, Usd,
};
use sqlx::postgres::PgBindIterExt;
use sqlx::types::Uuid;
use sqlx::{PgConnection, query, query_scalar};

use crate::cells::Kept;
use crate::error::{Fault, Outcome};
use crate::rows::{CostRow, cost, execution, execution_columns, get, id, maybe_label, moment};
use crate::wire::Moment;

const LOCK: &str = concat!(
    "SELECT ",
    execution_columns!(),
    " FROM prompt_engine_llm_executions AS r WHERE r.id = ANY ($1) ORDER BY r.id FOR UPDATE"
);

const COUNT_PAST: &str = "
SELECT r.id, max(r.number) FROM prompt_engine_cost_revisions AS r
JOIN unnest($1::timestamptz[], $2::uuid[]) AS e (created_at, id) USING (created_at, id)
GROUP BY r.id";

const CHANGE: &str = "
UPDATE prompt_engine_llm_executions AS e
SET cost_kind = new.kind, cost_reason = new.reason, cost_pico = new.pico,
    cost_config = new.config, priced_model = new.model
FROM unnest($1::uuid[], $2::smallint[], $3::smallint[], $4::bigint[], $5::uuid[], $6::text[])
    AS new (id, kind, reason, pico, config, model)
WHERE e.id = new.id";

/// Keeps past costs and changes; answers how many of these waited before, if it is to look.
const KEEP: &str = "
WITH past AS (
    INSERT INTO prompt_engine_cost_revisions
        (created_at, id, number, replaced_at, cost_kind, cost_reason, cost_pico, cost_config,
         priced_model)
    SELECT * FROM unnest($1::timestamptz[], $2::uuid[], $3::bigint[], $4::timestamptz[],
        $5::smallint[], $6::smallint[], $7::bigint[], $8::uuid[], $9::text[])
), kept AS (
    INSERT INTO prompt_engine_changes (changes, data)
    SELECT * FROM unnest($10::bigint[], $11::bytea[])
)
SELECT sum(changes)::bigint FROM prompt_engine_changes WHERE $12";

const SELECT_PAST: &str = "
SELECT r.id, r.replaced_at, r.priced_model, r.cost_kind, r.cost_reason, r.cost_pico, r.cost_config
FROM prompt_engine_llm_executions AS e
JOIN prompt_engine_cost_revisions AS r ON r.created_at = e.created_at AND r.id = e.id
WHERE e.id = ANY ($1)
ORDER BY r.id, r.number";

/// An execution whose row is locked.
struct Locked {
    call: LlmExecution,
    /// How many costs it had before.
    past: i64,
    changed: bool,
}

/// A cost that was replaced.
struct Past {
    created_at: Timestamp,
    id: Uuid,
    number: i64,
    replaced_at: Timestamp,
    cost: CostRow,
    priced_model: Option<Label>,
}

/// What became of revisions, and what they did for the cubes.
pub(crate) struct Revising {
    pub(crate) outcomes: Vec<Revised>,
    /// The changes that they keep.
    pub(crate) changes: u64,
    /// The changes that waited before, if they looked.
    pub(crate) waiting: Option<u64>,
}

/// Changes costs, each if it is still the expected one, and looks how many changes wait if it is time
/// to `look`; the caller commits.
pub(crate) async fn revise(
    conn: &mut PgConnection,
    revisions: &[CostRevision],
    look: bool,
) -> Outcome<Revising> {
    let mut locked = lock(conn, revisions).await?;
    let (mut replaced, mut kept) = (Vec::new(), Kept::default());
    let mut outcomes = Vec::with_capacity(revisions.len());
    for CostRevision { id, expected, past, new, priced_model, at } in revisions {
        let Some(Locked { call, past: before, changed }) = locked.get_mut(&id.to_bytes()) else {
            outcomes.push(Revised::NotFound);
            continue;
        };
        // A pending one has no cost, so it never has the expected one.
        if call.cost != Some(*expected) || past.is_some_and(|past| past != before.cast_unsigned()) {
            outcomes.push(Revised::Mismatch);
            continue;
        }
        if new.usd().is_some_and(|usd: Usd| usd.to_row().is_none()) {
            return Err(Fault::Judged(Error::invalid(format!(
                "execution {id}: the cost is beyond 9.2 million dollars"
            ))));
        }
        kept.recost(call, new);
        *before += 1;
        replaced.push(Past {
            created_at: call.created_at,
            id: Uuid::from_bytes(id.to_bytes()),
            number: *before,
            replaced_at: *at,
            cost: CostRow::new(call.cost.as_ref()),
            priced_model: call.priced_model.take(),
        });
        call.cost = Some(*new);
        call.priced_model.clone_from(priced_model);
        *changed = true;
        outcomes.push(Revised::Changed);
    }
    let kept = kept.finish();
    let mut waiting = None;
    if !replaced.is_empty() {
        locked.retain(|_, locked| locked.changed);
        change(conn, &locked).await?;
        let found = keep(conn, &replaced, &kept, look).await?;
        waiting = look.then(|| found.unwrap_or(0).cast_unsigned());
    }
    Ok(Revising { outcomes, changes: kept.len(), waiting })
}

async fn lock(
    conn: &mut PgConnection,
    revisions: &[CostRevision],
) -> Outcome<BTreeMap<[u8; 16], Locked>> {
    let ids = revisions.iter().map(|revision| Uuid::from_bytes(revision.id.to_bytes()));
    let rows = query(LOCK).bind(ids.bind_iter()).fetch_all(&mut *conn).await?;
    let mut locked = BTreeMap::new();
    for row in &rows {
        let call = execution(row)?;
        locked.insert(call.id.to_bytes(), Locked { call, past: 0, changed: false });
    }
    let calls = || locked.values().map(|locked| &locked.call);
    let counted = query(COUNT_PAST)
        .bind(calls().map(|call| Moment(call.created_at)).bind_iter())
        .bind(calls().map(|call| Uuid::from_bytes(call.id.to_bytes())).bind_iter())
        .fetch_all(conn)
        .await?;
    for row in &counted {
        if let Some(locked) = locked.get_mut(id(row, 0)?.as_slice()) {
            locked.past = get(row, 1)?;
        }
    }
    Ok(locked)
}

async fn change(conn: &mut PgConnection, calls: &BTreeMap<[u8; 16], Locked>) -> Outcome<()> {
    let costs = calls.values().map(|locked| CostRow::new(locked.call.cost.as_ref()));
    let costs: Vec<CostRow> = costs.collect();
    query(CHANGE)
        .bind(calls.keys().map(|id| Uuid::from_bytes(*id)).bind_iter())
        .bind(costs.iter().map(|cost| cost.kind).bind_iter())
        .bind(costs.iter().map(|cost| cost.reason).bind_iter())
        .bind(costs.iter().map(|cost| cost.pico).bind_iter())
        .bind(costs.iter().map(|cost| cost.config).bind_iter())
        .bind(calls.values().map(|locked| locked.call.priced_model.as_deref()).bind_iter())
        .execute(conn)
        .await?;
    Ok(())
}

async fn keep(
    conn: &mut PgConnection,
    past: &[Past],
    kept: &Kept,
    look: bool,
) -> Outcome<Option<i64>> {
    let waiting = query_scalar(KEEP)
        .bind(past.iter().map(|past| Moment(past.created_at)).bind_iter())
        .bind(past.iter().map(|past| past.id).bind_iter())
        .bind(past.iter().map(|past| past.number).bind_iter())
        .bind(past.iter().map(|past| Moment(past.replaced_at)).bind_iter())
        .bind(past.iter().map(|past| past.cost.kind).bind_iter())
        .bind(past.iter().map(|past| past.cost.reason).bind_iter())
        .bind(past.iter().map(|past| past.cost.pico).bind_iter())
        .bind(past.iter().map(|past| past.cost.config).bind_iter())
        .bind(past.iter().map(|past| past.priced_model.as_deref()).bind_iter())
        .bind(&kept.counts)
        .bind(&kept.values)
        .bind(look)
        .fetch_one(conn)
        .await?;
    Ok(waiting)
}

/// The costs that executions had before, oldest first: a list for each of `ids`.
pub(crate) async fn past(
    conn: &mut PgConnection,
    ids: &[ExecutionId],
) -> Outcome<Vec<Vec<PastCost>>> {
    let uuids = ids.iter().map(|id| Uuid::from_bytes(id.to_bytes()));
    let rows = query(SELECT_PAST).bind(uuids.bind_iter()).fetch_all(conn).await?;
    let mut found: HashMap<[u8; 16], Vec<PastCost>> = HashMap::new();
    for row in &rows {
        found.entry(id(row, 0)?).or_default().push(PastCost {
            cost: cost(row, 3)?.ok_or_else(|| Fault::Row("a past cost is none".to_owned()))?,
            priced_model: maybe_label(row, 2)?,
            replaced_at: moment(row, 1)?,
        });
    }
    Ok(ids.iter().map(|id| found.get(&id.to_bytes()).cloned().unwrap_or_default()).collect())
}
