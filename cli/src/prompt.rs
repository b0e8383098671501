//! `prompt`: create, edit and look at prompts and their versions.
//! Invariant: what would change a version makes the next one; nothing is changed before all is checked.

mod show;
mod version;

use clap::{Args, Subcommand};
use owo_colors::OwoColorize;
use prompt_engine::{Activation, NewPrompt, PromptEngine, PromptUpdate, Slug, VersionDraft};

use self::show::{done, list, print, versions};
use self::version::VersionArgs;
use crate::context::Context;
use crate::diff;
use crate::failure::Failure;
use crate::output::{self, say};

/// Create, edit and look at prompts and their versions.
#[derive(Debug, Subcommand)]
pub(crate) enum PromptCommand {
    /// Make a new prompt with its first version.
    #[command(after_help = "Example:\n  prompt-engine prompt create welcome \
        --content 'Write a welcome mail to {{name}}.' --model gpt-4o")]
    Create(CreateArgs),
    /// List all prompts.
    #[command(after_help = "Example:\n  prompt-engine prompt list --json")]
    List,
    /// Show a prompt and one of its versions.
    #[command(after_help = "Example:\n  prompt-engine prompt show welcome --version 2")]
    Show(ShowArgs),
    /// Make the next version of a prompt from its latest one, and activate it.
    #[command(after_help = "Example:\n  prompt-engine prompt edit welcome \
        --content-file welcome.txt --change 'Shorter' --draft")]
    Edit(EditArgs),
    /// List the versions of a prompt, newest first.
    #[command(after_help = "Example:\n  prompt-engine prompt versions welcome")]
    Versions {
        /// The prompt.
        slug: Slug,
    },
    /// Show what differs between two versions.
    #[command(after_help = "Example:\n  prompt-engine prompt diff welcome 1 3")]
    Diff {
        /// The prompt.
        slug: Slug,
        /// The older version; the one before the newer, unless given.
        from: Option<u32>,
        /// The newer version; the latest, unless given.
        to: Option<u32>,
    },
    /// Render this version from now on; an older one is a rollback.
    #[command(after_help = "Example:\n  prompt-engine prompt activate welcome 2")]
    Activate {
        /// The prompt.
        slug: Slug,
        /// The version.
        version: u32,
    },
    /// Make a new version that says what an older one said, and activate it.
    #[command(after_help = "Example:\n  prompt-engine prompt restore welcome 1")]
    Restore {
        /// The prompt.
        slug: Slug,
        /// The version.
        version: u32,
    },
    /// Put a prompt away, with all that is known of its use.
    #[command(after_help = "Example:\n  prompt-engine prompt archive welcome")]
    Archive {
        /// The prompt.
        slug: Slug,
    },
}

/// A new prompt.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The name by which code asks for it: a to z, 0 to 9 and -.
    slug: Slug,
    /// The name that people read; the slug, unless given.
    #[arg(long)]
    name: Option<String>,
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Leave it a draft: not rendered until a version is activated.
    #[arg(long)]
    draft: bool,
    #[command(flatten)]
    version: VersionArgs,
}

/// Which version to show.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The prompt.
    slug: Slug,
    /// The version; the active one, unless given, or the latest where none is active.
    #[arg(long, value_name = "NUMBER")]
    version: Option<u32>,
}

/// What to change.
#[derive(Debug, Args)]
pub(crate) struct EditArgs {
    /// The prompt.
    slug: Slug,
    /// The name that people read.
    #[arg(long)]
    name: Option<String>,
    /// What it is for; an empty text takes it away.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Leave the new version a draft: the active one stays.
    #[arg(long, conflicts_with = "parameter")]
    draft: bool,
    #[command(flatten)]
    version: VersionArgs,
}

pub(crate) async fn run(command: PromptCommand, context: &Context) -> Result<(), Failure> {
    let engine = match &command {
        PromptCommand::Create(_) => context.open_or_create().await?,
        _ => context.open().await?,
    };
    let prompts = engine.prompts();
    match command {
        PromptCommand::Create(args) => create(args, &engine, context).await,
        PromptCommand::List => list(prompts.list().await?, context),
        PromptCommand::Show(args) => {
            let prompt = prompts.get(&args.slug).await?;
            let number = args.version.or(prompt.active_version).unwrap_or(prompt.latest_version);
            let version = prompts.version(&args.slug, number).await?;
            print(&prompt, &version, context)
        }
        PromptCommand::Edit(args) => edit(args, &engine, context).await,
        PromptCommand::Versions { slug } => {
            let active = prompts.get(&slug).await?.active_version;
            versions(prompts.versions(&slug).await?, active, context)
        }
        PromptCommand::Diff { slug, from, to } => {
            let latest = prompts.get(&slug).await?.latest_version;
            let to = to.unwrap_or(latest);
            let from = from.unwrap_or(to.saturating_sub(1).max(1));
            let (from, to) =
                (prompts.version(&slug, from).await?, prompts.version(&slug, to).await?);
            diff::show(&slug, &from, &to, context)
        }
        PromptCommand::Activate { slug, version } => {
            let prompt = prompts.activate(&slug, version).await?;
            let version = prompts.version(&slug, version).await?;
            done(&prompt, &version, "is active now", context)
        }
        PromptCommand::Restore { slug, version: old } => {
            let (prompt, version) = prompts.restore(&slug, old).await?;
            done(
                &prompt,
                &version,
                &format!("says what version {old} said, and is active"),
                context,
            )
        }
        PromptCommand::Archive { slug } => {
            let prompt = prompts.archive(&slug).await?;
            if context.json() {
                return output::document(&prompt);
            }
            say(format_args!("{} is archived; `prompt activate` brings it back", slug.bold()))
        }
    }
}

async fn create(args: CreateArgs, engine: &PromptEngine, context: &Context) -> Result<(), Failure> {
    if !args.version.has_text() {
        return Err(Failure::usage("a prompt needs a text: give --content or --content-file"));
    }
    let version = args.version.draft(VersionDraft::default())?;
    args.version.check_parameters(&version)?;
    let new = NewPrompt {
        name: args.name.clone().unwrap_or_else(|| args.slug.to_string()),
        description: args.description.clone(),
        draft: args.draft,
        ..NewPrompt::new(args.slug.clone(), version)
    };
    let (prompt, version) = engine.prompts().create(new).await?;
    let prompt = args.version.set_parameters(engine, prompt).await?;
    let what = if args.draft { "is created, as a draft" } else { "is created and active" };
    done(&prompt, &version, what, context)
}

async fn edit(args: EditArgs, engine: &PromptEngine, context: &Context) -> Result<(), Failure> {
    let nothing = args.name.is_none() && args.description.is_none();
    if nothing && args.version.is_empty() && !args.version.has_parameters() {
        return Err(Failure::usage(
            "nothing to edit: give --content or another option (see --help)",
        ));
    }
    let prompts = engine.prompts();
    let mut prompt = prompts.get(&args.slug).await?;
    let latest = prompts.version(&args.slug, prompt.latest_version).await?;
    let draft = args.version.draft(latest.clone().into())?;
    args.version.check_parameters(&draft)?;
    if let Some(name) = args.name.as_ref().filter(|name| name.trim().is_empty()) {
        return Err(Failure::usage(format!("--name: {name:?} is empty")));
    }
    let mut version = latest;
    let mut what = "stays; the prompt is changed";
    if !args.version.is_empty() {
        let activation = if args.draft { Activation::Draft } else { Activation::Activate };
        (prompt, version) = prompts.add_version_to(prompt, draft, activation).await?;
        what = if args.draft { "is made, as a draft" } else { "is made and active" };
    }
    if !nothing {
        let update = PromptUpdate {
            name: args.name,
            description: args.description.map(|text| (!text.is_empty()).then_some(text)),
            parameters: None,
        };
        prompt = prompts.update(&args.slug, update).await?;
    }
    let prompt = args.version.set_parameters(engine, prompt).await?;
    done(&prompt, &version, what, context)
}
