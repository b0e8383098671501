//! What can go wrong in this store, and the one place where it becomes an error of core.
//! Invariant: a sentence names the server or the database and no secret; the driver's words are its
//! source, never the sentence.

use std::io;
use std::time::Duration;

use prompt_engine_core::error::BoxError;
use prompt_engine_core::{Error, ErrorKind};
use tokio::task::JoinError;

use crate::config::Place;

/// A failure inside the store, before it is known which database it is about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The contract refuses it, or core could not read it back: passed on as it is.
    #[error(transparent)]
    Judged(#[from] Error),
    #[error(transparent)]
    Driver(#[from] sqlx::Error),
    #[error("a stored row cannot be read: {0}")]
    Row(String),
    #[error("it did not answer within {0:?}")]
    Silent(Duration),
    /// It was open before, and takes no connection now.
    #[error(transparent)]
    NoLonger(Box<Fault>),
    #[error("all {connections} connections were in use for {waited:?}")]
    Busy { connections: u32, waited: Duration },
    /// The connection was lost after COMMIT was sent and before it was answered.
    #[error("the answer to COMMIT was lost")]
    Unacknowledged(#[source] Box<Fault>),
    #[error("it has schema version {found}, and this build knows versions up to {known}")]
    NewerSchema { found: i64, known: i64 },
    #[error("it is PostgreSQL {0}, and this store needs 12 or newer")]
    OldServer(u32),
    #[error("its encoding is {0}, not UTF8")]
    Encoding(String),
    #[error("its search path names no schema that exists")]
    NoSchema,
    #[error("the task that worked on it was cancelled")]
    Cancelled,
    #[error("the task that worked on it panicked")]
    Panicked,
}

pub(crate) type Outcome<T> = std::result::Result<T, Fault>;

impl Fault {
    /// The SQLSTATE that the server gave.
    fn code(&self) -> Option<String> {
        match self {
            Self::Driver(error) => code(error),
            _ => None,
        }
    }

    /// Whether the connection is gone, so that another one may do better.
    pub(crate) fn is_lost(&self) -> bool {
        match self {
            // What cannot be understood on a connection leaves it useless.
            Self::Driver(sqlx::Error::Io(_) | sqlx::Error::Protocol(_)) | Self::Silent(_) => true,
            // 57P05: idle for too long; 25P03: likewise, in a transaction; 25006, and 0A000 at
            // BEGIN: a standby, while the one that was asked is elsewhere by now.
            _ => self.code().is_some_and(|code| {
                code.starts_with("08")
                    || matches!(
                        &*code,
                        "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25006" | "0A000"
                    )
            }),
        }
    }

    /// Whether the server undid the transaction because of another one, which is over soon.
    pub(crate) fn is_deadlock(&self) -> bool {
        self.code().is_some_and(|code| matches!(&*code, "40P01" | "40001"))
    }

    /// Whether the server, which is known to be there, takes no connection at this moment.
    pub(crate) fn is_passing(&self, was_there: bool) -> bool {
        match self {
            Self::Driver(sqlx::Error::Io(error)) => {
                was_there
                    && matches!(
                        error.kind(),
                        io::ErrorKind::ConnectionRefused
                            | io::ErrorKind::ConnectionReset
                            | io::ErrorKind::ConnectionAborted
                            | io::ErrorKind::BrokenPipe
                            | io::ErrorKind::UnexpectedEof
                            | io::ErrorKind::NotFound
                    )
            }
            // 53300: too many; 57P01 to 57P03: stopping, crashed, starting.
            _ => self.code().is_some_and(|code| {
                matches!(&*code, "53300" | "57P03")
                    || was_there && matches!(&*code, "57P01" | "57P02")
            }),
        }
    }

    /// The fault as one about the store at `place`.
    pub(crate) fn about(self, place: &Place) -> Error {
        let (kind, sentence) = match self {
            Self::Judged(error) => return error,
            Self::Driver(ref error) => driver(error, place),
            Self::NoLonger(fault) => {
                let error = fault.about(place);
                if error.kind() != ErrorKind::Invalid {
                    return error;
                }
                return Error::new(
                    ErrorKind::Unavailable,
                    format!("{place} takes no connection any more"),
                )
                .with_source(error);
            }
            Self::Row(_) => corrupt(place),
            Self::Silent(_) => unreachable(place),
            Self::Busy { .. } => (ErrorKind::Unavailable, format!("{place} is busy")),
            Self::Unacknowledged(_) => (
                ErrorKind::Unavailable,
                format!(
                    "the connection to {place} was lost while a change was committed; whether it \
                     holds is not known"
                ),
            ),
            Self::NewerSchema { found, known } => {
                // The sentence says it all.
                return Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "{place} was written by a newer PromptEngine: it has schema version \
                         {found}, and this build knows versions up to {known}"
                    ),
                );
            }
            Self::OldServer(_) | Self::Encoding(_) => {
                (ErrorKind::Unsupported, format!("{place} cannot be used"))
            }
            Self::NoSchema => (ErrorKind::Invalid, format!("{place} has no place for tables")),
            Self::Cancelled => (ErrorKind::Unavailable, format!("{place} was not waited for")),
            Self::Panicked => (
                ErrorKind::Unexpected,
                format!("{place} could not be worked on: a bug in the store"),
            ),
        };
        let error = Error::new(kind, sentence);
        match self {
            Self::Driver(source) => error.with_source(cause(source)),
            Self::Unacknowledged(fault) => error.with_source(fault.about(place)),
            fault => error.with_source(fault),
        }
    }
}

/// What a task on another thread came to.
pub(crate) fn joined<T>(done: std::result::Result<Outcome<T>, JoinError>) -> Outcome<T> {
    match done {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => Err(Fault::Panicked),
        Err(_) => Err(Fault::Cancelled),
    }
}

fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// What the driver says, once: its own text repeats that of its source.
fn cause(error: sqlx::Error) -> BoxError {
    match error {
        sqlx::Error::Database(error) => match error.code() {
            Some(code) => format!("{} (SQLSTATE {code})", error.message()).into(),
            None => error.message().into(),
        },
        sqlx::Error::Io(error) => error.into(),
        sqlx::Error::Tls(error) | sqlx::Error::Configuration(error) => error,
        error => error.into(),
    }
}

fn unreachable(place: &Place) -> (ErrorKind, String) {
    (ErrorKind::Unavailable, format!("the PostgreSQL server at {} cannot be reached", place.server))
}

fn corrupt(place: &Place) -> (ErrorKind, String) {
    (ErrorKind::Corrupt, format!("{place} holds what was never written"))
}

/// What an error of the driver means.
fn driver(error: &sqlx::Error, place: &Place) -> (ErrorKind, String) {
    use ErrorKind::{Corrupt, Invalid, Unavailable, Unexpected, Unsupported};
    use sqlx::Error as E;
    let Place { server, database, user, .. } = place;
    match error {
        E::Io(_) => return unreachable(place),
        E::Protocol(_) => {
            return (Unavailable, format!("the connection to {place} cannot be understood"));
        }
        E::Tls(_) | E::Configuration(_) => {
            return (
                Invalid,
                format!("no TLS connection to the PostgreSQL server at {server} can be made"),
            );
        }
        E::Decode(_) | E::ColumnDecode { .. } => return corrupt(place),
        _ => {}
    }
    let code = code(error).unwrap_or_default();
    let (class, _) = code.split_at_checked(2).unwrap_or(("", ""));
    match (&*code, class) {
        ("28P01" | "28000", _) => {
            (Invalid, format!("the PostgreSQL server at {server} does not let {user} in"))
        }
        ("3D000", _) => {
            (Invalid, format!("the PostgreSQL server at {server} has no database {database}"))
        }
        ("42501", _) => (Invalid, format!("{user} may not do this in {place}")),
        ("25006" | "0A000", _) => (
            Unavailable,
            format!("{place} can only be read: a standby, or a role that may not write"),
        ),
        ("53100", _) => (Unavailable, format!("{place} cannot grow: the disk is full")),
        ("53300", _) => (
            Unavailable,
            format!("the PostgreSQL server at {server} has too many connections to take another"),
        ),
        (_, "53") => (Unavailable, format!("{place} has no resources left")),
        ("57P03", _) => {
            (Unavailable, format!("the PostgreSQL server at {server} is not ready yet"))
        }
        ("57014", _) => (Unavailable, format!("{place} was cancelled while it worked")),
        ("55P03" | "40P01" | "40001", _) => {
            (Unavailable, format!("{place} is busy: other writers held it for too long"))
        }
        ("57P01" | "57P02" | "57P05" | "25P03", _) | (_, "08") => {
            (Unavailable, format!("the connection to {place} was lost"))
        }
        ("3F000", _) => {
            (Invalid, format!("{user} may not use the schema of {place}, or it is gone"))
        }
        ("42P01" | "42703", _) => {
            (Corrupt, format!("{place} lacks a table that it had, or part of one"))
        }
        (_, "XX") => (Corrupt, format!("{place} is damaged")),
        (_, "0A") => (Unsupported, format!("{place} cannot do what this store needs")),
        _ => (Unexpected, format!("{place} could not be worked on")),
    }
}
