//! Factories for tests: one of everything, ready to be changed by hand, and a model client that
//! says what a test tells it to. Not for production: they panic where a test wrote something wrong.
//! Invariant: moments are fixed, and what has an id has a new one each time.
//!
//! # Example: what a call cost, without a provider
//! ```
//! use std::sync::Arc;
//! use prompt_engine_core::testkit::{self, Act, Scripted};
//! use prompt_engine_core::{Engine, MemoryStore, StatsQuery, params};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let engine = Engine::builder().build(Arc::new(MemoryStore::new())).await?;
//! let (prompt, version) = testkit::prompt("greet");
//! engine.store().insert_prompt(&prompt, &[version]).await?;
//!
//! let client = Scripted::new([Act::Reply(testkit::reply("Hello!"))]);
//! let rendered = engine.render("greet", params! { "name" => "Ada", "item_count" => 3 }).await?;
//! let done = rendered.execute_with(&client).await.unwrap();
//! assert_eq!(done.execution.cost.unwrap().usd().unwrap().to_string(), "0.003");
//! # Ok::<(), prompt_engine_core::Error>(())
//! # }).unwrap();
//! ```
#![allow(clippy::unwrap_used, reason = "what a test wrote wrong should be loud")]

mod scripted;

use std::sync::Arc;
use std::time::Duration;

use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use crate::cost::Cost;
use crate::id::{CostConfigId, ExecutionId, PromptId, UsageId};
use crate::label::Label;
use crate::llm::{ChatReply, ChatRequest, Message};
use crate::money::Usd;
use crate::parameter::Parameter;
use crate::price::CostConfig;
use crate::prompt::{Prompt, PromptStatus, PromptVersion};
use crate::rates::Rates;
use crate::record::{Attribution, ExecutionPayload, LlmExecution, Usage, UsagePayload};
use crate::status::{ErrorCategory, Status};
use crate::store::PastCost;
use crate::time::Timestamp;
use crate::tokens::{TokenCounts, TokenUsage};

pub use scripted::{Act, Scripted};

/// The moment that [`at`] counts from: 2026-03-28T00:00:00Z, a day before Berlin springs forward.
pub const START: i64 = 1_774_656_000_000_000;

/// `micros` microseconds after [`START`].
pub fn at_micros(micros: i64) -> Timestamp {
    Timestamp::from_micros(START + micros).unwrap()
}

/// `seconds` after [`START`].
pub fn at(seconds: i64) -> Timestamp {
    at_micros(seconds * 1_000_000)
}

/// The label `text`.
pub fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

/// A map of one text.
pub fn map(key: &str, value: impl Into<Value>) -> Map<String, Value> {
    Map::from_iter([(key.to_owned(), value.into())])
}

/// An amount of pico-dollars.
pub fn pico(pico: i128) -> Usd {
    Usd::from_pico(pico).unwrap()
}

/// A cost that the provider reported.
pub fn reported(amount: i128) -> Cost {
    Cost::Reported { usd: pico(amount) }
}

/// What a record of a prompt counts for, in production, without session and user.
pub fn attribution(prompt: PromptId) -> Attribution {
    Attribution { prompt, version: 1, environment: label("production"), session: None, user: None }
}

/// A usage of a new prompt, with a payload.
pub fn usage(created_at: Timestamp) -> Usage {
    Usage {
        id: UsageId::new(),
        attribution: attribution(PromptId::new()),
        created_at,
        payload: Some(Arc::new(UsagePayload {
            parameters: map("name", "John"),
            content: "Hello John".to_owned(),
            system_message: Some("Be brief".to_owned()),
            metadata: map("source", "api"),
        })),
    }
}

/// A pending execution of `usage`, with a payload.
pub fn pending(usage: &Usage, created_at: Timestamp) -> LlmExecution {
    let (provider, model) = (label("openai"), label("gpt-4o"));
    let attribution = usage.attribution.clone();
    let id = ExecutionId::new();
    LlmExecution {
        payload: Some(Arc::new(ExecutionPayload {
            messages_sent: [Message::user("Hello John")].into(),
            settings: map("temperature", 0.2),
            ..ExecutionPayload::default()
        })),
        ..LlmExecution::pending(id, usage.id, attribution, provider, model, created_at)
    }
}

/// `execution`, answered after 300 milliseconds.
pub fn finished(execution: &LlmExecution) -> LlmExecution {
    let mut payload = execution.payload.as_deref().cloned().unwrap_or_default();
    payload.response_content = Some("Hi".to_owned());
    payload.finish_reason = Some("stop".to_owned());
    LlmExecution {
        response_model: Some(label("gpt-4o-2024-08-06")),
        priced_model: Some(label("gpt-4o")),
        status: Status::Success,
        http_status: Some(200),
        tokens: Some(tokens()),
        cost: Some(Cost::Priced { usd: pico(1_234_567), config: CostConfigId::new() }),
        latency_ms: Some(300),
        time_to_first_token_ms: Some(40),
        completed_at: Some(execution.created_at.saturating_add(Duration::from_millis(300))),
        payload: Some(payload.into()),
        ..execution.clone()
    }
}

/// `execution`, refused with 429 after 300 milliseconds.
pub fn failed(execution: &LlmExecution) -> LlmExecution {
    let mut payload = execution.payload.as_deref().cloned().unwrap_or_default();
    payload.error_message = Some("too many requests".to_owned());
    LlmExecution {
        status: Status::Error,
        error_category: Some(ErrorCategory::RateLimit),
        http_status: Some(429),
        cost: Some(Cost::unpriced(crate::cost::UnpricedReason::NoUsage)),
        latency_ms: Some(300),
        completed_at: Some(execution.created_at.saturating_add(Duration::from_millis(300))),
        payload: Some(payload.into()),
        ..execution.clone()
    }
}

/// 100 tokens in, 40 of them cached, and 20 out.
pub fn tokens() -> TokenUsage {
    let counts = TokenCounts { input: 100, output: 20, cache_read: 40, ..TokenCounts::default() };
    counts.check().unwrap()
}

/// A cost that an execution had before, replaced at [`START`].
pub fn past_cost() -> PastCost {
    PastCost { cost: reported(1), priced_model: Some(label("gpt-4o")), replaced_at: at(0) }
}

/// A required text parameter.
pub fn parameter(name: &str) -> Parameter {
    Parameter { kind: crate::parameter::ParameterType::String, ..Parameter::infer(name, 0) }
}

/// A request of one message to `gpt-4o`.
pub fn request(text: &str) -> ChatRequest {
    ChatRequest::new("gpt-4o", vec![Message::user(text)])
}

/// A reply of 1,000 tokens in, 400 of them cached, and 100 out: 0.003 dollars at gpt-4o.
pub fn reply(text: &str) -> ChatReply {
    ChatReply {
        content: Some(text.to_owned()),
        finish_reason: Some("stop".to_owned()),
        model: Some("gpt-4o-2024-08-06".to_owned()),
        tokens: Some(TokenCounts {
            input: 1_000,
            cache_read: 400,
            output: 100,
            ..TokenCounts::default()
        }),
        http_status: Some(200),
        ..ChatReply::default()
    }
}

/// A usage and its finished execution.
pub fn call(created_at: Timestamp) -> (Usage, LlmExecution) {
    let usage = usage(created_at);
    let execution = finished(&pending(&usage, created_at));
    (usage, execution)
}

/// A prompt of `slug`, revision 1, with its first version.
pub fn prompt(slug: &str) -> (Prompt, PromptVersion) {
    let prompt = Prompt {
        id: PromptId::new(),
        slug: slug.parse().unwrap(),
        name: format!("The prompt {slug}"),
        description: Some("What it is for".to_owned()),
        status: PromptStatus::Active,
        parameters: vec![Parameter::infer("name", 0), Parameter::infer("item_count", 1)],
        active_version: Some(1),
        latest_version: 1,
        revision: 1,
        created_at: at(0),
        updated_at: at(0),
    };
    let version = version(&prompt, 1);
    (prompt, version)
}

/// The version `number` of `prompt`.
pub fn version(prompt: &Prompt, number: u32) -> PromptVersion {
    PromptVersion {
        prompt_id: prompt.id,
        number,
        content: format!("Hello {{{{name}}}}, version {number}"),
        system_message: Some("Be brief".to_owned()),
        model: Some(label("gpt-4o")),
        temperature: Some(0.1 + 0.2),
        max_tokens: Some(u32::MAX),
        metadata: json!({"tags": ["a", "b"], "weight": 0.1, "nothing": null}),
        change_description: Some("Better".to_owned()),
        author: Some("Jane".to_owned()),
        created_at: at(i64::from(number)),
    }
}

/// `prompt` as its next revision, with `number` as its latest and active version.
pub fn next(prompt: &Prompt, number: u32) -> Prompt {
    Prompt {
        active_version: Some(number),
        latest_version: number,
        revision: prompt.revision + 1,
        updated_at: at(i64::from(number)),
        ..prompt.clone()
    }
}

/// A user's price of a model, open at both ends.
pub fn price(model: &str) -> CostConfig {
    CostConfig {
        rates: Rates {
            input: Some(Decimal::new(25, 1)),
            output: Some(Decimal::new(10, 0)),
            ..Rates::default()
        },
        ..CostConfig::new(label("openai"), label(model))
    }
}
