//! What the tests of the analytics ask about, and what holds for every question.

mod comparison;
mod cost_breakdown;
mod error_analysis;
mod prompt_performance;
mod recount;
mod top_prompts;
mod usage_stats;

use std::sync::Arc;

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
    call.payload =
        Some(Arc::new(ExecutionPayload { error_message, ..ExecutionPayload::default() }));
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
