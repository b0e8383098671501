//! What one call cost, or why nobody can say.
//! Invariant: "not known" is never 0; every priced amount names the price it came from.

use serde::{Deserialize, Serialize};

use crate::id::CostConfigId;
use crate::money::Usd;
use crate::status::named;

named! {
    /// Why a call has no price.
    UnpricedReason, "reason" {
        /// No price of this provider and model is known.
        UnknownModel = 0 "unknown_model",
        /// The model is known, but not what these tokens cost: its price names no rate for their
        /// kind, or there is none for the moment or for the service tier.
        MissingRate = 1 "missing_rate",
        /// No token counts of the whole call were reported.
        NoUsage = 2 "no_usage",
        /// The token counts contradict each other.
        InconsistentUsage = 3 "inconsistent_usage",
        /// The amount leaves the range of a stored row.
        Overflow = 4 "overflow",
    }
}

/// The cost of a finished call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cost {
    /// Computed from a price.
    Priced {
        /// US dollars.
        usd: Usd,
        /// The price it was computed with.
        config: CostConfigId,
    },
    /// Reported by the provider, which wins over any price.
    Reported {
        /// US dollars.
        usd: Usd,
    },
    /// Nothing, since the answer came from a cache of the caller's own and no provider was asked.
    LocalCache,
    /// Not known.
    Unpriced {
        /// Why.
        reason: UnpricedReason,
    },
}

impl Cost {
    /// A cost that is not known.
    pub const fn unpriced(reason: UnpricedReason) -> Self {
        Self::Unpriced { reason }
    }

    /// The amount, where it is known.
    pub fn usd(&self) -> Option<Usd> {
        match self {
            Self::Priced { usd, .. } | Self::Reported { usd } => Some(*usd),
            Self::LocalCache => Some(Usd::ZERO),
            Self::Unpriced { .. } => None,
        }
    }

    /// Why the amount is not known, where it is not.
    pub fn reason(&self) -> Option<UnpricedReason> {
        match self {
            Self::Unpriced { reason } => Some(*reason),
            Self::Priced { .. } | Self::Reported { .. } | Self::LocalCache => None,
        }
    }

    /// The price it was computed with, if it was.
    pub fn config(&self) -> Option<CostConfigId> {
        match self {
            Self::Priced { config, .. } => Some(*config),
            Self::Reported { .. } | Self::LocalCache | Self::Unpriced { .. } => None,
        }
    }

    /// What kind of cost it is, as in JSON: `priced`, `reported`, `local_cache` or `unpriced`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Priced { .. } => "priced",
            Self::Reported { .. } => "reported",
            Self::LocalCache => "local_cache",
            Self::Unpriced { .. } => "unpriced",
        }
    }
}
