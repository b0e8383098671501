//! Importing what `export` wrote: docs/export-format.md.
//! Invariant: what stands before a line that cannot be read is stored, and said.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use prompt_engine::transfer::{Import, Imported, Line};
use serde_json::json;

use crate::context::Context;
use crate::export::sentence;
use crate::failure::Failure;
use crate::output::{document, excerpt, note, printable, say};
use crate::progress::Progress;
use crate::table::{count, number};

/// How the first line starts, and that of no other file.
const START: &[u8] = b"{\"prompt_engine_export\":";

/// An export that is being read.
pub(super) struct OwnFile {
    name: String,
    bytes: u64,
    lines: Box<dyn BufRead>,
}

impl OwnFile {
    /// The file at `path`, if it is an export, or standard input for `-`.
    ///
    /// # Errors
    /// One sentence if it cannot be read.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, String> {
        if path == Path::new("-") {
            let lines = Box::new(BufReader::with_capacity(1 << 16, io::stdin()));
            return Ok(Some(Self { name: "standard input".to_owned(), bytes: 0, lines }));
        }
        let name = path.display().to_string();
        let failed = |error: io::Error| format!("cannot read {name}: {error}");
        let mut file = File::open(path).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        if meta.is_dir() {
            return Err(format!("cannot read {name}: it is a folder"));
        }
        let mut start = Vec::new();
        (&mut file).take(START.len() as u64).read_to_end(&mut start).map_err(failed)?;
        if start != START {
            return Ok(None);
        }
        let lines = BufReader::with_capacity(1 << 16, io::Cursor::new(start).chain(file));
        Ok(Some(Self { name, bytes: meta.len(), lines: Box::new(lines) }))
    }
}

impl OwnFile {
    /// Checks the first line, which stays to be read: no store is made for what cannot be imported.
    fn check_first_line(&mut self) -> Result<(), String> {
        let mut first = Vec::new();
        let name = &self.name;
        self.lines
            .read_until(b'\n', &mut first)
            .map_err(|error| format!("cannot read {name}: {error}"))?;
        let line: Result<Line, _> = serde_json::from_slice(&first);
        let line = line
            .map_err(|error| format!("line 1 of {name} is none of an export: {}", short(&error)))?;
        line.check_first().map_err(|error| format!("line 1 of {name}: {}", error.chain()))?;
        let rest = std::mem::replace(&mut self.lines, Box::new(io::empty()));
        self.lines = Box::new(io::Cursor::new(first).chain(rest));
        Ok(())
    }
}

pub(super) async fn run(mut file: OwnFile, context: &Context) -> Result<(), Failure> {
    file.check_first_line().map_err(Failure::failed)?;
    let mut import = Import::new(context.store_or_create().await?);
    let progress = Progress::new(file.bytes);
    let (mut line, mut number, mut read) = (Vec::new(), 0_u64, 0_u64);
    let refused = loop {
        line.clear();
        let bytes = match file.lines.read_until(b'\n', &mut line) {
            Ok(0) => break None,
            Ok(bytes) => u64::try_from(bytes).unwrap_or(0),
            Err(error) => break Some(format!("cannot read {}: {error}", file.name)),
        };
        (number, read) = (number + 1, read + bytes);
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let why = match serde_json::from_slice::<Line>(&line) {
            Ok(line) => import.push(line).await.err().map(|error| error.chain()),
            Err(error) if !line.ends_with(b"\n") && error.is_eof() => break None,
            Err(error) => Some(format!("it is no line of an export: {}", short(&error))),
        };
        if let Some(why) = why {
            break Some(format!("line {number} of {}: {why}", file.name));
        }
        progress.at(read);
    };
    progress.finish();
    let before = import.done();
    let done = match (import.finish().await, refused) {
        (Ok(done), None) => done,
        (Ok(done), Some(why)) => return Err(stopped(&why, &done)),
        (Err(_), Some(why)) => return Err(stopped(&why, &before)),
        (Err(error), None) => return Err(stopped(&error.chain(), &before)),
    };
    if context.json() {
        document(&json!({ "file": file.name, "imported": done }))?;
    } else {
        say(sentence(&printable(&file.name), done.read))?;
        say(news(&done))?;
    }
    for (left, what, why) in [
        (done.other_prices, "price", "left out: they would overlap with those of this store"),
        (done.other_costs, "cost", "left alone: they were changed in another way here"),
        (
            done.other_pruned,
            "sum",
            "of pruned records left out: what this store has of the same adds up to something else",
        ),
        (
            done.unpruned,
            "sum",
            "of pruned records left out: this store was not pruned up to then; once it is, import again",
        ),
        (
            done.before_horizon,
            "record",
            "left out: this store takes nothing from before its raw horizon",
        ),
    ] {
        if left > 0 {
            note(format_args!("{} {why}", count(left, what)));
        }
    }
    if done.complete {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "{} ends before its last line: it was cut short, and what it holds is stored",
        file.name
    )))
}

/// What was new, in words.
fn news(done: &Imported) -> String {
    let Imported { new_prices, new_prompts, new_pruned, new_records, new_costs, .. } = *done;
    if new_prices + new_prompts + new_pruned + new_records + new_costs == 0 {
        return "nothing of it is new".to_owned();
    }
    let mut news = format!(
        "stored: {}, {}, {}",
        count(new_prices, "price"),
        count(new_prompts, "prompt"),
        count(new_records, "record")
    );
    if new_pruned > 0 {
        news.push_str(&format!(", {} of pruned records", count(new_pruned, "sum")));
    }
    if new_costs > 0 {
        news.push_str(&format!("; {} costs followed", number(new_costs)));
    }
    news
}

fn stopped(why: &str, done: &Imported) -> Failure {
    Failure::failed(format!(
        "{why}; stored before: {}, {}, {}",
        count(done.new_prices, "price"),
        count(done.new_prompts, "prompt"),
        count(done.new_records, "record")
    ))
}

/// What is wrong with a line, and no more than the start of what it holds.
fn short(error: &serde_json::Error) -> String {
    excerpt(&error.to_string(), 160)
}
