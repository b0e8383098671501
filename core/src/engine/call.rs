//! One physical call from its start to its record, however it ends.
//! Invariant: a call is recorded exactly once as finished; one that is dropped is recorded as
//! cancelled, with what was seen of it. The place in the queue is taken before the request is sent.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, Either, Ready, ready};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::Engine;
use super::render::extend;
use crate::cost::{Cost, UnpricedReason};
use crate::id::{ExecutionId, UsageId};
use crate::label::Label;
use crate::llm::{ChatReply, ChatRequest, LlmError};
use crate::price_book::PriceRequest;
use crate::record::{Attribution, ExecutionPayload, LlmExecution, Record};
use crate::recorder::{DropReason, Recorded, Reservation, weight};
use crate::status::Status;
use crate::time::Timestamp;
use crate::tokens::{TokenCounts, TokenUsage};

/// Room for the answer, beside what was sent, before it must be cut if the queue is full.
const ANSWER_BYTES: usize = 8 * 1024;

/// A physical call as it was recorded.
#[derive(Debug, Clone)]
pub struct RecordedCall {
    /// The record.
    pub execution: LlmExecution,
    /// What became of it.
    pub recorded: Recorded,
}

#[derive(Debug)]
pub(crate) struct Call {
    engine: Engine,
    /// Taken when the call is finished.
    open: Option<Open>,
    pub(super) id: ExecutionId,
    started: Instant,
    first_token_ms: Option<u64>,
    seen: String,
    span: tracing::Span,
}

#[derive(Debug)]
struct Open {
    /// The record, without its payload.
    execution: LlmExecution,
    request: Arc<ChatRequest>,
    metadata: Map<String, Value>,
    place: Result<Reservation, DropReason>,
}

impl Open {
    /// The record, what was sent, and its place.
    fn finish(self) -> (LlmExecution, ExecutionPayload, Result<Reservation, DropReason>) {
        let Self { execution, request, metadata, place } = self;
        (execution, sent(&request, metadata), place)
    }
}

/// How a call that was measured elsewhere took its time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Measured {
    pub(super) latency_ms: Option<u64>,
    pub(super) time_to_first_token_ms: Option<u64>,
}

/// A finished call, with its way into the store.
#[derive(Debug)]
pub(crate) struct Finished {
    engine: Engine,
    execution: LlmExecution,
    place: Result<Reservation, DropReason>,
}

impl Call {
    /// Takes a place in the queue and records the call as pending.
    pub(super) async fn begin(
        engine: &Engine,
        id: ExecutionId,
        usage_id: UsageId,
        attribution: Attribution,
        provider: Label,
        request: Arc<ChatRequest>,
        metadata: Map<String, Value>,
    ) -> Self {
        let now = Timestamp::now();
        let model = Label::lossy(&request.model);
        let mut execution = LlmExecution::pending(id, usage_id, attribution, provider, model, now);
        let asked_tier = request.extra.get("service_tier").and_then(Value::as_str);
        execution.service_tier = asked_tier.map(Label::lossy);
        let recorder = &engine.inner.recorder;
        let mut pending = execution.clone();
        pending.payload = Some(sent(&request, metadata.clone()).into());
        let pending = Record::Execution(pending);
        let room = if recorder.is_crowded() { 0 } else { weight(&pending) + ANSWER_BYTES };
        let mut place = recorder.reserve(room).await;
        if let Err(DropReason::QueueFull) = place {
            place = recorder.reserve(0).await; // its texts may be cut, what it cost is kept
        }
        if place.is_ok() {
            let _ = recorder.record_now(pending); // the finished record counts, and has its place
        }
        let span = span_of(engine, &execution, &request);
        Self {
            engine: engine.clone(),
            open: Some(Open { execution, request, metadata, place }),
            id,
            started: Instant::now(),
            first_token_ms: None,
            seen: String::new(),
            span,
        }
    }

    pub(crate) fn span(&self) -> &tracing::Span {
        &self.span
    }

    pub(crate) fn started(&mut self, model: Option<&str>) {
        if let (Some(open), Some(model)) = (&mut self.open, model.filter(|m| !m.is_empty())) {
            open.execution.response_model = Some(Label::lossy(model));
        }
    }

    /// Text that was streamed; empty for a token that is no text.
    pub(crate) fn saw(&mut self, text: &str) {
        self.first_token_ms.get_or_insert_with(|| millis_since(self.started));
        self.seen.push_str(text);
    }

    pub(crate) fn succeed(&mut self, reply: &ChatReply, measured: Measured) -> Option<Finished> {
        let (mut execution, mut payload, place) = self.open.take()?.finish();
        if let Some(model) = reply.model.as_deref().filter(|model| !model.is_empty()) {
            execution.response_model = Some(Label::lossy(model));
        }
        let counts = reply.tokens;
        let tokens = counts.map(|counts| counts.check());
        // What served it counts, whatever was asked for.
        if let Some(tier) = reply.service_tier.as_deref().filter(|tier| !tier.is_empty()) {
            execution.service_tier = Some(Label::lossy(tier));
        }
        (execution.cost, execution.priced_model) = self.cost(&execution, reply, &tokens);
        execution.tokens = tokens.and_then(Result::ok);
        execution.status = Status::Success;
        execution.http_status = reply.http_status;
        let seen = std::mem::take(&mut self.seen);
        let streamed = (!seen.is_empty()).then_some(seen);
        payload.response_content = reply.content.clone().or(streamed);
        payload.tool_calls.clone_from(&reply.tool_calls);
        payload.finish_reason.clone_from(&reply.finish_reason);
        extend(&mut payload.response_metadata, reply.metadata.clone());
        keep_inconsistent(&mut payload, counts, execution.tokens);
        execution.payload = Some(payload.into());
        Some(self.close(execution, place, measured))
    }

    fn cost(
        &self,
        execution: &LlmExecution,
        reply: &ChatReply,
        tokens: &Option<crate::Result<TokenUsage>>,
    ) -> (Option<Cost>, Option<Label>) {
        if reply.from_local_cache {
            return (Some(Cost::LocalCache), None);
        }
        if let Some(usd) = reply.reported_cost {
            let fits = usd.to_row().is_some();
            let cost = Cost::Reported { usd };
            return (
                Some(if fits { cost } else { Cost::unpriced(UnpricedReason::Overflow) }),
                None,
            );
        }
        self.price(execution, tokens)
    }

    /// The cost by the prices of the engine.
    fn price(
        &self,
        execution: &LlmExecution,
        tokens: &Option<crate::Result<TokenUsage>>,
    ) -> (Option<Cost>, Option<Label>) {
        if let Some(Err(_)) = tokens {
            return (Some(Cost::unpriced(UnpricedReason::InconsistentUsage)), None);
        }
        let book = self.engine.price_book();
        let tokens = tokens.as_ref().and_then(|tokens| tokens.as_ref().ok());
        let quote = book.price(&PriceRequest::of(execution, tokens));
        (Some(quote.cost), quote.priced_model.cloned())
    }

    pub(crate) fn fail(&mut self, error: &LlmError, measured: Measured) -> Option<Finished> {
        let (mut execution, mut payload, place) = self.open.take()?.finish();
        execution.status = error.status();
        execution.error_category = Some(error.category());
        execution.http_status = error.http_status();
        let counts = error.tokens();
        let tokens = counts.map(|counts| counts.check());
        (execution.cost, execution.priced_model) = match &tokens {
            None => (Some(Cost::unpriced(UnpricedReason::NoUsage)), None),
            Some(_) => self.price(&execution, &tokens),
        };
        execution.tokens = tokens.and_then(Result::ok);
        let seen = std::mem::take(&mut self.seen);
        payload.response_content = (!seen.is_empty()).then_some(seen);
        payload.error_message = Some(error.to_string());
        if let Some(code) = error.code() {
            payload.response_metadata.insert("error_code".to_owned(), code.into());
        }
        if let Some(wait) = error.retry_after() {
            let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            payload.response_metadata.insert("retry_after_ms".to_owned(), ms.into());
        }
        extend(&mut payload.response_metadata, error.metadata().clone());
        keep_inconsistent(&mut payload, counts, execution.tokens);
        execution.payload = Some(payload.into());
        self.span.record("error.type", error.category().as_str());
        Some(self.close(execution, place, measured))
    }

    fn close(
        &self,
        mut execution: LlmExecution,
        place: Result<Reservation, DropReason>,
        measured: Measured,
    ) -> Finished {
        let latency = measured.latency_ms.unwrap_or_else(|| millis_since(self.started));
        execution.latency_ms = Some(latency);
        execution.time_to_first_token_ms = measured.time_to_first_token_ms.or(self.first_token_ms);
        let end = execution.created_at.saturating_add(std::time::Duration::from_millis(latency));
        execution.completed_at = Some(end);
        record_on(&self.span, &self.engine, &execution);
        Finished { engine: self.engine.clone(), execution, place }
    }
}

/// A record on its way: it is boxed only where somebody has to wait for it.
pub(crate) type Settling = Either<Ready<RecordedCall>, BoxFuture<'static, RecordedCall>>;

impl Finished {
    /// Hands the record over; where the engine is durable, waits for its commit.
    pub(crate) fn settle(self) -> Settling {
        let Self { engine, execution, place } = self;
        let record = Record::Execution(execution.clone());
        match place {
            Ok(place) if !engine.inner.durable => {
                Either::Left(ready(RecordedCall { execution, recorded: place.finish(record) }))
            }
            place => Either::Right(
                async move {
                    let recorded = match place {
                        Ok(place) => place.finish_durable(record).await,
                        // It found no place when it was sent: there may be room by now.
                        Err(_) => engine.inner.recorder.record(record).await,
                    };
                    RecordedCall { execution, recorded }
                }
                .boxed(),
            ),
        }
    }

    /// Hands the record over without waiting.
    pub(crate) fn hand_over(self) {
        let record = Record::Execution(self.execution);
        // Nobody is left to be told.
        let _ = match self.place {
            Ok(place) => place.finish(record),
            Err(_) => self.engine.inner.recorder.record_now(record),
        };
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.open.is_some()
            && let Some(finished) = self.fail(&LlmError::cancelled(), Measured::default())
        {
            finished.hand_over();
        }
    }
}

/// Keeps counts that no check let pass, for a person to see.
fn keep_inconsistent(
    payload: &mut ExecutionPayload,
    counts: Option<TokenCounts>,
    checked: Option<TokenUsage>,
) {
    if let (Some(counts), None) = (counts, checked) {
        let raw = serde_json::to_value(counts).unwrap_or_default();
        payload.response_metadata.insert("inconsistent_usage".to_owned(), raw);
    }
}

fn millis_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// What was sent, as a record keeps it.
fn sent(request: &ChatRequest, response_metadata: Map<String, Value>) -> ExecutionPayload {
    ExecutionPayload {
        messages_sent: Arc::clone(&request.messages),
        settings: settings_of(request),
        response_metadata,
        ..ExecutionPayload::default()
    }
}

fn settings_of(request: &ChatRequest) -> Map<String, Value> {
    let mut settings = request.extra.clone();
    if let Some(temperature) = request.temperature {
        settings.insert("temperature".to_owned(), temperature.into());
    }
    if let Some(max_tokens) = request.max_tokens {
        settings.insert("max_tokens".to_owned(), max_tokens.into());
    }
    if !request.tools.is_empty() {
        settings.entry("tools").or_insert_with(|| json!(request.tools));
    }
    if let Some(schema) = &request.output_schema {
        settings.entry("output_schema").or_insert_with(|| json!(schema));
    }
    settings
}

/// The span of a call, with the attributes of OpenTelemetry's GenAI conventions v1.41.
fn span_of(engine: &Engine, execution: &LlmExecution, request: &ChatRequest) -> tracing::Span {
    use tracing::field::Empty;
    let span = tracing::info_span!(
        "chat",
        otel.name = Empty,
        gen_ai.operation.name = "chat",
        gen_ai.provider.name = %execution.provider,
        gen_ai.request.model = %execution.model,
        gen_ai.response.model = Empty,
        gen_ai.response.finish_reasons = Empty,
        gen_ai.usage.input_tokens = Empty,
        gen_ai.usage.output_tokens = Empty,
        gen_ai.usage.cache_read.input_tokens = Empty,
        gen_ai.input.messages = Empty,
        gen_ai.output.messages = Empty,
        error.r#type = Empty,
    );
    if !span.is_disabled() {
        span.record("otel.name", format!("chat {}", execution.model));
        if let Some(messages) = captured(engine, execution, request) {
            span.record("gen_ai.input.messages", messages);
        }
    }
    span
}

/// What was sent, as a span may show it, where it may.
fn captured(engine: &Engine, execution: &LlmExecution, request: &ChatRequest) -> Option<String> {
    if !engine.inner.capture_content {
        return None;
    }
    let payload = Some(sent(request, Map::new()).into());
    let shown = LlmExecution { payload, ..execution.clone() };
    match engine.inner.recorder.redacted(shown.into()) {
        Record::Execution(LlmExecution { payload: Some(payload), .. }) => {
            serde_json::to_string(&payload.messages_sent).ok()
        }
        _ => None,
    }
}

fn record_on(span: &tracing::Span, engine: &Engine, execution: &LlmExecution) {
    if span.is_disabled() {
        return;
    }
    if let Some(model) = &execution.response_model {
        span.record("gen_ai.response.model", model.as_str());
    }
    if let Some(tokens) = &execution.tokens {
        span.record("gen_ai.usage.input_tokens", tokens.input);
        span.record("gen_ai.usage.output_tokens", tokens.output);
        span.record("gen_ai.usage.cache_read.input_tokens", tokens.cache_read);
    }
    let Some(payload) = &execution.payload else { return };
    if let Some(reason) = &payload.finish_reason {
        span.record("gen_ai.response.finish_reasons", format!("[{reason:?}]"));
    }
    // The content alone: the caller waits here, and what was sent is in the span already.
    if engine.inner.capture_content
        && let Some(content) = &payload.response_content
        && let Some(content) = engine.inner.recorder.redacted_text(content)
    {
        span.record("gen_ai.output.messages", content.as_ref());
    }
}
