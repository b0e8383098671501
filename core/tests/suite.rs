//! The list of the conformance suite leaves out no case that is written.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use prompt_engine_core::conformance_suite;

#[test]
fn the_list_of_the_suite_holds_every_case() {
    let listed: &[(&str, &str)] = conformance_suite!(@list names);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/conformance");
    let mut written = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let subject = path.file_stem().unwrap().to_str().unwrap().to_owned();
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            if let Some(case) = line.strip_prefix("pub async fn ") {
                written.push((subject.clone(), case.split_once('(').unwrap().0.to_owned()));
            }
        }
    }
    written.sort();
    let mut listed: Vec<(String, String)> =
        listed.iter().map(|(subject, case)| ((*subject).to_owned(), (*case).to_owned())).collect();
    listed.sort();
    assert_eq!(written, listed);
}
