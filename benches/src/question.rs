//! The questions that are timed, each about a range of its own, and what their answers say.
//! Invariant: no two runs of any question ask for the same range, so that no cache can answer.

use std::collections::HashMap;
use std::time::Duration;

use prompt_engine_core::analytics::{
    CostBreakdown, ErrorAnalysis, PromptPerformance, TopRow, UsageStats,
};
use prompt_engine_core::{
    AggregateQuery, AggregateRow, Analytics, Bucket, BucketWidth, Detail, Dimension, Filter,
    GroupBy, Measures, PromptId, RecordStore, Result, Source, StatsQuery, TimeRange, TopBy, Zone,
};

use crate::answer::{Answer, Percentiles, Sums, groups, pico, sliced};
use crate::recount::{Asked, Grouping, recount};
use crate::set::{Set, moment};

/// How long the ranges are.
const DAYS: u64 = 30;
const DAY_MICROS: i64 = 86_400_000_000;
/// How much earlier than the one before a range ends, within a day: hours, odd minutes and seconds.
const STEP_MICROS: i64 = 20_843_519_017;
/// Prompts of a ranking.
const TOP: usize = Analytics::TOP_ROWS;
/// Failures that an analysis of errors shows.
const RECENT: usize = 10;

/// A question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Uses, executions, rates, cost, tokens and latencies.
    UsageStats,
    /// The same for one prompt, another one in each run, by day and version.
    PromptPerformance,
    /// Costs by what is named.
    Costs(GroupBy),
    /// Failures by reason, prompt and day, and the last of them.
    ErrorAnalysis,
    /// The prompts with the most uses.
    TopPrompts,
    /// Costs by day of a zone whose clocks are put forward in the set.
    CostsByDayInBerlin,
    /// Sums by prompt and model.
    PromptXModel,
    /// Sums by prompt and day.
    PromptXDay,
    /// [`Self::UsageStats`] of the production environment.
    UsageStatsOfEnvironment,
    /// [`Self::UsageStats`] of one session, another one in each run.
    UsageStatsOfSession,
    /// [`Self::UsageStats`] from the first call on.
    UsageStatsOfAllTime,
}

impl Question {
    /// The eight that have a target.
    pub const TARGETS: [Self; 8] = [
        Self::UsageStats,
        Self::PromptPerformance,
        Self::Costs(GroupBy::Prompt),
        Self::Costs(GroupBy::Model),
        Self::Costs(GroupBy::Provider),
        Self::Costs(GroupBy::Day),
        Self::ErrorAnalysis,
        Self::TopPrompts,
    ];
    /// Further ones.
    pub const EXTRAS: [Self; 6] = [
        Self::PromptXModel,
        Self::PromptXDay,
        Self::CostsByDayInBerlin,
        Self::UsageStatsOfEnvironment,
        Self::UsageStatsOfSession,
        Self::UsageStatsOfAllTime,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::UsageStats => "usage_stats",
            Self::PromptPerformance => "prompt_performance",
            Self::Costs(GroupBy::Prompt) => "cost_breakdown_prompt",
            Self::Costs(GroupBy::Version) => "cost_breakdown_version",
            Self::Costs(GroupBy::Model) => "cost_breakdown_model",
            Self::Costs(GroupBy::Provider) => "cost_breakdown_provider",
            Self::Costs(GroupBy::Environment) => "cost_breakdown_environment",
            Self::Costs(GroupBy::Hour) => "cost_breakdown_hour",
            Self::Costs(GroupBy::Day) => "cost_breakdown_day",
            Self::Costs(GroupBy::Session) => "cost_breakdown_session",
            Self::Costs(GroupBy::User) => "cost_breakdown_user",
            Self::ErrorAnalysis => "error_analysis",
            Self::TopPrompts => "top_prompts",
            Self::CostsByDayInBerlin => "cost_breakdown_day_berlin",
            Self::PromptXModel => "prompt_x_model",
            Self::PromptXDay => "prompt_x_day",
            Self::UsageStatsOfEnvironment => "usage_stats_environment",
            Self::UsageStatsOfSession => "usage_stats_session",
            Self::UsageStatsOfAllTime => "usage_stats_all_time",
        }
    }

    /// Whether it is one of [`Self::EXTRAS`].
    pub fn is_extra(self) -> bool {
        !Self::TARGETS.contains(&self)
    }

    /// The zone of its days.
    ///
    /// # Panics
    /// If the name of a zone is wrong, which would be a mistake in this file.
    pub fn zone(self) -> Zone {
        match self {
            Self::CostsByDayInBerlin => "Europe/Berlin".parse().expect("a zone"),
            _ => Zone::UTC,
        }
    }

    /// What the answer is grouped by.
    pub fn groupings(self) -> Vec<Grouping> {
        let day = Grouping::Day(self.zone());
        match self {
            Self::UsageStats
            | Self::UsageStatsOfEnvironment
            | Self::UsageStatsOfSession
            | Self::UsageStatsOfAllTime => vec![Grouping::Environment, Grouping::Model],
            Self::PromptPerformance => {
                vec![Grouping::Environment, Grouping::Model, Grouping::Version, day]
            }
            Self::Costs(GroupBy::Prompt) => vec![Grouping::Prompt],
            Self::Costs(GroupBy::Model) => vec![Grouping::Model],
            Self::Costs(GroupBy::Provider) => vec![Grouping::Provider],
            Self::Costs(GroupBy::Environment) => vec![Grouping::Environment],
            Self::Costs(GroupBy::Day) | Self::CostsByDayInBerlin => vec![day],
            // Nobody asks for these here.
            Self::Costs(GroupBy::Version | GroupBy::Hour | GroupBy::Session | GroupBy::User) => {
                vec![]
            }
            Self::ErrorAnalysis => vec![Grouping::FailingPrompts, day],
            Self::TopPrompts => vec![Grouping::TopPrompts(TOP)],
            Self::PromptXModel => vec![Grouping::PromptModel],
            Self::PromptXDay => vec![Grouping::PromptDay],
        }
    }

    /// What the `run`-th run of all asks for: the last 30 days of `set`, a part of a day earlier each.
    pub fn asked(self, set: &Set, run: u32) -> Asked {
        let end = set.range().to.map_or(0, prompt_engine_core::Timestamp::as_micros);
        let most = DAY_MICROS.min(i64::from(set.days()) * DAY_MICROS / 2);
        let to = moment(end - (i64::from(run) + 1).saturating_mul(STEP_MICROS) % most);
        let from = to.saturating_sub(Duration::from_secs(DAYS * 86_400));
        let mut asked =
            Asked { range: TimeRange { from: Some(from), to: Some(to) }, ..Asked::default() };
        match self {
            Self::PromptPerformance => {
                asked.prompt = Some((7 * run as usize + 3) % set.prompts().len());
            }
            Self::UsageStatsOfEnvironment => asked.environment = Some(0),
            Self::UsageStatsOfSession => {
                let last = set.first_from(to.as_micros()).saturating_sub(1 + u64::from(run) * 97);
                asked.session = Some(set.fact(last).session);
            }
            Self::UsageStatsOfAllTime => asked.range.from = None,
            _ => {}
        }
        asked
    }

    /// Asks `analytics`; what it has no function for, `store`.
    pub async fn ask(
        self,
        analytics: &Analytics,
        store: &dyn RecordStore,
        set: &Set,
        asked: &Asked,
    ) -> Result<Reply> {
        let filter = Filter {
            prompt: asked.prompt.map(|prompt| set.prompts()[prompt]),
            environment: asked.environment.map(|place| set.environments()[place].clone()),
            session: asked.session.map(Set::session),
            ..Filter::default()
        };
        let query = StatsQuery { range: asked.range, filter };
        let sums = |group_by: &[Dimension], bucket| AggregateQuery {
            range: query.range,
            filter: query.filter.clone(),
            group_by: group_by.to_vec(),
            bucket,
            detail: Detail::Sums,
            source: Source::Any,
        };
        Ok(match self {
            Self::UsageStats
            | Self::UsageStatsOfEnvironment
            | Self::UsageStatsOfSession
            | Self::UsageStatsOfAllTime => {
                Reply::Stats(Box::new(analytics.usage_stats(&query).await?))
            }
            Self::PromptPerformance => {
                let prompt = set.prompts()[asked.prompt.unwrap_or(0)];
                let performance = analytics.prompt_performance(prompt, &query).await?;
                Reply::Performance(Box::new(performance))
            }
            Self::Costs(by) => Reply::Costs(analytics.cost_breakdown(by, &query).await?),
            Self::CostsByDayInBerlin => {
                let analytics = analytics.clone().in_zone(self.zone());
                Reply::Costs(analytics.cost_breakdown(GroupBy::Day, &query).await?)
            }
            Self::ErrorAnalysis => {
                Reply::Errors(Box::new(analytics.error_analysis(&query, None).await?))
            }
            Self::TopPrompts => {
                Reply::Top(analytics.top_prompts(TopBy::Uses, TOP, &query).await?.rows)
            }
            Self::PromptXModel => {
                let query = sums(&[Dimension::Prompt, Dimension::Model], None);
                Reply::Rows(store.aggregate(&query).await?.rows)
            }
            Self::PromptXDay => {
                let bucket = Bucket { width: BucketWidth::Day, zone: self.zone() };
                let query = sums(&[Dimension::Prompt], Some(bucket));
                Reply::Rows(store.aggregate(&query).await?.rows)
            }
        })
    }

    /// What the answer must be.
    pub fn right_answer(self, set: &Set, asked: &Asked) -> Answer {
        let recent = if self == Self::ErrorAnalysis { RECENT } else { 0 };
        recount(set, asked, &self.groupings(), recent)
    }
}

/// What was answered, as it was answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// Of `usage_stats`.
    Stats(Box<UsageStats>),
    /// Of `prompt_performance`.
    Performance(Box<PromptPerformance>),
    /// Of `cost_breakdown`.
    Costs(CostBreakdown),
    /// Of `error_analysis`.
    Errors(Box<ErrorAnalysis>),
    /// Of `top_prompts`.
    Top(Vec<TopRow>),
    /// Of an aggregate.
    Rows(Vec<AggregateRow>),
}

impl Reply {
    /// What it says.
    pub fn answer(&self, set: &Set, question: Question) -> Answer {
        match self {
            Self::Stats(stats) => stats_answer(stats),
            Self::Performance(performance) => {
                let mut answer = stats_answer(&performance.stats);
                let days = performance.cost_by_day.iter();
                let days = days.map(|day| (day.day.clone(), Sums::from(&day.tally)));
                answer.groups.insert("day", groups(days));
                let versions = performance.by_version.iter();
                let versions = versions.map(|one| (one.key.clone(), Sums::from(&one.tally)));
                answer.groups.insert("version", groups(versions));
                answer
            }
            Self::Costs(costs) => costs_answer(costs),
            Self::Errors(errors) => errors_answer(errors),
            Self::Top(rows) => {
                let named = rows.iter().map(|row| {
                    let sums = Sums { errors: Some(row.errors), ..Sums::from(&row.tally) };
                    (row.label.clone(), sums)
                });
                let groups = [("top_prompt", groups(named))].into();
                Answer { groups, ..Answer::default() }
            }
            Self::Rows(rows) => rows_answer(set, question, rows),
        }
    }
}

fn stats_answer(stats: &UsageStats) -> Answer {
    let total = Sums {
        uses: stats.total_uses,
        executions: Some(stats.total_executions),
        errors: Some(stats.by_status.error + stats.by_status.timeout),
        priced: Some(stats.priced),
        input_tokens: Some(stats.tokens.input),
        output_tokens: Some(stats.tokens.output),
        cost_pico: pico(stats.total_cost_usd),
    };
    let groups =
        [("environment", sliced(&stats.by_environment)), ("model", sliced(&stats.by_model))];
    Answer {
        total,
        latency_ms: Some(Percentiles::from(&stats.latency_ms)),
        groups: groups.into(),
        recent: None,
    }
}

fn costs_answer(costs: &CostBreakdown) -> Answer {
    let named = costs.rows.iter().map(|row| {
        let sums = Sums {
            executions: Some(row.executions),
            priced: Some(row.priced),
            input_tokens: Some(row.input_tokens),
            output_tokens: Some(row.output_tokens),
            cost_pico: pico(row.cost_usd),
            ..Sums::default()
        };
        (row.label.clone(), sums)
    });
    let total = Sums {
        priced: Some(costs.total_priced),
        cost_pico: pico(costs.total_cost_usd),
        ..Sums::default()
    };
    let groups = [(costs.by.as_str(), groups(named))].into();
    Answer { total, groups, ..Answer::default() }
}

fn errors_answer(errors: &ErrorAnalysis) -> Answer {
    let sums = |executions, errors| Sums {
        executions: Some(executions),
        errors: Some(errors),
        ..Sums::default()
    };
    let days = errors.trend.iter();
    let days = days.map(|point| (point.bucket.clone(), sums(point.executions, point.errors)));
    let prompts = errors.by_prompt.iter();
    let prompts = prompts.map(|row| (row.label.clone(), sums(row.executions, row.errors)));
    Answer {
        total: sums(errors.total_executions, errors.errors),
        groups: [("day", groups(days)), ("failing_prompt", groups(prompts))].into(),
        recent: Some(errors.recent.iter().map(|one| one.id.to_string()).collect()),
        latency_ms: None,
    }
}

fn rows_answer(set: &Set, question: Question, rows: &[AggregateRow]) -> Answer {
    let places: HashMap<PromptId, usize> = set.prompts().iter().copied().zip(0..).collect();
    let bucket = Bucket { width: BucketWidth::Day, zone: question.zone() };
    let mut total = Measures::default();
    let named: Vec<(String, Sums)> = rows
        .iter()
        .map(|row| {
            total.merge(&row.measures);
            let key = &row.key;
            let prompt = key.prompt.and_then(|id| places.get(&id)).copied().map(Set::slug);
            let model = key.model.as_ref().map(ToString::to_string);
            let day = key.bucket.map(|start| bucket.label(start));
            let parts: Vec<String> = prompt.into_iter().chain(model).chain(day).collect();
            (parts.join(" "), Sums::from(&row.measures))
        })
        .collect();
    let by = question.groupings().first().map_or("none", |by| by.name());
    let groups = [(by, groups(named))].into();
    Answer { total: Sums::from(&total), groups, ..Answer::default() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prompt_engine_core::{MemoryStore, PromptStore, Record, RecordStore};

    use super::*;
    use crate::calls::Calls;

    #[tokio::test]
    async fn answers_of_the_reference_store_are_right_and_wrong_ones_are_refused() {
        let set = Arc::new(Set::new(5, 4_000, 60));
        let store = Arc::new(MemoryStore::new());
        let records: Vec<Record> = Calls::of(Arc::clone(&set), u64::MAX)
            .take(4_000)
            .flat_map(|call| [call.usage.into(), call.execution.into()])
            .collect();
        store.append(&records).await.unwrap();
        for (prompt, versions) in set.stored_prompts("a test") {
            store.insert_prompt(&prompt, &versions).await.unwrap();
        }
        let analytics = Analytics::new(Arc::<MemoryStore>::clone(&store));
        for question in Question::TARGETS.into_iter().chain(Question::EXTRAS) {
            for run in 0..4 {
                let asked = question.asked(&set, run);
                let reply = question.ask(&analytics, &*store, &set, &asked).await.unwrap();
                let answer = reply.answer(&set, question);
                let right = question.right_answer(&set, &asked);
                assert_eq!(answer.check(&right), Ok(()), "{question:?}, run {run}");
                let of_another_range = question.right_answer(&set, &question.asked(&set, run + 9));
                assert!(answer.check(&of_another_range).is_err(), "{question:?}, run {run}");
                for (by, groups) in &answer.groups {
                    let mut wrong = answer.clone();
                    let key = groups.keys().next().unwrap();
                    let sums = wrong.groups.get_mut(by).unwrap().get_mut(key).unwrap();
                    sums.executions = sums.executions.map(|n| n + 1);
                    let fault = wrong.check(&right).unwrap_err();
                    assert!(fault.contains("executions") && fault.contains(key), "{fault}");
                }
            }
        }
    }
}
