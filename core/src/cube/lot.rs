//! A lot of changes (or of narrower cells) on its way into cells: which they touch, and what those
//! become. It knows nothing of where cells are kept: a store reads and writes the values.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::error::Result;
use crate::time::BucketWidth;

use super::cell::{self, CellKey, CellValues, Lead, Series, lead_bytes, read_lead};
use super::change::{self, What};
use super::names::Names;
use super::sums::Sums;
use super::{Cube, start_of};

/// Every width that cells are kept in.
pub const WIDTHS: [BucketWidth; 3] =
    [BucketWidth::QuarterHour, BucketWidth::Hour, BucketWidth::Day];

/// Changes that are added to cells in one transaction.
///
/// # Example: a fold
/// ```
/// # use std::collections::BTreeMap;
/// # use prompt_engine_core::cube::{Changes, Lot, WIDTHS};
/// # use prompt_engine_core::{Attribution, Label, PromptId, Timestamp, Usage, UsageId};
/// # let attribution = Attribution {
/// #     prompt: PromptId::new(), version: 1, environment: Label::new("test")?, session: None, user: None };
/// # let (id, created_at) = (UsageId::new(), Timestamp::now());
/// # let usage = Usage { id, attribution, created_at, payload: None };
/// # let mut changes = Changes::default();
/// # changes.usage(&usage);
/// # let kept = changes.encode();
/// # let mut cells = BTreeMap::new();
/// let mut lot = Lot::new(&WIDTHS);
/// lot.add(&kept)?;
/// let mut touched = lot.finish();
/// while let Some(key) = touched.next_key() {
///     let old = cells.get(&key);
///     cells.insert(key, touched.merged(old)?);
/// }
/// assert_eq!(cells.len(), 2 * WIDTHS.len()); // Of the totals, and of the prompt.
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Lot {
    widths: Vec<BucketWidth>,
    names: Names,
    cells: HashMap<(Cube, BucketWidth, i64, Lead), Cell, RandomState>,
}

#[derive(Debug, Default)]
struct Cell {
    places: HashMap<Series, usize, RandomState>,
    series: Vec<Series>,
    sums: Vec<Sums>,
}

impl Cell {
    fn place(&mut self, series: Series) -> usize {
        *self.places.entry(series).or_insert_with(|| {
            self.series.push(series);
            self.sums.push(Sums::default());
            self.sums.len() - 1
        })
    }
}

impl Lot {
    /// An empty lot, for cells of these widths.
    pub fn new(widths: &[BucketWidth]) -> Self {
        Self { widths: widths.to_vec(), names: Names::default(), cells: HashMap::default() }
    }

    /// Adds the changes of a value of [`Changes`](super::Changes); answers how many they are.
    ///
    /// # Errors
    /// `Corrupt` if it is no such value.
    pub fn add(&mut self, changes: &[u8]) -> Result<u64> {
        let Self { widths, names, cells } = self;
        change::read(changes, names, |change| {
            let totals = (Cube::Totals, Lead::default());
            let prompts = (Cube::Prompts, Lead { prompt: change.prompt, ..Lead::default() });
            let asked = match change.what {
                What::Use => None,
                What::Call { provider, model, .. } | What::Recost { provider, model, .. } => {
                    Some((provider, model))
                }
            };
            let models = asked.map(|(provider, model)| {
                (Cube::Models, Lead { provider, model, ..Lead::default() })
            });
            let calls = asked.map(|_| (Cube::Calls, prompts.1));
            for (cube, lead) in [Some(totals), Some(prompts), models, calls].into_iter().flatten() {
                let series = series_of(cube, change, asked);
                for width in widths.iter() {
                    let key = (cube, *width, start_of(*width, change.at), lead);
                    let cell = cells.entry(key).or_default();
                    let place = cell.place(series);
                    apply(&change.what, &mut cell.sums[place]);
                }
            }
        })
    }

    /// Adds a cell to the wider ones around it.
    ///
    /// # Errors
    /// `Corrupt` if its values are none.
    pub fn add_cell(&mut self, key: &CellKey, values: &CellValues) -> Result<()> {
        let lead = read_lead(key.cube, &key.lead, &mut self.names)?;
        for width in self.widths.clone() {
            let at = (key.cube, width, start_of(width, key.start), lead);
            let Cell { places, series, sums } = self.cells.entry(at).or_default();
            let (value, durations) = (&values.sums, Some(&*values.durations));
            cell::add(key.cube, value, durations, &mut self.names, sums, |of, sums| {
                Some(*places.entry(of).or_insert_with(|| {
                    series.push(of);
                    sums.push(Sums::default());
                    sums.len() - 1
                }))
            })?;
        }
        Ok(())
    }

    /// The cells that are touched.
    pub fn finish(self) -> Touched {
        let mut cells: Vec<(CellKey, Cell)> = Vec::with_capacity(self.cells.len());
        for ((cube, width, start, lead), cell) in self.cells {
            let lead = lead_bytes(cube, lead, &self.names);
            cells.push((CellKey { cube, width, start, lead }, cell));
        }
        cells.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
        Touched { names: self.names, cells }
    }
}

fn series_of(cube: Cube, change: &change::Change, asked: Option<(u32, u32)>) -> Series {
    let mut series = Series { environment: change.environment, ..Series::default() };
    if matches!(cube, Cube::Prompts | Cube::Calls) {
        series.version = change.version;
    }
    if let (Cube::Calls, Some((provider, model))) = (cube, asked) {
        (series.provider, series.model) = (provider, model);
    }
    series
}

pub(super) fn apply(what: &What, sums: &mut Sums) {
    match what {
        What::Use => sums.add_use(),
        What::Call { call, .. } => sums.add_call(call),
        What::Recost { old, new, .. } => {
            sums.take_cost(*old);
            sums.add_cost(*new);
        }
    }
}

/// The cells that a [`Lot`] touches, in the order of their keys.
#[derive(Debug)]
pub struct Touched {
    names: Names,
    /// The last is the next.
    cells: Vec<(CellKey, Cell)>,
}

impl Touched {
    /// How many are left.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The keys of those that are left, in order.
    pub fn keys(&self) -> impl Iterator<Item = &CellKey> {
        self.cells.iter().rev().map(|(key, _)| key)
    }

    /// The key of the next.
    pub fn next_key(&self) -> Option<CellKey> {
        self.cells.last().map(|(key, _)| key.clone())
    }

    /// What the next becomes where it has these values; the one behind it is the next then.
    ///
    /// # Errors
    /// `Corrupt` if the old values are none, `NotFound` if there is no next.
    pub fn merged(&mut self, old: Option<&CellValues>) -> Result<CellValues> {
        let (key, new) = self
            .cells
            .pop()
            .ok_or_else(|| crate::Error::not_found("no cell is left that was touched"))?;
        let Some(old) = old else {
            return Ok(cell::write(key.cube, &new.series, &new.sums, &self.names));
        };
        let mut all = Cell::default();
        let Cell { places, series, sums } = &mut all;
        let (value, durations) = (&old.sums, Some(&*old.durations));
        // Series keep their places, so that histograms find theirs.
        cell::add(key.cube, value, durations, &mut self.names, sums, |of, sums| {
            places.insert(of, sums.len());
            series.push(of);
            sums.push(Sums::default());
            Some(sums.len() - 1)
        })?;
        for (series, sums) in new.series.into_iter().zip(&new.sums) {
            let place = all.place(series);
            all.sums[place].merge(sums);
        }
        Ok(cell::write(key.cube, &all.series, &all.sums, &self.names))
    }
}
