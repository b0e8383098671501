//! The workloads of the benches, the questions about them, and the right answers.
//! Invariant: a seed decides all of a workload, so that two runs and two stores are given the same rows.

mod answer;
mod calls;
mod observed;
mod question;
mod recount;
mod report;
mod set;
mod text;

pub use answer::{Answer, Groups, Percentiles, Sums};
pub use calls::{Call, Calls};
pub use observed::Observed;
pub use question::{Question, Reply};
pub use recount::{Asked, Grouping, recount};
pub use report::{Latencies, median, memory, printed_machine};
pub use set::{Fact, Set};
pub use text::Prose;
