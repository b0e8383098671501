//! The planner: which cells and which records an answer is read from.
//! Invariant: every moment of the range is read exactly once, from cells or from records; before the
//! raw horizon from cells alone.

use std::time::Duration;

use crate::aggregate::{AggregateQuery, Detail};
use crate::time::{Bucket, BucketWidth, TimeRange, Timestamp};

use super::cell::model_lead;
use super::{Cube, QUARTER, micros_of, start_of};

/// Buckets that are told apart cell by cell; a series of more (a year of quarters is 35,000) is read
/// from the records.
const MOST_BUCKETS: usize = 50_000;

/// How an answer is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    cube: Option<Cube>,
    lead: Option<Vec<u8>>,
    durations: bool,
    cells: [Vec<Stretch>; 3],
    covered: Vec<Stretch>,
    records: Vec<Stretch>,
    horizon: i64,
    pub(super) rounded: bool,
    pub(super) missing_before: Option<Timestamp>,
}

/// A stretch of time, half-open, in microseconds since 1970; an open end is the least or the largest
/// number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Where it starts.
    pub from: i64,
    /// Where it ends.
    pub to: i64,
}

impl Stretch {
    fn is_empty(self) -> bool {
        self.from >= self.to
    }

    /// The starts of the cells in it; `None` where they are so many that it is better walked.
    pub fn starts(self, width: BucketWidth) -> Option<impl Iterator<Item = i64> + Clone> {
        let step = micros_of(width);
        let count = self.to.checked_sub(self.from)? / step;
        (count <= 4_096).then(|| (0..count).map(move |number| self.from + number * step))
    }
}

/// The moments of the first and of the last record, which a series without ends needs; `None` without
/// any.
pub type Extent = Option<(Timestamp, Timestamp)>;

impl Plan {
    /// Whether the plan of `query` depends on the extent of the records.
    pub fn needs_extent(query: &AggregateQuery) -> bool {
        let open = query.range.from.is_none() || query.range.to.is_none();
        query.bucket.is_some() && open && Cube::covering(query).is_some()
    }

    /// The plan of `query` in a store of this raw horizon and, where it is
    /// [needed](Self::needs_extent), extent.
    pub fn new(query: &AggregateQuery, horizon: Option<Timestamp>, extent: Extent) -> Self {
        let range = Stretch {
            from: query.range.from.map_or(i64::MIN, Timestamp::as_micros),
            to: query.range.to.map_or(i64::MAX, Timestamp::as_micros),
        };
        let cube = Cube::covering(query);
        let mut plan = Self {
            cube,
            lead: cube.and_then(|cube| lead(cube, query)),
            durations: query.detail == Detail::Full,
            cells: Default::default(),
            covered: Vec::new(),
            records: Vec::new(),
            horizon: horizon.map_or(i64::MIN, Timestamp::as_micros),
            rounded: cube.is_some() && rounds(query, horizon),
            missing_before: cube.is_none().then(|| misses(query, horizon)).flatten(),
        };
        if range.is_empty() {
            return plan;
        }
        match (cube, query.bucket) {
            (None, _) => {
                push(&mut plan.records, Stretch { from: range.from.max(plan.horizon), ..range });
            }
            (Some(_), None) => plan.piece(range),
            (Some(_), Some(bucket)) => match pieces(range, bucket, extent) {
                Some(pieces) => pieces.into_iter().for_each(|piece| plan.piece(piece)),
                None => {
                    // A wider cell could lie in several buckets.
                    let pruned = Stretch { to: range.to.min(plan.horizon), ..range };
                    if !pruned.is_empty() {
                        let (from, to) = (ceil(QUARTER, pruned.from), ceil(QUARTER, pruned.to));
                        push(&mut plan.covered, Stretch { from, to });
                        push(&mut plan.cells[0], Stretch { from, to });
                    }
                    let from = range.from.max(plan.horizon);
                    push(&mut plan.records, Stretch { from, ..range });
                }
            },
        }
        plan
    }

    /// Reads a stretch that is not told apart further.
    fn piece(&mut self, piece: Stretch) {
        self.pruned(piece);
        let live = Stretch { from: piece.from.max(self.horizon), ..piece };
        if live.is_empty() {
            return;
        }
        let whole = Stretch { from: ceil(QUARTER, live.from), to: floor(QUARTER, live.to) };
        if whole.is_empty() {
            push(&mut self.records, live);
            return;
        }
        push(&mut self.records, Stretch { to: whole.from, ..live });
        self.whole(whole);
        push(&mut self.records, Stretch { from: whole.to, ..live });
    }

    /// Reads what of `piece` lies before the horizon: each of its records counts at the start of its
    /// quarter.
    fn pruned(&mut self, piece: Stretch) {
        let pruned = Stretch { to: piece.to.min(self.horizon), ..piece };
        if !pruned.is_empty() {
            self.whole(Stretch { from: ceil(QUARTER, pruned.from), to: ceil(QUARTER, pruned.to) });
        }
    }

    /// Reads whole quarters, from the widest cells that lie among them.
    fn whole(&mut self, quarters: Stretch) {
        if quarters.is_empty() {
            return;
        }
        push(&mut self.covered, quarters);
        let mut around = quarters;
        for width in [BucketWidth::QuarterHour, BucketWidth::Hour] {
            let wider =
                if width == BucketWidth::Hour { BucketWidth::Day } else { BucketWidth::Hour };
            let step = micros_of(wider);
            let inner = Stretch { from: ceil(step, around.from), to: floor(step, around.to) };
            if inner.is_empty() {
                push(&mut self.cells[usize::from(width.code())], around);
                return;
            }
            let cells = &mut self.cells[usize::from(width.code())];
            push(cells, Stretch { to: inner.from, ..around });
            push(cells, Stretch { from: inner.to, ..around });
            around = inner;
        }
        push(&mut self.cells[usize::from(BucketWidth::Day.code())], around);
    }

    /// The cube that is read; without one, records alone are.
    pub fn cube(&self) -> Option<Cube> {
        self.cube
    }

    /// The lead of the only cells that matter, where the query names it.
    pub fn lead(&self) -> Option<&[u8]> {
        self.lead.as_deref()
    }

    /// Whether histograms are read.
    pub fn reads_durations(&self) -> bool {
        self.durations
    }

    /// The cells to read: those that start in these stretches.
    pub fn cells(&self) -> impl Iterator<Item = (BucketWidth, Stretch)> + '_ {
        BucketWidth::ALL.iter().flat_map(|width| {
            self.cells[usize::from(width.code())].iter().map(|stretch| (*width, *stretch))
        })
    }

    /// Where records are read one by one.
    pub fn records(&self) -> &[Stretch] {
        &self.records
    }

    /// Where pending executions are read, which no cell counts.
    pub fn pending(&self) -> impl Iterator<Item = Stretch> + '_ {
        let live = |stretch: &Stretch| Stretch { from: stretch.from.max(self.horizon), ..*stretch };
        self.covered.iter().map(live).filter(|stretch| !stretch.is_empty())
    }

    /// Whether changes that have yet to be folded matter.
    pub fn reads_changes(&self) -> bool {
        !self.covered.is_empty()
    }

    /// Whether a change of this moment belongs to the cells that are read.
    pub(super) fn covers(&self, at: i64) -> bool {
        let quarter = start_of(BucketWidth::QuarterHour, at);
        let behind = self.covered.partition_point(|stretch| stretch.to <= quarter);
        self.covered.get(behind).is_some_and(|stretch| stretch.from <= quarter)
    }
}

/// Whether an end of the range, or of a bucket, lies inside a quarter of an hour whose records were
/// pruned. Buckets do where the clocks of their zone are no whole quarters from UTC.
pub(crate) fn rounds(query: &AggregateQuery, horizon: Option<Timestamp>) -> bool {
    let inside = |end: Option<Timestamp>| {
        end.is_some_and(|end| {
            Some(end) < horizon && floor(QUARTER, end.as_micros()) != end.as_micros()
        })
    };
    let odd = |at: Timestamp| query.bucket.is_some_and(|bucket| bucket.cuts_quarters(at));
    let cut = horizon.is_some_and(|horizon| {
        misses(query, Some(horizon)).is_some()
            && (odd(horizon) || query.range.from.is_some_and(odd))
    });
    cut || inside(query.range.from) || inside(query.range.to)
}

/// The horizon, where records before it would count and are gone.
pub(crate) fn misses(query: &AggregateQuery, horizon: Option<Timestamp>) -> Option<Timestamp> {
    let TimeRange { from, to } = query.range;
    let empty = from.zip(to).is_some_and(|(from, to)| from >= to);
    horizon.filter(|horizon| !empty && from.is_none_or(|from| from < *horizon))
}

/// The lead that every cell of the answer has.
fn lead(cube: Cube, query: &AggregateQuery) -> Option<Vec<u8>> {
    let filter = &query.filter;
    match cube {
        Cube::Totals => Some(Vec::new()),
        Cube::Prompts | Cube::Calls => filter.prompt.map(|prompt| prompt.to_bytes().to_vec()),
        Cube::Models => {
            let (provider, model) = filter.provider.as_ref().zip(filter.model.as_ref())?;
            Some(model_lead(provider, model))
        }
    }
}

/// The buckets that `range` is cut into; `None` where they are too many.
fn pieces(range: Stretch, bucket: Bucket, extent: Extent) -> Option<Vec<Stretch>> {
    let open = range.from == i64::MIN || range.to == i64::MAX;
    let (first, last) = match extent {
        Some((first, last)) => (first, last.saturating_add(Duration::from_micros(1))),
        None if open => return Some(Vec::new()),
        None => (Timestamp::MIN, Timestamp::MAX),
    };
    let within = |micros: i64| {
        Timestamp::from_micros(micros.clamp(Timestamp::MIN.as_micros(), Timestamp::MAX.as_micros()))
            .unwrap_or(Timestamp::MAX)
    };
    let from = if range.from == i64::MIN { first } else { within(range.from) };
    let to = if range.to == i64::MAX { last } else { within(range.to) };
    let bounds = TimeRange { from: Some(from), to: Some(to) };
    let mut pieces = Vec::new();
    for start in bucket.starts_in(bounds) {
        if pieces.len() == MOST_BUCKETS {
            return None;
        }
        pieces.push(Stretch {
            from: start.as_micros().max(range.from),
            to: bucket.next(start).as_micros().min(range.to),
        });
    }
    if pieces.is_empty() && from <= to {
        let start = bucket.start_of(from).as_micros();
        pieces.push(Stretch { from: start.max(range.from), to: range.to });
    }
    // The year 9999 ends with its last microsecond, which lies in the last bucket.
    if let Some(last) = pieces.last_mut().filter(|last| last.to == Timestamp::MAX.as_micros()) {
        last.to = range.to;
    }
    Some(pieces)
}

/// Adds a stretch, which never lies before those that are there.
fn push(to: &mut Vec<Stretch>, stretch: Stretch) {
    if stretch.is_empty() {
        return;
    }
    match to.last_mut() {
        Some(last) if last.to == stretch.from => last.to = stretch.to,
        _ => to.push(stretch),
    }
}

fn floor(step: i64, micros: i64) -> i64 {
    if micros == i64::MIN || micros == i64::MAX {
        return micros;
    }
    micros.div_euclid(step) * step
}

fn ceil(step: i64, micros: i64) -> i64 {
    let down = floor(step, micros);
    if down == micros { micros } else { down + step }
}
