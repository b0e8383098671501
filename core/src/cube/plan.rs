//! The planner: which cells and which records an answer is read from.
//! Invariant: every moment of the range is counted exactly once, from cells or from records; before the
//! raw horizon from cells alone. What wider cells count beyond its ends is taken away again: narrower
//! cells, and records one by one.

use std::time::Duration;

use crate::aggregate::{AggregateQuery, Detail};
use crate::time::{Bucket, BucketWidth, TimeRange, Timestamp, Zone};

use super::cell::model_lead;
use super::{Cube, QUARTER, micros_of, start_of};

/// Buckets of another zone than UTC, or of one prompt or model, that are told apart cell by cell; a series of
/// more (a year of quarters is 35,000) is read from the records.
const MOST_BUCKETS: usize = 50_000;

/// How an answer is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    cube: Option<Cube>,
    lead: Option<Vec<u8>>,
    durations: bool,
    /// The widest cells that are read.
    widest: BucketWidth,
    cells: [Vec<Stretch>; 3],
    /// Of the cells, those that are taken away.
    taken: [Vec<Stretch>; 3],
    covered: Vec<Stretch>,
    records: Vec<Stretch>,
    ends: Ends,
    horizon: i64,
    extent: Extent,
    pub(super) rounded: bool,
    pub(super) missing_before: Option<Timestamp>,
}

/// What is read of a cell that an end of the range lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// What lies between the end and the nearer boundary of the cell, in narrower cells or records: it is
    /// added, or taken away from the cell.
    Nearer,
    /// What lies inside of the range: it is added.
    Inside,
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
    /// Between two moments, whichever is the first.
    fn between(one: i64, other: i64) -> Self {
        Self { from: one.min(other), to: one.max(other) }
    }

    fn is_empty(self) -> bool {
        self.from >= self.to
    }

    fn within(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), to: self.to.min(other.to) }
    }

    /// The starts of the cells in it; `None` where they are so many that it is better walked.
    pub fn starts(self, width: BucketWidth) -> Option<impl Iterator<Item = i64> + Clone> {
        let step = micros_of(width);
        let count = self.to.checked_sub(self.from)? / step;
        (count <= 4_096).then(|| (0..count).map(move |number| self.from + number * step))
    }
}

/// The moments of the first and of the last record, which some series without ends need; `None` without
/// any.
pub type Extent = Option<(Timestamp, Timestamp)>;

impl Plan {
    /// Whether the plan of `query` depends on the extent of the records.
    pub fn needs_extent(query: &AggregateQuery) -> bool {
        let open = query.range.from.is_none() || query.range.to.is_none();
        let bucketed = query.bucket.is_some() && of_utc(query).is_none();
        bucketed && open && Cube::covering(query).is_some()
    }

    /// The plan of `query` in a store of this raw horizon and, where it is
    /// [needed](Self::needs_extent), extent.
    pub fn new(query: &AggregateQuery, horizon: Option<Timestamp>, extent: Extent) -> Self {
        let cube = Cube::covering(query);
        let mut plan = Self {
            cube,
            lead: cube.and_then(|cube| lead(cube, query)),
            durations: query.detail == Detail::Full,
            widest: of_utc(query).unwrap_or(BucketWidth::Day),
            cells: Default::default(),
            taken: Default::default(),
            covered: Vec::new(),
            records: Vec::new(),
            ends: Ends::Nearer,
            horizon: horizon.map_or(i64::MIN, Timestamp::as_micros),
            extent,
            rounded: cube.is_some() && rounds(query, horizon),
            missing_before: cube.is_none().then(|| misses(query, horizon)).flatten(),
        };
        plan.cut(query);
        plan
    }

    /// The same without anything to take away.
    pub(super) fn adding(&self, query: &AggregateQuery) -> Self {
        let (cells, taken, covered, records) = Default::default();
        let mut plan = Self { ends: Ends::Inside, cells, taken, covered, records, ..self.clone() };
        plan.cut(query);
        plan
    }

    /// Cuts the range into what is read.
    fn cut(&mut self, query: &AggregateQuery) {
        let range = Stretch {
            from: query.range.from.map_or(i64::MIN, Timestamp::as_micros),
            to: query.range.to.map_or(i64::MAX, Timestamp::as_micros),
        };
        if range.is_empty() {
            return;
        }
        let live = Stretch { from: range.from.max(self.horizon), ..range };
        // No cell lies in two buckets of UTC.
        let apart = query.bucket.filter(|_| of_utc(query).is_none());
        match (self.cube, apart) {
            (None, _) => push(&mut self.records, live),
            (Some(_), None) => self.bucket(Stretch { from: i64::MIN, to: i64::MAX }, range),
            (Some(_), Some(bucket)) => match buckets(range, bucket, self.extent) {
                Some(buckets) => buckets.into_iter().for_each(|bucket| self.bucket(bucket, range)),
                None => {
                    // A wider cell could lie in several buckets.
                    let pruned = self.pruned(range);
                    push(&mut self.covered, pruned);
                    push(&mut self.cells[0], pruned);
                    push(&mut self.records, live);
                }
            },
        }
    }

    /// Reads what of `bucket`, which is not told apart further, lies in `range`.
    fn bucket(&mut self, bucket: Stretch, range: Stretch) {
        let piece = bucket.within(range);
        let pruned = self.pruned(piece);
        let live = Stretch { from: piece.from.max(self.horizon), ..piece };
        let Some(mut quarters) = self.cells_of(QUARTER, live, bucket) else {
            self.whole(pruned, bucket);
            push(&mut self.records, live);
            return;
        };
        push(&mut self.records, Stretch::between(live.from, quarters.from));
        push(&mut self.records, Stretch::between(quarters.to, live.to));
        if !pruned.is_empty() {
            // At the horizon a quarter begins, so nothing is between them.
            quarters.from = pruned.from;
        }
        self.whole(quarters, bucket);
    }

    /// The stretch of the cells of length `step` that are read for `inner`: from and to the boundaries
    /// that are nearer to its ends. A cell that lies in another bucket, too, is not among them. `None`
    /// where it is less to read `inner` without them.
    fn cells_of(&self, step: i64, inner: Stretch, bucket: Stretch) -> Option<Stretch> {
        let nearer = |inside: i64, outside: i64, end: i64| {
            let within = bucket.from <= outside && outside <= bucket.to;
            let nearer = end.abs_diff(outside) < end.abs_diff(inside);
            if self.ends == Ends::Nearer && within && nearer { outside } else { inside }
        };
        let Stretch { from, to } = inner;
        let cells = Stretch {
            from: nearer(ceil(step, from), floor(step, from), from),
            to: nearer(floor(step, to), ceil(step, to), to),
        };
        let at_ends = from.abs_diff(cells.from) + to.abs_diff(cells.to);
        (!cells.is_empty() && at_ends < from.abs_diff(to)).then_some(cells)
    }

    /// The quarters of what of `piece` lies before the horizon: each of its records counts at the start
    /// of its own.
    fn pruned(&self, piece: Stretch) -> Stretch {
        let to = piece.to.min(self.horizon);
        if piece.from >= to {
            return Stretch { from: to, to };
        }
        Stretch { from: ceil(QUARTER, piece.from), to: ceil(QUARTER, to) }
    }

    /// Reads whole quarters, from the widest cells that are near to their ends.
    fn whole(&mut self, quarters: Stretch, bucket: Stretch) {
        if quarters.is_empty() {
            return;
        }
        push(&mut self.covered, quarters);
        let mut inner = quarters;
        let mut place = 0;
        let wider = [BucketWidth::Hour, BucketWidth::Day];
        for wider in wider.into_iter().filter(|wider| *wider <= self.widest) {
            let Some(cells) = self.cells_of(micros_of(wider), inner, bucket) else { break };
            for (end, outside) in [
                (Stretch::between(inner.from, cells.from), cells.from < inner.from),
                (Stretch::between(cells.to, inner.to), cells.to > inner.to),
            ] {
                let to = if outside { &mut self.taken } else { &mut self.cells };
                push(&mut to[place], end);
            }
            inner = cells;
            place = usize::from(wider.code());
        }
        push(&mut self.cells[place], inner);
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

    /// The cells to read: those that start in these stretches. A [`Tally`](super::Tally) knows which of
    /// them it takes away.
    pub fn cells(&self) -> impl Iterator<Item = (BucketWidth, Stretch)> + '_ {
        BucketWidth::ALL.iter().flat_map(|width| {
            let place = usize::from(width.code());
            self.cells[place].iter().chain(&self.taken[place]).map(|stretch| (*width, *stretch))
        })
    }

    /// Whether the records of a cell that starts then may have been pruned.
    pub(super) fn is_pruned(&self, start: i64) -> bool {
        start < self.horizon
    }

    /// Whether a cell is taken away.
    pub(super) fn takes(&self, width: BucketWidth, start: i64) -> bool {
        let inside = |stretch: &Stretch| (stretch.from..stretch.to).contains(&start);
        self.taken[usize::from(width.code())].iter().any(inside)
    }

    /// Where records are read one by one: a [`Tally`](super::Tally) knows which of them it takes away.
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

    /// Whether the cells that are read count what is of this moment.
    pub(super) fn covers(&self, at: i64) -> bool {
        let quarter = start_of(BucketWidth::QuarterHour, at);
        let behind = self.covered.partition_point(|stretch| stretch.to <= quarter);
        self.covered.get(behind).is_some_and(|stretch| stretch.from <= quarter)
    }
}

/// The width of the buckets that are asked for, where they are of UTC, as cells are. Not where the cells of
/// one lead are looked up: for that the ends of the range must be known.
fn of_utc(query: &AggregateQuery) -> Option<BucketWidth> {
    let lead = Cube::covering(query).and_then(|cube| lead(cube, query));
    let looked_up = lead.is_some_and(|lead| !lead.is_empty());
    query.bucket.filter(|bucket| bucket.zone == Zone::UTC && !looked_up).map(|bucket| bucket.width)
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

/// The buckets that share a moment with `range`; `None` where they are too many.
fn buckets(range: Stretch, bucket: Bucket, extent: Extent) -> Option<Vec<Stretch>> {
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
    let mut buckets = Vec::new();
    for start in bucket.starts_in(bounds) {
        if buckets.len() == MOST_BUCKETS {
            return None;
        }
        buckets.push(Stretch { from: start.as_micros(), to: bucket.next(start).as_micros() });
    }
    if buckets.is_empty() && from <= to {
        buckets.push(Stretch { from: bucket.start_of(from).as_micros(), to: i64::MAX });
    }
    // The year 9999 ends with its last microsecond, which lies in the last bucket.
    if let Some(last) = buckets.last_mut().filter(|last| last.to == Timestamp::MAX.as_micros()) {
        last.to = i64::MAX;
    }
    Some(buckets)
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
