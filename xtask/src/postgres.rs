//! `cargo xtask postgres -- COMMAND`: runs a command, `cargo test` above all, with a throwaway PostgreSQL.
//! Invariant: what was started here is stopped and removed however the command ends. Only a SIGKILL
//! gets past that, and then the next run does it. A server that the caller names is never touched.
//!
//! The command finds in its environment:
//!
//! - `TEST_POSTGRES_URL`: a superuser's URL, `postgres://postgres@localhost:5432/postgres?host=FOLDER`,
//!   where FOLDER holds the socket; sqlx and libpq read it alike. If it is set already, that server is used,
//!   and nothing is started or set.
//! - `TEST_POSTGRES_BIN`, `TEST_POSTGRES_DATA`: the folders of `pg_ctl` and of the data, for tests that
//!   stop and start the server: `pg_ctl -D $TEST_POSTGRES_DATA -w -m immediate stop`, and then
//!   `pg_ctl -D $TEST_POSTGRES_DATA -w -l $TEST_POSTGRES_LOG start`. All settings are in the data
//!   folder. Both must run as the user who owns that folder, which is `postgres` where we are root, in
//!   a working folder that he may enter.
//! - `TEST_POSTGRES_LOG`: the file the server logs to; it is not in the data folder.
//! - `PGHOST`, `PGPORT`, `PGUSER`, `PGDATABASE`: the same server, for `psql` and the like.

#[cfg(unix)]
mod account;
#[cfg(unix)]
mod folder;
#[cfg(unix)]
mod installed;
#[cfg(unix)]
mod server;
#[cfg(unix)]
mod signals;
#[cfg(all(test, unix))]
mod tests;

use std::env;
use std::ffi::OsString;
use std::process::{Command, ExitCode};

/// Runs the command that follows `--`, with a server.
pub(crate) fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let mut args = args.skip_while(|arg| arg == "--");
    let Some(program) = args.next() else {
        eprintln!("xtask: postgres needs a command: cargo xtask postgres -- psql");
        return ExitCode::from(2);
    };
    let mut command = Command::new(program);
    command.args(args);
    with_server(command)
}

/// Runs `command` with the server that the caller names, or with one of our own. Ends with its code.
pub(crate) fn with_server(mut command: Command) -> ExitCode {
    let named = env::var_os("TEST_POSTGRES_URL").is_some_and(|url| !url.is_empty());
    let ended = if named { plain(&mut command) } else { with_own_server(command) };
    ended.unwrap_or_else(|why| {
        eprintln!("xtask: {why}");
        ExitCode::FAILURE
    })
}

fn plain(command: &mut Command) -> Result<ExitCode, String> {
    let status = command.status().map_err(|error| cannot_start(command, &error))?;
    // Without a code a signal ended it.
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1).into())
}

#[cfg(unix)]
fn with_own_server(mut command: Command) -> Result<ExitCode, String> {
    // Before anything is made, so that no signal can end us between making and removing it.
    let mut signals =
        signals::Signals::catch().map_err(|error| format!("cannot watch for signals: {error}"))?;
    let started = installed::Search::of_this_machine()
        .server()
        .and_then(|installed| server::Server::start(installed, &folder::base()));
    // Ctrl-C may be why it did not start, and is then all there is to say.
    if let Some(signal) = signals.ending() {
        return Ok(signals::code_of(signal));
    }
    let server = started?;
    eprintln!("PostgreSQL {} started for the tests", server.version());
    server.lend_to(&mut command);
    signals.run(&mut command).map_err(|error| cannot_start(&command, &error))
}

#[cfg(not(unix))]
fn with_own_server(_: Command) -> Result<ExitCode, String> {
    Err("a PostgreSQL is started on Unix only: set TEST_POSTGRES_URL to the URL of a superuser"
        .into())
}

fn cannot_start(command: &Command, error: &std::io::Error) -> String {
    format!("cannot start {}: {error}", command.get_program().display())
}
