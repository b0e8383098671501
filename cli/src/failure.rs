//! Why a command ends without success: one sentence and an exit code.
//! Invariant: nothing of a failure is printed but its sentence, and that on one line.

use std::io;
use std::process::ExitCode;

use crate::output;

/// The exit code of a command that was called wrongly.
pub(crate) const USAGE: u8 = 2;

/// Why a command ends without success.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was called wrongly; exit code 2.
    Usage(String),
    /// It could not be done; exit code 1.
    Failed(String),
    /// The reader of the output has gone; nothing to say.
    BrokenPipe,
}

impl Failure {
    /// A command that was called wrongly.
    pub(crate) fn usage(sentence: impl ToString) -> Self {
        Self::Usage(sentence.to_string())
    }

    /// A thing that could not be done.
    pub(crate) fn failed(sentence: impl ToString) -> Self {
        Self::Failed(sentence.to_string())
    }

    /// An option whose value was refused.
    pub(crate) fn option(name: &str, error: &prompt_engine::Error) -> Self {
        Self::Usage(format!("{name}: {}", error.chain()))
    }

    /// Says why, and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        let (sentence, code) = match self {
            Self::Usage(sentence) => (sentence, USAGE),
            Self::Failed(sentence) => (sentence, 1),
            Self::BrokenPipe => return ExitCode::SUCCESS,
        };
        output::complain(sentence);
        ExitCode::from(code)
    }
}

impl From<prompt_engine::Error> for Failure {
    fn from(error: prompt_engine::Error) -> Self {
        Self::Failed(error.chain())
    }
}

/// An error of writing to standard output: files are read and written with errors that name them.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::Failed(format!("cannot write the output: {error}")),
        }
    }
}
