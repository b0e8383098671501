//! Statements made of fixed pieces, and the values for their parameters.
//! Invariant: a piece is `'static`; whatever a caller says is a bound value.

use prompt_engine_core::cube::Stretch;
use prompt_engine_core::{Filter, Order, PromptId, Status, TimeRange, Timestamp};
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::types::Uuid;
use sqlx::{Encode, Postgres, QueryBuilder, Type};

use crate::wire::{End, Moment};

/// A statement about the records `r`.
pub(crate) struct Sql(QueryBuilder<Postgres>);

impl Sql {
    pub(crate) fn new(start: &'static str) -> Self {
        Self(QueryBuilder::new(start))
    }

    pub(crate) fn push(&mut self, piece: &'static str) {
        self.0.push(piece);
    }

    /// `piece`, and behind it a value.
    pub(crate) fn and<'v, T>(&mut self, piece: &'static str, value: T)
    where
        T: Encode<'v, Postgres> + Type<Postgres>,
    {
        self.0.push(piece);
        self.0.push_bind(value);
    }

    pub(crate) fn range(&mut self, range: &TimeRange) {
        if let Some(from) = range.from {
            self.and(" AND r.created_at >= ", Moment(from));
        }
        if let Some(to) = range.to {
            self.and(" AND r.created_at < ", Moment(to));
        }
    }

    /// An open end is no condition, so that a statement of none has no parameters.
    pub(crate) fn stretch(&mut self, of: Stretch) {
        if of.from > i64::MIN {
            self.and(" AND r.created_at >= ", End(of.from));
        }
        if of.to < i64::MAX {
            self.and(" AND r.created_at < ", End(of.to));
        }
    }

    pub(crate) fn attribution(&mut self, filter: &Filter) {
        if let Some(prompt) = filter.prompt.map(PromptId::to_bytes) {
            self.and(" AND r.prompt = ", Uuid::from_bytes(prompt));
        }
        if let Some(version) = filter.version {
            self.and(" AND r.version = ", i64::from(version));
        }
        if let Some(environment) = &filter.environment {
            self.and(" AND r.environment = ", environment.as_str());
        }
        if let Some(session) = &filter.session {
            self.and(" AND r.session = ", session.as_str());
        }
        if let Some(user) = &filter.user {
            self.and(" AND r.user_id = ", user.as_str());
        }
    }

    pub(crate) fn execution(&mut self, filter: &Filter) {
        self.attribution(filter);
        if let Some(provider) = &filter.provider {
            self.and(" AND r.provider = ", provider.as_str());
        }
        if let Some(model) = &filter.model {
            self.and(" AND r.model = ", model.as_str());
        }
        if filter.statuses.is_empty() {
            return;
        }
        // The words of the partial indexes, so that they can be used.
        if filter.statuses.iter().all(|status| *status == Status::Pending) {
            self.push(" AND r.status = 0");
        } else if filter.statuses.iter().all(|status| status.is_failure()) {
            self.push(" AND r.status IN (2, 3)");
        }
        let codes: Vec<i16> = filter.statuses.iter().map(|status| status.code().into()).collect();
        self.and(" AND r.status = ANY (", codes);
        self.push(")");
    }

    pub(crate) fn ordered(
        &mut self,
        order: Order,
        after: Option<(Timestamp, [u8; 16])>,
        limit: u32,
    ) {
        let (behind, by) = match order {
            Order::NewestFirst => {
                (" AND (r.created_at, r.id) < (", " ORDER BY r.created_at DESC, r.id DESC LIMIT ")
            }
            Order::OldestFirst => {
                (" AND (r.created_at, r.id) > (", " ORDER BY r.created_at, r.id LIMIT ")
            }
        };
        if let Some((at, id)) = after {
            self.and(behind, Moment(at));
            self.and(", ", Uuid::from_bytes(id));
            self.push(")");
        }
        self.and(by, i64::from(limit) + 1);
    }

    pub(crate) fn query(&mut self) -> Query<'_, Postgres, PgArguments> {
        self.0.build()
    }
}
