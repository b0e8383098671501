//! Lists of usages and executions: filters, order, pages.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::aggregate::arbitrary_query;
use super::arbitrary::{Arbitrary, at, at_micros, bytes, call, label, pending};
use super::{Fixture, refused};
use crate::aggregate::AggregateQuery;
use crate::analytics::{Analytics, StatsQuery};
use crate::error::{ErrorKind, Result};
use crate::id::{ExecutionId, PromptId, UsageId};
use crate::query::{Cursor, Filter, Order, Page, PageQuery, RecordQuery};
use crate::record::{LlmExecution, Record, Usage};
use crate::status::Status;
use crate::store::Prune;
use crate::time::TimeRange;

/// All that `query` finds by `list`, page by page.
async fn all<T>(
    query: &RecordQuery,
    list: impl AsyncFn(&RecordQuery) -> Result<Page<T>>,
) -> Vec<T> {
    let mut query = query.clone();
    let mut seen = Vec::new();
    loop {
        let page = list(&query).await.unwrap();
        let full = page.items.len() == query.page.limit as usize;
        assert!(page.items.len() <= query.page.limit as usize);
        seen.extend(page.items);
        let Some(after) = page.next else { return seen };
        assert!(full, "a page that another follows is not full");
        query.page.after = Some(after.to_string().parse().unwrap());
    }
}

async fn usages(fx: &Fixture, query: &RecordQuery) -> Vec<Usage> {
    all(query, async |query| fx.store.list_usages(query).await).await
}

async fn executions(fx: &Fixture, query: &RecordQuery) -> Vec<LlmExecution> {
    all(query, async |query| fx.store.list_executions(query).await).await
}

/// Newest first, without payloads: what a list of `records` is, before any filter.
fn listed(records: &[Record]) -> (Vec<Usage>, Vec<LlmExecution>) {
    let (mut usages, mut executions) = (Vec::new(), Vec::new());
    for record in records.iter().cloned() {
        match record {
            Record::Usage(usage) => usages.push(Usage { payload: None, ..usage }),
            Record::Execution(call) => executions.push(LlmExecution { payload: None, ..call }),
        }
    }
    usages.sort_by_key(|usage| std::cmp::Reverse((usage.created_at, usage.id)));
    executions.sort_by_key(|call| std::cmp::Reverse((call.created_at, call.id)));
    (usages, executions)
}

/// Lists of an empty store are empty, and end.
pub async fn lists_of_an_empty_store_are_empty(fx: Fixture) {
    let query = RecordQuery::default();
    let page = fx.store.list_usages(&query).await.unwrap();
    assert_eq!((page.items, page.next), (vec![], None));
    let page = fx.store.list_executions(&query).await.unwrap();
    assert_eq!((page.items, page.next), (vec![], None));
}

/// Every filter alone and all of them together find what they should, newest first.
pub async fn every_filter_finds_what_it_should(fx: Fixture) {
    let mut random = Arbitrary::new(31, 3 * 86_400);
    let records: Vec<Record> = (0..120).flat_map(|_| random.records()).collect();
    fx.append(&records).await;
    let (all_usages, all_executions) = listed(&records);
    let of = all_executions[0].attribution.clone();
    let none = Filter::default();
    let filters = [
        none.clone(),
        Filter { prompt: Some(of.prompt), ..none.clone() },
        Filter { prompt: Some(PromptId::new()), ..none.clone() },
        Filter { version: Some(2), ..none.clone() },
        Filter { environment: Some(label("staging")), ..none.clone() },
        Filter { environment: Some(label("")), ..none.clone() },
        Filter { provider: Some(label("openai")), ..none.clone() },
        Filter { model: Some(label("gpt-4o")), ..none.clone() },
        Filter { model: Some(label("")), ..none.clone() },
        Filter { session: Some(label("s1")), ..none.clone() },
        Filter { session: Some(label("")), ..none.clone() },
        Filter { user: Some(label("u2")), ..none.clone() },
        Filter { user: Some(label("")), ..none.clone() },
        Filter { statuses: vec![Status::Pending], ..none.clone() },
        Filter { statuses: vec![Status::Error, Status::Timeout, Status::Error], ..none.clone() },
        Filter { statuses: Status::ALL.to_vec(), ..none.clone() },
        Filter {
            prompt: Some(of.prompt),
            version: Some(of.version),
            environment: Some(of.environment),
            provider: Some(all_executions[0].provider.clone()),
            model: Some(all_executions[0].model.clone()),
            session: of.session,
            user: of.user,
            statuses: vec![all_executions[0].status],
        },
    ];
    let ranges = [
        TimeRange::all(),
        TimeRange { from: Some(at(40_000)), to: Some(at(100_000)) },
        TimeRange { from: None, to: Some(at(3600)) },
        TimeRange { from: Some(at(2 * 86_400)), to: None },
        TimeRange { from: Some(at(3600)), to: Some(at(3600)) },
    ];
    for filter in &filters {
        for range in ranges {
            let inside = |moment| {
                range.from.is_none_or(|from| moment >= from)
                    && range.to.is_none_or(|to| moment < to)
            };
            let page = PageQuery { limit: 7, after: None };
            let query =
                RecordQuery { range, filter: filter.clone(), page, ..RecordQuery::default() };
            let mut expected = all_usages.clone();
            expected.retain(|usage| inside(usage.created_at) && filter.matches_usage(usage));
            assert_eq!(usages(&fx, &query).await, expected, "{query:?}");
            let mut expected = all_executions.clone();
            expected.retain(|call| inside(call.created_at) && filter.matches_execution(call));
            assert_eq!(executions(&fx, &query).await, expected, "{query:?}");
        }
    }
}

/// The oldest first is the newest first turned round, whatever the size of a page, with a filter too.
pub async fn oldest_first_is_the_list_turned_round(fx: Fixture) {
    let mut random = Arbitrary::new(33, 86_400);
    let records: Vec<Record> = (0..60).flat_map(|_| random.records()).collect();
    fx.append(&records).await;
    let (mut all_usages, mut all_executions) = listed(&records);
    all_usages.reverse();
    all_executions.reverse();
    let only_openai = Filter { provider: Some(label("openai")), ..Filter::default() };
    let range = TimeRange { from: Some(at(20_000)), to: Some(at(60_000)) };
    for limit in [1, 7, 1_000] {
        for (range, filter) in [(TimeRange::all(), Filter::default()), (range, only_openai.clone())]
        {
            let page = PageQuery { limit, after: None };
            let order = Order::OldestFirst;
            let query = RecordQuery { range, filter, order, page, ..RecordQuery::default() };
            let mut expected = all_usages.clone();
            expected.retain(|usage| {
                query.range.contains(usage.created_at) && query.filter.matches_usage(usage)
            });
            assert_eq!(usages(&fx, &query).await, expected, "{query:?}");
            let mut expected = all_executions.clone();
            expected.retain(|call| {
                query.range.contains(call.created_at) && query.filter.matches_execution(call)
            });
            assert_eq!(executions(&fx, &query).await, expected, "{query:?}");
        }
    }
}

/// A list holds payloads where they are asked for, and says where there is none.
pub async fn lists_hold_payloads_where_they_are_asked_for(fx: Fixture) {
    let (mut bare_usage, mut bare_execution) = call(at(1));
    (bare_usage.payload, bare_execution.payload) = (None, None);
    let (usage, execution) = call(at(2));
    let (younger_usage, younger_execution) = call(at(3));
    let expected_usages = [bare_usage, usage, younger_usage];
    let expected_executions = [bare_execution, execution, younger_execution];
    fx.append(&expected_usages.clone().map(Record::from)).await;
    fx.append(&expected_executions.clone().map(Record::from)).await;
    let page = PageQuery { limit: 2, after: None };
    let order = Order::OldestFirst;
    let query = RecordQuery { order, payloads: true, page, ..RecordQuery::default() };
    assert_eq!(usages(&fx, &query).await, expected_usages);
    assert_eq!(executions(&fx, &query).await, expected_executions);
}

/// The executions of a usage, and the usage itself.
pub async fn lists_of_one_usage_hold_its_own_alone(fx: Fixture) {
    let mut random = Arbitrary::new(32, 86_400);
    let records: Vec<Record> = (0..30).flat_map(|_| random.records()).collect();
    fx.append(&records).await;
    let (all_usages, all_executions) = listed(&records);
    for usage in all_usages.iter().take(12) {
        let page = PageQuery { limit: 2, after: None };
        let query = RecordQuery { usage: Some(usage.id), page, ..RecordQuery::default() };
        assert_eq!(usages(&fx, &query).await, std::slice::from_ref(usage));
        let mut expected = all_executions.clone();
        expected.retain(|call| call.usage_id == usage.id);
        assert_eq!(executions(&fx, &query).await, expected);
    }
    let query = RecordQuery { usage: Some(UsageId::new()), ..RecordQuery::default() };
    assert_eq!(usages(&fx, &query).await, []);
    assert_eq!(executions(&fx, &query).await, []);
}

/// Records of one microsecond are ordered by their ids, and no page loses or repeats one.
pub async fn equal_times_are_ordered_by_id(fx: Fixture) {
    let mut rng = fastrand::Rng::with_seed(33);
    let mut records: Vec<Record> = Vec::new();
    for n in 0..40 {
        let (mut usage, mut execution) = call(at_micros(n / 20));
        usage.id = UsageId::from_bytes(bytes(&mut rng));
        execution.id = ExecutionId::from_bytes(bytes(&mut rng));
        execution.usage_id = usage.id;
        records.extend([usage.into(), execution.into()]);
    }
    fx.append(&records).await;
    let (all_usages, all_executions) = listed(&records);
    for limit in [1, 3, 20, 39, 40, 41, u32::MAX] {
        let page = PageQuery { limit, after: None };
        let query = RecordQuery { page, ..RecordQuery::default() };
        assert_eq!(usages(&fx, &query).await, all_usages, "limit {limit}");
        assert_eq!(executions(&fx, &query).await, all_executions, "limit {limit}");
    }
}

/// The last page says that it is, even where it is just full.
pub async fn the_last_page_has_no_next(fx: Fixture) {
    for n in 0..4 {
        let (usage, execution) = call(at(n));
        fx.append(&[usage.into(), execution.into()]).await;
    }
    let page = PageQuery { limit: 4, after: None };
    let query = RecordQuery { page, ..RecordQuery::default() };
    assert_eq!(fx.store.list_usages(&query).await.unwrap().next, None);
    assert_eq!(fx.store.list_executions(&query).await.unwrap().next, None);
    let page = PageQuery { limit: 3, after: None };
    let query = RecordQuery { page, ..RecordQuery::default() };
    let next = fx.store.list_usages(&query).await.unwrap().next;
    assert!(matches!(next, Some(Cursor::Usage(moment, _)) if moment == at(1)), "{next:?}");
    let next = fx.store.list_executions(&query).await.unwrap().next;
    assert!(matches!(next, Some(Cursor::Execution(moment, _)) if moment == at(1)), "{next:?}");
}

/// Whoever pages through a list sees each of its records once while others append newer ones.
pub async fn pages_stay_stable_while_newer_records_come(fx: Fixture) {
    let mut expected = BTreeSet::new();
    for n in 0..25 {
        let (usage, execution) = call(at(n));
        expected.insert((usage.id, execution.id));
        fx.append(&[usage.into(), execution.into()]).await;
    }
    let page = PageQuery { limit: 4, after: None };
    let mut of_usages = RecordQuery { page, ..RecordQuery::default() };
    let mut of_executions = of_usages.clone();
    let (mut seen_usages, mut seen_executions) = (Vec::new(), Vec::new());
    for n in 100.. {
        let page = fx.store.list_usages(&of_usages).await.unwrap();
        seen_usages.extend(page.items.into_iter().map(|usage| usage.id));
        let other = fx.store.list_executions(&of_executions).await.unwrap();
        seen_executions.extend(other.items.into_iter().map(|call| call.id));
        assert_eq!(page.next.is_some(), other.next.is_some());
        if page.next.is_none() {
            break;
        }
        of_usages.page.after = page.next;
        of_executions.page.after = other.next;
        let (usage, execution) = call(at(n));
        fx.append(&[usage.into(), execution.into()]).await;
    }
    assert_eq!((seen_usages.len(), seen_executions.len()), (25, 25));
    assert_eq!(seen_usages.iter().copied().collect::<BTreeSet<_>>().len(), 25);
    assert!(expected.iter().all(|(usage, _)| seen_usages.contains(usage)));
    assert!(expected.iter().all(|(_, execution)| seen_executions.contains(execution)));
}

/// A cursor names a place in time: it works with another filter, and where nothing stands.
pub async fn a_cursor_needs_no_record_at_its_place(fx: Fixture) {
    for n in 0..6 {
        let (usage, execution) = call(at(n));
        fx.append(&[usage.into(), execution.into()]).await;
    }
    let after = Some(Cursor::Usage(at(3), [0; 16]));
    let query = RecordQuery { page: PageQuery { limit: 50, after }, ..RecordQuery::default() };
    assert_eq!(fx.store.list_usages(&query).await.unwrap().items.len(), 3);
    let after = Some(Cursor::Execution(at(3), [0xff; 16]));
    let query = RecordQuery { page: PageQuery { limit: 50, after }, ..RecordQuery::default() };
    assert_eq!(fx.store.list_executions(&query).await.unwrap().items.len(), 4);
}

/// A cursor of another list is refused.
pub async fn record_lists_refuse_a_foreign_cursor(fx: Fixture) {
    let (usage, execution) = call(at(0));
    fx.append(&[usage.into(), execution.into()]).await;
    let of = |after: &Cursor| RecordQuery {
        page: PageQuery { limit: 5, after: Some(after.clone()) },
        ..RecordQuery::default()
    };
    let usage = Cursor::Usage(at(9), [0; 16]);
    let execution = Cursor::Execution(at(9), [0; 16]);
    let others = [Cursor::Prompt("a".to_owned()), Cursor::Version(1)];
    for after in others.iter().chain([&execution]) {
        refused(fx.store.list_usages(&of(after)).await, ErrorKind::Invalid);
    }
    for after in others.iter().chain([&usage]) {
        refused(fx.store.list_executions(&of(after)).await, ErrorKind::Invalid);
    }
}

/// By latency descending, then newest, then id; no more than asked for, of what range and filter let
/// through, and without payloads.
pub async fn the_slowest_come_first_and_of_equals_the_newest(fx: Fixture) {
    let mut random = Arbitrary::new(34, 3 * 86_400);
    let mut records: Vec<Record> = (0..120).flat_map(|_| random.records()).collect();
    for record in &mut records {
        // Few latencies, so that many calls share one.
        if let Record::Execution(call) = record
            && let Some(latency) = &mut call.latency_ms
            && random.rng.bool()
        {
            *latency %= 3;
        }
    }
    fx.append(&records).await;
    let (_, mut all) = listed(&records);
    all.retain(|call| call.latency_ms.is_some());
    all.sort_by_key(|call| std::cmp::Reverse((call.latency_ms, call.created_at, call.id)));
    let none = Filter::default();
    let filters = [
        none.clone(),
        Filter { prompt: Some(all[0].attribution.prompt), ..none.clone() },
        Filter { model: Some(label("gpt-4o")), version: Some(2), ..none.clone() },
        Filter { environment: Some(label("")), provider: Some(label("openai")), ..none.clone() },
        Filter { session: Some(label("s1")), ..none.clone() },
        Filter { user: Some(label("u2")), ..none.clone() },
        Filter { statuses: vec![Status::Error, Status::Timeout], ..none.clone() },
        Filter { prompt: Some(PromptId::new()), ..none.clone() },
    ];
    let ranges = [
        TimeRange::all(),
        TimeRange { from: Some(at(40_000)), to: Some(at(100_000)) },
        TimeRange { from: Some(at(3600)), to: Some(at(3600)) },
    ];
    for filter in &filters {
        for range in ranges {
            let mut expected = all.clone();
            expected.retain(|c| range.contains(c.created_at) && filter.matches_execution(c));
            for limit in [0, 1, 7, u32::MAX] {
                let found = fx.store.slowest_executions(&range, filter, limit).await.unwrap();
                let count = expected.len().min(limit as usize);
                assert_eq!(found, expected[..count], "{range:?} {filter:?} {limit}");
            }
        }
    }
}

/// The slowest are found by the cells that say where they are, as by a walk over all records.
pub async fn the_slowest_are_found_by_their_cells(fx: Fixture) {
    let mut random = Arbitrary::new(35, 20 * 86_400);
    let analytics = Analytics::new(Arc::clone(&fx.store));
    for round in 0..3 {
        let records: Vec<Record> = (0..80).flat_map(|_| random.records()).collect();
        fx.append(&records).await;
        fx.store.fold().await.unwrap();
        if round == 2 {
            let raw_before = Some(at(4 * 86_400 + 9_000));
            let prune = Prune { payloads_before: None, raw_before, limit: 10_000 };
            assert!(fx.store.prune(&prune).await.unwrap().done);
        }
        for _ in 0..40 {
            let AggregateQuery { range, filter, .. } = arbitrary_query(&mut random);
            let limit = random.one(&[0, 1, 3, 10, 200]);
            let expected = fx.store.slowest_executions(&range, &filter, limit).await.unwrap();
            let query = StatsQuery { range, filter };
            let found = analytics.slowest_executions(&query, limit).await.unwrap();
            assert_eq!(found, expected, "{query:?} {limit}");
        }
    }
}

/// A pending call has no latency, and a finished one may have none.
pub async fn calls_without_a_latency_are_not_among_the_slowest(fx: Fixture) {
    let (usage, mut unmeasured) = call(at(1));
    unmeasured.latency_ms = None;
    let (other, mut instant) = call(at(2));
    instant.latency_ms = Some(0);
    let open = pending(&usage, at(3));
    fx.append(&[usage.into(), unmeasured.into(), open.into()]).await;
    let filter = Filter::default();
    let found = fx.store.slowest_executions(&TimeRange::all(), &filter, 9).await.unwrap();
    assert_eq!(found, []);
    fx.append(&[other.into(), instant.clone().into()]).await;
    let found = fx.store.slowest_executions(&TimeRange::all(), &filter, 9).await.unwrap();
    assert_eq!(found, [LlmExecution { payload: None, ..instant }]);
}
