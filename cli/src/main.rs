//! The command line of PromptEngine: one file per command, this one parses and dispatches.
//! Invariant: every refusal is one sentence on stderr; exit code 2 for usage, 1 for failure.

mod client;
mod compare;
mod completions;
mod context;
mod costs;
mod demo;
mod diff;
mod doctor;
mod errors;
mod executions;
mod explain;
mod export;
mod failure;
mod filters;
mod import;
mod interrupt;
mod output;
mod performance;
mod playground;
mod prices;
mod progress;
mod prompt;
mod prune;
mod quiet;
mod record_json;
mod render;
mod run;
mod stats;
mod table;
mod top;
mod usages;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use crate::context::Context;
use crate::failure::Failure;

/// A versioned store for LLM prompts and complete sight of their use.
#[derive(Debug, Parser)]
#[command(
    name = "prompt-engine",
    version,
    after_help = "Example:\n  \
    prompt-engine demo\n  \
    prompt-engine prompt create welcome --content 'Hello {{name}}' --model gpt-4o\n  \
    prompt-engine render welcome --var name=Ada"
)]
pub(crate) struct Cli {
    /// Where everything is kept.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "PROMPT_ENGINE_STORE",
        hide_env_values = true,
        default_value = context::DEFAULT_STORE
    )]
    store: String,
    /// Print JSON: one document, or one line for each thing of a list.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create, edit and look at prompts and their versions.
    #[command(subcommand)]
    Prompt(prompt::PromptCommand),
    /// Fill in a prompt and record the use.
    Render(render::RenderArgs),
    /// Fill in a prompt, ask a model, and record the call.
    Run(run::RunArgs),
    /// Ask several models, or with several versions, and compare the answers.
    Playground(playground::PlaygroundArgs),
    /// What has been used, how it went and what it cost.
    Stats(stats::StatsArgs),
    /// How one prompt did.
    Performance(performance::PerformanceArgs),
    /// What calls cost, broken down.
    Costs(costs::CostsArgs),
    /// What went wrong.
    Errors(errors::ErrorsArgs),
    /// The prompts with the most uses, costs or errors.
    Top(top::TopArgs),
    /// Look at recorded renders.
    #[command(subcommand)]
    Usages(usages::UsagesCommand),
    /// Look at recorded calls of models.
    #[command(subcommand)]
    Executions(executions::ExecutionsCommand),
    /// Delete old texts and old records; what they add up to stays.
    Prune(prune::PruneArgs),
    /// Look at, set and bring up to date the prices of models.
    #[command(subcommand)]
    Prices(prices::PricesCommand),
    /// Bring in an export, or history from a CSV or JSON lines file.
    Import(import::ImportArgs),
    /// Write everything to a file, for another store or to keep.
    Export(export::ExportArgs),
    /// Count records again, and check the sums that answers come from.
    Doctor(doctor::DoctorArgs),
    /// Show everything on a fresh file, with a model server of our own.
    Demo(demo::DemoArgs),
    /// Print completions for a shell.
    Completions(completions::CompletionsArgs),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse_arguments(&error),
    };
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start the runtime: {error}")))
        .and_then(|runtime| runtime.block_on(dispatch(cli)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Runs a command.
pub(crate) async fn dispatch(cli: Cli) -> Result<(), Failure> {
    let context = Context::new(cli.store, cli.json);
    match cli.command {
        Command::Prompt(command) => prompt::run(command, &context).await,
        Command::Render(args) => render::run(args, &context).await,
        Command::Playground(args) => playground::run(args, &context).await,
        Command::Run(args) => run::run(args, &context).await,
        Command::Stats(args) => stats::run(args, &context).await,
        Command::Performance(args) => performance::run(args, &context).await,
        Command::Costs(args) => costs::run(args, &context).await,
        Command::Errors(args) => errors::run(args, &context).await,
        Command::Top(args) => top::run(args, &context).await,
        Command::Usages(command) => usages::run(command, &context).await,
        Command::Executions(command) => executions::run(command, &context).await,
        Command::Prune(args) => prune::run(args, &context).await,
        Command::Prices(command) => prices::run(command, &context).await,
        Command::Import(args) => import::run(args, &context).await,
        Command::Export(args) => export::run(args, &context).await,
        Command::Doctor(args) => doctor::run(args, &context).await,
        Command::Demo(args) => demo::run(args, &context).await,
        Command::Completions(args) => completions::run(&args, &mut Cli::command()),
    }
}

/// Prints help as it is, and an error of the arguments as one sentence.
fn refuse_arguments(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Whoever closed the pipe has seen enough.
            drop(error.print());
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            drop(error.print());
            ExitCode::from(failure::USAGE)
        }
        _ => {
            let text = error.render().to_string();
            let parts: Vec<String> = text
                .split("\n\n")
                .take_while(|part| !part.starts_with("Usage:"))
                .map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "))
                .filter(|part| !part.is_empty() && !part.starts_with("For more information"))
                .collect();
            let sentence = parts.join("; ");
            let sentence = sentence.strip_prefix("error: ").unwrap_or(&sentence);
            Failure::usage(format!("{sentence} (see --help)")).report()
        }
    }
}
