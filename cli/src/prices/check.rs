//! `prices check`: models of recorded calls that have no price.

use std::collections::BTreeSet;

use prompt_engine::{
    AggregateQuery, Dimension, PriceRequest, Timestamp, TokenCounts, UnpricedReason,
};
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::{lines, say};
use crate::table::{cell, count, number, show, table};

/// How many names are offered in place of one.
const OFFERED: usize = 3;
/// How alike a name must be to be offered, from 0 to 1.
const ALIKE: f64 = 0.55;

/// A model whose calls cannot be priced.
struct Unknown {
    provider: String,
    model: String,
    calls: u64,
    unpriced: u64,
    reason: UnpricedReason,
    near: Vec<String>,
}

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let engine = context.open().await?;
    let query = AggregateQuery {
        group_by: vec![Dimension::Provider, Dimension::Model],
        ..AggregateQuery::default()
    };
    let rows = engine.store().aggregate(&query).await?;
    let book = engine.price_book();
    let prices = engine.prices().list().await?;
    let tokens = TokenCounts { input: 1, output: 1, ..TokenCounts::default() }.check()?;
    let mut unknown = Vec::new();
    let mut seen: u64 = 0;
    for row in &rows {
        let (Some(provider), Some(model)) = (&row.key.provider, &row.key.model) else { continue };
        seen += 1;
        // Calls that a model of another name answered have that one's price.
        let unpriced = row.measures.unpriced;
        let quote = book.price(&PriceRequest {
            provider,
            model,
            response_model: None,
            at: Timestamp::now(),
            tokens: Some(&tokens),
            service_tier: None,
        });
        let (Some(reason), true) = (quote.cost.reason(), unpriced > 0) else { continue };
        let own = prices.iter().filter(|price| price.provider == *provider);
        let mut near = nearest(model, own.map(|price| (&*price.provider, &*price.model)));
        if near.is_empty() {
            near = nearest(model, prices.iter().map(|price| (&*price.provider, &*price.model)));
        }
        unknown.push(Unknown {
            provider: provider.to_string(),
            model: model.to_string(),
            calls: row.measures.executions(),
            unpriced,
            reason,
            near: near.into_iter().map(|(of, name)| format!("{of}/{name}")).collect(),
        });
    }
    print(&unknown, seen, context)
}

fn print(unknown: &[Unknown], seen: u64, context: &Context) -> Result<(), Failure> {
    if context.json() {
        return lines(unknown.iter().map(|of| {
            json!({
                "provider": of.provider, "model": of.model, "calls": of.calls,
                "unpriced": of.unpriced, "reason": of.reason, "nearest": of.near,
            })
        }));
    }
    if unknown.is_empty() {
        return say(match seen {
            0 => "No calls are recorded.".to_owned(),
            _ => format!("All {} of recorded calls have a price.", count(seen, "model")),
        });
    }
    let mut rows = table(&["Provider", "Model", ">Calls", ">Unpriced", "Nearest known names"]);
    for Unknown { provider, model, calls, unpriced, reason, near } in unknown {
        let mut near = if near.is_empty() { "-".to_owned() } else { near.join(", ") };
        if *reason == UnpricedReason::MissingRate {
            near = "known, but without a price for text".to_owned();
        }
        rows.add_row([
            cell(provider),
            cell(model),
            cell(number(*calls)),
            cell(number(*unpriced)),
            cell(near),
        ]);
    }
    show(&rows)?;
    let verb = if unknown.len() == 1 { "has" } else { "have" };
    say(format_args!(
        "{} of {} {verb} no price; `prompt-engine prices set` sets one, and `prices reprice` applies it \
         to recorded calls.",
        number(unknown.len() as u64),
        count(seen, "model"),
    ))
}

/// The names most like `model`, best first, as provider and name.
pub(super) fn nearest<'a>(
    model: &str,
    names: impl Iterator<Item = (&'a str, &'a str)>,
) -> Vec<(&'a str, &'a str)> {
    let model = model.to_lowercase();
    let names: BTreeSet<(&str, &str)> = names.collect();
    let mut alike: Vec<(f64, (&str, &str))> = names
        .into_iter()
        .map(|name| (strsim::normalized_damerau_levenshtein(&model, &name.1.to_lowercase()), name))
        .filter(|(alike, _)| *alike >= ALIKE)
        .collect();
    alike.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    alike.into_iter().take(OFFERED).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_names_come_best_first() {
        let names = [
            ("openai", "gpt-4o"),
            ("openai", "gpt-4o-mini"),
            ("aws", "nova-pro"),
            ("azure", "GPT-4o"),
        ];
        let near = nearest("gpt4o", names.into_iter());
        assert_eq!(near, [("azure", "GPT-4o"), ("openai", "gpt-4o")]);
        assert!(nearest("something-else", names.into_iter()).is_empty());
    }
}
