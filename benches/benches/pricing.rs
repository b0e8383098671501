//! What pricing a call costs, with the prices of the library loaded, beside a bare hash lookup with
//! two multiplications. Every amount that is timed is first computed a second time, in decimals.

use std::collections::HashMap;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use prompt_engine_benches::printed_machine;
use prompt_engine_core::{
    CostConfig, CostStore, PriceBook, PriceRequest, Rates, Timestamp, TokenCounts, TokenUsage,
    seed_models, seed_prices,
};
use prompt_engine_store_sqlite::{SqliteConfig, SqliteStore};
use rust_decimal::Decimal;

const SEED: u64 = 13;

/// A call with the amount that it must come to.
struct Call {
    provider: String,
    model: String,
    at: Timestamp,
    tokens: TokenUsage,
    pico: i128,
}

impl Call {
    fn request(&self) -> PriceRequest<'_> {
        PriceRequest {
            provider: &self.provider,
            model: &self.model,
            response_model: None,
            at: self.at,
            tokens: Some(&self.tokens),
            service_tier: None,
        }
    }
}

fn pico_of(book: &PriceBook, call: &Call) -> i128 {
    book.price(&call.request()).cost.usd().map_or(0, |usd| usd.to_pico())
}

/// What input, cached input and output cost by the words of the rules, in decimals.
fn slow_pico(price: &CostConfig, tokens: &TokenUsage) -> Option<i128> {
    let rates: Rates = price
        .tiers
        .iter()
        .rev()
        .find(|tier| tokens.input > tier.tokens)
        .map_or(price.rates, |tier| tier.rates);
    let part = |count: u64, rate: Decimal| Decimal::from(count) * rate;
    let sum = part(tokens.input - tokens.cache_read, rates.input?)
        + part(tokens.cache_read, rates.cache_read.or(rates.input)?)
        + part(tokens.output, rates.output?);
    let usd = sum / Decimal::from(1_000_000) + price.per_request.unwrap_or_default();
    Some(prompt_engine_core::Usd::rounded(usd).to_pico())
}

/// One call of each standard price that `wanted` takes, at a moment at which it holds.
fn calls(wanted: impl Fn(&CostConfig) -> bool) -> Vec<Call> {
    let mut rng = fastrand::Rng::with_seed(SEED);
    let day = std::time::Duration::from_secs(86_400);
    let mut calls = Vec::new();
    for price in seed_models().into_iter().flat_map(|model| model.prices) {
        if price.service_tier.is_some() || !price.windows.is_empty() || !wanted(&price) {
            continue;
        }
        let now: Timestamp = "2026-11-24T12:00:00Z".parse().expect("a moment");
        let at = match (price.valid_from, price.valid_to) {
            (Some(from), _) => from,
            (None, Some(to)) => to.saturating_sub(day),
            (None, None) => now,
        };
        let sizes = price.tiers.iter().map(|tier| tier.tokens + 1);
        let input = sizes.max().unwrap_or(rng.u64(100..100_000));
        let counts = TokenCounts {
            input,
            cache_read: input / 3,
            output: rng.u64(1..10_000),
            ..TokenCounts::default()
        };
        let tokens = counts.check().expect("counts that make sense");
        if let Some(pico) = slow_pico(&price, &tokens) {
            let (provider, model) = (price.provider.to_string(), price.model.to_string());
            calls.push(Call { provider, model, at, tokens, pico });
        }
    }
    rng.shuffle(&mut calls);
    calls
}

/// Times `calls` one after the other, round and round; every amount must be the one it should be.
fn time(criterion: &mut Criterion, name: &str, book: &PriceBook, calls: &[Call]) {
    for call in calls {
        assert_eq!(pico_of(book, call), call.pico, "{}/{}", call.provider, call.model);
    }
    println!("{name}: {} calls of different prices", calls.len());
    let mut round = calls.iter().cycle();
    criterion.bench_function(name, |bench| {
        bench.iter(|| round.next().map(|call| pico_of(book, black_box(call))));
    });
}

/// A hash lookup and two multiplications: what no pricing can be faster than by much.
fn floor(criterion: &mut Criterion, name: &str, calls: &[Call]) {
    let rates: HashMap<&str, (i128, i128)> =
        calls.iter().map(|call| (call.model.as_str(), (2_500_000, 10_000_000))).collect();
    let mut round = calls.iter().cycle();
    criterion.bench_function(name, |bench| {
        bench.iter(|| {
            let call = black_box(round.next()?);
            let (input, output) = rates.get(call.model.as_str())?;
            Some(i128::from(call.tokens.input) * input + i128::from(call.tokens.output) * output)
        });
    });
}

fn pricing(criterion: &mut Criterion) {
    printed_machine(SEED);
    let book = PriceBook::seed();
    println!("{} prices, {} models", seed_prices().len(), seed_models().len());
    let all = calls(|_| true);
    let dated = calls(|price| {
        price.valid_from.is_some() || price.valid_to.is_some() || !price.tiers.is_empty()
    });
    let one = calls(|price| (&*price.provider, &*price.model) == ("openai", "gpt-4o"));
    let tiered = calls(|price| (&*price.provider, &*price.model) == ("openai", "gpt-6-sol"));
    floor(criterion, "price/floor/hot/1", &one);
    time(criterion, "price/call/hot/gpt-4o", &book, &one);
    time(criterion, "price/call/hot/gpt-6-sol-tiered", &book, &tiered);
    floor(criterion, "price/floor/all", &all);
    time(criterion, "price/call/all", &book, &all);
    time(criterion, "price/call/dated-and-tiered", &book, &dated);
    // A dated name that no rule says in full, answered by a model of another name.
    let answered = |name| PriceRequest { response_model: Some(name), ..one[0].request() };
    assert_eq!(
        book.price(&answered("gpt-4o-2024-08-06")).priced_model.map(|m| &**m),
        Some("gpt-4o")
    );
    criterion.bench_function("price/call/hot/answered-by-a-dated-name", |bench| {
        bench.iter(|| book.price(black_box(&answered("gpt-4o-2024-08-06"))).cost);
    });
}

fn loading(criterion: &mut Criterion) {
    criterion.bench_function("price/load/read-the-files", |bench| {
        bench.iter(|| assert!(seed_prices().len() > 2_500));
    });
    let prices = seed_prices();
    criterion.bench_function("price/load/build-the-book", |bench| {
        bench.iter_with_large_drop(|| PriceBook::new(&prices));
    });
}

/// What opening a store adds: its prices, as they are stored.
fn opening(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let prices = seed_prices();
    let store = runtime.block_on(async {
        let config = SqliteConfig::new(folder.path().join("prices.db"));
        let store = SqliteStore::open(config).await.expect("a store");
        store.put_cost_configs(&prices, 0).await.expect("prices");
        store
    });
    criterion.bench_function("price/load/from-the-store/sqlite", |bench| {
        bench.iter(|| {
            let list = runtime.block_on(store.cost_configs()).expect("prices");
            assert_eq!(list.configs.len(), prices.len());
        });
    });
}

criterion_group!(benches, pricing, loading, opening);
criterion_main!(benches);
