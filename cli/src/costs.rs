//! `costs`: where the money goes.

use clap::Args;
use prompt_engine::analytics::CostBreakdown;
use prompt_engine::{Analytics, GroupBy, StatsQuery, TimeRange, Usd};

use crate::context::Context;
use crate::failure::Failure;
use crate::filters::{FilterArgs, RangeArgs};
use crate::output::{self, say};
use crate::table::{bar, cell, cost, number, share, show, table};

/// What to break costs down by.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  prompt-engine costs --by model --last 30d\n  \
    prompt-engine costs --by day --from 2026-01-01 --tz +05:45")]
pub(crate) struct CostsArgs {
    /// prompt, version, model, provider, environment, hour or day.
    #[arg(long, value_name = "WHAT", default_value_t)]
    by: GroupBy,
    #[command(flatten)]
    range: RangeArgs,
    #[command(flatten)]
    filter: FilterArgs,
}

pub(crate) async fn run(args: CostsArgs, context: &Context) -> Result<(), Failure> {
    let default = TimeRange::last_days(Analytics::COST_DAYS);
    let (zone, range) = (args.range.zone()?, args.range.range(default)?);
    let engine = context.open().await?;
    let query = StatsQuery { range, filter: args.filter.filter(&engine).await? };
    let costs = engine.analytics().in_zone(zone).cost_breakdown(args.by, &query).await?;
    if context.json() {
        return output::document(&costs);
    }
    print(&costs)
}

/// Prints the breakdown for people.
pub(crate) fn print(costs: &CostBreakdown) -> Result<(), Failure> {
    if costs.rows.is_empty() {
        return say("There are no calls in this range; --last or --from choose another.");
    }
    let name = costs.by.as_str();
    let title = format!("{}{}", name[..1].to_uppercase(), &name[1..]);
    let pico = |usd: Usd| u64::try_from(usd.to_pico() / 1_000).unwrap_or(u64::MAX);
    let most = costs.rows.iter().map(|row| pico(row.cost_usd)).max().unwrap_or(0);
    let mut rows = table(&[&title, ">Calls", ">Input", ">Output", ">Cost", ""]);
    for row in &costs.rows {
        rows.add_row([
            cell(&row.label),
            cell(number(row.executions)),
            cell(number(row.input_tokens)),
            cell(number(row.output_tokens)),
            cell(cost(row.cost_usd, row.priced, row.unpriced)),
            bar(share(pico(row.cost_usd), most)),
        ]);
    }
    show(&rows)?;
    say("")?;
    say(format_args!(
        "Total: {}",
        cost(costs.total_cost_usd, costs.total_priced, costs.total_unpriced)
    ))
}
