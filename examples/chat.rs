//! A chat that uses a tool: asked on its own, then with a prompt whose every call is recorded.
//!
//! It runs as it is, `cargo run --example chat --features openai`, against a model server of its own
//! on loopback; with OPENAI_API_KEY it asks OpenAI.

use std::time::Duration;

use prompt_engine::openai::OpenAi;
use prompt_engine::{
    Chat, LlmClient, NewPrompt, PromptEngine, RetryPolicy, ToolSpec, VersionDraft, params, tool_fn,
};
use prompt_engine_llm::MockServer;
use serde_json::json;

const MODEL: &str = "gpt-4o-mini";

/// A chat that can look up the weather.
fn weather_chat(client: impl LlmClient) -> Chat {
    let spec = ToolSpec::new("weather", "The weather of a city, now").with_parameters(json!({
        "type": "object",
        "properties": {"input": {"type": "string", "description": "the city"}},
        "required": ["input"],
    }));
    let weather = tool_fn(spec, async |arguments| {
        let city = arguments["input"].as_str().ok_or("name the city")?;
        Ok(format!("It is sunny, 21 degrees ({city})."))
    });
    Chat::new(client, MODEL)
        .with_instructions("Be brief.")
        .with_tool(weather)
        .with_retries(RetryPolicy::default())
        .before_tool_call(|call| println!("  calls {} with {}", call.name, call.arguments))
        .on_attempt(|attempt| println!("  turn {} took {:?}", attempt.turn, attempt.latency))
}

/// Renders a prompt and executes it with the chat. Returns what was answered, and how many calls
/// that took.
async fn advise(
    engine: &PromptEngine,
    chat: &Chat,
    city: &str,
) -> Result<(String, usize), Box<dyn std::error::Error>> {
    let version = VersionDraft {
        content: "What should I wear in {{city}} today? [tool]".into(),
        ..VersionDraft::default()
    };
    engine.prompts().create(NewPrompt::new("clothes".parse()?, version)).await?;

    let rendered = engine.render("clothes", params! { "city" => city }).user("user-42").await?;
    let run = rendered.execute_with(chat).await?;
    for call in &run.calls {
        let cost = call.execution.cost.and_then(|cost| cost.usd());
        let cost = cost.map_or("an unknown amount".to_owned(), |usd| format!("{usd} dollars"));
        println!("  call {} cost {cost}", call.execution.id);
    }
    Ok((run.text().to_owned(), run.calls.len()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = MockServer::start()?;
    let client = match std::env::var("OPENAI_API_KEY") {
        Ok(key) => OpenAi::new(key.into()),
        Err(_) => OpenAi::new("none".into()).with_base_url(&server.base_url())?,
    };
    let mut chat = weather_chat(client);

    // The server on loopback calls a tool where a message says so in square brackets.
    let question = "What is the weather in Paris? [tool]";
    let answer = chat.ask(question).on_text(|text| print!("{text}")).await?;
    println!("\n  {} messages were added", answer.messages.len());

    let engine = PromptEngine::connect("memory:").await?;
    let (advice, calls) = advise(&engine, &chat, "Oslo").await?;
    println!("{advice}\n  {calls} calls under one usage");
    let unsaved = engine.shutdown(Duration::from_secs(5)).await;
    assert_eq!(unsaved, 0, "every record is in the store");
    Ok(())
}

#[cfg(test)]
mod tests {
    use prompt_engine::StatsQuery;

    use super::*;

    #[tokio::test]
    async fn the_weather_is_looked_up_and_every_call_is_counted() {
        let server = MockServer::start().unwrap();
        let client = OpenAi::new("none".into()).with_base_url(&server.base_url()).unwrap();
        let mut chat = weather_chat(client);
        let answer = chat.ask("The weather in Paris? [tool]").on_text(|_| {}).await.unwrap();
        assert!(answer.text().contains("It is sunny, 21 degrees"), "{}", answer.text());
        assert_eq!(chat.messages().len(), 4);

        let engine = PromptEngine::connect("memory:").await.unwrap();
        let (advice, calls) = advise(&engine, &chat, "Oslo").await.unwrap();
        assert!(advice.contains("Oslo"), "{advice}");
        engine.flush().await;
        let stats = engine.analytics().usage_stats(&StatsQuery::default()).await.unwrap();
        assert_eq!((calls, stats.total_uses, stats.total_executions), (2, Some(1), 2));
        assert_eq!(server.requests(), 4);
    }
}
