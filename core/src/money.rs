//! Money: exact US dollars.
//! Invariant: at most 12 decimals. A price is rounded once, half-even, when a call is priced; sums are exact.

use std::fmt;
use std::str::FromStr;

use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// US dollars, exact to 1e-12 (a pico-dollar). Never a float.
///
/// # Example: exact sums
/// ```
/// use prompt_engine_core::Usd;
/// let tenth: Usd = "0.1".parse()?;
/// let sum = (0..1_000_000).map(|_| tenth.to_pico()).sum::<i128>();
/// assert_eq!(Usd::from_pico(sum).unwrap().to_string(), "100000");
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Usd(
    /// As it came: zeros at its end are left off where it is shown, not where it is made.
    Decimal,
);

impl Usd {
    /// Decimals that an amount may have.
    pub const SCALE: u32 = 12;
    /// Nothing.
    pub const ZERO: Self = Self(Decimal::ZERO);

    /// The amount rounded half-even to 1e-12.
    pub fn rounded(amount: Decimal) -> Self {
        Self(amount.round_dp_with_strategy(Self::SCALE, RoundingStrategy::MidpointNearestEven))
    }

    /// An amount of whole pico-dollars; `None` beyond about 7.9e16 dollars.
    pub fn from_pico(pico: i128) -> Option<Self> {
        Decimal::try_from_i128_with_scale(pico, Self::SCALE).ok().map(Self)
    }

    /// An amount of whole pico-dollars that fits a row, and so a decimal: see [`Usd::to_row`].
    pub(crate) const fn from_row_pico(pico: u128) -> Self {
        const fn part(pico: u128, shift: u32) -> u32 {
            #[allow(clippy::cast_possible_truncation, reason = "32 bits at a time are meant")]
            let part = (pico >> shift) as u32;
            part
        }
        Self(Decimal::from_parts(part(pico, 0), part(pico, 32), part(pico, 64), false, Self::SCALE))
    }

    /// The amount in whole pico-dollars; beyond 1.7e26 dollars the most that there are.
    pub fn to_pico(self) -> i128 {
        let scale = self.0.scale();
        self.0.mantissa().saturating_mul(10_i128.pow(Self::SCALE - scale.min(Self::SCALE)))
    }

    /// The amount in pico-dollars if it fits 64 bits, as the row of a store needs (about 9.2 million dollars).
    pub fn to_row(self) -> Option<i64> {
        i64::try_from(self.to_pico()).ok()
    }

    /// The amount as a decimal.
    pub fn as_decimal(self) -> Decimal {
        self.0.normalize()
    }
}

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_decimal().fmt(f)
    }
}

impl FromStr for Usd {
    type Err = Error;

    /// Parses a plain decimal such as `0.0125`. More than 12 decimals, and a negative amount, are refused.
    fn from_str(text: &str) -> Result<Self> {
        let amount = Decimal::from_str_exact(text.trim())
            .map_err(|_| Error::invalid(format!("{text:?} is not an amount of dollars")))?
            .normalize();
        if amount.scale() > Self::SCALE {
            return Err(Error::invalid(format!("{text:?} has more than {} decimals", Self::SCALE)));
        }
        if amount.is_sign_negative() && !amount.is_zero() {
            return Err(Error::invalid(format!("{text:?} is negative")));
        }
        Ok(Self(amount))
    }
}

impl Serialize for Usd {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn zeros_at_the_end_of_an_amount_are_neither_shown_nor_compared() {
        let short: Usd = "0.1".parse().unwrap();
        let long = Usd::from_pico(100_000_000_000).unwrap();
        let row = Usd::from_row_pico(100_000_000_000);
        assert!(short == long && long == row && short.cmp(&row).is_eq());
        assert_eq!(HashSet::from([short, long, row]).len(), 1);
        assert_eq!([short, long, row].map(|usd| usd.to_string()), ["0.1", "0.1", "0.1"]);
        assert_eq!(serde_json::to_string(&long).unwrap(), "\"0.1\"");
        assert_eq!(Usd::from_row_pico(u128::from(u64::MAX)).to_pico(), i128::from(u64::MAX));
    }
}
