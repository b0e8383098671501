//! `playground` as people and scripts run it, against a model server of our own.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Stdio;

use prompt_engine_llm::MockServer;
use serde_json::json;

use crate::place::Place;

const WHAT: [&str; 4] = ["playground", "welcome", "--var", "name=Ada"];

/// The lines of the header of the next request to a server that refuses it.
fn request(listener: &TcpListener) -> Vec<String> {
    let (mut stream, _) = listener.accept().unwrap();
    let lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
    let head = lines.take_while(|line| !line.is_empty()).collect();
    let refused = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    stream.write_all(refused.as_bytes()).unwrap();
    head
}

#[test]
fn models_and_versions_stand_side_by_side_and_a_failure_leaves_the_others_alone() {
    let place = Place::with_prompt();
    place.ok(&["prompt", "edit", "welcome", "--content", "Good day {{name}}"]);
    let server = MockServer::start().unwrap();
    let url = format!("openai={}", server.base_url());
    let with = [
        &WHAT[..],
        &["--with", "openai/gpt-4o", "--with", "openai/fail:429", "--base-url", &url],
        &["--version", "1", "--version", "2"],
    ]
    .concat();
    let output = place.run(&with);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "prompt-engine: 2 of 4 calls failed\n");
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].contains("Version") && lines[0].contains("Output"), "{said}");
    assert!(lines[1].contains("openai/gpt-4o") && lines[1].contains("v1"), "{said}");
    assert!(said.contains("Good day Ada") && said.contains("Hello Ada"), "{said}");
    assert!(said.contains("Rate limit exceeded."), "{said}");

    let listed = place.lines(&["executions", "list"]);
    assert_eq!(listed.len(), 4);
    assert_eq!(server.requests(), 4);
    let usages = place.lines(&["usages", "list"]);
    assert_eq!(usages.len(), 4);
    let id = usages[0]["id"].as_str().unwrap();
    assert_eq!(place.json(&["usages", "show", id])["metadata"]["source"], "playground");
}

/// Runs two tries, one of which is never answered, and interrupts them once the other was.
#[cfg(unix)]
fn interrupted(place: &Place, signal: &str, more: &[&str]) -> std::process::Output {
    let server = MockServer::start().unwrap();
    let url = format!("openai={}", server.base_url());
    let with = ["--with", "openai/gpt-4o", "--with", "openai/hang", "--base-url", &url];
    let mut command = place.command(&[&WHAT[..], &with, more].concat());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let success = ["executions", "list", "--status", "success"];
    let began = std::time::Instant::now();
    while server.requests() < 2 || place.lines(&success).is_empty() {
        assert!(began.elapsed().as_secs() < 60, "the first is not answered");
    }
    let kill = format!("kill -{signal} {}", child.id());
    assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    child.wait_with_output().unwrap()
}

#[cfg(unix)]
#[test]
fn answers_that_came_are_printed_when_the_others_are_given_up() {
    let place = Place::with_prompt();
    let output = interrupted(&place, "INT", &[]);
    let (said, why) = (String::from_utf8(output.stdout).unwrap(), output.stderr);
    let why = String::from_utf8(why).unwrap();
    assert_eq!(output.status.code(), Some(1), "{why}");
    assert!(why.starts_with("prompt-engine: 1 of 2 calls cancelled; "), "{why}");
    let line = |model: &str| said.lines().find(|line| line.contains(model)).unwrap();
    assert!(line("openai/gpt-4o").contains("Hello Ada"), "{said}");
    assert!(line("openai/hang").contains("cancelled"), "{said}");
    let stored = place.lines(&["executions", "list"]);
    let mut stored: Vec<_> = stored.iter().map(|one| (&one["model"], &one["status"])).collect();
    stored.sort_by_key(|(model, _)| model.to_string());
    let expected =
        [("gpt-4o", "success"), ("hang", "cancelled")].map(|(a, b)| (json!(a), json!(b)));
    assert!(stored.into_iter().eq(expected.iter().map(|(a, b)| (a, b))));
}

#[cfg(unix)]
#[test]
fn json_has_a_line_for_a_try_that_was_given_up() {
    let output = interrupted(&Place::with_prompt(), "TERM", &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<serde_json::Value> =
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["error"], &lines[0]["recorded"]), (&json!(null), &json!("committed")));
    assert!(lines[0]["response"].as_str().unwrap().contains("Hello Ada"), "{said}");
    assert_eq!((&lines[1]["error"], &lines[1]["response"]), (&json!("cancelled"), &json!(null)));
}

#[test]
fn json_has_a_line_for_each_try() {
    let place = Place::with_prompt();
    let server = MockServer::start().unwrap();
    let url = format!("openai={}", server.base_url());
    let with = [&WHAT[..], &["--with", "openai/gpt-4o", "--base-url", &url]].concat();
    let tries = place.lines(&with);
    assert_eq!(tries.len(), 1);
    let one = &tries[0];
    assert_eq!((&one["provider"], &one["model"]), (&json!("openai"), &json!("gpt-4o")));
    assert_eq!((&one["version"], &one["recorded"]), (&json!(1), &json!("committed")));
    let stored = place.json(&["executions", "show", one["execution_id"].as_str().unwrap()]);
    assert_eq!(stored["response_content"], one["response"]);
    assert_eq!(stored["cost_usd"], one["cost_usd"]);
}

#[test]
fn a_server_is_never_given_the_key_of_another() {
    let place = Place::with_prompt();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("house-llm=http://{}/v1", listener.local_addr().unwrap());
    let with = [&WHAT[..], &["--with", "house-llm/m", "--base-url", &url]].concat();
    for (variable, expected) in [("OPENAI_API_KEY", None), ("HOUSE_LLM_API_KEY", Some("s3cr3t"))] {
        let mut command = place.command(&with);
        command.env(variable, "s3cr3t").stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let head = request(&listener);
        let sent = head.iter().find(|line| line.to_ascii_lowercase().starts_with("authorization"));
        let key = sent.map(|line| line.rsplit(' ').next().unwrap());
        assert_eq!(key, expected, "{variable}");
        assert!(!child.wait_with_output().unwrap().status.success());
    }
}

#[test]
fn what_cannot_be_tried_is_refused_in_one_sentence() {
    let place = Place::with_prompt();
    let refused = |more: &[&str], code| {
        let said = place.refused(&[&WHAT[..], more].concat(), code);
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
        said
    };
    assert!(refused(&["--with", "openai"], 2).contains("write PROVIDER/MODEL"));
    assert!(refused(&["--with", "nobody/m"], 2).contains("\"nobody\" is no provider"));
    let unused = ["--with", "openai/m", "--base-url", "other=http://127.0.0.1:1/v1"];
    assert!(refused(&unused, 2).contains("no --with asks \"other\""));
    let server = ["--with", "openai/m", "--base-url", "openai=http://127.0.0.1:1/v1"];
    let missing = place.refused(&[&["playground", "welcome"][..], &server].concat(), 1);
    assert!(missing.contains("missing parameter: name"), "{missing}");
    assert!(place.lines(&["executions", "list"]).is_empty());
}
