//! The slowest executions of a range: SQLite keeps the best rows while it walks the others, so memory
//! is bounded by the limit.

use prompt_engine_core::{Filter, LlmExecution, TimeRange};
use rusqlite::{Connection, params_from_iter};

use super::Sql;
use crate::error::Outcome;
use crate::rows::{self, execution_columns};
use crate::terms::TermReader;

pub(super) fn slowest(
    conn: &Connection,
    terms: &mut TermReader<'_>,
    range: &TimeRange,
    filter: &Filter,
    limit: u32,
) -> Outcome<Vec<LlmExecution>> {
    let mut sql = Sql::new(concat!(
        "SELECT ",
        execution_columns!(),
        " FROM prompt_engine_llm_executions WHERE latency_ms IS NOT NULL"
    ));
    sql.range(range);
    sql.execution(filter, terms)?;
    sql.and(" ORDER BY latency_ms DESC, created_at DESC, id DESC LIMIT ?", i64::from(limit));
    let mut select = conn.prepare_cached(&sql.text)?;
    let mut rows = select.query(params_from_iter(&sql.values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(rows::execution(row, terms)?);
    }
    Ok(found)
}
