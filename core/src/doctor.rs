//! Checking cells against the records that they were made from, and making them anew.
//! Invariant: a difference is reported only of records that did not change while they were compared,
//! so writers may go on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::aggregate::{
    AggregateQuery, AggregateRow, Detail, Dimension, GroupKey, Measures, Source,
};
use crate::cube::{Cube, cell_of, misses};
use crate::error::{Error, ErrorKind, Result};
use crate::query::{Order, PageQuery, RecordQuery};
use crate::store::{Rebuild, Store};
use crate::time::{Bucket, BucketWidth, TimeRange, Timestamp, Zone};

/// How often a day is compared again because its records changed meanwhile.
const ATTEMPTS: usize = 5;
/// Differences that are kept of a day.
const KEPT: usize = 20;

/// Compares the cells of a store with its records, and makes them anew where they differ. Get it from
/// [`Engine::doctor`](crate::Engine::doctor).
///
/// # Example: a store that is well
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use std::sync::Arc;
/// use prompt_engine_core::{Doctor, MemoryStore, TimeRange};
/// let doctor = Doctor::new(Arc::new(MemoryStore::new()));
/// for day in doctor.days(TimeRange::default()).await? {
///     assert!(doctor.check(day).await?.differences.is_empty());
/// }
/// # Ok::<(), prompt_engine_core::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct Doctor {
    store: Arc<dyn Store>,
}

/// What comparing a day found.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkup {
    /// The start of the day (UTC), or the raw horizon where that lies in it: of the cells before it,
    /// only those of hours and days around it are compared, with the sums of their quarters.
    pub day: Timestamp,
    /// Usages that were counted again.
    pub usages: u64,
    /// Executions that were counted again.
    pub executions: u64,
    /// Cells that differ, in all.
    pub differing: u64,
    /// The first of them.
    pub differences: Vec<Difference>,
}

/// A sum that is not what its records add up to.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The cube of its cells.
    pub cube: Cube,
    /// The width of its cells.
    pub width: BucketWidth,
    /// What it is the sum of.
    pub key: GroupKey,
    /// What its records add up to; nothing where there are none.
    pub recounted: Measures,
    /// What its cells say: nothing where there are none. `None` where some of the day cannot be read: then
    /// the key names the day alone, and `recounted` is all of it.
    pub found: Option<Measures>,
}

impl Doctor {
    /// A doctor for `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// The days (UTC) that share a moment with `range` and have records or cells, from that of the raw
    /// horizon (or else of the first record) to that of the last record, as ranges: whole days, but that
    /// the first starts at the horizon where that lies in it.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn days(&self, range: TimeRange) -> Result<Vec<TimeRange>> {
        let horizon = self.store.raw_horizon().await?;
        let stored = TimeRange { from: horizon, to: None };
        let first = horizon.or(self.record_at(stored, Order::OldestFirst).await?);
        let last = self.record_at(stored, Order::NewestFirst).await?.or(horizon);
        let empty = range.from.zip(range.to).is_some_and(|(from, to)| from >= to);
        let Some((first, last)) = first.zip(last).filter(|_| !empty) else {
            return Ok(Vec::new());
        };
        let asked = range.to.map(|to| to.saturating_sub(Duration::from_micros(1)));
        let last = day_of(asked.map_or(last, |asked| asked.min(last)));
        let mut days = BTreeSet::new();
        let mut next = Some(day_of(range.from.map_or(first, |from| from.max(first))));
        // From one day that has records to the next: between them may be years.
        while let Some(from) = next.filter(|next| *next <= last) {
            let rest = TimeRange { from: Some(from), to: end_of(last) };
            let busy = self.record_at(rest, Order::OldestFirst).await?.map(day_of);
            if busy != Some(from) {
                let quiet = TimeRange { from: Some(from), to: busy.or(rest.to) };
                self.days_with_cells(quiet, &mut days).await?;
            }
            days.extend(busy);
            next = busy.and_then(end_of);
        }
        let whole = |start| TimeRange { from: horizon.max(Some(start)), to: end_of(start) };
        Ok(days.into_iter().map(whole).collect())
    }

    /// The moment before which the store was pruned, where `range` begins before it: what records before it
    /// add up to cannot be checked any more.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn unchecked_before(&self, range: TimeRange) -> Result<Option<Timestamp>> {
        let query = AggregateQuery { range, ..AggregateQuery::default() };
        Ok(misses(&query, self.store.raw_horizon().await?))
    }

    /// When the first record of `range` in this order started.
    async fn record_at(&self, range: TimeRange, order: Order) -> Result<Option<Timestamp>> {
        let page = PageQuery { limit: 1, after: None };
        let query = RecordQuery { range, order, page, ..RecordQuery::default() };
        let usages = self.store.list_usages(&query).await?.items;
        let executions = self.store.list_executions(&query).await?.items;
        let usages = usages.iter().map(|usage| usage.created_at);
        let executions = executions.iter().map(|execution| execution.created_at);
        let both = usages.chain(executions);
        Ok(match order {
            Order::OldestFirst => both.min(),
            Order::NewestFirst => both.max(),
        })
    }

    /// Adds the days of `range` that have cells of any cube and width.
    async fn days_with_cells(
        &self,
        range: TimeRange,
        days: &mut BTreeSet<Timestamp>,
    ) -> Result<()> {
        for cube in Cube::ALL {
            for width in BucketWidth::ALL {
                let mut stretches = vec![range];
                while let Some(stretch) = stretches.pop() {
                    let cells = cells(*cube, *width, stretch);
                    let query = AggregateQuery { detail: Detail::Sums, ..cells };
                    match readable(&*self.store, &query).await? {
                        Some(rows) => {
                            days.extend(rows.iter().filter_map(|row| row.key.bucket).map(day_of));
                        }
                        None => days.extend(day_or_halves(stretch, &mut stretches)),
                    }
                }
            }
        }
        Ok(())
    }

    /// Compares all cells of a day of [`Doctor::days`] with its records. Of a day that is being written
    /// to, the hours before this one.
    ///
    /// # Errors
    /// Those of the store; `Unavailable` if its records change faster than they are counted.
    pub async fn check(&self, day: TimeRange) -> Result<Checkup> {
        if let Some(checkup) = self.try_check(day).await? {
            return Ok(checkup);
        }
        let now = Timestamp::now();
        let hour = start_of(BucketWidth::Hour, now);
        let settled = TimeRange { to: day.to.map(|to| to.min(hour)), ..day };
        if day.contains(now)
            && let Some(checkup) = self.try_check(settled).await?
        {
            return Ok(checkup);
        }
        let start = day.from.unwrap_or(Timestamp::MIN);
        Err(Error::new(
            ErrorKind::Unavailable,
            format!("the records of the day {start} change faster than they can be counted"),
        ))
    }

    /// The same, and `None` where the records do not keep still.
    async fn try_check(&self, mut day: TimeRange) -> Result<Option<Checkup>> {
        let mut before = Recounted::of(&*self.store, day).await?;
        for _ in 0..ATTEMPTS {
            // Records that were pruned meanwhile are in cells alone.
            if day.from < before.missing_before {
                day.from = before.missing_before;
                before = Recounted::of(&*self.store, day).await?;
            }
            let mut checkup = before.checkup(day);
            for cube in Cube::ALL {
                for width in BucketWidth::ALL {
                    self.compare(*cube, *width, day, &before, &mut checkup).await?;
                }
            }
            if checkup.differing == 0 {
                return Ok(Some(checkup));
            }
            let after = Recounted::of(&*self.store, day).await?;
            if before == after {
                return Ok(Some(checkup));
            }
            before = after;
        }
        Ok(None)
    }

    async fn compare(
        &self,
        cube: Cube,
        width: BucketWidth,
        day: TimeRange,
        recounted: &Recounted,
        checkup: &mut Checkup,
    ) -> Result<()> {
        // A cell that the horizon lies in is the sum of its quarters, those before it as well.
        let from = day.from.map(|from| start_of(width, from));
        let query = cells(cube, width, TimeRange { from, ..day });
        let mut expected = recounted.sums(cube, width, from);
        let mut differ = |key: GroupKey, recounted: Measures, found: Option<Measures>| {
            checkup.differing += 1;
            if checkup.differences.len() < KEPT {
                checkup.differences.push(Difference { cube, width, key, recounted, found });
            }
        };
        let Some(found) = readable(&*self.store, &query).await? else {
            let key = GroupKey { bucket: query.range.from, ..GroupKey::default() };
            let mut recounted = Measures { uses: Some(0), ..Measures::default() };
            expected.values().for_each(|measures| recounted.merge(measures));
            differ(key, recounted, None);
            return Ok(());
        };
        for AggregateRow { key, measures } in found {
            let recounted = expected.remove(&key).unwrap_or_default();
            if recounted != measures {
                differ(key, recounted, Some(measures));
            }
        }
        for (key, recounted) in expected {
            differ(key, recounted, Some(Measures::default()));
        }
        Ok(())
    }

    /// Makes the cells of a day of [`Doctor::days`] anew from its records, an hour in one transaction.
    /// What is done is done: a run that was cut short is taken up by running it again.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn rebuild(&self, day: TimeRange) -> Result<()> {
        let Some(start) = day.from else { return Ok(()) };
        let whole = cell_of(BucketWidth::Day, start);
        let hours = Bucket { width: BucketWidth::Hour, zone: Zone::UTC };
        let end = Timestamp::from_micros(whole.to).unwrap_or(Timestamp::MAX);
        let range = TimeRange { from: Some(start), to: Some(end) };
        for hour in hours.starts_in(range) {
            self.store.rebuild(Rebuild::Hour(hour)).await?;
        }
        self.store.rebuild(Rebuild::Day(start)).await?;
        Ok(())
    }
}

/// The question that the cells of a cube and a width answer.
fn cells(cube: Cube, width: BucketWidth, range: TimeRange) -> AggregateQuery {
    AggregateQuery {
        range,
        group_by: dimensions(cube).to_vec(),
        bucket: Some(Bucket { width, zone: Zone::UTC }),
        ..AggregateQuery::default()
    }
}

/// The rows of an answer; `None` where there are cells that cannot be read.
async fn readable(store: &dyn Store, query: &AggregateQuery) -> Result<Option<Vec<AggregateRow>>> {
    match store.aggregate(query).await {
        Ok(answer) => Ok(Some(answer.rows)),
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(None),
        Err(error) => Err(error),
    }
}

/// The start of the day that `moment` is in.
fn day_of(moment: Timestamp) -> Timestamp {
    start_of(BucketWidth::Day, moment)
}

/// The day that `stretch` is; a longer one is cut into two.
fn day_or_halves(stretch: TimeRange, halves: &mut Vec<TimeRange>) -> Option<Timestamp> {
    let from = stretch.from.unwrap_or(Timestamp::MIN);
    let length = stretch.to.unwrap_or(Timestamp::MAX).duration_since(from);
    let middle = day_of(from.saturating_add(length / 2));
    if middle <= from {
        return Some(day_of(from));
    }
    halves.push(TimeRange { to: Some(middle), ..stretch });
    halves.push(TimeRange { from: Some(middle), ..stretch });
    None
}

/// Where the day that starts at `start` ends; the last of the year 9999 is open.
fn end_of(start: Timestamp) -> Option<Timestamp> {
    let day = Bucket { width: BucketWidth::Day, zone: Zone::UTC };
    Some(day.next(start)).filter(|next| *next < Timestamp::MAX)
}

fn start_of(width: BucketWidth, moment: Timestamp) -> Timestamp {
    Bucket { width, zone: Zone::UTC }.start_of(moment)
}

fn dimensions(cube: Cube) -> &'static [Dimension] {
    use Dimension::{Environment, Model, Prompt, Provider, Version};
    match cube {
        Cube::Totals => &[Environment],
        Cube::Prompts => &[Environment, Prompt, Version],
        Cube::Models => &[Environment, Provider, Model],
        Cube::Calls => &[Environment, Prompt, Version, Provider, Model],
    }
}

/// The records of a day by quarters: by what a use has, and by what a call has.
#[derive(Debug, PartialEq)]
struct Recounted {
    uses: Vec<AggregateRow>,
    calls: Vec<AggregateRow>,
    /// What the quarters of the day before the horizon say, in the order of the cubes: their records
    /// are gone.
    pruned: Vec<Vec<AggregateRow>>,
    missing_before: Option<Timestamp>,
}

impl Recounted {
    async fn of(store: &dyn Store, day: TimeRange) -> Result<Self> {
        let records = |cube: Cube| {
            let query = cells(cube, BucketWidth::QuarterHour, day);
            AggregateQuery { source: Source::Records, ..query }
        };
        let uses = store.aggregate(&records(Cube::Prompts)).await?;
        let calls = store.aggregate(&records(Cube::Calls)).await?;
        let missing_before = uses.reading.missing_before.max(calls.reading.missing_before);
        let from = day.from.unwrap_or(Timestamp::MIN);
        let before = TimeRange {
            from: Some(start_of(BucketWidth::Day, from)),
            // The horizon may have moved past the day meanwhile.
            to: Some(day.to.map_or(from, |to| to.min(from))),
        };
        let mut pruned = Vec::new();
        for cube in Cube::ALL {
            let query = cells(*cube, BucketWidth::QuarterHour, before);
            pruned.push(readable(store, &query).await?.unwrap_or_default());
        }
        Ok(Self { uses: uses.rows, calls: calls.rows, pruned, missing_before })
    }

    fn checkup(&self, day: TimeRange) -> Checkup {
        Checkup {
            day: day.from.unwrap_or(Timestamp::MIN),
            usages: self.uses.iter().filter_map(|row| row.measures.uses).sum(),
            executions: self.uses.iter().map(|row| row.measures.executions()).sum(),
            differing: 0,
            differences: Vec::new(),
        }
    }

    /// What the cells of a cube that start at `from` or behind it must add up to.
    fn sums(
        &self,
        cube: Cube,
        width: BucketWidth,
        from: Option<Timestamp>,
    ) -> BTreeMap<GroupKey, Measures> {
        let rows = match cube {
            Cube::Totals | Cube::Prompts => &self.uses,
            Cube::Models | Cube::Calls => &self.calls,
        };
        let pruned = &self.pruned[usize::from(cube.code())];
        let pruned = pruned.iter().filter(|row| row.key.bucket >= from);
        let has = |dimension: Dimension| dimensions(cube).contains(&dimension);
        let mut sums: BTreeMap<GroupKey, Measures> = BTreeMap::new();
        for AggregateRow { key, measures } in rows.iter().chain(pruned) {
            let mut key = key.clone();
            key.bucket = key.bucket.map(|start| start_of(width, start));
            key.prompt = key.prompt.filter(|_| has(Dimension::Prompt));
            key.version = key.version.filter(|_| has(Dimension::Version));
            key.provider = key.provider.filter(|_| has(Dimension::Provider));
            key.model = key.model.filter(|_| has(Dimension::Model));
            sums.entry(key).or_default().merge(measures);
        }
        sums
    }
}
