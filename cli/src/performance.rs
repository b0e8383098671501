//! `performance`: how one prompt did, by day, version and model.

use clap::Args;
use prompt_engine::analytics::DaySlice;
use prompt_engine::{Analytics, Slug, StatsQuery, TimeRange};

use crate::context::Context;
use crate::failure::Failure;
use crate::filters::{MoreFilterArgs, RangeArgs};
use crate::output::{self, heading, say};
use crate::stats;
use crate::table::{bar, cell, cost, milliseconds, number, percent, share, show, table};

/// Which prompt.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  prompt-engine performance welcome --last 30d")]
pub(crate) struct PerformanceArgs {
    /// The prompt.
    #[arg(required_unless_present = "prompt", conflicts_with = "prompt")]
    slug: Option<Slug>,
    /// The prompt, as with other commands.
    #[arg(long, value_name = "SLUG")]
    prompt: Option<Slug>,
    #[command(flatten)]
    range: RangeArgs,
    #[command(flatten)]
    filter: MoreFilterArgs,
}

pub(crate) async fn run(args: PerformanceArgs, context: &Context) -> Result<(), Failure> {
    let default = TimeRange::last_days(Analytics::PERFORMANCE_DAYS);
    let (zone, range) = (args.range.zone()?, args.range.range(default)?);
    let slug = args.slug.or(args.prompt).ok_or_else(|| Failure::usage("name a prompt"))?;
    let engine = context.open().await?;
    engine.prompts().get(&slug).await?;
    let query = StatsQuery { range, filter: args.filter.filter() };
    let answer = engine.analytics().in_zone(zone).prompt_performance(&slug, &query).await?;
    if context.json() {
        return output::document(&answer);
    }
    heading(&answer.prompt)?;
    stats::print(&answer.stats)?;
    if !answer.by_version.is_empty() {
        say("")?;
        heading("By version")?;
        let mut rows = table(&[">Version", ">Uses", ">Calls", ">Success", ">Latency", ">Cost"]);
        for version in &answer.by_version {
            let tally = &version.tally;
            rows.add_row([
                cell(&version.key),
                cell(tally.uses.map_or("-".to_owned(), number)),
                cell(number(tally.executions)),
                cell(percent(version.success_rate)),
                cell(milliseconds(version.average_latency_ms)),
                cell(cost(tally.cost_usd, tally.priced, tally.unpriced)),
            ]);
        }
        show(&rows)?;
    }
    // Days before the first call and after the last say nothing to people.
    let busy =
        |day: &DaySlice| day.tally.executions > 0 || day.tally.uses.is_some_and(|uses| uses > 0);
    let first = answer.cost_by_day.iter().position(busy);
    let last = answer.cost_by_day.iter().rposition(busy);
    if let (Some(first), Some(last)) = (first, last) {
        say("")?;
        heading("By day")?;
        let days = &answer.cost_by_day[first..=last];
        let most = days.iter().map(|day| day.tally.executions).max().unwrap_or(0);
        let mut rows = table(&["Day", ">Uses", ">Calls", ">Cost", ""]);
        for day in days {
            let tally = &day.tally;
            rows.add_row([
                cell(&day.day),
                cell(tally.uses.map_or("-".to_owned(), number)),
                cell(number(tally.executions)),
                cell(cost(tally.cost_usd, tally.priced, tally.unpriced)),
                bar(share(tally.executions, most)),
            ]);
        }
        show(&rows)?;
    }
    Ok(())
}
