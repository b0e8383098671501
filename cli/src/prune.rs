//! `prune`: texts and records that are older than they are to be kept.
//! Invariant: without `--apply` nothing is deleted.

use std::io::IsTerminal;

use clap::Args;
use prompt_engine::{Expired, PrunePreview, PruneProgress, Retention, TimeRange, Timestamp, Zone};
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::filters::{bounds, parse_span};
use crate::output::{document, say};
use crate::progress::Progress;
use crate::table::count;

/// How old is too old.
#[derive(Debug, Args)]
#[command(
    after_help = "Costs, statistics and all else that is summed up stays: sums are kept apart. What a session\n\
    or a user did, and single calls, cannot be told any more once their records are gone.\n\n\
    Example:\n  prompt-engine prune --payloads-older-than 30d --raw-older-than 180d\n  \
    prompt-engine prune --payloads-older-than 30d --raw-older-than 180d --apply"
)]
pub(crate) struct PruneArgs {
    /// Delete messages, answers, rendered texts and metadata older than this: 12h, 30d or 26w.
    #[arg(long, value_name = "SPAN")]
    payloads_older_than: Option<String>,
    /// Delete renders and calls older than this, with their texts.
    #[arg(long, value_name = "SPAN")]
    raw_older_than: Option<String>,
    /// Delete it; without it nothing is deleted.
    #[arg(long)]
    apply: bool,
}

pub(crate) async fn run(args: PruneArgs, context: &Context) -> Result<(), Failure> {
    let PruneArgs { payloads_older_than, raw_older_than, apply } = args;
    if payloads_older_than.is_none() && raw_older_than.is_none() {
        return Err(Failure::usage(
            "say what is too old: --payloads-older-than 30d, --raw-older-than 180d, or both",
        ));
    }
    let span = |name: &str, text: Option<&String>| {
        let span = text.map(|text| parse_span(name, text)).transpose()?;
        match span.filter(|span| Timestamp::now().checked_sub(*span).is_none()) {
            Some(_) => Err(Failure::usage(format!("{name}: that is before the year 0001"))),
            None => Ok(span),
        }
    };
    let payloads = span("--payloads-older-than", payloads_older_than.as_ref())?;
    let raw = span("--raw-older-than", raw_older_than.as_ref())?;
    let engine = context.open().await?;
    let old = engine.retain(Retention { payloads, raw })?;
    if apply {
        let deleted = delete(&old).await?;
        if context.json() { print_json(&old, None, Some(deleted)) } else { print(&old, &deleted) }?;
        // Also where nothing was deleted now: the run before may have been cut short here.
        Ok(engine.store().compact().await?)
    } else {
        let preview = old.preview().await?;
        if context.json() {
            print_json(&old, Some(preview), None)
        } else {
            print_preview(&old, &preview)
        }
    }
}

/// Deletes it, with a bar where somebody looks on.
async fn delete(old: &Expired) -> Result<PruneProgress, Failure> {
    if !std::io::stderr().is_terminal() {
        return Ok(old.apply().await?);
    }
    let PrunePreview { usages, executions, payloads_at_most } = old.preview().await?;
    let progress = Progress::new(usages + executions + payloads_at_most);
    let deleted = old
        .apply_with(|so_far| progress.at(so_far.usages + so_far.executions + so_far.payloads))
        .await;
    progress.finish();
    Ok(deleted?)
}

fn before(at: Timestamp) -> String {
    bounds(TimeRange { from: None, to: Some(at) }, Zone::UTC)
}

fn records(usages: u64, executions: u64) -> String {
    format!("{} and {}", count(usages, "render"), count(executions, "call"))
}

fn print_preview(old: &Expired, preview: &PrunePreview) -> Result<(), Failure> {
    let PrunePreview { usages, executions, payloads_at_most } = *preview;
    if let Some(at) = old.raw_before() {
        let records = records(usages, executions);
        say(format_args!("Would delete {records}, with their texts, from {}.", before(at)))?;
    }
    let whose = if old.raw_before().is_some() { "other record" } else { "record" };
    if let Some(at) = old.payloads_before() {
        match old.raw_before() {
            Some(raw) if raw >= at => {
                say(
                    "No more texts would be deleted: all that are old enough go with their records.",
                )?;
            }
            _ if payloads_at_most == 0 => {
                say(format_args!("There are no {whose}s from {}.", before(at)))?
            }
            _ => say(format_args!(
                "Would delete the texts of at most {} from {} (some may have none).",
                count(payloads_at_most, whose),
                before(at)
            ))?,
        }
    }
    if old.raw_before().is_some() {
        say(
            "What they add up to stays; what a session or a user did before then cannot be told any more.",
        )?;
    }
    say("Nothing was deleted; --apply deletes it.")
}

fn print(old: &Expired, deleted: &PruneProgress) -> Result<(), Failure> {
    let PruneProgress { usages, executions, payloads } = *deleted;
    if let Some(at) = old.raw_before() {
        let records = records(usages, executions);
        say(format_args!("Deleted {records}, with their texts, from {}.", before(at)))?;
    }
    if let Some(at) = old.payloads_before() {
        let whose = if old.raw_before().is_some() { "other record" } else { "record" };
        say(format_args!("Deleted the texts of {}, from {}.", count(payloads, whose), before(at)))?;
    }
    if old.raw_before().is_some() {
        say("What they add up to stays.")?;
    }
    Ok(())
}

fn print_json(
    old: &Expired,
    preview: Option<PrunePreview>,
    deleted: Option<PruneProgress>,
) -> Result<(), Failure> {
    document(&json!({
        "applied": deleted.is_some(),
        "raw_before": old.raw_before(),
        "payloads_before": old.payloads_before(),
        "usages": preview.map_or_else(|| deleted.map(|of| of.usages), |of| Some(of.usages)),
        "executions": preview.map_or_else(|| deleted.map(|of| of.executions), |of| Some(of.executions)),
        "payloads": deleted.map(|of| of.payloads),
        "payloads_at_most": preview.map(|of| of.payloads_at_most),
    }))
}
