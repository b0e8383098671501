//! `doctor`: counts records again, compares their sums with the cells that answers come from, and
//! makes cells anew where they differ.

use clap::Args;
use prompt_engine::{Difference, ErrorKind, Measures, PromptEngine, TimeRange, Timestamp};
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::Failure;
use crate::filters::RangeArgs;
use crate::output::{document, note, printable, say};
use crate::progress::Progress;
use crate::record_json::Slugs;
use crate::table::{count, moment, number};

/// Differences that are shown.
const SHOWN: usize = 20;

#[derive(Debug, Args)]
#[command(
    after_help = "Whole days of UTC are looked at, none before records were pruned. Writers may \
    go on.\n\nExample:\n  prompt-engine doctor --last 7d\n  prompt-engine doctor --rebuild"
)]
pub(crate) struct DoctorArgs {
    /// Make cells anew from their records where they differ, an hour at a time.
    #[arg(long)]
    rebuild: bool,
    #[command(flatten)]
    range: RangeArgs,
}

pub(crate) async fn run(args: DoctorArgs, context: &Context) -> Result<(), Failure> {
    let range = args.range.range(TimeRange::default())?;
    let engine = context.open().await?;
    let doctor = engine.doctor();
    let days = doctor.days(range).await?;
    let unchecked_before = doctor.unchecked_before(range).await?;
    let progress = Progress::new(days.len() as u64);
    let mut found = Found { days: days.len() as u64, unchecked_before, ..Found::default() };
    for (done, day) in (1..).zip(days) {
        let mut checkup = match doctor.check(day).await {
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                progress.note(&error.to_string());
                found.unsettled += 1;
                continue;
            }
            checkup => checkup?,
        };
        if checkup.differing > 0 && args.rebuild {
            let differed = checkup.differing;
            doctor.rebuild(day).await?;
            checkup = doctor.check(day).await?;
            found.rebuilt += differed.saturating_sub(checkup.differing);
        }
        found.usages += checkup.usages;
        found.executions += checkup.executions;
        found.differing += checkup.differing;
        let room = SHOWN.saturating_sub(found.differences.len());
        found.differences.extend(checkup.differences.into_iter().take(room));
        progress.at(done);
    }
    progress.finish();
    found.print(&args, &engine, context).await
}

/// What all days had.
#[derive(Default)]
struct Found {
    days: u64,
    usages: u64,
    executions: u64,
    rebuilt: u64,
    differing: u64,
    /// Days whose records changed while they were counted.
    unsettled: u64,
    differences: Vec<Difference>,
    /// Before it, records were pruned.
    unchecked_before: Option<Timestamp>,
}

impl Found {
    async fn print(
        &self,
        args: &DoctorArgs,
        engine: &PromptEngine,
        context: &Context,
    ) -> Result<(), Failure> {
        let Self { days, usages, executions, rebuilt, differing, unsettled, .. } = self;
        let Self { differences, unchecked_before, .. } = self;
        if context.json() {
            document(&json!({
                "days": days, "usages": usages, "executions": executions, "rebuilt": rebuilt,
                "differing": differing, "unsettled_days": unsettled, "unchecked_before": unchecked_before,
                "differences": differences.iter().map(difference_json).collect::<Vec<_>>(),
            }))?;
        } else {
            let mut slugs = Slugs::default();
            for of in differences {
                let slug = match of.key.prompt {
                    Some(prompt) => Some(slugs.of(engine, prompt).await?),
                    None => None,
                };
                say(sentence(of, slug))?;
            }
            let more = differing.saturating_sub(differences.len() as u64);
            if more > 0 {
                say(format_args!("and {} more", number(more)))?;
            }
            if *rebuilt > 0 {
                say(format_args!("Made {} anew.", count(*rebuilt, "sum")))?;
            }
        }
        if let (Some(before), false) = (unchecked_before, context.json()) {
            note(format_args!(
                "note: records before {} were pruned; what they add up to cannot be checked",
                moment(*before)
            ));
        }
        let counted = format!(
            "{} and {} of {} counted again",
            count(*usages, "render"),
            count(*executions, "call"),
            count(*days, "day"),
        );
        if *days == 0 && !context.json() {
            return say("There is nothing to check: no records of that time.");
        }
        if *unsettled > 0 {
            return Err(Failure::failed(format!(
                "{} could not be checked, since records came while they were counted",
                count(*unsettled, "day")
            )));
        }
        match (*differing, args.rebuild) {
            (0, _) if context.json() => Ok(()),
            (0, _) => say(format_args!("{counted}: every sum is right.")),
            (_, true) => Err(Failure::failed(format!(
                "{counted}: {} still not what the records add up to",
                count(*differing, "sum")
            ))),
            (_, false) => Err(Failure::failed(format!(
                "{counted}: {} not what the records add up to; `doctor --rebuild` makes them anew",
                count(*differing, "sum")
            ))),
        }
    }
}

/// `totals, hour 2026-01-31 10:00:00 production: 12 renders, 11 calls, $0.5 counted; 12 renders, … found`
fn sentence(of: &Difference, slug: Option<String>) -> String {
    let Difference { cube, width, key, recounted, found } = of;
    let mut what = vec![format!("{cube}, {width}")];
    what.extend(key.bucket.map(moment));
    let version = key.version.map(|version| format!("version {version}"));
    let labels = [&key.environment, &key.provider, &key.model].into_iter().flatten();
    what.extend(slug);
    what.extend(version);
    what.extend(labels.map(|label| printable(label).into_owned()));
    let counted = sums(recounted);
    let Some(found) = found.as_ref().map(sums) else {
        return format!("{}: {counted} counted; cells of that day cannot be read", what.join(" "));
    };
    if counted == found {
        return format!("{}: tokens, errors or durations differ ({counted})", what.join(" "));
    }
    format!("{}: {counted} counted; {found} found", what.join(" "))
}

fn sums(of: &Measures) -> String {
    let (uses, calls) = (of.uses.unwrap_or(0), of.executions());
    format!("{}, {}, ${}", count(uses, "render"), count(calls, "call"), of.cost())
}

fn difference_json(of: &Difference) -> Value {
    let Difference { cube, width, key, recounted, found } = of;
    let sums = |of: &Measures| {
        json!({ "uses": of.uses, "executions": of.executions(), "cost_usd": of.cost(),
            "input_tokens": of.tokens.input, "output_tokens": of.tokens.output })
    };
    json!({
        "cube": cube, "width": width, "start": key.bucket, "environment": key.environment,
        "prompt": key.prompt, "version": key.version, "provider": key.provider,
        "model": key.model, "recounted": sums(recounted), "found": found.as_ref().map(sums),
    })
}
