//! Usages and executions as flat JSON objects, and the slugs of their prompts.
//! Invariant: the names of the fields are a contract; what is not known is null, never left out.

use std::collections::HashMap;

use prompt_engine::{
    ExecutionPayload, LlmExecution, PastCost, PromptEngine, PromptId, Usage, UsagePayload,
};
use serde_json::{Map, Value, json};

use crate::failure::Failure;

/// The slugs of prompts, each read once.
#[derive(Debug, Default)]
pub(crate) struct Slugs(HashMap<PromptId, String>);

impl Slugs {
    /// The slug of the prompt, or its id where it is gone.
    pub(crate) async fn of(
        &mut self,
        engine: &PromptEngine,
        id: PromptId,
    ) -> Result<String, Failure> {
        if let Some(slug) = self.0.get(&id) {
            return Ok(slug.clone());
        }
        let found = engine.store().prompt(id).await?;
        let slug = found.map_or_else(|| id.to_string(), |prompt| prompt.slug.to_string());
        self.0.insert(id, slug.clone());
        Ok(slug)
    }
}

/// An execution; the texts are null where the payload is not there.
pub(crate) fn execution(execution: &LlmExecution, slug: &str) -> Map<String, Value> {
    let LlmExecution {
        id,
        usage_id,
        attribution,
        provider,
        model,
        response_model,
        priced_model,
        service_tier,
        status,
        error_category,
        http_status,
        tokens,
        cost,
        latency_ms,
        time_to_first_token_ms,
        created_at,
        completed_at,
        payload,
    } = execution;
    let texts = payload.as_deref().map(
        |ExecutionPayload {
             messages_sent,
             settings: _,
             response_content,
             tool_calls,
             finish_reason,
             error_message,
             response_metadata,
         }| {
            json!({
                "messages_sent": messages_sent,
                "response_content": response_content,
                "tool_calls": tool_calls,
                "finish_reason": finish_reason,
                "error_message": error_message,
                "response_metadata": response_metadata,
            })
        },
    );
    let text = |name: &str| texts.as_ref().map_or(Value::Null, |texts| texts[name].clone());
    let fields = [
        ("id", json!(id)),
        ("usage_id", json!(usage_id)),
        ("prompt", json!(slug)),
        ("version", json!(attribution.version)),
        ("environment", json!(attribution.environment)),
        ("session_id", json!(attribution.session)),
        ("user_identifier", json!(attribution.user)),
        ("provider", json!(provider)),
        ("model", json!(model)),
        ("response_model", json!(response_model)),
        ("priced_model", json!(priced_model)),
        ("service_tier", json!(service_tier)),
        ("status", json!(status)),
        ("error_category", json!(error_category)),
        ("error_message", text("error_message")),
        ("http_status", json!(http_status)),
        ("input_tokens", json!(tokens.map(|tokens| tokens.input))),
        ("output_tokens", json!(tokens.map(|tokens| tokens.output))),
        ("cache_read_tokens", json!(tokens.map(|tokens| tokens.cache_read))),
        ("cache_write_tokens", json!(tokens.map(|tokens| tokens.cache_write))),
        ("cache_write_1h_tokens", json!(tokens.map(|tokens| tokens.cache_write_1h))),
        ("reasoning_tokens", json!(tokens.map(|tokens| tokens.reasoning))),
        ("audio_input_tokens", json!(tokens.map(|tokens| tokens.audio_input))),
        ("audio_output_tokens", json!(tokens.map(|tokens| tokens.audio_output))),
        ("cost_usd", json!(cost.and_then(|cost| cost.usd()))),
        ("cost_kind", json!(cost.map(|cost| cost.kind()))),
        ("cost_reason", json!(cost.and_then(|cost| cost.reason()))),
        ("cost_config_id", json!(cost.and_then(|cost| cost.config()))),
        ("latency_ms", json!(latency_ms)),
        ("time_to_first_token_ms", json!(time_to_first_token_ms)),
        ("messages_sent", text("messages_sent")),
        ("response_content", text("response_content")),
        ("tool_calls", text("tool_calls")),
        ("finish_reason", text("finish_reason")),
        ("response_metadata", text("response_metadata")),
        ("created_at", json!(created_at)),
        ("completed_at", json!(completed_at)),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A cost that an execution had before.
pub(crate) fn past_cost(past: &PastCost) -> Value {
    let PastCost { cost, priced_model, replaced_at } = past;
    json!({
        "cost_usd": cost.usd(),
        "cost_kind": cost.kind(),
        "cost_reason": cost.reason(),
        "cost_config_id": cost.config(),
        "priced_model": priced_model,
        "replaced_at": replaced_at,
    })
}

/// A usage; the texts are null where the payload is not there.
pub(crate) fn usage(usage: &Usage, slug: &str) -> Map<String, Value> {
    let Usage { id, attribution, created_at, payload } = usage;
    let texts =
        payload.as_deref().map(|UsagePayload { parameters, content, system_message, metadata }| {
            json!({
                "parameters": parameters,
                "content": content,
                "system_message": system_message,
                "metadata": metadata,
            })
        });
    let text = |name: &str| texts.as_ref().map_or(Value::Null, |texts| texts[name].clone());
    let fields = [
        ("id", json!(id)),
        ("prompt", json!(slug)),
        ("version", json!(attribution.version)),
        ("environment", json!(attribution.environment)),
        ("session_id", json!(attribution.session)),
        ("user_identifier", json!(attribution.user)),
        ("parameters", text("parameters")),
        ("content", text("content")),
        ("system_message", text("system_message")),
        ("metadata", text("metadata")),
        ("created_at", json!(created_at)),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
