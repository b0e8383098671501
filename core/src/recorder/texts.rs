//! A walk over every text of a record's payload.
//! Invariant: payloads are taken apart field by field, so a new one cannot be forgotten.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::llm::{Image, Message, ToolCall};
use crate::record::{ExecutionPayload, Record, UsagePayload};

/// What is done with a text.
pub(super) type Visit<'a> = &'a mut dyn FnMut(&mut String);

/// What is done with a JSON object, by visiting texts of it.
pub(super) type InMap = fn(&mut Map<String, Value>, Visit<'_>);

/// Visits every text of the payload; `in_map` chooses which of an object.
pub(super) fn each_text(record: &mut Record, in_map: InMap, f: Visit<'_>) {
    match record {
        Record::Usage(usage) => {
            let Some(payload) = &mut usage.payload else { return };
            let UsagePayload { parameters, content, system_message, metadata } =
                Arc::make_mut(payload);
            in_map(parameters, f);
            f(content);
            system_message.iter_mut().for_each(&mut *f);
            in_map(metadata, f);
        }
        Record::Execution(execution) => {
            let Some(payload) = &mut execution.payload else { return };
            let ExecutionPayload {
                messages_sent,
                settings,
                response_content,
                tool_calls,
                finish_reason,
                error_message,
                response_metadata,
            } = Arc::make_mut(payload);
            Arc::make_mut(messages_sent).iter_mut().for_each(|message| in_message(message, f));
            in_map(settings, f);
            response_content.iter_mut().for_each(&mut *f);
            in_tools(tool_calls, f);
            finish_reason.iter_mut().for_each(&mut *f);
            error_message.iter_mut().for_each(&mut *f);
            in_map(response_metadata, f);
        }
    }
}

fn in_message(message: &mut Message, f: Visit<'_>) {
    let Message { role: _, content, images, tool_calls, tool_call_id } = message;
    f(content);
    images.iter_mut().for_each(|Image(url)| f(url));
    in_tools(tool_calls, f);
    tool_call_id.iter_mut().for_each(f);
}

fn in_tools(calls: &mut [ToolCall], f: Visit<'_>) {
    for ToolCall { id, name, arguments, signature } in calls {
        f(id);
        f(name);
        f(arguments);
        signature.iter_mut().for_each(&mut *f);
    }
}

/// Visits the strings of an object, however deep, and leaves keys and numbers alone.
pub(super) fn strings(fields: &mut Map<String, Value>, f: Visit<'_>) {
    fields.values_mut().for_each(|value| strings_of(value, f));
}

fn strings_of(value: &mut Value, f: Visit<'_>) {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
        Value::String(text) => f(text),
        Value::Array(items) => items.iter_mut().for_each(|item| strings_of(item, f)),
        Value::Object(fields) => strings(fields, f),
    }
}
