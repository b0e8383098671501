//! The analytics as people and scripts ask for them: comparisons, rankings, hours, and what an answer
//! says of itself.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::place::Place;

const HEADER: &str = "at,version,session,user,input,output,latency,status,model\n";
const MAP: &str = "created_at=at,version=version,session=session,user=user,input_tokens=input,\
    output_tokens=output,latency_ms=latency,status=status,model=model";

/// A place with the prompt `welcome` of two versions, and these calls of it.
fn with_calls(rows: &str) -> Place {
    let place = Place::with_prompt();
    place.ok(&["prompt", "edit", "welcome", "--content", "Hi {{name}}"]);
    place.file("calls.csv", format!("{HEADER}{rows}"));
    let set = "prompt=welcome,provider=openai";
    place.ok(&["import", "calls.csv", "--map", MAP, "--set", set]);
    place
}

/// Two days: 3 calls on the first, 4 on the second.
fn two_days() -> Place {
    with_calls(
        "2026-01-01T10:00:00Z,1,s1,u1,1000,100,100,success,gpt-4o\n\
         2026-01-01T10:30:00Z,1,s1,u2,1000,100,200,success,gpt-4o\n\
         2026-01-01T12:00:00Z,1,,u1,1000,100,300,success,gpt-4o\n\
         2026-01-02T09:00:00Z,2,s2,u1,2000,100,400,success,gpt-4o\n\
         2026-01-02T09:00:00Z,2,s2,u1,2000,100,900,error,gpt-4o\n\
         2026-01-02T11:00:00Z,2,s3,,2000,100,900,success,gpt-4o\n\
         2026-01-02T13:00:00Z,2,,,2000,100,50,success,nobody-knows\n",
    )
}

fn err(place: &Place, args: &[&str]) -> String {
    let output = place.run(args);
    assert!(output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

const SECOND_DAY: [&str; 4] = ["--from", "2026-01-02", "--to", "2026-01-03"];
const BOTH_DAYS: [&str; 4] = ["--from", "2026-01-01", "--to", "2026-01-03"];

#[test]
fn a_range_is_shown_beside_the_one_before() {
    let place = two_days();
    let args = [&["stats", "--compare", "previous"][..], &SECOND_DAY].concat();
    let compared = place.json(&args);
    let change = json!({"before": 3, "now": 4, "change": 1, "percent": 100.0 / 3.0});
    assert_eq!(compared["executions"], change);
    assert_eq!(compared["range_before"]["from"], "2026-01-01T00:00:00.000000Z");
    assert_eq!(compared["unpriced"]["now"], 1);
    assert_eq!(compared["errors"]["percent"], Value::Null);
    assert_eq!(compared["total_cost_usd"]["before"], "0.0105");
    assert_eq!(compared["total_cost_usd"]["now"], "0.018");
    assert_eq!(compared["total_cost_usd"]["change"], "0.0075");
    let text = place.ok(&args);
    assert!(text.starts_with("2026-01-02 00:00Z to 2026-01-03 00:00Z (now)\n"), "{text}");
    assert!(text.contains("2026-01-01 00:00Z to 2026-01-02 00:00Z (before)"), "{text}");
    let calls = text.lines().find(|line| line.starts_with(" Calls ")).unwrap();
    let words: Vec<_> = calls.split_whitespace().collect();
    assert_eq!(words, ["Calls", "3", "4", "+1", "+33.3", "%"]);
    assert!(text.contains("-25.0 points") && text.contains("+$0.0075"), "{text}");
    assert!(text.contains("Unpriced calls"), "{text}");

    for open in [&[][..], &["--from", "2026-01-01"], &["--to", "2026-01-01"]] {
        let args = [&["stats", "--compare", "previous"], open].concat();
        let said = place.refused(&args, 2);
        assert!(said.contains("--compare needs a range with a start and an end"), "{said}");
    }
    let said = place.refused(&["stats", "--compare", "next", "--last", "7d"], 2);
    assert!(said.contains("previous"), "{said}");
    let said = place.refused(
        &["stats", "--compare", "previous", "--from", "0001-01-01", "--to", "2026-01-01"],
        1,
    );
    assert!(said.contains("0001"), "{said}");
}

#[test]
fn two_versions_stand_side_by_side() {
    let place = two_days();
    let args = [&["performance", "welcome", "--versions", "1,2"][..], &BOTH_DAYS].concat();
    let compared = place.json(&args);
    assert_eq!((&compared["version_before"], &compared["version_now"]), (&json!(1), &json!(2)));
    assert_eq!(compared["executions"]["change"], 1);
    assert_eq!(compared["success_rate"]["now"], 0.75);
    assert_eq!(compared["cost_per_call_usd"]["before"], "0.0035");
    let text = place.ok(&args);
    assert!(text.contains("v1") && text.contains("v2") && text.contains("Latency p95"), "{text}");
    let said = place.refused(&["performance", "welcome", "--versions", "1,9"], 1);
    assert!(said.contains("the prompt welcome has no version 9; its latest is 2"), "{said}");
    for bad in ["1", "1,1", "0,1", "1,2,3", "one,two", ""] {
        let said = place.refused(&["performance", "welcome", "--versions", bad], 2);
        assert!(said.contains("two different versions"), "{bad}: {said}");
    }
}

#[test]
fn sessions_and_users_are_ranked_by_cost_and_the_rest_is_summed_up() {
    let place = two_days();
    let args = [&["costs", "--by", "session"][..], &BOTH_DAYS].concat();
    let costs = place.json(&args);
    let keys: Vec<_> = costs["rows"].as_array().unwrap().iter().map(|row| &row["key"]).collect();
    assert_eq!(keys, [&json!("s2"), &json!("s1"), &json!("s3"), &Value::Null]);
    assert_eq!(costs["rows"][3]["label"], "(none)");
    assert_eq!((&costs["total_executions"], &costs["rest"]), (&json!(7), &Value::Null));
    let args = [&args[..], &["--limit", "1"]].concat();
    let costs = place.json(&args);
    assert_eq!(costs["rest"]["rows"], 3);
    assert_eq!(costs["rest"]["executions"], 5);
    assert_eq!(costs["rest"]["unpriced"], 1);
    assert!(costs["rest"]["cost_usd"].is_string());
    let text = place.ok(&args);
    assert!(text.contains("3 others") && text.contains("7 calls"), "{text}");
    let users = place.json(&[&["costs", "--by", "user"][..], &BOTH_DAYS].concat());
    assert_eq!(users["rows"][0]["key"], "u1");
    let said = place.refused(&["costs", "--by", "hour", "--limit", "5"], 2);
    assert!(said.contains("--limit"), "{said}");
}

#[test]
fn names_of_sessions_stay_in_one_piece() {
    let session = format!("session-{}", "x".repeat(110));
    let place = with_calls(&format!("2026-01-01T10:00:00Z,1,{session},,10,1,5,success,gpt-4o\n"));
    let text = place.ok(&[&["costs", "--by", "session"][..], &BOTH_DAYS].concat());
    assert!(text.contains(&session), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 160), "{text}");
}

#[test]
fn hours_without_calls_are_filled() {
    let place = two_days();
    let args = ["costs", "--by", "hour", "--from", "2026-01-01", "--to", "2026-01-02"];
    let costs = place.json(&args);
    let rows = costs["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 24);
    assert_eq!(rows[10]["key"], "2026-01-01T10:00+00:00");
    assert_eq!((&rows[10]["executions"], &rows[11]["executions"]), (&json!(2), &json!(0)));
    let text = place.ok(&args);
    let hours = text.lines().filter(|line| line.starts_with(" 2026-01-01 1")).count();
    assert_eq!(hours, 3, "from the first with calls to the last: {text}");
    assert!(text.contains('█'), "{text}");
    // A long silence is one line.
    let place = with_calls(
        "2026-01-01T10:00:00Z,1,,,1,1,5,success,gpt-4o\n\
         2026-01-03T10:00:00Z,1,,,1,1,5,success,gpt-4o\n",
    );
    let range = ["--from", "2026-01-01", "--to", "2026-01-04"];
    let text = place.ok(&[&["costs", "--by", "hour"][..], &range].concat());
    assert!(text.contains("… 47 without calls"), "{text}");
    assert_eq!(
        place.json(&[&["costs", "--by", "hour"][..], &range].concat())["rows"][71]["executions"],
        0
    );
}

#[test]
fn a_series_shows_that_its_ends_are_empty() {
    let place = two_days();
    let range = ["--from", "2025-12-01", "--to", "2026-01-06"];
    let text = place.ok(&[&["costs", "--by", "day"][..], &range].concat());
    let days: Vec<&str> =
        text.lines().skip(2).take(4).map(|line| line.trim().split("  ").next().unwrap()).collect();
    assert_eq!(days, ["… 31 without calls", "2026-01-01", "2026-01-02", "… 3 without calls"]);
}

#[test]
fn a_call_of_a_far_time_hides_no_other() {
    let place = with_calls(
        "2026-01-01T10:00:00Z,1,s1,u1,1000,100,100,error,gpt-4o\n\
         9999-12-31T10:00:00Z,1,s1,u1,1000,100,100,error,gpt-4o\n",
    );
    let since = ["--from", "2026-01-01"];
    let labels = |answer: &Value, series: &str, label: &str| -> Vec<String> {
        let points = answer[series].as_array().unwrap().iter();
        points.map(|point| point[label].as_str().unwrap().to_owned()).collect()
    };
    for (command, series, label) in [
        (&["costs", "--by", "day"][..], "rows", "label"),
        (&["errors"], "trend", "bucket"),
        (&["performance", "welcome"], "cost_by_day", "day"),
    ] {
        let answer = place.json(&[command, &since].concat());
        assert_eq!(labels(&answer, series, label), ["2026-01-01", "9999-12-31"], "{command:?}");
    }
}

#[test]
fn an_answer_without_anything_says_why() {
    let place = two_days();
    let old = ["--from", "2025-01-01", "--to", "2025-01-02T00:00:05"];
    let text = place.ok(&[&["performance", "welcome"][..], &old].concat());
    assert!(text.starts_with("welcome: 2025-01-01 00:00Z to 2025-01-02 00:00:05Z\n"), "{text}");
    assert!(text.contains("no calls in this range; --last or --from choose another"), "{text}");
    let slowest = ["executions", "list", "--slowest"];
    let text = place.ok(&[&slowest[..], &old].concat());
    assert!(text.contains("how long they took"), "{text}");
    for args in [&["top", "--limit", "0"][..], &["costs", "--limit", "-1"]] {
        let said = place.refused(args, 2);
        assert!(said.contains("--limit") && said.contains("at least 1"), "{said}");
    }
    let said = place.refused(&["stats", "--last", "-7d"], 2);
    assert!(said.contains("--last: \"-7d\" is no span"), "{said}");
}

#[test]
fn the_slowest_calls_come_first() {
    let place = two_days();
    let slowest = ["executions", "list", "--slowest"];
    let listed = place.lines(&[&slowest[..], &["-n", "3"]].concat());
    let latencies: Vec<_> = listed.iter().map(|one| one["latency_ms"].as_u64().unwrap()).collect();
    assert_eq!(latencies, [900, 900, 400]);
    assert_eq!(listed[0]["created_at"], "2026-01-02T11:00:00.000000Z");
    let ok = place.lines(&[&slowest[..], &["--status", "success", "--session", "s2"]].concat());
    assert_eq!(ok.len(), 1);
    let none = place.lines(&[&slowest[..], &["--model", "claude"]].concat());
    assert_eq!(none.len(), 0);
    let text = place.ok(&slowest);
    assert!(text.contains("900 ms"), "{text}");
    let cursor = "e.0.00000000000000000000000000000000";
    let said = place.refused(&[&slowest[..], &["--cursor", cursor]].concat(), 2);
    assert!(said.contains("--slowest") && said.contains("--cursor"), "{said}");
}

#[test]
fn an_answer_names_its_range() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let place = with_calls(&format!("{},1,,,1,1,5,error,gpt-4o\n", now - 60));
    for (args, start) in [
        (&["costs"][..], "The last 7 days: 2"),
        (&["top"], "The last 7 days: 2"),
        (&["errors"], "The last 24 hours: 2"),
        (&["performance", "welcome"], "welcome: The last 30 days: 2"),
        (&["costs", "--last", "2w"], "The last 2w: 2"),
        (&["stats"], "All time\n"),
        (&["top", "--from", "2026-01-01", "--tz", "+05:45"], "since 2026-01-01 00:00+05:45\n"),
    ] {
        let text = place.ok(args);
        assert!(text.starts_with(start), "{args:?}: {text}");
    }
}

#[test]
fn an_explanation_goes_beside_the_answer() {
    let place = two_days();
    for (args, lines) in [
        (&["stats"][..], &["by environment: read ", "by model: read "][..]),
        (
            &["performance", "welcome"],
            &["by environment: ", "by version: ", "by model: ", "by day: "],
        ),
        (&["costs", "--by", "version"], &["by prompt and version: read "]),
        (&["errors"], &["by prompt: ", "by hour: "]),
        (&["top"], &["by prompt: "]),
        (&["stats", "--compare", "previous", "--last", "7d"], &["in all: read ", "in all: read "]),
    ] {
        let said = err(&place, &[args, &["--explain"]].concat());
        assert_eq!(said.lines().count(), lines.len(), "{args:?}: {said}");
        for (line, start) in said.lines().zip(lines) {
            assert!(line.starts_with(start), "{args:?}: {said}");
        }
        assert_eq!(err(&place, args), "", "{args:?}");
        let plain = place.ok(&[args, &["--json"]].concat());
        let explained = place.ok(&[args, &["--json", "--explain"]].concat());
        // The clock goes on between the two, and default ranges with it.
        if !args.contains(&"--last") {
            assert_eq!(plain, explained);
        }
    }
    let said = err(&place, &["costs", "--by", "session", "--explain"]);
    assert!(said.contains("(no cube has a session)"), "{said}");
}

#[test]
fn what_an_answer_leaves_out_is_in_its_json() {
    let place = two_days();
    for args in [&["stats"][..], &["costs"], &["errors"], &["performance", "welcome"]] {
        let answer = place.json(args);
        assert_eq!(answer["rounded"], false, "{args:?}");
        assert_eq!(answer.get("missing_before"), Some(&Value::Null), "{args:?}");
    }
    let line = &place.lines(&["top", "--from", "2026-01-01"])[0];
    assert_eq!((&line["rounded"], &line["missing_before"]), (&json!(false), &Value::Null));
}
