//! Card numbers: first digits and length of a scheme, and the Luhn check.

use std::ops::Range;

use super::digits::{before, goes_on, groups, is_word};

/// The most digits of a card.
const MOST: usize = 19;
/// The fewest.
const FEWEST: usize = 13;

pub(super) fn find(text: &str) -> Vec<Range<usize>> {
    let groups = groups(text);
    let mut found = Vec::new();
    let mut at = 0;
    while at < groups.len() {
        match card(text, &groups[at..]) {
            Some(taken) => {
                found.push(groups[at].start..groups[at + taken - 1].end);
                at += taken;
            }
            None => at += 1,
        }
    }
    found
}

/// How many of `groups` are a card that starts with the first; the longest that there is.
fn card(text: &str, groups: &[Range<usize>]) -> Option<usize> {
    let first = groups.first()?;
    if !matches!(first.len(), 4 | FEWEST..=MOST) {
        return None;
    }
    let start = first.start;
    let joined = match before(text, start) {
        Some('.' | '-') => before(text, start - 1).is_some_and(|c| c.is_ascii_digit()),
        Some(c) => is_word(c),
        None => false,
    };
    if joined {
        return None;
    }
    let mut digits: Vec<u8> = Vec::with_capacity(MOST);
    let mut lengths = Vec::with_capacity(5);
    let mut taken = None;
    let mut separator = None;
    for (index, group) in groups.iter().enumerate() {
        if index > 0 {
            let between = &text[groups[index - 1].end..group.start];
            let same = separator.is_none_or(|first| first == between);
            if !same || !matches!(between, " " | "-" | "\u{a0}" | "\u{202f}") {
                break;
            }
            separator = Some(between);
        }
        if digits.len() + group.len() > MOST {
            break;
        }
        digits.extend(text[group.clone()].bytes().map(|byte| byte - b'0'));
        lengths.push(group.len());
        if is_grouping(&lengths) && is_card(&digits) && !goes_on(text, group.end) {
            taken = Some(index + 1);
        }
    }
    taken
}

/// How cards are printed.
fn is_grouping(lengths: &[usize]) -> bool {
    matches!(lengths, [_] | [4, 4, 4, 4] | [4, 4, 4, 4, 3] | [4, 6, 5] | [4, 6, 4])
}

fn is_card(digits: &[u8]) -> bool {
    digits.len() >= FEWEST && is_of_scheme(digits) && luhn(digits)
}

/// Whether the first digits are those of a scheme that has numbers of this length.
fn is_of_scheme(digits: &[u8]) -> bool {
    let first = digits.iter().take(4).fold(0_u32, |number, digit| number * 10 + u32::from(*digit));
    match first {
        // Visa
        4000..=4999 => matches!(digits.len(), 13 | 16 | 19),
        // Mastercard
        2221..=2720 | 5100..=5599 => digits.len() == 16,
        // American Express
        3400..=3499 | 3700..=3799 => digits.len() == 15,
        // Diners Club
        3000..=3059 | 3095 | 3600..=3699 | 3800..=3999 => (14..=19).contains(&digits.len()),
        // JCB, Discover, UnionPay
        3528..=3589 | 6011 | 6440..=6599 | 6200..=6299 | 8100..=8199 => digits.len() >= 16,
        _ => false,
    }
}

/// The check of ISO/IEC 7812: every second digit from the end counts double.
fn luhn(digits: &[u8]) -> bool {
    let mut sum = 0_u32;
    for (index, digit) in digits.iter().rev().enumerate() {
        let digit = u32::from(*digit);
        sum += match (index % 2, digit) {
            (0, _) => digit,
            (_, 0..=4) => digit * 2,
            _ => digit * 2 - 9,
        };
    }
    sum.is_multiple_of(10)
}
