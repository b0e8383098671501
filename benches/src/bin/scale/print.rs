//! What is printed: a JSON object a line, or a table with the same figures.

use std::time::Duration;

use prompt_engine_benches::Question;
use prompt_engine_core::{Cube, Reading};
use serde::Serialize;

use crate::Outcome;

/// The times of a question, and what was read for it.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    query: &'static str,
    median_ms: f64,
    min_ms: f64,
    max_ms: f64,
    raw_rows_read: u64,
    cells_read: u64,
    unfolded_read: u64,
    cubes: Vec<Cube>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    extra: bool,
}

/// A run of a question: how long it took, and what each of its aggregates read.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) took: Duration,
    pub(crate) readings: Vec<Reading>,
}

impl Line {
    pub(crate) fn new(question: Question, runs: &[Run]) -> Self {
        let mut times: Vec<Duration> = runs.iter().map(|run| run.took).collect();
        times.sort_unstable();
        let at = |place: usize| times.get(place).map_or(0.0, |time| ms(*time));
        let read = |what: fn(&Reading) -> u64| {
            let mut sums: Vec<u64> =
                runs.iter().map(|run| run.readings.iter().map(what).sum()).collect();
            sums.sort_unstable();
            sums.get(sums.len() / 2).copied().unwrap_or_default()
        };
        let all = runs.iter().flat_map(|run| &run.readings);
        let mut cubes: Vec<Cube> = all.filter_map(|reading| reading.cube).collect();
        cubes.sort_unstable();
        cubes.dedup();
        Self {
            query: question.name(),
            median_ms: at(times.len() / 2),
            min_ms: at(0),
            max_ms: at(times.len().saturating_sub(1)),
            raw_rows_read: read(|reading| reading.raw_rows),
            cells_read: read(|reading| reading.cells),
            unfolded_read: read(|reading| reading.unfolded),
            cubes,
            extra: question.is_extra(),
        }
    }
}

/// The last line.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    /// Always true.
    pub(crate) summary: bool,
    pub(crate) store: &'static str,
    pub(crate) seed: u64,
    pub(crate) calls: u64,
    pub(crate) days: u32,
    /// How many of the calls, the last ones, carry texts.
    pub(crate) payload_calls: u64,
    /// `None` where the store held the set already.
    pub(crate) fill_calls_per_s: Option<f64>,
    pub(crate) bytes: u64,
    pub(crate) bytes_per_call: f64,
    /// Of this process after the last question; it filled nothing.
    pub(crate) rss_bytes: Option<u64>,
    /// The most it ever was.
    pub(crate) peak_rss_bytes: Option<u64>,
    /// Opening the store and the first `usage_stats`.
    pub(crate) open_ms: f64,
}

/// Milliseconds, to the microsecond.
pub(crate) fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// Prints lines as they come.
#[derive(Debug)]
pub(crate) struct Printer {
    pub(crate) json: bool,
}

impl Printer {
    pub(crate) fn head(&self) {
        if !self.json {
            println!(
                "{:<26} {:>10} {:>10} {:>10} {:>12} {:>9} {:>9}  cubes",
                "query", "median ms", "min ms", "max ms", "raw rows", "cells", "unfolded"
            );
        }
    }

    pub(crate) fn line(&self, line: &Line) -> Outcome<()> {
        if self.json {
            println!("{}", serde_json::to_string(line)?);
            return Ok(());
        }
        let name = format!("{}{}", line.query, if line.extra { " +" } else { "" });
        let cubes: Vec<&str> = line.cubes.iter().map(|cube| cube.as_str()).collect();
        println!(
            "{name:<26} {:>10.3} {:>10.3} {:>10.3} {:>12} {:>9} {:>9}  {}",
            line.median_ms,
            line.min_ms,
            line.max_ms,
            grouped(line.raw_rows_read),
            grouped(line.cells_read),
            grouped(line.unfolded_read),
            cubes.join(", ")
        );
        Ok(())
    }

    pub(crate) fn summary(&self, summary: &Summary) -> Outcome<()> {
        if self.json {
            println!("{}", serde_json::to_string(summary)?);
            return Ok(());
        }
        let Summary {
            summary: _,
            store,
            seed,
            calls,
            days,
            payload_calls,
            fill_calls_per_s,
            bytes,
            bytes_per_call,
            rss_bytes,
            peak_rss_bytes,
            open_ms,
        } = summary;
        let fill = fill_calls_per_s.map_or("it was filled before".to_owned(), |rate| {
            format!("filled at {rate:.0} calls/s")
        });
        let bytes_of = |of: &Option<u64>| of.map_or("unknown".to_owned(), grouped);
        println!("+ has no target");
        println!(
            "{store}: seed {seed}, {} calls over {days} days, {} of them with texts; {fill}",
            grouped(*calls),
            grouped(*payload_calls)
        );
        println!("disk: {bytes_per_call:.0} bytes a call, {} in all", grouped(*bytes));
        println!("memory: {} bytes, at most {}", bytes_of(rss_bytes), bytes_of(peak_rss_bytes));
        println!("open and first answer: {open_ms:.1} ms");
        Ok(())
    }
}

/// A number with commas between its thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
