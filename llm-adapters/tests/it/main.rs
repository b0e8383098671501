//! The clients against servers on loopback: the mock server, broken ones, recorded answers, and what
//! reaches a server.

mod anthropic_gemini;
mod openai;
mod recordings;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::Uri;
use axum::response::IntoResponse;
use futures::StreamExt;
use prompt_engine_core::{ChatReply, ChatRequest, LlmClient, LlmError, Message, StreamEvent};
use tokio::sync::oneshot;

const KEY: &str = "sk-test-0123456789";

fn ask(text: &str) -> ChatRequest {
    ChatRequest::new("model-1", vec![Message::system("Be brief."), Message::user(text)])
}

/// Puts more messages behind those of `request`.
fn say(request: &mut ChatRequest, more: impl IntoIterator<Item = Message>) {
    request.messages = request.messages.iter().cloned().chain(more).collect();
}

/// The texts and the reply of a stream, and that its end is its end.
async fn drain(
    client: &dyn LlmClient,
    request: &ChatRequest,
) -> Result<(Vec<String>, ChatReply), (Vec<String>, LlmError)> {
    let mut stream = client.stream(request).await.map_err(|error| (Vec::new(), error))?;
    let mut texts = Vec::new();
    let (mut started, mut spoke, mut used) = (false, false, 0);
    let head = stream.next().await.expect("a stream tells first how the server begins");
    let Ok(StreamEvent::Head { http_status: Some(status), .. }) = head else { panic!("{head:?}") };
    while let Some(event) = stream.next().await {
        match event {
            Ok(StreamEvent::Head { .. }) => panic!("a stream has one head"),
            Ok(StreamEvent::Started { .. }) => {
                assert!(!started && texts.is_empty(), "a stream starts once, before its text");
                started = true;
            }
            Ok(StreamEvent::Token) => {
                assert!(started && !spoke && texts.is_empty(), "it says once that no text comes");
                spoke = true;
            }
            Ok(StreamEvent::Text(text)) => {
                assert!(!text.is_empty(), "a text is never empty");
                texts.push(text);
            }
            Ok(StreamEvent::Usage(tokens)) => {
                let told = tokens.input.saturating_add(tokens.output);
                assert!(started && told >= used, "what was used grows");
                used = told;
            }
            Ok(StreamEvent::End(reply)) => {
                assert!(started && status == 200, "a stream that ends has started");
                assert!(stream.next().await.is_none(), "nothing follows the end");
                return Ok((texts, *reply));
            }
            Err(error) => {
                assert!(stream.next().await.is_none(), "nothing follows an error");
                return Err((texts, error));
            }
        }
    }
    panic!("the stream ended with neither an end nor an error");
}

/// Serves every request with `answer` of its path and body.
async fn serve<A, R>(answer: A) -> String
where
    A: Fn(Uri, Bytes) -> R + Clone + Send + Sync + 'static,
    R: IntoResponse + 'static,
{
    let router = Router::new().fallback(move |uri: Uri, body: Bytes| {
        let response = answer(uri, body).into_response();
        async move { response }
    });
    serve_router(router).await
}

async fn serve_router(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

/// Drops a stream of the `client` of a server that says `begun` and never ends, and waits until that
/// server is left.
async fn assert_dropping_ends<C: LlmClient>(begun: String, client: impl FnOnce(&str) -> C) {
    let (open, closed) = oneshot::channel::<Infallible>();
    let open = Arc::new(Mutex::new(Some(open)));
    let url = serve(move |_, _| {
        let held = open.lock().expect("a sender").take();
        let parts = futures::stream::iter([Ok::<_, Infallible>(begun.clone())])
            .chain(futures::stream::pending())
            .map(move |part| {
                let _held = &held;
                part
            });
        ([("content-type", "text/event-stream")], Body::from_stream(parts))
    })
    .await;
    let mut stream = client(&url).stream(&ask("hi")).await.expect("a stream");
    assert!(matches!(stream.next().await, Some(Ok(StreamEvent::Head { .. }))));
    assert!(matches!(stream.next().await, Some(Ok(StreamEvent::Started { .. }))));
    drop(stream);
    // The body holds the sender, and takes it along.
    let closed = tokio::time::timeout(Duration::from_secs(10), closed).await;
    closed.expect("the server notices").expect_err("nothing is sent");
}
