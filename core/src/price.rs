//! A price: what the tokens of some models cost, from a moment until a moment.
//! Invariant: a validity is half-open in UTC, and of one [`PriceLine`] no two that were not replaced
//! overlap. Nothing is deleted: history is never lost.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::id::CostConfigId;
use crate::label::Label;
use crate::model_rule::ModelRule;
use crate::price_book::named_tier;
use crate::rates::{DailyWindow, InputTier, Rates, check_rate, check_tiers};
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

/// The price of some models of one provider in one service tier, from a moment until a moment.
///
/// # Example: a price of the user's
/// ```
/// use prompt_engine_core::{CostConfig, Label, Rates};
/// let mut price = CostConfig::new(Label::new("openai")?, Label::new("gpt-4o")?);
/// price.rates = Rates { input: Some("2.5".parse().unwrap()), ..Rates::default() };
/// price.valid_from = Some("2026-01-01T00:00:00Z".parse()?);
/// price.validate()?;
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CostConfig {
    /// Its identity.
    pub id: CostConfigId,
    /// Who set it.
    pub origin: PriceOrigin,
    /// The provider, `openai` for one.
    pub provider: Label,
    /// The name that the price is listed under, and that a call says it was priced as.
    pub model: Label,
    /// The models.
    pub rule: ModelRule,
    /// The service tier it is for, `batch` for one; `None` for the standard one.
    pub service_tier: Option<Label>,
    /// From when it holds (inclusive); `None`: since ever.
    pub valid_from: Option<Timestamp>,
    /// Until when it holds (exclusive); `None`: until further notice.
    pub valid_to: Option<Timestamp>,
    /// When another price took its place. It is kept for what was priced with it, and prices no more.
    pub replaced_at: Option<Timestamp>,
    /// What it says.
    pub rates: Rates,
    /// What it says of large inputs, by rising size.
    #[serde(default)]
    pub tiers: Vec<InputTier>,
    /// What it says of times of the day; the first window that fits wins.
    #[serde(default)]
    pub windows: Vec<DailyWindow>,
    /// US dollars for each request, besides its tokens.
    #[serde(default, with = "rust_decimal::serde::str_option")]
    pub per_request: Option<Decimal>,
    /// Where it was read.
    pub source: Option<String>,
}

/// What tells the lines of prices apart: of the prices of one line one holds at a time. Names are in
/// lower case, for that is how they are looked up, and the standard tier has no name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PriceLine {
    origin: PriceOrigin,
    provider: String,
    model: String,
    /// Of the user's prices: the library has one line of a model, whichever names mean it.
    rule: Option<ModelRule>,
    service_tier: Option<String>,
}

impl PriceLine {
    /// Whether it is of the same models as `other`, if of another tier.
    pub(crate) fn same_models(&self, other: &Self) -> bool {
        (self.origin, &self.provider, &self.model, &self.rule)
            == (other.origin, &other.provider, &other.model, &other.rule)
    }

    /// The service tier; `None` for the standard one.
    pub(crate) fn service_tier(&self) -> Option<&str> {
        self.service_tier.as_deref()
    }
}

impl CostConfig {
    /// A price of the user's for exactly this model, since ever, that says nothing yet.
    pub fn new(provider: Label, model: Label) -> Self {
        Self {
            id: CostConfigId::new(),
            origin: PriceOrigin::User,
            provider,
            rule: ModelRule::Equals(model.clone()),
            model,
            service_tier: None,
            valid_from: None,
            valid_to: None,
            replaced_at: None,
            rates: Rates::default(),
            tiers: Vec::new(),
            windows: Vec::new(),
            per_request: None,
            source: None,
        }
    }

    /// Checks the range, the rule and the rates.
    ///
    /// # Errors
    /// `Invalid`, naming the model and the rule that is broken.
    pub fn validate(&self) -> Result<()> {
        let refuse = |what: String| {
            let (provider, model) = (&self.provider, &self.model);
            Err(Error::invalid(format!("the price of {provider}/{model}: {what}")))
        };
        if self.provider.trim().is_empty() || self.model.trim().is_empty() {
            return refuse("it needs a provider and a model".to_owned());
        }
        if let (Some(from), Some(to)) = (self.valid_from, self.valid_to)
            && from >= to
        {
            return refuse(format!("it would end at {to}, not after its start at {from}"));
        }
        // What came with the library may only say that a model is known.
        let silent = self.rates == Rates::default() && self.per_request.is_none();
        if silent && self.origin == PriceOrigin::User {
            return refuse("it names no rate".to_owned());
        }
        self.validate_parts().or_else(|error| refuse(error.chain()))
    }

    fn validate_parts(&self) -> Result<()> {
        self.rule.validate()?;
        self.rates.validate()?;
        check_tiers(&self.tiers)?;
        if let Some(rate) = self.per_request {
            check_rate("per_request", rate)?;
        }
        for DailyWindow { from, to, rates, tiers } in &self.windows {
            if from == to {
                return Err(Error::invalid(format!(
                    "its window of the day ends where it starts, at {from}"
                )));
            }
            rates.validate()?;
            check_tiers(tiers)?;
        }
        Ok(())
    }

    /// When it holds.
    pub fn validity(&self) -> TimeRange {
        TimeRange { from: self.valid_from, to: self.valid_to }
    }

    /// Its line.
    pub fn line(&self) -> PriceLine {
        PriceLine {
            origin: self.origin,
            provider: self.provider.trim().to_lowercase(),
            model: self.model.to_lowercase(),
            rule: (self.origin == PriceOrigin::User).then(|| self.rule.folded()),
            service_tier: named_tier(self.service_tier.as_deref()).map(str::to_lowercase),
        }
    }

    /// Whether it says the same as `other`: in rates, tiers, windows and price per request.
    pub fn same_charges(&self, other: &Self) -> bool {
        (&self.rates, &self.tiers, &self.windows, self.per_request)
            == (&other.rates, &other.tiers, &other.windows, other.per_request)
    }

    /// Checks that no two of `configs` that were not replaced are of one line and overlap in time.
    ///
    /// # Errors
    /// `Invalid`, naming the first two that do.
    pub fn check_overlaps<'a>(configs: impl IntoIterator<Item = &'a Self>) -> Result<()> {
        let mut sorted: Vec<(PriceLine, &Self)> = configs
            .into_iter()
            .filter(|config| config.replaced_at.is_none())
            .map(|config| (config.line(), config))
            .collect();
        sorted.sort_by(|a, b| (&a.0, a.1.valid_from).cmp(&(&b.0, b.1.valid_from)));
        for pair in sorted.windows(2) {
            let ((line, first), (next, second)) = (&pair[0], &pair[1]);
            let apart = match (first.valid_to, second.valid_from) {
                (Some(end), Some(start)) => end <= start,
                _ => false,
            };
            if line == next && !apart {
                let describe = |price: &Self| {
                    let end = |at: Option<Timestamp>, open: &str| {
                        at.map_or(open.to_owned(), |at| at.to_string())
                    };
                    format!("{} to {}", end(price.valid_from, "ever"), end(price.valid_to, "open"))
                };
                return Err(Error::invalid(format!(
                    "two prices of {}/{} would overlap: {} and {}",
                    second.provider,
                    second.model,
                    describe(first),
                    describe(second)
                )));
            }
        }
        Ok(())
    }
}
