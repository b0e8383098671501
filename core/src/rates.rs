//! What tokens cost: rates, larger inputs, windows of the day.
//! Invariant: rates are US dollars per million tokens with at most 9 decimals; a rate that is not
//! there is not known, never 0.

use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::time::Timestamp;

/// US dollars per million tokens of each kind; `None` where no price is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rates {
    /// Input tokens that are none of the following.
    #[serde(with = "rust_decimal::serde::str_option", skip_serializing_if = "Option::is_none")]
    pub input: Option<Decimal>,
    /// Output tokens that are none of the following.
    #[serde(with = "rust_decimal::serde::str_option", skip_serializing_if = "Option::is_none")]
    pub output: Option<Decimal>,
    /// Input read from a cache; the input price where there is none.
    #[serde(with = "rust_decimal::serde::str_option", skip_serializing_if = "Option::is_none")]
    pub cache_read: Option<Decimal>,
    /// Input written to a cache; the input price where there is none.
    #[serde(with = "rust_decimal::serde::str_option", skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<Decimal>,
    /// Input written to a cache for an hour; the price of `cache_write` where there is none.
    #[serde(with = "rust_decimal::serde::str_option", skip_serializing_if = "Option::is_none")]
    pub cache_write_1h: Option<Decimal>,
    /// Output spent on reasoning; the output price where there is none.
    #[serde(with = "rust_decimal::serde::str_option", skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<Decimal>,
    /// Audio input; not known where there is none, since audio costs several times what text does.
    #[serde(with = "rust_decimal::serde::str_option", skip_serializing_if = "Option::is_none")]
    pub audio_input: Option<Decimal>,
    /// Audio output; not known where there is none.
    #[serde(with = "rust_decimal::serde::str_option", skip_serializing_if = "Option::is_none")]
    pub audio_output: Option<Decimal>,
}

impl Rates {
    /// The most a rate may be: a million dollars per million tokens.
    pub const MAX: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 0);
    /// Decimals that a rate may have.
    pub const SCALE: u32 = 9;

    /// Each rate with its name.
    pub fn each(&self) -> [(&'static str, Option<Decimal>); 8] {
        [
            ("input", self.input),
            ("output", self.output),
            ("cache_read", self.cache_read),
            ("cache_write", self.cache_write),
            ("cache_write_1h", self.cache_write_1h),
            ("reasoning", self.reasoning),
            ("audio_input", self.audio_input),
            ("audio_output", self.audio_output),
        ]
    }

    /// The place of the rate of this name; `None` if there is no such rate.
    pub fn rate_mut(&mut self, name: &str) -> Option<&mut Option<Decimal>> {
        Some(match name {
            "input" => &mut self.input,
            "output" => &mut self.output,
            "cache_read" => &mut self.cache_read,
            "cache_write" => &mut self.cache_write,
            "cache_write_1h" => &mut self.cache_write_1h,
            "reasoning" => &mut self.reasoning,
            "audio_input" => &mut self.audio_input,
            "audio_output" => &mut self.audio_output,
            _ => return None,
        })
    }

    /// Checks every rate.
    ///
    /// # Errors
    /// `Invalid`, naming the rate.
    pub fn validate(&self) -> Result<()> {
        let mut rates = self.each().into_iter();
        rates.try_for_each(|(name, rate)| rate.map_or(Ok(()), |rate| check_rate(name, rate)))
    }
}

/// Checks the rate `name`: not negative, at most [`Rates::MAX`], at most [`Rates::SCALE`] decimals.
pub(crate) fn check_rate(name: &str, rate: Decimal) -> Result<()> {
    if rate.is_sign_negative() && !rate.is_zero() {
        return Err(Error::invalid(format!("the rate {name} is negative ({rate})")));
    }
    if rate > Rates::MAX {
        let most = Rates::MAX;
        return Err(Error::invalid(format!("the rate {name} is more than {most} ({rate})")));
    }
    if rate.normalize().scale() > Rates::SCALE {
        let most = Rates::SCALE;
        return Err(Error::invalid(format!(
            "the rate {name} has more than {most} decimals ({rate})"
        )));
    }
    Ok(())
}

/// The rates of a whole call whose input is large: a cliff, not a step of a staircase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputTier {
    /// Strictly more input tokens than these.
    pub tokens: u64,
    /// What then holds for every token of the call.
    pub rates: Rates,
}

/// Checks `tiers` and that each is above the one before.
pub(crate) fn check_tiers(tiers: &[InputTier]) -> Result<()> {
    tiers.iter().try_for_each(|tier| tier.rates.validate())?;
    match tiers.windows(2).find(|pair| pair[0].tokens >= pair[1].tokens) {
        Some(pair) => Err(Error::invalid(format!(
            "the tier above {} tokens comes after the one above {}",
            pair[1].tokens, pair[0].tokens
        ))),
        None => Ok(()),
    }
}

/// A time of every day at which other rates hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DailyWindow {
    /// From this time on.
    pub from: TimeOfDay,
    /// Until before this time: of the next day, where it is earlier.
    pub to: TimeOfDay,
    /// What then holds.
    pub rates: Rates,
    /// What then holds for large inputs, by rising size.
    #[serde(default, rename = "above", skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<InputTier>,
}

impl DailyWindow {
    /// Whether `at` is inside the window.
    ///
    /// # Example: over midnight
    /// ```
    /// use prompt_engine_core::{DailyWindow, Rates};
    /// let night = DailyWindow {
    ///     from: "22:00".parse()?, to: "06:30".parse()?, rates: Rates::default(), tiers: vec![],
    /// };
    /// assert!(night.contains("2026-01-01T22:00:00Z".parse()?));
    /// assert!(!night.contains("2026-01-01T06:30:00Z".parse()?));
    /// # Ok::<(), prompt_engine_core::Error>(())
    /// ```
    pub fn contains(&self, at: Timestamp) -> bool {
        let (from, to) = (self.from.as_micros(), self.to.as_micros());
        let at = at.as_micros().rem_euclid(TimeOfDay::DAY);
        if to < from { at >= from || at < to } else { from <= at && at < to }
    }
}

/// A minute of the day in UTC, written `16:30`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimeOfDay(u16);

impl TimeOfDay {
    /// Microseconds of a day.
    const DAY: i64 = 86_400_000_000;

    /// Microseconds since midnight.
    pub const fn as_micros(self) -> i64 {
        self.0 as i64 * 60_000_000
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl FromStr for TimeOfDay {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let two = |part: &str, less_than: u16| {
            let digits = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse::<u16>().ok().filter(|number| digits && *number < less_than)
        };
        let parse = || {
            let (hours, minutes) = text.split_once(':')?;
            Some(Self(two(hours, 24)? * 60 + two(minutes, 60)?))
        };
        parse().ok_or_else(|| Error::invalid(format!("{text:?} is no time of day such as 16:30")))
    }
}

impl Serialize for TimeOfDay {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TimeOfDay {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_is_two_digits_twice() {
        assert_eq!("16:30".parse::<TimeOfDay>().unwrap().to_string(), "16:30");
        for text in ["24:00", "00:60", "1:30", "+1:30", "0130", "", "00:00:00"] {
            assert!(text.parse::<TimeOfDay>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_rate_out_of_its_range_is_refused_by_name() {
        let rate =
            |text: &str| Rates { reasoning: Some(text.parse().unwrap()), ..Rates::default() };
        rate("1000000").validate().unwrap();
        rate("0.1234567890").validate().unwrap();
        for (text, named) in
            [("-1", "negative"), ("1000000.1", "more than 1000000"), ("0.1234567891", "9 decimals")]
        {
            let said = rate(text).validate().unwrap_err().to_string();
            assert!(said.contains("reasoning") && said.contains(named), "{said}");
        }
    }

    #[test]
    fn tiers_rise() {
        let tier = |tokens| InputTier { tokens, rates: Rates::default() };
        check_tiers(&[tier(0), tier(1)]).unwrap();
        assert!(check_tiers(&[tier(1), tier(1)]).is_err());
    }
}
