//! The handle: how work gets to a connection, and what is done when that is lost.
//! Invariant: what is done again has either not been committed, or counts once however often it is
//! done. Nothing that takes long to compute runs on the caller's thread.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prompt_engine_core::{Error, Result};
use sqlx::{AssertSqlSafe, Executor, raw_sql};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::config::{Place, PostgresConfig};
use crate::error::{Fault, Outcome, joined};
use crate::folds::Folds;
use crate::pool::{Lease, Pool};
use crate::schema::{self, Lock};

/// Transactions name all that they depend on: the defaults may be set otherwise. A sum is planned for
/// what it asks: a plan for any range would do for none. To compile one, or to start workers for it,
/// takes longer than to run it.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
    SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL jit = off;
    SET LOCAL max_parallel_workers_per_gather = 0";
const WRITE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
/// Of cells only few are touched, and a plan that was made for a small table is kept for a large one.
const FOLD: &str =
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL enable_seqscan = off;
    SET LOCAL jit = off";
/// How long one attempt to write may take before its connection counts as lost: a network that dies
/// in silence would otherwise be waited for without an end. Batches are bounded, and so is this.
const WRITING: Duration = Duration::from_secs(60);
/// The same of one to read, which a sum over everything may need.
const READING: Duration = Duration::from_secs(15 * 60);
/// How often work is done again after its connection was lost.
const AGAIN_LOST: u32 = 4;
/// How often it is done again after a deadlock.
const AGAIN_DEADLOCK: u32 = 5;

/// A store in a schema of a PostgreSQL database. Cloning it clones the handle.
///
/// # Example: open, and look
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> prompt_engine_core::Result<()> {
/// use prompt_engine_core::CostStore;
/// use prompt_engine_store_postgres::{PostgresConfig, PostgresStore};
/// let config = PostgresConfig::from_url("postgres://app@localhost/prompts?schema=llm")?;
/// let store = PostgresStore::open(config).await?;
/// println!("prices of generation {}", store.price_generation().await?);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct PostgresStore {
    shared: Arc<Shared>,
}

struct Shared {
    place: Place,
    created: bool,
    begin_sharing: String,
    begin_alone: String,
    begin_folding: String,
    begin_rebuilding: String,
    lock_of_folds: Lock,
    folds: Folds,
    pool: Arc<Pool>,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { server, database, user: _, schema } = &self.shared.place;
        f.debug_struct("PostgresStore")
            .field("server", server)
            .field("database", database)
            .field("schema", schema)
            .finish_non_exhaustive()
    }
}

/// What a transaction holds of the lock of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Nothing: it touches no records.
    Nothing,
    /// A share: no records are pruned meanwhile.
    Share,
    /// All of it: no records are written meanwhile.
    All,
    /// Nothing, but the lock of folds, alone.
    Fold,
    /// Nothing, and it tries for the lock of folds itself.
    TryFold,
    /// A share, and the lock of folds, alone.
    Rebuild,
}

/// What may be done again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Everything: done twice it counts once.
    Always,
    /// What was not committed: done twice it would contradict itself.
    Uncommitted,
}

impl PostgresStore {
    /// Opens the database of `config`, and makes the schema and its tables where there are none.
    ///
    /// # Errors
    /// Each names the server or the database, and none a password. `Invalid` if the URL says what
    /// it cannot, the server lets the user not in, has no such database, or does not allow it to
    /// make tables; `Unsupported` if a newer PromptEngine wrote them, or the server is too old;
    /// `Unavailable` if it cannot be reached or takes no more connections.
    pub async fn open(config: PostgresConfig) -> Result<Self> {
        let options = config.options()?;
        let place = config.place(&options);
        let pool = Arc::new(Pool::new(options, config.max_connections, config.acquire_timeout));
        let made = async {
            let mut conn = pool.connect(pool.deadline(), false).await?;
            let made = schema::migrate(&mut conn, config.schema.as_deref()).await?;
            pool.adopt(conn);
            Ok(made)
        };
        let (locks, created) = made.await.map_err(|fault: Fault| fault.about(&place))?;
        let shared = Shared {
            place,
            created,
            begin_sharing: format!("{WRITE}; {}", locks.records.shared()),
            begin_alone: format!("{WRITE}; {}", locks.records.alone()),
            begin_folding: format!("{FOLD}; {}", locks.folds.alone()),
            begin_rebuilding: format!(
                "{FOLD}; {}; {}",
                locks.records.shared(),
                locks.folds.alone()
            ),
            lock_of_folds: locks.folds,
            folds: Folds::default(),
            pool,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Where the store of `config` would be made, in words without a secret; `None` if it is there.
    /// It makes nothing.
    ///
    /// # Errors
    /// As [`PostgresStore::open`].
    pub async fn missing(config: &PostgresConfig) -> Result<Option<String>> {
        let options = config.options()?;
        let place = config.place(&options);
        let pool = Pool::new(options, 1, config.acquire_timeout);
        let found = async {
            let mut conn = pool.connect(pool.deadline(), false).await?;
            schema::is_there(&mut conn, config.schema.as_deref()).await
        };
        match found.await {
            Ok(true) => Ok(None),
            Ok(false) => Ok(Some(place.to_string())),
            Err(fault) => Err(fault.about(&place)),
        }
    }

    /// Whether opening this handle made the store: there were no tables of ours before.
    pub fn created(&self) -> bool {
        self.shared.created
    }

    /// Runs `work`, one statement that reads.
    pub(crate) async fn read<T, F>(&self, work: impl Fn(Lease) -> F) -> Result<T>
    where
        F: Future<Output = (Lease, Outcome<T>)>,
    {
        self.run(None, Repeat::Always, work).await
    }

    /// Runs `work` in one read transaction: one snapshot.
    pub(crate) async fn snapshot<T, F>(&self, work: impl Fn(Lease) -> F) -> Result<T>
    where
        F: Future<Output = (Lease, Outcome<T>)>,
    {
        self.run(Some(SNAPSHOT), Repeat::Always, work).await
    }

    /// Runs `work` in one write transaction, which commits if it succeeds.
    pub(crate) async fn write<T, F>(
        &self,
        hold: Hold,
        repeat: Repeat,
        work: impl Fn(Lease) -> F,
    ) -> Result<T>
    where
        F: Future<Output = (Lease, Outcome<T>)>,
    {
        let begin = match hold {
            Hold::Nothing => WRITE,
            Hold::Share => &self.shared.begin_sharing,
            Hold::All => &self.shared.begin_alone,
            Hold::Fold => &self.shared.begin_folding,
            Hold::TryFold => FOLD,
            Hold::Rebuild => &self.shared.begin_rebuilding,
        };
        self.run(Some(begin), repeat, work).await
    }

    async fn run<T, F>(
        &self,
        begin: Option<&str>,
        repeat: Repeat,
        work: impl Fn(Lease) -> F,
    ) -> Result<T>
    where
        F: Future<Output = (Lease, Outcome<T>)>,
    {
        let mut again = Again::default();
        loop {
            // A connection that cannot be had was waited for already.
            let lease = match self.shared.pool.acquire().await {
                Ok(lease) => lease,
                // It was let in before: a password that is being changed, or a database that is
                // being restored, is for later.
                Err(fault) => return Err(self.error(Fault::NoLonger(Box::new(fault)))),
            };
            let limit = if begin.is_none_or(|begin| begin == SNAPSHOT) { READING } else { WRITING };
            let fault = match attempt(lease, begin, limit, &work).await {
                Ok(answer) => return Ok(answer),
                Err(Failed { fault, committing: true })
                    if repeat == Repeat::Uncommitted && fault.is_lost() =>
                {
                    self.shared.pool.lost();
                    return Err(self.error(Fault::Unacknowledged(Box::new(fault))));
                }
                Err(Failed { fault, .. }) => fault,
            };
            self.may_repeat(fault, &mut again).await?;
        }
    }

    pub(crate) fn folds(&self) -> &Folds {
        &self.shared.folds
    }

    pub(crate) fn lock_of_folds(&self) -> Lock {
        self.shared.lock_of_folds
    }

    pub(crate) fn error(&self, fault: Fault) -> Error {
        fault.about(&self.shared.place)
    }

    /// Returns if what failed by `fault` may be done again, and is worth it.
    async fn may_repeat(&self, fault: Fault, again: &mut Again) -> Result<()> {
        let (lost, deadlock) = (fault.is_lost(), fault.is_deadlock());
        if lost {
            self.shared.pool.lost();
        }
        let most = if lost { AGAIN_LOST } else { AGAIN_DEADLOCK };
        if !(lost || deadlock) || again.times >= most {
            return Err(self.error(fault));
        }
        let (times, place) = (again.times, &self.shared.place);
        tracing::warn!(%fault, times, "work on {place} failed and is done again");
        // The first time at once: another connection is likely to work.
        if again.times > 0 {
            sleep(Duration::from_millis(10) * 4_u32.pow(again.times)).await;
        }
        again.times += 1;
        Ok(())
    }

    /// Runs `work`, which needs no connection, off the caller's thread.
    pub(crate) async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Outcome<T> + Send + 'static,
    ) -> Result<T> {
        joined(spawn_blocking(work).await).map_err(|fault| self.error(fault))
    }
}

/// Why an attempt failed, and whether COMMIT had been sent.
struct Failed {
    fault: Fault,
    committing: bool,
}

/// Runs `work` once, in a transaction if there is a `begin`.
async fn attempt<T, F>(
    mut lease: Lease,
    begin: Option<&str>,
    limit: Duration,
    work: impl Fn(Lease) -> F,
) -> std::result::Result<T, Failed>
where
    F: Future<Output = (Lease, Outcome<T>)>,
{
    let failed = |committing| move |fault| Failed { fault, committing };
    if let Some(begin) = begin {
        within(limit, lease.execute(raw_sql(AssertSqlSafe(begin)))).await.map_err(failed(false))?;
    }
    let Ok((mut lease, outcome)) = timeout(limit, work(lease)).await else {
        return Err(failed(false)(Fault::Silent(limit)));
    };
    match outcome {
        Ok(_) if begin.is_some() => {
            within(limit, lease.execute("COMMIT")).await.map_err(failed(true))?;
            lease.mark_clean();
        }
        Ok(_) => lease.mark_clean(),
        Err(ref fault) if fault.is_lost() => {}
        Err(_) if begin.is_some() => {
            if within(limit, lease.execute("ROLLBACK")).await.is_ok() {
                lease.mark_clean();
            }
        }
        Err(_) => lease.mark_clean(),
    }
    outcome.map_err(failed(false))
}

/// What `work` answers, if it does within `limit`.
async fn within<T>(limit: Duration, work: impl Future<Output = sqlx::Result<T>>) -> Outcome<T> {
    Ok(timeout(limit, work).await.map_err(|_| Fault::Silent(limit))??)
}

/// How often something was done again.
#[derive(Debug, Default)]
struct Again {
    times: u32,
}
