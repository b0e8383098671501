//! Reading everything that a store holds, a page at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Counts, Line, VERSION};
use crate::aggregate::{AggregateQuery, Detail};
use crate::error::{Error, ErrorKind, Result};
use crate::pruned::PrunedSums;
use crate::query::{Cursor, Order, PageQuery, RecordQuery};
use crate::record::LlmExecution;
use crate::store::Store;
use crate::time::{Bucket, BucketWidth, TimeRange, Timestamp, Zone};

/// Records of one page, each with its payload.
const RECORDS: u32 = 250;
/// Prompts, and versions, of one page.
const PROMPTS: u32 = 100;

/// An export under way: lines in pages of a bounded number.
///
/// It is no snapshot. What is written meanwhile may be in it or not; nothing that was there when it
/// began is left out.
#[derive(Debug)]
pub struct Export {
    store: Arc<dyn Store>,
    next: Stage,
    horizon: Option<Timestamp>,
    counts: Counts,
}

/// What comes next.
#[derive(Debug)]
enum Stage {
    Prices,
    Prompts(Option<Cursor>),
    RawHorizon,
    /// Of which days, the first perhaps from an hour on.
    Pruned(VecDeque<Timestamp>),
    Usages(Option<Cursor>),
    Executions(Option<Cursor>),
    End,
    Done,
}

impl Export {
    /// An export of all that `store` holds.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, next: Stage::Prices, horizon: None, counts: Counts::default() }
    }

    /// How much was read so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The next lines, perhaps none; `None` at the end.
    ///
    /// # Errors
    /// `Conflict` if records were pruned meanwhile, and whatever the store answers. It can be called
    /// again.
    pub async fn next(&mut self) -> Result<Option<Vec<Line>>> {
        let (mut lines, next) = match &self.next {
            Stage::Prices => (self.prices().await?, Stage::Prompts(None)),
            Stage::Prompts(after) => self.prompts(after.clone()).await?,
            Stage::RawHorizon => {
                self.horizon = self.store.raw_horizon().await?;
                let line = self.horizon.map(Line::RawHorizon);
                (line.into_iter().collect(), Stage::Pruned(self.days().await?))
            }
            Stage::Pruned(days) => self.pruned(days.clone()).await?,
            Stage::Usages(after) => self.usages(after.clone()).await?,
            Stage::Executions(after) => self.executions(after.clone()).await?,
            Stage::End => {
                self.check_horizon().await?;
                (vec![Line::End(self.counts)], Stage::Done)
            }
            Stage::Done => return Ok(None),
        };
        for line in &mut lines {
            line.sort_keys();
            self.counts.note(line);
        }
        self.next = next;
        Ok(Some(lines))
    }

    async fn prices(&self) -> Result<Vec<Line>> {
        let prices = self.store.cost_configs().await?.configs.into_iter().map(Line::Price);
        Ok([Line::PromptEngineExport(VERSION)].into_iter().chain(prices).collect())
    }

    async fn prompts(&self, after: Option<Cursor>) -> Result<(Vec<Line>, Stage)> {
        let page = self.store.list_prompts(&PageQuery { limit: PROMPTS, after }).await?;
        let mut lines = Vec::new();
        for prompt in page.items {
            // One that was added since the prompt was read is for a later export.
            let known = prompt.latest_version;
            let mut versions = Vec::new();
            let mut query = PageQuery { limit: PROMPTS, after: None };
            loop {
                let page = self.store.list_versions(prompt.id, &query).await?;
                versions.extend(page.items.into_iter().filter(|version| version.number <= known));
                match page.next {
                    Some(next) => query.after = Some(next),
                    None => break,
                }
            }
            lines.push(Line::Prompt(prompt));
            lines.extend(versions.into_iter().rev().map(Line::Version));
        }
        let next = match page.next {
            Some(next) => Stage::Prompts(Some(next)),
            None => Stage::RawHorizon,
        };
        Ok((lines, next))
    }

    /// The days before the raw horizon of which there are sums.
    async fn days(&self) -> Result<VecDeque<Timestamp>> {
        if self.horizon.is_none() {
            return Ok(VecDeque::new());
        }
        let query = AggregateQuery {
            range: TimeRange { from: None, to: self.horizon },
            bucket: Some(Bucket { width: BucketWidth::Day, zone: Zone::UTC }),
            detail: Detail::Sums,
            ..AggregateQuery::default()
        };
        let rows = self.store.aggregate(&query).await?.rows;
        Ok(rows.into_iter().filter_map(|row| row.key.bucket).collect())
    }

    /// The sums of the first of `days`, an hour at a time, so that they are few.
    async fn pruned(&self, mut days: VecDeque<Timestamp>) -> Result<(Vec<Line>, Stage)> {
        let Some(start) = days.pop_front() else { return Ok((Vec::new(), Stage::Usages(None))) };
        let hour = Bucket { width: BucketWidth::Hour, zone: Zone::UTC };
        let to = hour.next(start);
        let range =
            TimeRange { from: Some(start), to: self.horizon.map(|horizon| horizon.min(to)) };
        let sums = PrunedSums::of(&*self.store, range).await?;
        let day = Bucket { width: BucketWidth::Day, zone: Zone::UTC };
        if day.start_of(to) == day.start_of(start) && self.horizon.is_some_and(|end| to < end) {
            days.push_front(to);
        }
        Ok((sums.into_iter().map(Line::Pruned).collect(), Stage::Pruned(days)))
    }

    /// Checks that no records went while the export ran, which are then neither in its sums nor among
    /// its records.
    async fn check_horizon(&self) -> Result<()> {
        if self.store.raw_horizon().await? == self.horizon {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Conflict,
            "records were pruned while they were exported; export again",
        ))
    }

    async fn usages(&self, after: Option<Cursor>) -> Result<(Vec<Line>, Stage)> {
        let page = self.store.list_usages(&everything(after)).await?;
        let next = match page.next {
            Some(next) => Stage::Usages(Some(next)),
            None => Stage::Executions(None),
        };
        Ok((page.items.into_iter().map(Line::Usage).collect(), next))
    }

    async fn executions(&self, after: Option<Cursor>) -> Result<(Vec<Line>, Stage)> {
        let page = self.store.list_executions(&everything(after)).await?;
        let ids: Vec<_> = page.items.iter().map(|execution| execution.id).collect();
        let past = self.store.past_costs(&ids).await?;
        let mut lines = Vec::with_capacity(page.items.len());
        for (mut execution, mut costs) in page.items.into_iter().zip(past) {
            // Revised between the two reads, it is among its own past costs: read both again.
            while costs.last().is_some_and(|last| Some(last.cost) == execution.cost) {
                let Some(now) = self.store.execution(execution.id).await? else { break };
                let past = self.store.past_costs(&[now.id]).await?.concat();
                if (&now, &past) == (&execution, &costs) {
                    break;
                }
                (execution, costs) = (now, past);
            }
            let LlmExecution { id, .. } = execution;
            lines.push(Line::Execution(execution));
            if !costs.is_empty() {
                lines.push(Line::PastCosts { execution: id, costs });
            }
        }
        let next = match page.next {
            Some(next) => Stage::Executions(Some(next)),
            None => Stage::End,
        };
        Ok((lines, next))
    }
}

fn everything(after: Option<Cursor>) -> RecordQuery {
    RecordQuery {
        order: Order::OldestFirst,
        payloads: true,
        page: PageQuery { limit: RECORDS, after },
        ..RecordQuery::default()
    }
}
