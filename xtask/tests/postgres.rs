//! `xtask postgres` from the outside: however it ends, no server and no folder is left.
//! Invariant: nothing is slept for; a command says that it runs, and then the test acts.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs};

/// Says where the server is, and waits until it is ended: nobody writes to its input.
const WAITS: &str = r#"echo "$PGHOST/.s.PGSQL.$PGPORT"; exec cat"#;

/// A run with a temp folder of its own, in which all that it makes is seen.
struct Run {
    temp: tempfile::TempDir,
    child: Child,
}

impl Run {
    /// In a process group of its own, as a shell starts what is typed at it.
    fn start(temp: tempfile::TempDir, script: &str) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(["postgres", "--", "/bin/sh", "-c", script])
            .env_remove("TEST_POSTGRES_URL")
            .env("TMPDIR", temp.path())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { temp, child }
    }

    /// A client of the server, which runs therefore.
    fn server(&mut self) -> UnixStream {
        let mut line = String::new();
        BufReader::new(self.child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        client(line.trim().as_ref())
    }

    /// Its code, and what it said on standard error.
    fn end(mut self) -> (Option<i32>, String, tempfile::TempDir) {
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said, self.temp)
    }
}

/// A folder that the user postgres may pass through. None, and this is said, where the caller named a
/// server: such a machine need not have one of its own. Ours names its programs, too.
fn temp() -> Option<tempfile::TempDir> {
    let set = |name: &str| env::var_os(name).is_some();
    if set("TEST_POSTGRES_URL") && !set("TEST_POSTGRES_BIN") && !set("CI") {
        eprintln!("skipped: TEST_POSTGRES_URL names a server that was not started by xtask");
        return None;
    }
    // Not the temp folder of this process, in which a socket may have too long a path.
    let temp = tempfile::Builder::new().prefix("pe").tempdir_in("/tmp").unwrap();
    fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o711)).unwrap();
    Some(temp)
}

fn kill(signal: &str, whom: &str) -> bool {
    let script = r#"kill -s "$0" -- "$1" 2>&-"#;
    Command::new("/bin/sh").args(["-c", script, signal, whom]).status().unwrap().success()
}

/// A client that has been let in. Connecting is not enough: a server that is asked to stop before it
/// saw the connection waits a minute for it to speak (`authentication_timeout`).
fn client(socket: &Path) -> UnixStream {
    let mut client = UnixStream::connect(socket).unwrap();
    // The startup message of protocol 3.0: its length, the version, names with values, a zero.
    client.write_all(b"\0\0\0\x17\0\x03\0\0user\0postgres\0\0").unwrap();
    let mut reply = [0];
    client.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"R", "authentication");
    client
}

/// Whether the server ends the client, as it does when it ends itself. Half a minute is far more than
/// it needs.
fn is_closed(mut client: &UnixStream) -> bool {
    client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    match client.read_to_end(&mut Vec::new()) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn a_command_that_fails_gives_its_code_and_leaves_nothing() {
    let Some(temp) = temp() else { return };
    let script = r#"echo "$PGHOST/.s.PGSQL.$PGPORT"; read wait; exit 7"#;
    let mut run = Run::start(temp, script);
    let server = run.server();
    drop(run.child.stdin.take());
    let (code, said, temp) = run.end();
    assert_eq!(code, Some(7), "{said}");
    assert!(is_closed(&server) && is_empty(temp.path()));
    // One line, and nothing else.
    assert!(
        said.starts_with("PostgreSQL ") && said.ends_with(" started for the tests\n"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn a_command_that_is_not_there_leaves_nothing() {
    let Some(temp) = temp() else { return };
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["postgres", "--", "no-such-program"]);
    command.env_remove("TEST_POSTGRES_URL").env("TMPDIR", temp.path());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("cannot start no-such-program"), "{said}");
    assert!(is_empty(temp.path()));
}

#[test]
fn interrupted_twice_it_leaves_nothing() {
    let Some(temp) = temp() else { return };
    let mut run = Run::start(temp, WAITS);
    let server = run.server();
    let group = format!("-{}", run.child.id());
    assert!(kill("INT", &group));
    // The second comes while the server is stopped, or after; there may be nobody left.
    kill("INT", &group);
    let (code, said, temp) = run.end();
    assert_eq!(code, Some(130), "{said}");
    assert!(is_closed(&server) && is_empty(temp.path()), "{said}");
}

#[test]
fn terminated_alone_it_ends_its_command_and_leaves_nothing() {
    let Some(temp) = temp() else { return };
    let mut run = Run::start(temp, WAITS);
    let server = run.server();
    assert!(kill("TERM", &run.child.id().to_string()));
    let (code, said, temp) = run.end();
    assert_eq!(code, Some(143), "{said}");
    assert!(is_closed(&server) && is_empty(temp.path()), "{said}");
}

#[test]
fn the_next_run_ends_what_a_killed_one_has_left_and_nothing_else() {
    let Some(temp) = temp() else { return };
    let mut run = Run::start(temp, WAITS);
    let stray = run.server();
    let group = format!("-{}", run.child.id());
    assert!(kill("KILL", &group));
    let (code, _, temp) = run.end();
    assert_eq!(code, None);
    assert!(!is_empty(temp.path()));

    let mut next = Run::start(temp, WAITS);
    let server = next.server();
    assert!(is_closed(&stray));
    // A run beside it ends by itself and spares it.
    let beside = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["postgres", "--", "true"])
        .env_remove("TEST_POSTGRES_URL")
        .env("TMPDIR", next.temp.path())
        .output()
        .unwrap();
    assert_eq!(beside.status.code(), Some(0));
    client(server.peer_addr().unwrap().as_pathname().unwrap());
    drop(next.child.stdin.take());
    let (code, said, temp) = next.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(is_closed(&server) && is_empty(temp.path()));
}
