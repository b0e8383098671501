//! `cargo xtask prices`: the data set genai-prices in the form of docs/price-data.md.
//! Invariant: the same source gives the same bytes; whatever is left out is counted and said.

mod convert;
mod source;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

use serde_json::Value;

use convert::Converted;

/// Prints the installed package as JSON.
const EXPORT: &str = include_str!("prices/export.py");
const LICENCE: &str = "MIT, Copyright (c) Pydantic Services Inc. 2025 to present";
const HOME: &str = "https://github.com/pydantic/genai-prices";

/// Writes `core/data/genai-prices.jsonl` from an export, or from the installed package.
pub(crate) fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    match write(args) {
        Ok(report) => {
            print!("{report}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}

fn write(mut args: impl Iterator<Item = OsString>) -> Result<String, String> {
    let (mut file, mut date) = (None, None);
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--date") => {
                let given = args.next().and_then(|date| date.into_string().ok());
                date = Some(given.ok_or("--date needs the day of the release: 2026-11-10")?);
            }
            Some(option) if option.starts_with('-') => {
                return Err(format!("prices takes no option {option}"));
            }
            _ => file = Some(PathBuf::from(arg)),
        }
    }
    let text = match &file {
        Some(file) => fs::read_to_string(file)
            .map_err(|error| format!("cannot read {}: {error}", file.display()))?,
        None => installed()?,
    };
    let path = data_file();
    let old = fs::read_to_string(&path).unwrap_or_default();
    let converted = convert(&text, &old, date)?;
    fs::write(&path, &converted.text)
        .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(report(&converted, old == converted.text))
}

/// Converts the export `text`. What it does not say, the file that is there does: the day of the
/// release of the same version, and the rules of providers.
fn convert(text: &str, old: &str, date: Option<String>) -> Result<Converted, String> {
    let export: source::Export =
        serde_json::from_str(text).map_err(|error| format!("this is no such export: {error}"))?;
    let old: Vec<Value> = old.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let name = export.source.trim_start_matches("PyPI ").to_owned();
    let known = old.first().filter(|header| header["source"] == name.as_str());
    let date = date.or_else(|| known.and_then(|h| h["date"].as_str().map(str::to_owned)));
    let date = date.ok_or_else(|| format!("say with --date when {name} was released"))?;
    convert::convert(export, &name, &date, &old)
}

/// The installed package as an export.
fn installed() -> Result<String, String> {
    let python = Command::new("python3").args(["-c", EXPORT]).output();
    let output = python.map_err(|error| format!("cannot start python3: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap_or_default();
        return Err(format!(
            "the Python package genai-prices cannot be read ({last}); `pip install genai-prices` \
             brings it, and an export can be named instead"
        ));
    }
    String::from_utf8(output.stdout).map_err(|_| "python3 printed no UTF-8".to_owned())
}

fn data_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/data/genai-prices.jsonl")
}

fn report(converted: &Converted, same: bool) -> String {
    let Converted { text, providers, models, prices, left_out } = converted;
    let mut said = format!(
        "{providers} providers, {models} models, {prices} prices: {} bytes, {} core/data/genai-prices.jsonl\n",
        text.len(),
        if same { "as they were in" } else { "written to" },
    );
    for (what, count) in left_out {
        let _ = writeln!(said, "left out: {count} x {what}"); // writing to a String cannot fail
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_file_is_what_the_export_converts_to() {
        let Some(data) = env::var_os("PROMPT_ENGINE_TEST_DATA") else {
            assert!(env::var_os("CI").is_none(), "PROMPT_ENGINE_TEST_DATA must be set in CI");
            eprintln!("skipped: PROMPT_ENGINE_TEST_DATA names no folder of real inputs");
            return;
        };
        let export = Path::new(&data).join("prices/genai_prices_0.2.3_export.json");
        let export = fs::read_to_string(export).unwrap();
        let file = fs::read_to_string(data_file()).unwrap();
        let converted = convert(&export, &file, None).unwrap();
        assert!(converted.text == file, "run `cargo xtask prices`: the file is another");
    }

    #[test]
    fn an_export_of_an_unknown_day_is_refused() {
        let export = r#"{"source": "PyPI genai-prices 9.9", "providers": []}"#;
        assert!(convert(export, "", None).unwrap_err().contains("--date"));
        assert!(convert("[]", "", None).unwrap_err().contains("no such export"));
    }
}
