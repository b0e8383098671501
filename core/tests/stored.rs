//! What of a record's payload is stored: nothing that is to be taken out, of no call that is to be
//! left out, and no more than is allowed; whatever the record, and whatever a function does.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::sync::Arc;

use fastrand::Rng;
use prompt_engine_core::conformance::arbitrary::Arbitrary;
use prompt_engine_core::testkit::{self, at, map};
use prompt_engine_core::transfer::Export;
use prompt_engine_core::{
    AggregateQuery, Engine, ErrorKind, Image, LlmExecution, MemoryStore, Message, Payloads, Record,
    RecordStore, Recorder, RecorderConfig, Redaction, Store, ToolCall, Usage,
};
use serde_json::{Map, Value, json};

/// Stores `records` by way of a recorder.
async fn stored(config: RecorderConfig, records: impl IntoIterator<Item = Record>) -> MemoryStore {
    let store = MemoryStore::new();
    let recorder = Recorder::new(Arc::new(store.clone()), config);
    for record in records {
        recorder.record(record).await.check().unwrap();
    }
    recorder.flush().await;
    store
}

/// All that a store holds.
async fn dump(store: &MemoryStore) -> String {
    let mut export = Export::new(Arc::new(store.clone()) as Arc<dyn Store>);
    let mut dump = String::new();
    while let Some(lines) = export.next().await.unwrap() {
        for line in lines {
            dump.push_str(&serde_json::to_string(&line).unwrap());
            dump.push('\n');
        }
    }
    dump
}

fn everything() -> Redaction {
    Redaction::new().emails().phones().cards().keys()
}

/// Makes secrets, and remembers of each a part that must not be found anywhere.
struct Secrets {
    rng: Rng,
    planted: Vec<String>,
}

impl Secrets {
    fn text(&mut self, length: usize) -> String {
        let letters = b"abcdefghkmnpqrstuvwxyzABCDEFGHKMNPQRSTUVWXYZ";
        let mut text: String =
            (0..length).map(|_| char::from(letters[self.rng.usize(..letters.len())])).collect();
        text.push_str(&self.rng.u32(10_000..99_999).to_string());
        text
    }

    fn secret(&mut self) -> String {
        let unique = self.text(24);
        let card = self.card();
        let digits = self.rng.u32(10_000_000..99_999_999).to_string();
        let (secret, part) = match self.rng.u8(..9) {
            0 => (format!("{unique}@example.com"), unique),
            1 => (format!("+49 151 {digits}"), digits),
            2 => (format!("(555) 123-{}", &digits[..4]), format!("123-{}", &digits[..4])),
            3 => (card.clone(), card),
            4 => (format!("sk-proj-{unique}"), unique),
            5 => (format!("ghp_{unique}"), unique),
            6 => (format!("Bearer {unique}"), unique),
            7 => (format!("eyJhbGciOiJI.{unique}.{unique}"), unique),
            _ => {
                let header = "-----BEGIN PRIVATE KEY-----\n";
                (format!("{header}{unique}\n{unique}\n-----END PRIVATE KEY-----"), unique)
            }
        };
        self.planted.push(part);
        secret
    }

    /// 16 digits that pass the check.
    fn card(&mut self) -> String {
        let mut digits = format!("4{}", self.rng.u64(10_000_000_000_000..99_999_999_999_999));
        let sum: u32 = digits
            .bytes()
            .rev()
            .enumerate()
            .map(|(index, byte)| {
                let digit = u32::from(byte - b'0');
                if index % 2 == 1 { digit } else { digit * 2 - if digit > 4 { 9 } else { 0 } }
            })
            .sum();
        digits.push_str(&((10 - sum % 10) % 10).to_string());
        digits
    }

    /// Puts a secret among the words of `text`, by itself or in JSON.
    fn plant(&mut self, text: &mut String) {
        let secret = self.secret();
        let secret = match self.rng.u8(..3) {
            0 => json!({ "to": secret }).to_string(),
            _ => secret,
        };
        let (before, after) = (["", "to ", "a\n", "(", "\t"], ["", " and", "\n", ")", ", "]);
        let (before, after) = (before[self.rng.usize(..5)], after[self.rng.usize(..5)]);
        let length = text.len();
        let place = text.floor_char_boundary(self.rng.usize(..=length));
        let tail = text.split_off(place);
        let gap = if before.is_empty() && !text.is_empty() { " " } else { "" };
        let end = if after.is_empty() && !tail.is_empty() { " " } else { "" };
        text.push_str(&format!("{gap}{before}{secret}{after}{end}{tail}"));
    }

    /// Puts secrets into every text and every object below `value`; tells where, without indices.
    fn plant_all(&mut self, value: &mut Value, path: &str, paths: &mut BTreeSet<String>) {
        match value {
            Value::String(text) if !path.ends_with(".role") => {
                self.plant(text);
                paths.insert(path.to_owned());
            }
            Value::Array(items) => {
                items.iter_mut().for_each(|item| self.plant_all(item, &format!("{path}[]"), paths));
            }
            Value::Object(fields) => {
                let open = matches!(path, "parameters" | "metadata" | "settings")
                    || path == "response_metadata";
                for (key, value) in fields.iter_mut() {
                    let name = if open { "*" } else { key };
                    self.plant_all(value, &format!("{path}.{name}"), paths);
                }
                if open {
                    let (key, number) = (self.secret(), self.card());
                    self.planted.push(number.clone());
                    let number: u64 = number.parse().unwrap();
                    fields.insert(key, json!({"deep": [[number, {"x": self.secret()}]]}));
                }
            }
            _ => {}
        }
    }

    fn plant_in(&mut self, payload: &mut Value, paths: &mut BTreeSet<String>) {
        for (name, value) in payload.as_object_mut().into_iter().flatten() {
            self.plant_all(value, name, paths);
        }
    }
}

/// A usage and its call, with something in every field.
fn full_call() -> (Usage, LlmExecution) {
    let (usage, mut execution) = testkit::call(at(0));
    let payload = Arc::make_mut(execution.payload.as_mut().unwrap());
    let call = ToolCall {
        id: "c1".to_owned(),
        name: "mail".to_owned(),
        arguments: "{}".to_owned(),
        signature: Some("s".to_owned()),
    };
    let mut message = Message::tool("c1", "done").with_image(Image::from_url("https://a.example/"));
    message.tool_calls.push(call.clone());
    payload.messages_sent = [Message::user("Hello John"), message].into();
    payload.tool_calls.push(call);
    payload.error_message = Some("refused".to_owned());
    payload.settings = map("tools", json!([{"name": "mail"}]));
    payload.response_metadata = map("request_id", "r1");
    (usage, execution)
}

#[tokio::test]
async fn no_secret_is_stored_wherever_it_is() {
    let mut paths = BTreeSet::new();
    for seed in 0..200 {
        let mut secrets = Secrets { rng: Rng::with_seed(seed), planted: Vec::new() };
        let mut random = Arbitrary::new(seed, 86_400);
        let (full_usage, full_execution) = full_call();
        let usage = random.usage();
        let pending = random.pending(&usage);
        let finished = random.finished(&pending);
        let mut records = Vec::new();
        for mut usage in [full_usage, usage] {
            usage.payload = usage.payload.map(|payload| {
                let mut payload = serde_json::to_value(payload).unwrap();
                secrets.plant_in(&mut payload, &mut paths);
                serde_json::from_value(payload).unwrap()
            });
            records.push(Record::from(usage));
        }
        for mut execution in [full_execution, pending, finished] {
            execution.payload = execution.payload.map(|payload| {
                let mut payload = serde_json::to_value(payload).unwrap();
                secrets.plant_in(&mut payload, &mut paths);
                serde_json::from_value(payload).unwrap()
            });
            records.push(Record::from(execution));
        }
        let config = RecorderConfig::new().with_redaction(everything());
        let store = stored(config, records).await;
        let dump = dump(&store).await;
        // The first line and the last, two usages and two calls.
        assert_eq!(dump.lines().count(), 6, "seed {seed}: all are stored");
        for secret in &secrets.planted {
            let Some(at) = dump.find(secret.as_str()) else { continue };
            let before: Vec<char> = dump[..at].chars().rev().take(60).collect();
            let before: String = before.into_iter().rev().collect();
            panic!("seed {seed}: {secret} is stored, after {before:?}");
        }
    }
    let expected = [
        "content",
        "error_message",
        "finish_reason",
        "messages_sent[].content",
        "messages_sent[].images[]",
        "messages_sent[].tool_call_id",
        "messages_sent[].tool_calls[].arguments",
        "messages_sent[].tool_calls[].id",
        "messages_sent[].tool_calls[].name",
        "messages_sent[].tool_calls[].signature",
        "metadata.*",
        "parameters.*",
        "response_content",
        "response_metadata.*",
        "settings.*[].name",
        "system_message",
        "tool_calls[].arguments",
        "tool_calls[].id",
        "tool_calls[].name",
        "tool_calls[].signature",
    ];
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    assert_eq!(paths, expected, "where secrets were");
}

#[tokio::test]
async fn redaction_leaves_all_else_as_it_was() {
    let mut random = Arbitrary::new(11, 86_400);
    let mut records = Vec::new();
    for _ in 0..200 {
        let usage = random.usage();
        let pending = random.pending(&usage);
        records.push(Record::from(random.finished(&pending)));
        records.push(usage.into());
    }
    let config = RecorderConfig::new().with_redaction(Redaction::new().with(|_| None));
    let redacted = stored(config, records.clone()).await;
    let plain = stored(RecorderConfig::new(), records).await;
    assert_eq!(dump(&redacted).await, dump(&plain).await);
}

#[tokio::test]
async fn a_usage_and_its_calls_are_kept_or_left_together_and_the_share_is_right() {
    let calls: Vec<(Usage, LlmExecution)> = (0..2_000).map(|i| testkit::call(at(i))).collect();
    let records = calls.iter().cloned().flat_map(|(usage, call)| [usage.into(), call.into()]);
    let records: Vec<Record> = records.collect();
    let config = RecorderConfig::new().with_payloads(Payloads::Sampled(0.25));
    let store = stored(config.clone(), records.clone()).await;
    let mut kept = 0;
    for (usage, call) in &calls {
        let usage = store.usage(usage.id).await.unwrap().unwrap();
        let call = store.execution(call.id).await.unwrap().unwrap();
        assert_eq!(usage.payload.is_some(), call.payload.is_some());
        kept += u32::from(usage.payload.is_some());
    }
    assert!((400..600).contains(&kept), "{kept} of 2000");
    assert_eq!(dump(&store).await, dump(&stored(config, records.clone()).await).await);
    for (share, payloads) in [(0.0, false), (1.0, true), (f64::NAN, false)] {
        let config = RecorderConfig::new().with_payloads(Payloads::Sampled(share));
        let store = stored(config, records.clone()).await;
        let usage = store.usage(calls[0].0.id).await.unwrap().unwrap();
        assert_eq!(usage.payload.is_some(), payloads, "{share}");
    }
}

#[tokio::test]
async fn metrics_only_stores_no_text_and_the_same_sums() {
    let mut random = Arbitrary::new(3, 86_400);
    let mut records = Vec::new();
    for _ in 0..50 {
        let usage = random.usage();
        let pending = random.pending(&usage);
        records.push(Record::from(random.finished(&pending)));
        records.push(usage.into());
    }
    let config = RecorderConfig::new().with_payloads(Payloads::MetricsOnly);
    let store = stored(config, records.clone()).await;
    let all = stored(RecorderConfig::new(), records).await;
    assert!(dump(&all).await.contains("\"payload\":{"));
    assert!(!dump(&store).await.contains("\"payload\":{"));
    let sums = |store: MemoryStore| async move {
        store.aggregate(&AggregateQuery::default()).await.unwrap().rows
    };
    assert_eq!(sums(store).await, sums(all).await);
}

#[tokio::test]
async fn a_call_that_failed_may_keep_its_payload() {
    let usage = testkit::usage(at(0));
    let call = || testkit::pending(&usage, at(0));
    let (failed, succeeded) = (testkit::failed(&call()), testkit::finished(&call()));
    let config = RecorderConfig::new().with_payloads(Payloads::MetricsOnly).with_failed_payloads();
    let records: [Record; 3] =
        [usage.clone().into(), failed.clone().into(), succeeded.clone().into()];
    let store = stored(config, records).await;
    assert_eq!(store.execution(failed.id).await.unwrap(), Some(failed));
    assert_eq!(store.execution(succeeded.id).await.unwrap().unwrap().payload, None);
    assert_eq!(store.usage(usage.id).await.unwrap().unwrap().payload, None);
}

#[tokio::test]
async fn a_long_payload_is_cut_after_it_is_redacted() {
    let secret = "ann@example.com ";
    let mut usage = testkit::usage(at(0));
    Arc::make_mut(usage.payload.as_mut().unwrap()).content = secret.repeat(1_000);
    let short = testkit::usage(at(0));
    let config = RecorderConfig::new()
        .with_redaction(Redaction::new().emails())
        .with_max_payload_bytes(2_000);
    let store = stored(config, [usage.clone().into(), short.clone().into()]).await;
    let payload = store.usage(usage.id).await.unwrap().unwrap().payload.unwrap();
    let content = &payload.content;
    let kept = content.find('…').expect("a mark");
    let gone = "[email] ".len() * 1_000 - kept;
    assert_eq!(*content, format!("{}…[cut: {gone} bytes]", &"[email] ".repeat(1_000)[..kept]));
    assert!((1_000..2_000).contains(&content.len()), "{}", content.len());
    assert_eq!(store.usage(short.id).await.unwrap(), Some(short), "a short one is whole");
}

#[tokio::test]
async fn a_record_that_the_queue_must_cut_is_redacted_first() {
    let mut usage = testkit::usage(at(0));
    // Whatever is cut, most of the places are within an address.
    Arc::make_mut(usage.payload.as_mut().unwrap()).content =
        "a-very-long-name@example.com ".repeat(1_000);
    let config =
        RecorderConfig::new().with_redaction(Redaction::new().emails()).with_queue_bytes(4_096);
    let store = stored(config.clone(), [usage.clone().into()]).await;
    let payload = store.usage(usage.id).await.unwrap().unwrap().payload.unwrap();
    let content = &payload.content;
    assert!(content.starts_with("[email] [email]") && content.contains("[cut: "), "{content}");
    assert!(!content.contains("name"), "{content}");

    // The same where a reservation is too small and the queue is full.
    let store = MemoryStore::new();
    let recorder = Recorder::new(Arc::new(store.clone()), config);
    let (first, second) = (recorder.reserve(2_048).await.unwrap(), recorder.reserve(2_048).await);
    let _ = first.finish(usage.clone().into());
    drop(second);
    recorder.flush().await;
    let payload = store.usage(usage.id).await.unwrap().unwrap().payload.unwrap();
    let content = &payload.content;
    assert!(content.contains("[cut: ") && !content.contains("name"), "{content}");
}

#[tokio::test]
async fn a_redaction_that_panics_costs_a_payload_and_nothing_else() {
    let redaction = Redaction::new().with(|text| {
        assert!(!text.contains("boom"), "a function of the user");
        None
    });
    let calls: Vec<(Usage, LlmExecution)> = (0..3).map(|i| testkit::call(at(i))).collect();
    let mut broken = calls[1].clone();
    Arc::make_mut(broken.0.payload.as_mut().unwrap()).system_message = Some("boom".to_owned());
    Arc::make_mut(broken.1.payload.as_mut().unwrap()).error_message = Some("boom".to_owned());
    let records = [calls[0].clone(), broken.clone(), calls[2].clone()];
    let records = records.into_iter().flat_map(|(usage, call)| [usage.into(), call.into()]);
    let store = stored(RecorderConfig::new().with_redaction(redaction), records).await;
    for (usage, call) in [&calls[0], &calls[2]] {
        assert_eq!(store.usage(usage.id).await.unwrap().as_ref(), Some(usage));
        assert_eq!(store.execution(call.id).await.unwrap().as_ref(), Some(call));
    }
    let marker = map("not_kept", "[not kept: the redaction panicked]");
    let usage = store.usage(broken.0.id).await.unwrap().unwrap().payload.unwrap();
    assert_eq!((&usage.metadata, usage.content.as_str()), (&marker, ""));
    let call = store.execution(broken.1.id).await.unwrap().unwrap();
    assert_eq!(call.cost, broken.1.cost);
    let payload = call.payload.unwrap();
    assert_eq!((&payload.response_metadata, payload.messages_sent.len()), (&marker, 0));
}

#[tokio::test]
async fn json_that_is_too_deep_to_store_is_not_walked() {
    let mut usage = testkit::usage(at(0));
    let mut deep = json!("ann@example.com");
    for _ in 0..1_000 {
        deep = json!([deep]);
    }
    Arc::make_mut(usage.payload.as_mut().unwrap()).metadata =
        Map::from_iter([("deep".to_owned(), deep)]);
    let config = RecorderConfig::new().with_redaction(Redaction::new().emails());
    let store = stored(config, [usage.clone().into()]).await;
    let payload = store.usage(usage.id).await.unwrap().unwrap().payload.unwrap();
    let reason = payload.metadata["not_kept"].as_str().unwrap();
    assert!(reason.contains("nested deeper than 100 levels"), "{reason}");
}

#[tokio::test]
async fn a_share_that_is_none_is_refused() {
    for share in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        let builder = Engine::builder().payloads(Payloads::Sampled(share));
        let error = builder.build(Arc::new(MemoryStore::new())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("the share of payloads"), "{error}");
    }
}
