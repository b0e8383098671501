//! How answers came about, and what they cannot say.
//! Invariant: an answer that leaves something out says so itself; how it was found is only kept for
//! those who ask.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use super::Analytics;
use crate::aggregate::{Aggregate, AggregateQuery, Reading};
use crate::time::Timestamp;

/// What an answer cannot say, because records were pruned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Gaps {
    /// Whether the range or a bucket begins or ends inside a quarter of an hour whose records were
    /// pruned: of those, each counts at the start of its quarter.
    pub rounded: bool,
    /// The records before this moment were pruned and are missing.
    pub missing_before: Option<Timestamp>,
}

impl Gaps {
    /// What an answer made of these parts cannot say.
    pub(super) fn of<const N: usize>(parts: [&Aggregate; N]) -> Self {
        Self {
            rounded: parts.iter().any(|part| part.reading.rounded),
            missing_before: parts.iter().filter_map(|part| part.reading.missing_before).max(),
        }
    }
}

/// A question to the store, and how its answer came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Explained {
    /// What the store was asked.
    pub query: AggregateQuery,
    /// What it read for the answer.
    pub reading: Reading,
}

/// Keeps how the answers of an [`Analytics`] came about: see [`Analytics::explained`]. Cloning it
/// clones the handle.
#[derive(Debug, Clone, Default)]
pub struct Explanation(Arc<Mutex<Vec<Explained>>>);

impl Explanation {
    /// The questions to the store since this was called last, in order.
    pub fn take(&self) -> Vec<Explained> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn add(&self, query: &AggregateQuery, reading: &Reading) {
        let explained = Explained { query: query.clone(), reading: reading.clone() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(explained);
    }
}

impl Analytics {
    /// The same, and an explanation that keeps every question that it asks the store.
    ///
    /// # Example: what statistics read
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use std::sync::Arc;
    /// # use prompt_engine_core::{Analytics, MemoryStore, StatsQuery};
    /// let (analytics, explanation) = Analytics::new(Arc::new(MemoryStore::new())).explained();
    /// analytics.usage_stats(&StatsQuery::default()).await?;
    /// let asked = explanation.take();
    /// assert_eq!(asked.len(), 2); // by environment, and by model
    /// assert_eq!(asked[0].reading.cube, None); // the store in memory counts its records
    /// # Ok::<(), prompt_engine_core::Error>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn explained(mut self) -> (Self, Explanation) {
        let explanation = self.explanation.get_or_insert_default().clone();
        (self, explanation)
    }
}
