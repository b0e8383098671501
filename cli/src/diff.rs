//! What differs between two versions of a prompt, line by line.
//! Invariant: memory stays bounded whatever the texts; where they differ too much, all lines do.

use owo_colors::OwoColorize;
use prompt_engine::{PromptVersion, Slug};
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::Failure;
use crate::output::{self, heading, printable, say};

/// The most pairs of lines that are compared.
const MOST_PAIRS: usize = 4_000_000;

/// One line of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line<'a> {
    Same(&'a str),
    Gone(&'a str),
    New(&'a str),
}

/// Prints what differs.
pub(crate) fn show(
    slug: &Slug,
    from: &PromptVersion,
    to: &PromptVersion,
    context: &Context,
) -> Result<(), Failure> {
    let changes: Vec<_> = fields(from)
        .into_iter()
        .zip(fields(to))
        .filter(|((_, old), (_, new))| old != new)
        .map(|((field, old), (_, new))| (field, old, new))
        .collect();
    if context.json() {
        let changes: Vec<_> = changes
            .iter()
            .map(|(field, old, new)| json!({"field": field, "from": old, "to": new}))
            .collect();
        return output::document(&json!({
            "prompt": slug, "from": from.number, "to": to.number, "changes": changes,
        }));
    }
    heading(format_args!("{slug} version {} to {}", from.number, to.number))?;
    if changes.is_empty() {
        return say("They say the same.");
    }
    for (field, old, new) in &changes {
        say(format_args!("{}:", field.bold()))?;
        for line in lines(&text(old), &text(new)) {
            match line {
                Line::Same(line) => say(format_args!("  {}", printable(line)))?,
                Line::Gone(line) => say(format_args!("- {}", printable(line)).red())?,
                Line::New(line) => say(format_args!("+ {}", printable(line)).green())?,
            }
        }
    }
    Ok(())
}

fn fields(version: &PromptVersion) -> [(&'static str, Value); 6] {
    [
        ("content", json!(version.content)),
        ("system_message", json!(version.system_message)),
        ("model", json!(version.model)),
        ("temperature", json!(version.temperature)),
        ("max_tokens", json!(version.max_tokens)),
        ("metadata", version.metadata.clone()),
    ]
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The lines of both texts, by their longest common subsequence.
fn lines<'a>(old: &'a str, new: &'a str) -> Vec<Line<'a>> {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let before = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let tails = old[before..].iter().rev().zip(new[before..].iter().rev());
    let after = tails.take_while(|(a, b)| a == b).count();
    let (a, b) = (&old[before..old.len() - after], &new[before..new.len() - after]);
    let mut answer: Vec<_> = old[..before].iter().map(|line| Line::Same(line)).collect();
    if a.len().saturating_mul(b.len()) > MOST_PAIRS {
        answer.extend(a.iter().map(|line| Line::Gone(line)));
        answer.extend(b.iter().map(|line| Line::New(line)));
    } else {
        answer.extend(compare(a, b));
    }
    answer.extend(old[old.len() - after..].iter().map(|line| Line::Same(line)));
    answer
}

fn compare<'a>(a: &[&'a str], b: &[&'a str]) -> Vec<Line<'a>> {
    let width = b.len() + 1;
    // common[i * width + j]: how many lines a[i..] and b[j..] have in common, in order.
    let mut common = vec![0_u32; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i * width + j] = if a[i] == b[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut answer = Vec::new();
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            answer.push(Line::Same(a[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == b.len()
            || (i < a.len() && common[(i + 1) * width + j] >= common[i * width + j + 1])
        {
            answer.push(Line::Gone(a[i]));
            i += 1;
        } else {
            answer.push(Line::New(b[j]));
            j += 1;
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::Line::{Gone, New, Same};
    use super::lines;

    #[test]
    fn a_changed_line_stands_between_its_neighbours() {
        assert_eq!(lines("a\nb\nc", "a\nx\nc"), [Same("a"), Gone("b"), New("x"), Same("c")]);
        assert_eq!(lines("", "a"), [New("a")]);
        assert_eq!(
            lines("a\nb\nc\nd", "b\nd\ne"),
            [Gone("a"), Same("b"), Gone("c"), Same("d"), New("e")]
        );
    }
}
