//! A real server, held against what it is said to be. Needs an installed PostgreSQL, and none that runs.
//! Invariant: each test has a base folder of its own, so that none removes another's servers.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use super::folder;
use super::installed::{Installed, Search};
use super::server::Server;

/// The installed server. None, and this is said, where the caller named a server instead: such a
/// machine need not have one of its own.
fn installed() -> Option<Installed> {
    let found = Search::of_this_machine().find();
    if found.is_none() {
        let named = env::var_os("TEST_POSTGRES_URL").is_some() && env::var_os("CI").is_none();
        assert!(named, "these tests need PostgreSQL: `cargo xtask test` says what to install");
        eprintln!(
            "skipped: no PostgreSQL is installed, and TEST_POSTGRES_URL names another server"
        );
    }
    found
}

/// A folder that the user postgres may pass through.
fn base() -> tempfile::TempDir {
    let base = tempfile::Builder::new().prefix("pe").tempdir_in(folder::base()).unwrap();
    fs::set_permissions(base.path(), fs::Permissions::from_mode(0o711)).unwrap();
    base
}

fn variable(server: &Server, name: &str) -> PathBuf {
    let found = server.environment().into_iter().find(|(known, _)| *known == name);
    found.unwrap().1.into()
}

fn psql(server: &Server, query: &str) -> String {
    let mut command = Command::new(variable(server, "TEST_POSTGRES_BIN").join("psql"));
    // What a developer may have set for a server of his own.
    command.env("PGHOSTADDR", "127.0.0.1").env("PGSSLMODE", "require").env("PGPORT", "1");
    server.lend_to(&mut command);
    let output = command.args(["-XAtc", query]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// `pg_ctl` as the module's documentation tells a test to run it.
fn control(server: &Server, args: &[&str]) {
    let data = variable(server, "TEST_POSTGRES_DATA");
    let owner = fs::metadata(&data).unwrap();
    let mut command = Command::new(variable(server, "TEST_POSTGRES_BIN").join("pg_ctl"));
    command.arg("-D").arg(&data).arg("-w").args(args).current_dir("/");
    if owner.uid() != fs::metadata(data.parent().unwrap()).unwrap().uid() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_server_is_as_documented_and_may_be_killed_and_started_by_a_test() {
    let Some(installed) = installed() else { return };
    let base = base();
    let server = Server::start(installed, base.path()).unwrap();

    let url = variable(&server, "TEST_POSTGRES_URL");
    let socket = variable(&server, "PGHOST");
    let expected = format!("postgres://postgres@localhost:5432/postgres?host={}", socket.display());
    assert_eq!(url.to_str(), Some(&*expected));
    let settings = "SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings \
                    WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit', \
                    'listen_addresses', 'max_connections', 'server_encoding')";
    let expected = "fsync=on full_page_writes=on listen_addresses= max_connections=300 \
                    server_encoding=UTF8 synchronous_commit=on";
    assert_eq!(psql(&server, settings), expected);
    // Read by libpq from the URL alone.
    let by_url = Command::new(variable(&server, "TEST_POSTGRES_BIN").join("psql"))
        .arg(&url)
        .args(["-XAtc", "SELECT current_user, current_database(), inet_server_addr() IS NULL"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&by_url.stdout), "postgres|postgres|t\n");

    psql(&server, "CREATE TABLE kept AS SELECT 1 AS one");
    control(&server, &["-m", "immediate", "stop"]);
    let log = variable(&server, "TEST_POSTGRES_LOG");
    control(&server, &["-l", log.to_str().unwrap(), "start"]);
    assert_eq!(psql(&server, "SELECT one FROM kept"), "1");

    control(&server, &["-m", "immediate", "stop"]);
    drop(server);
    assert_eq!(left(base.path()), [""; 0]);
}

/// A folder of `initdb` and `pg_ctl` that do what `scripts` say, in which REAL is the real folder.
fn odd(base: &Path, bin: &Path, scripts: [(&str, &str); 2]) -> Installed {
    let odd = base.join("bin");
    fs::create_dir(&odd).unwrap();
    for (name, script) in scripts {
        let script = script.replace("REAL", bin.to_str().unwrap());
        fs::write(odd.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(odd.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    Installed { bin: odd }
}

fn left(base: &Path) -> Vec<OsString> {
    fs::read_dir(base).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

#[test]
fn a_server_that_does_not_start_says_why_and_leaves_nothing() {
    let Some(Installed { bin }) = installed() else { return };
    let base = base();
    let initdb = r#"REAL/initdb "$@" && echo no_such_setting = 1 >> data/postgresql.conf"#;
    let scripts = [("initdb", initdb), ("pg_ctl", r#"exec REAL/pg_ctl "$@""#)];

    let why = Server::start(odd(base.path(), &bin, scripts), base.path()).unwrap_err();
    let mut lines = why.lines();
    let first = lines.next().unwrap();
    assert!(first.starts_with("PostgreSQL 1") && first.contains("did not start"), "{why}");
    assert!(lines.any(|line| line.contains("no_such_setting")), "{why}");
    assert_eq!(left(base.path()), ["bin"]);
}

#[test]
fn ctrl_c_that_meets_the_servers_programs_as_they_begin_changes_nothing() {
    let Some(Installed { bin }) = installed() else { return };
    let base = base();
    // Each is met once for each thing that it is asked to do.
    let met = r#"for met; do :; done; met=log/$(basename "$0")$met; [ -d log ] || exit 1
        [ -e "$met" ] || { touch "$met"; kill -INT $$; }"#;
    let initdb = format!("{met}\nexec REAL/initdb \"$@\"");
    let pg_ctl = format!("{met}\nexec REAL/pg_ctl \"$@\"");
    let scripts = [("initdb", &*initdb), ("pg_ctl", &*pg_ctl)];

    let server = Server::start(odd(base.path(), &bin, scripts), base.path()).unwrap();
    let log = variable(&server, "TEST_POSTGRES_LOG");
    let mut met = left(log.parent().unwrap());
    met.sort();
    assert_eq!(met, ["initdb--no-sync", "pg_ctl--version", "pg_ctlstart", "server.log"]);
    drop(server);
    assert_eq!(left(base.path()), ["bin"]);
}
