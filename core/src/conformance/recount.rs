//! A second, naive meaning of `aggregate`, to check the first: plain loops over plain records.
//! Invariant: shares no code with `Recount`, `Filter::matches_*`, `TimeRange::contains` or `Bucket`.

use std::collections::BTreeMap;

use chrono::{DateTime, FixedOffset, NaiveTime, Offset, TimeZone, Utc};
use chrono_tz::Tz;

use crate::aggregate::{AggregateQuery, AggregateRow, Detail, Dimension, GroupKey, Measures};
use crate::cost::Cost;
use crate::query::Filter;
use crate::record::{Attribution, LlmExecution, Record};
use crate::time::{Bucket, BucketWidth, Timestamp};

/// What `records` add up to. Each id may be among them once.
pub(super) fn recount(records: &[Record], query: &AggregateQuery) -> Vec<AggregateRow> {
    let by = |dimension| query.group_by.contains(&dimension);
    let filter = &query.filter;
    let of_execution = query.detail == Detail::Calls
        || filter.provider.is_some()
        || filter.model.is_some()
        || !filter.statuses.is_empty()
        || by(Dimension::Provider)
        || by(Dimension::Model);
    let mut rows: BTreeMap<GroupKey, Measures> = BTreeMap::new();
    if query.group_by.is_empty() && query.bucket.is_none() {
        rows.insert(GroupKey::default(), Measures::default());
    }
    for record in records {
        let (at, of, execution) = match record {
            Record::Usage(usage) => (usage.created_at, &usage.attribution, None),
            Record::Execution(call) => (call.created_at, &call.attribution, Some(call)),
        };
        if query.range.from.is_some_and(|from| at < from)
            || query.range.to.is_some_and(|to| at >= to)
            || !counts(filter, of, execution)
            || (of_execution && execution.is_none())
        {
            continue;
        }
        let mut key =
            GroupKey { bucket: query.bucket.map(|b| start(b, at)), ..GroupKey::default() };
        for dimension in &query.group_by {
            match dimension {
                Dimension::Prompt => key.prompt = Some(of.prompt),
                Dimension::Version => key.version = Some(of.version),
                Dimension::Environment => key.environment = Some(of.environment.clone()),
                Dimension::Provider => key.provider = execution.map(|e| e.provider.clone()),
                Dimension::Model => key.model = execution.map(|e| e.model.clone()),
                Dimension::Session => key.session = of.session.clone(),
                Dimension::User => key.user = of.user.clone(),
            }
        }
        let row = rows.entry(key).or_default();
        match execution {
            Some(execution) => add(row, execution),
            None => row.uses = Some(row.uses.unwrap_or(0) + 1),
        }
    }
    let finish = |(key, mut measures): (GroupKey, Measures)| {
        measures.uses = if of_execution { None } else { Some(measures.uses.unwrap_or(0)) };
        if query.detail != Detail::Full {
            measures.latency_ms.forget_buckets();
            measures.time_to_first_token_ms.forget_buckets();
        }
        AggregateRow { key, measures }
    };
    rows.into_iter().map(finish).collect()
}

fn counts(filter: &Filter, of: &Attribution, execution: Option<&LlmExecution>) -> bool {
    fn differs<T: PartialEq>(wanted: &Option<T>, found: Option<&T>) -> bool {
        wanted.is_some() && wanted.as_ref() != found
    }
    if differs(&filter.prompt, Some(&of.prompt))
        || differs(&filter.version, Some(&of.version))
        || differs(&filter.environment, Some(&of.environment))
        || differs(&filter.session, of.session.as_ref())
        || differs(&filter.user, of.user.as_ref())
    {
        return false;
    }
    if differs(&filter.provider, execution.map(|e| &e.provider))
        || differs(&filter.model, execution.map(|e| &e.model))
    {
        return false;
    }
    filter.statuses.is_empty() || execution.is_some_and(|e| filter.statuses.contains(&e.status))
}

fn add(row: &mut Measures, execution: &LlmExecution) {
    row.by_status[execution.status as usize] += 1;
    if let Some(category) = execution.error_category {
        row.by_error[category as usize] += 1;
    }
    if let Some(tokens) = execution.tokens {
        let sums = &mut row.tokens;
        sums.reported += 1;
        sums.input += tokens.input;
        sums.output += tokens.output;
        sums.cache_read += tokens.cache_read;
        sums.cache_write += tokens.cache_write;
        sums.cache_write_1h += tokens.cache_write_1h;
        sums.reasoning += tokens.reasoning;
        sums.audio_input += tokens.audio_input;
        sums.audio_output += tokens.audio_output;
    }
    match execution.cost {
        Some(Cost::Priced { usd, .. } | Cost::Reported { usd }) => {
            row.priced += 1;
            row.cost_pico += usd.to_pico();
        }
        Some(Cost::LocalCache) => row.priced += 1,
        Some(Cost::Unpriced { .. }) => row.unpriced += 1,
        None => {}
    }
    if let Some(latency) = execution.latency_ms {
        row.latency_ms.record(latency);
    }
    if let Some(latency) = execution.time_to_first_token_ms {
        row.time_to_first_token_ms.record(latency);
    }
}

/// The start of the bucket of `at`, in a zone whose clocks change by whole hours and not at
/// midnight.
fn start(bucket: Bucket, at: Timestamp) -> Timestamp {
    let zone = bucket.zone.to_string();
    match zone.parse::<Tz>() {
        Ok(zone) => start_in(&zone, bucket.width, at),
        Err(_) => start_in(&zone.parse::<FixedOffset>().unwrap(), bucket.width, at),
    }
}

fn start_in<Z: TimeZone>(zone: &Z, width: BucketWidth, at: Timestamp) -> Timestamp {
    let utc: DateTime<Utc> = DateTime::from_timestamp_micros(at.as_micros()).unwrap();
    let local = utc.with_timezone(zone);
    let width = match width {
        BucketWidth::Day => {
            let midnight = local.date_naive().and_time(NaiveTime::MIN);
            let midnight = zone.from_local_datetime(&midnight).unwrap();
            return Timestamp::from_micros(midnight.timestamp_micros()).unwrap();
        }
        BucketWidth::Hour => 3_600_000_000,
        BucketWidth::QuarterHour => 900_000_000,
    };
    let offset = i64::from(local.offset().fix().local_minus_utc()) * 1_000_000;
    let shown = at.as_micros() + offset;
    Timestamp::from_micros(shown - shown.rem_euclid(width) - offset).unwrap()
}
