//! `performance`: how one prompt did, by day, version and model.

use clap::Args;
use prompt_engine::analytics::{DaySlice, PromptPerformance};
use prompt_engine::{Analytics, Slug, StatsQuery, TimeRange};

use crate::compare;
use crate::context::Context;
use crate::explain::ExplainArgs;
use crate::failure::Failure;
use crate::filters::{MoreFilterArgs, RangeArgs};
use crate::output::{self, heading, say};
use crate::quiet::{Shown, shown, without_calls};
use crate::stats;
use crate::table::{bar, cell, cost, milliseconds, number, percent, share, show, table};

/// Which prompt.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  prompt-engine performance welcome --last 30d\n  \
    prompt-engine performance welcome --versions 3,4")]
pub(crate) struct PerformanceArgs {
    /// The prompt.
    #[arg(required_unless_present = "prompt", conflicts_with = "prompt")]
    slug: Option<Slug>,
    /// The prompt, as with other commands.
    #[arg(long, value_name = "SLUG")]
    prompt: Option<Slug>,
    /// Show two versions side by side, and what the second differs by.
    #[arg(long, value_name = "FIRST,SECOND", value_parser = parse_versions)]
    versions: Option<[u32; 2]>,
    #[command(flatten)]
    range: RangeArgs,
    #[command(flatten)]
    filter: MoreFilterArgs,
    #[command(flatten)]
    explain: ExplainArgs,
}

pub(crate) async fn run(args: PerformanceArgs, context: &Context) -> Result<(), Failure> {
    let default = TimeRange::last_days(Analytics::PERFORMANCE_DAYS);
    let (zone, range) = (args.range.zone()?, args.range.range(default)?);
    let slug = args.slug.or(args.prompt).ok_or_else(|| Failure::usage("name a prompt"))?;
    let engine = context.open().await?;
    engine.prompts().get(&slug).await?;
    let query = StatsQuery { range, filter: args.filter.filter() };
    let (analytics, explanation) = ExplainArgs::analytics(&engine, zone);
    let said = args.range.said(range, &format!("The last {} days", Analytics::PERFORMANCE_DAYS))?;
    if let Some(versions) = args.versions {
        let answer = analytics.compare_versions(&slug, versions, &query).await?;
        if context.json() {
            output::document(&answer)?;
        } else {
            heading(format_args!("{}: {said}", answer.prompt))?;
            let [first, second] = versions.map(|number| format!("v{number}"));
            compare::print(&answer.changes, &first, &second)?;
        }
    } else {
        let answer = analytics.prompt_performance(&slug, &query).await?;
        if context.json() {
            output::document(&answer)?;
        } else {
            heading(format_args!("{}: {said}", answer.prompt))?;
            print(&answer)?;
        }
    }
    args.explain.say(&explanation);
    Ok(())
}

fn parse_versions(text: &str) -> Result<[u32; 2], String> {
    let version = |text: &str| text.trim().parse().ok().filter(|number| *number > 0);
    text.split_once(',')
        .and_then(|(first, second)| Some([version(first)?, version(second)?]))
        .filter(|[first, second]| first != second)
        .ok_or_else(|| "write the numbers of two different versions, such as 3,4".to_owned())
}

/// Prints the numbers for people.
fn print(answer: &PromptPerformance) -> Result<(), Failure> {
    if answer.stats.total_executions == 0 && answer.stats.total_uses.unwrap_or(0) == 0 {
        return say("There are no calls in this range; --last or --from choose another.");
    }
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
    let busy =
        |day: &DaySlice| day.tally.executions > 0 || day.tally.uses.is_some_and(|uses| uses > 0);
    let days = shown(&answer.cost_by_day, busy);
    if !days.is_empty() {
        say("")?;
        heading("By day")?;
        let most = answer.cost_by_day.iter().map(|day| day.tally.executions).max().unwrap_or(0);
        let mut rows = table(&["Day", ">Uses", ">Calls", ">Cost", ""]);
        for day in days {
            let day = match day {
                Shown::Point(day) => day,
                Shown::Quiet(many) => {
                    rows.add_row([cell(without_calls(many))]);
                    continue;
                }
            };
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
