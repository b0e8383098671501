//! Where the money goes, against what a hand count says.

use super::*;

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
    // But those of a century are too many.
    let long = between("1900-01-01T00:00:00Z", "2026-03-29T02:00:00Z");
    let costs = analytics.cost_breakdown(GroupBy::Hour, &long).await.unwrap();
    assert!(costs.rows.iter().all(|row| row.executions > 0) && costs.rows.len() > 2);
    assert_eq!(costs.rows.iter().map(|row| row.executions).sum::<u64>(), costs.total_executions);
}
