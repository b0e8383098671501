//! What of a record's payload is stored: whether, redacted how, and how much of it.
//! Invariant: a payload is stored as the policy makes it or not at all, whatever a function of the
//! user's does; what queries filter, group and add up is never touched.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Map, Value};

use super::config::{Payloads, RecorderConfig};
use super::cut::{cut, shrink};
use super::texts::each_text;
use super::weight::bare_weight;
use crate::id::UsageId;
use crate::record::{ExecutionPayload, Record, UsagePayload};
use crate::redaction::{Redaction, redact_map};
use crate::status::Status;

/// The least bound of a payload that is heeded: room for the marks of what is cut.
const LEAST_PAYLOAD: usize = 1_024;

/// The key under which a record says why it has no payload.
const NOT_KEPT_KEY: &str = "not_kept";

#[derive(Debug)]
pub(super) struct Policy {
    redaction: Redaction,
    payloads: Payloads,
    failed_payloads: bool,
    max_payload_bytes: Option<usize>,
}

impl Policy {
    pub(super) fn new(config: &RecorderConfig) -> Self {
        Self {
            redaction: config.redaction.clone(),
            payloads: config.payloads,
            failed_payloads: config.failed_payloads,
            max_payload_bytes: config.max_payload_bytes.map(|bytes| bytes.max(LEAST_PAYLOAD)),
        }
    }

    /// Whether [`Policy::apply`] may take longer than a task should hold its thread.
    pub(super) fn is_slow(&self) -> bool {
        !self.redaction.is_empty()
    }

    /// Makes of `record` what is to be stored.
    pub(super) fn apply(&self, record: &mut Record) {
        if !self.keeps(record) {
            set_payload(record, None);
            return;
        }
        self.redact(record);
        // Cut last: half a secret is not known for one.
        if let Some(bytes) = self.max_payload_bytes {
            shrink(record);
            cut(record, bare_weight(record) + bytes);
        }
    }

    /// Takes secrets out of the payload; where that cannot be done, the payload.
    pub(super) fn redact(&self, record: &mut Record) {
        if self.redaction.is_empty() {
            return;
        }
        // Before anything walks it: JSON that is too deep to store may be too deep for the stack.
        if let Err(error) = record.validate() {
            set_payload(record, Some(error.to_string()));
            return;
        }
        let redacted = catch_unwind(AssertUnwindSafe(|| {
            each_text(record, redact_map, &mut |text| {
                if let Cow::Owned(clean) = self.redaction.apply(text) {
                    *text = clean;
                }
            });
        }));
        // What is half redacted then goes with the payload.
        if redacted.is_err() {
            // Not what the panic says: it may quote the text.
            tracing::error!(record = record.name(), "a redaction panicked: no payload is stored");
            set_payload(record, Some("the redaction panicked".to_owned()));
        }
    }

    /// `text` without its secrets; `None` where a function panicked.
    pub(super) fn redacted_text<'t>(&self, text: &'t str) -> Option<Cow<'t, str>> {
        let redacted = catch_unwind(AssertUnwindSafe(|| self.redaction.apply(text)));
        if redacted.is_err() {
            tracing::error!("a redaction panicked: the text is not shown");
        }
        redacted.ok()
    }

    fn keeps(&self, record: &Record) -> bool {
        match self.payloads {
            Payloads::All => return true,
            Payloads::MetricsOnly => {}
            Payloads::Sampled(share) => {
                let usage = match record {
                    Record::Usage(usage) => usage.id,
                    Record::Execution(execution) => execution.usage_id,
                };
                if lot_of(usage) < share {
                    return true;
                }
            }
        }
        let failed = matches!(
            record,
            Record::Execution(call) if matches!(call.status, Status::Error | Status::Timeout)
        );
        self.failed_payloads && failed
    }
}

/// A number of [0, 1) that follows from the id alone, evenly spread: the same on every machine and
/// in every release, so that a usage and its calls share their lot wherever they are recorded.
fn lot_of(id: UsageId) -> f64 {
    let id = u128::from_be_bytes(id.to_bytes());
    let mut hash = 0_u64;
    for half in [id >> 64, id & u128::from(u64::MAX)] {
        hash ^= u64::try_from(half).unwrap_or(0);
        // The finalizer of SplitMix64.
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^= hash >> 31;
    }
    f64::from(u32::try_from(hash >> 32).unwrap_or(0)) / (f64::from(u32::MAX) + 1.0)
}

/// Takes the payload, and says why where there is a reason.
fn set_payload(record: &mut Record, reason: Option<String>) {
    let marker = reason.map(|why| {
        Map::from_iter([(NOT_KEPT_KEY.to_owned(), Value::String(format!("[not kept: {why}]")))])
    });
    match record {
        Record::Usage(usage) => {
            usage.payload =
                marker.map(|metadata| UsagePayload { metadata, ..UsagePayload::default() }.into());
        }
        Record::Execution(execution) => {
            execution.payload = marker.map(|response_metadata| {
                ExecutionPayload { response_metadata, ..ExecutionPayload::default() }.into()
            });
        }
    }
}
