//! Appending records.
//! Invariants: who came first is decided by the insert alone, never by a look before it; a call that
//! was pending has the payload of what finished it, and no other.

mod rest;

use std::collections::{HashMap, HashSet};

use prompt_engine_core::{
    Appended, Attribution, Label, LlmExecution, Timestamp, Usage, UsageId, refusal,
};
use sqlx::postgres::PgBindIterExt;
use sqlx::types::Uuid;
use sqlx::{PgConnection, query};

use crate::batch::{Batch, Id, Identity, Whole, parts};
use crate::cells::Kept;
use crate::error::{Fault, Outcome};
use crate::payloads::Payloads;
use crate::prune::RAW_HORIZON;
use crate::rows::{CostRow, attribution, get, maybe_label, moment};
use crate::wire::Moment;

/// Rows written by one statement at most, and numbers of packs that it draws: each has a row at least.
const ROWS: u16 = 8192;

/// What was done to the rows of a batch.
#[derive(Default)]
struct Done {
    horizon: Option<Timestamp>,
    usages: HashSet<Uuid>,
    inserted: HashSet<Uuid>,
    finished: HashSet<Uuid>,
    /// The first number of each block that was drawn.
    numbers: Vec<i64>,
}

impl Done {
    fn changed(&self, id: &Id) -> bool {
        match id {
            Id::Usage(id) => self.usages.contains(id),
            Id::Execution(id) => self.inserted.contains(id) || self.finished.contains(id),
        }
    }
}

/// What an append did, to its records and for the cubes.
pub(crate) struct Written {
    pub(crate) appended: Appended,
    /// The changes that it keeps.
    pub(crate) changes: u64,
    /// The changes that waited before, if it looked.
    pub(crate) waiting: Option<u64>,
}

/// Writes `batch`, and looks how many changes wait if it is time to `look`; the caller commits.
pub(crate) async fn append(
    conn: &mut PgConnection,
    batch: &Batch<'_>,
    payloads: &Payloads,
    look: bool,
) -> Outcome<Written> {
    let mut done = Done::default();
    for (usages, calls) in parts(batch.usages.len(), batch.executions.len(), ROWS.into()) {
        insert_rows(conn, &batch.usages[usages], &batch.executions[calls], &mut done).await?;
    }
    judge(conn, batch, &done).await?;
    let kept = changes(batch, &done);
    let waiting = rest::insert(conn, payloads.get().await?, &done, &kept, look).await?;
    let mut stored = done.usages.len() + done.inserted.len() + done.finished.len();
    for Whole { call, began } in &batch.executions {
        stored += usize::from(*began && done.inserted.contains(&uuid(call.id.to_bytes())));
    }
    let number = |rows: usize| u64::try_from(rows).unwrap_or(u64::MAX);
    let unchanged = batch.records.len().saturating_sub(stored);
    let appended = Appended { stored: number(stored), unchanged: number(unchanged) };
    Ok(Written { appended, changes: kept.len(), waiting })
}

/// What the records change that were stored.
fn changes(batch: &Batch<'_>, done: &Done) -> Kept {
    let mut kept = Kept::default();
    for usage in &batch.usages {
        if done.usages.contains(&uuid(usage.id.to_bytes())) {
            kept.usage(usage);
        }
    }
    for Whole { call, .. } in &batch.executions {
        if done.changed(&Id::Execution(uuid(call.id.to_bytes()))) {
            kept.execution(call);
        }
    }
    kept.finish()
}

fn uuid(id: [u8; 16]) -> Uuid {
    Uuid::from_bytes(id)
}

/// A usage that is stored stays; a call that is stored is replaced if it is pending, the new one
/// finished, and the same otherwise. `xmax` is 0 in a row that is new. The parts of `ARRAY` are run
/// from the first to the last, and each inserts in the order it is given.
const INSERT_ROWS: &str = "
WITH usage AS (
    INSERT INTO prompt_engine_usages
        (created_at, id, prompt, version, environment, session, user_id)
    SELECT * FROM unnest($1::timestamptz[], $2::uuid[], $3::uuid[], $4::bigint[], $5::text[],
        $6::text[], $7::text[])
    ON CONFLICT (id) DO NOTHING
    RETURNING id
), execution AS (
    INSERT INTO prompt_engine_llm_executions AS stored
        (created_at, id, prompt, version, environment, session, user_id, usage_id, provider, model,
         response_model, priced_model, service_tier, status, error_category, http_status, input,
         output, cache_read, cache_write, cache_write_1h, reasoning, audio_input, audio_output,
         cost_kind, cost_reason, cost_pico, cost_config, latency_ms, time_to_first_token_ms,
         completed_at)
    SELECT * FROM unnest($8::timestamptz[], $9::uuid[], $10::uuid[], $11::bigint[], $12::text[],
        $13::text[], $14::text[], $15::uuid[], $16::text[], $17::text[], $18::text[], $19::text[],
        $20::text[], $21::smallint[], $22::smallint[], $23::integer[], $24::bigint[],
        $25::bigint[], $26::bigint[], $27::bigint[], $28::bigint[], $29::bigint[], $30::bigint[],
        $31::bigint[], $32::smallint[], $33::smallint[], $34::bigint[], $35::uuid[],
        $36::bigint[], $37::bigint[], $38::timestamptz[])
    ON CONFLICT (id) DO UPDATE SET
        provider = excluded.provider, response_model = excluded.response_model,
        priced_model = excluded.priced_model, service_tier = excluded.service_tier,
        status = excluded.status, error_category = excluded.error_category,
        http_status = excluded.http_status, input = excluded.input, output = excluded.output,
        cache_read = excluded.cache_read, cache_write = excluded.cache_write,
        cache_write_1h = excluded.cache_write_1h, reasoning = excluded.reasoning,
        audio_input = excluded.audio_input, audio_output = excluded.audio_output,
        cost_kind = excluded.cost_kind, cost_reason = excluded.cost_reason,
        cost_pico = excluded.cost_pico, cost_config = excluded.cost_config,
        latency_ms = excluded.latency_ms,
        time_to_first_token_ms = excluded.time_to_first_token_ms,
        completed_at = excluded.completed_at
    WHERE stored.status = 0 AND excluded.status <> 0
        AND (stored.created_at, stored.usage_id, stored.prompt, stored.version, stored.environment,
             stored.model)
          = (excluded.created_at, excluded.usage_id, excluded.prompt, excluded.version,
             excluded.environment, excluded.model)
        AND stored.session IS NOT DISTINCT FROM excluded.session
        AND stored.user_id IS NOT DISTINCT FROM excluded.user_id
    RETURNING id, stored.xmax = 0 AS inserted
)
SELECT
    (SELECT value FROM prompt_engine_meta WHERE name = $39),
    ARRAY(SELECT id FROM usage),
    ARRAY(SELECT id FROM execution WHERE inserted),
    ARRAY(SELECT id FROM execution WHERE NOT inserted),
    nextval('prompt_engine_payload_packs_id')";

async fn insert_rows(
    conn: &mut PgConnection,
    usages: &[&Usage],
    calls: &[Whole<'_>],
    done: &mut Done,
) -> Outcome<()> {
    let calls: Vec<&LlmExecution> = calls.iter().map(|whole| whole.call).collect();
    let costs: Vec<CostRow> = calls.iter().map(|call| CostRow::new(call.cost.as_ref())).collect();
    // A column each, in the order of the statement. Values are encoded as they are bound.
    macro_rules! columns {
        ($query:expr, $of:ident: $($value:expr),* $(,)?) => {
            $query$(.bind($of.iter().copied().map($value).bind_iter()))*
        };
    }
    macro_rules! attributions {
        ($query:expr, $of:ident) => {
            columns!($query, $of:
                |of| Moment(of.created_at),
                |of| uuid(of.id.to_bytes()),
                |of| uuid(of.attribution.prompt.to_bytes()),
                |of| i64::from(of.attribution.version),
                |of| of.attribution.environment.as_str(),
                |of| of.attribution.session.as_deref(),
                |of| of.attribution.user.as_deref(),
            )
        };
    }
    let count = |of: Option<u64>| of.map(u64::cast_signed);
    macro_rules! token {
        ($name:ident) => {
            |call: &LlmExecution| count(call.tokens.map(|tokens| tokens.$name))
        };
    }
    let insert = attributions!(query(INSERT_ROWS), usages);
    let insert = attributions!(insert, calls);
    let insert = columns!(insert, calls:
        |call| uuid(call.usage_id.to_bytes()),
        |call| call.provider.as_str(),
        |call| call.model.as_str(),
        |call| call.response_model.as_deref(),
        |call| call.priced_model.as_deref(),
        |call| call.service_tier.as_deref(),
        |call| i16::from(call.status.code()),
        |call| call.error_category.map(|category| i16::from(category.code())),
        |call| call.http_status.map(i32::from),
        token!(input),
        token!(output),
        token!(cache_read),
        token!(cache_write),
        token!(cache_write_1h),
        token!(reasoning),
        token!(audio_input),
        token!(audio_output),
    );
    let insert = columns!(insert, costs:
        |cost| cost.kind,
        |cost| cost.reason,
        |cost| cost.pico,
        |cost| cost.config,
    );
    let insert = columns!(insert, calls:
        |call| count(call.latency_ms),
        |call| count(call.time_to_first_token_ms),
        |call| call.completed_at.map(Moment),
    );
    let row = insert.bind(RAW_HORIZON).fetch_one(conn).await?;
    let horizon: Option<i64> = get(&row, 0)?;
    done.horizon = horizon.map(Timestamp::from_micros).transpose()?;
    done.usages.extend(get::<Vec<Uuid>>(&row, 1)?);
    done.inserted.extend(get::<Vec<Uuid>>(&row, 2)?);
    done.finished.extend(get::<Vec<Uuid>>(&row, 3)?);
    done.numbers.push(get(&row, 4)?);
    Ok(())
}

/// What is stored under an id already.
const SELECT_STORED: &str = "
SELECT id, created_at, prompt, version, environment, session, user_id,
    NULL::uuid AS usage_id, NULL::text AS model
FROM prompt_engine_usages WHERE id = ANY ($1)
UNION ALL
SELECT id, created_at, prompt, version, environment, session, user_id, usage_id, model
FROM prompt_engine_llm_executions WHERE id = ANY ($2)";

/// A record that was there before.
struct Stored {
    created_at: Timestamp,
    attribution: Attribution,
    call: Option<(UsageId, Label)>,
}

/// Refuses the first record, in the order in which they came, that is before the horizon, or is
/// stored with another identity.
async fn judge(conn: &mut PgConnection, batch: &Batch<'_>, done: &Done) -> Outcome<()> {
    let unchanged = batch.records.iter().map(|record| Identity::of(record).id);
    let unchanged: HashSet<Id> = unchanged.filter(|id| !done.changed(id)).collect();
    let stored = stored(conn, &unchanged).await?;
    for record in batch.records {
        if let Some(horizon) = done.horizon
            && record.created_at() < horizon
        {
            return Err(Fault::Judged(refusal::before_horizon(record, horizon)));
        }
        let new = Identity::of(record);
        if let Some(Stored { created_at, attribution, call }) = stored.get(&new.id) {
            let call = call.as_ref().map(|(usage, model)| (*usage, &**model));
            Identity { id: new.id, created_at: *created_at, attribution, call }.check(&new)?;
        }
    }
    Ok(())
}

/// The stored records of `ids`, all of which must be there: nothing is deleted meanwhile.
async fn stored(conn: &mut PgConnection, ids: &HashSet<Id>) -> Outcome<HashMap<Id, Stored>> {
    let mut stored = HashMap::with_capacity(ids.len());
    if ids.is_empty() {
        return Ok(stored);
    }
    let (mut usages, mut executions) = (Vec::new(), Vec::new());
    for id in ids {
        match id {
            Id::Usage(id) => usages.push(*id),
            Id::Execution(id) => executions.push(*id),
        }
    }
    let rows = query(SELECT_STORED).bind(usages).bind(executions).fetch_all(conn).await?;
    for row in &rows {
        let (id, usage_id): (Uuid, Option<Uuid>) = (get(row, 0)?, get(row, 7)?);
        let usage_id = usage_id.map(|id| UsageId::from_bytes(id.into_bytes()));
        let call = usage_id.zip(maybe_label(row, 8)?);
        let id = if call.is_some() { Id::Execution(id) } else { Id::Usage(id) };
        let (created_at, attribution) = (moment(row, 1)?, attribution(row, 2)?);
        stored.insert(id, Stored { created_at, attribution, call });
    }
    if stored.len() < ids.len() {
        return Err(Fault::Row("a record is there and cannot be found".to_owned()));
    }
    Ok(stored)
}
