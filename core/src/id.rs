//! Ids: one newtype per entity, so that a usage id cannot stand where an execution id belongs.
//! Ids are UUIDv7, made by the caller; a store writes what it is given.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Result};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id of this moment (UUIDv7).
            ///
            /// Its random bits are of a generator of the thread: a process that was forked, or a
            /// machine that was copied while it ran, may make the ids of the other in the same
            /// millisecond.
            #[allow(clippy::new_without_default, reason = "a default would hide that ids differ")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// An id from its 16 bytes, as stores keep it.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The 16 bytes of the id.
            pub const fn to_bytes(self) -> [u8; 16] {
                *self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                Uuid::try_parse(text).map(Self).map_err(|_| {
                    Error::invalid(format!(concat!("{:?} is no ", $what, " id (a UUID)"), text))
                })
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// Identifies a [`Prompt`](crate::Prompt).
    PromptId, "prompt"
);
id!(
    /// Identifies a [`Usage`](crate::Usage): one render.
    UsageId, "usage"
);
id!(
    /// Identifies an [`LlmExecution`](crate::LlmExecution): one physical call to a model.
    ExecutionId, "execution"
);
id!(
    /// Identifies a [`CostConfig`](crate::CostConfig).
    CostConfigId, "price"
);
