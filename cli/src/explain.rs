//! What is said beside an answer, on standard error: how it came about, and what it leaves out.
//! Invariant: what an answer leaves out is said whether or not anybody asks.

use clap::Args;
use prompt_engine::analytics::{Explained, Explanation};
use prompt_engine::{Analytics, BucketWidth, Cube, Dimension, PromptEngine, Timestamp, Zone};

use crate::output::note;
use crate::table::count;

/// Whether to say how an answer came about.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct ExplainArgs {
    /// Say what was read for the answer, on standard error.
    #[arg(long)]
    explain: bool,
}

impl ExplainArgs {
    /// The analytics of `engine`, and what keeps how its answers come about.
    pub(crate) fn analytics(engine: &PromptEngine, zone: Zone) -> (Analytics, Explanation) {
        engine.analytics().in_zone(zone).explained()
    }

    /// Says how the answers came about, if that is asked for, and what they leave out.
    pub(crate) fn say(self, explanation: &Explanation) {
        let asked = explanation.take();
        if self.explain {
            asked.iter().for_each(|one| note(line(one)));
        }
        if asked.iter().any(|one| one.reading.rounded) {
            note("note: each pruned record counts at the start of its quarter of an hour");
        }
        if let Some(before) = asked.iter().filter_map(|one| one.reading.missing_before).max() {
            say_missing(before);
        }
    }
}

/// Says that records are missing.
pub(crate) fn say_missing(before: Timestamp) {
    note(format_args!("note: records before {before} were pruned and are missing"));
}

/// One question to the store, and what was read for it.
fn line(of: &Explained) -> String {
    let Explained { query, reading } = of;
    let mut parts: Vec<String> = query.group_by.iter().map(|by| name(*by).to_owned()).collect();
    parts.extend(query.bucket.map(|bucket| width(bucket.width).to_owned()));
    let question =
        if parts.is_empty() { "in all".to_owned() } else { format!("by {}", parts.join(" and ")) };
    let mut read = Vec::new();
    if let Some(cube) = reading.cube {
        read.push(format!("{} of the cube {cube}", count(reading.cells, "cell")));
        if reading.unfolded > 0 {
            read.push(format!("{} yet to be folded", count(reading.unfolded, "change")));
        }
    }
    if reading.cube.is_none() || reading.raw_rows > 0 {
        read.push(count(reading.raw_rows, "row"));
    }
    let filter = &query.filter;
    let grouped = |by| query.group_by.contains(&by);
    let why = match Cube::covering(query) {
        Some(_) => "",
        None if filter.session.is_some() || grouped(Dimension::Session) => {
            " (no cube has a session)"
        }
        None if filter.user.is_some() || grouped(Dimension::User) => " (no cube has a user)",
        None if !filter.statuses.is_empty() => " (no cube has a status)",
        None => "",
    };
    let exact = match (reading.rounded, reading.missing_before) {
        (_, Some(_)) => "not complete",
        (true, None) => "rounded to quarters of an hour",
        (false, None) => "exact",
    };
    format!("{question}: read {}{why}; {exact}", read.join(", "))
}

fn name(by: Dimension) -> &'static str {
    match by {
        Dimension::Prompt => "prompt",
        Dimension::Version => "version",
        Dimension::Environment => "environment",
        Dimension::Provider => "provider",
        Dimension::Model => "model",
        Dimension::Session => "session",
        Dimension::User => "user",
    }
}

fn width(of: BucketWidth) -> &'static str {
    match of {
        BucketWidth::QuarterHour => "quarter of an hour",
        BucketWidth::Hour => "hour",
        BucketWidth::Day => "day",
    }
}

#[cfg(test)]
mod tests {
    use prompt_engine::{AggregateQuery, Reading};

    use super::*;

    #[test]
    fn a_line_says_what_was_read_and_why_no_cube_was() {
        let of_cube = Explained {
            query: AggregateQuery {
                group_by: vec![Dimension::Prompt],
                ..AggregateQuery::default()
            },
            reading: Reading {
                cube: Some(Cube::Prompts),
                cells: 81,
                unfolded: 1_204,
                raw_rows: 1_931,
                ..Reading::default()
            },
        };
        assert_eq!(
            line(&of_cube),
            "by prompt: read 81 cells of the cube prompts, 1,204 changes yet to be folded, \
             1,931 rows; exact"
        );
        let of_rows = Explained {
            query: AggregateQuery {
                group_by: vec![Dimension::Session],
                ..AggregateQuery::default()
            },
            reading: Reading {
                raw_rows: 20_123,
                missing_before: Some(Timestamp::MIN),
                ..Reading::default()
            },
        };
        assert_eq!(
            line(&of_rows),
            "by session: read 20,123 rows (no cube has a session); not complete"
        );
    }
}
