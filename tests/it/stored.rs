//! What is stored of a call, whichever way it came: no secret, and what the caller has is untouched.

use std::sync::Arc;

use futures::StreamExt;
use prompt_engine::transfer::Export;
use prompt_engine::{
    ChatRequest, ErrorCategory, ExecutionLog, ExecutionOutcome, Label, LlmError, MemoryStore,
    Message, PromptEngine, Redaction, Status, Store, StreamEvent, ToolCall, UsageLog, params,
};
use serde_json::{Map, Value, json};

use crate::support::{Act, Scripted, engine_over, reply};

const KEY: &str = "sk-proj-Zq7Rk29TxW4mB8vN3cLd";
const EMAIL: &str = "ann@example.com";
const PHONE: &str = "+49 151 23456789";
const CARD: &str = "4111 1111 1111 1111";

fn secret() -> String {
    format!("{KEY}, {EMAIL}, {PHONE}, {CARD}")
}

/// A reply, or the end of one, with a secret wherever there is a text.
fn secret_reply() -> prompt_engine::ChatReply {
    let mut reply = reply(&secret());
    reply.tool_calls = vec![ToolCall {
        id: secret(),
        name: secret(),
        arguments: json!({ "to": secret() }).to_string(),
        signature: Some(secret()),
    }];
    reply.finish_reason = Some(secret());
    reply.metadata = json!({ "refusal": secret(), secret(): [secret()] });
    reply
}

fn secret_error() -> LlmError {
    LlmError::new(ErrorCategory::Authentication, format!("the key {KEY} is refused"))
        .with_code(secret())
        .with_metadata(json!({ "error": { "message": secret() } }))
}

fn secret_log() -> ExecutionLog {
    let mut message = Message::user(secret())
        .with_image(prompt_engine::Image::from_url(format!("https://example.com/{EMAIL}")));
    message.tool_calls = secret_reply().tool_calls;
    let mut request = ChatRequest::new("gpt-4o", vec![message, Message::tool(secret(), secret())]);
    request.extra = Map::from_iter([("tools".to_owned(), json!([{ "description": secret() }]))]);
    ExecutionLog {
        provider: Label::new("openai").unwrap(),
        request,
        metadata: json!({ secret(): secret() }),
    }
}

fn everything() -> Redaction {
    Redaction::new().emails().phones().cards()
}

/// An engine that redacts, and its store.
async fn redacting() -> (PromptEngine, Arc<MemoryStore>) {
    let store = Arc::new(MemoryStore::default());
    let settings = PromptEngine::builder()
        .default_metadata(Map::from_iter([("host".to_owned(), secret().into())]))
        .redact(everything())
        .redact(Redaction::new().keys());
    (engine_over(store.clone(), settings).await, store)
}

#[tokio::test]
async fn no_secret_is_stored_whichever_way_a_call_is_recorded() {
    let (engine, store) = redacting().await;
    let started = |text: String| {
        // A piece ends within the key.
        let (first, rest) = text.split_at(KEY.len() / 2);
        let events = [
            StreamEvent::Started { model: None, id: None },
            StreamEvent::Text(first.to_owned()),
            StreamEvent::Text(rest.to_owned()),
        ];
        events.map(Ok).to_vec()
    };
    let whole = started(secret()).into_iter();
    let whole = whole.chain([Ok(StreamEvent::End(Box::new(secret_reply())))]).collect();
    let broken = started(secret()).into_iter().chain([Err(secret_error())]).collect();
    let client = Scripted::new([
        Act::Reply(secret_reply()),
        Act::Fail(secret_error()),
        Act::Stream(whole),
        Act::Stream(broken),
        Act::StreamThenHang(started(secret())),
    ]);

    // Rendered and executed.
    let render = engine.render("greet", params! { "name" => secret() });
    let rendered = render.metadata(json!({ secret(): secret() })).await.unwrap();
    assert!(rendered.content().contains(KEY));
    let tools = json!([{ "description": secret() }]);
    let execute = || rendered.execute_with(&client).option("tools", tools.clone());
    let done = execute().metadata(json!({ "from": secret() })).await.unwrap();
    assert_eq!(done.reply, secret_reply());
    assert_eq!(done.execution.payload.unwrap().response_content, Some(secret()));
    let failed = execute().await.unwrap_err();
    assert_eq!(failed.to_string(), format!("the key {KEY} is refused"));

    // Streamed to the end, to a failure, and dropped half-way.
    assert_eq!(execute().stream().await.unwrap().reply().await.unwrap(), secret_reply());
    execute().stream().await.unwrap().reply().await.unwrap_err();
    let mut half = execute().stream().await.unwrap();
    for _ in 0..3 {
        half.next().await.unwrap().unwrap();
    }
    drop(half);

    // Logged.
    let service = engine.observability();
    let log = UsageLog {
        parameters: Map::from_iter([
            (secret(), json!({ "deep": [{ secret(): secret() }] })),
            ("card".to_owned(), 4_111_111_111_111_111_u64.into()),
        ]),
        content: secret(),
        system_message: Some(secret()),
        metadata: json!({ "from": secret() }),
        ..UsageLog::default()
    };
    let slug = "greet".parse().unwrap();
    service.log_render_only(&slug, log.clone()).await.unwrap();
    let usage = service.log_usage(&slug, log).await.unwrap();
    let handle = service.log_execution(&usage, secret_log()).await;
    let outcome = ExecutionOutcome { reply: secret_reply(), ..ExecutionOutcome::default() };
    service.update_execution(handle, outcome).await.unwrap();
    let handle = service.log_execution(&usage, secret_log()).await;
    service.log_execution_error(handle, &secret_error()).await.unwrap();
    let mut handle = service.log_execution(&usage, secret_log()).await;
    handle.saw(&secret());
    drop(handle);

    engine.flush().await;
    let mut export = Export::new(store as Arc<dyn Store>);
    let (mut lines, mut markers) = (0, 0);
    while let Some(page) = export.next().await.unwrap() {
        for line in page {
            let text = serde_json::to_string(&line).unwrap();
            lines += usize::from(text.starts_with("{\"usage") || text.starts_with("{\"execution"));
            markers += text.matches("[key]").count();
            for secret in [KEY, EMAIL, PHONE, CARD, "4111111111111111"] {
                assert!(!text.contains(secret), "{secret} is in {text}");
            }
        }
    }
    assert_eq!(lines, 3 + 8, "usages and calls");
    assert!(markers > 50, "{markers}");
}

#[tokio::test]
async fn a_redaction_that_panics_fails_no_call_and_stores_no_text() {
    let store = Arc::new(MemoryStore::default());
    let redaction = Redaction::new().with(|_| panic!("a function of the user"));
    let settings = PromptEngine::builder().durable().redact(redaction);
    let engine = engine_over(store, settings).await;
    let client = Scripted::new([Act::Reply(reply("Hello!"))]);
    let rendered = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    let done = rendered.execute_with(&client).await.unwrap();
    assert_eq!(done.reply.content.as_deref(), Some("Hello!"));
    done.recorded.check().unwrap();
    let stored = engine.store().execution(done.execution.id).await.unwrap().unwrap();
    assert_eq!((stored.status, stored.cost), (Status::Success, done.execution.cost));
    let payload = stored.payload.unwrap();
    assert_eq!((payload.messages_sent.len(), &payload.response_content), (0, &None));
    let marker = Value::from("[not kept: the redaction panicked]");
    assert_eq!(payload.response_metadata["not_kept"], marker);
    let usage = engine.store().usage(rendered.usage_id()).await.unwrap().unwrap();
    assert_eq!(usage.payload.unwrap().metadata["not_kept"], marker);
}
