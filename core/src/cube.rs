//! Cubes: measures that are kept pre-added for stretches of time and sets of dimensions, so that an
//! answer costs stretches and not calls. The calls here are pure: they plan, and turn bytes into
//! bytes; a store keeps the bytes. See `docs/cubes.md`.

mod cell;
mod change;
mod lot;
mod names;
mod plan;
mod restoring;
mod sums;
mod tally;
#[cfg(all(test, feature = "conformance"))]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;

pub use cell::{CellKey, CellValues};
pub use change::{Changes, widen_extent};
pub use lot::{Lot, Touched, WIDTHS};
pub use plan::{Extent, Plan, Stretch};
pub use restoring::Restoring;
pub use tally::Tally;

pub(crate) use plan::{misses, rounds};

use crate::aggregate::{AggregateQuery, Dimension, Source};
use crate::bytes::Reader;
use crate::error::{Error, Result};
use crate::status::named;
use crate::time::{BucketWidth, Timestamp};

/// Changes that a store folds in one transaction, and has unfolded at most before it does: see
/// `docs/cubes.md`.
pub const LOT_CHANGES: u64 = 8_192;

/// Reads a value of this form. A store that holds values of a newer form is refused when it is opened,
/// so another form is damage.
fn reader(bytes: &[u8], form: u8) -> Result<Reader<'_>> {
    Reader::new(bytes, form).map_err(|error| Error::corrupt(error.to_string()))
}

/// Microseconds of a quarter of an hour: the narrowest cell.
const QUARTER: i64 = 900_000_000;

fn micros_of(width: BucketWidth) -> i64 {
    match width {
        BucketWidth::QuarterHour => QUARTER,
        BucketWidth::Hour => 4 * QUARTER,
        BucketWidth::Day => 96 * QUARTER,
    }
}

/// Where the cell of this width starts that `micros` lies in. The year 0001 starts with a day.
fn start_of(width: BucketWidth, micros: i64) -> i64 {
    let step = micros_of(width);
    micros.div_euclid(step).saturating_mul(step)
}

/// The stretch of the cell of this width that `moment` lies in.
pub fn cell_of(width: BucketWidth, moment: Timestamp) -> Stretch {
    let from = start_of(width, moment.as_micros());
    Stretch { from, to: from + micros_of(width) }
}

/// What pruning the records before `moment` makes the raw horizon: the start of its quarter.
pub fn horizon_of(moment: Timestamp) -> Timestamp {
    let quarter = start_of(BucketWidth::QuarterHour, moment.as_micros());
    Timestamp::from_micros(quarter).unwrap_or(Timestamp::MIN)
}

named! {
    /// A set of dimensions that measures are kept for.
    Cube, "cube" {
        /// By environment.
        Totals = 0 "totals",
        /// By environment, prompt and version.
        Prompts = 1 "prompts",
        /// By environment, provider and model: executions alone, a use has neither.
        Models = 2 "models",
        /// By all five: executions alone.
        Calls = 3 "calls",
    }
}

impl Cube {
    /// The smallest cube that has what `query` filters and groups by; `None` where none has.
    pub fn covering(query: &AggregateQuery) -> Option<Self> {
        let filter = &query.filter;
        let has = |dimension: Dimension| query.group_by.contains(&dimension);
        let beyond =
            filter.session.is_some() || filter.user.is_some() || !filter.statuses.is_empty();
        if query.source == Source::Records
            || beyond
            || has(Dimension::Session)
            || has(Dimension::User)
        {
            return None;
        }
        let prompts = filter.prompt.is_some()
            || filter.version.is_some()
            || has(Dimension::Prompt)
            || has(Dimension::Version);
        let models = filter.provider.is_some()
            || filter.model.is_some()
            || has(Dimension::Provider)
            || has(Dimension::Model);
        Some(match (prompts, models) {
            (false, false) => Self::Totals,
            (true, false) => Self::Prompts,
            (false, true) => Self::Models,
            (true, true) => Self::Calls,
        })
    }

    /// Whether it counts uses.
    pub(crate) fn has_uses(self) -> bool {
        matches!(self, Self::Totals | Self::Prompts)
    }
}
