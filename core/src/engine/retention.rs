//! Deleting what is older than somebody wants to keep it: texts and records, each by their own age.
//! Invariants: it is deleted in bounded batches, oldest first, so that others can write between them;
//! what cubes hold stays, so sums of the past are still answered. A run that was cut short is taken
//! up by running it again.

use std::time::Duration;

use super::Engine;
use crate::aggregate::{AggregateQuery, Detail, Source};
use crate::cube::horizon_of;
use crate::error::{Error, Result};
use crate::store::Prune;
use crate::time::{TimeRange, Timestamp};

/// Payloads, usages and executions that are deleted in one transaction, at most, of each.
const BATCH: u32 = 2_000;

/// How long things are kept; what is `None` is kept for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Messages, answers, rendered texts, parameters and metadata.
    pub payloads: Option<Duration>,
    /// Usages and executions, with their payloads.
    pub raw: Option<Duration>,
}

/// What is to be deleted, before two moments that are settled when it is made. Get it from
/// [`Engine::retain`](crate::Engine::retain).
///
/// # Example: texts for 30 days, calls for half a year
/// ```
/// use std::{sync::Arc, time::Duration};
/// use prompt_engine_core::{Engine, MemoryStore, Retention};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let engine = Engine::builder().build(Arc::new(MemoryStore::default())).await?;
/// let day = Duration::from_secs(86_400);
/// let old = engine.retain(Retention { payloads: Some(30 * day), raw: Some(180 * day) })?;
/// assert_eq!(old.preview().await?.executions, 0);
/// assert_eq!(old.apply().await?.payloads, 0);
/// # Ok::<(), prompt_engine_core::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is deleted until it is applied"]
pub struct Expired {
    engine: Engine,
    payloads_before: Option<Timestamp>,
    raw_before: Option<Timestamp>,
}

/// What would be deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PrunePreview {
    /// Usages, with their payloads.
    pub usages: u64,
    /// Executions, with their payloads.
    pub executions: u64,
    /// Payloads of records that stay, at most: so many records are old enough, of which some may
    /// never have had one, or have it no more. Only reading them all would tell.
    pub payloads_at_most: u64,
}

/// What has been deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PruneProgress {
    /// Usages, with their payloads.
    pub usages: u64,
    /// Executions, with their payloads.
    pub executions: u64,
    /// Payloads of records that stay.
    pub payloads: u64,
}

impl Expired {
    pub(super) fn new(engine: Engine, retention: Retention) -> Result<Self> {
        let now = Timestamp::now();
        let moment = |what: &str, span: Option<Duration>| match span {
            None => Ok(None),
            Some(Duration::ZERO) => {
                Err(Error::invalid(format!("{what} cannot be kept for no time at all")))
            }
            Some(span) => now.checked_sub(span).map(Some).ok_or_else(|| {
                Error::invalid(format!("{what} cannot be kept from before the year 0001"))
            }),
        };
        let payloads_before = moment("texts", retention.payloads)?;
        let raw_before = moment("records", retention.raw)?.map(horizon_of);
        if payloads_before.is_none() && raw_before.is_none() {
            return Err(Error::invalid("say how long to keep texts, records or both"));
        }
        Ok(Self { engine, payloads_before, raw_before })
    }

    /// The moment before which payloads are deleted.
    pub fn payloads_before(&self) -> Option<Timestamp> {
        self.payloads_before
    }

    /// The moment before which records are deleted: the start of a quarter of an hour.
    pub fn raw_before(&self) -> Option<Timestamp> {
        self.raw_before
    }

    /// What would be deleted: at most two counts. Nothing is.
    pub async fn preview(&self) -> Result<PrunePreview> {
        let mut preview = PrunePreview::default();
        if let Some(before) = self.raw_before {
            (preview.usages, preview.executions) = self.count(None, before).await?;
        }
        if let Some(before) = self.texts_before() {
            let (usages, executions) = self.count(self.raw_before, before).await?;
            preview.payloads_at_most = usages + executions;
        }
        Ok(preview)
    }

    /// The stored usages and executions of a stretch of time.
    async fn count(&self, from: Option<Timestamp>, to: Timestamp) -> Result<(u64, u64)> {
        let query = AggregateQuery {
            range: TimeRange::new(from, Some(to))?,
            detail: Detail::Sums,
            source: Source::Records,
            ..AggregateQuery::default()
        };
        let rows = self.engine.store().aggregate(&query).await?.rows;
        let sum = |(usages, executions), row: &crate::aggregate::AggregateRow| {
            let measures = &row.measures;
            (usages + measures.uses.unwrap_or(0), executions + measures.executions())
        };
        Ok(rows.iter().fold((0, 0), sum))
    }

    /// Deletes it, and says what was deleted. redb keeps the room for what comes, until
    /// [`compact`](crate::RecordStore::compact).
    pub async fn apply(&self) -> Result<PruneProgress> {
        self.apply_with(|_| {}).await
    }

    /// Deletes it, and tells `seen` after each batch what has been deleted so far.
    pub async fn apply_with(
        &self,
        mut seen: impl FnMut(&PruneProgress) + Send,
    ) -> Result<PruneProgress> {
        // Records first: texts that go with them need not go on their own before.
        let raw = Prune { raw_before: self.raw_before, payloads_before: None, limit: BATCH };
        let payloads = Prune { raw_before: None, payloads_before: self.texts_before(), ..raw };
        let mut deleted = PruneProgress::default();
        for prune in [raw, payloads] {
            if prune.raw_before.is_none() && prune.payloads_before.is_none() {
                continue;
            }
            loop {
                let batch = self.engine.store().prune(&prune).await?;
                deleted.usages += batch.usages;
                deleted.executions += batch.executions;
                deleted.payloads += batch.payloads;
                seen(&deleted);
                if batch.done {
                    break;
                }
            }
        }
        Ok(deleted)
    }

    /// The moment before which payloads are deleted on their own, where not all go with their records.
    fn texts_before(&self) -> Option<Timestamp> {
        self.payloads_before.filter(|before| self.raw_before.is_none_or(|raw| raw < *before))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::id::{ExecutionId, PromptId, UsageId};
    use crate::memory::MemoryStore;
    use crate::record::{Attribution, ExecutionPayload, LlmExecution, Record, Usage, UsagePayload};
    use crate::store::RecordStore;

    const DAY: Duration = Duration::from_secs(86_400);

    /// A usage and its call of so many days ago, both with a payload.
    fn call(days: u32) -> [Record; 2] {
        let environment = "test".parse().unwrap();
        let prompt = PromptId::new();
        let attribution =
            Attribution { prompt, version: 1, environment, session: None, user: None };
        let (id, created_at) = (UsageId::new(), Timestamp::now().saturating_sub(days * DAY));
        let (provider, model) = ("openai".parse().unwrap(), "small".parse().unwrap());
        let of = attribution.clone();
        let mut call =
            LlmExecution::pending(ExecutionId::new(), id, of, provider, model, created_at);
        call.payload = Some(Arc::new(ExecutionPayload::default()));
        let payload = Some(Arc::new(UsagePayload::default()));
        [Usage { id, attribution, created_at, payload }.into(), call.into()]
    }

    async fn engine(days: impl IntoIterator<Item = u32>) -> (Engine, Arc<MemoryStore>) {
        let store = Arc::new(MemoryStore::new());
        let records: Vec<Record> = days.into_iter().flat_map(call).collect();
        store.append(&records).await.unwrap();
        let same: Arc<MemoryStore> = Arc::clone(&store);
        (Engine::builder().build(same).await.unwrap(), store)
    }

    #[tokio::test]
    async fn texts_and_records_go_by_their_own_age_and_a_preview_deletes_nothing() {
        let (engine, store) = engine([1, 40, 50, 200, 300, 400]).await;
        let kept = Retention { payloads: Some(30 * DAY), raw: Some(180 * DAY) };
        let old = engine.retain(kept).unwrap();
        let preview = old.preview().await.unwrap();
        let expected = PrunePreview { usages: 3, executions: 3, payloads_at_most: 4 };
        assert_eq!(preview, expected);
        assert_eq!(old.preview().await.unwrap(), expected);
        assert_eq!(store.raw_horizon().await.unwrap(), None);
        let mut steps = 0;
        let deleted = old.apply_with(|_| steps += 1).await.unwrap();
        assert_eq!((deleted.usages, deleted.executions, deleted.payloads), (3, 3, 4));
        assert_eq!(steps, 2);
        let horizon = store.raw_horizon().await.unwrap().unwrap();
        assert!(horizon <= old.raw_before().unwrap());
        // What is left has no texts to count exactly: an upper bound, and it says so.
        let left = PrunePreview { payloads_at_most: 4, ..PrunePreview::default() };
        assert_eq!(old.preview().await.unwrap(), left);
        assert_eq!(old.apply().await.unwrap(), PruneProgress::default());
    }

    #[tokio::test]
    async fn more_than_a_batch_is_deleted_batch_by_batch() {
        let many = BATCH * 2 + 1;
        let (engine, _) = engine((0..many).map(|_| 2)).await;
        let old = engine.retain(Retention { payloads: None, raw: Some(DAY) }).unwrap();
        let mut seen = Vec::new();
        let deleted = old.apply_with(|so_far| seen.push(so_far.usages)).await.unwrap();
        let batch = u64::from(BATCH);
        assert_eq!(seen, [batch, 2 * batch, 2 * batch + 1]);
        assert_eq!((deleted.usages, deleted.executions), (u64::from(many), u64::from(many)));
    }

    #[tokio::test]
    async fn texts_that_go_with_their_records_are_counted_once() {
        let (engine, _) = engine([1, 40, 50]).await;
        let kept = Retention { payloads: Some(45 * DAY), raw: Some(30 * DAY) };
        let preview = engine.retain(kept).unwrap().preview().await.unwrap();
        assert_eq!(preview, PrunePreview { usages: 2, executions: 2, payloads_at_most: 0 });
    }

    #[tokio::test]
    async fn records_go_before_the_start_of_a_quarter_of_an_hour() {
        let (engine, _) = engine([]).await;
        let old = engine.retain(Retention { payloads: None, raw: Some(DAY) }).unwrap();
        let micros = old.raw_before().unwrap().as_micros();
        assert_eq!(micros.rem_euclid(900_000_000), 0);
        assert_eq!(old.payloads_before(), None);
    }

    #[tokio::test]
    async fn a_time_to_keep_that_makes_no_sense_is_refused() {
        let (engine, _) = engine([]).await;
        let refused =
            |payloads, raw| engine.retain(Retention { payloads, raw }).unwrap_err().to_string();
        assert!(refused(None, None).contains("how long"));
        assert!(refused(Some(Duration::ZERO), None).contains("texts"));
        assert!(refused(None, Some(Duration::ZERO)).contains("records"));
        assert!(refused(None, Some(Duration::MAX)).contains("year 0001"));
    }
}
