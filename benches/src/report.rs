//! What a bench prints: percentiles of calls timed one by one, medians, and the machine.

use std::time::{Duration, Instant};

/// Times of single calls, in seconds: four bytes each, since some benches look at the memory they take.
#[derive(Debug, Default)]
pub struct Latencies(Vec<f32>);

impl Latencies {
    /// Times `call` and keeps the time.
    pub fn time<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let answer = call();
        self.push(start.elapsed());
        answer
    }

    /// Adds a time.
    pub fn push(&mut self, time: Duration) {
        self.0.push(time.as_secs_f32());
    }

    /// Prints p50, p99, p99.9 and the longest under `name`, and returns the first two.
    pub fn print(&mut self, name: &str) -> (Duration, Duration) {
        self.0.sort_unstable_by(f32::total_cmp);
        let at = |per_mille: usize| {
            let last = self.0.len().saturating_sub(1);
            let seconds = self.0.get(last * per_mille / 1_000).copied().unwrap_or_default();
            Duration::from_secs_f32(seconds)
        };
        let (p50, p99) = (at(500), at(990));
        println!(
            "{name}: p50 {p50:?}, p99 {p99:?}, p99.9 {:?}, longest {:?} ({} calls)",
            at(999),
            at(1_000),
            self.0.len()
        );
        (p50, p99)
    }
}

/// The median of `values`; 0 of none.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Prints what the figures depend on besides the code.
pub fn printed_machine(seed: u64) {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "seed {seed}, {cores} cores, {} {}, prompt-engine {}, SQLite {}",
        std::env::consts::OS,
        std::env::consts::ARCH,
        env!("CARGO_PKG_VERSION"),
        rusqlite::version()
    );
}

/// A figure of this process in `/proc/self/status`, in bytes; `None` where there is no such file.
pub fn memory(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}
