//! The [`RecordStore`] of the file: sums, lists, single records.
//! Sums read the cells, the changes and the rows that core's `Plan` names, and core's `Tally` adds
//! them up, so that what a sum means is decided in one place. One answer is one read transaction.

mod slowest;

use prompt_engine_core::cube::{Plan, Tally};
use prompt_engine_core::{
    Aggregate, AggregateQuery, Appended, CostRevision, Cursor, ExecutionId, Filter, Folded,
    LlmExecution, Order, Page, PastCost, Prune, Pruned, PrunedSums, Rebuild, Rebuilt, Record,
    RecordQuery, RecordStore, Restored, Result, Revised, Status, TimeRange, Timestamp, Usage,
    UsageId, codec,
};

use crate::cells;
use crate::error::Outcome;
use crate::layout::{
    EXECUTIONS, Entry, Id, META, RowKey, Stretch, USAGES, moment, row_key, row_key_of,
};
use crate::payloads::PayloadReader;
use crate::prune::{self, RAW_HORIZON};
use crate::records;
use crate::rows::{read_execution, read_usage};
use crate::store::{RedbStore, meta};
use crate::terms::TermReader;
use crate::walk::{Walk, Way, way_of_executions, way_of_usages};

#[async_trait::async_trait]
impl RecordStore for RedbStore {
    async fn append(&self, records: &[Record]) -> Result<Appended> {
        if records.is_empty() {
            return Ok(Appended::default());
        }
        let encoding = codec::encode_ahead(records)?;
        let (appended, due) =
            self.write_records(move |txn, terms| records::append(txn, terms, encoding)).await?;
        self.fold_if(due);
        Ok(appended)
    }

    async fn aggregate(&self, query: &AggregateQuery) -> Result<Aggregate> {
        let query = query.clone();
        self.read(move |txn, terms| {
            let horizon = meta(&txn.open_table(META)?, RAW_HORIZON)?.map(moment).transpose()?;
            let extent = if Plan::needs_extent(&query) { cells::extent(txn)? } else { None };
            let mut plan = Plan::new(&query, horizon, extent);
            loop {
                let mut tally = Tally::new(&query, &plan)?;
                cells::read(txn, &plan, &mut tally)?;
                for stretch in plan.records().iter().map(|stretch| Stretch::of_time(*stretch)) {
                    if !query.needs_execution() {
                        let way = way_of_usages(&query.filter, &terms)?;
                        let mut walk = Walk::new(txn, &USAGES, &stretch, Order::OldestFirst, way)?;
                        while let Some((row_key, row)) = walk.next()? {
                            tally.usage(&read_usage(row_key, row.value(), &terms)?);
                        }
                    }
                    let way = way_of_executions(&query.filter, None, &terms)?;
                    sum_executions(txn, &terms, &stretch, way, &mut tally)?;
                }
                for stretch in plan.pending().map(Stretch::of_time) {
                    let way = Way::Index(vec![Entry::Status(Status::Pending.code()).prefix()]);
                    sum_executions(txn, &terms, &stretch, way, &mut tally)?;
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
        self.fold_once().await
    }

    async fn rebuild(&self, part: Rebuild) -> Result<Rebuilt> {
        self.rebuild_cells(move |txn, terms| cells::rebuild(txn, terms, part)).await
    }

    async fn restore(&self, sums: &[PrunedSums]) -> Result<Restored> {
        let sums = sums.to_vec();
        self.rebuild_cells(move |txn, _| cells::restore(txn, &sums)).await
    }

    async fn usage(&self, id: UsageId) -> Result<Option<Usage>> {
        let id = id.to_bytes();
        self.read(move |txn, terms| {
            let Some(at) = txn.open_table(USAGES.ids)?.get(id)? else { return Ok(None) };
            let row_key = row_key_of(id, at.value())?;
            let rows = txn.open_table(USAGES.rows)?;
            let Some(row) = rows.get(row_key)? else { return Ok(None) };
            let mut usage = read_usage(row_key, row.value(), &terms)?;
            usage.payload = PayloadReader::open(txn, &USAGES)?.read(row_key)?;
            Ok(Some(usage))
        })
        .await
    }

    async fn execution(&self, id: ExecutionId) -> Result<Option<LlmExecution>> {
        let id = id.to_bytes();
        self.read(move |txn, terms| {
            let Some(at) = txn.open_table(EXECUTIONS.ids)?.get(id)? else { return Ok(None) };
            let row_key = row_key_of(id, at.value())?;
            let rows = txn.open_table(EXECUTIONS.rows)?;
            let Some(row) = rows.get(row_key)? else { return Ok(None) };
            let mut execution = read_execution(row_key, row.value(), &terms)?;
            execution.payload = PayloadReader::open(txn, &EXECUTIONS)?.read(row_key)?;
            Ok(Some(execution))
        })
        .await
    }

    async fn list_usages(&self, query: &RecordQuery) -> Result<Page<Usage>> {
        let after = match &query.page.after {
            None => None,
            Some(Cursor::Usage(at, id)) => Some(row_key(*at, *id)),
            Some(other) => return Err(other.foreign()),
        };
        if query.filter.needs_execution() {
            return Ok(Page { items: Vec::new(), next: None });
        }
        let (query, limit) = (query.clone(), query.page.limit);
        let found = self.read(move |txn, terms| {
            let mut payloads = PayloadReader::open(txn, &USAGES)?;
            let mut found = Vec::new();
            let mut walk = usage_walk(txn, &terms, &query, after)?;
            while let Some((row_key, row)) = walk.next()? {
                let mut usage = read_usage(row_key, row.value(), &terms)?;
                if !query.filter.matches_usage(&usage) {
                    continue;
                }
                if query.payloads {
                    usage.payload = payloads.read(row_key)?;
                }
                found.push(usage);
                if found.len() > limit as usize {
                    break;
                }
            }
            Ok(found)
        });
        let cursor = |usage: &Usage| Cursor::Usage(usage.created_at, usage.id.to_bytes());
        Ok(Page::from_overread(found.await?, limit, cursor))
    }

    async fn list_executions(&self, query: &RecordQuery) -> Result<Page<LlmExecution>> {
        let after = match &query.page.after {
            None => None,
            Some(Cursor::Execution(at, id)) => Some(row_key(*at, *id)),
            Some(other) => return Err(other.foreign()),
        };
        let (query, limit) = (query.clone(), query.page.limit);
        let found = self.read(move |txn, terms| {
            let mut payloads = PayloadReader::open(txn, &EXECUTIONS)?;
            let stretch = Stretch::new(&query.range, query.order, after);
            let way = way_of_executions(&query.filter, query.usage.map(UsageId::to_bytes), &terms)?;
            let mut walk = Walk::new(txn, &EXECUTIONS, &stretch, query.order, way)?;
            let mut found = Vec::new();
            while let Some((row_key, row)) = walk.next()? {
                let mut execution = read_execution(row_key, row.value(), &terms)?;
                if !query.filter.matches_execution(&execution) {
                    continue;
                }
                if query.payloads {
                    execution.payload = payloads.read(row_key)?;
                }
                found.push(execution);
                if found.len() > limit as usize {
                    break;
                }
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
        self.read(move |txn, terms| slowest::slowest(txn, &terms, &range, &filter, limit)).await
    }

    async fn revise_costs(&self, revisions: &[CostRevision]) -> Result<Vec<Revised>> {
        let revisions = revisions.to_vec();
        let (outcomes, due) = self
            .write_records(move |txn, terms| records::revise_costs(txn, terms, &revisions))
            .await?;
        self.fold_if(due);
        Ok(outcomes)
    }

    async fn past_costs(&self, ids: &[ExecutionId]) -> Result<Vec<Vec<PastCost>>> {
        let ids = ids.to_vec();
        self.read(move |txn, terms| records::past_costs(txn, terms, &ids)).await
    }

    async fn prune(&self, prune: &Prune) -> Result<Pruned> {
        let prune = *prune;
        self.write_records(move |txn, terms| prune::prune(txn, terms, &prune)).await
    }

    async fn compact(&self) -> Result<()> {
        self.compact_file().await
    }

    async fn raw_horizon(&self) -> Result<Option<Timestamp>> {
        self.read(|txn, _| {
            let horizon = meta(&txn.open_table(META)?, RAW_HORIZON)?;
            horizon.map(moment).transpose()
        })
        .await
    }
}

/// Adds the executions of a stretch, along `way`, to `tally`.
fn sum_executions(
    txn: &redb::ReadTransaction,
    terms: &TermReader<'_>,
    stretch: &Stretch,
    way: Way,
    tally: &mut Tally<'_>,
) -> Outcome<()> {
    let mut walk = Walk::new(txn, &EXECUTIONS, stretch, Order::OldestFirst, way)?;
    while let Some((row_key, row)) = walk.next()? {
        tally.execution(&read_execution(row_key, row.value(), terms)?);
    }
    Ok(())
}

/// The walk of a list of usages; where one is named, it goes past that one alone.
fn usage_walk(
    txn: &redb::ReadTransaction,
    terms: &TermReader<'_>,
    query: &RecordQuery,
    after: Option<RowKey>,
) -> Outcome<Walk> {
    let mut stretch = Stretch::new(&query.range, query.order, after);
    let Some(id) = query.usage else {
        let way = way_of_usages(&query.filter, terms)?;
        return Walk::new(txn, &USAGES, &stretch, query.order, way);
    };
    let id: Id = id.to_bytes();
    let at = txn.open_table(USAGES.ids)?.get(id)?;
    match at.map(|at| row_key_of(id, at.value())).transpose()? {
        Some(row_key) => stretch.narrow_to(row_key),
        None => stretch.narrow_to_nothing(),
    }
    Walk::new(txn, &USAGES, &stretch, query.order, Way::Rows)
}
