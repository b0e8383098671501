//! Cells and changes: where the values lie that core's cubes are made of; see `docs/cubes.md`.
//! Invariant: changes are written with the records they come from, and deleted with the cells that
//! took them in, so each is counted once, whenever a process ends.

use prompt_engine_core::cube::{
    CellKey, CellValues, Changes, Extent, LOT_CHANGES, Lot, Plan, Restoring, Stretch, Tally,
    WIDTHS, widen_extent,
};
use prompt_engine_core::{
    BucketWidth, Cube, Error, ErrorKind, Folded, PrunedSums, Rebuild, Rebuilt, Restored, Timestamp,
};
use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use crate::error::{Fault, Outcome};
use crate::layout::{
    self, CELL_DURATIONS, CELLS, CHANGES, EXECUTIONS, META, RowKey, USAGES, cell_key, cell_of_key,
    cell_prefix, split,
};
use crate::prune::RAW_HORIZON;
use crate::rows::{read_execution, read_usage};
use crate::store::{meta, set_meta};
use crate::terms::Lookup;

/// How many changes were folded since the store was made.
const FOLDED: &str = "folded";

/// Keeps the changes of a transaction; answers whether it is time for a fold.
pub(crate) fn keep(txn: &WriteTransaction, changes: &Changes) -> Outcome<bool> {
    let mut table = txn.open_table(CHANGES)?;
    let folded = folded(txn)?;
    let mut last = last(&table)?.unwrap_or(folded);
    if !changes.is_empty() {
        last += changes.len();
        table.insert(last, &*changes.encode())?;
    }
    Ok(is_due(last, folded))
}

/// Whether a lot of changes waits.
pub(crate) fn waits(txn: &ReadTransaction) -> Outcome<bool> {
    let folded = meta(&txn.open_table(META)?, FOLDED)?.unwrap_or(0).cast_unsigned();
    let last = last(&txn.open_table(CHANGES)?)?.unwrap_or(folded);
    Ok(is_due(last, folded))
}

fn is_due(last: u64, folded: u64) -> bool {
    last.saturating_sub(folded) >= LOT_CHANGES
}

fn folded(txn: &WriteTransaction) -> Outcome<u64> {
    Ok(meta(&txn.open_table(META)?, FOLDED)?.unwrap_or(0).cast_unsigned())
}

/// How many changes had come with the last that wait.
fn last(table: &impl ReadableTable<u64, &'static [u8]>) -> Outcome<Option<u64>> {
    Ok(table.last()?.map(|(key, _)| key.value()))
}

/// What a fold writes. It is worked out from a snapshot, while records are still appended: cells are
/// changed and changes deleted by folds and rebuilds alone, which take turns.
pub(crate) struct Fold {
    cells: Vec<NewCell>,
    /// The key of the last of its changes.
    last: u64,
    folded: Folded,
}

/// What a cell becomes; its histograms only where they are others.
struct NewCell {
    key: Vec<u8>,
    sums: Vec<u8>,
    durations: Option<Vec<u8>>,
}

impl Fold {
    /// What the oldest changes make of the cells; `None` if none wait.
    pub(crate) fn next(txn: &ReadTransaction) -> Outcome<Option<Self>> {
        let (sums, durations) = (txn.open_table(CELLS)?, txn.open_table(CELL_DURATIONS)?);
        Self::of(&txn.open_table(CHANGES)?, &sums, &durations)
    }

    fn of<T: ReadableTable<&'static [u8], &'static [u8]>>(
        waiting: &impl ReadableTable<u64, &'static [u8]>,
        sums: &T,
        durations: &T,
    ) -> Outcome<Option<Self>> {
        let mut lot = Lot::new(&WIDTHS);
        let (mut folded, mut last) = (Folded::default(), None);
        for entry in waiting.iter()? {
            if folded.changes >= LOT_CHANGES {
                folded.more = true;
                break;
            }
            let (key, value) = entry?;
            folded.changes += lot.add(value.value())?;
            last = Some(key.value());
        }
        let Some(last) = last else { return Ok(None) };
        let cells = merged(sums, durations, lot)?;
        Ok(Some(Self { cells, last, folded }))
    }

    /// Writes it; answers whether it is time for another. The caller commits.
    pub(crate) fn write(self, txn: &WriteTransaction) -> Outcome<(Folded, bool)> {
        let Self { cells, last, folded } = self;
        put(txn, &cells)?;
        let mut table = txn.open_table(CHANGES)?;
        table.retain_in(..=last, |_, _| false)?;
        set_meta(txn, FOLDED, last.cast_signed())?;
        // More may have come since.
        Ok((folded, is_due(self::last(&table)?.unwrap_or(last), last)))
    }
}

/// What a lot makes of the cells that it touches. One that cannot be read stays as it is, and makes every
/// answer that needs it fail, until it is made anew from its records, which lack nothing: it must not be
/// in the way of all others.
fn merged<T: ReadableTable<&'static [u8], &'static [u8]>>(
    sums: &T,
    durations: &T,
    lot: Lot,
) -> Outcome<Vec<NewCell>> {
    let mut touched = lot.finish();
    let mut cells = Vec::with_capacity(touched.len());
    while let Some(key) = touched.next_key() {
        let key = cell_key(&key);
        let old = match sums.get(&*key)? {
            // Without histograms it is damaged: no bytes are none.
            Some(sums) => Some(CellValues {
                sums: sums.value().to_vec(),
                durations: durations
                    .get(&*key)?
                    .map(|durations| durations.value().to_vec())
                    .unwrap_or_default(),
            }),
            None => None,
        };
        let CellValues { sums, durations } = match touched.merged(old.as_ref()) {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::warn!(error = error.chain(), ?key, "a cell is left as it is");
                continue;
            }
            merged => merged?,
        };
        // A cost that was revised changes no duration.
        let durations = Some(durations)
            .filter(|durations| old.as_ref().is_none_or(|old| old.durations != *durations));
        cells.push(NewCell { key, sums, durations });
    }
    Ok(cells)
}

/// Writes cells; answers how many they are.
fn put(txn: &WriteTransaction, cells: &[NewCell]) -> Outcome<u64> {
    let mut sums = txn.open_table(CELLS)?;
    let mut durations = txn.open_table(CELL_DURATIONS)?;
    for cell in cells {
        sums.insert(&*cell.key, &*cell.sums)?;
        if let Some(new) = &cell.durations {
            durations.insert(&*cell.key, &**new)?;
        }
    }
    Ok(cells.len() as u64)
}

/// Writes the cells of a lot where there are none; answers how many these are.
fn put_lot(txn: &WriteTransaction, lot: Lot) -> Outcome<u64> {
    let cells = {
        let (sums, durations) = (txn.open_table(CELLS)?, txn.open_table(CELL_DURATIONS)?);
        merged(&sums, &durations, lot)?
    };
    put(txn, &cells)
}

fn no_durations() -> Fault {
    Fault::Judged(Error::corrupt("a cell has no histograms; `doctor --rebuild` makes it anew"))
}

/// Folds all that waits.
fn fold_all(txn: &WriteTransaction) -> Outcome<()> {
    loop {
        let fold = {
            let (sums, durations) = (txn.open_table(CELLS)?, txn.open_table(CELL_DURATIONS)?);
            Fold::of(&txn.open_table(CHANGES)?, &sums, &durations)?
        };
        let Some(fold) = fold else { return Ok(()) };
        fold.write(txn)?;
    }
}

/// Makes cells anew; the caller commits.
pub(crate) fn rebuild(
    txn: &WriteTransaction,
    terms: &impl Lookup,
    part: Rebuild,
) -> Outcome<Rebuilt> {
    // Records that are read here must wait no more.
    fold_all(txn)?;
    let horizon = meta(&txn.open_table(META)?, RAW_HORIZON)?.unwrap_or(i64::MIN);
    let mut done = Rebuilt::default();
    let (to, of) = part.cell();
    if of.to <= horizon {
        return Ok(done);
    }
    if let Rebuild::Hour(_) = part {
        let live = Stretch { from: of.from.max(horizon), to: of.to };
        let mut changes = Changes::default();
        done.records = add_records(txn, terms, live, &mut changes, |_| Ok(()))?;
        let mut lot = Lot::new(&[BucketWidth::QuarterHour]);
        lot.add(&changes.encode())?;
        delete(txn, BucketWidth::QuarterHour, live)?;
        done.cells += put_lot(txn, lot)?;
    }
    delete(txn, to, of)?;
    for cube in Cube::ALL {
        let (from, mut lot) = (BucketWidth::QuarterHour, Lot::new(&[to]));
        {
            let (sums, durations) = (txn.open_table(CELLS)?, txn.open_table(CELL_DURATIONS)?);
            each(&sums, Some(&durations), *cube, from, of, |start, lead, sums, durations| {
                let key = CellKey { cube: *cube, width: from, start, lead: lead.to_vec() };
                let durations = durations.unwrap_or_default().to_vec();
                Ok(lot.add_cell(&key, &CellValues { sums: sums.to_vec(), durations })?)
            })?;
        }
        done.cells += put_lot(txn, lot)?;
    }
    Ok(done)
}

/// Adds those sums of pruned records to cells that are missing. The caller commits.
pub(crate) fn restore(txn: &WriteTransaction, sums: &[PrunedSums]) -> Outcome<Restored> {
    // What is here already is in cells alone then.
    fold_all(txn)?;
    let mut restoring = Restoring::new(sums)?;
    let (width, of) = (Restoring::WIDTH, restoring.stretch());
    {
        let (sums, durations) = (txn.open_table(CELLS)?, txn.open_table(CELL_DURATIONS)?);
        for cube in Restoring::CUBES {
            each(&sums, Some(&durations), cube, width, of, |start, lead, sums, durations| {
                let key = CellKey { cube, width, start, lead: lead.to_vec() };
                let durations = durations.unwrap_or_default().to_vec();
                Ok(restoring.cell(&key, &CellValues { sums: sums.to_vec(), durations })?)
            })?;
        }
    }
    let horizon = meta(&txn.open_table(META)?, RAW_HORIZON)?;
    let (lot, done) = restoring.missing(horizon.map(layout::moment).transpose()?)?;
    put_lot(txn, lot)?;
    Ok(done)
}

/// Keeps all records of a store that had no cells as changes.
pub(crate) fn start(txn: &WriteTransaction, terms: &impl Lookup) -> Outcome<()> {
    let mut changes = Changes::default();
    let all = Stretch { from: i64::MIN, to: i64::MAX };
    add_records(txn, terms, all, &mut changes, |changes| {
        if changes.len() >= LOT_CHANGES {
            keep(txn, &std::mem::take(changes))?;
        }
        Ok(())
    })?;
    keep(txn, &changes)?;
    Ok(())
}

/// Adds the records of a stretch to `changes`, and calls `then` after each; answers how many they are.
fn add_records(
    txn: &WriteTransaction,
    terms: &impl Lookup,
    of: Stretch,
    changes: &mut Changes,
    mut then: impl FnMut(&mut Changes) -> Outcome<()>,
) -> Outcome<u64> {
    let row_keys = layout::Stretch::of_time(of);
    let range = (row_keys.from, row_keys.to);
    let mut records = 0;
    for entry in txn.open_table(USAGES.rows)?.range::<RowKey>(range)? {
        let (row_key, row) = entry?;
        changes.usage(&read_usage(row_key.value(), row.value(), terms)?);
        records += 1;
        then(changes)?;
    }
    for entry in txn.open_table(EXECUTIONS.rows)?.range::<RowKey>(range)? {
        let (row_key, row) = entry?;
        changes.execution(&read_execution(row_key.value(), row.value(), terms)?);
        records += 1;
        then(changes)?;
    }
    Ok(records)
}

/// Deletes the cells of a stretch.
fn delete(txn: &WriteTransaction, width: BucketWidth, of: Stretch) -> Outcome<()> {
    let mut sums = txn.open_table(CELLS)?;
    let mut durations = txn.open_table(CELL_DURATIONS)?;
    for cube in Cube::ALL {
        let from = cell_prefix(*cube, width, of.from);
        let to = cell_prefix(*cube, width, of.to);
        sums.retain_in(&from[..]..&to[..], |_, _| false)?;
        durations.retain_in(&from[..]..&to[..], |_, _| false)?;
    }
    Ok(())
}

/// Calls `visit` with the start, the lead, the sums and, if that table is given, the histograms of the
/// cells of a stretch.
fn each<T: ReadableTable<&'static [u8], &'static [u8]>>(
    sums: &T,
    durations: Option<&T>,
    cube: Cube,
    width: BucketWidth,
    of: Stretch,
    mut visit: impl FnMut(i64, &[u8], &[u8], Option<&[u8]>) -> Outcome<()>,
) -> Outcome<()> {
    let (from, to) = (cell_prefix(cube, width, of.from), cell_prefix(cube, width, of.to));
    let range = &from[..]..&to[..];
    // Both have the same keys, so one step in each finds the two values of a cell.
    let mut beside = durations.map(|table| table.range::<&[u8]>(range.clone())).transpose()?;
    for entry in sums.range::<&[u8]>(range)? {
        let (key, sums) = entry?;
        let durations = match &mut beside {
            Some(beside) => {
                let (other, durations) = beside.next().transpose()?.ok_or_else(no_durations)?;
                if other.value() != key.value() {
                    return Err(no_durations());
                }
                Some(durations)
            }
            None => None,
        };
        let (start, lead) = cell_of_key(key.value())?;
        visit(start, lead, sums.value(), durations.as_ref().map(|durations| durations.value()))?;
    }
    Ok(())
}

/// Adds the cells and the changes of `plan` to `tally`.
pub(crate) fn read(txn: &ReadTransaction, plan: &Plan, tally: &mut Tally<'_>) -> Outcome<()> {
    let Some(cube) = plan.cube() else { return Ok(()) };
    let sums = txn.open_table(CELLS)?;
    let durations = plan.reads_durations().then(|| txn.open_table(CELL_DURATIONS)).transpose()?;
    for (width, of) in plan.cells() {
        let Some((lead, starts)) = plan.lead().zip(of.starts(width)) else {
            each(&sums, durations.as_ref(), cube, width, of, |start, lead, sums, durations| {
                if plan.lead().is_none_or(|wanted| wanted == lead) {
                    tally.cell(width, start, lead, sums, durations)?;
                }
                Ok(())
            })?;
            continue;
        };
        let mut key = [&cell_prefix(cube, width, 0)[..], lead].concat();
        for start in starts {
            key[..10].copy_from_slice(&cell_prefix(cube, width, start));
            let Some(sums) = sums.get(&*key)? else { continue };
            let durations = match &durations {
                Some(table) => Some(table.get(&*key)?.ok_or_else(no_durations)?),
                None => None,
            };
            let durations = durations.as_ref().map(|durations| durations.value());
            tally.cell(width, start, lead, sums.value(), durations)?;
        }
    }
    if plan.reads_changes() {
        for entry in txn.open_table(CHANGES)?.iter()? {
            tally.changes(entry?.1.value())?;
        }
    }
    Ok(())
}

/// The first and the last moment of anything that is counted.
pub(crate) fn extent(txn: &ReadTransaction) -> Outcome<Extent> {
    let mut extent: Extent = None;
    let mut widen = |at: Timestamp| {
        extent = extent.map(|(first, last)| (at.min(first), at.max(last))).or(Some((at, at)));
    };
    for kind in [USAGES, EXECUTIONS] {
        let rows = txn.open_table(kind.rows)?;
        for end in [rows.first()?, rows.last()?].into_iter().flatten() {
            widen(split(end.0.value())?.0);
        }
    }
    let cells = txn.open_table(CELLS)?;
    let [from, to] = [i64::MIN, i64::MAX]
        .map(|start| cell_prefix(Cube::Totals, BucketWidth::QuarterHour, start));
    let mut quarters = cells.range::<&[u8]>(&from[..]..&to[..])?;
    for end in [quarters.next(), quarters.next_back()].into_iter().flatten() {
        widen(layout::moment(cell_of_key(end?.0.value())?.0)?);
    }
    for entry in txn.open_table(CHANGES)?.iter()? {
        widen_extent(&mut extent, entry?.1.value())?;
    }
    Ok(extent)
}
