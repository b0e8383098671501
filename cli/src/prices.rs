//! `prices`: list and set the prices of models.
//! Invariant: history is never lost: a new price closes the open one before it, and overlaps are refused.

use clap::{Args, Subcommand, ValueEnum};
use prompt_engine::{CostConfig, CostConfigId, Label, ModelRule, PriceOrigin, Rates, Usd, Zone};
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::failure::Failure;
use crate::filters;
use crate::output::{self, say};
use crate::table::{cell, show, table};

/// List and set the prices of models.
#[derive(Debug, Subcommand)]
pub(crate) enum PricesCommand {
    /// List prices, in US dollars per million tokens.
    #[command(after_help = "Example:\n  prompt-engine prices list --provider openai")]
    List(ListArgs),
    /// Set a price, in US dollars per million tokens; it wins over what came with the library.
    #[command(
        after_help = "Example:\n  prompt-engine prices set --provider openai --model gpt-4o \
            --input 2.5 --output 10 --cache-read 1.25 --from 2026-01-01"
    )]
    Set(Box<SetArgs>),
}

/// Which prices.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only of this provider.
    #[arg(long, value_name = "NAME")]
    provider: Option<Label>,
    /// Only those that are for this model.
    #[arg(long, value_name = "NAME")]
    model: Option<Label>,
}

/// How `--model` is meant.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Match {
    /// The model of exactly this name.
    #[default]
    Equals,
    /// Every model whose name starts so.
    StartsWith,
}

/// A price.
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// The provider, as records name it.
    #[arg(long, value_name = "NAME")]
    provider: Label,
    /// The model, as records name it.
    #[arg(long, value_name = "NAME")]
    model: Label,
    /// How the model is meant.
    #[arg(long = "match", value_name = "HOW", value_enum, default_value_t)]
    rule: Match,
    /// A million input tokens.
    #[arg(long, value_name = "USD", allow_negative_numbers = true)]
    input: Option<Usd>,
    /// A million output tokens.
    #[arg(long, value_name = "USD", allow_negative_numbers = true)]
    output: Option<Usd>,
    /// A million input tokens from a cache; as input, unless given.
    #[arg(long, value_name = "USD", allow_negative_numbers = true)]
    cache_read: Option<Usd>,
    /// A million input tokens written to a cache; as input, unless given.
    #[arg(long, value_name = "USD", allow_negative_numbers = true)]
    cache_write: Option<Usd>,
    /// A million output tokens of reasoning; as output, unless given.
    #[arg(long, value_name = "USD", allow_negative_numbers = true)]
    reasoning: Option<Usd>,
    /// Each request, besides its tokens.
    #[arg(long, value_name = "USD", allow_negative_numbers = true)]
    per_request: Option<Usd>,
    /// The service tier it is for; the standard one, unless given.
    #[arg(long, value_name = "NAME")]
    service_tier: Option<Label>,
    /// From this moment on; since ever, unless given.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Until before this moment; until further notice, unless given.
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// The zone of dates: Europe/Berlin, or +05:45.
    #[arg(long, value_name = "ZONE", default_value = "UTC", allow_hyphen_values = true)]
    tz: String,
    /// Where the price was read.
    #[arg(long, value_name = "TEXT")]
    source: Option<String>,
}

pub(crate) async fn run(command: PricesCommand, context: &Context) -> Result<(), Failure> {
    match command {
        PricesCommand::List(args) => list(&args, context).await,
        PricesCommand::Set(args) => set(*args, context).await,
    }
}

async fn list(args: &ListArgs, context: &Context) -> Result<(), Failure> {
    let engine = context.open().await?;
    let mut prices = engine.prices().list().await?;
    prices.retain(|price| {
        args.provider.as_ref().is_none_or(|provider| *provider == price.provider)
            && args.model.as_ref().is_none_or(|model| price.rule.matches(model))
    });
    if context.json() {
        return output::lines(prices.iter().map(flat));
    }
    if prices.is_empty() {
        return say("There are no such prices; `prompt-engine prices set` sets one.");
    }
    print(&prices)
}

async fn set(args: SetArgs, context: &Context) -> Result<(), Failure> {
    let zone: Zone = args.tz.parse().map_err(|error| Failure::option("--tz", &error))?;
    let moment = |name, text: Option<&String>| {
        text.map(|text| filters::moment(name, text, zone)).transpose()
    };
    let rate = |usd: Option<Usd>| usd.map(Usd::as_decimal);
    let price = CostConfig {
        id: CostConfigId::new(),
        origin: PriceOrigin::User,
        provider: args.provider,
        rule: match args.rule {
            Match::Equals => ModelRule::Equals(args.model),
            Match::StartsWith => ModelRule::StartsWith(args.model),
        },
        service_tier: args.service_tier,
        valid_from: moment("--from", args.from.as_ref())?,
        valid_to: moment("--to", args.to.as_ref())?,
        rates: Rates {
            input: rate(args.input),
            output: rate(args.output),
            cache_read: rate(args.cache_read),
            cache_write: rate(args.cache_write),
            reasoning: rate(args.reasoning),
            ..Rates::default()
        },
        per_request: rate(args.per_request),
        source: args.source,
    };
    // A price that breaks a rule is a wrong call, and makes no store.
    price.validate().map_err(|error| Failure::usage(error.chain()))?;
    let engine = context.open_or_create().await?;
    let price = engine.prices().set(price).await?;
    if context.json() {
        return output::document(&flat(&price));
    }
    print(&[price])
}

fn print(prices: &[CostConfig]) -> Result<(), Failure> {
    let mut rows =
        table(&["Provider", "Model", "Tier", ">Input", ">Output", ">Cached", "Valid", "Set by"]);
    for price in prices {
        let rate = |name: &str| {
            let rates = price.rates.each();
            let found = rates.into_iter().find(|(known, _)| *known == name);
            found
                .and_then(|(_, rate)| rate)
                .map_or("-".to_owned(), |rate| rate.normalize().to_string())
        };
        let model = match &price.rule {
            ModelRule::Equals(name) => name.to_string(),
            ModelRule::StartsWith(start) => format!("{start}*"),
        };
        let day =
            |at: prompt_engine::Timestamp| at.to_string().chars().take(10).collect::<String>();
        let valid = match (price.valid_from, price.valid_to) {
            (None, None) => "always".to_owned(),
            (Some(from), None) => format!("from {}", day(from)),
            (None, Some(to)) => format!("until {}", day(to)),
            (Some(from), Some(to)) => format!("{} to {}", day(from), day(to)),
        };
        rows.add_row([
            cell(price.provider.as_str()),
            cell(model),
            cell(price.service_tier.as_deref().unwrap_or("-")),
            cell(rate("input")),
            cell(rate("output")),
            cell(rate("cache_read")),
            cell(valid),
            cell(price.origin.as_str()),
        ]);
    }
    show(&rows)
}

/// A price as a flat object; a rate that is not known is null.
fn flat(price: &CostConfig) -> Map<String, Value> {
    let how = match price.rule {
        ModelRule::Equals(_) => "equals",
        ModelRule::StartsWith(_) => "starts-with",
    };
    let mut fields = Map::new();
    let mut add = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    add("id", json!(price.id));
    add("origin", json!(price.origin));
    add("provider", json!(price.provider));
    add("model", json!(price.rule.text()));
    add("match", json!(how));
    add("service_tier", json!(price.service_tier));
    add("valid_from", json!(price.valid_from));
    add("valid_to", json!(price.valid_to));
    for (name, rate) in price.rates.each() {
        add(name, json!(rate.map(|rate| rate.normalize().to_string())));
    }
    add("per_request", json!(price.per_request.map(|rate| rate.normalize().to_string())));
    add("source", json!(price.source));
    fields
}
