//! `prices quote`: what a call would cost, one on the command line or many as JSON lines.
//! Invariant: every line is answered by one line, in order; a bad one stops nothing.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use prompt_engine::{
    CostConfigId, CostParts, Label, PriceBook, PriceRequest, Quote, Timestamp, TokenCounts,
    UnpricedReason, Usd, Zone, parse_moment,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{engine, say_source};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::document;
use crate::table::{count, facts, show};

/// The tier of a call that was made in a batch.
const BATCH: &str = "batch";

/// A call, or a file of calls.
#[derive(Debug, Args)]
pub(crate) struct QuoteArgs {
    /// The provider, as records name it.
    #[arg(long, value_name = "NAME", required_unless_present = "jsonl")]
    provider: Option<Label>,
    /// The model that is asked.
    #[arg(long, value_name = "NAME", required_unless_present = "jsonl")]
    model: Option<Label>,
    /// The model that answers, which is tried first.
    #[arg(long, value_name = "NAME")]
    response_model: Option<Label>,
    /// When it is sent: 2026-01-31, or 2026-01-31T10:00, or with Z or an offset; now, unless given.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// All input tokens, with those read from and written to a cache and those of audio.
    #[arg(long, value_name = "N", required_unless_present = "jsonl")]
    input_tokens: Option<u64>,
    /// All output tokens, with those of reasoning and audio.
    #[arg(long, value_name = "N", required_unless_present = "jsonl")]
    output_tokens: Option<u64>,
    /// Input tokens read from a cache.
    #[arg(long, value_name = "N", default_value_t = 0)]
    cache_read_tokens: u64,
    /// Input tokens written to a cache, with those that are kept for an hour.
    #[arg(long, value_name = "N", default_value_t = 0)]
    cache_write_tokens: u64,
    /// Input tokens written to a cache for an hour.
    #[arg(long, value_name = "N", default_value_t = 0)]
    cache_write_1h_tokens: u64,
    /// Input tokens of audio.
    #[arg(long, value_name = "N", default_value_t = 0)]
    audio_input_tokens: u64,
    /// Output tokens of audio.
    #[arg(long, value_name = "N", default_value_t = 0)]
    audio_output_tokens: u64,
    /// Output tokens of reasoning.
    #[arg(long, value_name = "N", default_value_t = 0)]
    reasoning_tokens: u64,
    /// The service tier that serves it: flex, priority; the standard one, unless given.
    #[arg(long, value_name = "NAME", conflicts_with = "batch")]
    service_tier: Option<Label>,
    /// It is made in a batch: the same as --service-tier batch.
    #[arg(long)]
    batch: bool,
    /// Calls as JSON lines instead; `-` is standard input.
    #[arg(long, value_name = "FILE", exclusive = true)]
    jsonl: Option<PathBuf>,
}

/// A call as a line says it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default)]
    id: Value,
    provider: Label,
    model: Label,
    #[serde(default)]
    response_model: Option<Label>,
    #[serde(default)]
    at: Option<String>,
    input_tokens: u64,
    output_tokens: u64,
    #[serde(default)]
    cache_read_tokens: Option<u64>,
    #[serde(default)]
    cache_write_tokens: Option<u64>,
    #[serde(default)]
    cache_write_1h_tokens: Option<u64>,
    #[serde(default)]
    audio_input_tokens: Option<u64>,
    #[serde(default)]
    audio_output_tokens: Option<u64>,
    #[serde(default)]
    reasoning_tokens: Option<u64>,
    #[serde(default)]
    service_tier: Option<Label>,
    #[serde(default)]
    batch: Option<bool>,
}

/// What a call costs. The names are a contract.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    id: Value,
    cost_usd: Option<Usd>,
    input_cost_usd: Option<Usd>,
    output_cost_usd: Option<Usd>,
    other_cost_usd: Option<Usd>,
    reason: Option<UnpricedReason>,
    model: Option<&'a Label>,
    config_id: Option<CostConfigId>,
}

impl<'a> Answer<'a> {
    fn new(id: Value, quote: Quote<'a>) -> Self {
        let part = |of: fn(CostParts) -> Usd| quote.parts.map(of);
        Self {
            id,
            cost_usd: quote.cost.usd(),
            input_cost_usd: part(|parts| parts.input),
            output_cost_usd: part(|parts| parts.output),
            other_cost_usd: part(|parts| parts.other),
            reason: quote.cost.reason(),
            model: quote.priced_model,
            config_id: quote.cost.config(),
        }
    }
}

/// Why a line has no answer.
#[derive(Debug, Serialize)]
struct Refused {
    id: Value,
    error: String,
}

pub(super) async fn run(args: &QuoteArgs, context: &Context) -> Result<(), Failure> {
    if let Some(file) = &args.jsonl {
        let lines = open(file)?;
        let book = book(context).await?;
        return answer_all(lines, &book);
    }
    let line = args.line();
    let call = Call::new(&line).map_err(Failure::usage)?;
    let book = book(context).await?;
    let quote = call.quote(&book);
    if context.json() {
        return document(&Answer::new(Value::Null, quote));
    }
    print(&line, call.at, quote)?;
    say_source(context);
    Ok(())
}

/// The prices of the store, and what came with the program where there is none.
async fn book(context: &Context) -> Result<std::sync::Arc<PriceBook>, Failure> {
    match engine(context).await? {
        Some(engine) => Ok(engine.price_book()),
        None => Ok(PriceBook::seed().into()),
    }
}

impl QuoteArgs {
    fn line(&self) -> Line {
        Line {
            id: Value::Null,
            provider: self.provider.clone().unwrap_or_else(|| Label::lossy("")),
            model: self.model.clone().unwrap_or_else(|| Label::lossy("")),
            response_model: self.response_model.clone(),
            at: self.at.clone(),
            input_tokens: self.input_tokens.unwrap_or(0),
            output_tokens: self.output_tokens.unwrap_or(0),
            cache_read_tokens: Some(self.cache_read_tokens),
            cache_write_tokens: Some(self.cache_write_tokens),
            cache_write_1h_tokens: Some(self.cache_write_1h_tokens),
            audio_input_tokens: Some(self.audio_input_tokens),
            audio_output_tokens: Some(self.audio_output_tokens),
            reasoning_tokens: Some(self.reasoning_tokens),
            service_tier: self.service_tier.clone(),
            batch: Some(self.batch),
        }
    }
}

/// A line that makes sense.
struct Call<'a> {
    line: &'a Line,
    at: Timestamp,
    tokens: prompt_engine::TokenUsage,
    service_tier: Option<&'a str>,
}

impl<'a> Call<'a> {
    fn new(line: &'a Line) -> Result<Self, String> {
        let at = match &line.at {
            Some(at) => parse_moment(at, Zone::UTC).map_err(|error| format!("at: {error}"))?,
            None => Timestamp::now(),
        };
        let counts = TokenCounts {
            input: line.input_tokens,
            output: line.output_tokens,
            cache_read: line.cache_read_tokens.unwrap_or(0),
            cache_write: line.cache_write_tokens.unwrap_or(0),
            cache_write_1h: line.cache_write_1h_tokens.unwrap_or(0),
            reasoning: line.reasoning_tokens.unwrap_or(0),
            audio_input: line.audio_input_tokens.unwrap_or(0),
            audio_output: line.audio_output_tokens.unwrap_or(0),
        };
        let tokens = counts.check().map_err(|error| error.to_string())?;
        let batch = line.batch.unwrap_or(false);
        let service_tier = if batch { Some(BATCH) } else { line.service_tier.as_deref() };
        Ok(Self { line, at, tokens, service_tier })
    }

    fn quote<'b>(&self, book: &'b PriceBook) -> Quote<'b> {
        book.price(&PriceRequest {
            provider: &self.line.provider,
            model: &self.line.model,
            response_model: self.line.response_model.as_deref(),
            at: self.at,
            tokens: Some(&self.tokens),
            service_tier: self.service_tier,
        })
    }
}

fn print(line: &Line, at: Timestamp, quote: Quote<'_>) -> Result<(), Failure> {
    let name = format!("{}/{}", line.provider, line.model);
    let mut known = Vec::new();
    match (quote.cost.usd(), quote.parts) {
        (Some(usd), Some(CostParts { input, output, other })) => {
            known.push(("Cost", format!("${usd}")));
            known.push(("Input", format!("${input}")));
            known.push(("Output", format!("${output}")));
            if other != Usd::ZERO {
                known.push(("Request", format!("${other}")));
            }
        }
        _ => {
            let why = match quote.cost.reason() {
                Some(UnpricedReason::UnknownModel) => format!("there is no price for {name}"),
                Some(UnpricedReason::MissingRate) => format!(
                    "the prices of {name} lack a rate for these tokens, this service tier or this time"
                ),
                Some(UnpricedReason::Overflow) => "it is more than 9.2 million dollars".to_owned(),
                Some(reason) => reason.to_string(),
                None => String::new(),
            };
            known.push(("Cost", format!("unknown: {why}")));
        }
    }
    if let Some(model) = quote.priced_model {
        known.push(("Priced as", model.to_string()));
    }
    known.push(("At", at.to_string()));
    if let Some(config) = quote.cost.config() {
        known.push(("Price", config.to_string()));
    }
    show(&facts(known))
}

/// Where calls come from.
type Lines = BufReader<Box<dyn Read>>;

fn open(file: &Path) -> Result<Lines, Failure> {
    let failed =
        |error: io::Error| Failure::failed(format!("cannot read {}: {error}", file.display()));
    if file.as_os_str() == "-" {
        return Ok(BufReader::new(Box::new(io::stdin())));
    }
    if file.is_dir() {
        return Err(failed(io::Error::other("it is a folder")));
    }
    Ok(BufReader::new(Box::new(File::open(file).map_err(failed)?)))
}

/// Longer lines are refused, so that a file without line ends cannot fill the memory.
const LONGEST: u64 = 1 << 20;

fn answer_all(mut lines: Lines, book: &PriceBook) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let (mut read, mut refused) = (0_u64, 0_u64);
    let mut line = Vec::new();
    let cannot_read = |error| Failure::failed(format!("cannot read the calls: {error}"));
    loop {
        line.clear();
        lines.by_ref().take(LONGEST).read_until(b'\n', &mut line).map_err(cannot_read)?;
        if line.is_empty() {
            break;
        }
        read += 1;
        let answer = if line.len() as u64 == LONGEST && !line.ends_with(b"\n") {
            lines.skip_until(b'\n').map_err(cannot_read)?;
            let error = format!("the line is longer than {LONGEST} bytes");
            Err(Refused { id: Value::Null, error })
        } else {
            quote_line(&line, book)
        };
        let written = match answer {
            Ok(answer) => serde_json::to_writer(&mut out, &answer),
            Err(error) => {
                refused += 1;
                serde_json::to_writer(&mut out, &error)
            }
        };
        written.map_err(io::Error::from)?;
        out.write_all(b"\n")?;
        // Who sends one call and waits gets its answer.
        if lines.buffer().is_empty() {
            out.flush()?;
        }
    }
    out.flush()?;
    drop(out);
    match refused {
        0 => Ok(()),
        _ => Err(Failure::failed(format!("{refused} of {} refused", count(read, "line")))),
    }
}

fn quote_line<'b>(line: &[u8], book: &'b PriceBook) -> Result<Answer<'b>, Refused> {
    let read: Line = serde_json::from_slice(line).map_err(|error| {
        // What is no call may still be an object with an id.
        let value: Option<Value> = serde_json::from_slice(line).ok();
        let id = value.and_then(|mut value| value.get_mut("id").map(Value::take));
        Refused { id: id.unwrap_or_default(), error: sentence(&error) }
    })?;
    let quote = Call::new(&read).map(|call| call.quote(book));
    match quote {
        Ok(quote) => Ok(Answer::new(read.id, quote)),
        Err(error) => Err(Refused { id: read.id, error }),
    }
}

/// The error without the place in the line, which is always the first.
fn sentence(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split_once(" at line ").map_or(text.clone(), |(what, _)| what.to_owned())
}
