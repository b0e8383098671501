//! `demo`, as a user runs it: with no key and no network, on a file of its own.
//! Invariant: a file that exists is left as it is.

use serde_json::Value;

use crate::place::Place;

#[test]
fn every_kind_of_call_is_on_the_file_that_the_demo_made() {
    let place = Place::new();
    let output = place.run(&["demo", "--calls", "200"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for part in ["$ prompt-engine stats", "house-llama-8b", "unpriced", "rate_limit", "To go on"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let store = "sqlite://prompt_engine_demo.db";
    let stats = place.run(&["--store", store, "stats", "--json"]);
    let stats: Value = serde_json::from_slice(&stats.stdout).unwrap();
    let status = |name: &str| stats["by_status"][name].as_u64().unwrap();
    assert_eq!(stats["total_uses"], 200);
    assert_eq!(status("pending"), 0);
    for finished in ["success", "error", "timeout", "cancelled"] {
        assert!(status(finished) > 0, "{finished}: {stats}");
    }
    assert!(stats["time_to_first_token_ms"]["p50"].is_number(), "{stats}");
    assert!(stats["unpriced"].as_u64().unwrap() > 0, "{stats}");
    let doctor = place.run(&["--store", store, "doctor"]);
    let said = String::from_utf8(doctor.stdout).unwrap();
    assert!(said.starts_with("200 renders and ") && said.contains("every sum is right"), "{said}");
}

#[test]
fn a_file_that_exists_is_left_as_it_is() {
    let place = Place::new();
    let file = place.path().join("prompt_engine_demo.db");
    std::fs::write(&file, "mine").unwrap();
    let output = place.run(&["demo", "--calls", "3"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(place.path().join("prompt_engine_demo.2.db").exists());
    let refused = place.run(&["demo", "--file", "prompt_engine_demo.db"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("exists"));
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
}
