//! The embedded store of PromptEngine: one SQLite file, shared by any number of processes of a machine.
//! The form of the file is described in `docs/sqlite-format.md`. What an answer means is decided in
//! core; this crate writes rows and reads them back. No type of the driver leaves it.

mod cells;
mod config;
mod error;
mod payloads;
mod prices;
mod prompts;
mod prune;
mod queries;
mod records;
mod rows;
mod schema;
mod store;
mod terms;
mod threads;

pub use config::{SqliteConfig, Synchronous};
pub use store::SqliteStore;
