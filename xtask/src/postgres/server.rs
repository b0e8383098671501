//! One throwaway server: made, started, lent to a command, stopped and removed.
//! Invariant: it listens on a socket that only its owner reaches, and on no network. It keeps
//! PostgreSQL's defaults of durability, since tests kill it and count what is left.

use std::ffi::OsString;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{env, fs};

use super::account::Account;
use super::folder::Folder;
use super::installed::{Installed, last_lines};
use super::signals::ENDING;

/// PostgreSQL's own default, said aloud: `PGPORT` would otherwise change it, for the server as well.
const PORT: &str = "5432";

/// Variables of libpq that lead to another server than ours, or ask of it what it does not have.
const OF_OTHER_SERVERS: [&str; 5] =
    ["PGHOSTADDR", "PGSERVICE", "PGSSLMODE", "PGCHANNELBINDING", "PGOPTIONS"];

/// Stopped and removed when dropped.
#[derive(Debug)]
pub(super) struct Server {
    folder: Folder,
    bin: PathBuf,
    owner: Option<Account>,
    version: String,
}

impl Server {
    /// Starts one with a new folder in `base`, where it first removes what killed runs have left.
    pub(super) fn start(installed: Installed, base: &Path) -> Result<Self, String> {
        let owner = Account::of_server()?;
        let folder = Folder::new(base, owner)
            .map_err(|error| format!("cannot make a folder in {}: {error}", base.display()))?;
        let strays = folder.strays();
        let mut server = Self { folder, bin: installed.bin, owner, version: String::new() };
        for stray in strays {
            server.end(&stray);
        }
        server.version = server.ask_version()?;
        server.initialize()?;
        server.launch()?;
        Ok(server)
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Tells `command` where the server is.
    pub(super) fn lend_to(&self, command: &mut Command) {
        for name in OF_OTHER_SERVERS {
            command.env_remove(name);
        }
        command.envs(self.environment());
    }

    pub(super) fn environment(&self) -> [(&'static str, OsString); 8] {
        let socket = self.folder.socket();
        // Nothing to encode: `folder::base` takes no path of which a URL would make something else.
        let url =
            format!("postgres://postgres@localhost:{PORT}/postgres?host={}", socket.display());
        [
            ("TEST_POSTGRES_URL", url.into()),
            ("TEST_POSTGRES_BIN", self.bin.clone().into()),
            ("TEST_POSTGRES_DATA", self.folder.data().into()),
            ("TEST_POSTGRES_LOG", self.log().into()),
            ("PGHOST", socket.into()),
            ("PGPORT", PORT.into()),
            ("PGUSER", "postgres".into()),
            ("PGDATABASE", "postgres".into()),
        ]
    }

    fn log(&self) -> PathBuf {
        self.folder.log().join("server.log")
    }

    fn ask_version(&self) -> Result<String, String> {
        let output = self.program("pg_ctl", &["--version".as_ref()])?;
        // pg_ctl (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)
        let said = String::from_utf8_lossy(&output.stdout);
        Ok(said.split_whitespace().nth(2).unwrap_or("of unknown version").to_owned())
    }

    /// Makes the data folder. Settings go into it, and not onto the command line, so that whoever
    /// starts the server again has them too.
    fn initialize(&self) -> Result<(), String> {
        let data = self.folder.data();
        let mut args: Vec<&Path> = vec!["-D".as_ref(), &data];
        // No sync: nothing is lost with a folder that was to be made. C: a locale every system has.
        let words = "--username=postgres --auth-local=trust --auth-host=reject --encoding=UTF8 \
                     --locale=C --no-sync";
        args.extend(words.split_whitespace().map(Path::new));
        let output = self.program("initdb", &args)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("initdb failed:\n{}", last_lines(&said)));
        }

        let path = data.join("postgresql.conf");
        let settings = format!(
            "listen_addresses = ''\nport = {PORT}\nunix_socket_directories = '{}'\n\
             max_connections = 300\n",
            self.folder.socket().display(),
        );
        // The last setting of a name counts. Appended, since the file's owner is to stay the same.
        let written = fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, settings.as_bytes()));
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    fn launch(&self) -> Result<(), String> {
        let (data, log) = (self.folder.data(), self.log());
        let args = ["-D".as_ref(), &*data, "-l".as_ref(), &*log, "-w".as_ref(), "start".as_ref()];
        let output = self.program("pg_ctl", &args)?;
        if output.status.success() {
            return Ok(());
        }
        let log = fs::read_to_string(&log)
            .unwrap_or_else(|_| String::from_utf8_lossy(&output.stderr).into_owned());
        Err(format!(
            "PostgreSQL {} did not start; its last words:\n{}",
            self.version,
            last_lines(&log)
        ))
    }

    /// Stops the server of `folder`, if one runs, and removes the folder. What fails is said: there is
    /// nobody to return it to, and the next run will try again.
    fn end(&self, folder: &Folder) {
        let ended = self.stop(folder).and_then(|()| {
            let cannot = |error| format!("cannot remove {}: {error}", folder.path().display());
            folder.remove().map_err(cannot)
        });
        if let Err(why) = ended {
            eprintln!("xtask: {why}");
        }
    }

    /// A test may have stopped or killed it already. Its socket tells: it accepts as long as the
    /// server lives, while a pid in a file may since have been given to another process.
    fn stop(&self, folder: &Folder) -> Result<(), String> {
        if UnixStream::connect(folder.socket().join(format!(".s.PGSQL.{PORT}"))).is_err() {
            return Ok(());
        }
        let data = folder.data();
        // Immediate: no data is worth a checkpoint.
        let args = ["-D".as_ref(), &*data, "-w".as_ref(), "-m".as_ref(), "immediate".as_ref()];
        let output = self.program("pg_ctl", &[&args[..], &["stop".as_ref()]].concat())?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("the PostgreSQL in {} does not stop:\n{}", data.display(), last_lines(&said)))
    }

    /// Runs one of the server's programs to its end.
    fn program(&self, name: &str, args: &[&Path]) -> Result<Output, String> {
        let mut command = Command::new(self.bin.join(name));
        command.args(args).stdin(Stdio::null());
        // A folder that the user postgres may be in, and a group that Ctrl-C in a terminal spares.
        command.current_dir(self.folder.path()).process_group(0);
        // Several of these are settings to the server and orders to pg_ctl.
        for (variable, _) in env::vars_os() {
            if variable.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(variable);
            }
        }
        // Its messages, which we may have to show, are read in English everywhere else.
        command.env("LC_ALL", "C");
        if let Some(owner) = self.owner {
            owner.run(&mut command);
        }
        let output = loop {
            let output = command.output();
            // Ctrl-C can meet a child before it is in its group. It has not begun then, and without it
            // a second Ctrl-C would leave the server running.
            let signal = output.as_ref().ok().and_then(|output| output.status.signal());
            if !signal.is_some_and(|signal| ENDING.contains(&signal)) {
                break output;
            }
        };
        output.map_err(|error| {
            let (path, folder) = (self.bin.join(name), self.folder.path());
            let (path, folder) = (path.display(), folder.display());
            match self.owner {
                Some(_) => format!(
                    "cannot start {path} in {folder} as the user postgres: {error}; it must be able \
                     to enter that folder, which TMPDIR decides"
                ),
                None => format!("cannot start {path} in {folder}: {error}"),
            }
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end(&self.folder);
    }
}
