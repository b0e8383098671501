//! The prices that come with the library: current models of OpenAI and Anthropic.
//! Rates are those of genai-prices 0.2.3 (MIT); the file `data/seed_prices.json` names its source.

use serde::Deserialize;

use crate::id::CostConfigId;
use crate::label::Label;
use crate::price::{CostConfig, ModelRule, PriceOrigin, Rates};
use crate::time::Timestamp;

const FILE: &str = include_str!("../data/seed_prices.json");

#[derive(Deserialize)]
struct File {
    source: String,
    prices: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    id: CostConfigId,
    provider: Label,
    rule: ModelRule,
    valid_from: Option<Timestamp>,
    valid_to: Option<Timestamp>,
    rates: Rates,
}

/// The prices that a store is seeded with when it is created.
pub fn seed_prices() -> Vec<CostConfig> {
    let Ok(file) = serde_json::from_str::<File>(FILE) else {
        return Vec::new(); // not reachable: a test reads the file
    };
    let File { source, prices } = file;
    prices
        .into_iter()
        .map(|row| CostConfig {
            id: row.id,
            origin: PriceOrigin::Seed,
            provider: row.provider,
            rule: row.rule,
            service_tier: None,
            valid_from: row.valid_from,
            valid_to: row.valid_to,
            rates: row.rates,
            per_request: None,
            source: Some(source.clone()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_prices_are_valid_and_do_not_overlap() {
        let prices = seed_prices();
        assert!(prices.len() >= 12);
        prices.iter().for_each(|price| price.validate().unwrap());
        CostConfig::check_overlaps(&prices).unwrap();
    }
}
