//! Fills a store with the set, and tells a store that holds it from any other.
//! Invariant: nothing is written to a store that holds anything but what a fill of ours made.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prompt_engine_benches::{Call, Calls, Set};
use prompt_engine_core::{PageQuery, Prompt, Record, RecordQuery, Store};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::Outcome;
use crate::print::grouped;

/// Calls of a batch of about 20 MB, with texts and without.
const BATCHES: [usize; 2] = [4_096, 16_384];
/// Batches that wait to be appended.
const WAITING: usize = 2;
/// How often the progress is told.
const TELL: Duration = Duration::from_secs(10);

/// What the description of the first prompt says of a store that holds a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marker {
    /// The form of the set: another one has other calls.
    pub(crate) benchmark_set: u32,
    pub(crate) seed: u64,
    pub(crate) calls: u64,
    pub(crate) days: u32,
    pub(crate) payload_calls: u64,
    /// Whether all of it was written.
    pub(crate) complete: bool,
}

impl Marker {
    pub(crate) fn new(set: &Set, payload_calls: u64) -> Self {
        let (seed, calls, days) = (set.seed(), set.calls(), set.days());
        Self { benchmark_set: 1, seed, calls, days, payload_calls, complete: false }
    }

    fn words(&self) -> String {
        let Self { seed, calls, days, payload_calls, .. } = self;
        format!(
            "seed {seed}, {} calls over {days} days, {} with texts",
            grouped(*calls),
            grouped(*payload_calls)
        )
    }

    fn json(&self) -> Outcome<String> {
        Ok(serde_json::to_string(self)?)
    }
}

/// The set that `store` holds; `None` if it is empty.
///
/// `texts_said`: how many calls should have texts, if it was said.
pub(crate) async fn held(
    store: &dyn Store,
    wanted: &Marker,
    texts_said: Option<u64>,
) -> Outcome<Option<Marker>> {
    let first = match store.prompt_by_slug(&Set::slug(0).parse()?).await? {
        Some(first) => first,
        None if is_empty(store).await? => return Ok(None),
        None => return Err(foreign()),
    };
    let Some(held) = marker(&first) else { return Err(foreign()) };
    if !held.complete {
        return Err("a fill of this store was cut short; delete it, or name another".into());
    }
    let same = Marker { payload_calls: held.payload_calls, complete: true, ..wanted.clone() };
    if held != same || texts_said.is_some_and(|said| said != held.payload_calls) {
        return Err(format!(
            "this store holds another set ({}, not {}); delete it, or name another",
            held.words(),
            wanted.words()
        )
        .into());
    }
    Ok(Some(held))
}

fn foreign() -> Box<dyn std::error::Error> {
    "this store holds something else than a set of this bench, and nothing was written to it; name \
     another"
        .into()
}

fn marker(first: &Prompt) -> Option<Marker> {
    serde_json::from_str(first.description.as_deref()?).ok()
}

async fn is_empty(store: &dyn Store) -> Outcome<bool> {
    let page = PageQuery { limit: 1, after: None };
    let records = RecordQuery { page: page.clone(), ..RecordQuery::default() };
    Ok(store.list_prompts(&page).await?.items.is_empty()
        && store.list_usages(&records).await?.items.is_empty()
        && store.list_executions(&records).await?.items.is_empty())
}

/// Writes `set` to an empty store: one thread makes calls, another appends them.
pub(crate) async fn fill(store: &dyn Store, set: &Arc<Set>, wanted: &Marker) -> Outcome<()> {
    let note = wanted.json()?;
    for (prompt, versions) in set.stored_prompts(&note) {
        store.insert_prompt(&prompt, &versions).await?;
    }
    let (sender, mut batches) = mpsc::channel::<Vec<Record>>(WAITING);
    let calls = Calls::of(Arc::clone(set), wanted.calls - wanted.payload_calls);
    let count = usize::try_from(wanted.calls)?;
    let batch = BATCHES[usize::from(wanted.payload_calls == 0)];
    let maker = std::thread::spawn(move || made(calls.take(count), batch, &sender));
    let (start, mut told, mut done) = (Instant::now(), Instant::now(), 0);
    while let Some(batch) = batches.recv().await {
        let records = u64::try_from(batch.len())?;
        let appended = store.append(&batch).await?;
        if appended.stored != records {
            return Err(format!("only {} of {records} records were new", appended.stored).into());
        }
        done += records / 2;
        if told.elapsed() >= TELL {
            told = Instant::now();
            eprintln!("filled {}", progress(done, wanted.calls, start));
        }
    }
    maker.join().map_err(|_| "the thread that makes calls panicked")?;
    if done != wanted.calls {
        return Err(format!("{done} of {} calls were made", wanted.calls).into());
    }
    let mut folded = 0;
    loop {
        let more = store.fold().await?;
        folded += more.changes;
        if told.elapsed() >= TELL {
            told = Instant::now();
            eprintln!("folded {} changes that were left", grouped(folded));
        }
        if !more.more {
            break;
        }
    }
    Ok(())
}

/// Notes that all of the set is there.
pub(crate) async fn completed(store: &dyn Store, wanted: &Marker) -> Outcome<Marker> {
    let complete = Marker { complete: true, ..wanted.clone() };
    let slug = Set::slug(0).parse()?;
    let first = store.prompt_by_slug(&slug).await?.ok_or("the first prompt is gone")?;
    let first =
        Prompt { description: Some(complete.json()?), revision: first.revision + 1, ..first };
    store.update_prompt(&first, None).await?;
    Ok(complete)
}

/// Makes batches of `size` calls until all are made, or nobody takes them any more.
fn made(calls: impl Iterator<Item = Call>, size: usize, sender: &mpsc::Sender<Vec<Record>>) {
    let mut batch = Vec::with_capacity(2 * size);
    for Call { usage, execution } in calls {
        batch.extend([usage.into(), execution.into()]);
        if batch.len() == 2 * size {
            let full = std::mem::replace(&mut batch, Vec::with_capacity(2 * size));
            if sender.blocking_send(full).is_err() {
                return;
            }
        }
    }
    if !batch.is_empty() {
        // Whoever no longer takes batches says why.
        drop(sender.blocking_send(batch));
    }
}

fn progress(done: u64, of: u64, start: Instant) -> String {
    format!(
        "{} of {} calls, {:.0} a second",
        grouped(done),
        grouped(of),
        rate(done, start.elapsed())
    )
}

/// `calls` per second.
pub(crate) fn rate(calls: u64, took: Duration) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a rate is shown, never added up")]
    let calls = calls as f64;
    calls / took.as_secs_f64()
}
