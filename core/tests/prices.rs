//! The prices of the library against figures of a third party, and properties of pricing.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::{env, fs};

use prompt_engine_core::{
    CostConfig, Label, PriceBook, PriceRequest, Quote, Rates, Timestamp, TokenCounts, TokenUsage,
    Usd, seed_models, seed_prices,
};
use proptest::prelude::*;
use rust_decimal::Decimal;
use serde_json::Value;

fn book() -> &'static PriceBook {
    static BOOK: OnceLock<PriceBook> = OnceLock::new();
    BOOK.get_or_init(PriceBook::seed)
}

/// The file in the folder of real inputs; without the folder the test says so, and in CI it fails.
fn real_input(name: &str) -> Option<PathBuf> {
    let Some(data) = env::var_os("PROMPT_ENGINE_TEST_DATA") else {
        assert!(env::var_os("CI").is_none(), "PROMPT_ENGINE_TEST_DATA must be set in CI");
        eprintln!("skipped: PROMPT_ENGINE_TEST_DATA names no folder of real inputs");
        return None;
    };
    Some(PathBuf::from(data).join(name))
}

#[test]
fn every_open_case_has_the_price_that_genai_prices_computed() {
    let Some(path) = real_input("prices/open_cases.jsonl") else { return };
    let text = fs::read_to_string(path).unwrap();
    let mut wrong = Vec::new();
    let mut cases = 0;
    for line in text.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let count = |name: &str| case[name].as_u64().unwrap();
        let counts = TokenCounts {
            input: count("input_tokens"),
            output: count("output_tokens"),
            cache_read: count("cache_read"),
            cache_write: count("cache_write"),
            ..TokenCounts::default()
        };
        let tokens = counts.check().unwrap();
        let quote = book().price(&PriceRequest {
            provider: case["provider_id"].as_str().unwrap(),
            model: case["model_ref"].as_str().unwrap(),
            response_model: None,
            at: case["timestamp"].as_str().unwrap().parse().unwrap(),
            tokens: Some(&tokens),
            service_tier: None,
        });
        let usd = |name: &str| Some(decimal(case[name].as_str().unwrap()));
        let expected = ["expected_total", "expected_input_price", "expected_output_price"].map(usd);
        let parts = quote.parts;
        let found =
            [quote.cost.usd(), parts.map(|parts| parts.input), parts.map(|parts| parts.output)]
                .map(|usd| usd.map(Usd::as_decimal));
        if found != expected
            || quote.priced_model.map(|model| &**model) != case["model_id"].as_str()
        {
            wrong.push(format!("{found:?} {:?} for {line}", quote.priced_model));
        }
        cases += 1;
    }
    assert_eq!(cases, 118);
    assert!(wrong.is_empty(), "{} of {cases}:\n{}", wrong.len(), wrong.join("\n"));
}

/// An amount as Python writes it: 0.0000004 is 4E-7.
fn decimal(text: &str) -> Decimal {
    Decimal::from_str_exact(text).or_else(|_| Decimal::from_scientific(text)).unwrap()
}

#[test]
fn every_model_is_found_by_its_own_name_and_by_every_name_it_lists() {
    // Where two models of a provider list a name, the first of the file has it, as in the source.
    let mut names: HashMap<(Label, String), Label> = HashMap::new();
    let models = seed_models();
    for model in &models {
        let mut add = |name: &Label| {
            let key = (model.provider.clone(), name.to_lowercase());
            names.entry(key).or_insert_with(|| model.model.clone());
        };
        each_name(&model.rule, &mut add);
    }
    for model in &models {
        let own = (model.provider.clone(), model.model.to_lowercase());
        names.entry(own).or_insert_with(|| model.model.clone());
    }
    assert!(names.len() > 3_000);
    let tokens = TokenCounts { input: 1, ..TokenCounts::default() }.check().unwrap();
    for ((provider, name), model) in &names {
        let quote = price(provider, name, "2026-11-24T12:00:00Z".parse().unwrap(), &tokens, None);
        assert_eq!(quote.priced_model, Some(model), "{provider}/{name}");
    }
}

fn each_name(rule: &prompt_engine_core::ModelRule, add: &mut impl FnMut(&Label)) {
    use prompt_engine_core::ModelRule::{Any, Equals};
    match rule {
        Equals(name) => add(name),
        Any(rules) => rules.iter().for_each(|rule| each_name(rule, add)),
        _ => {}
    }
}

fn price<'a>(
    provider: &str,
    model: &str,
    at: Timestamp,
    tokens: &TokenUsage,
    service_tier: Option<&str>,
) -> Quote<'a> {
    let tokens = Some(tokens);
    book().price(&PriceRequest { provider, model, response_model: None, at, tokens, service_tier })
}

#[test]
fn service_tiers_have_their_prices_from_their_dates_on() {
    let tokens = TokenCounts { input: 1_000_000, output: 1_000_000, ..TokenCounts::default() }
        .check()
        .unwrap();
    let cost = |provider, model, at: &str, tier| {
        let quote = price(provider, model, at.parse().unwrap(), &tokens, tier);
        quote.cost.usd().map(|usd| usd.to_string())
    };
    let some = |text: &str| Some(text.to_owned());
    // o4-mini: 1.1 and 4.4, half of it in a batch and as flex, 2 and 8 with priority.
    let of = |at, tier| cost("openai", "o4-mini", at, tier);
    assert_eq!(of("2026-11-01T00:00:00Z", None), some("5.5"));
    assert_eq!(of("2026-11-01T00:00:00Z", Some("batch")), some("2.75"));
    assert_eq!(of("2026-10-14T00:00:00Z", Some("batch")), some("2.75"));
    assert_eq!(of("2026-10-13T23:59:59.999999Z", Some("batch")), None);
    assert_eq!(of("2026-11-01T00:00:00Z", Some("flex")), some("2.75"));
    assert_eq!(of("2026-11-01T00:00:00Z", Some("priority")), some("10"));
    assert_eq!(of("2026-11-01T00:00:00Z", Some("default")), some("5.5"));
    // claude-opus-5: 5 and 25, twice that when fast.
    let fast = cost("anthropic", "claude-opus-5", "2026-11-01T00:00:00Z", Some("fast"));
    assert_eq!(fast, some("60"));
}

#[test]
fn ten_million_random_usages_never_panic() {
    let models: Vec<(Label, Label)> =
        seed_models().into_iter().map(|model| (model.provider, model.model)).collect();
    let half = |seed: u64| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut checked, mut priced) = (0_u64, 0_u64);
        for _ in 0..5_000_000 {
            let mut counts = TokenCounts {
                input: rng.u64(..) >> rng.u32(24..64),
                output: rng.u64(..) >> rng.u32(24..64),
                ..TokenCounts::default()
            };
            // One in four is any 64 bits; the others are parts of their wholes, as far as they go.
            let mut part = |whole: u64| match rng.u8(..4) {
                0 => rng.u64(..),
                1 => 0,
                _ => rng.u64(..=whole) / 3,
            };
            if counts.input.is_multiple_of(2) {
                counts.cache_read = part(counts.input);
                counts.cache_write = part(counts.input);
                counts.cache_write_1h = part(counts.cache_write);
                counts.audio_input = part(counts.input);
            }
            if counts.output.is_multiple_of(2) {
                counts.reasoning = part(counts.output);
                counts.audio_output = part(counts.output);
            }
            let Ok(tokens) = counts.check() else { continue };
            checked += 1;
            let (provider, model) = &models[rng.usize(..models.len())];
            let span = Timestamp::MAX.as_micros() - Timestamp::MIN.as_micros();
            let at =
                Timestamp::from_micros(Timestamp::MIN.as_micros() + rng.i64(0..=span)).unwrap();
            let tier = [None, None, Some("batch"), Some("flex")][rng.usize(..4)];
            priced += u64::from(price(provider, model, at, &tokens, tier).cost.usd().is_some());
        }
        (checked, priced)
    };
    let (one, two) = std::thread::scope(|scope| {
        let one = scope.spawn(|| half(1));
        let two = scope.spawn(|| half(2));
        (one.join().unwrap(), two.join().unwrap())
    });
    let (checked, priced) = (one.0 + two.0, one.1 + two.1);
    assert!(checked > 1_000_000 && priced > 500_000, "{checked} made sense, {priced} have a price");
}

prop_compose! {
    fn counts()(
        input in 0_u64..2_000_000, output in 0_u64..2_000_000,
        parts in prop::array::uniform5(0_u64..=100), share in 0_u64..=100,
    ) -> TokenCounts {
        let [read, write, audio, reasoning, voice] = parts;
        let within = |whole: u64, part: u64, all: u64| whole * part / all.max(1);
        let (ins, outs) = (read + write + audio + 50, reasoning + voice + 50);
        let cache_write = within(input, write, ins);
        TokenCounts {
            input,
            output,
            cache_read: within(input, read, ins),
            cache_write,
            cache_write_1h: within(cache_write, share, 100),
            reasoning: within(output, reasoning, outs),
            audio_input: within(input, audio, ins),
            audio_output: within(output, voice, outs),
        }
    }
}

/// Any price of the library.
fn any_price() -> impl Strategy<Value = CostConfig> {
    static PRICES: OnceLock<Vec<CostConfig>> = OnceLock::new();
    let prices = PRICES.get_or_init(seed_prices);
    (0..prices.len()).prop_map(|n| prices[n].clone())
}

/// A moment at which the price holds.
fn within(config: &CostConfig) -> Timestamp {
    config.valid_from.unwrap_or(Timestamp::MIN)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn cost_never_falls_when_a_count_rises_within_a_tier(
        config in any_price(), counts in counts(), more in 1_u64..100_000,
    ) {
        let book = PriceBook::new([&config]);
        let tier = |input: u64| config.tiers.iter().filter(|tier| input > tier.tokens).count();
        let cost = |counts: TokenCounts| {
            let tokens = counts.check().unwrap();
            book.price(&PriceRequest {
                provider: &config.provider,
                model: &config.model,
                response_model: None,
                at: within(&config),
                tokens: Some(&tokens),
                service_tier: config.service_tier.as_deref(),
            })
            .cost
            .usd()
        };
        let before = cost(counts);
        // More text, more cached, more spoken and more thought, each beside what was there.
        let (input, output) = (counts.input + more, counts.output + more);
        for raised in [
            TokenCounts { input, ..counts },
            TokenCounts { input, cache_read: counts.cache_read + more, ..counts },
            TokenCounts { input, cache_write: counts.cache_write + more, ..counts },
            TokenCounts {
                input,
                cache_write: counts.cache_write + more,
                cache_write_1h: counts.cache_write_1h + more,
                ..counts
            },
            TokenCounts { input, audio_input: counts.audio_input + more, ..counts },
            TokenCounts { output, ..counts },
            TokenCounts { output, reasoning: counts.reasoning + more, ..counts },
            TokenCounts { output, audio_output: counts.audio_output + more, ..counts },
        ] {
            if tier(raised.input) == tier(counts.input)
                && let (Some(before), Some(after)) = (before, cost(raised))
            {
                prop_assert!(after >= before, "{before} then {after} for {raised:?}");
            }
        }
    }

    #[test]
    fn the_parts_add_up_to_the_total(
        rates in prop::array::uniform8(prop::option::weighted(0.9, 0_i64..=1_000_000_000_000)),
        per_request in prop::option::of(0_i64..=1_000_000_000), counts in counts(),
    ) {
        let rate = |n: usize| rates[n].map(|nano| Decimal::new(nano, 9));
        let mut config =
            CostConfig::new(Label::new("house").unwrap(), Label::new("m").unwrap());
        config.rates = Rates {
            input: rate(0),
            output: rate(1),
            cache_read: rate(2),
            cache_write: rate(3),
            cache_write_1h: rate(4),
            reasoning: rate(5),
            audio_input: rate(6),
            audio_output: rate(7),
        };
        config.per_request = per_request.map(|nano| Decimal::new(nano, 9));
        let book = PriceBook::new([&config]);
        let tokens = counts.check().unwrap();
        let quote = book.price(&PriceRequest {
            provider: "house", model: "m", response_model: None, at: within(&config),
            tokens: Some(&tokens), service_tier: None,
        });
        let exact = exact(&config, &counts);
        prop_assert_eq!(quote.cost.usd().is_some(), exact.is_some());
        if let (Some(usd), Some(parts), Some(exact)) = (quote.cost.usd(), quote.parts, exact) {
            let sum = parts.input.to_pico() + parts.output.to_pico() + parts.other.to_pico();
            prop_assert_eq!(sum, usd.to_pico());
            prop_assert!([parts.input, parts.output, parts.other].iter().all(|usd| usd.to_pico() >= 0));
            prop_assert_eq!(usd, Usd::rounded(exact));
        }
    }
}

/// What the tokens cost, in decimals and by the words of the rules: the slow way, to compare with.
fn exact(config: &CostConfig, counts: &TokenCounts) -> Option<Decimal> {
    let of = config.rates;
    let write = of.cache_write.or(of.input);
    let kinds = [
        (counts.input - counts.cache_read - counts.cache_write - counts.audio_input, of.input),
        (counts.cache_read, of.cache_read.or(of.input)),
        (counts.cache_write - counts.cache_write_1h, write),
        (counts.cache_write_1h, of.cache_write_1h.or(write)),
        (counts.audio_input, of.audio_input),
        (counts.output - counts.reasoning - counts.audio_output, of.output),
        (counts.reasoning, of.reasoning.or(of.output)),
        (counts.audio_output, of.audio_output),
    ];
    let mut sum = config.per_request.unwrap_or_default();
    for (count, rate) in kinds.into_iter().filter(|(count, _)| *count > 0) {
        sum += Decimal::from(count) * rate? / Decimal::from(1_000_000);
    }
    Some(sum)
}
