//! Two sets of records side by side: a range and the one before it, two versions of a prompt.
//! Invariant: what is not known is `None`, never 0, and a change from it is not known either.

use serde::Serialize;

use super::{Analytics, Gaps, PromptRef, StatsQuery, question};
use crate::aggregate::{Aggregate, Detail, Measures, ratio};
use crate::error::{Error, Result};
use crate::money::Usd;
use crate::time::{TimeRange, Timestamp};

/// A figure before and now, and how it changed. `D` is what two of `T` differ by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Change<T, D = T> {
    /// What it was; `None` where that is not known.
    pub before: Option<T>,
    /// What it is; `None` where that is not known.
    pub now: Option<T>,
    /// What it grew by, negative where it fell; `None` where one of them is not known.
    pub change: Option<D>,
    /// The change in percent of what it was; `None` where that was 0 or is not known.
    pub percent: Option<f64>,
}

/// How the figures of two sets of records differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Changes {
    /// Renders; not known where the filter names what only an execution has.
    pub uses: Change<u64, i64>,
    /// Executions in any status.
    pub executions: Change<u64, i64>,
    /// Executions that failed.
    pub errors: Change<u64, i64>,
    /// The part of the finished that succeeded, 0 to 1.
    pub success_rate: Change<f64>,
    /// The part of the finished that failed, 0 to 1.
    pub error_rate: Change<f64>,
    /// Sum of the known costs; not known where no cost is.
    pub total_cost_usd: Change<Usd>,
    /// Known cost of an execution that has one, on average, rounded to the pico-dollar.
    pub cost_per_call_usd: Change<Usd>,
    /// Finished executions whose cost is known.
    pub priced: Change<u64, i64>,
    /// Finished executions whose cost is not.
    pub unpriced: Change<u64, i64>,
    /// Reported tokens, input and output together.
    pub total_tokens: Change<u64, i64>,
    /// Tokens of an execution that reported them, on average.
    pub average_tokens: Change<f64>,
    /// Mean latency in milliseconds.
    pub average_latency_ms: Change<f64>,
    /// Half of the latencies are at most this.
    pub p50_latency_ms: Change<f64>,
    /// 95 % of the latencies are at most this.
    pub p95_latency_ms: Change<f64>,
    /// Half of the times to the first token are at most this.
    pub p50_time_to_first_token_ms: Change<f64>,
    /// 95 % of the times to the first token are at most this.
    pub p95_time_to_first_token_ms: Change<f64>,
}

/// The answer of [`Analytics::compare`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The range that was asked for.
    pub range: TimeRange,
    /// The one of the same length that ends where it starts.
    pub range_before: TimeRange,
    /// How the figures changed.
    #[serde(flatten)]
    pub changes: Changes,
    /// What the answer leaves out.
    #[serde(flatten)]
    pub gaps: Gaps,
}

/// The answer of [`Analytics::compare_versions`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VersionComparison {
    /// The slug of the prompt.
    pub prompt: String,
    /// The version whose figures are those of before.
    pub version_before: u32,
    /// The version whose figures are those of now.
    pub version_now: u32,
    /// How the figures differ.
    #[serde(flatten)]
    pub changes: Changes,
    /// What the answer leaves out.
    #[serde(flatten)]
    pub gaps: Gaps,
}

impl Change<u64, i64> {
    fn count(before: Option<u64>, now: Option<u64>) -> Self {
        let difference = |(before, now): (u64, u64)| {
            let difference = i128::from(now) - i128::from(before);
            i64::try_from(difference).unwrap_or(if difference < 0 { i64::MIN } else { i64::MAX })
        };
        let change = before.zip(now).map(difference);
        #[allow(clippy::cast_precision_loss, reason = "a percentage is shown, never added up")]
        let percent = before.zip(now).and_then(|(b, n)| percent(b as f64, n as f64));
        Self { before, now, change, percent }
    }
}

impl Change<f64> {
    fn measure(before: Option<f64>, now: Option<f64>) -> Self {
        let both = before.zip(now);
        let change = both.map(|(before, now)| now - before);
        Self { before, now, change, percent: both.and_then(|(b, n)| percent(b, n)) }
    }
}

impl Change<Usd> {
    fn money(before: Option<i128>, now: Option<i128>) -> Self {
        let change = before.zip(now).map(|(before, now)| now - before);
        #[allow(clippy::cast_precision_loss, reason = "a percentage is shown, never added up")]
        let percent = before.zip(now).and_then(|(b, n)| percent(b as f64, n as f64));
        let usd = |pico: Option<i128>| pico.and_then(Usd::from_pico);
        Self { before: usd(before), now: usd(now), change: usd(change), percent }
    }
}

fn percent(before: f64, now: f64) -> Option<f64> {
    (before != 0.0).then(|| (now - before) * 100.0 / before)
}

impl Changes {
    fn new(before: &Measures, now: &Measures) -> Self {
        let count = |of: fn(&Measures) -> u64| Change::count(Some(of(before)), Some(of(now)));
        let measure = |of: &dyn Fn(&Measures) -> Option<f64>| Change::measure(of(before), of(now));
        let money = |of: fn(&Measures) -> Option<i128>| Change::money(of(before), of(now));
        Self {
            uses: Change::count(before.uses, now.uses),
            executions: count(Measures::executions),
            errors: count(Measures::failed),
            success_rate: measure(&Measures::success_rate),
            error_rate: measure(&Measures::error_rate),
            total_cost_usd: money(|of| (of.priced > 0 || of.unpriced == 0).then_some(of.cost_pico)),
            cost_per_call_usd: money(cost_per_call),
            priced: count(|of| of.priced),
            unpriced: count(|of| of.unpriced),
            total_tokens: count(|of| of.tokens.total()),
            average_tokens: measure(&|of| ratio(of.tokens.total(), of.tokens.reported)),
            average_latency_ms: measure(&|of| of.latency_ms.average()),
            p50_latency_ms: measure(&|of| of.latency_ms.percentile(50)),
            p95_latency_ms: measure(&|of| of.latency_ms.percentile(95)),
            p50_time_to_first_token_ms: measure(&|of| of.time_to_first_token_ms.percentile(50)),
            p95_time_to_first_token_ms: measure(&|of| of.time_to_first_token_ms.percentile(95)),
        }
    }
}

/// The mean of the known costs in pico-dollars, the half rounded up.
fn cost_per_call(of: &Measures) -> Option<i128> {
    let calls = i128::from(of.priced);
    (calls > 0).then(|| (2 * of.cost_pico + calls).div_euclid(2 * calls))
}

/// The only row of an answer without groups.
fn row(answer: &Aggregate) -> Result<&Measures> {
    let row = answer.rows.first().map(|row| &row.measures);
    row.ok_or_else(|| Error::corrupt("a sum of everything has no row"))
}

/// The range of the same length that ends where `range` starts.
fn before(range: TimeRange) -> Result<TimeRange> {
    let (Some(from), Some(to)) = (range.from, range.to) else {
        return Err(Error::invalid(
            "a range that is compared with the one before it needs a start and an end",
        ));
    };
    let earlier = from.checked_sub(to.duration_since(from));
    let earlier: Timestamp = earlier.ok_or_else(|| {
        Error::invalid(format!("the range before {from} would start before the year 0001"))
    })?;
    TimeRange::new(Some(earlier), Some(from))
}

impl Analytics {
    /// The figures of a range beside those of the range of the same length before it: two aggregates.
    ///
    /// # Errors
    /// `Invalid` for a range with an open end.
    ///
    /// # Example: this week and the one before
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use std::sync::Arc;
    /// # use prompt_engine_core::{Analytics, MemoryStore, TimeRange};
    /// let analytics = Analytics::new(Arc::new(MemoryStore::new()));
    /// let compared = analytics.compare(&TimeRange::last_days(7).into()).await?;
    /// assert_eq!(compared.changes.executions.change, Some(0));
    /// assert_eq!(compared.changes.executions.percent, None); // of nothing
    /// # Ok::<(), prompt_engine_core::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn compare(&self, query: &StatsQuery) -> Result<Comparison> {
        let earlier = StatsQuery { range: before(query.range)?, filter: query.filter.clone() };
        let sides = [query, &earlier].map(|side| question(side, &[], None, Detail::Full));
        let [now, before] = self.ask(sides).await?;
        Ok(Comparison {
            range: query.range,
            range_before: earlier.range,
            changes: Changes::new(row(&before)?, row(&now)?),
            gaps: Gaps::of([&before, &now]),
        })
    }

    /// The figures of two versions of a prompt side by side, those of the first as before: two
    /// aggregates. The prompt and the version take the place of those in the filter.
    ///
    /// # Errors
    /// - `NotFound` if there is no such prompt, or it has no such version.
    /// - `Invalid` if it is one version twice.
    pub async fn compare_versions(
        &self,
        prompt: impl Into<PromptRef> + Send,
        versions: [u32; 2],
        query: &StatsQuery,
    ) -> Result<VersionComparison> {
        let [first, second] = versions;
        if first == second {
            return Err(Error::invalid(format!("version {first} is not compared with itself")));
        }
        let (id, prompt) = match prompt.into() {
            PromptRef::Id(id) => (id.to_string(), self.store.prompt(id).await?),
            PromptRef::Slug(slug) => (slug.to_string(), self.store.prompt_by_slug(&slug).await?),
        };
        let prompt = prompt.ok_or_else(|| Error::not_found(format!("there is no prompt {id}")))?;
        for number in versions {
            if self.store.version(prompt.id, number).await?.is_none() {
                return Err(Error::not_found(format!(
                    "the prompt {} has no version {number}; its latest is {}",
                    prompt.slug, prompt.latest_version
                )));
            }
        }
        let of = |number| {
            let mut query = query.clone();
            (query.filter.prompt, query.filter.version) = (Some(prompt.id), Some(number));
            query
        };
        let sides = [first, second].map(|side| question(&of(side), &[], None, Detail::Full));
        let [before, now] = self.ask(sides).await?;
        Ok(VersionComparison {
            prompt: prompt.slug.to_string(),
            version_before: first,
            version_now: second,
            changes: Changes::new(row(&before)?, row(&now)?),
            gaps: Gaps::of([&before, &now]),
        })
    }
}
