//! How a call ended ([`Status`]) and why it failed ([`ErrorCategory`]).
//! Codes and names are stored: they are added to, never changed.

macro_rules! named {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$vdoc:meta])* $variant:ident = $code:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant,)* }

        impl $name {
            /// Every value, in the order of [`Self::code`].
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name, as in JSON and on the command line.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The number that stores keep.
            pub const fn code(self) -> u8 {
                match self { $(Self::$variant => $code,)* }
            }

            /// The value of a stored number.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::Error;

            fn from_str(text: &str) -> $crate::Result<Self> {
                Self::ALL.iter().copied().find(|v| v.as_str() == text).ok_or_else(|| {
                    let known: Vec<_> = Self::ALL.iter().map(|v| v.as_str()).collect();
                    $crate::Error::invalid(format!(
                        concat!("{:?} is no ", $what, "; it is one of {}"), text, known.join(", ")
                    ))
                })
            }
        }
    };
}

pub(crate) use named;

named! {
    /// How a call to a model stands.
    Status, "status" {
        /// Sent, not yet answered.
        Pending = 0 "pending",
        /// Answered.
        Success = 1 "success",
        /// Failed.
        Error = 2 "error",
        /// Not answered in time.
        Timeout = 3 "timeout",
        /// Given up by the caller: finished, and neither success nor error.
        Cancelled = 4 "cancelled",
    }
}

impl Status {
    /// Whether the status never changes again.
    pub fn is_final(self) -> bool {
        self != Self::Pending
    }

    /// Whether the call failed: `error` or `timeout`.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Error | Self::Timeout)
    }
}

named! {
    /// Why a call failed; decided from the error's class and HTTP status where the call is made.
    ErrorCategory, "error category" {
        /// Too many requests or tokens in a time (429).
        RateLimit = 0 "rate_limit",
        /// The key is missing or wrong (401).
        Authentication = 1 "authentication",
        /// The key may not do this (403).
        Permission = 2 "permission",
        /// No credit left (402, or a quota that money would lift).
        Billing = 3 "billing",
        /// The input is longer than the model takes.
        ContextLength = 4 "context_length",
        /// The request is wrong in another way, the model unknown included (400, 404, 422).
        InvalidRequest = 5 "invalid_request",
        /// Refused for what it says.
        ContentFilter = 6 "content_filter",
        /// Not answered in time, on either side (408, 504).
        Timeout = 7 "timeout",
        /// No connection, or one that broke.
        Network = 8 "network",
        /// The provider has no capacity (503, 529).
        Overloaded = 9 "overloaded",
        /// The provider failed (500, 502), or answered what cannot be read.
        Server = 10 "server",
        /// Given up by the caller.
        Cancelled = 11 "cancelled",
        /// Anything else.
        Other = 12 "other",
    }
}
