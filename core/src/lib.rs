//! Core of PromptEngine: the domain, the store traits, and all that is computed from them.
//! No driver, no SQL, no HTTP: backends and model clients depend on this crate, never the reverse.

pub mod aggregate;
pub mod analytics;
mod attempts;
pub mod bytes;
mod chat;
#[cfg(feature = "zstd")]
pub mod codec;
#[cfg(feature = "conformance")]
pub mod conformance;
mod cost;
pub mod cube;
mod doctor;
mod engine;
pub mod error;
mod file_url;
pub mod histogram;
mod id;
mod label;
mod listeners;
mod llm;
mod memory;
mod model_rule;
mod money;
mod parameter;
mod price;
mod price_book;
mod price_history;
mod prompt;
mod pruned;
pub mod query;
mod rates;
mod record;
mod recorder;
mod redaction;
pub mod refusal;
mod retry;
mod seed;
mod slug;
mod status;
mod store;
mod template;
#[cfg(feature = "testkit")]
pub mod testkit;
mod time;
mod tokens;
pub mod transfer;

pub use attempts::Attempt;
pub use chat::{Answer, AnswerStream, Ask, Canceller, Chat, ChatError, ChatEvent, Tool, tool_fn};
pub use engine::{
    Activation, CostChange, Engine, EngineBuilder, Execute, ExecuteError, Executed,
    ExecutionHandle, ExecutionLog, ExecutionOutcome, ExecutionStream, Executor, Expired, KnownCost,
    LoadedPrices, NewPrompt, ObservabilityService, PlaygroundError, PlaygroundExecutor,
    PlaygroundResult, Prices, PromptUpdate, Prompts, PrunePreview, PruneProgress, RecordedCall,
    Render, RenderedPrompt, Reprice, Repriced, Retention, UsageHandle, UsageLog, VersionDraft,
};
pub use error::{Error, ErrorKind, Result};
pub use file_url::FileUrl;
pub use id::{CostConfigId, ExecutionId, PromptId, UsageId};
pub use label::Label;
pub use llm::{
    ChatReply, ChatRequest, ChatStream, Image, LlmClient, LlmError, Message, OutputSchema, Role,
    StreamEvent, ToolCall, ToolSpec,
};
pub use memory::MemoryStore;
pub use money::Usd;
pub use parameter::{Parameter, ParameterType, Rules, text_of};
pub use prompt::{Prompt, PromptStatus, PromptVersion};
pub use retry::RetryPolicy;
pub use slug::Slug;
pub use status::{ErrorCategory, Status};
pub use template::{Params, Template, detect_parameters, resolve};
pub use time::{Bucket, BucketCursor, BucketWidth, TimeRange, Timestamp, Zone, parse_moment};
pub use tokens::{TokenCounts, TokenUsage};

pub use aggregate::{
    Aggregate, AggregateQuery, AggregateRow, Detail, Dimension, GroupKey, Measures, Reading,
    Source, TokenSums,
};
pub use analytics::{Analytics, GroupBy, StatsQuery, TopBy};
pub use cost::{Cost, UnpricedReason};
pub use cube::Cube;
pub use doctor::{Checkup, Difference, Doctor};
pub use model_rule::ModelRule;
pub use price::{CostConfig, PriceLine, PriceOrigin};
pub use price_book::{CostParts, PriceBook, PriceRequest, Quote};
pub use pruned::{Durations, PrunedCalls, PrunedOf, PrunedSums};
pub use query::{Cursor, Filter, Order, Page, PageQuery, RecordQuery};
pub use rates::{DailyWindow, InputTier, Rates, TimeOfDay};
pub use record::{Attribution, ExecutionPayload, LlmExecution, Record, Usage, UsagePayload};
pub use recorder::{
    DropReason, Mode, Overload, Payloads, Recorded, Recorder, RecorderConfig, RecorderCounters,
    Reservation,
};
pub use redaction::Redaction;
pub use seed::{SeedModel, SeedSource, known_provider, seed_models, seed_prices, seed_sources};
pub use store::{
    Appended, CostRevision, CostStore, Folded, PastCost, PriceList, PromptStore, Prune, Pruned,
    Rebuild, Rebuilt, RecordStore, Restored, Revised, Store,
};
