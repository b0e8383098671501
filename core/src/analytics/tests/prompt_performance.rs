//! How one prompt did, against what a hand count says.

use super::*;

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
