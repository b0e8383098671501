//! `export` and `import` of an export, as a user runs them: a store moves, and comes back the same.

use std::fs;
use std::process::Stdio;

use serde_json::Value;

use crate::place::{Place, words};

/// A place whose default store has a prompt of two versions, renders and calls.
fn filled() -> Place {
    let place = Place::new();
    let create = ["prompt", "create", "greet", "--content", "Hello {{name}}"];
    place.ok(&[&create[..], &["--model", "gpt-4o"]].concat());
    place.ok(&["prompt", "edit", "greet", "--content", "Hi {{name}}"]);
    place.ok(&["render", "greet", "--var", "name=Ada\u{1}\u{10ffff}"]);
    let rows: String =
        (10..60).map(|n| format!("2026-01-01T00:00:{n}Z,{n},house-model,text {n}\n")).collect();
    let header = "created_at,input_tokens,model,response_content\n";
    place.file("calls.csv", format!("{header}{rows}"));
    let map = "created_at=created_at,input_tokens=input_tokens,output_tokens=input_tokens,\
               model=model,response_content=response_content";
    place.ok(&["import", "calls.csv", "--map", map, "--set", "prompt=greet,provider=house"]);
    // Calls that were unpriced get a cost, and keep the old one.
    place.ok(&words("prices set --provider house --model house-model --input 1 --output 2"));
    place.ok(&["prices", "reprice", "--apply"]);
    place
}

fn read(place: &Place, name: &str) -> String {
    fs::read_to_string(place.path().join(name)).unwrap()
}

#[test]
fn a_store_moves_to_another_and_back_and_exports_the_same_bytes() {
    let place = filled();
    let said = place.ok(&["export", "first.jsonl"]);
    assert!(said.contains("1 prompt with 2 versions, 51 usages, 50 executions"), "{said}");
    assert!(read(&place, "first.jsonl").contains(r#"{"past_costs":{"#));
    assert!(!place.path().join("first.jsonl.part").exists());

    let mut from = "first.jsonl".to_owned();
    for (store, to) in [("redb://b.redb", "second.jsonl"), ("sqlite://c.db", "third.jsonl")] {
        let said = place.ok(&["--store", store, "import", &from]);
        assert!(said.contains("1 prompt, 101 records; 50 costs followed"), "{said}");
        place.ok(&["--store", store, "export", to]);
        assert!(read(&place, to) == read(&place, "first.jsonl"), "{store}");
        for question in [&["stats"][..], &["costs", "--by", "model", "--last", "3650d"]] {
            let here = place.ok(&[question, &["--json"]].concat());
            let there = place.ok(&[&["--store", store], question, &["--json"]].concat());
            assert_eq!(here, there, "{store} {question:?}");
        }
        let again = place.ok(&["--store", store, "import", &from]);
        assert!(again.contains("nothing of it is new"), "{again}");
        to.clone_into(&mut from);
    }
}

#[test]
fn what_was_pruned_still_counts_where_a_store_moved_to() {
    let place = filled();
    place.ok(&["prune", "--raw-older-than", "1d", "--apply"]);
    let said = place.ok(&["export", "a.jsonl"]);
    assert!(said.contains("0 executions, 2 sums of pruned records"), "{said}");
    let said = place.ok(&["--store", "redb://b.redb", "import", "a.jsonl"]);
    assert!(said.contains("1 record, 2 sums of pruned records"), "{said}");
    let costs = ["costs", "--by", "model", "--last", "3650d", "--json"];
    let there = place.ok(&[&["--store", "redb://b.redb"], &costs[..]].concat());
    assert_eq!(there, place.ok(&costs));
    assert!(there.contains("house-model"), "{there}");
    let again = place.ok(&["--store", "redb://b.redb", "import", "a.jsonl"]);
    assert!(again.contains("nothing of it is new"), "{again}");
    place.ok(&["--store", "redb://b.redb", "export", "b.jsonl"]);
    assert_eq!(read(&place, "a.jsonl"), read(&place, "b.jsonl"));
}

#[test]
fn sums_that_a_copy_cannot_take_in_are_said_and_the_rest_comes() {
    let place = filled();
    let copy = |args: &[&str]| place.run(&[&["--store", "redb://b.redb"], args].concat());
    let import = |file: &str| {
        let output = copy(&["import", file]);
        let [said, notes] =
            [output.stdout, output.stderr].map(|out| String::from_utf8(out).unwrap());
        assert!(output.status.success(), "{notes}");
        (said, notes)
    };
    place.ok(&["export", "a.jsonl"]);
    import("a.jsonl");
    let map =
        ["--map", "created_at=at,response_content=text", "--set", "prompt=greet,provider=house"];
    let set = ["--set", "model=house-model"];
    place.file(
        "more.csv",
        "at,text\n2026-01-01T00:01:00Z,same quarter\n2026-01-01T01:00:00Z,other\n",
    );
    place.ok(&[&["import", "more.csv"], &map[..], &set].concat());
    place.ok(&["render", "greet", "--var", "name=Bob"]);
    place.ok(&["prune", "--raw-older-than", "1d", "--apply"]);
    place.ok(&["export", "b.jsonl"]);

    let (said, notes) = import("b.jsonl");
    assert!(said.contains("stored: 0 prices, 0 prompts, 1 record\n"), "{said}");
    let other = "2 sums of pruned records left out: what this store has of the same";
    let unpruned = "2 sums of pruned records left out: this store was not pruned up to then";
    assert!(notes.contains(other) && notes.contains(unpruned), "{notes}");
    copy(&["prune", "--raw-older-than", "1d", "--apply"]);
    let (said, notes) = import("b.jsonl");
    assert!(said.contains("0 records, 2 sums of pruned records\n"), "{said}");
    assert!(notes.contains(other) && !notes.contains(unpruned), "{notes}");
}

#[test]
fn an_export_goes_through_a_pipe() {
    let place = filled();
    let mut export = place.command(&["export"]).stdout(Stdio::piped()).spawn().unwrap();
    let pipe = export.stdout.take().unwrap();
    let import = ["--store", "redb://b.redb", "--json", "import", "-"];
    let output = place.command(&import).stdin(pipe).output().unwrap();
    assert!(export.wait().unwrap().success());
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["imported"]["complete"], true);
    assert_eq!(said["imported"]["new_records"], 101);
}

#[test]
fn an_export_that_was_cut_short_is_said_and_taken_up_again() {
    let place = filled();
    place.ok(&["export", "whole.jsonl"]);
    let whole = read(&place, "whole.jsonl");
    for bytes in [30, whole.len() / 2, whole.len() - 10_000, whole.len() - 30] {
        place.file("cut.jsonl", &whole.as_bytes()[..bytes]);
        let store = format!("redb://{bytes}.redb");
        let said = place.refused(&["--store", &store, "import", "cut.jsonl"], 1);
        assert!(said.contains("it was cut short"), "{said}");
        place.ok(&["--store", &store, "import", "whole.jsonl"]);
        let out = format!("{bytes}.jsonl");
        place.ok(&["--store", &store, "export", &out]);
        assert!(read(&place, &out) == whole, "cut after {bytes} bytes");
    }
}

#[test]
fn what_cannot_be_exported_or_imported_is_refused_in_a_sentence() {
    let place = filled();
    place.ok(&["export", "a.jsonl"]);
    let before = read(&place, "a.jsonl");
    assert!(place.refused(&["export", "a.jsonl"], 1).contains("a.jsonl exists"));
    assert!(place.refused(&["export", "no/such/a.jsonl"], 1).contains("cannot write no/such"));
    let said = place.refused(&["--store", "redb://none.redb", "export", "b.jsonl"], 1);
    assert!(said.contains("there is no store at none.redb"), "{said}");
    assert!(!place.path().join("none.redb").exists() && !place.path().join("b.jsonl").exists());
    let said = place.refused(&["import", "a.jsonl", "--map", "model=x"], 2);
    assert!(said.contains("an export says itself what it holds"), "{said}");
    place.file("newer.jsonl", "{\"prompt_engine_export\":2}\n");
    assert!(place.refused(&["import", "newer.jsonl"], 1).contains("version 2"));
    let mut lines: Vec<&str> = before.lines().collect();
    lines[4] = "{\"price\":17}";
    place.file("bad.jsonl", lines.join("\n"));
    let said = place.refused(&["--store", "redb://bad.redb", "import", "bad.jsonl"], 1);
    assert!(said.contains("line 5 of bad.jsonl: it is no line of an export"), "{said}");
    assert_eq!(read(&place, "a.jsonl"), before);
}
