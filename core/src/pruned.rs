//! What cells keep of records that were pruned, in a form that another store can take in and a person
//! can read. Each sum is of one quarter of an hour and by all dimensions that cubes have, so all other
//! sums follow from them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::aggregate::{AggregateQuery, AggregateRow, Dimension, Measures, TokenSums};
use crate::cube::horizon_of;
use crate::error::{Error, Result};
use crate::histogram::{Buckets, Histogram};
use crate::id::PromptId;
use crate::label::Label;
use crate::money::Usd;
use crate::status::{ErrorCategory, Status};
use crate::store::RecordStore;
use crate::time::{Bucket, BucketWidth, TimeRange, Timestamp, Zone};

/// What the renders, or the calls of one model, of a quarter of an hour add up to that share a prompt,
/// a version and an environment.
///
/// # Example: as JSON
/// ```
/// use prompt_engine_core::PrunedSums;
/// let text = r#"{"quarter":"2026-03-28T00:15:00.000000Z","prompt":"0195dcb0-6a00-7000-8000-000000000001",
///     "version":1,"environment":"production","uses":12}"#;
/// let sums: PrunedSums = serde_json::from_str(text).unwrap();
/// sums.validate()?;
/// let none = PrunedSums { of: prompt_engine_core::PrunedOf::Uses(0), ..sums };
/// assert!(none.validate().is_err());
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunedSums {
    /// The start of the quarter of an hour, of UTC.
    pub quarter: Timestamp,
    /// The prompt.
    pub prompt: PromptId,
    /// The version.
    pub version: u32,
    /// The environment.
    pub environment: Label,
    /// What was counted.
    #[serde(flatten)]
    pub of: PrunedOf,
}

/// What was counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrunedOf {
    /// Renders, at least one.
    Uses(u64),
    /// Finished calls of one model, at least one.
    Calls(Box<PrunedCalls>),
}

/// What finished calls of one model add up to: see [`Measures`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunedCalls {
    /// The provider.
    pub provider: Label,
    /// The asked model.
    pub model: Label,
    /// How many ended in each status; none that is 0.
    pub statuses: BTreeMap<Status, u64>,
    /// How many had an error of each category; none that is 0.
    pub errors: BTreeMap<ErrorCategory, u64>,
    /// Sums of the counts that were reported.
    pub tokens: TokenSums,
    /// Sum of the known costs.
    pub cost: Usd,
    /// Calls whose cost is known.
    pub priced: u64,
    /// Calls whose cost is not.
    pub unpriced: u64,
    /// Latencies in milliseconds.
    pub latency_ms: Durations,
    /// Times to the first token in milliseconds.
    pub time_to_first_token_ms: Durations,
}

/// A histogram, as its [buckets](crate::histogram::bucket_of).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durations {
    /// The exact sum, a decimal text: it may take more than 64 bits.
    #[serde(with = "sum_as_text")]
    pub sum: u128,
    /// The buckets that were hit, in order, and how often.
    pub buckets: Vec<(u16, u64)>,
}

/// The most that a quarter of an hour can be believed to count of anything but tokens. Sums of so many
/// stay far from the largest 64-bit number.
const MOST: u64 = 1_000_000_000_000;

impl PrunedSums {
    /// All sums of a stretch of time from before the raw horizon, in their order: by quarter, prompt,
    /// version and environment, first the renders and then the calls, these by provider and model.
    ///
    /// # Errors
    /// Those of the store, and `Corrupt` if it counts what no call has.
    pub(crate) async fn of(store: &dyn RecordStore, range: TimeRange) -> Result<Vec<Self>> {
        let [uses, calls] = Self::questions(range);
        let mut rows = store.aggregate(&uses).await?.rows;
        rows.extend(store.aggregate(&calls).await?.rows);
        Self::from_rows(rows)
    }

    /// The questions about renders and about calls that make up the sums of a range.
    pub(crate) fn questions(range: TimeRange) -> [AggregateQuery; 2] {
        use Dimension::{Environment, Model, Prompt, Provider, Version};
        let bucket = Some(Bucket { width: BucketWidth::QuarterHour, zone: Zone::UTC });
        let by = |group_by: &[Dimension]| AggregateQuery {
            range,
            group_by: group_by.to_vec(),
            bucket,
            ..AggregateQuery::default()
        };
        [by(&[Prompt, Version, Environment]), by(&[Prompt, Version, Environment, Provider, Model])]
    }

    /// The sums that the answers to [`Self::questions`] are, in their order.
    pub(crate) fn from_rows(mut rows: Vec<AggregateRow>) -> Result<Vec<Self>> {
        rows.sort_by(|a, b| a.key.cmp(&b.key));
        rows.into_iter().filter_map(|row| Self::from_row(row).transpose()).collect()
    }

    /// `None` where nothing is counted: of a row of renders the calls are told by another.
    fn from_row(row: AggregateRow) -> Result<Option<Self>> {
        let AggregateRow { key, measures } = row;
        let of = match key.provider.zip(key.model) {
            None => measures.uses.filter(|uses| *uses > 0).map(PrunedOf::Uses),
            Some((provider, model)) => PrunedCalls::of(provider, model, &measures)?
                .map(|calls| PrunedOf::Calls(Box::new(calls))),
        };
        let (Some(quarter), Some(prompt), Some(version), Some(environment)) =
            (key.bucket, key.prompt, key.version, key.environment)
        else {
            return Err(Error::corrupt("an answer lacks what it was grouped by"));
        };
        Ok(of.map(|of| Self { quarter, prompt, version, environment, of }))
    }

    /// Checks that it is something that records can add up to.
    ///
    /// # Errors
    /// `Invalid`, naming the sum.
    pub fn validate(&self) -> Result<()> {
        let wrong = match &self.of {
            _ if horizon_of(self.quarter) != self.quarter => Some("start inside a quarter"),
            PrunedOf::Uses(0) => Some("count nothing"),
            PrunedOf::Uses(uses) if *uses > MOST => Some("count too many"),
            PrunedOf::Uses(_) => None,
            PrunedOf::Calls(calls) => calls.wrong(),
        };
        match wrong {
            None => Ok(()),
            Some(wrong) => Err(Error::invalid(format!("{self} {wrong}"))),
        }
    }

    /// What a row of an answer that counts it adds.
    pub(crate) fn measures(&self) -> Measures {
        match &self.of {
            PrunedOf::Uses(uses) => Measures { uses: Some(*uses), ..Measures::default() },
            PrunedOf::Calls(calls) => calls.measures(),
        }
    }

    /// What tells it apart from others.
    pub(crate) fn key(&self) -> (Timestamp, PromptId, u32, &Label, Option<(&Label, &Label)>) {
        let asked = match &self.of {
            PrunedOf::Uses(_) => None,
            PrunedOf::Calls(calls) => Some((&calls.provider, &calls.model)),
        };
        (self.quarter, self.prompt, self.version, &self.environment, asked)
    }
}

impl std::fmt::Display for PrunedSums {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { quarter, prompt, version, environment, of } = self;
        match of {
            PrunedOf::Uses(_) => f.write_str("the renders")?,
            PrunedOf::Calls(calls) => write!(f, "the calls of {}/{}", calls.provider, calls.model)?,
        }
        write!(
            f,
            " from the quarter of an hour at {quarter}, of version {version} of the prompt {prompt} in \
             {environment:?},"
        )
    }
}

impl PrunedCalls {
    fn of(provider: Label, model: Label, measures: &Measures) -> Result<Option<Self>> {
        let statuses: BTreeMap<Status, u64> = Status::ALL
            .iter()
            .filter(|status| status.is_final())
            .map(|status| (*status, measures.in_status(*status)))
            .filter(|(_, calls)| *calls > 0)
            .collect();
        if statuses.is_empty() {
            return Ok(None);
        }
        let errors = ErrorCategory::ALL
            .iter()
            .map(|category| (*category, measures.by_error[usize::from(category.code())]))
            .filter(|(_, calls)| *calls > 0)
            .collect();
        let cost = Usd::from_pico(measures.cost_pico)
            .ok_or_else(|| Error::corrupt("a sum of costs is beyond 7.9e16 dollars"))?;
        Ok(Some(Self {
            provider,
            model,
            statuses,
            errors,
            tokens: measures.tokens,
            cost,
            priced: measures.priced,
            unpriced: measures.unpriced,
            latency_ms: Durations::of(&measures.latency_ms),
            time_to_first_token_ms: Durations::of(&measures.time_to_first_token_ms),
        }))
    }

    /// What is wrong with it, in words.
    fn wrong(&self) -> Option<&'static str> {
        let counts = self.statuses.values().chain(self.errors.values());
        if self.statuses.is_empty() || counts.clone().any(|count| *count == 0) {
            return Some("count nothing");
        }
        if self.statuses.contains_key(&Status::Pending) {
            return Some("count calls that have not finished");
        }
        let calls = self.statuses.values().fold(0_u64, |sum, calls| sum.saturating_add(*calls));
        let all = [
            calls,
            self.priced.saturating_add(self.unpriced),
            self.tokens.reported,
            self.latency_ms.count(),
            self.time_to_first_token_ms.count(),
        ];
        if counts.chain(&all).any(|count| *count > MOST) {
            return Some("count too many");
        }
        if !self.latency_ms.are_in_order() || !self.time_to_first_token_ms.are_in_order() {
            return Some("have buckets that are none, or are out of order");
        }
        None
    }

    fn measures(&self) -> Measures {
        let mut measures = Measures {
            uses: None,
            tokens: self.tokens,
            cost_pico: self.cost.to_pico(),
            priced: self.priced,
            unpriced: self.unpriced,
            latency_ms: self.latency_ms.histogram(),
            time_to_first_token_ms: self.time_to_first_token_ms.histogram(),
            ..Measures::default()
        };
        for (status, calls) in &self.statuses {
            measures.by_status[usize::from(status.code())] = *calls;
        }
        for (category, calls) in &self.errors {
            measures.by_error[usize::from(category.code())] = *calls;
        }
        measures
    }
}

impl Durations {
    fn of(histogram: &Histogram) -> Self {
        Self { sum: histogram.sum(), buckets: histogram.buckets().iter().collect() }
    }

    fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, (_, times)| sum.saturating_add(*times))
    }

    fn are_in_order(&self) -> bool {
        self.buckets.iter().all(|(bucket, times)| *bucket <= Buckets::LAST && *times > 0)
            && self.buckets.is_sorted_by(|(a, _), (b, _)| a < b)
    }

    fn histogram(&self) -> Histogram {
        let mut buckets = Buckets::default();
        self.buckets.iter().for_each(|(bucket, times)| buckets.add(*bucket, *times));
        Histogram::from_parts(buckets, self.count(), self.sum)
    }
}

/// A sum as a decimal text.
mod sum_as_text {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(sum: &u128, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(sum)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u128, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(|_| D::Error::custom(format!("{text:?} is no sum")))
    }
}
