//! `prices load`: the prices that came with the program, brought up to date.

use prompt_engine::{LoadedPrices, seed_sources};
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::{document, say};
use crate::table::{count, number};

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let engine = context.open_or_create().await?;
    let LoadedPrices { known, added, closed, replaced, renamed } = engine.prices().load().await?;
    let sources = seed_sources();
    if context.json() {
        let sources: Vec<_> =
            sources.iter().map(|of| json!({"name": of.name, "date": of.date})).collect();
        return document(&json!({
            "known": known, "added": added, "closed": closed, "replaced": replaced,
            "renamed": renamed, "sources": sources,
        }));
    }
    let from = sources.first().map_or(String::new(), |of| format!(" of {}, {}", of.name, of.date));
    say(format_args!("{}{from}.", count(known, "price")))?;
    if [added, closed, replaced, renamed] == [0; 4] {
        return say("All of them were there.");
    }
    let done = [(added, "added"), (closed, "closed"), (replaced, "replaced"), (renamed, "renamed")];
    let done = done.iter().filter(|(many, _)| *many > 0);
    let done: Vec<_> = done.map(|(many, what)| format!("{} {what}", number(*many))).collect();
    say(format_args!("{}.", done.join(", ")))
}
