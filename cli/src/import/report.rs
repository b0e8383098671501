//! What an import did, as it is said at its end, also where it stopped on its way.

use std::collections::BTreeMap;

use prompt_engine::{Label, LlmExecution, Timestamp, UnpricedReason};
use serde::Serialize;

use super::source::Refusal;
use crate::failure::Failure;
use crate::output::{document, excerpt, note, printable, say};
use crate::table::{count, moment, number};

/// Models without a price that the summary names.
const NAMED_MODELS: usize = 5;

/// What an import did.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) file: String,
    /// Lines with anything on them, but the header.
    pub(super) read: u64,
    pub(super) stored: u64,
    pub(super) already_there: u64,
    pub(super) refused: u64,
    /// Lines from before the raw horizon, which are left out.
    pub(super) before_horizon: u64,
    pub(super) raw_horizon: Option<Timestamp>,
    /// Of the other lines that were not refused, stored now or before: how many have a price.
    priced: u64,
    unpriced: u64,
    /// The earliest and the latest moment of those lines.
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    unpriced_models: Vec<UnpricedModel>,
    pub(super) prompts_created: Vec<String>,
    pub(super) columns_never_seen: Vec<String>,
    /// Those that no field is mapped to.
    pub(super) columns_left_out: Vec<String>,
    pub(super) refusals: Vec<Refusal>,
    #[serde(skip)]
    reasons: BTreeMap<(Label, Label, &'static str), u64>,
}

#[derive(Debug, Serialize)]
struct UnpricedModel {
    provider: Label,
    model: Label,
    reason: &'static str,
    rows: u64,
}

impl Report {
    /// Nothing done yet with `file`, into a store of this horizon.
    pub(super) fn new(file: String, raw_horizon: Option<Timestamp>) -> Self {
        Self { file, raw_horizon, ..Self::default() }
    }

    /// Notes a call of a line that was not refused.
    pub(super) fn note(&mut self, execution: &LlmExecution) {
        let at = execution.created_at;
        self.first = Some(self.first.map_or(at, |first| first.min(at)));
        self.last = Some(self.last.map_or(at, |last| last.max(at)));
        match execution.cost.and_then(|cost| cost.reason()) {
            None => self.priced += 1,
            Some(reason) => {
                self.unpriced += 1;
                let key = (execution.provider.clone(), execution.model.clone(), reason.as_str());
                *self.reasons.entry(key).or_insert(0) += 1;
            }
        }
    }

    /// Prints it, for people or as one JSON document.
    pub(super) fn print(&mut self, json: bool) -> Result<(), Failure> {
        let reasons = std::mem::take(&mut self.reasons);
        self.unpriced_models = reasons
            .into_iter()
            .map(|((provider, model, reason), rows)| UnpricedModel {
                provider,
                model,
                reason,
                rows,
            })
            .collect();
        if json {
            return document(self);
        }
        say(format_args!(
            "{}: {} read, {} stored, {} already there, {} refused",
            printable(&self.file),
            number(self.read),
            number(self.stored),
            number(self.already_there),
            number(self.refused)
        ))?;
        if let (Some(first), Some(last)) = (self.first, self.last) {
            say(format_args!("from {first} to {last}"))?;
            say(format_args!(
                "{} priced, {} unpriced",
                number(self.priced),
                number(self.unpriced)
            ))?;
        }
        for line in self.unpriced_models.iter().take(NAMED_MODELS) {
            let UnpricedModel { provider, model, reason, rows } = line;
            let why = match *reason {
                reason if reason == UnpricedReason::UnknownModel.as_str() => "no price is known",
                reason if reason == UnpricedReason::NoUsage.as_str() => "no tokens are given",
                other => other,
            };
            let model = format!("{provider}/{model}");
            say(format_args!("  {}: {why} ({})", printable(&model), count(*rows, "row")))?;
        }
        if let Some(more) = self.unpriced_models.len().checked_sub(NAMED_MODELS).filter(|n| *n > 0)
        {
            say(format_args!("  and {more} more models without a price"))?;
        }
        if !self.prompts_created.is_empty() {
            say(format_args!("prompts created: {}", self.prompts_created.join(", ")))?;
        }
        if let (Some(before), 1..) = (self.raw_horizon, self.before_horizon) {
            let before = moment(before);
            let rows = count(self.before_horizon, "row");
            note(format_args!(
                "{rows} left out: from before {before}, up to when this store was pruned"
            ));
        }
        if !self.columns_left_out.is_empty() {
            let columns = excerpt(&self.columns_left_out.join(", "), 160);
            note(format_args!("left out: {columns}; --map says which column holds which field"));
        }
        for column in &self.columns_never_seen {
            note(format_args!("no line has {}", printable(column)));
        }
        Ok(())
    }
}
