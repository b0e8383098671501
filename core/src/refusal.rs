//! What every store says when the contract refuses something: one sentence each, so that stores
//! behave alike in their words, too. Stores of others may use them.

use std::fmt::Display;

use crate::error::{Error, Result};
use crate::id::PromptId;
use crate::money::Usd;
use crate::prompt::Prompt;
use crate::record::Record;
use crate::slug::Slug;
use crate::time::Timestamp;

/// A record (`usage 0192…`) is stored with another start time, attribution, usage or asked model.
pub fn stored_with_another(record: impl Display, what: &str) -> Error {
    Error::conflict(format!("{record} is stored with another {what}"))
}

/// A record started before the raw horizon.
pub fn before_horizon(record: &Record, horizon: Timestamp) -> Error {
    let (name, at) = (record.name(), record.created_at());
    Error::invalid(format!("{name} started at {at}, before the raw horizon {horizon}"))
}

/// A cost is more than a row can hold.
pub fn cost_too_large(usd: Usd) -> Error {
    Error::invalid(format!("the cost of {usd} USD is beyond 9.2 million dollars"))
}

/// The id of a new prompt is taken.
pub fn prompt_id_taken(id: PromptId) -> Error {
    Error::conflict(format!("the prompt id {id} is taken"))
}

/// The slug of a new prompt is taken.
pub fn slug_taken(slug: &Slug) -> Error {
    Error::conflict(format!("the slug {slug} is taken"))
}

/// There is no prompt of that id.
pub fn no_prompt(id: PromptId) -> Error {
    Error::not_found(format!("there is no prompt {id}"))
}

/// Refuses a change of the prompt `slug` to `prompt`, unless that is the revision behind `stored`, the
/// one that it has.
pub fn unless_next(prompt: &Prompt, slug: impl Display, stored: u64) -> Result<()> {
    if stored.checked_add(1) == Some(prompt.revision) {
        return Ok(());
    }
    Err(Error::conflict(format!(
        "the prompt {slug} was changed by somebody else: it has revision {stored}"
    )))
}

/// A version of that number exists, or comes twice with a new prompt.
pub fn version_exists(slug: impl Display, number: u32) -> Error {
    Error::conflict(format!("version {number} of the prompt {slug} exists"))
}

/// Prices have another generation than the one that the change names.
pub fn prices_changed(generation: u64, expected: u64) -> Error {
    Error::conflict(format!(
        "somebody else changed prices: generation {generation} is not {expected}"
    ))
}
