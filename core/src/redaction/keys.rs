//! Keys and tokens that are known by their form.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

/// Tokens: at the start of a word, or behind an escape of JSON or of a URL. `sk-…` and `Bearer …`
/// may be words, too, and must hold a digit; see [`is_key`].
const TOKEN: &str = r"(?x)
(?: (?-u:\b) | \\[nrtbf] | \\u[0-9A-Fa-f]{4} | %[0-9A-Fa-f]{2} )
(?: sk-[A-Za-z0-9_-]{16,}
  | [sr]k_(?:live|test)_[A-Za-z0-9]{16,}
  | gh[pousr]_[A-Za-z0-9]{20,}
  | github_pat_[A-Za-z0-9_]{20,}
  | glpat-[A-Za-z0-9_-]{16,}
  | xox[abeprs]-[A-Za-z0-9-]{10,}
  | (?:AKIA|ASIA)[A-Z0-9]{16}(?-u:\b)
  | AIza[A-Za-z0-9_-]{30,}
  | (?:gsk|hf)_[A-Za-z0-9]{20,}
  | xai-[A-Za-z0-9]{20,}
  | npm_[A-Za-z0-9]{30,}
  | eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]+){1,4}
  | (?:[Bb]earer|BEARER)[\ \t]+[A-Za-z0-9._~+/-]{12,}=*
)";

/// A private key: its first line, headers if any, and base64, to its last line or the end.
/// The ends of lines may be escaped, as in JSON.
const PEM: &str = r"(?x)
-----BEGIN\ [A-Z0-9\ ]*PRIVATE\ KEY[A-Z\ ]*-----
(?: \s | \\[nr] )*
(?: [A-Za-z-]+:\ [^\n\\]+ (?: \s | \\[nr] )+ )*
[A-Za-z0-9+/=]{16}
(?s:.)*?
(?: -----END\ [A-Z0-9\ ]*PRIVATE\ KEY[A-Z\ ]*----- | \z )";

static TOKENS: LazyLock<Regex> = LazyLock::new(|| fixed(TOKEN));
static PEMS: LazyLock<Regex> = LazyLock::new(|| fixed(PEM));

fn fixed(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a fixed pattern, compiled by every test of this module")
}

pub(super) fn find(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    for pem in PEMS.find_iter(text) {
        find_tokens(text, at..pem.start(), &mut found);
        found.push(pem.range());
        at = pem.end();
    }
    find_tokens(text, at..text.len(), &mut found);
    found
}

fn find_tokens(text: &str, part: Range<usize>, found: &mut Vec<Range<usize>>) {
    for token in TOKENS.find_iter(&text[part.clone()]) {
        let key = &token.as_str()[escape(token.as_str())..];
        if is_key(key) {
            let end = part.start + token.end();
            found.push(end - key.len() + scheme(key)..end);
        }
    }
}

/// The length of the escape before the token, which stays.
fn escape(token: &str) -> usize {
    match token.as_bytes() {
        [b'\\', b'u', ..] => 6,
        [b'\\', ..] => 2,
        [b'%', ..] => 3,
        _ => 0,
    }
}

/// The length of `Bearer` and the spaces after it, which stay.
fn scheme(token: &str) -> usize {
    match token.get(..6) {
        Some(scheme) if scheme.eq_ignore_ascii_case("bearer") => {
            token.len() - token[6..].trim_start().len()
        }
        _ => 0,
    }
}

fn is_key(token: &str) -> bool {
    let may_be_words = token.starts_with("sk-") || scheme(token) > 0;
    !may_be_words || token.bytes().any(|byte| byte.is_ascii_digit())
}
