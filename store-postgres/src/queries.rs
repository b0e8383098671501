//! The [`RecordStore`] of the schema: sums, lists, single records.
//! Sums walk the hot rows of a range, and core's `Recount` adds them up as they arrive, so that what
//! a sum means is decided in one place. One answer is one snapshot.

mod slowest;

use std::collections::HashMap;

use futures::TryStreamExt;
use prompt_engine_core::aggregate::Recount;
use prompt_engine_core::{
    Aggregate, AggregateQuery, Appended, Attribution, CostRevision, Cursor, Dimension, ExecutionId,
    Filter, Folded, Label, LlmExecution, Page, PastCost, PromptId, Prune, Pruned, Reading, Rebuild,
    Rebuilt, Record, RecordQuery, RecordStore, Result, Revised, TimeRange, Timestamp, Usage,
    UsageId, codec,
};
use serde::de::DeserializeOwned;
use sqlx::postgres::PgRow;
use sqlx::types::Uuid;
use sqlx::{PgConnection, query};

use crate::batch::{self, Payloads};
use crate::error::{Fault, Outcome};
use crate::prune::{self, RAW_HORIZON};
use crate::rows::{
    self, EXECUTION_PAYLOAD, USAGE_PAYLOAD, amount, category, count, execution_columns, get, id,
    moment, optional, small, status, usage_columns,
};
use crate::schema::meta;
use crate::sql::Sql;
use crate::store::{Hold, PostgresStore, Repeat};
use crate::{costs, records};

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
        let payloads = &Payloads::start(batch);
        self.write(Hold::Share, Repeat::Always, |mut conn| async move {
            let done = records::append(&mut conn, batch, payloads).await;
            (conn, done)
        })
        .await
    }

    async fn aggregate(&self, query: &AggregateQuery) -> Result<Aggregate> {
        self.snapshot(|mut conn| async move {
            let done = aggregate(&mut conn, query).await;
            (conn, done)
        })
        .await
    }

    async fn fold(&self) -> Result<Folded> {
        Ok(Folded::default())
    }

    async fn rebuild(&self, _: Rebuild) -> Result<Rebuilt> {
        Ok(Rebuilt::default())
    }

    async fn usage(&self, id: UsageId) -> Result<Option<Usage>> {
        let id = Uuid::from_bytes(id.to_bytes());
        let found = self.read(|mut conn| async move {
            let row = query(ONE_USAGE).bind(id).fetch_optional(&mut *conn).await;
            (conn, row.map_err(Fault::from).and_then(|row| optional(row, |row| usage(&row))))
        });
        found.await
    }

    async fn execution(&self, id: ExecutionId) -> Result<Option<LlmExecution>> {
        let id = Uuid::from_bytes(id.to_bytes());
        let found = self.read(|mut conn| async move {
            let row = query(ONE_EXECUTION).bind(id).fetch_optional(&mut *conn).await;
            (conn, row.map_err(Fault::from).and_then(|row| optional(row, |row| execution(&row))))
        });
        found.await
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
        let rows = self.read(|mut conn| async move {
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
            let rows = sql.query().fetch_all(&mut *conn).await;
            (conn, rows.map_err(Fault::from))
        });
        let rows = rows.await?;
        let items = self.compute(move || rows.iter().map(usage).collect()).await?;
        let cursor = |usage: &Usage| Cursor::Usage(usage.created_at, usage.id.to_bytes());
        Ok(Page::from_overread(items, query.page.limit, cursor))
    }

    async fn list_executions(&self, query: &RecordQuery) -> Result<Page<LlmExecution>> {
        let after = match &query.page.after {
            None => None,
            Some(Cursor::Execution(at, id)) => Some((*at, *id)),
            Some(other) => return Err(other.foreign()),
        };
        let rows = self.read(|mut conn| async move {
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
            let rows = sql.query().fetch_all(&mut *conn).await;
            (conn, rows.map_err(Fault::from))
        });
        let rows = rows.await?;
        let items = self.compute(move || rows.iter().map(execution).collect()).await?;
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
        self.write(Hold::Share, Repeat::Uncommitted, |mut conn| async move {
            let done = costs::revise(&mut conn, revisions).await;
            (conn, done)
        })
        .await
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

    async fn raw_horizon(&self) -> Result<Option<Timestamp>> {
        let micros = self.read(|mut conn| async move {
            let micros = meta(&mut conn, RAW_HORIZON).await;
            (conn, micros)
        });
        micros.await?.map(Timestamp::from_micros).transpose()
    }
}

/// The usage of a row, with its payload.
fn usage(row: &PgRow) -> Outcome<Usage> {
    Ok(Usage { payload: payload(row, USAGE_PAYLOAD)?, ..rows::usage(row)? })
}

/// The execution of a row, with its payload.
fn execution(row: &PgRow) -> Outcome<LlmExecution> {
    Ok(LlmExecution { payload: payload(row, EXECUTION_PAYLOAD)?, ..rows::execution(row)? })
}

fn payload<T: DeserializeOwned>(row: &PgRow, column: usize) -> Outcome<Option<T>> {
    optional(get::<Option<&[u8]>>(row, column)?, |data| Ok(codec::decode(data)?))
}

/// The labels that were met in the rows of a sum: they are few, and each is made once.
#[derive(Default)]
struct Labels(HashMap<String, Label>);

impl Labels {
    fn get(&mut self, row: &PgRow, column: usize) -> Outcome<Label> {
        let text: &str = get(row, column)?;
        if let Some(label) = self.0.get(text) {
            return Ok(label.clone());
        }
        let label = rows::label(row, column)?;
        self.0.insert(text.to_owned(), label.clone());
        Ok(label)
    }
}

async fn aggregate(conn: &mut PgConnection, query: &AggregateQuery) -> Outcome<Aggregate> {
    let mut recount = Recount::new(query);
    if !query.needs_execution() {
        sum_usages(conn, query, &mut recount).await?;
    }
    sum_executions(conn, query, &mut recount).await?;
    Ok(Aggregate { rows: recount.finish(), reading: Reading::default() })
}

/// What rows of sums have in common: what the filter names, which the statement saw to.
fn blank(query: &AggregateQuery) -> Attribution {
    let filter = &query.filter;
    Attribution {
        prompt: filter.prompt.unwrap_or(PromptId::from_bytes([0; 16])),
        version: filter.version.unwrap_or(0),
        environment: filter.environment.clone().unwrap_or_else(|| Label::lossy("")),
        session: filter.session.clone(),
        user: filter.user.clone(),
    }
}

/// Columns that only a query that groups by them reads; others are not sent.
fn grouped(
    sql: &mut Sql,
    query: &AggregateQuery,
    columns: &[(Dimension, &'static str, &'static str)],
) {
    for (dimension, column, none) in columns {
        sql.push(if query.group_by.contains(dimension) { column } else { none });
    }
}

const OF_BOTH: [(Dimension, &str, &str); 5] = [
    (Dimension::Prompt, ", r.prompt", ", NULL::uuid"),
    (Dimension::Version, ", r.version", ", NULL::bigint"),
    (Dimension::Environment, ", r.environment", ", NULL::text"),
    (Dimension::Session, ", r.session", ", NULL::text"),
    (Dimension::User, ", r.user_id", ", NULL::text"),
];

const OF_EXECUTIONS: [(Dimension, &str, &str); 2] = [
    (Dimension::Provider, ", r.provider", ", NULL::text"),
    (Dimension::Model, ", r.model", ", NULL::text"),
];

/// Sets what a query groups by to what the columns of [`OF_BOTH`] from the second on say.
fn read_grouped(
    row: &PgRow,
    query: &AggregateQuery,
    labels: &mut Labels,
    of: &mut Attribution,
) -> Outcome<()> {
    if query.group_by.contains(&Dimension::Prompt) {
        of.prompt = PromptId::from_bytes(id(row, 1)?);
    }
    if query.group_by.contains(&Dimension::Version) {
        of.version = small(row, 2)?;
    }
    if query.group_by.contains(&Dimension::Environment) {
        of.environment = labels.get(row, 3)?;
    }
    if query.group_by.contains(&Dimension::Session) {
        of.session = rows::maybe_label(row, 4)?;
    }
    if query.group_by.contains(&Dimension::User) {
        of.user = rows::maybe_label(row, 5)?;
    }
    Ok(())
}

async fn sum_usages(
    conn: &mut PgConnection,
    query: &AggregateQuery,
    recount: &mut Recount<'_>,
) -> Outcome<()> {
    let mut sql = Sql::new("SELECT r.created_at");
    grouped(&mut sql, query, &OF_BOTH);
    sql.push(" FROM prompt_engine_usages AS r WHERE TRUE");
    sql.range(&query.range);
    sql.attribution(&query.filter);
    let mut usage = Usage {
        id: UsageId::from_bytes([0; 16]),
        attribution: blank(query),
        created_at: Timestamp::MIN,
        payload: None,
    };
    let mut labels = Labels::default();
    let mut rows = sql.query().fetch(conn);
    while let Some(row) = rows.try_next().await? {
        usage.created_at = moment(&row, 0)?;
        read_grouped(&row, query, &mut labels, &mut usage.attribution)?;
        recount.usage(&usage);
    }
    Ok(())
}

async fn sum_executions(
    conn: &mut PgConnection,
    query: &AggregateQuery,
    recount: &mut Recount<'_>,
) -> Outcome<()> {
    let mut sql = Sql::new("SELECT r.created_at");
    grouped(&mut sql, query, &OF_BOTH);
    grouped(&mut sql, query, &OF_EXECUTIONS);
    sql.push(
        ", r.status, r.error_category, r.cost_kind, r.cost_reason, r.cost_pico, r.latency_ms,
         r.time_to_first_token_ms, r.input, r.output, r.cache_read, r.cache_write,
         r.cache_write_1h, r.reasoning, r.audio_input, r.audio_output
         FROM prompt_engine_llm_executions AS r WHERE TRUE",
    );
    sql.range(&query.range);
    sql.execution(&query.filter);
    let none = || Label::lossy("");
    let mut execution = LlmExecution::pending(
        ExecutionId::from_bytes([0; 16]),
        UsageId::from_bytes([0; 16]),
        blank(query),
        query.filter.provider.clone().unwrap_or_else(none),
        query.filter.model.clone().unwrap_or_else(none),
        Timestamp::MIN,
    );
    let mut labels = Labels::default();
    let mut rows = sql.query().fetch(conn);
    while let Some(row) = rows.try_next().await? {
        execution.created_at = moment(&row, 0)?;
        read_grouped(&row, query, &mut labels, &mut execution.attribution)?;
        if query.group_by.contains(&Dimension::Provider) {
            execution.provider = labels.get(&row, 6)?;
        }
        if query.group_by.contains(&Dimension::Model) {
            execution.model = labels.get(&row, 7)?;
        }
        execution.status = status(&row, 8)?;
        execution.error_category = category(&row, 9)?;
        execution.cost = amount(&row, 10)?;
        execution.latency_ms = count(&row, 13)?;
        execution.time_to_first_token_ms = count(&row, 14)?;
        execution.tokens = rows::tokens(&row, 15)?;
        recount.execution(&execution);
    }
    Ok(())
}
