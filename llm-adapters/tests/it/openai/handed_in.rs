//! A client of async-openai that a caller built: where its requests go, once, and what stays secret.

use std::sync::{Arc, Mutex};

use async_openai::Client;
use async_openai::config::{AzureConfig, Config, OpenAIConfig};
use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use prompt_engine_core::{ErrorCategory, LlmClient};
use prompt_engine_llm::OpenAi;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use secrecy::SecretString;

use super::{ask, drain, serve_router};

const KEY: &str = "sk-handed-in-0123456789";

type Seen = Arc<Mutex<Vec<String>>>;

/// A server that refuses with 429 and repeats URL and headers, and what it saw of requests.
async fn echo() -> (String, Seen) {
    let seen = Seen::default();
    let kept = Arc::clone(&seen);
    let router = Router::new().fallback(move |request: Request| {
        let mut headers: Vec<_> = request
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("a text")))
            .collect();
        headers.sort();
        let said = format!("{}\n{}", request.uri(), headers.join("\n"));
        kept.lock().expect("what was seen").push(said.clone());
        async move { (StatusCode::TOO_MANY_REQUESTS, said) }
    });
    (serve_router(router).await, seen)
}

/// What the server saw of a call of both APIs, plain and streamed.
async fn seen<C: Config + Clone + 'static>(seen: &Seen, config: C) -> Vec<String> {
    let _installs_tls = OpenAi::new("".into());
    let client = Client::with_config(config);
    let chat = OpenAi::from_client(&client);
    let responses = OpenAi::from_client(&client).responses();
    let clients: [&dyn LlmClient; 2] = [&chat, &responses];
    for client in clients {
        let plain = client.chat(&ask("hi")).await.expect_err("a refusal");
        let (_, streamed) = drain(client, &ask("hi")).await.expect_err("a refusal");
        for error in [plain, streamed] {
            assert_eq!(error.category(), ErrorCategory::RateLimit);
            let shown = format!("{error} {error:?} {client:?}");
            assert!(!shown.contains("0123456789"), "{shown}");
            assert!(shown.contains("[redacted]"), "{shown}");
        }
    }
    std::mem::take(&mut seen.lock().expect("what was seen"))
}

#[tokio::test]
async fn requests_go_where_the_client_would_send_them_and_once() {
    let (url, log) = echo().await;
    let config = OpenAIConfig::new()
        .with_api_base(format!("{url}/base"))
        .with_api_key(KEY)
        .with_org_id("org-1")
        .with_project_id("proj-1")
        .with_header("x-team", "ours")
        .expect("a header");
    let requests = seen(&log, config).await;
    let paths: Vec<_> = requests.iter().filter_map(|request| request.lines().next()).collect();
    let (chat, responses) = ("/base/chat/completions", "/base/responses");
    assert_eq!(paths, [chat, chat, responses, responses]);
    for header in [
        format!("authorization: Bearer {KEY}"),
        "openai-organization: org-1".to_owned(),
        "openai-project: proj-1".to_owned(),
        "x-team: ours".to_owned(),
        "content-type: application/json".to_owned(),
    ] {
        assert!(requests.iter().all(|r| r.lines().any(|line| line == header)), "{requests:?}");
    }
}

#[tokio::test]
async fn azure_has_deployments_a_version_and_a_header_of_its_own() {
    let (url, log) = echo().await;
    let config = AzureConfig::new()
        .with_api_base(&url)
        .with_deployment_id("gpt")
        .with_api_version("2024-10-21")
        .with_api_key(KEY);
    let requests = seen(&log, config).await;
    let path = "/openai/deployments/gpt/chat/completions?api-version=2024-10-21\n";
    assert!(requests[0].starts_with(path), "{}", requests[0]);
    assert!(requests[0].contains(&format!("api-key: {KEY}")), "{}", requests[0]);
    assert!(!requests[0].contains("authorization"), "{}", requests[0]);
}

#[tokio::test]
async fn a_key_in_a_header_of_one_s_own_is_a_secret_too() {
    let (url, log) = echo().await;
    let config = OpenAIConfig::new().with_api_base(&url).with_api_key("unused");
    let config = config.with_header("authorization", "Token other-0123456789").expect("a header");
    let requests = seen(&log, config).await;
    assert!(requests[0].contains("authorization: Token other-0123456789"), "{}", requests[0]);
}

/// A server whose keys are in the query, in the base URL and in a header of its own.
#[derive(Debug, Clone)]
struct Gateway(String, SecretString);

impl Config for Gateway {
    fn headers(&self) -> HeaderMap {
        let key = HeaderValue::from_static("gateway-0123456789");
        [(HeaderName::from_static("ocp-apim-subscription-key"), key)].into_iter().collect()
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}?sig=a%2Fb-0123456789", self.0)
    }

    fn query(&self) -> Vec<(&str, &str)> {
        vec![("key", "query-0123456789"), ("api-version", "2024-10-21")]
    }

    fn api_base(&self) -> &str {
        &self.0
    }

    fn api_key(&self) -> &SecretString {
        &self.1
    }
}

#[tokio::test]
async fn a_key_in_a_query_or_in_a_header_of_any_name_is_a_secret_too() {
    let (url, log) = echo().await;
    let config = Gateway(format!("{url}/base"), "".into());
    let requests = seen(&log, config).await;
    let path =
        "/base/chat/completions?sig=a%2Fb-0123456789&key=query-0123456789&api-version=2024-10-21";
    assert!(requests[0].starts_with(path), "{}", requests[0]);
    assert!(requests[0].contains("gateway-0123456789"), "{}", requests[0]);
}

#[tokio::test]
async fn what_no_header_can_carry_is_an_error_and_no_panic() {
    let (url, log) = echo().await;
    let config = || OpenAIConfig::new().with_api_base(&url).with_api_key(KEY);
    let _installs_tls = OpenAi::new("".into());
    for (config, what) in [
        (config().with_api_key("two\nlines"), "the API key"),
        (config().with_org_id("two\nlines"), "the configuration of the client"),
    ] {
        let client = OpenAi::from_client(&Client::with_config(config));
        let error = client.chat(&ask("hi")).await.expect_err("an error");
        assert_eq!(error.category(), ErrorCategory::Authentication);
        let said = "holds characters that no HTTP header can carry";
        assert_eq!(error.to_string(), format!("{what} {said}"));
    }
    assert!(log.lock().expect("what was seen").is_empty());
}

#[tokio::test]
async fn an_http_client_of_one_s_own_sends_the_requests() {
    let (url, log) = echo().await;
    let client = OpenAi::new(KEY.into()).with_base_url(&url).expect("a base URL");
    let http = reqwest::Client::builder().user_agent("ours/1").no_proxy().build();
    let client = client
        .with_http_client(http.expect("a client"))
        .with_connect_timeout(std::time::Duration::from_secs(1));
    client.chat(&ask("hi")).await.expect_err("a refusal");
    let seen = log.lock().expect("what was seen");
    assert!(seen[0].contains("user-agent: ours/1"), "{}", seen[0]);
}

#[tokio::test]
async fn a_client_that_was_handed_in_keeps_its_base_url() {
    let _installs_tls = OpenAi::new("".into());
    let client = OpenAi::from_client(&Client::with_config(OpenAIConfig::new()));
    let error = client.with_base_url("http://127.0.0.1/v1").expect_err("an error");
    assert!(error.to_string().ends_with("has a base URL of its own"), "{error}");
}

#[tokio::test]
async fn a_password_in_a_base_url_that_was_handed_in_is_not_shown() {
    let _installs_tls = OpenAi::new("".into());
    let config = OpenAIConfig::new().with_api_base("http://me:h0n-t3r@127.0.0.1:1/v1");
    let client = OpenAi::from_client(&Client::with_config(config));
    assert!(format!("{client:?}").contains("…@127.0.0.1:1/v1"), "{client:?}");
    let error = client.chat(&ask("hi")).await.expect_err("an error");
    let moved = client.with_base_url("http://me:h0n-t3r@host/v1").expect_err("an error");
    let shown = format!("{error} {error:?} {moved}");
    assert!(!shown.contains("h0n-t3r"), "{shown}");
}
