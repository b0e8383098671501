//! Appending records and changing their costs.
//! Invariants: payloads are encoded on another thread, the writer only moves bytes; a row,
//! its id, its index keys, its payload and what it changes are written in one transaction.

use prompt_engine_core::codec::{Encoded, Encoding, Packed, Payload};
use prompt_engine_core::cube::Changes;
use prompt_engine_core::{
    Appended, CostRevision, ExecutionId, LlmExecution, PastCost, Record, Revised, Timestamp, Usage,
    refusal,
};
use redb::{ReadTransaction, ReadableTable, Table, WriteTransaction};

use crate::cells;
use crate::error::{Fault, Outcome};
use crate::layout::{
    EXECUTIONS, Id, Kind, META, PAST_COSTS, RowKey, USAGES, moment, number_value, past_key,
    row_key, row_key_of,
};
use crate::payloads::PackWriter;
use crate::prune::RAW_HORIZON;
use crate::rows::{
    execution_entries, read_execution, read_past_cost, read_usage, status_entry, usage_entries,
    write_execution, write_past_cost, write_usage,
};
use crate::store::meta;
use crate::terms::{Lookup, TermReader, TermWriter};

/// The tables of a kind of record, open for writing.
struct Tables<'t> {
    rows: Table<'t, RowKey, &'static [u8]>,
    ids: Table<'t, Id, &'static [u8]>,
    index: Table<'t, &'static [u8], ()>,
    payloads: Table<'t, RowKey, &'static [u8]>,
}

impl<'t> Tables<'t> {
    fn open(txn: &'t WriteTransaction, kind: &Kind) -> Outcome<Self> {
        Ok(Self {
            rows: txn.open_table(kind.rows)?,
            ids: txn.open_table(kind.ids)?,
            index: txn.open_table(kind.index)?,
            payloads: txn.open_table(kind.payloads)?,
        })
    }

    /// Takes `id` for a record that starts at `at`; answers the row key of one that has it already.
    fn take_id(&mut self, id: Id, at: Timestamp) -> Outcome<Option<RowKey>> {
        // Where it was taken the batch changes nothing here, or is refused and leaves no trace.
        let old = self.ids.insert(id, &number_value(at.as_micros())[..])?;
        old.map(|old| row_key_of(id, old.value())).transpose()
    }

    fn row(&self, row_key: RowKey) -> Outcome<Vec<u8>> {
        let row = self.rows.get(row_key)?;
        row.map(|row| row.value().to_vec())
            .ok_or_else(|| Fault::Row("an id names no row".to_owned()))
    }

    fn put_payload(&mut self, row_key: RowKey, payload: Option<&[u8]>) -> Outcome<()> {
        match payload {
            Some(payload) => drop(self.payloads.insert(row_key, payload)?),
            None => drop(self.payloads.remove(row_key)?),
        }
        Ok(())
    }
}

/// Writes `records` in order; answers whether it is time for a fold, too. The caller commits.
pub(crate) fn append(
    txn: &WriteTransaction,
    terms: &mut TermWriter<'_, '_>,
    records: Encoding,
) -> Outcome<(Appended, bool)> {
    let horizon = meta(&txn.open_table(META)?, RAW_HORIZON)?;
    let horizon = horizon.map(moment).transpose()?;
    let mut usages = Tables::open(txn, &USAGES)?;
    let mut executions = Tables::open(txn, &EXECUTIONS)?;
    let mut packs = PackWriter::open(txn)?;
    let mut done = Appended::default();
    let mut changes = Changes::default();
    for packed in records {
        let Packed { records, pack } = packed?;
        let mut unused = Vec::new();
        for Encoded { record, payload } in records {
            if let Some(horizon) = horizon
                && record.created_at() < horizon
            {
                return Err(Fault::Judged(refusal::before_horizon(&record, horizon)));
            }
            let kept = payload.kept(packs.next());
            let kept = kept.as_deref();
            let stored = match &record {
                Record::Usage(usage) => append_usage(&mut usages, terms, usage, kept)?,
                Record::Execution(execution) => {
                    append_execution(&mut executions, terms, execution, kept)?
                }
            };
            if stored {
                done.stored += 1;
                changes.record(&record);
            } else {
                done.unchanged += 1;
                if let Payload::Line(line) = payload {
                    unused.push(line);
                }
            }
        }
        if let Some(pack) = pack {
            packs.insert(pack.finish()?, &unused)?;
        }
    }
    Ok((done, cells::keep(txn, &changes)?))
}

fn conflict(record: String, what: &str) -> Fault {
    Fault::Judged(refusal::stored_with_another(record, what))
}

fn append_usage(
    tables: &mut Tables<'_>,
    terms: &mut TermWriter<'_, '_>,
    usage: &Usage,
    payload: Option<&[u8]>,
) -> Outcome<bool> {
    let (id, at) = (usage.id.to_bytes(), usage.created_at);
    let here = row_key(at, id);
    let Some(there) = tables.take_id(id, at)? else {
        tables.rows.insert(here, &*write_usage(usage, terms)?)?;
        for entry in usage_entries(&usage.attribution, terms)? {
            tables.index.insert(&*entry.key(here), ())?;
        }
        if payload.is_some() {
            tables.put_payload(here, payload)?;
        }
        return Ok(true);
    };
    let name = || format!("usage {}", usage.id);
    if there != here {
        return Err(conflict(name(), "start time"));
    }
    if read_usage(here, &tables.row(here)?, terms)?.attribution != usage.attribution {
        return Err(conflict(name(), "attribution"));
    }
    Ok(false)
}

fn append_execution(
    tables: &mut Tables<'_>,
    terms: &mut TermWriter<'_, '_>,
    execution: &LlmExecution,
    payload: Option<&[u8]>,
) -> Outcome<bool> {
    let (id, at) = (execution.id.to_bytes(), execution.created_at);
    let here = row_key(at, id);
    let Some(there) = tables.take_id(id, at)? else {
        tables.rows.insert(here, &*write_execution(execution, terms)?)?;
        for entry in execution_entries(execution, terms)? {
            tables.index.insert(&*entry.key(here), ())?;
        }
        if payload.is_some() {
            tables.put_payload(here, payload)?;
        }
        return Ok(true);
    };
    let name = || format!("execution {}", execution.id);
    if there != here {
        return Err(conflict(name(), "start time"));
    }
    let stored = read_execution(here, &tables.row(here)?, terms)?;
    if stored.usage_id != execution.usage_id {
        return Err(conflict(name(), "usage"));
    }
    if stored.model != execution.model {
        return Err(conflict(name(), "asked model"));
    }
    if stored.attribution != execution.attribution {
        return Err(conflict(name(), "attribution"));
    }
    if stored.status.is_final() || !execution.status.is_final() {
        return Ok(false);
    }
    tables.rows.insert(here, &*write_execution(execution, terms)?)?;
    // Of all that is indexed, only the status changes.
    if let Some(entry) = status_entry(stored.status) {
        tables.index.remove(&*entry.key(here))?;
    }
    if let Some(entry) = status_entry(execution.status) {
        tables.index.insert(&*entry.key(here), ())?;
    }
    tables.put_payload(here, payload)?;
    Ok(true)
}

/// Changes costs, each if it is still the expected one; answers whether it is time for a fold, too.
/// The caller commits.
pub(crate) fn revise_costs(
    txn: &WriteTransaction,
    terms: &mut TermWriter<'_, '_>,
    revisions: &[CostRevision],
) -> Outcome<(Vec<Revised>, bool)> {
    let ids = txn.open_table(EXECUTIONS.ids)?;
    let mut rows = txn.open_table(EXECUTIONS.rows)?;
    let mut past_costs = txn.open_table(PAST_COSTS)?;
    let mut changes = Changes::default();
    let mut outcomes = Vec::with_capacity(revisions.len());
    for CostRevision { id, expected, past, new, priced_model, at } in revisions {
        let id = id.to_bytes();
        let found = ids.get(id)?.map(|at| row_key_of(id, at.value())).transpose()?;
        let Some(row_key) = found else {
            outcomes.push(Revised::NotFound);
            continue;
        };
        let stored = stored_execution(&rows, row_key, terms)?;
        let number = number_of_past(&past_costs, row_key)?;
        // A pending execution has no cost, so it never has the expected one.
        if stored.cost != Some(*expected) || past.is_some_and(|past| past != u64::from(number)) {
            outcomes.push(Revised::Mismatch);
            continue;
        }
        changes.recost(&stored, new);
        let past = PastCost {
            cost: *expected,
            priced_model: stored.priced_model.clone(),
            replaced_at: *at,
        };
        past_costs.insert(past_key(row_key, number + 1), &*write_past_cost(&past, terms)?)?;
        let revised =
            LlmExecution { cost: Some(*new), priced_model: priced_model.clone(), ..stored };
        rows.insert(row_key, &*write_execution(&revised, terms)?)?;
        outcomes.push(Revised::Changed);
    }
    Ok((outcomes, cells::keep(txn, &changes)?))
}

fn stored_execution(
    rows: &impl ReadableTable<RowKey, &'static [u8]>,
    row_key: RowKey,
    terms: &impl Lookup,
) -> Outcome<LlmExecution> {
    let row = rows.get(row_key)?;
    let row = row.ok_or_else(|| Fault::Row("an id names no row".to_owned()))?;
    read_execution(row_key, row.value(), terms)
}

/// How many past costs the execution at `row_key` has.
fn number_of_past(
    table: &impl ReadableTable<crate::layout::PastKey, &'static [u8]>,
    row_key: RowKey,
) -> Outcome<u32> {
    let last = table.range(past_key(row_key, 0)..=past_key(row_key, u32::MAX))?.next_back();
    let Some((key, _)) = last.transpose()? else { return Ok(0) };
    Ok(key.value().last_chunk().copied().map_or(0, u32::from_be_bytes))
}

/// The costs that executions had before, oldest first.
pub(crate) fn past_costs(
    txn: &ReadTransaction,
    terms: TermReader<'_>,
    ids: &[ExecutionId],
) -> Outcome<Vec<Vec<PastCost>>> {
    let row_keys = txn.open_table(EXECUTIONS.ids)?;
    let past_costs = txn.open_table(PAST_COSTS)?;
    let of = |id: &ExecutionId| {
        let id = id.to_bytes();
        let Some(at) = row_keys.get(id)? else { return Ok(Vec::new()) };
        let row_key = row_key_of(id, at.value())?;
        past_costs
            .range(past_key(row_key, 0)..=past_key(row_key, u32::MAX))?
            .map(|entry| read_past_cost(entry?.1.value(), &terms))
            .collect()
    };
    ids.iter().map(of).collect()
}
