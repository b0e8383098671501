//! `demo`: everything on a fresh file.

use clap::Args;

use crate::context::Context;
use crate::failure::Failure;

/// How to show it.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  prompt-engine demo")]
pub(crate) struct DemoArgs {}

pub(crate) async fn run(_args: DemoArgs, _context: &Context) -> Result<(), Failure> {
    Err(Failure::failed("demo is not there yet"))
}
