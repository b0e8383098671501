//! Where PostgreSQL's programs are, and installing them where that may be done without asking: as root
//! of a Debian. Invariant: no server is left running by having been installed.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use super::account::is_root;

/// The folder of `initdb` and `pg_ctl`.
#[derive(Debug)]
pub(super) struct Installed {
    pub(super) bin: PathBuf,
}

/// Where to look, and what may be done if nothing is there.
#[derive(Debug)]
pub(super) struct Search {
    /// As the variable PATH.
    path: OsString,
    /// Holds a folder for each version, as Debian and Ubuntu have it: their PATH has none of them.
    debian: PathBuf,
    may_install: bool,
}

impl Search {
    pub(super) fn of_this_machine() -> Self {
        Self {
            path: env::var_os("PATH").unwrap_or_default(),
            debian: PathBuf::from("/usr/lib/postgresql"),
            may_install: is_root(),
        }
    }

    /// Finds a server, or installs one.
    pub(super) fn server(&self) -> Result<Installed, String> {
        if let Some(installed) = self.find() {
            return Ok(installed);
        }
        if let Some(apt_get) = self.program("apt-get").filter(|_| self.may_install) {
            eprintln!("PostgreSQL is not installed: installing Debian's package postgresql");
            self.install(&apt_get)?;
        }
        self.find().ok_or_else(|| {
            "the tests need PostgreSQL: install it (Debian's package postgresql, Homebrew's \
             postgresql@17) so that initdb and pg_ctl are on PATH or in /usr/lib/postgresql, or set \
             TEST_POSTGRES_URL to the URL of a superuser"
                .to_owned()
        })
    }

    pub(super) fn find(&self) -> Option<Installed> {
        let mut debian: Vec<PathBuf> = fs::read_dir(&self.debian)
            .map(|versions| versions.flatten().map(|version| version.path()).collect())
            .unwrap_or_default();
        debian.sort_by_key(|version| std::cmp::Reverse(number(version)));
        let debian = debian.into_iter().map(|version| version.join("bin"));
        // The children have a working folder of their own, where a relative path leads elsewhere.
        let bin = env::split_paths(&self.path)
            .filter(|folder| folder.is_absolute())
            .chain(debian)
            .find(|folder| is_complete(folder))?;
        // What is on PATH may be links to some of the programs; the others are where those lead.
        let real = fs::canonicalize(bin.join("pg_ctl")).ok();
        let real = real.and_then(|program| Some(program.parent()?.to_owned()));
        Some(Installed { bin: real.filter(|folder| is_complete(folder)).unwrap_or(bin) })
    }

    fn program(&self, name: &str) -> Option<PathBuf> {
        env::split_paths(&self.path).map(|folder| folder.join(name)).find(|path| path.is_file())
    }

    fn install(&self, apt_get: &Path) -> Result<(), String> {
        let install = ["install", "-y", "--no-install-recommends", "postgresql"];
        // Lists that are absent or old are the usual reason, and they take long to bring up to date.
        if quietly(apt_get, &install).is_err() {
            quietly(apt_get, &["update"])?;
            quietly(apt_get, &install)?;
        }
        self.stop_clusters();
        Ok(())
    }

    /// There was no server, so whichever of Debian's clusters runs now was started by installing one.
    /// `RUNLEVEL` should have kept it from that already; a machine with a policy of its own may differ.
    fn stop_clusters(&self) {
        let list = self.program("pg_lsclusters").map(|path| Command::new(path).arg("-h").output());
        let Some(Ok(list)) = list else { return };
        for line in String::from_utf8_lossy(&list.stdout).lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let [version, name, _port, status, ..] = words[..]
                && status.starts_with("online")
                && let Some(control) = self.program("pg_ctlcluster")
                && let Err(why) = quietly(&control, &[version, name, "stop"])
            {
                eprintln!("xtask: {why}");
            }
        }
    }
}

fn is_complete(bin: &Path) -> bool {
    ["initdb", "pg_ctl"].iter().all(|name| bin.join(name).is_file())
}

/// `15` and `9.6` in an order of numbers; what is no version comes last.
fn number(version: &Path) -> Vec<u32> {
    let name = version.file_name().and_then(OsStr::to_str).unwrap_or_default();
    name.split('.').map_while(|part| part.parse().ok()).collect()
}

/// Runs it without a word unless it fails. It stays in our process group, so that Ctrl-C reaches it:
/// apt-get knows where it may stop.
fn quietly(program: &Path, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // invoke-rc.d(8) starts no server in runlevel 1, and `runlevel` believes this variable. It
        // leaves no trace, unlike a policy-rc.d or a createcluster.conf.
        .env("RUNLEVEL", "1")
        .stdin(Stdio::null())
        .output();
    let what = || format!("`{} {}`", program.display(), args.join(" "));
    let output = output.map_err(|error| format!("cannot start {}: {error}", what()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{} failed:\n{}", what(), last_lines(&said)))
}

/// The end of what a program had to say; its reason is there.
pub(super) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// A machine of which every program is a script of ours, in `bin`.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new() -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            fs::create_dir(machine.at("bin")).unwrap();
            machine
        }

        /// Without links: the temp folder of macOS is behind one.
        fn at(&self, path: &str) -> PathBuf {
            fs::canonicalize(self.0.path()).unwrap().join(path)
        }

        /// A program that writes its arguments down before it does what `script` says.
        fn has(&self, name: &str, script: &str) {
            let path = self.at("bin").join(name);
            let root = self.0.path().display();
            let text = format!("#!/bin/sh\ncd '{root}' && echo {name} \"$@\" >> log\n{script}\n");
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }

        fn has_server(&self, bin: &str) {
            fs::create_dir_all(self.at(bin)).unwrap();
            fs::write(self.at(bin).join("initdb"), "").unwrap();
            fs::write(self.at(bin).join("pg_ctl"), "").unwrap();
        }

        fn search(&self, may_install: bool) -> Search {
            Search { path: self.at("bin").into(), debian: self.at("debian"), may_install }
        }

        fn log(&self) -> String {
            fs::read_to_string(self.at("log")).unwrap_or_default()
        }
    }

    const INSTALL: &str = "apt-get install -y --no-install-recommends postgresql\n";
    const BRINGS_A_SERVER: &str =
        "mkdir -p debian/15/bin; touch debian/15/bin/initdb debian/15/bin/pg_ctl";

    #[test]
    fn what_is_on_path_comes_first_and_then_the_highest_version() {
        let machine = Machine::new();
        for version in ["9.6", "15", "10", "common"] {
            machine.has_server(&format!("debian/{version}/bin"));
        }
        // The client's package makes such a folder, too.
        fs::create_dir_all(machine.at("debian/17/bin")).unwrap();
        assert_eq!(machine.search(true).server().unwrap().bin, machine.at("debian/15/bin"));
        machine.has_server("bin");
        assert_eq!(machine.search(true).server().unwrap().bin, machine.at("bin"));
    }

    #[test]
    fn links_on_path_are_followed_to_the_folder_that_has_all_programs() {
        let machine = Machine::new();
        machine.has_server("elsewhere");
        for name in ["initdb", "pg_ctl"] {
            symlink(machine.at("elsewhere").join(name), machine.at("bin").join(name)).unwrap();
        }
        assert_eq!(machine.search(true).server().unwrap().bin, machine.at("elsewhere"));
    }

    #[test]
    fn without_a_server_one_sentence_says_what_to_install() {
        let machine = Machine::new();
        machine.has("apt-get", BRINGS_A_SERVER);
        let why = machine.search(false).server().unwrap_err();
        assert!(why.contains("package postgresql") && why.contains("TEST_POSTGRES_URL"), "{why}");
        assert!(!why.contains('\n'), "{why}");
        assert_eq!(machine.log(), "", "only root installs anything");

        let bare = Machine::new();
        assert_eq!(bare.search(true).server().unwrap_err(), why);
    }

    #[test]
    fn root_installs_a_server_and_leaves_none_running() {
        let machine = Machine::new();
        machine.has("apt-get", BRINGS_A_SERVER);
        machine.has(
            "pg_lsclusters",
            "echo 15 main 5432 online postgres /data /log; echo 15 other 5433 down postgres /d /l",
        );
        machine.has("pg_ctlcluster", "");
        assert_eq!(machine.search(true).server().unwrap().bin, machine.at("debian/15/bin"));
        let log = format!("{INSTALL}pg_lsclusters -h\npg_ctlcluster 15 main stop\n");
        assert_eq!(machine.log(), log);
    }

    #[test]
    fn the_lists_are_brought_up_to_date_only_if_the_package_is_not_found() {
        let machine = Machine::new();
        let script = format!(
            "[ $1 = update ] && touch updated && exit
             [ -e updated ] || {{ echo 'E: Unable to locate package postgresql' >&2; exit 100; }}
             {BRINGS_A_SERVER}"
        );
        machine.has("apt-get", &script);
        machine.search(true).server().unwrap();
        assert_eq!(machine.log(), format!("{INSTALL}apt-get update\n{INSTALL}"));
    }

    #[test]
    fn a_failed_installation_says_what_apt_get_said() {
        let machine = Machine::new();
        machine.has("apt-get", "echo 'E: Could not get lock' >&2; exit 100");
        let why = machine.search(true).server().unwrap_err();
        assert!(why.contains("apt-get update` failed:\nE: Could not get lock"), "{why}");
    }
}
