//! What can go wrong in this store, and the one place where it becomes an error of core.
//! Invariant: a sentence names the file; the driver's words are its source, never the sentence.

use std::path::{Path, PathBuf};

use prompt_engine_core::{Error, ErrorKind};
use rusqlite::types::FromSqlError;
use rusqlite::{ErrorCode, ffi};

/// A failure inside the store, before it is known which file it is about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The contract refuses it, or core could not read it back: passed on as it is.
    #[error(transparent)]
    Judged(#[from] Error),
    #[error(transparent)]
    Driver(#[from] rusqlite::Error),
    #[error("a stored row cannot be read: {0}")]
    Row(String),
    #[error("the folder {0} does not exist")]
    NoFolder(PathBuf),
    #[error("it is a folder")]
    Folder,
    #[error("it can only be read")]
    ReadOnly,
    #[error("its file system does not allow the journal mode WAL (it is {0})")]
    NoWal(String),
    #[error("it has schema version {found}, and this build knows versions up to {known}")]
    NewerSchema { found: i64, known: i64 },
    #[error("the task that worked on it was cancelled")]
    Cancelled,
    #[error("the task that worked on it panicked")]
    Panicked,
}

pub(crate) type Outcome<T> = std::result::Result<T, Fault>;

impl Fault {
    /// The fault as one about the file at `path`.
    pub(crate) fn about(self, path: &Path) -> Located {
        Located { path: path.to_owned(), fault: self }
    }

    /// Whether another connection holds a lock that it will give back.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(
            self,
            Self::Driver(error) if matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
            )
        )
    }
}

/// A fault of the file at `path`.
#[derive(Debug)]
pub(crate) struct Located {
    path: PathBuf,
    fault: Fault,
}

impl From<FromSqlError> for Fault {
    fn from(error: FromSqlError) -> Self {
        Self::Row(error.to_string())
    }
}

impl From<Located> for Error {
    fn from(Located { path, fault }: Located) -> Self {
        let file = path.display();
        let fault = match fault {
            Fault::Judged(error) if error.kind() != ErrorKind::Corrupt => return error,
            fault => fault,
        };
        let (kind, sentence) = match &fault {
            Fault::Driver(error) => driver(error, &file.to_string()),
            // What core could not read back is said of the file it was in.
            Fault::Row(_) | Fault::Judged(_) => {
                (ErrorKind::Corrupt, format!("the SQLite file {file} holds what was never written"))
            }
            Fault::NoFolder(_) | Fault::Folder => {
                (ErrorKind::Invalid, format!("{file} cannot be opened as a SQLite file"))
            }
            Fault::ReadOnly => {
                (ErrorKind::Invalid, format!("the SQLite file {file} cannot be written"))
            }
            Fault::NoWal(_) => {
                (ErrorKind::Unsupported, format!("the SQLite file {file} cannot be shared"))
            }
            Fault::NewerSchema { found, known } => (
                ErrorKind::Unsupported,
                format!(
                    "the SQLite file {file} was written by a newer PromptEngine: it has schema \
                     version {found}, and this build knows versions up to {known}"
                ),
            ),
            Fault::Cancelled => {
                (ErrorKind::Unavailable, format!("the SQLite file {file} was not waited for"))
            }
            Fault::Panicked => (
                ErrorKind::Unexpected,
                format!("the SQLite file {file} could not be worked on: a bug in the store"),
            ),
        };
        let error = Self::new(kind, sentence);
        match fault {
            Fault::Driver(source) => error.with_source(source),
            // The sentence says it all.
            Fault::NewerSchema { .. } => error,
            fault => error.with_source(fault),
        }
    }
}

fn extended(error: &rusqlite::Error) -> Option<i32> {
    match error {
        rusqlite::Error::SqliteFailure(error, _) => Some(error.extended_code),
        _ => None,
    }
}

/// What an error of the driver means.
fn driver(error: &rusqlite::Error, file: &str) -> (ErrorKind, String) {
    use rusqlite::Error as E;
    if matches!(
        error,
        E::FromSqlConversionFailure(..)
            | E::IntegralValueOutOfRange(..)
            | E::InvalidColumnType(..)
            | E::Utf8Error(..)
    ) {
        return (
            ErrorKind::Corrupt,
            format!("the SQLite file {file} holds what was never written"),
        );
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            ErrorKind::Unavailable,
            format!("the SQLite file {file} is busy: another writer held it for too long"),
        ),
        Some(ErrorCode::DiskFull) => (
            ErrorKind::Unavailable,
            format!("the SQLite file {file} cannot grow: the disk is full"),
        ),
        Some(ErrorCode::CannotOpen) => {
            (ErrorKind::Unavailable, format!("the SQLite file {file} cannot be opened"))
        }
        // Where a file may not grow, though its disk has room, this is all that SQLite says.
        Some(ErrorCode::SystemIoFailure) if extended(error) == Some(ffi::SQLITE_IOERR_WRITE) => (
            ErrorKind::Unavailable,
            format!("the SQLite file {file} cannot be written: its disk may be full"),
        ),
        Some(ErrorCode::SystemIoFailure) => {
            (ErrorKind::Unavailable, format!("the SQLite file {file} cannot be read or written"))
        }
        Some(ErrorCode::NotADatabase) => {
            (ErrorKind::Corrupt, format!("{file} is not a SQLite database"))
        }
        Some(ErrorCode::DatabaseCorrupt) => {
            (ErrorKind::Corrupt, format!("the SQLite file {file} is damaged"))
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            (ErrorKind::Invalid, format!("the SQLite file {file} cannot be written"))
        }
        _ => (ErrorKind::Unexpected, format!("the SQLite file {file} could not be worked on")),
    }
}
