//! The questions about use, cost and failure, answered from `aggregate` and a few lists of any store.
//! Invariants: a question costs a handful of queries, never one per prompt; money is never a float;
//! a pending call is no failure, and an unpriced one is counted apart, not as free.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use futures::future::try_join_all;
use serde::Serialize;

use crate::aggregate::{
    Aggregate, AggregateQuery, AggregateRow, Detail, Dimension, GroupKey, Measures, ratio,
};
use crate::error::Result;
use crate::histogram::Histogram;
use crate::id::PromptId;
use crate::money::Usd;
use crate::query::{Filter, PageQuery};
use crate::slug::Slug;
use crate::store::Store;
use crate::time::{Bucket, BucketWidth, TimeRange, Timestamp, Zone};

mod comparison;
mod cost_breakdown;
mod error_analysis;
mod explain;
mod prompt_performance;
mod slowest;
mod top_prompts;
mod usage_stats;

pub use comparison::{Change, Changes, Comparison, VersionComparison};
pub use cost_breakdown::{CostBreakdown, CostRest, CostRow, GroupBy};
pub use error_analysis::{CategoryRow, ErrorAnalysis, ErrorPoint, FailedExecution, PromptErrors};
pub use explain::{Explained, Explanation, Gaps};
pub use prompt_performance::{DaySlice, PromptPerformance, PromptRef, VersionSlice};
pub use top_prompts::{TopBy, TopPrompts, TopRow};
pub use usage_stats::{StatusCounts, TokenStats, UsageStats};

/// Which records a question is about; by default all of them, of all time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct StatsQuery {
    /// When they started.
    pub range: TimeRange,
    /// Which of them.
    pub filter: Filter,
}

impl From<TimeRange> for StatsQuery {
    fn from(range: TimeRange) -> Self {
        Self { range, filter: Filter::default() }
    }
}

/// Answers questions about what a store recorded. Cloning is cheap.
///
/// A query says which records count; the constants here are the ranges to take where nobody names one.
/// [`Analytics::usage_stats`] is then of all time, [`StatsQuery::default`].
///
/// # Example: an empty store
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use std::sync::Arc;
/// use prompt_engine_core::{Analytics, GroupBy, MemoryStore, StatsQuery, TimeRange};
/// let analytics = Analytics::new(Arc::new(MemoryStore::new())).in_zone("Europe/Berlin".parse()?);
/// let stats = analytics.usage_stats(&StatsQuery::default()).await?;
/// assert_eq!((stats.total_executions, stats.success_rate), (0, None));
/// let week = TimeRange::last_days(Analytics::COST_DAYS).into();
/// let costs = analytics.cost_breakdown(GroupBy::default(), &week).await?;
/// assert_eq!(costs.total_cost_usd.to_string(), "0");
/// # Ok::<(), prompt_engine_core::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct Analytics {
    store: Arc<dyn Store>,
    zone: Zone,
    explanation: Option<Explanation>,
}

impl Analytics {
    /// Days that [`Analytics::prompt_performance`] looks back where nobody says.
    pub const PERFORMANCE_DAYS: u32 = 30;
    /// Days that [`Analytics::cost_breakdown`] looks back where nobody says.
    pub const COST_DAYS: u32 = 7;
    /// Hours that [`Analytics::error_analysis`] looks back where nobody says.
    pub const ERROR_HOURS: u32 = 24;
    /// Days that [`Analytics::top_prompts`] looks back where nobody says.
    pub const TOP_DAYS: u32 = 7;
    /// Rows of [`Analytics::top_prompts`] where nobody says.
    pub const TOP_ROWS: usize = 10;
    /// Points that a series without gaps may have: eleven years of hours. One of more has those points alone
    /// that have records.
    pub const MAX_POINTS: usize = 100_000;

    /// Answers from `store`, with days and hours of UTC.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, zone: Zone::UTC, explanation: None }
    }

    /// The same with days and hours of `zone`.
    #[must_use]
    pub fn in_zone(mut self, zone: Zone) -> Self {
        self.zone = zone;
        self
    }

    /// The zone of days and hours.
    pub fn zone(&self) -> Zone {
        self.zone
    }

    fn bucket(&self, width: BucketWidth) -> Bucket {
        Bucket { width, zone: self.zone }
    }

    /// Asks the store several things at once.
    async fn ask<const N: usize>(&self, questions: [AggregateQuery; N]) -> Result<[Aggregate; N]> {
        let found = try_join_all(questions.iter().map(|one| self.store.aggregate(one))).await?;
        let mut answers = std::array::from_fn(|_| Aggregate::default());
        for ((question, found), answer) in questions.iter().zip(found).zip(&mut answers) {
            if let Some(explanation) = &self.explanation {
                explanation.add(question, &found.reading);
            }
            *answer = found;
        }
        Ok(answers)
    }

    /// The slugs of `prompts`, without those that are gone: one pass over all prompts, however many.
    async fn slugs(&self, prompts: impl Iterator<Item = PromptId>) -> Result<Slugs> {
        let mut missing: BTreeSet<PromptId> = prompts.collect();
        let mut slugs = HashMap::new();
        let mut page = PageQuery { limit: 500, after: None };
        while !missing.is_empty() {
            let found = self.store.list_prompts(&page).await?;
            for prompt in found.items {
                if missing.remove(&prompt.id) {
                    slugs.insert(prompt.id, prompt.slug);
                }
            }
            if found.next.is_none() {
                break;
            }
            page.after = found.next;
        }
        Ok(Slugs(slugs))
    }
}

/// What to call prompts in an answer.
struct Slugs(HashMap<PromptId, Slug>);

impl Slugs {
    /// The slug, or the id of a prompt that is gone.
    fn label(&self, id: PromptId) -> String {
        self.0.get(&id).map_or_else(|| id.to_string(), ToString::to_string)
    }
}

/// Uses, executions and cost of a part of the records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Renders; `None` where the question names what only an execution has.
    pub uses: Option<u64>,
    /// Executions in any status.
    pub executions: u64,
    /// Sum of the known costs.
    pub cost_usd: Usd,
    /// Finished executions whose cost is known.
    pub priced: u64,
    /// Finished executions whose cost is not.
    pub unpriced: u64,
}

impl From<&Measures> for Tally {
    fn from(of: &Measures) -> Self {
        Self {
            uses: of.uses,
            executions: of.executions(),
            cost_usd: of.cost(),
            priced: of.priced,
            unpriced: of.unpriced,
        }
    }
}

/// One environment or one model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Slice {
    /// Its name.
    pub key: String,
    /// What it adds up to.
    #[serde(flatten)]
    pub tally: Tally,
    /// Its part of all executions, 0 to 1; `None` where there are none.
    pub share: Option<f64>,
}

/// Mean and percentiles of durations in milliseconds; all `None` where none was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Durations {
    /// The mean.
    pub average: Option<f64>,
    /// Half are at most this; percentiles are exact within 0.6 %.
    pub p50: Option<f64>,
    /// 90 % are at most this.
    pub p90: Option<f64>,
    /// 95 % are at most this.
    pub p95: Option<f64>,
    /// 99 % are at most this.
    pub p99: Option<f64>,
}

impl From<&Histogram> for Durations {
    fn from(of: &Histogram) -> Self {
        Self {
            average: of.average(),
            p50: of.percentile(50),
            p90: of.percentile(90),
            p95: of.percentile(95),
            p99: of.percentile(99),
        }
    }
}

/// A question to the store. The histograms of [`Detail::Full`] are the dear part: only for percentiles.
fn question(
    query: &StatsQuery,
    group_by: &[Dimension],
    bucket: Option<Bucket>,
    detail: Detail,
) -> AggregateQuery {
    AggregateQuery {
        range: query.range,
        filter: query.filter.clone(),
        group_by: group_by.to_vec(),
        bucket,
        detail,
        ..AggregateQuery::default()
    }
}

/// The sum of `rows`, which is exact where every record is in one row and no row names what only an
/// execution has.
fn total(query: &StatsQuery, rows: &[AggregateRow]) -> Measures {
    let uses = (!query.filter.needs_execution()).then_some(0);
    let mut total = Measures { uses, ..Measures::default() };
    rows.iter().for_each(|row| total.merge(&row.measures));
    total
}

/// `rows` merged by a part of their key.
fn merged<K: Ord>(
    rows: &[AggregateRow],
    key: impl Fn(&GroupKey) -> Option<K>,
) -> BTreeMap<K, Measures> {
    let mut groups = BTreeMap::new();
    for row in rows {
        if let Some(key) = key(&row.key) {
            groups.entry(key).or_insert_with(Measures::default).merge(&row.measures);
        }
    }
    groups
}

/// The groups by cost, then executions, both descending, then key.
fn by_cost<K: Ord>(groups: BTreeMap<K, Measures>) -> Vec<(K, Measures)> {
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by(|(key_a, a), (key_b, b)| {
        let (cost, executions) = (a.cost_pico, a.executions());
        (b.cost_pico, b.executions()).cmp(&(cost, executions)).then_with(|| key_a.cmp(key_b))
    });
    groups
}

fn slices<K: Ord + fmt::Display>(groups: BTreeMap<K, Measures>) -> Vec<Slice> {
    let executions = groups.values().map(Measures::executions).sum();
    let slice = |(key, measures): (K, Measures)| Slice {
        key: key.to_string(),
        share: ratio(measures.executions(), executions),
        tally: (&measures).into(),
    };
    by_cost(groups).into_iter().map(slice).collect()
}

/// One point for every bucket of `range`, those without records included where they are at most
/// [`Analytics::MAX_POINTS`] in all. An open end of the range is where the records end.
fn series<T>(
    range: TimeRange,
    bucket: Bucket,
    rows: Vec<AggregateRow>,
    uses: Option<u64>,
    point: impl Fn(String, &Measures) -> T,
) -> Vec<T> {
    let measures: BTreeMap<Timestamp, Measures> =
        rows.into_iter().filter_map(|row| Some((row.key.bucket?, row.measures))).collect();
    let first = measures.first_key_value().map(|(start, _)| *start);
    let last = measures.last_key_value().map(|(start, _)| bucket.next(*start));
    let range = TimeRange { from: range.from.or(first), to: range.to.or(last) };
    let mut starts: Vec<_> = bucket.starts_in(range).take(Analytics::MAX_POINTS + 1).collect();
    if starts.len() > Analytics::MAX_POINTS {
        starts = measures.keys().copied().collect();
    }
    let empty = Measures { uses, ..Measures::default() };
    let point = |start| point(bucket.label(start), measures.get(&start).unwrap_or(&empty));
    starts.into_iter().map(point).collect()
}

#[cfg(test)]
mod tests;
