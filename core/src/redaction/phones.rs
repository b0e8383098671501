//! Phone numbers: with a country, of North America, or with a leading zero.

use std::ops::Range;

use super::digits::{after, before, goes_on, groups, is_word};

/// The most digits of a phone number, its country's among them (ITU-T E.164).
const MOST: usize = 15;

pub(super) fn find(text: &str) -> Vec<Range<usize>> {
    let groups = groups(text);
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    while at < groups.len() {
        let candidate = Candidate::new(text, &groups[at..]);
        match candidate.with_country().or_else(|| candidate.without_country()) {
            Some((start, taken)) => {
                found.push(start..groups[at + taken - 1].end);
                at += taken;
            }
            None => at += 1,
        }
    }
    found
}

/// A number that starts with the first of some groups of digits.
struct Candidate<'a> {
    text: &'a str,
    /// Groups with nothing between them but what may stand in a phone number, at most
    /// [`Self::MOST_GROUPS`].
    groups: &'a [Range<usize>],
}

impl<'a> Candidate<'a> {
    /// No phone number is written in more groups.
    const MOST_GROUPS: usize = MOST;

    fn new(text: &'a str, groups: &'a [Range<usize>]) -> Self {
        let joined = groups
            .windows(2)
            .take(Self::MOST_GROUPS - 1)
            .take_while(|pair| is_separator(&text[pair[0].end..pair[1].start]))
            .count();
        Self { text, groups: &groups[..=joined] }
    }

    fn between(&self, index: usize) -> &'a str {
        &self.text[self.groups[index].end..self.groups[index + 1].start]
    }

    fn length(&self, groups: usize) -> usize {
        self.groups[..groups].iter().map(Range::len).sum()
    }

    /// `+49 …`: where it starts, and how many groups it takes; the most that are a number.
    fn with_country(&self) -> Option<(usize, usize)> {
        let head = self.text[..self.groups[0].start].trim_end_matches('(');
        let start = head.strip_suffix('+')?.len();
        let first = self.text.as_bytes()[self.groups[0].start];
        let part_of_more = before(self.text, start).is_some_and(|c| is_word(c) || c == '+');
        if first == b'0' || part_of_more {
            return None;
        }
        (1..=self.groups.len()).rev().find_map(|taken| {
            let digits = self.length(taken);
            let fewest = if taken == 1 { 9 } else { 8 };
            let word = after(self.text, self.groups[taken - 1].end).0.is_some_and(is_word);
            let fits = (fewest..=MOST).contains(&digits) && (!word || self.has_extension(taken));
            (fits && !self.is_amount(taken)).then_some((start, taken))
        })
    }

    /// `+12345.67`, `+12.500.000` or `+12 500 000`.
    fn is_amount(&self, taken: usize) -> bool {
        let dotted = (1..taken).all(|index| self.between(index - 1) == ".");
        let spaced = (1..taken).all(|index| self.between(index - 1) == " ");
        let thousands =
            self.groups[0].len() <= 3 && self.groups[1..taken].iter().all(|group| group.len() == 3);
        match taken {
            1 => false,
            2 => dotted,
            3 => thousands && (dotted || spaced),
            _ => thousands && dotted,
        }
    }

    fn without_country(&self) -> Option<(usize, usize)> {
        let digits = self.groups[0].start;
        let parenthesis = self.text[..digits].ends_with('(')
            && self.groups.len() > 1
            && self.between(0).starts_with(')');
        let start = digits - usize::from(parenthesis);
        if !self.starts_alone(start) {
            return None;
        }
        self.exit_code()
            .or_else(|| self.north_american(parenthesis))
            .or_else(|| self.trunk_zero())
            .map(|taken| (start, taken))
    }

    /// Whether what stands before is no part of the number, and makes it no number of anything else.
    fn starts_alone(&self, start: usize) -> bool {
        match before(self.text, start) {
            None => true,
            Some('-' | '.' | '/') => before(self.text, start - 1).is_none_or(|c| !is_word(c)),
            Some(':') => before(self.text, start - 1).is_none_or(|c| !c.is_ascii_digit()),
            Some('#' | '$' | '€' | '£' | '¥' | '+' | '@' | '%' | '*') => false,
            Some(c) => !is_word(c),
        }
    }

    fn ends_alone(&self, taken: usize) -> bool {
        let end = self.groups[taken - 1].end;
        match after(self.text, end) {
            (Some('/' | ':'), Some(next)) if is_word(next) => false,
            (Some('%' | '@'), _) => false,
            _ => !goes_on(self.text, end) || self.has_extension(taken),
        }
    }

    /// `555-123-4567x89`
    fn has_extension(&self, taken: usize) -> bool {
        let (x, digit) = after(self.text, self.groups[taken - 1].end);
        x == Some('x') && digit.is_some_and(|c| c.is_ascii_digit())
    }

    /// `0049 151 …`: what is dialled for another country, and a space.
    fn exit_code(&self) -> Option<usize> {
        let first = &self.text[self.groups[0].clone()];
        let country = first.strip_prefix("00").filter(|rest| !rest.starts_with('0'))?;
        if !(1..=3).contains(&country.len()) || self.groups.len() < 2 || self.between(0) != " " {
            return None;
        }
        self.longest(10..=MOST + 2)
    }

    /// Three, three and four digits, with or without a 1 before them.
    fn north_american(&self, parenthesis: bool) -> Option<usize> {
        let one = usize::from(!parenthesis && &self.text[self.groups[0].clone()] == "1");
        let groups = self.groups.get(one..one + 3)?;
        let lengths: Vec<usize> = groups.iter().map(Range::len).collect();
        let area = self.text.as_bytes()[groups[0].start];
        let parenthesis = parenthesis || one == 1 && self.between(0).ends_with('(');
        let separators = match (parenthesis, self.between(one)) {
            (true, ") " | ")" | ")-") | (false, " " | "-" | ".") => {
                matches!(self.between(one + 1), " " | "-" | ".")
            }
            _ => false,
        };
        let taken = one + 3;
        let fits = lengths == [3, 3, 4] && (b'2'..=b'9').contains(&area) && separators;
        (fits && self.ends_alone(taken)).then_some(taken)
    }

    /// `0151 23456789`: an area with a leading zero, and at least nine digits in all.
    fn trunk_zero(&self) -> Option<usize> {
        let area = &self.text[self.groups[0].clone()];
        let has_zero = area.starts_with('0') && !area.starts_with("00");
        if !has_zero || !(2..=5).contains(&area.len()) || self.is_date() {
            return None;
        }
        self.longest(9..=12)
    }

    /// Day, month and year, in any order that starts with two digits.
    fn is_date(&self) -> bool {
        let [first, second, third, ..] = self.groups else { return false };
        let of_two = first.len() == 2 && second.len() == 2;
        let one_separator = self.between(0) == self.between(1) && self.between(0) != " ";
        let ends = self.groups.len() == 3 || self.between(2) != self.between(1);
        of_two && one_separator && (third.len() == 4 || third.len() == 2 && ends)
    }

    /// The most groups, at least two, that have so many digits and are not a part of more.
    fn longest(&self, digits: std::ops::RangeInclusive<usize>) -> Option<usize> {
        (2..=self.groups.len())
            .rev()
            .find(|taken| digits.contains(&self.length(*taken)) && self.ends_alone(*taken))
    }
}

/// What may stand between two groups: up to three of these.
fn is_separator(between: &str) -> bool {
    let mut characters = 0;
    between.chars().all(|c| {
        characters += 1;
        characters <= 3
            && matches!(c, ' ' | '-' | '.' | '/' | '(' | ')' | '\u{a0}' | '\u{202f}' | '‑' | '–')
    })
}
