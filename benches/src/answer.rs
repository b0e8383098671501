//! Answers in one form, whoever gave them: a store, a recount of the set, or another engine.
//! Invariant: what an answer does not say is absent, and what it says must be right to the last unit;
//! percentiles within 0.6 %.

use std::collections::BTreeMap;

use prompt_engine_core::analytics::{Durations, Slice, Tally};
use prompt_engine_core::{Measures, Usd};
use serde::Serialize;

/// How far a percentile may be from the exact one.
const PERCENTILE: f64 = 0.006;
/// How far a mean may be: it is one division.
const MEAN: f64 = 1e-12;

/// What a set of records adds up to, as far as an answer says it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sums {
    /// Renders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uses: Option<u64>,
    /// Executions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executions: Option<u64>,
    /// Those that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<u64>,
    /// Those whose cost is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priced: Option<u64>,
    /// Input tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<u64>,
    /// Output tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    /// Cost in pico-dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_pico: Option<u64>,
}

/// Whole pico-dollars; what no set comes to is the most that there is.
pub(crate) fn pico(usd: Usd) -> Option<u64> {
    Some(u64::try_from(usd.to_pico()).unwrap_or(u64::MAX))
}

impl From<&Measures> for Sums {
    fn from(of: &Measures) -> Self {
        Self {
            uses: of.uses,
            executions: Some(of.executions()),
            errors: Some(of.failed()),
            priced: Some(of.priced),
            input_tokens: Some(of.tokens.input),
            output_tokens: Some(of.tokens.output),
            cost_pico: pico(of.cost()),
        }
    }
}

impl From<&Tally> for Sums {
    fn from(of: &Tally) -> Self {
        Self {
            uses: of.uses,
            executions: Some(of.executions),
            priced: Some(of.priced),
            cost_pico: pico(of.cost_usd),
            ..Self::default()
        }
    }
}

impl Sums {
    fn fields(&self) -> [(&'static str, Option<u64>); 7] {
        let Self { uses, executions, errors, priced, input_tokens, output_tokens, cost_pico } =
            *self;
        [
            ("uses", uses),
            ("executions", executions),
            ("errors", errors),
            ("priced", priced),
            ("input_tokens", input_tokens),
            ("output_tokens", output_tokens),
            ("cost_pico", cost_pico),
        ]
    }

    /// What is wrong with it where `right` is right; `None` if nothing is.
    fn fault(&self, right: &Self) -> Option<String> {
        let both = self.fields().into_iter().zip(right.fields());
        both.filter(|((_, said), (_, right))| said.is_some() && said != right)
            .map(|((name, said), (_, right))| {
                let text = |n: Option<u64>| n.map_or("unknown".to_owned(), |n| n.to_string());
                format!("{name} is {} and should be {}", text(said), text(right))
            })
            .next()
    }
}

/// Mean and percentiles of latencies in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// The mean.
    pub average: Option<f64>,
    /// By nearest rank.
    pub p50: Option<f64>,
    /// By nearest rank.
    pub p90: Option<f64>,
    /// By nearest rank.
    pub p95: Option<f64>,
    /// By nearest rank.
    pub p99: Option<f64>,
}

impl From<&Durations> for Percentiles {
    fn from(of: &Durations) -> Self {
        let Durations { average, p50, p90, p95, p99 } = *of;
        Self { average, p50, p90, p95, p99 }
    }
}

impl Percentiles {
    fn fault(&self, right: &Self) -> Option<String> {
        let fields = |of: &Self| [of.average, of.p50, of.p90, of.p95, of.p99];
        let names = ["average", "p50", "p90", "p95", "p99"];
        for ((name, said), right) in names.into_iter().zip(fields(self)).zip(fields(right)) {
            let within = if name == "average" { MEAN } else { PERCENTILE };
            let agrees = match (said, right) {
                (Some(said), Some(right)) => (said - right).abs() <= within * right,
                (said, right) => said == right,
            };
            if !agrees {
                return Some(format!("{name} of latency is {said:?} and should be {right:?}"));
            }
        }
        None
    }
}

/// Groups by what they are called.
pub type Groups = BTreeMap<String, Sums>;

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Answer {
    /// Of all records.
    pub total: Sums,
    /// How long their calls took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<Percentiles>,
    /// By what they are grouped.
    pub groups: BTreeMap<&'static str, Groups>,
    /// The ids of the last that failed, newest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recent: Option<Vec<String>>,
}

impl Answer {
    /// Compares it with the `right` one.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self, right: &Self) -> Result<(), String> {
        if let Some(fault) = self.total.fault(&right.total) {
            return Err(format!("in all, {fault}"));
        }
        if let (Some(said), right) = (self.latency_ms, right.latency_ms.unwrap_or_default())
            && let Some(fault) = said.fault(&right)
        {
            return Err(fault);
        }
        if self.recent.is_some() && self.recent != right.recent {
            return Err(format!(
                "the last failures are {:?} and should be {:?}",
                self.recent, right.recent
            ));
        }
        if !self.groups.keys().eq(right.groups.keys()) {
            let (said, right) = (self.groups.keys(), right.groups.keys());
            return Err(format!("it is grouped by {said:?} and should be by {right:?}"));
        }
        for (by, groups) in &self.groups {
            let right = &right.groups[by];
            if let Some(key) = right.keys().find(|key| !groups.contains_key(*key)) {
                return Err(format!("{by} {key} is missing"));
            }
            for (key, sums) in groups {
                let Some(right) = right.get(key) else {
                    return Err(format!("there should be no {by} {key}"));
                };
                if let Some(fault) = sums.fault(right) {
                    return Err(format!("of {by} {key}, {fault}"));
                }
            }
        }
        Ok(())
    }
}

/// The groups of a part of an answer that have executions: one may have a render at the edge of the
/// range alone, which some answers list and others do not.
pub(crate) fn groups(named: impl IntoIterator<Item = (String, Sums)>) -> Groups {
    named.into_iter().filter(|(_, sums)| sums.executions != Some(0)).collect()
}

/// The groups of `slices`.
pub(crate) fn sliced(slices: &[Slice]) -> Groups {
    groups(slices.iter().map(|slice| (slice.key.clone(), Sums::from(&slice.tally))))
}
