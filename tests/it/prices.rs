//! Prices: a change is seen by every engine on the store, and an odd one breaks no call.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prompt_engine::{
    AggregateQuery, ChatReply, Cost, CostConfig, Filter, KnownCost, Label, LoadedPrices,
    MemoryStore, ModelRule, PromptEngine, Rates, Store, TimeRange, Timestamp, UnpricedReason,
    params, seed_prices,
};

use crate::outage::Flaky;
use crate::support::{Act, Scripted, engine, engine_over, reply};

/// A dollar per million tokens of the models whose name starts with `model`.
fn dollar(model: &str) -> CostConfig {
    let model = Label::new(model).unwrap();
    CostConfig {
        rule: ModelRule::StartsWith(model.clone()),
        rates: Rates { input: Some(1.into()), output: Some(1.into()), ..Rates::default() },
        ..CostConfig::new(Label::new("openai").unwrap(), model)
    }
}

#[tokio::test(start_paused = true)]
async fn a_price_that_another_engine_set_is_seen_within_30_seconds() {
    let store: Arc<dyn Store> = Arc::new(Flaky::default());
    let engine = engine_over(store.clone(), PromptEngine::builder()).await;
    let other = PromptEngine::with_store(store, PromptEngine::builder()).await.unwrap();
    let price = other.prices().set(dollar("gpt-4o")).await.unwrap();

    // Nothing is asked of the engine meanwhile: its next call is the first to need the price.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let client = Scripted::new([Act::Reply(reply("Hello!"))]);
    let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    let done = rendered.execute_with(&client).await.unwrap();
    assert_eq!(done.execution.cost.unwrap().config(), Some(price.id));
}

#[tokio::test(start_paused = true)]
async fn prices_that_were_read_before_a_change_do_not_hide_the_change() {
    let store = Arc::new(Flaky::default());
    let engine = engine_over(store.clone(), PromptEngine::builder()).await;
    let other = PromptEngine::with_store(store.clone(), PromptEngine::builder()).await.unwrap();
    other.prices().set(dollar("o3")).await.unwrap();
    store.hold.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!store.hold.load(Ordering::Relaxed), "a reading is under way");

    let price = engine.prices().set(dollar("gpt-4o")).await.unwrap();
    store.release.notify_one();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let client = Scripted::new([Act::Reply(reply("Hello!"))]);
    let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    let done = rendered.execute_with(&client).await.unwrap();
    assert_eq!(done.execution.cost.unwrap().config(), Some(price.id));
}

#[tokio::test]
async fn a_reported_cost_beyond_all_reason_leaves_the_call_unpriced() {
    let engine = engine().await;
    let most = "79228162514264337593543950335".parse().unwrap();
    let client = Scripted::new([Act::Reply(ChatReply { reported_cost: Some(most), ..reply("a") })]);
    let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    let done = rendered.execute_with(&client).await.unwrap();
    assert_eq!(done.execution.cost, Some(Cost::unpriced(UnpricedReason::Overflow)));
}

#[tokio::test]
async fn a_price_for_a_while_interrupts_the_open_one_which_then_holds_again() {
    let engine = engine().await;
    let open = engine.prices().set(dollar("m")).await.unwrap();
    let from = "2026-03-01T00:00:00Z".parse().unwrap();
    let to = "2026-04-01T00:00:00Z".parse().unwrap();
    let sale = CostConfig { valid_from: Some(from), valid_to: Some(to), ..dollar("m") };
    let sale = engine.prices().set(sale).await.unwrap();
    let prices = engine.prices().list().await.unwrap();
    let line: Vec<_> = prices.iter().filter(|price| price.line() == open.line()).collect();
    let ranges: Vec<_> = line.iter().map(|price| (price.valid_from, price.valid_to)).collect();
    assert_eq!(ranges, [(None, Some(from)), (Some(from), Some(to)), (Some(to), None)]);
    assert_eq!((line[0].id, line[1].id), (open.id, sale.id));
}

/// What a call costs that is asked for in one tier and served in another.
async fn served(asked: Option<&str>, served: Option<&str>) -> (Option<String>, Option<String>) {
    let engine = engine().await;
    let mut model = dollar("m");
    engine.prices().set(model.clone()).await.unwrap();
    for (tier, rate) in [("flex", 10), ("batch", 100)] {
        model.service_tier = Some(Label::new(tier).unwrap());
        model.rates =
            Rates { input: Some(rate.into()), output: Some(rate.into()), ..Rates::default() };
        engine.prices().set(model.clone()).await.unwrap();
    }
    let answer =
        ChatReply { model: None, service_tier: served.map(str::to_owned), ..reply("Hello!") };
    let client = Scripted::new([Act::Reply(answer)]);
    let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    let mut call = rendered.execute_with(&client).model("m");
    if let Some(asked) = asked {
        call = call.option("service_tier", asked.into());
    }
    let execution = call.await.unwrap().execution;
    let tier = execution.service_tier.map(|tier| tier.to_string());
    (tier, execution.cost.unwrap().usd().map(|usd| usd.to_string()))
}

#[tokio::test]
async fn the_tier_that_served_a_call_counts_and_not_the_one_that_was_asked() {
    let some = |text: &str| Some(text.to_owned());
    // 1,000 tokens in and 100 out at 1, 10 or 100 dollars per million.
    assert_eq!(served(None, None).await, (None, some("0.0011")));
    assert_eq!(served(Some("flex"), None).await, (some("flex"), some("0.011")));
    assert_eq!(served(Some("flex"), Some("default")).await, (some("default"), some("0.0011")));
    assert_eq!(served(Some("auto"), Some("flex")).await, (some("flex"), some("0.011")));
    assert_eq!(served(None, Some("batch")).await, (some("batch"), some("0.11")));
    // A tier that nobody set a price for is not the standard one.
    assert_eq!(served(None, Some("scale")).await, (some("scale"), None));
}

#[tokio::test]
async fn an_answer_from_a_cache_of_ones_own_costs_nothing_and_says_so() {
    let engine = engine().await;
    // What the provider reported when the answer was kept is not paid again.
    let kept = ChatReply {
        from_local_cache: true,
        reported_cost: Some("0.5".parse().unwrap()),
        ..reply("Hello!")
    };
    let client = Scripted::new([Act::Reply(kept)]);
    let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    let done = rendered.execute_with(&client).await.unwrap();
    assert_eq!(done.execution.cost, Some(Cost::LocalCache));
    engine.flush().await;
    let rows = engine.store().aggregate(&AggregateQuery::default()).await.unwrap().rows;
    let measures = &rows[0].measures;
    assert_eq!((measures.priced, measures.unpriced, measures.cost_pico), (1, 0, 0));
    let again = engine.reprice(TimeRange::all()).apply().await.unwrap();
    assert_eq!((again.calls, again.total.calls), (1, 0));
}

#[tokio::test]
async fn calls_are_priced_again_by_a_corrected_price_and_keep_their_old_cost() {
    let engine = engine().await;
    let reported = ChatReply { reported_cost: Some("0.5".parse().unwrap()), ..reply("b") };
    let strange = ChatReply { model: Some("nobody-knows".to_owned()), ..reply("c") };
    let client = Scripted::new([
        Act::Reply(reply("a")),
        Act::Reply(reported),
        Act::Reply(strange),
        Act::Hang,
    ]);
    let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    let first = rendered.execute_with(&client).await.unwrap().execution;
    rendered.execute_with(&client).await.unwrap();
    let unknown = rendered.execute_with(&client).model("house-model").await.unwrap().execution;
    assert_eq!(unknown.cost, Some(Cost::unpriced(UnpricedReason::UnknownModel)));
    drop(futures::poll!(Box::pin(std::future::IntoFuture::into_future(
        rendered.execute_with(&client)
    ))));
    engine.flush().await;

    let all = || engine.reprice(TimeRange::all());
    let nothing = all().apply().await.unwrap();
    assert_eq!((nothing.calls, nothing.total.calls, nothing.skipped), (4, 0, 0));

    engine.prices().set(dollar("gpt-4o")).await.unwrap();
    engine.prices().set(dollar("house-model")).await.unwrap();
    let label = |text| Label::new(text).unwrap();
    let only = Filter { model: Some(label("house-model")), ..Filter::default() };
    assert_eq!(all().filter(only).preview().await.unwrap().total.calls, 1);
    let preview = all().preview().await.unwrap();
    let applied = all().apply().await.unwrap();
    assert_eq!(preview, applied);
    // 0.003 dollars became 0.0011; what was unknown is 0.0011 too.
    let known = |pico, priced, unpriced| KnownCost { pico, priced, unpriced };
    let gpt = &applied.models[&(label("openai"), label("gpt-4o"))];
    assert_eq!((gpt.before, gpt.after), (known(3_000_000_000, 1, 0), known(1_100_000_000, 1, 0)));
    let house = &applied.models[&(label("openai"), label("house-model"))];
    assert_eq!((house.before, house.after), (known(0, 0, 1), known(1_100_000_000, 1, 0)));
    assert_eq!(applied.total.calls, 2);

    let stored = engine.store().execution(first.id).await.unwrap().unwrap();
    assert_eq!(stored.cost.unwrap().usd(), Some("0.0011".parse().unwrap()));
    let past = engine.store().past_costs(&[first.id]).await.unwrap().concat();
    assert_eq!(past.len(), 1);
    assert_eq!((Some(past[0].cost), &past[0].priced_model), (first.cost, &first.priced_model));
    assert_eq!(all().apply().await.unwrap().total.calls, 0);
}

#[tokio::test]
async fn a_price_that_was_listed_edited_and_set_leaves_the_old_one_as_it_was() {
    let engine = engine().await;
    let listed = engine.prices().list().await.unwrap();
    let seed =
        listed.iter().find(|of| &*of.provider == "openai" && &*of.model == "gpt-4o").unwrap();
    let edited = CostConfig { rates: dollar("x").rates, ..seed.clone() };
    let set = engine.prices().set(edited).await.unwrap();
    let after = engine.prices().list().await.unwrap();
    assert_ne!(set.id, seed.id);
    assert!(after.contains(seed) && after.contains(&set));
    assert_eq!(after.len(), listed.len() + 1);
    // The same again is no change, in whatever case it is written.
    let again = CostConfig { provider: Label::new(" OpenAI").unwrap(), ..set.clone() };
    let generation = engine.store().price_generation().await.unwrap();
    assert_eq!(engine.prices().set(again.clone()).await.unwrap(), set);
    assert_eq!(engine.prices().list().await.unwrap(), after);
    assert_eq!(engine.store().price_generation().await.unwrap(), generation, "nothing is written");
    // Where it was read is no part of what it says.
    let read = CostConfig { source: Some("the contract".to_owned()), ..again };
    let named = engine.prices().set(read).await.unwrap();
    assert_eq!((named.id, named.source.as_deref()), (set.id, Some("the contract")));
    assert_eq!(engine.prices().list().await.unwrap().len(), after.len());
}

#[tokio::test]
async fn a_store_is_seeded_once_and_brought_up_to_date_on_request() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let open = || PromptEngine::with_store(Arc::clone(&store), PromptEngine::builder());
    let engine = open().await.unwrap();
    let seeded = engine.prices().list().await.unwrap();
    assert_eq!(seeded.len(), seed_prices().len());
    let loaded = engine.prices().load().await.unwrap();
    assert_eq!(loaded, LoadedPrices { known: seeded.len() as u64, ..LoadedPrices::default() });

    // What an older library said of a model, and a price of the user's.
    let list = store.cost_configs().await.unwrap();
    let is_o3 = |of: &&CostConfig| &*of.provider == "openai" && &*of.model == "gpt-4o-mini";
    let current = list.configs.iter().find(is_o3).unwrap().clone();
    let old = CostConfig { rates: dollar("x").rates, ..current.clone() };
    store.put_cost_configs(std::slice::from_ref(&old), list.generation).await.unwrap();
    let mine = engine.prices().set(dollar("gpt-4o-mini")).await.unwrap();
    let before = Timestamp::now();
    let loaded = engine.prices().load().await.unwrap();
    assert_eq!((loaded.added, loaded.closed, loaded.replaced, loaded.renamed), (1, 1, 0, 0));
    let prices = engine.prices().list().await.unwrap();
    let line: Vec<_> = prices.iter().filter(|of| of.line() == current.line()).collect();
    assert_eq!(line.len(), 2);
    assert!(line[0].id == old.id && line[0].valid_to >= Some(before));
    assert!(line[0].valid_to == line[1].valid_from && line[1].same_charges(&current));
    assert!(prices.contains(&mine));
    assert_eq!(engine.prices().load().await.unwrap().added, 0);
    // A store that has prices is not seeded again.
    open().await.unwrap();
    assert_eq!(engine.prices().list().await.unwrap().len(), prices.len());
}

#[tokio::test]
async fn an_engine_without_seed_prices_knows_none() {
    let settings = PromptEngine::builder().without_seed_prices();
    let engine = PromptEngine::with_store(Arc::new(MemoryStore::new()), settings).await.unwrap();
    assert_eq!(engine.prices().list().await.unwrap(), []);
    assert_eq!(engine.prices().load().await.unwrap().added, seed_prices().len() as u64);
}
