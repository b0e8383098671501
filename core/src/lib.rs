//! Core of PromptEngine: the domain, the store traits, and all that is computed from them.
//! No driver, no SQL, no HTTP: backends and model clients depend on this crate, never the reverse.

pub mod aggregate;
pub mod analytics;
#[cfg(feature = "zstd")]
pub mod codec;
#[cfg(feature = "conformance")]
pub mod conformance;
mod cost;
mod engine;
pub mod error;
pub mod histogram;
mod id;
mod label;
mod llm;
mod memory;
mod money;
mod parameter;
mod price;
mod price_book;
mod prompt;
pub mod query;
mod record;
mod recorder;
mod seed;
mod slug;
mod status;
mod store;
mod template;
mod time;
mod tokens;

pub use engine::{
    Activation, Engine, EngineBuilder, Execute, ExecuteError, Executed, ExecutionHandle,
    ExecutionLog, ExecutionOutcome, ExecutionStream, NewPrompt, ObservabilityService, Prices,
    PromptUpdate, Prompts, Render, RenderedPrompt, UsageHandle, UsageLog, VersionDraft,
};
pub use error::{Error, ErrorKind, Result};
pub use id::{CostConfigId, ExecutionId, PromptId, UsageId};
pub use label::Label;
pub use llm::{
    ChatReply, ChatRequest, ChatStream, LlmClient, LlmError, Message, Role, StreamEvent, ToolCall,
};
pub use memory::MemoryStore;
pub use money::Usd;
pub use parameter::{Parameter, ParameterType, Rules, text_of};
pub use prompt::{Prompt, PromptStatus, PromptVersion};
pub use slug::Slug;
pub use status::{ErrorCategory, Status};
pub use template::{Params, Template, detect_parameters, resolve};
pub use time::{Bucket, BucketCursor, BucketWidth, TimeRange, Timestamp, Zone, parse_moment};
pub use tokens::{TokenCounts, TokenUsage};

pub use aggregate::{AggregateQuery, AggregateRow, Dimension, GroupKey, Measures, TokenSums};
pub use analytics::{Analytics, GroupBy, StatsQuery, TopBy};
pub use cost::{Cost, UnpricedReason};
pub use price::{CostConfig, ModelRule, PriceOrigin, Rates};
pub use price_book::{PriceBook, PriceRequest, Quote};
pub use query::{Cursor, Filter, Page, PageQuery, RecordQuery};
pub use record::{Attribution, ExecutionPayload, LlmExecution, Record, Usage, UsagePayload};
pub use recorder::{
    DropReason, Mode, Overload, Recorded, Recorder, RecorderConfig, RecorderCounters, Reservation,
};
pub use seed::seed_prices;
pub use store::{
    Appended, CostRevision, CostStore, PriceList, PromptStore, Prune, Pruned, RecordStore, Revised,
    Store,
};
