//! The folder of one throwaway server: `data`, `socket`, `log` and a lock file, which is held as long
//! as the run that made the folder lives. The kernel lets go of the lock when that run is killed, so
//! a folder whose lock is free is a stray: no pid is guessed at, and none can have been given to
//! another process since.
//! Invariant: a folder of another user is never a stray of ours, whatever its name.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, io, process};

use super::account::Account;

const PREFIX: &str = "prompt-engine-pg-";

/// What follows the base in the longest path of a socket.
const LONGEST: &str = "/prompt-engine-pg-4294967295-999/socket/.s.PGSQL.5432";

/// What the address of a socket has room for on macOS, the least of the systems: 104 bytes with the
/// zero at their end (`sun_path` in unix(4)); Linux has 108.
const ROOM: usize = 103;

/// Counts the folders of this process, so that a name never comes back while it runs.
static MADE: AtomicU32 = AtomicU32::new(0);

#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    #[cfg_attr(not(test), expect(dead_code, reason = "it is held, and not read"))]
    lock: File,
}

/// Where folders are made: the system's temp folder if a socket in it has a short enough path of
/// characters that mean nothing in a URL, a shell or postgresql.conf; else /tmp.
pub(super) fn base() -> PathBuf {
    base_for(env::temp_dir())
}

fn base_for(temp: PathBuf) -> PathBuf {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte);
    let bytes = temp.as_os_str().as_encoded_bytes();
    let fits = bytes.len() + LONGEST.len() <= ROOM && bytes.iter().copied().all(plain);
    if temp.is_absolute() && fits { temp } else { PathBuf::from("/tmp") }
}

impl Folder {
    /// Makes one in `base`, whose parts belong to `owner`.
    pub(super) fn new(base: &Path, owner: Option<Account>) -> io::Result<Self> {
        let path = loop {
            let number = MADE.fetch_add(1, Ordering::Relaxed);
            let path = base.join(format!("{PREFIX}{}-{number}", process::id()));
            match DirBuilder::new().mode(0o711).create(&path) {
                Ok(()) => break path,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        };
        furnish(&path, owner).map(|lock| Self { path: path.clone(), lock }).inspect_err(|_| {
            let _ = fs::remove_dir_all(&path); // what is wrong with it has been said
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// The folder of the socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.path.join("socket")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Folders beside this one that runs of the same user have left behind; they are locked now.
    pub(super) fn strays(&self) -> Vec<Self> {
        let ours = fs::metadata(&self.path).map(|folder| folder.uid()).ok();
        let entries = self.path.parent().and_then(|base| fs::read_dir(base).ok());
        let stray = |path: PathBuf| {
            let name = path.file_name()?.to_str()?;
            let found = fs::symlink_metadata(&path).ok()?;
            if !name.starts_with(PREFIX) || !found.is_dir() || Some(found.uid()) != ours {
                return None;
            }
            let lock = File::open(path.join("lock")).ok()?;
            lock.try_lock().ok()?;
            Some(Self { path, lock })
        };
        entries.into_iter().flatten().flatten().filter_map(|entry| stray(entry.path())).collect()
    }

    /// Removes it, unless its own run has done so in the meantime. The lock goes last: if a program of
    /// the server is still writing, what is left remains a stray, for the next run.
    pub(super) fn remove(&self) -> io::Result<()> {
        for path in [self.data(), self.socket(), self.log(), self.path.clone()] {
            match fs::remove_dir_all(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Leaves it as a killed run would. Closing the file is not enough here: a child that another test
    /// is just starting may have it open until it runs its program.
    #[cfg(test)]
    pub(super) fn abandon(&self) {
        self.lock.unlock().unwrap();
    }
}

/// Makes what is in a folder, the lock first.
fn furnish(path: &Path, owner: Option<Account>) -> io::Result<File> {
    // Taken under another name: whoever finds a lock file finds it taken.
    let unnamed = path.join("lock.new");
    let lock = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unnamed)?;
    lock.lock()?;
    fs::rename(&unnamed, path.join("lock"))?;

    // The owner of the parts passes through, and nobody lists it; the mode it was made with was masked.
    fs::set_permissions(path, Permissions::from_mode(0o711))?;
    for part in ["data", "socket", "log"].map(|name| path.join(name)) {
        // Whoever reaches the socket is a superuser.
        DirBuilder::new().mode(0o700).create(&part)?;
        if let Some(Account { uid, gid }) = owner {
            chown(&part, Some(uid), Some(gid))?;
        }
    }
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temp_folder_that_sockets_cannot_live_in_is_not_used() {
        let of = |temp: &str| base_for(PathBuf::from(temp));
        assert_eq!(of("/var/tmp"), Path::new("/var/tmp"));
        // What macOS makes.
        let apple = "/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/T/";
        assert_eq!(of(apple), Path::new(apple));
        let longest = format!("/{}", "a".repeat(ROOM - LONGEST.len() - 1));
        assert_eq!(of(&longest), Path::new(&longest));
        assert_eq!(of(&format!("{longest}a")), Path::new("/tmp"));
        for odd in ["tmp", "/a b", "/a'b", "/a?b", "/a%b", "/a,b", "/a$b", "/ä"] {
            assert_eq!(of(odd), Path::new("/tmp"), "{odd}");
        }
    }

    #[test]
    fn a_folder_is_a_stray_once_its_run_has_ended_and_not_before() {
        let base = tempfile::tempdir().unwrap();
        let of_a_run = Folder::new(base.path(), None).unwrap();
        let ours = Folder::new(base.path(), None).unwrap();
        let named_alike = base.path().join(format!("{PREFIX}1"));
        fs::create_dir(&named_alike).unwrap();
        assert_eq!(ours.strays().len(), 0);

        of_a_run.abandon();
        let strays = ours.strays();
        assert_eq!(strays.len(), 1);
        assert_eq!(strays[0].path(), of_a_run.path());
        // Whoever finds it holds it: two runs do not remove the same folder.
        assert_eq!(ours.strays().len(), 0);

        // A program of the killed run still writes: what it has is no folder that could be removed.
        fs::remove_dir(of_a_run.data()).unwrap();
        fs::write(of_a_run.data(), "").unwrap();
        strays[0].remove().unwrap_err();
        drop(strays);
        let strays = ours.strays();
        assert_eq!(strays.len(), 1);
        fs::remove_file(of_a_run.data()).unwrap();

        strays[0].remove().unwrap();
        strays[0].remove().unwrap();
        assert!(!of_a_run.path().exists());
        assert!(named_alike.exists() && ours.path().exists());
    }

    #[test]
    fn only_the_owner_reaches_the_socket() {
        let base = tempfile::tempdir().unwrap();
        let folder = Folder::new(base.path(), None).unwrap();
        for part in [folder.data(), folder.socket(), folder.log()] {
            assert_eq!(fs::metadata(part).unwrap().mode() & 0o777, 0o700);
        }
    }
}
