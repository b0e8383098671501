//! The records that a sum reads one by one: what of them counts, and nothing else.
//! Invariant: however many stretches of time a scan has, it is one statement, hence one snapshot.

use std::collections::HashMap;

use futures::TryStreamExt;
use prompt_engine_core::cube::Stretch;
use prompt_engine_core::{
    AggregateQuery, Attribution, Dimension, ExecutionId, Label, LlmExecution, PromptId, Timestamp,
    Usage, UsageId,
};
use sqlx::PgConnection;
use sqlx::postgres::PgRow;

use crate::error::{Fault, Outcome};
use crate::rows::{self, amount, category, count, get, id, moment, small, status};
use crate::sql::Sql;

/// What a row of a scan is.
const USAGE: i16 = 0;
const EXECUTION: i16 = 1;
const CHANGES: i16 = 2;

/// What a scan finds.
pub(crate) enum Found<'a> {
    Usage(&'a Usage),
    Execution(&'a LlmExecution),
    /// A value of changes that the scan took away.
    Changes(Vec<u8>),
}

/// A statement that reads records.
pub(crate) struct Scan<'a> {
    query: &'a AggregateQuery,
    sql: Sql,
    parts: usize,
    takes_changes: bool,
}

/// Columns that only a query that groups by them reads; others are not sent.
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

/// The column behind all others.
const DATA: usize = 24;

impl<'a> Scan<'a> {
    /// A scan for `query`, whose range and buckets do not matter here.
    pub(crate) fn new(query: &'a AggregateQuery) -> Self {
        Self { query, sql: Sql::new(""), parts: 0, takes_changes: false }
    }

    /// The same as the cursor `records`.
    pub(crate) fn cursor(query: &'a AggregateQuery) -> Self {
        let sql = Sql::new("DECLARE records NO SCROLL CURSOR FOR ");
        Self { query, sql, parts: 0, takes_changes: false }
    }

    /// A scan that takes away all changes that are visible to it: what it reads are these, and the
    /// records that they belong to.
    pub(crate) fn taking_changes(query: &'a AggregateQuery) -> Self {
        let sql = Sql::new(
            "WITH taken AS (DELETE FROM prompt_engine_changes RETURNING data)
             SELECT 2::smallint, NULL::timestamptz, NULL::uuid, NULL::bigint, NULL::text,
                 NULL::text, NULL::text, NULL::text, NULL::text, NULL::smallint, NULL::smallint,
                 NULL::smallint, NULL::smallint, NULL::bigint, NULL::bigint, NULL::bigint,
                 NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint,
                 NULL::bigint, NULL::bigint, NULL::bigint, data
             FROM taken",
        );
        Self { query, sql, parts: 1, takes_changes: true }
    }

    /// How many stretches it reads, counted for each kind of record.
    pub(crate) fn parts(&self) -> usize {
        self.parts
    }

    /// Reads the usages of a stretch, too, that the filter names.
    pub(crate) fn usages(&mut self, of: Stretch) {
        self.part("SELECT 0::smallint, r.created_at");
        self.grouped(&OF_BOTH);
        self.sql.push(
            ", NULL::text, NULL::text, NULL::smallint, NULL::smallint, NULL::smallint,
             NULL::smallint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint,
             NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint",
        );
        self.from(" FROM prompt_engine_usages AS r WHERE TRUE", of);
        self.sql.attribution(&self.query.filter);
    }

    /// Reads the executions of a stretch, too, that the filter names.
    pub(crate) fn executions(&mut self, of: Stretch) {
        self.calls(of);
        self.sql.execution(&self.query.filter);
    }

    /// Reads the pending ones among them.
    pub(crate) fn pending(&mut self, of: Stretch) {
        self.calls(of);
        self.sql.push(" AND r.status = 0");
        self.sql.execution(&self.query.filter);
    }

    fn calls(&mut self, of: Stretch) {
        self.part("SELECT 1::smallint, r.created_at");
        self.grouped(&OF_BOTH);
        self.grouped(&OF_EXECUTIONS);
        self.sql.push(
            ", r.status, r.error_category, r.cost_kind, r.cost_reason, r.cost_pico, r.latency_ms,
             r.time_to_first_token_ms, r.input, r.output, r.cache_read, r.cache_write,
             r.cache_write_1h, r.reasoning, r.audio_input, r.audio_output",
        );
        self.from(" FROM prompt_engine_llm_executions AS r WHERE TRUE", of);
    }

    fn part(&mut self, select: &'static str) {
        if self.parts > 0 {
            self.sql.push(" UNION ALL ");
        }
        self.parts += 1;
        self.sql.push(select);
    }

    fn grouped(&mut self, columns: &[(Dimension, &'static str, &'static str)]) {
        for (dimension, column, none) in columns {
            self.sql.push(if self.query.group_by.contains(dimension) { column } else { none });
        }
    }

    fn from(&mut self, from: &'static str, of: Stretch) {
        if self.takes_changes {
            self.sql.push(", NULL::bytea");
        }
        self.sql.push(from);
        self.sql.stretch(of);
    }

    /// Calls `visit` with all that it reads.
    pub(crate) async fn run(
        mut self,
        conn: &mut PgConnection,
        mut visit: impl FnMut(Found<'_>) -> Outcome<()>,
    ) -> Outcome<()> {
        let mut reader = Reader::new(self.query);
        let mut rows = self.sql.query().fetch(conn);
        while let Some(row) = rows.try_next().await? {
            visit(reader.read(&row)?)?;
        }
        Ok(())
    }

    /// Opens the cursor.
    pub(crate) async fn open(mut self, conn: &mut PgConnection) -> Outcome<Reader<'a>> {
        self.sql.query().execute(conn).await?;
        Ok(Reader::new(self.query))
    }
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

/// Reads the rows of a scan.
pub(crate) struct Reader<'a> {
    query: &'a AggregateQuery,
    labels: Labels,
    usage: Usage,
    execution: LlmExecution,
}

impl<'a> Reader<'a> {
    fn new(query: &'a AggregateQuery) -> Self {
        let none = || Label::lossy("");
        let filter = &query.filter;
        // What the filter names, the statement saw to.
        let of = Attribution {
            prompt: filter.prompt.unwrap_or(PromptId::from_bytes([0; 16])),
            version: filter.version.unwrap_or(0),
            environment: filter.environment.clone().unwrap_or_else(none),
            session: filter.session.clone(),
            user: filter.user.clone(),
        };
        let usage = Usage {
            id: UsageId::from_bytes([0; 16]),
            attribution: of.clone(),
            created_at: Timestamp::MIN,
            payload: None,
        };
        let execution = LlmExecution::pending(
            ExecutionId::from_bytes([0; 16]),
            usage.id,
            of,
            filter.provider.clone().unwrap_or_else(none),
            filter.model.clone().unwrap_or_else(none),
            Timestamp::MIN,
        );
        Self { query, labels: Labels::default(), usage, execution }
    }

    pub(crate) fn read(&mut self, row: &PgRow) -> Outcome<Found<'_>> {
        match get(row, 0)? {
            USAGE => {
                self.usage.created_at = moment(row, 1)?;
                attribution(row, self.query, &mut self.labels, &mut self.usage.attribution)?;
                Ok(Found::Usage(&self.usage))
            }
            EXECUTION => self.execution(row),
            CHANGES => Ok(Found::Changes(get(row, DATA)?)),
            kind => Err(Fault::Row(format!("{kind} is no kind of record"))),
        }
    }

    fn execution(&mut self, row: &PgRow) -> Outcome<Found<'_>> {
        let Self { query, labels, execution, .. } = self;
        execution.created_at = moment(row, 1)?;
        attribution(row, query, labels, &mut execution.attribution)?;
        if query.group_by.contains(&Dimension::Provider) {
            execution.provider = labels.get(row, 7)?;
        }
        if query.group_by.contains(&Dimension::Model) {
            execution.model = labels.get(row, 8)?;
        }
        execution.status = status(row, 9)?;
        execution.error_category = category(row, 10)?;
        execution.cost = amount(row, 11)?;
        execution.latency_ms = count(row, 14)?;
        execution.time_to_first_token_ms = count(row, 15)?;
        execution.tokens = rows::tokens(row, 16)?;
        Ok(Found::Execution(execution))
    }
}

/// Sets what a query groups by to what the columns of [`OF_BOTH`] say.
fn attribution(
    row: &PgRow,
    query: &AggregateQuery,
    labels: &mut Labels,
    of: &mut Attribution,
) -> Outcome<()> {
    if query.group_by.contains(&Dimension::Prompt) {
        of.prompt = PromptId::from_bytes(id(row, 2)?);
    }
    if query.group_by.contains(&Dimension::Version) {
        of.version = small(row, 3)?;
    }
    if query.group_by.contains(&Dimension::Environment) {
        of.environment = labels.get(row, 4)?;
    }
    if query.group_by.contains(&Dimension::Session) {
        of.session = rows::maybe_label(row, 5)?;
    }
    if query.group_by.contains(&Dimension::User) {
        of.user = rows::maybe_label(row, 6)?;
    }
    Ok(())
}
