//! The prompts that are used, cost or fail the most.
//! Invariant: only prompts that have any of what is ranked by are in the list; ranks count from 1.

use std::cmp::Reverse;

use serde::Serialize;

use super::{Analytics, Gaps, StatsQuery, Tally, question};
use crate::aggregate::{Detail, Dimension};
use crate::error::{Error, Result};
use crate::status::named;

named! {
    /// What to rank prompts by.
    TopBy, "ranking" {
        /// How often they were rendered.
        Uses = 0 "uses",
        /// What their executions cost.
        Cost = 1 "cost",
        /// How many of their executions failed.
        Errors = 2 "errors",
    }
}

/// By uses.
impl Default for TopBy {
    fn default() -> Self {
        Self::Uses
    }
}

/// The answer of [`Analytics::top_prompts`].
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TopPrompts {
    /// The prompts, the first first.
    pub rows: Vec<TopRow>,
    /// What the answer leaves out.
    #[serde(flatten)]
    pub gaps: Gaps,
}

/// One prompt of [`TopPrompts`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TopRow {
    /// Its place, from 1.
    pub rank: usize,
    /// The id of the prompt.
    pub key: String,
    /// Its slug, or its id if it is gone.
    pub label: String,
    /// What its records add up to.
    #[serde(flatten)]
    pub tally: Tally,
    /// Executions that failed.
    pub errors: u64,
    /// The part of the finished that failed, 0 to 1; `None` when nothing finished.
    pub error_rate: Option<f64>,
}

impl Analytics {
    /// The first `limit` prompts by what `by` names, then by executions, then by label: one aggregate and
    /// the prompts for their names. By cost, prompts with executions are listed even where their cost is not
    /// known. Where nobody says: [`Analytics::TOP_ROWS`] of the last [`Analytics::TOP_DAYS`] by uses.
    ///
    /// # Errors
    /// `Invalid` by uses, where the filter names a provider, a model or a status: a use has none.
    pub async fn top_prompts(
        &self,
        by: TopBy,
        limit: usize,
        query: &StatsQuery,
    ) -> Result<TopPrompts> {
        if by == TopBy::Uses && query.filter.needs_execution() {
            return Err(Error::invalid(
                "prompts cannot be ranked by uses of one provider, model or status, which only an \
                 execution has; rank by cost or errors",
            ));
        }
        let by_prompt = question(query, &[Dimension::Prompt], None, Detail::Sums);
        let [answer] = self.ask([by_prompt]).await?;
        let gaps = Gaps::of([&answer]);
        let mut found = answer.rows;
        found.retain(|row| match by {
            TopBy::Uses => row.measures.uses.is_some_and(|uses| uses > 0),
            TopBy::Cost => row.measures.executions() > 0,
            TopBy::Errors => row.measures.failed() > 0,
        });
        let slugs = self.slugs(found.iter().filter_map(|row| row.key.prompt)).await?;
        let mut rows: Vec<_> = found
            .iter()
            .filter_map(|row| {
                let id = row.key.prompt?;
                Some(TopRow {
                    rank: 0,
                    key: id.to_string(),
                    label: slugs.label(id),
                    tally: (&row.measures).into(),
                    errors: row.measures.failed(),
                    error_rate: row.measures.error_rate(),
                })
            })
            .collect();
        rows.sort_by(|a, b| {
            let order = match by {
                TopBy::Uses => b.tally.uses.cmp(&a.tally.uses),
                TopBy::Cost => b.tally.cost_usd.cmp(&a.tally.cost_usd),
                TopBy::Errors => b.errors.cmp(&a.errors),
            };
            let ties = |row: &TopRow| Reverse(row.tally.executions);
            order.then_with(|| (ties(a), &a.label).cmp(&(ties(b), &b.label)))
        });
        rows.truncate(limit);
        rows.iter_mut().zip(1..).for_each(|(row, rank)| row.rank = rank);
        Ok(TopPrompts { rows, gaps })
    }
}
