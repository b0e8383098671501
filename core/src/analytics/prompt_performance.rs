//! How one prompt does: by day, by version and by model.
//! Invariant: the days of a closed range have no gap, whatever clocks do and whether records exist.

use serde::Serialize;

use super::{
    Analytics, Gaps, StatsQuery, Tally, UsageStats, by_cost, merged, question, series, total,
};
use crate::aggregate::{Detail, Dimension, Measures};
use crate::error::{Error, Result};
use crate::id::PromptId;
use crate::slug::Slug;
use crate::time::BucketWidth;

/// Names a prompt: by id or by slug.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PromptRef {
    /// By its id; its records are found even if the prompt is gone.
    Id(PromptId),
    /// By its slug.
    Slug(Slug),
}

impl From<PromptId> for PromptRef {
    fn from(id: PromptId) -> Self {
        Self::Id(id)
    }
}

impl From<Slug> for PromptRef {
    fn from(slug: Slug) -> Self {
        Self::Slug(slug)
    }
}

impl From<&Slug> for PromptRef {
    fn from(slug: &Slug) -> Self {
        Self::Slug(slug.clone())
    }
}

/// The answer of [`Analytics::prompt_performance`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PromptPerformance {
    /// The slug, or the id of a prompt that is gone.
    pub prompt: String,
    /// What its records add up to.
    #[serde(flatten)]
    pub stats: UsageStats,
    /// Every day of the range (see [`Analytics::MAX_POINTS`]); where an end is open, from the first or to the last day with records.
    pub cost_by_day: Vec<DaySlice>,
    /// Versions, by cost descending.
    pub by_version: Vec<VersionSlice>,
}

/// One day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DaySlice {
    /// `2026-01-31`, in the zone of the [`Analytics`].
    pub day: String,
    /// What it adds up to.
    #[serde(flatten)]
    pub tally: Tally,
}

/// One version.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VersionSlice {
    /// Its number.
    pub key: String,
    /// What it adds up to.
    #[serde(flatten)]
    pub tally: Tally,
    /// The part of the finished that succeeded, 0 to 1; `None` when nothing finished.
    pub success_rate: Option<f64>,
    /// Mean latency in milliseconds; `None` where none was measured.
    pub average_latency_ms: Option<f64>,
}

impl Analytics {
    /// The numbers of [`Analytics::usage_stats`] for one prompt, which takes the place of a prompt in the
    /// filter, and its days and versions: four aggregates. Where nobody names a range:
    /// [`Analytics::PERFORMANCE_DAYS`].
    ///
    /// # Errors
    /// `NotFound` if there is no such prompt, nor a record of its id in the answer.
    pub async fn prompt_performance(
        &self,
        prompt: impl Into<PromptRef> + Send,
        query: &StatsQuery,
    ) -> Result<PromptPerformance> {
        let (id, slug) = match prompt.into() {
            PromptRef::Id(id) => (id, self.store.prompt(id).await?.map(|prompt| prompt.slug)),
            PromptRef::Slug(slug) => match self.store.prompt_by_slug(&slug).await? {
                Some(prompt) => (prompt.id, Some(prompt.slug)),
                None => return Err(Error::not_found(format!("there is no prompt {slug}"))),
            },
        };
        let mut query = query.clone();
        query.filter.prompt = Some(id);
        let bucket = self.bucket(BucketWidth::Day);
        let questions = [
            question(&query, &[Dimension::Environment], None, Detail::Full),
            question(&query, &[Dimension::Version], None, Detail::Sums),
            question(&query, &[Dimension::Model], None, Detail::Sums),
            question(&query, &[], Some(bucket), Detail::Sums),
        ];
        let [environments, versions, models, days] = self.ask(questions).await?;
        if slug.is_none() && environments.rows.is_empty() {
            return Err(Error::not_found(format!("there is no prompt {id}")));
        }

        let gaps = Gaps::of([&environments, &versions, &models, &days]);
        let total = total(&query, &environments.rows);
        let no_uses = total.uses.map(|_| 0);
        let day = |day, measures: &Measures| DaySlice { day, tally: measures.into() };
        Ok(PromptPerformance {
            prompt: slug.map_or_else(|| id.to_string(), |slug| slug.to_string()),
            stats: UsageStats::new(
                &total,
                merged(&environments.rows, |key| key.environment.clone()),
                merged(&models.rows, |key| key.model.clone()),
                gaps,
            ),
            cost_by_day: series(query.range, bucket, days.rows, no_uses, day),
            by_version: by_cost(merged(&versions.rows, |key| key.version))
                .into_iter()
                .map(|(version, measures)| VersionSlice {
                    key: version.to_string(),
                    tally: (&measures).into(),
                    success_rate: measures.success_rate(),
                    average_latency_ms: measures.latency_ms.average(),
                })
                .collect(),
        })
    }
}
