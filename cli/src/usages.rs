//! `usages`: look at recorded renders.

use clap::Subcommand;
use prompt_engine::{PageQuery, RecordQuery, TimeRange, UsageId};
use serde_json::{Value, json};

use crate::context::Context;
use crate::executions::{RecordListArgs, say_end};
use crate::failure::Failure;
use crate::output::{self, heading, printable, say};
use crate::record_json::{self, Slugs};
use crate::table::{cell, facts, moment, show, table, whole_ids};

/// Look at recorded renders.
#[derive(Debug, Subcommand)]
pub(crate) enum UsagesCommand {
    /// List renders, newest first.
    #[command(after_help = "Example:\n  prompt-engine usages list --prompt welcome --last 7d")]
    List(Box<RecordListArgs>),
    /// Show one render with its text and its calls.
    #[command(
        after_help = "Example:\n  prompt-engine usages show 01930a7e-5c1f-7cc3-98c4-dc0c0c07398f"
    )]
    Show {
        /// The id of the usage.
        id: UsageId,
    },
}

pub(crate) async fn run(command: UsagesCommand, context: &Context) -> Result<(), Failure> {
    match command {
        UsagesCommand::List(args) => list(&args, context).await,
        UsagesCommand::Show { id } => show_one(id, context).await,
    }
}

async fn list(args: &RecordListArgs, context: &Context) -> Result<(), Failure> {
    args.range.range(TimeRange::all())?;
    if args.filter.rest.model.is_some() || args.filter.rest.provider.is_some() {
        return Err(Failure::usage(
            "a usage has no model and no provider; `executions list` can be filtered by them",
        ));
    }
    let engine = context.open().await?;
    let query = args.query(&engine).await?;
    let page = engine.store().list_usages(&query).await?;
    let mut slugs = Slugs::default();
    if context.json() {
        let mut lines = Vec::new();
        for one in &page.items {
            let slug = slugs.of(&engine, one.attribution.prompt).await?;
            lines.push(record_json::usage(one, &slug));
        }
        output::lines(&lines)?;
    } else if page.items.is_empty() {
        say("There are no such renders.")?;
    } else {
        let mut rows = table(&["Id", "Rendered", "Prompt", "Environment", "Session", "User"]);
        for one in &page.items {
            let of = &one.attribution;
            let slug = slugs.of(&engine, of.prompt).await?;
            rows.add_row([
                cell(one.id.to_string()),
                cell(moment(one.created_at)),
                cell(format!("{slug} v{}", of.version)),
                cell(of.environment.as_str()),
                cell(of.session.as_deref().unwrap_or("-")),
                cell(of.user.as_deref().unwrap_or("-")),
            ]);
        }
        whole_ids(&mut rows, &[3, 4, 5]);
        show(&rows)?;
    }
    say_end(&engine, query.range, page.next.as_ref()).await
}

async fn show_one(id: UsageId, context: &Context) -> Result<(), Failure> {
    let engine = context.open().await?;
    let found = engine.store().usage(id).await?;
    let one = found.ok_or_else(|| Failure::failed(format!("there is no usage {id}")))?;
    let slug = Slugs::default().of(&engine, one.attribution.prompt).await?;
    let mut query = RecordQuery {
        usage: Some(id),
        page: PageQuery { limit: 1_000, after: None },
        ..RecordQuery::default()
    };
    let mut calls = Vec::new();
    loop {
        let page = engine.store().list_executions(&query).await?;
        calls.extend(page.items);
        match page.next {
            Some(next) => query.page.after = Some(next),
            None => break,
        }
    }
    if context.json() {
        let mut document = record_json::usage(&one, &slug);
        let ids: Vec<Value> = calls.iter().map(|call| json!(call.id)).collect();
        document.insert("executions".to_owned(), ids.into());
        return output::document(&document);
    }
    heading(format_args!("Usage {id}"))?;
    let of = &one.attribution;
    let mut known = vec![
        ("Prompt", format!("{slug} v{}", of.version)),
        ("Environment", of.environment.to_string()),
    ];
    known.extend(of.session.as_ref().map(|session| ("Session", session.to_string())));
    known.extend(of.user.as_ref().map(|user| ("User", user.to_string())));
    known.push(("Rendered", moment(one.created_at)));
    if let Some(payload) = &one.payload {
        let parameters: Vec<_> =
            payload.parameters.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        known.push((
            "Parameters",
            if parameters.is_empty() { "-".to_owned() } else { parameters.join("\n") },
        ));
        known.push(("Metadata", Value::Object(payload.metadata.clone()).to_string()));
    }
    let list: Vec<_> = calls.iter().map(|call| format!("{} {}", call.id, call.status)).collect();
    known.push(("Calls", if list.is_empty() { "none".to_owned() } else { list.join("\n") }));
    show(&facts(known))?;
    let Some(payload) = &one.payload else {
        return say("The texts of this render are no longer kept.");
    };
    if let Some(system) = &payload.system_message {
        say("")?;
        heading("System message")?;
        say(printable(system))?;
    }
    say("")?;
    heading("Content")?;
    say(printable(&payload.content))
}
