//! Where the money goes.
//! Invariant: every execution is in exactly one row, so that the rows add up to the total.

use serde::Serialize;

use super::{Analytics, StatsQuery, total};
use crate::aggregate::{AggregateRow, Dimension};
use crate::error::{Error, Result};
use crate::money::Usd;
use crate::status::named;
use crate::time::BucketWidth;

named! {
    /// What to break costs down by.
    GroupBy, "breakdown" {
        /// The prompt.
        Prompt = 0 "prompt",
        /// The version of the prompt.
        Version = 1 "version",
        /// The asked model.
        Model = 2 "model",
        /// The provider.
        Provider = 3 "provider",
        /// The environment.
        Environment = 4 "environment",
        /// The hour, in the zone of the [`Analytics`].
        Hour = 5 "hour",
        /// The day, in the zone of the [`Analytics`].
        Day = 6 "day",
    }
}

/// By prompt.
impl Default for GroupBy {
    fn default() -> Self {
        Self::Prompt
    }
}

impl GroupBy {
    fn dimensions(self) -> &'static [Dimension] {
        match self {
            Self::Prompt => &[Dimension::Prompt],
            Self::Version => &[Dimension::Prompt, Dimension::Version],
            Self::Model => &[Dimension::Model],
            Self::Provider => &[Dimension::Provider],
            Self::Environment => &[Dimension::Environment],
            Self::Hour | Self::Day => &[],
        }
    }

    fn width(self) -> Option<BucketWidth> {
        match self {
            Self::Hour => Some(BucketWidth::Hour),
            Self::Day => Some(BucketWidth::Day),
            _ => None,
        }
    }
}

/// The answer of [`Analytics::cost_breakdown`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CostBreakdown {
    /// What it is broken down by.
    pub by: GroupBy,
    /// Hours and days in order, anything else by cost descending; only what has executions.
    pub rows: Vec<CostRow>,
    /// Sum of the known costs.
    pub total_cost_usd: Usd,
    /// Finished executions whose cost is known.
    pub total_priced: u64,
    /// Finished executions whose cost is not.
    pub total_unpriced: u64,
}

/// The costs of one prompt, version, model, provider, environment, hour or day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CostRow {
    /// What it is: the id of a prompt, `slug@3`, a name, `2026-01-31T13:00+01:00` or `2026-01-31`.
    pub key: String,
    /// What to call it: the slug of a prompt, `slug v3`, or the key. The id stands for a prompt that is gone.
    pub label: String,
    /// Executions in any status.
    pub executions: u64,
    /// Sum of the known costs.
    pub cost_usd: Usd,
    /// Finished executions whose cost is known.
    pub priced: u64,
    /// Finished executions whose cost is not.
    pub unpriced: u64,
    /// Reported input tokens.
    pub input_tokens: u64,
    /// Reported output tokens.
    pub output_tokens: u64,
}

impl Analytics {
    /// Costs by what `by` names: one aggregate, and the prompts where their names are needed. Where
    /// nobody says: the last [`Analytics::COST_DAYS`] by prompt.
    pub async fn cost_breakdown(&self, by: GroupBy, query: &StatsQuery) -> Result<CostBreakdown> {
        let bucket = by.width().map(|width| self.bucket(width));
        let mut found = self.rows(query, by.dimensions(), bucket).await?;
        found.retain(|row| row.measures.executions() > 0);
        let total = total(query, &found);
        let slugs = self.slugs(found.iter().filter_map(|row| row.key.prompt)).await?;
        let same = |key: String| (key.clone(), key);
        let name = |AggregateRow { key, .. }: &AggregateRow| {
            Some(match by {
                GroupBy::Prompt => (key.prompt?.to_string(), slugs.label(key.prompt?)),
                GroupBy::Version => {
                    let (slug, number) = (slugs.label(key.prompt?), key.version?);
                    (format!("{slug}@{number}"), format!("{slug} v{number}"))
                }
                GroupBy::Model => same(key.model.as_ref()?.to_string()),
                GroupBy::Provider => same(key.provider.as_ref()?.to_string()),
                GroupBy::Environment => same(key.environment.as_ref()?.to_string()),
                GroupBy::Hour | GroupBy::Day => same(bucket?.label(key.bucket?)),
            })
        };
        let rows = found.iter().map(|row| {
            let measures = &row.measures;
            let (key, label) = name(row)
                .ok_or_else(|| Error::corrupt(format!("a row of costs by {by} names no {by}")))?;
            Ok(CostRow {
                key,
                label,
                executions: measures.executions(),
                cost_usd: measures.cost(),
                priced: measures.priced,
                unpriced: measures.unpriced,
                input_tokens: measures.tokens.input,
                output_tokens: measures.tokens.output,
            })
        });
        let mut rows: Vec<CostRow> = rows.collect::<Result<_>>()?;
        if bucket.is_none() {
            rows.sort_by(|a, b| {
                b.cost_usd
                    .cmp(&a.cost_usd)
                    .then_with(|| (&a.label, &a.key).cmp(&(&b.label, &b.key)))
            });
        }
        Ok(CostBreakdown {
            by,
            rows,
            total_cost_usd: total.cost(),
            total_priced: total.priced,
            total_unpriced: total.unpriced,
        })
    }
}
