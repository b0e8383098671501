//! What reaches a server: the request in the words of each API, and nothing left out in silence.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};
use prompt_engine_core::{
    ChatRequest, ErrorCategory, Image, LlmClient, LlmError, Message, OutputSchema, ToolCall,
    ToolSpec,
};
use serde_json::{Value, json};

use super::{Api, BOTH, KEY, ask, client, serve_router};
use crate::{drain, say};

/// A request as it came.
#[derive(Debug, Clone)]
struct Sent {
    path: String,
    headers: HeaderMap,
    body: Value,
}

/// What `request` becomes, plain and streamed, or why it is refused before it is sent.
async fn sent(api: Api, request: &ChatRequest) -> Result<[Sent; 2], LlmError> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let router = Router::new().fallback(move |uri: Uri, headers: HeaderMap, body: Bytes| {
        let body = serde_json::from_slice(&body).expect("a JSON body");
        kept.lock().expect("requests").push(Sent { path: uri.to_string(), headers, body });
        async { StatusCode::IM_A_TEAPOT }
    });
    let client = client(api, &format!("{}/v1/", serve_router(router).await));
    let plain = client.chat(request).await.expect_err("a teapot");
    if plain.http_status() != Some(418) {
        assert!(seen.lock().expect("requests").is_empty(), "what is refused is not sent");
        return Err(plain);
    }
    drain(&client, request).await.expect_err("a teapot");
    let seen = seen.lock().expect("requests").clone();
    Ok(seen.try_into().expect("one request a call"))
}

async fn refusal(api: Api, request: &ChatRequest) -> String {
    let error = sent(api, request).await.expect_err("a refusal");
    assert_eq!(error.category(), ErrorCategory::InvalidRequest, "{error}");
    error.to_string()
}

/// A conversation with everything in it.
fn conversation(signature: &str) -> ChatRequest {
    let mut called = Message::assistant("Let me see.");
    called.tool_calls = ["c1", "c2"]
        .map(|id| ToolCall {
            id: id.into(),
            name: "weather".into(),
            arguments: r#"{"city":"Bern"}"#.into(),
            signature: (id == "c1").then(|| signature.to_owned()),
        })
        .into();
    let picture = Image::from_bytes("image/png", b"\x89PNG");
    let mut request = ask("Hello");
    say(
        &mut request,
        [
            Message::user("And here?").with_image(picture),
            called,
            Message::tool("c1", "sunny"),
            Message::tool("c2", "rainy"),
        ],
    );
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    request.tools = vec![ToolSpec::new("weather", "The weather").with_parameters(parameters)];
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}},
        "required": ["a"], "additionalProperties": false});
    request.output_schema = Some(OutputSchema { name: "answer".into(), schema });
    request.temperature = Some(0.25);
    request.max_tokens = Some(9);
    request
}

#[tokio::test]
async fn anthropic_is_asked_in_its_words() {
    let thought = json!({"type": "thinking", "thinking": "hm", "signature": "c2ln"});
    let mut request = conversation(&json!([thought]).to_string());
    request.extra.insert("service_tier".into(), json!("auto"));
    request.extra.insert("tool_choice".into(), json!({"type": "any"}));
    let [plain, streamed] = sent(Api::Anthropic, &request).await.expect("requests");
    assert_eq!(plain.path, "/v1/messages");
    assert_eq!(plain.headers["x-api-key"], KEY);
    assert_eq!(plain.headers["anthropic-version"], "2023-06-01");
    let call = |id: &str| json!({"type": "tool_use", "id": id, "name": "weather", "input": {"city": "Bern"}});
    let result =
        |id: &str, said: &str| json!({"type": "tool_result", "tool_use_id": id, "content": said});
    let image = json!({"type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw=="}});
    let mut expected = json!({
        "model": "model-1", "stream": false, "system": "Be brief.", "temperature": 0.25,
        "max_tokens": 9, "service_tier": "auto", "tool_choice": {"type": "any"},
        "messages": [
            {"role": "user", "content": "Hello"},
            {"role": "user", "content": [{"type": "text", "text": "And here?"}, image]},
            {"role": "assistant", "content": [
                thought, {"type": "text", "text": "Let me see."}, call("c1"), call("c2")]},
            {"role": "user", "content": [result("c1", "sunny"), result("c2", "rainy")]},
        ],
        "tools": [{"name": "weather", "description": "The weather", "input_schema":
            {"type": "object", "properties": {"city": {"type": "string"}}}}],
        "output_config": {"format": {"type": "json_schema", "schema":
            {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"],
             "additionalProperties": false}}},
    });
    assert_eq!(plain.body, expected);
    expected["stream"] = json!(true);
    assert_eq!((streamed.path.as_str(), streamed.body), ("/v1/messages", expected));
}

#[tokio::test]
async fn gemini_is_asked_in_its_words() {
    let mut request = conversation("c2ln");
    request.extra.insert("safetySettings".into(), json!([]));
    let [plain, streamed] = sent(Api::Gemini, &request).await.expect("requests");
    assert_eq!(plain.path, "/v1/models/model-1:generateContent");
    assert_eq!(streamed.path, "/v1/models/model-1:streamGenerateContent?alt=sse");
    assert_eq!(plain.headers["x-goog-api-key"], KEY);
    let call = |id: &str| json!({"id": id, "name": "weather", "args": {"city": "Bern"}});
    let result = |id: &str, said: &str| {
        json!({"functionResponse": {"id": id, "name": "weather",
            "response": {"name": "weather", "content": said}}})
    };
    let schema = request.output_schema.map(|form| form.schema);
    let expected = json!({
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Hello"}]},
            {"role": "user", "parts": [{"text": "And here?"},
                {"inline_data": {"mime_type": "image/png", "data": "iVBORw=="}}]},
            {"role": "model", "parts": [{"text": "Let me see."},
                {"functionCall": call("c1"), "thoughtSignature": "c2ln"},
                {"functionCall": call("c2")}]},
            {"role": "user", "parts": [result("c1", "sunny"), result("c2", "rainy")]},
        ],
        "tools": [{"functionDeclarations": [{"name": "weather", "description": "The weather",
            "parametersJsonSchema":
                {"type": "object", "properties": {"city": {"type": "string"}}}}]}],
        "generationConfig": {"temperature": 0.25, "maxOutputTokens": 9,
            "responseMimeType": "application/json", "responseJsonSchema": schema},
        "safetySettings": [],
    });
    assert_eq!(plain.body, expected);
    assert_eq!(streamed.body, expected);
}

#[tokio::test]
async fn a_signature_of_another_provider_stays_here() {
    let reasoning = r#"{"type":"reasoning","encrypted_content":"gAAAA"}"#;
    for signature in ["c2ln", reasoning, "[{}]", r#"[{"type":"reasoning"},"odd",7]"#] {
        let [plain, _] = sent(Api::Anthropic, &conversation(signature)).await.expect("requests");
        let parts = plain.body["messages"][2]["content"].as_array().expect("parts");
        let kinds: Vec<_> = parts.iter().map(|part| part["type"].as_str()).collect();
        assert_eq!(kinds, [Some("text"), Some("tool_use"), Some("tool_use")], "{signature}");
    }
    for signature in ["[{}]", reasoning] {
        let [plain, _] = sent(Api::Gemini, &conversation(signature)).await.expect("requests");
        let call = &plain.body["contents"][2]["parts"][1];
        assert_ne!(call["thoughtSignature"], json!(signature), "{}", plain.body);
    }
}

#[tokio::test]
async fn thoughts_go_back_to_anthropic_in_the_order_in_which_they_came() {
    let thought = |said: &str| json!({"type": "thinking", "thinking": said, "signature": "c2ln"});
    let (first, second) = (thought("a"), thought("b"));
    let text = json!({"type": "text", "text": "Let me see."});
    let kept = json!([first, text, {"type": "tool_use"}, second, {"type": "tool_use"}]);
    let request = conversation(&kept.to_string());
    let [plain, _] = sent(Api::Anthropic, &request).await.expect("requests");
    let call = |id: &str| json!({"type": "tool_use", "id": id, "name": "weather", "input": {"city": "Bern"}});
    let expected = json!([first, text, call("c1"), second, call("c2")]);
    assert_eq!(plain.body["messages"][2]["content"], expected);
}

#[tokio::test]
async fn a_text_of_white_space_beside_a_call_or_a_picture_is_left_out_for_anthropic() {
    let mut request = conversation("");
    Arc::make_mut(&mut request.messages)[2].content = " ".into();
    Arc::make_mut(&mut request.messages)[3].content = "\n\n".into();
    let [plain, _] = sent(Api::Anthropic, &request).await.expect("requests");
    let body = plain.body.to_string();
    assert!(!body.contains(r#""text":" ""#) && !body.contains(r#""text":"\n\n""#), "{body}");
    assert!(body.contains("tool_use") && body.contains("base64"), "{body}");
}

#[tokio::test]
async fn ids_that_anthropic_refuses_become_some_that_it_takes() {
    let mut request = ask("hi");
    for _ in 0..2 {
        let mut called = Message::assistant("");
        called.tool_calls = ["call#weather#0", "toolu_1", "call#weather#1"]
            .map(|id| ToolCall { id: id.into(), name: "weather".into(), ..ToolCall::default() })
            .into();
        let results = called.tool_calls.iter().map(|call| Message::tool(&call.id, "sunny"));
        let results: Vec<_> = results.collect();
        say(&mut request, [called]);
        say(&mut request, results);
    }
    let [plain, _] = sent(Api::Anthropic, &request).await.expect("requests");
    let ids = |turn: usize, name: &str| -> Vec<String> {
        let parts = plain.body["messages"][turn]["content"].as_array().expect("parts");
        parts.iter().map(|part| part[name].as_str().expect("an id").to_owned()).collect()
    };
    let first = ids(1, "id");
    assert_eq!(first, ["call_weather_0_2", "toolu_1", "call_weather_1_2"]);
    assert_eq!(ids(2, "tool_use_id"), first);
    // Gemini's stand-ins begin anew in each turn, and Anthropic takes no id twice.
    let second = ids(3, "id");
    assert_eq!(second, ["call_weather_0_6", "toolu_1_6", "call_weather_1_6"]);
    assert_eq!(ids(4, "tool_use_id"), second);
}

#[tokio::test]
async fn calls_with_empty_or_equal_ids_get_ids_of_their_own_and_results_follow() {
    let mut called = Message::assistant("");
    called.tool_calls = [("", "a"), ("", "b"), ("same", "c"), ("same", "d")]
        .map(|(id, name)| ToolCall { id: id.into(), name: name.into(), ..ToolCall::default() })
        .into();
    let mut request = ask("hi");
    say(&mut request, [called]);
    for (id, said) in [("", "A"), ("same", "C"), ("", "B"), ("same", "D")] {
        say(&mut request, [Message::tool(id, said)]);
    }

    let [plain, _] = sent(Api::Anthropic, &request).await.expect("requests");
    let parts = |turn: usize| plain.body["messages"][turn]["content"].as_array().expect("parts");
    let called: Vec<_> =
        parts(1).iter().map(|part| (part["name"].clone(), part["id"].clone())).collect();
    let expected = [("a", "call_2"), ("b", "call_2_2"), ("c", "same"), ("d", "same_2")];
    assert_eq!(called, expected.map(|(name, id)| (json!(name), json!(id))));
    let results: Vec<_> = parts(2)
        .iter()
        .map(|part| (part["content"].clone(), part["tool_use_id"].clone()))
        .collect();
    let expected = [("A", "call_2"), ("C", "same"), ("B", "call_2_2"), ("D", "same_2")];
    assert_eq!(results, expected.map(|(said, id)| (json!(said), json!(id))));

    // Gemini matches calls without ids by their order, and wants the name of the tool.
    let [plain, _] = sent(Api::Gemini, &request).await.expect("requests");
    let results = plain.body["contents"][2]["parts"].as_array().expect("parts").iter();
    let results: Vec<_> = results
        .map(|part| &part["functionResponse"])
        .map(|said| (said["name"].clone(), said["response"]["content"].clone(), said.get("id")))
        .collect();
    let same = json!("same");
    let expected =
        [("a", "A", None), ("c", "C", Some(&same)), ("b", "B", None), ("d", "D", Some(&same))];
    assert_eq!(results, expected.map(|(name, said, id)| (json!(name), json!(said), id)));
}

#[tokio::test]
async fn arguments_that_are_no_object_go_back_as_the_model_wrote_them() {
    for (wrote, expected) in [
        ("{\"city\": \"Be", json!({"malformed": "{\"city\": \"Be"})),
        ("[1]", json!({"malformed": "[1]"})),
        (" ", json!({})),
    ] {
        let mut request = conversation("");
        Arc::make_mut(&mut request.messages)[3].tool_calls[1].arguments = wrote.into();
        let [plain, _] = sent(Api::Anthropic, &request).await.expect("requests");
        assert_eq!(plain.body["messages"][2]["content"][2]["input"], expected);
        let [plain, _] = sent(Api::Gemini, &request).await.expect("requests");
        let call = &plain.body["contents"][2]["parts"][2]["functionCall"];
        assert_eq!(call["args"], expected);
    }
}

#[tokio::test]
async fn without_a_limit_anthropic_is_asked_for_the_most_that_the_model_can() {
    for (model, limit) in [("claude-opus-4-1", 32_000), ("claude-sonnet-5-5", 128_000)] {
        let mut request = ask("hi");
        request.model = model.into();
        let [plain, _] = sent(Api::Anthropic, &request).await.expect("requests");
        assert_eq!(plain.body["max_tokens"], limit, "{model}");
    }
}

#[tokio::test]
async fn the_first_call_of_a_turn_of_gemini_3_has_a_signature_or_says_that_there_is_none() {
    let stand_in = Some("skip_thought_signature_validator");
    for (model, signature) in
        [("gemini-3-pro", stand_in), ("gemini-flash-latest", stand_in), ("gemini-2.5-pro", None)]
    {
        let mut request = conversation("[{}]");
        request.model = model.into();
        let [plain, _] = sent(Api::Gemini, &request).await.expect("requests");
        let parts = &plain.body["contents"][2]["parts"];
        assert_eq!(parts[1].get("thoughtSignature"), signature.map(|said| json!(said)).as_ref());
        assert_eq!(parts[2].get("thoughtSignature"), None);
    }
}

#[tokio::test]
async fn an_assistant_that_said_nothing_is_left_out() {
    for (api, list) in [(Api::Anthropic, "messages"), (Api::Gemini, "contents")] {
        let mut request = ask("hi");
        say(&mut request, [Message::assistant(""), Message::user("Are you there?")]);
        let [plain, _] = sent(api, &request).await.expect("requests");
        let turns = plain.body[list].as_array().expect("turns");
        assert!(turns.iter().all(|turn| turn["role"] == "user"), "{}", plain.body);
        assert_eq!(turns.len(), 2, "{}", plain.body);
    }
}

#[tokio::test]
async fn a_model_whose_name_ends_like_an_effort_keeps_it_and_asks_for_none() {
    for name in ["claude-next-high", "claude-next", "odd::claude-max"] {
        let mut request = ask("hi");
        request.model = name.into();
        let [plain, _] = sent(Api::Anthropic, &request).await.expect("requests");
        assert_eq!(plain.body["model"], name);
        for effort in ["thinking", "output_config"] {
            assert!(plain.body.get(effort).is_none(), "{name}: {}", plain.body);
        }
    }
    let mut request = ask("hi");
    request.model = "gemini-3-pro-high".into();
    let [plain, _] = sent(Api::Gemini, &request).await.expect("requests");
    assert_eq!(plain.path, "/v1/models/gemini-3-pro-high:generateContent");
    assert!(plain.body.get("generationConfig").is_none(), "{}", plain.body);
}

#[tokio::test]
async fn an_object_of_the_caller_is_completed_and_wins() {
    let mut request = conversation("");
    request.extra.insert("generationConfig".into(), json!({"topK": 4, "temperature": 1.5}));
    request.extra.insert("stream".into(), json!(true));
    let [plain, _] = sent(Api::Gemini, &request).await.expect("requests");
    let config = &plain.body["generationConfig"];
    assert_eq!((&config["topK"], &config["temperature"]), (&json!(4), &json!(1.5)));
    assert_eq!((&config["maxOutputTokens"], plain.body.get("stream")), (&json!(9), None));
    assert!(config["responseJsonSchema"].is_object());

    request.extra.clear();
    request.extra.insert("output_config".into(), json!({"effort": "low"}));
    let [plain, _] = sent(Api::Anthropic, &request).await.expect("requests");
    assert_eq!(plain.body["output_config"]["effort"], "low");
    assert_eq!(plain.body["output_config"]["format"]["type"], "json_schema");
}

#[tokio::test]
async fn a_picture_at_a_url_is_passed_on() {
    let mut request = ask("");
    request.messages =
        [Message::user("?").with_image(Image::from_url("https://e.org/a.PNG?x=1"))].into();
    let [plain, _] = sent(Api::Anthropic, &request).await.expect("requests");
    let source = json!({"type": "url", "url": "https://e.org/a.PNG?x=1"});
    assert_eq!(plain.body["messages"][0]["content"][1], json!({"type": "image", "source": source}));
    let [plain, _] = sent(Api::Gemini, &request).await.expect("requests");
    let file = json!({"mime_type": "image/png", "file_uri": "https://e.org/a.PNG?x=1"});
    assert_eq!(plain.body["contents"][0]["parts"][1], json!({"file_data": file}));

    let own = "https://generativelanguage.googleapis.com/v1beta/files/abc";
    request.messages = [Message::user("?").with_image(Image::from_url(own))].into();
    let [plain, _] = sent(Api::Gemini, &request).await.expect("requests");
    let file = json!({"file_data": {"file_uri": own}});
    assert_eq!(plain.body["contents"][0]["parts"][1], file);
}

#[tokio::test]
async fn a_model_of_gemini_may_be_named_as_gemini_lists_it() {
    for (model, path) in [
        ("gemini-2.5-flash", "/v1/models/gemini-2.5-flash:generateContent"),
        ("models/gemini-2.5-flash", "/v1/models/gemini-2.5-flash:generateContent"),
        ("tunedModels/mine-1", "/v1/tunedModels/mine-1:generateContent"),
    ] {
        let mut request = ask("hi");
        request.model = model.into();
        let [plain, _] = sent(Api::Gemini, &request).await.expect("requests");
        assert_eq!(plain.path, path);
    }
}

#[tokio::test]
async fn what_cannot_be_passed_on_is_refused_by_name() {
    let picture = Image::from_url("https://e.org/picture");
    let mut request = ask("hi");
    say(&mut request, [Message::user("?").with_image(picture.clone())]);
    let said = refusal(Api::Gemini, &request).await;
    assert!(said.contains("media type of the picture at \"https://e.org/picture\""), "{said}");

    let mut request = ask("hi");
    request.model = "models/x?key=1".into();
    let said = refusal(Api::Gemini, &request).await;
    assert_eq!(said, "\"models/x?key=1\" is no name of a Gemini model");

    for api in BOTH {
        let mut request = ask("hi");
        say(&mut request, [Message::assistant("see").with_image(picture.clone())]);
        let said = refusal(api, &request).await;
        assert_eq!(said, "a picture goes with a message of the user, not of the assistant");

        let mut request = conversation("");
        Arc::make_mut(&mut request.messages)[4].tool_call_id = None;
        let said = refusal(api, &request).await;
        assert_eq!(said, "the result of a tool names no call in tool_call_id");

        let mut request = conversation("");
        Arc::make_mut(&mut request.messages)[1].tool_calls = vec![ToolCall::default()];
        let said = refusal(api, &request).await;
        assert_eq!(said, "tools are called by the assistant, not by the user");

        let mut request = ask("hi");
        let picture = Image::from_url("data:image/png,%89PNG");
        say(&mut request, [Message::user("?").with_image(picture)]);
        let said = refusal(api, &request).await;
        assert_eq!(said, "a picture in a data: URL must be of the form data:TYPE;base64,DATA");
    }
}
