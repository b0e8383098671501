//! Streams as servers send them, orderly and odd, of both APIs.

use axum::body::Bytes;
use axum::http::Uri;
use futures::StreamExt;
use prompt_engine_core::{ChatReply, ErrorCategory as C, LlmClient, LlmError, StreamEvent};
use serde_json::{Value, json};

use super::{ask, client, drain, serve};

type Drained = Result<(Vec<String>, ChatReply), (Vec<String>, LlmError)>;

async fn served(kind: &'static str, body: String) -> String {
    serve(move |_: Uri, _: Bytes| {
        ([("content-type", kind), ("x-request-id", "req_1")], body.clone())
    })
    .await
}

/// The events of a stream, each in a word.
async fn words(client: &dyn LlmClient) -> Vec<String> {
    let stream = client.stream(&ask("hi")).await.expect("a stream");
    let word = |event: Result<StreamEvent, LlmError>| match event.expect("an event") {
        StreamEvent::Head { http_status, request_id } => {
            assert_eq!((http_status, request_id.as_deref()), (Some(200), Some("req_1")));
            "head".to_owned()
        }
        StreamEvent::Started { .. } => "started".to_owned(),
        StreamEvent::Token => "token".to_owned(),
        StreamEvent::Text(text) => text,
        StreamEvent::Usage(tokens) => format!("used {} and {}", tokens.input, tokens.output),
        StreamEvent::End(_) => "end".to_owned(),
    };
    stream.map(word).collect().await
}

async fn chunks(frames: &[Value]) -> Drained {
    let body: String = frames.iter().map(|frame| format!("data: {frame}\n\n")).collect();
    let url = served("text/event-stream", body + "data: [DONE]\n\n").await;
    drain(&client(&url), &ask("hi")).await
}

fn delta(delta: Value) -> Value {
    json!({"id": "1", "choices": [{"index": 0, "delta": delta}]})
}

#[tokio::test]
async fn usage_that_counts_up_is_counted_once() {
    let usage = |input: u64, output: u64| {
        json!({"prompt_tokens": input, "completion_tokens": output, "cost": "0.25",
            "prompt_tokens_details": {"audio_tokens": 3}})
    };
    let counting = |output| {
        let mut frame = delta(json!({"content": "a"}));
        frame["usage"] = usage(9, output);
        frame
    };
    let (_, reply) = chunks(&[counting(1), counting(2), counting(3)]).await.expect("a reply");
    let tokens = reply.tokens.expect("tokens");
    assert_eq!((tokens.input, tokens.output, tokens.audio_input), (9, 3, 3));
    assert_eq!(reply.reported_cost.map(|usd| usd.to_string()).as_deref(), Some("0.25"));

    let last =
        json!({"id": "1", "choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0}});
    let (_, reply) = chunks(&[counting(1), counting(7), last]).await.expect("a reply");
    assert_eq!(reply.tokens.map(|tokens| tokens.output), Some(7));
    assert_eq!(reply.metadata["usage"]["completion_tokens"], 7);

    let (_, reply) = chunks(&[delta(json!({"content": "a"}))]).await.expect("a reply");
    assert_eq!(reply.tokens, None);
}

#[tokio::test]
async fn usage_that_is_told_before_the_end_is_handed_on() {
    let counting = |output| {
        let mut frame = delta(json!({"content": "a"}));
        frame["usage"] = json!({"prompt_tokens": 9, "completion_tokens": output});
        frame
    };
    let frames = [counting(1), counting(1), counting(7)];
    let body: String = frames.iter().map(|frame| format!("data: {frame}\n\n")).collect();
    let url = served("text/event-stream", body + "data: [DONE]\n\n").await;
    let told = ["head", "started", "a", "used 9 and 1", "a", "a", "used 9 and 7", "end"];
    assert_eq!(words(&client(&url)).await, told);
}

#[tokio::test]
async fn a_reported_cost_has_the_digits_of_the_wire() {
    let usage = r#""usage":{"prompt_tokens":1,"completion_tokens":1,"cost":0.000123456789}"#;
    let body = format!(r#"{{"choices":[{{"message":{{"content":""}}}}],{usage}}}"#);
    let url = served("application/json", body).await;
    let plain = client(&url).chat(&ask("hi")).await.expect("a reply");
    let chunk = format!(r#"{{"choices":[{{"delta":{{}},"finish_reason":"stop"}}],{usage}}}"#);
    let url = served("text/event-stream", format!("data: {chunk}\n\n")).await;
    let (_, streamed) = drain(&client(&url), &ask("hi")).await.expect("a stream");
    for reply in [plain, streamed] {
        assert_eq!(reply.reported_cost, Some("0.000123456789".parse().expect("an amount")));
    }
}

#[tokio::test]
async fn calls_of_one_index_are_told_apart_by_id_and_name() {
    let part = |id: &str, name: &str, arguments: &str| {
        let function = json!({"name": name, "arguments": arguments});
        delta(json!({"tool_calls": [{"index": 0, "id": id, "function": function}]}))
    };
    let calls = async |parts: &[Value]| {
        let (_, reply) = chunks(parts).await.expect("a reply");
        let calls = reply.tool_calls.into_iter();
        calls.map(|call| (call.name, call.arguments)).collect::<Vec<_>>()
    };
    let call = |name: &str| (name.to_owned(), "{\"x\":1}".to_owned());
    // Each call has the index 0.
    let parts = [
        part("a", "f", "{\"x\""),
        part("", "", ":1}"),
        part("b", "g", ""),
        part("b", "g", "{\"x\":1}"),
    ];
    assert_eq!(calls(&parts).await, [call("f"), call("g")]);
    // Each part has an id of its own.
    let parts = [part("a", "f", "{\"x\""), part("b", "", ":1"), part("c", "", "}")];
    assert_eq!(calls(&parts).await, [call("f")]);
}

#[tokio::test]
async fn a_refusal_is_streamed_apart_from_the_text() {
    let pieces = ["I can", "not."].map(|piece| delta(json!({"refusal": piece})));
    let (texts, reply) = chunks(&pieces).await.expect("a reply");
    assert_eq!((texts.len(), reply.content), (0, None));
    assert_eq!(reply.metadata["refusal"], "I cannot.");

    let piece = |text| json!({"type": "response.refusal.delta", "delta": text});
    let part = json!({"type": "refusal", "refusal": "I cannot."});
    let message = json!({"type": "message", "content": [part]});
    for output in [json!([message]), json!([])] {
        let ended = ended("completed", output);
        let (texts, reply) =
            events(&[piece("I can"), piece("not."), ended]).await.expect("a reply");
        assert_eq!((texts.len(), reply.content), (0, None));
        assert_eq!(reply.metadata["refusal"], "I cannot.");
    }
}

#[tokio::test]
async fn the_first_token_is_told_of_once_where_it_is_no_text() {
    let tool = |part| {
        delta(json!({"tool_calls": [{"index": 0, "id": "c", "function": {"arguments": part}}]}))
    };
    let thought = delta(json!({"reasoning_content": "hm"}));
    let (said, role) = (delta(json!({"content": "Hi"})), delta(json!({"role": "assistant"})));
    let cases: [(&[Value], &[&str]); 4] = [
        (&[role.clone(), tool("{"), tool("}")], &["head", "started", "token", "end"]),
        (&[thought.clone(), thought, said.clone()], &["head", "started", "token", "Hi", "end"]),
        (&[said, tool("{}")], &["head", "started", "Hi", "end"]),
        (&[role], &["head", "started", "end"]),
    ];
    for (frames, expected) in cases {
        let body: String = frames.iter().map(|frame| format!("data: {frame}\n\n")).collect();
        let url = served("text/event-stream", body + "data: [DONE]\n\n").await;
        assert_eq!(words(&client(&url)).await, expected);
    }

    let part = json!({"type": "response.function_call_arguments.delta", "delta": "{"});
    let thought = json!({"type": "response.reasoning_summary_text.delta", "delta": "hm"});
    let whole = || ended("completed", json!([call()]));
    let cases: [(&[Value], &[&str]); 4] = [
        (&[begun(), part.clone(), part.clone(), whole()], &["head", "started", "token", "end"]),
        // A server that says of no beginning.
        (&[thought, text("Hi"), part.clone(), whole()], &["head", "started", "token", "Hi", "end"]),
        (&[text("Hi"), part, whole()], &["head", "started", "Hi", "end"]),
        (&[begun(), ended("incomplete", json!([]))], &["head", "started", "end"]),
    ];
    for (frames, expected) in cases {
        let url = served("text/event-stream", framed(frames)).await;
        assert_eq!(words(&client(&url).responses()).await, expected);
    }
}

#[tokio::test]
async fn an_error_within_a_stream_is_of_its_category() {
    let failure = json!({"message": "too fast", "code": "rate_limit_exceeded", "type": "tokens"});
    let said = delta(json!({"content": "Hel"}));
    let (texts, error) = chunks(&[said, json!({"error": failure})]).await.expect_err("an error");
    assert_eq!((texts.concat().as_str(), error.category()), ("Hel", C::RateLimit));

    let failed = json!({"type": "response.failed",
        "response": {"id": "r", "status": "failed", "error": failure}});
    let mut flat = failure.clone();
    flat["type"] = json!("error");
    let nested = json!({"type": "error", "error": failure});
    for frame in [failed, flat, nested, json!({"error": failure})] {
        let (texts, error) = events(&[text("Hel"), frame.clone()]).await.expect_err("an error");
        assert_eq!((texts.concat().as_str(), error.category()), ("Hel", C::RateLimit), "{frame}");
        assert_eq!((error.message(), error.code()), ("too fast", Some("rate_limit_exceeded")));
        assert_eq!(error.metadata()["request_id"], "req_1");
    }
    let silent =
        json!({"type": "response.failed", "response": {"status": "failed", "error": null}});
    let (_, error) = events(&[silent]).await.expect_err("an error");
    assert_eq!((error.category(), error.code()), (C::Server, None));
    let bare = json!({"type": "error", "code": null, "message": "no idea"});
    let (_, error) = events(&[bare]).await.expect_err("an error");
    assert_eq!((error.category(), error.code(), error.message()), (C::Server, None, "no idea"));
}

/// Events of a response, each named as its type.
fn framed(events: &[Value]) -> String {
    let name = |event: &Value| event["type"].as_str().unwrap_or_default().to_owned();
    events.iter().map(|event| format!("event: {}\ndata: {event}\n\n", name(event))).collect()
}

async fn events(frames: &[Value]) -> Drained {
    let url = served("text/event-stream", framed(frames)).await;
    drain(&client(&url).responses(), &ask("hi")).await
}

fn text(delta: &str) -> Value {
    json!({"type": "response.output_text.delta", "delta": delta, "output_index": 0})
}

fn message(parts: &[&str]) -> Value {
    let part = |text: &&str| json!({"type": "output_text", "text": text, "annotations": []});
    let parts: Vec<_> = parts.iter().map(part).collect();
    json!({"type": "message", "role": "assistant", "status": "completed", "content": parts})
}

fn call() -> Value {
    json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{\"x\":1}"})
}

fn response(status: &str, output: Value) -> Value {
    json!({"id": "r", "object": "response", "model": "m-1", "status": status, "output": output,
        "usage": {"input_tokens": 9, "output_tokens": 4}})
}

fn ended(status: &str, output: Value) -> Value {
    json!({"type": format!("response.{status}"), "response": response(status, output)})
}

fn begun() -> Value {
    let mut response = response("in_progress", json!([]));
    response["usage"] = Value::Null;
    json!({"type": "response.created", "response": response})
}

#[tokio::test]
async fn a_streamed_response_says_what_the_plain_one_says() {
    let output = json!([{"type": "reasoning", "summary": []}, message(&["Grü", "ße"]), call()]);
    let whole = response("completed", output.clone());
    let url = served("application/json", whole.to_string()).await;
    let responses = client(&url).responses();
    let plain = responses.chat(&ask("hi")).await.expect("a reply");
    assert_eq!(plain.content.as_deref(), Some("Grüße"));
    assert_eq!(plain.tool_calls[0].arguments, "{\"x\":1}");
    assert_eq!(plain.metadata["request_id"], "req_1");
    // A server that does not stream is understood, also where it says that it does.
    for kind in ["application/json", "text/event-stream"] {
        let url = served(kind, format!(" \n{whole}")).await;
        let (texts, streamed) =
            drain(&client(&url).responses(), &ask("hi")).await.expect("a reply");
        assert_eq!((texts.concat().as_str(), &streamed), ("Grüße", &plain));
    }

    let frames = [
        begun(),
        json!({"type": "response.queued", "response": {"id": "r"}}),
        json!({"type": "response.web_search_call.searching", "item_id": "ws"}),
        json!({"type": "response.reasoning_summary_text.delta", "delta": "hm"}),
        text("Grü"),
        json!({"type": "response.output_text.annotation.added", "annotation": {}}),
        text("ße"),
        json!({"type": "unheard of"}),
        json!({}),
        json!({"type": "response.function_call_arguments.delta", "delta": "{\"x\":1}"}),
        ended("completed", output),
    ];
    let body = framed(&frames);
    let commented =
        format!("\u{feff}: hello\n\n{}: bye\n\n", body.replace("event: resp", ":\n\nevent: resp"));
    let nameless: String = frames.iter().map(|frame| format!("data: {frame}\n\n")).collect();
    for body in [
        body.replace('\n', "\r\n"),
        body.replace('\n', "\r"),
        body.trim_end().to_owned(),
        body.clone() + "data: [DONE]\n\n",
        body.clone() + "event: error\ndata: {\"error\":\"after the end\"}\n\n",
        commented,
        nameless,
    ] {
        for kind in ["text/event-stream; charset=utf-8", "application/json"] {
            let url = served(kind, body.clone()).await;
            let (texts, streamed) =
                drain(&client(&url).responses(), &ask("hi")).await.expect("a reply");
            assert_eq!(texts, ["Grü", "ße"]);
            assert_eq!(streamed, plain, "{body}");
        }
    }
}

#[tokio::test]
async fn what_a_server_leaves_out_at_the_end_is_what_came_before() {
    let done = |item: Value| json!({"type": "response.output_item.done", "item": item});
    let bare =
        json!({"type": "response.completed", "response": {"id": "r", "status": "completed"}});
    let cases: [&[Value]; 4] = [
        &[text("a"), text("b"), done(message(&["ab"])), done(call()), bare.clone()],
        &[text("ab"), done(call()), bare.clone()],
        &[done(message(&["a", "b"])), done(call()), bare],
        &[text("a"), ended("completed", json!([message(&["a", "b"]), call()]))],
    ];
    for frames in cases {
        let (texts, reply) = events(frames).await.expect("a reply");
        assert_eq!((texts.concat().as_str(), reply.content.as_deref()), ("ab", Some("ab")));
        assert_eq!(reply.tool_calls.len(), 1, "{frames:?}");
        assert_eq!(reply.finish_reason.as_deref(), Some("completed"));
    }
}

#[tokio::test]
async fn an_incomplete_response_is_a_reply_that_says_why() {
    let mut ended = ended("incomplete", json!([message(&["Hel"])]));
    ended["response"]["incomplete_details"] = json!({"reason": "max_output_tokens"});
    let (texts, reply) = events(&[begun(), text("Hel"), ended]).await.expect("a reply");
    assert_eq!(texts, ["Hel"]);
    assert_eq!(reply.finish_reason.as_deref(), Some("max_output_tokens"));
    assert_eq!(reply.tokens.map(|tokens| (tokens.input, tokens.output)), Some((9, 4)));
}

#[tokio::test]
async fn a_response_that_does_not_end_is_a_broken_connection() {
    for tail in ["", "data: [DONE]\n\n", "event: response.completed\ndata: {\"type\":\"respo"] {
        let body = framed(&[begun(), text("Hel")]) + tail;
        let url = served("text/event-stream", body).await;
        let (texts, error) =
            drain(&client(&url).responses(), &ask("hi")).await.expect_err("an error");
        assert_eq!((texts.concat().as_str(), error.category()), ("Hel", C::Network), "{tail}");
        assert_eq!(error.http_status(), Some(200));
        assert_eq!(error.metadata()["request_id"], "req_1");
    }
}

#[tokio::test]
async fn a_response_is_asked_for_where_responses_are() {
    let url = serve(|uri: Uri, body: Bytes| {
        let asked: Value = serde_json::from_slice(&body).expect("a JSON body");
        let said = format!("{} {} {}", uri.path(), asked["input"][0]["content"], asked["stream"]);
        axum::Json(response("completed", json!([message(&[&said])])))
    })
    .await;
    let client = client(&format!("{url}/v1")).responses();
    let reply = client.chat(&ask("hi")).await.expect("a reply");
    assert_eq!(reply.content.as_deref(), Some("/v1/responses \"hi\" null"));
    let (texts, _) = drain(&client, &ask("hi")).await.expect("a reply");
    assert_eq!(texts.concat(), "/v1/responses \"hi\" true");
}

#[tokio::test]
async fn an_answer_that_failed_says_what_it_used() {
    let usage = json!({"input_tokens": 9, "output_tokens": 4});
    let failed = json!({"id": "r", "status": "failed", "usage": usage,
        "error": {"code": "server_error", "message": "sorry"}});
    let event = json!({"type": "response.failed", "response": failed});
    let empty = json!({"id": "1", "choices": [], "usage": usage});
    for (responses, plain, streamed) in [
        (true, failed, framed(&[event])),
        (false, empty.clone(), format!("data: {empty}\n\ndata: [DONE]\n\n")),
    ] {
        let url = serve(move |_: Uri, body: Bytes| {
            let asked: Value = serde_json::from_slice(&body).expect("a JSON body");
            if asked["stream"] == true { streamed.clone() } else { plain.to_string() }
        })
        .await;
        let chat = client(&url);
        let client: Box<dyn LlmClient> =
            if responses { Box::new(chat.responses()) } else { Box::new(chat) };
        let plain = client.chat(&ask("hi")).await.expect_err("an error");
        let (_, streamed) = drain(client.as_ref(), &ask("hi")).await.expect_err("an error");
        for error in [plain, streamed] {
            let tokens = error.tokens().map(|tokens| (tokens.input, tokens.output));
            assert_eq!(tokens, Some((9, 4)), "{error}");
        }
    }
}
