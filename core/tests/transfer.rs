//! Moving a store: an export is the same wherever it was imported, however often, and whatever
//! interrupted it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use prompt_engine_core::conformance::arbitrary::Arbitrary;
use prompt_engine_core::testkit::{self, at, call, label, next, prompt, version};
use prompt_engine_core::transfer::{Export, Import, Imported, Line};
use prompt_engine_core::{
    AggregateQuery, CostConfig, CostRevision, Dimension, ErrorKind, LlmExecution, MemoryStore,
    ParameterType, Prompt, PromptId, PromptVersion, Prune, Record, Result, Store, Usage,
};
use serde_json::Value;

async fn export(store: &Arc<dyn Store>) -> Vec<String> {
    let mut export = Export::new(Arc::clone(store));
    let mut lines = Vec::new();
    while let Some(page) = export.next().await.unwrap() {
        lines.extend(page.iter().map(|line| serde_json::to_string(line).unwrap()));
    }
    lines
}

async fn import(store: &Arc<dyn Store>, lines: &[String]) -> Result<Imported> {
    let mut import = Import::new(Arc::clone(store));
    for line in lines {
        import.push(serde_json::from_str(line).unwrap()).await?;
    }
    import.finish().await
}

fn empty() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

/// A store that has something of everything: versions, prices, revised costs (some of them back
/// where they were), pending calls, expired payloads, a raw horizon.
async fn full() -> (Arc<dyn Store>, Vec<Record>) {
    let store = empty();
    let mut random = Arbitrary::new(5, 86_400);
    let prices: Vec<_> = (0..40).map(|n| random.cost_config(&format!("m{n}"))).collect();
    store.put_cost_configs(&prices, 0).await.unwrap();
    for slug in ["b", "a", "no-version-yet"] {
        let (prompt, first) = prompt(slug);
        if slug == "no-version-yet" {
            let bare = Prompt { active_version: None, latest_version: 0, ..prompt };
            store.insert_prompt(&bare, &[]).await.unwrap();
            continue;
        }
        store.insert_prompt(&prompt, &[first]).await.unwrap();
        let second = next(&prompt, 2);
        store.update_prompt(&second, Some(&version(&prompt, 2))).await.unwrap();
        store.update_prompt(&next(&second, 2), None).await.unwrap();
    }
    let records: Vec<Record> = (0..120).flat_map(|_| random.records()).collect();
    store.append(&records).await.unwrap();
    let executions = records.iter().filter_map(|record| match record {
        Record::Execution(execution) => Some(execution),
        Record::Usage(_) => None,
    });
    for (n, execution) in executions.enumerate() {
        let Some(cost) = execution.cost else { continue };
        let there_and_back = [cost, testkit::reported(7), cost, testkit::reported(9)];
        for pair in there_and_back[..=n % 4].windows(2) {
            let revision = CostRevision {
                id: execution.id,
                expected: pair[0],
                past: None,
                new: pair[1],
                priced_model: (n % 3 > 0).then(|| label("revised")),
                at: at(90_000),
            };
            store.revise_costs(&[revision]).await.unwrap();
        }
    }
    let prune =
        Prune { payloads_before: Some(at(30_000)), raw_before: Some(at(10_000)), limit: u32::MAX };
    store.prune(&prune).await.unwrap();
    (store, records)
}

#[tokio::test]
async fn what_was_imported_exports_the_same() {
    let (from, _) = full().await;
    let lines = export(&from).await;
    for kind in
        ["price", "prompt", "version", "raw_horizon", "pruned", "usage", "execution", "past_costs"]
    {
        assert!(lines.iter().any(|line| line.starts_with(&format!("{{\"{kind}\":"))), "{kind}");
    }
    let to = empty();
    let done = import(&to, &lines).await.unwrap();
    assert!(done.complete);
    assert_eq!((done.new_prices, done.new_prompts), (40, 3));
    assert_eq!(done.new_records, done.read.usages + done.read.executions);
    assert_eq!(done.new_pruned, done.read.pruned);
    assert!(done.new_costs > done.read.past_costs);
    assert!(export(&to).await == lines);
    let group_by = vec![Dimension::Environment, Dimension::Prompt, Dimension::Model];
    for query in [AggregateQuery::default(), AggregateQuery { group_by, ..Default::default() }] {
        let (here, there) = (to.aggregate(&query).await, from.aggregate(&query).await);
        assert_eq!(here.unwrap().rows, there.unwrap().rows);
    }
}

/// Fails without the sorting only where some crate turns on `serde_json/preserve_order`.
#[tokio::test]
async fn equal_stores_export_the_same_whatever_the_order_of_keys() {
    let (usage, execution) = call(at(0));
    let (prompt, version) = prompt("a");
    let of = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let fields = |text: &str| of(text).as_object().unwrap().clone();
    let mut exports = Vec::new();
    for text in [r#"{"a":[{"x":1,"y":2}],"b":3}"#, r#"{"b":3,"a":[{"y":2,"x":1}]}"#] {
        let (mut usage, mut execution) = (usage.clone(), execution.clone());
        let (mut prompt, mut version) = (prompt.clone(), version.clone());
        let payload = Arc::make_mut(usage.payload.get_or_insert_default());
        (payload.parameters, payload.metadata) = (fields(text), fields(text));
        let payload = Arc::make_mut(execution.payload.get_or_insert_default());
        (payload.settings, payload.response_metadata) = (fields(text), fields(text));
        prompt.parameters[0].kind = ParameterType::Json;
        (prompt.parameters[0].default, prompt.parameters[0].example) =
            (Some(of(text)), Some(of(text)));
        version.metadata = of(text);
        let store = empty();
        store.insert_prompt(&prompt, &[version]).await.unwrap();
        store.append(&[usage.into(), execution.into()]).await.unwrap();
        exports.push(export(&store).await);
    }
    assert_eq!(exports[0], exports[1]);
}

#[tokio::test]
async fn importing_it_again_changes_nothing() {
    let (from, _) = full().await;
    let lines = export(&from).await;
    let generation = from.price_generation().await.unwrap();
    let done = import(&from, &lines).await.unwrap();
    assert_eq!((done.new_prices, done.new_prompts, done.new_records, done.new_costs), (0, 0, 0, 0));
    assert_eq!(done.new_pruned, 0);
    assert!(export(&from).await == lines);
    assert_eq!(from.price_generation().await.unwrap(), generation);
}

#[tokio::test]
async fn an_import_that_was_cut_short_anywhere_is_taken_up_again() {
    let (from, _) = full().await;
    let lines = export(&from).await;
    for read in (0..lines.len()).step_by(7) {
        let to = empty();
        assert!(!import(&to, &lines[..read]).await.unwrap().complete);
        assert!(import(&to, &lines).await.unwrap().complete);
        assert!(export(&to).await == lines, "cut after {read} lines");
    }
}

#[tokio::test]
async fn a_later_export_brings_what_is_new() {
    let (from, records) = full().await;
    let to = empty();
    import(&to, &export(&from).await).await.unwrap();
    // Pending calls finish, costs change once more, prompts go on, new ones and new calls come.
    let mut random = Arbitrary::new(6, 86_400);
    for record in &records {
        let Record::Execution(execution) = record else { continue };
        let Some(stored) = from.execution(execution.id).await.unwrap() else { continue };
        match stored.cost {
            None => drop(from.append(&[random.finished(&stored).into()]).await.unwrap()),
            Some(expected) => {
                let new = testkit::reported(11);
                let priced_model = None;
                let revision = CostRevision {
                    id: stored.id,
                    expected,
                    past: None,
                    new,
                    priced_model,
                    at: at(99_000),
                };
                from.revise_costs(&[revision]).await.unwrap();
            }
        }
    }
    let a = from.prompt_by_slug(&"a".parse().unwrap()).await.unwrap().unwrap();
    let third = next(&a, 3);
    from.update_prompt(&third, Some(&version(&a, 3))).await.unwrap();
    from.update_prompt(&next(&third, 4), Some(&version(&a, 4))).await.unwrap();
    let (fresh, first) = prompt("c");
    from.insert_prompt(&fresh, &[first]).await.unwrap();
    let (usage, execution) = call(at(50_000));
    from.append(&[usage.into(), execution.into()]).await.unwrap();

    let lines = export(&from).await;
    let done = import(&to, &lines).await.unwrap();
    assert_eq!((done.new_prices, done.new_prompts), (0, 2));
    assert!(done.new_records > 2 && done.new_costs > 0, "{done:?}");
    assert!(export(&to).await == lines);
}

#[tokio::test]
async fn a_prompt_that_went_on_here_stays_and_one_that_differs_is_refused() {
    let (from, _) = full().await;
    let lines = export(&from).await;
    let here = empty();
    import(&here, &lines).await.unwrap();
    let a = here.prompt_by_slug(&"a".parse().unwrap()).await.unwrap().unwrap();
    let on = next(&a, 3);
    here.update_prompt(&on, Some(&version(&a, 3))).await.unwrap();
    assert_eq!(import(&here, &lines).await.unwrap().new_prompts, 0);
    assert_eq!(here.prompt(a.id).await.unwrap(), Some(on));

    let mut other = next(&a, 3);
    other.name = "Changed there".to_owned();
    from.update_prompt(&other, Some(&version(&a, 3))).await.unwrap();
    let error = import(&here, &export(&from).await).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.chain().contains("the prompt a was changed here"), "{}", error.chain());
}

#[tokio::test]
async fn prompts_that_went_two_ways_are_not_mixed() {
    let (from, here) = (empty(), empty());
    let (first, version_1) = prompt("a");
    for store in [&from, &here] {
        store.insert_prompt(&first, std::slice::from_ref(&version_1)).await.unwrap();
    }
    let second = next(&first, 2);
    here.update_prompt(&second, Some(&version(&first, 2))).await.unwrap();
    let other = PromptVersion { content: "another".to_owned(), ..version(&first, 2) };
    from.update_prompt(&second, Some(&other)).await.unwrap();
    from.update_prompt(&next(&second, 3), Some(&version(&first, 3))).await.unwrap();
    let error = import(&here, &export(&from).await).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(here.prompt(first.id).await.unwrap(), Some(second));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_import_by_several_at_once_is_one_import() {
    let (from, _) = full().await;
    let lines = Arc::new(export(&from).await);
    let to = empty();
    let imports = (0..4).map(|_| {
        let (to, lines) = (Arc::clone(&to), Arc::clone(&lines));
        tokio::spawn(async move { import(&to, &lines).await })
    });
    for done in imports.collect::<Vec<_>>() {
        let done = done.await.unwrap().unwrap();
        assert!(done.complete && done.other_costs == 0, "{done:?}");
    }
    assert!(export(&to).await == *lines);
}

#[tokio::test]
async fn prices_that_went_on_here_stay() {
    let from = empty();
    let price = testkit::price("m");
    from.put_cost_configs(std::slice::from_ref(&price), 0).await.unwrap();
    let old = export(&from).await;
    let closed = CostConfig { valid_to: Some(at(0)), ..price.clone() };
    let after = CostConfig { valid_from: Some(at(0)), ..testkit::price("m") };
    from.put_cost_configs(&[closed, after], 1).await.unwrap();
    let new = export(&from).await;
    let done = import(&from, &old).await.unwrap();
    assert_eq!((done.new_prices, done.other_prices), (0, 0));
    assert!(export(&from).await == new);
    // The old one goes on by the new export.
    let to = empty();
    import(&to, &old).await.unwrap();
    assert_eq!(import(&to, &new).await.unwrap().new_prices, 2);
    assert!(export(&to).await == new);
    // One that was replaced is never taken back.
    let replaced = CostConfig { replaced_at: Some(at(9)), ..price };
    to.put_cost_configs(&[replaced], 2).await.unwrap();
    let prices = to.cost_configs().await.unwrap();
    import(&to, &new).await.unwrap();
    assert_eq!(to.cost_configs().await.unwrap(), prices);
}

#[tokio::test]
async fn prices_that_do_not_go_with_those_here_are_left_out_and_counted() {
    let (from, _) = full().await;
    let here = empty();
    let (mine, theirs) = (testkit::price("m"), testkit::price("m"));
    here.put_cost_configs(std::slice::from_ref(&mine), 0).await.unwrap();
    let generation = from.price_generation().await.unwrap();
    from.put_cost_configs(&[theirs], generation).await.unwrap();
    let done = import(&here, &export(&from).await).await.unwrap();
    assert_eq!((done.new_prices, done.other_prices), (40, 1));
    assert!(done.complete && done.new_records > 0);
    assert!(here.cost_configs().await.unwrap().configs.contains(&mine));
}

#[tokio::test]
async fn an_import_that_died_between_a_call_and_its_past_costs_is_taken_up_again() {
    let (from, _) = full().await;
    let lines = export(&from).await;
    let to = empty();
    // What a batch has stored before it revises: each call with what it cost first.
    let mut stored: Vec<Record> = Vec::new();
    for line in &lines {
        match serde_json::from_str(line).unwrap() {
            Line::Execution(execution) => stored.push(execution.into()),
            Line::PastCosts { costs, .. } => {
                if let Some(Record::Execution(execution)) = stored.last_mut() {
                    execution.cost = Some(costs[0].cost);
                    execution.priced_model.clone_from(&costs[0].priced_model);
                }
            }
            _ => {}
        }
    }
    to.append(&stored).await.unwrap();
    let done = import(&to, &lines).await.unwrap();
    assert_eq!((done.new_records, done.other_costs), (done.read.usages, 0));
    assert!(export(&to).await == lines);
}

#[tokio::test]
async fn costs_that_were_changed_otherwise_here_stay_and_are_counted() {
    let (from, to) = (empty(), empty());
    let (usage, execution) = call(at(0));
    let records: [Record; 2] = [usage.into(), execution.clone().into()];
    let revise = |amount| CostRevision {
        id: execution.id,
        expected: execution.cost.unwrap(),
        past: None,
        new: testkit::reported(amount),
        priced_model: None,
        at: at(1),
    };
    for (store, amount) in [(&from, 1), (&to, 2)] {
        store.append(&records).await.unwrap();
        store.revise_costs(&[revise(amount)]).await.unwrap();
    }
    from.revise_costs(&[CostRevision { expected: testkit::reported(1), ..revise(3) }])
        .await
        .unwrap();
    let done = import(&to, &export(&from).await).await.unwrap();
    assert_eq!((done.new_costs, done.other_costs), (0, 1));
    let cost = to.execution(execution.id).await.unwrap().unwrap().cost;
    assert_eq!(cost, Some(testkit::reported(2)));
}

#[tokio::test]
async fn records_from_before_the_horizon_here_are_left_out_and_counted() {
    let (from, _) = full().await;
    let lines = export(&from).await;
    let here = empty();
    let prune = Prune { payloads_before: None, raw_before: Some(at(40_000)), limit: 1 };
    here.prune(&prune).await.unwrap();
    let done = import(&here, &lines).await.unwrap();
    assert!(done.before_horizon > 0 && done.complete);
    assert_eq!(done.before_horizon + done.new_records, done.read.usages + done.read.executions);
    assert_eq!(here.raw_horizon().await.unwrap(), Some(at(39_600)));
}

#[tokio::test]
async fn a_horizon_deletes_nothing_that_is_here() {
    let (from, _) = full().await;
    let here = empty();
    let (usage, execution) = call(at(5));
    let own: [Record; 2] = [usage.clone().into(), execution.into()];
    here.append(&own).await.unwrap();
    // Of those that were pruned there records may still come here.
    let done = import(&here, &export(&from).await).await.unwrap();
    assert!(done.unpruned > 0);
    assert_eq!((done.new_pruned, done.other_pruned, done.unpruned), (0, 0, done.read.pruned));
    assert_eq!(here.raw_horizon().await.unwrap(), None);
    assert_eq!(here.usage(usage.id).await.unwrap(), Some(usage));
    // Once they were pruned here as well, they can.
    let prune = Prune { payloads_before: None, raw_before: Some(at(10_000)), limit: 9 };
    here.prune(&prune).await.unwrap();
    let done = import(&here, &export(&from).await).await.unwrap();
    assert_eq!(done.new_pruned, done.read.pruned);
    assert_eq!(counted(&here).await, counted(&from).await + 2);
}

/// Records that are counted, pruned ones too.
async fn counted(store: &Arc<dyn Store>) -> u64 {
    let rows = store.aggregate(&AggregateQuery::default()).await.unwrap().rows;
    rows.iter().map(|row| row.measures.uses.unwrap() + row.measures.executions()).sum()
}

#[tokio::test]
async fn a_copy_that_keeps_more_than_the_original_takes_later_exports() {
    let (from, copy) = (empty(), empty());
    let calls = |from: i64, to: i64| -> Vec<Record> {
        (from..to).map(|n| call(at(n))).flat_map(|(u, e)| [u.into(), e.into()]).collect()
    };
    from.append(&calls(100, 140)).await.unwrap();
    import(&copy, &export(&from).await).await.unwrap();
    from.append(&calls(2_000, 2_020)).await.unwrap();
    let prune = Prune { payloads_before: None, raw_before: Some(at(1_800)), limit: 99 };
    from.prune(&prune).await.unwrap();
    let done = import(&copy, &export(&from).await).await.unwrap();
    assert!(done.read.pruned > 0);
    assert_eq!((done.new_pruned, done.new_records), (0, 40));
    assert_eq!(copy.raw_horizon().await.unwrap(), None);
    assert_eq!((counted(&copy).await, counted(&from).await), (120, 120));
}

/// A copy that was made seven minutes into a quarter of an hour, while a call was under way.
#[tokio::test]
async fn what_went_on_before_it_was_pruned_is_left_out_and_the_rest_comes() {
    let (from, copy) = (empty(), empty());
    let prompt = PromptId::new();
    let calls = |minutes: std::ops::Range<i64>| -> Vec<Record> {
        let attribution = testkit::attribution(prompt);
        let usages = minutes.map(|minute| Usage {
            attribution: attribution.clone(),
            ..testkit::usage(at(minute * 60))
        });
        let calls = usages.map(|usage| {
            let call = testkit::finished(&testkit::pending(&usage, usage.created_at));
            [usage.into(), call.into()]
        });
        calls.flatten().collect()
    };
    let usage = testkit::usage(at(60));
    let pending = testkit::pending(&usage, at(60));
    from.append(&calls(0..7)).await.unwrap();
    from.append(&[usage.into(), pending.clone().into()]).await.unwrap();
    import(&copy, &export(&from).await).await.unwrap();
    from.append(&calls(7..30)).await.unwrap();
    from.append(&[testkit::finished(&pending).into()]).await.unwrap();
    let prune = Prune { payloads_before: None, raw_before: Some(at(900)), limit: 99 };
    from.prune(&prune).await.unwrap();
    let lines = export(&from).await;

    // The renders and the calls of the prompt went on; the call that was under way has no sum here.
    let done = import(&copy, &lines).await.unwrap();
    assert!(done.complete);
    assert_eq!((done.read.pruned, done.new_pruned), (4, 0));
    assert_eq!((done.other_pruned, done.unpruned), (2, 1));
    assert_eq!(done.new_records, 30);
    assert_eq!((counted(&copy).await, counted(&from).await), (2 * 7 + 2 + 30, 2 * 30 + 2));
    copy.prune(&prune).await.unwrap();
    let done = import(&copy, &lines).await.unwrap();
    assert_eq!((done.new_pruned, done.other_pruned, done.unpruned), (1, 2, 0));
    assert_eq!(counted(&copy).await, 2 * 7 + 2 + 30);
}

#[tokio::test]
async fn an_export_during_which_records_are_pruned_fails() {
    let (from, _) = full().await;
    let mut export = Export::new(Arc::clone(&from));
    for _ in 0..4 {
        export.next().await.unwrap().unwrap();
    }
    let prune = Prune { payloads_before: None, raw_before: Some(at(40_000)), limit: u32::MAX };
    from.prune(&prune).await.unwrap();
    let failed = loop {
        match export.next().await {
            Ok(lines) => assert!(lines.is_some(), "it came to its end"),
            Err(error) => break error,
        }
    };
    assert_eq!(failed.kind(), ErrorKind::Conflict);
    assert!(failed.to_string().contains("export again"), "{failed}");
}

#[tokio::test]
async fn lines_that_are_out_of_place_are_refused() {
    let (from, _) = full().await;
    let lines: Vec<Line> =
        export(&from).await.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let first = || lines[0].clone();
    let find = |is: fn(&Line) -> bool| lines.iter().find(|line| is(line)).unwrap().clone();
    let prompt = find(|line| matches!(line, Line::Prompt(_)));
    let version = find(|line| matches!(line, Line::Version(_)));
    let past = find(|line| matches!(line, Line::PastCosts { .. }));
    let usage = find(|line| matches!(line, Line::Usage(_)));
    let end = lines.last().unwrap().clone();
    let cases = [
        (vec![usage.clone()], ErrorKind::Invalid, "starts with the line"),
        (vec![Line::PromptEngineExport(2)], ErrorKind::Unsupported, "version 2"),
        (vec![first(), first()], ErrorKind::Invalid, "a second first line"),
        (vec![first(), version], ErrorKind::Invalid, "does not follow its prompt"),
        (vec![first(), prompt, usage.clone()], ErrorKind::Invalid, "lacks versions"),
        (vec![first(), past], ErrorKind::Invalid, "do not follow their execution"),
        (vec![first(), usage.clone(), end], ErrorKind::Invalid, "the last line says"),
        (
            vec![first(), Line::End(Default::default()), usage],
            ErrorKind::Invalid,
            "follows the last",
        ),
    ];
    for (lines, kind, says) in cases {
        let mut import = Import::new(empty());
        let mut refused = None;
        for line in lines {
            if let Err(error) = import.push(line).await {
                refused = Some(error);
            }
        }
        let error = refused.unwrap();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
    let LlmExecution { id, .. } = testkit::pending(&testkit::usage(at(0)), at(0));
    let line = Line::PastCosts { execution: id, costs: vec![testkit::past_cost()] };
    let text = serde_json::to_string(&line).unwrap();
    assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
}
