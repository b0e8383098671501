//! What the binary prints, its exit codes, the names in its JSON.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use prompt_engine_llm::MockServer;
use serde_json::{Value, json};

use crate::place::{Place, words};

fn names(value: &Value) -> Vec<&str> {
    let mut names: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

#[track_caller]
fn assert_has(value: &Value, wanted: &[&str]) {
    for name in wanted {
        assert!(value.get(name).is_some(), "{name} is missing in {value}");
    }
}

const EXECUTION: &str = "\
    id usage_id prompt version environment session_id user_identifier provider model \
    response_model priced_model service_tier status error_category error_message http_status \
    input_tokens output_tokens cache_read_tokens cache_write_tokens cache_write_1h_tokens \
    reasoning_tokens audio_input_tokens audio_output_tokens cost_usd cost_kind cost_reason \
    cost_config_id latency_ms time_to_first_token_ms messages_sent response_content tool_calls \
    finish_reason response_metadata created_at completed_at";

#[test]
fn a_prompt_lives_through_its_versions() {
    let place = Place::new();
    let made = place.ok(&["prompt", "create", "welcome", "--content", "Hello {{name}}\nBye"]);
    assert!(made.contains("welcome version 1 is created and active"), "{made}");
    assert!(made.contains("name (string)"), "{made}");
    place.ok(&[
        "prompt",
        "edit",
        "welcome",
        "--content",
        "Hi {{name}}\nBye",
        "--change",
        "Shorter",
    ]);
    place.ok(&["prompt", "edit", "welcome", "--temperature", "0.5", "--draft"]);
    let shown = place.json(&["prompt", "show", "welcome"]);
    assert_eq!(shown["active_version"], 2);
    assert_eq!(shown["latest_version"], 3);
    assert_eq!(shown["version"]["content"], "Hi {{name}}\nBye");
    assert_eq!(shown["version"]["change_description"], "Shorter");
    let shown = place.json(&["prompt", "show", "welcome", "--version", "3"]);
    assert_eq!(shown["version"]["temperature"], 0.5);

    let diff = place.ok(&["prompt", "diff", "welcome", "1", "2"]);
    assert!(diff.contains("- Hello {{name}}\n+ Hi {{name}}\n  Bye"), "{diff}");
    let diff = place.json(&["prompt", "diff", "welcome", "2", "3"]);
    assert_eq!(diff["changes"][0]["field"], "temperature");

    place.ok(&["prompt", "activate", "welcome", "1"]);
    assert_eq!(place.json(&["prompt", "show", "welcome"])["active_version"], 1);
    place.ok(&["prompt", "restore", "welcome", "2"]);
    let versions = place.lines(&["prompt", "versions", "welcome"]);
    let numbers: Vec<_> = versions.iter().map(|version| version["number"].as_u64()).collect();
    assert_eq!(numbers, [Some(4), Some(3), Some(2), Some(1)]);
    place.ok(&["prompt", "archive", "welcome"]);
    let said = place.refused(&["render", "welcome", "--var", "name=Ada"], 1);
    assert!(said.contains("archived"), "{said}");
    assert_eq!(place.lines(&["prompt", "list"])[0]["status"], "archived");
    place.ok(&["prompt", "activate", "welcome", "4"]);
    assert_eq!(place.ok(&["render", "welcome", "--var", "name=Ada"]), "Hi Ada\nBye\n");
}

#[test]
fn values_are_read_as_the_type_of_their_parameter() {
    let place = Place::new();
    place.ok(&[
        "prompt",
        "create",
        "order",
        "--content",
        "{{item_count}} of {{item_list}}, {{note}}",
        "--system",
        "Be brief",
        "--parameter",
        "note:string:optional:none",
        "--max-tokens",
        "7",
    ]);
    let vars = ["--var", "item_count=3", "--var", "item_list=[1,2]"];
    let document = place.json(&[&["render", "order"], &vars[..]].concat());
    assert_eq!(
        names(&document),
        [
            "content",
            "max_tokens",
            "messages",
            "model",
            "parameters",
            "prompt",
            "status",
            "system_message",
            "temperature",
            "usage_id",
            "version"
        ]
    );
    assert_eq!(document["content"], "3 of [1,2], none");
    assert_eq!(document["parameters"]["item_count"], 3);
    assert_eq!(document["messages"][0]["role"], "system");
    assert_eq!(document["max_tokens"], 7);

    let said = place.refused(&["render", "order", "--var", "item_count=three"], 1);
    assert!(said.contains("item_count") && said.contains("three"), "{said}");
    let said = place.refused(&["render", "order", "--var", "item_count=3"], 1);
    assert!(said.contains("item_list"), "{said}");
    let said = place.refused(&[&["render", "order", "--var", "colour=red"], &vars[..]].concat(), 1);
    assert!(said.contains("colour"), "{said}");
    place.refused(&["render", "order", "--var", "item_count"], 2);
    let twice = ["render", "order", "--var", "item_count=3", "--var", "item_count=4"];
    place.refused(&twice, 2);
}

#[test]
fn a_run_is_recorded_and_shown_by_its_contract() {
    let server = MockServer::start().unwrap();
    let url = server.base_url();
    let place = Place::with_prompt();
    let ran = place.json(&[
        "run",
        "welcome",
        "--var",
        "name=Ada",
        "--base-url",
        &url,
        "--session",
        "s1",
        "--user",
        "u1",
        "--env",
        "test",
        "--metadata",
        "{\"team\":\"growth\"}",
    ]);
    assert_has(&ran, &["usage_id", "execution_id", "status", "recorded", "response_content"]);
    assert_eq!(ran["status"], "success");
    assert_eq!(ran["recorded"], "committed");
    assert!(ran["response_content"].as_str().unwrap().contains("Hello Ada"));
    let id = ran["execution_id"].as_str().unwrap();
    let shown = place.json(&["executions", "show", id]);
    let mut wanted = words(EXECUTION);
    wanted.sort_unstable();
    let mut found = names(&shown);
    found.retain(|name| *name != "past_costs"); // only where one call is shown
    assert_eq!(found, wanted);
    assert_eq!(shown["past_costs"], json!([]));
    assert_eq!(shown["prompt"], "welcome");
    assert_eq!(shown["session_id"], "s1");
    assert_eq!(shown["environment"], "test");
    assert!(shown["cost_usd"].is_string() && shown["cost_reason"].is_null(), "{shown}");
    assert!(shown["latency_ms"].is_u64(), "{shown}");
    assert_eq!(shown["messages_sent"][0]["content"], "Hello Ada");

    let listed = place.lines(&["executions", "list", "--status", "success", "--session", "s1"]);
    assert_eq!(listed.len(), 1);
    assert_eq!(names(&listed[0]), wanted);
    assert!(listed[0]["response_content"].is_null());
    let usage = place.json(&["usages", "show", ran["usage_id"].as_str().unwrap()]);
    assert_eq!(
        names(&usage),
        [
            "content",
            "created_at",
            "environment",
            "executions",
            "id",
            "metadata",
            "parameters",
            "prompt",
            "session_id",
            "system_message",
            "user_identifier",
            "version"
        ]
    );
    assert_eq!(usage["executions"][0], id);
    assert_eq!(usage["metadata"]["team"], "growth");
    assert_eq!(place.lines(&["usages", "list"]).len(), 1);
    let text = place.ok(&["executions", "show", id]);
    assert!(text.contains("Hello Ada"), "{text}");
    let text = place.ok(&["executions", "list"]);
    let day = shown["created_at"].as_str().unwrap().split('T').next().unwrap();
    assert!([id, "success", day].iter().all(|whole| text.contains(whole)), "{text}");
}

#[test]
fn what_a_provider_says_beside_an_error_is_shown() {
    let server = MockServer::start().unwrap();
    let place = Place::with_prompt();
    let run = ["run", "welcome", "--var", "name=Ada", "--base-url", &server.base_url(), "--model"];
    let show = |model: &str| {
        place.run(&[&run[..], &[model]].concat());
        let last = place.lines(&["executions", "list"])[0]["id"].as_str().unwrap().to_owned();
        let text = place.ok(&["executions", "show", &last]);
        let facts = text.lines().filter_map(|line| line.trim().split_once("  "));
        facts.map(|(name, value)| format!("{name}: {}", value.trim())).collect::<Vec<_>>()
    };
    let facts = show("fail:429");
    for fact in ["Error code: rate_limit_exceeded", "Retry after: 2.00 s", "Request id: req_mock"] {
        assert!(facts.iter().any(|found| found == fact), "{fact}: {facts:?}");
    }
    let facts = show("cut");
    let cost = "Cost: unknown (the call ended without a count of its tokens)";
    for fact in ["HTTP status: 200", "Request id: req_mock", cost] {
        assert!(facts.iter().any(|found| found == fact), "{fact}: {facts:?}");
    }
    let facts = show("gpt-4o");
    assert!(facts.iter().any(|found| found == "Request id: req_mock"), "{facts:?}");
    let of_errors = ["Error code", "Retry after"];
    assert!(!facts.iter().any(|found| of_errors.iter().any(|name| found.starts_with(name))));
}

#[test]
fn the_turns_before_a_call_are_shown_with_their_tools_and_pictures() {
    let server = MockServer::start().unwrap();
    let place = Place::with_prompt();
    place.ok(&["run", "welcome", "--var", "name=Ada", "--base-url", &server.base_url()]);
    place.ok(&["export", "one.jsonl"]);
    let file = place.path().join("one.jsonl");
    // As the second call of a chat has it: no command makes one.
    let asked = r#"{"role":"user","content":"Hello Ada"}"#;
    let picture = json!({"role": "user", "content": "", "images": ["https://e.org/a.png"]});
    let call = json!({"id": "c1", "name": "weather", "arguments": "{\"city\":\"Oslo\"}"});
    let turn = json!({"role": "assistant", "content": "", "tool_calls": [call]});
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(asked), "{text}");
    fs::write(&file, text.replace(asked, &format!("{picture},{turn}"))).unwrap();
    place.ok(&["--store", "sqlite://other.db", "import", "one.jsonl"]);

    let other = |arguments: &[&str]| {
        place.ok(&[&["--store", "sqlite://other.db", "executions"], arguments].concat())
    };
    let listed = other(&["list", "--json"]);
    let id = serde_json::from_str::<Value>(&listed).unwrap()["id"].as_str().unwrap().to_owned();
    let text = other(&["show", &id]);
    let lines = "\nuser\npicture: https://e.org/a.png\n\nassistant\ntool call: weather {\"city\":\"Oslo\"}\n\n";
    assert!(text.contains(lines), "{text}");
}

#[test]
fn a_stream_prints_tokens_and_sums_up_apart() {
    let server = MockServer::start().unwrap();
    let place = Place::with_prompt();
    let output = place.run(&[
        "run",
        "welcome",
        "--var",
        "name=Ada",
        "--stream",
        "--model",
        "tiny",
        "--base-url",
        &server.base_url(),
    ]);
    assert!(output.status.success());
    let (out, err) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(out, "You said \"Hello Ada\". This answer comes from a mock server.\n");
    assert!(err.contains("cost: unknown (no price for openai/tiny)"), "{err}");
    assert!(err.contains("to the first token"), "{err}");
    let stats = place.json(&["stats"]);
    assert_eq!(stats["unpriced"], 1);
    assert!(stats["time_to_first_token_ms"]["average"].is_number());
    let one = &place.lines(&["executions", "list"])[0];
    assert!(one["cost_usd"].is_null());
    assert_eq!(one["cost_reason"], "unknown_model");
}

#[cfg(unix)]
#[test]
fn a_run_that_is_told_to_end_is_recorded_as_cancelled() {
    for (signal, again, more) in [("TERM", "INT", &["--stream"][..]), ("INT", "TERM", &[])] {
        let server = MockServer::start().unwrap();
        let place = Place::with_prompt();
        let url = server.base_url();
        let run = ["run", "welcome", "--var", "name=Ada", "--base-url", &url, "--model", "hang"];
        let mut command = place.command(&[&run[..], more].concat());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let began = Instant::now();
        while server.requests() < 1 {
            assert!(began.elapsed().as_secs() < 60, "nothing is asked");
        }
        // As supervisors do that tell a process, and then its group.
        let kill = format!("kill -{signal} {id}; kill -{again} {id}; true", id = child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        let why = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{why}");
        let seen = &place.lines(&["executions", "list"])[0];
        assert_eq!(seen["status"], "cancelled");
        let id = seen["id"].as_str().unwrap();
        assert_eq!(why.trim(), format!("prompt-engine: the call was cancelled; execution {id}"));
    }
}

#[test]
fn a_call_that_fails_says_why_and_is_recorded() {
    let server = MockServer::start().unwrap();
    let url = server.base_url();
    let place = Place::with_prompt();
    for (model, category) in [
        ("fail:429", "rate_limit"),
        ("fail:500", "server"),
        ("garbage", "server"),
        ("cut", "network"),
        ("error:context_length_exceeded", "context_length"),
    ] {
        for stream in [false, true] {
            let mut args = vec!["run", "welcome", "--var", "name=A", "--base-url", &url];
            args.extend(["--model", model]);
            args.extend(stream.then_some("--stream"));
            let output = place.run(&args);
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{model}: {said}");
            assert!(said.contains(&format!("({category}")), "{model}: {said}");
            assert!(said.contains("execution "), "{model}: {said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
    let said = place.refused(
        &[
            "run",
            "welcome",
            "--var",
            "name=A",
            "--base-url",
            &url,
            "--model",
            "hang",
            "--timeout",
            "1",
        ],
        1,
    );
    assert!(said.contains("(timeout"), "{said}");
    let errors = place.json(&["errors"]);
    assert_eq!(errors["errors"], 11);
    assert!(place.ok(&["errors"]).contains("rate_limit"));
    let stats = place.json(&["stats"]);
    assert_eq!(stats["by_status"]["timeout"], 1);
    assert_eq!(stats["by_status"]["pending"], 0);
}

#[test]
fn the_analytics_keep_their_names() {
    let server = MockServer::start().unwrap();
    let place = Place::with_prompt();
    place.ok(&["run", "welcome", "--var", "name=Ada", "--base-url", &server.base_url()]);
    let of_stats = words(
        "total_uses total_executions by_status success_rate error_rate total_cost_usd priced \
         unpriced tokens average_tokens latency_ms time_to_first_token_ms by_environment \
         by_model",
    );
    let stats = place.json(&["stats", "--last", "1d", "--tz", "Asia/Kathmandu"]);
    assert_has(&stats, &of_stats);
    assert_has(&stats["by_status"], &["pending", "success", "error", "timeout", "cancelled"]);
    assert_has(
        &stats["tokens"],
        &["input", "output", "total", "cache_read", "cache_write", "reasoning"],
    );
    assert_has(&stats["latency_ms"], &["average", "p50", "p90", "p95", "p99"]);
    assert_has(
        &stats["by_model"][0],
        &["key", "uses", "executions", "cost_usd", "priced", "unpriced"],
    );
    assert!(stats["total_cost_usd"].is_string());
    let performance = place.json(&["performance", "welcome"]);
    assert_has(&performance, &of_stats);
    assert_has(&performance, &["cost_by_day", "by_version"]);
    for by in
        ["prompt", "version", "model", "provider", "environment", "hour", "day", "session", "user"]
    {
        let costs = place.json(&["costs", "--by", by, "--tz", "+05:45"]);
        assert_eq!(costs["by"], by);
        assert_has(&costs, &["rows", "total_cost_usd"]);
        assert_has(
            &costs["rows"][0],
            &words("key label executions cost_usd priced unpriced input_tokens output_tokens"),
        );
        assert!(place.ok(&["costs", "--by", by]).contains("Total: $"));
    }
    for by in ["uses", "cost", "errors"] {
        place.ok(&["top", "--by", by]);
    }
    assert_eq!(place.lines(&["top"])[0]["label"], "welcome");
    assert_eq!(place.lines(&["top", "--model", "gpt-4o"])[0]["label"], "welcome");
    assert!(place.ok(&["stats"]).contains("gpt-4o"));
    assert!(place.ok(&["performance", "welcome"]).contains("By version"));
    let none = place.json(&["stats", "--from", "2020-01-01", "--to", "2020-01-02"]);
    assert!(none["success_rate"].is_null() && none["average_tokens"].is_null(), "{none}");
    assert!(none["latency_ms"]["average"].is_null());
}

#[test]
fn a_page_ends_where_the_next_begins() {
    let place = Place::with_prompt();
    for name in ["a", "b", "c"] {
        place.ok(&["render", "welcome", "--var", &format!("name={name}")]);
    }
    let output = place.run(&["usages", "list", "--limit", "2", "--json"]);
    let err = String::from_utf8(output.stderr).unwrap();
    let cursor = err.trim().rsplit(' ').next().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 2);
    let rest = place.lines(&["usages", "list", "--limit", "2", "--cursor", cursor]);
    assert_eq!(rest.len(), 1);
    place.refused(&["executions", "list", "--cursor", cursor], 1);
    place.refused(&["usages", "list", "--cursor", "x"], 2);
    place.refused(&["usages", "list", "--limit", "0"], 2);
}

#[test]
fn what_is_wrong_is_named() {
    let place = Place::with_prompt();
    let said = place.refused(&["prompt", "create", "welcome", "--content", "x"], 1);
    assert!(said.contains("welcome"), "{said}");
    for args in [
        &["render", "nobody"][..],
        &["run", "nobody", "--base-url", "http://127.0.0.1:9/v1"],
        &["prompt", "show", "nobody"],
        &["performance", "nobody"],
        &["stats", "--prompt", "nobody"],
        &["executions", "list", "--prompt", "nobody"],
    ] {
        let said = place.refused(args, 1);
        assert!(said.contains("nobody"), "{said}");
    }
    place.refused(&["prompt", "show", "welcome", "--version", "9"], 1);
    place.refused(&["prompt", "activate", "welcome", "9"], 1);
    place.refused(&["prompt", "create", "Bad Slug", "--content", "x"], 2);
    place.refused(&["prompt", "create", "empty"], 2);
    place.refused(&["prompt", "edit", "welcome"], 2);
    place.refused(&["prompt", "create", "hot", "--content", "x", "--temperature", "3"], 1);
    place.refused(&["prompt", "create", "f", "--content-file", "no/such/file"], 1);
    place.file("latin1", b"caf\xe9");
    let said = place.refused(&["prompt", "create", "f", "--content-file", "latin1"], 1);
    assert!(said.contains("latin1") && said.contains("byte 3"), "{said}");
    let parameter = ["--parameter", "age:integer"];
    place.refused(&[&["prompt", "create", "f", "--content", "x"], &parameter[..]].concat(), 1);
    assert_eq!(place.lines(&["prompt", "list"]).len(), 1);

    for (args, named) in [
        (&["stats", "--from", "2026-02-30"][..], "2026-02-30"),
        (&["stats", "--tz", "Mars/Olympus"], "Mars/Olympus"),
        (&["stats", "--last", "7 days"], "7 days"),
        (&["stats", "--from", "2026-02-02", "--to", "2026-02-01"], "2026-02-02"),
        (&["stats", "--last", "7d", "--from", "2026-02-02"], "--from"),
        (&["costs", "--by", "colour"], "colour"),
        (&["top", "--by", "colour"], "colour"),
        (&["executions", "show", "x"], "x"),
        (&["executions", "list", "--status", "lost"], "lost"),
        (&["render", "welcome", "--metadata", "[]"], "metadata"),
        (&["run", "welcome", "--option", "messages=[]"], "messages"),
        (&["run", "welcome", "--model", ""], "--model"),
        (&["run", "welcome", "--temperature", "9"], "--temperature"),
        (&["render", "welcome", "--max-tokens", "0"], "--max-tokens"),
        (&["playground", "welcome", "--with", "openai/m", "--temperature", "NaN"], "--temperature"),
        (&["run", "welcome", "--provider", " "], "--provider"),
        (&["frobnicate"], "frobnicate"),
        (&["stats", "--frobnicate"], "--frobnicate"),
        (&["render"], "SLUG"),
        (&["run", "welcome", "--base-url", "localhost:80"], "localhost:80"),
    ] {
        let said = place.refused(args, 2);
        assert!(said.contains(named), "{args:?}: {said}");
    }
    let said = place.refused(&["run", "welcome", "--var", "name=A"], 1);
    assert!(said.contains("OPENAI_API_KEY"), "{said}");
    place.refused(&["executions", "show", "01930a7e-5c1f-7cc3-98c4-dc0c0c07398f"], 1);
    let env = "x".repeat(300);
    place.refused(&["render", "welcome", "--var", "name=A", "--env", &env], 2);
    place.ok(&["prompt", "create", "no-model", "--content", "x"]);
    let said = place.refused(&["run", "no-model", "--base-url", "http://127.0.0.1:9/v1"], 1);
    assert!(said.contains("no-model") && said.contains("--model"), "{said}");
}

#[test]
fn a_store_that_is_not_there_is_not_made_by_looking() {
    let place = Place::new();
    for args in [&["stats"][..], &["prompt", "list"], &["render", "x"], &["executions", "list"]] {
        let said = place.refused(args, 1);
        assert!(said.contains("prompt_engine.db"), "{said}");
    }
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    let said = place.refused(&["stats", "--store", "ftp://x"], 1);
    assert!(said.contains("ftp://x"), "{said}");
    std::fs::write(
        place.path().join("text.db"),
        "this is no database, but a text file\n".repeat(99),
    )
    .unwrap();
    let said = place.refused(&["stats", "--store", "sqlite://text.db"], 1);
    assert!(said.contains("text.db"), "{said}");
    place.refused(
        &["prompt", "create", "a", "--content", "x", "--store", "sqlite://no/dir/x.db"],
        1,
    );
    let other = place
        .command(&["prompt", "create", "a", "--content", "x"])
        .env("PROMPT_ENGINE_STORE", "sqlite://other.db")
        .output()
        .unwrap();
    assert!(other.status.success());
    assert!(place.path().join("other.db").exists());
}

#[test]
fn hostile_texts_come_back_and_command_no_terminal() {
    let place = Place::new();
    let text = "a\u{1b}[31mred\u{7} {{name}} \u{10ffff} %_'\"";
    place.file("prompt.txt", format!("{text}\0"));
    place.ok(&["prompt", "create", "hostile", "--content-file", "prompt.txt"]);
    let shown = place.json(&["prompt", "show", "hostile"]);
    assert_eq!(shown["version"]["content"], format!("{text}\0"));
    assert!(!place.ok(&["prompt", "show", "hostile"]).contains(['\u{1b}', '\u{7}', '\0']));
    let rendered = place.json(&["render", "hostile", "--var", "name=\u{1b}]0;x", "--env", "\u{1}"]);
    assert!(rendered["content"].as_str().unwrap().contains("\u{1b}]0;x"));
    let piped = place.ok(&["render", "hostile", "--var", "name=\r\n"]);
    assert_eq!(piped, format!("{text}\0\n").replace("{{name}}", "\r\n"));
    assert!(!place.ok(&["usages", "list"]).contains('\u{1}'));

    let big = "x".repeat(10 * 1024 * 1024);
    let mut child = place
        .command(&["prompt", "create", "big", "--content-file", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(big.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(place.json(&["render", "big"])["content"].as_str().unwrap().len(), big.len());
}

#[test]
fn output_fits_its_reader() {
    let place = Place::with_prompt();
    for _ in 0..3 {
        place.ok(&["render", "welcome", "--var", "name=A", "--session", &"long ".repeat(30)]);
    }
    let list = place.ok(&["usages", "list"]);
    assert!(list.lines().all(|line| line.chars().count() <= 160), "{list}");
    assert!(!list.contains('\u{1b}'));
    let mut child = place
        .command(&["prices", "list", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The reader goes before anything is written.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn every_command_shows_an_example() {
    let place = Place::new();
    for command in [
        &["--help"][..],
        &["prompt", "create", "--help"],
        &["prompt", "list", "--help"],
        &["prompt", "show", "--help"],
        &["prompt", "edit", "--help"],
        &["prompt", "versions", "--help"],
        &["prompt", "diff", "--help"],
        &["prompt", "activate", "--help"],
        &["prompt", "restore", "--help"],
        &["prompt", "archive", "--help"],
        &["render", "--help"],
        &["run", "--help"],
        &["stats", "--help"],
        &["performance", "--help"],
        &["costs", "--help"],
        &["errors", "--help"],
        &["top", "--help"],
        &["usages", "list", "--help"],
        &["usages", "show", "--help"],
        &["executions", "list", "--help"],
        &["executions", "show", "--help"],
        &["prune", "--help"],
        &["prices", "list", "--help"],
        &["prices", "set", "--help"],
        &["import", "--help"],
        &["demo", "--help"],
        &["completions", "--help"],
    ] {
        let help = place.ok(command);
        assert!(help.contains("Example:\n"), "{command:?}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(place.ok(&["completions", shell]).contains("prompt-engine"));
    }
}
