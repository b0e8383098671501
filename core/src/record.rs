//! What is recorded: a [`Usage`] for every render, an [`LlmExecution`] for every physical call.
//! Invariant: what queries filter and group by lives in the record itself; what is only read
//! back (texts, messages, metadata) lives in its payload, which may expire on its own. It is shared by
//! all copies of a record: that of the caller, that of the queue, and that of the writer.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cost::Cost;
use crate::error::{Error, Result};
use crate::id::{ExecutionId, PromptId, UsageId};
use crate::label::Label;
use crate::llm::{Message, ToolCall};
use crate::status::{ErrorCategory, Status};
use crate::time::Timestamp;
use crate::tokens::TokenUsage;

/// What a record counts for. A usage and all its executions carry the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attribution {
    /// The prompt that was rendered.
    pub prompt: PromptId,
    /// The number of its version.
    pub version: u32,
    /// `production`, `staging`, …
    pub environment: Label,
    /// The session it belongs to.
    pub session: Option<Label>,
    /// The user it was done for.
    pub user: Option<Label>,
}

/// One render of a prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Its identity.
    pub id: UsageId,
    /// What it counts for.
    pub attribution: Attribution,
    /// When it was rendered.
    pub created_at: Timestamp,
    /// What was rendered; `None` once it has expired, where it is not stored, and in lists.
    pub payload: Option<Arc<UsagePayload>>,
}

/// The texts of a [`Usage`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UsagePayload {
    /// The values that were filled in.
    pub parameters: Map<String, Value>,
    /// The rendered text.
    pub content: String,
    /// The rendered system message.
    pub system_message: Option<String>,
    /// Anything the caller added.
    pub metadata: Map<String, Value>,
}

/// One physical call to a model: a retry, a fallback and a tool turn are each their own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LlmExecution {
    /// Its identity.
    pub id: ExecutionId,
    /// The render it was made for.
    pub usage_id: UsageId,
    /// What it counts for: that of its usage.
    pub attribution: Attribution,
    /// `openai`, `anthropic`, …
    pub provider: Label,
    /// The model that was asked.
    pub model: Label,
    /// The model that answered, as the server names it.
    pub response_model: Option<Label>,
    /// The model whose price was taken.
    pub priced_model: Option<Label>,
    /// The service tier that served it, and until that is known the one that was asked for:
    /// `batch`, `flex`, `priority`. Prices depend on it.
    pub service_tier: Option<Label>,
    /// How it stands.
    pub status: Status,
    /// Why it failed.
    pub error_category: Option<ErrorCategory>,
    /// The HTTP status of the answer, where there was one, or that which an error inside of it names.
    pub http_status: Option<u16>,
    /// Its tokens; `None` where the provider reported none of the whole call, or none that make sense.
    pub tokens: Option<TokenUsage>,
    /// Its cost; `None` while it is pending.
    pub cost: Option<Cost>,
    /// From the request to the end of the answer, or to the failure, in milliseconds.
    pub latency_ms: Option<u64>,
    /// From the request to the first streamed token, in milliseconds.
    pub time_to_first_token_ms: Option<u64>,
    /// When the request was sent.
    pub created_at: Timestamp,
    /// When it finished.
    pub completed_at: Option<Timestamp>,
    /// What was said; `None` once it has expired, where it is not stored, and in lists.
    pub payload: Option<Arc<ExecutionPayload>>,
}

/// The texts of an [`LlmExecution`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecutionPayload {
    /// The messages that were sent.
    pub messages_sent: Arc<[Message]>,
    /// Temperature, maximum of tokens and whatever else was asked.
    pub settings: Map<String, Value>,
    /// The text of the answer, or as much of it as was seen.
    pub response_content: Option<String>,
    /// The tools that the model wants called.
    pub tool_calls: Vec<ToolCall>,
    /// Why the model stopped.
    pub finish_reason: Option<String>,
    /// What the failure said.
    pub error_message: Option<String>,
    /// Anything else of the answer, and what the caller added: `request_id`, and of a call that failed
    /// `error_code`, `retry_after_ms` and `usage_so_far`, the [`TokenCounts`](crate::TokenCounts) that the provider had
    /// told when the answer broke off, which are no count of the call.
    pub response_metadata: Map<String, Value>,
}

impl LlmExecution {
    /// A call that is about to be sent.
    pub fn pending(
        id: ExecutionId,
        usage_id: UsageId,
        attribution: Attribution,
        provider: Label,
        model: Label,
        created_at: Timestamp,
    ) -> Self {
        Self {
            id,
            usage_id,
            attribution,
            provider,
            model,
            response_model: None,
            priced_model: None,
            service_tier: None,
            status: Status::Pending,
            error_category: None,
            http_status: None,
            tokens: None,
            cost: None,
            latency_ms: None,
            time_to_first_token_ms: None,
            created_at,
            completed_at: None,
            payload: None,
        }
    }

    /// Checks what types cannot: a pending call has no end, cost, tokens or error; a finished one
    /// has an end and a cost; only a call that did not succeed has an error category.
    ///
    /// # Errors
    /// `Invalid`, naming the execution and the rule.
    pub fn validate(&self) -> Result<()> {
        let refuse = |what: &str| Err(Error::invalid(format!("execution {}: {what}", self.id)));
        if self.status == Status::Pending {
            if self.completed_at.is_some() || self.cost.is_some() || self.tokens.is_some() {
                return refuse("a pending call has no end, no cost and no tokens");
            }
        } else if self.completed_at.is_none() || self.cost.is_none() {
            return refuse("a finished call needs an end and a cost, if only an unpriced one");
        }
        if self.error_category.is_some() && matches!(self.status, Status::Pending | Status::Success)
        {
            return refuse("a call that did not fail has no error category");
        }
        if self.cost.and_then(|cost| cost.usd()).is_some_and(|usd| usd.to_row().is_none()) {
            return refuse("the cost is beyond 9.2 million dollars");
        }
        Ok(())
    }
}

/// One thing to append to a store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "most records are executions: a box would cost each")]
pub enum Record {
    /// A render.
    Usage(Usage),
    /// A call, pending or finished.
    Execution(LlmExecution),
}

impl Record {
    /// When it was rendered or sent: the moment at which it counts.
    pub fn created_at(&self) -> Timestamp {
        match self {
            Self::Usage(usage) => usage.created_at,
            Self::Execution(execution) => execution.created_at,
        }
    }

    /// Checks what types cannot: an execution by [`LlmExecution::validate`], and that no JSON of the
    /// payload is nested deeper than [`Record::MOST_NESTED`].
    ///
    /// # Errors
    /// `Invalid`, naming the record and the rule.
    pub fn validate(&self) -> Result<()> {
        let deep = match self {
            Self::Usage(usage) => usage.payload.as_ref().is_some_and(|payload| {
                let UsagePayload { parameters, content: _, system_message: _, metadata } =
                    &**payload;
                parameters.values().chain(metadata.values()).any(too_deep)
            }),
            Self::Execution(execution) => {
                execution.validate()?;
                execution.payload.as_ref().is_some_and(|payload| {
                    let (settings, metadata) = (&payload.settings, &payload.response_metadata);
                    settings.values().chain(metadata.values()).any(too_deep)
                })
            }
        };
        if deep {
            let (name, most) = (self.name(), Self::MOST_NESTED);
            return Err(Error::invalid(format!(
                "{name}: its JSON is nested deeper than {most} levels"
            )));
        }
        Ok(())
    }

    /// How deep a value of a payload may be nested: readers of JSON give up at 128 levels, of which
    /// the payload takes some.
    pub const MOST_NESTED: usize = 100;

    /// The record in words, for errors: `usage 0192…` or `execution 0192…`.
    pub fn name(&self) -> String {
        match self {
            Self::Usage(usage) => format!("usage {}", usage.id),
            Self::Execution(execution) => format!("execution {}", execution.id),
        }
    }
}

/// Whether a JSON value is nested deeper than [`Record::MOST_NESTED`].
pub(crate) fn too_deep(value: &Value) -> bool {
    fn within(value: &Value, levels: usize) -> bool {
        match value {
            Value::Array(items) => levels > 0 && items.iter().all(|v| within(v, levels - 1)),
            Value::Object(fields) => levels > 0 && fields.values().all(|v| within(v, levels - 1)),
            _ => true,
        }
    }
    !within(value, Record::MOST_NESTED)
}

impl From<Usage> for Record {
    fn from(usage: Usage) -> Self {
        Self::Usage(usage)
    }
}

impl From<LlmExecution> for Record {
    fn from(execution: LlmExecution) -> Self {
        Self::Execution(execution)
    }
}
