//! `prices`, as a user runs it: tables, quotes, repricing, and what is refused.

use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::place::{Place, words};

#[test]
fn prices_are_set_and_never_overlap() {
    let place = Place::new();
    fn set<'a>(more: &[&'a str]) -> Vec<&'a str> {
        [&["prices", "set", "--provider", "acme", "--model", "m1", "--input", "2.5"], more].concat()
    }
    place.ok(&set(&["--output", "10"]));
    place.ok(&set(&["--from", "2026-01-01", "--tz", "+05:45"]));
    let prices = place.lines(&["prices", "list", "--provider", "acme"]);
    assert_eq!(prices.len(), 2);
    assert_eq!(prices[0]["valid_to"], "2025-12-31T18:15:00.000000Z");
    assert_eq!(prices[0]["input"], "2.5");
    assert!(place.ok(&["prices", "list"]).contains("gpt-4o"));

    // A price for a while takes its time from those around it, and what it replaced is kept.
    place.ok(&set(&["--from", "2025-06-01", "--to", "2026-06-01"]));
    let ranges = |prices: &[Value]| -> Vec<String> {
        let day = |at: &Value| at.as_str().map_or("-".to_owned(), |at| at[..10].to_owned());
        prices
            .iter()
            .map(|of| format!("{} {}", day(&of["valid_from"]), day(&of["valid_to"])))
            .collect()
    };
    let prices = place.lines(&["prices", "list", "--provider", "acme"]);
    assert_eq!(ranges(&prices), ["- 2025-06-01", "2025-06-01 2026-06-01", "2026-06-01 -"]);
    let history = place.lines(&["prices", "show", "m1", "--provider", "acme"]);
    let replaced: Vec<_> = history.into_iter().filter(|of| !of["replaced_at"].is_null()).collect();
    assert_eq!(ranges(&replaced), ["2025-12-31 -"]);
    let held = place.lines(&["prices", "list", "--provider", "acme", "--at", "2025-06-01"]);
    assert_eq!(ranges(&held), ["2025-06-01 2026-06-01"]);

    let large =
        ["--above", "200:input=4", "--above", "100:input=3,output=9", "--from", "2027-01-01"];
    place.ok(&set(&large));
    let quote = |input| {
        place.json(&[
            "prices",
            "quote",
            "--provider",
            "acme",
            "--model",
            "m1",
            "--at",
            "2027-01-01",
            "--input-tokens",
            input,
            "--output-tokens",
            "0",
        ])["cost_usd"]
            .clone()
    };
    assert_eq!([quote("100"), quote("101"), quote("201")], ["0.00025", "0.000303", "0.000804"]);
    let of_2027 = ["prices", "list", "--provider", "ACME", "--at", "2027-01-01"];
    let above = &place.lines(&of_2027)[0]["tiers"][1];
    assert_eq!(above["rates"], json!({"input": "4", "output": "9"}), "the rest is as for less");
    for bad in ["200", "x:input=1", "1:inptu=1", "1:input", "1:input=-2", "1:input=1,input=2"] {
        place.refused(&set(&["--above", bad]), 2);
    }
    place.refused(&set(&["--above", "1:input=1", "--above", "1:input=2"]), 2);
    place.refused(&set(&["--output", "-1"]), 2);
    place.refused(&set(&["--output", "much"]), 2);
    place.refused(&set(&["--from", "2026-02-30"]), 2);
    place.refused(&set(&["--from", "2026-02-02", "--to", "2026-02-01"]), 2);
    place.refused(&["prices", "set", "--provider", "acme", "--model", "m1"], 2);
}

/// A file of calls and the prompt they are of.
fn imported(place: &Place, models: &[&str]) {
    let mut file = "at,model,input,output\n".to_owned();
    for (n, model) in (0..).zip(models.iter().cycle().take(models.len() * 3)) {
        file.push_str(&format!(
            "2026-10-{:02}T10:00:00Z,{model},{},{}\n",
            1 + n % 28,
            1_000 + n,
            10
        ));
    }
    place.file("calls.csv", file);
    place.ok(&words(
        "import calls.csv --create-prompts --set prompt=chat,provider=openai \
         --map created_at=at,model=model,input_tokens=input,output_tokens=output",
    ));
}

#[test]
fn a_quote_needs_no_store_and_says_what_the_call_would_cost() {
    let place = Place::new();
    let call =
        ["prices", "quote", "--provider", "openai", "--model", "gpt-6-sol", "--at", "2026-11-01"];
    let quote = |more: &[&str]| place.json(&[&call[..], more].concat());
    let said =
        quote(&["--input-tokens", "272001", "--output-tokens", "100", "--cache-read-tokens", "1"]);
    // Above 272,000 tokens: 272,000 x 4 + 1 x 0.4 in, 100 x 15 out, per million.
    assert_eq!(said["cost_usd"], "1.0895004");
    assert_eq!(said["input_cost_usd"], "1.0880004");
    assert_eq!(said["output_cost_usd"], "0.0015");
    assert_eq!((&said["reason"], &said["model"]), (&Value::Null, &json!("gpt-6-sol")));
    let batch = quote(&["--input-tokens", "1000", "--output-tokens", "0", "--batch"]);
    assert_eq!(batch["cost_usd"], "0.001");
    let same =
        quote(&["--input-tokens", "1000", "--output-tokens", "0", "--service-tier", "batch"]);
    assert_eq!(batch, same);
    let audio =
        quote(&["--input-tokens", "10", "--output-tokens", "1", "--audio-output-tokens", "1"]);
    assert_eq!((&audio["cost_usd"], &audio["reason"]), (&Value::Null, &json!("missing_rate")));
    assert!(!place.path().join("prompt_engine.db").exists(), "a quote makes no store");

    let shown = place.ok(&[&call[..], &["--input-tokens", "10", "--output-tokens", "1"]].concat());
    assert!(shown.contains("$0.00003") && shown.contains("Priced as"), "{shown}");
    let parts = place.refused(
        &[&call[..], &["--input-tokens", "1", "--output-tokens", "1", "--cache-write-tokens", "2"]]
            .concat(),
        2,
    );
    assert!(parts.contains("exceed the 1 input tokens"), "{parts}");
    place.refused(&["prices", "quote", "--provider", "openai"], 2);
    place.refused(&[&call[..], &["--input-tokens", "-1", "--output-tokens", "1"]].concat(), 2);
}

#[test]
fn a_quote_is_of_the_prices_in_the_store() {
    let place = Place::new();
    place.ok(&words(
        "prices set --provider openai --model gpt-4o --input 7 --output 0 --per-request 0.5",
    ));
    let call =
        words("prices quote --provider openai --input-tokens 1000000 --output-tokens 0 --model");
    let mine = place.json(&[&call[..], &["gpt-4o"]].concat());
    assert_eq!((&mine["cost_usd"], &mine["other_cost_usd"]), (&json!("7.5"), &json!("0.5")));
    let listed = place.lines(&["prices", "list", "--provider", "openai", "--model", "gpt-4o"]);
    let set = listed.iter().find(|price| price["origin"] == "user").unwrap();
    assert_eq!(mine["config_id"], set["id"]);
}

#[test]
fn every_line_of_a_file_is_answered_in_its_order() {
    let place = Place::new();
    let lines = [
        r#"{"id":1,"provider":"openai","model":"gpt-4o","at":"2026-11-01T00:00:00Z","input_tokens":1000,"output_tokens":10}"#,
        r#"{"id":"b","provider":"openai","model":"nobody","input_tokens":1,"output_tokens":1}"#,
        "no json",
        r#"{"id":{"n":4},"provider":"openai","model":"gpt-4o","input_tokens":1,"output_tokens":1,"cached_tokens":1}"#,
        r#"{"id":5,"provider":"openai","model":"gpt-4o","input_tokens":-1,"output_tokens":1}"#,
        "",
        r#"{"id":7,"provider":"openai","model":"gpt-4o","input_tokens":5,"output_tokens":1,"cache_read_tokens":6}"#,
        r#"{"provider":"openai","model":"gpt-4o","input_tokens":2,"output_tokens":0,"batch":null,"service_tier":null}"#,
        r#"{"id":1.10,"provider":"openai","model":"gpt-4o","input_tokens":2,"input_tokens":3,"output_tokens":0}"#,
        r#"{"id":12345678901234567890123,"provider":"","model":"gpt-4o","input_tokens":2,"output_tokens":0}"#,
    ];
    place.file("calls.jsonl", lines.join("\n"));
    let output = place.run(&["prices", "quote", "--jsonl", "calls.jsonl"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    let (note, refused) = said.split_once('\n').unwrap();
    assert!(note.contains("these prices came with the program"), "{note}");
    assert_eq!(refused, "prompt-engine: 7 of 10 lines refused\n");
    let text = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), lines.len());
    assert!(
        text.contains(r#"{"id":12345678901234567890123,"error""#),
        "an id comes back as it was"
    );
    assert_eq!(
        answers[0],
        json!({
            "id": 1, "cost_usd": "0.0026", "input_cost_usd": "0.0025", "output_cost_usd": "0.0001",
            "other_cost_usd": "0", "reason": null, "model": "gpt-4o",
            "config_id": answers[0]["config_id"],
        })
    );
    assert!(answers[0]["config_id"].is_string());
    assert_eq!((&answers[1]["id"], &answers[1]["reason"]), (&json!("b"), &json!("unknown_model")));
    let errors: Vec<(&Value, &str)> = answers
        .iter()
        .filter_map(|answer| Some((&answer["id"], answer.get("error")?.as_str()?)))
        .collect();
    let named = [
        (json!(null), "not a JSON object"),
        (json!({"n": 4}), "\"cached_tokens\""),
        (json!(5), "input_tokens"),
        (json!(null), "empty"),
        (json!(7), "exceed the 5 input tokens"),
        (json!(1.1), "\"input_tokens\" comes twice"),
        (json!(1.2345678901234568e22), "provider is empty"),
    ];
    assert_eq!(errors.len(), named.len(), "{errors:?}");
    for ((id, error), (expected, name)) in errors.iter().zip(&named) {
        assert_eq!(*id, expected);
        assert!(error.contains(name), "{error}");
    }
    assert_eq!(answers[7]["cost_usd"], "0.000005");
    // Options of the whole program may stand behind the command, and a mark of UTF-8 before the file.
    place.file("one.jsonl", format!("\u{feff}{}\r\n", lines[0]));
    let one = place.lines(&["prices", "quote", "--jsonl", "one.jsonl", "--store", "memory:"]);
    assert_eq!(one[0]["cost_usd"], "0.0026");
    place.refused(&["prices", "quote", "--jsonl", "one.jsonl", "--model", "gpt-4o"], 2);
    place.refused(&["prices", "quote", "--jsonl", "missing.jsonl"], 1);
    place.refused(&["prices", "quote", "--jsonl", "."], 1);
}

#[test]
fn who_asks_line_by_line_is_answered_line_by_line() {
    use std::io::{BufRead, BufReader};
    let place = Place::new();
    let mut child = place
        .command(&["prices", "quote", "--jsonl", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut ask = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    for n in 0..3 {
        let call = json!({"id": n, "provider": "openai", "model": "gpt-4o",
            "input_tokens": n, "output_tokens": 0});
        writeln!(ask, "{call}").unwrap();
        let answer: Value = serde_json::from_str(&answers.next().unwrap().unwrap()).unwrap();
        assert_eq!(answer["id"], n);
    }
    drop(ask);
    assert!(child.wait().unwrap().success());
}

#[test]
fn every_model_without_a_price_is_named_with_its_nearest() {
    let place = Place::new();
    let invented = words(
        "gpt-4oo claude-sonet-4-5 house-1 house-2 x/y o33 gpt-6-sool nothing-like-it \
         gemini-9-ultra llama-of-mine",
    );
    imported(&place, &[&invented[..], &["gpt-4o", "gpt-4o-mini"]].concat());
    let found = place.lines(&["prices", "check"]);
    let mut names: Vec<&str> = found.iter().map(|of| of["model"].as_str().unwrap()).collect();
    let mut expected = invented.clone();
    names.sort_unstable();
    expected.sort_unstable();
    assert_eq!(names, expected);
    let of = |model: &str| found.iter().find(|of| of["model"] == model).unwrap();
    assert_eq!(of("gpt-4oo")["nearest"][0], "openai/gpt-4o");
    assert_eq!(of("claude-sonet-4-5")["nearest"][0], "anthropic/claude-sonnet-4-5");
    assert_eq!((&of("o33")["calls"], &of("o33")["reason"]), (&json!(3), &json!("unknown_model")));
    let shown = place.ok(&["prices", "check"]);
    assert!(invented.iter().all(|name| shown.contains(name)), "{shown}");
    assert!(shown.contains("30 of 36 successful calls without a cost, of 10 models"), "{shown}");
    for model in invented {
        place.ok(&[
            "prices",
            "set",
            "--provider",
            "openai",
            "--model",
            model,
            "--input",
            "1",
            "--output",
            "1",
        ]);
    }
    assert!(place.ok(&["prices", "check"]).contains("prices reprice` applies it"));
    place.ok(&["prices", "reprice", "--apply"]);
    assert!(place.ok(&["prices", "check"]).contains("36 successful calls: none without a cost"));
    let empty = Place::with_prompt();
    assert!(empty.ok(&["prices", "check"]).contains("No successful calls"));
}

#[test]
fn a_call_that_lacks_a_price_for_its_tier_is_named_too_and_one_that_failed_is_not() {
    let place = Place::new();
    let calls = "at,model,input,output,tier,status\n\
        2026-10-20T10:00:00Z,gpt-4o,10,1,,success\n\
        2026-10-20T10:00:01Z,gpt-4o,10,1,scale,success\n\
        2026-10-20T10:00:02Z,o3,10,1,flex,success\n\
        2026-10-01T10:00:03Z,o3,10,1,batch,success\n\
        2026-10-20T10:00:04Z,nobody,,,,error\n";
    place.file("calls.csv", calls);
    place.ok(&[
        "import", "calls.csv", "--create-prompts", "--map",
        "created_at=at,model=model,input_tokens=input,output_tokens=output,service_tier=tier,status=status",
        "--set", "prompt=chat,provider=openai",
    ]);
    let found = place.lines(&["prices", "check"]);
    let found: Vec<(&str, &str, &str)> = found
        .iter()
        .map(|of| {
            let text = |name: &str| of[name].as_str().unwrap();
            (text("model"), text("service_tier"), text("reason"))
        })
        .collect();
    assert_eq!(found, [("gpt-4o", "scale", "missing_rate"), ("o3", "batch", "missing_rate")]);
    let shown = place.ok(&["prices", "check"]);
    assert!(shown.contains("no price for the tier scale"), "{shown}");

    // The model whose price counts is named, and calls that lack different things are told apart.
    let place = Place::new();
    let calls = "at,model,answered,input,output,tier,audio\n\
        2026-11-01T10:00:00Z,my-deploy,gpt-4o-2024-08-06,10,1,batch,\n\
        2026-01-01T10:00:01Z,gpt-4o,,10,1,batch,\n\
        2026-11-01T10:00:02Z,gpt-4o,,10,1,,5\n\
        2026-11-01T10:00:03Z,gpt-4o,,,,,\n";
    place.file("calls.csv", calls);
    place.ok(&[
        "import",
        "calls.csv",
        "--create-prompts",
        "--map",
        "created_at=at,model=model,response_model=answered,input_tokens=input,output_tokens=output,\
         service_tier=tier,audio_input_tokens=audio",
        "--set",
        "prompt=chat,provider=azure",
    ]);
    let found = place.lines(&["prices", "check"]);
    assert!(found.iter().all(|of| of["model"] == "gpt-4o"), "{found:?}");
    let mut why: Vec<&str> = found.iter().map(|of| of["why"].as_str().unwrap()).collect();
    why.sort_unstable();
    assert_eq!(
        why,
        [
            "its tokens are not known",
            "no price for the tier batch at that time",
            "no rate for some of its tokens",
        ]
    );
}

#[test]
fn recorded_calls_are_priced_again_and_show_what_they_cost_before() {
    let place = Place::new();
    imported(&place, &["gpt-4o", "house"]);
    place.ok(&words("prices set --provider openai --model house --input 1 --output 0"));
    place.ok(&words(
        "prices set --provider openai --model gpt-4o --input 10 --output 0 --from 2026-10-03",
    ));
    let preview = place.json(&["prices", "reprice"]);
    assert_eq!((&preview["applied"], &preview["looked_at"]), (&json!(false), &json!(6)));
    // Calls 1, 3 and 5 of the month are gpt-4o: 1,000, 1,002 and 1,004 tokens in, 10 out.
    let gpt = &preview["models"][0];
    assert_eq!((&gpt["model"], &gpt["calls"]), (&json!("gpt-4o"), &json!(2)));
    assert_eq!((&gpt["before_usd"], &gpt["after_usd"]), (&json!("0.005215"), &json!("0.02006")));
    let house = &preview["models"][1];
    assert_eq!((&house["before_usd"], &house["before_unpriced"]), (&Value::Null, &json!(3)));
    assert_eq!((&house["after_usd"], &house["after_unpriced"]), (&json!("0.003009"), &json!(0)));
    assert_eq!(preview["total"]["calls"], 5);
    assert_eq!(place.json(&["stats"])["unpriced"], 3, "a preview changes nothing");

    let shown = place.ok(&["prices", "reprice", "--model", "house"]);
    assert!(shown.contains("3 of 3 calls would change") && shown.contains("--apply"), "{shown}");
    let day = place.json(&["prices", "reprice", "--from", "2026-10-03", "--to", "2026-10-04"]);
    assert_eq!((&day["looked_at"], &day["total"]["calls"]), (&json!(1), &json!(1)));
    let applied = place.json(&["prices", "reprice", "--apply"]);
    assert_eq!((&applied["applied"], &applied["total"]), (&json!(true), &preview["total"]));
    let again = place.ok(&["prices", "reprice", "--apply"]);
    assert!(again.contains("every cost is what the prices say"), "{again}");

    let calls = place.lines(&["executions", "list"]);
    let changed = calls.iter().find(|call| call["model"] == "house").unwrap();
    let id = changed["id"].as_str().unwrap();
    let one = place.json(&["executions", "show", id]);
    assert_eq!(one["past_costs"][0]["cost_reason"], "unknown_model");
    assert_eq!(one["past_costs"].as_array().unwrap().len(), 1);
    let text = place.ok(&["executions", "show", id]);
    assert!(text.contains("Cost before") && text.contains("no price for openai/house"), "{text}");
    place.refused(&["prices", "reprice", "--prompt", "nobody"], 1);
    place.refused(&["prices", "reprice", "--last", "soon"], 2);
}

#[test]
fn a_model_shows_its_history_and_an_unknown_one_its_nearest() {
    let place = Place::new();
    let history = place.lines(&["prices", "show", "o3", "--provider", "openai"]);
    let standard: Vec<&Value> = history.iter().filter(|of| of["service_tier"].is_null()).collect();
    assert_eq!(standard.len(), 2);
    assert_eq!(
        (&standard[0]["valid_to"], &standard[0]["input"]),
        (&json!("2025-06-10T00:00:00.000000Z"), &json!("10"))
    );
    assert_eq!((&standard[1]["valid_to"], &standard[1]["input"]), (&Value::Null, &json!("2")));
    let shown = place.ok(&["prices", "show", "gpt-6-sol", "--provider", "openai"]);
    assert!(shown.contains("input > 272,000") && shown.contains("tokens of context"), "{shown}");
    let windows = place.ok(&["prices", "show", "deepseek-chat", "--provider", "deepseek"]);
    assert!(windows.contains("00:30 to 16:30"), "{windows}");
    // By whatever name a call would find them.
    let known = |args: &[&str]| place.lines(&[&["prices", "show"], args].concat()).len();
    assert!(known(&["gpt-4o", "--provider", "azure_openai"]) > 0);
    assert!(known(&["grok-4.5", "--provider", "xai"]) > 0);
    assert!(known(&["gpt-4o-2029-01-01", "--provider", "openai"]) > 0);
    // What is shown is what calls are priced with: of another provider only its standard prices, and
    // what was set for the model by all its names.
    place.ok(&words("prices set --provider openai --model gpt-4o --input 1 --output 1"));
    assert_eq!(known(&["gpt-4o", "--provider", "azure"]), 1);
    let dated = place.lines(&["prices", "show", "gpt-4o-2024-08-06", "--provider", "openai"]);
    assert!(dated.iter().any(|of| of["origin"] == "user"), "{dated:?}");
    let listed = place.lines(&["prices", "list", "--model", "gpt-4o-2024-08-06"]);
    assert!(listed.iter().any(|of| of["origin"] == "user"), "{listed:?}");
    let unknown = place.refused(&["prices", "show", "gpt-4oo"], 1);
    assert!(unknown.contains("openai/gpt-4o"), "{unknown}");
    assert!(place.ok(&["prices", "load"]).contains("All of them were there"));
    assert_eq!(place.json(&["prices", "load"])["added"], 0);
}
