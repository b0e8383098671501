//! Cubes: folding changes no answer, and nothing that happens around a fold is lost or counted twice.
//! A store without cubes passes: it has nothing to fold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Fixture;
use super::aggregate::arbitrary_query;
use super::arbitrary::{Arbitrary, at, attribution, call};
use super::recount::recount;
use crate::aggregate::{AggregateQuery, Dimension, Source};
use crate::doctor::Doctor;
use crate::record::{LlmExecution, Record, Usage};
use crate::store::{CostRevision, Prune, Rebuild, Rebuilt, Store};
use crate::time::{Bucket, BucketWidth, TimeRange, Timestamp};

const HOUR: Duration = Duration::from_secs(3_600);

/// Folds until nothing is left to fold.
async fn fold_all(store: &dyn Store) {
    while store.fold().await.unwrap().more {}
}

/// Asks random questions, and compares the answers with a naive recount of `records`.
async fn check(fx: &Fixture, random: &mut Arbitrary, records: &[Record]) {
    for _ in 0..40 {
        let query = arbitrary_query(random);
        let answer = fx.store.aggregate(&query).await.unwrap();
        assert_eq!(answer.rows, recount(records, &query), "{query:?}");
    }
}

/// Answers are those of a recount before a fold and after it; a second fold finds nothing.
pub async fn folding_changes_no_answer(fx: Fixture) {
    let mut fx = fx;
    let mut random = Arbitrary::new(71, 40 * 86_400);
    let mut all: Vec<Record> = Vec::new();
    for _ in 0..3 {
        let records: Vec<Record> = (0..50).flat_map(|_| random.records()).collect();
        fx.append(&records).await;
        all.extend(records);
        check(&fx, &mut random, &all).await;
        fold_all(&*fx.store).await;
        assert_eq!(fx.store.fold().await.unwrap().changes, 0);
        check(&fx, &mut random, &all).await;
        fx = fx.reopened().await;
        check(&fx, &mut random, &all).await;
    }
}

/// A range that begins and ends inside quarters of an hour, whose cells may be read for it, is exact:
/// what lies outside counts for nothing, and a group that has no other records has no row.
pub async fn ends_inside_a_quarter_are_exact(fx: Fixture) {
    let mut random = Arbitrary::new(75, 2 * 3_600);
    let mut records: Vec<Record> = Vec::new();
    for round in 0..4 {
        let batch: Vec<Record> = (0..60).flat_map(|_| random.records()).collect();
        fx.append(&batch).await;
        records.extend(batch);
        if round < 3 {
            fold_all(&*fx.store).await;
        }
        for record in &mut records {
            let Record::Execution(call) = record else { continue };
            match call.cost {
                None if random.rng.bool() => {
                    *call = random.finished(call);
                    fx.append(&[call.clone().into()]).await;
                }
                Some(expected) if random.rng.u8(..8) == 0 => {
                    let (id, at, new) = (call.id, call.created_at, random.cost());
                    let priced_model = call.priced_model.clone();
                    let revision = CostRevision { id, expected, past: None, new, priced_model, at };
                    fx.store.revise_costs(&[revision]).await.unwrap();
                    call.cost = Some(new);
                }
                _ => {}
            }
        }
        for _ in 0..60 {
            let (from, length) = (random.rng.i64(0..7_200), random.rng.i64(1..3_600));
            let range = TimeRange { from: Some(at(from)), to: Some(at(from + length)) };
            let query = AggregateQuery { range, ..arbitrary_query(&mut random) };
            let answer = fx.store.aggregate(&query).await.unwrap();
            assert_eq!(answer.rows, recount(&records, &query), "{query:?}");
        }
    }
}

/// A record that is sent again after it was folded is counted once.
pub async fn what_was_folded_is_not_counted_again(fx: Fixture) {
    let mut random = Arbitrary::new(72, 86_400);
    let records: Vec<Record> = (0..30).flat_map(|_| random.records()).collect();
    fx.append(&records).await;
    fold_all(&*fx.store).await;
    let again = fx.append(&records).await;
    assert_eq!((again.stored, again.unchanged), (0, records.len() as u64));
    check(&fx, &mut random, &records).await;
    fold_all(&*fx.store).await;
    check(&fx, &mut random, &records).await;
}

/// Cells that are made anew from their records answer as before; what was pruned stays in them.
pub async fn rebuilding_changes_no_answer(fx: Fixture) {
    let mut random = Arbitrary::new(73, 3 * 86_400);
    let records: Vec<Record> = (0..80).flat_map(|_| random.records()).collect();
    fx.append(&records).await;
    let prune = Prune { payloads_before: None, raw_before: Some(at(100_000)), limit: 1_000 };
    assert!(fx.store.prune(&prune).await.unwrap().done);
    let questions: Vec<AggregateQuery> = (0..40).map(|_| arbitrary_query(&mut random)).collect();
    let mut before = Vec::new();
    for query in &questions {
        before.push(fx.store.aggregate(query).await.unwrap().rows);
    }
    for hour in 0..4 * 24 {
        fx.store.rebuild(Rebuild::Hour(at(hour * 3_600 + 5))).await.unwrap();
        if hour % 24 == 23 {
            fx.store.rebuild(Rebuild::Day(at(hour * 3_600 + 5))).await.unwrap();
        }
    }
    for (query, expected) in questions.iter().zip(before) {
        assert_eq!(fx.store.aggregate(query).await.unwrap().rows, expected, "{query:?}");
    }
    // Nothing is made anew of an hour whose records are gone.
    let rebuilt = fx.store.rebuild(Rebuild::Hour(at(0))).await.unwrap();
    assert_eq!(rebuilt, Rebuilt::default());
}

/// The doctor looks at days that have records, be there thousands of years between them, and says what
/// it cannot check.
pub async fn the_doctor_passes_over_days_without_anything(fx: Fixture) {
    let doctor = Doctor::new(Arc::clone(&fx.store));
    assert_eq!(doctor.days(TimeRange::all()).await.unwrap(), []);
    let day = |number: i64| at(number * 86_400);
    let moments = [at(7), day(1), day(700).saturating_add(HOUR), Timestamp::MAX];
    for moment in moments {
        let (usage, execution) = call(moment);
        fx.append(&[usage.into(), execution.into()]).await;
    }
    let until = |from: Timestamp| TimeRange { from: Some(from), to: from.checked_add(24 * HOUR) };
    let last_day: Timestamp = "9999-12-31T00:00:00Z".parse().unwrap();
    let all = [until(day(0)), until(day(1)), until(day(700)), until(last_day)];
    let days = doctor.days(TimeRange::all()).await.unwrap();
    assert_eq!(days, all);
    for day in days {
        let checkup = doctor.check(day).await.unwrap();
        assert_eq!((checkup.usages, checkup.executions, checkup.differing), (1, 1, 0));
    }
    let between = TimeRange { from: Some(day(1).saturating_add(HOUR)), to: Some(day(700)) };
    assert_eq!(doctor.days(between).await.unwrap(), all[1..2]);
    assert_eq!(doctor.unchecked_before(TimeRange::all()).await.unwrap(), None);
    let horizon = day(1).saturating_add(HOUR);
    let prune = Prune { payloads_before: None, raw_before: Some(horizon), limit: 1_000 };
    assert!(fx.store.prune(&prune).await.unwrap().done);
    assert_eq!(doctor.unchecked_before(between).await.unwrap(), None);
    assert_eq!(doctor.unchecked_before(until(day(0))).await.unwrap(), Some(horizon));
    assert_eq!(doctor.unchecked_before(until(day(1))).await.unwrap(), Some(horizon));
    assert_eq!(doctor.days(until(day(0))).await.unwrap(), []);
    let days = doctor.days(TimeRange::all()).await.unwrap();
    assert_eq!(days[0], TimeRange { from: Some(horizon), to: Some(day(2)) });
    assert_eq!(days[1..], all[2..]);
    assert_eq!(doctor.check(days[0]).await.unwrap().differing, 0);
    let nothing = TimeRange { from: Some(day(700)), to: Some(day(700)) };
    assert_eq!(doctor.days(nothing).await.unwrap(), []);
    let last = days[days.len() - 1];
    doctor.rebuild(last).await.unwrap();
    assert_eq!(doctor.check(last).await.unwrap().differing, 0);
}

/// While some append and others fold, every answer is of one moment, and in the end all is counted.
pub async fn appends_and_folds_at_once_lose_nothing(fx: Fixture) {
    const WRITERS: i64 = 3;
    const BATCHES: i64 = 30;
    let done = Arc::new(AtomicBool::new(false));
    let folder = tokio::spawn({
        let (store, done) = (Arc::clone(&fx.store), Arc::clone(&done));
        async move {
            while !done.load(Ordering::Acquire) {
                store.fold().await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    let reader = tokio::spawn({
        let (store, done) = (Arc::clone(&fx.store), Arc::clone(&done));
        async move {
            let mut last = 0;
            while !done.load(Ordering::Acquire) {
                let answer = store.aggregate(&AggregateQuery::default()).await.unwrap();
                let found = &answer.rows[0].measures;
                // A batch is all or nothing, and what was counted stays.
                assert_eq!(found.uses, Some(found.executions()));
                assert!(found.executions() % 5 == 0 && found.executions() >= last);
                last = found.executions();
            }
        }
    });
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = Arc::clone(&fx.store);
            tokio::spawn(async move {
                let mut records: Vec<Record> = Vec::new();
                for batch in 0..BATCHES {
                    // Old buckets and new ones, the same for all writers.
                    let moment = at((batch % 7) * 86_400 + batch * 60 + writer);
                    let batch: Vec<(Usage, LlmExecution)> = (0..5).map(|_| call(moment)).collect();
                    let batch: Vec<Record> =
                        batch.into_iter().flat_map(|(u, e)| [u.into(), e.into()]).collect();
                    store.append(&batch).await.unwrap();
                    records.extend(batch);
                }
                records
            })
        })
        .collect();
    let mut records = Vec::new();
    for writer in writers {
        records.extend(writer.await.unwrap());
    }
    done.store(true, Ordering::Release);
    folder.await.unwrap();
    reader.await.unwrap();
    for fold in [false, true] {
        if fold {
            fold_all(&*fx.store).await;
        }
        for width in BucketWidth::ALL {
            let zone = "Europe/Berlin".parse().unwrap();
            let query = AggregateQuery {
                bucket: Some(Bucket { width: *width, zone }),
                group_by: vec![Dimension::Environment, Dimension::Prompt],
                ..AggregateQuery::default()
            };
            let answer = fx.store.aggregate(&query).await.unwrap();
            assert_eq!(answer.rows, recount(&records, &query), "{width}");
        }
    }
}

/// Answers from cubes are those from the records, also with many series in a cell.
pub async fn cubes_answer_what_the_records_do(fx: Fixture) {
    let mut random = Arbitrary::new(74, 86_400);
    let mut records: Vec<Record> = Vec::new();
    for number in 0..300 {
        let mut of = attribution(random.prompts[0]);
        of.version = number % 70;
        of.environment = random.label(&["a", "b", "c"]);
        let (mut usage, mut execution) = call(at(i64::from(number) * 41));
        usage.attribution = of.clone();
        execution.attribution = of;
        execution.model = random.label(&["m1", "m2", "m3", "m4"]);
        records.extend([usage.into(), execution.into()]);
    }
    fx.append(&records).await;
    fold_all(&*fx.store).await;
    let dimensions = [
        vec![],
        vec![Dimension::Environment],
        vec![Dimension::Prompt, Dimension::Version],
        vec![Dimension::Model],
        vec![Dimension::Provider, Dimension::Version],
    ];
    for group_by in dimensions {
        let range = TimeRange { from: Some(at(500)), to: Some(at(11_111)) };
        let cubes = AggregateQuery { range, group_by, ..AggregateQuery::default() };
        let rows = AggregateQuery { source: Source::Records, ..cubes.clone() };
        let (cubes, rows) =
            (fx.store.aggregate(&cubes).await.unwrap(), fx.store.aggregate(&rows).await.unwrap());
        assert_eq!(cubes.rows, rows.rows);
    }
}
