//! `import`: history from elsewhere.

use clap::Args;

use crate::context::Context;
use crate::failure::Failure;

/// What to import.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  prompt-engine import calls.csv --map created_at=TIMESTAMP --set prompt=code"
)]
pub(crate) struct ImportArgs {}

pub(crate) async fn run(_args: ImportArgs, _context: &Context) -> Result<(), Failure> {
    Err(Failure::failed("import is not there yet"))
}
