//! What is taken out of texts before they are stored: ready rules and functions of one's own.
//! Invariants: a rule takes time linear in the text; what a rule finds goes whole, and a marker
//! stands in its place.

mod cards;
mod digits;
mod emails;
mod json;
mod keys;
mod phones;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

pub(crate) use json::redact_map;

type Function = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Takes secrets out of texts before they are stored; give it to
/// [`EngineBuilder::redact`](crate::EngineBuilder::redact).
///
/// A match of a rule becomes a marker: `[email]`, `[phone]`, `[card]`, `[key]`. The rules run in one
/// order, however they were added: keys, e-mail addresses, cards, phones; then functions of one's
/// own, first added first, each on what is left.
///
/// It is applied by the recorder's writer, after the caller has gone on, to every text of a payload:
/// parameters, rendered texts, messages, pictures' URLs, settings, tool calls and their arguments,
/// answers, error messages and metadata; in JSON to all strings, numbers and keys, however deep. What
/// is sent to the model and what it answers to the caller is never changed, and neither is the
/// [`LlmExecution`](crate::LlmExecution) that the caller is given.
///
/// In two cases it is applied before the caller goes on, on the caller's own thread: to a record for
/// which the queue has no room, since it is redacted before it is cut; and to the texts of spans, with
/// [`EngineBuilder::capture_content`](crate::EngineBuilder::capture_content).
///
/// It is not applied to:
/// - Labels (user, session, environment, provider, model), which calls are filtered and grouped by:
///   one marker would make many users one. Where the name of a user is a secret, give
///   [`Render::user`](crate::Render::user) another that stands for it.
/// - Prompts and their versions: they are written, not recorded.
/// - What is imported from an export ([`transfer`](crate::transfer)): it was redacted when it was
///   recorded, and what is moved must stay the same to the byte.
///
/// # Example: what is left of a text
/// ```
/// use prompt_engine_core::Redaction;
/// let redaction = Redaction::new()
///     .emails()
///     .phones()
///     .cards()
///     .keys()
///     .with(|text| text.contains("Bluebird").then(|| text.replace("Bluebird", "[project]")));
/// assert_eq!(
///     redaction.apply("Bluebird: call Ann, +49 151 2345678 or ann@example.com"),
///     "[project]: call Ann, [phone] or [email]"
/// );
/// assert_eq!(redaction.apply("order 4111222233334444 of 2026-11-26"), "order 4111222233334444 of 2026-11-26");
/// ```
#[derive(Clone, Default)]
pub struct Redaction {
    /// Sorted, each once.
    rules: Vec<Rule>,
    functions: Vec<Function>,
}

/// A ready rule. The order is the one in which they run: a key may hold digits that look like a
/// phone, so keys come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    Keys,
    Emails,
    Cards,
    Phones,
}

impl Rule {
    fn marker(self) -> &'static str {
        match self {
            Self::Keys => "[key]",
            Self::Emails => "[email]",
            Self::Cards => "[card]",
            Self::Phones => "[phone]",
        }
    }

    /// What it finds: ranges of `text` in order, none of which overlap.
    fn find(self, text: &str) -> Vec<Range<usize>> {
        match self {
            Self::Keys => keys::find(text),
            Self::Emails => emails::find(text),
            Self::Cards => cards::find(text),
            Self::Phones => phones::find(text),
        }
    }
}

impl Redaction {
    /// One that changes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// E-mail addresses: `ann@example.com`, of any script, also with `%40` as in a URL.
    ///
    /// Not found: hosts without a dot (`root@localhost`), and addresses that are spelled out. An SSH
    /// address such as `git@github.com` looks the same and is found.
    #[must_use]
    pub fn emails(self) -> Self {
        self.rule(Rule::Emails)
    }

    /// Phone numbers of at most 15 digits, with spaces, `-`, `.`, `/` and parentheses between them:
    /// - with a country: `+49 151 2345678`, `+15551234567`, `0049 151 2345678`;
    /// - of North America: `(555) 123-4567`, `1-555-123-4567`, `555.123.4567`;
    /// - with a leading zero: `0151 23456789`, `(030) 1234567`, `01 42 68 53 00`.
    ///
    /// Not found: digits without `+` and without anything between them, which may as well be the
    /// number of an order. Not taken for phones: dates, times, timestamps, IP addresses, UUIDs,
    /// amounts, coordinates, and digits that are a part of a longer name or number.
    #[must_use]
    pub fn phones(self) -> Self {
        self.rule(Rule::Phones)
    }

    /// Card numbers: 13 to 19 digits, in one piece or in groups of four (4-6-5 and 4-6-4 too), that
    /// pass the Luhn check and have the first digits and the length of American Express, Diners
    /// Club, Discover, JCB, Mastercard, UnionPay or Visa.
    ///
    /// Not found: other schemes, such as Maestro. Of all other numbers of 16 digits about
    /// three in a hundred look like a card; timestamps, which start with 1, never do.
    #[must_use]
    pub fn cards(self) -> Self {
        self.rule(Rule::Cards)
    }

    /// Keys and tokens by their form: `sk-…`, `sk_live_…`, `ghp_…` and its kin, `github_pat_…`,
    /// `glpat-…`, `xox…-…`, `AKIA…`, `AIza…`, `gsk_…`, `hf_…`, `xai-…`, `npm_…`, JSON Web Tokens, what
    /// follows `Bearer`, and private keys in PEM form, which go to their end or, without one, to the
    /// end of the text.
    ///
    /// Not found: passwords and keys without such a form, such as the secret half of an AWS key, and
    /// tokens of letters only behind `sk-` and `Bearer`, which may be words.
    #[must_use]
    pub fn keys(self) -> Self {
        self.rule(Rule::Keys)
    }

    /// A function of one's own: what it returns takes the place of the text, `None` leaves it.
    ///
    /// It is given every text by itself, keys and numbers of JSON too. It should be quick, since the
    /// writer waits for it, and may meet a text again that it has changed before. Where it panics, the
    /// record is stored with a marker in place of its payload.
    #[must_use]
    pub fn with(
        mut self,
        function: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.functions.push(Arc::new(function));
        self
    }

    /// What both take out.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        for rule in other.rules {
            self = self.rule(rule);
        }
        self.functions.extend(other.functions);
        self
    }

    /// `text` as it would be stored.
    pub fn apply<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for rule in &self.rules {
            if let Some(clean) = marked(&text, &rule.find(&text), rule.marker()) {
                text = Cow::Owned(clean);
            }
        }
        for function in &self.functions {
            if let Some(clean) = function(&text) {
                text = Cow::Owned(clean);
            }
        }
        text
    }

    /// Whether it has no rule and no function.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.functions.is_empty()
    }

    fn rule(mut self, rule: Rule) -> Self {
        if let Err(place) = self.rules.binary_search(&rule) {
            self.rules.insert(place, rule);
        }
        self
    }
}

impl fmt::Debug for Redaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redaction")
            .field("rules", &self.rules)
            .field("functions", &self.functions.len())
            .finish()
    }
}

/// `text` with `marker` in place of `found`; `None` where nothing was found.
fn marked(text: &str, found: &[Range<usize>], marker: &str) -> Option<String> {
    let mut clean = String::with_capacity(if found.is_empty() { 0 } else { text.len() });
    let mut end = 0;
    for range in found {
        clean.push_str(&text[end..range.start]);
        clean.push_str(marker);
        end = range.end;
    }
    if found.is_empty() {
        return None;
    }
    clean.push_str(&text[end..]);
    Some(clean)
}

/// Where a match that starts at `start` begins behind an escape of JSON: `\n` and `\u003c` end in
/// letters that are no part of what follows them, and texts often hold JSON.
fn after_escape(text: &str, start: usize) -> usize {
    if !text[..start].ends_with('\\') {
        return start;
    }
    let rest = &text.as_bytes()[start..];
    match rest.first() {
        Some(b'n' | b'r' | b't' | b'b' | b'f') => start + 1,
        Some(b'u') if rest.len() > 5 && rest[1..5].iter().all(u8::is_ascii_hexdigit) => start + 5,
        _ => start,
    }
}
