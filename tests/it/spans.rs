//! Spans: what a call leaves in a trace, in the words of OpenTelemetry's GenAI conventions.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};

use prompt_engine::{ErrorCategory, LlmError, Payloads, PromptEngine, Redaction, params};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::support::{Act, Scripted, engine, engine_with, reply};

type Fields = BTreeMap<String, String>;

/// Collects the fields of spans: as much of a subscriber as a test needs.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Fields>>>);

struct Into<'a>(&'a mut Fields);

impl Visit for Into<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

impl Subscriber for Spans {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields::new();
        span.record(&mut Into(&mut fields));
        let mut spans = self.0.lock().unwrap();
        spans.push(fields);
        Id::from_u64(u64::try_from(spans.len()).unwrap())
    }
    fn record(&self, id: &Id, values: &Record<'_>) {
        let index = usize::try_from(id.into_u64() - 1).unwrap();
        values.record(&mut Into(&mut self.0.lock().unwrap()[index]));
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// All spans of the process: with a subscriber of one thread only, a callsite that another test
/// meets first would be off. The spans of tests are told apart by their model.
fn spans() -> Spans {
    static SPANS: OnceLock<Spans> = OnceLock::new();
    let start = || {
        let spans = Spans::default();
        tracing::subscriber::set_global_default(spans.clone()).unwrap();
        spans
    };
    SPANS.get_or_init(start).clone()
}

/// The calls of `model`, oldest first.
fn calls(spans: &Spans, model: &str) -> Vec<Fields> {
    let of_model = |span: &&Fields| span.get("gen_ai.request.model").is_some_and(|of| of == model);
    spans.0.lock().unwrap().iter().filter(of_model).cloned().collect()
}

#[tokio::test]
async fn a_call_leaves_a_span_with_its_model_its_tokens_and_its_failure() {
    let spans = spans();
    let engine = engine().await;
    let slow = LlmError::new(ErrorCategory::RateLimit, "slow down");
    let client = Scripted::new([Act::Reply(reply("Hello!")), Act::Fail(slow)]);
    let rendered = engine.render("greet", params! { "name" => "A" }).model("seen").await.unwrap();
    rendered.execute_with(&client).await.unwrap();
    rendered.execute_with(&client).await.unwrap_err();

    let calls = calls(&spans, "seen");
    let mut calls = calls.iter();
    let expected = |pairs: &[(&str, &str)]| -> Fields {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    assert_eq!(
        calls.next(),
        Some(&expected(&[
            ("otel.name", "chat seen"),
            ("gen_ai.operation.name", "chat"),
            ("gen_ai.provider.name", "openai"),
            ("gen_ai.request.model", "seen"),
            ("gen_ai.response.model", "gpt-4o-2024-08-06"),
            ("gen_ai.response.finish_reasons", "[\"stop\"]"),
            ("gen_ai.usage.input_tokens", "1000"),
            ("gen_ai.usage.output_tokens", "100"),
            ("gen_ai.usage.cache_read.input_tokens", "400"),
        ]))
    );
    assert_eq!(
        calls.next(),
        Some(&expected(&[
            ("otel.name", "chat seen"),
            ("gen_ai.operation.name", "chat"),
            ("gen_ai.provider.name", "openai"),
            ("gen_ai.request.model", "seen"),
            ("error.type", "rate_limit"),
        ]))
    );
}

#[tokio::test]
async fn a_text_of_a_span_is_redacted_once() {
    let _spans = spans();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let texts = Arc::clone(&seen);
    let redaction = Redaction::new().with(move |text| {
        texts.lock().unwrap().push(text.to_owned());
        None
    });
    // Nothing is stored of a payload, so what is redacted is redacted for the span.
    let settings = PromptEngine::builder().capture_content().payloads(Payloads::MetricsOnly);
    let engine = engine_with(settings.redact(redaction)).await;
    let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    let client = Scripted::new([Act::Reply(reply("Good day"))]);
    rendered.execute_with(&client).await.unwrap();
    engine.flush().await;
    let seen = seen.lock().unwrap();
    for text in [rendered.content(), "Good day"] {
        assert_eq!(seen.iter().filter(|seen| *seen == text).count(), 1, "{text}: {seen:?}");
    }
}

#[tokio::test]
async fn texts_are_shown_where_they_are_asked_for_and_without_secrets() {
    let spans = spans();
    let settings = PromptEngine::builder().capture_content();
    let redaction = Redaction::new().emails().with(|text| {
        assert!(!text.contains("boom"), "a function of the user");
        None
    });
    let engine = engine_with(settings.redact(redaction)).await;
    let answers = ["Write to ann@example.com", "boom"].map(|text| Act::Reply(reply(text)));
    let client = Scripted::new(answers);
    let params = params! { "name" => "bob@example.com" };
    let rendered = engine.render("greet", params).model("shown").await.unwrap();
    let done = rendered.execute_with(&client).await.unwrap();
    assert_eq!(done.reply.content.as_deref(), Some("Write to ann@example.com"));
    rendered.execute_with(&client).await.unwrap();

    let calls = calls(&spans, "shown");
    let sent = &calls[0]["gen_ai.input.messages"];
    assert!(sent.contains("Hello [email]") && sent.contains("Be kind to [email]."), "{sent}");
    assert_eq!(calls[0]["gen_ai.output.messages"], "Write to [email]");
    assert_eq!(
        calls[1].get("gen_ai.output.messages"),
        None,
        "a redaction that panics shows nothing"
    );
}
