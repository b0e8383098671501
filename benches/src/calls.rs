//! The calls of a set as records: a usage and its execution, about 4.5 kB of text.

use std::sync::Arc;
use std::time::Duration;

use prompt_engine_core::{
    Attribution, Cost, ExecutionId, ExecutionPayload, Label, LlmExecution, Message, Status,
    TokenCounts, UnpricedReason, Usage, UsageId, UsagePayload, Usd,
};
use serde_json::json;

use crate::set::{Set, Stream, moment};
use crate::text::Prose;

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
    set: Arc<Set>,
    prose: Prose,
    next: u64,
    /// The first call that has texts.
    texts_from: u64,
}

impl Calls {
    /// The workload of `seed`, whose first `count` calls fill 90 days. All have texts.
    pub fn new(seed: u64, count: u32) -> Self {
        Self::of(Arc::new(Set::new(seed, count.into(), 90)), 0)
    }

    /// The calls of `set`, with texts from the call of the number `texts_from` on.
    pub fn of(set: Arc<Set>, texts_from: u64) -> Self {
        Self { set, prose: Prose::default(), next: 0, texts_from }
    }

    fn call(&self, number: u64) -> Call {
        let set = &self.set;
        let fact = set.fact(number);
        let (usage_id, execution_id) = set.ids(number, &fact);
        let attribution = Attribution {
            prompt: set.prompts()[fact.prompt],
            version: fact.version,
            environment: set.environments()[fact.environment].clone(),
            session: Some(Set::session(fact.session)),
            user: Some(Label::lossy(&format!("user-{}", fact.user))),
        };
        let (provider, model) = set.models()[fact.model].clone();
        let failed = fact.status != Status::Success;
        let (mut usage_payload, mut execution_payload) = (None, None);
        if number >= self.texts_from {
            let mut rng = set.random(number, Stream::Texts);
            usage_payload = Some(self.usage_payload(&mut rng));
            execution_payload = Some(self.execution_payload(&mut rng, number, failed));
        }
        let usage = Usage {
            id: UsageId::from_bytes(usage_id),
            attribution: attribution.clone(),
            created_at: moment(fact.rendered_at),
            payload: usage_payload.map(Arc::new),
        };
        let sent_at = moment(fact.sent_at);
        let mut execution = LlmExecution::pending(
            ExecutionId::from_bytes(execution_id),
            usage.id,
            attribution,
            provider,
            model.clone(),
            sent_at,
        );
        execution.status = fact.status;
        execution.error_category = fact.category;
        execution.http_status = fact.http_status;
        execution.cost = Some(Cost::unpriced(UnpricedReason::NoUsage));
        if !failed {
            execution.response_model = Some(model.clone());
            execution.priced_model = Some(model);
            let (input, output) = (fact.input, fact.output);
            execution.tokens = TokenCounts { input, output, ..TokenCounts::default() }.check().ok();
            execution.cost = Usd::from_pico(fact.cost_pico.into())
                .map(|usd| Cost::Priced { usd, config: set.config() });
        }
        execution.latency_ms = Some(fact.latency_ms);
        execution.completed_at =
            Some(sent_at.saturating_add(Duration::from_millis(fact.latency_ms)));
        execution.payload = execution_payload.map(Arc::new);
        Call { usage, execution }
    }

    fn usage_payload(&self, rng: &mut fastrand::Rng) -> UsagePayload {
        let name = self.prose.text(rng, 20);
        let order = rng.u32(..);
        UsagePayload {
            parameters: [("name".to_owned(), json!(name)), ("order_id".to_owned(), json!(order))]
                .into_iter()
                .collect(),
            content: self.prose.text(rng, 1_000),
            system_message: Some(self.prose.text(rng, 200)),
            metadata: [("source".to_owned(), json!("api"))].into_iter().collect(),
        }
    }

    fn execution_payload(
        &self,
        rng: &mut fastrand::Rng,
        number: u64,
        failed: bool,
    ) -> ExecutionPayload {
        let mut text = |bytes| self.prose.text(rng, bytes);
        ExecutionPayload {
            messages_sent: [Message::system(text(300)), Message::user(text(1_200))].into(),
            settings: [("temperature".to_owned(), json!(0.7))].into_iter().collect(),
            response_content: (!failed).then(|| text(1_500)),
            finish_reason: (!failed).then(|| "stop".to_owned()),
            error_message: failed.then(|| text(120)),
            response_metadata: [("id".to_owned(), json!(format!("r-{number:x}")))]
                .into_iter()
                .collect(),
            ..ExecutionPayload::default()
        }
    }
}

impl Iterator for Calls {
    type Item = Call;

    fn next(&mut self) -> Option<Call> {
        let call = self.call(self.next);
        self.next += 1;
        Some(call)
    }
}
