//! `prices list` and `prices show`: prices as tables.

use std::collections::{BTreeSet, HashMap, HashSet};

use clap::Args;
use prompt_engine::{
    CostConfig, CostConfigId, InputTier, Label, ModelRule, PriceBook, PriceLine, Rates, SeedModel,
    Timestamp, Zone, seed_models,
};
use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use super::nearest::nearest;
use super::{prices, same_provider, say_source};
use crate::context::Context;
use crate::failure::Failure;
use crate::filters;
use crate::output::{self, heading, say};
use crate::table::{cell, moment, number, show, table};

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
    let of_model = args.model.as_ref().map(|model| {
        let found = for_model(&prices, args.provider.as_ref(), model);
        found.into_iter().map(|price| price.id).collect::<HashSet<_>>()
    });
    prices.retain(|price| {
        price.replaced_at.is_none()
            && match &of_model {
                Some(ids) => ids.contains(&price.id),
                None => {
                    args.provider.as_ref().is_none_or(|name| same_provider(name, &price.provider))
                }
            }
            && at.is_none_or(|at| price.validity().contains(at))
    });
    if context.json() {
        output::lines(prices.iter().map(flat))?;
    } else if prices.is_empty() {
        say("There are no such prices; `prompt-engine prices set` sets one.")?;
    } else {
        print(&prices)?;
    }
    say_source(context).await?;
    Ok(())
}

pub(super) async fn show_model(args: &ShowArgs, context: &Context) -> Result<(), Failure> {
    let all = prices(context).await?;
    let found = for_model(&all, args.provider.as_ref(), &args.model);
    if found.is_empty() {
        let of = all.iter().filter(|price| {
            args.provider.as_ref().is_none_or(|name| same_provider(name, &price.provider))
        });
        let near = nearest(&args.model, of);
        let near =
            if near.is_empty() { String::new() } else { format!("; near: {}", near.join(", ")) };
        return Err(Failure::failed(format!("there is no price for {:?}{near}", &*args.model)));
    }
    let models = seed_models();
    let known = |of: &CostConfig| {
        models.iter().find(|model| (&model.provider, &model.model) == (&of.provider, &of.model))
    };
    if context.json() {
        output::lines(found.iter().map(|price| {
            let mut fields = flat(price);
            let known = known(price);
            fields.insert("name".into(), json!(known.and_then(|model| model.name.as_ref())));
            let context = known.and_then(|model| model.context_window);
            fields.insert("context_window".into(), json!(context));
            fields.insert("deprecated".into(), json!(known.map(|model| model.deprecated)));
            fields
        }))?;
    } else {
        let of_one =
            |a: &&CostConfig, b: &&CostConfig| (&a.provider, &a.model) == (&b.provider, &b.model);
        for (place, prices) in found.chunk_by(of_one).enumerate() {
            if place > 0 {
                say("")?;
            }
            heading(title(prices[0], known(prices[0])))?;
            history(prices)?;
        }
    }
    say_source(context).await?;
    Ok(())
}

/// The prices that calls of a model are priced with, and those that were replaced by them. Of all
/// providers: those that have prices of their own.
fn for_model<'a>(
    all: &'a [CostConfig],
    provider: Option<&Label>,
    model: &str,
) -> Vec<&'a CostConfig> {
    let book = PriceBook::new(all);
    let names: BTreeSet<&str> = match provider {
        Some(name) => BTreeSet::from([name.as_str()]),
        None => all.iter().map(|price| &*price.provider).collect(),
    };
    let by_id: HashMap<CostConfigId, &CostConfig> = all.iter().map(|of| (of.id, of)).collect();
    let mut ids = HashSet::new();
    for name in names {
        let found = book.prices_of(name, model);
        let of_name = |id: &CostConfigId| {
            provider.is_some()
                || by_id.get(id).is_some_and(|of| of.provider.eq_ignore_ascii_case(name))
        };
        ids.extend(found.into_iter().filter(of_name));
    }
    let lines: HashSet<PriceLine> =
        ids.iter().filter_map(|id| by_id.get(id)).map(|of| of.line()).collect();
    let replaced = |of: &CostConfig| of.replaced_at.is_some() && lines.contains(&of.line());
    all.iter().filter(|of| ids.contains(&of.id) || replaced(of)).collect()
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

/// Which names a rule means, for people.
fn names(rule: &ModelRule) -> String {
    let all = |rules: &[ModelRule], between: &str| {
        rules.iter().map(names).collect::<Vec<_>>().join(between)
    };
    match rule {
        ModelRule::Equals(name) => name.to_string(),
        ModelRule::StartsWith(start) => format!("{start}*"),
        ModelRule::EndsWith(end) => format!("*{end}"),
        ModelRule::Contains(part) => format!("*{part}*"),
        ModelRule::Regex(pattern) => format!("/{pattern}/"),
        ModelRule::Any(rules) => all(rules, ", "),
        ModelRule::All(rules) => all(rules, " and "),
        ModelRule::Not(rule) => format!("not {}", names(rule)),
    }
}

/// The prices of one model, one row for each size of input and window of the day.
pub(super) fn history(prices: &[&CostConfig]) -> Result<(), Failure> {
    let mut rules: Vec<String> = Vec::new();
    for price in prices {
        let rule = names(&price.rule);
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    if rules != [prices[0].model.as_str()] {
        say(format_args!("For {}", rules.join("; ")))?;
    }
    let mut rows = table(&[
        "Valid (UTC)",
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
        let mut first = true;
        let mut add = |when: String, rates: &Rates| {
            let once = |text: String| if first { text } else { String::new() };
            rows.add_row([
                cell(once(validity(price))),
                cell(once(price.service_tier.as_deref().unwrap_or("standard").to_owned())),
                cell(when),
                cell(rate(rates.input)),
                cell(rate(rates.output)),
                cell(rate(rates.cache_read)),
                cell(rate(rates.cache_write)),
                cell(rate(rates.cache_write_1h)),
                cell(once(price.origin.as_str().to_owned())),
            ]);
            first = false;
        };
        let above = |tier: &InputTier| format!("input > {}", number(tier.tokens));
        let a_call = price.per_request.map(|usd| format!("+ ${} a call", usd.normalize()));
        add(a_call.unwrap_or_else(|| "-".to_owned()), &price.rates);
        for tier in &price.tiers {
            add(above(tier), &tier.rates);
        }
        for window in &price.windows {
            let hours = format!("{} to {}", window.from, window.to);
            add(hours.clone(), &window.rates);
            for tier in &window.tiers {
                add(format!("{hours}, {}", above(tier)), &tier.rates);
            }
        }
        let Rates { reasoning, audio_input, audio_output, .. } = price.rates;
        if reasoning.is_some() {
            add("reasoning".to_owned(), &Rates { output: reasoning, ..Rates::default() });
        }
        if audio_input.or(audio_output).is_some() {
            let audio = Rates { input: audio_input, output: audio_output, ..Rates::default() };
            add("audio".to_owned(), &audio);
        }
    }
    show(&rows)
}

fn print(prices: &[CostConfig]) -> Result<(), Failure> {
    let mut rows =
        table(&["Provider", "Model", "Tier", ">Input", ">Output", ">Cached", "Valid", "Set by"]);
    let mut more = false;
    for price in prices {
        let plain =
            price.tiers.is_empty() && price.windows.is_empty() && price.per_request.is_none();
        let star = if plain { "" } else { "*" };
        more |= !star.is_empty();
        rows.add_row([
            cell(price.provider.as_str()),
            cell(models(price)),
            cell(price.service_tier.as_deref().unwrap_or("standard")),
            cell(rate(price.rates.input) + star),
            cell(rate(price.rates.output) + star),
            cell(rate(price.rates.cache_read) + star),
            cell(validity(price)),
            cell(price.origin.as_str()),
        ]);
    }
    show(&rows)?;
    if more {
        say(
            "* and more for large inputs, times of the day or each call: `prompt-engine prices show MODEL`",
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

fn rate(rate: Option<Decimal>) -> String {
    rate.map_or("-".to_owned(), |rate| rate.normalize().to_string())
}

/// A moment in UTC, as short as it can be said.
fn day(at: Timestamp) -> String {
    let text = moment(at);
    let text = text.trim_end_matches('Z');
    let minute = text.strip_suffix(":00").unwrap_or(text);
    minute.strip_suffix(" 00:00").unwrap_or(minute).to_owned()
}

fn validity(price: &CostConfig) -> String {
    let valid = match (price.valid_from, price.valid_to) {
        (None, None) => "always".to_owned(),
        (Some(from), None) => format!("from {}", day(from)),
        (None, Some(to)) => format!("until {}", day(to)),
        (Some(from), Some(to)) => format!("{} to {}", day(from), day(to)),
    };
    match price.replaced_at {
        Some(at) => format!("{valid} (replaced {})", day(at)),
        None => valid,
    }
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
