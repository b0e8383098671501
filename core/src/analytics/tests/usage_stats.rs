//! What was used, against what a hand count says.

use super::*;

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
