//! The client of Anthropic and Gemini against servers on loopback.

mod faults;
mod logs;
mod requests;

use prompt_engine_llm::{GenAi, Protocol};

use super::{KEY, ask, assert_dropping_ends, drain, serve, serve_router};

const BOTH: [Protocol; 2] = [Protocol::Anthropic, Protocol::Gemini];

fn client(protocol: Protocol, base_url: &str) -> GenAi {
    GenAi::new(protocol, KEY.into()).with_base_url(base_url).expect("a base URL")
}
