//! Telling listeners. Invariant: one that panics is reported, and harms neither the others nor
//! what it listens to.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Calls each listener, in order.
pub(crate) fn tell<L: ?Sized>(listeners: &[Arc<L>], event: &'static str, call: impl Fn(&L)) {
    for listener in listeners {
        // A listener that panicked may leave its own state half-done; ours is not shown to be changed.
        if catch_unwind(AssertUnwindSafe(|| call(listener))).is_err() {
            tracing::error!(event, "a listener panicked");
        }
    }
}
