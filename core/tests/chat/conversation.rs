//! What a chat sends, and what its history holds.

use std::sync::Arc;

use prompt_engine_core::testkit::{Act, Scripted, reply};
use prompt_engine_core::{
    Answer, Chat, ChatReply, ErrorCategory, Image, Message, Role, Tool, ToolCall, tool_fn,
};
use serde_json::{Value, json};

use crate::support::{Log, calls, error, fail, say, spec, written};

#[tokio::test]
async fn a_request_has_the_settings_of_the_chat_and_all_that_was_said() {
    let client = Arc::new(Scripted::new([say("Hi"), say("Fine")]));
    let schema = json!({"type": "object"});
    let mut chat = Chat::new(Arc::clone(&client), "m")
        .with_instructions("Be long.")
        .with_instructions("Be brief.")
        .with_temperature(0.2)
        .with_max_tokens(500)
        .with_schema("answer", schema.clone())
        .with_option("seed", json!(1))
        .with_tool(tool_fn(spec("t"), async |_| Ok(String::new())));
    chat.ask("Hello").await.unwrap();
    let picture = Message::user("How is this?").with_image(Image::from_url("https://x.test/a.png"));
    chat.ask(picture.clone()).option("seed", json!(2)).await.unwrap();

    let [first, second] = client.seen().try_into().unwrap();
    assert_eq!(*first.messages, [Message::system("Be brief."), Message::user("Hello")]);
    assert_eq!(
        (first.model.as_str(), first.temperature, first.max_tokens),
        ("m", Some(0.2), Some(500))
    );
    assert_eq!((first.tools, first.extra["seed"].clone()), (vec![spec("t")], json!(1)));
    let form = first.output_schema.unwrap();
    assert_eq!((form.name.as_str(), form.schema), ("answer", schema));
    assert_eq!(second.messages[1..], [Message::user("Hello"), Message::assistant("Hi"), picture]);
    assert_eq!(second.extra["seed"], 2);
    assert_eq!(chat.messages().last(), Some(&Message::assistant("Fine")));
}

#[tokio::test]
async fn tools_are_called_in_order_until_the_model_calls_none_and_the_next_question_goes_on() {
    let mut both = calls("a", r#"{"n": 1}"#);
    both.tool_calls.extend(calls("b", "").tool_calls);
    let client = Arc::new(Scripted::new([
        Act::Reply(both.clone()),
        Act::Reply(calls("a", "2")),
        say("Done"),
        say("Bye"),
    ]));
    let mut chat = Chat::new(Arc::clone(&client), "m")
        .with_tool(tool_fn(spec("a"), async |arguments| Ok(written(&arguments))))
        .with_tool(tool_fn(spec("b"), async |arguments| Ok(written(&arguments))));
    let answer = chat.ask("Go").await.unwrap();
    assert_eq!(answer.text(), "Done");
    assert!(answer.calls.is_empty(), "no prompt is executed");

    let call = |reply: &ChatReply| Message {
        tool_calls: reply.tool_calls.clone(),
        ..Message::assistant("")
    };
    let history = [
        Message::user("Go"),
        call(&both),
        Message::tool("call-a", r#"got {"n":1}"#),
        Message::tool("call-b", "got {}"),
        call(&calls("a", "2")),
        Message::tool("call-a", "got 2"),
        Message::assistant("Done"),
    ];
    assert_eq!(chat.messages(), history);
    assert_eq!(answer.messages, history[1..]);
    assert_eq!(*client.seen()[2].messages, history[..6]);
    chat.ask("Thanks").await.unwrap();
    assert_eq!(client.seen()[3].messages[..7], history);
    assert_eq!(chat.messages()[1].tool_calls[0].signature.as_deref(), Some("signed"));
}

#[tokio::test]
async fn a_tool_that_cannot_be_called_or_fails_is_an_answer_to_the_model() {
    let acts = [calls("none", "{}"), calls("a", "{no json"), calls("a", "{}"), calls("b", "{}")];
    let client = Scripted::new(acts.map(Act::Reply).into_iter().chain([say("I see")]));
    let mut chat = Chat::new(client, "m")
        .with_tool(tool_fn(spec("a"), async |_| Err("no such city".into())))
        .with_tool(tool_fn(spec("b"), async |_| panic!("in a tool")));
    assert_eq!(chat.ask("Go").await.unwrap().text(), "I see");
    let told: Vec<_> =
        chat.messages().iter().filter(|message| message.role == Role::Tool).collect();
    assert_eq!(told[0].content, "There is no tool `none`; there is a, b.");
    assert!(
        told[1].content.starts_with("The arguments of `a` are no JSON: "),
        "{}",
        told[1].content
    );
    assert_eq!(told[2].content, "The tool `a` failed: no such city");
    assert_eq!(told[3].content, "The tool `b` failed.");

    let mut bare = Chat::new(Scripted::new([Act::Reply(calls("x", "")), say("Oh")]), "m");
    bare.ask("Go").await.unwrap();
    assert_eq!(bare.messages()[2].content, "There is no tool `x`: there are no tools.");
}

#[tokio::test]
async fn a_tool_of_the_same_name_takes_the_place_of_the_one_before() {
    let tool = |text: &'static str| tool_fn(spec("t"), async move |_| Ok(text.to_owned()));
    let shared: Arc<dyn Tool> = Arc::new(tool("new"));
    let client = Arc::new(Scripted::new([Act::Reply(calls("t", "")), say("ok")]));
    let mut chat = Chat::new(Arc::clone(&client), "m").with_tool(tool("old")).with_tool(shared);
    chat.ask("Go").await.unwrap();
    assert_eq!(client.seen()[0].tools.len(), 1);
    assert_eq!(chat.messages()[2].content, "new");
}

#[tokio::test]
async fn a_model_that_never_stops_calling_tools_is_stopped_and_the_history_is_kept() {
    let client = Arc::new(Scripted::new(
        std::iter::repeat_n(Act::Reply(calls("t", "")), 3).chain([say("Enough")]),
    ));
    let mut chat = Chat::new(Arc::clone(&client), "m")
        .with_tool(tool_fn(spec("t"), async |_| Ok("more".to_owned())))
        .with_tool_limit(2);
    let error = chat.ask("Go").await.unwrap_err();
    assert_eq!((error.tool_limit(), error.category()), (Some(2), ErrorCategory::Other));
    assert!(error.to_string().contains("2 turns"), "{error}");
    assert_eq!((client.requests(), error.messages().len()), (3, 4));
    assert_eq!(chat.messages().len(), 5, "the question and two whole turns");
    assert_eq!(chat.messages().last(), Some(&Message::tool("call-t", "more")));

    assert_eq!(chat.complete().await.unwrap().text(), "Enough");
    assert_eq!(*client.seen()[3].messages, chat.messages()[..5]);
}

#[tokio::test]
async fn a_question_that_fails_leaves_no_half_turn_behind() {
    let client = Scripted::new([
        fail(ErrorCategory::Server),
        Act::Reply(calls("t", "")),
        fail(ErrorCategory::Server),
        say("At last"),
    ]);
    let mut chat =
        Chat::new(client, "m").with_tool(tool_fn(spec("t"), async |_| Ok("1".to_owned())));
    let failed = chat.ask("Go").await.unwrap_err();
    assert_eq!(failed.error().unwrap().message(), error(ErrorCategory::Server).message());
    assert!(chat.messages().is_empty(), "it can be asked again");
    let failed = chat.ask("Go").await.unwrap_err();
    assert_eq!(failed.messages(), &chat.messages()[1..]);
    assert_eq!(chat.messages().len(), 3, "the question and one whole turn");
    assert_eq!(chat.complete().await.unwrap().text(), "At last");
    assert_eq!(chat.messages().len(), 4);
}

#[tokio::test]
async fn all_listeners_of_an_event_are_told_in_order_and_one_that_panics_harms_nobody() {
    let log = Log::default();
    let tell = |line: &'static str| {
        let log = log.clone();
        move || log.add(line.to_owned())
    };
    let name = |call: &ToolCall| call.name.clone();
    let (a, b, c, d) = (log.clone(), log.clone(), log.clone(), log.clone());
    let mut chat = Chat::new(Scripted::new([Act::Reply(calls("t", "")), say("ok")]), "m")
        .with_tool(tool_fn(spec("t"), async |_| Ok("1".to_owned())))
        .before_message(tell("first"))
        .before_message(|| panic!("in a listener"))
        .before_message(tell("second"))
        .after_message(move |message| a.add(format!("said by {}", message.role)))
        .before_tool_call(move |call| b.add(format!("calls {}", name(call))))
        .after_tool_result(move |call, result| c.add(format!("{} gave {result}", call.name)))
        .on_attempt(|_| panic!("in a listener"))
        .on_attempt(move |attempt| d.add(format!("attempt in turn {}", attempt.turn)));
    chat.ask("Go").await.unwrap();
    let lines = [
        "first",
        "second",
        "attempt in turn 1",
        "said by assistant",
        "calls t",
        "first",
        "second",
        "t gave 1",
        "said by tool",
        "first",
        "second",
        "attempt in turn 2",
        "said by assistant",
    ];
    assert_eq!(log.take(), lines);
}

#[tokio::test]
async fn a_reply_that_says_nothing_is_no_message() {
    for content in [None, Some(String::new()), Some(" \n".to_owned())] {
        let refused = ChatReply { finish_reason: Some("refusal".to_owned()), content, ..reply("") };
        let client = Arc::new(Scripted::new([Act::Reply(refused.clone()), say("Hi")]));
        let log = Log::default();
        let lines = log.clone();
        let mut chat = Chat::new(Arc::clone(&client), "m")
            .after_message(move |message| lines.add(message.content.clone()));
        let answer = chat.ask("One").await.unwrap();
        assert_eq!((answer.reply, answer.messages), (refused, Vec::new()));
        assert!(log.take().is_empty());
        assert_eq!(chat.messages(), [Message::user("One")]);
        chat.ask("Two").await.unwrap();
        assert_eq!(*client.seen()[1].messages, [Message::user("One"), Message::user("Two")]);
    }
}

#[tokio::test]
async fn an_answer_that_is_no_json_is_refused_in_one_sentence() {
    let none = Act::Reply(ChatReply { content: None, ..reply("") });
    let client = Scripted::new([say(r#"{"n": 3}"#), say("three"), none]);
    let mut chat = Chat::new(client, "m").with_schema("n", json!({"type": "object"}));
    let json = |answer: Answer| answer.json::<Value>();
    assert_eq!(json(chat.ask("?").await.unwrap()).unwrap(), json!({"n": 3}));
    let error = json(chat.ask("?").await.unwrap()).unwrap_err();
    assert!(error.to_string().starts_with("the answer is not the JSON that was expected: "));
    let error = json(chat.ask("?").await.unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "the model answered no text, where JSON was expected");
}
