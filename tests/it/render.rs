//! Rendering: versions, statuses, overrides, refusals, and the Usage that is recorded.

use std::sync::Arc;
use std::time::Duration;

use prompt_engine::{
    Activation, ErrorKind, MemoryStore, Message, NewPrompt, PromptEngine, PromptStatus,
    PromptUpdate, RecordQuery, Recorded, Slug, Store, VersionDraft, params,
};
use serde_json::json;

use crate::support::{engine, engine_over, engine_with};

fn slug() -> Slug {
    "greet".parse().unwrap()
}

fn says(content: &str) -> VersionDraft {
    VersionDraft { content: content.to_owned(), ..VersionDraft::default() }
}

#[tokio::test]
async fn a_render_fills_both_texts_and_is_recorded_as_one_usage() {
    let engine = engine().await;
    let rendered = engine
        .render("greet", params! { "name" => "Ann" })
        .session("s1")
        .user("u1")
        .environment("production")
        .metadata(json!({ "source": "api" }))
        .await
        .unwrap();
    assert_eq!(rendered.content(), "Hello Ann");
    let expected = vec![Message::system("Be kind to Ann."), Message::user("Hello Ann")];
    assert_eq!(rendered.messages(), expected);
    assert_eq!(
        rendered.to_openai_params(),
        json!({
            "model": "gpt-4o",
            "messages": [
                { "role": "system", "content": "Be kind to Ann." },
                { "role": "user", "content": "Hello Ann" },
            ],
            "temperature": 0.5,
            "max_tokens": 50,
        })
    );

    engine.flush().await;
    let usage = engine.store().usage(rendered.usage_id()).await.unwrap().unwrap();
    assert_eq!(usage.attribution.environment.as_str(), "production");
    assert_eq!(usage.attribution.session.as_deref(), Some("s1"));
    assert_eq!(usage.attribution.user.as_deref(), Some("u1"));
    let payload = usage.payload.unwrap();
    assert_eq!(payload.content, "Hello Ann");
    assert_eq!(payload.parameters["name"], "Ann");
    assert_eq!(payload.metadata["source"], "api");
    assert!(payload.metadata.contains_key("prompt_engine"));
    let usages = engine.store().list_usages(&RecordQuery::default()).await.unwrap();
    assert_eq!(usages.items.len(), 1);
}

#[tokio::test]
async fn values_are_not_scanned_again() {
    let engine = engine().await;
    let rendered = engine.render("greet", params! { "name" => "{{name}} {{x}}" }).await.unwrap();
    assert_eq!(rendered.content(), "Hello {{name}} {{x}}");
}

#[tokio::test]
async fn a_bad_value_is_refused_by_the_name_of_its_parameter_and_records_nothing() {
    let engine = engine().await;
    let missing = engine.render("greet", params! {}).await.unwrap_err();
    assert!(missing.to_string().contains("name"), "{missing}");
    let extra = engine.render("greet", params! { "name" => "A", "nmae" => "B" }).await.unwrap_err();
    assert!(extra.to_string().contains("nmae"), "{extra}");
    let typed = engine.render("greet", params! { "name" => 3 }).await.unwrap_err();
    assert!(typed.to_string().contains("name"), "{typed}");
    assert_eq!(typed.kind(), ErrorKind::Invalid);
    engine.flush().await;
    let usages = engine.store().list_usages(&RecordQuery::default()).await.unwrap();
    assert!(usages.items.is_empty());
}

#[tokio::test]
async fn an_unknown_prompt_and_an_unknown_version_are_named() {
    let engine = engine().await;
    let error = engine.render("gone", params! {}).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().contains("gone")), (ErrorKind::NotFound, true));
    let error = engine.render("greet", params! { "name" => "A" }).version(7).await.unwrap_err();
    assert!(error.to_string().contains("version 7"), "{error}");
}

#[tokio::test]
async fn a_new_version_is_rendered_at_once_and_an_older_one_on_request() {
    let engine = engine().await;
    engine.render("greet", params! { "name" => "A" }).await.unwrap();
    engine.prompts().add_version(&slug(), says("Hi {{name}}"), Activation::Activate).await.unwrap();
    let now = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    assert_eq!((now.version(), now.content()), (2, "Hi A"));
    let old = engine.render("greet", params! { "name" => "A" }).version(1).await.unwrap();
    assert_eq!((old.version(), old.content()), (1, "Hello A"));

    engine.prompts().activate(&slug(), 1).await.unwrap();
    let back = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    assert_eq!(back.version(), 1);

    let (_, restored) = engine.prompts().restore(&slug(), 2).await.unwrap();
    assert_eq!((restored.number, restored.content.as_str()), (3, "Hi {{name}}"));
}

#[tokio::test]
async fn a_draft_and_an_archived_prompt_are_rendered_only_when_asked_for() {
    let engine = engine().await;
    let draft = NewPrompt { draft: true, ..NewPrompt::new("d".parse().unwrap(), says("draft")) };
    engine.prompts().create(draft).await.unwrap();
    let error = engine.render("d", params! {}).await.unwrap_err();
    assert!(error.to_string().contains("draft"), "{error}");
    let rendered = engine.render("d", params! {}).status(PromptStatus::Draft).await.unwrap();
    assert_eq!(rendered.content(), "draft");
    assert_eq!(engine.render("d", params! {}).version(1).await.unwrap().content(), "draft");

    engine.prompts().archive(&slug()).await.unwrap();
    let error = engine.render("greet", params! { "name" => "A" }).await.unwrap_err();
    assert!(error.to_string().contains("archived"), "{error}");
    engine.render("greet", params! { "name" => "A" }).version(1).await.unwrap();
}

#[tokio::test]
async fn a_draft_version_waits_and_leaves_the_active_one_as_it_is() {
    let engine = engine().await;
    let draft = says("Hey {{name}}, {{extra}}");
    engine.prompts().add_version(&slug(), draft, Activation::Draft).await.unwrap();
    let now = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    assert_eq!(now.version(), 1);
    let asked = engine.render("greet", params! { "name" => "A", "extra" => "x" }).version(2).await;
    assert_eq!(asked.unwrap().content(), "Hey A, x");
}

#[tokio::test]
async fn an_edit_keeps_what_is_known_of_the_parameters() {
    let engine = engine().await;
    let mut parameters = engine.prompts().get(&slug()).await.unwrap().parameters;
    parameters[0].required = false;
    parameters[0].default = Some("friend".into());
    let update = PromptUpdate { parameters: Some(parameters), ..PromptUpdate::default() };
    engine.prompts().update(&slug(), update).await.unwrap();
    let edit = says("Dear {{name}}, {{item_count}} things");
    engine.prompts().add_version(&slug(), edit, Activation::Activate).await.unwrap();
    let rendered = engine.render("greet", params! { "item_count" => 3 }).await.unwrap();
    assert_eq!(rendered.content(), "Dear friend, 3 things");
}

#[tokio::test]
async fn of_two_writers_who_saw_the_same_prompt_one_makes_version_2() {
    let engine = engine().await;
    let seen = engine.prompts().get(&slug()).await.unwrap();
    let prompts = engine.prompts();
    let (a, b) = tokio::join!(
        prompts.add_version_to(seen.clone(), says("a"), Activation::Activate),
        prompts.add_version_to(seen, says("b"), Activation::Activate),
    );
    let lost = match (a, b) {
        (Ok(_), Err(error)) | (Err(error), Ok(_)) => error,
        both => panic!("{both:?}"),
    };
    assert_eq!(lost.kind(), ErrorKind::Conflict);
    assert_eq!(prompts.versions(&slug()).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_duplicate_slug_is_refused_by_name() {
    let engine = engine().await;
    let error = engine.prompts().create(NewPrompt::new(slug(), says("x"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("greet"), "{error}");
}

#[tokio::test]
async fn overrides_replace_the_settings_of_the_version() {
    let engine = engine().await;
    let rendered = engine
        .render("greet", params! { "name" => "A" })
        .model("o3")
        .temperature(1.5)
        .max_tokens(9)
        .await
        .unwrap();
    let settings = (rendered.model(), rendered.temperature(), rendered.max_tokens());
    assert_eq!(settings, (Some("o3"), Some(1.5), Some(9)));
    let error = engine.render("greet", params! { "name" => "A" }).temperature(7.0).await;
    assert!(error.unwrap_err().to_string().contains("temperature"));
}

#[tokio::test]
async fn a_durable_render_says_that_it_is_committed() {
    let durable = engine_with(prompt_engine::PromptEngine::builder().durable()).await;
    let rendered = durable.render("greet", params! { "name" => "A" }).await.unwrap();
    assert!(matches!(rendered.recorded(), Recorded::Committed));
    assert!(durable.store().usage(rendered.usage_id()).await.unwrap().is_some());

    let buffered = engine().await;
    let rendered = buffered.render("greet", params! { "name" => "A" }).await.unwrap();
    assert!(matches!(rendered.recorded(), Recorded::Queued));
}

#[tokio::test(start_paused = true)]
async fn a_change_made_elsewhere_is_seen_by_the_first_render_after_an_idle_time() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let engine = engine_over(store.clone(), PromptEngine::builder()).await;
    engine.render("greet", params! { "name" => "A" }).await.unwrap();
    let other = PromptEngine::with_store(store, PromptEngine::builder()).await.unwrap();
    other.prompts().add_version(&slug(), says("Hi {{name}}"), Activation::Activate).await.unwrap();

    let soon = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    assert_eq!(soon.version(), 1, "a prompt is fresh for ten seconds");
    tokio::time::advance(Duration::from_secs(71)).await;
    let later = engine.render("greet", params! { "name" => "A" }).await.unwrap();
    assert_eq!(later.version(), 2);
}
