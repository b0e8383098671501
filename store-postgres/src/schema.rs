//! The schema and its versions. A migration is never edited once released; a change is a new one.
//! Invariant: the version is read and moved under the lock of the schema, so that processes that
//! open a new one at once make its tables once. (sqlx's migrator would do that too, but keeps the
//! versions in `_sqlx_migrations`, where an application that shares the database keeps its own.)

use prompt_engine_core::cube::cell_of;
use prompt_engine_core::{BucketWidth, Timestamp};
use sqlx::{AssertSqlSafe, Executor, PgConnection, query_as, query_scalar, raw_sql};

use crate::cells;
use crate::error::{Fault, Outcome};
use crate::prune::RAW_HORIZON;

/// The migrations in order: the first makes version 1.
const MIGRATIONS: [&str; 3] = [
    include_str!("../migrations/0001_initial.sql"),
    include_str!("../migrations/0002_cubes.sql"),
    include_str!("../migrations/0003_packs.sql"),
];
/// The first version that has cells.
const CELLS: i64 = 2;

/// The version of the schema, in `prompt_engine_meta`.
const SCHEMA: &str = "schema";
/// The oldest server that has all that is used here.
const OLDEST_SERVER: u32 = 120_000;

/// The version that this build writes.
fn newest() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// An advisory lock: see `docs/postgres-format.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lock(i64);

/// The locks of a schema.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Locks {
    /// Of its records.
    pub(crate) records: Lock,
    /// Of its cells, and of the changes that go into them.
    pub(crate) folds: Lock,
}

impl Locks {
    fn of(schema: &str) -> Self {
        Self {
            records: Lock::of("prompt_engine:", schema),
            folds: Lock::of("prompt_engine_folds:", schema),
        }
    }
}

impl Lock {
    fn of(what: &str, schema: &str) -> Self {
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in what.bytes().chain(schema.bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Self(hash.cast_signed())
    }

    /// Takes it for the rest of the transaction, alone, if nobody has it; answers whether it did.
    pub(crate) async fn try_alone(self, conn: &mut PgConnection) -> Outcome<bool> {
        let lock = query_scalar("SELECT pg_try_advisory_xact_lock($1)").bind(self.0);
        Ok(lock.fetch_one(conn).await?)
    }

    /// A statement that takes it for the rest of the transaction, beside others that do so.
    pub(crate) fn shared(self) -> String {
        format!("SELECT pg_advisory_xact_lock_shared({})", self.0)
    }

    /// A statement that takes it for the rest of the transaction, alone.
    pub(crate) fn alone(self) -> String {
        format!("SELECT pg_advisory_xact_lock({})", self.0)
    }
}

/// Brings the schema up to date, and makes it where there is none. `named` is the one that was
/// asked for, fit to stand in SQL. Answers its locks, and whether there were no tables before.
pub(crate) async fn migrate(
    conn: &mut PgConnection,
    named: Option<&str>,
) -> Outcome<(Locks, bool)> {
    check_server(conn).await?;
    let (found, place) = version(conn).await?;
    let place = named.map(str::to_owned).or(place).ok_or(Fault::NoSchema)?;
    let locks = Locks::of(&place);
    // The usual case takes no lock.
    if known(found)? == newest() {
        return Ok((locks, false));
    }
    let begin =
        format!("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {}", locks.records.alone());
    conn.execute(raw_sql(AssertSqlSafe(begin))).await?;
    if let Some(schema) = named {
        // Asking for one that is there needs the right to make one.
        let there: bool = query_scalar("SELECT to_regnamespace($1) IS NOT NULL")
            .bind(format!("\"{schema}\""))
            .fetch_one(&mut *conn)
            .await?;
        if !there {
            let create = format!("CREATE SCHEMA \"{schema}\"");
            conn.execute(raw_sql(AssertSqlSafe(create))).await?;
        }
    }
    let (found, _) = version(conn).await?;
    let done = usize::try_from(known(found)?).unwrap_or(0);
    for migration in &MIGRATIONS[done..] {
        conn.execute(raw_sql(*migration)).await?;
    }
    if (1..CELLS).contains(&found) {
        start_cells(conn).await?;
    }
    set_meta(conn, SCHEMA, newest()).await?;
    conn.execute("COMMIT").await?;
    Ok((locks, found == 0))
}

/// Gives a store that had none the changes that its cells are made from. Its raw horizon moves to the
/// end of its quarter of an hour, since what is left of that quarter is in the cells alone.
async fn start_cells(conn: &mut PgConnection) -> Outcome<()> {
    if let Some(horizon) = meta(conn, RAW_HORIZON).await? {
        let quarter = cell_of(BucketWidth::QuarterHour, Timestamp::from_micros(horizon)?);
        let whole = if quarter.from == horizon { horizon } else { quarter.to };
        set_meta(conn, RAW_HORIZON, whole).await?;
    }
    cells::start(conn).await
}

/// Whether the tables are there, in the schema that was `named` or where the search path finds them.
pub(crate) async fn is_there(conn: &mut PgConnection, named: Option<&str>) -> Outcome<bool> {
    let table = match named {
        Some(schema) => format!("\"{schema}\".prompt_engine_meta"),
        None => "prompt_engine_meta".to_owned(),
    };
    let select = query_scalar("SELECT to_regclass($1) IS NOT NULL");
    Ok(select.bind(table).fetch_one(conn).await?)
}

async fn check_server(conn: &mut PgConnection) -> Outcome<()> {
    if let Some(version) = conn.server_version_num().filter(|version| *version < OLDEST_SERVER) {
        return Err(Fault::OldServer(version / 10_000));
    }
    let encoding: String =
        query_scalar("SELECT current_setting('server_encoding')").fetch_one(conn).await?;
    if encoding == "UTF8" { Ok(()) } else { Err(Fault::Encoding(encoding)) }
}

/// The version of the schema, 0 if there are no tables; and the schema where they are, or would be
/// made.
async fn version(conn: &mut PgConnection) -> Outcome<(i64, Option<String>)> {
    let (exists, place): (bool, Option<String>) = query_as(
        "SELECT found.oid IS NOT NULL, coalesce(n.nspname::text, current_schema()::text)
         FROM (SELECT to_regclass('prompt_engine_meta')::oid AS oid) AS found
         LEFT JOIN pg_class AS c ON c.oid = found.oid
         LEFT JOIN pg_namespace AS n ON n.oid = c.relnamespace",
    )
    .fetch_one(&mut *conn)
    .await?;
    Ok((if exists { meta(conn, SCHEMA).await?.unwrap_or(0) } else { 0 }, place))
}

/// `found`, if this build can work with it.
fn known(found: i64) -> Outcome<i64> {
    match found {
        _ if found > newest() => Err(Fault::NewerSchema { found, known: newest() }),
        _ if found < 0 => Err(Fault::Row(format!("the schema version is {found}"))),
        _ => Ok(found),
    }
}

/// The number kept under `name`.
pub(crate) async fn meta(conn: &mut PgConnection, name: &'static str) -> Outcome<Option<i64>> {
    let select = query_scalar("SELECT value FROM prompt_engine_meta WHERE name = $1");
    Ok(select.bind(name).fetch_optional(conn).await?)
}

/// Keeps `value` under `name`.
async fn set_meta(conn: &mut PgConnection, name: &'static str, value: i64) -> Outcome<()> {
    let insert = sqlx::query(
        "INSERT INTO prompt_engine_meta (name, value) VALUES ($1, $2)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    );
    insert.bind(name).bind(value).execute(conn).await?;
    Ok(())
}
