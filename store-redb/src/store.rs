//! The handle: the open database, its one writer, and how work gets to it.
//! Invariants: nothing blocks the caller's thread; everything that touches the file runs in
//! `spawn_blocking`. A database that failed to write is dropped and opened again, for it will do
//! nothing more, and a disk that was full may have room later. The last handle that is dropped
//! closes the file, whatever still goes on in the background, for one at a time may have it open.

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use prompt_engine_core::cube::cell_of;
use prompt_engine_core::{BucketWidth, Folded, Result};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, WriteTransaction};
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::{JoinError, spawn_blocking};

use crate::cells::{self, Fold};
use crate::config::RedbConfig;
use crate::error::{Fault, Outcome};
use crate::layout::{
    CELL_DURATIONS, CELLS, CHANGES, EXECUTIONS, FORMAT, META, PAST_COSTS, PAYLOAD_PACKS, PRICES,
    PROMPT_SLUGS, PROMPT_VERSIONS, PROMPTS, TERMS, USAGES, WITHOUT_CELLS, WITHOUT_PACKS, moment,
    number_of, number_value,
};
use crate::prune::RAW_HORIZON;
use crate::terms::{NewTerms, TermReader, TermWriter, Terms};

/// Where the version of the format is kept.
const FORMAT_NAME: &str = "format";

/// How a database is opened: a file, but for tests of disks that fail.
type Open = Box<dyn Fn() -> Outcome<Database> + Send + Sync>;

/// A store in one redb file. Cloning it clones the handle.
///
/// # Example: open, and look
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> prompt_engine_core::Result<()> {
/// use prompt_engine_core::CostStore;
/// use prompt_engine_store_redb::{RedbConfig, RedbStore};
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("prompts.redb");
/// let store = RedbStore::open(RedbConfig::new(&path)).await?;
/// assert!(store.created());
/// assert_eq!(store.price_generation().await?, 0);
/// assert!(RedbStore::open(RedbConfig::new(path)).await.is_err(), "it is open");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedbStore {
    handle: Arc<Handle>,
}

/// What the clones of a store share; what works in the background has none.
struct Handle {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    open: Open,
    created: bool,
    terms: Terms,
    writer: Arc<AsyncMutex<()>>,
    /// Whose turn it is to change cells; taken before the writer.
    cells: Arc<AsyncMutex<()>>,
    folding: AtomicBool,
    closed: AtomicBool,
    /// `None` after a failure, until the next use opens it again, and once it is closed.
    database: RwLock<Option<Database>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        // Waits for whoever is at it: a fold, or a call that was not waited for.
        self.shared.database.write().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl RedbStore {
    /// Opens the file of `config`, and makes it where there is none.
    ///
    /// # Errors
    /// Each names the file. `Invalid` if its folder does not exist, it is a folder, or it can only
    /// be read; `Unavailable` if it is already open; `Corrupt` if it is no redb database, or damaged;
    /// `Unsupported` if a newer PromptEngine wrote it.
    pub async fn open(config: RedbConfig) -> Result<Self> {
        let RedbConfig { path, cache_bytes } = config;
        let file = path.clone();
        Self::open_by(path, Box::new(move || open_file(&file, cache_bytes))).await
    }

    /// Opens a store whose database `open` opens.
    pub(crate) async fn open_by(path: PathBuf, open: Open) -> Result<Self> {
        let at = path.clone();
        let opened = spawn_blocking(move || {
            let terms = Terms::default();
            let (database, created) = prepare(open()?, &terms)?;
            let waits = cells::waits(&database.begin_read()?)?;
            let shared = Shared {
                path,
                open,
                created,
                terms,
                writer: Arc::default(),
                cells: Arc::default(),
                folding: AtomicBool::new(false),
                closed: AtomicBool::new(false),
                database: RwLock::new(Some(database)),
            };
            Ok((shared, waits))
        });
        let (shared, waits) = joined(opened.await).map_err(|fault| fault.about(&at))?;
        let store = Self { handle: Arc::new(Handle { shared: Arc::new(shared) }) };
        store.fold_if(waits);
        Ok(store)
    }

    /// Whether opening this handle made the store: there were no tables of ours before.
    pub fn created(&self) -> bool {
        self.handle.shared.created
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.handle.shared.path
    }

    /// Folds in the background while a lot of changes waits, if it does.
    pub(crate) fn fold_if(&self, due: bool) {
        let shared = &self.handle.shared;
        if !due || shared.folding.swap(true, Ordering::AcqRel) {
            return;
        }
        let folding = Folding(Arc::clone(shared));
        tokio::spawn(async move {
            let shared = &folding.0;
            let failed = loop {
                match shared.fold().await {
                    Ok((_, true)) => {}
                    Ok((_, false)) => break None,
                    Err(error) => break Some(error),
                }
            };
            if let Some(error) = failed.filter(|_| !shared.closed.load(Ordering::Acquire)) {
                // Nothing is lost: answers add what is not folded, and the next append tries again.
                tracing::warn!(error = error.chain(), "changes were not folded");
            }
        });
    }

    /// Folds the oldest changes.
    pub(crate) async fn fold_once(&self) -> Result<Folded> {
        Ok(self.handle.shared.fold().await?.0)
    }

    pub(crate) async fn compact_file(&self) -> Result<()> {
        self.handle.shared.compact().await
    }

    /// Runs `work`, which makes cells anew, as [`RedbStore::write_records`] does.
    pub(crate) async fn rebuild_cells<T: Send + 'static>(
        &self,
        work: impl FnOnce(&WriteTransaction, &mut TermWriter<'_, '_>) -> Outcome<T> + Send + 'static,
    ) -> Result<T> {
        let turn = Arc::clone(&self.handle.shared.cells).lock_owned().await;
        let (answer, _) =
            self.write_records(move |txn, terms| Ok((work(txn, terms)?, turn))).await?;
        Ok(answer)
    }

    /// Runs `work` in one write transaction, which commits if it succeeds.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Outcome<T> + Send + 'static,
    ) -> Result<T> {
        self.handle.shared.write(work).await
    }

    /// Runs `work` in one write transaction, which commits if it succeeds, and then remembers the
    /// terms that it added.
    pub(crate) async fn write_records<T: Send + 'static>(
        &self,
        work: impl FnOnce(&WriteTransaction, &mut TermWriter<'_, '_>) -> Outcome<T> + Send + 'static,
    ) -> Result<T> {
        let shared = &self.handle.shared;
        let permit = Arc::clone(&shared.writer).lock_owned().await;
        let write = move |shared: &Shared| {
            let _permit = permit;
            shared.with_database(|database| {
                let transaction = begin(database)?;
                let (answer, new) = with_terms(&transaction, &shared.terms, work)?;
                transaction.commit()?;
                shared.terms.remember(new);
                Ok(answer)
            })
        };
        shared.run(write).await
    }

    /// Runs `work` in one read transaction: one snapshot.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ReadTransaction, TermReader<'_>) -> Outcome<T> + Send + 'static,
    ) -> Result<T> {
        let read = move |shared: &Shared| {
            shared.with_database(|database| {
                let transaction = database.begin_read()?;
                work(&transaction, TermReader::new(&shared.terms, &transaction))
            })
        };
        self.handle.shared.run(read).await
    }
}

/// That a fold goes on; it ends however its task ends.
struct Folding(Arc<Shared>);

impl Drop for Folding {
    fn drop(&mut self) {
        self.0.folding.store(false, Ordering::Release);
    }
}

impl Shared {
    /// Folds the oldest changes; answers whether it is time for another fold.
    async fn fold(self: &Arc<Self>) -> Result<(Folded, bool)> {
        // The turn goes along with the work, and ends after its commit, also where nobody waits for
        // that any more.
        let turn = Arc::clone(&self.cells).lock_owned().await;
        let next = move |shared: &Self| {
            shared.with_database(|database| Ok((Fold::next(&database.begin_read()?)?, turn)))
        };
        let (Some(fold), turn) = self.run(next).await? else { return Ok(Default::default()) };
        let (answer, _) = self.write(move |txn| Ok((fold.write(txn)?, turn))).await?;
        Ok(answer)
    }

    /// Runs `work` in one write transaction, which commits if it succeeds.
    async fn write<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&WriteTransaction) -> Outcome<T> + Send + 'static,
    ) -> Result<T> {
        let permit = Arc::clone(&self.writer).lock_owned().await;
        let write = move |shared: &Self| {
            let _permit = permit;
            shared.with_database(|database| {
                let transaction = begin(database)?;
                let answer = work(&transaction)?;
                transaction.commit()?;
                Ok(answer)
            })
        };
        self.run(write).await
    }

    /// Moves what is stored to the front of the file and cuts off the rest. All others wait.
    async fn compact(self: &Arc<Self>) -> Result<()> {
        let permit = Arc::clone(&self.writer).lock_owned().await;
        let compact = move |shared: &Self| {
            let _permit = permit;
            shared.with_database(|_| Ok(()))?;
            let mut slot = shared.database.write().unwrap_or_else(PoisonError::into_inner);
            let Some(database) = slot.as_mut() else { return Err(Fault::Cancelled) };
            let outcome = database.compact().map(drop).map_err(Fault::from);
            if outcome.as_ref().is_err_and(Fault::is_final) {
                slot.take();
            }
            outcome
        };
        self.run(compact).await
    }

    /// Runs `work` off the caller's thread.
    async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Outcome<T> + Send + 'static,
    ) -> Result<T> {
        let shared = Arc::clone(self);
        let done = spawn_blocking(move || work(&shared)).await;
        joined(done).map_err(|fault| fault.about(&self.path).into())
    }

    /// Does `work` with the open database, which is opened first where it had failed.
    fn with_database<T>(&self, work: impl FnOnce(&Database) -> Outcome<T>) -> Outcome<T> {
        let mut slot = self.database.read().unwrap_or_else(PoisonError::into_inner);
        while slot.is_none() {
            drop(slot);
            let mut empty = self.database.write().unwrap_or_else(PoisonError::into_inner);
            if self.closed.load(Ordering::Acquire) {
                return Err(Fault::Cancelled);
            }
            if empty.is_none() {
                let (database, _) = prepare((self.open)()?, &self.terms)?;
                *empty = Some(database);
            }
            drop(empty);
            slot = self.database.read().unwrap_or_else(PoisonError::into_inner);
        }
        let Some(database) = &*slot else { return Err(Fault::Cancelled) };
        let outcome = work(database);
        drop(slot);
        if outcome.as_ref().is_err_and(Fault::is_final) {
            self.database.write().unwrap_or_else(PoisonError::into_inner).take();
        }
        outcome
    }
}

fn joined<T>(done: std::result::Result<Outcome<T>, JoinError>) -> Outcome<T> {
    match done {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => Err(Fault::Panicked),
        Err(_) => Err(Fault::Cancelled),
    }
}

fn begin(database: &Database) -> Outcome<WriteTransaction> {
    let mut transaction = database.begin_write()?;
    // A file that was not closed is opened at once, whatever its size, instead of being read whole.
    transaction.set_quick_repair(true);
    Ok(transaction)
}

fn with_terms<T>(
    transaction: &WriteTransaction,
    terms: &Terms,
    work: impl FnOnce(&WriteTransaction, &mut TermWriter<'_, '_>) -> Outcome<T>,
) -> Outcome<(T, NewTerms)> {
    let mut terms = TermWriter::new(terms, transaction.open_table(TERMS)?);
    let answer = work(transaction, &mut terms)?;
    Ok((answer, terms.finish()))
}

fn open_file(path: &Path, cache_bytes: usize) -> Outcome<Database> {
    if let Some(folder) = path.parent().filter(|folder| *folder != Path::new(""))
        && !folder.is_dir()
    {
        return Err(Fault::NoFolder(PathBuf::from(folder)));
    }
    if path.is_dir() {
        return Err(Fault::Folder);
    }
    Ok(Database::builder().set_cache_size(cache_bytes).create(path)?)
}

/// Makes the tables where there are none, checks the version, brings an older file up to date, and
/// reads the terms; tells whether there were no tables.
fn prepare(database: Database, terms: &Terms) -> Outcome<(Database, bool)> {
    let found = format(&database)?;
    match found {
        None => make_tables(&database)?,
        Some(FORMAT) => {}
        Some(older @ (WITHOUT_CELLS | WITHOUT_PACKS)) => {
            terms.load(&database.begin_read()?)?;
            bring_up(&database, terms, older)?;
        }
        Some(found) => return Err(Fault::NewerFormat { found, known: FORMAT }),
    }
    terms.load(&database.begin_read()?)?;
    Ok((database, found.is_none()))
}

/// The version of the format; `None` if there are no tables of ours.
fn format(database: &Database) -> Outcome<Option<i64>> {
    match database.begin_read()?.open_table(META) {
        Ok(meta) => meta.get(FORMAT_NAME)?.map(|value| number_of(value.value())).transpose(),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn make_tables(database: &Database) -> Outcome<()> {
    let transaction = begin(database)?;
    for kind in [USAGES, EXECUTIONS] {
        transaction.open_table(kind.rows)?;
        transaction.open_table(kind.ids)?;
        transaction.open_table(kind.index)?;
        transaction.open_table(kind.payloads)?;
    }
    transaction.open_table(TERMS)?;
    transaction.open_table(PAST_COSTS)?;
    transaction.open_table(PROMPTS)?;
    transaction.open_table(PROMPT_SLUGS)?;
    transaction.open_table(PROMPT_VERSIONS)?;
    transaction.open_table(PRICES)?;
    transaction.open_table(PAYLOAD_PACKS)?;
    make_cell_tables(&transaction)?;
    set_meta(&transaction, FORMAT_NAME, FORMAT)?;
    transaction.commit()?;
    Ok(())
}

fn make_cell_tables(transaction: &WriteTransaction) -> Outcome<()> {
    transaction.open_table(CHANGES)?;
    transaction.open_table(CELLS)?;
    transaction.open_table(CELL_DURATIONS)?;
    Ok(())
}

/// Brings a file of the format `older` to this one.
fn bring_up(database: &Database, terms: &Terms, older: i64) -> Outcome<()> {
    let transaction = begin(database)?;
    if older == WITHOUT_CELLS {
        add_cells(&transaction, terms)?;
    }
    // What was stored before lies alone, and stays so.
    transaction.open_table(PAYLOAD_PACKS)?;
    set_meta(&transaction, FORMAT_NAME, FORMAT)?;
    transaction.commit()?;
    Ok(())
}

/// Gives a file that had no cells the changes that they are made from. Its raw horizon moves to the end
/// of its quarter of an hour, since what is left of that quarter is in the cells alone.
fn add_cells(transaction: &WriteTransaction, terms: &Terms) -> Outcome<()> {
    make_cell_tables(transaction)?;
    let horizon = meta(&transaction.open_table(META)?, RAW_HORIZON)?;
    if let Some(horizon) = horizon {
        let quarter = cell_of(BucketWidth::QuarterHour, moment(horizon)?);
        let whole = if quarter.from == horizon { horizon } else { quarter.to };
        set_meta(transaction, RAW_HORIZON, whole)?;
    }
    with_terms(transaction, terms, |transaction, terms| cells::start(transaction, terms))?;
    Ok(())
}

/// The number kept under `name`.
pub(crate) fn meta(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &str,
) -> Outcome<Option<i64>> {
    table.get(name)?.map(|value| number_of(value.value())).transpose()
}

/// Keeps `value` under `name`.
pub(crate) fn set_meta(transaction: &WriteTransaction, name: &str, value: i64) -> Outcome<()> {
    transaction.open_table(META)?.insert(name, &number_value(value)[..])?;
    Ok(())
}
