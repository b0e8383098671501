//! Fills a store with a set of calls and times the questions about it; see `--help`.
//! Invariants: no two timed questions ask for the same range; every timed answer is compared with a
//! recount of the set; the process that asks has filled nothing, so that its memory is that of asking.

mod args;
mod engine_check;
mod fill;
mod place;
mod print;

use std::error::Error;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use clap::Parser;
use clap::error::ErrorKind;
use prompt_engine::open_store;
use prompt_engine_benches::{Answer, Asked, Observed, Question, Reply, Set, memory};
use prompt_engine_core::{Analytics, Store};
use tokio::runtime::Runtime;

use crate::args::{Args, From};
use crate::engine_check::Entry;
use crate::fill::Marker;
use crate::place::{Place, close};
use crate::print::{Line, Printer, Run, Summary, ms};

/// What can fail with one sentence.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return refused(&error),
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(error) = source {
                text.push_str(&format!(": {error}"));
                source = error.source();
            }
            eprintln!("scale: {text}");
            ExitCode::FAILURE
        }
    }
}

/// Prints help as it is, and an error of the arguments as one sentence.
fn refused(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // Whoever closed the pipe has seen enough.
        drop(error.print());
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    let parts: Vec<String> = text
        .split("\n\n")
        .take_while(|part| !part.starts_with("Usage:"))
        .map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|part| !part.is_empty() && !part.starts_with("For more information"))
        .collect();
    let sentence = parts.join("; ");
    eprintln!("scale: {} (see --help)", sentence.strip_prefix("error: ").unwrap_or(&sentence));
    ExitCode::from(2)
}

fn run(args: &Args) -> Outcome<()> {
    let place = Place::parse(&args.store)?;
    let set = Arc::new(Set::new(args.seed, args.calls, args.days));
    let questions: Vec<Question> = Question::TARGETS
        .into_iter()
        .chain(Question::EXTRAS.into_iter().filter(|_| !args.no_extras))
        .filter(|one| args.only.as_ref().is_none_or(|only| one.name().starts_with(only)))
        .collect();
    if questions.is_empty() {
        let names: Vec<_> =
            Question::TARGETS.iter().chain(&Question::EXTRAS).map(|one| one.name()).collect();
        return Err(format!("no question starts so; there are {}", names.join(", ")).into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let held = match runtime.block_on(held_or_filled(args, &place, &set))? {
        Held::Before(marker) => marker,
        Held::Filled(_, rate) if args.fill_only => {
            eprintln!("filled at {rate:.0} calls a second");
            return Ok(());
        }
        Held::Filled(marker, rate) => {
            if let Some(error) = become_another(rate) {
                return Err(error.into());
            }
            marker
        }
    };
    if args.fill_only {
        eprintln!("the store holds the set already");
        return Ok(());
    }
    asked(&runtime, args, &place, &set, &questions, &held)
}

/// What is in the store.
enum Held {
    /// The set, from an earlier run.
    Before(Marker),
    /// The set, which was filled in now, at so many calls per second.
    Filled(Marker, f64),
}

async fn held_or_filled(args: &Args, place: &Place, set: &Arc<Set>) -> Outcome<Held> {
    let wanted = Marker::new(set, args.payload_calls());
    let store = open_store(&args.store, false).await?;
    if let Some(held) = fill::held(&*store, &wanted, args.payload_calls).await? {
        close(store).await;
        return Ok(Held::Before(held));
    }
    let start = Instant::now();
    // With texts the size of the store is what matters, and that of an index depends on how it grew.
    let bulk = wanted.payload_calls == 0;
    let indexes = if bulk { place.drop_indexes()? } else { Vec::new() };
    fill::fill(&*store, set, &wanted).await?;
    place.make_indexes(&indexes)?;
    let filled = fill::completed(&*store, &wanted).await?;
    drop(store);
    // The rate is that of the store: what follows a server does in its own time.
    let rate = fill::rate(wanted.calls, start.elapsed());
    place.settle().await?;
    Ok(Held::Filled(filled, rate))
}

/// Begins again as a fresh process, whose memory has seen no fill. Returns only where it cannot.
#[cfg(unix)]
fn become_another(rate: f64) -> Option<std::io::Error> {
    use std::os::unix::process::CommandExt;
    match std::env::current_exe() {
        Ok(this) => Some(Command::new(this).args(Args::after_the_fill(rate)).exec()),
        Err(error) => Some(error),
    }
}

/// Elsewhere the memory is that of the fill, too, and not told.
#[cfg(not(unix))]
fn become_another(_: f64) -> Option<std::io::Error> {
    None
}

/// Asks all questions, checks and prints what was answered.
fn asked(
    runtime: &Runtime,
    args: &Args,
    place: &Place,
    set: &Set,
    questions: &[Question],
    held: &Marker,
) -> Outcome<()> {
    let open = || runtime.block_on(open_store(&args.store, false));
    let observe = |store: Arc<dyn Store>| {
        let observed = Observed::new(store);
        Arc::new(match args.source {
            From::Any => observed,
            From::Records => observed.answering_from(args.source.source()),
        })
    };
    let printer = Printer { json: args.json };
    printer.head();
    let store = open()?;
    let observed = observe(Arc::clone(&store));
    let mut entries = Vec::new();
    let mut number = 0;
    for question in questions {
        let (mut runs, mut replies) = (Vec::new(), Vec::new());
        for _ in 0..args.runs {
            let asked = question.asked(set, number);
            number += 1;
            let (run, reply) = runtime.block_on(timed(*question, &observed, set, &asked))?;
            runs.push(run);
            replies.push((asked, reply));
        }
        let answers = checked(*question, set, &replies)?;
        printer.line(&Line::new(*question, &runs))?;
        if args.engine_check.is_some() {
            let with_times = replies.iter().zip(runs).zip(answers);
            entries.extend(with_times.map(|(((asked, _), run), answer)| {
                Entry::new(set, *question, asked, ms(run.took), answer)
            }));
        }
    }
    let (rss_bytes, peak_rss_bytes) = (memory("VmRSS"), memory("VmHWM"));
    drop(observed);
    runtime.block_on(close(store));

    let question = Question::UsageStats;
    let asked = question.asked(set, number);
    let start = Instant::now();
    let observed = observe(open()?);
    let (_, reply) = runtime.block_on(timed(question, &observed, set, &asked))?;
    let open_ms = ms(start.elapsed());
    checked(question, set, &[(asked, reply)])?;
    drop(observed);

    let bytes = runtime.block_on(place.bytes())?;
    #[allow(clippy::cast_precision_loss, reason = "a rate is shown, never added up")]
    let bytes_per_call = bytes as f64 / set.calls() as f64;
    printer.summary(&Summary {
        summary: true,
        store: place.kind(),
        seed: set.seed(),
        calls: set.calls(),
        days: set.days(),
        payload_calls: held.payload_calls,
        fill_calls_per_s: args.filled_at.map(f64::round),
        bytes,
        bytes_per_call: (bytes_per_call * 10.0).round() / 10.0,
        rss_bytes,
        peak_rss_bytes,
        open_ms,
    })?;
    if let Some(folder) = &args.engine_check {
        engine_check::write(folder, set, &entries)?;
    }
    Ok(())
}

/// Asks once.
async fn timed(
    question: Question,
    store: &Arc<Observed>,
    set: &Set,
    asked: &Asked,
) -> Outcome<(Run, Reply)> {
    let analytics = Analytics::new(Arc::<Observed>::clone(store));
    store.take_readings();
    let start = Instant::now();
    let reply = question.ask(&analytics, &**store, set, asked).await?;
    let took = start.elapsed();
    Ok((Run { took, readings: store.take_readings() }, reply))
}

/// The answers, each of which is right.
fn checked(question: Question, set: &Set, replies: &[(Asked, Reply)]) -> Outcome<Vec<Answer>> {
    let next = AtomicUsize::new(0);
    let check = || {
        let mut checked = Vec::new();
        while let Some((asked, reply)) = replies.get(next.fetch_add(1, Ordering::Relaxed)) {
            let answer = reply.answer(set, question);
            answer
                .check(&question.right_answer(set, asked))
                .map_err(|fault| format!("{} of {:?}: {fault}", question.name(), asked.range))?;
            checked.push((asked.range.to, answer));
        }
        Ok::<_, String>(checked)
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let checked = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(check)).collect();
        let done = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("the recount panicked".to_owned())));
        done.collect::<Result<Vec<_>, String>>()
    })?;
    let mut checked: Vec<_> = checked.into_iter().flatten().collect();
    // In the order in which they were asked: the end of the range tells them apart.
    let place = |to| replies.iter().position(|(asked, _)| asked.range.to == to);
    checked.sort_by_key(|(to, _)| place(*to));
    Ok(checked.into_iter().map(|(_, answer)| answer).collect())
}
