//! A lot of changes (or of narrower cells) on its way into cells: which they touch, and what those
//! become. It knows nothing of where cells are kept: a store reads and writes the values.

use std::collections::HashMap;
use std::ops::Range;

use foldhash::fast::RandomState;

use crate::error::Result;
use crate::pruned::{PrunedOf, PrunedSums};
use crate::time::BucketWidth;

use super::cell::{self, CellKey, CellValues, Lead, Series, lead_bytes, read_lead};
use super::change::{self, Change, What};
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
    items: Vec<Item>,
    entries: Vec<Entry>,
}

/// What is added to a series.
#[derive(Debug)]
enum Item {
    Change(What),
    Sums(Box<Sums>),
}

/// That an item is added to a series of a cell. Sorted, those of a cell and of a series lie together.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    cell: Cell,
    series: Series,
    item: usize,
}

/// Which cell, its lead in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cell {
    cube: Cube,
    width: BucketWidth,
    start: i64,
    lead: Lead,
}

/// What something that is counted is told apart by.
struct Place {
    at: i64,
    prompt: u32,
    version: u32,
    environment: u32,
    /// The provider and the model that were asked: a use has neither.
    asked: Option<(u32, u32)>,
}

impl Place {
    /// Enters an item into all cells that it belongs to.
    fn enter(self, widths: &[BucketWidth], item: usize, entries: &mut Vec<Entry>) {
        let Self { at, prompt, version, environment, asked } = self;
        let prompt = Lead { prompt, ..Lead::default() };
        let of = Series { environment, version, ..Series::default() };
        let mut enter = |cube: Cube, lead: Lead, series: Series| {
            for width in widths {
                let cell = Cell { cube, width: *width, start: start_of(*width, at), lead };
                entries.push(Entry { cell, series, item });
            }
        };
        let total = Series { version: 0, ..of };
        enter(Cube::Totals, Lead::default(), total);
        enter(Cube::Prompts, prompt, of);
        if let Some((provider, model)) = asked {
            enter(Cube::Models, Lead { provider, model, ..Lead::default() }, total);
            enter(Cube::Calls, prompt, Series { provider, model, ..of });
        }
    }
}

impl Lot {
    /// An empty lot, for cells of these widths.
    pub fn new(widths: &[BucketWidth]) -> Self {
        Self {
            widths: widths.to_vec(),
            names: Names::default(),
            items: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// Adds the changes of a value of [`Changes`](super::Changes); answers how many they are.
    ///
    /// # Errors
    /// `Corrupt` if it is no such value.
    pub fn add(&mut self, changes: &[u8]) -> Result<u64> {
        let Self { widths, names, items, entries } = self;
        change::read(changes, names, |change| {
            let Change { at, prompt, version, environment, what } = change;
            let asked = match what {
                What::Use => None,
                What::Call { provider, model, .. } | What::Recost { provider, model, .. } => {
                    Some((provider, model))
                }
            };
            let place = Place { at, prompt, version, environment, asked };
            place.enter(widths, items.len(), entries);
            items.push(Item::Change(what));
        })
    }

    /// Adds sums of pruned records.
    pub(super) fn add_pruned(&mut self, pruned: &PrunedSums) -> Result<()> {
        let Self { widths, names, items, entries } = self;
        let asked = match &pruned.of {
            PrunedOf::Uses(_) => None,
            PrunedOf::Calls(calls) => {
                Some((names.label(&calls.provider)?, names.label(&calls.model)?))
            }
        };
        let place = Place {
            at: pruned.quarter.as_micros(),
            prompt: names.prompt(pruned.prompt),
            version: pruned.version,
            environment: names.label(&pruned.environment)?,
            asked,
        };
        place.enter(widths, items.len(), entries);
        items.push(Item::Sums(Box::new(Sums::of(&pruned.measures()))));
        Ok(())
    }

    /// Adds a cell to the wider ones around it.
    ///
    /// # Errors
    /// `Corrupt` if its values are none.
    pub fn add_cell(&mut self, key: &CellKey, values: &CellValues) -> Result<()> {
        let lead = read_lead(key.cube, &key.lead, &mut self.names)?;
        let (series, sums) = cell::read(key.cube, values, &mut self.names)?;
        for (series, sums) in series.into_iter().zip(sums) {
            for width in &self.widths {
                let start = start_of(*width, key.start);
                let cell = Cell { cube: key.cube, width: *width, start, lead };
                self.entries.push(Entry { cell, series, item: self.items.len() });
            }
            self.items.push(Item::Sums(Box::new(sums)));
        }
        Ok(())
    }

    /// The cells that are touched.
    pub fn finish(self) -> Touched {
        let Self { names, items, mut entries, .. } = self;
        entries.sort_unstable();
        let mut cells = Vec::new();
        let mut from = 0;
        for of_one in entries.chunk_by(|a, b| a.cell == b.cell) {
            let Cell { cube, width, start, lead } = of_one[0].cell;
            let key = CellKey { cube, width, start, lead: lead_bytes(cube, lead, &names) };
            cells.push((key, from..from + of_one.len()));
            from += of_one.len();
        }
        cells.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
        Touched { names, items, entries, cells }
    }
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
    items: Vec<Item>,
    entries: Vec<Entry>,
    /// The last is the next, each with its part of the entries.
    cells: Vec<(CellKey, Range<usize>)>,
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
        let (key, entries) = self
            .cells
            .pop()
            .ok_or_else(|| crate::Error::not_found("no cell is left that was touched"))?;
        let (mut series, mut sums) = match old {
            // Series keep their places, so that histograms find theirs.
            Some(old) => cell::read(key.cube, old, &mut self.names)?,
            None => Default::default(),
        };
        let places: HashMap<Series, usize, RandomState> = series.iter().copied().zip(0..).collect();
        for of_one in self.entries[entries].chunk_by(|a, b| a.series == b.series) {
            let of = of_one[0].series;
            let place = places.get(&of).copied().unwrap_or_else(|| {
                series.push(of);
                sums.push(Sums::default());
                sums.len() - 1
            });
            for entry in of_one {
                match &self.items[entry.item] {
                    Item::Change(what) => apply(what, &mut sums[place]),
                    Item::Sums(more) => sums[place].merge(more),
                }
            }
        }
        Ok(cell::write(key.cube, &series, &sums, &self.names))
    }
}
