//! Prices: few rows, read as a whole and changed as a whole.
//! Invariant: the generation moves in the transaction that changes a price, and only there.

use prompt_engine_core::{
    CostConfig, CostConfigId, CostStore, Label, ModelRule, PriceList, PriceOrigin, Result,
    Timestamp, refusal,
};
use rusqlite::{Connection, Row, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Fault, Outcome};
use crate::rows::{moment, optional, text};
use crate::schema::{meta, set_meta};
use crate::store::SqliteStore;

const GENERATION: &str = "price_generation";
/// Codes of `rule`: the model equals `model`, starts with it, or is as `match_rule` says.
const EQUALS: u8 = 0;
const STARTS_WITH: u8 = 1;
const OTHER: u8 = 2;

#[async_trait::async_trait]
impl CostStore for SqliteStore {
    async fn cost_configs(&self) -> Result<PriceList> {
        self.read(|_, conn| {
            Ok(PriceList { generation: generation(conn)?, configs: configs(conn)? })
        })
        .await
    }

    async fn price_generation(&self) -> Result<u64> {
        self.read(|_, conn| generation(conn)).await
    }

    async fn put_cost_configs(&self, new: &[CostConfig], expected: u64) -> Result<()> {
        let new = new.to_vec();
        self.write(move |_, conn| put(conn, &new, expected), |_, _, ()| Ok(())).await
    }
}

fn generation(conn: &Connection) -> Outcome<u64> {
    Ok(meta(conn, GENERATION)?.unwrap_or(0).cast_unsigned())
}

fn configs(conn: &Connection) -> Outcome<Vec<CostConfig>> {
    let mut select = conn.prepare_cached(
        "SELECT id, origin, provider, rule, model, service_tier, valid_from, valid_to, rates,
                per_request, source, match_rule, tiers, windows, replaced_at
         FROM prompt_engine_cost_configs ORDER BY id",
    )?;
    let mut rows = select.query([])?;
    let mut configs = Vec::new();
    while let Some(row) = rows.next()? {
        configs.push(config(row)?);
    }
    Ok(configs)
}

fn config(row: &Row<'_>) -> Outcome<CostConfig> {
    let wrong = |what: String| Fault::Row(format!("a price: {what}"));
    let label = |column: usize| -> Outcome<Label> {
        text(row.get_ref(column)?)?.ok_or_else(|| wrong("a text is missing".to_owned()))
    };
    let origin: u8 = row.get(1)?;
    let per_request: Option<String> = row.get(9)?;
    let model = label(4)?;
    Ok(CostConfig {
        id: CostConfigId::from_bytes(row.get(0)?),
        origin: PriceOrigin::from_code(origin)
            .ok_or_else(|| wrong(format!("{origin} is no origin")))?,
        provider: label(2)?,
        rule: match row.get(3)? {
            EQUALS => ModelRule::Equals(model.clone()),
            STARTS_WITH => ModelRule::StartsWith(model.clone()),
            OTHER => json(row, 11)?.ok_or_else(|| wrong("its rule is missing".to_owned()))?,
            rule => return Err(wrong(format!("{rule} is no rule"))),
        },
        model,
        service_tier: text(row.get_ref(5)?)?,
        valid_from: optional(row.get(6)?, moment)?,
        valid_to: optional(row.get(7)?, moment)?,
        replaced_at: optional(row.get(14)?, moment)?,
        rates: json(row, 8)?.unwrap_or_default(),
        tiers: json(row, 12)?.unwrap_or_default(),
        windows: json(row, 13)?.unwrap_or_default(),
        per_request: optional(per_request, |text| {
            text.parse().map_err(|_| wrong(format!("{text:?} is no rate")))
        })?,
        source: row.get(10)?,
    })
}

/// What the JSON in a column says, where there is any.
fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Outcome<Option<T>> {
    let text = row.get_ref(column)?.as_str_or_null().map_err(|e| Fault::Row(e.to_string()))?;
    optional(text, |text| {
        serde_json::from_str(text).map_err(|error| Fault::Row(format!("a price: {error}")))
    })
}

/// The JSON of a list; none for an empty one, as most are.
fn list<T: Serialize>(items: &[T]) -> Outcome<Option<String>> {
    if items.is_empty() { Ok(None) } else { json_of(items).map(Some) }
}

fn json_of<T: Serialize + ?Sized>(value: &T) -> Outcome<String> {
    serde_json::to_string(value).map_err(|error| Fault::Row(format!("a price: {error}")))
}

fn put(conn: &Connection, new: &[CostConfig], expected: u64) -> Outcome<()> {
    let generation = generation(conn)?;
    if generation != expected {
        return Err(Fault::Judged(refusal::prices_changed(generation, expected)));
    }
    let mut upsert = conn.prepare_cached(
        "INSERT OR REPLACE INTO prompt_engine_cost_configs
             (id, origin, provider, rule, model, service_tier, valid_from, valid_to, rates,
              per_request, source, match_rule, tiers, windows, replaced_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    for config in new {
        config.validate()?;
        let (rule, match_rule) = match &config.rule {
            ModelRule::Equals(name) if *name == config.model => (EQUALS, None),
            ModelRule::StartsWith(start) if *start == config.model => (STARTS_WITH, None),
            rule => (OTHER, Some(json_of(rule)?)),
        };
        upsert.execute(params![
            config.id.to_bytes(),
            config.origin.code(),
            config.provider.as_str(),
            rule,
            config.model.as_str(),
            config.service_tier.as_deref(),
            config.valid_from.map(Timestamp::as_micros),
            config.valid_to.map(Timestamp::as_micros),
            json_of(&config.rates)?,
            config.per_request.map(|rate| rate.to_string()),
            config.source,
            match_rule,
            list(&config.tiers)?,
            list(&config.windows)?,
            config.replaced_at.map(Timestamp::as_micros),
        ])?;
    }
    CostConfig::check_overlaps(&configs(conn)?)?;
    set_meta(conn, GENERATION, generation.saturating_add(1).cast_signed())
}
