//! The one task that appends: takes all that is queued, commits it in bounded batches, and
//! meanwhile the next gathers. No timer: an idle store gets a lone record at once.
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

use super::config::RecorderConfig;
use super::outcome::{DropReason, Recorded};
use super::policy::Policy;
use super::queue::{Gathered, Next, Phase, Queue};
use crate::error::{Error, ErrorKind};
use crate::record::Record;
use crate::store::RecordStore;

const FIRST_BACKOFF: Duration = Duration::from_millis(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

/// Buffers that once held more records than this are not kept.
const KEPT_CAPACITY: usize = 8_192;

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
    batch_records: usize,
    batch_bytes: usize,
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
            batch_records: config.batch_records.max(1),
            batch_bytes: config.batch_bytes,
            settled,
        }
    }

    /// Appends until the queue is closed and empty, or stopped.
    pub(super) async fn run(self) {
        let mut buffer = Gathered::default();
        loop {
            match self.queue.next(&mut buffer) {
                Next::Work => {
                    if self.drain(&mut buffer).await.is_err() {
                        return;
                    }
                }
                Next::Wait => self.queue.work.notified().await,
                Next::End => return,
            }
        }
    }

    async fn drain(&self, buffer: &mut Gathered) -> Result<(), Stopped> {
        let mut start = 0;
        while start < buffer.records.len() {
            let batch = start..self.batch_end(buffer, start);
            start = batch.end;
            let awaited = buffer.tickets[batch.clone()].iter().any(|t| t.ack.is_some());
            self.make_ready(buffer, batch.clone()).await?;
            self.commit(buffer, batch).await?;
            if awaited {
                // Lets the callers that were just answered queue their next records, so that
                // they commit together and not in two alternating halves.
                tokio::task::yield_now().await;
            }
        }
        buffer.records.clear();
        buffer.tickets.clear();
        if buffer.records.capacity() > KEPT_CAPACITY {
            *buffer = Gathered::default();
        }
        Ok(())
    }

    /// Makes of a batch what is to be stored: once, before the first attempt to append it. Where that
    /// may take long it is done on a thread of its own, so that no task of the runtime waits for it.
    async fn make_ready(&self, buffer: &mut Gathered, batch: Range<usize>) -> Result<(), Stopped> {
        if !self.policy.is_slow() {
            buffer.make_ready(batch, &self.policy);
            return Ok(());
        }
        let (policy, mut gathered) = (Arc::clone(&self.policy), std::mem::take(buffer));
        let made = tokio::task::spawn_blocking(move || {
            gathered.make_ready(batch, &policy);
            gathered
        });
        // It fails where the runtime ends, and this task with it.
        *buffer = made.await.map_err(|_| Stopped)?;
        Ok(())
    }

    fn batch_end(&self, buffer: &Gathered, start: usize) -> usize {
        let most = buffer.tickets.len().min(start.saturating_add(self.batch_records));
        let mut bytes = buffer.tickets[start].bytes;
        let mut end = start + 1;
        while end < most {
            bytes += buffer.tickets[end].bytes;
            if bytes > self.batch_bytes {
                break;
            }
            end += 1;
        }
        end
    }

    /// Commits a batch; where the store refuses it, halves it until the offenders stand alone.
    async fn commit(&self, buffer: &mut Gathered, batch: Range<usize>) -> Result<(), Stopped> {
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            match self.append(&buffer.records[part.clone()]).await {
                Ok(()) => self.settle(buffer, part, &Recorded::Committed),
                Err(Failure::Stopped) => return Err(Stopped),
                Err(Failure::Refused(error)) if part.len() == 1 => {
                    self.refuse(buffer, part, error);
                }
                Err(Failure::Refused(_)) => {
                    let middle = part.start + part.len() / 2;
                    parts.push(middle..part.end);
                    parts.push(part.start..middle);
                }
            }
        }
        Ok(())
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

    fn refuse(&self, buffer: &mut Gathered, part: Range<usize>, error: Error) {
        let name = buffer.records[part.start].name();
        tracing::error!(record = name, error = error.chain(), "the store refused a record");
        self.settle(buffer, part, &Recorded::Dropped(DropReason::Refused(Arc::new(error))));
    }

    fn settle(&self, buffer: &mut Gathered, part: Range<usize>, outcome: &Recorded) {
        let count = part.len() as u64;
        let counter = match outcome {
            Recorded::Committed => &self.queue.committed,
            Recorded::Queued | Recorded::Dropped(_) => &self.queue.refused,
        };
        counter.fetch_add(count, Ordering::AcqRel);
        // The texts go now: their bytes of the bound are given away below.
        for record in &mut buffer.records[part.clone()] {
            match record {
                Record::Usage(usage) => usage.payload = None,
                Record::Execution(execution) => execution.payload = None,
            }
        }
        let mut bytes = 0;
        let tickets = &mut buffer.tickets[part];
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
