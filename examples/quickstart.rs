//! The snippet of the README, whole: a prompt, a render, a tracked call, and what it cost.
//! Needs OPENAI_API_KEY, or OPENAI_BASE_URL for a server of one's own.

use std::time::Duration;

use prompt_engine::openai::OpenAi;
use prompt_engine::{NewPrompt, PromptEngine, VersionDraft, params};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let engine = PromptEngine::connect("sqlite://prompts.db").await?;

    let slug = "welcome-mail".parse()?;
    if engine.prompts().get(&slug).await.is_err() {
        let version = VersionDraft {
            content: "Write a welcome mail to {{name}}.".into(),
            model: Some("gpt-4o-mini".parse()?),
            ..VersionDraft::default()
        };
        engine.prompts().create(NewPrompt::new(slug, version)).await?;
    }

    let mut client = OpenAi::new(std::env::var("OPENAI_API_KEY").unwrap_or_default().into());
    if let Ok(url) = std::env::var("OPENAI_BASE_URL") {
        client = client.with_base_url(&url)?;
    }

    let rendered =
        engine.render("welcome-mail", params! { "name" => "Ada" }).user("user-42").await?;
    let done = rendered.execute_with(&client).await?;
    println!("{}", done.reply.content.unwrap_or_default());
    println!("cost: {:?}, took {:?} ms", done.execution.cost, done.execution.latency_ms);

    let unsaved = engine.shutdown(Duration::from_secs(5)).await;
    assert_eq!(unsaved, 0, "every record is in the store");
    Ok(())
}
