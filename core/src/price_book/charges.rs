//! Prices in whole femto-dollars (1e-15) a token, and what the tokens of one call come to.
//! Invariant: exact until the one rounding, half-even to 1e-12; no token is counted twice; a call
//! with tokens that no rate is known for has no amount at all.
//!
//! A rate is dollars per million tokens with at most 9 decimals, so a token costs a whole number of
//! femto-dollars, at most 1e15; with at most 1e12 tokens of a kind every sum fits 128 bits.

use rust_decimal::Decimal;

use super::CostParts;
use crate::cost::UnpricedReason;
use crate::money::Usd;
use crate::rates::{InputTier, Rates};
use crate::tokens::TokenUsage;

/// What stands where no rate is known: more than any rate.
const UNKNOWN: u64 = u64::MAX;

/// Femto-dollars per token of each kind, [`UNKNOWN`] where no rate is known.
#[derive(Debug, Clone, Copy)]
struct PerToken {
    input: u64,
    output: u64,
    cache_read: u64,
    cache_write: u64,
    cache_write_1h: u64,
    reasoning: u64,
    audio_input: u64,
    audio_output: u64,
}

impl PerToken {
    fn new(rates: &Rates) -> Self {
        let Rates {
            input,
            output,
            cache_read,
            cache_write,
            cache_write_1h,
            reasoning,
            audio_input,
            audio_output,
        } = *rates;
        let femto = |rate: Option<Decimal>| {
            rate.and_then(|rate| scaled(rate, Rates::SCALE)).map_or(UNKNOWN, |femto| {
                u64::try_from(femto).unwrap_or(UNKNOWN) // beyond Rates::MAX, which was refused
            })
        };
        let cache_write = cache_write.or(input);
        Self {
            input: femto(input),
            output: femto(output),
            cache_read: femto(cache_read.or(input)),
            cache_write: femto(cache_write),
            cache_write_1h: femto(cache_write_1h.or(cache_write)),
            reasoning: femto(reasoning.or(output)),
            audio_input: femto(audio_input),
            audio_output: femto(audio_output),
        }
    }
}

/// `amount` times ten to the power `scale`, where that is a whole number that is not negative.
fn scaled(amount: Decimal, scale: u32) -> Option<u128> {
    let amount = amount.normalize();
    let missing = scale.checked_sub(amount.scale())?;
    u128::try_from(amount.mantissa()).ok()?.checked_mul(10_u128.pow(missing))
}

/// What a price says, for any size of input.
#[derive(Debug)]
pub(super) struct Charges {
    rates: PerToken,
    /// For inputs of strictly more tokens, by rising size.
    tiers: Box<[(u64, PerToken)]>,
    /// Femto-dollars.
    per_request: u128,
    /// Whether it says nothing of tokens and requests: what is paid for is something else.
    silent: bool,
}

impl Charges {
    pub(super) fn new(rates: &Rates, tiers: &[InputTier], per_request: Option<Decimal>) -> Self {
        let a_call = per_request.map(|usd| scaled(usd, 15));
        Self {
            rates: PerToken::new(rates),
            tiers: tiers.iter().map(|tier| (tier.tokens, PerToken::new(&tier.rates))).collect(),
            per_request: a_call.flatten().unwrap_or(0),
            // A price per request that is out of its range was refused; here it says nothing.
            silent: a_call.map_or(*rates == Rates::default(), |femto| femto.is_none()),
        }
    }

    /// What `tokens` cost: the total, and its parts, which add up to it.
    pub(super) fn cost(&self, tokens: &TokenUsage) -> Result<(Usd, CostParts), UnpricedReason> {
        if self.silent {
            return Err(UnpricedReason::MissingRate);
        }
        let size = |(above, _): &&(u64, PerToken)| tokens.input > *above;
        let rates = self.tiers.iter().rev().find(size).map_or(&self.rates, |(_, rates)| rates);
        // A checked usage has no part larger than its whole.
        let text_input = tokens.input - tokens.cache_read - tokens.cache_write - tokens.audio_input;
        let text_output = tokens.output - tokens.reasoning - tokens.audio_output;
        let input = sum([
            (text_input, rates.input),
            (tokens.cache_read, rates.cache_read),
            (tokens.cache_write - tokens.cache_write_1h, rates.cache_write),
            (tokens.cache_write_1h, rates.cache_write_1h),
            (tokens.audio_input, rates.audio_input),
        ])?;
        let output = sum([
            (text_output, rates.output),
            (tokens.reasoning, rates.reasoning),
            (tokens.audio_output, rates.audio_output),
        ])?;
        // Rounding the running sum, not each part, is what lets the parts add up to the total.
        let upto_input = pico(input);
        let upto_output = pico(input + output);
        let total = pico(input + output + self.per_request);
        let usd = |pico: u128| match i64::try_from(pico) {
            Ok(_) => Ok(Usd::from_row_pico(pico)),
            Err(_) => Err(UnpricedReason::Overflow),
        };
        let parts = CostParts {
            input: usd(upto_input)?,
            output: usd(upto_output - upto_input)?,
            other: usd(total - upto_output)?,
        };
        Ok((usd(total)?, parts))
    }
}

fn sum<const N: usize>(kinds: [(u64, u64); N]) -> Result<u128, UnpricedReason> {
    let mut sum = 0;
    for (count, rate) in kinds {
        if count == 0 {
            continue;
        }
        if rate == UNKNOWN {
            return Err(UnpricedReason::MissingRate);
        }
        sum += u128::from(count) * u128::from(rate);
    }
    Ok(sum)
}

/// Femto-dollars in pico-dollars, half-even.
fn pico(femto: u128) -> u128 {
    /// Divides by a thousand in the width of `femto`: 64 bits are several times as fast as 128.
    macro_rules! half_even {
        ($femto:expr) => {{
            let (whole, rest) = ($femto / 1_000, $femto % 1_000);
            let up = rest > 500 || rest == 500 && whole % 2 == 1;
            if up { whole + 1 } else { whole }
        }};
    }
    match u64::try_from(femto) {
        Ok(femto) => half_even!(femto).into(),
        Err(_) => half_even!(femto),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_pico_dollar_goes_to_the_even_one() {
        let wide = u128::from(u64::MAX) * 1_000;
        for (femto, rounded) in [(499, 0), (500, 0), (501, 1), (1_500, 2), (2_500, 2), (2_501, 3)] {
            assert_eq!(pico(femto), rounded, "{femto}");
        }
        assert_eq!(pico(wide), u128::from(u64::MAX));
        assert_eq!(pico(wide + 500), u128::from(u64::MAX) + 1);
        assert_eq!(pico(wide + 499), u128::from(u64::MAX));
    }
}
