//! Texts that stores trip over: wildcards, quotes, NUL, nothing, a megabyte, the last code point.

use std::slice;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Fixture;
use super::append::all_are_stored;
use super::arbitrary::{at, call, label, map, prompt};
use crate::aggregate::{AggregateQuery, Dimension};
use crate::label::Label;
use crate::llm::{Message, ToolCall};
use crate::prompt::{Prompt, PromptVersion};
use crate::query::{Filter, RecordQuery};
use crate::record::{ExecutionPayload, LlmExecution, Usage, UsagePayload};

/// Hostile texts without NUL, short enough for labels.
const SHORT: [&str; 22] = [
    "",
    " ",
    "%",
    "_",
    "a%",
    "a_",
    "ab",
    "aB",
    "'",
    "\"",
    "`",
    "\\",
    "\\%",
    "'; DROP TABLE prompt_engine_usages; --",
    "$1 ?1 :a @b {{name}}",
    "line\r\nline\ttab\u{1}\u{7f}",
    "\u{10FFFF}",
    "\u{feff}bom \u{fffd}",
    "مرحبا \u{202e}RTL",
    "e\u{301} \u{e9}",
    "null",
    "🦀👩‍👩‍👧",
];

/// All hostile texts: those, and some that only payloads take.
fn texts() -> Vec<String> {
    let mut texts: Vec<String> = SHORT.iter().map(|text| (*text).to_owned()).collect();
    texts.extend(["\0", "a\0b", "\0\0'"].map(str::to_owned));
    texts.push("x'\0é\u{10FFFF}".repeat(1 << 17));
    texts
}

/// Any text is fit for a payload, and comes back byte for byte.
pub async fn payloads_hold_any_text(fx: Fixture) {
    for text in texts() {
        let values = map(&text, text.clone());
        let (mut usage, mut execution) = call(at(0));
        usage.payload = Some(Arc::new(UsagePayload {
            parameters: values.clone(),
            content: text.clone(),
            system_message: Some(text.clone()),
            metadata: values.clone(),
        }));
        let call = ToolCall {
            id: text.clone(),
            name: text.clone(),
            arguments: text.clone(),
            signature: Some(text.clone()),
        };
        let mut message = Message::tool(text.clone(), text.clone());
        message.tool_calls = vec![call.clone(), call.clone()];
        execution.payload = Some(Arc::new(ExecutionPayload {
            messages_sent: [message, Message::user(text.clone())].into(),
            settings: values.clone(),
            response_content: Some(text.clone()),
            tool_calls: vec![call],
            finish_reason: Some(text.clone()),
            error_message: Some(text),
            response_metadata: values,
        }));
        all_of(&fx, usage, execution).await;
    }
}

async fn all_of(fx: &Fixture, usage: Usage, execution: LlmExecution) {
    let records = [usage.into(), execution.into()];
    fx.append(&records).await;
    all_are_stored(fx, &records).await;
}

/// An empty payload is a payload, and none is none.
pub async fn an_empty_payload_is_not_a_missing_one(fx: Fixture) {
    let (mut usage, mut execution) = call(at(0));
    usage.payload = Some(Arc::new(UsagePayload::default()));
    execution.payload = Some(Arc::new(ExecutionPayload::default()));
    all_of(&fx, usage, execution).await;
    let (mut usage, mut execution) = call(at(0));
    usage.payload = None;
    execution.payload = None;
    all_of(&fx, usage, execution).await;
    let (mut usage, mut execution) = call(at(0));
    usage.payload =
        Some(Arc::new(UsagePayload { system_message: Some(String::new()), ..Default::default() }));
    execution.payload = Some(Arc::new(ExecutionPayload {
        response_content: Some(String::new()),
        ..Default::default()
    }));
    all_of(&fx, usage, execution).await;
}

/// Numbers, nesting and the order of keys aside, JSON comes back as it was.
pub async fn payloads_hold_any_json(fx: Fixture) {
    let mut deep = json!("bottom");
    for _ in 0..60 {
        deep = json!([deep]);
    }
    let mut rng = fastrand::Rng::with_seed(61);
    let floats: Vec<f64> = (0..200).map(|_| rng.f64() * 10_f64.powi(rng.i32(-300..300))).collect();
    let value = json!({
        "u64": u64::MAX, "i64": i64::MIN, "f64": f64::MAX, "small": 5e-324, "zero": -0.0,
        "one": 1.0, "null": null, "bool": [true, false], "empty": {"": {}, "[]": []},
        "deep": deep, "floats": floats,
    });
    let Value::Object(values) = value else { panic!("an object is an object") };
    let (mut usage, mut execution) = call(at(0));
    let payload = UsagePayload { parameters: values.clone(), ..UsagePayload::default() };
    usage.payload = Some(Arc::new(UsagePayload { metadata: Map::new(), ..payload }));
    let settings = values.clone();
    let response_metadata = values;
    execution.payload = Some(Arc::new(ExecutionPayload {
        settings,
        response_metadata,
        ..ExecutionPayload::default()
    }));
    all_of(&fx, usage, execution).await;
}

/// Labels are told apart byte by byte: nothing is a wildcard, no case and no accent is folded.
pub async fn labels_are_told_apart_byte_by_byte(fx: Fixture) {
    let mut texts: Vec<Label> = SHORT.iter().map(|text| label(text)).collect();
    texts.push(label(&"é".repeat(128)));
    texts.push(label(&"é".repeat(127)));
    for text in &texts {
        let (mut usage, mut execution) = call(at(0));
        for of in [&mut usage.attribution, &mut execution.attribution] {
            of.environment = text.clone();
            of.session = Some(text.clone());
            of.user = Some(text.clone());
        }
        execution.provider = text.clone();
        execution.model = text.clone();
        execution.response_model = Some(text.clone());
        execution.priced_model = Some(text.clone());
        all_of(&fx, usage, execution).await;
    }
    for text in &texts {
        let none = Filter::default();
        let filters = [
            Filter { environment: Some(text.clone()), ..none.clone() },
            Filter { session: Some(text.clone()), ..none.clone() },
            Filter { user: Some(text.clone()), ..none.clone() },
            Filter { provider: Some(text.clone()), ..none.clone() },
            Filter { model: Some(text.clone()), ..none },
        ];
        for filter in filters {
            let query = AggregateQuery { filter: filter.clone(), ..AggregateQuery::default() };
            let rows = fx.store.aggregate(&query).await.unwrap().rows;
            assert_eq!(rows[0].measures.executions(), 1, "{query:?}");
            let query = RecordQuery { filter: filter.clone(), ..RecordQuery::default() };
            let page = fx.store.list_executions(&query).await.unwrap();
            assert_eq!(page.items.len(), 1, "{query:?}");
            assert_eq!(page.items[0].model, *text);
            let page = fx.store.list_usages(&query).await.unwrap();
            assert_eq!(page.items.len(), usize::from(!filter.needs_execution()), "{query:?}");
        }
    }
    texts.sort();
    let of = |rows: Vec<crate::AggregateRow>, key: fn(crate::GroupKey) -> Option<Label>| {
        rows.into_iter().map(|row| key(row.key).unwrap()).collect::<Vec<_>>()
    };
    let by = |dimension| AggregateQuery { group_by: vec![dimension], ..AggregateQuery::default() };
    let rows = fx.store.aggregate(&by(Dimension::Model)).await.unwrap().rows;
    assert_eq!(of(rows, |key| key.model), texts);
    let rows = fx.store.aggregate(&by(Dimension::Provider)).await.unwrap().rows;
    assert_eq!(of(rows, |key| key.provider), texts);
    let rows = fx.store.aggregate(&by(Dimension::Environment)).await.unwrap().rows;
    assert_eq!(of(rows, |key| key.environment), texts);
}

/// A prompt and its versions hold any text, too.
pub async fn prompts_hold_any_text(fx: Fixture) {
    for (n, text) in texts().into_iter().enumerate() {
        let (prompt, version) = prompt(&format!("hostile-{n}"));
        let short = label(SHORT[n % SHORT.len()]);
        let prompt = Prompt { name: text.clone(), description: Some(text.clone()), ..prompt };
        let version = PromptVersion {
            content: text.clone(),
            system_message: Some(text.clone()),
            model: Some(short),
            metadata: Value::Object(map(&text, text.clone())),
            change_description: Some(text.clone()),
            author: Some(text),
            ..version
        };
        fx.store.insert_prompt(&prompt, slice::from_ref(&version)).await.unwrap();
        assert!(fx.store.prompt(prompt.id).await.unwrap().as_ref() == Some(&prompt), "{n}");
        assert!(fx.store.version(prompt.id, 1).await.unwrap() == Some(version), "{n}");
    }
}
