//! The queue between callers and the writer: bounded in bytes, first in, first out, in batches.
//! Invariant: a byte of the bound is held by a reservation or by a record from the moment it is
//! queued until it is settled (committed or refused). The lock is never held across an await.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore, TryAcquireError, oneshot};

use super::outcome::{DropReason, Recorded};
use super::policy::Policy;
use crate::id::ExecutionId;
use crate::record::Record;

/// What one record takes in the queue besides itself.
pub(super) const TICKET_BYTES: usize = size_of::<Ticket>();

/// The least bound of a queue, and the least reservation: a record without its texts, and the
/// marks of their cuts.
pub(super) const LEAST_BYTES: usize = 2 * 1024;

/// How a queue stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It takes records.
    Open,
    /// It takes what has a reservation, until it is empty.
    Closing,
    /// Nobody reads it any more.
    Stopped,
}

/// What goes with a queued record.
#[derive(Debug)]
pub(super) struct Ticket {
    /// The bytes of the bound that it holds.
    pub(super) bytes: usize,
    /// Who waits for its outcome.
    pub(super) ack: Option<oneshot::Sender<Recorded>>,
    /// Whether the record is as it is to be stored.
    pub(super) ready: bool,
}

impl Ticket {
    pub(super) fn new(bytes: usize) -> Self {
        Self { bytes, ack: None, ready: false }
    }
}

/// Records to append together with their tickets, side by side, so that a store is given a plain slice.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) records: Vec<Record>,
    pub(super) tickets: Vec<Ticket>,
    bytes: usize,
}

/// The most of one batch; a single record may have more bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchLimits {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

impl Batch {
    fn has_room(&self, bytes: usize, limits: BatchLimits) -> bool {
        self.records.is_empty()
            || self.records.len() < limits.records
                && self.bytes.saturating_add(bytes) <= limits.bytes
    }

    fn push(&mut self, record: Record, ticket: Ticket) {
        self.bytes += ticket.bytes;
        self.records.push(record);
        self.tickets.push(ticket);
    }

    fn clear(&mut self) {
        self.records.clear();
        self.tickets.clear();
        self.bytes = 0;
    }

    /// Takes calls out that were about to be sent, where the batch says how they ended, too: a store
    /// would write them only to write over them.
    pub(super) fn take_superseded(&mut self) -> Self {
        let calls = self.records.iter().filter_map(|record| match record {
            Record::Usage(_) => None,
            Record::Execution(execution) => Some(execution),
        });
        let ended: HashSet<ExecutionId> =
            calls.filter(|call| call.status.is_final()).map(|call| call.id).collect();
        let is_superseded = |record: &Record| match record {
            Record::Usage(_) => false,
            Record::Execution(call) => !call.status.is_final() && ended.contains(&call.id),
        };
        let superseded: Vec<bool> = self.records.iter().map(is_superseded).collect();
        let (mut of_records, mut of_tickets) = (superseded.iter(), superseded.iter());
        let records = self.records.extract_if(.., |_| of_records.next() == Some(&true)).collect();
        let tickets = self.tickets.extract_if(.., |_| of_tickets.next() == Some(&true)).collect();
        Self { records, tickets, bytes: 0 }
    }

    /// Applies `policy` to the records that are not ready.
    pub(super) fn make_ready(&mut self, policy: &Policy) {
        for (record, ticket) in self.records.iter_mut().zip(&mut self.tickets) {
            if !std::mem::replace(&mut ticket.ready, true) {
                policy.apply(record);
            }
        }
    }
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// What waits; only the last grows.
    batches: VecDeque<Batch>,
    /// The buffers of a batch that was settled, for the next to gather in.
    spare: Option<Batch>,
    /// Records ever taken in.
    accepted: u64,
    /// Whether the writer waits for work, so that only then a push has to wake it.
    idle: bool,
}

#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    room: Semaphore,
    capacity: usize,
    limits: BatchLimits,
    /// Wakes the writer when there is work, or nothing will come any more.
    pub(super) work: Notify,
    /// Wakes the writer out of a backoff when it must stop.
    pub(super) stop: Notify,
    pub(super) committed: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) dropped: AtomicU64,
    /// Whether the present shortage of room has been reported.
    short: AtomicBool,
}

/// What the writer finds.
pub(super) enum Next {
    /// Records.
    Work(Batch),
    /// Nothing yet.
    Wait,
    /// Nothing, and nothing will come.
    End,
}

impl Queue {
    pub(super) fn new(bytes: usize, limits: BatchLimits) -> Self {
        let most = usize::try_from(u32::MAX).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let capacity = bytes.clamp(LEAST_BYTES, most);
        Self {
            state: Mutex::new(State {
                phase: Phase::Open,
                batches: VecDeque::new(),
                spare: None,
                accepted: 0,
                idle: false,
            }),
            room: Semaphore::new(capacity),
            capacity,
            limits,
            work: Notify::new(),
            stop: Notify::new(),
            committed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            short: AtomicBool::new(false),
        }
    }

    /// No step under the lock leaves the state half changed, so a poisoned lock is a good one.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn phase(&self) -> Phase {
        self.state().phase
    }

    pub(super) fn accepted(&self) -> u64 {
        self.state().accepted
    }

    /// Records taken in whose fate is open.
    pub(super) fn pending(&self) -> u64 {
        let accepted = self.accepted();
        let settled = self.committed.load(Ordering::Acquire) + self.refused.load(Ordering::Acquire);
        accepted.saturating_sub(settled)
    }

    /// The bytes of the bound that are held.
    pub(super) fn held_bytes(&self) -> usize {
        self.capacity.saturating_sub(self.room.available_permits())
    }

    /// Takes `bytes` of the bound at once, or says why not.
    pub(super) fn try_take(&self, bytes: usize) -> Result<(), DropReason> {
        let Ok(permits) = u32::try_from(bytes) else { return Err(DropReason::QueueFull) };
        match self.room.try_acquire_many(permits) {
            Ok(permit) => {
                permit.forget();
                Ok(())
            }
            Err(TryAcquireError::NoPermits) => Err(DropReason::QueueFull),
            Err(TryAcquireError::Closed) => Err(DropReason::ShutDown),
        }
    }

    /// Takes `bytes` of the bound, which must not exceed it, as soon as there is room.
    pub(super) async fn take(&self, bytes: usize) -> Result<(), DropReason> {
        let Ok(permits) = u32::try_from(bytes) else { return Err(DropReason::QueueFull) };
        match self.room.acquire_many(permits).await {
            Ok(permit) => {
                permit.forget();
                Ok(())
            }
            Err(_) => Err(DropReason::ShutDown),
        }
    }

    /// Gives `bytes` of the bound back.
    pub(super) fn give_back(&self, bytes: usize) {
        if bytes > 0 {
            self.room.add_permits(bytes);
        }
    }

    /// Queues a record that holds `ticket.bytes`; `late` ones had a place before the queue closed.
    pub(super) fn push(&self, record: Record, ticket: Ticket, late: bool) -> Recorded {
        let mut state = self.state();
        let taken = match state.phase {
            Phase::Open => true,
            Phase::Closing => late,
            Phase::Stopped => false,
        };
        if !taken {
            drop(state);
            self.give_back(ticket.bytes);
            return self.count_drop(DropReason::ShutDown);
        }
        state.accepted += 1;
        match state.batches.back_mut().filter(|last| last.has_room(ticket.bytes, self.limits)) {
            Some(last) => last.push(record, ticket),
            None => {
                let mut batch = state.spare.take().unwrap_or_default();
                batch.push(record, ticket);
                state.batches.push_back(batch);
            }
        }
        let wake = std::mem::take(&mut state.idle);
        drop(state);
        if wake {
            self.work.notify_one();
        }
        Recorded::Queued
    }

    /// Counts a record that was not taken; reports the first of a shortage.
    pub(super) fn count_drop(&self, reason: DropReason) -> Recorded {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        if matches!(reason, DropReason::QueueFull) && !self.short.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                queue_bytes = self.capacity,
                "the recorder's queue is full: records are dropped until there is room"
            );
        }
        Recorded::Dropped(reason)
    }

    /// Notes that room came back: once half the queue is free, the next shortage is reported anew.
    pub(super) fn room_came_back(&self) {
        if self.held_bytes() <= self.capacity / 2 && self.short.swap(false, Ordering::Relaxed) {
            let dropped = self.dropped.load(Ordering::Relaxed);
            tracing::warn!(dropped, "the recorder's queue has room again");
        }
    }

    /// The batch that waits the longest; where there is none, what to do instead. Only a writer that
    /// would `wait` is woken by the next record.
    pub(super) fn next(&self, wait: bool) -> Next {
        let mut state = self.state();
        if let Some(batch) = state.batches.pop_front() {
            return Next::Work(batch);
        }
        if state.phase == Phase::Open {
            state.idle = wait;
            return Next::Wait;
        }
        // Stopped in the same step, so that nothing can be queued after the last look.
        state.phase = Phase::Stopped;
        Next::End
    }

    /// Keeps the buffers of a batch that is settled for the next: what is filled again and again is
    /// neither grown anew each time nor given to the allocator and back.
    pub(super) fn reuse(&self, mut batch: Batch) {
        batch.clear();
        let before = self.state().spare.replace(batch);
        drop(before); // without the lock
    }

    /// Takes no new records; callers that wait for room are sent away.
    pub(super) fn close(&self) {
        let mut state = self.state();
        if state.phase == Phase::Open {
            state.phase = Phase::Closing;
        }
        drop(state);
        self.room.close();
        self.work.notify_one();
    }

    /// Takes nothing any more and lets go of what is queued; its fate stays open.
    pub(super) fn stop(&self) {
        let mut state = self.state();
        state.phase = Phase::Stopped;
        let left = std::mem::take(&mut state.batches);
        drop(state);
        drop(left);
        self.room.close();
        self.work.notify_one();
        self.stop.notify_one();
    }
}
