//! The prices that come with the library; docs/price-data.md says what the files say.
//! Invariant: nothing is read before it is asked for, and the same files give the same ids.

use std::sync::OnceLock;

use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::id::CostConfigId;
use crate::label::Label;
use crate::model_rule::ModelRule;
use crate::price::{CostConfig, PriceOrigin};
use crate::rates::{DailyWindow, InputTier, Rates};
use crate::time::{Timestamp, Zone, parse_moment};

const FILES: [&str; 2] =
    [include_str!("../data/genai-prices.jsonl"), include_str!("../data/own-prices.jsonl")];

/// Where the prices of the library come from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SeedSource {
    /// Name and version.
    #[serde(rename = "source")]
    pub name: String,
    /// The day of its release: `2026-11-10`.
    pub date: String,
    /// Its licence.
    pub licence: String,
    /// Where it is found.
    pub home: String,
}

/// A model that the library knows.
#[derive(Debug, Clone, PartialEq)]
pub struct SeedModel {
    /// The provider that offers it.
    pub provider: Label,
    /// Its name, under which its prices are listed.
    pub model: Label,
    /// What people call it, where that is something else.
    pub name: Option<String>,
    /// What else means it.
    pub rule: ModelRule,
    /// The most tokens that it takes in.
    pub context_window: Option<u64>,
    /// Whether the provider advises against it.
    pub deprecated: bool,
    /// Its prices, by service tier and start.
    pub prices: Vec<CostConfig>,
}

/// The rules about one provider.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct SeedProvider {
    #[serde(rename = "provider")]
    pub(crate) id: String,
    /// Other names that mean it.
    pub(crate) aliases: Option<ModelRule>,
    /// The providers whose models it offers too, in order.
    #[serde(default)]
    pub(crate) fallback: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelLine<'a> {
    of: Label,
    model: Label,
    name: Option<String>,
    rule: Option<ModelRule>,
    context: Option<u64>,
    #[serde(default)]
    deprecated: bool,
    origin: Option<String>,
    #[serde(borrow)]
    prices: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceLine {
    tier: Option<Label>,
    from: Option<String>,
    rates: Rates,
    #[serde(default, with = "rust_decimal::serde::str_option")]
    per_request: Option<Decimal>,
    #[serde(default)]
    above: Vec<InputTier>,
    #[serde(default)]
    daily: Vec<DailyWindow>,
}

/// Where the prices come from: the data set first, then what it lacks.
pub fn seed_sources() -> Vec<SeedSource> {
    FILES.iter().filter_map(|file| read(file.lines().next()?)).collect()
}

/// The prices that a store is seeded with when it is created. It takes some milliseconds to read
/// them.
///
/// # Example: all dated prices of one model
/// ```
/// let prices = prompt_engine_core::seed_prices();
/// let o3 = prices.iter().filter(|price| &*price.provider == "openai" && &*price.model == "o3");
/// assert_eq!(o3.filter(|price| price.service_tier.is_none()).count(), 2); // it fell in June 2025
/// ```
pub fn seed_prices() -> Vec<CostConfig> {
    models().flat_map(|model| model.prices).collect()
}

/// The models that the library knows, by provider and name.
pub fn seed_models() -> Vec<SeedModel> {
    models().collect()
}

/// The rules about providers, read once: those that were added by hand come first.
pub(crate) fn providers() -> &'static [SeedProvider] {
    static PROVIDERS: OnceLock<Vec<SeedProvider>> = OnceLock::new();
    PROVIDERS.get_or_init(|| {
        // They come before the models, which need not be read for them.
        let of_file = |file: &'static str| {
            file.lines().skip(1).take_while(|line| line.starts_with("{\"provider\""))
        };
        FILES.iter().rev().flat_map(|file| of_file(file)).filter_map(read).collect()
    })
}

/// The name that the library knows a provider under, of whatever name it is called by.
///
/// # Example
/// ```
/// use prompt_engine_core::known_provider;
/// assert_eq!(known_provider("aws.bedrock"), Some("aws"));
/// assert_eq!(known_provider("my-own-server"), None);
/// ```
pub fn known_provider(name: &str) -> Option<&'static str> {
    let name = name.trim().to_lowercase();
    let named = |line: &&SeedProvider| line.id == name;
    let means =
        |line: &&SeedProvider| line.aliases.as_ref().is_some_and(|aliases| aliases.matches(&name));
    let found = providers().iter().find(named).or_else(|| providers().iter().find(means));
    found.map(|line| line.id.as_str())
}

/// A line of a file, which a test has read.
fn read<'a, T: Deserialize<'a>>(line: &'a str) -> Option<T> {
    let read = serde_json::from_str(line);
    debug_assert!(read.is_ok(), "{line}: {:?}", read.err());
    read.ok()
}

fn models() -> impl Iterator<Item = SeedModel> {
    FILES.iter().flat_map(|file| {
        let source = file.lines().next().and_then(read::<SeedSource>).map(|source| source.name);
        let lines = file.lines().filter(|line| line.starts_with("{\"of\""));
        lines.filter_map(read::<ModelLine<'_>>).map(move |line| model(line, source.as_deref()))
    })
}

fn model(line: ModelLine<'_>, source: Option<&str>) -> SeedModel {
    let ModelLine { of: provider, model, name, rule, context, deprecated, origin, prices } = line;
    let rule = rule.unwrap_or_else(|| ModelRule::Equals(model.clone()));
    let source = origin.or_else(|| source.map(str::to_owned));
    let mut configs: Vec<CostConfig> = Vec::with_capacity(prices.len());
    for raw in prices {
        let Some(price) = read::<PriceLine>(raw.get()) else { continue };
        let valid_from = price.from.as_deref().and_then(day);
        if let Some(last) = configs.last_mut()
            && last.service_tier == price.tier
        {
            last.valid_to = valid_from;
        }
        configs.push(CostConfig {
            id: id_of(&provider, &model, raw.get()),
            origin: PriceOrigin::Seed,
            provider: provider.clone(),
            model: model.clone(),
            rule: rule.clone(),
            service_tier: price.tier,
            valid_from,
            valid_to: None,
            replaced_at: None,
            rates: price.rates,
            tiers: price.above,
            windows: price.daily,
            per_request: price.per_request,
            source: source.clone(),
        });
    }
    let context_window = context;
    SeedModel { provider, model, name, rule, context_window, deprecated, prices: configs }
}

fn day(date: &str) -> Option<Timestamp> {
    let day = parse_moment(date, Zone::UTC);
    debug_assert!(day.is_ok(), "{date} is no date");
    day.ok()
}

/// An id that follows from what the price says (UUIDv5), so that it is the same in every store.
fn id_of(provider: &str, model: &str, price: &str) -> CostConfigId {
    /// Made once, for this.
    const SPACE: Uuid = Uuid::from_u128(0x0193_5d8a_73b1_7c42_9a5e_6f1d_2b80_c4e7);
    let says = format!("{provider}\0{model}\0{price}");
    CostConfigId::from_bytes(Uuid::new_v5(&SPACE, says.as_bytes()).into_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_line_of_the_files_is_read() {
        let lines = |start: &str| {
            FILES
                .iter()
                .flat_map(|file| file.lines())
                .filter(|line| line.starts_with(start))
                .count()
        };
        let models = seed_models();
        assert_eq!(seed_sources().len(), FILES.len());
        assert_eq!(providers().len(), lines("{\"provider\""));
        assert_eq!(models.len(), lines("{\"of\""));
        assert!(models.len() > 2_000);
        let all: usize = FILES.iter().map(|file| file.lines().count()).sum();
        assert_eq!(all, FILES.len() + providers().len() + models.len());
    }

    #[test]
    fn every_rate_of_the_files_is_read() {
        let all = FILES.concat();
        let written: usize = Rates::default()
            .each()
            .iter()
            .map(|(name, _)| all.matches(&format!("\"{name}\":\"")).count())
            .sum();
        let known = |rates: &Rates| rates.each().iter().filter(|(_, rate)| rate.is_some()).count();
        let above =
            |tiers: &[InputTier]| tiers.iter().map(|tier| known(&tier.rates)).sum::<usize>();
        let of_price = |price: &CostConfig| {
            let daily = price.windows.iter().map(|of| known(&of.rates) + above(&of.tiers));
            known(&price.rates) + above(&price.tiers) + daily.sum::<usize>()
        };
        assert_eq!(seed_prices().iter().map(of_price).sum::<usize>(), written);
        // No other name stands among the rates.
        for line in all.lines().filter(|line| line.starts_with("{\"of\"")) {
            for rates in line.split("\"rates\":{").skip(1) {
                let names = rates.split('}').next().unwrap().split(',').filter(|n| !n.is_empty());
                for name in names.map(|pair| pair.split(':').next().unwrap().trim_matches('"')) {
                    assert!(Rates::default().rate_mut(name).is_some(), "{name} in {line}");
                }
            }
        }
    }

    #[test]
    fn the_seed_prices_are_valid_and_do_not_overlap() {
        let prices = seed_prices();
        assert!(prices.len() > 2_500);
        prices.iter().for_each(|price| price.validate().unwrap());
        CostConfig::check_overlaps(&prices).unwrap();
        let ids: HashSet<_> = prices.iter().map(|price| price.id).collect();
        assert_eq!(ids.len(), prices.len());
    }

    #[test]
    fn every_rule_about_a_provider_can_work() {
        let names: HashSet<_> = providers().iter().map(|of| of.id.as_str()).collect();
        for SeedProvider { aliases, fallback, .. } in providers() {
            aliases.as_ref().map_or(Ok(()), ModelRule::validate).unwrap();
            assert!(fallback.iter().all(|name| names.contains(name.as_str())), "{fallback:?}");
        }
    }
}
