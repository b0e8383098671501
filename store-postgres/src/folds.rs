//! When changes are folded: in the background, by a process that sees that a lot of them waits.
//! Invariants: appends never touch cells; a fold that fails fails no append. What waits is some lots at
//! most, however many processes append, since who finds too much of it waits for a fold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prompt_engine_core::cube::LOT_CHANGES;
use prompt_engine_core::{Folded, Result};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::cells;
use crate::store::{Hold, PostgresStore, Repeat};

/// A process that kept so many changes since it last looked what waits looks again: the others keep
/// some, too.
const LOOK: u64 = LOT_CHANGES / 16;
/// An append that finds so many waiting waits for a fold, so that many who append leave it its turn …
const MANY: u64 = 2 * LOT_CHANGES;
/// … but for no more than this …
const PATIENCE: Duration = Duration::from_secs(1);
/// … and not for what a migration or an outage left, which takes many folds anyway.
const BACKLOG: u64 = 16 * LOT_CHANGES;

/// What a process knows about the changes that wait.
#[derive(Debug)]
pub(crate) struct Folds {
    /// Changes that it kept since it last looked.
    unseen: AtomicU64,
    /// Held by the task that folds in the background.
    turn: Arc<Mutex<()>>,
}

impl Default for Folds {
    fn default() -> Self {
        // A process that begins looks at once.
        Self { unseen: AtomicU64::new(LOOK), turn: Arc::default() }
    }
}

impl Folds {
    /// Whether a transaction that keeps about so many changes should look how many wait.
    pub(crate) fn is_time_to_look(&self, changes: usize) -> bool {
        let changes = u64::try_from(changes).unwrap_or(u64::MAX);
        self.unseen.load(Ordering::Relaxed).saturating_add(changes) >= LOOK
    }
}

impl PostgresStore {
    /// Says that changes were kept, and how many waited before, if that was looked for. Begins to fold
    /// where a lot waits.
    pub(crate) async fn kept(&self, changes: u64, waiting: Option<u64>) {
        let folds = self.folds();
        let Some(waiting) = waiting else {
            folds.unseen.fetch_add(changes, Ordering::Relaxed);
            return;
        };
        folds.unseen.store(0, Ordering::Relaxed);
        let waiting = waiting.saturating_add(changes);
        if waiting < LOT_CHANGES {
            return;
        }
        self.fold_in_background(waiting >= MANY);
        if (MANY..BACKLOG).contains(&waiting) {
            // Whether it is done or not: what was appended is stored.
            let _ = timeout(PATIENCE, folds.turn.lock()).await;
        }
    }

    /// Folds until less than a lot waits. Where another process folds, it does so, too, or is waited
    /// for if there is `much`.
    fn fold_in_background(&self, much: bool) {
        let Ok(turn) = Arc::clone(&self.folds().turn).try_lock_owned() else { return };
        let store = self.clone();
        tokio::spawn(async move {
            let _turn = turn;
            let hold = if much { Hold::Fold } else { Hold::TryFold };
            loop {
                match store.fold_holding(hold).await {
                    Ok(Some((_, LOT_CHANGES..))) => {}
                    Ok(_) => return,
                    Err(error) => {
                        // Nothing is lost: answers add what is not folded, and a later append tries
                        // again.
                        tracing::warn!(error = error.chain(), "changes were not folded");
                        return;
                    }
                }
            }
        });
    }

    /// Folds once; answers how many changes wait still, too. `None` where it found somebody folding
    /// and did not wait.
    pub(crate) async fn fold_holding(&self, hold: Hold) -> Result<Option<(Folded, u64)>> {
        let lock = (hold == Hold::TryFold).then(|| self.lock_of_folds());
        // What was folded is gone, so that a second time folds what is left.
        self.write(hold, Repeat::Always, |mut conn| async move {
            let done = async {
                if let Some(lock) = lock
                    && !lock.try_alone(&mut conn).await?
                {
                    return Ok(None);
                }
                cells::fold(&mut conn).await.map(Some)
            };
            let done = done.await;
            (conn, done)
        })
        .await
    }
}
