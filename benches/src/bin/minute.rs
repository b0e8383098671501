//! A minute of calls into a store, and a reader that asks all five questions in a loop; see `--help`.
//! Invariants: every call is there afterwards, with its cost; every answer after the minute is compared
//! with a recount of the set.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Parser;
use prompt_engine::open_store;
use prompt_engine_benches::{Call, Calls, Latencies, Question, Set, memory, printed_machine};
use prompt_engine_core::{
    Analytics, GroupBy, Overload, Record, Recorded, Recorder, RecorderConfig, Store,
};
use tokio::time::{Instant, MissedTickBehavior, interval};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// How often calls are made: as many as are due, one after the other.
const TICK: Duration = Duration::from_millis(10);
/// What a call reserves for its answer, as the engine does.
const RESERVED: usize = 8 * 1024;
/// The five of an overview.
const QUESTIONS: [Question; 5] = [
    Question::UsageStats,
    Question::PromptPerformance,
    Question::Costs(GroupBy::Model),
    Question::ErrorAnalysis,
    Question::TopPrompts,
];

/// Records so many calls a second, with texts, into a store that has none, and asks all five questions
/// in a loop meanwhile.
///
/// Where the store is slower than the calls come, they wait for room: nothing is shed.
#[derive(Debug, Parser)]
#[command(name = "minute")]
struct Args {
    /// The store: sqlite://FILE, redb://FILE or postgres://HOST/DATABASE.
    #[arg(long, value_name = "URL")]
    store: String,
    /// Calls a second.
    #[arg(long, value_name = "N", default_value_t = 5_000,
        value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    rate: u32,
    /// For how long.
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
        value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Nobody asks meanwhile: what recording takes by itself.
    #[arg(long)]
    alone: bool,
    /// What decides the calls.
    #[arg(long, value_name = "N", default_value_t = 7)]
    seed: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(&args))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("minute: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Outcome<()> {
    if let Some(file) = args.store.strip_prefix("sqlite://").filter(|file| Path::new(file).exists())
    {
        return Err(format!("{file} is there already: name a new store").into());
    }
    printed_machine(args.seed);
    let calls = u64::from(args.rate) * u64::from(args.seconds);
    let set = Arc::new(Set::new(args.seed, calls, 1));
    let store = open_store(&args.store, false).await?;
    for (prompt, versions) in set.stored_prompts("a minute of calls") {
        store.insert_prompt(&prompt, &versions).await?;
    }
    let done = Arc::new(AtomicBool::new(false));
    let reading = read(Arc::clone(&store), Arc::clone(&set), Arc::clone(&done));
    let reader = (!args.alone).then(|| tokio::spawn(reading));
    let watcher = tokio::spawn(watch(Arc::clone(&done)));
    let written = write(args, Arc::clone(&store), &set).await;
    done.store(true, Ordering::Relaxed);
    let seen = watcher.await?;
    let mut written = written?;
    #[allow(clippy::cast_precision_loss, reason = "a rate is shown, never added up")]
    let rate = calls as f64 / written.took.as_secs_f64();
    println!("{calls} calls in {:?}: {rate:.0} a second", written.took);
    written.callers.print("recording, its caller");
    if let Some(reader) = reader {
        for (question, latencies) in QUESTIONS.iter().zip(&mut reader.await??) {
            latencies.print(question.name());
        }
    }
    println!("resident memory, MB, every five seconds: {seen:?}");
    for (number, question) in (0..).zip(QUESTIONS) {
        let asked = question.asked(&set, number);
        let analytics = Analytics::new(Arc::<dyn Store>::clone(&store));
        let reply = question.ask(&analytics, &*store, &set, &asked).await?;
        reply.answer(&set, question).check(&question.right_answer(&set, &asked))?;
    }
    let measures = store.aggregate(&Default::default()).await?.rows;
    let measures = &measures.first().ok_or("the store is empty")?.measures;
    if (measures.uses, measures.finished()) != (Some(calls), calls) {
        return Err(format!(
            "{:?} uses and {} calls are there",
            measures.uses,
            measures.finished()
        )
        .into());
    }
    println!("all {calls} uses and calls are there; the five answers agree with a recount");
    Ok(())
}

struct Written {
    took: Duration,
    callers: Latencies,
}

/// Records all calls as the engine does, at the pace that is asked for.
async fn write(args: &Args, store: Arc<dyn Store>, set: &Arc<Set>) -> Outcome<Written> {
    let settings = RecorderConfig::new().with_overload(Overload::Block);
    let recorder = Recorder::new(store, settings);
    let mut calls = Calls::of(Arc::clone(set), 0);
    let mut callers = Latencies::default();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let start = Instant::now();
    let mut made = 0_u64;
    while made < set.calls() {
        ticks.tick().await;
        #[allow(clippy::cast_possible_truncation, reason = "a minute has few milliseconds")]
        let due = u64::from(args.rate) * start.elapsed().as_millis() as u64 / 1_000;
        while made < due.min(set.calls()) {
            let call = calls.next().ok_or("the set has no end")?;
            record(&recorder, call, &mut callers).await?;
            made += 1;
        }
    }
    let lost = recorder.shutdown(Duration::from_secs(600)).await;
    if lost > 0 {
        return Err(format!("{lost} records were not saved").into());
    }
    Ok(Written { took: start.elapsed(), callers })
}

async fn record(recorder: &Recorder, call: Call, callers: &mut Latencies) -> Outcome<()> {
    let pending = Record::from(call.pending());
    let Call { usage, execution } = call;
    let start = std::time::Instant::now();
    let outcomes = [recorder.record(usage.into()).await, {
        let place = recorder.reserve(RESERVED).await.map_err(|why| why.to_string())?;
        let pending = recorder.record_now(pending);
        let finished = place.finish(execution.into());
        // The pending form may be left out where the queue is full: the finished one counts.
        drop(pending);
        finished
    }];
    callers.push(start.elapsed());
    match outcomes.iter().find(|one| !matches!(one, Recorded::Queued)) {
        Some(lost) => Err(format!("a record was not queued: {lost}").into()),
        None => Ok(()),
    }
}

/// Asks the five questions in a loop; their times.
async fn read(
    store: Arc<dyn Store>,
    set: Arc<Set>,
    done: Arc<AtomicBool>,
) -> Result<[Latencies; 5], prompt_engine::Error> {
    let analytics = Analytics::new(Arc::<dyn Store>::clone(&store));
    let mut answers = <[Latencies; 5]>::default();
    let mut number = 0;
    while !done.load(Ordering::Relaxed) {
        for (question, latencies) in QUESTIONS.iter().zip(&mut answers) {
            let asked = question.asked(&set, number);
            number += 1;
            let start = std::time::Instant::now();
            question.ask(&analytics, &*store, &set, &asked).await?;
            latencies.push(start.elapsed());
        }
    }
    Ok(answers)
}

/// The resident memory in megabytes, every five seconds.
async fn watch(done: Arc<AtomicBool>) -> Vec<u64> {
    let mut seen = Vec::new();
    let mut ticks = interval(Duration::from_secs(5));
    while !done.load(Ordering::Relaxed) {
        ticks.tick().await;
        seen.extend(memory("VmRSS").map(|bytes| bytes / 1_000_000));
    }
    seen
}
