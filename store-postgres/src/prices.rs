//! Prices: few rows, read as a whole and changed as a whole.
//! Invariant: the generation moves in the transaction that changes a price, and only there; its row
//! is locked from the look at it to the commit.

use std::collections::BTreeMap;

use prompt_engine_core::{
    CostConfig, CostConfigId, CostStore, ModelRule, PriceList, PriceOrigin, Result, refusal,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::postgres::{PgBindIterExt, PgRow};
use sqlx::types::Uuid;
use sqlx::{PgConnection, query, query_scalar};

use crate::error::{Fault, Outcome};
use crate::rows::{code, get, id, label, maybe_label, maybe_moment, optional};
use crate::schema::meta;
use crate::store::{Hold, PostgresStore, Repeat};
use crate::text::{escaped, unescaped};
use crate::wire::Moment;

const GENERATION: &str = "price_generation";
/// Codes of `rule`: the model equals `model`, starts with it, or is as `match_rule` says.
const EQUALS: i16 = 0;
const STARTS_WITH: i16 = 1;
const OTHER: i16 = 2;

const SELECT: &str = "
SELECT id, origin, provider, rule, model, service_tier, valid_from, valid_to, rates::text,
    per_request::text, source, match_rule::text, tiers::text, windows::text, replaced_at
FROM prompt_engine_cost_configs ORDER BY id";

const PUT: &str = "
INSERT INTO prompt_engine_cost_configs
    (id, origin, provider, rule, model, service_tier, valid_from, valid_to, rates, per_request,
     source, match_rule, tiers, windows, replaced_at)
SELECT id, origin, provider, rule, model, service_tier, valid_from, valid_to, rates::json,
    per_request::numeric, source, match_rule::json, tiers::json, windows::json, replaced_at
FROM unnest($1::uuid[], $2::smallint[], $3::text[], $4::smallint[], $5::text[], $6::text[],
    $7::timestamptz[], $8::timestamptz[], $9::text[], $10::text[], $11::text[], $12::text[],
    $13::text[], $14::text[], $15::timestamptz[])
    AS new (id, origin, provider, rule, model, service_tier, valid_from, valid_to, rates,
            per_request, source, match_rule, tiers, windows, replaced_at)
ON CONFLICT (id) DO UPDATE SET
    origin = excluded.origin, provider = excluded.provider, rule = excluded.rule,
    model = excluded.model, service_tier = excluded.service_tier,
    valid_from = excluded.valid_from, valid_to = excluded.valid_to, rates = excluded.rates,
    per_request = excluded.per_request, source = excluded.source,
    match_rule = excluded.match_rule, tiers = excluded.tiers, windows = excluded.windows,
    replaced_at = excluded.replaced_at";

#[async_trait::async_trait]
impl CostStore for PostgresStore {
    async fn cost_configs(&self) -> Result<PriceList> {
        let found = self.snapshot(|mut conn| async move {
            let found = async {
                let generation = generation(meta(&mut conn, GENERATION).await?);
                Ok((generation, query(SELECT).fetch_all(&mut *conn).await?))
            };
            let found = found.await;
            (conn, found)
        });
        let (generation, rows) = found.await?;
        let configs = self.compute(move || rows.iter().map(config).collect()).await?;
        Ok(PriceList { generation, configs })
    }

    async fn price_generation(&self) -> Result<u64> {
        self.read(|mut conn| async move {
            let found = meta(&mut conn, GENERATION).await.map(generation);
            (conn, found)
        })
        .await
    }

    async fn put_cost_configs(&self, new: &[CostConfig], expected: u64) -> Result<()> {
        self.write(Hold::Nothing, Repeat::Uncommitted, |mut conn| async move {
            let done = put(&mut conn, new, expected).await;
            (conn, done)
        })
        .await
    }
}

fn generation(stored: Option<i64>) -> u64 {
    stored.unwrap_or(0).cast_unsigned()
}

fn wrong(what: impl std::fmt::Display) -> Fault {
    Fault::Row(format!("a price: {what}"))
}

fn config(row: &PgRow) -> Outcome<CostConfig> {
    let model = label(row, 4)?;
    let per_request: Option<&str> = get(row, 9)?;
    Ok(CostConfig {
        id: CostConfigId::from_bytes(id(row, 0)?),
        origin: code(row, 1, "origin", PriceOrigin::from_code)?
            .ok_or_else(|| wrong("its origin is missing"))?,
        provider: label(row, 2)?,
        rule: match get(row, 3)? {
            EQUALS => ModelRule::Equals(model.clone()),
            STARTS_WITH => ModelRule::StartsWith(model.clone()),
            OTHER => json(row, 11)?.ok_or_else(|| wrong("its rule is missing"))?,
            rule => return Err(wrong(format!("{rule} is no rule"))),
        },
        model,
        service_tier: maybe_label(row, 5)?,
        valid_from: maybe_moment(row, 6)?,
        valid_to: maybe_moment(row, 7)?,
        replaced_at: maybe_moment(row, 14)?,
        rates: json(row, 8)?.unwrap_or_default(),
        tiers: json(row, 12)?.unwrap_or_default(),
        windows: json(row, 13)?.unwrap_or_default(),
        per_request: optional(per_request, |text| {
            text.parse().map_err(|_| wrong(format!("{text:?} is no rate")))
        })?,
        source: optional(get(row, 10)?, unescaped)?,
    })
}

/// What the JSON in a column says, where there is any.
fn json<T: DeserializeOwned>(row: &PgRow, column: usize) -> Outcome<Option<T>> {
    optional(get::<Option<&str>>(row, column)?, |text| serde_json::from_str(text).map_err(wrong))
}

/// The JSON of a list; none for an empty one, as most are.
fn list<T: Serialize>(items: &[T]) -> Outcome<Option<String>> {
    if items.is_empty() { Ok(None) } else { json_of(items).map(Some) }
}

fn json_of<T: Serialize + ?Sized>(value: &T) -> Outcome<String> {
    serde_json::to_string(value).map_err(wrong)
}

/// What of a price becomes a text of its own.
struct Texts {
    rule: i16,
    match_rule: Option<String>,
    rates: String,
    tiers: Option<String>,
    windows: Option<String>,
    per_request: Option<String>,
}

impl Texts {
    fn of(config: &CostConfig) -> Outcome<Self> {
        let (rule, match_rule) = match &config.rule {
            ModelRule::Equals(name) if *name == config.model => (EQUALS, None),
            ModelRule::StartsWith(start) if *start == config.model => (STARTS_WITH, None),
            rule => (OTHER, Some(json_of(rule)?)),
        };
        Ok(Self {
            rule,
            match_rule,
            rates: json_of(&config.rates)?,
            tiers: list(&config.tiers)?,
            windows: list(&config.windows)?,
            per_request: config.per_request.map(|rate| rate.to_string()),
        })
    }
}

async fn put(conn: &mut PgConnection, new: &[CostConfig], expected: u64) -> Outcome<()> {
    let stored = query_scalar("SELECT value FROM prompt_engine_meta WHERE name = $1 FOR UPDATE")
        .bind(GENERATION)
        .fetch_optional(&mut *conn)
        .await?;
    let generation = generation(stored);
    if generation != expected {
        return Err(Fault::Judged(refusal::prices_changed(generation, expected)));
    }
    new.iter().try_for_each(CostConfig::validate)?;
    // Of two of one id the last counts.
    let new: BTreeMap<CostConfigId, &CostConfig> = new.iter().map(|new| (new.id, new)).collect();
    let rows = query(SELECT).fetch_all(&mut *conn).await?;
    let stored = rows.iter().map(config).collect::<Outcome<Vec<_>>>()?;
    let kept = stored.iter().filter(|config| !new.contains_key(&config.id));
    CostConfig::check_overlaps(kept.chain(new.values().copied()))?;
    insert(conn, &new.into_values().collect::<Vec<_>>()).await?;
    query("UPDATE prompt_engine_meta SET value = $2 WHERE name = $1")
        .bind(GENERATION)
        .bind(generation.saturating_add(1).cast_signed())
        .execute(conn)
        .await?;
    Ok(())
}

async fn insert(conn: &mut PgConnection, new: &[&CostConfig]) -> Outcome<()> {
    let texts = new.iter().map(|config| Texts::of(config)).collect::<Outcome<Vec<_>>>()?;
    let sources: Vec<_> = new.iter().map(|new| new.source.as_deref().map(escaped)).collect();
    query(PUT)
        .bind(new.iter().map(|new| Uuid::from_bytes(new.id.to_bytes())).bind_iter())
        .bind(new.iter().map(|new| i16::from(new.origin.code())).bind_iter())
        .bind(new.iter().map(|new| new.provider.as_str()).bind_iter())
        .bind(texts.iter().map(|texts| texts.rule).bind_iter())
        .bind(new.iter().map(|new| new.model.as_str()).bind_iter())
        .bind(new.iter().map(|new| new.service_tier.as_deref()).bind_iter())
        .bind(new.iter().map(|new| new.valid_from.map(Moment)).bind_iter())
        .bind(new.iter().map(|new| new.valid_to.map(Moment)).bind_iter())
        .bind(texts.iter().map(|texts| texts.rates.as_str()).bind_iter())
        .bind(texts.iter().map(|texts| texts.per_request.as_deref()).bind_iter())
        .bind(sources.iter().map(|source| source.as_deref()).bind_iter())
        .bind(texts.iter().map(|texts| texts.match_rule.as_deref()).bind_iter())
        .bind(texts.iter().map(|texts| texts.tiers.as_deref()).bind_iter())
        .bind(texts.iter().map(|texts| texts.windows.as_deref()).bind_iter())
        .bind(new.iter().map(|new| new.replaced_at.map(Moment)).bind_iter())
        .execute(conn)
        .await?;
    Ok(())
}
