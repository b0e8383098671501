//! `prices`: look at, set and bring up to date the prices of models, and price calls with them.
//! Invariant: history is never lost; what only reads makes no store.

mod check;
mod list;
mod load;
mod nearest;
mod quote;
mod reprice;
mod set;

use clap::Subcommand;
use prompt_engine::{CostConfig, PromptEngine, known_provider, seed_prices};

use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// Look at, set and bring up to date the prices of models.
#[derive(Debug, Subcommand)]
pub(crate) enum PricesCommand {
    /// Bring the prices that came with the program up to date; what was set stays as it is.
    #[command(after_help = "Example:\n  prompt-engine prices load")]
    Load,
    /// List prices, in US dollars per million tokens.
    #[command(
        after_help = "Example:\n  prompt-engine prices list --provider openai --at 2026-01-01"
    )]
    List(list::ListArgs),
    /// Show all that is known of a model: its prices since ever, by service tier and size of input.
    #[command(after_help = "Example:\n  prompt-engine prices show gpt-4o --provider openai")]
    Show(list::ShowArgs),
    /// Set a price, in US dollars per million tokens; it wins over what came with the program.
    ///
    /// A price of the same model and tier that started earlier is closed where the new one starts;
    /// one that started within its time is kept and marked as replaced. Calls that were priced
    /// before stay as they are: see `prices reprice`.
    #[command(
        after_help = "Example:\n  prompt-engine prices set --provider openai --model gpt-4o \
            --input 2.5 --output 10 --cache-read 1.25 --from 2026-01-01 --above 272000:input=5,output=15"
    )]
    Set(Box<set::SetArgs>),
    /// Price one call, or many: what it would cost, of what, or why nobody can say.
    ///
    /// With --jsonl each line is an object with the names of these options in snake case: provider,
    /// model, at, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens,
    /// cache_write_1h_tokens, audio_input_tokens, audio_output_tokens, reasoning_tokens,
    /// service_tier, batch, response_model, and a free id. Each is answered by a line with id,
    /// cost_usd, input_cost_usd, output_cost_usd, other_cost_usd, reason, model and config_id, or
    /// with id and error.
    #[command(
        after_help = "Example:\n  prompt-engine prices quote --provider anthropic --model claude-sonnet-4-5 \
            --input-tokens 250000 --cache-read-tokens 200000 --output-tokens 1200"
    )]
    Quote(Box<quote::QuoteArgs>),
    /// Price recorded calls again, after a price was wrong or came late; only --apply changes them.
    ///
    /// Costs that a provider reported are left alone. A call keeps its old cost, which
    /// `executions show` shows. A run that was cut short is taken up by running it again.
    #[command(
        after_help = "Example:\n  prompt-engine prices reprice --last 30d --provider openai --apply"
    )]
    Reprice(reprice::RepriceArgs),
    /// Name the models of recorded calls that lack a price, with the nearest names that have one.
    #[command(after_help = "Example:\n  prompt-engine prices check")]
    Check,
}

pub(crate) async fn run(command: PricesCommand, context: &Context) -> Result<(), Failure> {
    match command {
        PricesCommand::Load => load::run(context).await,
        PricesCommand::List(args) => list::list(&args, context).await,
        PricesCommand::Show(args) => list::show_model(&args, context).await,
        PricesCommand::Set(args) => set::run(*args, context).await,
        PricesCommand::Quote(args) => quote::run(&args, context).await,
        PricesCommand::Reprice(args) => reprice::run(&args, context).await,
        PricesCommand::Check => check::run(context).await,
    }
}

/// The engine on the store, if it is there.
async fn engine(context: &Context) -> Result<Option<PromptEngine>, Failure> {
    match context.missing().await? {
        Some(_) => Ok(None),
        None => context.open().await.map(Some),
    }
}

/// The prices of the store; those that came with the program, where there is no store.
async fn prices(context: &Context) -> Result<Vec<CostConfig>, Failure> {
    match engine(context).await? {
        Some(engine) => Ok(engine.prices().list().await?),
        None => Ok(seed_prices()),
    }
}

/// Says, after an answer, that it was not the store that gave it.
async fn say_source(context: &Context) -> Result<(), Failure> {
    if let Some(path) = context.missing().await? {
        output::note(format_args!(
            "There is no store at {path}: these prices came with the program."
        ));
    }
    Ok(())
}

/// Whether a provider that is called `name` may have the prices of `of`.
fn same_provider(name: &str, of: &str) -> bool {
    name.eq_ignore_ascii_case(of) || known_provider(name) == Some(of)
}
