//! The slowest executions of a range: a walk that keeps the best, so memory is bounded by the limit.

use std::collections::BTreeMap;

use prompt_engine_core::{Filter, LlmExecution, Order, TimeRange};
use redb::ReadTransaction;

use crate::error::Outcome;
use crate::layout::{EXECUTIONS, RowKey, Stretch};
use crate::rows::read_execution;
use crate::terms::TermReader;
use crate::walk::{Walk, way_of_executions};

pub(super) fn slowest(
    txn: &ReadTransaction,
    terms: &TermReader<'_>,
    range: &TimeRange,
    filter: &Filter,
    limit: u32,
) -> Outcome<Vec<LlmExecution>> {
    let order = Order::OldestFirst;
    let stretch = Stretch::new(range, order, None);
    let way = way_of_executions(filter, None, terms)?;
    let mut walk = Walk::new(txn, &EXECUTIONS, &stretch, order, way)?;
    // Of equal latencies the later row key is the newer call.
    let mut best: BTreeMap<(u64, RowKey), LlmExecution> = BTreeMap::new();
    while let Some((row_key, row)) = walk.next()? {
        let execution = read_execution(row_key, row.value(), terms)?;
        let Some(latency) = execution.latency_ms else { continue };
        if !filter.matches_execution(&execution) {
            continue;
        }
        best.insert((latency, row_key), execution);
        if best.len() > limit as usize {
            best.pop_first();
        }
    }
    Ok(best.into_values().rev().collect())
}
