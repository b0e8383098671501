//! A batch of records before it is written: what is to be stored of each id.
//! Invariant: it counts as if its records came one after the other. Rows are sorted by id, so that
//! writers never wait for each other in a circle.

use std::borrow::Cow;
use std::ops::Range;

use prompt_engine_core::{Attribution, LlmExecution, Record, Timestamp, Usage, UsageId, refusal};
use sqlx::types::Uuid;

use crate::error::{Fault, Outcome};

/// Records in the order in which they came, and what is to be stored of them.
pub(crate) struct Batch<'a> {
    pub(crate) records: &'a [Record],
    /// Those that are to be stored, one of each id, in the order in which they came: a call repeats what
    /// was rendered for it, and packs use that where they lie together.
    pub(crate) chosen: Cow<'a, [Record]>,
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
    let mut usages: Vec<(usize, &Usage)> = Vec::new();
    let mut calls: Vec<(usize, &LlmExecution)> = Vec::new();
    for (place, record) in records.iter().enumerate() {
        match record {
            Record::Usage(usage) => usages.push((place, usage)),
            Record::Execution(call) => calls.push((place, call)),
        }
    }
    // Stable: records of one id stay in the order in which they came.
    usages.sort_by_key(|(_, usage)| usage.id);
    calls.sort_by_key(|(_, call)| call.id);
    let chosen = Cow::Borrowed(records);
    let mut batch = Batch { records, chosen, usages: Vec::new(), executions: Vec::new() };
    let mut places = Vec::with_capacity(records.len());
    for (place, usage) in usages {
        match batch.usages.last() {
            Some(first) if first.id == usage.id => {
                Identity::of_usage(first).check(&Identity::of_usage(usage))?;
            }
            _ => {
                batch.usages.push(usage);
                places.push(place);
            }
        }
    }
    for (place, call) in calls {
        match batch.executions.last_mut() {
            Some(whole) if whole.call.id == call.id => {
                Identity::of_call(whole.call).check(&Identity::of_call(call))?;
                if !whole.call.status.is_final() && call.status.is_final() {
                    *whole = Whole { call, began: true };
                    places.pop();
                    places.push(place);
                }
            }
            _ => {
                batch.executions.push(Whole { call, began: false });
                places.push(place);
            }
        }
    }
    if places.len() < records.len() {
        places.sort_unstable();
        batch.chosen = places.into_iter().map(|place| records[place].clone()).collect();
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
