//! The word to end: Ctrl-C, or the signal with which a supervisor ends a process.
//! Invariant: the first is told to whoever waits for it, and the next ends the process at once, as does
//! the first where nobody waits any more, whatever else is stuck.

use std::io;

use tokio::sync::oneshot;

/// Waits until this process is told to end.
pub(crate) async fn interrupted() {
    let (tell, told) = oneshot::channel();
    // Of its own, since whoever waits may be in the middle of writing to a pipe that nobody reads.
    tokio::spawn(async move {
        let Ok(mut signals) = Signals::catch() else { return };
        signals.next().await;
        if tell.send(()).is_ok() {
            signals.next().await;
        }
        std::process::exit(1);
    });
    // Where signals cannot be caught, they end the process by themselves.
    if told.await.is_err() {
        std::future::pending().await
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
