//! The facade, end to end: one integration binary, a module for each subject.
#![allow(clippy::unwrap_used, clippy::clone_on_ref_ptr, reason = "a test may panic")]

mod execute;
mod observe;
mod outage;
mod playground;
mod prices;
mod providers;
mod render;
mod spans;
mod stored;
mod support;
