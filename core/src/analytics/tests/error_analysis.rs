//! What went wrong, against what a hand count says.

use super::*;

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
    let long = between("1900-01-01T00:00:00Z", "2026-03-30T23:00:00Z");
    let trend = analytics.error_analysis(&long, Some(BucketWidth::Hour)).await.unwrap().trend;
    assert!(trend.iter().all(|point| point.executions > 0) && trend.len() > 2);
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
