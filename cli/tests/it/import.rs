//! `import`, as a user runs it: what comes back, what a second run adds, and what is refused.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::place::Place;

const MAP: &str = "created_at=TIMESTAMP,input_tokens=ContextTokens,output_tokens=GeneratedTokens";
const SET: &str = "prompt=chat,provider=openai,model=gpt-4o";

fn import(place: &Place, file: &str, set: &str, more: &[&str]) -> Output {
    let args = ["import", file, "--map", MAP, "--set", set, "--json"];
    place.run(&[&args[..], more].concat())
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// A file of `rows` calls, each a second after the one before.
fn calls(rows: u32) -> String {
    let mut text = "TIMESTAMP,ContextTokens,GeneratedTokens".to_owned();
    for row in 0..rows {
        let (minute, second) = (row / 60, row % 60);
        text.push_str(&format!("\r\n2023-11-16 18:{minute:02}:{second:02}.9799600,{row},10"));
    }
    text
}

#[test]
fn the_azure_traces_come_back_exactly_and_a_second_import_adds_nothing() {
    let Some(data) = std::env::var_os("PROMPT_ENGINE_TEST_DATA") else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "PROMPT_ENGINE_TEST_DATA is not set");
        eprintln!("skipped: PROMPT_ENGINE_TEST_DATA does not name the folder of real inputs");
        return;
    };
    let traces = Path::new(&data).join("traces");
    let totals = std::fs::read_to_string(traces.join("totals.json")).unwrap();
    let totals: Value = serde_json::from_str(&totals).unwrap();
    let place = Place::new();
    let (mut rows, mut input, mut output) = (0, 0, 0);
    for (slug, name) in [
        ("code-completion", "AzureLLMInferenceTrace_code.csv"),
        ("conversation", "AzureLLMInferenceTrace_conv.csv"),
    ] {
        let of_file = |key: &str| totals[name][key].as_u64().unwrap();
        let set = format!("prompt={slug},provider=openai,model=gpt-4o");
        let path = traces.join(name);
        let path = path.to_str().unwrap();
        let first = import(&place, path, &set, &["--create-prompts"]);
        assert!(first.status.success(), "{}", stderr(&first));
        let report = json(&first);
        assert_eq!(report["stored"], totals[name]["rows"]);
        assert_eq!(report["priced"], totals[name]["rows"]);
        for (ours, theirs) in [("first", "first"), ("last", "last")] {
            let moment = totals[name][theirs].as_str().unwrap().replace(' ', "T");
            assert_eq!(report[ours], format!("{moment}Z"));
        }
        let filtered = json(&place.run(&["stats", "--json", "--prompt", slug]));
        assert_eq!(filtered["tokens"]["input"], totals[name]["sum_in"]);
        assert_eq!(filtered["tokens"]["output"], totals[name]["sum_out"]);
        rows += of_file("rows");
        input += of_file("sum_in");
        output += of_file("sum_out");
        let again = json(&import(&place, path, &set, &[]));
        assert_eq!(
            (&again["stored"], &again["already_there"]),
            (&0.into(), &of_file("rows").into())
        );
    }
    let stats = place.json(&["stats"]);
    assert_eq!(stats["total_executions"], rows);
    assert_eq!(stats["total_uses"], rows);
    assert_eq!(stats["by_status"]["success"], rows);
    assert_eq!((&stats["priced"], &stats["unpriced"]), (&rows.into(), &0.into()));
    assert_eq!(stats["tokens"]["input"], input);
    assert_eq!(stats["tokens"]["output"], output);
    // 2.50 and 10.00 dollars per million tokens, in millionths of a cent: exact.
    let hundred_millionths = input * 250 + output * 1_000;
    let cost = stats["total_cost_usd"].as_str().unwrap();
    let (whole, decimals) = cost.split_once('.').unwrap();
    let told: u64 = format!("{whole}{decimals:0<8}").parse().unwrap();
    assert_eq!(told, hundred_millionths, "{cost}");
}

#[test]
fn a_file_that_grew_adds_only_its_new_lines_and_equal_lines_all_count() {
    let place = Place::new();
    let same = "\r\n2023-11-16 18:00:00,7,7";
    place.file("a.csv", calls(100) + same + same);
    let first = json(&import(&place, "a.csv", SET, &["--create-prompts"]));
    assert_eq!((&first["read"], &first["stored"]), (&102.into(), &102.into()));
    assert_eq!(first["prompts_created"], serde_json::json!(["chat"]));
    place.file("a.csv", calls(100) + same + same + same + "\r\n2023-11-16 20:00:00,1,1\r\n");
    let second = json(&import(&place, "a.csv", SET, &[]));
    assert_eq!((&second["stored"], &second["already_there"]), (&2.into(), &102.into()));
    assert_eq!(place.json(&["stats"])["total_executions"], 104);
    // The same calls, told in another form.
    place.file("a.jsonl", "{\"at\":\"2023-11-16T20:00:00Z\",\"i\":1,\"o\":\"1\"}\n");
    let map = "created_at=at,input_tokens=i,output_tokens=o";
    let third = json(&place.run(&["import", "a.jsonl", "--map", map, "--set", SET, "--json"]));
    assert_eq!((&third["stored"], &third["already_there"]), (&0.into(), &1.into()));
}

#[test]
fn a_bad_line_stops_the_import_and_what_is_before_it_is_stored() {
    let place = Place::new();
    place.file(
        "a.csv",
        &(calls(15) + "\r\n2023-11-16 19:00:00,-3,1\r\n2023-11-16 19:00:01,3,1\r\n"),
    );
    let stopped = import(&place, "a.csv", SET, &["--create-prompts"]);
    assert_eq!(stopped.status.code(), Some(1));
    let said = stderr(&stopped);
    assert!(said.contains("line 17, column ContextTokens: -3 is negative"), "{said}");
    assert!(said.contains("15 rows before it stored"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(place.json(&["stats"])["total_executions"], 15);

    let skipped = import(&place, "a.csv", SET, &["--on-error", "skip"]);
    assert_eq!(skipped.status.code(), Some(1));
    let report = json(&skipped);
    assert_eq!((&report["stored"], &report["refused"]), (&1.into(), &1.into()));
    assert_eq!(report["refusals"][0]["line"], 17);
    assert_eq!(report["refusals"][0]["column"], "ContextTokens");
    assert!(stderr(&skipped).contains("line 17, column ContextTokens"), "{}", stderr(&skipped));
    assert_eq!(place.json(&["stats"])["total_executions"], 16);
}

#[test]
fn a_half_written_file_is_called_that() {
    let place = Place::new();
    place.file("a.csv", calls(3) + "\r\n2023-11-16 19:00");
    let output = import(&place, "a.csv", SET, &["--create-prompts"]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("line 5") && said.contains("half-written"), "{said}");
    assert_eq!(place.json(&["stats"])["total_executions"], 3);
}

#[test]
fn what_cannot_be_meant_is_refused_in_one_sentence_before_anything_is_written() {
    let place = Place::new();
    place.file("a.csv", calls(3));
    let missing_model = "prompt=chat,provider=openai";
    let cases: [(&str, &str, &[&str], i32, &str); 8] = [
        ("a.csv", missing_model, &["--create-prompts"], 2, "model is missing"),
        ("a.csv", "prompt=Chat,provider=x,model=y", &["--create-prompts"], 2, "--set prompt"),
        ("a.csv", "colour=red", &["--create-prompts"], 2, "there is no field \"colour\""),
        ("a.csv", "model=a,model=b", &["--create-prompts"], 2, "model is given twice"),
        ("a.csv", SET, &["--create-prompts", "--map", "user=Who"], 1, "has no column Who"),
        ("a.csv", SET, &["--create-prompts", "--tz", "Mars/Base"], 2, "no time zone"),
        ("b.csv", SET, &["--create-prompts"], 1, "cannot read b.csv"),
        ("a.csv", SET, &[], 1, "there is no store"),
    ];
    for (file, set, more, code, named) in cases {
        let output = import(&place, file, set, more);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(named), "{named}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(!place.path().join("prompt_engine.db").exists(), "{said}");
    }
    let made = import(&place, "a.csv", SET, &["--create-prompts"]);
    assert!(made.status.success(), "{}", stderr(&made));
    let output = import(&place, "a.csv", "prompt=nobody,provider=x,model=y", &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("nobody"), "{}", stderr(&output));
    assert_eq!(place.json(&["stats"])["total_executions"], 3);
}

#[test]
fn a_model_without_a_price_is_said_to_have_none() {
    let place = Place::new();
    place.file("a.csv", calls(3));
    let set = "prompt=chat,provider=in-house,model=llama";
    let args = ["import", "a.csv", "--map", MAP, "--set", set, "--create-prompts"];
    let output = place.run(&args);
    assert!(output.status.success(), "{}", stderr(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("in-house/llama: no price is known (3 rows)"), "{said}");
    assert_eq!(place.json(&["stats"])["unpriced"], 3);
}

#[test]
fn columns_that_no_field_is_mapped_to_are_named() {
    let place = Place::with_prompt();
    let set = ["--set", "prompt=welcome,provider=openai,model=gpt-4o"];
    place.file("c.csv", "at,status,ms\n2026-01-01,error,5\n");
    let import = [&["import", "c.csv", "--map", "created_at=at,latency_ms=ms"][..], &set];
    let report = place.json(&import.concat());
    assert_eq!(report["columns_left_out"], serde_json::json!(["status"]));
    let noted = stderr(&place.run(&import.concat()));
    assert!(noted.contains("left out: status; --map says"), "{noted}");
    let map = "created_at=at,latency_ms=ms,status=status";
    let all = [&["import", "c.csv", "--map", map][..], &set].concat();
    assert_eq!(stderr(&place.run(&all)), "");
}
