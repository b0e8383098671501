//! Prices: a change is seen by every engine on the store, and an odd one breaks no call.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prompt_engine::{
    ChatReply, Cost, CostConfig, Label, ModelRule, PromptEngine, Rates, Store, UnpricedReason,
    params,
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
    engine.prices().set(sale.clone()).await.unwrap();
    let prices = engine.prices().list().await.unwrap();
    let line: Vec<_> = prices.iter().filter(|price| price.line() == open.line()).collect();
    let ranges: Vec<_> = line.iter().map(|price| (price.valid_from, price.valid_to)).collect();
    assert_eq!(ranges, [(None, Some(from)), (Some(from), Some(to)), (Some(to), None)]);
    assert_eq!((line[0].id, line[1].id), (open.id, sale.id));
}
