//! What cells keep of records that were pruned, in a form that another store can take in and a person
//! can read. Each sum is of one quarter of an hour and by all dimensions that cubes have, so all other
//! sums follow from them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::aggregate::{AggregateQuery, AggregateRow, Dimension, Measures, TokenSums};
use crate::cube::horizon_of;
use crate::error::{Error, Result};
use crate::histogram::{Buckets, Histogram, lower_bound};
use crate::id::PromptId;
use crate::label::Label;
use crate::money::Usd;
use crate::status::{ErrorCategory, Status};
use crate::store::RecordStore;
use crate::time::{Bucket, BucketWidth, TimeRange, Timestamp, Zone};
use crate::tokens::TokenCounts;

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
///
/// # Example: a line of an export
/// ```
/// use prompt_engine_core::{PrunedOf, PrunedSums};
/// let line = concat!(
///     r#"{"quarter":"2026-03-28T00:15:00.000000Z","prompt":"0195dcb0-6a00-7000-8000-000000000001","#,
///     r#""version":1,"environment":"production","calls":{"provider":"openai","model":"gpt-4o","#,
///     r#""statuses":{"success":2,"timeout":1},"errors":{"timeout":1},"#,
///     r#""tokens":{"reported":2,"input":310,"output":42,"cache_read":0,"cache_write":0,"#,
///     r#""cache_write_1h":0,"reasoning":0,"audio_input":0,"audio_output":0},"#,
///     r#""cost":"0.0125","priced":2,"unpriced":1,"#,
///     r#""latency_ms":{"sum":"3","buckets":[[1,1],[65,1]]},"#,
///     r#""time_to_first_token_ms":{"sum":"0","buckets":[]}}}"#,
/// );
/// let sums: PrunedSums = serde_json::from_str(line).unwrap();
/// sums.validate()?;
/// let PrunedOf::Calls(calls) = &sums.of else { panic!("it is of calls") };
/// assert_eq!(calls.latency_ms.buckets, [(1, 1), (65, 1)]); // One of 1 ms, and one of 2 ms.
/// assert_eq!(serde_json::to_string(&sums).unwrap(), line);
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
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

/// The most renders, calls or dollars that a quarter of an hour can be believed to have. Sums of so many
/// stay far from the largest 64-bit number, and from the largest amount of money.
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
        let calls = total(self.statuses.values());
        if calls > MOST {
            return Some("count too many");
        }
        let answered = self.statuses.get(&Status::Success).unwrap_or(&0);
        if total(self.errors.values()) > calls - answered {
            return Some("count more errors than calls that failed");
        }
        if self.priced.checked_add(self.unpriced) != Some(calls) {
            return Some("count other calls than those that have a cost");
        }
        if !(0..=most_pico(self.priced)).contains(&self.cost.to_pico()) {
            return Some("cost more than so many can");
        }
        if self.tokens.reported > calls || !are_of_calls(&self.tokens) {
            return Some("have tokens that so many cannot have");
        }
        self.latency_ms.wrong(calls).or_else(|| self.time_to_first_token_ms.wrong(calls))
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
        total(self.buckets.iter().map(|(_, times)| times))
    }

    /// What is wrong with those of so many calls, in words.
    fn wrong(&self, calls: u64) -> Option<&'static str> {
        let are_buckets =
            self.buckets.iter().all(|(bucket, times)| *bucket <= Buckets::LAST && *times > 0);
        if !are_buckets || !self.buckets.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Some("have buckets that are none, or are out of order");
        }
        if self.count() > calls {
            return Some("have more durations than calls");
        }
        // No more calls than MOST, of 64 bits each: far within 128 bits.
        let bound = |above: u16| -> u128 {
            let of = |(bucket, times): &(u16, u64)| {
                u128::from(lower_bound(bucket + above)) * u128::from(*times)
            };
            self.buckets.iter().map(of).sum()
        };
        if !(bound(0)..=bound(1)).contains(&self.sum) {
            return Some("have durations that do not lie in their buckets");
        }
        None
    }

    fn histogram(&self) -> Histogram {
        let mut buckets = Buckets::default();
        self.buckets.iter().for_each(|(bucket, times)| buckets.add(*bucket, *times));
        Histogram::from_parts(buckets, self.count(), self.sum)
    }
}

fn total<'a>(counts: impl Iterator<Item = &'a u64>) -> u64 {
    counts.fold(0, |sum, count| sum.saturating_add(*count))
}

/// What so many calls can cost at most.
fn most_pico(priced: u64) -> i128 {
    let believable = i128::from(MOST) * 10_i128.pow(Usd::SCALE);
    i128::from(i64::MAX).saturating_mul(priced.into()).min(believable)
}

/// Whether calls that keep to [`TokenCounts::check`] can add up to it.
fn are_of_calls(tokens: &TokenSums) -> bool {
    let most = TokenCounts::MAX.saturating_mul(tokens.reported);
    // Sums stay at the largest number, and so do those of parts then.
    let within = |parts: &[u64], whole: u64| total(parts.iter()) <= whole;
    tokens.input <= most
        && tokens.output <= most
        && within(&[tokens.cache_read, tokens.cache_write, tokens.audio_input], tokens.input)
        && within(&[tokens.cache_write_1h], tokens.cache_write)
        && within(&[tokens.reasoning, tokens.audio_output], tokens.output)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Four calls: two answered, one failed, one given up.
    const LINE: &str = r#"{"quarter":"2026-03-28T00:15:00.000000Z",
        "prompt":"0195dcb0-6a00-7000-8000-000000000001","version":1,"environment":"production",
        "calls":{"provider":"openai","model":"gpt-4o",
            "statuses":{"success":2,"error":1,"cancelled":1},"errors":{"rate_limit":1},
            "tokens":{"reported":2,"input":100,"output":20,"cache_read":40,"cache_write":30,
                "cache_write_1h":10,"reasoning":5,"audio_input":0,"audio_output":0},
            "cost":"0.0125","priced":2,"unpriced":2,
            "latency_ms":{"sum":"3","buckets":[[1,1],[65,1]]},
            "time_to_first_token_ms":{"sum":"0","buckets":[]}}}"#;

    #[test]
    fn a_sum_that_no_records_can_have_is_refused() {
        let refused = |from: &str, to: &str| {
            assert_eq!(LINE.matches(from).count(), 1, "{from}");
            let sums: PrunedSums = serde_json::from_str(&LINE.replace(from, to)).unwrap();
            sums.validate().err().map(|error| error.to_string())
        };
        assert_eq!(refused("0.0125", "18446744.073709551614"), None);
        assert!(Usd::from_pico(most_pico(MOST)).is_some(), "no sum is beyond what is an amount");
        for (from, to, why) in [
            (r#""success":2"#, r#""success":0"#, "count nothing"),
            (r#""success":2"#, r#""pending":2"#, "count calls that have not finished"),
            (r#""success":2"#, r#""success":2000000000000"#, "count too many"),
            (r#""rate_limit":1"#, r#""rate_limit":3"#, "count more errors than calls that failed"),
            (r#""unpriced":2"#, r#""unpriced":1"#, "count other calls than those that have a cost"),
            (r#""unpriced":2"#, r#""unpriced":3"#, "count other calls than those that have a cost"),
            ("0.0125", "79228162514264337593543950335", "cost more than so many can"),
            ("0.0125", "18446744.073709551615", "cost more than so many can"),
            (
                r#""priced":2,"unpriced":2"#,
                r#""priced":0,"unpriced":4"#,
                "cost more than so many can",
            ),
            (r#""reported":2"#, r#""reported":5"#, "have tokens that so many cannot have"),
            (r#""reported":2"#, r#""reported":0"#, "have tokens that so many cannot have"),
            (r#""input":100"#, r#""input":69"#, "have tokens that so many cannot have"),
            (
                r#""cache_write_1h":10"#,
                r#""cache_write_1h":31"#,
                "have tokens that so many cannot have",
            ),
            (r#""reasoning":5"#, r#""reasoning":21"#, "have tokens that so many cannot have"),
            ("[65,1]", "[65,4]", "have more durations than calls"),
            ("[65,1]", "[5000,1]", "have buckets that are none, or are out of order"),
            ("[65,1]", "[1,1]", "have buckets that are none, or are out of order"),
            (r#""sum":"3""#, r#""sum":"2""#, "have durations that do not lie in their buckets"),
            (r#""sum":"3""#, r#""sum":"9""#, "have durations that do not lie in their buckets"),
            (r#""sum":"0""#, r#""sum":"1""#, "have durations that do not lie in their buckets"),
        ] {
            let refused = refused(from, to).unwrap_or_default();
            assert!(refused.ends_with(why), "{from} -> {to}: {refused:?}");
        }
    }
}
