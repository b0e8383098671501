//! `prices check`: successful calls whose cost is not known, and why.
//! Invariant: it is the recorded costs that are asked, so that each of these calls is named.

use std::collections::BTreeMap;

use prompt_engine::{
    AggregateQuery, CostConfig, Dimension, Filter, Label, LlmExecution, PageQuery, PriceBook,
    PriceRequest, PromptEngine, RecordQuery, Status, Timestamp, UnpricedReason,
};
use serde_json::json;

use super::nearest::nearest;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{lines, say};
use crate::table::{cell, count, number, show, table};

/// Calls that are read at a time.
const PAGE: u32 = 5_000;

/// What calls have in common: provider, model, service tier, and what is missing, in words. The model
/// is the one whose price was looked at, and where there was none the asked one.
type Kind = (Label, Label, Option<Label>, String);

/// Calls of one kind.
struct Unpriced {
    calls: u64,
    reason: UnpricedReason,
    near: Vec<String>,
}

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let engine = context.open().await?;
    // A call that failed needs no price.
    let filter = Filter { statuses: vec![Status::Success], ..Filter::default() };
    let query = AggregateQuery {
        group_by: vec![Dimension::Provider, Dimension::Model],
        filter: filter.clone(),
        ..AggregateQuery::default()
    };
    let rows = engine.store().aggregate(&query).await?.rows;
    let prices = engine.prices().list().await?;
    let book = engine.price_book();
    let mut found: BTreeMap<Kind, Unpriced> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.measures.unpriced > 0) {
        let (provider, model) = (row.key.provider.clone(), row.key.model.clone());
        let filter = Filter { provider, model, ..filter.clone() };
        each_unpriced(&engine, filter, |call, recorded| {
            let (model, reason, why) = why(call, recorded, &book);
            let kind = (call.provider.clone(), model, call.service_tier.clone(), why);
            let of_kind = found.entry(kind).or_insert_with_key(|(provider, model, ..)| Unpriced {
                calls: 0,
                reason,
                near: near(provider, model, reason, &prices),
            });
            of_kind.calls += 1;
        })
        .await?;
    }
    let seen = rows.iter().map(|row| row.measures.executions()).sum();
    print(&found, seen, context)
}

/// Hands over every call whose cost is not known.
async fn each_unpriced(
    engine: &PromptEngine,
    filter: Filter,
    mut take: impl FnMut(&LlmExecution, UnpricedReason),
) -> Result<(), Failure> {
    let page = PageQuery { limit: PAGE, after: None };
    let mut query = RecordQuery { filter, page, ..RecordQuery::default() };
    loop {
        let page = engine.store().list_executions(&query).await?;
        for call in &page.items {
            if let Some(reason) = call.cost.and_then(|cost| cost.reason()) {
                take(call, reason);
            }
        }
        query.page.after = page.next;
        if query.page.after.is_none() {
            return Ok(());
        }
    }
}

/// The model whose price counts, and what the call lacks by the prices of today.
fn why(
    call: &LlmExecution,
    recorded: UnpricedReason,
    book: &PriceBook,
) -> (Label, UnpricedReason, String) {
    let request = PriceRequest::of(call, call.tokens.as_ref());
    let quote = book.price(&request);
    let model = quote.priced_model.unwrap_or(&call.model).clone();
    let priced = |request: PriceRequest<'_>| book.price(&request).cost.usd().is_some();
    let now = Timestamp::now();
    // Without tokens, and beyond a row, no price helps.
    let reason = match recorded {
        UnpricedReason::UnknownModel | UnpricedReason::MissingRate => quote.cost.reason(),
        recorded => Some(recorded),
    };
    let why = match reason {
        None => "it has a price by now: `prices reprice` applies it".to_owned(),
        Some(UnpricedReason::UnknownModel) => "the model is not known".to_owned(),
        Some(UnpricedReason::MissingRate) => match &call.service_tier {
            Some(tier) if priced(PriceRequest { service_tier: None, ..request }) => {
                format!("no price for the tier {tier} at that time")
            }
            _ if priced(PriceRequest { at: now, ..request }) => "no price at that time".to_owned(),
            _ => "no rate for some of its tokens".to_owned(),
        },
        Some(UnpricedReason::NoUsage) => "its tokens are not known".to_owned(),
        Some(UnpricedReason::InconsistentUsage) => "its tokens contradict each other".to_owned(),
        Some(UnpricedReason::Overflow) => "more than 9.2 million dollars".to_owned(),
    };
    (model, reason.unwrap_or(recorded), why)
}

/// The known names that may have been meant.
fn near(provider: &str, model: &str, reason: UnpricedReason, prices: &[CostConfig]) -> Vec<String> {
    if reason != UnpricedReason::UnknownModel {
        return Vec::new();
    }
    let own = prices.iter().filter(|price| super::same_provider(provider, &price.provider));
    let near = nearest(model, own);
    if near.is_empty() { nearest(model, prices) } else { near }
}

fn print(found: &BTreeMap<Kind, Unpriced>, seen: u64, context: &Context) -> Result<(), Failure> {
    if context.json() {
        return lines(found.iter().map(|((provider, model, tier, why), of)| {
            json!({
                "provider": provider, "model": model, "service_tier": tier, "reason": of.reason,
                "calls": of.calls, "why": why, "nearest": of.near,
            })
        }));
    }
    let calls: u64 = found.values().map(|of| of.calls).sum();
    if calls == 0 {
        return say(match seen {
            0 => "No successful calls are recorded.".to_owned(),
            _ => format!("{}: none without a cost.", count(seen, "successful call")),
        });
    }
    let mut rows = table(&["Provider", "Model", "Tier", ">Calls", "Why", "Nearest known names"]);
    for ((provider, model, tier, why), Unpriced { calls, near, .. }) in found {
        rows.add_row([
            cell(provider.as_str()),
            cell(model.as_str()),
            cell(tier.as_deref().unwrap_or("-")),
            cell(number(*calls)),
            cell(why),
            cell(if near.is_empty() { "-".to_owned() } else { near.join(", ") }),
        ]);
    }
    show(&rows)?;
    let names: std::collections::BTreeSet<_> =
        found.keys().map(|kind| (&kind.0, &kind.1)).collect();
    say(format_args!(
        "{} of {} without a cost, of {}. `prompt-engine prices set` sets one, and `prices reprice` \
         applies it to recorded calls.",
        number(calls),
        count(seen, "successful call"),
        count(names.len() as u64, "model"),
    ))
}
