//! The recorder: takes records from callers at once and appends them to the store in batches.
//! One queue, bounded in bytes, and one writer task with natural group commit: while one batch
//! commits, the next gathers. A store that is slow, down or broken never fails a caller.

mod config;
mod cut;
mod outcome;
mod policy;
mod queue;
#[cfg(test)]
mod tests;
mod texts;
mod weight;
mod writer;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

pub use config::{Mode, Overload, Payloads, RecorderConfig};
pub use outcome::{DropReason, Recorded};

use crate::record::Record;
use crate::store::RecordStore;
use policy::Policy;
use queue::{BatchLimits, LEAST_BYTES, Queue, TICKET_BYTES, Ticket};
pub(crate) use weight::weight;
use writer::Writer;

/// Records what happens, through one writer task.
///
/// Cloning it clones the handle. When the last handle (a [`Reservation`] is one, too) is dropped,
/// it warns with the number of records that are not saved yet; the writer goes on with these as
/// long as the runtime lives. [`Recorder::shutdown`] waits for them.
///
/// Records reach the store in the order in which they were queued. On the way there the writer
/// makes of their payloads what is to be stored: see [`Payloads`] and
/// [`Redaction`](crate::Redaction). No record comes by another way.
#[derive(Clone)]
pub struct Recorder {
    handle: Arc<Handle>,
}

/// What all clones of a recorder share; its end is the end of the last of them.
struct Handle {
    queue: Arc<Queue>,
    policy: Arc<Policy>,
    /// How many records were settled; closed when the writer has ended.
    settled: watch::Receiver<u64>,
    mode: Mode,
    overload: Overload,
    commit_timeout: Duration,
}

/// How a [`Recorder`] stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecorderCounters {
    /// Records that wait, or are being committed.
    pub queued: u64,
    /// Records that the store has.
    pub committed: u64,
    /// Records that were not taken: the queue was full, or the recorder had stopped.
    pub dropped: u64,
    /// Records that the store refused.
    pub refused: u64,
    /// Bytes of the queue's bound that records and reservations hold.
    pub queued_bytes: u64,
}

impl Recorder {
    /// A recorder that appends to `store`; its writer runs on the current tokio runtime.
    ///
    /// The runtime needs its timer. Without a runtime the recorder reports it and drops all.
    pub fn new(store: Arc<dyn RecordStore>, config: RecorderConfig) -> Self {
        let limits = BatchLimits { records: config.batch_records, bytes: config.batch_bytes };
        let queue = Arc::new(Queue::new(config.queue_bytes, limits));
        let (sender, settled) = watch::channel(0);
        let policy = Arc::new(Policy::new(&config));
        let writer = Writer::new(Arc::clone(&queue), Arc::clone(&policy), store, &config, sender);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(writer.run())),
            Err(error) => {
                tracing::error!(%error, "a recorder outside of a runtime records nothing");
                drop(writer);
            }
        }
        let RecorderConfig { mode, overload, commit_timeout, .. } = config;
        Self { handle: Arc::new(Handle { queue, policy, settled, mode, overload, commit_timeout }) }
    }

    /// Records `record`.
    ///
    /// In [`Mode::Buffered`] it answers once the record is queued, without waiting (save for room,
    /// under [`Overload::Block`]). In [`Mode::Durable`] it answers after the commit, or says
    /// `Queued` after the commit timeout. A record larger than the whole queue is cut and marked.
    pub async fn record(&self, record: Record) -> Recorded {
        let (record, ticket) = self.weighed(record);
        let taken = match self.handle.overload {
            Overload::Shed => self.handle.queue.try_take(ticket.bytes),
            Overload::Block => self.handle.queue.take(ticket.bytes).await,
        };
        match taken {
            Ok(()) => self.push_and_wait(record, ticket, false).await,
            Err(reason) => self.handle.queue.count_drop(reason),
        }
    }

    /// Queues `record` or drops it, in every mode without waiting.
    pub fn record_now(&self, record: Record) -> Recorded {
        let (record, ticket) = self.weighed(record);
        match self.handle.queue.try_take(ticket.bytes) {
            Ok(()) => self.handle.queue.push(record, ticket, false),
            Err(reason) => self.handle.queue.count_drop(reason),
        }
    }

    /// Reserves room for a record that is to come, so that it can neither be shed nor wait.
    ///
    /// At least [`Reservation::MIN_BYTES`] are reserved, at most the whole queue. Under
    /// [`Overload::Shed`] it never waits.
    ///
    /// # Errors
    /// `QueueFull` under [`Overload::Shed`], and `ShutDown`. Neither counts as a dropped record.
    pub async fn reserve(&self, bytes: usize) -> Result<Reservation, DropReason> {
        let queue = &self.handle.queue;
        let bytes = bytes.max(Reservation::MIN_BYTES).min(queue.capacity());
        match self.handle.overload {
            Overload::Shed => queue.try_take(bytes)?,
            Overload::Block => queue.take(bytes).await?,
        }
        Ok(Reservation { recorder: self.clone(), bytes })
    }

    /// Waits until all that was queued before is committed or refused, or the recorder stops.
    pub async fn flush(&self) {
        let target = self.handle.queue.accepted();
        self.handle.queue.work.notify_one();
        let mut settled = self.handle.settled.clone();
        // An error says that the writer has ended: there is nothing more to wait for.
        let _ = settled.wait_for(|settled| *settled >= target).await;
    }

    /// Takes no new records, waits at most `timeout` for those that are queued, and returns how
    /// many of them were not saved. What the store refused and what was shed is counted in
    /// [`Recorder::counters`] instead. Reservations are served until the queue is empty, but not
    /// waited for. An append under way when the time is over may yet succeed.
    pub async fn shutdown(&self, timeout: Duration) -> u64 {
        let queue = &self.handle.queue;
        queue.close();
        let mut settled = self.handle.settled.clone();
        let end = async { while settled.changed().await.is_ok() {} };
        if tokio::time::timeout(timeout, end).await.is_err() {
            queue.stop();
        }
        let unsaved = queue.pending();
        if unsaved > 0 {
            tracing::warn!(unsaved, "the recorder was shut down before all records were saved");
        }
        unsaved
    }

    /// How the recorder stands.
    pub fn counters(&self) -> RecorderCounters {
        let queue = &self.handle.queue;
        RecorderCounters {
            queued: queue.pending(),
            committed: queue.committed.load(Ordering::Acquire),
            dropped: queue.dropped.load(Ordering::Acquire),
            refused: queue.refused.load(Ordering::Acquire),
            queued_bytes: queue.held_bytes() as u64,
        }
    }

    /// Whether so much of the queue is held that who reserves should take no more than the least: so
    /// ten thousand open calls have a place each, and not the first few thousand a large one.
    pub(crate) fn is_crowded(&self) -> bool {
        self.handle.queue.held_bytes() > self.handle.queue.capacity() / 4
    }

    /// The record without what is to be taken out of its texts, for whoever shows them elsewhere.
    pub(crate) fn redacted(&self, mut record: Record) -> Record {
        self.handle.policy.redact(&mut record);
        record
    }

    /// A text as [`Recorder::redacted`] would have it; `None` where that cannot be done.
    pub(crate) fn redacted_text<'t>(&self, text: &'t str) -> Option<Cow<'t, str>> {
        self.handle.policy.redacted_text(text)
    }

    /// The record, cut where it exceeds the whole queue, and its ticket.
    fn weighed(&self, mut record: Record) -> (Record, Ticket) {
        let capacity = self.handle.queue.capacity();
        let mut ticket = Ticket::new(weight(&record) + TICKET_BYTES);
        if ticket.bytes > capacity {
            self.cut(&mut record, &mut ticket, capacity);
            ticket.bytes = (weight(&record) + TICKET_BYTES).min(capacity);
        }
        (record, ticket)
    }

    /// Cuts a record that has no more than `bytes`. What is to be taken out of it goes first, which
    /// is otherwise left to the writer: half a secret is not known for one.
    fn cut(&self, record: &mut Record, ticket: &mut Ticket, bytes: usize) {
        self.handle.policy.apply(record);
        ticket.ready = true;
        cut::cut(record, bytes.saturating_sub(TICKET_BYTES));
    }

    /// Queues a record whose bytes are taken, and in [`Mode::Durable`] waits for its outcome.
    async fn push_and_wait(&self, record: Record, mut ticket: Ticket, late: bool) -> Recorded {
        let queue = &self.handle.queue;
        if self.handle.mode == Mode::Buffered {
            return queue.push(record, ticket, late);
        }
        let (ack, outcome) = oneshot::channel();
        ticket.ack = Some(ack);
        let queued = queue.push(record, ticket, late);
        if queued.is_dropped() {
            return queued;
        }
        match tokio::time::timeout(self.handle.commit_timeout, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Recorded::Dropped(DropReason::ShutDown),
            Err(_) => Recorded::Queued,
        }
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Handle { queue: _, policy, settled: _, mode, overload, commit_timeout } = &*self.handle;
        f.debug_struct("Recorder")
            .field("mode", mode)
            .field("overload", overload)
            .field("commit_timeout", commit_timeout)
            .field("policy", policy)
            .field("counters", &self.counters())
            .finish()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.queue.close();
        let unsaved = self.queue.pending();
        if unsaved > 0 {
            tracing::warn!(unsaved, "the last recorder was dropped before all records were saved");
        }
    }
}

/// Room in the queue of a [`Recorder`] for one record that is to come.
///
/// Dropped unused, it gives the room back.
#[derive(Debug)]
#[must_use = "dropping it gives the room back"]
pub struct Reservation {
    recorder: Recorder,
    bytes: usize,
}

impl Reservation {
    /// The least that is reserved: room for a record without its texts, and for their marks.
    pub const MIN_BYTES: usize = LEAST_BYTES;

    /// How many bytes are reserved.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Queues `record` without waiting, even where the queue is full by now.
    ///
    /// Where it is larger than the reservation and the queue has no room for the rest, its texts
    /// are cut and marked, as in `…[cut: 12345 bytes]`.
    pub fn finish(self, record: Record) -> Recorded {
        let (recorder, record, ticket) = self.fit(record);
        recorder.handle.queue.push(record, ticket, true)
    }

    /// The same as [`Self::finish`], and then waits as [`Recorder::record`] does.
    pub async fn finish_durable(self, record: Record) -> Recorded {
        let (recorder, record, ticket) = self.fit(record);
        recorder.push_and_wait(record, ticket, true).await
    }

    /// Makes record and reservation fit each other, and hands over the bytes to the record.
    fn fit(mut self, mut record: Record) -> (Recorder, Record, Ticket) {
        let queue = &self.recorder.handle.queue;
        let reserved = std::mem::take(&mut self.bytes);
        let mut ticket = Ticket::new(weight(&record) + TICKET_BYTES);
        if ticket.bytes <= reserved {
            queue.give_back(reserved - ticket.bytes);
        } else {
            match queue.try_take(ticket.bytes - reserved) {
                Ok(()) => {}
                // A queue that only drains has nobody to keep the room for.
                Err(DropReason::ShutDown) => ticket.bytes = reserved,
                Err(_) => {
                    self.recorder.cut(&mut record, &mut ticket, reserved);
                    ticket.bytes = reserved;
                }
            }
        }
        (self.recorder.clone(), record, ticket)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.recorder.handle.queue.give_back(self.bytes);
    }
}
