//! Texts that may hold NUL, which the type `text` cannot.
//! Invariant: whatever was escaped comes back; a text without NUL and U+10FFFF is stored as it is.

use std::borrow::Cow;

use crate::error::{Fault, Outcome};

/// A character that no text means anything by: the last one there is.
const ESCAPE: char = '\u{10FFFF}';

/// `text` as it is stored: NUL is U+10FFFF `0`, U+10FFFF is U+10FFFF `1`.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', ESCAPE]) {
        return Cow::Borrowed(text);
    }
    let mut stored = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\0' => stored.extend([ESCAPE, '0']),
            ESCAPE => stored.extend([ESCAPE, '1']),
            c => stored.push(c),
        }
    }
    Cow::Owned(stored)
}

/// The text that is stored as `stored`.
pub(crate) fn unescaped(stored: String) -> Outcome<String> {
    if !stored.contains(ESCAPE) {
        return Ok(stored);
    }
    let mut text = String::with_capacity(stored.len());
    let mut chars = stored.chars();
    while let Some(c) = chars.next() {
        if c != ESCAPE {
            text.push(c);
            continue;
        }
        match chars.next() {
            Some('0') => text.push('\0'),
            Some('1') => text.push(ESCAPE),
            _ => return Err(Fault::Row("U+10FFFF escapes neither NUL nor itself".to_owned())),
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_escaped_comes_back_and_holds_no_nul() {
        for text in ["", "Hello", "\0", "a\0b", "\u{10FFFF}", "\u{10FFFF}0\0", "1\u{10FFFF}\0"] {
            let stored = escaped(text);
            assert!(!stored.contains('\0'));
            assert_eq!(unescaped(stored.into_owned()).unwrap(), text);
        }
        assert!(matches!(escaped("plain {{name}}"), Cow::Borrowed(_)));
        assert_eq!(escaped("a\0b"), "a\u{10FFFF}0b");
    }

    #[test]
    fn what_was_never_escaped_is_an_error() {
        for stored in ["\u{10FFFF}", "\u{10FFFF}x", "\u{10FFFF}\u{10FFFF}0"] {
            assert!(unescaped(stored.to_owned()).is_err(), "{stored:?}");
        }
    }
}
