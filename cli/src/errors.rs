//! `errors`: what went wrong, where and since when.

use clap::Args;
use owo_colors::OwoColorize;
use prompt_engine::analytics::ErrorAnalysis;
use prompt_engine::{Analytics, BucketWidth, StatsQuery, TimeRange};

use crate::context::Context;
use crate::explain::ExplainArgs;
use crate::failure::Failure;
use crate::filters::{FilterArgs, RangeArgs, hour};
use crate::output::{self, excerpt, heading, say};
use crate::quiet::{Shown, shown, without_calls};
use crate::table::{bar, cell, count, moment, number, percent, share, show, status, table};

/// Which calls count.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  prompt-engine errors --last 24h --env production")]
pub(crate) struct ErrorsArgs {
    /// How wide the steps of the trend are: quarter_hour, hour or day.
    #[arg(long, value_name = "WIDTH")]
    every: Option<BucketWidth>,
    #[command(flatten)]
    range: RangeArgs,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    explain: ExplainArgs,
}

pub(crate) async fn run(args: ErrorsArgs, context: &Context) -> Result<(), Failure> {
    let default = TimeRange::last_hours(Analytics::ERROR_HOURS);
    let (zone, range) = (args.range.zone()?, args.range.range(default)?);
    let engine = context.open().await?;
    let query = StatsQuery { range, filter: args.filter.filter(&engine).await? };
    let (analytics, explanation) = ExplainArgs::analytics(&engine, zone);
    let errors = analytics.error_analysis(&query, args.every).await?;
    if context.json() {
        output::document(&errors)?;
    } else {
        heading(args.range.said(range, &format!("The last {} hours", Analytics::ERROR_HOURS))?)?;
        print(&errors)?;
    }
    args.explain.say(&explanation);
    Ok(())
}

/// Prints the analysis for people.
pub(crate) fn print(errors: &ErrorAnalysis) -> Result<(), Failure> {
    if errors.total_executions == 0 {
        return say("There are no calls in this range; --last or --from choose another.");
    }
    say(format_args!(
        "{} failed of {} ({})",
        number(errors.errors),
        count(errors.finished, "finished call"),
        percent(errors.error_rate)
    ))?;
    if errors.errors == 0 {
        return Ok(());
    }
    say("")?;
    heading("By category")?;
    let mut rows = table(&["Category", ">Errors", ">Share", ""]);
    for row in &errors.by_category {
        rows.add_row([
            cell(row.category.as_str()),
            cell(number(row.count)),
            cell(percent(row.share)),
            bar(row.share.unwrap_or(0.0)),
        ]);
    }
    show(&rows)?;
    say("")?;
    heading("By prompt")?;
    let mut rows = table(&["Prompt", ">Errors", ">Finished", ">Rate"]);
    for row in &errors.by_prompt {
        rows.add_row([
            cell(&row.label),
            cell(number(row.errors)),
            cell(number(row.finished)),
            cell(percent(row.error_rate)),
        ]);
    }
    show(&rows)?;
    say("")?;
    heading("Over time")?;
    let most = errors.trend.iter().map(|point| point.errors).max().unwrap_or(0);
    let mut rows = table(&["From", ">Errors", ">Calls", ">Rate", ""]);
    for point in shown(&errors.trend, |point| point.executions > 0) {
        match point {
            Shown::Point(point) => rows.add_row([
                cell(hour(&point.bucket)),
                cell(number(point.errors)),
                cell(number(point.executions)),
                cell(percent(point.error_rate)),
                bar(share(point.errors, most)),
            ]),
            Shown::Quiet(many) => rows.add_row([cell(without_calls(many))]),
        };
    }
    show(&rows)?;
    say("")?;
    heading("Latest")?;
    if errors.recent.is_empty() {
        return say("Their records were pruned.".dimmed());
    }
    let mut rows = table(&["When", "Prompt", "Model", "Status", "Category", "Message"]);
    for one in &errors.recent {
        rows.add_row([
            cell(moment(one.created_at)),
            cell(&one.prompt),
            cell(format!("{}/{}", one.provider, one.model)),
            status(one.status),
            cell(one.error_category.map_or("-", |category| category.as_str())),
            cell(excerpt(one.error_message.as_deref().unwrap_or("-"), 60)),
        ]);
    }
    show(&rows)?;
    let kept = u64::try_from(errors.recent.len()).unwrap_or(u64::MAX);
    if kept < errors.errors.min(ErrorAnalysis::RECENT.into()) {
        say("The records of the others were pruned.".dimmed())?;
    }
    Ok(())
}
