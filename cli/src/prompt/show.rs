//! Prompts and versions as they are printed.

use comfy_table::Color;
use owo_colors::OwoColorize;
use prompt_engine::{Parameter, Prompt, PromptStatus, PromptVersion};
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::Failure;
use crate::output::{self, excerpt, heading, printable, say};
use crate::table::{cell, count, facts, moment, show, table};

pub(super) fn list(prompts: Vec<Prompt>, context: &Context) -> Result<(), Failure> {
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
            cell(moment(prompt.updated_at)),
        ]);
    }
    show(&rows)
}

pub(super) fn versions(
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
            cell(mark).fg(Color::Green),
            cell(moment(version.created_at)),
            cell(version.model.as_deref().unwrap_or("-")),
            cell(excerpt(version.author.as_deref().unwrap_or("-"), 20)),
            cell(excerpt(version.change_description.as_deref().unwrap_or("-"), 40)),
            cell(excerpt(&version.content, 40)),
        ]);
    }
    show(&rows)
}

pub(super) fn done(
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

pub(super) fn print(
    prompt: &Prompt,
    version: &PromptVersion,
    context: &Context,
) -> Result<(), Failure> {
    if context.json() {
        return output::document(&with_version(prompt, version)?);
    }
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
    add("Made", Some(moment(version.created_at)));
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
