//! Two sets of figures side by side, and how they differ.

use clap::ValueEnum;
use comfy_table::Cell;
use prompt_engine::Usd;
use prompt_engine::analytics::{Change, Changes};

use crate::failure::Failure;
use crate::table::{cell, dollars, milliseconds, number, percent, rounded, show, table};

/// What to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Against {
    /// The time of the same length before.
    Previous,
}

/// Prints the figures for people, under the names of their two columns.
pub(crate) fn print(changes: &Changes, before: &str, now: &str) -> Result<(), Failure> {
    let mut rows = table(&["", &format!(">{before}"), &format!(">{now}"), ">Change", ">"]);
    let of = changes;
    let lines = [
        count("Uses", &of.uses),
        count("Calls", &of.executions),
        count("Errors", &of.errors),
        rate("Success", &of.success_rate),
        rate("Error rate", &of.error_rate),
        money("Cost", &of.total_cost_usd),
        money("Cost a call", &of.cost_per_call_usd),
        count("Unpriced calls", &of.unpriced).filter(|_| some(&of.unpriced)),
        count("Tokens", &of.total_tokens),
        measure("Tokens a call", &of.average_tokens, rounded),
        time("Latency", &of.average_latency_ms),
        time("Latency p50", &of.p50_latency_ms),
        time("Latency p95", &of.p95_latency_ms),
        time("First token p50", &of.p50_time_to_first_token_ms),
        time("First token p95", &of.p95_time_to_first_token_ms),
    ];
    for line in lines.into_iter().flatten() {
        rows.add_row(line);
    }
    show(&rows)
}

/// A line of the table; none where neither side is known.
fn line<T, D>(
    name: &str,
    of: &Change<T, D>,
    value: impl Fn(&T) -> String,
    difference: impl Fn(&D) -> String,
    relative: bool,
) -> Option<Vec<Cell>> {
    if of.before.is_none() && of.now.is_none() {
        return None;
    }
    let known = |value: Option<String>| cell(value.unwrap_or_else(|| "-".to_owned()));
    let percent = of.percent.filter(|_| relative).map(|percent| format!("{percent:+.1} %"));
    Some(vec![
        cell(name),
        known(of.before.as_ref().map(&value)),
        known(of.now.as_ref().map(&value)),
        known(of.change.as_ref().map(difference)),
        cell(percent.unwrap_or_default()),
    ])
}

fn some(of: &Change<u64, i64>) -> bool {
    [of.before, of.now].iter().any(|many| many.is_some_and(|many| many > 0))
}

fn count(name: &str, of: &Change<u64, i64>) -> Option<Vec<Cell>> {
    let difference = |by: &i64| signed(by.signum().into(), number(by.unsigned_abs()));
    line(name, of, |many| number(*many), difference, true)
}

/// A rate changes by percentage points: a percentage of a percentage would be misread.
fn rate(name: &str, of: &Change<f64>) -> Option<Vec<Cell>> {
    let points = |by: &f64| format!("{:+.1} points", by * 100.0);
    line(name, of, |rate| percent(Some(*rate)), points, false)
}

fn money(name: &str, of: &Change<Usd>) -> Option<Vec<Cell>> {
    let difference = |by: &Usd| {
        let pico = by.to_pico();
        let amount = Usd::from_pico(pico.abs()).unwrap_or_default();
        signed(pico.signum(), dollars(amount))
    };
    line(name, of, |usd| dollars(*usd), difference, true)
}

fn time(name: &str, of: &Change<f64>) -> Option<Vec<Cell>> {
    measure(name, of, |ms| milliseconds(Some(ms)))
}

fn measure(name: &str, of: &Change<f64>, show: fn(f64) -> String) -> Option<Vec<Cell>> {
    let difference = |by: &f64| {
        let sign = i128::from(*by > 0.0) - i128::from(*by < 0.0);
        signed(sign, show(by.abs()))
    };
    line(name, of, |value| show(*value), difference, true)
}

fn signed(sign: i128, amount: String) -> String {
    match sign {
        0 => amount,
        1.. => format!("+{amount}"),
        _ => format!("-{amount}"),
    }
}
