//! The shared store of PromptEngine: a schema of a PostgreSQL database, for any number of processes.
//! The tables are described in `docs/postgres-format.md`. What an answer means is decided in core;
//! this crate writes rows and reads them back. No type of the driver leaves it.

mod batch;
mod cells;
mod config;
mod costs;
mod error;
mod folds;
mod payloads;
mod pool;
mod prices;
mod prompts;
mod prune;
mod queries;
mod records;
mod rows;
mod schema;
mod sql;
mod store;
mod sums;
mod text;
mod wire;

pub use config::PostgresConfig;
pub use store::PostgresStore;
