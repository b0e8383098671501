//! Which lines of prices a call may be priced with, and in which order they are tried.
//! Invariant: the order depends on names alone, never on the order in which prices came.

use std::cmp::Reverse;
use std::collections::HashMap;

use chrono::NaiveDate;

use crate::label::Label;
use crate::model_rule::{Matcher, ModelRule};
use crate::price::PriceOrigin;
use crate::seed::{known_provider, providers};

/// Who a line of prices is for.
#[derive(Debug)]
struct Subject {
    origin: PriceOrigin,
    model: Label,
    matcher: Matcher,
}

/// The lines of one provider: by the names that they say in full, and those that must be asked.
#[derive(Debug, Default)]
struct OfProvider {
    by_name: HashMap<Box<str>, Vec<u32>>,
    open: Vec<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    subjects: Vec<Subject>,
    providers: HashMap<Box<str>, OfProvider>,
}

/// A line that a call may be priced with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Its number.
    pub(super) line: u32,
    /// Whether only its standard tier counts: what one provider asks for a batch of another's models
    /// is not known.
    pub(super) standard_only: bool,
}

impl Index {
    /// Adds a line; they are numbered from 0 in the order in which they are added.
    pub(super) fn add(
        &mut self,
        origin: PriceOrigin,
        provider: &str,
        model: &Label,
        rule: &ModelRule,
    ) {
        let Ok(number) = u32::try_from(self.subjects.len()) else { return };
        let matcher = Matcher::new(rule);
        let of = self.providers.entry(provider.trim().to_lowercase().into()).or_default();
        let mut name_it = |name: &str| match of.by_name.get_mut(name) {
            Some(lines) if lines.contains(&number) => {}
            Some(lines) => lines.push(number),
            None => drop(of.by_name.insert(name.into(), vec![number])),
        };
        matcher.names(&mut name_it);
        if origin == PriceOrigin::Seed {
            // The library lists some models under names that their rules do not say.
            name_it(&model.to_lowercase());
        }
        if matcher.is_open() {
            of.open.push(number);
        }
        self.subjects.push(Subject { origin, model: model.clone(), matcher });
    }

    /// The name that line `number` is listed under.
    pub(super) fn model(&self, number: u32) -> &Label {
        &self.subjects[number as usize].model
    }

    /// The lines for a call, in the order in which they are tried: the first that has a price for
    /// the tier and the moment is taken.
    ///
    /// They are those of the model that answered, and of the asked one only where nothing at all is
    /// known of the answered one, or where both are names of one model: then what the user set for
    /// either holds. The user's lines come first, those for an exact name before his rules.
    pub(super) fn look_up(
        &self,
        provider: &str,
        asked: &str,
        answered: Option<&str>,
    ) -> Vec<Candidate> {
        let provider = provider.trim().to_lowercase();
        let asked = asked.to_lowercase();
        let by_asked = self.find(&provider, &asked);
        let Some(answered) = answered.map(str::to_lowercase) else { return by_asked.in_order() };
        let mut found = self.find(&provider, &answered);
        if found.is_empty() {
            return by_asked.in_order();
        }
        let one_line = found.seed.is_some() && found.seed == by_asked.seed;
        if one_line || strip_date(&answered) == Some(asked.as_str()) {
            found.exact.extend(by_asked.exact);
            found.rules.extend(by_asked.rules);
        }
        found.in_order()
    }

    /// The lines for a name, where a router puts a provider before it also without that.
    fn find(&self, provider: &str, model: &str) -> Found {
        let found = self.find_name(provider, model);
        match routed(provider, model) {
            Some((provider, model)) if found.is_empty() => self.find_name(provider, model),
            _ => found,
        }
    }

    /// The lines for a name: as it is, with its date written in another way, and where the library
    /// does not know it, without its date.
    fn find_name(&self, provider: &str, model: &str) -> Found {
        let own: Vec<&str> = own_names(provider);
        let users = |name: &str, exact: bool| -> Vec<u32> {
            own.iter().flat_map(|of| self.of(of, name, PriceOrigin::User, exact)).collect()
        };
        let dashed = dashed_date(model);
        let as_named = [Some(model), dashed.as_deref()].into_iter().flatten();
        let mut seed = as_named.clone().find_map(|name| self.seed(&own, name));
        let mut exact: Vec<u32> = as_named.flat_map(|name| users(name, true)).collect();
        if let (None, Some(bare)) = (seed, strip_date(model)) {
            seed = self.seed(&own, bare);
            exact.extend(users(bare, true));
        }
        let listed = seed.map(|of| users(&self.model(of.line).to_lowercase(), true));
        Found { exact, listed: listed.unwrap_or_default(), rules: users(model, false), seed }
    }

    /// The first of the library's lines for a name: of the provider itself, then of those whose
    /// models it offers.
    fn seed(&self, own: &[&str], model: &str) -> Option<Candidate> {
        let offered = fallbacks(own.last().copied()).map(|name| (name, true));
        own.iter().map(|name| (*name, false)).chain(offered).find_map(|(name, standard_only)| {
            let exact = self.of(name, model, PriceOrigin::Seed, true);
            let lines = if exact.is_empty() {
                self.of(name, model, PriceOrigin::Seed, false)
            } else {
                exact
            };
            lines.first().map(|line| Candidate { line: *line, standard_only })
        })
    }

    /// The lines of one origin that say a name of a provider in full, or those whose rules mean it:
    /// of the user's rules the one that says most comes first, then they come by the name that they
    /// are listed under, which is the order of the source.
    fn of(&self, provider: &str, model: &str, origin: PriceOrigin, exact: bool) -> Vec<u32> {
        let Some(of) = self.providers.get(provider) else { return Vec::new() };
        let subject = |number: u32| &self.subjects[number as usize];
        let mut found = if exact {
            of.by_name.get(model).cloned().unwrap_or_default()
        } else {
            of.open.clone()
        };
        found.retain(|number| {
            subject(*number).origin == origin && (exact || subject(*number).matcher.matches(model))
        });
        found.sort_by_key(|number| {
            let Subject { origin, model: listed, matcher } = subject(*number);
            let says = if *origin == PriceOrigin::User { matcher.says() } else { 0 };
            (Reverse(says), listed)
        });
        found
    }
}

/// The lines for one name.
#[derive(Debug)]
struct Found {
    /// The user's for the name itself.
    exact: Vec<u32>,
    /// The user's for the name that the library lists the model under.
    listed: Vec<u32>,
    /// The user's whose rules mean the name.
    rules: Vec<u32>,
    /// The library's.
    seed: Option<Candidate>,
}

impl Found {
    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.rules.is_empty() && self.seed.is_none()
    }

    fn in_order(self) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for line in self.exact.into_iter().chain(self.listed).chain(self.rules) {
            let candidate = Candidate { line, standard_only: false };
            if !candidates.contains(&candidate) {
                candidates.push(candidate);
            }
        }
        candidates.extend(self.seed);
        candidates
    }
}

/// The names under which `provider` may have prices of its own: as it is called, and as we know it.
fn own_names(provider: &str) -> Vec<&str> {
    let mut names = vec![provider];
    names.extend(known_provider(provider).filter(|known| *known != provider));
    names
}

/// The providers whose models the one that we know under this name offers too, in order.
fn fallbacks(known: Option<&str>) -> impl Iterator<Item = &'static str> {
    // Rules about a provider may stand in several lines.
    let lines = providers().iter().filter(move |line| Some(line.id.as_str()) == known);
    lines.flat_map(|line| line.fallback.iter().map(String::as_str))
}

/// Provider and model behind the name that a router gives a model: `openai/gpt-4o`. Only routers
/// that say so are believed: elsewhere a name with a slash is the name of somebody's own model.
fn routed<'a>(provider: &str, model: &'a str) -> Option<(&'a str, &'a str)> {
    let (before, behind) = model.split_once('/')?;
    let router = provider == "litellm" || known_provider(before) == known_provider(provider);
    (router && known_provider(before).is_some()).then_some((before, behind))
}

/// `name` without a date at its end: `-2024-08-06`, `-20240806` or `@20240806`.
fn strip_date(name: &str) -> Option<&str> {
    let day = |date: &str| {
        let digits: String = date.bytes().filter(u8::is_ascii_digit).map(char::from).collect();
        digits.len() == 8 && is_day(&digits)
    };
    for (width, separators) in [(11, "-"), (9, "-@")] {
        let Some((start, date)) =
            name.len().checked_sub(width).and_then(|at| name.split_at_checked(at))
        else {
            continue;
        };
        let dashes = date.bytes().skip(1).filter(|byte| *byte == b'-').count();
        let separated = date.starts_with(|first| separators.contains(first));
        let fits = separated && dashes == if width == 11 { 2 } else { 0 };
        if fits && !start.is_empty() && day(date) {
            return Some(start);
        }
    }
    None
}

/// `name` with its date written `-2024-08-06` where it is written `-20240806`, at its end or before
/// a further `-` or `:`, as routers write it (rule of genai-prices 0.2.3, `types.py`).
fn dashed_date(name: &str) -> Option<String> {
    let bytes = name.as_bytes();
    let mut dashed = String::with_capacity(name.len() + 2);
    let (mut done, mut at) = (0, 0);
    while at + 9 <= bytes.len() {
        let ends = matches!(bytes.get(at + 9), None | Some(b'-' | b':'));
        let digits = bytes[at] == b'-' && bytes[at + 1..at + 9].iter().all(u8::is_ascii_digit);
        if digits && ends && is_day(&name[at + 1..at + 9]) {
            let (year, month, day) =
                (&name[at + 1..at + 5], &name[at + 5..at + 7], &name[at + 7..at + 9]);
            dashed.push_str(&format!("{}-{year}-{month}-{day}", &name[done..at]));
            at += 9;
            done = at;
        } else {
            at += 1;
        }
    }
    (done > 0).then(|| dashed + &name[done..])
}

/// Whether eight digits are a day of this century.
fn is_day(digits: &str) -> bool {
    digits.starts_with("20") && NaiveDate::parse_from_str(digits, "%Y%m%d").is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_known_by_its_form() {
        assert_eq!(strip_date("gpt-4o-2024-08-06"), Some("gpt-4o"));
        assert_eq!(strip_date("claude-sonnet-4-20250514"), Some("claude-sonnet-4"));
        assert_eq!(strip_date("claude-3-5-sonnet@20240620"), Some("claude-3-5-sonnet"));
        for name in
            ["gpt-4o", "-20240806", "m-20241306", "m-2024-8-06", "m-202408061", "m-é0240806"]
        {
            assert_eq!(strip_date(name), None, "{name}");
        }
        assert_eq!(dashed_date("gpt-5.2-20251211").as_deref(), Some("gpt-5.2-2025-12-11"));
        assert_eq!(dashed_date("a-20251211:free").as_deref(), Some("a-2025-12-11:free"));
        for name in ["a-20251232", "a-202512110", "a-2025-12-11", "20251211", "é-2025121"] {
            assert_eq!(dashed_date(name), None, "{name}");
        }
    }

    #[test]
    fn providers_are_known_by_their_other_names() {
        for (name, known_as) in [
            ("openai", Some("openai")),
            ("azure.ai.openai", Some("azure")),
            ("aws.bedrock", Some("aws")),
            ("gcp.vertex_ai", Some("google")),
            ("x_ai", Some("x-ai")),
            ("mistral_ai", Some("mistral")),
            ("ollama", None),
        ] {
            assert_eq!(known_provider(name), known_as, "{name}");
        }
        assert_eq!(own_names("azure.ai.openai"), ["azure.ai.openai", "azure"]);
        assert_eq!(fallbacks(Some("azure")).next(), Some("openai"));
    }

    #[test]
    fn a_router_is_believed_and_a_slash_is_not() {
        assert_eq!(routed("litellm", "openai/gpt-4o"), Some(("openai", "gpt-4o")));
        assert_eq!(routed("openai", "openai/gpt-4o"), Some(("openai", "gpt-4o")));
        assert_eq!(routed("ollama", "openai/gpt-oss-20b"), None);
        assert_eq!(routed("litellm", "nobody/model"), None);
    }
}
