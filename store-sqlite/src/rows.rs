//! Hot rows: how a record becomes columns and comes back. The one place that knows their order.

use prompt_engine_core::{
    Attribution, Cost, ErrorCategory, ExecutionId, Label, LlmExecution, Status, Timestamp,
    TokenCounts, TokenUsage, UnpricedReason, Usage, UsageId, Usd, refusal,
};
use rusqlite::Row;
use rusqlite::types::ValueRef;

use crate::error::{Fault, Outcome};
use crate::terms::{Kind, TermReader, TermWriter};

/// The columns of [`usage`], in order; `payload` follows where it is read.
macro_rules! usage_columns {
    () => {
        "created_at, id, prompt, version, environment, session, user"
    };
}

/// The columns of [`execution`], in order; `payload` follows where it is read.
macro_rules! execution_columns {
    () => {
        "created_at, id, prompt, version, environment, session, user, usage_id, provider, model, \
         response_model, priced_model, status, error_category, http_status, input, output, \
         cache_read, cache_write, cache_write_1h, reasoning, audio_input, audio_output, \
         cost_kind, cost_reason, cost_pico, cost_config, latency_ms, time_to_first_token_ms, \
         completed_at, service_tier"
    };
}

pub(crate) use {execution_columns, usage_columns};

/// Where `payload` stands behind [`usage_columns`] and [`execution_columns`].
pub(crate) const USAGE_PAYLOAD: usize = 7;
pub(crate) const EXECUTION_PAYLOAD: usize = 31;

/// Codes of `cost_kind`.
const PRICED: i64 = 0;
const REPORTED: i64 = 1;
const UNPRICED: i64 = 2;
const LOCAL_CACHE: i64 = 3;

/// The usage of a row of [`usage_columns`], without its payload.
pub(crate) fn usage(row: &Row<'_>, terms: &mut TermReader<'_>) -> Outcome<Usage> {
    Ok(Usage {
        id: UsageId::from_bytes(row.get(1)?),
        attribution: attribution(row, terms)?,
        created_at: moment(row.get(0)?)?,
        payload: None,
    })
}

/// The execution of a row of [`execution_columns`], without its payload.
pub(crate) fn execution(row: &Row<'_>, terms: &mut TermReader<'_>) -> Outcome<LlmExecution> {
    let config = row.get(26)?;
    Ok(LlmExecution {
        id: ExecutionId::from_bytes(row.get(1)?),
        usage_id: UsageId::from_bytes(row.get(7)?),
        attribution: attribution(row, terms)?,
        provider: terms.label(row.get(8)?)?,
        model: terms.label(row.get(9)?)?,
        response_model: optional(row.get(10)?, |key| terms.label(key))?,
        priced_model: optional(row.get(11)?, |key| terms.label(key))?,
        service_tier: optional(row.get(30)?, |key| terms.label(key))?,
        status: status(row.get(12)?)?,
        error_category: optional(row.get(13)?, category)?,
        http_status: row.get(14)?,
        tokens: tokens(row, 15)?,
        cost: cost(row.get(23)?, row.get(24)?, row.get(25)?, config, terms)?,
        latency_ms: count(row.get(27)?),
        time_to_first_token_ms: count(row.get(28)?),
        created_at: moment(row.get(0)?)?,
        completed_at: optional(row.get(29)?, moment)?,
        payload: None,
    })
}

fn attribution(row: &Row<'_>, terms: &mut TermReader<'_>) -> Outcome<Attribution> {
    Ok(Attribution {
        prompt: terms.prompt(row.get(2)?)?,
        version: row.get(3)?,
        environment: terms.label(row.get(4)?)?,
        session: text(row.get_ref(5)?)?,
        user: text(row.get_ref(6)?)?,
    })
}

/// The columns of an attribution, as they are written and compared.
#[derive(Debug, PartialEq)]
pub(crate) struct AttributionRow<'a> {
    pub(crate) prompt: i64,
    pub(crate) version: u32,
    pub(crate) environment: i64,
    pub(crate) session: Option<&'a str>,
    pub(crate) user: Option<&'a str>,
}

impl<'a> AttributionRow<'a> {
    pub(crate) fn new(of: &'a Attribution, terms: &mut TermWriter<'_>) -> Outcome<Self> {
        Ok(Self {
            prompt: terms.prompt(of.prompt)?,
            version: of.version,
            environment: terms.label(Kind::Environment, &of.environment)?,
            session: of.session.as_deref(),
            user: of.user.as_deref(),
        })
    }

    /// Reads the five columns that start at `first`.
    pub(crate) fn read(row: &'a Row<'_>, first: usize) -> rusqlite::Result<Self> {
        Ok(Self {
            prompt: row.get(first)?,
            version: row.get(first + 1)?,
            environment: row.get(first + 2)?,
            session: row.get_ref(first + 3)?.as_str_or_null()?,
            user: row.get_ref(first + 4)?.as_str_or_null()?,
        })
    }
}

/// The columns of a cost.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct CostRow {
    pub(crate) kind: Option<i64>,
    pub(crate) reason: Option<i64>,
    pub(crate) pico: Option<i64>,
    pub(crate) config: Option<i64>,
}

impl CostRow {
    pub(crate) fn new(cost: Option<&Cost>, terms: &mut TermWriter<'_>) -> Outcome<Self> {
        let Some(cost) = cost else { return Ok(Self::default()) };
        let pico = |usd: &Usd| {
            usd.to_row().map(Some).ok_or_else(|| Fault::Judged(refusal::cost_too_large(*usd)))
        };
        Ok(match cost {
            Cost::Priced { usd, config } => Self {
                kind: Some(PRICED),
                pico: pico(usd)?,
                config: Some(terms.price(*config)?),
                reason: None,
            },
            Cost::Reported { usd } => {
                Self { kind: Some(REPORTED), pico: pico(usd)?, ..Self::default() }
            }
            Cost::LocalCache => Self { kind: Some(LOCAL_CACHE), pico: Some(0), ..Self::default() },
            Cost::Unpriced { reason } => {
                Self { kind: Some(UNPRICED), reason: Some(reason.code().into()), ..Self::default() }
            }
        })
    }
}

/// The cost of its columns.
pub(crate) fn cost(
    kind: Option<i64>,
    reason: Option<u8>,
    pico: Option<i64>,
    config: Option<i64>,
    terms: &mut TermReader<'_>,
) -> Outcome<Option<Cost>> {
    Ok(match (kind, pico, config) {
        (Some(PRICED), Some(pico), Some(config)) => {
            Some(Cost::Priced { usd: usd(pico)?, config: terms.price(config)? })
        }
        _ => amount(kind, reason, pico)?,
    })
}

/// The cost without the price that it came from, which sums do not need.
pub(crate) fn amount(
    kind: Option<i64>,
    reason: Option<u8>,
    pico: Option<i64>,
) -> Outcome<Option<Cost>> {
    match (kind, pico) {
        (None, _) => Ok(None),
        (Some(PRICED | REPORTED), Some(pico)) => Ok(Some(Cost::Reported { usd: usd(pico)? })),
        (Some(LOCAL_CACHE), _) => Ok(Some(Cost::LocalCache)),
        (Some(UNPRICED), _) => reason
            .and_then(UnpricedReason::from_code)
            .map(|reason| Some(Cost::unpriced(reason)))
            .ok_or_else(|| Fault::Row(format!("{reason:?} is no reason"))),
        (Some(kind), _) => Err(Fault::Row(format!("{kind} is no kind of cost"))),
    }
}

fn usd(pico: i64) -> Outcome<Usd> {
    Usd::from_pico(pico.into()).ok_or_else(|| Fault::Row(format!("{pico} is no amount")))
}

/// The eight counts that start at column `first`.
pub(crate) fn tokens(row: &Row<'_>, first: usize) -> Outcome<Option<TokenUsage>> {
    let Some(input) = count(row.get(first)?) else { return Ok(None) };
    let part = |at: usize| -> Outcome<u64> { Ok(count(row.get(first + at)?).unwrap_or(0)) };
    let counts = TokenCounts {
        input,
        output: part(1)?,
        cache_read: part(2)?,
        cache_write: part(3)?,
        cache_write_1h: part(4)?,
        reasoning: part(5)?,
        audio_input: part(6)?,
        audio_output: part(7)?,
    };
    counts.check().map(Some).map_err(|error| Fault::Row(error.to_string()))
}

/// A stored count: its 64 bits.
pub(crate) fn count(stored: Option<i64>) -> Option<u64> {
    stored.map(i64::cast_unsigned)
}

pub(crate) fn moment(micros: i64) -> Outcome<Timestamp> {
    Timestamp::from_micros(micros).map_err(|error| Fault::Row(error.to_string()))
}

pub(crate) fn status(code: u8) -> Outcome<Status> {
    Status::from_code(code).ok_or_else(|| Fault::Row(format!("{code} is no status")))
}

pub(crate) fn category(code: u8) -> Outcome<ErrorCategory> {
    ErrorCategory::from_code(code).ok_or_else(|| Fault::Row(format!("{code} is no error category")))
}

/// A stored label.
pub(crate) fn text(value: ValueRef<'_>) -> Outcome<Option<Label>> {
    let text = value.as_str_or_null().map_err(|error| Fault::Row(error.to_string()))?;
    optional(text, |text| Label::new(text).map_err(|error| Fault::Row(error.to_string())))
}

/// Applies a fallible `read` to a value that may be missing.
pub(crate) fn optional<T, U>(
    value: Option<T>,
    read: impl FnOnce(T) -> Outcome<U>,
) -> Outcome<Option<U>> {
    value.map(read).transpose()
}
