//! The rules of pricing, one test each; the figures are worked out in the tests themselves.
//! `core/tests/prices.rs` holds the prices of the library against a third party's figures.

use rust_decimal::Decimal;

use super::*;
use crate::model_rule::ModelRule;
use crate::price::PriceOrigin;
use crate::rates::{InputTier, Rates};
use crate::tokens::TokenCounts;

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

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

fn usd(text: &str) -> Usd {
    text.parse().unwrap()
}

fn decimal(text: &str) -> Option<Decimal> {
    Some(text.parse().unwrap())
}

/// Rates of input and output.
fn rates(input: &str, output: &str) -> Rates {
    Rates { input: decimal(input), output: decimal(output), ..Rates::default() }
}

/// A price of the user's of a dollar per million tokens for a model of `openai`.
fn mine(model: &str) -> CostConfig {
    CostConfig { rates: rates("1", "1"), ..CostConfig::new(label("openai"), label(model)) }
}

/// A price of the library's for a model of `provider`.
fn seeded(provider: &str, model: &str) -> CostConfig {
    let price = CostConfig::new(label(provider), label(model));
    CostConfig { origin: PriceOrigin::Seed, rates: rates("2", "2"), ..price }
}

/// A call of `openai` in 2026 with a hundred tokens in and a hundred out.
const CALL: PriceRequest<'_> = PriceRequest {
    provider: "openai",
    model: "m",
    response_model: None,
    at: Timestamp::MIN,
    tokens: None,
    service_tier: None,
};

/// What `call` costs with `prices`, with `counts` for its tokens: the cost, and the model.
fn cost_of(
    prices: &[&CostConfig],
    call: PriceRequest<'_>,
    counts: TokenCounts,
) -> (Cost, Option<Label>) {
    let book = PriceBook::new(prices.iter().copied());
    let tokens = counts.check().unwrap();
    let quote = book.price(&PriceRequest { tokens: Some(&tokens), ..call });
    (quote.cost, quote.priced_model.cloned())
}

/// The price that `call` is priced with, or why there is none.
fn priced_with(
    prices: &[&CostConfig],
    call: PriceRequest<'_>,
) -> Result<CostConfigId, UnpricedReason> {
    match cost_of(prices, call, HUNDRED).0 {
        Cost::Priced { config, .. } => Ok(config),
        other => Err(other.reason().unwrap()),
    }
}

/// The amount for `counts` at `price`, or why there is none.
fn amount(price: &CostConfig, counts: TokenCounts) -> Result<Usd, UnpricedReason> {
    let cost = cost_of(&[price], PriceRequest { model: &price.model, ..CALL }, counts).0;
    cost.usd().ok_or(cost.reason().unwrap_or(UnpricedReason::NoUsage))
}

#[test]
fn each_token_is_priced_once_at_the_rate_of_its_kind() {
    let price = CostConfig {
        rates: Rates {
            input: decimal("1"),
            cache_read: decimal("10"),
            cache_write: decimal("100"),
            cache_write_1h: decimal("1000"),
            audio_input: decimal("10000"),
            output: decimal("2"),
            reasoning: decimal("20"),
            audio_output: decimal("200"),
        },
        ..mine("m")
    };
    let counts = TokenCounts {
        input: 15,
        cache_read: 1,
        cache_write: 5,
        cache_write_1h: 3,
        audio_input: 4,
        output: 12,
        reasoning: 5,
        audio_output: 6,
    };
    // 5 x 1 + 1 x 10 + 2 x 100 + 3 x 1000 + 4 x 10000 + 1 x 2 + 5 x 20 + 6 x 200, per million
    assert_eq!(amount(&price, counts), Ok(usd("0.044517")));
}

#[test]
fn cached_tokens_without_a_rate_cost_what_input_does() {
    let counts = TokenCounts {
        input: 10,
        cache_read: 2,
        cache_write: 3,
        cache_write_1h: 1,
        reasoning: 0,
        ..HUNDRED
    };
    assert_eq!(amount(&mine("m"), TokenCounts { output: 0, ..counts }), Ok(usd("0.00001")));
    let writes = Rates { cache_write: decimal("100"), ..rates("1", "1") };
    let price = CostConfig { rates: writes, ..mine("m") };
    // An hour's write costs what other writes do: 7 x 1 + 3 x 100.
    assert_eq!(amount(&price, TokenCounts { output: 0, ..counts }), Ok(usd("0.000307")));
    let thought = TokenCounts { input: 0, reasoning: 40, ..HUNDRED };
    assert_eq!(amount(&mine("m"), thought), Ok(usd("0.0001")));
}

#[test]
fn a_token_kind_without_a_rate_leaves_the_whole_call_unpriced() {
    let missing = Err(UnpricedReason::MissingRate);
    assert_eq!(amount(&mine("m"), TokenCounts { audio_input: 1, ..HUNDRED }), missing);
    assert_eq!(amount(&mine("m"), TokenCounts { audio_output: 1, ..HUNDRED }), missing);
    let only_input = Rates { output: None, ..rates("1", "1") };
    let price = CostConfig { rates: only_input, ..mine("m") };
    assert_eq!(amount(&price, HUNDRED), missing);
    assert_eq!(amount(&price, TokenCounts { output: 0, ..HUNDRED }), Ok(usd("0.0001")));
    // The library knows the model and nothing of its tokens.
    let silent = CostConfig { rates: Rates::default(), ..seeded("openai", "m") };
    assert_eq!(amount(&silent, HUNDRED), missing);
    assert_eq!(amount(&silent, TokenCounts::default()), missing);
    assert_eq!(amount(&mine("m"), TokenCounts::default()), Ok(Usd::ZERO));
}

#[test]
fn no_usage_is_no_cost() {
    let book = PriceBook::new(&[mine("m")]);
    assert_eq!(book.price(&CALL).cost, Cost::unpriced(UnpricedReason::NoUsage));
}

#[test]
fn a_tier_is_a_cliff_strictly_above_its_threshold() {
    let tier = |tokens, input| InputTier { tokens, rates: rates(input, "1") };
    let price = CostConfig { tiers: vec![tier(200, "10"), tier(300, "100")], ..mine("m") };
    let of = |input| amount(&price, TokenCounts { input, output: 0, ..HUNDRED });
    assert_eq!(of(200), Ok(usd("0.0002")));
    assert_eq!(of(201), Ok(usd("0.00201"))); // every token, not the one above
    assert_eq!(of(300), Ok(usd("0.003")));
    assert_eq!(of(301), Ok(usd("0.0301")));
    // Cached tokens are part of the size, and the output follows the size of the input.
    let output = InputTier { tokens: 50, rates: rates("1", "7") };
    let price = CostConfig { tiers: vec![output], ..mine("m") };
    let counts = TokenCounts { input: 51, cache_read: 51, output: 1, ..HUNDRED };
    assert_eq!(amount(&price, counts), Ok(usd("0.000058")));
}

#[test]
fn a_price_holds_from_its_start_until_before_its_end() {
    let (from, to) =
        ("2026-03-01T00:00:00Z".parse().unwrap(), "2026-04-01T00:00:00Z".parse().unwrap());
    let price = CostConfig { valid_from: Some(from), valid_to: Some(to), ..mine("m") };
    let at = |at: &str| priced_with(&[&price], PriceRequest { at: at.parse().unwrap(), ..CALL });
    let missing = Err(UnpricedReason::MissingRate);
    assert_eq!(at("2026-02-28T23:59:59.999999Z"), missing);
    assert_eq!(at("2026-03-01T00:00:00Z"), Ok(price.id));
    assert_eq!(at("2026-03-31T23:59:59.999999Z"), Ok(price.id));
    assert_eq!(at("2026-04-01T00:00:00Z"), missing);
    // An offset names the same moment.
    assert_eq!(at("2026-03-01T08:59:59+09:00"), missing);
    assert_eq!(at("2026-03-01T09:00:00+09:00"), Ok(price.id));
}

#[test]
fn a_window_of_the_day_takes_the_place_of_the_price_and_the_first_that_fits_wins() {
    let window = |from: &str, to: &str, input| DailyWindow {
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
        rates: rates(input, "1"),
        tiers: vec![InputTier { tokens: 1_000, rates: rates("1000", "1") }],
    };
    let windows = vec![window("22:00", "02:00", "10"), window("01:00", "04:00", "100")];
    let price = CostConfig { windows, per_request: decimal("5"), ..mine("m") };
    let at = |at: &str, input| {
        let call = PriceRequest { at: at.parse().unwrap(), ..CALL };
        cost_of(&[&price], call, TokenCounts { input, output: 0, ..HUNDRED }).0.usd().unwrap()
    };
    assert_eq!(at("2026-01-01T21:59:59.999999Z", 1_000), usd("5.001"));
    assert_eq!(at("2026-01-01T22:00:00Z", 1_000), usd("5.01"));
    assert_eq!(at("2026-01-01T01:30:00Z", 1_000), usd("5.01"));
    assert_eq!(at("2026-01-01T02:00:00Z", 1_000), usd("5.1"));
    assert_eq!(at("2026-01-01T04:00:00Z", 1_000), usd("5.001"));
    assert_eq!(at("2026-01-01T03:59:59Z", 1_001), usd("6.001"));
    assert_eq!(at("1969-12-31T23:00:00Z", 1_000), usd("5.01"));
}

#[test]
fn a_tier_of_service_has_its_own_price_or_none() {
    let standard = mine("m");
    let flex = CostConfig { service_tier: Some(label("flex")), ..mine("m") };
    let with = |tier| priced_with(&[&standard, &flex], PriceRequest { service_tier: tier, ..CALL });
    for tier in [None, Some("default"), Some("standard"), Some("auto"), Some("ON_DEMAND"), Some("")]
    {
        assert_eq!(with(tier), Ok(standard.id), "{tier:?}");
    }
    assert_eq!(with(Some("flex")), Ok(flex.id));
    assert_eq!(with(Some("FLEX")), Ok(flex.id));
    assert_eq!(with(Some("batch")), Err(UnpricedReason::MissingRate));
    let named = CostConfig { service_tier: Some(label("default")), ..mine("m") };
    assert_eq!(priced_with(&[&named, &flex], CALL), Ok(named.id));
}

#[test]
fn the_asked_model_counts_only_where_nothing_is_known_of_the_answered_one() {
    let (a, b) = (mine("a"), mine("b"));
    let call = PriceRequest { model: "a", response_model: Some("b"), ..CALL };
    assert_eq!(priced_with(&[&a, &b], call), Ok(b.id));
    assert_eq!(priced_with(&[&a], call), Ok(a.id));
    // One that answered and has no price for this tier is not priced as another model.
    let flex = CostConfig { service_tier: Some(label("flex")), ..mine("a") };
    let in_flex = PriceRequest { service_tier: Some("flex"), ..call };
    assert_eq!(priced_with(&[&flex, &b], in_flex), Err(UnpricedReason::MissingRate));
    assert_eq!(priced_with(&[&flex], in_flex), Ok(flex.id));
    // Also where only the asked model is the user's.
    let seed = seeded("openai", "b");
    assert_eq!(priced_with(&[&a, &seed], call), Ok(seed.id));
}

#[test]
fn what_the_user_set_wins_while_it_holds() {
    let (seed, user) = (seeded("openai", "m"), mine("m"));
    assert_eq!(priced_with(&[&seed, &user], CALL), Ok(user.id));
    let start = CostConfig { rule: ModelRule::StartsWith(label("m")), ..mine("m") };
    assert_eq!(priced_with(&[&seed, &start], CALL), Ok(start.id));
    let later =
        CostConfig { valid_from: Some("2026-01-01T00:00:00Z".parse().unwrap()), ..mine("m") };
    assert_eq!(priced_with(&[&seed, &later], CALL), Ok(seed.id));
    let replaced = CostConfig { replaced_at: Some(Timestamp::MIN), ..mine("m") };
    assert_eq!(priced_with(&[&seed, &replaced], CALL), Ok(seed.id));
}

#[test]
fn an_exact_name_wins_over_a_rule_and_a_longer_rule_over_a_shorter() {
    let rule = |rule: fn(Label) -> ModelRule, text: &str| CostConfig {
        rule: rule(label(text)),
        ..mine(text)
    };
    let exact = mine("model-x");
    let short = rule(ModelRule::StartsWith, "mod");
    let long = rule(ModelRule::Contains, "odel-x");
    let call = PriceRequest { model: "MODEL-X", ..CALL };
    assert_eq!(priced_with(&[&short, &long, &exact], call), Ok(exact.id));
    assert_eq!(priced_with(&[&short, &long], call), Ok(long.id));
    assert_eq!(priced_with(&[&short], call), Ok(short.id));
}

#[test]
fn an_exact_price_of_the_user_wins_over_his_rules_by_whatever_name_the_model_answers() {
    let start = |text: &str| CostConfig { rule: ModelRule::StartsWith(label(text)), ..mine(text) };
    let names = ["gpt-x", "gpt-x-latest", "gpt-x-2024-08-06"].map(|n| ModelRule::Equals(label(n)));
    let seed = CostConfig { rule: ModelRule::Any(names.to_vec()), ..seeded("openai", "gpt-x") };
    let call =
        |asked, answered| PriceRequest { model: asked, response_model: Some(answered), ..CALL };
    let (broad, exact) = (start("gpt"), mine("gpt-x"));
    let prices = [&seed, &broad, &exact];
    assert_eq!(priced_with(&prices, call("gpt-x", "gpt-x-2024-08-06")), Ok(exact.id));
    assert_eq!(priced_with(&[&seed, &broad], call("gpt-x", "gpt-x-2024-08-06")), Ok(broad.id));
    // What was set for the asked name holds where it answers by another name of the same model.
    let latest = mine("gpt-x-latest");
    let prices = [&seed, &latest];
    assert_eq!(priced_with(&prices, call("gpt-x-latest", "gpt-x-2024-08-06")), Ok(latest.id));
    assert_eq!(priced_with(&prices, call("gpt-x", "gpt-x-2024-08-06")), Ok(seed.id));
    // Names that the library does not know.
    let (broad, exact) = (start("my-"), mine("my-model"));
    assert_eq!(
        priced_with(&[&broad, &exact], call("my-model", "my-model-2026-01-01")),
        Ok(exact.id)
    );
    let dated = PriceRequest { model: "my-model-2026-01-01", ..CALL };
    assert_eq!(priced_with(&[&broad, &exact], dated), Ok(exact.id));
    // A rule sees the name as it is called, not the one that the library lists it under.
    let ends = CostConfig { rule: ModelRule::EndsWith(label("x")), ..mine("x") };
    assert_eq!(priced_with(&[&seed, &ends], call("gpt-x-latest", "gpt-x-2024-08-06")), Ok(seed.id));
}

#[test]
fn the_prices_of_a_model_are_those_that_its_calls_are_priced_with() {
    let (seed, user) = (seeded("openai", "m"), mine("m"));
    let batch = CostConfig { service_tier: Some(label("batch")), ..seeded("openai", "m") };
    let book = PriceBook::new([&seed, &batch, &user]);
    assert_eq!(book.prices_of("OpenAI", "M-2026-01-01"), [user.id, seed.id, batch.id]);
    assert_eq!(book.prices_of("azure", "m"), [seed.id]);
    assert_eq!(book.prices_of("openai", "nobody"), []);
}

#[test]
fn a_price_of_the_user_holds_for_the_dated_name_that_the_model_answers_by() {
    let (user, dated) = (mine("gpt-x"), seeded("openai", "gpt-x-2024-08-06"));
    let other = seeded("openai", "gpt-x-mini-2024-07-18");
    let prices = [&user, &dated, &other];
    let call =
        |asked, answered| PriceRequest { model: asked, response_model: Some(answered), ..CALL };
    assert_eq!(priced_with(&prices, call("gpt-x", "gpt-x-2024-08-06")), Ok(user.id));
    // Another model that answered, or one that was asked by its date, has its own price.
    assert_eq!(priced_with(&prices, call("gpt-x", "gpt-x-mini-2024-07-18")), Ok(other.id));
    let pinned = call("gpt-x-2024-08-06", "gpt-x-2024-08-06");
    assert_eq!(priced_with(&prices, pinned), Ok(dated.id));
}

#[test]
fn an_answered_model_is_known_without_its_date_before_the_asked_one_is_tried() {
    let (asked, answered) = (seeded("openai", "big"), seeded("openai", "small"));
    let call = PriceRequest { model: "big", response_model: Some("small-2029-01-01"), ..CALL };
    assert_eq!(priced_with(&[&asked, &answered], call), Ok(answered.id));
}

#[test]
fn what_the_user_set_for_a_model_holds_for_all_its_names() {
    let names = ["gpt-x", "gpt-x-2024-08-06"].map(|name| ModelRule::Equals(label(name)));
    let seed = CostConfig { rule: ModelRule::Any(names.to_vec()), ..seeded("openai", "gpt-x") };
    let user = mine("gpt-x");
    let call = PriceRequest { model: "gpt-x-2024-08-06", ..CALL };
    assert_eq!(priced_with(&[&seed, &user], call), Ok(user.id));
    assert_eq!(priced_with(&[&seed], call), Ok(seed.id));
    // Also where the provider offers another's model.
    let azure = CostConfig { provider: label("azure"), ..mine("gpt-x") };
    let call = PriceRequest { provider: "azure", ..call };
    assert_eq!(priced_with(&[&seed, &azure, &user], call), Ok(azure.id));
    // A price for exactly the name that was asked comes first.
    let exact = CostConfig { provider: label("azure"), ..mine("gpt-x-2024-08-06") };
    assert_eq!(priced_with(&[&seed, &azure, &exact], call), Ok(exact.id));
}

#[test]
fn a_name_is_tried_with_its_date_written_otherwise_and_without_it() {
    let (dated, bare) = (seeded("openai", "a-2025-12-11"), seeded("openai", "b"));
    let of = |model| priced_with(&[&dated, &bare], PriceRequest { model, ..CALL });
    assert_eq!(of("a-20251211"), Ok(dated.id));
    assert_eq!(of("b-20251211"), Ok(bare.id));
    assert_eq!(of("b-2025-12-11"), Ok(bare.id));
    assert_eq!(of("b@20251211"), Ok(bare.id));
    assert_eq!(of("b-20251311"), Err(UnpricedReason::UnknownModel));
    assert_eq!(of("b-mini"), Err(UnpricedReason::UnknownModel));
}

#[test]
fn a_provider_has_its_own_price_before_that_of_those_whose_models_it_offers() {
    let (openai, azure) = (seeded("openai", "m"), seeded("azure", "m"));
    let on =
        |prices: &[&CostConfig], provider| priced_with(prices, PriceRequest { provider, ..CALL });
    assert_eq!(on(&[&openai, &azure], "azure"), Ok(azure.id));
    assert_eq!(on(&[&openai], "azure"), Ok(openai.id));
    assert_eq!(on(&[&openai, &azure], "azure.ai.openai"), Ok(azure.id));
    assert_eq!(on(&[&openai], "Azure_OpenAI"), Ok(openai.id));
    assert_eq!(on(&[&openai], "ollama"), Err(UnpricedReason::UnknownModel));
    // What the user set for one provider is not the price of another that has one.
    assert_eq!(on(&[&mine("m"), &azure], "azure"), Ok(azure.id));
    assert_eq!(on(&[&mine("m"), &openai], "azure"), Ok(openai.id));
    let (user, alias) = (mine("m"), "OpenAI-compatible");
    assert_eq!(on(&[&user, &openai], alias), Ok(user.id));
    // What one provider asks for a batch of another's models is not known.
    let batch = CostConfig { service_tier: Some(label("batch")), ..seeded("openai", "m") };
    let in_batch = |provider| PriceRequest { provider, service_tier: Some("batch"), ..CALL };
    assert_eq!(priced_with(&[&openai, &batch], in_batch("openai")), Ok(batch.id));
    let missing = Err(UnpricedReason::MissingRate);
    assert_eq!(priced_with(&[&openai, &batch], in_batch("azure")), missing);
    // A provider that only the user knows.
    let house = CostConfig { provider: label("House"), ..mine("m") };
    assert_eq!(on(&[&openai, &house], "house"), Ok(house.id));
}

#[test]
fn a_router_names_the_provider_before_the_model() {
    let price = seeded("openai", "m");
    let on = |provider, model| priced_with(&[&price], PriceRequest { provider, model, ..CALL });
    assert_eq!(on("litellm", "openai/m"), Ok(price.id));
    assert_eq!(on("openai", "openai/m"), Ok(price.id));
    assert_eq!(on("litellm", "openai/m-2029-01-01"), Ok(price.id));
    // Elsewhere the name with a slash is somebody's own model.
    assert_eq!(on("vllm", "openai/m"), Err(UnpricedReason::UnknownModel));
}

#[test]
fn an_amount_beyond_a_row_is_an_overflow() {
    let price = CostConfig { rates: rates("1000000", "1000000"), ..mine("m") };
    let most = |input, output| amount(&price, TokenCounts { input, output, ..HUNDRED });
    assert_eq!(most(9_223_372, 0), Ok(usd("9223372")));
    assert_eq!(most(9_223_372, 1), Err(UnpricedReason::Overflow));
    assert_eq!(most(TokenCounts::MAX, TokenCounts::MAX), Err(UnpricedReason::Overflow));
}

#[test]
fn the_total_is_rounded_once_and_the_parts_add_up_to_it() {
    // A token costs 0.6 pico-dollars of input and 0.6 of output.
    let price = CostConfig { rates: rates("0.0000006", "0.0000006"), ..mine("m") };
    let book = PriceBook::new(&[price]);
    let tokens = TokenCounts { input: 1, output: 1, ..TokenCounts::default() }.check().unwrap();
    let quote = book.price(&PriceRequest { tokens: Some(&tokens), ..CALL });
    let CostParts { input, output, other } = quote.parts.unwrap();
    assert_eq!(quote.cost.usd(), Some(usd("0.000000000001"))); // 1.2, not 1 + 1
    assert_eq!((input, output, other), (usd("0.000000000001"), Usd::ZERO, Usd::ZERO));
    // Halves go to the even neighbour: 0.5 to 0, 1.5 to 2.
    let half = CostConfig { rates: rates("0.0000005", "1"), ..mine("m") };
    let of = |input| amount(&half, TokenCounts { input, output: 0, ..HUNDRED });
    assert_eq!(of(1), Ok(Usd::ZERO));
    assert_eq!(of(3), Ok(usd("0.000000000002")));
}
