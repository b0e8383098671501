//! The binary as people and scripts meet it.
//! Invariant: no network, no key, a folder and a store of its own for each test.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod analytics;
mod cli;
mod demo;
mod export;
mod import;
mod place;
mod playground;
mod prices;
mod prune;
