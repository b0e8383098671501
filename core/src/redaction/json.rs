//! Texts in JSON: strings, numbers and keys, however deep.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// Gives `f` every text of `fields`: strings, keys, and numbers as their digits. A number that `f`
/// changes becomes a string; of keys that become the same, all but the first are numbered.
pub(crate) fn redact_map(fields: &mut Map<String, Value>, f: &mut dyn FnMut(&mut String)) {
    let mut renamed = false;
    let keys: Vec<String> = fields
        .keys()
        .map(|key| {
            let mut clean = key.clone();
            f(&mut clean);
            renamed |= clean != *key;
            clean
        })
        .collect();
    fields.values_mut().for_each(|value| redact_value(value, f));
    if renamed {
        let values = std::mem::take(fields).into_iter().map(|(_, value)| value);
        *fields = with_keys(keys.into_iter().zip(values));
    }
}

fn redact_value(value: &mut Value, f: &mut dyn FnMut(&mut String)) {
    match value {
        Value::Null | Value::Bool(_) => {}
        Value::Number(number) => {
            let digits = number.to_string();
            let mut clean = digits.clone();
            f(&mut clean);
            if clean != digits {
                *value = Value::String(clean);
            }
        }
        Value::String(text) => f(text),
        Value::Array(items) => items.iter_mut().for_each(|item| redact_value(item, f)),
        Value::Object(fields) => redact_map(fields, f),
    }
}

fn with_keys(fields: impl Iterator<Item = (String, Value)>) -> Map<String, Value> {
    let mut made = Map::new();
    let mut repeats: HashMap<String, u64> = HashMap::new();
    for (key, value) in fields {
        let mut name = key.clone();
        while made.contains_key(&name) {
            let repeat = repeats.entry(key.clone()).or_insert(1);
            *repeat += 1;
            name = format!("{key} {repeat}");
        }
        made.insert(name, value);
    }
    made
}
