//! What records add up to: the question, the measures, and the recount that defines the answer.
//! Invariant: measures only add and subtract (no minimum, no maximum), so parts can be combined.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cost::Cost;
use crate::cube::Cube;
use crate::histogram::Histogram;
use crate::id::PromptId;
use crate::label::Label;
use crate::money::Usd;
use crate::pruned::{PrunedOf, PrunedSums};
use crate::query::Filter;
use crate::record::{Attribution, LlmExecution, Usage};
use crate::status::{ErrorCategory, Status};
use crate::time::{Bucket, BucketCursor, TimeRange, Timestamp};
use crate::tokens::TokenUsage;

/// What to group by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dimension {
    /// The prompt.
    Prompt,
    /// The version of the prompt; only meaningful together with [`Dimension::Prompt`] or a filter.
    Version,
    /// The environment.
    Environment,
    /// The provider: only an execution has one.
    Provider,
    /// The asked model: only an execution has one.
    Model,
    /// The session; records without one are a group of their own. No cube has it.
    Session,
    /// The user; records without one are a group of their own. No cube has it.
    User,
}

impl Dimension {
    /// Whether only an execution has it.
    pub fn needs_execution(self) -> bool {
        matches!(self, Self::Provider | Self::Model)
    }
}

/// A question to [`RecordStore::aggregate`](crate::RecordStore::aggregate).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AggregateQuery {
    /// When records started.
    pub range: TimeRange,
    /// Which of them.
    pub filter: Filter,
    /// What to group by; the order says nothing.
    pub group_by: Vec<Dimension>,
    /// Which stretches of time to tell apart.
    pub bucket: Option<Bucket>,
    /// How much of the measures is wanted.
    pub detail: Detail,
    /// Where the answer may come from.
    pub source: Source,
}

/// How much of the measures is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Detail {
    /// All of them.
    #[default]
    Full,
    /// All but the buckets of the histograms: percentiles are not known, sums and means are.
    /// A store reads far less for it.
    Sums,
    /// As [`Self::Sums`], of executions alone: uses are not known, and nothing is read for them.
    Calls,
}

/// Where an answer may come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Source {
    /// From cubes where they have what is asked for, and else from the records.
    #[default]
    Any,
    /// From the records alone, of which those before the raw horizon are gone: what cubes are
    /// compared with.
    Records,
}

impl AggregateQuery {
    /// Whether uses are not told: the question is about executions, or names what only they have.
    pub fn needs_execution(&self) -> bool {
        self.detail == Detail::Calls
            || self.filter.needs_execution()
            || self.group_by.iter().any(|by| by.needs_execution())
    }
}

/// What the records of a row have in common: set for what was grouped by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKey {
    /// The start of the bucket.
    pub bucket: Option<Timestamp>,
    /// The prompt.
    pub prompt: Option<PromptId>,
    /// The version.
    pub version: Option<u32>,
    /// The environment.
    pub environment: Option<Label>,
    /// The provider.
    pub provider: Option<Label>,
    /// The asked model.
    pub model: Option<Label>,
    /// The session, where the records have one.
    pub session: Option<Label>,
    /// The user, where the records have one.
    pub user: Option<Label>,
}

/// The answer to an [`AggregateQuery`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Aggregate {
    /// The rows, sorted by their key.
    pub rows: Vec<AggregateRow>,
    /// How they came about.
    pub reading: Reading,
}

/// What was read for an answer, and what it cannot say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// The cube that was read; `None` where the answer came from the records alone.
    pub cube: Option<Cube>,
    /// Cells of it that were read.
    pub cells: u64,
    /// Changes that had yet to be folded into it, and were read one by one.
    pub unfolded: u64,
    /// Rows of records that were read.
    pub raw_rows: u64,
    /// Whether the range or a bucket begins or ends inside a quarter of an hour whose records were
    /// pruned: of those, each counts at the start of its quarter.
    pub rounded: bool,
    /// The records before this moment were pruned, and are missing in the answer: no cube has what
    /// was asked for.
    pub missing_before: Option<Timestamp>,
}

/// One row of an answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AggregateRow {
    /// What its records have in common.
    pub key: GroupKey,
    /// What they add up to.
    pub measures: Measures,
}

/// What a set of records adds up to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measures {
    /// Renders; `None` where the question names what only an execution has.
    pub uses: Option<u64>,
    /// Executions, indexed by [`Status::code`].
    pub by_status: [u64; Status::ALL.len()],
    /// Failed and cancelled executions, indexed by [`ErrorCategory::code`].
    pub by_error: [u64; ErrorCategory::ALL.len()],
    /// Sums of the counts that were reported.
    pub tokens: TokenSums,
    /// Sum of the known costs in pico-dollars.
    pub cost_pico: i128,
    /// Finished executions whose cost is known.
    pub priced: u64,
    /// Finished executions whose cost is not.
    pub unpriced: u64,
    /// Latencies in milliseconds.
    pub latency_ms: Histogram,
    /// Times to the first token in milliseconds.
    pub time_to_first_token_ms: Histogram,
}

/// Sums of token counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenSums {
    /// Executions that reported tokens.
    pub reported: u64,
    /// See [`TokenCounts`](crate::TokenCounts) for this and the following.
    pub input: u64,
    /// Output tokens.
    pub output: u64,
    /// Input tokens from a cache.
    pub cache_read: u64,
    /// Input tokens written to a cache.
    pub cache_write: u64,
    /// Those of them kept for an hour.
    pub cache_write_1h: u64,
    /// Output tokens of reasoning.
    pub reasoning: u64,
    /// Input tokens of audio.
    pub audio_input: u64,
    /// Output tokens of audio.
    pub audio_output: u64,
}

impl TokenSums {
    fn each(&mut self) -> [&mut u64; 9] {
        let Self {
            reported,
            input,
            output,
            cache_read,
            cache_write,
            cache_write_1h,
            reasoning,
            audio_input,
            audio_output,
        } = self;
        [
            reported,
            input,
            output,
            cache_read,
            cache_write,
            cache_write_1h,
            reasoning,
            audio_input,
            audio_output,
        ]
    }

    /// How many reported any, and the sums in the order of [`TokenCounts`](crate::TokenCounts).
    pub(crate) fn to_array(mut self) -> [u64; 9] {
        self.each().map(|sum| *sum)
    }

    /// The sums in the order of [`TokenCounts`](crate::TokenCounts), behind how many reported any.
    pub(crate) fn from_array(sums: &[u64]) -> Self {
        let mut all = Self::default();
        all.each().into_iter().zip(sums).for_each(|(sum, from)| *sum = *from);
        all
    }

    /// Input and output together.
    pub fn total(&self) -> u64 {
        self.input.saturating_add(self.output)
    }

    /// Adds all of `other`. A sum stays at the largest 64-bit number rather than wrap, which
    /// takes eighteen million calls of [`TokenCounts::MAX`](crate::TokenCounts::MAX) each.
    pub fn merge(&mut self, other: &Self) {
        let mut other = *other;
        for (sum, part) in self.each().into_iter().zip(other.each()) {
            *sum = sum.saturating_add(*part);
        }
    }

    /// Whether a sum that `part` would be taken away from stays at the largest number.
    pub(crate) fn are_at_the_largest(mut self, part: &Self) -> bool {
        let mut part = *part;
        self.each().into_iter().zip(part.each()).any(|(sum, n)| *sum == u64::MAX && *n > 0)
    }

    fn take(&mut self, other: &Self) {
        let mut other = *other;
        self.each().into_iter().zip(other.each()).for_each(|(sum, n)| take(sum, *n));
    }
}

impl From<&TokenUsage> for TokenSums {
    fn from(usage: &TokenUsage) -> Self {
        Self {
            reported: 1,
            input: usage.input,
            output: usage.output,
            cache_read: usage.cache_read,
            cache_write: usage.cache_write,
            cache_write_1h: usage.cache_write_1h,
            reasoning: usage.reasoning,
            audio_input: usage.audio_input,
            audio_output: usage.audio_output,
        }
    }
}

impl Measures {
    /// Executions in any status.
    pub fn executions(&self) -> u64 {
        self.by_status.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// Executions in `status`.
    pub fn in_status(&self, status: Status) -> u64 {
        self.by_status[usize::from(status.code())]
    }

    /// Executions that are over: success, error, timeout and cancelled.
    pub fn finished(&self) -> u64 {
        self.executions() - self.in_status(Status::Pending)
    }

    /// Executions that failed: error and timeout.
    pub fn failed(&self) -> u64 {
        self.in_status(Status::Error) + self.in_status(Status::Timeout)
    }

    /// The part of the finished that succeeded, 0 to 1; `None` when nothing finished.
    pub fn success_rate(&self) -> Option<f64> {
        ratio(self.in_status(Status::Success), self.finished())
    }

    /// The part of the finished that failed, 0 to 1; `None` when nothing finished.
    pub fn error_rate(&self) -> Option<f64> {
        ratio(self.failed(), self.finished())
    }

    /// The sum of the known costs.
    pub fn cost(&self) -> Usd {
        Usd::from_pico(self.cost_pico).unwrap_or_default()
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.uses = match (self.uses, other.uses) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (a, b) => a.or(b),
        };
        self.by_status
            .iter_mut()
            .zip(other.by_status)
            .for_each(|(sum, n)| *sum = sum.saturating_add(n));
        self.by_error
            .iter_mut()
            .zip(other.by_error)
            .for_each(|(sum, n)| *sum = sum.saturating_add(n));
        self.tokens.merge(&other.tokens);
        self.cost_pico = self.cost_pico.saturating_add(other.cost_pico);
        self.priced = self.priced.saturating_add(other.priced);
        self.unpriced = self.unpriced.saturating_add(other.unpriced);
        self.latency_ms.merge(&other.latency_ms);
        self.time_to_first_token_ms.merge(&other.time_to_first_token_ms);
    }

    /// Takes all of `other` away, which was added before; of sums that were damaged, nothing is left.
    pub(crate) fn take(&mut self, other: &Self) {
        if let (Some(sum), Some(n)) = (&mut self.uses, other.uses) {
            take(sum, n);
        }
        self.by_status.iter_mut().zip(other.by_status).for_each(|(sum, n)| take(sum, n));
        self.by_error.iter_mut().zip(other.by_error).for_each(|(sum, n)| take(sum, n));
        self.tokens.take(&other.tokens);
        self.cost_pico = self.cost_pico.saturating_sub(other.cost_pico);
        take(&mut self.priced, other.priced);
        take(&mut self.unpriced, other.unpriced);
        self.latency_ms.take(&other.latency_ms);
        self.time_to_first_token_ms.take(&other.time_to_first_token_ms);
    }

    /// Whether no record was counted.
    pub(crate) fn is_nothing(&self) -> bool {
        self.uses.unwrap_or(0) == 0 && self.executions() == 0
    }
}

fn take(sum: &mut u64, n: u64) {
    *sum = sum.saturating_sub(n);
}

/// `part / whole`; `None` when the whole is 0.
pub(crate) fn ratio(part: u64, whole: u64) -> Option<f64> {
    #[allow(clippy::cast_precision_loss, reason = "a rate is shown, never added up")]
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Counts records one by one into the rows of an answer: what `aggregate` means.
///
/// A store may feed it the records of a range (hot fields suffice), in any order, those that the
/// range or the filter leaves out included.
#[derive(Debug)]
pub struct Recount<'a> {
    query: &'a AggregateQuery,
    range: TimeRange,
    bucket: Option<BucketCursor>,
    rows: BTreeMap<GroupKey, Measures>,
}

impl<'a> Recount<'a> {
    /// An empty answer to `query`.
    pub fn new(query: &'a AggregateQuery) -> Self {
        let mut recount = Self { range: query.range, ..Self::of_any_moment(query) };
        if query.group_by.is_empty() && query.bucket.is_none() {
            recount.row(GroupKey::default());
        }
        recount
    }

    /// The same where the range of `query` leaves nothing out, and without a row where nothing was
    /// counted.
    pub(crate) fn of_any_moment(query: &'a AggregateQuery) -> Self {
        let bucket = query.bucket.map(BucketCursor::new);
        Self { query, range: TimeRange::default(), bucket, rows: BTreeMap::new() }
    }

    fn row(&mut self, key: GroupKey) -> &mut Measures {
        let uses = (!self.query.needs_execution()).then_some(0);
        self.rows.entry(key).or_insert_with(|| Measures { uses, ..Measures::default() })
    }

    fn groups(&self, by: Dimension) -> bool {
        self.query.group_by.contains(&by)
    }

    /// What a record of that moment and attribution is grouped by; a usage has no more than this.
    fn key(&mut self, at: Timestamp, of: &Attribution) -> GroupKey {
        GroupKey {
            bucket: self.bucket.as_mut().map(|bucket| bucket.start_of(at)),
            prompt: self.groups(Dimension::Prompt).then_some(of.prompt),
            version: self.groups(Dimension::Version).then_some(of.version),
            environment: self.groups(Dimension::Environment).then(|| of.environment.clone()),
            provider: None,
            model: None,
            session: of.session.clone().filter(|_| self.groups(Dimension::Session)),
            user: of.user.clone().filter(|_| self.groups(Dimension::User)),
        }
    }

    /// Counts a usage.
    pub fn usage(&mut self, usage: &Usage) {
        if self.query.needs_execution()
            || !self.range.contains(usage.created_at)
            || !self.query.filter.matches_usage(usage)
        {
            return;
        }
        let key = self.key(usage.created_at, &usage.attribution);
        if let Some(uses) = &mut self.row(key).uses {
            *uses += 1;
        }
    }

    /// Counts an execution.
    pub fn execution(&mut self, execution: &LlmExecution) {
        if !self.range.contains(execution.created_at)
            || !self.query.filter.matches_execution(execution)
        {
            return;
        }
        let key = GroupKey {
            provider: self.groups(Dimension::Provider).then(|| execution.provider.clone()),
            model: self.groups(Dimension::Model).then(|| execution.model.clone()),
            ..self.key(execution.created_at, &execution.attribution)
        };
        let detail = self.query.detail;
        let row = self.row(key);
        row.by_status[usize::from(execution.status.code())] += 1;
        if let Some(category) = execution.error_category {
            row.by_error[usize::from(category.code())] += 1;
        }
        if let Some(tokens) = &execution.tokens {
            row.tokens.merge(&tokens.into());
        }
        match execution.cost.as_ref().map(Cost::usd) {
            Some(Some(usd)) => {
                row.cost_pico += usd.to_pico();
                row.priced += 1;
            }
            Some(None) => row.unpriced += 1,
            None => {}
        }
        let record = match detail {
            Detail::Full => Histogram::record,
            Detail::Sums | Detail::Calls => Histogram::record_sum,
        };
        if let Some(ms) = execution.latency_ms {
            record(&mut row.latency_ms, ms);
        }
        if let Some(ms) = execution.time_to_first_token_ms {
            record(&mut row.time_to_first_token_ms, ms);
        }
    }

    /// Counts sums of records that were pruned; the filter must be one that a cube has.
    pub(crate) fn pruned(&mut self, sums: &PrunedSums) {
        let asked = match &sums.of {
            PrunedOf::Uses(_) if self.query.needs_execution() => return,
            PrunedOf::Uses(_) => None,
            PrunedOf::Calls(calls) => Some((&calls.provider, &calls.model)),
        };
        let (provider, model) = asked.unzip();
        let filter = &self.query.filter;
        let is = |wanted: &Option<Label>, found: Option<&Label>| {
            wanted.is_none() || wanted.as_ref() == found
        };
        let counts = self.range.contains(sums.quarter)
            && filter.prompt.is_none_or(|prompt| prompt == sums.prompt)
            && filter.version.is_none_or(|version| version == sums.version)
            && is(&filter.environment, Some(&sums.environment))
            && is(&filter.provider, provider)
            && is(&filter.model, model);
        if !counts {
            return;
        }
        let attribution = Attribution {
            prompt: sums.prompt,
            version: sums.version,
            environment: sums.environment.clone(),
            session: None,
            user: None,
        };
        let key = GroupKey {
            provider: provider.filter(|_| self.groups(Dimension::Provider)).cloned(),
            model: model.filter(|_| self.groups(Dimension::Model)).cloned(),
            ..self.key(sums.quarter, &attribution)
        };
        self.add(key, &sums.measures());
    }

    /// What was counted so far of the records of a row.
    pub(crate) fn of(&self, key: &GroupKey) -> Option<&Measures> {
        self.rows.get(key)
    }

    /// Adds what was counted elsewhere of the records of a row.
    pub(crate) fn add(&mut self, key: GroupKey, measures: &Measures) {
        self.row(key).merge(measures);
    }

    /// The rows, sorted by their key.
    pub fn finish(self) -> Vec<AggregateRow> {
        let detail = self.query.detail;
        let row = |(key, mut measures): (GroupKey, Measures)| {
            if detail != Detail::Full {
                measures.latency_ms.forget_buckets();
                measures.time_to_first_token_ms.forget_buckets();
            }
            AggregateRow { key, measures }
        };
        self.rows.into_iter().map(row).collect()
    }
}
