//! A service on axum that embeds the engine: it greets, and says what its greetings cost.
//! Its test, below, swaps the store and the model for ones in memory.
//!
//! Run it with `cargo run --example service --features openai`, OPENAI_API_KEY (or OPENAI_BASE_URL)
//! and, where the records shall be kept elsewhere, STORE; then
//! `curl -X POST 127.0.0.1:3000/greetings/Ada` and `curl 127.0.0.1:3000/stats`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use prompt_engine::openai::OpenAi;
use prompt_engine::{
    ErrorKind, LlmClient, NewPrompt, PromptEngine, StatsQuery, VersionDraft, params,
};
use serde_json::{Value, json};

#[derive(Clone)]
struct Service {
    engine: PromptEngine,
    model: Arc<dyn LlmClient>,
}

type Answer = Result<Json<Value>, (StatusCode, String)>;

impl Service {
    /// The service over an engine; the prompt is made where it is missing.
    async fn new(engine: PromptEngine, model: Arc<dyn LlmClient>) -> prompt_engine::Result<Self> {
        let slug = "greeting".parse()?;
        let there = engine.prompts().get(&slug).await;
        if there.is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            let version = VersionDraft {
                content: "Write one friendly sentence to {{name}}.".into(),
                model: Some("gpt-4o-mini".parse()?),
                ..VersionDraft::default()
            };
            engine.prompts().create(NewPrompt::new(slug, version)).await?;
        }
        Ok(Self { engine, model })
    }

    fn router(self) -> Router {
        Router::new()
            .route("/greetings/{name}", post(greet))
            .route("/stats", get(stats))
            .with_state(self)
    }
}

async fn greet(State(service): State<Service>, Path(name): Path<String>) -> Answer {
    let rendered = service.engine.render("greeting", params! { "name" => name }).await;
    let rendered = rendered.map_err(answer)?;
    let done = rendered.execute_with(&service.model).await;
    let done = done.map_err(|error| (StatusCode::BAD_GATEWAY, error.to_string()))?;
    Ok(Json(json!({ "greeting": done.reply.content, "call": done.execution.id })))
}

async fn stats(State(service): State<Service>) -> Answer {
    let stats = service.engine.analytics().usage_stats(&StatsQuery::default()).await;
    Ok(Json(json!(stats.map_err(answer)?)))
}

/// What a caller is told: the sentence of an error, and nothing of what caused it.
fn answer(error: prompt_engine::Error) -> (StatusCode, String) {
    let status = match error.kind() {
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, error.to_string())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = std::env::var("STORE").unwrap_or_else(|_| "sqlite://service.db".into());
    let engine = PromptEngine::connect(&store).await?;
    let mut model = OpenAi::new(std::env::var("OPENAI_API_KEY").unwrap_or_default().into());
    if let Ok(url) = std::env::var("OPENAI_BASE_URL") {
        model = model.with_base_url(&url)?;
    }
    let router = Service::new(engine.clone(), Arc::new(model)).await?.router();

    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    let stop = async { drop(tokio::signal::ctrl_c().await) };
    axum::serve(listener, router).with_graceful_shutdown(stop).await?;

    let unsaved = engine.shutdown(Duration::from_secs(5)).await;
    if unsaved > 0 {
        eprintln!("{unsaved} records could not be saved");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prompt_engine::testkit::{Act, Scripted, reply};

    use super::*;

    #[tokio::test]
    async fn a_greeting_is_answered_and_counted() {
        // The one line that swaps the store.
        let engine = PromptEngine::connect("memory:").await.unwrap();
        let model = Arc::new(Scripted::new([Act::Reply(reply("Hello, Ada!"))]));
        let service = Service::new(engine, model).await.unwrap();

        let Json(answer) = greet(State(service.clone()), Path("Ada".into())).await.unwrap();
        assert_eq!(answer["greeting"], "Hello, Ada!");
        service.engine.flush().await;
        let Json(stats) = stats(State(service)).await.unwrap();
        assert_eq!((&stats["total_uses"], &stats["total_executions"]), (&json!(1), &json!(1)));
    }
}
