//! What goes to standard output and standard error, colours left out where they do not belong.
//! Invariant: no control character of a stored text reaches a terminal; a pipe gets answers as they are.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use owo_colors::OwoColorize;
use serde::Serialize;

use crate::failure::Failure;

/// Prints a line.
pub(crate) fn say(line: impl Display) -> Result<(), Failure> {
    writeln!(anstream::stdout().lock(), "{line}")?;
    Ok(())
}

/// Prints a text that is an answer, at once: to a terminal what it can show, elsewhere as it is.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.is_terminal() {
        true => out.write_all(printable(text).as_bytes())?,
        false => out.write_all(text.as_bytes())?,
    }
    out.flush()?;
    Ok(())
}

/// Prints a heading.
pub(crate) fn heading(text: impl Display) -> Result<(), Failure> {
    say(text.bold())
}

/// Prints one JSON document.
pub(crate) fn document(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(no_json)?;
    writeln!(io::stdout().lock(), "{text}")?;
    Ok(())
}

/// Prints JSON lines: one for each value.
pub(crate) fn lines<T: Serialize>(values: impl IntoIterator<Item = T>) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for value in values {
        let text = serde_json::to_string(&value).map_err(no_json)?;
        writeln!(out, "{text}")?;
    }
    out.flush()?;
    Ok(())
}

/// Prints a line to standard error, for people: it is no part of the output.
pub(crate) fn note(line: impl Display) {
    // Nobody is left to tell where standard error is closed.
    drop(writeln!(anstream::stderr().lock(), "{line}"));
}

/// Prints the sentence of a failure.
pub(crate) fn complain(sentence: &str) {
    let sentence: String =
        sentence.split(['\n', '\r']).map(str::trim).collect::<Vec<_>>().join(" ");
    note(format_args!("{} {}", "prompt-engine:".red().bold(), printable(&sentence)));
}

/// The text without what a terminal would obey: control characters but tabs and line ends are escaped.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(c) = letters.next() {
        if harmful(c) && !(c == '\r' && letters.peek() == Some(&'\n')) {
            clean.extend(c.escape_default());
        } else {
            clean.push(c);
        }
    }
    Cow::Owned(clean)
}

/// The start of the text on one line, at most `limit` characters.
pub(crate) fn excerpt(text: &str, limit: usize) -> String {
    let line = printable(text).split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= limit {
        return line;
    }
    let mut start: String = line.chars().take(limit.saturating_sub(1)).collect();
    start.push('…');
    start
}

fn no_json(error: serde_json::Error) -> Failure {
    Failure::failed(format!("cannot write the answer as JSON: {error}"))
}
