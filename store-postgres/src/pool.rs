//! Connections: how many, how old, and which are worth a try.
//! Invariant: what comes back is clean, outside of any transaction and read to its end. A lease that
//! is dropped before that, as when its caller gives up, closes its connection.
//!
//! The driver's own pool would do but for three things: a server that cannot be reached is to it a
//! timeout without a cause, it asks the server on every return, and a connection that was given up
//! in the middle goes back into it. None of it has a `Debug`: the driver's options show the password.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::error::{Fault, Outcome};

/// A connection that nobody used for this long may be dead: it is asked first.
const DOUBTFUL: Duration = Duration::from_secs(1);
/// How long it may take to answer.
const ANSWERS: Duration = Duration::from_secs(1);
/// A connection that nobody used for this long is closed, so that a quiet process holds few.
const IDLE: Duration = Duration::from_secs(10 * 60);
/// A connection of this age is closed, so that the server it leads to may be replaced.
const OLD: Duration = Duration::from_secs(30 * 60);

pub(crate) struct Pool {
    options: PgConnectOptions,
    max_connections: u32,
    wait: Duration,
    permits: Arc<Semaphore>,
    state: Mutex<State>,
}

struct State {
    /// The one used last is at the end, and is used next.
    idle: Vec<Idle>,
    /// When a connection was last found dead: those that were idle then may be, too.
    lost_at: Option<Instant>,
}

struct Idle {
    conn: PgConnection,
    made_at: Instant,
    since: Instant,
}

/// A connection, until it is dropped.
pub(crate) struct Lease {
    conn: Option<PgConnection>,
    made_at: Instant,
    clean: bool,
    pool: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(crate) fn new(options: PgConnectOptions, max_connections: u32, wait: Duration) -> Self {
        let max_connections = max_connections.max(1);
        let permits = usize::try_from(max_connections).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            options,
            max_connections,
            wait,
            permits: Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))),
            state: Mutex::new(State { idle: Vec::new(), lost_at: None }),
        }
    }

    /// Nothing is left half changed under the lock, so a poisoned one is a good one.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers that a connection was found dead.
    pub(crate) fn lost(&self) {
        self.state().lost_at = Some(Instant::now());
    }

    /// A connection that works, as far as can be told.
    pub(crate) async fn acquire(self: &Arc<Self>) -> Outcome<Lease> {
        let deadline = Instant::now() + self.wait;
        let permit = timeout_at(deadline, Arc::clone(&self.permits).acquire_owned())
            .await
            .map_err(|_| Fault::Busy { connections: self.max_connections, waited: self.wait })?
            .map_err(|_| Fault::Cancelled)?;
        let lease = |conn, made_at| Lease {
            conn: Some(conn),
            made_at,
            clean: false,
            pool: Arc::clone(self),
            _permit: permit,
        };
        while let Some((mut idle, doubtful)) = self.pop() {
            if !doubtful || matches!(timeout(ANSWERS, idle.conn.ping()).await, Ok(Ok(()))) {
                return Ok(lease(idle.conn, idle.made_at));
            }
            // The others are likely dead, too, and to ask each could take long.
            self.state().idle.clear();
        }
        Ok(lease(self.connect(deadline, true).await?, Instant::now()))
    }

    /// An idle connection, and whether to ask it before it is used.
    fn pop(&self) -> Option<(Idle, bool)> {
        let mut state = self.state();
        let now = Instant::now();
        state.idle.retain(|idle| now - idle.since < IDLE && now - idle.made_at < OLD);
        let idle = state.idle.pop()?;
        let lost = state.lost_at.is_some_and(|lost_at| idle.since <= lost_at);
        let doubtful = lost || now - idle.since > DOUBTFUL;
        Some((idle, doubtful))
    }

    /// A new connection. A server that `was_there`, or that says it is not ready yet, is tried
    /// again until `deadline`, since a restart takes seconds; what it said last is the error.
    pub(crate) async fn connect(
        &self,
        deadline: Instant,
        was_there: bool,
    ) -> Outcome<PgConnection> {
        let mut pause = Duration::from_millis(10);
        let mut last = Fault::Silent(self.wait);
        loop {
            let fault = match timeout_at(deadline, self.options.connect()).await {
                Ok(Ok(conn)) => return Ok(conn),
                Ok(Err(error)) => Fault::from(error),
                Err(_) => return Err(last),
            };
            let next = Instant::now() + pause;
            if !fault.is_passing(was_there) || next >= deadline {
                return Err(fault);
            }
            last = fault;
            sleep_until(next).await;
            pause = (2 * pause).min(Duration::from_millis(500));
        }
    }

    /// Takes a connection that was made elsewhere, and is clean.
    pub(crate) fn adopt(&self, conn: PgConnection) {
        let now = Instant::now();
        self.state().idle.push(Idle { conn, made_at: now, since: now });
    }

    /// The moment until which a connection that is asked for now is waited for.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.wait
    }
}

impl Lease {
    /// Says that the connection is outside of any transaction and read to its end.
    pub(crate) fn mark_clean(&mut self) {
        self.clean = true;
    }
}

impl Deref for Lease {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.conn.as_ref().expect("a lease has its connection until it is dropped")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.clean = false;
        self.conn.as_mut().expect("a lease has its connection until it is dropped")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let (true, Some(conn)) = (self.clean, self.conn.take()) {
            let idle = Idle { conn, made_at: self.made_at, since: Instant::now() };
            self.pool.state().idle.push(idle);
        }
    }
}
