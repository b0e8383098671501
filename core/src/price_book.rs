//! Prices a call: provider and model, at a moment, from an immutable book of prices.
//! Invariant: pure, no clock and no I/O; no token is priced twice; a call that cannot be priced
//! whole is not priced at all. Token counts are inclusive, see [`TokenCounts`](crate::TokenCounts).

use std::collections::HashMap;

use rust_decimal::Decimal;

use crate::cost::{Cost, UnpricedReason};
use crate::label::Label;
use crate::money::Usd;
use crate::price::{CostConfig, ModelRule, PriceOrigin, Rates};
use crate::time::Timestamp;
use crate::tokens::TokenUsage;

const MILLION: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 0);

/// The prices of a moment in the life of a store, ready to price calls. Build once, share in an `Arc`.
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
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct PriceBook {
    exact: HashMap<(Label, Label), Vec<CostConfig>>,
    prefixes: HashMap<Label, Vec<CostConfig>>,
}

/// A call to be priced.
#[derive(Debug, Clone, Copy)]
pub struct PriceRequest<'a> {
    /// Its provider.
    pub provider: &'a str,
    /// The model that was asked.
    pub model: &'a str,
    /// The model that answered: tried before the one that was asked.
    pub response_model: Option<&'a str>,
    /// When it was sent.
    pub at: Timestamp,
    /// Its tokens.
    pub tokens: Option<&'a TokenUsage>,
    /// The service tier that was served; `default`, `standard` and `auto` are the standard one.
    pub service_tier: Option<&'a str>,
}

/// What a call cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// Priced, or unpriced with the reason.
    pub cost: Cost,
    /// The model whose price was taken.
    pub priced_model: Option<Label>,
}

impl PriceBook {
    /// A book of `configs`.
    pub fn new(configs: impl IntoIterator<Item = CostConfig>) -> Self {
        let mut book = Self::default();
        for config in configs {
            let prices = match &config.rule {
                ModelRule::Equals(model) => {
                    book.exact.entry((config.provider.clone(), model.clone())).or_default()
                }
                ModelRule::StartsWith(_) => {
                    book.prefixes.entry(config.provider.clone()).or_default()
                }
            };
            prices.push(config);
        }
        // The longest prefix comes first, then the latest start.
        for prices in book.exact.values_mut().chain(book.prefixes.values_mut()) {
            prices.sort_by(|a, b| {
                let rank = |config: &CostConfig| (config.rule.text().len(), config.valid_from);
                rank(b).cmp(&rank(a))
            });
        }
        book
    }

    /// A book of the prices that come with the library.
    pub fn seed() -> Self {
        Self::new(crate::seed::seed_prices())
    }

    /// What the call costs.
    ///
    /// The answered model is tried before the asked one; for each of them a user's price before
    /// one of the library, and an exact name before the longest prefix. A price that the user set
    /// for the asked model also holds for the dated name that it answers by.
    pub fn price(&self, call: &PriceRequest<'_>) -> Quote {
        let unpriced = |reason, model: Option<&CostConfig>| Quote {
            cost: Cost::unpriced(reason),
            priced_model: model.map(|config| config.rule.text().clone()),
        };
        let Some(tokens) = call.tokens else {
            return unpriced(UnpricedReason::NoUsage, None);
        };
        let asked = Some(call.model).filter(|model| call.response_model != Some(*model));
        let config = self.find(call, asked);
        let Some(config) = config else {
            return unpriced(UnpricedReason::UnknownModel, None);
        };
        match amount(config, tokens) {
            Ok(usd) => Quote {
                cost: Cost::Priced { usd, config: config.id },
                priced_model: Some(config.rule.text().clone()),
            },
            Err(reason) => unpriced(reason, Some(config)),
        }
    }

    /// The price of the answered model, else of the one that was `asked`. Where the answer is by
    /// the dated name of what was asked, both are one, and any price of the user's comes first.
    fn find(&self, call: &PriceRequest<'_>, asked: Option<&str>) -> Option<&CostConfig> {
        use PriceOrigin::{Seed, User};
        let answered = call.response_model;
        let dated = asked.filter(|asked| answered.is_some_and(|name| is_dated(name, asked)));
        let order =
            [(answered, User), (dated, User), (answered, Seed), (asked, User), (asked, Seed)];
        order.into_iter().find_map(|(model, origin)| self.find_of(call, model?, origin))
    }

    fn find_of(
        &self,
        call: &PriceRequest<'_>,
        model: &str,
        origin: PriceOrigin,
    ) -> Option<&CostConfig> {
        let tier = named_tier(call.service_tier);
        let holds = |config: &&CostConfig| {
            config.origin == origin
                && named_tier(config.service_tier.as_deref()) == tier
                && config.validity().contains(call.at)
        };
        let key = (Label::lossy(call.provider), Label::lossy(model));
        let exact = self.exact.get(&key).and_then(|prices| prices.iter().find(holds));
        exact.or_else(|| {
            let prices = self.prefixes.get(&key.0)?;
            prices.iter().find(|config| config.rule.matches(model) && holds(config))
        })
    }
}

/// The service tier, unless it is the standard one by any of its names.
fn named_tier(tier: Option<&str>) -> Option<&str> {
    tier.filter(|tier| !matches!(*tier, "default" | "standard" | "auto"))
}

/// Whether `name` is `model` with a date: `-2024-08-06` or `-20240806`.
fn is_dated(name: &str, model: &str) -> bool {
    let Some(date) = name.strip_prefix(model).and_then(|rest| rest.strip_prefix('-')) else {
        return false;
    };
    let digits = date.bytes().filter(u8::is_ascii_digit).count();
    digits == 8 && date.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
}

/// US dollars of `tokens` at `config`, rounded once.
fn amount(config: &CostConfig, tokens: &TokenUsage) -> Result<Usd, UnpricedReason> {
    let Rates {
        input,
        output,
        cache_read,
        cache_write,
        cache_write_1h,
        reasoning,
        audio_input,
        audio_output,
    } = config.rates;
    let cache_write = cache_write.or(input);
    let text_input = tokens.input - tokens.cache_read - tokens.cache_write - tokens.audio_input;
    let text_output = tokens.output - tokens.reasoning - tokens.audio_output;
    let parts = [
        (text_input, input),
        (tokens.cache_read, cache_read.or(input)),
        (tokens.cache_write - tokens.cache_write_1h, cache_write),
        (tokens.cache_write_1h, cache_write_1h.or(cache_write)),
        (tokens.audio_input, audio_input),
        (text_output, output),
        (tokens.reasoning, reasoning.or(output)),
        (tokens.audio_output, audio_output),
    ];
    let mut sum = Decimal::ZERO;
    for (count, rate) in parts {
        if count == 0 {
            continue;
        }
        let rate = rate.ok_or(UnpricedReason::MissingRate)?;
        sum = Decimal::from(count)
            .checked_mul(rate)
            .and_then(|part| sum.checked_add(part))
            .ok_or(UnpricedReason::Overflow)?;
    }
    let per_request = config.per_request.unwrap_or_default();
    let usd = sum
        .checked_div(MILLION)
        .and_then(|tokens| tokens.checked_add(per_request))
        .map(Usd::rounded)
        .ok_or(UnpricedReason::Overflow)?;
    usd.to_row().map(|_| usd).ok_or(UnpricedReason::Overflow)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TokenCounts;

    fn price(model: &str, answered: Option<&str>, at: &str, counts: TokenCounts) -> Quote {
        PriceBook::seed().price(&PriceRequest {
            provider: if model.starts_with("claude") { "anthropic" } else { "openai" },
            model,
            response_model: answered,
            at: at.parse().unwrap(),
            tokens: Some(&counts.check().unwrap()),
            service_tier: None,
        })
    }

    const HUNDRED: TokenCounts = TokenCounts {
        input: 100,
        output: 100,
        cache_read: 0,
        cache_write: 0,
        cache_write_1h: 0,
        reasoning: 0,
        audio_input: 0,
        audio_output: 0,
    };

    #[test]
    fn a_call_is_priced_at_its_moment() {
        // o3 fell from 10 and 40 to 2 and 8 dollars on 2025-06-10.
        let before = price("o3", None, "2025-06-09T23:59:59.999999Z", HUNDRED);
        let after = price("o3", None, "2025-06-10T00:00:00Z", HUNDRED);
        assert_eq!(before.cost.usd(), Some("0.005".parse().unwrap()));
        assert_eq!(after.cost.usd(), Some("0.001".parse().unwrap()));
    }

    #[test]
    fn the_answered_model_is_tried_before_the_asked_one() {
        let quote =
            price("gpt-4o", Some("gpt-4o-mini-2024-07-18"), "2026-01-01T00:00:00Z", HUNDRED);
        assert_eq!(quote.priced_model.unwrap().as_str(), "gpt-4o-mini-2024-07-18");
        let quote = price("gpt-4o", Some("something-else"), "2026-01-01T00:00:00Z", HUNDRED);
        assert_eq!(quote.priced_model.unwrap().as_str(), "gpt-4o");
    }

    #[test]
    fn an_unknown_model_is_unpriced_and_never_free() {
        let quote = price("invented", None, "2026-01-01T00:00:00Z", HUNDRED);
        assert_eq!(quote.cost, Cost::unpriced(UnpricedReason::UnknownModel));
    }

    #[test]
    fn a_token_kind_without_a_rate_leaves_the_whole_call_unpriced() {
        let counts = TokenCounts { audio_input: 1, ..HUNDRED };
        let quote = price("gpt-4o", None, "2026-01-01T00:00:00Z", counts);
        assert_eq!(quote.cost, Cost::unpriced(UnpricedReason::MissingRate));
    }

    #[test]
    fn cache_writes_of_an_hour_have_their_own_rate() {
        let counts = TokenCounts {
            input: 1_000,
            cache_read: 100,
            cache_write: 300,
            cache_write_1h: 200,
            output: 10,
            ..TokenCounts::default()
        };
        // 600 x 1 + 100 x 0.1 + 100 x 1.25 + 200 x 2 + 10 x 5
        let quote = price("claude-haiku-4-5", None, "2026-01-01T00:00:00Z", counts);
        assert_eq!(quote.cost.usd(), Some("0.001185".parse().unwrap()));
    }

    #[test]
    fn a_price_of_the_user_wins_over_one_of_the_library() {
        let mut mine = crate::seed::seed_prices()[0].clone();
        mine.origin = PriceOrigin::User;
        mine.provider = Label::new("openai").unwrap();
        mine.rule = ModelRule::StartsWith(Label::new("gpt-4").unwrap());
        mine.rates =
            Rates { input: Some(Decimal::ONE), output: Some(Decimal::ONE), ..Rates::default() };
        let id = mine.id;
        let book = PriceBook::new(crate::seed::seed_prices().into_iter().chain([mine]));
        let tokens = HUNDRED.check().unwrap();
        let quote = book.price(&PriceRequest {
            provider: "openai",
            model: "gpt-4o",
            response_model: None,
            at: Timestamp::now(),
            tokens: Some(&tokens),
            service_tier: None,
        });
        assert_eq!(quote.cost.config(), Some(id));
    }

    /// A price of the user's for one model, and the quote of a call of `asked` that `answered`.
    fn quote_with(mine: &CostConfig, asked: &str, answered: &str, tier: Option<&str>) -> Quote {
        let book = PriceBook::new(crate::seed::seed_prices().into_iter().chain([mine.clone()]));
        book.price(&PriceRequest {
            provider: "openai",
            model: asked,
            response_model: Some(answered),
            at: Timestamp::now(),
            tokens: Some(&HUNDRED.check().unwrap()),
            service_tier: tier,
        })
    }

    fn mine(model: &str) -> CostConfig {
        let mut mine = crate::seed::seed_prices()[0].clone();
        mine.id = crate::CostConfigId::new();
        mine.origin = PriceOrigin::User;
        mine.provider = Label::new("openai").unwrap();
        mine.rule = ModelRule::Equals(Label::new(model).unwrap());
        (mine.valid_from, mine.valid_to) = (None, None);
        mine
    }

    #[test]
    fn a_price_of_the_user_holds_for_the_dated_name_that_the_model_answers_by() {
        let mine = mine("gpt-4o");
        let quote = quote_with(&mine, "gpt-4o", "gpt-4o-2024-08-06", None);
        assert_eq!(quote.cost.config(), Some(mine.id));
        // Another model that answered, or one that was asked by its date, has its own price.
        let other = quote_with(&mine, "gpt-4o", "gpt-4o-mini-2024-07-18", None);
        assert_eq!(other.priced_model.as_deref(), Some("gpt-4o-mini-2024-07-18"));
        let pinned = quote_with(&mine, "gpt-4o-2024-08-06", "gpt-4o-2024-08-06", None);
        assert_eq!(pinned.priced_model.as_deref(), Some("gpt-4o-2024-08-06"));
    }

    #[test]
    fn a_price_of_the_tier_default_is_one_of_the_standard_tier() {
        let mine =
            CostConfig { service_tier: Some(Label::new("default").unwrap()), ..mine("gpt-4o") };
        for tier in [None, Some("default"), Some("auto")] {
            let quote = quote_with(&mine, "gpt-4o", "gpt-4o", tier);
            assert_eq!(quote.cost.config(), Some(mine.id), "{tier:?}");
        }
        let flex = quote_with(&mine, "gpt-4o", "gpt-4o", Some("flex"));
        assert_eq!(flex.cost, Cost::unpriced(UnpricedReason::UnknownModel));
    }
}
