//! How much memory a record takes, near enough to bound a queue by. Cheap: a walk over the
//! payload that reads lengths only. Labels are shared between records and so not counted.

use serde_json::{Map, Value};

use crate::llm::{Image, Message, ToolCall};
use crate::record::{ExecutionPayload, Record, UsagePayload};

/// What a key and its value take in a map besides their own texts: the slots of a B-tree node,
/// two thirds full.
const MAP_SLOT: usize = (size_of::<String>() + size_of::<Value>()) * 3 / 2;

/// The memory of `record` in bytes, itself included.
pub(crate) fn weight(record: &Record) -> usize {
    bare_weight(record)
        + match record {
            Record::Usage(usage) => usage.payload.as_deref().map_or(0, usage_payload),
            Record::Execution(call) => call.payload.as_deref().map_or(0, execution_payload),
        }
}

/// The same if its payload were empty.
pub(super) fn bare_weight(record: &Record) -> usize {
    let payload = match record {
        Record::Usage(usage) => usage.payload.as_ref().map(|_| size_of::<UsagePayload>()),
        Record::Execution(call) => call.payload.as_ref().map(|_| size_of::<ExecutionPayload>()),
    };
    size_of::<Record>() + payload.map_or(0, |payload| 2 * size_of::<usize>() + payload)
}

/// What `map` points to, in bytes.
pub(super) fn map(map: &Map<String, Value>) -> usize {
    map.iter().map(|(key, inner)| MAP_SLOT + key.capacity() + value(inner)).sum()
}

fn usage_payload(payload: &UsagePayload) -> usize {
    map(&payload.parameters)
        + payload.content.capacity()
        + text(payload.system_message.as_ref())
        + map(&payload.metadata)
}

fn execution_payload(payload: &ExecutionPayload) -> usize {
    payload.messages_sent.iter().map(message).sum::<usize>()
        + map(&payload.settings)
        + text(payload.response_content.as_ref())
        + tools(&payload.tool_calls)
        + text(payload.finish_reason.as_ref())
        + text(payload.error_message.as_ref())
        + map(&payload.response_metadata)
}

fn message(message: &Message) -> usize {
    size_of::<Message>()
        + message.content.capacity()
        + message.images.iter().map(|image| size_of::<Image>() + image.0.capacity()).sum::<usize>()
        + tools(&message.tool_calls)
        + text(message.tool_call_id.as_ref())
}

fn tools(calls: &[ToolCall]) -> usize {
    calls
        .iter()
        .map(|call| {
            size_of::<ToolCall>()
                + call.id.capacity()
                + call.name.capacity()
                + call.arguments.capacity()
                + text(call.signature.as_ref())
        })
        .sum()
}

fn text(text: Option<&String>) -> usize {
    text.map_or(0, String::capacity)
}

fn value(json: &Value) -> usize {
    match json {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.capacity(),
        Value::Array(items) => {
            items.capacity() * size_of::<Value>() + items.iter().map(value).sum::<usize>()
        }
        Value::Object(fields) => map(fields),
    }
}
