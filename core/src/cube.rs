//! Cubes: measures that are kept pre-added for stretches of time and sets of dimensions, so that an
//! answer costs stretches and not calls. Which there are, and what a query can be answered from.

use crate::aggregate::{AggregateQuery, Dimension, Source};
use crate::status::named;

named! {
    /// A set of dimensions that measures are kept for.
    Cube, "cube" {
        /// By environment.
        Totals = 0 "totals",
        /// By environment, prompt and version.
        Prompts = 1 "prompts",
        /// By environment, provider and model: executions alone, a use has neither.
        Models = 2 "models",
        /// By all five: executions alone.
        Calls = 3 "calls",
    }
}

impl Cube {
    /// The smallest cube that has what `query` filters and groups by; `None` where none has.
    pub fn covering(query: &AggregateQuery) -> Option<Self> {
        let filter = &query.filter;
        let has = |dimension: Dimension| query.group_by.contains(&dimension);
        let beyond =
            filter.session.is_some() || filter.user.is_some() || !filter.statuses.is_empty();
        if query.source == Source::Records
            || beyond
            || has(Dimension::Session)
            || has(Dimension::User)
        {
            return None;
        }
        let prompts = filter.prompt.is_some()
            || filter.version.is_some()
            || has(Dimension::Prompt)
            || has(Dimension::Version);
        let models = filter.provider.is_some()
            || filter.model.is_some()
            || has(Dimension::Provider)
            || has(Dimension::Model);
        Some(match (prompts, models) {
            (false, false) => Self::Totals,
            (true, false) => Self::Prompts,
            (false, true) => Self::Models,
            (true, true) => Self::Calls,
        })
    }

    /// Whether it counts uses.
    pub(crate) fn has_uses(self) -> bool {
        matches!(self, Self::Totals | Self::Prompts)
    }
}
