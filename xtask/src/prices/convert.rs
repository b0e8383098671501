//! From the source's rows, tiers and variants to prices that hold from a date on.
//! Invariant: for every moment and size of input the converted price has the rates that the
//! source's own rules pick; see docs/price-data.md.

use std::collections::{BTreeMap, BTreeSet};

use rust_decimal::{Decimal, RoundingStrategy};
use serde::Serialize;
use serde_json::{Value, json};

use super::source::{Constraint, Export, Model, Price, Prices, Provider};
use super::{HOME, LICENCE};

/// Decimals that a rate may have.
const DECIMALS: u32 = 9;

/// The data file, and what became of the source.
#[derive(Debug, Default)]
pub(super) struct Converted {
    pub(super) text: String,
    pub(super) providers: usize,
    pub(super) models: usize,
    pub(super) prices: usize,
    pub(super) left_out: BTreeMap<String, usize>,
}

#[derive(Serialize)]
struct ProviderLine {
    provider: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    aliases: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fallback: Vec<String>,
}

#[derive(Serialize)]
struct ModelLine {
    of: String,
    model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deprecated: Option<bool>,
    prices: Vec<PriceLine>,
}

#[derive(Debug, Serialize)]
struct PriceLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(flatten)]
    charges: Charges,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    daily: Vec<Window>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct Charges {
    rates: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    per_request: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    above: Vec<Above>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Above {
    tokens: u64,
    rates: BTreeMap<&'static str, String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Window {
    from: String,
    to: String,
    #[serde(flatten)]
    charges: Charges,
}

/// Converts `export`; `old` are the lines of the file that is there.
pub(super) fn convert(
    export: Export,
    source: &str,
    date: &str,
    old: &[Value],
) -> Result<Converted, String> {
    let mut done = Converted::default();
    let header =
        json!({"date": date, "home": HOME, "licence": LICENCE, "prices": 1, "source": source});
    let mut lines = vec![header.to_string()];
    for provider in &export.providers {
        lines.push(line(&provider_line(provider, old)?)?);
        done.providers += 1;
    }
    for Provider { id, models, .. } in export.providers {
        for model in models {
            let name = model.id.clone();
            let converted = model_line(&id, model, &mut done.left_out);
            let converted = converted.map_err(|why| format!("{id}/{name}: {why}"))?;
            done.models += 1;
            done.prices += converted.prices.len();
            lines.push(line(&converted)?);
        }
    }
    lines.push(String::new());
    done.text = lines.join("\n");
    Ok(done)
}

fn line(value: &impl Serialize) -> Result<String, String> {
    serde_json::to_string(value).map_err(|error| error.to_string())
}

fn provider_line(of: &Provider, old: &[Value]) -> Result<ProviderLine, String> {
    let known = old.iter().find(|line| line["provider"] == of.id.as_str());
    let known_fallback = || {
        let names = known.and_then(|line| line["fallback"].as_array());
        names.into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
    };
    let (aliases, fallback) = match (&of.provider_match, &of.fallback_model_providers) {
        (None, None) => {
            let aliases = known.map(|line| line["aliases"].clone()).filter(|rule| !rule.is_null());
            (aliases, known_fallback())
        }
        (aliases, fallback) => {
            (aliases.as_ref().map(rule).transpose()?, fallback.clone().unwrap_or_default())
        }
    };
    Ok(ProviderLine { provider: of.id.clone(), name: of.name.clone(), aliases, fallback })
}

/// A rule of the source in our words.
fn rule(of: &Value) -> Result<Value, String> {
    let strange = || format!("{of} is no rule");
    let (name, value) = of.as_object().and_then(|rule| rule.iter().next()).ok_or_else(strange)?;
    let rules = |name: &str| -> Result<Value, String> {
        let parts = value.as_array().ok_or_else(strange)?;
        Ok(json!({ name: parts.iter().map(rule).collect::<Result<Vec<_>, _>>()? }))
    };
    match name.as_str() {
        "or" => rules("any"),
        "and" => rules("all"),
        "regex" => {
            let pattern = value.as_str().ok_or_else(strange)?;
            // Nothing but "has no X" is said with a look-ahead.
            match pattern.strip_prefix("^(?!.*").and_then(|rest| rest.strip_suffix(')')) {
                Some(inner) => Ok(json!({"not": {"regex": inner}})),
                None if ["(?!", "(?=", "(?<"].iter().any(|look| pattern.contains(look)) => {
                    Err(format!("the pattern {pattern:?} looks around"))
                }
                None => Ok(json!({"regex": pattern})),
            }
        }
        "equals" | "starts_with" | "ends_with" | "contains" => Ok(of.clone()),
        _ => Err(strange()),
    }
}

fn model_line(
    provider: &str,
    model: Model,
    left_out: &mut BTreeMap<String, usize>,
) -> Result<ModelLine, String> {
    let mut prices = standard(&model, left_out)?;
    prices.extend(tiers(&model, left_out)?);
    let by_name = json!({"equals": model.id});
    let rule = Some(rule(&model.rule)?).filter(|rule| *rule != by_name);
    Ok(ModelLine {
        of: provider.to_owned(),
        name: model.name.filter(|name| *name != model.id),
        model: model.id,
        rule,
        context: model.context_window,
        deprecated: model.deprecated.filter(|deprecated| *deprecated),
        prices,
    })
}

/// The standard price from each of its dates on.
fn standard(
    model: &Model,
    left_out: &mut BTreeMap<String, usize>,
) -> Result<Vec<PriceLine>, String> {
    let mut lines = Vec::new();
    let daily = windows(model, left_out)?;
    for from in dates(model.prices.iter().map(|row| &row.constraint)) {
        let prices = in_force(model, from.as_deref());
        let charges = charges(&model.id, prices, left_out)?;
        push(&mut lines, PriceLine { tier: None, from, charges, daily: daily.clone() });
    }
    Ok(lines)
}

/// The windows of the day, in the order in which the source tries them.
fn windows(model: &Model, left_out: &mut BTreeMap<String, usize>) -> Result<Vec<Window>, String> {
    let mut windows = Vec::new();
    for row in model.prices.iter().rev() {
        if let Some(Constraint::Daily { start_time, end_time }) = &row.constraint {
            let charges = charges(&model.id, &row.prices, left_out)?;
            if charges.per_request.is_some() {
                return Err("a window of the day has a price per request".to_owned());
            }
            windows.push(Window { from: minute(start_time)?, to: minute(end_time)?, charges });
        }
    }
    Ok(windows)
}

/// The prices of each tier that is not the standard one.
fn tiers(model: &Model, left_out: &mut BTreeMap<String, usize>) -> Result<Vec<PriceLine>, String> {
    let mut tiers: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for variant in &model.price_variants {
        let when: Vec<(&str, &str)> =
            variant.when.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        match when.as_slice() {
            [("service_tier", "default")] if variant.prices.is_empty() => {}
            [("processing" | "service_tier" | "speed", tier)] => {
                tiers.entry((*tier).to_owned()).or_default().push(variant);
            }
            _ => *left_out.entry(format!("a price by {when:?}")).or_default() += 1,
        }
    }
    let mut lines = Vec::new();
    for (tier, variants) in tiers {
        if model.prices.iter().any(|row| matches!(row.constraint, Some(Constraint::Daily { .. }))) {
            return Err("it has both windows of the day and tiers".to_owned());
        }
        let mut of_tier = Vec::new();
        let standard_dates = model.prices.iter().map(|row| &row.constraint);
        for from in dates(standard_dates.chain(variants.iter().map(|of| &of.constraint))) {
            let active: Vec<_> =
                variants.iter().filter(|of| holds(&of.constraint, from.as_deref())).collect();
            if active.is_empty() {
                continue;
            }
            let mut prices = in_force(model, from.as_deref()).clone();
            // The first variant that names a rate wins, so it is written last.
            for variant in active.iter().rev() {
                prices.extend(variant.prices.clone());
            }
            let charges = charges(&model.id, &prices, left_out)?;
            let tier = Some(tier.clone());
            push(&mut of_tier, PriceLine { tier, from, charges, daily: Vec::new() });
        }
        lines.extend(of_tier);
    }
    Ok(lines)
}

/// Adds a price unless the one before it says the same.
fn push(lines: &mut Vec<PriceLine>, line: PriceLine) {
    let same = lines.last().is_some_and(|last| {
        last.charges == line.charges && last.daily == line.daily && last.tier == line.tier
    });
    if !same {
        lines.push(line);
    }
}

/// Since ever, and every date at which one of the constraints begins.
fn dates<'a>(
    constraints: impl Iterator<Item = &'a Option<Constraint>>,
) -> BTreeSet<Option<String>> {
    let dated = constraints.filter_map(|constraint| match constraint {
        Some(Constraint::Date { start_date }) => Some(Some(start_date.clone())),
        _ => None,
    });
    dated.chain([None]).collect()
}

/// Whether a constraint by date holds from `date` on.
fn holds(constraint: &Option<Constraint>, date: Option<&str>) -> bool {
    match constraint {
        None => true,
        Some(Constraint::Date { start_date }) => {
            date.is_some_and(|date| date >= start_date.as_str())
        }
        Some(Constraint::Daily { .. }) => false,
    }
}

/// The standard price from `date` on, outside the windows of the day: the last row that holds,
/// and where none does the first.
fn in_force<'a>(model: &'a Model, date: Option<&str>) -> &'a Prices {
    static NONE: Prices = BTreeMap::new();
    let found = model.prices.iter().rev().find(|row| holds(&row.constraint, date));
    found.or(model.prices.first()).map_or(&NONE, |row| &row.prices)
}

/// The rates of ours among `prices`.
fn charges(
    model: &str,
    prices: &Prices,
    left_out: &mut BTreeMap<String, usize>,
) -> Result<Charges, String> {
    if prices.is_empty() && model.ends_with(":free") {
        let nothing = || "0".to_owned();
        let rates = BTreeMap::from([("input", nothing()), ("output", nothing())]);
        return Ok(Charges { rates, ..Charges::default() });
    }
    let mut ours: Vec<(&'static str, &Price)> = Vec::new();
    let mut per_request = None;
    for (unit, price) in prices {
        let name = match unit.as_str() {
            "input_mtok" => "input",
            "output_mtok" => "output",
            "cache_read_mtok" => "cache_read",
            "cache_write_mtok" => "cache_write",
            "cache_write_1h_mtok" => "cache_write_1h",
            "output_reasoning_mtok" => "reasoning",
            "input_audio_mtok" => "audio_input",
            "output_audio_mtok" => "audio_output",
            "requests_kcount" => {
                let Price::Flat(thousand) = price else {
                    return Err("its price per request has tiers".to_owned());
                };
                per_request = Some(amount(decimal(thousand)? / Decimal::ONE_THOUSAND));
                continue;
            }
            _ => {
                *left_out.entry(unit.clone()).or_default() += 1;
                continue;
            }
        };
        ours.push((name, price));
    }
    let rates_above = |tokens: Option<u64>| {
        let rate = |(name, price): &(&'static str, &Price)| {
            Ok((*name, amount(decimal(rate_above(price, tokens))?)))
        };
        ours.iter().map(rate).collect::<Result<BTreeMap<_, _>, String>>()
    };
    let starts: BTreeSet<u64> = ours
        .iter()
        .flat_map(|(_, price)| match price {
            Price::Flat(_) => &[][..],
            Price::Tiered { tiers, .. } => tiers,
        })
        .map(|tier| tier.start)
        .collect();
    let above = starts
        .into_iter()
        .map(|tokens| Ok(Above { tokens, rates: rates_above(Some(tokens))? }))
        .collect::<Result<_, String>>()?;
    Ok(Charges { rates: rates_above(None)?, per_request, above })
}

/// The rate of a call whose input is just above `tokens`.
fn rate_above(price: &Price, tokens: Option<u64>) -> &str {
    match price {
        Price::Flat(rate) => rate,
        Price::Tiered { base, tiers } => tiers
            .iter()
            .filter(|tier| tokens.is_some_and(|tokens| tokens >= tier.start))
            .max_by_key(|tier| tier.start)
            .map_or(base, |tier| &tier.price),
    }
}

fn decimal(text: &str) -> Result<Decimal, String> {
    text.parse().map_err(|_| format!("{text:?} is no amount"))
}

fn amount(exact: Decimal) -> String {
    let strategy = RoundingStrategy::MidpointNearestEven;
    exact.round_dp_with_strategy(DECIMALS, strategy).normalize().to_string()
}

/// `00:30:00+00:00` as `00:30`.
fn minute(time: &str) -> Result<String, String> {
    let utc = time.strip_suffix("+00:00").or(time.strip_suffix('Z'));
    utc.and_then(|time| time.strip_suffix(":00"))
        .filter(|time| time.len() == 5)
        .map(str::to_owned)
        .ok_or_else(|| format!("{time:?} is no whole minute in UTC"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(model: &str) -> Result<Value, String> {
        let export = format!(
            r#"{{"source": "s", "providers": [{{"id": "p", "name": "P", "models": [{model}]}}]}}"#
        );
        let export = serde_json::from_str(&export).unwrap();
        let done = convert(export, "s", "2026-01-01", &[])?;
        Ok(serde_json::from_str(done.text.lines().nth(2).unwrap()).unwrap())
    }

    #[test]
    fn rows_are_tried_last_to_first_and_windows_belong_to_every_date() {
        let line = converted(
            r#"{"id": "m", "match": {"equals": "m"}, "price_variants": [], "prices": [
                {"constraint": null, "prices": {"input_mtok": "1"}},
                {"constraint": {"start_date": "2026-05-01"}, "prices": {"input_mtok": "3"}},
                {"constraint": {"start_date": "2026-03-01"}, "prices": {"input_mtok": "2"}},
                {"constraint": {"start_time": "23:00:00+00:00", "end_time": "01:00:00Z"},
                 "prices": {"input_mtok": "9"}}]}"#,
        );
        let window = json!([{"from": "23:00", "to": "01:00", "rates": {"input": "9"}}]);
        // From May on the row of March comes last, and holds still.
        let expected = json!({"of": "p", "model": "m", "prices": [
            {"rates": {"input": "1"}, "daily": window},
            {"from": "2026-03-01", "rates": {"input": "2"}, "daily": window},
        ]});
        assert_eq!(line.unwrap(), expected);
    }

    #[test]
    fn a_variant_replaces_single_rates_from_its_date_on() {
        let line = converted(
            r#"{"id": "m", "match": {"or": [{"equals": "m"}, {"regex": "^(?!.*-tts)"}]},
                "prices": [{"constraint": null,
                    "prices": {"input_mtok": "2", "cache_read_mtok": "0.2"}}],
                "price_variants": [
                {"when": {"service_tier": "default"}, "prices": {}, "constraint": null},
                {"when": {"processing": "batch"}, "prices": {"input_mtok": "1"},
                 "constraint": {"start_date": "2026-10-14"}},
                {"when": {"route": "eu"}, "prices": {"input_mtok": "7"}, "constraint": null}]}"#,
        );
        let expected = json!({"of": "p", "model": "m",
        "rule": {"any": [{"equals": "m"}, {"not": {"regex": "-tts"}}]}, "prices": [
            {"rates": {"input": "2", "cache_read": "0.2"}},
            {"tier": "batch", "from": "2026-10-14", "rates": {"input": "1", "cache_read": "0.2"}},
        ]});
        assert_eq!(line.unwrap(), expected);
    }

    #[test]
    fn a_larger_input_has_the_rates_of_the_highest_tier_below_it() {
        let line = converted(
            r#"{"id": "m", "match": {"equals": "m"}, "price_variants": [], "prices": [
                {"constraint": null, "prices": {
                    "input_mtok": {"base": "0.18000000000000002",
                                   "tiers": [{"start": 10, "price": "2"}, {"start": 30, "price": "3"}]},
                    "output_mtok": {"base": "4", "tiers": [{"start": 20, "price": "5"}]},
                    "requests_kcount": "5", "web_searches_kcount": "10"}}]}"#,
        );
        let expected = json!({"of": "p", "model": "m", "prices": [
            {"rates": {"input": "0.18", "output": "4"}, "per_request": "0.005", "above": [
                {"tokens": 10, "rates": {"input": "2", "output": "4"}},
                {"tokens": 20, "rates": {"input": "2", "output": "5"}},
                {"tokens": 30, "rates": {"input": "3", "output": "5"}},
            ]},
        ]});
        assert_eq!(line.unwrap(), expected);
    }

    #[test]
    fn what_cannot_be_said_is_refused_by_name() {
        let model =
            |rest: &str| converted(&format!(r#"{{"id": "m", {rest}, "price_variants": []}}"#));
        let free = model(
            r#""match": {"equals": "m:free"}, "prices": [{"constraint": null, "prices": {}}]"#,
        );
        assert_eq!(free.unwrap()["prices"], json!([{"rates": {}}]));
        let look = model(r#""match": {"regex": "a(?=b)"}, "prices": []"#);
        assert_eq!(look.unwrap_err(), r#"p/m: the pattern "a(?=b)" looks around"#);
        let rule = model(r#""match": {"like": "m"}, "prices": []"#);
        assert!(rule.unwrap_err().contains("is no rule"));
        let offset = model(
            r#""match": {"equals": "m"}, "prices": [{"prices": {},
                "constraint": {"start_time": "01:00:00+02:00", "end_time": "02:00:00Z"}}]"#,
        );
        assert!(offset.unwrap_err().contains("no whole minute in UTC"));
    }
}
