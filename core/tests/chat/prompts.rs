//! Rendered prompts that are executed with a chat, and with what else can execute them.

use std::sync::Arc;

use prompt_engine_core::testkit::{Act, Scripted, reply};
use prompt_engine_core::{
    Chat, ChatReply, ChatRequest, ChatStream, ErrorCategory, LlmClient, LlmError, Message,
    RecordQuery, Recorded, Status, tool_fn,
};
use serde_json::json;

use crate::support::{calls, error, executions, fail, rendered, say, spec};

#[tokio::test]
async fn a_tool_loop_of_three_turns_is_one_usage_and_three_executions() {
    let (engine, rendered) = rendered().await;
    let client = Arc::new(Scripted::new([
        Act::Reply(calls("t", "1")),
        Act::Reply(calls("t", "2")),
        say("Done"),
    ]));
    let mut chat = Chat::new(Arc::clone(&client), "gpt-4o-mini")
        .with_instructions("Be brief.")
        .with_tool(tool_fn(spec("t"), async |n| Ok(n.to_string())));
    chat.add_message(Message::user("Before"));
    let before = chat.messages().to_vec();
    let run = rendered.execute_with(&chat).metadata(json!({"source": "api"})).await.unwrap();
    assert_eq!(run.text(), "Done");
    assert_eq!(chat.messages(), before, "the chat stays as it is");
    assert_eq!(run.messages.len(), 5, "two calls, two results, one answer");

    let stored = executions(&engine).await;
    assert_eq!(stored.len() as u64, client.requests());
    let returned: Vec<_> = run.calls.iter().map(|call| call.execution.clone()).collect();
    assert_eq!(stored, returned);
    assert!(run.calls.iter().all(|call| matches!(call.recorded, Recorded::Queued)));
    assert_eq!(engine.store().list_usages(&RecordQuery::default()).await.unwrap().items.len(), 1);
    for (execution, request) in stored.iter().zip(client.seen()) {
        assert_eq!(
            (execution.usage_id, execution.model.as_str()),
            (rendered.usage_id(), "gpt-4o-mini")
        );
        let payload = execution.payload.as_ref().unwrap();
        assert_eq!(payload.messages_sent, request.messages);
        assert_eq!(payload.response_metadata["source"], "api");
        assert_eq!(payload.settings["tools"][0]["name"], "t");
    }
    let sent = [Message::system("Be brief."), Message::user("Before")];
    assert_eq!(*client.seen()[0].messages, [&sent[..], &rendered.messages()].concat());
    assert_eq!(client.seen()[2].messages[4..], run.messages[..4]);
    assert!(stored[0].payload.as_ref().unwrap().tool_calls[0].signature.is_some());
}

#[tokio::test]
async fn what_the_chat_sets_wins_and_the_prompt_fills_in_the_rest() {
    let (_engine, rendered) = rendered().await;
    let client = Arc::new(Scripted::new([say("a"), say("b")]));
    let chat = Chat::new(Arc::clone(&client), "own");
    rendered.execute_with(&chat).await.unwrap();
    let chat = chat.with_temperature(0.1).with_max_tokens(9);
    rendered.execute_with(&chat).await.unwrap();
    let settings: Vec<_> = client
        .seen()
        .into_iter()
        .map(|request| (request.model, request.temperature, request.max_tokens))
        .collect();
    let own = || "own".to_owned();
    assert_eq!(settings, [(own(), Some(0.5), Some(50)), (own(), Some(0.1), Some(9))]);
}

#[tokio::test]
async fn a_run_that_fails_says_what_was_said_and_recorded_before() {
    let (engine, rendered) = rendered().await;
    let client = Scripted::new([Act::Reply(calls("t", "")), fail(ErrorCategory::Server)]);
    let chat = Chat::new(client, "m").with_tool(tool_fn(spec("t"), async |_| Ok("1".to_owned())));
    let failed = rendered.execute_with(&chat).await.unwrap_err();
    assert_eq!((failed.category(), failed.messages().len()), (ErrorCategory::Server, 2));
    let statuses: Vec<_> = failed.calls().iter().map(|call| call.execution.status).collect();
    assert_eq!(statuses, [Status::Success, Status::Error]);
    let stored: Vec<_> = executions(&engine).await.iter().map(|call| call.id).collect();
    let returned: Vec<_> = failed.calls().iter().map(|call| call.execution.id).collect();
    assert_eq!(stored, returned);
}

#[tokio::test]
async fn a_client_behind_a_reference_or_an_arc_executes_a_prompt() {
    let (engine, rendered) = rendered().await;
    let shared: Arc<dyn LlmClient> = Arc::new(Scripted::new([say("a"), say("b"), say("c")]));
    rendered.execute_with(&shared).model("one").await.unwrap();
    rendered.execute_with(&*shared).model("two").await.unwrap();
    let plain: &dyn LlmClient = &*shared;
    rendered.execute_with(plain).option("seed", json!(1)).await.unwrap();
    let models: Vec<_> =
        executions(&engine).await.iter().map(|call| call.model.to_string()).collect();
    assert_eq!(models, ["one", "two", "gpt-4o"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_execute_prompts_with_one_chat() {
    const TASKS: usize = 50;
    let (engine, rendered) = rendered().await;
    let client = Arc::new(Echo);
    let tool = tool_fn(spec("t"), async |_| {
        tokio::task::yield_now().await;
        Ok("1".to_owned())
    });
    let chat = Arc::new(Chat::new(Arc::clone(&client), "m").with_tool(tool));
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (chat, rendered) = (Arc::clone(&chat), rendered.clone());
            tokio::spawn(async move { rendered.execute_with(&*chat).await.unwrap() })
        })
        .collect();
    let mut returned = Vec::new();
    for task in tasks {
        let run = task.await.unwrap();
        assert_eq!((run.messages.len(), run.calls.len()), (3, 2));
        returned.extend(run.calls.into_iter().map(|call| call.execution.id));
    }
    let mut stored: Vec<_> = executions(&engine).await.iter().map(|call| call.id).collect();
    stored.sort();
    returned.sort();
    assert_eq!((stored.len(), stored), (2 * TASKS, returned));
    assert!(chat.messages().is_empty());
}

/// Calls the tool `t` until it sees a result.
#[derive(Debug)]
struct Echo;

#[async_trait::async_trait]
impl LlmClient for Echo {
    fn provider(&self) -> &str {
        "echo"
    }

    async fn chat(&self, request: &ChatRequest) -> Result<ChatReply, LlmError> {
        tokio::task::yield_now().await;
        let done = request.messages.last() == Some(&Message::tool("call-t", "1"));
        Ok(if done { reply("Done") } else { calls("t", "") })
    }

    async fn stream(&self, _: &ChatRequest) -> Result<ChatStream, LlmError> {
        Err(error(ErrorCategory::Other))
    }
}
