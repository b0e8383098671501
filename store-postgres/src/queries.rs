//! The [`RecordStore`] of the schema: sums, lists, single records.
//! Sums read the cells, the changes and the rows that core's `Plan` names, and core's `Tally` adds them
//! up, so that what a sum means is decided in one place. One answer is one snapshot.

mod slowest;

use std::sync::Arc;

use prompt_engine_core::cube::{Plan, Tally};
use prompt_engine_core::{
    Aggregate, AggregateQuery, Appended, CostRevision, Cursor, ExecutionId, ExecutionPayload,
    Filter, Folded, LlmExecution, Page, PastCost, Prune, Pruned, PrunedSums, Rebuild, Rebuilt,
    Record, RecordQuery, RecordStore, Restored, Result, Revised, TimeRange, Timestamp, Usage,
    UsageId, UsagePayload,
};
use sqlx::types::Uuid;
use sqlx::{PgConnection, query};

use crate::batch;
use crate::costs::Revising;
use crate::error::Outcome;
use crate::payloads::{Payloads, Rows};
use crate::pool::Lease;
use crate::prune::{self, RAW_HORIZON};
use crate::records::Written;
use crate::rows::{
    self, EXECUTION_PAYLOAD, USAGE_PAYLOAD, execution_columns, optional, usage_columns,
};
use crate::schema::meta;
use crate::sql::Sql;
use crate::store::{Hold, PostgresStore, Repeat};
use crate::sums::{Found, Scan};
use crate::{cells, costs, records};

/// Stretches of usages and of executions that one statement reads, about. An answer has one or two, but
/// where the days of its zone do not start with a quarter of an hour.
const PARTS: usize = 12;

const ONE_USAGE: &str = concat!(
    "SELECT ",
    usage_columns!(),
    ", p.data FROM prompt_engine_usages AS r
     LEFT JOIN prompt_engine_usage_payloads AS p ON p.created_at = r.created_at AND p.id = r.id
     WHERE r.id = $1"
);

const ONE_EXECUTION: &str = concat!(
    "SELECT ",
    execution_columns!(),
    ", p.data FROM prompt_engine_llm_executions AS r
     LEFT JOIN prompt_engine_llm_execution_payloads AS p
         ON p.created_at = r.created_at AND p.id = r.id
     WHERE r.id = $1"
);

#[async_trait::async_trait]
impl RecordStore for PostgresStore {
    async fn append(&self, records: &[Record]) -> Result<Appended> {
        if records.is_empty() {
            return Ok(Appended::default());
        }
        let batch = &batch::fold(records).map_err(|fault| self.error(fault))?;
        let payloads = &Payloads::start(&batch.chosen).map_err(|fault| self.error(fault))?;
        let look = self.folds().is_time_to_look(records.len());
        let written = self.write(Hold::Share, Repeat::Always, |mut conn| async move {
            let done = records::append(&mut conn, batch, payloads, look).await;
            (conn, done)
        });
        let Written { appended, changes, waiting } = written.await?;
        self.kept(changes, waiting).await;
        Ok(appended)
    }

    async fn aggregate(&self, query: &AggregateQuery) -> Result<Aggregate> {
        self.snapshot(|mut conn| async move {
            let done = aggregate(&mut conn, query).await;
            (conn, done)
        })
        .await
    }

    async fn fold(&self) -> Result<Folded> {
        // Whoever asks waits for others that fold, so that what is left is told as it is.
        Ok(self.fold_holding(Hold::Fold).await?.map(|(folded, _)| folded).unwrap_or_default())
    }

    async fn rebuild(&self, part: Rebuild) -> Result<Rebuilt> {
        // What waits is folded by lots; a cell that cannot be read may be among those made anew.
        while self.fold().await.is_ok_and(|folded| folded.more) {}
        self.write(Hold::Rebuild, Repeat::Always, |mut conn| async move {
            let done = cells::rebuild(&mut conn, part).await;
            (conn, done)
        })
        .await
    }

    async fn restore(&self, sums: &[PrunedSums]) -> Result<Restored> {
        self.write(Hold::Rebuild, Repeat::Always, |mut conn| async move {
            let done = cells::restore(&mut conn, sums).await;
            (conn, done)
        })
        .await
    }

    async fn usage(&self, id: UsageId) -> Result<Option<Usage>> {
        let id = Uuid::from_bytes(id.to_bytes());
        let rows = self.snapshot(|mut conn| async move {
            let select = query(ONE_USAGE).bind(id);
            let rows = Rows::read(&mut conn, select, USAGE_PAYLOAD).await;
            (conn, rows)
        });
        let rows = rows.await?;
        Ok(self.compute(move || usages(rows)).await?.pop())
    }

    async fn execution(&self, id: ExecutionId) -> Result<Option<LlmExecution>> {
        let id = Uuid::from_bytes(id.to_bytes());
        let rows = self.snapshot(|mut conn| async move {
            let select = query(ONE_EXECUTION).bind(id);
            let rows = Rows::read(&mut conn, select, EXECUTION_PAYLOAD).await;
            (conn, rows)
        });
        let rows = rows.await?;
        Ok(self.compute(move || executions(rows)).await?.pop())
    }

    async fn list_usages(&self, query: &RecordQuery) -> Result<Page<Usage>> {
        let after = match &query.page.after {
            None => None,
            Some(Cursor::Usage(at, id)) => Some((*at, *id)),
            Some(other) => return Err(other.foreign()),
        };
        if query.filter.needs_execution() {
            return Ok(Page { items: Vec::new(), next: None });
        }
        let find = |mut conn: Lease| async move {
            let mut sql = Sql::new(concat!("SELECT ", usage_columns!()));
            sql.push(if query.payloads {
                ", p.data FROM prompt_engine_usages AS r
                 LEFT JOIN prompt_engine_usage_payloads AS p
                     ON p.created_at = r.created_at AND p.id = r.id"
            } else {
                ", NULL::bytea FROM prompt_engine_usages AS r"
            });
            sql.push(" WHERE TRUE");
            sql.range(&query.range);
            sql.attribution(&query.filter);
            if let Some(id) = query.usage {
                sql.and(" AND r.id = ", Uuid::from_bytes(id.to_bytes()));
            }
            sql.ordered(query.order, after, query.page.limit);
            let rows = Rows::read(&mut conn, sql.query(), USAGE_PAYLOAD).await;
            (conn, rows)
        };
        let rows = if query.payloads { self.snapshot(find).await } else { self.read(find).await };
        let rows = rows?;
        let items = self.compute(move || usages(rows)).await?;
        let cursor = |usage: &Usage| Cursor::Usage(usage.created_at, usage.id.to_bytes());
        Ok(Page::from_overread(items, query.page.limit, cursor))
    }

    async fn list_executions(&self, query: &RecordQuery) -> Result<Page<LlmExecution>> {
        let after = match &query.page.after {
            None => None,
            Some(Cursor::Execution(at, id)) => Some((*at, *id)),
            Some(other) => return Err(other.foreign()),
        };
        let find = |mut conn: Lease| async move {
            let mut sql = Sql::new(concat!("SELECT ", execution_columns!()));
            sql.push(if query.payloads {
                ", p.data FROM prompt_engine_llm_executions AS r
                 LEFT JOIN prompt_engine_llm_execution_payloads AS p
                     ON p.created_at = r.created_at AND p.id = r.id"
            } else {
                ", NULL::bytea FROM prompt_engine_llm_executions AS r"
            });
            sql.push(" WHERE TRUE");
            sql.range(&query.range);
            sql.execution(&query.filter);
            if let Some(id) = query.usage {
                sql.and(" AND r.usage_id = ", Uuid::from_bytes(id.to_bytes()));
            }
            sql.ordered(query.order, after, query.page.limit);
            let rows = Rows::read(&mut conn, sql.query(), EXECUTION_PAYLOAD).await;
            (conn, rows)
        };
        let rows = if query.payloads { self.snapshot(find).await } else { self.read(find).await };
        let rows = rows?;
        let items = self.compute(move || executions(rows)).await?;
        let cursor = |call: &LlmExecution| Cursor::Execution(call.created_at, call.id.to_bytes());
        Ok(Page::from_overread(items, query.page.limit, cursor))
    }

    async fn slowest_executions(
        &self,
        range: &TimeRange,
        filter: &Filter,
        limit: u32,
    ) -> Result<Vec<LlmExecution>> {
        let rows = self.read(|mut conn| async move {
            let rows = slowest::slowest(&mut conn, range, filter, limit).await;
            (conn, rows)
        });
        let rows = rows.await?;
        self.compute(move || rows.iter().map(rows::execution).collect()).await
    }

    async fn revise_costs(&self, revisions: &[CostRevision]) -> Result<Vec<Revised>> {
        if revisions.is_empty() {
            return Ok(Vec::new());
        }
        let look = self.folds().is_time_to_look(revisions.len());
        let revising = self.write(Hold::Share, Repeat::Uncommitted, |mut conn| async move {
            let done = costs::revise(&mut conn, revisions, look).await;
            (conn, done)
        });
        let Revising { outcomes, changes, waiting } = revising.await?;
        self.kept(changes, waiting).await;
        Ok(outcomes)
    }

    async fn past_costs(&self, ids: &[ExecutionId]) -> Result<Vec<Vec<PastCost>>> {
        self.read(|mut conn| async move {
            let done = costs::past(&mut conn, ids).await;
            (conn, done)
        })
        .await
    }

    async fn prune(&self, prune: &Prune) -> Result<Pruned> {
        // Done twice it deletes two batches of what was to be deleted anyway.
        self.write(Hold::All, Repeat::Always, |mut conn| async move {
            let done = prune::prune(&mut conn, prune).await;
            (conn, done)
        })
        .await
    }

    /// Autovacuum does, beside whatever else goes on.
    async fn compact(&self) -> Result<()> {
        Ok(())
    }

    async fn raw_horizon(&self) -> Result<Option<Timestamp>> {
        let micros = self.read(|mut conn| async move {
            let micros = meta(&mut conn, RAW_HORIZON).await;
            (conn, micros)
        });
        micros.await?.map(Timestamp::from_micros).transpose()
    }
}

/// The usages of rows, with their payloads.
fn usages(mut rows: Rows<Arc<UsagePayload>>) -> Outcome<Vec<Usage>> {
    let payloads = rows.payloads()?;
    let rows = rows.rows.iter().zip(payloads);
    rows.map(|(row, payload)| Ok(Usage { payload, ..rows::usage(row)? })).collect()
}

/// The executions of rows, with their payloads.
fn executions(mut rows: Rows<Arc<ExecutionPayload>>) -> Outcome<Vec<LlmExecution>> {
    let payloads = rows.payloads()?;
    let rows = rows.rows.iter().zip(payloads);
    rows.map(|(row, payload)| Ok(LlmExecution { payload, ..rows::execution(row)? })).collect()
}

async fn aggregate(conn: &mut PgConnection, query: &AggregateQuery) -> Outcome<Aggregate> {
    let horizon = optional(meta(conn, RAW_HORIZON).await?, |at| Ok(Timestamp::from_micros(at)?))?;
    let extent = if Plan::needs_extent(query) { cells::extent(conn).await? } else { None };
    let mut plan = Plan::new(query, horizon, extent);
    loop {
        let mut tally = Tally::new(query, &plan)?;
        cells::read(conn, &plan, &mut tally).await?;
        let records = plan.records().iter().map(|of| (*of, false));
        let mut scan = Scan::new(query);
        for (of, pending) in records.chain(plan.pending().map(|of| (of, true))) {
            if pending {
                scan.pending(of);
            } else {
                if !query.needs_execution() {
                    scan.usages(of);
                }
                scan.executions(of);
            }
            if scan.parts() >= PARTS {
                count(conn, std::mem::replace(&mut scan, Scan::new(query)), &mut tally).await?;
            }
        }
        count(conn, scan, &mut tally).await?;
        match tally.finish() {
            Ok(answer) => return Ok(answer),
            Err(anew) => plan = *anew,
        }
    }
}

async fn count(conn: &mut PgConnection, scan: Scan<'_>, tally: &mut Tally<'_>) -> Outcome<()> {
    if scan.parts() == 0 {
        return Ok(());
    }
    scan.run(conn, |found| {
        match found {
            Found::Usage(usage) => tally.usage(usage),
            Found::Execution(call) => tally.execution(call),
            Found::Changes(data) => tally.changes(&data)?,
        }
        Ok(())
    })
    .await
}
