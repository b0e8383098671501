//! `prune` as people and scripts run it.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::place::Place;

const DAY: u64 = 86_400;

/// A place with a call of each of these ages in days.
fn with_calls(ages: &[u64]) -> Place {
    let place = Place::with_prompt();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let rows: Vec<_> = ages.iter().map(|days| format!("{},answer\n", now - days * DAY)).collect();
    place.file("c.csv", format!("at,text\n{}", rows.concat()));
    let map = "created_at=at,response_content=text";
    let set = "prompt=welcome,provider=openai,model=gpt-4o";
    place.ok(&["import", "c.csv", "--map", map, "--set", set]);
    place
}

const BOTH: [&str; 5] = ["prune", "--payloads-older-than", "30d", "--raw-older-than", "26w"];

#[test]
fn nothing_is_deleted_without_apply() {
    let place = with_calls(&[1, 40, 50, 200, 300]);
    let said = place.ok(&BOTH);
    assert!(
        said.contains("Would delete 2 renders and 2 calls, with their texts, from before"),
        "{said}"
    );
    assert!(said.contains("the texts of at most 4 other records from before 2"), "{said}");
    assert!(said.ends_with("Nothing was deleted; --apply deletes it.\n"), "{said}");
    let preview = place.json(&BOTH);
    assert_eq!(preview["applied"], false);
    assert_eq!((&preview["usages"], &preview["executions"]), (&json!(2), &json!(2)));
    assert_eq!((&preview["payloads_at_most"], &preview["payloads"]), (&json!(4), &json!(null)));
    assert_eq!(place.lines(&["executions", "list"]).len(), 5);
}

#[test]
fn what_is_old_goes_and_the_rest_stays() {
    let place = with_calls(&[1, 40, 50, 200, 300]);
    let said = place.ok(&[&BOTH[..], &["--apply"]].concat());
    assert!(
        said.contains("Deleted 2 renders and 2 calls, with their texts, from before"),
        "{said}"
    );
    assert!(said.contains("What they add up to stays."), "{said}");
    let listed = place.lines(&["executions", "list"]);
    assert_eq!(listed.len(), 3);
    let texts = |at: usize| {
        let id = listed[at]["id"].as_str().unwrap();
        place.json(&["executions", "show", id])["response_content"].clone()
    };
    assert_eq!((texts(0), texts(1), texts(2)), (json!("answer"), json!(null), json!(null)));
    let again = place.json(&[&BOTH[..], &["--apply"]].concat());
    assert_eq!(again["applied"], true);
    assert_eq!((&again["usages"], &again["payloads"]), (&json!(0), &json!(0)));
    // What came before is refused now, and lists of all time say what they lack.
    for list in
        [&["executions", "list", "--slowest"][..], &["executions", "list"], &["usages", "list"]]
    {
        let output = place.run(list);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with("note: records before 2"), "{list:?}: {said}");
        assert!(said.contains("are missing"), "{list:?}: {said}");
        let recent = place.run(&[list, &["--last", "7d"]].concat());
        assert_eq!(String::from_utf8(recent.stderr).unwrap(), "", "{list:?}");
    }
}

#[test]
fn what_was_pruned_is_passed_over_when_its_file_is_imported_again() {
    let place = with_calls(&[1, 40, 200, 300]);
    place.ok(&["prune", "--raw-older-than", "26w", "--apply"]);
    let mut grown = std::fs::read_to_string(place.path().join("c.csv")).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    grown.push_str(&format!("{},new\n", now - 2 * DAY));
    place.file("c.csv", grown);
    let map = ["--map", "created_at=at,response_content=text"];
    let set = ["--set", "prompt=welcome,provider=openai,model=gpt-4o"];
    let import = [&["import", "c.csv"], &map[..], &set].concat();
    let report = place.json(&import);
    let counts =
        ["read", "stored", "already_there", "refused", "before_horizon"].map(|of| &report[of]);
    assert_eq!(counts, [&json!(5), &json!(1), &json!(2), &json!(0), &json!(2)]);
    assert_eq!(report["priced"], 0);
    let said = place.run(&import);
    assert!(said.status.success());
    let noted = String::from_utf8(said.stderr).unwrap();
    assert!(noted.contains("2 rows left out: from before 2"), "{noted}");
    let reprice = String::from_utf8(place.run(&["prices", "reprice"]).stderr).unwrap();
    assert!(reprice.contains("were pruned; their costs stay as they were"), "{reprice}");
}

#[test]
fn the_doctor_says_what_was_pruned() {
    let place = with_calls(&[1, 40, 200, 300]);
    assert_eq!(place.json(&["doctor"])["unchecked_before"], json!(null));
    place.ok(&["prune", "--raw-older-than", "26w", "--apply"]);
    let doctor = place.run(&["doctor"]);
    let noted = String::from_utf8(doctor.stderr).unwrap();
    assert!(noted.starts_with("note: records before 2"), "{noted}");
    let found = place.json(&["doctor"]);
    assert_eq!((&found["executions"], &found["differing"]), (&json!(2), &json!(0)));
    assert!(found["unchecked_before"].is_string());
    assert_eq!(place.json(&["doctor", "--last", "7d"])["unchecked_before"], json!(null));
}

#[test]
fn the_latest_failures_say_that_others_were_pruned() {
    let place = Place::with_prompt();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let rows = [1, 300].map(|days| format!("{},error\n", now - days * DAY)).concat();
    place.file("f.csv", format!("at,status\n{rows}"));
    let map = "created_at=at,status=status";
    let set = "prompt=welcome,provider=openai,model=gpt-4o";
    place.ok(&["import", "f.csv", "--map", map, "--set", set]);
    let asked = ["errors", "--last", "365d"];
    assert!(!place.ok(&asked).contains("pruned"));
    place.ok(&[&BOTH[..], &["--apply"]].concat());
    let said = place.ok(&asked);
    assert!(said.contains("2 failed of 2 finished calls"), "{said}");
    assert!(said.trim_end().ends_with("The records of the others were pruned."), "{said}");
}

#[test]
fn texts_alone_may_go() {
    let place = with_calls(&[1, 40]);
    let said = place.ok(&["prune", "--payloads-older-than", "12h"]);
    assert!(said.starts_with("Would delete the texts of at most 4 records"), "{said}");
    let done = place.json(&["prune", "--payloads-older-than", "12h", "--apply"]);
    assert_eq!((&done["raw_before"], &done["usages"]), (&json!(null), &json!(0)));
    assert!(done["payloads"].as_u64().unwrap() >= 2, "{done}");
    assert_eq!(place.lines(&["executions", "list"]).len(), 2);
    let said = place.ok(&["prune", "--payloads-older-than", "9w", "--raw-older-than", "30d"]);
    assert!(said.contains("No more texts would be deleted"), "{said}");
}

#[test]
fn an_age_that_makes_no_sense_is_refused() {
    let place = with_calls(&[1]);
    for (args, named) in [
        (&[][..], "--payloads-older-than 30d"),
        (&["--apply"], "--raw-older-than 180d"),
        (&["--raw-older-than", "0d"], "--raw-older-than: \"0d\""),
        (&["--payloads-older-than", "soon"], "--payloads-older-than: \"soon\""),
        (&["--raw-older-than=-3d"], "-3d"),
        (&["--raw-older-than", "9999999w"], "year 0001"),
    ] {
        let said = place.refused(&[&["prune"], args].concat(), 2);
        assert!(said.contains(named), "{args:?}: {said}");
    }
    assert_eq!(place.lines(&["executions", "list"]).len(), 1);
    let said = Place::new().refused(&BOTH, 1);
    assert!(said.contains("there is no store"), "{said}");
}
