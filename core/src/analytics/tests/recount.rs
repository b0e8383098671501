//! Seeded random records, recounted by plain loops.

use super::*;

const DOLLAR: i128 = 1_000_000_000_000;

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
