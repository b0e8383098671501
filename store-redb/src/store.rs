//! The handle: the open database, its one writer, and how work gets to it.
//! Invariants: nothing blocks the caller's thread; everything that touches the file runs in
//! `spawn_blocking`. A database that failed to write is dropped and opened again, for it will do
//! nothing more, and a disk that was full may have room later.

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use prompt_engine_core::Result;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, WriteTransaction};
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::{JoinError, spawn_blocking};

use crate::config::RedbConfig;
use crate::error::{Fault, Outcome};
use crate::layout::{
    EXECUTIONS, META, PAST_COSTS, PRICES, PROMPT_SLUGS, PROMPT_VERSIONS, PROMPTS, TERMS, USAGES,
    VERSION, number_of, number_value,
};
use crate::terms::{NewTerms, TermReader, TermWriter, Terms};

/// Where the version of the format is kept.
const FORMAT: &str = "format";

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
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    open: Open,
    created: bool,
    terms: Terms,
    writer: Arc<AsyncMutex<()>>,
    /// `None` after a failure, until the next use opens it again.
    database: RwLock<Option<Database>>,
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
            let database = RwLock::new(Some(database));
            Ok(Shared { path, open, created, terms, writer: Arc::default(), database })
        });
        let shared = joined(opened.await).map_err(|fault| fault.about(&at))?;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Whether opening this handle made the store: there were no tables of ours before.
    pub fn created(&self) -> bool {
        self.shared.created
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Runs `work` in one write transaction, which commits if it succeeds.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Outcome<T> + Send + 'static,
    ) -> Result<T> {
        let permit = Arc::clone(&self.shared.writer).lock_owned().await;
        self.run(move |store| {
            let _permit = permit;
            store.with_database(|database| {
                let transaction = begin(database)?;
                let answer = work(&transaction)?;
                transaction.commit()?;
                Ok(answer)
            })
        })
        .await
    }

    /// Runs `work` in one write transaction, which commits if it succeeds, and then remembers the
    /// terms that it added.
    pub(crate) async fn write_records<T: Send + 'static>(
        &self,
        work: impl FnOnce(&WriteTransaction, &mut TermWriter<'_, '_>) -> Outcome<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.clone();
        let permit = Arc::clone(&self.shared.writer).lock_owned().await;
        self.run(move |_| {
            let _permit = permit;
            store.with_database(|database| {
                let transaction = begin(database)?;
                let (answer, new) = with_terms(&transaction, &store.shared.terms, work)?;
                transaction.commit()?;
                store.shared.terms.remember(new);
                Ok(answer)
            })
        })
        .await
    }

    /// Runs `work` in one read transaction: one snapshot.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ReadTransaction, TermReader<'_>) -> Outcome<T> + Send + 'static,
    ) -> Result<T> {
        self.run(move |store| {
            store.with_database(|database| {
                let transaction = database.begin_read()?;
                work(&transaction, TermReader::new(&store.shared.terms, &transaction))
            })
        })
        .await
    }

    /// Runs `work` off the caller's thread.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Outcome<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.clone();
        let done = spawn_blocking(move || work(&store)).await;
        joined(done).map_err(|fault| fault.about(self.path()).into())
    }

    /// Does `work` with the open database, which is opened first where it had failed.
    fn with_database<T>(&self, work: impl FnOnce(&Database) -> Outcome<T>) -> Outcome<T> {
        let shared = &*self.shared;
        let mut slot = shared.database.read().unwrap_or_else(PoisonError::into_inner);
        while slot.is_none() {
            drop(slot);
            let mut empty = shared.database.write().unwrap_or_else(PoisonError::into_inner);
            if empty.is_none() {
                let (database, _) = prepare((shared.open)()?, &shared.terms)?;
                *empty = Some(database);
            }
            drop(empty);
            slot = shared.database.read().unwrap_or_else(PoisonError::into_inner);
        }
        let Some(database) = &*slot else { return Err(Fault::Cancelled) };
        let outcome = work(database);
        drop(slot);
        if outcome.as_ref().is_err_and(Fault::is_final) {
            shared.database.write().unwrap_or_else(PoisonError::into_inner).take();
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

/// Makes the tables where there are none, checks the version, and reads the terms; tells whether
/// there were no tables.
fn prepare(database: Database, terms: &Terms) -> Outcome<(Database, bool)> {
    let found = format(&database)?;
    match found {
        None => make_tables(&database)?,
        Some(found) if found != i64::from(VERSION) => {
            return Err(Fault::NewerFormat { found, known: VERSION });
        }
        Some(_) => {}
    }
    terms.load(&database.begin_read()?)?;
    Ok((database, found.is_none()))
}

/// The version of the format; `None` if there are no tables of ours.
fn format(database: &Database) -> Outcome<Option<i64>> {
    match database.begin_read()?.open_table(META) {
        Ok(meta) => meta.get(FORMAT)?.map(|value| number_of(value.value())).transpose(),
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
    transaction.open_table(META)?.insert(FORMAT, &number_value(VERSION.into())[..])?;
    transaction.commit()?;
    Ok(())
}

/// The number kept under `name`.
pub(crate) fn meta(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &str,
) -> Outcome<Option<i64>> {
    table.get(name)?.map(|value| number_of(value.value())).transpose()
}
