//! As whom the server's programs run: as the caller, or as `postgres` where the caller is root, whom
//! PostgreSQL refuses. Needs no sudo and no su: root may change who a child is.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// The user and group `postgres`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Account {
    /// Nobody else where the caller is not root.
    pub(super) fn of_server() -> Result<Option<Self>, String> {
        if !is_root() {
            return Ok(None);
        }
        let found = id(&["-u", "postgres"]).zip(id(&["-g", "postgres"]));
        let (uid, gid) = found.ok_or(
            "PostgreSQL does not run as root, and there is no user postgres to run it as: make one, \
             or run this as another user",
        )?;
        Ok(Some(Self { uid, gid }))
    }

    /// Makes `command` run as this user; the standard library then drops root's further groups too.
    pub(super) fn run(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }
}

pub(super) fn is_root() -> bool {
    id(&["-u"]) == Some(0)
}

/// What `id` prints. It asks whatever the machine keeps its users in, not only /etc/passwd.
fn id(args: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(args).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}
