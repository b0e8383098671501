//! Expectations computed by hand, and a recount of seeded random records by plain loops.

mod comparison;

use serde::Serialize;
use serde_json::{Value, json};

use super::*;
use crate::cost::{Cost, UnpricedReason};
use crate::error::ErrorKind;
use crate::id::{ExecutionId, UsageId};
use crate::memory::MemoryStore;
use crate::prompt::{Prompt, PromptStatus};
use crate::record::{Attribution, ExecutionPayload, LlmExecution, Record, Usage};
use crate::status::{ErrorCategory, Status};
use crate::store::{PromptStore, RecordStore};
use crate::tokens::TokenCounts;

const DOLLAR: i128 = 1_000_000_000_000;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn between(from: &str, to: &str) -> StatsQuery {
    TimeRange::new(Some(at(from)), Some(at(to))).unwrap().into()
}

fn json(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap()
}

fn of(prompt: PromptId, version: u32, environment: &str) -> Attribution {
    let environment = environment.parse().unwrap();
    Attribution { prompt, version, environment, session: None, user: None }
}

fn render(attribution: Attribution, when: &str) -> Record {
    Usage { id: UsageId::new(), attribution, created_at: at(when), payload: None }.into()
}

fn call(attribution: Attribution, model: &str, when: &str) -> LlmExecution {
    let (provider, model) = ("openai".parse().unwrap(), model.parse().unwrap());
    let (id, usage) = (ExecutionId::new(), UsageId::new());
    LlmExecution::pending(id, usage, attribution, provider, model, at(when))
}

/// Ends a call: priced if `usd` is given.
fn done(mut call: LlmExecution, status: Status, usd: Option<&str>) -> LlmExecution {
    call.status = status;
    call.completed_at = Some(call.created_at);
    call.cost = Some(match usd {
        Some(usd) => Cost::Reported { usd: usd.parse().unwrap() },
        None => Cost::unpriced(UnpricedReason::UnknownModel),
    });
    call
}

fn failed(
    call: LlmExecution,
    status: Status,
    category: ErrorCategory,
    message: &str,
) -> LlmExecution {
    let mut call = done(call, status, None);
    call.error_category = Some(category);
    call.http_status = Some(500);
    let error_message = Some(message.to_owned());
    call.payload = Some(ExecutionPayload { error_message, ..ExecutionPayload::default() });
    call
}

async fn prompt(store: &MemoryStore, slug: &str) -> PromptId {
    let id = PromptId::new();
    let now = at("2026-01-01T00:00:00Z");
    let prompt = Prompt {
        id,
        slug: slug.parse().unwrap(),
        name: slug.into(),
        description: None,
        status: PromptStatus::Active,
        parameters: vec![],
        active_version: None,
        latest_version: 0,
        revision: 1,
        created_at: now,
        updated_at: now,
    };
    store.insert_prompt(&prompt, &[]).await.unwrap();
    id
}

struct Fixture {
    store: Arc<MemoryStore>,
    alpha: PromptId,
    beta: PromptId,
    gone: PromptId,
}

impl Fixture {
    fn analytics(&self) -> Analytics {
        let store: Arc<MemoryStore> = Arc::clone(&self.store);
        Analytics::new(store).in_zone("Europe/Berlin".parse().unwrap())
    }
}

/// Around 2026-03-29 in Berlin, a day of 23 hours that starts at 23:00 UTC and ends at 22:00 UTC.
async fn fixture() -> Fixture {
    let store = Arc::new(MemoryStore::new());
    let (alpha, beta) = (prompt(&store, "alpha").await, prompt(&store, "beta").await);
    let gone = PromptId::new();

    let mut priced = done(
        call(of(alpha, 1, "production"), "small", "2026-03-28T22:30:00Z"),
        Status::Success,
        Some("0.1"),
    );
    priced.latency_ms = Some(100);
    priced.time_to_first_token_ms = Some(10);
    let counts = TokenCounts {
        input: 100,
        output: 20,
        cache_read: 30,
        cache_write: 5,
        reasoning: 7,
        ..TokenCounts::default()
    };
    priced.tokens = Some(counts.check().unwrap());
    let mut unpriced =
        done(call(of(alpha, 2, "staging"), "large", "2026-03-28T23:30:00Z"), Status::Success, None);
    unpriced.latency_ms = Some(300);
    let counts = TokenCounts { input: 10, output: 1, ..TokenCounts::default() };
    unpriced.tokens = Some(counts.check().unwrap());
    let dear = done(
        call(of(beta, 1, "production"), "large", "2026-03-29T21:59:59Z"),
        Status::Success,
        Some("0.2"),
    );
    let cancelled = call(of(beta, 1, "production"), "small", "2026-03-29T01:00:00Z");
    let category = ErrorCategory::Cancelled;
    let cancelled = failed(cancelled, Status::Cancelled, category, "cancelled by the caller");
    let timeout = call(of(alpha, 2, "production"), "large", "2026-03-30T22:30:00Z");
    let timeout = failed(timeout, Status::Timeout, ErrorCategory::Timeout, "30 s are over");
    let error = call(of(gone, 1, "production"), "small", "2026-03-29T10:00:00Z");
    let error = failed(error, Status::Error, ErrorCategory::Server, "oops");
    let unnamed = call(of(alpha, 1, "production"), "small", "2026-03-29T10:30:00Z");
    let unnamed = done(unnamed, Status::Error, None);
    let pending = call(of(alpha, 1, "production"), "small", "2026-03-29T10:00:00Z");
    let records = [
        render(of(alpha, 1, "production"), "2026-03-28T22:30:00Z"),
        render(of(alpha, 1, "production"), "2026-03-29T21:59:59Z"),
        render(of(alpha, 2, "staging"), "2026-03-28T23:30:00Z"),
        render(of(beta, 1, "production"), "2026-03-29T01:00:00Z"),
        priced.into(),
        unpriced.into(),
        dear.into(),
        cancelled.into(),
        timeout.into(),
        error.into(),
        unnamed.into(),
        pending.into(),
    ];
    store.append(&records).await.unwrap();
    Fixture { store, alpha, beta, gone }
}

#[tokio::test]
async fn usage_stats_are_what_a_hand_count_says() {
    let stats = fixture().await.analytics().usage_stats(&StatsQuery::default()).await.unwrap();
    let slice = |key: &str,
                 uses: Value,
                 executions: u64,
                 cost: &str,
                 priced: u64,
                 unpriced: u64| {
        let share = executions as f64 / 8.0;
        json!({
            "key": key, "uses": uses, "executions": executions, "cost_usd": cost, "priced": priced,
            "unpriced": unpriced, "share": share,
        })
    };
    let representative = crate::histogram::representative(crate::histogram::bucket_of(300));
    let first = json!({"average": 10.0, "p50": 10.0, "p90": 10.0, "p95": 10.0, "p99": 10.0});
    let low = crate::histogram::representative(crate::histogram::bucket_of(100));
    assert_eq!(
        json(&stats),
        json!({
            "total_uses": 4,
            "total_executions": 8,
            "by_status": {"pending": 1, "success": 3, "error": 2, "timeout": 1, "cancelled": 1},
            "success_rate": 3.0 / 7.0,
            "error_rate": 3.0 / 7.0,
            "total_cost_usd": "0.3",
            "priced": 2,
            "unpriced": 5,
            "tokens": {
                "input": 110, "output": 21, "total": 131, "cache_read": 30, "cache_write": 5,
                "reasoning": 7, "reported": 2,
            },
            "average_tokens": 65.5,
            "latency_ms": {
                "average": 200.0, "p50": low, "p90": representative, "p95": representative,
                "p99": representative,
            },
            "time_to_first_token_ms": first,
            "by_environment": [
                slice("production", json!(3), 7, "0.3", 2, 4),
                slice("staging", json!(1), 1, "0", 0, 1),
            ],
            "by_model": [
                slice("large", Value::Null, 3, "0.2", 1, 2),
                slice("small", Value::Null, 5, "0.1", 1, 3),
            ],
            "rounded": false,
            "missing_before": null,
        })
    );
}

#[tokio::test]
async fn an_empty_store_has_no_rates_and_costs_nothing() {
    let analytics = Analytics::new(Arc::new(MemoryStore::new()));
    let all = StatsQuery::default();
    let none = json!({"average": null, "p50": null, "p90": null, "p95": null, "p99": null});
    assert_eq!(
        json(&analytics.usage_stats(&all).await.unwrap()),
        json!({
            "total_uses": 0,
            "total_executions": 0,
            "by_status": {"pending": 0, "success": 0, "error": 0, "timeout": 0, "cancelled": 0},
            "success_rate": null,
            "error_rate": null,
            "total_cost_usd": "0",
            "priced": 0,
            "unpriced": 0,
            "tokens": {
                "input": 0, "output": 0, "total": 0, "cache_read": 0, "cache_write": 0,
                "reasoning": 0, "reported": 0,
            },
            "average_tokens": null,
            "latency_ms": none,
            "time_to_first_token_ms": none,
            "by_environment": [],
            "by_model": [],
            "rounded": false,
            "missing_before": null,
        })
    );
    for by in GroupBy::ALL {
        assert_eq!(
            json(&analytics.cost_breakdown(*by, &all).await.unwrap()),
            json!({
                "by": by.as_str(), "rows": [], "rest": null, "total_executions": 0,
                "total_cost_usd": "0", "total_priced": 0, "total_unpriced": 0,
                "rounded": false, "missing_before": null,
            })
        );
    }
    assert_eq!(
        json(&analytics.error_analysis(&all, None).await.unwrap()),
        json!({
            "total_executions": 0, "finished": 0, "errors": 0, "error_rate": null,
            "by_category": [], "by_prompt": [], "trend": [], "recent": [],
            "rounded": false, "missing_before": null,
        })
    );
    assert_eq!(analytics.top_prompts(TopBy::default(), 10, &all).await.unwrap().rows, []);
    let day = between("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
    assert_eq!(analytics.error_analysis(&day, None).await.unwrap().trend.len(), 24);
}

#[tokio::test]
async fn uses_are_unknown_where_the_filter_names_what_only_an_execution_has() {
    let fixture = fixture().await;
    let mut query = StatsQuery::default();
    query.filter.model = Some("small".parse().unwrap());
    let stats = fixture.analytics().usage_stats(&query).await.unwrap();
    assert_eq!((stats.total_uses, stats.total_executions), (None, 5));
    let performance = fixture.analytics().prompt_performance(fixture.alpha, &query).await.unwrap();
    assert!(performance.cost_by_day.iter().all(|day| day.tally.uses.is_none()));
    let refused = fixture.analytics().top_prompts(TopBy::Uses, 10, &query).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    let top = fixture.analytics().top_prompts(TopBy::Errors, 10, &query).await.unwrap();
    assert_eq!(top.rows.len(), 2);
}

#[tokio::test]
async fn the_days_of_a_prompt_have_no_gap_where_clocks_change() {
    let fixture = fixture().await;
    // From inside the 27th to inside the 31st in Berlin.
    let query = between("2026-03-27T12:00:00Z", "2026-03-31T10:00:00Z");
    let slug: Slug = "alpha".parse().unwrap();
    let performance = fixture.analytics().prompt_performance(&slug, &query).await.unwrap();
    let day = |day: &str, uses: u64, executions: u64, cost: &str, priced: u64, unpriced: u64| {
        json!({
            "day": day, "uses": uses, "executions": executions, "cost_usd": cost,
            "priced": priced, "unpriced": unpriced,
        })
    };
    let whole = json(&performance);
    assert_eq!(
        whole["cost_by_day"],
        json!([
            day("2026-03-27", 0, 0, "0", 0, 0),
            day("2026-03-28", 1, 1, "0.1", 1, 0),
            day("2026-03-29", 2, 3, "0", 0, 2),
            day("2026-03-30", 0, 0, "0", 0, 0),
            day("2026-03-31", 0, 1, "0", 0, 1),
        ])
    );
    assert_eq!(
        whole["by_version"],
        json!([
            {
                "key": "1", "uses": 2, "executions": 3, "cost_usd": "0.1", "priced": 1,
                "unpriced": 1, "success_rate": 0.5, "average_latency_ms": 100.0,
            },
            {
                "key": "2", "uses": 1, "executions": 2, "cost_usd": "0", "priced": 0,
                "unpriced": 2, "success_rate": 0.5, "average_latency_ms": 300.0,
            },
        ])
    );
    assert_eq!(whole["prompt"], "alpha");
    assert_eq!(whole["total_executions"], 5);
    assert_eq!(whole["by_model"][0]["share"], 0.6);

    let of_prompt =
        |prompt| StatsQuery { filter: Filter { prompt, ..Filter::default() }, ..query.clone() };
    let stats = fixture.analytics().usage_stats(&of_prompt(Some(fixture.alpha))).await.unwrap();
    assert_eq!(performance.stats, stats);

    let open = fixture.analytics().prompt_performance(&slug, &StatsQuery::default()).await.unwrap();
    assert_eq!(open.cost_by_day, performance.cost_by_day[1..]);
}

#[tokio::test]
async fn a_prompt_that_is_gone_is_named_by_its_id_and_one_that_never_was_is_not_found() {
    let fixture = fixture().await;
    let (analytics, all) = (fixture.analytics(), StatsQuery::default());
    let gone = analytics.prompt_performance(fixture.gone, &all).await.unwrap();
    assert_eq!((gone.prompt, gone.stats.total_executions), (fixture.gone.to_string(), 1));
    let known = analytics.prompt_performance(fixture.beta, &all).await.unwrap();
    assert_eq!(known.prompt, "beta");
    let unknown = analytics.prompt_performance(PromptId::new(), &all).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    let slug: Slug = "gamma".parse().unwrap();
    let unknown = analytics.prompt_performance(slug, &all).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    assert!(unknown.to_string().contains("gamma"), "{unknown}");
}

#[tokio::test]
async fn costs_are_broken_down_by_each_thing() {
    let fixture = fixture().await;
    let (analytics, all) = (fixture.analytics(), StatsQuery::default());
    let gone = fixture.gone;
    let mut answers = BTreeMap::new();
    for by in GroupBy::ALL {
        let costs = analytics.cost_breakdown(*by, &all).await.unwrap();
        assert_eq!(costs.total_cost_usd.to_string(), "0.3", "{by}");
        assert_eq!((costs.total_priced, costs.total_unpriced), (2, 5), "{by}");
        assert_eq!(costs.rows.iter().map(|row| row.executions).sum::<u64>(), 8, "{by}");
        let short = |row: &CostRow| format!("{}={} {}", row.label, row.cost_usd, row.unpriced);
        answers.insert(by.as_str(), costs.rows.iter().map(short).collect::<Vec<_>>());
    }
    assert_eq!(answers["prompt"][..2], ["beta=0.2 1", "alpha=0.1 3"]);
    assert_eq!(answers["prompt"][2], format!("{gone}=0 1"));
    assert_eq!(answers["version"][..2], ["beta v1=0.2 1", "alpha v1=0.1 1"]);
    assert!(answers["version"].contains(&format!("{gone} v1=0 1")));
    assert_eq!(answers["model"], ["large=0.2 2", "small=0.1 3"]);
    assert_eq!(answers["provider"], ["openai=0.3 5"]);
    assert_eq!(answers["environment"], ["production=0.3 4", "staging=0 1"]);
    assert_eq!(
        answers["day"],
        ["2026-03-28=0.1 0", "2026-03-29=0.2 4", "2026-03-30=0 0", "2026-03-31=0 1"]
    );
    // From 23:00 to 00:00 three days later, less the hour that the clocks skip.
    assert_eq!(answers["hour"].len(), 49);
    answers.get_mut("hour").unwrap().retain(|row| !row.ends_with("=0 0"));
    assert_eq!(
        answers["hour"],
        [
            "2026-03-28T23:00+01:00=0.1 0",
            "2026-03-29T00:00+01:00=0 1",
            "2026-03-29T03:00+02:00=0 1",
            "2026-03-29T12:00+02:00=0 2",
            "2026-03-29T23:00+02:00=0.2 0",
            "2026-03-31T00:00+02:00=0 1",
        ]
    );
    let costs = analytics.cost_breakdown(GroupBy::Version, &all).await.unwrap();
    assert_eq!(
        json(&costs.rows[1]),
        json!({
            "key": "alpha@1", "label": "alpha v1", "executions": 3, "cost_usd": "0.1", "priced": 1,
            "unpriced": 1, "input_tokens": 100, "output_tokens": 20,
        })
    );
    let costs = analytics.cost_breakdown(GroupBy::Prompt, &all).await.unwrap();
    assert_eq!(costs.rows[1].key, Some(fixture.alpha.to_string()));
}

#[tokio::test]
async fn sessions_and_users_are_listed_by_cost_with_those_that_have_none() {
    let store = Arc::new(MemoryStore::new());
    let prompt = prompt(&store, "alpha").await;
    let mut records: Vec<Record> = Vec::new();
    for (session, user, usd) in [
        (Some("a"), Some("ada"), Some("0.1")),
        (Some("a"), None, Some("0.2")),
        (Some("(none)"), Some("ada"), Some("0.05")),
        (None, None, Some("0.15")),
        (Some("c"), None, None),
        (Some("d"), None, Some("0.01")),
    ] {
        let label = |text: Option<&str>| text.map(|text| text.parse().unwrap());
        let mut attribution = of(prompt, 1, "test");
        (attribution.session, attribution.user) = (label(session), label(user));
        let call = call(attribution, "small", "2026-03-28T22:30:00Z");
        records.push(done(call, Status::Success, usd).into());
    }
    store.append(&records).await.unwrap();
    let analytics = Analytics::new(store);
    let all = StatsQuery::default();
    let costs = analytics.cost_breakdown(GroupBy::Session, &all).await.unwrap();
    let short = |costs: &CostBreakdown| {
        let row = |row: &CostRow| (row.key.clone(), row.cost_usd.to_string());
        costs.rows.iter().map(row).collect::<Vec<_>>()
    };
    let some = |key: &str, usd: &str| (Some(key.to_owned()), usd.to_owned());
    let none = |usd: &str| (None, usd.to_owned());
    let sessions = [some("a", "0.3"), none("0.15"), some("(none)", "0.05"), some("d", "0.01")];
    assert_eq!(short(&costs)[..4], sessions);
    assert_eq!(costs.rows[1].label, "(none)");
    let users = analytics.cost_breakdown(GroupBy::User, &all).await.unwrap();
    assert_eq!(short(&users), [none("0.36"), some("ada", "0.15")]);

    assert_eq!(costs.clone().first(5), costs);
    let first = costs.first(2);
    assert_eq!(short(&first), sessions[..2]);
    let cut = first.first(1);
    assert_eq!(short(&cut), sessions[..1]);
    assert_eq!(
        json(&cut.rest),
        json!({
            "rows": 4, "executions": 4, "cost_usd": "0.21", "priced": 3, "unpriced": 1,
            "input_tokens": 0, "output_tokens": 0,
        })
    );
    assert_eq!(cut.total_cost_usd.to_string(), "0.51");
}

#[tokio::test]
async fn hours_without_calls_are_in_the_breakdown_too() {
    let analytics = fixture().await.analytics();
    // The clocks are put forward at 01:00 UTC.
    let query = between("2026-03-28T22:00:00Z", "2026-03-29T02:00:00Z");
    let costs = analytics.cost_breakdown(GroupBy::Hour, &query).await.unwrap();
    let row = |row: &CostRow| format!("{} {}", row.label, row.executions);
    assert_eq!(
        costs.rows.iter().map(row).collect::<Vec<_>>(),
        [
            "2026-03-28T23:00+01:00 1",
            "2026-03-29T00:00+01:00 1",
            "2026-03-29T01:00+01:00 0",
            "2026-03-29T03:00+02:00 1",
        ]
    );
    let long = between("1900-01-01T00:00:00Z", "2026-01-01T00:00:00Z");
    let refused = analytics.cost_breakdown(GroupBy::Hour, &long).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn no_question_reads_more_than_it_shows() {
    let fixture = fixture().await;
    let (analytics, explanation) = fixture.analytics().explained();
    let all = StatsQuery::default();
    let asked = || {
        let short = |one: Explained| {
            let Explained { query, .. } = one;
            let by: Vec<_> = query.group_by.iter().map(|by| format!("{by:?}")).collect();
            let bucket = query.bucket.map(|bucket| bucket.width.to_string());
            format!("{} {} {:?}", by.join("+"), bucket.unwrap_or_default(), query.detail)
        };
        explanation.take().into_iter().map(short).collect::<Vec<_>>()
    };
    analytics.usage_stats(&all).await.unwrap();
    assert_eq!(asked(), ["Environment  Full", "Model  Sums"]);
    analytics.prompt_performance(fixture.alpha, &all).await.unwrap();
    assert_eq!(asked(), ["Environment  Full", "Version  Sums", "Model  Sums", " day Sums"]);
    for by in GroupBy::ALL {
        analytics.cost_breakdown(*by, &all).await.unwrap();
        let found = asked();
        assert_eq!(found.len(), 1, "{by}");
        assert!(found[0].ends_with("Calls"), "{by}: {found:?}");
    }
    analytics.error_analysis(&all, None).await.unwrap();
    assert_eq!(asked(), ["Prompt  Calls", " day Calls"]);
    analytics.top_prompts(TopBy::Cost, 1, &all).await.unwrap();
    assert_eq!(asked(), ["Prompt  Sums"]);
    analytics.compare(&between("2026-03-29T00:00:00Z", "2026-03-30T00:00:00Z")).await.unwrap();
    assert_eq!(asked(), ["  Full", "  Full"]);
    assert_eq!(asked(), Vec::<String>::new());
}

#[test]
fn an_answer_of_several_parts_leaves_out_what_any_of_them_does() {
    let part = |rounded, missing_before| Aggregate {
        reading: crate::aggregate::Reading { rounded, missing_before, ..Default::default() },
        ..Aggregate::default()
    };
    let (early, late) = (Some(at("2026-01-01T00:00:00Z")), Some(at("2026-02-01T00:00:00Z")));
    assert_eq!(Gaps::of([&part(false, None), &part(false, None)]), Gaps::default());
    let gaps = Gaps::of([&part(true, None), &part(false, late), &part(false, early)]);
    assert_eq!(gaps, Gaps { rounded: true, missing_before: late });
    assert_eq!(
        json(&gaps),
        json!({
            "rounded": true, "missing_before": "2026-02-01T00:00:00.000000Z",
        })
    );
}

#[test]
fn a_breakdown_or_ranking_that_is_not_known_is_refused_with_those_that_are() {
    let refused = "team".parse::<GroupBy>().unwrap_err().to_string();
    assert!(
        refused.contains("prompt, version, model, provider, environment, hour, day, session, user")
    );
    let refused = "speed".parse::<TopBy>().unwrap_err().to_string();
    assert!(refused.contains("uses, cost, errors"), "{refused}");
}

#[tokio::test]
async fn errors_are_told_by_category_prompt_and_time() {
    let fixture = fixture().await;
    let (analytics, gone) = (fixture.analytics(), fixture.gone);
    let query = between("2026-03-28T23:00:00Z", "2026-03-31T22:00:00Z");
    let analysis = analytics.error_analysis(&query, Some(BucketWidth::Day)).await.unwrap();
    let mut whole = json(&analysis);
    let third = 1.0 / 3.0;
    assert_eq!(
        [&whole["total_executions"], &whole["finished"], &whole["errors"], &whole["error_rate"]],
        [&json!(7), &json!(6), &json!(3), &json!(0.5)]
    );
    assert_eq!(
        whole["by_category"],
        json!([
            {"category": "timeout", "count": 1, "share": third},
            {"category": "server", "count": 1, "share": third},
            {"category": "other", "count": 1, "share": third},
        ])
    );
    assert_eq!(
        whole["by_prompt"],
        json!([
            {
                "key": fixture.alpha, "label": "alpha", "executions": 4, "finished": 3,
                "errors": 2, "error_rate": 2.0 / 3.0,
            },
            {
                "key": gone, "label": gone, "executions": 1, "finished": 1, "errors": 1,
                "error_rate": 1.0,
            },
        ])
    );
    assert_eq!(
        whole["trend"],
        json!([
            {"bucket": "2026-03-29", "executions": 6, "errors": 2, "error_rate": 0.4},
            {"bucket": "2026-03-30", "executions": 0, "errors": 0, "error_rate": null},
            {"bucket": "2026-03-31", "executions": 1, "errors": 1, "error_rate": 1.0},
        ])
    );
    let recent = whole["recent"].as_array_mut().unwrap();
    assert!(recent.iter_mut().all(|one| one.as_object_mut().unwrap().remove("id").is_some()));
    assert_eq!(
        whole["recent"],
        json!([
            {
                "created_at": "2026-03-30T22:30:00.000000Z", "prompt": "alpha",
                "provider": "openai", "model": "large", "status": "timeout",
                "error_category": "timeout", "error_message": "30 s are over", "http_status": 500,
            },
            {
                "created_at": "2026-03-29T10:30:00.000000Z", "prompt": "alpha",
                "provider": "openai", "model": "small", "status": "error",
                "error_category": null, "error_message": null, "http_status": null,
            },
            {
                "created_at": "2026-03-29T10:00:00.000000Z", "prompt": gone,
                "provider": "openai", "model": "small", "status": "error",
                "error_category": "server", "error_message": "oops", "http_status": 500,
            },
        ])
    );
}

#[tokio::test]
async fn the_trend_is_by_hour_up_to_three_days_and_by_day_beyond() {
    let analytics = fixture().await.analytics();
    // Three local days over the change of clocks are 71 hours.
    let query = between("2026-03-27T23:00:00Z", "2026-03-30T22:00:00Z");
    let trend = analytics.error_analysis(&query, None).await.unwrap().trend;
    assert_eq!(trend.len(), 71);
    assert_eq!(trend[0].bucket, "2026-03-28T00:00+01:00");
    assert_eq!(trend[25].bucket, "2026-03-29T01:00+01:00");
    assert_eq!(trend[26].bucket, "2026-03-29T03:00+02:00");
    let query = between("2026-03-27T23:00:00Z", "2026-03-30T23:00:00Z");
    assert_eq!(analytics.error_analysis(&query, None).await.unwrap().trend.len(), 72);
    let query = between("2026-03-27T23:00:00Z", "2026-03-30T23:00:00.000001Z");
    assert_eq!(analytics.error_analysis(&query, None).await.unwrap().trend.len(), 4);
    let long = between("1900-01-01T00:00:00Z", "2026-01-01T00:00:00Z");
    let refused = analytics.error_analysis(&long, Some(BucketWidth::Hour)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn only_failures_are_recent_whatever_status_is_asked_for() {
    let analytics = fixture().await.analytics();
    let mut query = StatsQuery::default();
    query.filter.statuses = vec![Status::Success];
    assert_eq!(analytics.error_analysis(&query, None).await.unwrap().recent, []);
    query.filter.statuses = vec![Status::Success, Status::Timeout];
    let recent = analytics.error_analysis(&query, None).await.unwrap().recent;
    assert_eq!(recent.len(), 1);
}

#[tokio::test]
async fn prompts_are_ranked_by_uses_cost_and_errors() {
    let fixture = fixture().await;
    let (analytics, all) = (fixture.analytics(), StatsQuery::default());
    let uses = analytics.top_prompts(TopBy::Uses, 10, &all).await.unwrap();
    assert_eq!(
        json(&uses.rows),
        json!([
            {
                "rank": 1, "key": fixture.alpha, "label": "alpha", "uses": 3, "executions": 5,
                "cost_usd": "0.1", "priced": 1, "unpriced": 3, "errors": 2, "error_rate": 0.5,
            },
            {
                "rank": 2, "key": fixture.beta, "label": "beta", "uses": 1, "executions": 2,
                "cost_usd": "0.2", "priced": 1, "unpriced": 1, "errors": 0, "error_rate": 0.0,
            },
        ])
    );
    let labels = |top: TopPrompts| top.rows.into_iter().map(|row| row.label).collect::<Vec<_>>();
    let gone = fixture.gone.to_string();
    let cost = analytics.top_prompts(TopBy::Cost, 10, &all).await.unwrap();
    assert_eq!(labels(cost), ["beta", "alpha", &gone]);
    let errors = analytics.top_prompts(TopBy::Errors, 10, &all).await.unwrap();
    assert_eq!(labels(errors), ["alpha", &gone]);
    let one = analytics.top_prompts(TopBy::Errors, 1, &all).await.unwrap();
    assert_eq!(labels(one), ["alpha"]);
}

#[tokio::test]
async fn names_are_found_beyond_the_first_page_of_prompts() {
    let store = Arc::new(MemoryStore::new());
    for number in 0..600 {
        prompt(&store, &format!("a-{number:03}")).await;
    }
    let last = prompt(&store, "z").await;
    store.append(&[render(of(last, 1, "test"), "2026-01-01T00:00:00Z")]).await.unwrap();
    let all = StatsQuery::default();
    let top = Analytics::new(store).top_prompts(TopBy::Uses, 10, &all).await.unwrap();
    assert_eq!(top.rows[0].label, "z");
}

#[tokio::test]
async fn random_records_are_answered_as_plain_loops_count_them() {
    let mut random = fastrand::Rng::with_seed(20_260_329);
    let store = Arc::new(MemoryStore::new());
    let mut prompts = vec![PromptId::new()];
    for slug in ["one", "two", "three"] {
        prompts.push(prompt(&store, slug).await);
    }
    let start = at("2026-03-26T00:00:00Z");
    let mut calls = Vec::new();
    for _ in 0..2_000 {
        let attribution = of(
            prompts[random.usize(..prompts.len())],
            random.u32(1..4),
            if random.bool() { "production" } else { "test" },
        );
        let model = ["a", "b", "c"][random.usize(..3)];
        let mut one = call(attribution, model, "2026-03-26T00:00:00Z");
        let minutes = random.u64(0..10 * 24 * 60);
        one.created_at = start.saturating_add(std::time::Duration::from_secs(minutes * 60));
        let status = Status::ALL[random.usize(..Status::ALL.len())];
        if status.is_final() {
            let usd = format!("0.{:09}", random.u32(..1_000_000_000));
            one = done(one, status, random.bool().then_some(usd.as_str()));
            one.latency_ms = Some(random.u64(0..5_000));
        }
        calls.push(one);
    }
    let records: Vec<Record> = calls.iter().cloned().map(Record::from).collect();
    store.append(&records).await.unwrap();
    let analytics = Analytics::new(store).in_zone("America/New_York".parse().unwrap());
    let query = between("2026-03-27T05:30:00Z", "2026-04-03T17:45:00Z");
    calls.retain(|one| query.range.contains(one.created_at));

    let usd = |keep: &dyn Fn(&LlmExecution) -> bool| {
        let known = calls.iter().filter(|one| keep(one)).filter_map(|one| one.cost?.usd());
        Usd::from_pico(known.map(Usd::to_pico).sum()).unwrap()
    };
    let count = |keep: &dyn Fn(&LlmExecution) -> bool| {
        u64::try_from(calls.iter().filter(|one| keep(one)).count()).unwrap()
    };
    let stats = analytics.usage_stats(&query).await.unwrap();
    assert!(stats.total_cost_usd.to_pico() > 100 * DOLLAR);
    assert_eq!(stats.total_cost_usd, usd(&|_| true));
    assert_eq!(stats.total_executions, count(&|_| true));
    assert_eq!(stats.by_status.timeout, count(&|one| one.status == Status::Timeout));
    assert_eq!(stats.priced, count(&|one| one.cost.is_some_and(|cost| cost.usd().is_some())));
    let (finished, errors) =
        (count(&|one| one.status.is_final()), count(&|one| one.status.is_failure()));
    assert_eq!(stats.error_rate, Some(errors as f64 / finished as f64));
    let mut latencies: Vec<_> = calls.iter().filter_map(|one| one.latency_ms).collect();
    latencies.sort_unstable();
    let mean = latencies.iter().sum::<u64>() as f64 / latencies.len() as f64;
    assert_eq!(stats.latency_ms.average, Some(mean));
    let p95 = latencies[(latencies.len() * 95).div_ceil(100) - 1] as f64;
    assert!((stats.latency_ms.p95.unwrap() / p95 - 1.0).abs() <= 0.012);
    for slice in stats.by_environment.iter() {
        assert_eq!(slice.tally.cost_usd, usd(&|one| *one.attribution.environment == *slice.key));
    }

    let costs = analytics.cost_breakdown(GroupBy::Model, &query).await.unwrap();
    assert_eq!(costs.rows.len(), 3);
    for row in &costs.rows {
        assert_eq!(row.cost_usd, usd(&|one| *one.model == *row.label));
        assert_eq!(row.executions, count(&|one| *one.model == *row.label));
    }
    assert!(costs.rows.is_sorted_by(|a, b| a.cost_usd >= b.cost_usd));

    // New York is four hours behind all week.
    let local_day = |one: &LlmExecution| {
        let local = one.created_at.saturating_sub(std::time::Duration::from_secs(4 * 3_600));
        local.to_string()[..10].to_owned()
    };
    let performance = analytics.prompt_performance(prompts[2], &query).await.unwrap();
    assert_eq!(performance.cost_by_day.len(), 8);
    for day in &performance.cost_by_day {
        let cost = usd(&|one| one.attribution.prompt == prompts[2] && local_day(one) == day.day);
        assert_eq!(day.tally.cost_usd, cost, "{}", day.day);
    }

    let analysis = analytics.error_analysis(&query, None).await.unwrap();
    assert_eq!((analysis.finished, analysis.errors), (finished, errors));
    assert_eq!(analysis.trend.iter().map(|point| point.errors).sum::<u64>(), errors);
    assert_eq!(analysis.by_prompt.iter().map(|row| row.errors).sum::<u64>(), errors);
    assert_eq!(analysis.recent.len(), 10);
    calls.sort_by_key(|one| std::cmp::Reverse((one.created_at, one.id)));
    let last: Vec<_> =
        calls.iter().filter(|one| one.status.is_failure()).map(|one| one.id).take(10).collect();
    assert_eq!(analysis.recent.iter().map(|one| one.id).collect::<Vec<_>>(), last);
}

/// A service spawns these on a runtime with many threads.
#[tokio::test]
async fn every_answer_can_be_sent_to_another_thread() {
    fn sent<T: Send>(of: T) -> T {
        of
    }
    let fixture = fixture().await;
    let (analytics, all) = (fixture.analytics(), StatsQuery::default());
    sent(analytics.usage_stats(&all)).await.unwrap();
    sent(analytics.prompt_performance(fixture.alpha, &all)).await.unwrap();
    sent(analytics.cost_breakdown(GroupBy::Day, &all)).await.unwrap();
    sent(analytics.error_analysis(&all, None)).await.unwrap();
    sent(analytics.top_prompts(TopBy::Cost, 1, &all)).await.unwrap();
    let day = between("2026-03-29T00:00:00Z", "2026-03-30T00:00:00Z");
    sent(analytics.compare(&day)).await.unwrap();
    sent(analytics.compare_versions(fixture.alpha, [1, 2], &all)).await.unwrap_err();
}
