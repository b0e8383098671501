//! The handle: one connection that writes, some that read, and how work gets to them.
//! Invariant: nothing blocks the caller's thread; everything that touches the file runs on threads of
//! the store's own, and a write holds the writer from its first statement to its commit.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use prompt_engine_core::Result;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use tokio::task::{JoinError, spawn_blocking};

use crate::cells;
use crate::config::{SqliteConfig, Synchronous};
use crate::error::{Fault, Outcome};
use crate::schema;
use crate::terms::Terms;
use crate::threads::Threads;

/// How a file that is there is opened; one that was taken away is not made anew.
const WRITES: OpenFlags = OpenFlags::SQLITE_OPEN_READ_WRITE.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);
/// Pages of a new file: see `docs/sqlite-format.md`.
const PAGE_SIZE: i64 = 16_384;
/// The WAL is cut back to this once it is checkpointed.
const WAL_BYTES: i64 = 64 * 1024 * 1024;
/// How long nothing is folded in the background after that failed.
const FOLD_PAUSE: Duration = Duration::from_secs(30);
/// Statements kept prepared by a connection; there are about 40 and the filters of lists.
const STATEMENTS: usize = 128;
/// KiB of pages that the connection that writes keeps: what a transaction changes, and upper pages of
/// indexes.
const WRITER_CACHE: i64 = 4_096;
/// KiB of pages that a connection that reads keeps. It forgets them whenever something was written, and
/// what it reads once more is in the cache of the system.
const READER_CACHE: i64 = 512;

/// A store in one SQLite file. Cloning it clones the handle.
///
/// # Example: open, and look
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> prompt_engine_core::Result<()> {
/// use prompt_engine_core::CostStore;
/// use prompt_engine_store_sqlite::{SqliteConfig, SqliteStore};
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("prompts.db");
/// let store = SqliteStore::open(SqliteConfig::new(path)).await?;
/// assert!(store.created());
/// assert_eq!(store.price_generation().await?, 0);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SqliteStore {
    shared: Arc<Shared>,
}

struct Shared {
    config: SqliteConfig,
    created: bool,
    terms: Terms,
    writer: Threads,
    readers: Threads,
    folding: AtomicBool,
    fold_failed: Mutex<Option<Instant>>,
}

/// That one task folds in the background, until this is dropped.
struct Folding(Weak<Shared>);

impl Folding {
    fn begin(shared: &Arc<Shared>) -> Option<Self> {
        let failed = *shared.fold_failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.is_some_and(|failed| failed.elapsed() < FOLD_PAUSE)
            || shared.folding.swap(true, Ordering::AcqRel)
        {
            return None;
        }
        Some(Self(Arc::downgrade(shared)))
    }
}

impl Drop for Folding {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.folding.store(false, Ordering::Release);
        }
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens the file of `config`, and makes it where there is none.
    ///
    /// # Errors
    /// Each names the file. `Invalid` if its folder does not exist, it is a folder, or it can only
    /// be read; `Corrupt` if it is no SQLite database; `Unsupported` if a newer PromptEngine wrote
    /// it, or its file system cannot share it; `Unavailable` if it is locked for longer than the
    /// busy timeout.
    pub async fn open(config: SqliteConfig) -> Result<Self> {
        let at = config.path.clone();
        let opened = spawn_blocking(move || {
            let made = WRITES | OpenFlags::SQLITE_OPEN_CREATE;
            let (conn, created) = open_writer(&config, made)?;
            let due = cells::is_due(&conn)?;
            Ok((config, conn, created, due))
        });
        let (config, conn, created, due) =
            joined(opened.await).map_err(|fault| fault.about(&at))?;
        let (of_writer, of_readers) = (config.clone(), config.clone());
        let open_again = move || Ok(open_writer(&of_writer, WRITES)?.0);
        let open_reader = move || open_reader(&of_readers);
        let shared = Shared {
            created,
            terms: Terms::default(),
            writer: Threads::new(1, Some(conn), Box::new(open_again)),
            readers: Threads::new(config.readers, None, Box::new(open_reader)),
            folding: AtomicBool::new(false),
            fold_failed: Mutex::new(None),
            config,
        };
        let store = Self { shared: Arc::new(shared) };
        store.fold_if(due);
        Ok(store)
    }

    /// The path of `config` where no store is there: no file, an empty one, or a database that has
    /// tables of others alone. It makes nothing.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub async fn missing(config: &SqliteConfig) -> Result<Option<String>> {
        let config = config.clone();
        let path = config.path.clone();
        let found = spawn_blocking(move || {
            if !config.path.exists() {
                return Ok(false);
            }
            schema::is_there(&open_reader(&config)?)
        });
        match joined(found.await) {
            Ok(true) => Ok(None),
            Ok(false) => Ok(Some(path.display().to_string())),
            Err(fault) => Err(fault.about(&path).into()),
        }
    }

    /// Whether opening this handle made the store: there were no tables of ours before.
    pub fn created(&self) -> bool {
        self.shared.created
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.shared.config.path
    }

    /// Folds in the background while a lot of changes waits, if it does and the last time did not fail
    /// just before.
    pub(crate) fn fold_if(&self, due: bool) {
        let Some(folding) = due.then(|| Folding::begin(&self.shared)).flatten() else { return };
        tokio::spawn(async move {
            // Whoever drops the last handle ends it.
            while let Some(shared) = folding.0.upgrade() {
                let store = Self { shared };
                match store.write(|_, conn| cells::fold(conn), |_, _, folded| Ok(folded)).await {
                    Ok((_, true)) => {}
                    Ok((_, false)) => return,
                    Err(error) => {
                        // Nothing is lost: answers add what is not folded.
                        let error = error.chain();
                        tracing::warn!(
                            error,
                            "changes were not folded; `doctor --rebuild` may help"
                        );
                        let mut failed =
                            store.shared.fold_failed.lock().unwrap_or_else(PoisonError::into_inner);
                        *failed = Some(Instant::now());
                        return;
                    }
                }
            }
        });
    }

    pub(crate) fn terms(&self) -> &Terms {
        &self.shared.terms
    }

    /// Runs `work` in one write transaction, which commits if it succeeds; `then` runs after.
    pub(crate) async fn write<T, U>(
        &self,
        work: impl FnOnce(&Self, &Connection) -> Outcome<T> + Send + 'static,
        then: impl FnOnce(&Self, &Connection, T) -> Outcome<U> + Send + 'static,
    ) -> Result<U>
    where
        U: Send + 'static,
    {
        let store = self.clone();
        let done = self.shared.writer.run(move |conn| {
            let conn = &*conn;
            let deadline = Instant::now() + store.shared.config.busy_timeout;
            let transaction = begin(conn, deadline)?;
            let answer = work(&store, &transaction)?;
            transaction.commit()?;
            then(&store, conn, answer)
        });
        done.await.map_err(|fault| fault.about(self.path()).into())
    }

    /// Runs `work` in one read transaction: one snapshot.
    pub(crate) async fn read<T>(
        &self,
        work: impl FnOnce(&Self, &Connection) -> Outcome<T> + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
    {
        let store = self.clone();
        let done = self.shared.readers.ask(move |conn| {
            let transaction = conn.transaction_with_behavior(TransactionBehavior::Deferred)?;
            let answer = work(&store, &transaction);
            transaction.finish()?;
            answer
        });
        done.await.map_err(|fault| fault.about(self.path()).into())
    }
}

fn joined<T>(done: std::result::Result<Outcome<T>, JoinError>) -> Outcome<T> {
    match done {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => Err(Fault::Panicked),
        Err(_) => Err(Fault::Cancelled),
    }
}

/// Begins a write transaction, waiting for another writer until `deadline`.
pub(crate) fn begin(conn: &Connection, deadline: Instant) -> Outcome<Transaction<'_>> {
    // The driver waits too, but not where waiting could be a deadlock. No connection of ours is
    // inside a transaction when it gets here: each is used by one task at a time.
    retry(deadline, || Ok(Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?))
}

/// Does `work` again while it finds the file locked, until `deadline`.
fn retry<T>(deadline: Instant, mut work: impl FnMut() -> Outcome<T>) -> Outcome<T> {
    let mut pause = Duration::from_millis(1);
    loop {
        match work() {
            Err(fault) if fault.is_busy() && Instant::now() < deadline => {
                thread::sleep(pause);
                pause = (2 * pause).min(Duration::from_millis(50));
            }
            other => return other,
        }
    }
}

/// Opens the connection that writes; tells whether there were no tables of ours.
fn open_writer(config: &SqliteConfig, flags: OpenFlags) -> Outcome<(Connection, bool)> {
    let path = &config.path;
    if let Some(folder) = path.parent().filter(|folder| *folder != Path::new(""))
        && !folder.is_dir()
    {
        return Err(Fault::NoFolder(PathBuf::from(folder)));
    }
    if path.is_dir() {
        return Err(Fault::Folder);
    }
    let deadline = Instant::now() + config.busy_timeout;
    let conn = Connection::open_with_flags(path, flags)?;
    if conn.is_readonly("main")? {
        return Err(Fault::ReadOnly);
    }
    conn.busy_timeout(config.busy_timeout)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    let pages: i64 =
        retry(deadline, || Ok(conn.pragma_query_value(None, "page_count", |row| row.get(0))?))?;
    if pages == 0 {
        conn.pragma_update(None, "page_size", PAGE_SIZE)?;
        conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    // Two that switch a new file at once would wait for each other; one is told `busy` at once.
    let mode: String = retry(deadline, || {
        Ok(conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?)
    })?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(Fault::NoWal(mode));
    }
    conn.pragma_update(None, "journal_size_limit", WAL_BYTES)?;
    let synchronous = match config.synchronous {
        Synchronous::Normal => "NORMAL",
        Synchronous::Full => "FULL",
    };
    conn.pragma_update(None, "synchronous", synchronous)?;
    conn.pragma_update(None, "foreign_keys", true)?;
    conn.pragma_update(None, "cache_size", -WRITER_CACHE)?;
    let created = schema::migrate(&conn, deadline)?;
    Ok((conn, created))
}

/// Opens a connection that reads.
fn open_reader(config: &SqliteConfig) -> Outcome<Connection> {
    let conn = Connection::open_with_flags(&config.path, WRITES)?;
    conn.busy_timeout(config.busy_timeout)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    conn.pragma_update(None, "query_only", true)?;
    conn.pragma_update(None, "cache_size", -READER_CACHE)?;
    Ok(conn)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use prompt_engine_core::{CostStore, ErrorKind};

    use super::*;

    #[tokio::test]
    async fn a_file_that_was_taken_away_is_not_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prompts.db");
        let store = SqliteStore::open(SqliteConfig::new(&path)).await.unwrap();
        // A connection that is left in a transaction is closed, and the next job opens another.
        let leave = |_: &SqliteStore, conn: &Connection, ()| Ok(conn.execute_batch("BEGIN")?);
        store.write(|_, _| Ok(()), leave).await.unwrap();
        store.put_cost_configs(&[], 0).await.unwrap();
        store.write(|_, _| Ok(()), leave).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        let error = store.put_cost_configs(&[], 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
        assert!(error.to_string().contains("cannot be opened"), "{error}");
        assert!(!path.exists());
    }
}
