//! `completions`: what a shell needs to complete our commands.

use std::io::Write;

use clap::Args;
use clap_complete::Shell;

use crate::failure::Failure;

/// Which shell.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  prompt-engine completions bash > ~/.local/share/bash-completion/completions/prompt-engine"
)]
pub(crate) struct CompletionsArgs {
    /// The shell to complete in.
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs, command: &mut clap::Command) -> Result<(), Failure> {
    // Into memory first: the generator panics where its output cannot be written.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "prompt-engine", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(())
}
