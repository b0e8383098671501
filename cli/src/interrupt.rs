//! The word to end: Ctrl-C, or the signal with which a supervisor ends a process.
//! Invariant: the first is told to whoever waits for it, and one that comes later ends the process at once,
//! as does the first where nobody waits any more, whatever else is stuck.

use std::io;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// How long another word is the same one: supervisors tell a process, and then its group.
const SAME: Duration = Duration::from_secs(1);

/// Waits until this process is told to end. From this call on, and not from the first look at what it
/// gives, signals are caught: call it before there is anything that must not be left half done.
pub(crate) fn interrupted() -> impl Future<Output = ()> {
    let (tell, told) = oneshot::channel();
    if let Ok(mut signals) = Signals::catch() {
        // Of its own: whoever waits may be in the middle of writing to a pipe that nobody reads.
        tokio::spawn(async move {
            signals.next().await;
            let first = Instant::now();
            let mut is_awaited = tell.send(()).is_ok();
            while is_awaited {
                signals.next().await;
                is_awaited = first.elapsed() < SAME;
            }
            std::process::exit(1);
        });
    }
    async {
        // Signals that cannot be caught end the process by themselves.
        if told.await.is_err() {
            std::future::pending().await
        }
    }
}

#[cfg(unix)]
struct Signals([tokio::signal::unix::Signal; 2]);

#[cfg(unix)]
impl Signals {
    fn catch() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn catch() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        drop(tokio::signal::ctrl_c().await);
    }
}
