//! `costs`: where the money goes.

use clap::Args;
use prompt_engine::analytics::{CostBreakdown, CostRow};
use prompt_engine::{Analytics, GroupBy, StatsQuery, TimeRange, Usd};

use crate::context::Context;
use crate::explain::ExplainArgs;
use crate::failure::Failure;
use crate::filters::{FilterArgs, RangeArgs, at_least_one, hour};
use crate::output::{self, heading, say};
use crate::quiet::{Shown, shown, without_calls};
use crate::table::{bar, cell, cost, count, make_room, number, share, show, table};

/// Rows of sessions and users where nobody says: there may be as many as calls.
const MANY: usize = 20;

/// What to break costs down by.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  prompt-engine costs --by model --last 30d\n  \
    prompt-engine costs --by hour --last 24h\n  \
    prompt-engine costs --by session --limit 5\n  \
    prompt-engine costs --by day --from 2026-01-01 --tz +05:45")]
pub(crate) struct CostsArgs {
    /// prompt, version, model, provider, environment, hour, day, session or user.
    #[arg(long, value_name = "WHAT", default_value_t)]
    by: GroupBy,
    /// How many rows at most, the most expensive first; 20 sessions or users unless given.
    #[arg(long, value_name = "NUMBER", value_parser = at_least_one, allow_negative_numbers = true)]
    limit: Option<usize>,
    #[command(flatten)]
    range: RangeArgs,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    explain: ExplainArgs,
}

pub(crate) async fn run(args: CostsArgs, context: &Context) -> Result<(), Failure> {
    let default = TimeRange::last_days(Analytics::COST_DAYS);
    let (zone, range) = (args.range.zone()?, args.range.range(default)?);
    let limit = match args.by {
        GroupBy::Hour | GroupBy::Day if args.limit.is_some() => {
            return Err(Failure::usage(format!(
                "--limit is of what is ranked by cost; --last and --from choose which {}s are shown",
                args.by
            )));
        }
        GroupBy::Session | GroupBy::User => args.limit.or(Some(MANY)),
        _ => args.limit,
    };
    let engine = context.open().await?;
    let query = StatsQuery { range, filter: args.filter.filter(&engine).await? };
    let (analytics, explanation) = ExplainArgs::analytics(&engine, zone);
    let costs = analytics.cost_breakdown(args.by, &query).await?;
    let costs = match limit {
        Some(limit) => costs.first(limit),
        None => costs,
    };
    if context.json() {
        output::document(&costs)?;
    } else {
        heading(args.range.said(range, &format!("The last {} days", Analytics::COST_DAYS))?)?;
        print(&costs)?;
    }
    args.explain.say(&explanation);
    Ok(())
}

/// Prints the breakdown for people.
pub(crate) fn print(costs: &CostBreakdown) -> Result<(), Failure> {
    if costs.total_executions == 0 {
        return say("There are no calls in this range; --last or --from choose another.");
    }
    let name = costs.by.as_str();
    let title = format!("{}{}", name[..1].to_uppercase(), &name[1..]);
    let pico = |usd: Usd| u64::try_from(usd.to_pico() / 1_000).unwrap_or(u64::MAX);
    let most = costs.rows.iter().map(|row| pico(row.cost_usd)).max().unwrap_or(0);
    let mut rows = table(&[&title, ">Calls", ">Input", ">Output", ">Cost", ""]);
    let timed = matches!(costs.by, GroupBy::Hour | GroupBy::Day);
    let add = |row: &CostRow| {
        [
            cell(if timed { hour(&row.label) } else { row.label.clone() }),
            cell(number(row.executions)),
            cell(number(row.input_tokens)),
            cell(number(row.output_tokens)),
            cell(cost(row.cost_usd, row.priced, row.unpriced)),
            bar(share(pico(row.cost_usd), most)),
        ]
    };
    match costs.by {
        GroupBy::Hour | GroupBy::Day => {
            for point in shown(&costs.rows, |row| row.executions > 0) {
                match point {
                    Shown::Point(row) => rows.add_row(add(row)),
                    Shown::Quiet(many) => rows.add_row([cell(without_calls(many))]),
                };
            }
        }
        _ => costs.rows.iter().for_each(|row| {
            rows.add_row(add(row));
        }),
    }
    if let Some(rest) = &costs.rest {
        rows.add_row([
            cell(count(rest.rows, "other")),
            cell(number(rest.executions)),
            cell(number(rest.input_tokens)),
            cell(number(rest.output_tokens)),
            cell(cost(rest.cost_usd, rest.priced, rest.unpriced)),
        ]);
    }
    // Names are to be copied: better no bars, and then no tokens, than a name in two pieces. Of a
    // series the bars are the picture.
    make_room(&mut rows, if timed { &[3, 2] } else { &[5, 3, 2] });
    show(&rows)?;
    say("")?;
    say(format_args!(
        "Total: {}; {}",
        cost(costs.total_cost_usd, costs.total_priced, costs.total_unpriced),
        count(costs.total_executions, "call")
    ))
}
