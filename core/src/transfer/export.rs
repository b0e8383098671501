//! Reading everything that a store holds, a page at a time.

use std::sync::Arc;

use super::{Counts, Line, VERSION};
use crate::error::Result;
use crate::query::{Cursor, Order, PageQuery, RecordQuery};
use crate::record::LlmExecution;
use crate::store::Store;

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
    counts: Counts,
}

/// What comes next.
#[derive(Debug)]
enum Stage {
    Prices,
    Prompts(Option<Cursor>),
    RawHorizon,
    Usages(Option<Cursor>),
    Executions(Option<Cursor>),
    End,
    Done,
}

impl Export {
    /// An export of all that `store` holds.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, next: Stage::Prices, counts: Counts::default() }
    }

    /// How much was read so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The next lines, perhaps none; `None` at the end.
    ///
    /// # Errors
    /// Whatever the store answers. It can be called again.
    pub async fn next(&mut self) -> Result<Option<Vec<Line>>> {
        let (mut lines, next) = match &self.next {
            Stage::Prices => (self.prices().await?, Stage::Prompts(None)),
            Stage::Prompts(after) => self.prompts(after.clone()).await?,
            Stage::RawHorizon => {
                let horizon = self.store.raw_horizon().await?;
                (horizon.map(Line::RawHorizon).into_iter().collect(), Stage::Usages(None))
            }
            Stage::Usages(after) => self.usages(after.clone()).await?,
            Stage::Executions(after) => self.executions(after.clone()).await?,
            Stage::End => (vec![Line::End(self.counts)], Stage::Done),
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
