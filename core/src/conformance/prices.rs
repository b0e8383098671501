//! Prices: generations, overlaps, every field.

use std::sync::Arc;

use futures::future::join_all;
use rust_decimal::Decimal;

use super::arbitrary::{Arbitrary, at, at_micros, label, price};
use super::{Fixture, refused, seeds};
use crate::error::ErrorKind;
use crate::model_rule::ModelRule;
use crate::price::{CostConfig, PriceOrigin};
use crate::price_book::{PriceBook, PriceRequest};
use crate::rates::{DailyWindow, InputTier, Rates};

/// Adds prices at the generation that the store has.
async fn put(fx: &Fixture, configs: &[CostConfig]) {
    let generation = fx.store.price_generation().await.unwrap();
    fx.store.put_cost_configs(configs, generation).await.unwrap();
}

/// The stored prices, which must come sorted by id and at the generation that is told.
async fn stored(fx: &Fixture) -> Vec<CostConfig> {
    let list = fx.store.cost_configs().await.unwrap();
    assert_eq!(list.generation, fx.store.price_generation().await.unwrap());
    assert!(list.configs.is_sorted_by_key(|config| config.id));
    list.configs
}

fn sorted(configs: &[CostConfig]) -> Vec<CostConfig> {
    let mut configs = configs.to_vec();
    configs.sort_by_key(|config| config.id);
    configs
}

/// A new store knows no price.
pub async fn a_new_store_has_no_prices(fx: Fixture) {
    assert_eq!(stored(&fx).await, []);
}

/// Every field of a price comes back, present or absent, at its limits.
pub async fn prices_read_back_as_written(fx: Fixture) {
    let nano = Some(Decimal::new(1, 9));
    let most = Some(Rates::MAX);
    let full = CostConfig {
        origin: PriceOrigin::Seed,
        provider: label("a%_'\"\u{10FFFF}"),
        model: label("gpt-4o"),
        rule: ModelRule::Any(vec![
            ModelRule::Equals(label("GPT-4o")),
            ModelRule::All(vec![
                ModelRule::Contains(label("4o")),
                ModelRule::Not(Box::new(ModelRule::EndsWith(label("-tts")))),
            ]),
            ModelRule::Regex(label("^gpt-4o-\\d{4}$")),
        ]),
        service_tier: Some(label("flex")),
        valid_from: Some(at_micros(-1)),
        valid_to: Some(at_micros(1)),
        rates: Rates {
            input: nano,
            output: most,
            cache_read: Some(Decimal::ZERO),
            cache_write: Some(Decimal::new(123_456_789, 9)),
            cache_write_1h: Some(Decimal::new(2, 0)),
            reasoning: nano,
            audio_input: most,
            audio_output: nano,
        },
        per_request: Some(Decimal::new(1, 2)),
        replaced_at: Some(at_micros(7)),
        tiers: vec![
            InputTier { tokens: 0, rates: Rates { input: nano, ..Rates::default() } },
            InputTier { tokens: u64::MAX, rates: Rates::default() },
        ],
        windows: vec![DailyWindow {
            from: "23:59".parse().unwrap(),
            to: "00:00".parse().unwrap(),
            rates: Rates { audio_output: most, ..Rates::default() },
            tiers: vec![InputTier { tokens: 9, rates: Rates::default() }],
        }],
        source: Some("https://example.com/'%\0".to_owned()),
        ..price("ignored")
    };
    let start = label("gpt-");
    let by_start = CostConfig { rule: ModelRule::StartsWith(start.clone()), ..price("gpt-") };
    let request_only = CostConfig {
        rates: Rates::default(),
        per_request: Some(Decimal::ZERO),
        source: Some(String::new()),
        service_tier: Some(label("")),
        ..price("gpt-4o-mini")
    };
    let from = CostConfig { valid_from: Some(at(0)), ..price("from") };
    let to = CostConfig { valid_to: Some(at(0)), ..price("to") };
    let configs = [full, by_start, request_only, from, to, price("bare")];
    put(&fx, &configs).await;
    assert_eq!(stored(&fx).await, sorted(&configs));
    let fx = fx.reopened().await;
    assert_eq!(stored(&fx).await, sorted(&configs));
}

/// The generation grows with every change, and a change that names an old one is a conflict.
pub async fn a_change_at_another_generation_conflicts(fx: Fixture) {
    let first = fx.store.price_generation().await.unwrap();
    fx.store.put_cost_configs(&[price("a")], first).await.unwrap();
    let second = fx.store.price_generation().await.unwrap();
    assert!(second > first);
    for stale in [first, second + 1, i64::MAX as u64] {
        let result = fx.store.put_cost_configs(&[price("b")], stale).await;
        refused(result, ErrorKind::Conflict);
    }
    assert_eq!(fx.store.price_generation().await.unwrap(), second);
    assert_eq!(stored(&fx).await.len(), 1);
    fx.store.put_cost_configs(&[price("b")], second).await.unwrap();
    assert!(fx.store.price_generation().await.unwrap() > second);
}

/// A price whose id is stored is replaced; the others stay.
pub async fn a_price_of_a_stored_id_is_replaced(fx: Fixture) {
    let (first, second) = (price("a"), price("b"));
    put(&fx, &[first.clone(), second.clone()]).await;
    let ended = CostConfig { valid_to: Some(at(0)), ..first.clone() };
    let next = CostConfig { valid_from: Some(at(0)), ..price("a") };
    put(&fx, &[next.clone(), ended.clone()]).await;
    assert_eq!(stored(&fx).await, sorted(&[ended, second, next]));
}

/// Prices of one line that would overlap are refused, stored or not, and nothing of them stays.
pub async fn overlapping_prices_are_refused(fx: Fixture) {
    let of = |from: Option<i64>, to: Option<i64>| CostConfig {
        valid_from: from.map(at),
        valid_to: to.map(at),
        ..price("a")
    };
    put(&fx, &[of(Some(10), Some(20))]).await;
    let before = stored(&fx).await;
    let generation = fx.store.price_generation().await.unwrap();
    let overlapping = [
        of(None, None),
        of(None, Some(11)),
        of(Some(19), None),
        of(Some(12), Some(13)),
        of(Some(10), Some(20)),
        of(Some(5), Some(25)),
    ];
    for config in overlapping {
        let batch = [price("good"), config];
        refused(fx.store.put_cost_configs(&batch, generation).await, ErrorKind::Invalid);
    }
    // However it is written: names ignore case, and the standard tier has many names.
    for written in [
        CostConfig { provider: label("OpenAI"), ..of(Some(10), None) },
        CostConfig { model: label("A"), rule: ModelRule::Equals(label("A")), ..of(Some(10), None) },
        CostConfig { service_tier: Some(label("Standard")), ..of(Some(10), None) },
        CostConfig { service_tier: Some(label("")), ..of(Some(10), None) },
    ] {
        refused(fx.store.put_cost_configs(&[written], generation).await, ErrorKind::Invalid);
    }
    let with_each_other = [of(Some(30), Some(40)), of(Some(39), Some(50))];
    refused(fx.store.put_cost_configs(&with_each_other, generation).await, ErrorKind::Invalid);
    assert_eq!(stored(&fx).await, before);
    assert_eq!(fx.store.price_generation().await.unwrap(), generation);
    put(&fx, &[of(None, Some(10)), of(Some(20), None)]).await;
    assert_eq!(stored(&fx).await.len(), 3);
}

/// Prices of different lines may hold at the same time.
pub async fn prices_of_different_lines_may_overlap(fx: Fixture) {
    let configs = [
        price("a"),
        CostConfig { origin: PriceOrigin::Seed, ..price("a") },
        CostConfig { provider: label("azure"), ..price("a") },
        CostConfig { rule: ModelRule::StartsWith(label("a")), ..price("a") },
        CostConfig { service_tier: Some(label("flex")), ..price("a") },
    ];
    for config in &configs {
        put(&fx, std::slice::from_ref(config)).await;
    }
    assert_eq!(stored(&fx).await, sorted(&configs));
}

/// A price that was replaced may stand beside the one that took its place.
pub async fn a_replaced_price_overlaps_nothing(fx: Fixture) {
    let first = price("a");
    put(&fx, std::slice::from_ref(&first)).await;
    let replaced = CostConfig { replaced_at: Some(at(5)), ..first };
    let next = price("a");
    put(&fx, &[replaced.clone(), next.clone()]).await;
    assert_eq!(stored(&fx).await, sorted(&[replaced.clone(), next]));
    let generation = fx.store.price_generation().await.unwrap();
    let again = CostConfig { replaced_at: None, ..replaced };
    refused(fx.store.put_cost_configs(&[again], generation).await, ErrorKind::Invalid);
}

/// Random prices price random calls after a round trip as they did before.
pub async fn prices_price_the_same_after_a_round_trip(fx: Fixture) {
    let mut random = Arbitrary::new(seeds(&[17])[0], 200_000);
    let configs: Vec<CostConfig> =
        (0..60).map(|n| random.cost_config(&format!("listed-{n}"))).collect();
    let before = PriceBook::new(&configs);
    put(&fx, &configs).await;
    let fx = fx.reopened().await;
    let after = PriceBook::new(&stored(&fx).await);
    let mut priced = 0;
    for _ in 0..5_000 {
        let tokens = random.tokens();
        let [model, answered] = ["m", "M"].map(|m| format!("{m}{}", random.rng.u8(..12)));
        let call = PriceRequest {
            provider: random.one(&["openai", "Azure", "house", "nobody"]),
            model: &model,
            response_model: random.rng.bool().then_some(answered.as_str()),
            at: at(random.rng.i64(-100..200_000)),
            tokens: Some(&tokens),
            service_tier: random.one(&[None, Some("flex"), Some("batch"), Some("auto")]),
        };
        let quote = before.price(&call);
        assert_eq!(after.price(&call), quote, "{call:?}");
        priced += u32::from(quote.cost.usd().is_some());
    }
    assert!(priced > 500, "only {priced} calls have a price");
}

/// A price that breaks a rule is refused with all that came with it.
pub async fn an_invalid_price_is_refused(fx: Fixture) {
    let generation = fx.store.price_generation().await.unwrap();
    let rate = |rate| Rates { input: Some(rate), ..Rates::default() };
    let invalid = [
        CostConfig { rates: Rates::default(), ..price("a") },
        CostConfig { rates: rate(Decimal::NEGATIVE_ONE), ..price("a") },
        CostConfig { rates: rate(Decimal::new(1, 10)), ..price("a") },
        CostConfig { rates: rate(Rates::MAX + Decimal::ONE), ..price("a") },
        CostConfig { provider: label(""), ..price("a") },
        CostConfig { valid_from: Some(at(1)), valid_to: Some(at(1)), ..price("a") },
        CostConfig { rule: ModelRule::Regex(label("(")), ..price("a") },
        CostConfig { rule: ModelRule::Any(vec![]), ..price("a") },
        CostConfig {
            tiers: vec![InputTier { tokens: 1, rates: rate(Decimal::NEGATIVE_ONE) }],
            ..price("a")
        },
    ];
    for config in invalid {
        let batch = [price("good"), config];
        refused(fx.store.put_cost_configs(&batch, generation).await, ErrorKind::Invalid);
    }
    assert_eq!(stored(&fx).await, []);
}

/// Of many writers at one generation one wins.
pub async fn of_racing_writers_of_prices_exactly_one_wins(fx: Fixture) {
    put(&fx, &[price("first")]).await;
    let generation = fx.store.price_generation().await.unwrap();
    let writers = (0..16).map(|n| {
        let store = Arc::clone(&fx.store);
        let config = price(&format!("model-{n}"));
        tokio::spawn(async move {
            let result = store.put_cost_configs(std::slice::from_ref(&config), generation).await;
            (config, result)
        })
    });
    let mut winners = Vec::new();
    for result in join_all(writers).await {
        match result.unwrap() {
            (config, Ok(())) => winners.push(config),
            (_, Err(error)) => assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.chain()),
        }
    }
    assert_eq!(winners.len(), 1, "{winners:?}");
    let found = stored(&fx).await;
    assert_eq!(found.len(), 2);
    assert!(found.contains(&winners[0]));
}
