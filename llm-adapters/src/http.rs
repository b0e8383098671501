//! What the clients share of HTTP: where a server is, the times that a call may take, why it failed,
//! what a server asks for, and what must not be shown of what it says.

mod base_url;
mod client;
mod failure;
mod headers;
mod limits;
mod redactor;

pub(crate) use base_url::{base_url, is_loopback, shown};
pub(crate) use client::{client, install_tls};
pub(crate) use failure::{category, cut_short, failed, unreadable};
pub(crate) use headers::{header, retry_after};
pub(crate) use limits::Limits;
pub(crate) use redactor::Redactor;

/// `message` and the start of `body`, where it says anything; `body` must be redacted.
pub(crate) fn quoting(message: &str, body: &str) -> String {
    match excerpt(body) {
        text if text.is_empty() => message.to_owned(),
        text => format!("{message}: {text}"),
    }
}

/// The start of a text, which must be redacted, on one line.
pub(crate) fn excerpt(text: &str) -> String {
    start(text.split_whitespace().collect::<Vec<_>>().join(" "), 200)
}

/// `text`, or so many characters of it and a mark.
pub(crate) fn start(mut text: String, chars: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(chars) {
        text.truncate(end);
        text.push('…');
    }
    text
}
