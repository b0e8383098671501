//! What records add up to, against a naive recount that shares no code with the stores.

use super::arbitrary::{
    Arbitrary, at, at_micros, call, finished, label, pending, pico, reported, usage,
};
use super::recount::recount;
use super::{Fixture, seeds};
use crate::aggregate::{
    AggregateQuery, AggregateRow, Detail, Dimension, GroupKey, Measures, Source,
};
use crate::cost::{Cost, UnpricedReason};
use crate::query::Filter;
use crate::record::{LlmExecution, Record};
use crate::status::{ErrorCategory, Status};
use crate::store::CostRevision;
use crate::time::{Bucket, BucketWidth, TimeRange, Timestamp};
use crate::tokens::TokenCounts;

const ZONES: [&str; 5] = ["UTC", "Europe/Berlin", "+05:45", "-09:30", "+00:07"];
const DIMENSIONS: [Dimension; 5] = [
    Dimension::Prompt,
    Dimension::Version,
    Dimension::Environment,
    Dimension::Provider,
    Dimension::Model,
];

/// A random question about the records that `random` makes.
pub(crate) fn arbitrary_query(random: &mut Arbitrary) -> AggregateQuery {
    let end = |random: &mut Arbitrary| (random.rng.u8(..3) > 0).then(|| random.moment());
    let (mut from, mut to) = (end(random), end(random));
    if let (Some(a), Some(b)) = (from, to)
        && a > b
    {
        (from, to) = (to, from);
    }
    let rarely = |random: &mut Arbitrary| random.rng.u8(..6) == 0;
    let prompts = random.prompts.clone();
    let filter = Filter {
        prompt: rarely(random).then(|| random.one(&prompts)),
        version: rarely(random).then(|| random.rng.u32(1..5)),
        environment: rarely(random).then(|| random.label(&["production", "staging", "", "x"])),
        provider: rarely(random).then(|| random.label(&["openai", "anthropic"])),
        model: rarely(random).then(|| random.label(&["gpt-4o", "claude", ""])),
        session: rarely(random).then(|| random.label(&["s1", "", "s9"])),
        user: rarely(random).then(|| random.label(&["u1", "u9"])),
        statuses: (0..random.rng.u8(0..3) * u8::from(rarely(random)))
            .map(|_| random.one(Status::ALL))
            .collect(),
    };
    let mut group_by = DIMENSIONS.to_vec();
    random.rng.shuffle(&mut group_by);
    group_by.truncate(random.rng.usize(0..=3));
    let bucket = random.rng.bool().then(|| Bucket {
        width: random.one(BucketWidth::ALL),
        zone: random.one(&ZONES).parse().unwrap(),
    });
    for dimension in [Dimension::Session, Dimension::User] {
        group_by.extend(rarely(random).then_some(dimension));
    }
    AggregateQuery {
        range: TimeRange { from, to },
        filter,
        group_by,
        bucket,
        detail: random.one(&[Detail::Full, Detail::Full, Detail::Sums, Detail::Calls]),
        source: random.one(&[Source::Any, Source::Any, Source::Any, Source::Records]),
    }
}

#[track_caller]
fn same(found: &[AggregateRow], expected: &[AggregateRow], what: &dyn Fn() -> String) {
    let keys = |rows: &[AggregateRow]| rows.iter().map(|row| row.key.clone()).collect::<Vec<_>>();
    assert_eq!(keys(found), keys(expected), "the rows differ: {}", what());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected, "{}", what());
    }
}

async fn total(fx: &Fixture) -> Measures {
    let mut rows = fx.store.aggregate(&AggregateQuery::default()).await.unwrap().rows;
    assert_eq!(rows.len(), 1);
    rows.remove(0).measures
}

/// An empty store has one row of nothing, unless rows are keyed.
pub async fn an_empty_store_adds_up_to_one_row_of_zeros(fx: Fixture) {
    let rows = fx.store.aggregate(&AggregateQuery::default()).await.unwrap().rows;
    let measures = Measures { uses: Some(0), ..Measures::default() };
    assert_eq!(rows, [AggregateRow { key: GroupKey::default(), measures }]);
    let filter = Filter { model: Some(label("gpt-4o")), ..Filter::default() };
    let rows =
        fx.store.aggregate(&AggregateQuery { filter, ..Default::default() }).await.unwrap().rows;
    assert_eq!(rows, [AggregateRow::default()]);
    for dimension in DIMENSIONS {
        let query = AggregateQuery { group_by: vec![dimension], ..AggregateQuery::default() };
        assert_eq!(fx.store.aggregate(&query).await.unwrap().rows, []);
    }
    let bucket = Some(Bucket { width: BucketWidth::Day, zone: "UTC".parse().unwrap() });
    let query = AggregateQuery { bucket, ..AggregateQuery::default() };
    assert_eq!(fx.store.aggregate(&query).await.unwrap().rows, []);
}

/// A range that holds nothing adds up to nothing, in a store that holds something.
pub async fn an_empty_range_adds_up_to_one_row_of_zeros(fx: Fixture) {
    let (usage, execution) = call(at(100));
    fx.append(&[usage.into(), execution.into()]).await;
    let backwards = TimeRange { from: Some(at(200)), to: Some(at(50)) };
    let point = TimeRange { from: Some(at(100)), to: Some(at(100)) };
    let later = TimeRange { from: Some(at(101)), to: None };
    for range in [backwards, point, later] {
        let query = AggregateQuery { range, ..AggregateQuery::default() };
        let rows = fx.store.aggregate(&query).await.unwrap().rows;
        let measures = Measures { uses: Some(0), ..Measures::default() };
        assert_eq!(rows, [AggregateRow { key: GroupKey::default(), measures }], "{range:?}");
        let query = AggregateQuery { group_by: vec![Dimension::Prompt], ..query };
        assert_eq!(fx.store.aggregate(&query).await.unwrap().rows, [], "{range:?}");
    }
}

/// A range begins with its first microsecond and ends before its last.
pub async fn a_range_is_half_open_to_the_microsecond(fx: Fixture) {
    // Inside an hour, and where hours and days begin: stores may keep sums of those.
    for start in [1_234_567_891, 3_600_000_000, 86_400_000_000, 900_000_000] {
        for micros in [-1, 0, 1] {
            let (usage, execution) = call(at_micros(start + micros));
            fx.append(&[usage.into(), execution.into()]).await;
        }
    }
    for start in [1_234_567_891, 3_600_000_000, 86_400_000_000, 900_000_000] {
        for (from, to, expected) in [(0, 1, 1), (-1, 0, 1), (-1, 1, 2), (-1, 2, 3), (0, 0, 0)] {
            let (from, to) = (at_micros(start + from), at_micros(start + to));
            let range = TimeRange { from: Some(from), to: Some(to) };
            let query = AggregateQuery { range, ..AggregateQuery::default() };
            let found = &fx.store.aggregate(&query).await.unwrap().rows[0].measures;
            assert_eq!((found.uses, found.executions()), (Some(expected), expected), "{range:?}");
        }
    }
}

/// Uses are counted unless the question names what only an execution has.
pub async fn uses_are_null_where_the_question_needs_an_execution(fx: Fixture) {
    let (usage, execution) = call(at(0));
    fx.append(&[usage.into(), execution.into()]).await;
    let filters = [
        Filter { provider: Some(label("openai")), ..Filter::default() },
        Filter { model: Some(label("gpt-4o")), ..Filter::default() },
        Filter { statuses: vec![Status::Success], ..Filter::default() },
        Filter { statuses: vec![Status::Error], ..Filter::default() },
    ];
    for filter in filters {
        let query = AggregateQuery { filter, ..AggregateQuery::default() };
        assert_eq!(
            fx.store.aggregate(&query).await.unwrap().rows[0].measures.uses,
            None,
            "{query:?}"
        );
    }
    for dimension in DIMENSIONS {
        let query = AggregateQuery { group_by: vec![dimension], ..AggregateQuery::default() };
        let rows = fx.store.aggregate(&query).await.unwrap().rows;
        let uses = (!dimension.needs_execution()).then_some(1);
        assert_eq!((rows.len(), rows[0].measures.uses), (1, uses), "{query:?}");
    }
    assert_eq!(total(&fx).await.uses, Some(1));
}

/// A render without a call is a row of its own, and so is a call without its render.
pub async fn renders_and_calls_alone_have_rows(fx: Fixture) {
    let (rendered, _) = call(at(0));
    let (_, called) = call(at(0));
    fx.append(&[rendered.clone().into(), called.clone().into()]).await;
    let query = AggregateQuery { group_by: vec![Dimension::Prompt], ..AggregateQuery::default() };
    let rows = fx.store.aggregate(&query).await.unwrap().rows;
    let found: Vec<_> = rows
        .iter()
        .map(|row| (row.key.prompt.unwrap(), row.measures.uses, row.measures.executions()))
        .collect();
    let mut expected =
        vec![(rendered.attribution.prompt, Some(1), 0), (called.attribution.prompt, Some(0), 1)];
    expected.sort();
    assert_eq!(found, expected);
}

/// A pending execution counts, and costs nothing that anybody knows.
pub async fn pending_executions_count_but_have_no_price(fx: Fixture) {
    let used = usage(at(0));
    let open = pending(&used, at(0));
    fx.append(&[used.into(), open.clone().into()]).await;
    let measures = total(&fx).await;
    assert_eq!(measures.in_status(Status::Pending), 1);
    assert_eq!((measures.executions(), measures.finished()), (1, 0));
    assert_eq!((measures.priced, measures.unpriced, measures.cost_pico), (0, 0, 0));
    assert_eq!(measures.tokens.reported, 0);
    assert_eq!(measures.success_rate(), None);
    fx.append(&[finished(&open).into()]).await;
    let measures = total(&fx).await;
    assert_eq!((measures.in_status(Status::Pending), measures.finished()), (0, 1));
    assert_eq!((measures.priced, measures.cost_pico), (1, 1_234_567));
}

/// Every status and every error category is counted as itself.
pub async fn statuses_and_error_categories_are_counted_apart(fx: Fixture) {
    let mut records: Vec<Record> = Vec::new();
    for (code, status) in Status::ALL.iter().copied().enumerate() {
        for _ in 0..=code {
            let (used, done) = call(at(0));
            let execution = match status {
                Status::Pending => pending(&used, at(0)),
                _ => LlmExecution { status, ..done },
            };
            records.push(execution.into());
        }
    }
    for (code, category) in ErrorCategory::ALL.iter().copied().enumerate() {
        for _ in 0..=code {
            let status = Status::Error;
            let error_category = Some(category);
            records.push(LlmExecution { status, error_category, ..call(at(0)).1 }.into());
        }
    }
    fx.append(&records).await;
    let measures = total(&fx).await;
    assert_eq!(measures.by_status, [1, 2, 3 + 91, 4, 5]);
    assert_eq!(measures.by_error, std::array::from_fn(|code| code as u64 + 1));
}

/// Sums of money are exact, from one pico-dollar to the limit of a row, many times over.
pub async fn money_is_exact_to_the_pico_dollar(fx: Fixture) {
    let most = i128::from(i64::MAX);
    let mut rng = fastrand::Rng::with_seed(41);
    let mut amounts =
        vec![1, 1, 1, 0, most, most, most, most - 1, 100_000_000_000, 333_333_333_333];
    amounts.extend((0..300).map(|_| i128::from(rng.i64(0..=i64::MAX))));
    amounts.extend((0..300).map(|_| i128::from(rng.i64(0..1_000))));
    let records: Vec<Record> = amounts
        .iter()
        .map(|amount| LlmExecution { cost: Some(reported(*amount)), ..call(at(0)).1 }.into())
        .collect();
    fx.append(&records).await;
    let measures = total(&fx).await;
    assert_eq!(measures.cost_pico, amounts.iter().sum::<i128>());
    assert_eq!((measures.priced, measures.unpriced), (amounts.len() as u64, 0));
    for (record, amount) in records.iter().zip(&amounts) {
        let Record::Execution(execution) = record else { continue };
        let stored = fx.store.execution(execution.id).await.unwrap().unwrap();
        assert_eq!(stored.cost.unwrap().usd(), Some(pico(*amount)));
    }
}

/// Known and unknown costs are counted apart, and no unknown one is 0.
pub async fn unpriced_executions_are_counted_apart(fx: Fixture) {
    for reason in UnpricedReason::ALL {
        let cost = Some(Cost::unpriced(*reason));
        let execution = LlmExecution { cost, priced_model: None, ..call(at(0)).1 };
        fx.append(&[execution.clone().into()]).await;
        assert_eq!(fx.store.execution(execution.id).await.unwrap(), Some(execution));
    }
    fx.append(&[LlmExecution { cost: Some(reported(0)), ..call(at(0)).1 }.into()]).await;
    let measures = total(&fx).await;
    let unknown = UnpricedReason::ALL.len() as u64;
    assert_eq!((measures.priced, measures.unpriced, measures.cost_pico), (1, unknown, 0));
}

/// Token counts at their limit add up in 64 bits.
pub async fn tokens_add_up_in_64_bits(fx: Fixture) {
    let most = TokenCounts::MAX;
    let third = most / 3;
    let counts = TokenCounts {
        input: most,
        output: most,
        cache_read: third,
        cache_write: third,
        cache_write_1h: third,
        reasoning: third,
        audio_input: third,
        audio_output: third,
    };
    let tokens = Some(counts.check().unwrap());
    let records: Vec<Record> =
        (0..100).map(|n| LlmExecution { tokens, ..call(at(n)).1 }.into()).collect();
    fx.append(&records).await;
    let sums = total(&fx).await.tokens;
    assert_eq!((sums.reported, sums.input, sums.output), (100, 100 * most, 100 * most));
    assert_eq!((sums.cache_read, sums.cache_write), (100 * third, 100 * third));
    assert_eq!((sums.cache_write_1h, sums.reasoning), (100 * third, 100 * third));
    assert_eq!((sums.audio_input, sums.audio_output), (100 * third, 100 * third));
    assert_eq!(sums.total(), 200 * most);
}

/// Days follow the clocks of their zone: one of 23 hours, one of 25, and all others of 24.
pub async fn days_of_berlin_have_23_and_25_hours(fx: Fixture) {
    // A call at each half hour around both shifts of 2026: 29 March and 25 October.
    let spring: Timestamp = "2026-03-27T23:00:00Z".parse().unwrap();
    let autumn: Timestamp = "2026-10-23T22:00:00Z".parse().unwrap();
    let mut records: Vec<Record> = Vec::new();
    for start in [spring, autumn] {
        for half_hour in 0..144 {
            let after = std::time::Duration::from_secs(half_hour * 1800);
            records.push(call(start.saturating_add(after)).1.into());
        }
    }
    fx.append(&records).await;
    let zone = "Europe/Berlin".parse().unwrap();
    let bucket = Some(Bucket { width: BucketWidth::Day, zone });
    let query = AggregateQuery { bucket, ..AggregateQuery::default() };
    let rows = fx.store.aggregate(&query).await.unwrap().rows;
    let found: Vec<(String, u64)> = rows
        .iter()
        .map(|row| (row.key.bucket.unwrap().to_string(), row.measures.executions()))
        .collect();
    let starts = [
        ("2026-03-27T23:00:00Z", 48),
        ("2026-03-28T23:00:00Z", 46),
        ("2026-03-29T22:00:00Z", 48),
        ("2026-03-30T22:00:00Z", 2),
        ("2026-10-23T22:00:00Z", 48),
        ("2026-10-24T22:00:00Z", 50),
        ("2026-10-25T23:00:00Z", 46),
    ];
    let expected: Vec<(String, u64)> = starts
        .iter()
        .map(|(start, count)| (start.parse::<Timestamp>().unwrap().to_string(), *count))
        .collect();
    assert_eq!(found, expected);
    for zone in ZONES {
        for width in BucketWidth::ALL {
            let bucket = Some(Bucket { width: *width, zone: zone.parse().unwrap() });
            let query = AggregateQuery { bucket, ..AggregateQuery::default() };
            let rows = fx.store.aggregate(&query).await.unwrap().rows;
            same(&rows, &recount(&records, &query), &|| format!("{width} in {zone}"));
        }
    }
}

/// Random questions about random records, asked again as more records come, are answered as a
/// naive recount answers them.
pub async fn any_question_is_answered_as_by_a_naive_recount(fx: Fixture) {
    for seed in seeds(&[42]) {
        // Ten days over the spring shift of Berlin.
        let mut random = Arbitrary::new(seed, 10 * 86_400);
        let mut records: Vec<Record> = Vec::new();
        for round in 0..6 {
            let batch: Vec<Record> = (0..60).flat_map(|_| random.records()).collect();
            fx.append(&batch).await;
            if round % 2 == 1 {
                fx.store.fold().await.unwrap();
            }
            records.extend(batch);
            for _ in 0..60 {
                let query = arbitrary_query(&mut random);
                let rows = fx.store.aggregate(&query).await.unwrap().rows;
                let expected = recount(&records, &query);
                same(&rows, &expected, &|| format!("seed {seed}, round {round}, {query:?}"));
            }
        }
    }
}

/// Sums stay right as pending executions finish and costs are revised.
pub async fn sums_follow_finished_and_revised_executions(fx: Fixture) {
    for seed in seeds(&[43]) {
        let mut random = Arbitrary::new(seed, 5 * 86_400);
        let mut records: Vec<Record> = (0..120).flat_map(|_| random.records()).collect();
        fx.append(&records).await;
        for round in 0..3 {
            for record in &mut records {
                let Record::Execution(execution) = record else { continue };
                if random.rng.bool() {
                    continue;
                }
                if random.rng.u8(..20) == 0 {
                    fx.store.fold().await.unwrap();
                }
                if let Some(expected) = execution.cost {
                    let new = random.cost();
                    let priced_model = execution.priced_model.clone();
                    let id = execution.id;
                    let at = execution.created_at;
                    let revision = CostRevision { id, expected, past: None, new, priced_model, at };
                    fx.store.revise_costs(&[revision]).await.unwrap();
                    execution.cost = Some(new);
                } else {
                    *execution = random.finished(execution);
                    fx.append(&[execution.clone().into()]).await;
                }
            }
            for _ in 0..40 {
                let query = arbitrary_query(&mut random);
                let rows = fx.store.aggregate(&query).await.unwrap().rows;
                let expected = recount(&records, &query);
                same(&rows, &expected, &|| format!("seed {seed}, round {round}, {query:?}"));
            }
        }
    }
}
