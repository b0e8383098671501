//! `prices quote`: what a call would cost, one on the command line or many as JSON lines.
//! Invariant: every line is answered by one line, in order; a bad one stops nothing.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use prompt_engine::{
    CostConfigId, CostParts, Label, PriceBook, PriceRequest, Quote, Timestamp, TokenCounts,
    TokenUsage, UnpricedReason, Usd, Zone, parse_moment,
};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{engine, say_source};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::document;
use crate::table::{self, facts, show};

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
    #[arg(long, value_name = "NAME")]
    service_tier: Option<Label>,
    /// It is made in a batch, whatever tier is named: the same as --service-tier batch.
    #[arg(long)]
    batch: bool,
    /// Calls as JSON lines instead; `-` is standard input.
    #[arg(long, value_name = "FILE", exclusive = true)]
    jsonl: Option<PathBuf>,
}

/// A call as the command line or a line of a file says it.
#[derive(Debug)]
struct Line {
    provider: Label,
    model: Label,
    response_model: Option<Label>,
    at: Option<String>,
    counts: TokenCounts,
    service_tier: Option<Label>,
}

impl Line {
    /// Reads the fields of an object; each that is left over is refused, for a misspelt count would
    /// change the price unseen.
    fn read(mut fields: Map<String, Value>) -> Result<Self, String> {
        let fields = &mut fields;
        let line = Self {
            provider: label(fields, "provider")?.ok_or("provider is missing")?,
            model: label(fields, "model")?.ok_or("model is missing")?,
            response_model: label(fields, "response_model")?,
            at: text(fields, "at")?,
            counts: TokenCounts {
                input: count(fields, "input_tokens")?.ok_or("input_tokens is missing")?,
                output: count(fields, "output_tokens")?.ok_or("output_tokens is missing")?,
                cache_read: count(fields, "cache_read_tokens")?.unwrap_or(0),
                cache_write: count(fields, "cache_write_tokens")?.unwrap_or(0),
                cache_write_1h: count(fields, "cache_write_1h_tokens")?.unwrap_or(0),
                reasoning: count(fields, "reasoning_tokens")?.unwrap_or(0),
                audio_input: count(fields, "audio_input_tokens")?.unwrap_or(0),
                audio_output: count(fields, "audio_output_tokens")?.unwrap_or(0),
            },
            service_tier: {
                let tier = label(fields, "service_tier")?;
                match take(fields, "batch") {
                    None | Some(Value::Bool(false)) => tier,
                    Some(Value::Bool(true)) => Some(Label::lossy(BATCH)),
                    Some(other) => return Err(format!("batch must be true or false, not {other}")),
                }
            },
        };
        match fields.keys().next() {
            Some(name) => Err(format!("there is no field {name:?}")),
            None => Ok(line),
        }
    }
}

/// The field, unless it is null or not there.
fn take(fields: &mut Map<String, Value>, name: &str) -> Option<Value> {
    fields.remove(name).filter(|value| !value.is_null())
}

fn text(fields: &mut Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match take(fields, name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("{name} must be a text, not {other}")),
    }
}

fn label(fields: &mut Map<String, Value>, name: &str) -> Result<Option<Label>, String> {
    let label = text(fields, name)?.map(Label::new).transpose();
    label.map_err(|error| format!("{name}: {error}"))
}

fn count(fields: &mut Map<String, Value>, name: &str) -> Result<Option<u64>, String> {
    let Some(value) = take(fields, name) else { return Ok(None) };
    let count = value.as_u64().map(Some);
    count.ok_or_else(|| format!("{name} must be a whole number of tokens, not {value}"))
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
        let batch = self.batch.then(|| Label::lossy(BATCH));
        // Without --jsonl clap lets no call through that lacks one of these.
        let given = |name: &Option<Label>| name.clone().unwrap_or_else(|| Label::lossy(""));
        Line {
            provider: given(&self.provider),
            model: given(&self.model),
            response_model: self.response_model.clone(),
            at: self.at.clone(),
            counts: TokenCounts {
                input: self.input_tokens.unwrap_or(0),
                output: self.output_tokens.unwrap_or(0),
                cache_read: self.cache_read_tokens,
                cache_write: self.cache_write_tokens,
                cache_write_1h: self.cache_write_1h_tokens,
                reasoning: self.reasoning_tokens,
                audio_input: self.audio_input_tokens,
                audio_output: self.audio_output_tokens,
            },
            service_tier: batch.or_else(|| self.service_tier.clone()),
        }
    }
}

/// A line that makes sense.
struct Call<'a> {
    line: &'a Line,
    at: Timestamp,
    tokens: TokenUsage,
}

impl<'a> Call<'a> {
    fn new(line: &'a Line) -> Result<Self, String> {
        let at = match &line.at {
            Some(at) => parse_moment(at, Zone::UTC).map_err(|error| format!("at: {error}"))?,
            None => Timestamp::now(),
        };
        let tokens = line.counts.check().map_err(|error| error.to_string())?;
        Ok(Self { line, at, tokens })
    }

    fn quote<'b>(&self, book: &'b PriceBook) -> Quote<'b> {
        book.price(&PriceRequest {
            provider: &self.line.provider,
            model: &self.line.model,
            response_model: self.line.response_model.as_deref(),
            at: self.at,
            tokens: Some(&self.tokens),
            service_tier: self.line.service_tier.as_deref(),
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
        _ => Err(Failure::failed(format!("{refused} of {} refused", table::count(read, "line")))),
    }
}

fn quote_line<'b>(line: &[u8], book: &'b PriceBook) -> Result<Answer<'b>, Refused> {
    let no_object = |error: String| Refused { id: Value::Null, error };
    if line.trim_ascii().is_empty() {
        return Err(no_object("the line is empty".to_owned()));
    }
    let value: Value = serde_json::from_slice(line)
        .map_err(|error| no_object(format!("the line is no JSON: {}", sentence(&error))))?;
    let Value::Object(mut fields) = value else {
        return Err(no_object("the line is no JSON object".to_owned()));
    };
    let id = fields.remove("id").unwrap_or_default();
    let quote = Line::read(fields).and_then(|line| Call::new(&line).map(|call| call.quote(book)));
    match quote {
        Ok(quote) => Ok(Answer::new(id, quote)),
        Err(error) => Err(Refused { id, error }),
    }
}

/// The error without the number of the line, which is always the first.
fn sentence(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at column ")
}
