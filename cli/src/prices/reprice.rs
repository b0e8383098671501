//! `prices reprice`: recorded calls priced again.

use clap::Args;
use prompt_engine::{CostChange, KnownCost, Repriced, TimeRange, Usd};
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::Failure;
use crate::filters::{FilterArgs, RangeArgs};
use crate::output::{document, heading, note, say};
use crate::table::{self, cell, count, moment, number, show, table};

/// Which calls.
#[derive(Debug, Args)]
pub(crate) struct RepriceArgs {
    /// Change the costs; without it nothing is changed.
    #[arg(long)]
    apply: bool,
    #[command(flatten)]
    range: RangeArgs,
    #[command(flatten)]
    filter: FilterArgs,
}

pub(super) async fn run(args: &RepriceArgs, context: &Context) -> Result<(), Failure> {
    let range = args.range.range(TimeRange::all())?;
    let engine = context.open().await?;
    let reprice = engine.reprice(range).filter(args.filter.filter(&engine).await?);
    let done = if args.apply { reprice.apply().await } else { reprice.preview().await }?;
    if context.json() { print_json(&done, args.apply) } else { print(&done, args.apply) }?;
    if let Some(before) = engine.doctor().unchecked_before(range).await? {
        note(format_args!(
            "note: records before {} were pruned; their costs stay as they were",
            moment(before)
        ));
    }
    Ok(())
}

fn print(done: &Repriced, applied: bool) -> Result<(), Failure> {
    let Repriced { calls, total, models, skipped } = done;
    let looked = count(*calls, "call");
    if *calls == 0 {
        say("There are no such calls.")?;
    } else if total.calls == 0 {
        say(format_args!("{looked} looked at: every cost is what the prices say."))?;
    } else {
        let verb = if applied { "changed" } else { "would change" };
        heading(format_args!("{} of {looked} {verb}", number(total.calls)))?;
        let mut rows = table(&["Provider", "Model", ">Calls", ">Before", ">After", ">Change"]);
        let mut add = |provider: &str, model: &str, of: &CostChange| {
            rows.add_row([
                cell(provider),
                cell(model),
                cell(number(of.calls)),
                cell(cost(&of.before)),
                cell(cost(&of.after)),
                cell(change(of)),
            ]);
        };
        for ((provider, model), of) in models {
            add(provider, model, of);
        }
        if models.len() > 1 {
            add("all", "", total);
        }
        show(&rows)?;
        if !applied {
            say("Nothing was changed; --apply changes it.")?;
        }
    }
    if *skipped > 0 {
        say(format_args!(
            "{} changed meanwhile by somebody else and left as they are.",
            count(*skipped, "call")
        ))?;
    }
    Ok(())
}

fn cost(of: &KnownCost) -> String {
    match of.usd() {
        Some(usd) => table::cost(usd, of.priced, of.unpriced),
        None => "beyond all amounts".to_owned(),
    }
}

/// What the known sum grows or shrinks by; a call that had no cost before adds all of it.
fn change(of: &CostChange) -> String {
    let pico = of.after.pico - of.before.pico;
    let sign = if pico < 0 { "-" } else { "+" };
    let amount = i128::try_from(pico.unsigned_abs()).ok().and_then(Usd::from_pico);
    amount.map_or("-".to_owned(), |usd| format!("{sign}{}", table::dollars(usd)))
}

fn print_json(done: &Repriced, applied: bool) -> Result<(), Failure> {
    let Repriced { calls, total, models, skipped } = done;
    // The sum of no known cost is not 0 dollars where there are calls.
    let usd = |of: &KnownCost| if of.priced == 0 && of.unpriced > 0 { None } else { of.usd() };
    let sums = |of: &CostChange| {
        json!({
            "calls": of.calls,
            "before_usd": usd(&of.before), "before_unpriced": of.before.unpriced,
            "after_usd": usd(&of.after), "after_unpriced": of.after.unpriced,
        })
    };
    let models: Vec<Value> = models
        .iter()
        .map(|((provider, model), of)| {
            let mut fields = sums(of);
            fields["provider"] = json!(provider);
            fields["model"] = json!(model);
            fields
        })
        .collect();
    document(&json!({
        "applied": applied, "looked_at": calls, "skipped": skipped, "total": sums(total),
        "models": models,
    }))
}
