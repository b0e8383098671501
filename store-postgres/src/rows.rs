//! Hot rows: how a record becomes columns and comes back. The one place that knows their order.

use prompt_engine_core::{
    Attribution, Cost, CostConfigId, ErrorCategory, ExecutionId, Label, LlmExecution, PromptId,
    Status, Timestamp, TokenCounts, TokenUsage, UnpricedReason, Usage, UsageId, Usd,
};
use sqlx::postgres::PgRow;
use sqlx::types::Uuid;
use sqlx::{Decode, Postgres, Row, Type};

use crate::error::{Fault, Outcome};
use crate::wire::Moment;

/// The columns of [`usage`], in order; the payload follows.
macro_rules! usage_columns {
    () => {
        "r.created_at, r.id, r.prompt, r.version, r.environment, r.session, r.user_id"
    };
}

/// The columns of [`execution`], in order; the payload follows.
macro_rules! execution_columns {
    () => {
        "r.created_at, r.id, r.prompt, r.version, r.environment, r.session, r.user_id, \
         r.usage_id, r.provider, r.model, r.response_model, r.priced_model, r.service_tier, \
         r.status, r.error_category, r.http_status, r.input, r.output, r.cache_read, \
         r.cache_write, r.cache_write_1h, r.reasoning, r.audio_input, r.audio_output, \
         r.cost_kind, r.cost_reason, r.cost_pico, r.cost_config, r.latency_ms, \
         r.time_to_first_token_ms, r.completed_at"
    };
}

pub(crate) use {execution_columns, usage_columns};

/// Where the payload stands behind [`usage_columns`] and [`execution_columns`].
pub(crate) const USAGE_PAYLOAD: usize = 7;
pub(crate) const EXECUTION_PAYLOAD: usize = 31;

/// Codes of `cost_kind`.
const PRICED: i16 = 0;
const REPORTED: i16 = 1;
const UNPRICED: i16 = 2;
const LOCAL_CACHE: i16 = 3;

/// The value of a column.
pub(crate) fn get<'r, T>(row: &'r PgRow, column: usize) -> Outcome<T>
where
    T: Decode<'r, Postgres> + Type<Postgres>,
{
    Ok(row.try_get(column)?)
}

/// The usage of a row of [`usage_columns`], without its payload.
pub(crate) fn usage(row: &PgRow) -> Outcome<Usage> {
    Ok(Usage {
        id: UsageId::from_bytes(id(row, 1)?),
        attribution: attribution(row, 2)?,
        created_at: moment(row, 0)?,
        payload: None,
    })
}

/// The execution of a row of [`execution_columns`], without its payload.
pub(crate) fn execution(row: &PgRow) -> Outcome<LlmExecution> {
    let http_status: Option<i32> = get(row, 15)?;
    Ok(LlmExecution {
        id: ExecutionId::from_bytes(id(row, 1)?),
        usage_id: UsageId::from_bytes(id(row, 7)?),
        attribution: attribution(row, 2)?,
        provider: label(row, 8)?,
        model: label(row, 9)?,
        response_model: maybe_label(row, 10)?,
        priced_model: maybe_label(row, 11)?,
        service_tier: maybe_label(row, 12)?,
        status: status(row, 13)?,
        error_category: category(row, 14)?,
        http_status: optional(http_status, |code| {
            u16::try_from(code).map_err(|_| Fault::Row(format!("{code} is no HTTP status")))
        })?,
        tokens: tokens(row, 16)?,
        cost: cost(row, 24)?,
        latency_ms: count(row, 28)?,
        time_to_first_token_ms: count(row, 29)?,
        created_at: moment(row, 0)?,
        completed_at: maybe_moment(row, 30)?,
        payload: None,
    })
}

/// The attribution in the five columns that start at `first`.
pub(crate) fn attribution(row: &PgRow, first: usize) -> Outcome<Attribution> {
    Ok(Attribution {
        prompt: PromptId::from_bytes(id(row, first)?),
        version: small(row, first + 1)?,
        environment: label(row, first + 2)?,
        session: maybe_label(row, first + 3)?,
        user: maybe_label(row, first + 4)?,
    })
}

/// The columns of a cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CostRow {
    pub(crate) kind: Option<i16>,
    pub(crate) reason: Option<i16>,
    pub(crate) pico: Option<i64>,
    pub(crate) config: Option<Uuid>,
}

impl CostRow {
    pub(crate) fn new(cost: Option<&Cost>) -> Self {
        let Some(cost) = cost else { return Self::default() };
        // What is beyond a row was refused when the record was validated.
        let pico = cost.usd().and_then(Usd::to_row);
        match cost {
            Cost::Priced { config, .. } => Self {
                kind: Some(PRICED),
                pico,
                config: Some(Uuid::from_bytes(config.to_bytes())),
                reason: None,
            },
            Cost::Reported { .. } => Self { kind: Some(REPORTED), pico, ..Self::default() },
            Cost::LocalCache => Self { kind: Some(LOCAL_CACHE), pico, ..Self::default() },
            Cost::Unpriced { reason } => {
                let reason = Some(reason.code().into());
                Self { kind: Some(UNPRICED), reason, ..Self::default() }
            }
        }
    }
}

/// The cost in the four columns that start at `first`: kind, reason, amount, price.
pub(crate) fn cost(row: &PgRow, first: usize) -> Outcome<Option<Cost>> {
    let (kind, pico): (Option<i16>, Option<i64>) = (get(row, first)?, get(row, first + 2)?);
    if let (Some(PRICED), Some(pico)) = (kind, pico) {
        let config: Uuid = get(row, first + 3)?;
        let config = CostConfigId::from_bytes(config.into_bytes());
        return Ok(Some(Cost::Priced { usd: usd(pico)?, config }));
    }
    amount(row, first)
}

/// The cost in the three columns that start at `first`, without the price that it came from, which
/// sums do not need.
pub(crate) fn amount(row: &PgRow, first: usize) -> Outcome<Option<Cost>> {
    let kind: Option<i16> = get(row, first)?;
    let pico: Option<i64> = get(row, first + 2)?;
    match (kind, pico) {
        (None, _) => Ok(None),
        (Some(PRICED | REPORTED), Some(pico)) => Ok(Some(Cost::Reported { usd: usd(pico)? })),
        (Some(LOCAL_CACHE), _) => Ok(Some(Cost::LocalCache)),
        (Some(UNPRICED), _) => {
            code(row, first + 1, "reason", UnpricedReason::from_code).map(|r| r.map(Cost::unpriced))
        }
        (Some(kind), _) => Err(Fault::Row(format!("{kind} is no kind of cost"))),
    }
}

fn usd(pico: i64) -> Outcome<Usd> {
    Usd::from_pico(pico.into()).ok_or_else(|| Fault::Row(format!("{pico} is no amount")))
}

/// The eight counts that start at column `first`.
pub(crate) fn tokens(row: &PgRow, first: usize) -> Outcome<Option<TokenUsage>> {
    let Some(input) = count(row, first)? else { return Ok(None) };
    let part = |at: usize| -> Outcome<u64> { Ok(count(row, first + at)?.unwrap_or(0)) };
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
pub(crate) fn count(row: &PgRow, column: usize) -> Outcome<Option<u64>> {
    Ok(get::<Option<i64>>(row, column)?.map(i64::cast_unsigned))
}

/// A number of 32 bits without sign.
pub(crate) fn small(row: &PgRow, column: usize) -> Outcome<u32> {
    maybe_small(row, column)?.ok_or_else(|| Fault::Row("a number is missing".to_owned()))
}

/// A number of 32 bits without sign, or none.
pub(crate) fn maybe_small(row: &PgRow, column: usize) -> Outcome<Option<u32>> {
    optional(get::<Option<i64>>(row, column)?, |number| {
        u32::try_from(number).map_err(|_| Fault::Row(format!("{number} is out of range")))
    })
}

pub(crate) fn id(row: &PgRow, column: usize) -> Outcome<[u8; 16]> {
    Ok(get::<Uuid>(row, column)?.into_bytes())
}

pub(crate) fn moment(row: &PgRow, column: usize) -> Outcome<Timestamp> {
    Ok(get::<Moment>(row, column)?.0)
}

pub(crate) fn maybe_moment(row: &PgRow, column: usize) -> Outcome<Option<Timestamp>> {
    Ok(get::<Option<Moment>>(row, column)?.map(|moment| moment.0))
}

pub(crate) fn status(row: &PgRow, column: usize) -> Outcome<Status> {
    code(row, column, "status", Status::from_code)?
        .ok_or_else(|| Fault::Row("a status is missing".to_owned()))
}

pub(crate) fn category(row: &PgRow, column: usize) -> Outcome<Option<ErrorCategory>> {
    code(row, column, "error category", ErrorCategory::from_code)
}

/// What a stored code stands for.
pub(crate) fn code<T>(
    row: &PgRow,
    column: usize,
    what: &'static str,
    of: fn(u8) -> Option<T>,
) -> Outcome<Option<T>> {
    optional(get::<Option<i16>>(row, column)?, |code| {
        let known = u8::try_from(code).ok().and_then(of);
        known.ok_or_else(|| Fault::Row(format!("{code} is no {what}")))
    })
}

pub(crate) fn label(row: &PgRow, column: usize) -> Outcome<Label> {
    maybe_label(row, column)?.ok_or_else(|| Fault::Row("a text is missing".to_owned()))
}

pub(crate) fn maybe_label(row: &PgRow, column: usize) -> Outcome<Option<Label>> {
    optional(get::<Option<&str>>(row, column)?, |text| {
        Label::new(text).map_err(|error| Fault::Row(error.to_string()))
    })
}

/// Applies a fallible `read` to a value that may be missing.
pub(crate) fn optional<T, U>(
    value: Option<T>,
    read: impl FnOnce(T) -> Outcome<U>,
) -> Outcome<Option<U>> {
    value.map(read).transpose()
}
