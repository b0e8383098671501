//! Appending records and changing their costs.
//! Invariant: payloads are encoded on another thread; the writer only moves bytes.

use prompt_engine_core::codec::{Encoded, Encoding, Packed, Payload};
use prompt_engine_core::cube::{Changes, LOT_CHANGES};
use prompt_engine_core::{
    Appended, CostRevision, ExecutionId, Label, LlmExecution, PastCost, Record, Revised, Timestamp,
    Usage, refusal,
};
use rusqlite::{Connection, params};

use crate::cells;
use crate::error::{Fault, Outcome};
use crate::payloads::Payloads;
use crate::prune::{PAYLOADS_FROM, RAW_HORIZON};
use crate::rows::{AttributionRow, CostRow, cost, execution, execution_columns, moment, optional};
use crate::schema::{meta, set_meta};
use crate::terms::{Kind, TermReader, TermWriter, Terms};

/// Writes `records`, none of which started before `earliest`, in order; answers whether it is time for a
/// fold, too. The caller commits.
pub(crate) fn append(
    conn: &Connection,
    terms: &mut TermWriter<'_>,
    earliest: Timestamp,
    records: Encoding,
) -> Outcome<(Appended, bool)> {
    let mut done = Appended::default();
    let mut changes = Changes::default();
    let horizon = meta(conn, RAW_HORIZON)?.map(Timestamp::from_micros).transpose()?;
    if meta(conn, PAYLOADS_FROM)?.is_some_and(|from| earliest.as_micros() < from) {
        set_meta(conn, PAYLOADS_FROM, earliest.as_micros())?;
    }
    let mut payloads = Payloads::new(conn)?;
    for packed in records {
        let Packed { records, pack } = packed?;
        let mut unused = Vec::new();
        for Encoded { record, payload } in records {
            if let Some(horizon) = horizon
                && record.created_at() < horizon
            {
                return Err(Fault::Judged(refusal::before_horizon(&record, horizon)));
            }
            let kept = payload.kept(payloads.next_pack());
            let kept = kept.as_deref();
            let stored = match &record {
                Record::Usage(usage) => append_usage(conn, terms, &mut payloads, usage, kept)?,
                Record::Execution(execution) => {
                    append_execution(conn, terms, &mut payloads, execution, kept)?
                }
            };
            if stored {
                done.stored += 1;
                changes.record(&record);
                // A value is no larger than a lot.
                if changes.len() >= LOT_CHANGES {
                    cells::keep(conn, &std::mem::take(&mut changes))?;
                }
            } else {
                done.unchanged += 1;
                if let Payload::Line(line) = payload {
                    unused.push(line);
                }
            }
        }
        if let Some(pack) = pack {
            payloads.insert_pack(pack.finish()?, &unused)?;
        }
    }
    Ok((done, cells::keep(conn, &changes)?))
}

fn conflict(record: String, what: &str) -> Fault {
    Fault::Judged(refusal::stored_with_another(record, what))
}

fn append_usage(
    conn: &Connection,
    terms: &mut TermWriter<'_>,
    payloads: &mut Payloads<'_>,
    usage: &Usage,
    payload: Option<&[u8]>,
) -> Outcome<bool> {
    let of = AttributionRow::new(&usage.attribution, terms)?;
    let (at, id) = (usage.created_at.as_micros(), usage.id.to_bytes());
    let inserted = conn
        .prepare_cached(
            "INSERT INTO prompt_engine_usages
                 (created_at, id, prompt, version, environment, session, user, payload)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            at,
            id,
            of.prompt,
            of.version,
            of.environment,
            of.session,
            of.user,
            payload.map(|_| payloads.next_id()),
        ])?;
    if inserted == 1 {
        payloads.insert(payload)?;
        return Ok(true);
    }
    let mut select = conn.prepare_cached(
        "SELECT created_at, prompt, version, environment, session, user
         FROM prompt_engine_usages WHERE id = ?",
    )?;
    let mut rows = select.query([id])?;
    let row = rows
        .next()?
        .ok_or_else(|| Fault::Row("a usage is there and cannot be found".to_owned()))?;
    let name = || format!("usage {}", usage.id);
    if row.get::<_, i64>(0)? != at {
        return Err(conflict(name(), "start time"));
    }
    if AttributionRow::read(row, 1)? != of {
        return Err(conflict(name(), "attribution"));
    }
    Ok(false)
}

fn append_execution(
    conn: &Connection,
    terms: &mut TermWriter<'_>,
    payloads: &mut Payloads<'_>,
    execution: &LlmExecution,
    payload: Option<&[u8]>,
) -> Outcome<bool> {
    let of = AttributionRow::new(&execution.attribution, terms)?;
    let (at, id) = (execution.created_at.as_micros(), execution.id.to_bytes());
    let usage_id = execution.usage_id.to_bytes();
    let provider = terms.label(Kind::Provider, &execution.provider)?;
    let model = terms.label(Kind::Model, &execution.model)?;
    let mut model_key =
        |label: Option<&_>| label.map(|label| terms.label(Kind::Model, label)).transpose();
    let response_model = model_key(execution.response_model.as_ref())?;
    let priced_model = model_key(execution.priced_model.as_ref())?;
    let tier = execution.service_tier.as_ref();
    let service_tier = tier.map(|tier| terms.label(Kind::ServiceTier, tier)).transpose()?;
    let cost = CostRow::new(execution.cost.as_ref(), terms)?;
    let tokens = execution.tokens.as_deref();
    let count = |count: u64| count.cast_signed();
    let status = execution.status.code();
    let category = execution.error_category.map(|category| category.code());
    let completed_at = execution.completed_at.map(Timestamp::as_micros);
    let inserted = conn
        .prepare_cached(
            "INSERT INTO prompt_engine_llm_executions
                 (created_at, id, usage_id, prompt, version, environment, session, user, provider,
                  model, response_model, priced_model, status, error_category, http_status, input,
                  output, cache_read, cache_write, cache_write_1h, reasoning, audio_input,
                  audio_output, cost_kind, cost_reason, cost_pico, cost_config, latency_ms,
                  time_to_first_token_ms, completed_at, service_tier, payload)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
                     ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            at,
            id,
            usage_id,
            of.prompt,
            of.version,
            of.environment,
            of.session,
            of.user,
            provider,
            model,
            response_model,
            priced_model,
            status,
            category,
            execution.http_status,
            tokens.map(|tokens| count(tokens.input)),
            tokens.map(|tokens| count(tokens.output)),
            tokens.map(|tokens| count(tokens.cache_read)),
            tokens.map(|tokens| count(tokens.cache_write)),
            tokens.map(|tokens| count(tokens.cache_write_1h)),
            tokens.map(|tokens| count(tokens.reasoning)),
            tokens.map(|tokens| count(tokens.audio_input)),
            tokens.map(|tokens| count(tokens.audio_output)),
            cost.kind,
            cost.reason,
            cost.pico,
            cost.config,
            execution.latency_ms.map(count),
            execution.time_to_first_token_ms.map(count),
            completed_at,
            service_tier,
            payload.map(|_| payloads.next_id()),
        ])?;
    if inserted == 1 {
        payloads.insert(payload)?;
        return Ok(true);
    }
    let old_payload: Option<i64> = {
        let mut select = conn.prepare_cached(
            "SELECT created_at, usage_id, model, status, payload, prompt, version, environment,
                    session, user
             FROM prompt_engine_llm_executions WHERE id = ?",
        )?;
        let mut rows = select.query([id])?;
        let row = rows
            .next()?
            .ok_or_else(|| Fault::Row("an execution is there and cannot be found".to_owned()))?;
        let name = || format!("execution {}", execution.id);
        if row.get::<_, i64>(0)? != at {
            return Err(conflict(name(), "start time"));
        }
        if row.get::<_, [u8; 16]>(1)? != usage_id {
            return Err(conflict(name(), "usage"));
        }
        if row.get::<_, i64>(2)? != model {
            return Err(conflict(name(), "asked model"));
        }
        if AttributionRow::read(row, 5)? != of {
            return Err(conflict(name(), "attribution"));
        }
        if row.get::<_, u8>(3)? != 0 || !execution.status.is_final() {
            return Ok(false);
        }
        row.get(4)?
    };
    let payload = payloads.replace(old_payload, payload)?;
    conn.prepare_cached(
        "UPDATE prompt_engine_llm_executions SET
             provider = ?, response_model = ?, priced_model = ?, status = ?, error_category = ?,
             http_status = ?, input = ?, output = ?, cache_read = ?, cache_write = ?,
             cache_write_1h = ?, reasoning = ?, audio_input = ?, audio_output = ?, cost_kind = ?,
             cost_reason = ?, cost_pico = ?, cost_config = ?, latency_ms = ?,
             time_to_first_token_ms = ?, completed_at = ?, service_tier = ?, payload = ?
         WHERE created_at = ? AND id = ?",
    )?
    .execute(params![
        provider,
        response_model,
        priced_model,
        status,
        category,
        execution.http_status,
        tokens.map(|tokens| count(tokens.input)),
        tokens.map(|tokens| count(tokens.output)),
        tokens.map(|tokens| count(tokens.cache_read)),
        tokens.map(|tokens| count(tokens.cache_write)),
        tokens.map(|tokens| count(tokens.cache_write_1h)),
        tokens.map(|tokens| count(tokens.reasoning)),
        tokens.map(|tokens| count(tokens.audio_input)),
        tokens.map(|tokens| count(tokens.audio_output)),
        cost.kind,
        cost.reason,
        cost.pico,
        cost.config,
        execution.latency_ms.map(count),
        execution.time_to_first_token_ms.map(count),
        completed_at,
        service_tier,
        payload,
        at,
        id,
    ])?;
    Ok(true)
}

/// Changes costs, each if it is still the expected one; answers whether it is time for a fold, too. The
/// caller commits.
pub(crate) fn revise_costs(
    conn: &Connection,
    terms: &mut TermWriter<'_>,
    revisions: &[CostRevision],
) -> Outcome<(Vec<Revised>, bool)> {
    let mut select = conn.prepare_cached(concat!(
        "SELECT ",
        execution_columns!(),
        " FROM prompt_engine_llm_executions WHERE id = ?"
    ))?;
    let mut update = conn.prepare_cached(
        "UPDATE prompt_engine_llm_executions
         SET cost_kind = ?, cost_reason = ?, cost_pico = ?, cost_config = ?, priced_model = ?
         WHERE created_at = ? AND id = ?",
    )?;
    let mut keep = conn.prepare_cached(
        "INSERT INTO prompt_engine_cost_revisions
             (created_at, id, number, replaced_at, cost_kind, cost_reason, cost_pico, cost_config,
              priced_model)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    let mut count = conn.prepare_cached(
        "SELECT coalesce(max(number), 0) FROM prompt_engine_cost_revisions
         WHERE created_at = ? AND id = ?",
    )?;
    // What is read here may not be committed yet, so nobody else may remember it.
    let met = Terms::default();
    let mut reader = TermReader::new(&met, conn);
    let mut changes = Changes::default();
    let mut outcomes = Vec::with_capacity(revisions.len());
    for CostRevision { id, expected, past, new, priced_model, at: now } in revisions {
        let id = id.to_bytes();
        let stored = {
            let mut rows = select.query([id])?;
            rows.next()?.map(|row| execution(row, &mut reader)).transpose()?
        };
        let Some(stored) = stored else {
            outcomes.push(Revised::NotFound);
            continue;
        };
        let at = stored.created_at.as_micros();
        let before: i64 = count.query_one(params![at, id], |row| row.get(0))?;
        // A pending execution has no cost, so it never has the expected one.
        if stored.cost != Some(*expected) || past.is_some_and(|past| past != before.cast_unsigned())
        {
            outcomes.push(Revised::Mismatch);
            continue;
        }
        let mut key =
            |label: Option<&Label>| label.map(|label| terms.label(Kind::Model, label)).transpose();
        let (stored_model, model) =
            (key(stored.priced_model.as_ref())?, key(priced_model.as_ref())?);
        changes.recost(&stored, new);
        let stored = CostRow::new(Some(expected), terms)?;
        let CostRow { kind, reason, pico, config } = stored;
        let (number, now) = (before + 1, now.as_micros());
        keep.execute(params![at, id, number, now, kind, reason, pico, config, stored_model])?;
        let new = CostRow::new(Some(new), terms)?;
        update.execute(params![new.kind, new.reason, new.pico, new.config, model, at, id])?;
        outcomes.push(Revised::Changed);
    }
    Ok((outcomes, cells::keep(conn, &changes)?))
}

/// The costs that an execution had before, oldest first.
pub(crate) fn past_costs(
    conn: &Connection,
    terms: &mut TermReader<'_>,
    id: ExecutionId,
) -> Outcome<Vec<PastCost>> {
    let mut select = conn.prepare_cached(
        "SELECT replaced_at, cost_kind, cost_reason, cost_pico, cost_config, priced_model
         FROM prompt_engine_cost_revisions
         WHERE created_at = (SELECT created_at FROM prompt_engine_llm_executions WHERE id = ?1)
             AND id = ?1
         ORDER BY number",
    )?;
    let mut rows = select.query([id.to_bytes()])?;
    let mut past = Vec::new();
    while let Some(row) = rows.next()? {
        let cost = cost(row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, terms)?;
        past.push(PastCost {
            cost: cost.ok_or_else(|| Fault::Row("a past cost is none".to_owned()))?,
            priced_model: optional(row.get(5)?, |key| terms.label(key))?,
            replaced_at: moment(row.get(0)?)?,
        });
    }
    Ok(past)
}
