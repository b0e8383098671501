//! Where the money goes.
//! Invariant: every execution is in exactly one row or in the rest, so that they add up to the total.

use serde::Serialize;

use super::{Analytics, Gaps, StatsQuery, question, series, total};
use crate::aggregate::{AggregateRow, Detail, Dimension, Measures};
use crate::error::{Error, Result};
use crate::label::Label;
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
        /// The session; a row of its own for what has none.
        Session = 7 "session",
        /// The user; a row of its own for what has none.
        User = 8 "user",
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
            Self::Session => &[Dimension::Session],
            Self::User => &[Dimension::User],
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
    /// Every hour or day of the range (see [`Analytics::MAX_POINTS`]), in order; where an end is open, from the first or to the last
    /// with executions. Of anything else what has executions, by cost descending.
    pub rows: Vec<CostRow>,
    /// What [`CostBreakdown::first`] left out of the rows.
    pub rest: Option<CostRest>,
    /// Executions in any status.
    pub total_executions: u64,
    /// Sum of the known costs.
    pub total_cost_usd: Usd,
    /// Finished executions whose cost is known.
    pub total_priced: u64,
    /// Finished executions whose cost is not.
    pub total_unpriced: u64,
    /// What the answer leaves out.
    #[serde(flatten)]
    pub gaps: Gaps,
}

/// The costs of one prompt, version, model, provider, environment, hour, day, session or user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CostRow {
    /// What it is: the id of a prompt, `slug@3`, a name, `2026-01-31T13:00+01:00` or `2026-01-31`.
    /// `None` for what has no session or no user.
    pub key: Option<String>,
    /// What to call it: the slug of a prompt, `slug v3`, or the key. The id stands for a prompt that is gone,
    /// `(none)` for what has no session or no user.
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

/// What the rows that were left out add up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CostRest {
    /// How many rows.
    pub rows: u64,
    /// Their executions in any status.
    pub executions: u64,
    /// Sum of their known costs.
    pub cost_usd: Usd,
    /// Their finished executions whose cost is known.
    pub priced: u64,
    /// Their finished executions whose cost is not.
    pub unpriced: u64,
    /// Their reported input tokens.
    pub input_tokens: u64,
    /// Their reported output tokens.
    pub output_tokens: u64,
}

impl CostRow {
    fn new(key: Option<String>, label: String, measures: &Measures) -> Self {
        Self {
            key,
            label,
            executions: measures.executions(),
            cost_usd: measures.cost(),
            priced: measures.priced,
            unpriced: measures.unpriced,
            input_tokens: measures.tokens.input,
            output_tokens: measures.tokens.output,
        }
    }
}

impl CostBreakdown {
    /// The first `limit` rows alone, and what the others add up to as [`CostBreakdown::rest`]: there
    /// may be as many sessions as calls.
    #[must_use]
    pub fn first(mut self, limit: usize) -> Self {
        if self.rows.len() <= limit {
            return self;
        }
        let mut rest = self.rest.unwrap_or_default();
        let mut pico = rest.cost_usd.to_pico();
        for row in self.rows.drain(limit..) {
            rest.rows += 1;
            rest.executions += row.executions;
            pico += row.cost_usd.to_pico();
            rest.priced += row.priced;
            rest.unpriced += row.unpriced;
            rest.input_tokens = rest.input_tokens.saturating_add(row.input_tokens);
            rest.output_tokens = rest.output_tokens.saturating_add(row.output_tokens);
        }
        // No more than the total, which is an amount.
        rest.cost_usd = Usd::from_pico(pico).unwrap_or(self.total_cost_usd);
        self.rest = Some(rest);
        self
    }
}

impl Analytics {
    /// Costs by what `by` names: one aggregate, and the prompts where their names are needed. Where
    /// nobody says: the last [`Analytics::COST_DAYS`] by prompt.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn cost_breakdown(&self, by: GroupBy, query: &StatsQuery) -> Result<CostBreakdown> {
        let bucket = by.width().map(|width| self.bucket(width));
        let [answer] = self.ask([question(query, by.dimensions(), bucket, Detail::Calls)]).await?;
        let gaps = Gaps::of([&answer]);
        let mut found = answer.rows;
        found.retain(|row| row.measures.executions() > 0);
        let total = total(query, &found);
        let rows = match bucket {
            Some(bucket) => series(query.range, bucket, found, None, |label, measures| {
                CostRow::new(Some(label.clone()), label, measures)
            }),
            None => self.cost_rows(by, &found).await?,
        };
        Ok(CostBreakdown {
            by,
            rows,
            rest: None,
            total_executions: total.executions(),
            total_cost_usd: total.cost(),
            total_priced: total.priced,
            total_unpriced: total.unpriced,
            gaps,
        })
    }

    /// The rows of what is no stretch of time, by cost descending.
    async fn cost_rows(&self, by: GroupBy, found: &[AggregateRow]) -> Result<Vec<CostRow>> {
        let slugs = self.slugs(found.iter().filter_map(|row| row.key.prompt)).await?;
        let same = |key: String| (Some(key.clone()), key);
        let or_none = |key: Option<&Label>| match key {
            Some(key) => same(key.to_string()),
            None => (None, "(none)".to_owned()),
        };
        let name = |AggregateRow { key, .. }: &AggregateRow| {
            Some(match by {
                GroupBy::Prompt => (Some(key.prompt?.to_string()), slugs.label(key.prompt?)),
                GroupBy::Version => {
                    let (slug, number) = (slugs.label(key.prompt?), key.version?);
                    (Some(format!("{slug}@{number}")), format!("{slug} v{number}"))
                }
                GroupBy::Model => same(key.model.as_ref()?.to_string()),
                GroupBy::Provider => same(key.provider.as_ref()?.to_string()),
                GroupBy::Environment => same(key.environment.as_ref()?.to_string()),
                GroupBy::Session => or_none(key.session.as_ref()),
                GroupBy::User => or_none(key.user.as_ref()),
                GroupBy::Hour | GroupBy::Day => return None,
            })
        };
        let rows = found.iter().map(|row| {
            let (key, label) = name(row)
                .ok_or_else(|| Error::corrupt(format!("a row of costs by {by} names no {by}")))?;
            Ok(CostRow::new(key, label, &row.measures))
        });
        let mut rows: Vec<CostRow> = rows.collect::<Result<_>>()?;
        rows.sort_by(|a, b| {
            let ties = |row: &CostRow| std::cmp::Reverse(row.executions);
            b.cost_usd
                .cmp(&a.cost_usd)
                .then_with(|| (ties(a), &a.label, &a.key).cmp(&(ties(b), &b.label, &b.key)))
        });
        Ok(rows)
    }
}
