//! Moments, time zones, ranges of time and the buckets that a series over time is cut into. Pure but for [`Timestamp::now`].
//! Invariants: a [`Timestamp`] lies in the years 0001 to 9999; the buckets of a zone follow each other without gap
//! or overlap, whatever its clocks do.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{
    DateTime, Days, FixedOffset, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, Offset,
    SecondsFormat, TimeZone, Utc,
};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::status::named;

const MICROS: i64 = 1_000_000;

/// A moment: whole microseconds since the start of 1970 in UTC, in the years 0001 to 9999.
///
/// `Display` is RFC 3339 with six decimals and `Z`; `FromStr` is its exact inverse and takes any other
/// offset too, cutting what is finer than a microsecond. JSON holds the same text.
///
/// # Example: one text per moment
/// ```
/// use prompt_engine_core::Timestamp;
/// let noon: Timestamp = "2026-01-31T12:00:00+01:00".parse()?;
/// assert_eq!(noon.to_string(), "2026-01-31T11:00:00.000000Z");
/// assert_eq!(noon.to_string().parse::<Timestamp>()?, noon);
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The start of the year 0001.
    pub const MIN: Self = Self(-62_135_596_800 * MICROS);
    /// The last microsecond of the year 9999.
    pub const MAX: Self = Self(253_402_300_800 * MICROS - 1);

    /// The time of the system clock.
    pub fn now() -> Self {
        Self::clamped(Utc::now().timestamp_micros())
    }

    /// The moment `micros` microseconds after the start of 1970 in UTC.
    ///
    /// # Errors
    /// `Invalid` outside the years 0001 to 9999.
    pub fn from_micros(micros: i64) -> Result<Self> {
        if (Self::MIN.0..=Self::MAX.0).contains(&micros) {
            Ok(Self(micros))
        } else {
            Err(Error::invalid(format!(
                "{micros} microseconds from 1970 is outside the years 0001 to 9999"
            )))
        }
    }

    /// Microseconds since the start of 1970 in UTC.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// The moment of `datetime`, what is finer than a microsecond cut.
    ///
    /// # Errors
    /// `Invalid` outside the years 0001 to 9999.
    pub fn from_datetime(datetime: DateTime<Utc>) -> Result<Self> {
        Self::from_micros(datetime.timestamp_micros())
    }

    /// The moment as a `chrono` value.
    pub fn to_datetime(self) -> DateTime<Utc> {
        // Every year from 0001 to 9999 is within the range of `chrono`.
        DateTime::from_timestamp_micros(self.0).unwrap_or_default()
    }

    /// The moment `span` later; `None` beyond the year 9999. What is finer than a microsecond is cut.
    pub fn checked_add(self, span: Duration) -> Option<Self> {
        let micros = self.0.checked_add(i64::try_from(span.as_micros()).ok()?)?;
        Self::from_micros(micros).ok()
    }

    /// The moment `span` earlier; `None` before the year 0001. What is finer than a microsecond is cut.
    pub fn checked_sub(self, span: Duration) -> Option<Self> {
        let micros = self.0.checked_sub(i64::try_from(span.as_micros()).ok()?)?;
        Self::from_micros(micros).ok()
    }

    /// The moment `span` later, at most [`Self::MAX`].
    #[must_use]
    pub fn saturating_add(self, span: Duration) -> Self {
        self.checked_add(span).unwrap_or(Self::MAX)
    }

    /// The moment `span` earlier, at least [`Self::MIN`].
    #[must_use]
    pub fn saturating_sub(self, span: Duration) -> Self {
        self.checked_sub(span).unwrap_or(Self::MIN)
    }

    /// How long after `earlier` this moment is; zero when it is not after it.
    pub fn duration_since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }

    fn clamped(micros: i64) -> Self {
        Self(micros.clamp(Self::MIN.0, Self::MAX.0))
    }

    fn from_seconds_clamped(seconds: i64) -> Self {
        Self::clamped(seconds.saturating_mul(MICROS))
    }

    fn seconds(self) -> i64 {
        self.0.div_euclid(MICROS)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.to_datetime().to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match Written::parse(text)? {
            Written { local, offset: Some(offset), has_seconds: true } => {
                from_local(local, offset, text)
            }
            _ => Err(Error::invalid(format!(
                "{text:?} is no full RFC 3339 time such as 2026-01-31T10:00:00Z"
            ))),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl From<Timestamp> for serde_json::Value {
    fn from(moment: Timestamp) -> Self {
        Self::String(moment.to_string())
    }
}

/// A time zone: one of the IANA database that is compiled in, or a fixed offset from UTC.
///
/// `FromStr` takes an IANA name, `UTC`, `Z` and `±hh:mm`; `Display` is its inverse, and JSON holds the same text.
///
/// # Example: what a zone may be called
/// ```
/// use prompt_engine_core::Zone;
/// assert_eq!("Europe/Berlin".parse::<Zone>()?.to_string(), "Europe/Berlin");
/// assert_eq!("+05:45".parse::<Zone>()?.to_string(), "+05:45");
/// assert_eq!("Z".parse::<Zone>()?, Zone::UTC);
/// assert!("Mars/Olympus".parse::<Zone>().is_err());
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Zone(Rule);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Rule {
    Named(Tz),
    Fixed(FixedOffset),
}

impl Zone {
    /// Coordinated universal time.
    pub const UTC: Self = Self(Rule::Named(Tz::UTC));

    /// The offset in force `seconds` after the start of 1970 in UTC, in seconds east.
    fn offset_at(self, seconds: i64) -> i64 {
        let utc = DateTime::from_timestamp(seconds, 0).unwrap_or_default().naive_utc();
        i64::from(match self.0 {
            Rule::Named(zone) => zone.offset_from_utc_datetime(&utc).fix().local_minus_utc(),
            Rule::Fixed(offset) => offset.local_minus_utc(),
        })
    }

    /// When the clocks show `local`, in microseconds; the earlier one of two, `None` where they skip it.
    fn earliest(self, local: NaiveDateTime) -> Option<i64> {
        let offsets = match self.0 {
            Rule::Named(zone) => zone.offset_from_local_datetime(&local).map(|o| o.fix()),
            Rule::Fixed(offset) => LocalResult::Single(offset),
        };
        let micros = |offset: FixedOffset| {
            local.and_utc().timestamp_micros() - i64::from(offset.local_minus_utc()) * MICROS
        };
        match offsets {
            LocalResult::None => None,
            LocalResult::Single(offset) => Some(micros(offset)),
            LocalResult::Ambiguous(one, other) => Some(micros(one).min(micros(other))),
        }
    }

    /// The first second at or after the midnight that `date` starts with, in UTC.
    fn start_of_date(self, date: NaiveDate) -> i64 {
        let midnight = date.and_time(NaiveTime::MIN);
        if let Some(micros) = self.earliest(midnight) {
            return micros.div_euclid(MICROS);
        }
        // The clocks skip midnight: the day starts where they jump, at most 26 hours from it.
        let local = midnight.and_utc().timestamp();
        let (mut before, mut after) = (local - 36 * 3600, local + 36 * 3600);
        while after - before > 1 {
            let middle = before + (after - before) / 2;
            if middle + self.offset_at(middle) < local {
                before = middle;
            } else {
                after = middle;
            }
        }
        after
    }

    /// The first second after `before`, at most `after`, with the offset that `after` has.
    fn change_between(self, mut before: i64, mut after: i64) -> i64 {
        let offset = self.offset_at(after);
        while after - before > 1 {
            let middle = before + (after - before) / 2;
            if self.offset_at(middle) == offset {
                after = middle;
            } else {
                before = middle;
            }
        }
        after
    }

    fn local(self, seconds: i64) -> DateTime<FixedOffset> {
        let utc = DateTime::from_timestamp(seconds, 0).unwrap_or_default();
        match self.0 {
            Rule::Named(zone) => utc.with_timezone(&zone).fixed_offset(),
            Rule::Fixed(offset) => utc.with_timezone(&offset),
        }
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self::UTC
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Rule::Named(zone) => f.pad(zone.name()),
            Rule::Fixed(offset) => f.pad(&offset.to_string()),
        }
    }
}

impl FromStr for Zone {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "Z" {
            return Ok(Self::UTC);
        }
        if text.starts_with(['+', '-']) {
            let offset = parse_offset(text)
                .ok_or_else(|| Error::invalid(format!("{text:?} is no offset such as +01:00")))?;
            return Ok(if offset.local_minus_utc() == 0 {
                Self::UTC
            } else {
                Self(Rule::Fixed(offset))
            });
        }
        text.parse().map(|zone| Self(Rule::Named(zone))).map_err(|_| {
            Error::invalid(format!(
                "{text:?} is no time zone; give an IANA name such as Europe/Berlin, UTC, or an offset such as +01:00"
            ))
        })
    }
}

impl Serialize for Zone {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The moment that `text` names, read in `zone` where it has no offset of its own.
///
/// Taken are a date (`2026-01-31`: its first instant in the zone), a local time (`2026-01-31T10:00`, with seconds
/// and decimals if wanted, with a space for the `T` if wanted; of two the earlier) and a time with an offset.
///
/// # Errors
/// `Invalid`, naming the text, where it is none of these, or names a date or a local time that does not exist.
///
/// # Example: a day starts where its zone says
/// ```
/// use prompt_engine_core::parse_moment;
/// let start = parse_moment("2026-01-31", "Europe/Berlin".parse()?)?;
/// assert_eq!(start.to_string(), "2026-01-30T23:00:00.000000Z");
/// assert!(parse_moment("2026-02-30", "UTC".parse()?).is_err());
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
pub fn parse_moment(text: &str, zone: Zone) -> Result<Timestamp> {
    if let Some(date) = parse_date(text)? {
        let seconds = zone.start_of_date(date);
        if zone.local(seconds).date_naive() != date {
            return Err(Error::invalid(format!("the clocks of {zone} skip the whole day {text}")));
        }
        return Timestamp::from_micros(seconds * MICROS).map_err(|_| out_of_years(text));
    }
    let Written { local, offset, .. } = Written::parse(text)?;
    match offset {
        Some(offset) => from_local(local, offset, text),
        None => {
            let micros = zone.earliest(local).ok_or_else(|| {
                Error::invalid(format!(
                    "the local time {text:?} does not exist in {zone}: its clocks skip it"
                ))
            })?;
            Timestamp::from_micros(micros).map_err(|_| out_of_years(text))
        }
    }
}

/// The date if `text` is exactly `yyyy-mm-dd`; `None` if it has another shape.
///
/// # Errors
/// `Invalid` where the shape is right and the date does not exist.
pub(crate) fn parse_date(text: &str) -> Result<Option<NaiveDate>> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return Ok(None);
    }
    let (Some(year), Some(month), Some(day)) =
        (digits(&bytes[..4]), digits(&bytes[5..7]), digits(&bytes[8..]))
    else {
        return Ok(None);
    };
    let date = i32::try_from(year)
        .ok()
        .filter(|year| *year > 0)
        .and_then(|year| NaiveDate::from_ymd_opt(year, month, day));
    date.map(Some).ok_or_else(|| Error::invalid(format!("the date {text} does not exist")))
}

/// A date and time as they are written: what the clock shows, and the offset if one is given.
struct Written {
    local: NaiveDateTime,
    offset: Option<FixedOffset>,
    has_seconds: bool,
}

impl Written {
    /// Reads `yyyy-mm-dd`, `T` or a space, `hh:mm[:ss[.f…]]`, and `Z`, `±hh:mm` or nothing.
    fn parse(text: &str) -> Result<Self> {
        let no_time = || {
            Error::invalid(format!(
                "{text:?} is no time; write 2026-01-31, 2026-01-31T10:00 or 2026-01-31T10:00:00+01:00"
            ))
        };
        let (date, rest) = text.split_at_checked(10).ok_or_else(no_time)?;
        let date = parse_date(date)?.ok_or_else(no_time)?;
        let rest = rest.strip_prefix(['T', 't', ' ']).ok_or_else(no_time)?;
        let end = rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len());
        let (clock, offset) = rest.split_at(end);
        let offset = match offset {
            "" => None,
            other => Some(parse_offset(other).ok_or_else(no_time)?),
        };
        let (whole, fraction) = match clock.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (clock, None),
        };
        let (whole, has_seconds) = (whole.as_bytes(), whole.len() == 8);
        let shape = if has_seconds { whole[5] == b':' } else { whole.len() == 5 };
        if !shape || whole[2] != b':' || (fraction.is_some() && !has_seconds) {
            return Err(no_time());
        }
        let part = |from: usize| digits(&whole[from..from + 2]).ok_or_else(no_time);
        let (hour, minute) = (part(0)?, part(3)?);
        let second = if has_seconds { part(6)? } else { 0 };
        let micros = fraction.map_or(Some(0), micros_of).ok_or_else(no_time)?;
        // RFC 3339 writes a leap second as :60; UTC in microseconds has none, so it is the second after.
        let leap = second == 60 && minute == 59 && offset.is_some();
        let time = NaiveTime::from_hms_micro_opt(hour, minute, second - u32::from(leap), micros)
            .ok_or_else(|| Error::invalid(format!("the time of day in {text:?} does not exist")))?;
        let local = date.and_time(time);
        let local = if leap { local + chrono::Duration::seconds(1) } else { local };
        Ok(Self { local, offset, has_seconds })
    }
}

fn from_local(local: NaiveDateTime, offset: FixedOffset, text: &str) -> Result<Timestamp> {
    let east = i64::from(offset.local_minus_utc()) * MICROS;
    Timestamp::from_micros(local.and_utc().timestamp_micros() - east)
        .map_err(|_| out_of_years(text))
}

fn out_of_years(text: &str) -> Error {
    Error::invalid(format!("{text:?} is outside the years 0001 to 9999 of UTC"))
}

/// `Z` or `±hh:mm`.
fn parse_offset(text: &str) -> Option<FixedOffset> {
    let bytes = text.as_bytes();
    if matches!(bytes, b"Z" | b"z") {
        return FixedOffset::east_opt(0);
    }
    if bytes.len() != 6 || bytes[3] != b':' {
        return None;
    }
    let (hours, minutes) = (digits(&bytes[1..3])?, digits(&bytes[4..])?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let seconds = i32::try_from(hours * 3600 + minutes * 60).ok()?;
    match bytes[0] {
        b'+' => FixedOffset::east_opt(seconds),
        b'-' => FixedOffset::west_opt(seconds),
        _ => None,
    }
}

/// The number that a few ASCII digits write; `None` where one is no digit.
fn digits(bytes: &[u8]) -> Option<u32> {
    bytes.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0'))
    })
}

/// The microseconds of the decimals of a second, cut after the sixth.
fn micros_of(fraction: &str) -> Option<u32> {
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let given = &fraction.as_bytes()[..fraction.len().min(6)];
    let missing = u32::try_from(6 - given.len()).ok()?;
    Some(digits(given)? * 10_u32.pow(missing))
}

/// A half-open range of time: `from` is in it, `to` is not; an end that is `None` is open.
///
/// # Example: half-open
/// ```
/// use prompt_engine_core::{TimeRange, Timestamp};
/// let (one, two): (Timestamp, Timestamp) = ("2026-01-01T00:00:00Z".parse()?, "2026-01-02T00:00:00Z".parse()?);
/// let range = TimeRange::new(Some(one), Some(two))?;
/// assert!(range.contains(one) && !range.contains(two));
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TimeRange {
    /// The first moment in the range.
    pub from: Option<Timestamp>,
    /// The first moment after the range.
    pub to: Option<Timestamp>,
}

impl TimeRange {
    /// All of time.
    pub const fn all() -> Self {
        Self { from: None, to: None }
    }

    /// The range from `from` until before `to`.
    ///
    /// # Errors
    /// `Invalid` where `to` is before `from`.
    pub fn new(from: Option<Timestamp>, to: Option<Timestamp>) -> Result<Self> {
        match (from, to) {
            (Some(from), Some(to)) if to < from => Err(Error::invalid(format!(
                "a range of time cannot end at {to}, before it starts at {from}"
            ))),
            _ => Ok(Self { from, to }),
        }
    }

    /// The time `span` long that ends now.
    pub fn last(span: Duration) -> Self {
        let now = Timestamp::now();
        Self { from: Some(now.saturating_sub(span)), to: Some(now) }
    }

    /// The last `days` times 24 hours, until now.
    pub fn last_days(days: u32) -> Self {
        Self::last(Duration::from_secs(u64::from(days) * 86_400))
    }

    /// The last `hours` hours, until now.
    pub fn last_hours(hours: u32) -> Self {
        Self::last(Duration::from_secs(u64::from(hours) * 3_600))
    }

    /// Whether `moment` is in the range.
    pub fn contains(&self, moment: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= moment) && self.to.is_none_or(|to| moment < to)
    }
}

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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn bucket(width: BucketWidth, zone: &str) -> Bucket {
        Bucket { width, zone: zone.parse().unwrap() }
    }

    fn labels(bucket: Bucket, from: &str, to: &str) -> Vec<String> {
        let range = TimeRange::new(Some(at(from)), Some(at(to))).unwrap();
        bucket.starts_in(range).map(|start| bucket.label(start)).collect()
    }

    proptest! {
        #[test]
        fn a_timestamp_reads_back_what_it_prints(micros in Timestamp::MIN.0..=Timestamp::MAX.0) {
            let moment = Timestamp::from_micros(micros).unwrap();
            prop_assert_eq!(moment.to_string().parse::<Timestamp>().unwrap(), moment);
            prop_assert_eq!(moment.to_string().len(), 27);
            prop_assert_eq!(Timestamp::from_datetime(moment.to_datetime()).unwrap(), moment);
        }

        #[test]
        fn buckets_follow_each_other_without_gap_or_overlap(
            micros in at("1960-01-01T00:00:00Z").0..at("2040-01-01T00:00:00Z").0,
            zone in prop::sample::select(vec![
                "UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Kathmandu", "Australia/Lord_Howe",
                "America/St_Johns", "Pacific/Apia", "Africa/Casablanca", "America/Havana", "-03:30",
            ]),
            width in prop::sample::select(BucketWidth::ALL.to_vec()),
        ) {
            let bucket = bucket(width, zone);
            let moment = Timestamp::from_micros(micros).unwrap();
            let start = bucket.start_of(moment);
            let next = bucket.next(start);
            prop_assert!(start <= moment && moment < next, "{start} {moment} {next}");
            prop_assert_eq!(bucket.start_of(start), start);
            prop_assert_eq!(bucket.start_of(Timestamp(next.0 - 1)), start);
            prop_assert_eq!(bucket.start_of(next), next);
            let mut cursor = BucketCursor::new(bucket);
            prop_assert_eq!(cursor.start_of(moment), start);
            prop_assert_eq!(cursor.start_of(start), start);
            prop_assert_eq!(cursor.start_of(next), next);
        }
    }

    #[test]
    fn every_zone_reads_back_what_it_prints() {
        let fixed = ["+05:45", "-03:30", "+14:00", "-00:30"];
        for name in chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()).chain(fixed) {
            let zone: Zone = name.parse().unwrap();
            assert_eq!(zone.to_string(), name);
            let json = serde_json::to_string(&zone).unwrap();
            assert_eq!(serde_json::from_str::<Zone>(&json).unwrap(), zone);
        }
        assert_eq!("+00:00".parse::<Zone>().unwrap(), Zone::UTC);
        for wrong in ["", "Berlin", "+1", "+25:00", "+01:60", "UTC+1", "europe/berlin"] {
            let error = wrong.parse::<Zone>().unwrap_err();
            assert!(error.to_string().contains(&format!("{wrong:?}")), "{error}");
        }
    }

    #[test]
    fn the_ends_of_the_years_are_kept_and_what_is_beyond_is_refused() {
        assert_eq!(Timestamp::MIN.to_string(), "0001-01-01T00:00:00.000000Z");
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-31T23:59:59.999999Z");
        assert!(Timestamp::from_micros(Timestamp::MIN.0 - 1).is_err());
        assert!(Timestamp::from_micros(Timestamp::MAX.0 + 1).is_err());
        assert!("9999-12-31T23:59:59-00:01".parse::<Timestamp>().is_err());
        assert!("0000-06-01T00:00:00Z".parse::<Timestamp>().is_err());
        let second = Duration::from_secs(1);
        assert_eq!(Timestamp::MAX.checked_add(second), None);
        assert_eq!(Timestamp::MIN.checked_sub(second), None);
        assert_eq!(Timestamp::MAX.saturating_sub(Duration::MAX), Timestamp::MIN);
        for width in BucketWidth::ALL {
            for zone in ["UTC", "+14:00", "-12:00", "Europe/Berlin"] {
                let bucket = bucket(*width, zone);
                for moment in [Timestamp::MIN, Timestamp::MAX] {
                    assert!(bucket.start_of(moment) <= moment);
                    assert!(bucket.next(bucket.start_of(moment)) >= moment);
                }
            }
        }
    }

    #[test]
    fn a_fraction_finer_than_microseconds_is_cut() {
        assert_eq!(at("2026-01-31T10:00:00.1234569Z"), at("2026-01-31T10:00:00.123456Z"));
        assert_eq!(at("1969-12-31T23:59:59.9999999Z").as_micros(), -1);
        assert_eq!(at("2016-12-31T23:59:60Z"), at("2017-01-01T00:00:00Z"));
    }

    #[test]
    fn a_moment_is_read_in_the_zone_unless_it_has_an_offset() {
        let berlin = "Europe/Berlin".parse().unwrap();
        for (text, expected) in [
            ("2026-01-31", "2026-01-30T23:00:00Z"),
            ("2026-01-31T10:00", "2026-01-31T09:00:00Z"),
            ("2026-01-31 10:00:30", "2026-01-31T09:00:30Z"),
            ("2026-07-31T10:00:30.25", "2026-07-31T08:00:30.25Z"),
            ("2026-01-31T10:00:00-05:00", "2026-01-31T15:00:00Z"),
            ("2026-01-31T10:00Z", "2026-01-31T10:00:00Z"),
            // Shown twice: the earlier.
            ("2026-10-25T02:30", "2026-10-25T00:30:00Z"),
        ] {
            assert_eq!(parse_moment(text, berlin).unwrap(), at(expected), "{text}");
        }
        // America/Sao_Paulo went from 00:00 to 01:00.
        let start = parse_moment("2018-11-04", "America/Sao_Paulo".parse().unwrap()).unwrap();
        assert_eq!(start, at("2018-11-04T03:00:00Z"));
    }

    #[test]
    fn a_moment_that_does_not_exist_is_refused_by_name() {
        for (text, zone, named) in [
            ("2026-02-30", "UTC", "2026-02-30"),
            ("2026-02-30T10:00:00Z", "UTC", "2026-02-30"),
            ("2026-03-29T02:30", "Europe/Berlin", "2026-03-29T02:30"),
            ("2026-01-31T24:00", "UTC", "2026-01-31T24:00"),
            ("2026-01-31T10:00:60", "UTC", "2026-01-31T10:00:60"),
            ("2011-12-30", "Pacific/Apia", "2011-12-30"),
            ("yesterday", "UTC", "yesterday"),
            ("2026-1-3", "UTC", "2026-1-3"),
            ("2026-01-31T", "UTC", "2026-01-31T"),
            ("2026-01-31T10:00.5", "UTC", "2026-01-31T10:00.5"),
            ("2026-01-31T10:00:00.Z", "UTC", "2026-01-31T10:00:00.Z"),
            ("2026-01-3\u{e9}T10:00", "UTC", "2026-01-3"),
            ("", "UTC", "\"\""),
        ] {
            let error = parse_moment(text, zone.parse().unwrap()).unwrap_err();
            assert!(error.to_string().contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn days_of_23_and_25_hours_are_one_bucket_each() {
        let days = bucket(BucketWidth::Day, "Europe/Berlin");
        for (noon, hours) in [
            ("2026-03-28T12:00:00+01:00", 24),
            ("2026-03-29T12:00:00+02:00", 23),
            ("2026-10-25T12:00:00+01:00", 25),
        ] {
            let start = days.start_of(at(noon));
            assert_eq!(days.label(start), noon[..10]);
            assert_eq!(days.next(start).duration_since(start), Duration::from_secs(hours * 3600));
        }
        let hours = bucket(BucketWidth::Hour, "Europe/Berlin");
        assert_eq!(
            labels(hours, "2026-10-24T23:30:00Z", "2026-10-25T02:00:00Z"),
            ["2026-10-25T01:00+02:00", "2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00"]
        );
    }

    #[test]
    fn a_day_without_midnight_starts_where_the_clocks_jump() {
        let days = bucket(BucketWidth::Day, "America/Sao_Paulo");
        let start = days.start_of(at("2018-11-04T12:00:00-02:00"));
        assert_eq!(start, at("2018-11-04T01:00:00-02:00"));
        assert_eq!(days.next(start), at("2018-11-05T00:00:00-02:00"));
        assert_eq!(
            labels(days, "2018-11-03T12:00:00-03:00", "2018-11-05T12:00:00-02:00"),
            ["2018-11-03", "2018-11-04", "2018-11-05"]
        );
        assert_eq!(
            labels(
                bucket(BucketWidth::Day, "Pacific/Apia"),
                "2011-12-29T12:00:00-10:00",
                "2012-01-01T00:00:00+14:00"
            ),
            ["2011-12-29", "2011-12-31"]
        );
    }

    #[test]
    fn hours_follow_a_clock_of_three_quarters() {
        for zone in ["Asia/Kathmandu", "+05:45"] {
            let hours = bucket(BucketWidth::Hour, zone);
            let start = hours.start_of(at("2026-01-31T10:20:00Z"));
            assert_eq!(start, at("2026-01-31T10:15:00Z"));
            assert_eq!(hours.label(start), "2026-01-31T16:00+05:45");
            assert_eq!(hours.next(start), at("2026-01-31T11:15:00Z"));
        }
    }

    #[test]
    fn a_shift_of_half_an_hour_cuts_an_hour_in_two() {
        let hours = bucket(BucketWidth::Hour, "Australia/Lord_Howe");
        assert_eq!(
            labels(hours, "2026-10-04T01:00:00+10:30", "2026-10-04T04:00:00+11:00"),
            ["2026-10-04T01:00+10:30", "2026-10-04T02:30+11:00", "2026-10-04T03:00+11:00"]
        );
        assert_eq!(
            labels(hours, "2026-04-05T01:00:00+11:00", "2026-04-05T03:00:00+10:30"),
            ["2026-04-05T01:00+11:00", "2026-04-05T01:30+10:30", "2026-04-05T02:00+10:30"]
        );
    }

    #[test]
    fn a_shift_back_over_midnight_leaves_the_repeated_minutes_to_the_new_day() {
        // America/St_Johns went from 00:01 back to 23:01 on 2010-11-07.
        let days = bucket(BucketWidth::Day, "America/St_Johns");
        let start = days.start_of(at("2010-11-07T12:00:00-03:30"));
        assert_eq!(start, at("2010-11-07T00:00:00-02:30"));
        assert_eq!(days.start_of(at("2010-11-06T23:30:00-03:30")), start);
        assert_eq!(days.label(start), "2010-11-07");
    }

    #[test]
    fn a_range_is_half_open_and_never_ends_before_it_starts() {
        let (one, two) = (at("2026-01-01T00:00:00Z"), at("2026-01-02T00:00:00Z"));
        assert!(TimeRange::new(Some(two), Some(one)).is_err());
        assert!(TimeRange::new(Some(one), Some(one)).is_ok_and(|range| !range.contains(one)));
        assert!(TimeRange::all().contains(Timestamp::MAX));
        let range = TimeRange::last_days(30);
        let span = range.to.unwrap().duration_since(range.from.unwrap());
        assert_eq!(span, Duration::from_secs(30 * 86_400));
        let days = bucket(BucketWidth::Day, "UTC");
        assert_eq!(days.starts_in(TimeRange::all()).count(), 0);
        assert_eq!(days.starts_in(TimeRange { from: Some(one), to: Some(two) }).count(), 1);
    }
}
