//! Cells and changes: where the values lie that core's cubes are made of; see `docs/cubes.md`.
//! Invariants: changes are written with the records they come from, and deleted with the cells that
//! took them in, so each is counted once, whenever a process ends. Only who holds the lock of folds
//! writes cells or deletes changes; which changes these are is decided by what is visible, never by a
//! number or a time, since transactions end in another order than they begin.

use futures::TryStreamExt;
use prompt_engine_core::cube::{
    CellKey, CellValues, Changes, Extent, LOT_CHANGES, Lot, Plan, Restoring, Stretch, Tally,
    Touched, WIDTHS, widen_extent,
};
use prompt_engine_core::{
    AggregateQuery, BucketWidth, Cost, Cube, Dimension, ErrorKind, Folded, LlmExecution,
    PrunedSums, Rebuild, Rebuilt, Restored, Timestamp, Usage,
};
use sqlx::postgres::PgBindIterExt;
use sqlx::{PgConnection, query, query_scalar};
use tokio::task::spawn_blocking;

use crate::error::{Fault, Outcome, joined};
use crate::prune::RAW_HORIZON;
use crate::rows::{get, maybe_moment};
use crate::schema::meta;
use crate::sums::{Found, Scan};

/// Cells that a fold reads and writes by one statement at most.
const MOST_CELLS: usize = 512;
/// Bytes of cells beyond which the next statement is about fewer of them.
const PART_BYTES: usize = 4 * 1024 * 1024;
/// Records that are read at once when a store gets its first changes.
const FETCH: &str = "FETCH 8192 FROM records";

/// The changes of a transaction, as rows that it writes.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    open: Changes,
    /// How many each value has.
    pub(crate) counts: Vec<i64>,
    pub(crate) values: Vec<Vec<u8>>,
}

impl Kept {
    pub(crate) fn usage(&mut self, usage: &Usage) {
        self.open.usage(usage);
        self.cut(LOT_CHANGES);
    }

    pub(crate) fn execution(&mut self, call: &LlmExecution) {
        self.open.execution(call);
        self.cut(LOT_CHANGES);
    }

    pub(crate) fn recost(&mut self, call: &LlmExecution, new: &Cost) {
        self.open.recost(call, new);
        self.cut(LOT_CHANGES);
    }

    /// All of them, whole.
    pub(crate) fn finish(mut self) -> Self {
        self.cut(1);
        self
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u64 {
        self.open.len() + self.counts.iter().map(|count| count.cast_unsigned()).sum::<u64>()
    }

    /// Begins another value where this one has so many.
    fn cut(&mut self, most: u64) {
        if self.open.len() >= most {
            let whole = std::mem::take(&mut self.open);
            self.counts.push(whole.len().cast_signed());
            self.values.push(whole.encode());
        }
    }
}

/// Takes the oldest changes away, a lot of them: each row has one at least.
const TAKE: &str = "
DELETE FROM prompt_engine_changes WHERE id IN (
    SELECT id FROM (
        SELECT id, sum(changes) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING) - changes AS before
        FROM (
            SELECT id, changes FROM prompt_engine_changes ORDER BY id LIMIT $1
        ) AS oldest
    ) AS counted
    WHERE before < $1
)
RETURNING id, changes, data";

const WAITING: &str = "SELECT coalesce(sum(changes), 0)::bigint FROM prompt_engine_changes";

/// Adds the oldest changes to the cells; answers how many wait still, too. The caller holds the lock
/// of folds, and commits.
pub(crate) async fn fold(conn: &mut PgConnection) -> Outcome<(Folded, u64)> {
    let rows = query(TAKE).bind(LOT_CHANGES.cast_signed()).fetch_all(&mut *conn).await?;
    if rows.is_empty() {
        return Ok((Folded::default(), 0));
    }
    let mut taken: Vec<(i64, Vec<u8>)> = Vec::with_capacity(rows.len());
    let mut changes = 0;
    for row in &rows {
        taken.push((get(row, 0)?, get(row, 2)?));
        changes += get::<i64>(row, 1)?.cast_unsigned();
    }
    taken.sort_unstable_by_key(|(id, _)| *id);
    let taken = taken.into_iter().map(|(_, data)| data).collect();
    write(conn, lot(taken).await?).await?;
    let waiting: i64 = query_scalar(WAITING).fetch_one(conn).await?;
    let waiting = waiting.cast_unsigned();
    Ok((Folded { changes, more: waiting > 0 }, waiting))
}

/// The cells that the changes of `values` touch.
async fn lot(values: Vec<Vec<u8>>) -> Outcome<Touched> {
    compute(move || {
        let mut lot = Lot::new(&WIDTHS);
        for value in &values {
            lot.add(value)?;
        }
        Ok(lot.finish())
    })
    .await
}

/// Runs `work` off the threads that wait for the server.
async fn compute<T: Send + 'static>(
    work: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    joined(spawn_blocking(work).await)
}

/// What the cells of some keys are. `OFFSET 0` keeps the order of the loops, so that no plan that was
/// made for a small table walks a large one.
const SELECT_CELLS: &str = "
SELECT k.place, c.sums, c.durations
FROM unnest($1::smallint[], $2::smallint[], $3::bigint[], $4::bytea[])
    WITH ORDINALITY AS k (cube, width, start, lead, place)
CROSS JOIN LATERAL (
    SELECT sums, durations FROM prompt_engine_cells AS c
    WHERE c.cube = k.cube AND c.width = k.width AND c.start = k.start AND c.lead = k.lead
    OFFSET 0
) AS c";

/// Nobody else adds cells, so those that are new need not be looked for again.
const PUT_CELLS: &str = "
WITH put AS (
    SELECT * FROM unnest($1::smallint[], $2::smallint[], $3::bigint[], $4::bytea[], $5::bytea[],
        $6::bytea[], $7::boolean[]) AS put (cube, width, start, lead, sums, durations, is_new)
), added AS (
    INSERT INTO prompt_engine_cells (cube, width, start, lead, sums, durations)
    SELECT cube, width, start, lead, sums, durations FROM put WHERE is_new
)
INSERT INTO prompt_engine_cells (cube, width, start, lead, sums, durations)
SELECT cube, width, start, lead, sums, durations FROM put WHERE NOT is_new
ON CONFLICT (cube, width, start, lead) DO UPDATE
SET sums = excluded.sums, durations = excluded.durations";

/// A cell that is to be written.
struct Put {
    key: CellKey,
    values: CellValues,
    is_new: bool,
}

/// Adds to the cells that are touched, in the order of their keys; answers how many are written. A cell
/// that cannot be read stays as it is, and says so to every answer, until it is made anew: it must not
/// be in the way of all others.
async fn write(conn: &mut PgConnection, mut touched: Touched) -> Outcome<u64> {
    let (mut cells, mut most) = (0, MOST_CELLS / 8);
    while !touched.is_empty() {
        let keys: Vec<CellKey> = touched.keys().take(most).cloned().collect();
        let old = select(conn, &keys).await?;
        let merging = compute(move || {
            let mut merged = Vec::with_capacity(keys.len());
            for (key, old) in keys.into_iter().zip(&old) {
                let values = match touched.merged(old.as_ref()) {
                    Ok(merged) => merged,
                    Err(error) if old.is_some() && error.kind() == ErrorKind::Corrupt => {
                        tracing::warn!(error = error.chain(), ?key, "a cell is left as it is");
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                };
                merged.push(Put { key, values, is_new: old.is_none() });
            }
            Ok((touched, merged))
        });
        let merged;
        (touched, merged) = merging.await?;
        cells += merged.len() as u64;
        let size = |put: &Put| put.values.sums.len() + put.values.durations.len();
        let bytes: usize = merged.iter().map(size).sum();
        most = if bytes > PART_BYTES { (most / 2).max(1) } else { (2 * most).min(MOST_CELLS) };
        put(conn, &merged).await?;
    }
    Ok(cells)
}

async fn select(conn: &mut PgConnection, keys: &[CellKey]) -> Outcome<Vec<Option<CellValues>>> {
    let mut old = vec![None; keys.len()];
    let rows = query(SELECT_CELLS)
        .bind(keys.iter().map(|key| code(key.cube.code())).bind_iter())
        .bind(keys.iter().map(|key| code(key.width.code())).bind_iter())
        .bind(keys.iter().map(|key| key.start).bind_iter())
        .bind(keys.iter().map(|key| &*key.lead).bind_iter())
        .fetch_all(conn)
        .await?;
    for row in &rows {
        let place =
            usize::try_from(get::<i64>(row, 0)?).ok().and_then(|place| place.checked_sub(1));
        let place = place.and_then(|place| old.get_mut(place));
        let place = place.ok_or_else(|| Fault::Row("a cell has no place".to_owned()))?;
        *place = Some(CellValues { sums: get(row, 1)?, durations: get(row, 2)? });
    }
    Ok(old)
}

async fn put(conn: &mut PgConnection, cells: &[Put]) -> Outcome<()> {
    query(PUT_CELLS)
        .bind(cells.iter().map(|cell| code(cell.key.cube.code())).bind_iter())
        .bind(cells.iter().map(|cell| code(cell.key.width.code())).bind_iter())
        .bind(cells.iter().map(|cell| cell.key.start).bind_iter())
        .bind(cells.iter().map(|cell| &*cell.key.lead).bind_iter())
        .bind(cells.iter().map(|cell| &*cell.values.sums).bind_iter())
        .bind(cells.iter().map(|cell| &*cell.values.durations).bind_iter())
        .bind(cells.iter().map(|cell| cell.is_new).bind_iter())
        .execute(conn)
        .await?;
    Ok(())
}

fn code(code: u8) -> i16 {
    code.into()
}

/// Makes cells anew. The caller holds the lock of folds, keeps records from being pruned, and commits.
pub(crate) async fn rebuild(conn: &mut PgConnection, part: Rebuild) -> Outcome<Rebuilt> {
    let horizon = meta(conn, RAW_HORIZON).await?.unwrap_or(i64::MIN);
    let (to, of) = part.cell();
    let mut done = Rebuilt::default();
    let gone = of.to <= horizon;
    let live = Stretch { from: of.from.max(horizon), to: of.to };
    let quarters = matches!(part, Rebuild::Hour(_)) && !gone;

    // What is visible to one statement: the changes that wait, and all records that are counted by
    // them or in cells. Later records come with changes of their own, which wait for the next fold.
    let query = by_all();
    let (mut waiting, mut records) = (Vec::new(), Kept::default());
    let mut scan = Scan::taking_changes(&query);
    if quarters {
        scan.usages(live);
        scan.executions(live);
    }
    scan.run(conn, |found| {
        done.records += 1;
        match found {
            Found::Usage(usage) => records.usage(usage),
            Found::Execution(call) => records.execution(call),
            Found::Changes(data) => {
                waiting.push(data);
                done.records -= 1;
            }
        }
        Ok(())
    })
    .await?;

    if !gone {
        // Before the changes are added, so that a cell that cannot be read is in nobody's way.
        if quarters {
            delete(conn, BucketWidth::QuarterHour, live).await?;
        }
        delete(conn, to, of).await?;
    }
    write(conn, lot(waiting).await?).await?;
    if gone {
        return Ok(done);
    }
    if quarters {
        delete(conn, BucketWidth::QuarterHour, live).await?;
        let records = records.finish().values;
        let lot = compute(move || {
            let mut lot = Lot::new(&[BucketWidth::QuarterHour]);
            for value in &records {
                lot.add(value)?;
            }
            Ok(lot.finish())
        });
        done.cells += write(conn, lot.await?).await?;
    }
    delete(conn, to, of).await?;
    done.cells += widen(conn, BucketWidth::QuarterHour, to, of).await?;
    Ok(done)
}

/// Adds those sums of pruned records to cells that are missing. The caller holds the lock of folds,
/// keeps records from being pruned, and commits.
pub(crate) async fn restore(conn: &mut PgConnection, sums: &[PrunedSums]) -> Outcome<Restored> {
    // What is here already is in cells alone then.
    let query = by_all();
    let mut waiting = Vec::new();
    let take = Scan::taking_changes(&query).run(conn, |found| {
        if let Found::Changes(data) = found {
            waiting.push(data);
        }
        Ok(())
    });
    take.await?;
    write(conn, lot(waiting).await?).await?;
    let mut restoring = Restoring::new(sums)?;
    for cube in Restoring::CUBES {
        each(conn, cube, Restoring::WIDTH, restoring.stretch(), |key, values| {
            Ok(restoring.cell(&key, &values)?)
        })
        .await?;
    }
    let horizon = meta(conn, RAW_HORIZON).await?.map(Timestamp::from_micros).transpose()?;
    let (lot, done) = restoring.missing(horizon)?;
    write(conn, lot.finish()).await?;
    Ok(done)
}

/// Everything that a change says is grouped by.
fn by_all() -> AggregateQuery {
    use Dimension::{Environment, Model, Prompt, Provider, Version};
    let group_by = vec![Prompt, Version, Environment, Provider, Model];
    AggregateQuery { group_by, ..AggregateQuery::default() }
}

const DELETE_CELLS: &str = "
DELETE FROM prompt_engine_cells
WHERE cube = ANY ($1) AND width = $2 AND start >= $3 AND start < $4";

async fn delete(conn: &mut PgConnection, width: BucketWidth, of: Stretch) -> Outcome<()> {
    query(DELETE_CELLS)
        .bind(Cube::ALL.iter().map(|cube| code(cube.code())).bind_iter())
        .bind(code(width.code()))
        .bind(of.from)
        .bind(of.to)
        .execute(conn)
        .await?;
    Ok(())
}

const SELECT_STRETCH: &str = "
SELECT start, lead, sums, durations FROM prompt_engine_cells
WHERE cube = $1 AND width = $2 AND start >= $3 AND start < $4";

/// Calls `visit` with the cells of a stretch.
async fn each(
    conn: &mut PgConnection,
    cube: Cube,
    width: BucketWidth,
    of: Stretch,
    mut visit: impl FnMut(CellKey, CellValues) -> Outcome<()>,
) -> Outcome<()> {
    let select = query(SELECT_STRETCH).bind(code(cube.code())).bind(code(width.code()));
    let mut rows = select.bind(of.from).bind(of.to).fetch(conn);
    while let Some(row) = rows.try_next().await? {
        let (start, lead) = (get(&row, 0)?, get(&row, 1)?);
        let values = CellValues { sums: get(&row, 2)?, durations: get(&row, 3)? };
        visit(CellKey { cube, width, start, lead }, values)?;
    }
    Ok(())
}

/// Makes the cells of a stretch from the narrower ones in it; answers how many.
async fn widen(
    conn: &mut PgConnection,
    from: BucketWidth,
    to: BucketWidth,
    of: Stretch,
) -> Outcome<u64> {
    let mut lot = Lot::new(&[to]);
    for cube in Cube::ALL {
        each(conn, *cube, from, of, |key, values| Ok(lot.add_cell(&key, &values)?)).await?;
    }
    write(conn, lot.finish()).await
}

const KEEP: &str = "
INSERT INTO prompt_engine_changes (changes, data) SELECT * FROM unnest($1::bigint[], $2::bytea[])";

/// Keeps all records of a store that had no cells as changes. The caller keeps others from writing
/// any, and commits.
pub(crate) async fn start(conn: &mut PgConnection) -> Outcome<()> {
    let all = Stretch { from: i64::MIN, to: i64::MAX };
    let by_all = by_all();
    let mut scan = Scan::cursor(&by_all);
    scan.usages(all);
    scan.executions(all);
    let mut reader = scan.open(conn).await?;
    let mut kept = Kept::default();
    loop {
        let rows = query(FETCH).fetch_all(&mut *conn).await?;
        for row in &rows {
            match reader.read(row)? {
                Found::Usage(usage) => kept.usage(usage),
                Found::Execution(call) => kept.execution(call),
                Found::Changes(_) => {}
            }
        }
        if rows.is_empty() {
            kept = kept.finish();
        }
        if !kept.counts.is_empty() {
            let (counts, values) = (&kept.counts, &kept.values);
            query(KEEP).bind(counts).bind(values).execute(&mut *conn).await?;
            kept.counts.clear();
            kept.values.clear();
        }
        if rows.is_empty() {
            break;
        }
    }
    query("CLOSE records").execute(conn).await?;
    Ok(())
}

/// Cells of some stretches of time, and behind them the changes. A lead, where it is given, is that of
/// all cells. `OFFSET 0` keeps the order of the loops: a stretch, and its cells.
const BY_RANGE: &str = "
SELECT s.width, c.start, c.lead, c.sums, c.durations
FROM unnest($3::smallint[], $4::bigint[], $5::bigint[]) AS s (width, first, past)
CROSS JOIN LATERAL (
    SELECT start, lead, sums, CASE WHEN $2 THEN durations END AS durations
    FROM prompt_engine_cells AS c
    WHERE c.cube = $1 AND c.width = s.width AND c.start >= s.first AND c.start < s.past
        AND ($6::bytea IS NULL OR c.lead = $6)
    OFFSET 0
) AS c
UNION ALL SELECT NULL, NULL, NULL, data, NULL FROM prompt_engine_changes";

/// The same of cells that are named.
const BY_START: &str = "
SELECT s.width, c.start, c.lead, c.sums, c.durations
FROM unnest($3::smallint[], $4::bigint[]) AS s (width, start)
CROSS JOIN LATERAL (
    SELECT start, lead, sums, CASE WHEN $2 THEN durations END AS durations
    FROM prompt_engine_cells AS c
    WHERE c.cube = $1 AND c.width = s.width AND c.start = s.start AND c.lead = $5
    OFFSET 0
) AS c
UNION ALL SELECT NULL, NULL, NULL, data, NULL FROM prompt_engine_changes";

/// Adds the cells and the changes of `plan` to `tally`.
pub(crate) async fn read(
    conn: &mut PgConnection,
    plan: &Plan,
    tally: &mut Tally<'_>,
) -> Outcome<()> {
    let Some(cube) = plan.cube().filter(|_| plan.reads_changes()) else { return Ok(()) };
    let histograms = plan.reads_durations();
    // Cells without a lead are found by their range as well.
    let lead = plan.lead().filter(|lead| !lead.is_empty());
    let starts = lead.and_then(|_| starts(plan));
    let select = match &starts {
        Some(starts) => query(BY_START)
            .bind(code(cube.code()))
            .bind(histograms)
            .bind(starts.iter().map(|(width, _)| code(width.code())).bind_iter())
            .bind(starts.iter().map(|(_, start)| *start).bind_iter()),
        None => query(BY_RANGE)
            .bind(code(cube.code()))
            .bind(histograms)
            .bind(plan.cells().map(|(width, _)| code(width.code())).bind_iter())
            .bind(plan.cells().map(|(_, of)| of.from).bind_iter())
            .bind(plan.cells().map(|(_, of)| of.to).bind_iter()),
    };
    let mut rows = select.bind(lead).fetch(conn);
    while let Some(row) = rows.try_next().await? {
        let value = get(&row, 3)?;
        match get::<Option<i16>>(&row, 0)? {
            None => tally.changes(value)?,
            Some(code) => {
                let width = width(code)?;
                tally.cell(width, get(&row, 1)?, get(&row, 2)?, value, get(&row, 4)?)?;
            }
        }
    }
    Ok(())
}

fn width(code: i16) -> Outcome<BucketWidth> {
    let width = u8::try_from(code).ok().and_then(BucketWidth::from_code);
    width.ok_or_else(|| Fault::Row(format!("{code} is no width of a cell")))
}

/// The cells of `plan`, where they are few enough to be named.
fn starts(plan: &Plan) -> Option<Vec<(BucketWidth, i64)>> {
    let mut starts = Vec::new();
    for (width, of) in plan.cells() {
        starts.extend(of.starts(width)?.map(|start| (width, start)));
    }
    Some(starts)
}

/// Each end by itself: an aggregate of both would walk the tables.
const ENDS: &str = "
SELECT (SELECT min(created_at) FROM prompt_engine_usages),
    (SELECT max(created_at) FROM prompt_engine_usages),
    (SELECT min(created_at) FROM prompt_engine_llm_executions),
    (SELECT max(created_at) FROM prompt_engine_llm_executions),
    (SELECT min(start) FROM prompt_engine_cells WHERE cube = 0 AND width = 0),
    (SELECT max(start) FROM prompt_engine_cells WHERE cube = 0 AND width = 0)";

/// The first and the last moment of anything that is counted.
pub(crate) async fn extent(conn: &mut PgConnection) -> Outcome<Extent> {
    let row = query(ENDS).fetch_one(&mut *conn).await?;
    let mut ends: Vec<Timestamp> = Vec::new();
    for column in 0..4 {
        ends.extend(maybe_moment(&row, column)?);
    }
    for column in 4..6 {
        let start: Option<i64> = get(&row, column)?;
        ends.extend(start.map(Timestamp::from_micros).transpose()?);
    }
    let mut extent = ends.iter().min().copied().zip(ends.iter().max().copied());
    let mut rows = query("SELECT data FROM prompt_engine_changes").fetch(conn);
    while let Some(row) = rows.try_next().await? {
        widen_extent(&mut extent, get(&row, 0)?)?;
    }
    Ok(extent)
}
