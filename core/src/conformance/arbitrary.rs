//! Records for the cases: plain ones to be changed by hand, and random ones from a seed.
//! Invariant: the same seed makes the same records; nothing here reads a clock.

use fastrand::Rng;
use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use crate::cost::{Cost, UnpricedReason};
use crate::id::{CostConfigId, ExecutionId, PromptId, UsageId};
use crate::label::Label;
use crate::llm::{Message, ToolCall};
use crate::model_rule::ModelRule;
use crate::money::Usd;
use crate::parameter::Parameter;
use crate::price::{CostConfig, PriceOrigin};
use crate::prompt::{Prompt, PromptStatus, PromptVersion};
use crate::rates::{DailyWindow, InputTier, Rates};
use crate::record::{Attribution, ExecutionPayload, LlmExecution, Record, Usage, UsagePayload};
use crate::status::{ErrorCategory, Status};
use crate::time::Timestamp;
use crate::tokens::{TokenCounts, TokenUsage};

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
        payload: Some(UsagePayload {
            parameters: map("name", "John"),
            content: "Hello John".to_owned(),
            system_message: Some("Be brief".to_owned()),
            metadata: map("source", "api"),
        }),
    }
}

/// A pending execution of `usage`, with a payload.
pub fn pending(usage: &Usage, created_at: Timestamp) -> LlmExecution {
    let (provider, model) = (label("openai"), label("gpt-4o"));
    let attribution = usage.attribution.clone();
    let id = ExecutionId::new();
    LlmExecution {
        payload: Some(ExecutionPayload {
            messages_sent: vec![Message::user("Hello John")],
            settings: map("temperature", 0.2),
            ..ExecutionPayload::default()
        }),
        ..LlmExecution::pending(id, usage.id, attribution, provider, model, created_at)
    }
}

/// `execution`, answered after 300 milliseconds.
pub fn finished(execution: &LlmExecution) -> LlmExecution {
    let tokens = TokenCounts { input: 100, output: 20, cache_read: 40, ..TokenCounts::default() };
    let mut payload = execution.payload.clone().unwrap_or_default();
    payload.response_content = Some("Hi".to_owned());
    payload.finish_reason = Some("stop".to_owned());
    LlmExecution {
        response_model: Some(label("gpt-4o-2024-08-06")),
        priced_model: Some(label("gpt-4o")),
        status: Status::Success,
        http_status: Some(200),
        tokens: Some(tokens.check().unwrap()),
        cost: Some(Cost::Priced { usd: pico(1_234_567), config: CostConfigId::new() }),
        latency_ms: Some(300),
        time_to_first_token_ms: Some(40),
        completed_at: Some(
            execution.created_at.saturating_add(std::time::Duration::from_millis(300)),
        ),
        payload: Some(payload),
        ..execution.clone()
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

/// Makes random records, all from one seed.
#[derive(Debug)]
pub struct Arbitrary {
    /// Where the randomness comes from.
    pub rng: Rng,
    /// The prompts that records are of.
    pub prompts: Vec<PromptId>,
    span: i64,
}

impl Arbitrary {
    /// Records of few prompts, models and so on, so that groups have many, over `span` seconds.
    pub fn new(seed: u64, span: i64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let prompts = (0..3).map(|_| PromptId::from_bytes(bytes(&mut rng))).collect();
        Self { rng, prompts, span }
    }

    /// One of `items`.
    pub fn one<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.rng.usize(..items.len())].clone()
    }

    /// One of `texts`, as a label.
    pub fn label(&mut self, texts: &[&str]) -> Label {
        label(self.one(texts))
    }

    /// A label of `texts`, or none, as often.
    pub fn maybe_label(&mut self, texts: &[&str]) -> Option<Label> {
        self.rng.bool().then(|| self.label(texts))
    }

    /// A moment of the span: often at the edge of an hour or a microsecond beside it, and often
    /// one that others have, too.
    pub fn moment(&mut self) -> Timestamp {
        let seconds = self.rng.i64(0..self.span);
        at_micros(match self.rng.u8(0..4) {
            0 => seconds * 1_000_000 + self.rng.i64(0..1_000_000),
            1 => seconds / 3600 * 3_600_000_000,
            2 => seconds / 3600 * 3_600_000_000 + self.rng.i64(-1..=1),
            _ => seconds / 900 * 900_000_000,
        })
    }

    /// What a record may count for.
    pub fn attribution(&mut self) -> Attribution {
        let prompts = self.prompts.clone();
        Attribution {
            prompt: self.one(&prompts),
            version: self.rng.u32(1..4),
            environment: self.label(&["production", "staging", ""]),
            session: self.maybe_label(&["s1", "s2", ""]),
            user: self.maybe_label(&["u1", "u2"]),
        }
    }

    /// A usage.
    pub fn usage(&mut self) -> Usage {
        let payload = self.rng.bool().then(|| UsagePayload {
            parameters: map("n", self.rng.u64(..)),
            content: self.text(),
            system_message: self.rng.bool().then(|| self.text()),
            metadata: map(&self.text(), self.rng.i64(..)),
        });
        Usage {
            id: UsageId::from_bytes(bytes(&mut self.rng)),
            attribution: self.attribution(),
            created_at: self.moment(),
            payload,
        }
    }

    /// A text with all sorts of characters.
    pub fn text(&mut self) -> String {
        let length = self.rng.usize(0..20);
        (0..length)
            .map(|_| if self.rng.bool() { self.rng.alphabetic() } else { self.rng.char(..) })
            .collect()
    }

    /// Tokens within their bounds; few calls have very many.
    pub fn tokens(&mut self) -> TokenUsage {
        let most = if self.rng.u8(..20) == 0 { TokenCounts::MAX } else { 5_000 };
        let input = self.rng.u64(0..=most);
        let output = self.rng.u64(0..=most);
        let cache_read = self.rng.u64(0..=input);
        let cache_write = self.rng.u64(0..=input - cache_read);
        let reasoning = self.rng.u64(0..=output);
        let counts = TokenCounts {
            input,
            output,
            cache_read,
            cache_write,
            cache_write_1h: self.rng.u64(0..=cache_write),
            reasoning,
            audio_input: self.rng.u64(0..=input - cache_read - cache_write),
            audio_output: self.rng.u64(0..=output - reasoning),
        };
        counts.check().unwrap()
    }

    /// A cost: priced, reported or not known; few amounts are at the limit of a row.
    pub fn cost(&mut self) -> Cost {
        let amount = match self.rng.u8(..20) {
            0 => i128::from(i64::MAX),
            1 => 0,
            2 => 1,
            _ => i128::from(self.rng.i64(0..10_000_000_000_000)),
        };
        match self.rng.u8(0..5) {
            0 => Cost::unpriced(self.one(UnpricedReason::ALL)),
            1 => reported(amount),
            2 => Cost::LocalCache,
            _ => Cost::Priced {
                usd: pico(amount),
                config: CostConfigId::from_bytes(bytes(&mut self.rng)),
            },
        }
    }

    /// Rates: any of them missing, any of them 0, up to 9 decimals.
    pub fn rates(&mut self) -> Rates {
        let mut rate = || match self.rng.u8(..4) {
            0 => None,
            1 => Some(Decimal::from(self.rng.u32(..40))),
            _ => Some(Decimal::new(self.rng.i64(0..1_000_000), self.rng.u32(..=9))),
        };
        Rates {
            input: rate(),
            output: rate(),
            cache_read: rate(),
            cache_write: rate(),
            cache_write_1h: rate(),
            reasoning: rate(),
            audio_input: rate(),
            audio_output: rate(),
        }
    }

    /// A rule of any kind about the models `m0` to `m9`.
    pub fn rule(&mut self) -> ModelRule {
        let text = label(&format!("m{}", self.rng.u8(..10)));
        match self.rng.u8(..8) {
            0 => ModelRule::StartsWith(label("m")),
            1 => ModelRule::EndsWith(text),
            2 => ModelRule::Contains(text),
            3 => ModelRule::Regex(label("^m[0-4]$")),
            4 => ModelRule::Any(vec![ModelRule::Equals(text), ModelRule::Equals(label("m0"))]),
            5 => ModelRule::All(vec![ModelRule::Contains(text), ModelRule::StartsWith(label("m"))]),
            6 => ModelRule::Not(Box::new(ModelRule::Equals(text))),
            _ => ModelRule::Equals(text),
        }
    }

    /// A price with all that a price can have. `model` sets its line apart from all others.
    pub fn cost_config(&mut self, model: &str) -> CostConfig {
        let rates = Rates { input: Some(Decimal::ONE), ..self.rates() };
        let mut tiers = Vec::new();
        for _ in 0..self.rng.usize(..3) {
            let above = tiers.last().map_or(0, |tier: &InputTier| tier.tokens + 1);
            let tokens = above + self.rng.u64(..1_000_000);
            tiers.push(InputTier { tokens, rates: self.rates() });
        }
        let windows = (0..self.rng.usize(..3)).map(|_| DailyWindow {
            from: self.one(&["00:00", "01:00", "22:30"]).parse().unwrap(),
            to: self.one(&["04:00", "23:59"]).parse().unwrap(),
            rates: self.rates(),
            tiers: tiers.clone(),
        });
        let windows = windows.collect();
        let from = self.rng.i64(0..100_000);
        CostConfig {
            origin: self.one(PriceOrigin::ALL),
            rule: self.rule(),
            service_tier: self.maybe_label(&["flex", "batch"]),
            valid_from: self.rng.bool().then(|| at(from)),
            valid_to: self.rng.bool().then(|| at(from + self.rng.i64(1..100_000))),
            replaced_at: (self.rng.u8(..8) == 0).then(|| at(from)),
            rates,
            tiers,
            windows,
            per_request: self.rng.bool().then(|| Decimal::new(self.rng.i64(0..1_000), 6)),
            ..CostConfig::new(label(self.one(&["openai", "azure", "house"])), label(model))
        }
    }

    /// A pending execution of `usage`.
    pub fn pending(&mut self, usage: &Usage) -> LlmExecution {
        let after = std::time::Duration::from_micros(self.rng.u64(0..3) * 1_000);
        LlmExecution {
            id: ExecutionId::from_bytes(bytes(&mut self.rng)),
            provider: self.label(&["openai", "anthropic"]),
            model: self.label(&["gpt-4o", "gpt-4o-mini", "claude", ""]),
            service_tier: self.maybe_label(&["flex", "auto"]),
            payload: self.rng.bool().then(|| ExecutionPayload {
                messages_sent: vec![Message::system(self.text()), Message::user(self.text())],
                settings: map("temperature", self.rng.f64()),
                ..ExecutionPayload::default()
            }),
            ..pending(usage, usage.created_at.saturating_add(after))
        }
    }

    /// `execution`, ended in one way or another.
    pub fn finished(&mut self, execution: &LlmExecution) -> LlmExecution {
        let status = self.one(&Status::ALL[1..]);
        let latency = self.rng.u64(..) >> self.rng.u32(24..64);
        let category = status != Status::Success && self.rng.u8(..4) > 0;
        LlmExecution {
            response_model: self.maybe_label(&["gpt-4o-2024-08-06", "claude-x"]),
            priced_model: self.maybe_label(&["gpt-4o", "claude"]),
            service_tier: self.maybe_label(&["flex", "batch", "default", ""]),
            status,
            error_category: category.then(|| self.one(ErrorCategory::ALL)),
            http_status: self.rng.bool().then(|| self.rng.u16(100..600)),
            tokens: self.rng.bool().then(|| self.tokens()),
            cost: Some(self.cost()),
            latency_ms: (self.rng.u8(..4) > 0).then_some(latency),
            time_to_first_token_ms: self.rng.bool().then_some(latency / 2),
            completed_at: Some(
                execution.created_at.saturating_add(std::time::Duration::from_millis(latency)),
            ),
            payload: Some(ExecutionPayload {
                response_content: self.rng.bool().then(|| self.text()),
                tool_calls: vec![ToolCall {
                    id: self.text(),
                    name: self.text(),
                    arguments: self.text(),
                }],
                finish_reason: self.rng.bool().then(|| self.text()),
                error_message: self.rng.bool().then(|| self.text()),
                response_metadata: map(&self.text(), self.text()),
                ..execution.payload.clone().unwrap_or_default()
            }),
            ..execution.clone()
        }
    }

    /// A usage with up to three executions, one in eight of them pending.
    pub fn records(&mut self) -> Vec<Record> {
        let usage = self.usage();
        let mut records = Vec::new();
        for _ in 0..self.rng.u8(0..=3) {
            let pending = self.pending(&usage);
            let still_pending = self.rng.u8(..8) == 0;
            records.push(if still_pending { pending } else { self.finished(&pending) }.into());
        }
        records.push(usage.into());
        self.rng.shuffle(&mut records);
        records
    }
}

/// 16 random bytes.
pub fn bytes(rng: &mut Rng) -> [u8; 16] {
    rng.u128(..).to_be_bytes()
}
