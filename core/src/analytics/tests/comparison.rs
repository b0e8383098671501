//! Ranges and versions side by side, against what a hand count says.

use super::*;

/// A version of the prompt of `id`, which gets it as its latest.
async fn with_versions(store: &MemoryStore, id: PromptId, count: u32) {
    for number in 1..=count {
        let stored = store.prompt(id).await.unwrap().unwrap();
        let now = stored.created_at;
        let version = crate::prompt::PromptVersion {
            prompt_id: id,
            number,
            content: String::new(),
            system_message: None,
            model: None,
            temperature: None,
            max_tokens: None,
            metadata: Value::Null,
            change_description: None,
            author: None,
            created_at: now,
        };
        let revision = stored.revision + 1;
        let prompt = Prompt { latest_version: number, revision, ..stored };
        store.update_prompt(&prompt, Some(&version)).await.unwrap();
    }
}

#[tokio::test]
async fn a_range_is_compared_with_the_one_of_the_same_length_before() {
    let fixture = fixture().await;
    let query = between("2026-03-29T00:00:00Z", "2026-03-30T00:00:00Z");
    let compared = json(&fixture.analytics().compare(&query).await.unwrap());
    assert_eq!(compared["range_before"]["from"], "2026-03-28T00:00:00.000000Z");
    assert_eq!(compared["range_before"]["to"], compared["range"]["from"]);
    let change = |before: Value, now: Value, change: Value, percent: Value| json!({"before": before, "now": now, "change": change, "percent": percent});
    let null = Value::Null;
    for (name, expected) in [
        ("uses", change(json!(2), json!(2), json!(0), json!(0.0))),
        ("executions", change(json!(2), json!(5), json!(3), json!(150.0))),
        ("errors", change(json!(0), json!(2), json!(2), null.clone())),
        ("success_rate", change(json!(1.0), json!(0.25), json!(-0.75), json!(-75.0))),
        ("error_rate", change(json!(0.0), json!(0.5), json!(0.5), null.clone())),
        ("total_cost_usd", change(json!("0.1"), json!("0.2"), json!("0.1"), json!(100.0))),
        ("cost_per_call_usd", change(json!("0.1"), json!("0.2"), json!("0.1"), json!(100.0))),
        ("priced", change(json!(1), json!(1), json!(0), json!(0.0))),
        ("unpriced", change(json!(1), json!(3), json!(2), json!(200.0))),
        ("total_tokens", change(json!(131), json!(0), json!(-131), json!(-100.0))),
        ("average_tokens", change(json!(65.5), null.clone(), null.clone(), null.clone())),
        ("average_latency_ms", change(json!(200.0), null.clone(), null.clone(), null.clone())),
        ("p50_time_to_first_token_ms", change(json!(10.0), null.clone(), null.clone(), null)),
    ] {
        assert_eq!(compared[name], expected, "{name}");
    }
    // Turned round it costs less: money that falls is negative.
    let query = between("2026-03-29T22:00:00Z", "2026-03-31T00:00:00Z");
    let compared = json(&fixture.analytics().compare(&query).await.unwrap());
    let cost = change(json!("0.3"), Value::Null, Value::Null, Value::Null);
    assert_eq!(compared["total_cost_usd"], cost);
    let query = between("2026-03-31T00:00:00Z", "2026-04-03T00:00:00Z");
    let compared = json(&fixture.analytics().compare(&query).await.unwrap());
    let cost = change(json!("0.3"), json!("0"), json!("-0.3"), json!(-100.0));
    assert_eq!(compared["total_cost_usd"], cost);
}

#[tokio::test]
async fn a_range_without_both_ends_has_none_before_it() {
    let analytics = fixture().await.analytics();
    let from = Some(at("2026-03-29T00:00:00Z"));
    for range in
        [TimeRange::all(), TimeRange { from, to: None }, TimeRange { from: None, to: from }]
    {
        let refused = analytics.compare(&range.into()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
        assert!(refused.to_string().contains("start and an end"), "{refused}");
    }
    let refused = analytics.compare(&between("0001-01-01T00:00:00Z", "0003-01-01T00:00:00Z")).await;
    assert!(refused.unwrap_err().to_string().contains("0001"));
}

#[tokio::test]
async fn two_versions_of_a_prompt_stand_side_by_side() {
    let fixture = fixture().await;
    with_versions(&fixture.store, fixture.alpha, 3).await;
    let (analytics, all) = (fixture.analytics(), StatsQuery::default());
    let slug: Slug = "alpha".parse().unwrap();
    let compared = analytics.compare_versions(&slug, [1, 2], &all).await.unwrap();
    assert_eq!((compared.prompt.as_str(), compared.version_now), ("alpha", 2));
    let of = compared.changes;
    assert_eq!((of.uses.before, of.uses.now), (Some(2), Some(1)));
    assert_eq!((of.executions.before, of.executions.now), (Some(3), Some(2)));
    assert_eq!((of.success_rate.before, of.success_rate.now), (Some(0.5), Some(0.5)));
    // No cost of version 2 is known.
    assert_eq!((of.total_cost_usd.now, of.total_cost_usd.change), (None, None));
    assert_eq!(
        (of.average_latency_ms.before, of.average_latency_ms.now),
        (Some(100.0), Some(300.0))
    );
    let turned = analytics.compare_versions(fixture.alpha, [2, 1], &all).await.unwrap().changes;
    assert_eq!(turned.executions.change, Some(1));
    let unused = analytics.compare_versions(fixture.alpha, [1, 3], &all).await.unwrap().changes;
    assert_eq!((unused.executions.now, unused.success_rate.now), (Some(0), None));
}

#[tokio::test]
async fn a_version_that_does_not_exist_is_named() {
    let fixture = fixture().await;
    with_versions(&fixture.store, fixture.alpha, 2).await;
    let (analytics, all) = (fixture.analytics(), StatsQuery::default());
    let slug: Slug = "alpha".parse().unwrap();
    let refused = analytics.compare_versions(&slug, [1, 9], &all).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    assert_eq!(refused.to_string(), "the prompt alpha has no version 9; its latest is 2");
    let refused = analytics.compare_versions(&slug, [2, 2], &all).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    let refused = analytics.compare_versions(fixture.gone, [1, 2], &all).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
}
