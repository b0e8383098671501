//! What the command line takes.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use prompt_engine_benches::Set;
use prompt_engine_core::Source;

/// Calls up to which all have texts where nobody says.
const ALL_WITH_TEXTS: u64 = 1_000_000;

/// Fills a store with a set of calls that a seed decides, then times the questions about its last 30
/// days, each answer checked against a recount of the set.
///
/// A store that holds the set already is not filled again. Nothing is written to a store that holds
/// anything else.
#[derive(Debug, Parser)]
#[command(
    name = "scale",
    after_help = "Each line of --json is a question: \"query\", \"median_ms\", \"min_ms\", \"max_ms\", \
                  \"raw_rows_read\", \"cells_read\", \"unfolded_read\" (medians over the runs), \"cubes\", \
                  \"extra\" where it is none of the eight with a target. The last is the summary.\n\n\
                  Examples:\n  \
                  scale --store sqlite:///var/tmp/scale.db --calls 10000000 --json\n  \
                  scale --store redb:///var/tmp/scale.redb --calls 1000000 --engine-check /var/tmp/check\n  \
                  scale --store 'postgres://localhost/bench?schema=scale' --calls 1000000 --source records"
)]
pub(crate) struct Args {
    /// The store: sqlite://FILE, redb://FILE or postgres://HOST/DATABASE.
    #[arg(long, value_name = "URL", env = "PROMPT_ENGINE_BENCH_STORE", hide_env_values = true)]
    pub(crate) store: String,
    /// How many calls the set has.
    #[arg(long, value_name = "N", default_value_t = 1_000_000,
        value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) calls: u64,
    /// Over how many days they are spread.
    #[arg(long, value_name = "N", default_value_t = 90,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(Set::MOST_DAYS)))]
    pub(crate) days: u32,
    /// What decides the set.
    #[arg(long, value_name = "N", default_value_t = 7)]
    pub(crate) seed: u64,
    /// How many of the calls, the last ones, carry texts, about 4.5 kB each; where nobody says all of a
    /// set of up to 1,000,000 calls, and none of a larger one.
    #[arg(long, value_name = "N")]
    pub(crate) payload_calls: Option<u64>,
    /// How often each question is asked, of another range each time.
    #[arg(long, value_name = "N", default_value_t = 7,
        value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) runs: u32,
    /// Only the questions whose names start so.
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Option<String>,
    /// Leaves out the questions that have no target.
    #[arg(long)]
    pub(crate) no_extras: bool,
    /// Where answers come from; `records` is a full scan of the same data.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) source: From,
    /// Writes the rows as CSV and the answers as JSON to this folder, for another engine.
    #[arg(long, value_name = "DIR")]
    pub(crate) engine_check: Option<PathBuf>,
    /// Prints a JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Fills the store, and asks nothing.
    #[arg(long)]
    pub(crate) fill_only: bool,
    /// Calls per second of the process that filled the store and then became this one.
    #[arg(long, hide = true)]
    pub(crate) filled_at: Option<f64>,
}

/// Where answers come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum From {
    /// From cubes where they have what is asked for.
    #[default]
    Any,
    /// From the records alone.
    Records,
}

impl From {
    pub(crate) fn source(self) -> Source {
        match self {
            Self::Any => Source::Any,
            Self::Records => Source::Records,
        }
    }
}

impl Args {
    /// The arguments that ask for the same after a fill that went at `rate` calls per second.
    pub(crate) fn after_the_fill(rate: f64) -> Vec<OsString> {
        let mut args: Vec<OsString> = std::env::args_os().skip(1).collect();
        args.push(format!("--filled-at={rate}").into());
        args
    }

    /// How many calls, the last ones, carry texts.
    pub(crate) fn payload_calls(&self) -> u64 {
        let unless_said = if self.calls <= ALL_WITH_TEXTS { self.calls } else { 0 };
        self.payload_calls.unwrap_or(unless_said).min(self.calls)
    }
}
