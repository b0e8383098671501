//! The export of genai-prices as it is written.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
pub(super) struct Export {
    pub(super) source: String,
    pub(super) providers: Vec<Provider>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Provider {
    pub(super) id: String,
    pub(super) name: String,
    /// Absent from published exports, as is the next.
    pub(super) provider_match: Option<Value>,
    pub(super) fallback_model_providers: Option<Vec<String>>,
    pub(super) models: Vec<Model>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Model {
    pub(super) id: String,
    pub(super) name: Option<String>,
    #[serde(rename = "match")]
    pub(super) rule: Value,
    pub(super) context_window: Option<u64>,
    pub(super) deprecated: Option<bool>,
    pub(super) prices: Vec<Row>,
    pub(super) price_variants: Vec<Variant>,
}

/// A price with when it holds.
#[derive(Debug, Deserialize)]
pub(super) struct Row {
    pub(super) constraint: Option<Constraint>,
    pub(super) prices: Prices,
}

/// Rates that replace those of the standard price for some calls.
#[derive(Debug, Deserialize)]
pub(super) struct Variant {
    pub(super) when: BTreeMap<String, String>,
    pub(super) constraint: Option<Constraint>,
    pub(super) prices: Prices,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub(super) enum Constraint {
    Date { start_date: String },
    Daily { start_time: String, end_time: String },
}

/// Amounts by unit: `input_mtok` and so on.
pub(super) type Prices = BTreeMap<String, Price>;

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub(super) enum Price {
    Flat(String),
    Tiered { base: String, tiers: Vec<Tier> },
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Tier {
    pub(super) start: u64,
    pub(super) price: String,
}
