//! A batch of records before it is written: what is to be stored of each id, and its payloads.
//! Invariant: it counts as if its records came one after the other. Rows are sorted by id, so that
//! writers never wait for each other in a circle.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use prompt_engine_core::{
    Attribution, ExecutionPayload, LlmExecution, Record, Timestamp, Usage, UsageId, UsagePayload,
    codec, refusal,
};
use sqlx::types::Uuid;
use tokio::sync::OnceCell;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::error::{Fault, Outcome, joined};

/// Records in the order in which they came, and what is to be stored of them.
pub(crate) struct Batch<'a> {
    pub(crate) records: &'a [Record],
    pub(crate) usages: Vec<&'a Usage>,
    pub(crate) executions: Vec<Whole<'a>>,
}

/// What is to be stored of the records of one call.
pub(crate) struct Whole<'a> {
    pub(crate) call: &'a LlmExecution,
    /// A pending record came before this finished one: where nothing was stored, two records are.
    pub(crate) began: bool,
}

/// Checks `records` and folds those of one id.
pub(crate) fn fold(records: &[Record]) -> Outcome<Batch<'_>> {
    records.iter().try_for_each(Record::validate)?;
    let mut usages: Vec<&Usage> = Vec::new();
    let mut calls: Vec<&LlmExecution> = Vec::new();
    for record in records {
        match record {
            Record::Usage(usage) => usages.push(usage),
            Record::Execution(call) => calls.push(call),
        }
    }
    // Stable: records of one id stay in the order in which they came.
    usages.sort_by_key(|usage| usage.id);
    calls.sort_by_key(|call| call.id);
    let mut batch = Batch { records, usages: Vec::new(), executions: Vec::new() };
    for usage in usages {
        match batch.usages.last() {
            Some(first) if first.id == usage.id => {
                Identity::of_usage(first).check(&Identity::of_usage(usage))?;
            }
            _ => batch.usages.push(usage),
        }
    }
    for call in calls {
        match batch.executions.last_mut() {
            Some(whole) if whole.call.id == call.id => {
                Identity::of_call(whole.call).check(&Identity::of_call(call))?;
                if !whole.call.status.is_final() && call.status.is_final() {
                    *whole = Whole { call, began: true };
                }
            }
            _ => batch.executions.push(Whole { call, began: false }),
        }
    }
    Ok(batch)
}

/// What of a record never changes.
#[derive(Debug)]
pub(crate) struct Identity<'a> {
    pub(crate) id: Id,
    pub(crate) created_at: Timestamp,
    pub(crate) attribution: &'a Attribution,
    /// The usage and the asked model of a call.
    pub(crate) call: Option<(UsageId, &'a str)>,
}

/// Which record it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Id {
    Usage(Uuid),
    Execution(Uuid),
}

impl Id {
    pub(crate) fn uuid(self) -> Uuid {
        let (Self::Usage(id) | Self::Execution(id)) = self;
        id
    }
}

impl<'a> Identity<'a> {
    pub(crate) fn of(record: &'a Record) -> Self {
        match record {
            Record::Usage(usage) => Self::of_usage(usage),
            Record::Execution(call) => Self::of_call(call),
        }
    }

    fn of_usage(usage: &'a Usage) -> Self {
        Self {
            id: Id::Usage(Uuid::from_bytes(usage.id.to_bytes())),
            created_at: usage.created_at,
            attribution: &usage.attribution,
            call: None,
        }
    }

    fn of_call(call: &'a LlmExecution) -> Self {
        Self {
            id: Id::Execution(Uuid::from_bytes(call.id.to_bytes())),
            created_at: call.created_at,
            attribution: &call.attribution,
            call: Some((call.usage_id, &call.model)),
        }
    }

    /// Refuses `new` where it differs from this, which came first.
    pub(crate) fn check(&self, new: &Identity<'_>) -> Outcome<()> {
        let what = if self.created_at != new.created_at {
            "start time"
        } else if self.attribution != new.attribution {
            "attribution"
        } else if self.call.map(|(usage, _)| usage) != new.call.map(|(usage, _)| usage) {
            "usage"
        } else if self.call != new.call {
            "asked model"
        } else {
            return Ok(());
        };
        let name = match new.id {
            Id::Usage(id) => format!("usage {id}"),
            Id::Execution(id) => format!("execution {id}"),
        };
        Err(Fault::Judged(refusal::stored_with_another(name, what)))
    }
}

/// The payloads of a batch, encoded on another thread while its rows are on their way.
pub(crate) struct Payloads {
    task: Mutex<Option<JoinHandle<Outcome<Encoded>>>>,
    done: OnceCell<Encoded>,
}

/// The bytes of payloads, in the order of [`Batch::usages`] and [`Batch::executions`].
pub(crate) struct Encoded {
    pub(crate) usages: Vec<Option<Vec<u8>>>,
    pub(crate) executions: Vec<Option<Vec<u8>>>,
}

impl Payloads {
    /// Begins to encode the payloads of `batch`.
    pub(crate) fn start(batch: &Batch<'_>) -> Self {
        let usages: Vec<Option<UsagePayload>> =
            batch.usages.iter().map(|usage| usage.payload.clone()).collect();
        let executions: Vec<Option<ExecutionPayload>> =
            batch.executions.iter().map(|whole| whole.call.payload.clone()).collect();
        let task = spawn_blocking(move || {
            Ok(Encoded { usages: encoded(&usages)?, executions: encoded(&executions)? })
        });
        Self { task: Mutex::new(Some(task)), done: OnceCell::new() }
    }

    /// The payloads, once they are encoded.
    pub(crate) async fn get(&self) -> Outcome<&Encoded> {
        let wait = || async {
            let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
            joined(task.ok_or(Fault::Panicked)?.await)
        };
        self.done.get_or_try_init(wait).await
    }
}

fn encoded<T: serde::Serialize>(payloads: &[Option<T>]) -> Outcome<Vec<Option<Vec<u8>>>> {
    payloads.iter().map(|payload| Ok(payload.as_ref().map(codec::encode).transpose()?)).collect()
}

/// `usages` and then `executions`, cut into parts of `most` rows.
pub(crate) fn parts(
    usages: usize,
    executions: usize,
    most: usize,
) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    let all = usages + executions;
    (0..all).step_by(most).map(move |start| {
        let end = all.min(start + most);
        let of = |place: usize| (place.min(usages), place.saturating_sub(usages));
        let ((usage, call), (last_usage, last_call)) = (of(start), of(end));
        (usage..last_usage, call..last_call)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_all_rows_once_and_in_order() {
        let cut = |usages, calls, most| parts(usages, calls, most).collect::<Vec<_>>();
        assert_eq!(cut(0, 0, 4), []);
        assert_eq!(cut(3, 0, 4), [(0..3, 0..0)]);
        assert_eq!(cut(3, 3, 4), [(0..3, 0..1), (3..3, 1..3)]);
        assert_eq!(cut(5, 1, 2), [(0..2, 0..0), (2..4, 0..0), (4..5, 0..1)]);
        assert_eq!(cut(0, 4, 2), [(0..0, 0..2), (0..0, 2..4)]);
    }
}
