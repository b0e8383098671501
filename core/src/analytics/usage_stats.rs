//! How much a store's prompts are used, what it costs, and how the calls go.
//! Invariant: totals are the sum of the environments, read in one snapshot.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Analytics, Durations, Gaps, Slice, StatsQuery, merged, question, slices, total};
use crate::aggregate::{Detail, Dimension, Measures, TokenSums, ratio};
use crate::error::Result;
use crate::label::Label;
use crate::money::Usd;
use crate::status::Status;

/// The answer of [`Analytics::usage_stats`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UsageStats {
    /// Renders; `None` where the filter names what only an execution has.
    pub total_uses: Option<u64>,
    /// Executions in any status.
    pub total_executions: u64,
    /// Executions by status.
    pub by_status: StatusCounts,
    /// The part of the finished that succeeded, 0 to 1; `None` when nothing finished.
    pub success_rate: Option<f64>,
    /// The part of the finished that failed, 0 to 1; `None` when nothing finished.
    pub error_rate: Option<f64>,
    /// Sum of the known costs.
    pub total_cost_usd: Usd,
    /// Finished executions whose cost is known.
    pub priced: u64,
    /// Finished executions whose cost is not.
    pub unpriced: u64,
    /// Sums of the reported tokens.
    pub tokens: TokenStats,
    /// Input and output tokens of an execution that reported them, on average.
    pub average_tokens: Option<f64>,
    /// How long calls took.
    pub latency_ms: Durations,
    /// How long the first token took.
    pub time_to_first_token_ms: Durations,
    /// Environments, by cost descending.
    pub by_environment: Vec<Slice>,
    /// Asked models, by cost descending; uses are not known of a model.
    pub by_model: Vec<Slice>,
    /// What the answer leaves out.
    #[serde(flatten)]
    pub gaps: Gaps,
}

/// Executions by status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct StatusCounts {
    /// Sent, not yet answered.
    pub pending: u64,
    /// Answered.
    pub success: u64,
    /// Failed.
    pub error: u64,
    /// Not answered in time.
    pub timeout: u64,
    /// Given up by the caller.
    pub cancelled: u64,
}

/// Sums of the tokens that were reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TokenStats {
    /// Input tokens, those of caches included.
    pub input: u64,
    /// Output tokens, those of reasoning included.
    pub output: u64,
    /// Input and output together.
    pub total: u64,
    /// Input tokens from a cache.
    pub cache_read: u64,
    /// Input tokens written to a cache.
    pub cache_write: u64,
    /// Output tokens of reasoning.
    pub reasoning: u64,
    /// Executions that reported tokens.
    pub reported: u64,
}

impl From<&TokenSums> for TokenStats {
    fn from(of: &TokenSums) -> Self {
        Self {
            input: of.input,
            output: of.output,
            total: of.total(),
            cache_read: of.cache_read,
            cache_write: of.cache_write,
            reasoning: of.reasoning,
            reported: of.reported,
        }
    }
}

impl UsageStats {
    pub(super) fn new(
        total: &Measures,
        by_environment: BTreeMap<Label, Measures>,
        by_model: BTreeMap<Label, Measures>,
        gaps: Gaps,
    ) -> Self {
        Self {
            total_uses: total.uses,
            total_executions: total.executions(),
            by_status: StatusCounts {
                pending: total.in_status(Status::Pending),
                success: total.in_status(Status::Success),
                error: total.in_status(Status::Error),
                timeout: total.in_status(Status::Timeout),
                cancelled: total.in_status(Status::Cancelled),
            },
            success_rate: total.success_rate(),
            error_rate: total.error_rate(),
            total_cost_usd: total.cost(),
            priced: total.priced,
            unpriced: total.unpriced,
            tokens: (&total.tokens).into(),
            average_tokens: ratio(total.tokens.total(), total.tokens.reported),
            latency_ms: (&total.latency_ms).into(),
            time_to_first_token_ms: (&total.time_to_first_token_ms).into(),
            by_environment: slices(by_environment),
            by_model: slices(by_model),
            gaps,
        }
    }
}

impl Analytics {
    /// Uses, executions, rates, cost, tokens and durations, in all and by environment and model: two
    /// queries. Where nobody names a range: of all time.
    pub async fn usage_stats(&self, query: &StatsQuery) -> Result<UsageStats> {
        let questions = [
            question(query, &[Dimension::Environment], None, Detail::Full),
            question(query, &[Dimension::Model], None, Detail::Sums),
        ];
        let [environments, models] = self.ask(questions).await?;
        Ok(UsageStats::new(
            &total(query, &environments.rows),
            merged(&environments.rows, |key| key.environment.clone()),
            merged(&models.rows, |key| key.model.clone()),
            Gaps::of([&environments, &models]),
        ))
    }
}
