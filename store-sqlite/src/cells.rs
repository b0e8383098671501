//! Cells and changes: where the values lie that core's cubes are made of; see `docs/cubes.md`.
//! Invariant: changes are written with the records they come from, and deleted with the cells that
//! took them in, so each is counted once, whenever a process ends.

use prompt_engine_core::cube::{
    CellKey, CellValues, Changes, Extent, LOT_CHANGES, Lot, Plan, Restoring, Stretch, Tally,
    WIDTHS, widen_extent,
};
use prompt_engine_core::{
    BucketWidth, Cube, Error, ErrorKind, Folded, PrunedSums, Rebuild, Rebuilt, Record, Restored,
};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};

use crate::error::Outcome;
use crate::prune::RAW_HORIZON;
use crate::rows::{execution, execution_columns, moment, optional, usage, usage_columns};
use crate::schema::meta;
use crate::terms::{TermReader, Terms};

/// Keeps the changes of a transaction; answers whether it is time for a fold.
pub(crate) fn keep(conn: &Connection, changes: &Changes) -> Outcome<bool> {
    if !changes.is_empty() {
        // Ids count changes, so that the first and the last of them say how many there are.
        conn.prepare_cached(
            "INSERT INTO prompt_engine_changes (id, changes, data)
             SELECT coalesce(max(id), 0) + ?1, ?1, ?2 FROM prompt_engine_changes",
        )?
        .execute((changes.len().cast_signed(), changes.encode()))?;
    }
    is_due(conn)
}

/// Whether a lot of changes waits.
pub(crate) fn is_due(conn: &Connection) -> Outcome<bool> {
    let waiting: Option<i64> = conn
        .prepare_cached(
            "SELECT (SELECT max(id) FROM prompt_engine_changes) - id + changes
             FROM prompt_engine_changes ORDER BY id LIMIT 1",
        )?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(waiting.is_some_and(|waiting| waiting.cast_unsigned() >= LOT_CHANGES))
}

/// Adds the oldest changes to the cells; answers whether it is time for another fold. The caller
/// commits.
pub(crate) fn fold(conn: &Connection) -> Outcome<(Folded, bool)> {
    let mut lot = Lot::new(&WIDTHS);
    let (mut changes, mut last, mut more) = (0, None, false);
    {
        let mut select =
            conn.prepare_cached("SELECT id, data FROM prompt_engine_changes ORDER BY id")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            if changes >= LOT_CHANGES {
                more = true;
                break;
            }
            changes += lot.add(row.get_ref(1)?.as_blob()?)?;
            last = Some(row.get::<_, i64>(0)?);
        }
    }
    let Some(last) = last else { return Ok((Folded::default(), false)) };
    write(conn, lot)?;
    conn.prepare_cached("DELETE FROM prompt_engine_changes WHERE id <= ?")?.execute([last])?;
    Ok((Folded { changes, more }, is_due(conn)?))
}

/// Adds a lot to the cells that it touches; answers how many are written. One that cannot be read stays
/// as it is, and makes every answer that needs it fail, until it is made anew from its records, which
/// lack nothing: it must not be in the way of all others.
fn write(conn: &Connection, lot: Lot) -> Outcome<u64> {
    let mut select = conn.prepare_cached(
        "SELECT c.sums, d.durations FROM prompt_engine_cells AS c
         LEFT JOIN prompt_engine_cell_durations AS d USING (cube, width, start, lead)
         WHERE cube = ? AND width = ? AND start = ? AND lead = ?",
    )?;
    let mut put_sums = conn.prepare_cached(
        "INSERT INTO prompt_engine_cells (cube, width, start, lead, sums) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET sums = excluded.sums",
    )?;
    let mut put_durations = conn.prepare_cached(
        "INSERT INTO prompt_engine_cell_durations (cube, width, start, lead, durations)
         VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET durations = excluded.durations",
    )?;
    let mut touched = lot.finish();
    let mut cells = 0;
    while let Some(key) = touched.next_key() {
        let CellKey { cube, width, start, lead } = &key;
        let (cube, width) = (cube.code(), width.code());
        let old = select
            .query_row((cube, width, start, lead), |row| {
                // Histograms that are gone are none that can be read.
                let durations = row.get::<_, Option<_>>(1)?.unwrap_or_default();
                Ok(CellValues { sums: row.get(0)?, durations })
            })
            .optional()?;
        let new = match touched.merged(old.as_ref()) {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::warn!(error = error.chain(), ?key, "a cell is left as it is");
                continue;
            }
            merged => merged?,
        };
        put_sums.execute((cube, width, start, lead, &new.sums))?;
        // A cost that was revised changes no duration.
        if old.is_none_or(|old| old.durations != new.durations) {
            put_durations.execute((cube, width, start, lead, &new.durations))?;
        }
        cells += 1;
    }
    Ok(cells)
}

/// Makes cells anew; the caller commits.
pub(crate) fn rebuild(
    conn: &Connection,
    terms: &mut TermReader<'_>,
    part: Rebuild,
) -> Outcome<Rebuilt> {
    let horizon = meta(conn, RAW_HORIZON)?.unwrap_or(i64::MIN);
    // Records that are read here must wait no more.
    while fold(conn)?.0.more {}
    let mut done = Rebuilt::default();
    let (to, of) = part.cell();
    if of.to <= horizon {
        return Ok(done);
    }
    if let Rebuild::Hour(_) = part {
        let live = Stretch { from: of.from.max(horizon), to: of.to };
        let (changes, records) = changes_of(conn, terms, live)?;
        let mut lot = Lot::new(&[BucketWidth::QuarterHour]);
        lot.add(&changes.encode())?;
        delete(conn, BucketWidth::QuarterHour, live)?;
        done.records = records;
        done.cells += write(conn, lot)?;
    }
    delete(conn, to, of)?;
    for cube in Cube::ALL {
        let (from, mut lot) = (BucketWidth::QuarterHour, Lot::new(&[to]));
        each(conn, *cube, from, of, None, true, |start, lead, sums, durations| {
            let key = CellKey { cube: *cube, width: from, start, lead: lead.to_vec() };
            let durations = durations.unwrap_or_default().to_vec();
            Ok(lot.add_cell(&key, &CellValues { sums: sums.to_vec(), durations })?)
        })?;
        done.cells += write(conn, lot)?;
    }
    Ok(done)
}

/// Adds those sums of pruned records to cells that are missing. The caller commits.
pub(crate) fn restore(conn: &Connection, sums: &[PrunedSums]) -> Outcome<Restored> {
    // What is here already is in cells alone then.
    while fold(conn)?.0.more {}
    let mut restoring = Restoring::new(sums)?;
    let (width, of) = (Restoring::WIDTH, restoring.stretch());
    for cube in Restoring::CUBES {
        each(conn, cube, width, of, None, true, |start, lead, sums, durations| {
            let key = CellKey { cube, width, start, lead: lead.to_vec() };
            let durations = durations.unwrap_or_default().to_vec();
            Ok(restoring.cell(&key, &CellValues { sums: sums.to_vec(), durations })?)
        })?;
    }
    let horizon = optional(meta(conn, RAW_HORIZON)?, moment)?;
    let (lot, done) = restoring.missing(horizon)?;
    write(conn, lot)?;
    Ok(done)
}

/// The changes that the records of a stretch are, and how many records these are.
fn changes_of(
    conn: &Connection,
    terms: &mut TermReader<'_>,
    of: Stretch,
) -> Outcome<(Changes, u64)> {
    let (mut changes, mut records) = (Changes::default(), 0);
    each_record(conn, terms, of, |record| {
        changes.record(&record);
        records += 1;
        Ok(())
    })?;
    Ok((changes, records))
}

/// Keeps all records of a store that had no cells as changes.
pub(crate) fn start(conn: &Connection) -> Outcome<()> {
    let terms = Terms::default();
    let mut changes = Changes::default();
    let all = Stretch { from: i64::MIN, to: i64::MAX };
    each_record(conn, &mut TermReader::new(&terms, conn), all, |record| {
        changes.record(&record);
        if changes.len() >= LOT_CHANGES {
            keep(conn, &std::mem::take(&mut changes))?;
        }
        Ok(())
    })?;
    keep(conn, &changes)?;
    Ok(())
}

/// Calls `visit` with the records of a stretch, without their payloads.
fn each_record(
    conn: &Connection,
    terms: &mut TermReader<'_>,
    of: Stretch,
    mut visit: impl FnMut(Record) -> Outcome<()>,
) -> Outcome<()> {
    let mut select = conn.prepare_cached(concat!(
        "SELECT ",
        usage_columns!(),
        " FROM prompt_engine_usages WHERE created_at >= ? AND created_at < ?"
    ))?;
    let mut rows = select.query((of.from, of.to))?;
    while let Some(row) = rows.next()? {
        visit(usage(row, terms)?.into())?;
    }
    let mut select = conn.prepare_cached(concat!(
        "SELECT ",
        execution_columns!(),
        " FROM prompt_engine_llm_executions WHERE created_at >= ? AND created_at < ?"
    ))?;
    let mut rows = select.query((of.from, of.to))?;
    while let Some(row) = rows.next()? {
        visit(execution(row, terms)?.into())?;
    }
    Ok(())
}

fn delete(conn: &Connection, width: BucketWidth, of: Stretch) -> Outcome<()> {
    for cube in Cube::ALL {
        for table in [
            "DELETE FROM prompt_engine_cells
             WHERE cube = ? AND width = ? AND start >= ? AND start < ?",
            "DELETE FROM prompt_engine_cell_durations
             WHERE cube = ? AND width = ? AND start >= ? AND start < ?",
        ] {
            conn.prepare_cached(table)?.execute((cube.code(), width.code(), of.from, of.to))?;
        }
    }
    Ok(())
}

/// Calls `visit` with the start, the lead, the sums and, if they are wanted, the histograms of the
/// cells of a stretch, of one lead or of all.
fn each(
    conn: &Connection,
    cube: Cube,
    width: BucketWidth,
    of: Stretch,
    lead: Option<&[u8]>,
    durations: bool,
    mut visit: impl FnMut(i64, &[u8], &[u8], Option<&[u8]>) -> Outcome<()>,
) -> Outcome<()> {
    let mut select = conn.prepare_cached(if durations {
        "SELECT start, lead, sums, d.durations FROM prompt_engine_cells
         LEFT JOIN prompt_engine_cell_durations AS d USING (cube, width, start, lead)
         WHERE cube = ? AND width = ? AND start >= ? AND start < ? AND (?5 IS NULL OR lead = ?5)"
    } else {
        "SELECT start, lead, sums, NULL FROM prompt_engine_cells
         WHERE cube = ? AND width = ? AND start >= ? AND start < ? AND (?5 IS NULL OR lead = ?5)"
    })?;
    let mut rows = select.query((cube.code(), width.code(), of.from, of.to, lead))?;
    while let Some(row) = rows.next()? {
        let (lead, sums) = (row.get_ref(1)?.as_blob()?, row.get_ref(2)?.as_blob()?);
        let durations = histograms(row.get_ref(3)?, durations)?;
        visit(row.get(0)?, lead, sums, durations)?;
    }
    Ok(())
}

/// The histograms of a cell, where they are wanted.
fn histograms(value: ValueRef<'_>, wanted: bool) -> Outcome<Option<&[u8]>> {
    match value.as_blob_or_null()? {
        None if wanted => {
            Err(Error::corrupt("a cell has no histograms; `doctor --rebuild` makes it anew").into())
        }
        value => Ok(value),
    }
}

/// Adds the cells and the changes of `plan` to `tally`.
pub(crate) fn read(conn: &Connection, plan: &Plan, tally: &mut Tally<'_>) -> Outcome<()> {
    let Some(cube) = plan.cube() else { return Ok(()) };
    let durations = plan.reads_durations();
    for (width, of) in plan.cells() {
        match plan.lead().zip(of.starts(width)) {
            Some((lead, starts)) => {
                let mut select = conn.prepare_cached(if durations {
                    "SELECT sums, d.durations FROM prompt_engine_cells
                     LEFT JOIN prompt_engine_cell_durations AS d USING (cube, width, start, lead)
                     WHERE cube = ? AND width = ? AND start = ? AND lead = ?"
                } else {
                    "SELECT sums, NULL FROM prompt_engine_cells
                     WHERE cube = ? AND width = ? AND start = ? AND lead = ?"
                })?;
                for start in starts {
                    let mut rows = select.query((cube.code(), width.code(), start, lead))?;
                    if let Some(row) = rows.next()? {
                        let durations =
                            if durations { Some(row.get_ref(1)?.as_blob()?) } else { None };
                        tally.cell(width, start, lead, row.get_ref(0)?.as_blob()?, durations)?;
                    }
                }
            }
            None => each(
                conn,
                cube,
                width,
                of,
                plan.lead(),
                durations,
                |start, lead, sums, durations| Ok(tally.cell(width, start, lead, sums, durations)?),
            )?,
        }
    }
    if plan.reads_changes() {
        let mut select = conn.prepare_cached("SELECT data FROM prompt_engine_changes")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            tally.changes(row.get_ref(0)?.as_blob()?)?;
        }
    }
    Ok(())
}

/// The first and the last moment of anything that is counted.
pub(crate) fn extent(conn: &Connection) -> Outcome<Extent> {
    let mut extent: Extent = None;
    let mut widen = |first: Option<i64>, last: Option<i64>| -> Outcome<()> {
        for micros in first.into_iter().chain(last) {
            let at = moment(micros)?;
            extent = extent.map(|(first, last)| (at.min(first), at.max(last))).or(Some((at, at)));
        }
        Ok(())
    };
    // Each end by itself: one statement for both would walk the table.
    for ends in [
        "SELECT (SELECT min(created_at) FROM prompt_engine_usages),
                (SELECT max(created_at) FROM prompt_engine_usages)",
        "SELECT (SELECT min(created_at) FROM prompt_engine_llm_executions),
                (SELECT max(created_at) FROM prompt_engine_llm_executions)",
        "SELECT (SELECT min(start) FROM prompt_engine_cells WHERE cube = 0 AND width = 0),
                (SELECT max(start) FROM prompt_engine_cells WHERE cube = 0 AND width = 0)",
    ] {
        let (first, last) =
            conn.prepare_cached(ends)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        widen(first, last)?;
    }
    let mut select = conn.prepare_cached("SELECT data FROM prompt_engine_changes")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        widen_extent(&mut extent, row.get_ref(0)?.as_blob()?)?;
    }
    Ok(extent)
}
