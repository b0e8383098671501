//! `top`: the prompts with the most uses, costs or errors.

use clap::Args;
use prompt_engine::analytics::{Gaps, TopRow};
use prompt_engine::{Analytics, StatsQuery, TimeRange, TopBy};
use serde::Serialize;

use crate::context::Context;
use crate::explain::ExplainArgs;
use crate::failure::Failure;
use crate::filters::{FilterArgs, RangeArgs, at_least_one};
use crate::output::{self, heading, say};
use crate::table::{cell, cost, number, percent, show, table};

/// What to rank by.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  prompt-engine top --by cost --limit 5 --last 30d")]
pub(crate) struct TopArgs {
    /// uses, cost or errors; uses unless given, and cost of a model or provider, which has no uses.
    #[arg(long, value_name = "WHAT")]
    by: Option<TopBy>,
    /// How many prompts at most.
    #[arg(long, value_name = "NUMBER", default_value_t = Analytics::TOP_ROWS, value_parser = at_least_one, allow_negative_numbers = true)]
    limit: usize,
    #[command(flatten)]
    range: RangeArgs,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    explain: ExplainArgs,
}

/// A line of JSON: a prompt, and what the answer leaves out.
#[derive(Debug, Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    row: &'a TopRow,
    #[serde(flatten)]
    gaps: Gaps,
}

pub(crate) async fn run(args: TopArgs, context: &Context) -> Result<(), Failure> {
    let default = TimeRange::last_days(Analytics::TOP_DAYS);
    let (zone, range) = (args.range.zone()?, args.range.range(default)?);
    let engine = context.open().await?;
    let query = StatsQuery { range, filter: args.filter.filter(&engine).await? };
    let unsaid = if query.filter.needs_execution() { TopBy::Cost } else { TopBy::Uses };
    let by = args.by.unwrap_or(unsaid);
    let (analytics, explanation) = ExplainArgs::analytics(&engine, zone);
    let top = analytics.top_prompts(by, args.limit, &query).await?;
    if context.json() {
        output::lines(top.rows.iter().map(|row| Line { row, gaps: top.gaps }))?;
    } else {
        heading(args.range.said(range, &format!("The last {} days", Analytics::TOP_DAYS))?)?;
        print(&top.rows)?;
    }
    args.explain.say(&explanation);
    Ok(())
}

/// Prints the ranking for people.
pub(crate) fn print(top: &[TopRow]) -> Result<(), Failure> {
    if top.is_empty() {
        return say("There is nothing to rank in this range; --last or --from choose another.");
    }
    let mut rows = table(&[">", "Prompt", ">Uses", ">Calls", ">Errors", ">Rate", ">Cost"]);
    for row in top {
        let tally = &row.tally;
        rows.add_row([
            cell(row.rank.to_string()),
            cell(&row.label),
            cell(tally.uses.map_or("-".to_owned(), number)),
            cell(number(tally.executions)),
            cell(number(row.errors)),
            cell(percent(row.error_rate)),
            cell(cost(tally.cost_usd, tally.priced, tally.unpriced)),
        ]);
    }
    show(&rows)
}
