//! Trying prompts out: what comes back, what is recorded, and the sentence of each failure.

use prompt_engine::{
    ErrorCategory, LlmError, PlaygroundExecutor, PromptEngine, RecordQuery, Render, Status, params,
};
use serde_json::json;

use crate::support::{Act, Scripted, engine, reply};

fn greet(engine: &PromptEngine) -> Render {
    engine.render("greet", params! { "name" => "A" })
}

async fn tried_with(engine: &PromptEngine, act: Act) -> Result<String, String> {
    let client = Scripted::new([act]);
    let tried = PlaygroundExecutor::new().execute(&client, greet(engine)).await;
    tried.map(|tried| tried.response.unwrap()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_try_gives_answer_time_and_tokens_and_is_marked() {
    let engine = engine().await;
    let client = Scripted::new([Act::Reply(reply("Hello!"))]);
    let render = greet(&engine).version(1).model("gpt-4o-mini");
    let playground = PlaygroundExecutor::new().option("seed", json!(7));
    let tried = playground.execute(&client, render).await.unwrap();
    assert_eq!(tried.response.as_deref(), Some("Hello!"));
    assert_eq!((tried.provider.as_str(), tried.model.as_str()), ("openai", "gpt-4o-mini"));
    let tokens = tried.execution.tokens.unwrap();
    assert_eq!(tried.token_count, Some(tokens.input + tokens.output));
    assert_eq!(u128::from(tried.execution.latency_ms.unwrap()), tried.execution_time.as_millis());

    engine.flush().await;
    let store = engine.store();
    let stored = store.execution(tried.execution.id).await.unwrap().unwrap();
    assert_eq!(stored, tried.execution);
    assert_eq!(stored.payload.unwrap().settings["seed"], 7);
    let usage = store.usage(stored.usage_id).await.unwrap().unwrap();
    assert_eq!(usage.payload.unwrap().metadata["source"], "playground");
}

#[tokio::test]
async fn each_failure_has_its_plain_sentence_and_is_recorded() {
    let engine = engine().await;
    let cases = [
        (ErrorCategory::Authentication, "no such key", "Invalid API key"),
        (ErrorCategory::RateLimit, "429", "Rate limit exceeded. Please try again later."),
        (ErrorCategory::Network, "cannot connect to h:1", "Network error: cannot connect to h:1"),
        (ErrorCategory::Timeout, "no answer in 1s", "The model took too long: no answer in 1s"),
        (ErrorCategory::Overloaded, "overloaded", "overloaded"),
    ];
    for (category, said, sentence) in cases {
        let act = Act::Fail(LlmError::new(category, said));
        assert_eq!(tried_with(&engine, act).await.unwrap_err(), sentence);
    }
    engine.flush().await;
    let page = engine.store().list_executions(&RecordQuery::default()).await.unwrap();
    assert_eq!(page.items.len(), cases.len());
    assert!(page.items.iter().all(|execution| execution.status != Status::Success));
}

#[tokio::test]
async fn a_prompt_that_cannot_be_rendered_sends_nothing() {
    let engine = engine().await;
    let client = Scripted::new([]);
    let render = engine.render("greet", params! {});
    let error = PlaygroundExecutor::new().execute(&client, render).await.unwrap_err();
    assert!(error.to_string().contains("name"), "{error}");
    assert!(error.execution().is_none());
    assert_eq!(client.requests(), 0);
}
