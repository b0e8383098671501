//! `prompt`: create, edit and look at prompts and their versions.
//! Invariant: what would change a version makes the next one; nothing is changed before all is checked.

use std::io::Read;

use clap::{Args, Subcommand};
use owo_colors::OwoColorize;
use prompt_engine::{
    Activation, Label, NewPrompt, Parameter, ParameterType, Prompt, PromptEngine, PromptStatus,
    PromptUpdate, PromptVersion, Slug, VersionDraft, detect_parameters,
};
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::diff;
use crate::failure::Failure;
use crate::filters::parse_object;
use crate::output::{self, excerpt, heading, printable, say};
use crate::table::{cell, count, facts, show, table};

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

/// What a version says.
#[derive(Debug, Args)]
#[command(next_help_heading = "The version")]
pub(crate) struct VersionArgs {
    /// The text, with {{name}} where a value goes.
    #[arg(long, value_name = "TEXT", conflicts_with = "content_file", allow_hyphen_values = true)]
    content: Option<String>,
    /// The file that holds the text; - is standard input.
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    content_file: Option<String>,
    /// The system message; an empty text takes it away.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,
    /// The model to ask; an empty text takes it away.
    #[arg(long, value_name = "NAME")]
    model: Option<Label>,
    /// How freely the model picks, 0 to 2.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// The most tokens the model may answer with.
    #[arg(long, value_name = "NUMBER")]
    max_tokens: Option<u32>,
    /// Anything else, as a JSON object.
    #[arg(long, value_name = "JSON", value_parser = parse_object)]
    metadata: Option<Map<String, Value>>,
    /// Why this version is made.
    #[arg(long, value_name = "TEXT")]
    change: Option<String>,
    /// Who makes it.
    #[arg(long, value_name = "NAME")]
    author: Option<String>,
    /// The type of a parameter, and whether it is needed: count:integer, or count:integer:optional:3.
    #[arg(long, value_name = "NAME:TYPE[:required|optional[:DEFAULT]]", value_parser = parse_parameter)]
    parameter: Vec<Parameter>,
}

impl VersionArgs {
    /// The text, if there is one.
    fn text(&self) -> Result<Option<String>, Failure> {
        match &self.content_file {
            Some(file) => read_text(file).map(Some),
            None => Ok(self.content.clone()),
        }
    }

    /// Whether nothing of a version is given.
    fn is_empty(&self) -> bool {
        let Self {
            content,
            content_file,
            system,
            model,
            temperature,
            max_tokens,
            metadata,
            change,
            author,
            parameter: _,
        } = self;
        content.is_none()
            && content_file.is_none()
            && system.is_none()
            && model.is_none()
            && temperature.is_none()
            && max_tokens.is_none()
            && metadata.is_none()
            && change.is_none()
            && author.is_none()
    }

    /// The version that `base` becomes.
    fn draft(&self, base: VersionDraft) -> Result<VersionDraft, Failure> {
        Ok(VersionDraft {
            content: self.text()?.unwrap_or(base.content),
            system_message: match &self.system {
                Some(text) => (!text.is_empty()).then(|| text.clone()),
                None => base.system_message,
            },
            model: match &self.model {
                Some(model) => (!model.is_empty()).then(|| model.clone()),
                None => base.model,
            },
            temperature: self.temperature.or(base.temperature),
            max_tokens: self.max_tokens.or(base.max_tokens),
            metadata: self.metadata.clone().unwrap_or(base.metadata),
            change_description: self.change.clone(),
            author: self.author.clone(),
        })
    }

    /// Refuses parameters that break a rule, or that no text of the version names.
    fn check_parameters(&self, draft: &VersionDraft) -> Result<(), Failure> {
        let named = detect_parameters(&draft.content, draft.system_message.as_deref());
        for given in &self.parameter {
            given.validate()?;
            if !named.iter().any(|parameter| parameter.name == given.name) {
                let name = &given.name;
                return Err(Failure::failed(format!(
                    "--parameter: the text has no {{{{{name}}}}} for a parameter {name}"
                )));
            }
        }
        Ok(())
    }

    /// Gives the parameters of `prompt` the types that were asked for.
    async fn set_parameters(
        &self,
        engine: &PromptEngine,
        prompt: Prompt,
    ) -> Result<Prompt, Failure> {
        if self.parameter.is_empty() {
            return Ok(prompt);
        }
        let mut parameters = prompt.parameters.clone();
        for given in &self.parameter {
            if let Some(old) = parameters.iter_mut().find(|old| old.name == given.name) {
                let position = old.position;
                *old = Parameter { position, ..given.clone() };
            }
        }
        let update = PromptUpdate { parameters: Some(parameters), ..PromptUpdate::default() };
        Ok(engine.prompts().update(&prompt.slug, update).await?)
    }
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
            if context.json() {
                return output::document(&with_version(&prompt, &version)?);
            }
            print(&prompt, &version)
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
    if args.version.content.is_none() && args.version.content_file.is_none() {
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
    if nothing && args.version.is_empty() && args.version.parameter.is_empty() {
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

fn list(prompts: Vec<Prompt>, context: &Context) -> Result<(), Failure> {
    if context.json() {
        return output::lines(&prompts);
    }
    if prompts.is_empty() {
        return say("There are no prompts yet; `prompt-engine prompt create` makes one.");
    }
    let mut rows = table(&["Prompt", "Name", "Status", ">Active", ">Versions", "Changed"]);
    for prompt in &prompts {
        let name = if prompt.name == *prompt.slug { "" } else { &prompt.name };
        rows.add_row([
            cell(&*prompt.slug),
            cell(excerpt(name, 40)),
            cell(prompt.status.as_str()),
            cell(prompt.active_version.map_or("-".to_owned(), |number| number.to_string())),
            cell(prompt.latest_version.to_string()),
            cell(crate::table::moment(prompt.updated_at)),
        ]);
    }
    show(&rows)
}

fn versions(
    versions: Vec<PromptVersion>,
    active: Option<u32>,
    context: &Context,
) -> Result<(), Failure> {
    if context.json() {
        return output::lines(&versions);
    }
    let mut rows = table(&[">Version", "", "Made", "Model", "Author", "Change", "Text"]);
    for version in &versions {
        let mark = if active == Some(version.number) { "active" } else { "" };
        rows.add_row([
            cell(version.number.to_string()),
            cell(mark).fg(comfy_table::Color::Green),
            cell(crate::table::moment(version.created_at)),
            cell(version.model.as_deref().unwrap_or("-")),
            cell(excerpt(version.author.as_deref().unwrap_or("-"), 20)),
            cell(excerpt(version.change_description.as_deref().unwrap_or("-"), 40)),
            cell(excerpt(&version.content, 40)),
        ]);
    }
    show(&rows)
}

fn done(
    prompt: &Prompt,
    version: &PromptVersion,
    what: &str,
    context: &Context,
) -> Result<(), Failure> {
    if context.json() {
        return output::document(&with_version(prompt, version)?);
    }
    say(format_args!("{} version {} {what}", prompt.slug.bold(), version.number))?;
    if !prompt.parameters.is_empty() {
        let names: Vec<_> = prompt.parameters.iter().map(describe).collect();
        let many = u64::try_from(names.len()).unwrap_or(u64::MAX);
        say(format_args!("{}: {}", count(many, "parameter"), printable(&names.join(", "))))?;
    }
    Ok(())
}

fn print(prompt: &Prompt, version: &PromptVersion) -> Result<(), Failure> {
    let number = version.number;
    let state = match (prompt.status, prompt.active_version) {
        (PromptStatus::Active, Some(active)) if active == number => "active".to_owned(),
        (PromptStatus::Active, Some(active)) => format!("not active; version {active} is"),
        (PromptStatus::Archived, _) => "archived".to_owned(),
        _ => "draft".to_owned(),
    };
    heading(format_args!(
        "{} version {number} of {} ({state})",
        prompt.slug, prompt.latest_version
    ))?;
    let mut known = vec![("Name", prompt.name.clone())];
    let mut add = |name, value: Option<String>| {
        if let Some(value) = value {
            known.push((name, value));
        }
    };
    add("Description", prompt.description.clone());
    add("Model", version.model.as_ref().map(ToString::to_string));
    add("Temperature", version.temperature.map(|number| number.to_string()));
    add("Max tokens", version.max_tokens.map(|number| number.to_string()));
    let parameters: Vec<_> = prompt.parameters.iter().map(describe).collect();
    add("Parameters", (!parameters.is_empty()).then(|| parameters.join("\n")));
    let metadata = version.metadata.as_object().is_some_and(|object| !object.is_empty());
    add("Metadata", metadata.then(|| version.metadata.to_string()));
    add("Change", version.change_description.clone());
    add("Author", version.author.clone());
    add("Made", Some(crate::table::moment(version.created_at)));
    show(&facts(known))?;
    if let Some(system) = &version.system_message {
        say("")?;
        heading("System message")?;
        say(printable(system))?;
    }
    say("")?;
    heading("Content")?;
    say(printable(&version.content))
}

fn describe(parameter: &Parameter) -> String {
    let mut text = format!("{} ({}", parameter.name, parameter.kind);
    if !parameter.required {
        text.push_str(", optional");
    }
    if let Some(default) = &parameter.default {
        text.push_str(&format!(", default {default}"));
    }
    text.push(')');
    text
}

/// The prompt with the version as its field `version`.
fn with_version(prompt: &Prompt, version: &PromptVersion) -> Result<Value, Failure> {
    let unexpected = |error| Failure::failed(format!("cannot write the prompt as JSON: {error}"));
    let mut document = serde_json::to_value(prompt).map_err(unexpected)?;
    document["version"] = serde_json::to_value(version).map_err(unexpected)?;
    document["number"] = json!(version.number);
    Ok(document)
}

fn read_text(file: &str) -> Result<String, Failure> {
    let cannot = |error| Failure::failed(format!("cannot read {file}: {error}"));
    // One byte more than a text may have, so that the prompt refuses it by its length.
    let most = u64::try_from(PromptVersion::MAX_TEXT_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    if file == "-" {
        std::io::stdin().lock().take(most).read_to_end(&mut bytes).map_err(cannot)?;
    } else {
        let opened = std::fs::File::open(file).map_err(cannot)?;
        opened.take(most).read_to_end(&mut bytes).map_err(cannot)?;
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::failed(format!("{file} is no UTF-8 text: byte {at} is wrong"))
    })
}

fn parse_parameter(text: &str) -> Result<Parameter, String> {
    let mut parts = text.splitn(4, ':');
    let (Some(name), Some(kind)) = (parts.next(), parts.next()) else {
        return Err("write NAME:TYPE, such as count:integer".to_owned());
    };
    let kind: ParameterType =
        kind.parse().map_err(|error: prompt_engine::Error| error.to_string())?;
    let required = match parts.next() {
        None | Some("required") => true,
        Some("optional") => false,
        Some(other) => return Err(format!("{other:?} is neither required nor optional")),
    };
    let mut parameter = Parameter { kind, required, ..Parameter::infer(name, 0) };
    if let Some(default) = parts.next() {
        let value = parameter.parse_text(default).map_err(|error| error.chain())?;
        parameter.default = Some(value);
    }
    Ok(parameter)
}
