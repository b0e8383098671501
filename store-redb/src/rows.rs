//! Rows: how a record becomes bytes and comes back. The one place that knows their order, which
//! `docs/redb-format.md` describes.

use prompt_engine_core::bytes::{Reader, Writer};
use prompt_engine_core::{
    Attribution, Cost, ErrorCategory, ExecutionId, Label, LlmExecution, PastCost, Status,
    Timestamp, TokenCounts, TokenUsage, UnpricedReason, Usage, UsageId, Usd, refusal,
};

use crate::error::{Fault, Outcome};
use crate::layout::{Entry, RowKey, VERSION, moment, split};
use crate::terms::{Lookup, Term, TermWriter};

/// Codes of the kinds of a cost.
const PRICED: u8 = 0;
const REPORTED: u8 = 1;
const UNPRICED: u8 = 2;
const LOCAL_CACHE: u8 = 3;

/// The row of a usage.
pub(crate) fn write_usage(usage: &Usage, terms: &mut TermWriter<'_, '_>) -> Outcome<Vec<u8>> {
    let mut row = Writer::new(VERSION);
    write_attribution(&mut row, &usage.attribution, terms)?;
    Ok(row.finish())
}

/// The usage of a row, without its payload.
pub(crate) fn read_usage(row_key: RowKey, row: &[u8], terms: &impl Lookup) -> Outcome<Usage> {
    let (created_at, id) = split(row_key)?;
    let mut row = Reader::new(row, VERSION)?;
    let attribution = read_attribution(&mut row, terms)?;
    row.finish()?;
    Ok(Usage { id: UsageId::from_bytes(id), attribution, created_at, payload: None })
}

/// The row of an execution.
pub(crate) fn write_execution(
    execution: &LlmExecution,
    terms: &mut TermWriter<'_, '_>,
) -> Outcome<Vec<u8>> {
    let mut row = Writer::new(VERSION);
    row.id(execution.usage_id.to_bytes());
    write_attribution(&mut row, &execution.attribution, terms)?;
    row.number(terms.key(Term::Provider(execution.provider.clone()))?.into());
    row.number(terms.key(Term::Model(execution.model.clone()))?.into());
    write_model(&mut row, execution.response_model.as_ref(), terms)?;
    write_model(&mut row, execution.priced_model.as_ref(), terms)?;
    let tier = execution.service_tier.clone().map(|tier| terms.key(Term::ServiceTier(tier)));
    row.option(tier.transpose()?.map(u64::from), Writer::number);
    row.byte(execution.status.code());
    row.option(execution.error_category.map(ErrorCategory::code), Writer::byte);
    row.option(execution.http_status.map(u64::from), Writer::number);
    row.option(execution.tokens.as_deref(), |row, tokens| {
        tokens.to_array().into_iter().for_each(|count| row.number(count));
    });
    row.byte(execution.cost.is_some().into());
    if let Some(cost) = &execution.cost {
        write_cost(&mut row, cost, terms)?;
    }
    row.option(execution.latency_ms, Writer::number);
    row.option(execution.time_to_first_token_ms, Writer::number);
    row.option(execution.completed_at.map(Timestamp::as_micros), Writer::signed);
    Ok(row.finish())
}

/// The execution of a row, without its payload.
pub(crate) fn read_execution(
    row_key: RowKey,
    row: &[u8],
    terms: &impl Lookup,
) -> Outcome<LlmExecution> {
    let (created_at, id) = split(row_key)?;
    let mut row = Reader::new(row, VERSION)?;
    let usage_id = UsageId::from_bytes(row.id()?);
    let attribution = read_attribution(&mut row, terms)?;
    let provider = terms.label(row.small()?)?;
    let model = terms.label(row.small()?)?;
    let label = |row: &mut Reader<'_>| optional(row, |row| terms.label(row.small()?));
    let execution = LlmExecution {
        id: ExecutionId::from_bytes(id),
        usage_id,
        attribution,
        provider,
        model,
        response_model: label(&mut row)?,
        priced_model: label(&mut row)?,
        service_tier: label(&mut row)?,
        status: status(row.byte()?)?,
        error_category: optional(&mut row, |row| category(row.byte()?))?,
        http_status: optional(&mut row, |row| http_status(row.small()?))?,
        tokens: optional(&mut row, tokens)?,
        cost: optional(&mut row, |row| read_cost(row, terms))?,
        latency_ms: row.option(Reader::number)?,
        time_to_first_token_ms: row.option(Reader::number)?,
        created_at,
        completed_at: optional(&mut row, |row| moment(row.signed()?))?,
        payload: None,
    };
    row.finish()?;
    Ok(execution)
}

/// The row of a cost that an execution had until `replaced_at`.
pub(crate) fn write_past_cost(past: &PastCost, terms: &mut TermWriter<'_, '_>) -> Outcome<Vec<u8>> {
    let mut row = Writer::new(VERSION);
    row.signed(past.replaced_at.as_micros());
    write_cost(&mut row, &past.cost, terms)?;
    write_model(&mut row, past.priced_model.as_ref(), terms)?;
    Ok(row.finish())
}

pub(crate) fn read_past_cost(row: &[u8], terms: &impl Lookup) -> Outcome<PastCost> {
    let mut row = Reader::new(row, VERSION)?;
    let replaced_at = moment(row.signed()?)?;
    let cost = read_cost(&mut row, terms)?;
    let priced_model = optional(&mut row, |row| terms.label(row.small()?))?;
    row.finish()?;
    Ok(PastCost { cost, priced_model, replaced_at })
}

/// The index entries of a usage.
pub(crate) fn usage_entries<'a>(
    of: &'a Attribution,
    terms: &mut TermWriter<'_, '_>,
) -> Outcome<Vec<Entry<'a>>> {
    let mut entries = vec![Entry::Prompt(terms.key(Term::Prompt(of.prompt))?)];
    entries.extend(of.session.as_deref().map(Entry::Session));
    entries.extend(of.user.as_deref().map(Entry::User));
    Ok(entries)
}

/// The index entries of an execution.
pub(crate) fn execution_entries<'a>(
    execution: &'a LlmExecution,
    terms: &mut TermWriter<'_, '_>,
) -> Outcome<Vec<Entry<'a>>> {
    let mut entries = usage_entries(&execution.attribution, terms)?;
    entries.push(Entry::Model(terms.key(Term::Model(execution.model.clone()))?));
    entries.push(Entry::Usage(execution.usage_id.to_bytes()));
    entries.extend(status_entry(execution.status));
    Ok(entries)
}

/// The index entry of a status. A success has none: it is what most calls are.
pub(crate) fn status_entry(status: Status) -> Option<Entry<'static>> {
    (status != Status::Success).then(|| Entry::Status(status.code()))
}

fn write_attribution(
    row: &mut Writer,
    of: &Attribution,
    terms: &mut TermWriter<'_, '_>,
) -> Outcome<()> {
    row.number(terms.key(Term::Prompt(of.prompt))?.into());
    row.number(of.version.into());
    row.number(terms.key(Term::Environment(of.environment.clone()))?.into());
    row.option(of.session.as_deref(), Writer::text);
    row.option(of.user.as_deref(), Writer::text);
    Ok(())
}

fn read_attribution(row: &mut Reader<'_>, terms: &impl Lookup) -> Outcome<Attribution> {
    Ok(Attribution {
        prompt: terms.prompt(row.small()?)?,
        version: row.small()?,
        environment: terms.label(row.small()?)?,
        session: optional(row, label)?,
        user: optional(row, label)?,
    })
}

/// `x?`: what `read` makes of a value that may be missing.
fn optional<'a, T>(
    row: &mut Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Outcome<T>,
) -> Outcome<Option<T>> {
    row.option(|_| Ok(()))?.map(|()| read(row)).transpose()
}

fn label(row: &mut Reader<'_>) -> Outcome<Label> {
    Label::new(row.text()?).map_err(|error| Fault::Row(error.to_string()))
}

fn write_model(
    row: &mut Writer,
    model: Option<&Label>,
    terms: &mut TermWriter<'_, '_>,
) -> Outcome<()> {
    let key = model.map(|model| terms.key(Term::Model(model.clone()))).transpose()?;
    row.option(key.map(u64::from), Writer::number);
    Ok(())
}

fn write_cost(row: &mut Writer, cost: &Cost, terms: &mut TermWriter<'_, '_>) -> Outcome<()> {
    match cost {
        Cost::Priced { usd, config } => {
            row.byte(PRICED);
            row.signed(pico(*usd)?);
            row.number(terms.key(Term::Price(*config))?.into());
        }
        Cost::Reported { usd } => {
            row.byte(REPORTED);
            row.signed(pico(*usd)?);
        }
        Cost::Unpriced { reason } => {
            row.byte(UNPRICED);
            row.byte(reason.code());
        }
        Cost::LocalCache => row.byte(LOCAL_CACHE),
    }
    Ok(())
}

fn read_cost(row: &mut Reader<'_>, terms: &impl Lookup) -> Outcome<Cost> {
    Ok(match row.byte()? {
        PRICED => Cost::Priced { usd: usd(row.signed()?)?, config: terms.price(row.small()?)? },
        REPORTED => Cost::Reported { usd: usd(row.signed()?)? },
        UNPRICED => Cost::unpriced(reason(row.byte()?)?),
        LOCAL_CACHE => Cost::LocalCache,
        kind => return Err(Fault::Row(format!("{kind} is no kind of cost"))),
    })
}

fn pico(usd: Usd) -> Outcome<i64> {
    usd.to_row().ok_or_else(|| Fault::Judged(refusal::cost_too_large(usd)))
}

fn usd(pico: i64) -> Outcome<Usd> {
    Usd::from_pico(pico.into()).ok_or_else(|| Fault::Row(format!("{pico} is no amount")))
}

fn tokens(row: &mut Reader<'_>) -> Outcome<TokenUsage> {
    let counts = TokenCounts {
        input: row.number()?,
        output: row.number()?,
        cache_read: row.number()?,
        cache_write: row.number()?,
        cache_write_1h: row.number()?,
        reasoning: row.number()?,
        audio_input: row.number()?,
        audio_output: row.number()?,
    };
    counts.check().map_err(|error| Fault::Row(error.to_string()))
}

fn status(code: u8) -> Outcome<Status> {
    Status::from_code(code).ok_or_else(|| Fault::Row(format!("{code} is no status")))
}

fn category(code: u8) -> Outcome<ErrorCategory> {
    ErrorCategory::from_code(code).ok_or_else(|| Fault::Row(format!("{code} is no error category")))
}

fn reason(code: u8) -> Outcome<UnpricedReason> {
    UnpricedReason::from_code(code).ok_or_else(|| Fault::Row(format!("{code} is no reason")))
}

fn http_status(code: u32) -> Outcome<u16> {
    u16::try_from(code).map_err(|_| Fault::Row(format!("{code} is no HTTP status")))
}
