//! The word to end: Ctrl-C, or the signal with which a supervisor ends a process.

/// Waits until this process is told to end; from then on the signal no longer ends it by itself.
pub(crate) async fn interrupted() {
    let told = async {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                ctrl_c = tokio::signal::ctrl_c() => ctrl_c,
                _ = terminate.recv() => Ok(()),
            }
        }
        #[cfg(not(unix))]
        tokio::signal::ctrl_c().await
    };
    if told.await.is_err() {
        // Without a handler the signal ends the process by itself.
        std::future::pending::<()>().await;
    }
}
