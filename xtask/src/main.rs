//! Tasks of the workspace, as `cargo xtask TASK`. Few dependencies, so that it builds at once everywhere.
//! Invariant: a task ends with the code of what it ran, and tells it nothing of the machine but where
//! the server for the tests is.

mod postgres;
mod prices;

use std::env;
use std::ffi::OsString;
use std::process::{Command, ExitCode};

const TASKS: &str = "\
Tasks:
  test [ARGS]                   runs every test of the workspace, doc tests included; ARGS go to `cargo test`
  postgres -- COMMAND           runs any command with the PostgreSQL that `test` has: one that is started for it
                                and then removed, or the one that TEST_POSTGRES_URL names
  torture [NAME...]             runs the tests that kill, crowd, starve, restart and move stores and drop calls at full
                                measure, in release: kill, crowd, full_disk, restart, moving, dropped, or all of them
  prices [EXPORT] [--date DAY]  writes core/data/genai-prices.jsonl from an export of the Python package
                                genai-prices, or from the package that is installed; DAY: when it was released";

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    let Some(task) = args.next() else {
        eprintln!("xtask: no task given.\n{TASKS}");
        return ExitCode::from(2);
    };
    match task.to_str() {
        Some("test") => test(args),
        Some("torture") => torture(args),
        Some("postgres") => postgres::run(args),
        Some("prices") => prices::run(args),
        Some("help" | "--help" | "-h") => {
            println!("{TASKS}");
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("xtask: there is no task {task:?}.\n{TASKS}");
            ExitCode::from(2)
        }
    }
}

/// All members and all features: features only ever add, and some test targets need one.
fn test(args: impl Iterator<Item = OsString>) -> ExitCode {
    let mut command = cargo();
    command.args(["test", "--workspace", "--all-features"]).args(args);
    postgres::with_server(command)
}

/// The tests that have a full measure, which takes minutes.
const TORTURES: [&str; 6] = ["kill", "crowd", "full_disk", "restart", "moving", "dropped"];

fn torture(args: impl Iterator<Item = OsString>) -> ExitCode {
    let mut names: Vec<OsString> = args.collect();
    if let Some(other) = names.iter().find(|name| !TORTURES.iter().any(|known| **name == **known)) {
        eprintln!("xtask: there is no torture {other:?}; there are {}.", TORTURES.join(", "));
        return ExitCode::from(2);
    }
    if names.is_empty() {
        names = TORTURES.map(OsString::from).into();
    }
    let mut command = cargo();
    command.args(["test", "--release", "-p", "prompt-engine", "--all-features"]);
    for name in names {
        command.arg("--test").arg(name);
    }
    command.env("PROMPT_ENGINE_TORTURE", "1");
    postgres::with_server(command)
}

fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
