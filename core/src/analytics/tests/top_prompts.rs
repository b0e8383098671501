//! Rankings, against what a hand count says.

use super::*;

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
