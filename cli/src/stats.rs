//! `stats`: what has been used, how it went and what it cost.
//! Invariant: the JSON is the answer of the library as it serialises.

use clap::Args;
use owo_colors::OwoColorize;
use prompt_engine::analytics::{Durations, Slice, UsageStats};
use prompt_engine::{StatsQuery, TimeRange};

use crate::compare::{self, Against};
use crate::context::Context;
use crate::explain::ExplainArgs;
use crate::failure::Failure;
use crate::filters::{FilterArgs, RangeArgs, bounds};
use crate::output::{self, heading, say};
use crate::table::{bar, cell, cost, facts, milliseconds, number, percent, rounded, show, table};

/// Which records count.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  prompt-engine stats --last 7d --env production\n  \
    prompt-engine stats --last 7d --compare previous\n  \
    prompt-engine stats --from 2026-01-01 --to 2026-02-01 --tz Europe/Berlin --json")]
pub(crate) struct StatsArgs {
    /// Show the figures beside those of the time of the same length before.
    #[arg(long, value_name = "WITH")]
    compare: Option<Against>,
    #[command(flatten)]
    range: RangeArgs,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    explain: ExplainArgs,
}

pub(crate) async fn run(args: StatsArgs, context: &Context) -> Result<(), Failure> {
    let (zone, range) = (args.range.zone()?, args.range.range(TimeRange::all())?);
    if args.compare.is_some() && (range.from.is_none() || range.to.is_none()) {
        return Err(Failure::usage(
            "--compare needs a range with a start and an end: --last 7d, or --from and --to",
        ));
    }
    let engine = context.open().await?;
    let query = StatsQuery { range, filter: args.filter.filter(&engine).await? };
    let (analytics, explanation) = ExplainArgs::analytics(&engine, zone);
    if let Some(Against::Previous) = args.compare {
        let compared = analytics.compare(&query).await?;
        if context.json() {
            output::document(&compared)?;
        } else {
            heading(format_args!("{} (now)", args.range.said(range, "All time")?))?;
            heading(format_args!("{} (before)", bounds(compared.range_before, zone)))?;
            compare::print(&compared.changes, "Before", "Now")?;
        }
        args.explain.say(&explanation);
        return Ok(());
    }
    let stats = analytics.usage_stats(&query).await?;
    if context.json() {
        output::document(&stats)?;
    } else {
        heading(args.range.said(range, "All time")?)?;
        print(&stats)?;
    }
    args.explain.say(&explanation);
    Ok(())
}

/// Prints the numbers for people.
pub(crate) fn print(stats: &UsageStats) -> Result<(), Failure> {
    let by = &stats.by_status;
    let parts: Vec<_> = [
        (by.success, "success"),
        (by.error, "error"),
        (by.timeout, "timeout"),
        (by.cancelled, "cancelled"),
        (by.pending, "pending"),
    ]
    .into_iter()
    .filter(|(many, _)| *many > 0)
    .map(|(many, name)| format!("{} {name}", number(many)))
    .collect();
    let mut calls = number(stats.total_executions);
    if !parts.is_empty() {
        calls.push_str(&format!(" ({})", parts.join(", ")));
    }
    let tokens = &stats.tokens;
    let mut token_text =
        format!("{} input, {} output", number(tokens.input), number(tokens.output));
    for (many, name) in [
        (tokens.cache_read, "from cache"),
        (tokens.cache_write, "to cache"),
        (tokens.reasoning, "reasoning"),
    ] {
        if many > 0 {
            token_text.push_str(&format!(", {} {name}", number(many)));
        }
    }
    if let Some(average) = stats.average_tokens {
        token_text.push_str(&format!("; {} a call", rounded(average)));
    }
    let mut known = Vec::new();
    if let Some(uses) = stats.total_uses {
        known.push(("Uses", number(uses)));
    }
    known.extend([
        ("Calls", calls),
        ("Success", percent(stats.success_rate)),
        ("Errors", percent(stats.error_rate)),
        ("Cost", cost(stats.total_cost_usd, stats.priced, stats.unpriced)),
        ("Tokens", if tokens.reported == 0 { "-".to_owned() } else { token_text }),
        ("Latency", durations(&stats.latency_ms)),
        ("First token", durations(&stats.time_to_first_token_ms)),
    ]);
    show(&facts(known))?;
    slices("By environment", "Environment", &stats.by_environment)?;
    slices("By model", "Model", &stats.by_model)?;
    if stats.unpriced > 0 {
        say("")?;
        say("Calls whose cost is not known are counted apart, not as free: they told no tokens, or their model has \
             no price, which `prices set` gives it."
            .dimmed())?;
    }
    Ok(())
}

/// A breakdown with bars by executions.
fn slices(title: &str, column: &str, slices: &[Slice]) -> Result<(), Failure> {
    if slices.is_empty() {
        return Ok(());
    }
    say("")?;
    heading(title)?;
    let uses = slices.iter().any(|slice| slice.tally.uses.is_some());
    let mut columns = vec![column];
    columns.extend(uses.then_some(">Uses"));
    columns.extend([">Calls", ">Cost", ">Share", ""]);
    let mut rows = table(&columns);
    for slice in slices {
        let tally = &slice.tally;
        let mut row = vec![cell(&slice.key)];
        row.extend(tally.uses.filter(|_| uses).map(|many| cell(number(many))));
        row.extend([
            cell(number(tally.executions)),
            cell(cost(tally.cost_usd, tally.priced, tally.unpriced)),
            cell(percent(slice.share)),
            bar(slice.share.unwrap_or(0.0)),
        ]);
        rows.add_row(row);
    }
    show(&rows)
}

fn durations(of: &Durations) -> String {
    let Some(average) = of.average else { return "-".to_owned() };
    format!(
        "{} on average; p50 {}, p90 {}, p95 {}, p99 {}",
        milliseconds(Some(average)),
        milliseconds(of.p50),
        milliseconds(of.p90),
        milliseconds(of.p95),
        milliseconds(of.p99)
    )
}
