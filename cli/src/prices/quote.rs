//! `prices quote`: what a call would cost, one on the command line or many as JSON lines.
//! Invariant: every line is answered by one line, in order; a bad one stops nothing.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use prompt_engine::{
    CostConfigId, CostParts, Label, PriceBook, PriceRequest, Quote, Timestamp, TokenCounts,
    TokenUsage, UnpricedReason, Usd, Zone, parse_moment,
};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::{engine, say_source};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{document, excerpt};
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
    /// The model that answers: the asked one counts only where nothing is known of this.
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
    #[arg(long, value_name = "FILE", conflicts_with_all = ["provider", "model", "response_model",
        "at", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens",
        "cache_write_1h_tokens", "audio_input_tokens", "audio_output_tokens", "reasoning_tokens",
        "service_tier", "batch"])]
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
    fn read(mut fields: Fields<'_>) -> Result<Self, String> {
        let mut names = HashSet::new();
        if let Some((name, _)) = fields.0.iter().find(|(name, _)| !names.insert(name.as_str())) {
            return Err(format!("the field {:?} comes twice", excerpt(name, SHOWN)));
        }
        let fields = &mut fields;
        let line = Self {
            provider: fields.label("provider")?.ok_or("provider is missing")?,
            model: fields.label("model")?.ok_or("model is missing")?,
            response_model: fields.label("response_model")?,
            at: fields.text("at")?,
            counts: TokenCounts {
                input: fields.count("input_tokens")?.ok_or("input_tokens is missing")?,
                output: fields.count("output_tokens")?.ok_or("output_tokens is missing")?,
                cache_read: fields.count("cache_read_tokens")?.unwrap_or(0),
                cache_write: fields.count("cache_write_tokens")?.unwrap_or(0),
                cache_write_1h: fields.count("cache_write_1h_tokens")?.unwrap_or(0),
                reasoning: fields.count("reasoning_tokens")?.unwrap_or(0),
                audio_input: fields.count("audio_input_tokens")?.unwrap_or(0),
                audio_output: fields.count("audio_output_tokens")?.unwrap_or(0),
            },
            service_tier: {
                let tier = fields.label("service_tier")?;
                match fields.take("batch") {
                    None | Some("false") => tier,
                    Some("true") => Some(Label::lossy(BATCH)),
                    Some(other) => {
                        let other = excerpt(other, SHOWN);
                        return Err(format!("batch must be true or false, not {other}"));
                    }
                }
            },
        };
        match fields.0.first() {
            Some((name, _)) => Err(format!("there is no field {:?}", excerpt(name, SHOWN))),
            None => Ok(line),
        }
    }
}

/// Characters that are shown of what was refused.
const SHOWN: usize = 60;

/// The fields of an object as they are written: an id is answered as it came, and of a name that
/// comes twice nobody can say which was meant.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// The JSON of a field, unless it is null or not there.
    fn take(&mut self, name: &str) -> Option<&'a str> {
        let place = self.0.iter().position(|(known, _)| known == name)?;
        let (_, value) = self.0.remove(place);
        Some(value.get()).filter(|json| *json != "null")
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, String> {
        let Some(json) = self.take(name) else { return Ok(None) };
        let text = serde_json::from_str(json).map(Some);
        text.map_err(|_| format!("{name} must be a text, not {}", excerpt(json, SHOWN)))
    }

    fn label(&mut self, name: &str) -> Result<Option<Label>, String> {
        match self.text(name)? {
            Some(text) if text.is_empty() => Err(format!("{name} is empty")),
            text => text.map(Label::new).transpose().map_err(|error| format!("{name}: {error}")),
        }
    }

    fn count(&mut self, name: &str) -> Result<Option<u64>, String> {
        let Some(json) = self.take(name) else { return Ok(None) };
        json.parse().map(Some).map_err(|_| {
            format!("{name} must be a whole number of tokens, not {}", excerpt(json, SHOWN))
        })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields: Vec<(String, &'de RawValue)> = Vec::new();
                while let Some(field) = map.next_entry::<String, &'de RawValue>()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// What a call costs. The names are a contract.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    id: Option<&'a RawValue>,
    cost_usd: Option<Usd>,
    input_cost_usd: Option<Usd>,
    output_cost_usd: Option<Usd>,
    other_cost_usd: Option<Usd>,
    reason: Option<UnpricedReason>,
    model: Option<&'a Label>,
    config_id: Option<CostConfigId>,
}

impl<'a> Answer<'a> {
    fn new(id: Option<&'a RawValue>, quote: Quote<'a>) -> Self {
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
struct Refused<'a> {
    id: Option<&'a RawValue>,
    error: String,
}

pub(super) async fn run(args: &QuoteArgs, context: &Context) -> Result<(), Failure> {
    if let Some(file) = &args.jsonl {
        let lines = open(file)?;
        let book = book(context).await?;
        let done = answer_all(lines, &book);
        say_source(context).await?;
        return done;
    }
    let line = args.line();
    let call = Call::new(&line).map_err(Failure::usage)?;
    let book = book(context).await?;
    let quote = call.quote(&book);
    if context.json() {
        document(&Answer::new(None, quote))?;
    } else {
        print(&line, call.at, quote)?;
    }
    say_source(context).await?;
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
            Some(at) if at.len() > SHOWN => return Err("at is no time: it is too long".to_owned()),
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
        known.push((
            if quote.parts.is_some() { "Priced as" } else { "Known as" },
            model.to_string(),
        ));
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
        lines.by_ref().take(LONGEST + 1).read_until(b'\n', &mut line).map_err(cannot_read)?;
        if line.is_empty() {
            break;
        }
        read += 1;
        let answer = if line.len() as u64 > LONGEST && !line.ends_with(b"\n") {
            lines.skip_until(b'\n').map_err(cannot_read)?;
            Err(Refused { id: None, error: format!("the line is longer than {LONGEST} bytes") })
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

fn quote_line<'a>(line: &'a [u8], book: &'a PriceBook) -> Result<Answer<'a>, Refused<'a>> {
    let refuse = |error: String| Refused { id: None, error };
    // Some editors write the mark of UTF-8 before the first line.
    let line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line).trim_ascii();
    if line.is_empty() {
        return Err(refuse("the line is empty".to_owned()));
    }
    if !line.starts_with(b"{") {
        return Err(refuse("the line is not a JSON object".to_owned()));
    }
    let mut fields: Fields<'_> = serde_json::from_slice(line)
        .map_err(|error| refuse(format!("the line is not JSON: {}", sentence(&error))))?;
    let ids = fields.0.extract_if(.., |(name, _)| name == "id");
    let ids: Vec<&RawValue> = ids.map(|(_, id)| id).collect();
    let id = match ids.as_slice() {
        [] => None,
        [id] => Some(*id),
        _ => return Err(refuse("the field \"id\" comes twice".to_owned())),
    };
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
