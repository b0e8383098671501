//! What can go wrong in this store, and the one place where it becomes an error of core.
//! Invariant: a sentence names the file; the driver's words are its source, never the sentence.

use std::io;
use std::path::{Path, PathBuf};

use prompt_engine_core::{Error, ErrorKind};

/// A failure inside the store, before it is known which file it is about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The contract refuses it, or core could not read it back: passed on as it is.
    #[error(transparent)]
    Judged(#[from] Error),
    #[error(transparent)]
    Driver(Box<redb::Error>),
    #[error("a stored value cannot be read: {0}")]
    Row(String),
    #[error("a stored value has version {found}, and this build knows version {known}")]
    Version { found: u8, known: u8 },
    #[error("the folder {0} does not exist")]
    NoFolder(PathBuf),
    #[error("it is a folder")]
    Folder,
    #[error("it has format version {found}, and this build knows version {known}")]
    NewerFormat { found: i64, known: i64 },
    #[error("the task that worked on it was cancelled")]
    Cancelled,
    #[error("the task that worked on it panicked")]
    Panicked,
}

pub(crate) type Outcome<T> = std::result::Result<T, Fault>;

macro_rules! from_driver {
    ($($error:ident)*) => {
        $(
            impl From<redb::$error> for Fault {
                fn from(error: redb::$error) -> Self {
                    Self::Driver(Box::new(error.into()))
                }
            }
        )*
    };
}

from_driver! {
    DatabaseError TransactionError TableError StorageError CommitError SetDurabilityError CompactionError
}

impl Fault {
    /// The fault as one about the file at `path`.
    pub(crate) fn about(self, path: &Path) -> Located {
        Located { path: path.to_owned(), fault: self }
    }

    /// Whether the open database will do nothing more, and has to be opened again: after a failure
    /// to write, it cannot know what is on the disk.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Driver(error) if matches!(
            **error,
            redb::Error::Io(_) | redb::Error::PreviousIo | redb::Error::LockPoisoned(_)
        ))
    }
}

/// A fault of the file at `path`.
#[derive(Debug)]
pub(crate) struct Located {
    path: PathBuf,
    fault: Fault,
}

impl From<Located> for Error {
    fn from(Located { path, fault }: Located) -> Self {
        use ErrorKind::{Corrupt, Unsupported};
        let file = path.display();
        let fault = match fault {
            Fault::Judged(error) if !matches!(error.kind(), Corrupt | Unsupported) => return error,
            fault => fault,
        };
        let newer = || {
            let sentence = format!("the redb file {file} was written by a newer PromptEngine");
            (Unsupported, sentence)
        };
        let (kind, sentence) = match &fault {
            Fault::Driver(error) => driver(error, &file.to_string()),
            Fault::Version { .. } => newer(),
            // A value in the hands of core may be of a form that is not known yet, as rows may.
            Fault::Judged(error) if error.kind() == Unsupported => newer(),
            // What core could not read back is said of the file it was in.
            Fault::Row(_) | Fault::Judged(_) => {
                (Corrupt, format!("the redb file {file} holds what was never written"))
            }
            Fault::NoFolder(_) | Fault::Folder => {
                (ErrorKind::Invalid, format!("{file} cannot be opened as a redb file"))
            }
            Fault::NewerFormat { found, known } => (
                ErrorKind::Unsupported,
                format!(
                    "the redb file {file} was written by a newer PromptEngine: it has format \
                     version {found}, and this build knows version {known}"
                ),
            ),
            Fault::Cancelled => {
                (ErrorKind::Unavailable, format!("the redb file {file} was not waited for"))
            }
            Fault::Panicked => {
                (ErrorKind::Corrupt, format!("the redb file {file} is damaged and cannot be read"))
            }
        };
        let error = Self::new(kind, sentence);
        match fault {
            Fault::Driver(source) => error.with_source(source),
            // The sentence says it all.
            Fault::NewerFormat { .. } => error,
            fault => error.with_source(fault),
        }
    }
}

/// What an error of the driver means.
fn driver(error: &redb::Error, file: &str) -> (ErrorKind, String) {
    use redb::Error as E;
    match error {
        E::DatabaseAlreadyOpen => (
            ErrorKind::Unavailable,
            format!(
                "the redb file {file} is already open: one process has it at a time, and several \
                 can share SQLite or PostgreSQL"
            ),
        ),
        E::UpgradeRequired(_) | E::LockProtocolMismatch => (
            ErrorKind::Unsupported,
            format!("the redb file {file} is of another version of redb than this build has"),
        ),
        E::Io(error) => io(error, file),
        E::PreviousIo => (
            ErrorKind::Unavailable,
            format!("the redb file {file} could not be written before, and is opened again"),
        ),
        E::Corrupted(_)
        | E::TableDoesNotExist(_)
        | E::TableTypeMismatch { .. }
        | E::TableIsMultimap(_)
        | E::TypeDefinitionChanged { .. } => {
            (ErrorKind::Corrupt, format!("the redb file {file} is damaged, or not ours"))
        }
        _ => (ErrorKind::Unexpected, format!("the redb file {file} could not be worked on")),
    }
}

/// What a failed read or write of the file means.
fn io(error: &io::Error, file: &str) -> (ErrorKind, String) {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            (ErrorKind::Unavailable, format!("the redb file {file} cannot grow: the disk is full"))
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            (ErrorKind::Invalid, format!("the redb file {file} cannot be written"))
        }
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            (ErrorKind::Corrupt, format!("{file} is not a redb database, or is damaged"))
        }
        _ => (ErrorKind::Unavailable, format!("the redb file {file} cannot be read or written")),
    }
}
