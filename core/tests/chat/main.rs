//! Chats, retries and fallbacks through the public API: what is sent, said and recorded. The model
//! follows a script; a store in memory says what was recorded.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod accounting;
mod cancel;
mod conversation;
mod prompts;
mod retries;
mod streams;
mod support;
