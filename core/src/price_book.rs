//! Prices a call: provider and model, at a moment, from an immutable book of prices.
//! Invariant: pure, no clock and no I/O; no token is priced twice; a call that cannot be priced
//! whole is not priced at all. Token counts are inclusive, see [`TokenCounts`](crate::TokenCounts).

mod charges;
mod index;
mod memo;

use crate::cost::{Cost, UnpricedReason};
use crate::id::CostConfigId;
use crate::label::Label;
use crate::money::Usd;
use crate::price::{CostConfig, PriceLine};
use crate::rates::DailyWindow;
use crate::record::LlmExecution;
use crate::time::Timestamp;
use crate::tokens::TokenUsage;

use charges::Charges;
use index::{Candidate, Index};
use memo::Memo;

/// The prices of a moment in the life of a store, ready to price calls. Build once, share in an `Arc`.
///
/// # How a call is priced
/// - **Which price**: that of the model that answered, and only where nothing is known of it that of
///   the model that was asked; what a user set before what came with the library; an exact name before a
///   rule. Names are compared without regard to case. What a user set for the asked name also holds
///   where it answers by another name of the same model, and what he set for the name that the library
///   lists a model under holds for all its names. A name of which nothing is known is tried without its
///   date, and without the provider that a router puts before it. A provider that offers another's
///   models (`azure` offers `openai`'s) has the library's standard prices of those.
/// - **When and how**: the price that held at the moment, of the service tier that served it, in its
///   window of the day, of the size of its input: strictly above a threshold the rates of that tier hold
///   for the whole call. A tier or a moment without a price leaves the call unpriced.
/// - **How much**: each token at the rate of its kind, once. Cache reads and writes without a rate of
///   their own cost what input does, one-hour writes what other writes do, reasoning what output does.
///   Audio costs several times what text does, so without a rate it leaves the call unpriced.
/// - **Rounding**: once, half-even to 1e-12 dollars, and the parts add up to the total.
///
/// Dates, tiers and token kinds follow genai-prices 0.2.3, from which the prices of the library come;
/// where it would take a price for another (a batch call without a batch price, audio without an audio
/// price, a part of the tokens without any) the call is unpriced.
///
/// # Example: a cached token is charged once, at the cached rate
/// ```
/// use prompt_engine_core::{PriceBook, PriceRequest, Timestamp, TokenCounts};
/// let book = PriceBook::seed();
/// let tokens = TokenCounts { input: 1_000, cache_read: 400, output: 100, ..Default::default() }.check()?;
/// let quote = book.price(&PriceRequest {
///     provider: "openai",
///     model: "gpt-4o",
///     response_model: Some("gpt-4o-2024-08-06"),
///     at: "2026-01-01T00:00:00Z".parse()?,
///     tokens: Some(&tokens),
///     service_tier: None,
/// });
/// // 600 x 2.50 + 400 x 1.25 + 100 x 10.00 dollars per million
/// assert_eq!(quote.cost.usd(), Some("0.003".parse()?));
/// assert_eq!(quote.parts.unwrap().input, "0.002".parse()?);
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct PriceBook {
    lines: Vec<Line>,
    index: Index,
    memo: Memo,
}

/// The prices of one line, by service tier.
#[derive(Debug, Default)]
struct Line {
    tiers: Vec<(Option<Label>, Vec<Period>)>,
}

/// A price from a moment until a moment.
#[derive(Debug)]
struct Period {
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    config: CostConfigId,
    charges: Charges,
    windows: Box<[(DailyWindow, Charges)]>,
}

impl Period {
    fn new(config: &CostConfig) -> Self {
        let window = |window: &DailyWindow| {
            // The price of a request does not depend on the time of the day.
            (window.clone(), Charges::new(&window.rates, &window.tiers, config.per_request))
        };
        Self {
            from: config.valid_from,
            to: config.valid_to,
            config: config.id,
            charges: Charges::new(&config.rates, &config.tiers, config.per_request),
            windows: config.windows.iter().map(window).collect(),
        }
    }

    fn holds(&self, at: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= at) && self.to.is_none_or(|to| at < to)
    }

    fn charges(&self, at: Timestamp) -> &Charges {
        let window = self.windows.iter().find(|(window, _)| window.contains(at));
        window.map_or(&self.charges, |(_, charges)| charges)
    }
}

impl Line {
    /// The price of `tier` that holds at a moment.
    fn period(&self, tier: Option<&str>, at: Timestamp) -> Option<&Period> {
        let same = |of: &Option<Label>| match (of.as_deref(), tier) {
            (None, None) => true,
            (Some(of), Some(tier)) => of.eq_ignore_ascii_case(tier),
            _ => false,
        };
        let (_, periods) = self.tiers.iter().find(|(of, _)| same(of))?;
        periods.iter().find(|period| period.holds(at))
    }
}

/// A call to be priced.
#[derive(Debug, Clone, Copy)]
pub struct PriceRequest<'a> {
    /// Its provider.
    pub provider: &'a str,
    /// The model that was asked.
    pub model: &'a str,
    /// The model that answered: the one that was asked counts only where nothing is known of this.
    pub response_model: Option<&'a str>,
    /// When it was sent.
    pub at: Timestamp,
    /// Its tokens.
    pub tokens: Option<&'a TokenUsage>,
    /// The service tier that served it, `batch` for one; `default`, `standard`, `auto`, `on_demand`
    /// and `standard_only` are the standard one.
    pub service_tier: Option<&'a str>,
}

impl<'a> PriceRequest<'a> {
    /// The question what `execution` cost, with these tokens.
    pub fn of(execution: &'a LlmExecution, tokens: Option<&'a TokenUsage>) -> Self {
        Self {
            provider: &execution.provider,
            model: &execution.model,
            response_model: execution.response_model.as_deref(),
            at: execution.created_at,
            tokens,
            service_tier: execution.service_tier.as_deref(),
        }
    }
}

/// What a call cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quote<'a> {
    /// Priced, or unpriced with the reason.
    pub cost: Cost,
    /// What the amount is made of, where there is one.
    pub parts: Option<CostParts>,
    /// The model whose price was taken, or lacked what the call needs.
    pub priced_model: Option<&'a Label>,
}

/// What the cost of a call is made of: these add up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CostParts {
    /// Input tokens of all kinds.
    pub input: Usd,
    /// Output tokens of all kinds.
    pub output: Usd,
    /// The request itself.
    pub other: Usd,
}

impl PriceBook {
    /// A book of `configs`. Those that were replaced price nothing.
    pub fn new<'a>(configs: impl IntoIterator<Item = &'a CostConfig>) -> Self {
        let live = configs.into_iter().filter(|config| config.replaced_at.is_none());
        let mut configs: Vec<(PriceLine, &CostConfig)> =
            live.map(|config| (config.line(), config)).collect();
        configs.sort_by(|a, b| (&a.0, a.1.valid_from).cmp(&(&b.0, b.1.valid_from)));
        let mut book = Self::default();
        for of_models in configs.chunk_by(|a, b| a.0.same_models(&b.0)) {
            let (_, first) = &of_models[0];
            book.index.add(first.origin, &first.provider, &first.model, &first.rule);
            let tier = |of_tier: &[(PriceLine, &CostConfig)]| {
                let (line, _) = &of_tier[0];
                let periods = of_tier.iter().map(|(_, config)| Period::new(config)).collect();
                (line.service_tier().map(Label::lossy), periods)
            };
            let tiers = of_models.chunk_by(|a, b| a.0 == b.0).map(tier).collect();
            book.lines.push(Line { tiers });
        }
        book
    }

    /// A book of the prices that come with the library.
    pub fn seed() -> Self {
        Self::new(&crate::seed::seed_prices())
    }

    /// The prices that calls of a model may be priced with, in the order in which they are tried:
    /// what a user set first, and of each line all its service tiers and times.
    pub fn prices_of(&self, provider: &str, model: &str) -> Vec<CostConfigId> {
        let lines = self.index.look_up(provider, model, None);
        let tiers = lines.iter().flat_map(|Candidate { line, standard_only }| {
            let tiers = self.lines[*line as usize].tiers.iter();
            tiers.filter(move |(tier, _)| !standard_only || tier.is_none())
        });
        tiers.flat_map(|(_, periods)| periods.iter().map(|period| period.config)).collect()
    }

    /// What the call costs; see [`PriceBook`] for the rules.
    pub fn price(&self, call: &PriceRequest<'_>) -> Quote<'_> {
        let unpriced = |reason, priced_model| Quote {
            cost: Cost::unpriced(reason),
            parts: None,
            priced_model,
        };
        let Some(tokens) = call.tokens else {
            return unpriced(UnpricedReason::NoUsage, None);
        };
        let tier = named_tier(call.service_tier);
        let answered = call.response_model.filter(|model| *model != call.model);
        let names = (call.provider, call.model, answered);
        let look_up = || self.index.look_up(call.provider, call.model, answered);
        self.memo.with(names, look_up, |candidates| {
            let found = candidates.iter().find_map(|candidate| {
                let Candidate { line, standard_only } = *candidate;
                let period = self.lines[line as usize].period(tier, call.at)?;
                (!standard_only || tier.is_none()).then_some((line, period))
            });
            let Some((number, period)) = found else {
                return match candidates.last() {
                    // It has prices, but none of this tier and moment.
                    Some(candidate) => {
                        let model = self.index.model(candidate.line);
                        unpriced(UnpricedReason::MissingRate, Some(model))
                    }
                    None => unpriced(UnpricedReason::UnknownModel, None),
                };
            };
            let priced_model = Some(self.index.model(number));
            match period.charges(call.at).cost(tokens) {
                Ok((usd, parts)) => Quote {
                    cost: Cost::Priced { usd, config: period.config },
                    parts: Some(parts),
                    priced_model,
                },
                Err(reason) => unpriced(reason, priced_model),
            }
        })
    }
}

/// The service tier, unless it is the standard one by any of its names.
pub(crate) fn named_tier(tier: Option<&str>) -> Option<&str> {
    const STANDARD: [&str; 5] = ["default", "standard", "auto", "on_demand", "standard_only"];
    tier.filter(|tier| {
        !tier.is_empty() && !STANDARD.iter().any(|name| tier.eq_ignore_ascii_case(name))
    })
}

#[cfg(test)]
mod tests;
