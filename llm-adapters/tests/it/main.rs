//! The clients against servers on loopback: the mock server, broken ones, recorded answers, and what
//! reaches a server.

mod genai;
mod openai;
mod recordings;

use axum::Router;
use axum::body::Bytes;
use axum::http::Uri;
use axum::response::IntoResponse;
use futures::StreamExt;
use prompt_engine_core::{ChatReply, ChatRequest, LlmClient, LlmError, Message, StreamEvent};

const KEY: &str = "sk-test-0123456789";

fn ask(text: &str) -> ChatRequest {
    ChatRequest::new("model-1", vec![Message::system("Be brief."), Message::user(text)])
}

/// The texts and the reply of a stream, and that its end is its end.
async fn drain(
    client: &dyn LlmClient,
    request: &ChatRequest,
) -> Result<(Vec<String>, ChatReply), (Vec<String>, LlmError)> {
    let mut stream = client.stream(request).await.map_err(|error| (Vec::new(), error))?;
    let mut texts = Vec::new();
    let (mut started, mut spoke) = (false, false);
    while let Some(event) = stream.next().await {
        match event {
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
            Ok(StreamEvent::End(reply)) => {
                assert!(started, "a stream that ends has started");
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
