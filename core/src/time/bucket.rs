//! The buckets that a series over time is cut into: quarters of an hour, hours and days of a zone.
//! Invariant: the buckets of a zone follow each other without gap or overlap, whatever its clocks do.

use chrono::Days;
use serde::{Deserialize, Serialize};

use super::{TimeRange, Timestamp, Zone};
use crate::status::named;

named! {
    /// How wide the buckets of a series over time are.
    BucketWidth, "bucket width" {
        /// A quarter of an hour on the local clock.
        QuarterHour = 0 "quarter_hour",
        /// An hour on the local clock.
        Hour = 1 "hour",
        /// A local day, of 23 to 25 hours where clocks are put forward or back.
        Day = 2 "day",
    }
}

/// How a series over time is cut: into quarters of an hour, hours or days of a zone.
///
/// A bucket starts where the local clock shows the start of a quarter, an hour or a day, and, for quarters and
/// hours, where the clock is put to a time inside one: an hour that a shift of half an hour cuts is two buckets.
/// A day starts at its first midnight, or where the clocks jump over it; a shift back over midnight
/// therefore leaves the repeated minutes to the new day.
///
/// # Example: the day of 23 hours
/// ```
/// use prompt_engine_core::{Bucket, BucketWidth};
/// let days = Bucket { width: BucketWidth::Day, zone: "Europe/Berlin".parse()? };
/// let start = days.start_of("2026-03-29T12:00:00+02:00".parse()?);
/// assert_eq!(days.label(start), "2026-03-29");
/// assert_eq!(days.next(start).duration_since(start).as_secs(), 23 * 3600);
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Bucket {
    /// How wide the buckets are.
    pub width: BucketWidth,
    /// Whose clock they follow.
    pub zone: Zone,
}

impl Bucket {
    /// The start of the bucket that `moment` is in; [`Timestamp::MIN`] where it would be before that.
    pub fn start_of(&self, moment: Timestamp) -> Timestamp {
        let seconds = moment.seconds();
        let start = match self.step() {
            Some(step) => {
                let offset = self.zone.offset_at(seconds);
                let aligned = (seconds + offset).div_euclid(step) * step - offset;
                if self.zone.offset_at(aligned) == offset {
                    aligned
                } else {
                    self.zone.change_between(aligned, seconds)
                }
            }
            None => {
                let date = self.zone.local(seconds).date_naive();
                let tomorrow = date.checked_add_days(Days::new(1)).unwrap_or(date);
                let next = self.zone.start_of_date(tomorrow);
                // A shift back over midnight shows the old date again: those minutes are the new day's.
                if next <= seconds { next } else { self.zone.start_of_date(date) }
            }
        };
        Timestamp::from_seconds_clamped(start)
    }

    /// The start of the bucket after the one that starts at `start`: always later than `start`, but that
    /// [`Timestamp::MAX`] is the last.
    pub fn next(&self, start: Timestamp) -> Timestamp {
        let seconds = start.seconds();
        let next = match self.step() {
            Some(step) => {
                let offset = self.zone.offset_at(seconds);
                let aligned = ((seconds + offset).div_euclid(step) + 1) * step - offset;
                if self.zone.offset_at(aligned - 1) == offset {
                    aligned
                } else {
                    self.zone.change_between(seconds, aligned - 1)
                }
            }
            None => {
                let mut date = self.zone.local(seconds).date_naive();
                loop {
                    let Some(tomorrow) = date.checked_add_days(Days::new(1)) else {
                        return Timestamp::MAX;
                    };
                    date = tomorrow;
                    let next = self.zone.start_of_date(date);
                    if next > seconds {
                        break next;
                    }
                }
            }
        };
        Timestamp::from_seconds_clamped(next)
    }

    /// The starts of all buckets that share a moment with `range`, in order: what a series without gaps shows.
    /// None where an end of the range is open.
    pub fn starts_in(&self, range: TimeRange) -> impl Iterator<Item = Timestamp> + use<> {
        let bucket = *self;
        let first = match (range.from, range.to) {
            (Some(from), Some(to)) if from < to => Some((bucket.start_of(from), to)),
            _ => None,
        };
        let mut state = first;
        std::iter::from_fn(move || {
            let (start, to) = state?;
            let next = bucket.next(start);
            state = (next > start && next < to).then_some((next, to));
            Some(start)
        })
    }

    /// What the bucket that starts at `start` is called: `2026-01-31` for a day,
    /// `2026-01-31T13:00+01:00` for an hour or a quarter.
    pub fn label(&self, start: Timestamp) -> String {
        let local = self.zone.local(start.seconds());
        let format = match self.width {
            BucketWidth::Day => "%Y-%m-%d",
            BucketWidth::Hour | BucketWidth::QuarterHour => "%Y-%m-%dT%H:%M%:z",
        };
        local.format(format).to_string()
    }

    /// Whether the clocks of the zone are, at `moment`, no whole quarters of an hour from UTC.
    pub(crate) fn cuts_quarters(&self, moment: Timestamp) -> bool {
        self.zone.offset_at(moment.seconds()) % 900 != 0
    }

    /// The width in seconds where it is the same all year.
    fn step(&self) -> Option<i64> {
        match self.width {
            BucketWidth::QuarterHour => Some(900),
            BucketWidth::Hour => Some(3600),
            BucketWidth::Day => None,
        }
    }
}

/// Finds buckets of many moments. Moments in the same bucket as the one before cost two comparisons
/// and no look at the time zone, so rows sorted by time are cut at the cost of their buckets.
///
/// # Example: sorted rows
/// ```
/// use prompt_engine_core::{Bucket, BucketCursor, BucketWidth, Zone};
/// let mut cursor = BucketCursor::new(Bucket { width: BucketWidth::Hour, zone: Zone::UTC });
/// let start = cursor.start_of("2026-01-31T10:59:59Z".parse()?);
/// assert_eq!(start, "2026-01-31T10:00:00Z".parse()?);
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct BucketCursor {
    bucket: Bucket,
    start: Timestamp,
    end: Timestamp,
}

impl BucketCursor {
    /// A cursor that has seen no moment.
    pub fn new(bucket: Bucket) -> Self {
        Self { bucket, start: Timestamp::MAX, end: Timestamp::MIN }
    }

    /// The same as [`Bucket::start_of`].
    pub fn start_of(&mut self, moment: Timestamp) -> Timestamp {
        if moment < self.start || moment >= self.end {
            self.start = self.bucket.start_of(moment);
            self.end = self.bucket.next(self.start);
        }
        self.start
    }
}
