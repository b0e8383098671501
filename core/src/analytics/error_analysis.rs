//! What fails, where, since when, and why.
//! Invariant: errors are the executions that ended in `error` or `timeout`; a pending or cancelled one is none.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::{Analytics, Gaps, StatsQuery, question, series, total};
use crate::aggregate::{Detail, Dimension, Measures, ratio};
use crate::error::Result;
use crate::id::ExecutionId;
use crate::label::Label;
use crate::query::{PageQuery, RecordQuery};
use crate::record::LlmExecution;
use crate::status::{ErrorCategory, Status};
use crate::time::{BucketWidth, TimeRange, Timestamp};

/// The longest range whose trend is by hour where nobody says.
const HOURLY: Duration = Duration::from_secs(3 * 86_400);

/// The answer of [`Analytics::error_analysis`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ErrorAnalysis {
    /// Executions in any status.
    pub total_executions: u64,
    /// Executions that are over.
    pub finished: u64,
    /// Executions that failed.
    pub errors: u64,
    /// The part of the finished that failed, 0 to 1; `None` when nothing finished.
    pub error_rate: Option<f64>,
    /// Why they failed, the most frequent first.
    pub by_category: Vec<CategoryRow>,
    /// Prompts with errors, those with most first.
    pub by_prompt: Vec<PromptErrors>,
    /// Every bucket of the range (see [`Analytics::MAX_POINTS`]); where an end is open, from the first or to the last with records.
    pub trend: Vec<ErrorPoint>,
    /// The last that failed, newest first: [`Self::RECENT`] or, where records were pruned, fewer.
    pub recent: Vec<FailedExecution>,
    /// What the answer leaves out.
    #[serde(flatten)]
    pub gaps: Gaps,
}

impl ErrorAnalysis {
    /// How many failed executions are shown.
    pub const RECENT: u32 = 10;
}

/// One reason to fail. A failure without one is of [`ErrorCategory::Other`]; being cancelled is none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CategoryRow {
    /// The reason.
    pub category: ErrorCategory,
    /// Executions that failed for it.
    pub count: u64,
    /// Their part of all that failed, 0 to 1.
    pub share: Option<f64>,
}

/// The errors of one prompt.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PromptErrors {
    /// The id of the prompt.
    pub key: String,
    /// Its slug, or its id if it is gone.
    pub label: String,
    /// Its executions in any status.
    pub executions: u64,
    /// Those that are over.
    pub finished: u64,
    /// Those that failed.
    pub errors: u64,
    /// The part of the finished that failed, 0 to 1.
    pub error_rate: Option<f64>,
}

/// One hour or day (or quarter of an hour).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ErrorPoint {
    /// `2026-01-31T13:00+01:00` or `2026-01-31`, in the zone of the [`Analytics`].
    pub bucket: String,
    /// Executions in any status.
    pub executions: u64,
    /// Executions that failed.
    pub errors: u64,
    /// The part of the finished that failed, 0 to 1; `None` when nothing finished.
    pub error_rate: Option<f64>,
}

/// One failed execution.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FailedExecution {
    /// Its id.
    pub id: ExecutionId,
    /// When the request was sent.
    pub created_at: Timestamp,
    /// The slug of its prompt, or the id of one that is gone.
    pub prompt: String,
    /// Whom it asked.
    pub provider: Label,
    /// The model that was asked.
    pub model: Label,
    /// `error` or `timeout`.
    pub status: Status,
    /// Why it failed.
    pub error_category: Option<ErrorCategory>,
    /// What the failure said; `None` once that has expired.
    pub error_message: Option<String>,
    /// The HTTP status of the answer, where there was one.
    pub http_status: Option<u16>,
}

impl Analytics {
    /// Errors in all, by category, by prompt and over time, and the last ten: two aggregates
    /// and one list. Where nobody names a range: [`Analytics::ERROR_HOURS`].
    ///
    /// `width`: of the trend; where it is `None`, an hour for a range of up to three days, else a day.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn error_analysis(
        &self,
        query: &StatsQuery,
        width: Option<BucketWidth>,
    ) -> Result<ErrorAnalysis> {
        let bucket = self.bucket(width.unwrap_or_else(|| width_of(query.range)));
        let questions = [
            question(query, &[Dimension::Prompt], None, Detail::Calls),
            question(query, &[], Some(bucket), Detail::Calls),
        ];
        let [prompts, points] = self.ask(questions).await?;
        let gaps = Gaps::of([&prompts, &points]);
        let recent = self.recent_failures(query).await?;

        let total = total(query, &prompts.rows);
        let failing = prompts
            .rows
            .iter()
            .filter(|row| row.measures.failed() > 0)
            .filter_map(|row| Some((row.key.prompt?, &row.measures)));
        let ids = failing.clone().map(|(id, _)| id);
        let slugs = self.slugs(ids.chain(recent.iter().map(|one| one.attribution.prompt))).await?;
        let mut by_prompt: Vec<_> = failing
            .map(|(id, measures)| PromptErrors {
                key: id.to_string(),
                label: slugs.label(id),
                executions: measures.executions(),
                finished: measures.finished(),
                errors: measures.failed(),
                error_rate: measures.error_rate(),
            })
            .collect();
        by_prompt.sort_by(|a, b| b.errors.cmp(&a.errors).then_with(|| a.label.cmp(&b.label)));
        Ok(ErrorAnalysis {
            total_executions: total.executions(),
            finished: total.finished(),
            errors: total.failed(),
            error_rate: total.error_rate(),
            by_category: categories(&total),
            by_prompt,
            trend: series(query.range, bucket, points.rows, None, |bucket, measures| ErrorPoint {
                bucket,
                executions: measures.executions(),
                errors: measures.failed(),
                error_rate: measures.error_rate(),
            }),
            recent: recent
                .into_iter()
                .map(|one| FailedExecution {
                    id: one.id,
                    created_at: one.created_at,
                    prompt: slugs.label(one.attribution.prompt),
                    provider: one.provider,
                    model: one.model,
                    status: one.status,
                    error_category: one.error_category,
                    error_message: one
                        .payload
                        .and_then(|payload| Arc::unwrap_or_clone(payload).error_message),
                    http_status: one.http_status,
                })
                .collect(),
            gaps,
        })
    }

    /// The last failed executions, newest first, with their payloads where these are still kept.
    async fn recent_failures(&self, query: &StatsQuery) -> Result<Vec<LlmExecution>> {
        let asked = &query.filter.statuses;
        let counts = |status: &Status| asked.is_empty() || asked.contains(status);
        let statuses: Vec<_> =
            Status::ALL.iter().copied().filter(|s| s.is_failure()).filter(counts).collect();
        if statuses.is_empty() {
            return Ok(Vec::new());
        }
        let mut filter = query.filter.clone();
        filter.statuses = statuses;
        let page = PageQuery { limit: ErrorAnalysis::RECENT, after: None };
        let list = RecordQuery {
            range: query.range,
            filter,
            page,
            payloads: true,
            ..RecordQuery::default()
        };
        Ok(self.store.list_executions(&list).await?.items)
    }
}

fn width_of(range: TimeRange) -> BucketWidth {
    match (range.from, range.to) {
        (Some(from), Some(to)) if to.duration_since(from) <= HOURLY => BucketWidth::Hour,
        _ => BucketWidth::Day,
    }
}

fn categories(total: &Measures) -> Vec<CategoryRow> {
    let mut counts = total.by_error;
    counts[usize::from(ErrorCategory::Cancelled.code())] = 0;
    let known: u64 = counts.iter().sum();
    counts[usize::from(ErrorCategory::Other.code())] += total.failed().saturating_sub(known);
    let all = counts.iter().sum();
    let mut rows: Vec<_> = ErrorCategory::ALL
        .iter()
        .zip(counts)
        .filter(|(_, count)| *count > 0)
        .map(|(category, count)| CategoryRow {
            category: *category,
            count,
            share: ratio(count, all),
        })
        .collect();
    rows.sort_by(|a, b| b.count.cmp(&a.count).then(a.category.cmp(&b.category)));
    rows
}
