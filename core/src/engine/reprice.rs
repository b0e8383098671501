//! Pricing recorded calls again, after a price was wrong or came late.
//! Invariant: each call is changed only if its cost is still the one that was seen, and its old cost
//! is kept. A run that was cut short is taken up by running it again: what is done has nothing left
//! to change.

use std::collections::BTreeMap;

use super::Engine;
use crate::cost::{Cost, UnpricedReason};
use crate::error::Result;
use crate::label::Label;
use crate::money::Usd;
use crate::price_book::{PriceBook, PriceRequest};
use crate::query::{Filter, PageQuery, RecordQuery};
use crate::record::LlmExecution;
use crate::store::{CostRevision, Revised};
use crate::time::{TimeRange, Timestamp};

/// Calls that are read, and changed in one transaction.
const BATCH: u32 = 2_000;

/// Calls to be priced again with the prices that the store has now. Get it from
/// [`Engine::reprice`](crate::Engine::reprice).
///
/// Pending calls, calls without tokens, and costs that a provider reported, that came from a local
/// cache or that are beyond a row (which a provider may have reported too) are left alone.
#[derive(Debug, Clone)]
#[must_use = "nothing is priced until it is previewed or applied"]
pub struct Reprice {
    engine: Engine,
    range: TimeRange,
    filter: Filter,
}

/// What pricing calls again changes, or would.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repriced {
    /// Calls that were looked at.
    pub calls: u64,
    /// Calls whose cost changes, in all.
    pub total: CostChange,
    /// The same by provider and asked model.
    pub models: BTreeMap<(Label, Label), CostChange>,
    /// Calls that somebody else changed meanwhile and that were left as they then were.
    pub skipped: u64,
}

/// The costs of calls before and after they are priced again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CostChange {
    /// How many calls.
    pub calls: u64,
    /// What they cost before.
    pub before: KnownCost,
    /// What they cost after.
    pub after: KnownCost,
}

/// A sum of costs, with what it leaves out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KnownCost {
    /// The sum in pico-dollars.
    pub pico: i128,
    /// Calls in it.
    pub priced: u64,
    /// Calls whose cost is not known.
    pub unpriced: u64,
}

impl KnownCost {
    /// The sum; `None` if it is beyond what an amount can be.
    pub fn usd(&self) -> Option<Usd> {
        Usd::from_pico(self.pico)
    }

    fn add(&mut self, cost: Cost) {
        match cost.usd() {
            Some(usd) => {
                self.pico += usd.to_pico();
                self.priced += 1;
            }
            None => self.unpriced += 1,
        }
    }
}

impl CostChange {
    fn add(&mut self, before: Cost, after: Cost) {
        self.calls += 1;
        self.before.add(before);
        self.after.add(after);
    }
}

impl Repriced {
    fn add(&mut self, execution: &LlmExecution, revision: &CostRevision) {
        let name = (execution.provider.clone(), execution.model.clone());
        let of_model = self.models.entry(name).or_default();
        for sum in [of_model, &mut self.total] {
            sum.add(revision.expected, revision.new);
        }
    }
}

impl Reprice {
    pub(super) fn new(engine: Engine, range: TimeRange) -> Self {
        Self { engine, range, filter: Filter::default() }
    }

    /// Only those of the calls that match.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// What would change. Nothing does.
    pub async fn preview(&self) -> Result<Repriced> {
        self.run(false).await
    }

    /// Changes it, newest calls first, and says what was changed.
    pub async fn apply(&self) -> Result<Repriced> {
        self.run(true).await
    }

    async fn run(&self, apply: bool) -> Result<Repriced> {
        self.engine.reload_prices().await?;
        let book = self.engine.price_book();
        let store = self.engine.store();
        let mut done = Repriced::default();
        let mut after = None;
        loop {
            let page = PageQuery { limit: BATCH, after: after.take() };
            let (range, filter) = (self.range, self.filter.clone());
            let query = RecordQuery { range, filter, page, ..RecordQuery::default() };
            let page = store.list_executions(&query).await?;
            done.calls += page.items.len() as u64;
            let now = Timestamp::now();
            let (executions, revisions): (Vec<_>, Vec<_>) = page
                .items
                .iter()
                .filter_map(|execution| Some((execution, revision(&book, execution, now)?)))
                .unzip();
            let outcomes = if apply && !revisions.is_empty() {
                store.revise_costs(&revisions).await?
            } else {
                vec![Revised::Changed; revisions.len()]
            };
            for ((execution, revision), outcome) in executions.iter().zip(&revisions).zip(outcomes)
            {
                match outcome {
                    Revised::Changed => done.add(execution, revision),
                    Revised::Mismatch | Revised::NotFound => done.skipped += 1,
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(done);
            }
        }
    }
}

/// What the cost of a call becomes, if it changes.
fn revision(book: &PriceBook, execution: &LlmExecution, at: Timestamp) -> Option<CostRevision> {
    let (expected, tokens) = (execution.cost?, execution.tokens?);
    match expected {
        Cost::Reported { .. } | Cost::LocalCache => return None,
        Cost::Unpriced { reason: UnpricedReason::Overflow } => return None,
        Cost::Priced { .. } | Cost::Unpriced { .. } => {}
    }
    let quote = book.price(&PriceRequest::of(execution, Some(&tokens)));
    // The same amount from another price is no change.
    let same = (quote.cost.usd(), quote.cost.reason()) == (expected.usd(), expected.reason());
    let (new, priced_model) = (quote.cost, quote.priced_model.cloned());
    (!same).then_some(CostRevision {
        id: execution.id,
        expected,
        past: None,
        new,
        priced_model,
        at,
    })
}
