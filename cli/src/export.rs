//! `export`: everything that a store holds, as JSON lines: docs/export-format.md.
//! Invariant: a file of that name is whole; until it is, it has another one that ends in `.part`.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use prompt_engine::transfer::{Counts, Export};
use prompt_engine::{AggregateQuery, Store};
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::{document, note, printable, say};
use crate::progress::Progress;
use crate::table::count;

/// Where to.
#[derive(Debug, Args)]
#[command(after_help = "\
The file holds prompts, versions, prices, usages and executions with their texts, and what pruned records add up to.
Equal stores give equal files.
`prompt-engine import FILE` reads it into another store; running that again adds only what is new.

Example:
  prompt-engine export backup.jsonl
  prompt-engine export | prompt-engine --store redb://prompts.redb import -")]
pub(crate) struct ExportArgs {
    /// The file to write; standard output, if none is given or -.
    file: Option<PathBuf>,
}

pub(crate) async fn run(args: ExportArgs, context: &Context) -> Result<(), Failure> {
    let store = context.store().await?;
    let Some(path) = args.file.filter(|path| path != Path::new("-")) else {
        let mut out = BufWriter::new(io::stdout().lock());
        let counts = write(store, &mut out).await?.map_err(Failure::from)?;
        out.flush()?;
        note(sentence("exported", counts));
        return Ok(());
    };
    let name = path.display().to_string();
    let failed = |error: io::Error| Failure::failed(format!("cannot write {name}: {error}"));
    if path.exists() {
        return Err(Failure::failed(format!("{name} exists; name another file, or remove it")));
    }
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let part = tempfile::Builder::new()
        .prefix(path.file_name().unwrap_or_default())
        .suffix(".part")
        .tempfile_in(folder.unwrap_or(Path::new(".")))
        .map_err(failed)?;
    let mut out = BufWriter::with_capacity(1 << 18, part);
    let counts = write(store, &mut out).await?.map_err(failed)?;
    let part = out.into_inner().map_err(|error| failed(error.into_error()))?;
    part.as_file().sync_all().map_err(failed)?;
    part.persist_noclobber(&path).map_err(|error| failed(error.error))?;
    if context.json() {
        return document(&json!({ "file": name, "written": counts }));
    }
    say(sentence(&printable(&name), counts))
}

/// Writes the lines; an error of the inner result is one of writing.
async fn write(store: Arc<dyn Store>, out: &mut impl Write) -> Result<io::Result<Counts>, Failure> {
    // Only for the bar: to count everything takes its time.
    let rows = match io::stderr().is_terminal() {
        true => store.aggregate(&AggregateQuery::default()).await?.rows,
        false => Vec::new(),
    };
    let records =
        rows.iter().map(|row| row.measures.uses.unwrap_or(0) + row.measures.executions()).sum();
    let progress = Progress::new(records);
    let mut export = Export::new(store);
    let written = loop {
        let Some(lines) = export.next().await? else { break Ok(export.counts()) };
        let write = lines.iter().try_for_each(|line| {
            serde_json::to_writer(&mut *out, line)?;
            out.write_all(b"\n")
        });
        if let Err(error) = write {
            break Err(error);
        }
        progress.at(export.counts().usages + export.counts().executions);
    };
    progress.finish();
    Ok(written)
}

/// What there was, in words.
pub(crate) fn sentence(what: &str, counts: Counts) -> String {
    let mut sentence = format!(
        "{what}: {}, {} with {}, {}, {}",
        count(counts.prices, "price"),
        count(counts.prompts, "prompt"),
        count(counts.versions, "version"),
        count(counts.usages, "usage"),
        count(counts.executions, "execution")
    );
    if counts.pruned > 0 {
        sentence.push_str(&format!(", {} of pruned records", count(counts.pruned, "sum")));
    }
    sentence
}
