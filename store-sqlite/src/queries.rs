//! The [`RecordStore`] of the file: sums, lists, single records.
//! Sums read the cells, the changes and the rows that core's `Plan` names, and core's `Tally` adds them
//! up, so that what a sum means is decided in one place. One answer is one read transaction.

mod slowest;

use prompt_engine_core::codec::{self, Packs};
use prompt_engine_core::cube::{Plan, Stretch, Tally};
use prompt_engine_core::{
    Aggregate, AggregateQuery, Appended, Attribution, CostRevision, Cursor, Dimension, ExecutionId,
    Filter, Folded, Label, LlmExecution, Order, Page, PastCost, PromptId, Prune, Pruned,
    PrunedSums, Rebuild, Rebuilt, Record, RecordQuery, RecordStore, Restored, Result, Revised,
    Status, TimeRange, Timestamp, Usage, UsageId,
};
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

use crate::cells;
use crate::error::Outcome;
use crate::payloads;
use crate::prune::{self, RAW_HORIZON};
use crate::records;
use crate::rows::{
    self, EXECUTION_PAYLOAD, USAGE_PAYLOAD, amount, category, execution_columns, moment, optional,
    status, usage_columns,
};
use crate::schema::meta;
use crate::store::SqliteStore;
use crate::terms::{Kind, TermReader, TermWriter, Terms};

/// Free pages given back to the file system after a batch of pruning: 16 MiB.
const VACUUM_PAGES: &str = "PRAGMA incremental_vacuum(1024)";

#[async_trait::async_trait]
impl RecordStore for SqliteStore {
    async fn append(&self, records: &[Record]) -> Result<Appended> {
        let Some(earliest) = records.iter().map(Record::created_at).min() else {
            return Ok(Appended::default());
        };
        let encoding = codec::encode_ahead(records)?;
        let written = self.write(
            move |store, conn| {
                let mut terms = TermWriter::new(store.terms(), conn);
                let (appended, due) = records::append(conn, &mut terms, earliest, encoding)?;
                Ok((appended, due, terms.finish()))
            },
            |store, _, (appended, due, terms)| {
                terms.remember(store.terms());
                Ok((appended, due))
            },
        );
        let (appended, due) = written.await?;
        self.fold_if(due);
        Ok(appended)
    }

    async fn aggregate(&self, query: &AggregateQuery) -> Result<Aggregate> {
        let query = query.clone();
        self.read(move |store, conn| {
            let mut terms = TermReader::new(store.terms(), conn);
            let horizon = optional(meta(conn, RAW_HORIZON)?, moment)?;
            let extent = if Plan::needs_extent(&query) { cells::extent(conn)? } else { None };
            let mut plan = Plan::new(&query, horizon, extent);
            loop {
                let mut tally = Tally::new(&query, &plan)?;
                cells::read(conn, &plan, &mut tally)?;
                for stretch in plan.records() {
                    if !query.needs_execution() {
                        sum_usages(conn, &mut terms, &query, *stretch, &mut tally)?;
                    }
                    sum_executions(conn, &mut terms, &query, *stretch, "", &mut tally)?;
                }
                for stretch in plan.pending() {
                    let pending = " AND status = 0";
                    sum_executions(conn, &mut terms, &query, stretch, pending, &mut tally)?;
                }
                match tally.finish() {
                    Ok(answer) => return Ok(answer),
                    Err(anew) => plan = *anew,
                }
            }
        })
        .await
    }

    async fn fold(&self) -> Result<Folded> {
        self.write(|_, conn| cells::fold(conn), |_, _, (folded, _)| Ok(folded)).await
    }

    async fn rebuild(&self, part: Rebuild) -> Result<Rebuilt> {
        let rebuild = move |_: &Self, conn: &Connection| {
            let terms = Terms::default();
            cells::rebuild(conn, &mut TermReader::new(&terms, conn), part)
        };
        self.write(rebuild, |_, _, rebuilt| Ok(rebuilt)).await
    }

    async fn restore(&self, sums: &[PrunedSums]) -> Result<Restored> {
        let sums = sums.to_vec();
        self.write(move |_, conn| cells::restore(conn, &sums), |_, _, done| Ok(done)).await
    }

    async fn usage(&self, id: UsageId) -> Result<Option<Usage>> {
        self.read(move |store, conn| {
            let mut terms = TermReader::new(store.terms(), conn);
            let mut select = conn.prepare_cached(concat!(
                "SELECT ",
                usage_columns!(),
                ", payload FROM prompt_engine_usages WHERE id = ?"
            ))?;
            let mut rows = select.query([id.to_bytes()])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            let mut usage = rows::usage(row, &mut terms)?;
            usage.payload = payloads::read(conn, row.get(USAGE_PAYLOAD)?)?;
            Ok(Some(usage))
        })
        .await
    }

    async fn execution(&self, id: ExecutionId) -> Result<Option<LlmExecution>> {
        self.read(move |store, conn| {
            let mut terms = TermReader::new(store.terms(), conn);
            let mut select = conn.prepare_cached(concat!(
                "SELECT ",
                execution_columns!(),
                ", payload FROM prompt_engine_llm_executions WHERE id = ?"
            ))?;
            let mut rows = select.query([id.to_bytes()])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            let mut execution = rows::execution(row, &mut terms)?;
            execution.payload = payloads::read(conn, row.get(EXECUTION_PAYLOAD)?)?;
            Ok(Some(execution))
        })
        .await
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
        let (query, limit) = (query.clone(), query.page.limit);
        let found = self.read(move |store, conn| {
            let mut terms = TermReader::new(store.terms(), conn);
            let mut sql = Sql::new(concat!("SELECT ", usage_columns!()));
            sql.payload(query.payloads);
            sql.push(" FROM prompt_engine_usages WHERE TRUE");
            sql.range(&query.range);
            sql.attribution(&query.filter, &terms)?;
            if let Some(id) = query.usage {
                sql.and(" AND id = ?", id.to_bytes().to_vec());
            }
            sql.ordered(query.order, after, limit);
            let mut select = conn.prepare_cached(&sql.text)?;
            let mut rows = select.query(params_from_iter(&sql.values))?;
            let (mut found, mut packs) = (Vec::new(), Packs::default());
            while let Some(row) = rows.next()? {
                let mut usage = rows::usage(row, &mut terms)?;
                usage.payload = payloads::decoded(conn, &mut packs, row.get(USAGE_PAYLOAD)?)?;
                found.push(usage);
            }
            Ok(found)
        });
        let cursor = |usage: &Usage| Cursor::Usage(usage.created_at, usage.id.to_bytes());
        Ok(Page::from_overread(found.await?, limit, cursor))
    }

    async fn list_executions(&self, query: &RecordQuery) -> Result<Page<LlmExecution>> {
        let after = match &query.page.after {
            None => None,
            Some(Cursor::Execution(at, id)) => Some((*at, *id)),
            Some(other) => return Err(other.foreign()),
        };
        let (query, limit) = (query.clone(), query.page.limit);
        let found = self.read(move |store, conn| {
            let mut terms = TermReader::new(store.terms(), conn);
            let mut sql = Sql::new(concat!("SELECT ", execution_columns!()));
            sql.payload(query.payloads);
            sql.push(" FROM prompt_engine_llm_executions WHERE TRUE");
            sql.range(&query.range);
            sql.execution(&query.filter, &terms)?;
            if let Some(id) = query.usage {
                sql.and(" AND usage_id = ?", id.to_bytes().to_vec());
            }
            sql.ordered(query.order, after, limit);
            let mut select = conn.prepare_cached(&sql.text)?;
            let mut rows = select.query(params_from_iter(&sql.values))?;
            let (mut found, mut packs) = (Vec::new(), Packs::default());
            while let Some(row) = rows.next()? {
                let mut execution = rows::execution(row, &mut terms)?;
                let data = row.get(EXECUTION_PAYLOAD)?;
                execution.payload = payloads::decoded(conn, &mut packs, data)?;
                found.push(execution);
            }
            Ok(found)
        });
        let cursor = |execution: &LlmExecution| {
            Cursor::Execution(execution.created_at, execution.id.to_bytes())
        };
        Ok(Page::from_overread(found.await?, limit, cursor))
    }

    async fn slowest_executions(
        &self,
        range: &TimeRange,
        filter: &Filter,
        limit: u32,
    ) -> Result<Vec<LlmExecution>> {
        let (range, filter) = (*range, filter.clone());
        self.read(move |store, conn| {
            let mut terms = TermReader::new(store.terms(), conn);
            slowest::slowest(conn, &mut terms, &range, &filter, limit)
        })
        .await
    }

    async fn revise_costs(&self, revisions: &[CostRevision]) -> Result<Vec<Revised>> {
        let revisions = revisions.to_vec();
        let written = self.write(
            move |store, conn| {
                let mut terms = TermWriter::new(store.terms(), conn);
                let (outcomes, due) = records::revise_costs(conn, &mut terms, &revisions)?;
                Ok((outcomes, due, terms.finish()))
            },
            |store, _, (outcomes, due, terms)| {
                terms.remember(store.terms());
                Ok((outcomes, due))
            },
        );
        let (outcomes, due) = written.await?;
        self.fold_if(due);
        Ok(outcomes)
    }

    async fn past_costs(&self, ids: &[ExecutionId]) -> Result<Vec<Vec<PastCost>>> {
        let ids = ids.to_vec();
        self.read(move |store, conn| {
            let mut terms = TermReader::new(store.terms(), conn);
            ids.into_iter().map(|id| records::past_costs(conn, &mut terms, id)).collect()
        })
        .await
    }

    async fn prune(&self, prune: &Prune) -> Result<Pruned> {
        let prune = *prune;
        self.write(
            move |_, conn| prune::prune(conn, &prune),
            |_, conn, pruned| {
                // What was deleted is committed: a vacuum that finds the file busy is for next time.
                if let Err(error) = vacuum(conn) {
                    tracing::debug!(%error, "free pages were not given back");
                }
                Ok(pruned)
            },
        )
        .await
    }

    /// Free pages were given back as they came.
    async fn compact(&self) -> Result<()> {
        Ok(())
    }

    async fn raw_horizon(&self) -> Result<Option<Timestamp>> {
        self.read(|_, conn| optional(meta(conn, RAW_HORIZON)?, moment)).await
    }
}

/// Gives free pages back. The statement moves one page a step, so it must be stepped to its end.
fn vacuum(conn: &Connection) -> rusqlite::Result<()> {
    let mut statement = conn.prepare_cached(VACUUM_PAGES)?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// A statement made of fixed pieces, and the values for its parameters.
struct Sql {
    text: String,
    values: Vec<Value>,
}

impl Sql {
    fn new(start: &'static str) -> Self {
        Self { text: start.to_owned(), values: Vec::new() }
    }

    fn push(&mut self, piece: &'static str) {
        self.text.push_str(piece);
    }

    fn and(&mut self, piece: &'static str, value: impl Into<Value>) {
        self.push(piece);
        self.values.push(value.into());
    }

    fn stretch(&mut self, stretch: Stretch) {
        self.and(" AND created_at >= ?", stretch.from);
        self.and(" AND created_at < ?", stretch.to);
    }

    fn range(&mut self, range: &TimeRange) {
        if let Some(from) = range.from {
            self.and(" AND created_at >= ?", from.as_micros());
        }
        if let Some(to) = range.to {
            self.and(" AND created_at < ?", to.as_micros());
        }
    }

    /// `column = key of value`; no row matches a value that has no key.
    fn term(
        &mut self,
        piece: &'static str,
        terms: &TermReader<'_>,
        kind: Kind,
        value: Option<&[u8]>,
    ) -> Outcome<()> {
        if let Some(value) = value {
            match terms.key(kind, value)? {
                Some(key) => self.and(piece, key),
                None => self.push(" AND FALSE"),
            }
        }
        Ok(())
    }

    fn attribution(&mut self, filter: &Filter, terms: &TermReader<'_>) -> Outcome<()> {
        let prompt = filter.prompt.map(PromptId::to_bytes);
        let environment = filter.environment.as_ref().map(|label| label.as_bytes());
        let prompt = prompt.as_ref().map(<[u8; 16]>::as_slice);
        self.term(" AND prompt = ?", terms, Kind::Prompt, prompt)?;
        self.term(" AND environment = ?", terms, Kind::Environment, environment)?;
        if let Some(version) = filter.version {
            self.and(" AND version = ?", i64::from(version));
        }
        if let Some(session) = &filter.session {
            self.and(" AND session = ?", session.as_str().to_owned());
        }
        if let Some(user) = &filter.user {
            self.and(" AND user = ?", user.as_str().to_owned());
        }
        Ok(())
    }

    fn execution(&mut self, filter: &Filter, terms: &TermReader<'_>) -> Outcome<()> {
        self.attribution(filter, terms)?;
        let provider = filter.provider.as_ref().map(|label| label.as_bytes());
        let model = filter.model.as_ref().map(|label| label.as_bytes());
        self.term(" AND provider = ?", terms, Kind::Provider, provider)?;
        self.term(" AND model = ?", terms, Kind::Model, model)?;
        if filter.statuses.is_empty() {
            return Ok(());
        }
        // The words of the partial indexes, so that they can be used.
        if filter.statuses.iter().all(|status| *status == Status::Pending) {
            self.push(" AND status = 0");
        } else if filter.statuses.iter().all(|status| status.is_failure()) {
            self.push(" AND status IN (2, 3)");
        }
        let mask = filter.statuses.iter().fold(0_i64, |mask, status| mask | 1 << status.code());
        self.and(" AND (? >> status) & 1", mask);
        Ok(())
    }

    /// One more column: what the payload of the row says, or nothing.
    fn payload(&mut self, wanted: bool) {
        self.push(if wanted {
            ", (SELECT p.data FROM prompt_engine_payloads AS p WHERE p.id = payload)"
        } else {
            ", NULL"
        });
    }

    fn ordered(&mut self, order: Order, after: Option<(Timestamp, [u8; 16])>, limit: u32) {
        let (behind, by) = match order {
            Order::NewestFirst => {
                (" AND (created_at, id) < (?", " ORDER BY created_at DESC, id DESC LIMIT ?")
            }
            Order::OldestFirst => {
                (" AND (created_at, id) > (?", " ORDER BY created_at, id LIMIT ?")
            }
        };
        if let Some((at, id)) = after {
            self.and(behind, at.as_micros());
            self.and(", ?)", id.to_vec());
        }
        self.and(by, i64::from(limit) + 1);
    }
}

/// Remembers the last thing that a key named: rows that follow each other tend to agree.
struct Last<T>(Option<(i64, T)>);

impl<T: Clone> Last<T> {
    fn get(&mut self, key: i64, read: impl FnOnce(i64) -> Outcome<T>) -> Outcome<T> {
        match &self.0 {
            Some((last, value)) if *last == key => Ok(value.clone()),
            _ => {
                let value = read(key)?;
                self.0 = Some((key, value.clone()));
                Ok(value)
            }
        }
    }
}

/// What rows of sums have in common: the filter's session and user, which the statement saw to.
fn blank(query: &AggregateQuery) -> Attribution {
    Attribution {
        prompt: PromptId::from_bytes([0; 16]),
        version: 0,
        environment: Label::lossy(""),
        session: query.filter.session.clone(),
        user: query.filter.user.clone(),
    }
}

/// The session and the user of a row, from column `first`, where a query groups by them.
fn who(row: &Row<'_>, first: usize, query: &AggregateQuery, of: &mut Attribution) -> Outcome<()> {
    if query.group_by.contains(&Dimension::Session) {
        of.session = rows::text(row.get_ref(first)?)?;
    }
    if query.group_by.contains(&Dimension::User) {
        of.user = rows::text(row.get_ref(first + 1)?)?;
    }
    Ok(())
}

fn sum_usages(
    conn: &Connection,
    terms: &mut TermReader<'_>,
    query: &AggregateQuery,
    stretch: Stretch,
    tally: &mut Tally<'_>,
) -> Outcome<()> {
    let mut sql = Sql::new(
        "SELECT created_at, prompt, version, environment, session, user
         FROM prompt_engine_usages WHERE TRUE",
    );
    sql.stretch(stretch);
    sql.attribution(&query.filter, terms)?;
    let mut select = conn.prepare_cached(&sql.text)?;
    let mut rows = select.query(params_from_iter(&sql.values))?;
    let mut usage = Usage {
        id: UsageId::from_bytes([0; 16]),
        attribution: blank(query),
        created_at: Timestamp::MIN,
        payload: None,
    };
    let (mut prompts, mut environments) = (Last(None), Last(None));
    while let Some(row) = rows.next()? {
        usage.created_at = moment(row.get(0)?)?;
        usage.attribution.prompt = prompts.get(row.get(1)?, |key| terms.prompt(key))?;
        usage.attribution.version = row.get(2)?;
        usage.attribution.environment = environments.get(row.get(3)?, |key| terms.label(key))?;
        who(row, 4, query, &mut usage.attribution)?;
        tally.usage(&usage);
    }
    Ok(())
}

fn sum_executions(
    conn: &Connection,
    terms: &mut TermReader<'_>,
    query: &AggregateQuery,
    stretch: Stretch,
    also: &'static str,
    tally: &mut Tally<'_>,
) -> Outcome<()> {
    let mut sql = Sql::new(
        "SELECT created_at, prompt, version, environment, provider, model, status, error_category,
                cost_kind, cost_reason, cost_pico, latency_ms, time_to_first_token_ms, input,
                output, cache_read, cache_write, cache_write_1h, reasoning, audio_input,
                audio_output, session, user
         FROM prompt_engine_llm_executions WHERE TRUE",
    );
    sql.stretch(stretch);
    sql.push(also);
    sql.execution(&query.filter, terms)?;
    let mut select = conn.prepare_cached(&sql.text)?;
    let mut rows = select.query(params_from_iter(&sql.values))?;
    let mut execution = LlmExecution::pending(
        ExecutionId::from_bytes([0; 16]),
        UsageId::from_bytes([0; 16]),
        blank(query),
        Label::lossy(""),
        Label::lossy(""),
        Timestamp::MIN,
    );
    let (mut prompts, mut environments) = (Last(None), Last(None));
    let (mut providers, mut models) = (Last(None), Last(None));
    while let Some(row) = rows.next()? {
        execution.created_at = moment(row.get(0)?)?;
        let of = &mut execution.attribution;
        of.prompt = prompts.get(row.get(1)?, |key| terms.prompt(key))?;
        of.version = row.get(2)?;
        of.environment = environments.get(row.get(3)?, |key| terms.label(key))?;
        who(row, 21, query, of)?;
        execution.provider = providers.get(row.get(4)?, |key| terms.label(key))?;
        execution.model = models.get(row.get(5)?, |key| terms.label(key))?;
        execution.status = status(row.get(6)?)?;
        execution.error_category = optional(row.get(7)?, category)?;
        execution.cost = amount(row.get(8)?, row.get(9)?, row.get(10)?)?;
        execution.latency_ms = rows::count(row.get(11)?);
        execution.time_to_first_token_ms = rows::count(row.get(12)?);
        execution.tokens = rows::tokens(row, 13)?;
        tally.execution(&execution);
    }
    Ok(())
}
