//! The one task that appends: commits what is queued batch by batch, and meanwhile the next gathers.
//! An idle store gets a lone record at once; while records come, it looks for them by itself, so
//! that their callers need not wake it.
//! Invariant: records are appended in the order in which they were queued, and every record is
//! settled once. Appending again is safe, because a store's append is idempotent.

use std::any::Any;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::watch;

use super::config::{Mode, RecorderConfig};
use super::outcome::{DropReason, Recorded};
use super::policy::Policy;
use super::queue::{Batch, Next, Phase, Queue};
use crate::error::{Error, ErrorKind};
use crate::record::Record;
use crate::store::RecordStore;

const FIRST_BACKOFF: Duration = Duration::from_millis(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

/// How long after an empty look it looks again. To wake a task takes its caller several microseconds, most
/// of what recording takes at all.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// After so many empty looks it waits to be woken.
const EMPTY_LOOKS: u32 = 20;

/// The writer was told to stop before it was done.
struct Stopped;

/// Why a batch was not appended.
enum Failure {
    /// The store will not have it as it is.
    Refused(Error),
    Stopped,
}

pub(super) struct Writer {
    queue: Arc<Queue>,
    policy: Arc<Policy>,
    store: Arc<dyn RecordStore>,
    /// How often it looks in vain before it waits to be woken.
    looks: u32,
    /// How many records were settled; closed when the writer ends.
    settled: watch::Sender<u64>,
}

impl Writer {
    pub(super) fn new(
        queue: Arc<Queue>,
        policy: Arc<Policy>,
        store: Arc<dyn RecordStore>,
        config: &RecorderConfig,
        settled: watch::Sender<u64>,
    ) -> Self {
        Self {
            queue,
            policy,
            store,
            // Whoever waits for a commit is to wait for nothing else.
            looks: if config.mode == Mode::Durable { 0 } else { EMPTY_LOOKS },
            settled,
        }
    }

    /// Appends until the queue is closed and empty, or stopped.
    pub(super) async fn run(self) {
        let mut looks_left = 0;
        loop {
            match self.queue.next(looks_left == 0) {
                Next::Work(batch) => {
                    looks_left = self.looks;
                    if self.store(batch).await.is_err() {
                        return;
                    }
                }
                Next::Wait if looks_left == 0 => self.queue.work.notified().await,
                Next::Wait => {
                    looks_left -= 1;
                    tokio::select! {
                        () = tokio::time::sleep(LOOK_AGAIN) => {}
                        () = self.queue.work.notified() => {}
                    }
                }
                Next::End => return,
            }
        }
    }

    async fn store(&self, mut batch: Batch) -> Result<(), Stopped> {
        let awaited = batch.tickets.iter().any(|ticket| ticket.ack.is_some());
        let mut superseded = batch.take_superseded();
        self.make_ready(&mut batch).await?;
        let all_stored = self.commit(&mut batch).await?;
        match superseded.records.len() {
            0 => {}
            // After what stands for them: whoever flushes counts what is settled.
            count if all_stored => self.settle(&mut superseded, 0..count, &Recorded::Committed),
            // How one of them ended may be what was refused.
            _ => {
                self.make_ready(&mut superseded).await?;
                self.commit(&mut superseded).await?;
            }
        }
        self.queue.reuse(batch);
        if awaited {
            // Lets the callers that were just answered queue their next records, so that
            // they commit together and not in two alternating halves.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Makes of a batch what is to be stored: once, before the first attempt to append it. Where that
    /// may take long it is done on a thread of its own, so that no task of the runtime waits for it.
    async fn make_ready(&self, batch: &mut Batch) -> Result<(), Stopped> {
        if !self.policy.is_slow() {
            batch.make_ready(&self.policy);
            return Ok(());
        }
        let (policy, mut moved) = (Arc::clone(&self.policy), std::mem::take(batch));
        let made = tokio::task::spawn_blocking(move || {
            moved.make_ready(&policy);
            moved
        });
        // It fails where the runtime ends, and this task with it.
        *batch = made.await.map_err(|_| Stopped)?;
        Ok(())
    }

    /// Commits a batch; where the store refuses it, halves it until the offenders stand alone. Answers
    /// whether there were none.
    async fn commit(&self, batch: &mut Batch) -> Result<bool, Stopped> {
        let mut all = true;
        let whole = 0..batch.records.len();
        let mut parts = vec![whole];
        while let Some(part) = parts.pop() {
            match self.append(&batch.records[part.clone()]).await {
                Ok(()) => self.settle(batch, part, &Recorded::Committed),
                Err(Failure::Stopped) => return Err(Stopped),
                Err(Failure::Refused(error)) if part.len() == 1 => {
                    all = false;
                    self.refuse(batch, part, error);
                }
                Err(Failure::Refused(_)) => {
                    let middle = part.start + part.len() / 2;
                    parts.push(middle..part.end);
                    parts.push(part.start..middle);
                }
            }
        }
        Ok(all)
    }

    /// Appends, again and again while the store says that it may succeed later.
    async fn append(&self, records: &[Record]) -> Result<(), Failure> {
        let mut wait = FIRST_BACKOFF;
        let mut failures = 0_u64;
        loop {
            // A stop is heeded between two attempts: an attempt under way may yet succeed.
            if self.queue.phase() == Phase::Stopped {
                return Err(Failure::Stopped);
            }
            let attempt = AssertUnwindSafe(async { self.store.append(records).await });
            let error = match attempt.catch_unwind().await {
                Ok(Ok(_)) => {
                    if failures > 0 {
                        tracing::info!(failures, "the store takes records again");
                    }
                    return Ok(());
                }
                Ok(Err(error)) if error.is_retryable() => error,
                Ok(Err(error)) => return Err(Failure::Refused(error)),
                Err(panic) => return Err(Failure::Refused(panicked(&*panic))),
            };
            if failures == 0 {
                tracing::warn!(
                    error = error.chain(),
                    records = records.len(),
                    "the store does not take records: they wait in the queue"
                );
            }
            failures += 1;
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.queue.stop.notified() => {}
            }
            wait = (wait * 2).min(LONGEST_BACKOFF);
        }
    }

    fn refuse(&self, batch: &mut Batch, part: Range<usize>, error: Error) {
        let name = batch.records[part.start].name();
        tracing::error!(record = name, error = error.chain(), "the store refused a record");
        self.settle(batch, part, &Recorded::Dropped(DropReason::Refused(Arc::new(error))));
    }

    fn settle(&self, batch: &mut Batch, part: Range<usize>, outcome: &Recorded) {
        // The texts go now: their bytes of the bound are given away below.
        for record in &mut batch.records[part.clone()] {
            match record {
                Record::Usage(usage) => usage.payload = None,
                Record::Execution(execution) => execution.payload = None,
            }
        }
        let tickets = &mut batch.tickets[part];
        let count = tickets.len() as u64;
        let counter = match outcome {
            Recorded::Committed => &self.queue.committed,
            Recorded::Queued | Recorded::Dropped(_) => &self.queue.refused,
        };
        counter.fetch_add(count, Ordering::AcqRel);
        let mut bytes = 0;
        for ticket in tickets.iter_mut() {
            bytes += std::mem::take(&mut ticket.bytes);
        }
        self.queue.give_back(bytes);
        self.queue.room_came_back();
        self.settled.send_modify(|settled| *settled += count);
        for ticket in tickets {
            if let Some(ack) = ticket.ack.take() {
                // A caller that no longer waits has been told that its record is queued.
                let _ = ack.send(outcome.clone());
            }
        }
    }
}

impl Drop for Writer {
    /// Also when the runtime ends: nobody reads the queue any more, so it takes nothing.
    fn drop(&mut self) {
        self.queue.stop();
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let what = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    Error::new(ErrorKind::Unexpected, format!("the store panicked: {what}"))
}
