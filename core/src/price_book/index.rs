//! Which lines of prices a call may be priced with, and in which order they are tried.
//! Invariant: the order depends on names alone, never on the order in which prices came.

use std::cmp::Reverse;
use std::collections::HashMap;

use chrono::NaiveDate;

use crate::label::Label;
use crate::model_rule::{Matcher, ModelRule};
use crate::price::PriceOrigin;
use crate::seed::{SeedProvider, providers};

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

/// Which of the names of a call a price may be found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exactness {
    /// The name as it is, or with its date written in another way.
    AsNamed,
    /// The name without its date, or without the provider that a router puts before it.
    Stripped,
}

impl Index {
    /// Adds a line; answers its number. Lines of one provider must come by origin, then model.
    pub(super) fn add(
        &mut self,
        origin: PriceOrigin,
        provider: &str,
        model: &Label,
        rule: &ModelRule,
    ) -> u32 {
        let number = u32::try_from(self.subjects.len()).unwrap_or(u32::MAX);
        let matcher = Matcher::new(rule);
        let of = self.providers.entry(provider.to_lowercase().into()).or_default();
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
        number
    }

    /// The name that line `number` is listed under.
    pub(super) fn model(&self, number: u32) -> &Label {
        &self.subjects[number as usize].model
    }

    /// The lines for a call, in the order in which they are tried.
    ///
    /// The answered model comes before the asked one; for each, a price of the user's before one
    /// of the library; for each of these, an exact name before a rule, the provider itself before
    /// those whose models it offers. A price that the user set for the asked model also holds for
    /// the dated name that it answers by. Where no line is found, names are tried without their
    /// date, and without the provider that a router puts before them.
    pub(super) fn look_up(&self, provider: &str, asked: &str, answered: Option<&str>) -> Vec<u32> {
        use PriceOrigin::{Seed, User};
        let provider = provider.trim().to_lowercase();
        let asked = asked.to_lowercase();
        let answered = answered.map(str::to_lowercase);
        let dated = answered.as_deref().and_then(strip_date) == Some(asked.as_str());
        for exactness in [Exactness::AsNamed, Exactness::Stripped] {
            let find = |name: &str| self.find(&provider, name, exactness);
            let by_answer = answered.as_deref().map(find).unwrap_or_default();
            let by_asked = find(&asked);
            let mut lines = Vec::new();
            let mut add = |found: &[u32], origin: PriceOrigin| {
                for number in found {
                    if self.subjects[*number as usize].origin == origin && !lines.contains(number) {
                        lines.push(*number);
                    }
                }
            };
            add(&by_answer, User);
            if dated {
                add(&by_asked, User);
            }
            add(&by_answer, Seed);
            add(&by_asked, User);
            add(&by_asked, Seed);
            if !lines.is_empty() {
                return lines;
            }
        }
        Vec::new()
    }

    fn find(&self, provider: &str, model: &str, exactness: Exactness) -> Vec<u32> {
        if exactness == Exactness::AsNamed {
            let found = self.find_name(provider, model);
            return match dashed_date(model) {
                Some(dashed) if found.is_empty() => self.find_name(provider, &dashed),
                _ => found,
            };
        }
        let undated = strip_date(model).map(|name| self.find_name(provider, name));
        let found = undated.unwrap_or_default();
        match routed(provider, model) {
            Some((provider, model)) if found.is_empty() => {
                self.find(provider, model, Exactness::AsNamed)
            }
            _ => found,
        }
    }

    /// The lines for `model` of `provider`, up to the first of the library.
    fn find_name(&self, provider: &str, model: &str) -> Vec<u32> {
        let mut lines = Vec::new();
        for provider in chain(provider) {
            let Some(of) = self.providers.get(provider) else { continue };
            let by_name = of.by_name.get(model).into_iter().flatten().copied();
            let open = of.open.iter().copied();
            let open = open.filter(|number| self.subjects[*number as usize].matcher.matches(model));
            let mut found: Vec<u32> = by_name.chain(open).collect();
            found.sort_by_key(|number| {
                let Subject { origin, model: listed, matcher } = &self.subjects[*number as usize];
                let by_name = of.by_name.get(model).is_some_and(|names| names.contains(number));
                // Of the user's own rules the one that says most comes first.
                let says = if *origin == PriceOrigin::User { matcher.says() } else { 0 };
                (Reverse(*origin), Reverse(by_name), Reverse(says), listed)
            });
            for number in found {
                lines.push(number);
                if self.subjects[number as usize].origin == PriceOrigin::Seed {
                    return lines;
                }
            }
        }
        lines
    }
}

/// The providers whose prices hold for `provider`: by its own name, by the name that we know it
/// under, and those whose models it offers.
fn chain(provider: &str) -> Vec<&str> {
    let mut chain = vec![provider];
    if let Some(known) = known(provider) {
        chain.push(known);
        // Rules about a provider may stand in several lines.
        let lines = providers().iter().filter(|line| line.id == known);
        chain.extend(lines.flat_map(|line| line.fallback.iter().map(String::as_str)));
    }
    let mut seen = Vec::new();
    chain.retain(|name| {
        let new = !seen.contains(name);
        seen.push(*name);
        new
    });
    chain
}

/// The name that we know `provider` under.
fn known(provider: &str) -> Option<&'static str> {
    let named = |line: &&SeedProvider| line.id == provider;
    let means = |line: &&SeedProvider| {
        line.aliases.as_ref().is_some_and(|aliases| aliases.matches(provider))
    };
    let found = providers().iter().find(named).or_else(|| providers().iter().find(means));
    found.map(|line| line.id.as_str())
}

/// Provider and model behind the name that a router gives a model: `openai/gpt-4o`. Only routers
/// that say so are believed: elsewhere a name with a slash is the name of somebody's own model.
fn routed<'a>(provider: &str, model: &'a str) -> Option<(&'a str, &'a str)> {
    let (before, behind) = model.split_once('/')?;
    let router = provider == "litellm" || known(before) == known(provider);
    (router && known(before).is_some()).then_some((before, behind))
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
            assert_eq!(known(name), known_as, "{name}");
        }
        assert_eq!(chain("azure")[..2], ["azure", "openai"]);
    }

    #[test]
    fn a_router_is_believed_and_a_slash_is_not() {
        assert_eq!(routed("litellm", "openai/gpt-4o"), Some(("openai", "gpt-4o")));
        assert_eq!(routed("openai", "openai/gpt-4o"), Some(("openai", "gpt-4o")));
        assert_eq!(routed("ollama", "openai/gpt-oss-20b"), None);
        assert_eq!(routed("litellm", "nobody/model"), None);
    }
}
