//! E-mail addresses.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::after_escape;

static EMAILS: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"(?x)
        [\p{L}\p{N}_+] [\p{L}\p{N}\p{M}.\_%+'-]*
        (?: @ | %40 )
        (?: [\p{L}\p{N}] [\p{L}\p{N}\p{M}-]* \. )+
        (?: xn--[a-z0-9-]+ | \p{L}[\p{L}\p{M}]{1,23} )";
    Regex::new(pattern).expect("a fixed pattern, compiled by every test of this module")
});

pub(super) fn find(text: &str) -> Vec<Range<usize>> {
    // Most texts have none, and this look is quicker than a search with classes of letters.
    if !text.contains('@') && !text.contains("%40") {
        return Vec::new();
    }
    EMAILS
        .find_iter(text)
        .filter(|email| !is_picture(email.as_str()))
        .map(|email| after_escape(text, email.start())..email.end())
        .collect()
}

/// The name of a picture for a finer screen: `icon@2x.png`.
fn is_picture(text: &str) -> bool {
    let host = text.rsplit('@').next().unwrap_or(text);
    let after = host.trim_start_matches(|c: char| c.is_ascii_digit());
    after.len() < host.len() && after.starts_with("x.")
}
