//! `prices check`: recorded calls that no price is known for, and why.
//! Invariant: it is the recorded costs that are asked, so every call that a price could mend is named.

use std::collections::BTreeMap;

use prompt_engine::{
    AggregateQuery, CostConfig, Dimension, Filter, Label, LlmExecution, PageQuery, PriceBook,
    PriceRequest, PromptEngine, RecordQuery, Status, UnpricedReason,
};
use serde_json::json;

use super::nearest::nearest;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{lines, say};
use crate::table::{cell, count, number, show, table};

/// Calls that are read at a time.
const PAGE: u32 = 5_000;

/// What calls have in common: provider, asked model, service tier, and why they have no price.
type Kind = (Label, Label, Option<Label>, UnpricedReason);

/// Calls of one kind.
struct Unpriced {
    calls: u64,
    /// What is missing, in words.
    why: String,
    near: Vec<String>,
}

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let engine = context.open().await?;
    // A failed call without tokens needs no price.
    let filter = Filter { statuses: vec![Status::Success], ..Filter::default() };
    let query = AggregateQuery {
        group_by: vec![Dimension::Provider, Dimension::Model],
        filter: filter.clone(),
        ..AggregateQuery::default()
    };
    let rows = engine.store().aggregate(&query).await?;
    let prices = engine.prices().list().await?;
    let book = engine.price_book();
    let mut found: BTreeMap<Kind, Unpriced> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.measures.unpriced > 0) {
        let (provider, model) = (row.key.provider.clone(), row.key.model.clone());
        let filter = Filter { provider, model, ..filter.clone() };
        each_unpriced(&engine, filter, |call, reason| {
            let kind =
                (call.provider.clone(), call.model.clone(), call.service_tier.clone(), reason);
            let of_kind = found.entry(kind).or_insert_with(|| Unpriced {
                calls: 0,
                why: why(call, reason, &book),
                near: near(call, reason, &prices),
            });
            of_kind.calls += 1;
        })
        .await?;
    }
    let seen = rows.iter().map(|row| row.measures.executions()).sum();
    print(&found, seen, context)
}

/// Hands over every call that a price could mend.
async fn each_unpriced(
    engine: &PromptEngine,
    filter: Filter,
    mut take: impl FnMut(&LlmExecution, UnpricedReason),
) -> Result<(), Failure> {
    use UnpricedReason::{MissingRate, UnknownModel};
    let page = PageQuery { limit: PAGE, after: None };
    let mut query = RecordQuery { filter, page, ..RecordQuery::default() };
    loop {
        let page = engine.store().list_executions(&query).await?;
        for call in &page.items {
            if let Some(reason @ (UnknownModel | MissingRate)) =
                call.cost.and_then(|cost| cost.reason())
            {
                take(call, reason);
            }
        }
        query.page.after = page.next;
        if query.page.after.is_none() {
            return Ok(());
        }
    }
}

/// What the call lacks, as far as the prices of now tell.
fn why(call: &LlmExecution, reason: UnpricedReason, book: &PriceBook) -> String {
    let request = PriceRequest::of(call, call.tokens.as_ref());
    let priced = |request: PriceRequest<'_>| book.price(&request).cost.usd().is_some();
    let now = prompt_engine::Timestamp::now();
    match &call.service_tier {
        _ if priced(request) => "it has a price by now: `prices reprice` applies it".to_owned(),
        _ if reason == UnpricedReason::UnknownModel => "the model is not known".to_owned(),
        Some(tier) if priced(PriceRequest { service_tier: None, ..request }) => {
            format!("no price for the tier {tier} at that time")
        }
        _ if priced(PriceRequest { at: now, ..request }) => "no price at that time".to_owned(),
        _ => "no rate for some of its tokens".to_owned(),
    }
}

/// The known names that may have been meant.
fn near(call: &LlmExecution, reason: UnpricedReason, prices: &[CostConfig]) -> Vec<String> {
    if reason != UnpricedReason::UnknownModel {
        return Vec::new();
    }
    let own = prices.iter().filter(|price| super::same_provider(&call.provider, &price.provider));
    let near = nearest(&call.model, own);
    if near.is_empty() { nearest(&call.model, prices) } else { near }
}

fn print(found: &BTreeMap<Kind, Unpriced>, seen: u64, context: &Context) -> Result<(), Failure> {
    if context.json() {
        return lines(found.iter().map(|((provider, model, tier, reason), of)| {
            json!({
                "provider": provider, "model": model, "service_tier": tier, "reason": reason,
                "calls": of.calls, "why": of.why, "nearest": of.near,
            })
        }));
    }
    let calls: u64 = found.values().map(|of| of.calls).sum();
    if calls == 0 {
        return say(match seen {
            0 => "No calls are recorded that a price is needed for.".to_owned(),
            _ => format!("{}: none lacks a price.", count(seen, "successful call")),
        });
    }
    let mut rows = table(&["Provider", "Model", "Tier", ">Calls", "Why", "Nearest known names"]);
    for ((provider, model, tier, _), Unpriced { calls, why, near }) in found {
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
        "{} of {} without a price, of {}. `prompt-engine prices set` sets one, and `prices reprice` \
         applies it to recorded calls.",
        number(calls),
        count(seen, "successful call"),
        count(names.len() as u64, "model"),
    ))
}
