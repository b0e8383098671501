//! Threads of a store's own that work on its file, each with a connection that stays with it.
//! A runtime starts as many blocking threads as there are jobs at once, and the allocator keeps
//! memory for each of them; these are few, and keep one kind of work each.
//! Invariant: a job has a connection for itself, and every job that was given is done.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::error::{Fault, Outcome};

type Job = Box<dyn FnOnce(Outcome<&mut Connection>) + Send>;
type Open = Box<dyn Fn() -> Outcome<Connection> + Send + Sync>;

/// Threads that are started as they are needed, up to a number.
pub(crate) struct Threads {
    shared: Arc<Shared>,
    most: usize,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    open: Open,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// For the first thread.
    opened: Option<Connection>,
    threads: usize,
    /// Threads that wait for a job, or were just woken for one.
    idle: usize,
    closed: bool,
}

impl Shared {
    /// No step under the lock leaves the state half changed, so a poisoned lock is a good one.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does jobs until there are no more and none will come.
    fn work(&self) {
        let mut conn = self.state().opened.take();
        while let Some(job) = self.next() {
            match &mut conn {
                Some(conn) => job(Ok(conn)),
                None => match (self.open)() {
                    Ok(opened) => job(Ok(conn.insert(opened))),
                    Err(fault) => job(Err(fault)),
                },
            }
            // One that a job left in a transaction is no good for the next.
            conn = conn.filter(Connection::is_autocommit);
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.state();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

impl Threads {
    /// Up to `most` threads, whose connections `open` opens; the first has `opened`, where there is one.
    pub(crate) fn new(most: usize, opened: Option<Connection>, open: Open) -> Self {
        let state = Mutex::new(State { opened, ..State::default() });
        let shared = Arc::new(Shared { state, work: Condvar::new(), open });
        Self { shared, most: most.max(1), handles: Mutex::default() }
    }

    /// Does `work` with a connection. Where nobody waits for it any more, it is done all the same.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Outcome<T> + Send + 'static,
    ) -> Outcome<T> {
        let (sender, done) = oneshot::channel();
        self.give(Box::new(move |conn| answer(sender, conn, work)));
        done.await.unwrap_or(Err(Fault::Cancelled))
    }

    /// Does `work` with a connection, unless nobody waits for it any more when its turn comes.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Outcome<T> + Send + 'static,
    ) -> Outcome<T> {
        let (sender, done) = oneshot::channel();
        self.give(Box::new(move |conn| {
            if !sender.is_closed() {
                answer(sender, conn, work);
            }
        }));
        done.await.unwrap_or(Err(Fault::Cancelled))
    }

    fn give(&self, job: Job) {
        let mut state = self.shared.state();
        state.jobs.push_back(job);
        if state.jobs.len() <= state.idle || state.threads == self.most {
            drop(state);
            self.shared.work.notify_one();
            return;
        }
        state.threads += 1;
        drop(state);
        let shared = Arc::clone(&self.shared);
        let started = thread::Builder::new()
            .name("prompt-engine-sqlite".to_owned())
            .spawn(move || shared.work());
        match started {
            Ok(handle) => {
                self.handles.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
            }
            Err(error) => self.miss_one(&error),
        }
    }

    /// A thread could not be started: the others do its jobs, or nobody does.
    fn miss_one(&self, error: &std::io::Error) {
        tracing::warn!(%error, "a thread of the SQLite store could not be started");
        let mut state = self.shared.state();
        state.threads -= 1;
        if state.threads == 0 {
            let jobs = std::mem::take(&mut state.jobs);
            drop(state);
            drop(jobs);
        }
    }
}

/// Tells what `work` answers.
fn answer<T>(
    sender: oneshot::Sender<Outcome<T>>,
    conn: Outcome<&mut Connection>,
    work: impl FnOnce(&mut Connection) -> Outcome<T>,
) {
    let answer = catch_unwind(AssertUnwindSafe(|| work(conn?)));
    // Nobody may wait for it any more.
    let _ = sender.send(answer.unwrap_or(Err(Fault::Panicked)));
}

impl Drop for Threads {
    /// Waits for the threads, so that the file is closed once its store is gone.
    fn drop(&mut self) {
        self.shared.state().closed = true;
        self.shared.work.notify_all();
        let handles = self.handles.get_mut().unwrap_or_else(PoisonError::into_inner);
        for handle in handles.drain(..) {
            // A job may have been the last to hold the store; its thread ends after it.
            if handle.thread().id() != thread::current().id() {
                let _ = handle.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn threads(most: usize) -> Threads {
        Threads::new(most, None, Box::new(|| Ok(Connection::open_in_memory()?)))
    }

    #[tokio::test]
    async fn a_job_that_panics_or_leaves_a_transaction_open_harms_no_other() {
        let threads = threads(1);
        let panicked = threads.run(|_| -> Outcome<()> { panic!("on purpose") }).await;
        assert!(matches!(panicked, Err(Fault::Panicked)));
        threads.run(|conn| Ok(conn.execute_batch("BEGIN")?)).await.expect("a transaction");
        assert!(threads.run(|conn| Ok(conn.is_autocommit())).await.expect("an answer"));
    }

    #[tokio::test]
    async fn jobs_at_once_have_a_thread_each_up_to_the_most() {
        let threads = threads(2);
        let both = Arc::new(Barrier::new(2));
        let meet = || {
            let both = Arc::clone(&both);
            threads.run(move |_| Ok(both.wait().is_leader()))
        };
        for _ in 0..100 {
            // On one thread they would wait for each other without end.
            let (first, second, third, fourth) = tokio::join!(meet(), meet(), meet(), meet());
            let leaders = [first, second, third, fourth].map(|one| one.expect("an answer"));
            assert_eq!(leaders.iter().filter(|leader| **leader).count(), 2);
        }
        assert_eq!(threads.handles.lock().expect("no panic").len(), 2);
    }

    /// Whether `work` is not done when it is polled once.
    async fn is_pending(work: &mut (impl Future + Unpin)) -> bool {
        tokio::select! {
            biased;
            _ = work => false,
            () = std::future::ready(()) => true,
        }
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_done_and_not_asked() {
        let threads = threads(1);
        let (go, gate) = std::sync::mpsc::channel::<()>();
        let mut busy = Box::pin(threads.run(move |_| Ok(gate.recv().is_ok())));
        assert!(is_pending(&mut busy).await);
        let done = Arc::new(AtomicUsize::new(0));
        let count = |by: usize| {
            let done = Arc::clone(&done);
            move |_: &mut Connection| Ok(done.fetch_add(by, Ordering::Relaxed))
        };
        let (mut run, mut ask) =
            (Box::pin(threads.run(count(1))), Box::pin(threads.ask(count(10))));
        assert!(is_pending(&mut run).await && is_pending(&mut ask).await);
        drop((run, ask));
        go.send(()).expect("somebody waits");
        assert!(busy.await.expect("an answer"));
        threads.run(count(100)).await.expect("an answer");
        assert_eq!(done.load(Ordering::Relaxed), 101);
    }

    #[test]
    fn all_jobs_are_done_before_the_threads_are_gone() {
        let threads = threads(2);
        let done = Arc::new(AtomicUsize::new(0));
        for _ in 0..100 {
            let done = Arc::clone(&done);
            threads.give(Box::new(move |_| {
                done.fetch_add(1, Ordering::Relaxed);
            }));
        }
        drop(threads);
        assert_eq!(done.load(Ordering::Relaxed), 100);
    }
}
