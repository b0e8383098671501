//! Moments, time zones and ranges of time; `bucket` cuts them. Pure but for [`Timestamp::now`].
//! Invariant: a [`Timestamp`] lies in the years 0001 to 9999; a range is half-open.

mod bucket;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{
    DateTime, FixedOffset, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, Offset, SecondsFormat,
    TimeZone, Utc,
};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

pub use bucket::{Bucket, BucketCursor, BucketWidth};

use crate::error::{Error, Result};

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
