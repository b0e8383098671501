//! Everything that goes wrong on the wire, byte by byte, for both APIs, plain and streamed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prompt_engine_core::{ErrorCategory as C, LlmClient, LlmError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{ask, client, drain};

/// What a server says to each request, and what it does then.
#[derive(Clone)]
struct Fault {
    says: String,
    then: Then,
}

#[derive(Clone, Copy)]
enum Then {
    Close,
    /// Keeps the connection and says nothing more.
    Hold,
    /// Says this for ever.
    Repeat(&'static str),
}

/// The base URL of a server that answers so, and how often it was asked.
async fn server(fault: Fault) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            count.fetch_add(1, Ordering::SeqCst);
            // The other side may be gone before all is said.
            tokio::spawn(answer(stream, fault.clone()));
        }
    });
    (url, asked)
}

async fn answer(mut stream: TcpStream, fault: Fault) -> std::io::Result<()> {
    read_request(&mut stream).await?;
    stream.write_all(fault.says.as_bytes()).await?;
    match fault.then {
        Then::Close => stream.shutdown().await,
        Then::Hold => std::future::pending().await,
        Then::Repeat(piece) => loop {
            stream.write_all(piece.as_bytes()).await?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        },
    }
}

/// Reads the request to its end, or closing would reset the connection.
async fn read_request(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        stream.read_buf(&mut bytes).await?;
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().ok())?
        });
        if body.len() >= length.unwrap_or(0) {
            return Ok(());
        }
    }
}

fn with_status(status: u16, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{headers}\r\n{body}")
}

/// A success of `kind` whose body comes in chunks and has no end.
fn endless(kind: &str, chunks: &[&str]) -> String {
    let mut text =
        format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n");
    for chunk in chunks {
        text += &format!("{:x}\r\n{chunk}\r\n", chunk.len());
    }
    text
}

fn close(says: String) -> Fault {
    Fault { says, then: Then::Close }
}

const SSE: &str = "text/event-stream";
const JSON: &str = "application/json";
const LIMIT: Duration = Duration::from_secs(1);

/// One piece of text as each API streams it.
const PIECES: [&str; 2] = [
    "data: {\"id\":\"1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hel\"}}]}\n\n",
    "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"Hel\"}\n\n",
];

/// What both clients say to `fault`, plain and streamed, each after one request; with the text
/// that was streamed before it.
async fn said(name: &str, fault: Fault, limit: Duration) -> Vec<(bool, String, LlmError)> {
    let (url, asked) = server(fault).await;
    let chat = client(&url).with_timeout(limit);
    let responses = client(&url).with_timeout(limit).responses();
    let clients: [&dyn LlmClient; 2] = [&chat, &responses];
    let mut said = Vec::new();
    for client in clients {
        let calls = async {
            let error = client.chat(&ask("hi")).await.expect_err(name);
            let plain = (false, String::new(), error);
            let (texts, error) = drain(client, &ask("hi")).await.expect_err(name);
            [plain, (true, texts.concat(), error)]
        };
        let calls = tokio::time::timeout(Duration::from_secs(30), calls).await;
        said.extend(calls.unwrap_or_else(|_| panic!("{name}: it hangs")));
    }
    assert_eq!(asked.load(Ordering::SeqCst), said.len(), "{name}: one request a call");
    said
}

#[tokio::test]
async fn every_status_has_its_category_and_what_came_with_it() {
    let body = r#"{"error":{"message":"as you asked","type":"x","code":"y"}}"#;
    for (status, category) in [
        (400, C::InvalidRequest),
        (401, C::Authentication),
        (403, C::Permission),
        (404, C::InvalidRequest),
        (429, C::RateLimit),
        (500, C::Server),
        (503, C::Overloaded),
        (529, C::Overloaded),
    ] {
        let headers = "x-request-id: req_1\r\nretry-after: 7\r\n";
        let fault = close(with_status(status, headers, body));
        for (_, _, error) in said(&status.to_string(), fault, Duration::from_secs(20)).await {
            assert_eq!((error.category(), error.http_status()), (category, Some(status)));
            assert_eq!((error.message(), error.code()), ("as you asked", Some("y")));
            assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
            assert_eq!(error.metadata()["request_id"], "req_1");
        }
    }
}

#[tokio::test]
async fn a_wait_until_a_date_is_a_wait() {
    let headers = "retry-after: Fri, 31 Dec 2100 23:59:59 GMT\r\n";
    for (_, _, error) in
        said("date", close(with_status(429, headers, "")), Duration::from_secs(20)).await
    {
        let years = error.retry_after().expect("a wait").as_secs() / (365 * 86_400);
        assert!((1..=100).contains(&years), "{years} years");
    }
}

#[tokio::test]
async fn a_broken_answer_is_of_the_network_and_an_odd_one_of_the_server() {
    let cut = |kind, chunks: &[&str]| close(endless(kind, chunks));
    let short =
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{\"id\"";
    let no_size = |kind| endless(kind, &[]) + "xyz\r\n";
    let page = with_status(200, "content-type: text/html\r\n", "<html>It works!</html>");
    let half = with_status(200, "content-type: application/json\r\n", "{\"id\":");
    let list = with_status(200, "content-type: application/json\r\n", "[]");
    let binary = with_status(200, "content-type: application/json\r\n", "\0\u{1}\u{fffd}");
    for (name, fault, category) in [
        ("closed without a word", close(String::new()), C::Network),
        ("closed in the head", close("HTTP/1.1 200 OK\r\ncontent-ty".into()), C::Network),
        ("no HTTP", close("SSH-2.0-OpenSSH_9.6\r\n".into()), C::Network),
        ("closed after the head", cut(JSON, &[]), C::Network),
        ("shorter than it says", close(short.into()), C::Network),
        ("closed in the body", cut(JSON, &["{\"id\":", "1"]), C::Network),
        ("a chunk without a size", close(no_size(JSON)), C::Network),
        ("a page", close(page), C::Server),
        ("half a value", close(half), C::Server),
        ("a list", close(list), C::Server),
        ("no text", close(binary), C::Server),
    ] {
        for (streamed, _, error) in said(name, fault, Duration::from_secs(20)).await {
            assert_eq!(error.category(), category, "{name}, streamed {streamed}: {error}");
        }
    }
}

#[tokio::test]
async fn a_broken_stream_keeps_its_text() {
    let end = "0\r\n\r\n";
    for (name, tail, category) in [
        ("closed", "", C::Network),
        ("closed within a frame", "7\r\ndata: {\r\n", C::Network),
        ("a chunk without a size", "xyz\r\n", C::Network),
        ("ended without an end", end, C::Network),
        ("a frame that is no JSON", "9\r\ndata: {\n\n\r\n", C::Server),
    ] {
        let name = &format!("{name}: {tail:?}");
        let says = endless(SSE, &PIECES) + tail;
        for (streamed, text, error) in said(name, close(says), Duration::from_secs(20)).await {
            if streamed {
                assert_eq!((text.as_str(), error.category()), ("Hel", category), "{name}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn whatever_does_not_end_ends_in_time() {
    let hold = |says| Fault { says, then: Then::Hold };
    let repeat = |says, piece| Fault { says, then: Then::Repeat(piece) };
    let cases = [
        ("no answer", hold(String::new())),
        ("half a head", hold("HTTP/1.1 200 OK\r\n".into())),
        ("a head for ever", repeat("HTTP/1.1 200 OK\r\n".into(), "x: y\r\n")),
        ("a head alone", hold(endless(SSE, &[]))),
        ("half a body", hold(endless(JSON, &["{"]))),
        ("a text and then nothing", hold(endless(SSE, &PIECES))),
        ("a body for ever", repeat(endless(JSON, &[]), "5\r\n     \r\n")),
        ("comments for ever", repeat(endless(SSE, &[]), "b\r\n: waiting\n\n\r\n")),
        ("informed for ever", repeat(String::new(), "HTTP/1.1 102 Processing\r\n\r\n")),
    ];
    let cases = cases.map(|(name, fault)| async move {
        for (streamed, _, error) in said(name, fault, LIMIT).await {
            // A head can be too long before it takes too long.
            let too_long = name == "a head for ever" && error.category() == C::Network;
            assert!(too_long || error.category() == C::Timeout, "{name}, {streamed}: {error:?}");
        }
    });
    futures::future::join_all(cases).await;
}

#[tokio::test]
async fn a_refusal_whose_explanation_does_not_come_is_still_one() {
    let head = "HTTP/1.1 503 X\r\nretry-after: 7\r\ncontent-length: 99\r\n\r\n{\"err".to_owned();
    for then in [Then::Close, Then::Hold] {
        for (_, _, error) in said("503", Fault { says: head.clone(), then }, LIMIT).await {
            assert_eq!((error.category(), error.http_status()), (C::Overloaded, Some(503)));
            assert_eq!(error.to_string(), "the server answered HTTP 503");
            assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
        }
    }
}

#[tokio::test]
async fn a_first_token_that_comes_too_late_ends_the_call() {
    let created = "data: {\"type\":\"response.created\",\"response\":{\"id\":\"1\"}}\n\n";
    let role =
        "data: {\"id\":\"1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"}}]}\n\n";
    let (url, _) = server(Fault { says: endless(SSE, &[created, role]), then: Then::Hold }).await;
    let chat = client(&url).with_first_token_timeout(LIMIT);
    let responses = client(&url).with_first_token_timeout(LIMIT).responses();
    let clients: [&dyn LlmClient; 2] = [&chat, &responses];
    for client in clients {
        let (_, error) = drain(client, &ask("hi")).await.expect_err("an error");
        assert_eq!(error.to_string(), "no first token from the model within 1s");
    }
}
