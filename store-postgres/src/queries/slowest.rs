//! The slowest executions of a range: the server keeps the best rows while it walks the others.

use prompt_engine_core::{Filter, TimeRange};
use sqlx::PgConnection;
use sqlx::postgres::PgRow;

use crate::error::Outcome;
use crate::rows::execution_columns;
use crate::sql::Sql;

pub(super) async fn slowest(
    conn: &mut PgConnection,
    range: &TimeRange,
    filter: &Filter,
    limit: u32,
) -> Outcome<Vec<PgRow>> {
    let mut sql = Sql::new(concat!(
        "SELECT ",
        execution_columns!(),
        " FROM prompt_engine_llm_executions AS r WHERE r.latency_ms IS NOT NULL"
    ));
    sql.range(range);
    sql.execution(filter);
    let limit = i64::from(limit);
    sql.and(" ORDER BY r.latency_ms DESC, r.created_at DESC, r.id DESC LIMIT ", limit);
    Ok(sql.query().fetch_all(conn).await?)
}
