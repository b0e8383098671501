//! What is logged of an answer: nothing, at any level.

use std::fmt;
use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use prompt_engine_core::LlmClient;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::{BOTH, ask, client, drain, serve};

/// Collects what is logged, whatever its level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        *self.0.lock().expect("the log") += &format!("{field}: {value:?}\n");
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut self.clone());
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn nothing_that_a_server_says_is_logged() {
    let log = Log::default();
    let _until_the_end = tracing::subscriber::set_default(log.clone());
    for answer in [
        (StatusCode::OK, r#"{"content": [{"type": "text", "text": "h0n-t3r"}]}"#),
        (StatusCode::OK, r#"{"candidates": [{"content": {"parts": [{"text": "h0n-t3r"}]}}]}"#),
        (StatusCode::UNAUTHORIZED, r#"{"error": {"message": "h0n-t3r"}}"#),
        (StatusCode::OK, "event: error\ndata: {\"error\": {\"message\": \"h0n-t3r\"}}\n\n"),
        (StatusCode::OK, "event: odd\ndata: {\"type\": \"odd\", \"text\": \"h0n-t3r\"}\n\n"),
    ] {
        let url = serve(move |_, _| answer).await;
        for api in BOTH {
            let client = client(api, &url);
            let _whatever_it_says = client.chat(&ask("hi")).await;
            let _whatever_it_says = drain(&client, &ask("hi")).await;
        }
    }
    tracing::info!("the log works");
    let logged = log.0.lock().expect("the log").clone();
    assert!(logged.contains("the log works"));
    assert!(!logged.contains("h0n-t3r"), "{logged}");
}
