//! A price: what the tokens of one model cost, from a moment until a moment.
//! Invariant: a validity is half-open in UTC, and no two of one origin, provider, model rule and
//! service tier overlap.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::id::CostConfigId;
use crate::label::Label;
use crate::status::named;
use crate::time::{TimeRange, Timestamp};

named! {
    /// Who set a price. What a user set wins over what came with the library.
    PriceOrigin, "origin" {
        /// Came with the library.
        Seed = 0 "seed",
        /// Set by a user.
        User = 1 "user",
    }
}

/// Which models a price is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelRule {
    /// The model of exactly this name.
    Equals(Label),
    /// Every model whose name starts so.
    StartsWith(Label),
}

impl ModelRule {
    /// Whether `model` is meant.
    pub fn matches(&self, model: &str) -> bool {
        match self {
            Self::Equals(name) => name.as_str() == model,
            Self::StartsWith(start) => model.starts_with(start.as_str()),
        }
    }

    /// The name, or the start of it.
    pub fn text(&self) -> &Label {
        match self {
            Self::Equals(text) | Self::StartsWith(text) => text,
        }
    }
}

/// US dollars per million tokens of each kind; `None` where no price is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rates {
    /// Input tokens that are none of the following.
    #[serde(with = "rust_decimal::serde::str_option")]
    pub input: Option<Decimal>,
    /// Output tokens that are none of the following.
    #[serde(with = "rust_decimal::serde::str_option")]
    pub output: Option<Decimal>,
    /// Input read from a cache; the input price where there is none.
    #[serde(with = "rust_decimal::serde::str_option")]
    pub cache_read: Option<Decimal>,
    /// Input written to a cache; the input price where there is none.
    #[serde(with = "rust_decimal::serde::str_option")]
    pub cache_write: Option<Decimal>,
    /// Input written to a cache for an hour; the price of `cache_write` where there is none.
    #[serde(with = "rust_decimal::serde::str_option")]
    pub cache_write_1h: Option<Decimal>,
    /// Output spent on reasoning; the output price where there is none.
    #[serde(with = "rust_decimal::serde::str_option")]
    pub reasoning: Option<Decimal>,
    /// Audio input.
    #[serde(with = "rust_decimal::serde::str_option")]
    pub audio_input: Option<Decimal>,
    /// Audio output.
    #[serde(with = "rust_decimal::serde::str_option")]
    pub audio_output: Option<Decimal>,
}

impl Rates {
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
}

/// The price of some models of one provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CostConfig {
    /// Its identity.
    pub id: CostConfigId,
    /// Who set it.
    pub origin: PriceOrigin,
    /// The provider, `openai` for one.
    pub provider: Label,
    /// The models.
    pub rule: ModelRule,
    /// The service tier it is for; `None` for the standard one.
    pub service_tier: Option<Label>,
    /// From when it holds (inclusive); `None`: since ever.
    pub valid_from: Option<Timestamp>,
    /// Until when it holds (exclusive); `None`: until further notice.
    pub valid_to: Option<Timestamp>,
    /// What it says.
    pub rates: Rates,
    /// US dollars for each request, besides its tokens.
    #[serde(default, with = "rust_decimal::serde::str_option")]
    pub per_request: Option<Decimal>,
    /// Where it was read.
    pub source: Option<String>,
}

impl CostConfig {
    /// The most a rate may be: a million dollars per million tokens.
    pub const MAX_RATE: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 0);

    /// Checks the range and the rates.
    ///
    /// # Errors
    /// `Invalid`, naming the model and the rule that is broken.
    pub fn validate(&self) -> Result<()> {
        let refuse = |what: String| {
            let (provider, model) = (&self.provider, self.rule.text());
            Err(Error::invalid(format!("the price of {provider}/{model}: {what}")))
        };
        if self.provider.is_empty() || self.rule.text().is_empty() {
            return refuse("it needs a provider and a model".to_owned());
        }
        if let (Some(from), Some(to)) = (self.valid_from, self.valid_to)
            && from >= to
        {
            return refuse(format!("it would end at {to}, not after its start at {from}"));
        }
        let rates = self.rates.each();
        if rates.iter().all(|(_, rate)| rate.is_none()) && self.per_request.is_none() {
            return refuse("it names no rate".to_owned());
        }
        for (name, rate) in rates.into_iter().chain([("per_request", self.per_request)]) {
            let Some(rate) = rate else { continue };
            if rate.is_sign_negative() && !rate.is_zero() {
                return refuse(format!("its rate {name} is negative ({rate})"));
            }
            if rate > Self::MAX_RATE {
                return refuse(format!("its rate {name} is more than {} ({rate})", Self::MAX_RATE));
            }
            if rate.normalize().scale() > 9 {
                return refuse(format!("its rate {name} has more than 9 decimals ({rate})"));
            }
        }
        Ok(())
    }

    /// When it holds.
    pub fn validity(&self) -> TimeRange {
        TimeRange { from: self.valid_from, to: self.valid_to }
    }

    /// Whether it is of the same origin, provider, model rule and service tier as `other`.
    pub fn same_line(&self, other: &Self) -> bool {
        self.origin == other.origin
            && self.provider == other.provider
            && self.rule == other.rule
            && self.service_tier == other.service_tier
    }

    /// Checks that no two of `configs` are of one line and overlap in time.
    ///
    /// # Errors
    /// `Invalid`, naming the first two that do.
    pub fn check_overlaps<'a>(configs: impl IntoIterator<Item = &'a Self>) -> Result<()> {
        let mut sorted: Vec<&Self> = configs.into_iter().collect();
        sorted.sort_by(|a, b| {
            (a.origin, &a.provider, &a.rule, &a.service_tier, a.valid_from).cmp(&(
                b.origin,
                &b.provider,
                &b.rule,
                &b.service_tier,
                b.valid_from,
            ))
        });
        for pair in sorted.windows(2) {
            let (first, second) = (pair[0], pair[1]);
            let apart = match (first.valid_to, second.valid_from) {
                (Some(end), Some(start)) => end <= start,
                _ => false,
            };
            if first.same_line(second) && !apart {
                let describe = |price: &Self| {
                    let end = |at: Option<Timestamp>, open: &str| {
                        at.map_or(open.to_owned(), |at| at.to_string())
                    };
                    format!("{} to {}", end(price.valid_from, "ever"), end(price.valid_to, "open"))
                };
                return Err(Error::invalid(format!(
                    "two prices of {}/{} would overlap: {} and {}",
                    second.provider,
                    second.rule.text(),
                    describe(first),
                    describe(second)
                )));
            }
        }
        Ok(())
    }
}
