//! `prices set`: a price of the user's.

use clap::{Args, ValueEnum};
use prompt_engine::{CostConfig, InputTier, Label, ModelRule, Rates, Usd, Zone};
use rust_decimal::Decimal;

use super::list::{flat, history};
use crate::context::Context;
use crate::failure::Failure;
use crate::filters;
use crate::output::{self, heading};

/// How `--model` is meant.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Match {
    /// The model of exactly this name.
    #[default]
    Equals,
    /// Every model whose name starts so.
    StartsWith,
    /// Every model whose name ends so.
    EndsWith,
    /// Every model whose name has this in it.
    Contains,
    /// Every model whose name the pattern finds something in.
    Regex,
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
    /// A million input tokens written to a cache for an hour; as --cache-write, unless given.
    #[arg(long, value_name = "USD", allow_negative_numbers = true)]
    cache_write_1h: Option<Usd>,
    /// A million output tokens of reasoning; as output, unless given.
    #[arg(long, value_name = "USD", allow_negative_numbers = true)]
    reasoning: Option<Usd>,
    /// A million input tokens of audio.
    #[arg(long, value_name = "USD", allow_negative_numbers = true)]
    audio_input: Option<Usd>,
    /// A million output tokens of audio.
    #[arg(long, value_name = "USD", allow_negative_numbers = true)]
    audio_output: Option<Usd>,
    /// Each request, besides its tokens.
    #[arg(long, value_name = "USD", allow_negative_numbers = true)]
    per_request: Option<Usd>,
    /// Other rates for calls with strictly more input tokens than these; may be given several times.
    /// A rate that is not named stays as it is for less.
    #[arg(long, value_name = "TOKENS:RATE=USD,…", value_parser = parse_above)]
    above: Vec<Above>,
    /// The service tier it is for, batch for one; the standard one, unless given.
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

/// Rates of large inputs, in the place of those of the price.
#[derive(Debug, Clone)]
struct Above {
    tokens: u64,
    rates: Vec<(String, Decimal)>,
}

impl Above {
    /// The tier of a price that has these rates below it.
    fn tier(&self, mut rates: Rates) -> InputTier {
        for (name, rate) in &self.rates {
            if let Some(place) = rates.rate_mut(name) {
                *place = Some(*rate);
            }
        }
        InputTier { tokens: self.tokens, rates }
    }
}

/// The tiers of a price whose other rates these are.
fn tiers(mut above: Vec<Above>, rates: Rates) -> Vec<InputTier> {
    above.sort_by_key(|above| above.tokens);
    let mut tiers: Vec<InputTier> = Vec::with_capacity(above.len());
    for above in above {
        let below = tiers.last().map_or(rates, |tier| tier.rates);
        tiers.push(above.tier(below));
    }
    tiers
}

/// Reads `200000:input=4,output=15`.
fn parse_above(text: &str) -> Result<Above, String> {
    let (tokens, list) = text
        .split_once(':')
        .ok_or("it takes tokens, a colon and rates: 200000:input=4,output=15")?;
    let tokens = tokens.trim().parse();
    let tokens = tokens.map_err(|_| "before the colon stands a number of tokens".to_owned())?;
    let mut rates = Vec::new();
    for pair in list.split(',') {
        let (name, rate) =
            pair.split_once('=').ok_or_else(|| format!("{pair:?} is no RATE=USD"))?;
        let name = name.trim().replace('-', "_");
        if Rates::default().rate_mut(&name).is_none() {
            let known = Rates::default().each().map(|(name, _)| name).join(", ");
            return Err(format!("there is no rate {name:?}; there are {known}"));
        }
        if rates.iter().any(|(known, _)| *known == name) {
            return Err(format!("the rate {name} is given twice"));
        }
        let usd: Usd = rate.parse().map_err(|error: prompt_engine::Error| error.to_string())?;
        rates.push((name, usd.as_decimal()));
    }
    Ok(Above { tokens, rates })
}

pub(super) async fn run(args: SetArgs, context: &Context) -> Result<(), Failure> {
    let zone: Zone = args.tz.parse().map_err(|error| Failure::option("--tz", &error))?;
    let moment = |name, text: Option<&String>| {
        text.map(|text| filters::moment(name, text, zone)).transpose()
    };
    let rate = |usd: Option<Usd>| usd.map(Usd::as_decimal);
    let rule = match args.rule {
        Match::Equals => ModelRule::Equals,
        Match::StartsWith => ModelRule::StartsWith,
        Match::EndsWith => ModelRule::EndsWith,
        Match::Contains => ModelRule::Contains,
        Match::Regex => ModelRule::Regex,
    };
    let rates = Rates {
        input: rate(args.input),
        output: rate(args.output),
        cache_read: rate(args.cache_read),
        cache_write: rate(args.cache_write),
        cache_write_1h: rate(args.cache_write_1h),
        reasoning: rate(args.reasoning),
        audio_input: rate(args.audio_input),
        audio_output: rate(args.audio_output),
    };
    let price = CostConfig {
        rule: rule(args.model.clone()),
        service_tier: args.service_tier,
        valid_from: moment("--from", args.from.as_ref())?,
        valid_to: moment("--to", args.to.as_ref())?,
        rates,
        tiers: tiers(args.above, rates),
        per_request: rate(args.per_request),
        source: args.source,
        ..CostConfig::new(args.provider, args.model)
    };
    // A price that breaks a rule is a wrong call, and makes no store.
    price.validate().map_err(|error| Failure::usage(error.chain()))?;
    let engine = context.open_or_create().await?;
    let price = engine.prices().set(price).await?;
    if context.json() {
        return output::document(&flat(&price));
    }
    // What was closed or replaced is told too.
    let all = engine.prices().list().await?;
    let same = |a: &Label, b: &Label| a.eq_ignore_ascii_case(b);
    let of_model = all.iter().filter(|of| {
        of.origin == price.origin
            && same(&of.provider, &price.provider)
            && same(&of.model, &price.model)
    });
    heading(format_args!("{}/{}", price.provider, price.model))?;
    history(&of_model.collect::<Vec<_>>())
}
