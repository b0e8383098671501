//! `prices list` and `prices show`: prices as tables.

use clap::Args;
use prompt_engine::{
    CostConfig, InputTier, Label, ModelRule, Rates, SeedModel, Timestamp, Zone, seed_models,
};
use serde_json::{Map, Value, json};

use super::check::nearest;
use super::{prices, say_source};
use crate::context::Context;
use crate::failure::Failure;
use crate::filters;
use crate::output::{self, heading, say};
use crate::table::{cell, number, show, table};

/// Which prices.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only of this provider.
    #[arg(long, value_name = "NAME")]
    provider: Option<Label>,
    /// Only those that are for this model.
    #[arg(long, value_name = "NAME")]
    model: Option<Label>,
    /// Only those that hold at this moment.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// The zone of dates: Europe/Berlin, or +05:45.
    #[arg(long, value_name = "ZONE", default_value = "UTC", allow_hyphen_values = true)]
    tz: String,
}

/// Which model.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The model, as records name it.
    model: Label,
    /// Only of this provider.
    #[arg(long, value_name = "NAME")]
    provider: Option<Label>,
}

pub(super) async fn list(args: &ListArgs, context: &Context) -> Result<(), Failure> {
    let zone: Zone = args.tz.parse().map_err(|error| Failure::option("--tz", &error))?;
    let at = args.at.as_ref().map(|at| filters::moment("--at", at, zone)).transpose()?;
    let mut prices = prices(context).await?;
    prices.retain(|price| {
        price.replaced_at.is_none()
            && args.provider.as_ref().is_none_or(|provider| same(provider, &price.provider))
            && args.model.as_ref().is_none_or(|model| is_for(price, model))
            && at.is_none_or(|at| price.validity().contains(at))
    });
    if context.json() {
        return output::lines(prices.iter().map(flat));
    }
    if prices.is_empty() {
        return say("There are no such prices; `prompt-engine prices set` sets one.");
    }
    print(&prices)?;
    say_source(context);
    Ok(())
}

pub(super) async fn show_model(args: &ShowArgs, context: &Context) -> Result<(), Failure> {
    let all = prices(context).await?;
    let found: Vec<&CostConfig> = all
        .iter()
        .filter(|price| args.provider.as_ref().is_none_or(|name| same(name, &price.provider)))
        .filter(|price| is_for(price, &args.model))
        .collect();
    if found.is_empty() {
        let names = all.iter().map(|price| (&*price.provider, &*price.model));
        let names = names
            .filter(|(provider, _)| args.provider.as_ref().is_none_or(|name| same(name, provider)));
        let near: Vec<_> = nearest(&args.model, names)
            .into_iter()
            .map(|(provider, model)| format!("{provider}/{model}"))
            .collect();
        let near =
            if near.is_empty() { String::new() } else { format!("; near: {}", near.join(", ")) };
        return Err(Failure::failed(format!("there is no price for {:?}{near}", &*args.model)));
    }
    let models = seed_models();
    let known = |of: &CostConfig| {
        models.iter().find(|model| (&model.provider, &model.model) == (&of.provider, &of.model))
    };
    if context.json() {
        return output::lines(found.iter().map(|price| {
            let mut fields = flat(price);
            let known = known(price);
            fields.insert("name".into(), json!(known.and_then(|model| model.name.as_ref())));
            let context = known.and_then(|model| model.context_window);
            fields.insert("context_window".into(), json!(context));
            fields.insert("deprecated".into(), json!(known.map(|model| model.deprecated)));
            fields
        }));
    }
    let of_one =
        |a: &&CostConfig, b: &&CostConfig| (&a.provider, &a.model) == (&b.provider, &b.model);
    for (place, prices) in found.chunk_by(of_one).enumerate() {
        if place > 0 {
            say("")?;
        }
        heading(title(prices[0], known(prices[0])))?;
        history(prices)?;
    }
    say_source(context);
    Ok(())
}

/// `openai/gpt-4o (GPT 4o), 128,000 tokens of context, deprecated`.
fn title(price: &CostConfig, known: Option<&SeedModel>) -> String {
    let mut title = format!("{}/{}", price.provider, price.model);
    if let Some(SeedModel { name, context_window, deprecated, .. }) = known {
        if let Some(name) = name {
            title.push_str(&format!(" ({name})"));
        }
        if let Some(tokens) = context_window {
            title.push_str(&format!(", {} tokens of context", number(*tokens)));
        }
        if *deprecated {
            title.push_str(", deprecated");
        }
    }
    title
}

/// The prices of one model, one row for each size of input and window of the day.
fn history(prices: &[&CostConfig]) -> Result<(), Failure> {
    let mut rows = table(&[
        "Valid",
        "Tier",
        "When",
        ">Input",
        ">Output",
        ">Cache read",
        ">Write",
        ">1 h",
        "Set by",
    ]);
    for price in prices {
        let valid = match price.replaced_at {
            Some(at) => format!("{} (replaced {})", validity(price), day(at)),
            None => validity(price),
        };
        let mut add = |when: String, rates: &Rates, first: bool| {
            let once = |text: &str| if first { text.to_owned() } else { String::new() };
            let rate = |rate| self::rate(rates, rate);
            rows.add_row([
                cell(once(&valid)),
                cell(once(price.service_tier.as_deref().unwrap_or("standard"))),
                cell(when),
                cell(rate("input")),
                cell(rate("output")),
                cell(rate("cache_read")),
                cell(rate("cache_write")),
                cell(rate("cache_write_1h")),
                cell(once(price.origin.as_str())),
            ]);
        };
        let above = |tier: &InputTier| format!("input > {}", number(tier.tokens));
        let usual = price
            .per_request
            .map_or("-".to_owned(), |usd| format!("+ ${} a call", usd.normalize()));
        add(usual, &price.rates, true);
        for tier in &price.tiers {
            add(above(tier), &tier.rates, false);
        }
        for window in &price.windows {
            let hours = format!("{} to {} UTC", window.from, window.to);
            add(hours.clone(), &window.rates, false);
            for tier in &window.tiers {
                add(format!("{hours}, {}", above(tier)), &tier.rates, false);
            }
        }
        for (name, what) in
            [("reasoning", "reasoning"), ("audio_input", "audio in"), ("audio_output", "audio out")]
        {
            let rate = rate(&price.rates, name);
            if rate != "-" {
                let mut only = Rates::default();
                let side = if name == "audio_input" { &mut only.input } else { &mut only.output };
                *side =
                    price.rates.each().into_iter().find(|(n, _)| *n == name).and_then(|(_, r)| r);
                add(what.to_owned(), &only, false);
            }
        }
    }
    show(&rows)
}

pub(super) fn print(prices: &[CostConfig]) -> Result<(), Failure> {
    let mut rows =
        table(&["Provider", "Model", "Tier", ">Input", ">Output", ">Cached", "Valid", "Set by"]);
    let mut more = false;
    for price in prices {
        let star = if price.tiers.is_empty() && price.windows.is_empty() { "" } else { "*" };
        more |= !star.is_empty();
        rows.add_row([
            cell(price.provider.as_str()),
            cell(models(price)),
            cell(price.service_tier.as_deref().unwrap_or("standard")),
            cell(rate(&price.rates, "input") + star),
            cell(rate(&price.rates, "output") + star),
            cell(rate(&price.rates, "cache_read") + star),
            cell(validity(price)),
            cell(price.origin.as_str()),
        ]);
    }
    show(&rows)?;
    if more {
        say(
            "* other rates for large inputs or at times of the day: `prompt-engine prices show MODEL`",
        )?;
    }
    Ok(())
}

fn models(price: &CostConfig) -> String {
    match &price.rule {
        ModelRule::StartsWith(start) if *start == price.model => format!("{start}*"),
        _ => price.model.to_string(),
    }
}

fn rate(rates: &Rates, name: &str) -> String {
    let found = rates.each().into_iter().find(|(known, _)| *known == name);
    found.and_then(|(_, rate)| rate).map_or("-".to_owned(), |rate| rate.normalize().to_string())
}

fn day(at: Timestamp) -> String {
    let text = at.to_string();
    let (day, time) = text.split_once('T').unwrap_or((&text, ""));
    let minute: String = time.chars().take(5).collect();
    if minute == "00:00" { day.to_owned() } else { format!("{day} {minute}") }
}

fn validity(price: &CostConfig) -> String {
    match (price.valid_from, price.valid_to) {
        (None, None) => "always".to_owned(),
        (Some(from), None) => format!("from {}", day(from)),
        (None, Some(to)) => format!("until {}", day(to)),
        (Some(from), Some(to)) => format!("{} to {}", day(from), day(to)),
    }
}

fn same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

/// Whether the price is for the model, or listed under this name.
fn is_for(price: &CostConfig, model: &str) -> bool {
    same(&price.model, model) || price.rule.matches(model)
}

/// A price as a flat object; a rate that is not known is null.
pub(super) fn flat(price: &CostConfig) -> Map<String, Value> {
    let how = match &price.rule {
        ModelRule::Equals(name) if *name == price.model => json!("equals"),
        ModelRule::StartsWith(start) if *start == price.model => json!("starts-with"),
        rule => json!(rule),
    };
    let mut fields = Map::new();
    let mut add = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    add("id", json!(price.id));
    add("origin", json!(price.origin));
    add("provider", json!(price.provider));
    add("model", json!(price.model));
    add("match", how);
    add("service_tier", json!(price.service_tier));
    add("valid_from", json!(price.valid_from));
    add("valid_to", json!(price.valid_to));
    add("replaced_at", json!(price.replaced_at));
    for (name, rate) in price.rates.each() {
        add(name, json!(rate.map(|rate| rate.normalize().to_string())));
    }
    add("tiers", json!(price.tiers));
    add("windows", json!(price.windows));
    add("per_request", json!(price.per_request.map(|rate| rate.normalize().to_string())));
    add("source", json!(price.source));
    fields
}
