//! Deleting what is old, a bounded batch at a time, oldest first.
//! Invariants: the raw horizon moves in the transaction that deletes, and never back; a payload goes out
//! of its pack in the transaction that deletes its place.

use prompt_engine_core::cube::horizon_of;
use prompt_engine_core::{Prune, Pruned, codec};
use redb::{ReadableTable, WriteTransaction};

use crate::error::Outcome;
use crate::layout::{
    EXECUTIONS, Entry, Kind, META, PAST_COSTS, RowKey, USAGES, first_of, number_value, past_key,
    split,
};
use crate::payloads;
use crate::rows::{execution_entries, read_execution, read_usage, usage_entries};
use crate::store::meta;
use crate::terms::TermWriter;

/// The time before which records were deleted and are refused.
pub(crate) const RAW_HORIZON: &str = "raw_horizon";

/// A row key and the bytes of its row.
type Row = (RowKey, Vec<u8>);

/// Deletes one batch; the caller commits.
pub(crate) fn prune(
    txn: &WriteTransaction,
    terms: &mut TermWriter<'_, '_>,
    prune: &Prune,
) -> Outcome<Pruned> {
    let mut pruned = Pruned { done: true, ..Pruned::default() };
    let limit = usize::try_from(prune.limit).unwrap_or(usize::MAX);
    // Where the payloads lay that are deleted.
    let mut packed = Vec::new();
    if let Some(before) = prune.raw_before.map(horizon_of) {
        let (usages, done) = oldest(txn, &USAGES, first_of(before), limit)?;
        pruned.usages = number(usages.len());
        pruned.done &= done;
        for (row_key, row) in usages {
            let usage = read_usage(row_key, &row, terms)?;
            packed.extend(delete_payload(txn, &USAGES, row_key)?);
            delete(txn, &USAGES, row_key, &usage_entries(&usage.attribution, terms)?)?;
        }
        let (executions, done) = oldest(txn, &EXECUTIONS, first_of(before), limit)?;
        pruned.executions = number(executions.len());
        pruned.done &= done;
        for (row_key, row) in executions {
            let execution = read_execution(row_key, &row, terms)?;
            packed.extend(delete_payload(txn, &EXECUTIONS, row_key)?);
            delete(txn, &EXECUTIONS, row_key, &execution_entries(&execution, terms)?)?;
            let past = past_key(row_key, 0)..=past_key(row_key, u32::MAX);
            txn.open_table(PAST_COSTS)?.retain_in(past, |_, _| false)?;
        }
        let mut table = txn.open_table(META)?;
        let before = before.as_micros();
        if meta(&table, RAW_HORIZON)?.is_none_or(|horizon| horizon < before) {
            table.insert(RAW_HORIZON, &number_value(before)[..])?;
        }
    }
    if let Some(before) = prune.payloads_before {
        let mut row_keys = Vec::new();
        for kind in [USAGES, EXECUTIONS] {
            let payloads = txn.open_table(kind.payloads)?;
            for entry in payloads.range(..first_of(before))?.take(limit.saturating_add(1)) {
                row_keys.push((entry?.0.value(), kind));
            }
        }
        row_keys.sort_unstable_by_key(|(row_key, _)| *row_key);
        pruned.done &= row_keys.len() <= limit;
        row_keys.truncate(limit);
        for (row_key, kind) in &row_keys {
            packed.extend(delete_payload(txn, kind, *row_key)?);
        }
        pruned.payloads = number(row_keys.len());
    }
    payloads::forget(txn, packed)?;
    Ok(pruned)
}

/// The oldest `limit` rows before `before`, and whether that is all.
fn oldest(
    txn: &WriteTransaction,
    kind: &Kind,
    before: RowKey,
    limit: usize,
) -> Outcome<(Vec<Row>, bool)> {
    let mut found = Vec::new();
    for entry in txn.open_table(kind.rows)?.range(..before)? {
        if found.len() == limit {
            return Ok((found, false));
        }
        let (row_key, row) = entry?;
        found.push((row_key.value(), row.value().to_vec()));
    }
    Ok((found, true))
}

/// Deletes the payload of the record at `row_key`, if it has one; answers where it lies in a pack.
fn delete_payload(
    txn: &WriteTransaction,
    kind: &Kind,
    row_key: RowKey,
) -> Outcome<Option<codec::Place>> {
    let mut payloads = txn.open_table(kind.payloads)?;
    let Some(kept) = payloads.remove(row_key)? else { return Ok(None) };
    // What cannot be read is in no pack that could be named.
    Ok(codec::Place::of(kept.value()).unwrap_or_default())
}

/// Deletes a record, which has no payload any more, from the tables of its kind.
fn delete(
    txn: &WriteTransaction,
    kind: &Kind,
    row_key: RowKey,
    entries: &[Entry<'_>],
) -> Outcome<()> {
    let (_, id) = split(row_key)?;
    txn.open_table(kind.rows)?.remove(row_key)?;
    txn.open_table(kind.ids)?.remove(id)?;
    let mut index = txn.open_table(kind.index)?;
    for entry in entries {
        index.remove(&*entry.key(row_key))?;
    }
    Ok(())
}

fn number(rows: usize) -> u64 {
    u64::try_from(rows).unwrap_or(u64::MAX)
}
