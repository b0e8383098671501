//! Records for the cases: those of [`testkit`](crate::testkit), and random ones from a seed.
//! Invariant: the same seed makes the same records; nothing here reads a clock.

use std::sync::Arc;

use fastrand::Rng;
use rust_decimal::Decimal;

use crate::cost::{Cost, UnpricedReason};
use crate::id::{CostConfigId, ExecutionId, PromptId, UsageId};
use crate::label::Label;
use crate::llm::{Image, Message, ToolCall};
use crate::model_rule::ModelRule;
use crate::price::{CostConfig, PriceOrigin};
use crate::rates::{DailyWindow, InputTier, Rates};
use crate::record::{Attribution, ExecutionPayload, LlmExecution, Record, Usage, UsagePayload};
use crate::status::{ErrorCategory, Status};
pub use crate::testkit::{
    at, at_micros, attribution, call, finished, label, map, next, pending, pico, price, prompt,
    reported, usage, version,
};
use crate::time::Timestamp;
use crate::tokens::{TokenCounts, TokenUsage};

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
        let payload = self.rng.bool().then(|| {
            Arc::new(UsagePayload {
                parameters: map("n", self.rng.u64(..)),
                content: self.text(),
                system_message: self.rng.bool().then(|| self.text()),
                metadata: map(&self.text(), self.rng.i64(..)),
            })
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
            payload: self.rng.bool().then(|| {
                Arc::new(ExecutionPayload {
                    messages_sent: [
                        Message::system(self.text()),
                        Message::user(self.text()).with_image(Image::from_url(self.text())),
                    ]
                    .into(),
                    settings: map("temperature", self.rng.f64()),
                    ..ExecutionPayload::default()
                })
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
            payload: Some(Arc::new(ExecutionPayload {
                response_content: self.rng.bool().then(|| self.text()),
                tool_calls: vec![ToolCall {
                    id: self.text(),
                    name: self.text(),
                    arguments: self.text(),
                    signature: self.rng.bool().then(|| self.text()),
                }],
                finish_reason: self.rng.bool().then(|| self.text()),
                error_message: self.rng.bool().then(|| self.text()),
                response_metadata: map(&self.text(), self.text()),
                ..execution.payload.as_deref().cloned().unwrap_or_default()
            })),
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
