//! Records that tests write.
#![allow(dead_code, reason = "no test uses all of it")]

use std::sync::Arc;

use prompt_engine_core::{
    Attribution, Cost, CostConfigId, ExecutionId, ExecutionPayload, LlmExecution, PromptId, Status,
    Timestamp, TokenCounts, Usage, UsageId, UsagePayload,
};

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000 + second * 1_000_000).unwrap()
}

pub(crate) fn attribution() -> Attribution {
    Attribution {
        prompt: PromptId::from_bytes([7; 16]),
        version: 3,
        environment: "production".parse().unwrap(),
        session: Some("s' \" %_".parse().unwrap()),
        user: None,
    }
}

pub(crate) fn usage(second: i64) -> Usage {
    Usage {
        id: UsageId::new(),
        attribution: attribution(),
        created_at: at(second),
        payload: Some(Arc::new(UsagePayload {
            content: "Hello\0\u{10ffff}".into(),
            ..Default::default()
        })),
    }
}

pub(crate) fn pending(second: i64) -> LlmExecution {
    let provider = "openai".parse().unwrap();
    let model = "gpt-4o".parse().unwrap();
    let (id, usage) = (ExecutionId::new(), UsageId::new());
    let mut call = LlmExecution::pending(id, usage, attribution(), provider, model, at(second));
    call.payload = Some(Arc::new(ExecutionPayload {
        response_content: Some("still to come".into()),
        ..Default::default()
    }));
    call
}

pub(crate) fn finished(mut call: LlmExecution) -> LlmExecution {
    let counts = TokenCounts { input: 100, output: 7, cache_read: 40, ..Default::default() };
    call.status = Status::Success;
    call.response_model = Some("gpt-4o-2024-08-06".parse().unwrap());
    call.priced_model = Some("gpt-4o".parse().unwrap());
    call.tokens = Some(counts.check().unwrap());
    let config = CostConfigId::from_bytes([9; 16]);
    call.cost = Some(Cost::Priced { usd: "0.000000000001".parse().unwrap(), config });
    call.latency_ms = Some(u64::MAX);
    call.completed_at = Some(at(99));
    call.payload = Some(Arc::new(ExecutionPayload {
        response_content: Some("x".repeat(10_000)),
        ..Default::default()
    }));
    call
}
