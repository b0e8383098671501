//! Numbers as people write them: groups of digits with something between them.

use std::ops::Range;

/// The digits of `text`, as ranges of digits in one piece.
pub(super) fn groups(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut groups = Vec::new();
    let mut at = 0;
    while let Some(found) = bytes[at..].iter().position(u8::is_ascii_digit) {
        let start = at + found;
        let length = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        at = start + length;
        groups.push(start..at);
    }
    groups
}

/// The character before `at`; that of an escape of JSON counts as the space that it stands for.
pub(super) fn before(text: &str, at: usize) -> Option<char> {
    let head = &text[..at];
    let last = head.chars().next_back()?;
    let escaped = matches!(last, 'n' | 'r' | 't') && head[..at - 1].ends_with('\\');
    Some(if escaped { ' ' } else { last })
}

/// The two characters from `at` on.
pub(super) fn after(text: &str, at: usize) -> (Option<char>, Option<char>) {
    let mut rest = text[at..].chars();
    (rest.next(), rest.next())
}

/// Whether a character makes digits beside it a part of a name.
pub(super) fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Whether the characters at `at`, seen away from a number, go on with it: `.5` or `-12`.
pub(super) fn goes_on(text: &str, at: usize) -> bool {
    match after(text, at) {
        (Some('.'), Some(next)) => next.is_ascii_digit(),
        (Some('-'), Some(next)) => is_word(next),
        (Some(next), _) => is_word(next),
        (None, _) => false,
    }
}
