//! One call as the benches take it: a usage and its execution, about 4.5 kB of text, over 90 days in the
//! order of time; 50 prompts of 3 versions, 12 models of 3 providers, 3 environments, log-normal
//! latencies, 3 % errors. The dimensions are independent and skewed.

use std::time::Duration;

use prompt_engine_core::{
    Attribution, Cost, CostConfigId, ErrorCategory, ExecutionId, ExecutionPayload, Label,
    LlmExecution, Message, PromptId, Status, Timestamp, TokenCounts, Usage, UsageId, UsagePayload,
    Usd,
};
use serde_json::json;

use crate::text::Prose;

/// 2025-01-01T00:00:00Z in microseconds.
const FROM_MICROS: i64 = 1_735_689_600_000_000;
const DAYS_90_MICROS: i64 = 90 * 24 * 3_600 * 1_000_000;
const PROVIDERS: [&str; 3] = ["openai", "anthropic", "google"];
const ENVIRONMENTS: [&str; 3] = ["production", "staging", "development"];

/// A render and the finished call that was made of it.
#[derive(Debug, Clone)]
pub struct Call {
    /// The render.
    pub usage: Usage,
    /// The call.
    pub execution: LlmExecution,
}

impl Call {
    /// The call before it was sent.
    pub fn pending(&self) -> LlmExecution {
        let LlmExecution { id, usage_id, attribution, provider, model, created_at, .. } =
            self.execution.clone();
        LlmExecution::pending(id, usage_id, attribution, provider, model, created_at)
    }
}

/// An endless workload of calls.
#[derive(Debug, Clone)]
pub struct Calls {
    rng: fastrand::Rng,
    prose: Prose,
    prompts: Vec<PromptId>,
    models: Vec<(Label, Label)>,
    environments: Vec<Label>,
    config: CostConfigId,
    at: i64,
    step: i64,
}

impl Calls {
    /// The workload of `seed`, whose first `count` calls fill the 90 days.
    ///
    /// # Panics
    /// If a name of the workload is no label, which would be a mistake in this file.
    pub fn new(seed: u64, count: u32) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let label = |text: &str| Label::new(text).expect("the names here are labels");
        let prompts = (0..50).map(|_| PromptId::from_bytes(id(&mut rng, FROM_MICROS))).collect();
        let models = (0..12)
            .map(|n| (label(PROVIDERS[n % 3]), label(&format!("{}-model-{n}", PROVIDERS[n % 3]))))
            .collect();
        let config = CostConfigId::from_bytes(id(&mut rng, FROM_MICROS));
        Self {
            prompts,
            models,
            environments: ENVIRONMENTS.map(label).to_vec(),
            config,
            rng,
            prose: Prose::default(),
            at: FROM_MICROS,
            step: (DAYS_90_MICROS / i64::from(count.max(1))).max(1),
        }
    }

    /// Skewed: the lesser of two draws, so that the first is drawn most often.
    fn skewed(&mut self, below: usize) -> usize {
        self.rng.usize(..below).min(self.rng.usize(..below))
    }

    /// Log-normal around 900 ms.
    fn latency_ms(&mut self) -> u64 {
        let (u, v) = (1.0 - self.rng.f64(), self.rng.f64());
        let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        let seconds = 0.9 * (0.7 * normal).exp();
        let latency = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(60));
        u64::try_from(latency.as_millis()).unwrap_or(60_000)
    }

    fn call(&mut self) -> Call {
        self.at += self.step;
        let created_at = Timestamp::from_micros(self.at).expect("a moment of these 90 days");
        let prompt = self.skewed(50);
        let model = self.skewed(12);
        let environment = self.skewed(3);
        let attribution = Attribution {
            prompt: self.prompts[prompt],
            version: self.rng.u32(1..=3),
            environment: self.environments[environment].clone(),
            session: Some(Label::lossy(&format!("session-{}", self.rng.u32(..100_000)))),
            user: Some(Label::lossy(&format!("user-{}", self.rng.u32(..20_000)))),
        };
        let (provider, model) = self.models[model].clone();
        let latency_ms = self.latency_ms();
        let failed = self.rng.u8(..100) < 3;
        let input = self.rng.u64(300..600);
        let output = self.rng.u64(200..500);
        let usage = Usage {
            id: UsageId::from_bytes(id(&mut self.rng, self.at)),
            attribution: attribution.clone(),
            created_at,
            payload: Some(self.usage_payload()),
        };
        let mut execution = LlmExecution::pending(
            ExecutionId::from_bytes(id(&mut self.rng, self.at)),
            usage.id,
            attribution,
            provider,
            model.clone(),
            created_at,
        );
        execution.status = if failed { Status::Error } else { Status::Success };
        execution.error_category = failed.then_some(ErrorCategory::RateLimit);
        execution.http_status = Some(if failed { 429 } else { 200 });
        execution.response_model = Some(model.clone());
        execution.priced_model = Some(model);
        let counts = TokenCounts { input, output, ..TokenCounts::default() };
        execution.tokens = counts.check().ok();
        execution.cost = Usd::from_pico(i128::from(input * 2_500_000 + output * 10_000_000))
            .map(|usd| Cost::Priced { usd, config: self.config });
        execution.latency_ms = Some(latency_ms);
        execution.completed_at = Some(created_at.saturating_add(Duration::from_millis(latency_ms)));
        execution.payload = Some(self.execution_payload(failed));
        Call { usage, execution }
    }

    fn usage_payload(&mut self) -> UsagePayload {
        let name = self.prose.text(&mut self.rng, 20);
        let order = self.rng.u32(..);
        UsagePayload {
            parameters: [("name".to_owned(), json!(name)), ("order_id".to_owned(), json!(order))]
                .into_iter()
                .collect(),
            content: self.prose.text(&mut self.rng, 1_000),
            system_message: Some(self.prose.text(&mut self.rng, 200)),
            metadata: [("source".to_owned(), json!("api"))].into_iter().collect(),
        }
    }

    fn execution_payload(&mut self, failed: bool) -> ExecutionPayload {
        let mut text = |bytes| self.prose.text(&mut self.rng, bytes);
        ExecutionPayload {
            messages_sent: vec![Message::system(text(300)), Message::user(text(1_200))],
            settings: [("temperature".to_owned(), json!(0.7))].into_iter().collect(),
            response_content: (!failed).then(|| text(1_500)),
            finish_reason: (!failed).then(|| "stop".to_owned()),
            error_message: failed.then(|| text(120)),
            response_metadata: [("id".to_owned(), json!(format!("r-{:x}", self.at)))]
                .into_iter()
                .collect(),
            ..ExecutionPayload::default()
        }
    }
}

impl Iterator for Calls {
    type Item = Call;

    fn next(&mut self) -> Option<Call> {
        Some(self.call())
    }
}

/// The bytes of a UUIDv7 of the moment `micros`, random from the seed.
fn id(rng: &mut fastrand::Rng, micros: i64) -> [u8; 16] {
    let mut bytes = rng.u128(..).to_be_bytes();
    bytes[..6].copy_from_slice(&(micros / 1_000).to_be_bytes()[2..]);
    bytes[6] = 0x70 | (bytes[6] & 0x0f);
    bytes[8] = 0x80 | (bytes[8] & 0x3f);
    bytes
}
