//! The workloads of the benches. Invariant: a seed decides all of a workload, so that two runs and
//! two stores are given the same rows.

mod calls;
mod report;
mod text;

pub use calls::{Call, Calls};
pub use report::{Latencies, median, printed_machine};
pub use text::Prose;
