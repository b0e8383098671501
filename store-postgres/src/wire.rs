//! How moments and ids travel: as the server keeps them, eight and sixteen bytes.
//! Invariant: a moment that no [`Timestamp`] can be, such as `infinity`, is an error, not a panic.

use prompt_engine_core::Timestamp;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef};
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{Decode, Encode, Postgres, Type};

/// 2000-01-01, from which the server counts microseconds.
const EPOCH: i64 = 946_684_800_000_000;

/// A `timestamptz`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment(pub(crate) Timestamp);

impl Type<Postgres> for Moment {
    fn type_info() -> PgTypeInfo {
        <DateTime<Utc> as Type<Postgres>>::type_info()
    }
}

impl PgHasArrayType for Moment {
    fn array_type_info() -> PgTypeInfo {
        <DateTime<Utc> as PgHasArrayType>::array_type_info()
    }
}

impl Encode<'_, Postgres> for Moment {
    fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buf.extend_from_slice(&(self.0.as_micros() - EPOCH).to_be_bytes());
        Ok(IsNull::No)
    }
}

impl Decode<'_, Postgres> for Moment {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        let micros = i64::from_be_bytes(value.as_bytes()?.try_into()?);
        let since_1970 = micros.checked_add(EPOCH).ok_or("a time is outside of all years")?;
        Ok(Self(Timestamp::from_micros(since_1970)?))
    }
}

/// An end of a stretch of time, in microseconds since 1970; the least and the largest number are the
/// server's infinities.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End(pub(crate) i64);

impl Type<Postgres> for End {
    fn type_info() -> PgTypeInfo {
        <Moment as Type<Postgres>>::type_info()
    }
}

impl Encode<'_, Postgres> for End {
    fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let open = matches!(self.0, i64::MIN | i64::MAX);
        let micros = if open { self.0 } else { self.0.saturating_sub(EPOCH) };
        buf.extend_from_slice(&micros.to_be_bytes());
        Ok(IsNull::No)
    }
}
