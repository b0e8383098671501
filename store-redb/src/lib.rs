//! The embedded store of PromptEngine without SQL: one redb file, opened by one process.
//! The form of the file is described in `docs/redb-format.md`. What an answer means is decided in
//! core; this crate writes rows and reads them back. No type of the driver leaves it.

mod cells;
mod config;
mod error;
mod layout;
mod payloads;
mod prices;
mod prompts;
mod prune;
mod queries;
mod records;
mod rows;
mod store;
mod terms;
mod walk;

pub use config::RedbConfig;
pub use store::RedbStore;
