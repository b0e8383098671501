//! Sums of pruned records on their way into the cells of another store: which of them are missing there.
//! Invariant: nothing is counted twice. A sum is added only to cells that count none of its records,
//! and only before the raw horizon, where no record can come any more.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::error::Result;
use crate::pruned::{PrunedOf, PrunedSums};
use crate::store::Restored;
use crate::time::{BucketWidth, Timestamp};

use super::cell::{self, CellKey, CellValues, Lead, Series, read_lead};
use super::lot::{Lot, WIDTHS};
use super::names::Names;
use super::plan::Stretch;
use super::sums::{Sums, USES};
use super::{Cube, QUARTER};

/// Sums that are to be taken in, and what cells say of them.
///
/// A store that folded all that waits shows it the quarters of [`Self::CUBES`] in [`Self::stretch`], and
/// adds the lot of [`Self::missing`] to its cells, all in one transaction.
///
/// # Example: into a store without cells
/// ```
/// use prompt_engine_core::cube::Restoring;
/// use prompt_engine_core::{Label, PromptId, PrunedOf, PrunedSums, Timestamp};
/// # let (prompt, environment) = (PromptId::new(), Label::new("test")?);
/// let quarter = Timestamp::from_micros(900_000_000)?;
/// let sums = [PrunedSums { quarter, prompt, version: 1, environment, of: PrunedOf::Uses(3) }];
/// let restoring = Restoring::new(&sums)?;
/// let horizon = Timestamp::from_micros(1_800_000_000)?;
/// let (lot, done) = restoring.missing(Some(horizon))?;
/// assert_eq!((lot.finish().len(), done.new), (6, 1)); // Of the totals and the prompt, in three widths.
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Restoring<'a> {
    sums: &'a [PrunedSums],
    names: Names,
    /// Which of the sums a series of a quarter is.
    wanted: HashMap<(Cube, i64, Lead, Series), usize, RandomState>,
    /// What cells say of each.
    found: Vec<Found>,
}

/// What cells say of a sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Same,
    Other,
}

impl<'a> Restoring<'a> {
    /// The width of the cells to look at.
    pub const WIDTH: BucketWidth = BucketWidth::QuarterHour;
    /// The cubes that tell which sums are there: that of the renders and that of the calls.
    pub const CUBES: [Cube; 2] = [Cube::Prompts, Cube::Calls];

    /// Sums that are to be taken in.
    ///
    /// # Errors
    /// `Invalid` if one of them breaks [`PrunedSums::validate`], or is there twice.
    pub fn new(sums: &'a [PrunedSums]) -> Result<Self> {
        let mut names = Names::default();
        let mut wanted = HashMap::default();
        for (place, sum) in sums.iter().enumerate() {
            sum.validate()?;
            let lead = Lead { prompt: names.prompt(sum.prompt), ..Lead::default() };
            let of = Series {
                version: sum.version,
                environment: names.label(&sum.environment)?,
                ..Series::default()
            };
            let (cube, series) = match &sum.of {
                PrunedOf::Uses(_) => (Cube::Prompts, of),
                PrunedOf::Calls(calls) => {
                    let provider = names.label(&calls.provider)?;
                    let model = names.label(&calls.model)?;
                    (Cube::Calls, Series { provider, model, ..of })
                }
            };
            let key = (cube, sum.quarter.as_micros(), lead, series);
            if wanted.insert(key, place).is_some() {
                return Err(crate::Error::invalid(format!("{sum} are there twice")));
            }
        }
        Ok(Self { sums, names, wanted, found: vec![Found::Nothing; sums.len()] })
    }

    /// From the first quarter to the end of the last.
    pub fn stretch(&self) -> Stretch {
        let starts = || self.sums.iter().map(|sum| sum.quarter.as_micros());
        let end = starts().max().map_or(0, |last| last + QUARTER);
        Stretch { from: starts().min().unwrap_or(end), to: end }
    }

    /// Looks at a quarter of one of the cubes.
    ///
    /// # Errors
    /// `Corrupt` if it is no cell.
    pub fn cell(&mut self, key: &CellKey, values: &CellValues) -> Result<()> {
        let lead = read_lead(key.cube, &key.lead, &mut self.names)?;
        let (series, stored) = cell::read(key.cube, values, &mut self.names)?;
        for (series, stored) in series.into_iter().zip(stored) {
            let Some(place) = self.wanted.get(&(key.cube, key.start, lead, series)) else {
                continue;
            };
            let sum = &self.sums[*place];
            let new = Sums::of(&sum.measures());
            let (there, same) = match &sum.of {
                PrunedOf::Uses(_) => {
                    (stored.counts[USES] > 0, stored.counts[USES] == new.counts[USES])
                }
                PrunedOf::Calls(_) => (stored != Sums::default(), stored == new),
            };
            self.found[*place] = match (there, same) {
                (false, _) => Found::Nothing,
                (true, true) => Found::Same,
                (true, false) => Found::Other,
            };
        }
        Ok(())
    }

    /// What is to be added to cells, and what becomes of the sums; `horizon` is the raw horizon of the
    /// store.
    ///
    /// # Errors
    /// `Corrupt` if one of their names is no label.
    pub fn missing(self, horizon: Option<Timestamp>) -> Result<(Lot, Restored)> {
        let mut lot = Lot::new(&WIDTHS);
        let mut done = Restored::default();
        for (sum, found) in self.sums.iter().zip(self.found) {
            match found {
                Found::Same => {}
                Found::Other => done.other += 1,
                Found::Nothing if horizon.is_none_or(|horizon| sum.quarter >= horizon) => {
                    done.unpruned += 1;
                }
                Found::Nothing => {
                    lot.add_pruned(sum)?;
                    done.new += 1;
                }
            }
        }
        Ok((lot, done))
    }
}
