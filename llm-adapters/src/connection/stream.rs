//! A streamed answer, frame by frame, as [`StreamEvent`]s: what all APIs have in common.
//! Invariant: ends with exactly one `End` or one error; bytes that end before the answer is whole are
//! a broken connection. Nothing runs once it is dropped.

use std::collections::VecDeque;

use futures::{Stream, stream};
use prompt_engine_core::{ChatReply, LlmError, StreamEvent, TokenCounts};
use serde_json::Value;

use super::answer::{Answer, Head, MAX_BYTES};
use super::sse::{Event, Parser};
use super::{Api, Facts, error};
use crate::http::{self, Limits};
use crate::json::{has_error, text};

/// The most bytes of a stream: several times what the longest answers take.
const MAX_STREAM_BYTES: usize = 4 * MAX_BYTES;

/// Puts a reply together from the frames of a stream.
pub(crate) trait Frames: Default + Send + 'static {
    /// Whether the API ends its streams with `[DONE]`, so that what usage came before it is all.
    const SAYS_DONE: bool = false;

    /// Takes in a frame that reports no error.
    fn take(&mut self, frame: &Frame<'_>, head: &Head) -> Result<Step, LlmError>;

    /// What is known so far: the id, the model and the tokens at least.
    fn facts(&self) -> &Facts;

    /// The reply, where what was taken in is whole.
    fn finish(&mut self, end: End, head: &Head) -> Option<ChatReply>;
}

/// One frame: a JSON value, its text, and its event's name, empty if it has none.
pub(crate) struct Frame<'f> {
    pub(crate) name: &'f str,
    #[cfg_attr(not(feature = "openai"), allow(dead_code, reason = "only a cost is read from it"))]
    pub(crate) raw: &'f str,
    pub(crate) value: &'f Value,
}

/// What a frame brought.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Step {
    /// Text for the caller.
    pub(crate) text: String,
    /// Whether the model made anything: text, a thought, a part of a tool call.
    pub(crate) token: bool,
    /// Whether nothing follows.
    pub(crate) last: bool,
}

/// What a stream ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// A frame that says so.
    Said,
    /// The end of the bytes.
    Closed,
}

/// The events of `answer`.
pub(crate) fn events<A: Api>(
    answer: Answer,
    limits: Limits,
) -> impl Stream<Item = Result<StreamEvent, LlmError>> + Send + 'static {
    let head = answer.head.event();
    let reader = Reader::<A> {
        answer: Some(answer),
        limits,
        parser: Parser::default(),
        start: Vec::new(),
        bytes: 0,
        whole: None,
        ready: VecDeque::from([head]),
        used: None,
        started: false,
        spoke: false,
        frames: A::Frames::default(),
    };
    stream::unfold(reader, |mut reader| async move {
        let event = reader.next().await?;
        Some((event, reader))
    })
}

struct Reader<A: Api> {
    /// Gone once the answer is whole or has failed.
    answer: Option<Answer>,
    limits: Limits,
    parser: Parser,
    /// The first bytes, to quote where they are no stream of events.
    start: Vec<u8>,
    bytes: usize,
    /// The body, where it begins as a JSON value: what a server that does not stream answers with,
    /// whatever type it gives it.
    whole: Option<Vec<u8>>,
    ready: VecDeque<StreamEvent>,
    /// The usage that was handed out last.
    used: Option<TokenCounts>,
    started: bool,
    /// Whether a token was handed out, text or not.
    spoke: bool,
    frames: A::Frames,
}

impl<A: Api> Reader<A> {
    async fn next(&mut self) -> Option<Result<StreamEvent, LlmError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            let mut answer = self.answer.take()?;
            if !answer.is_success() {
                return Some(Err(answer.refusal(self.limits).await));
            }
            let reply = match self.parser.events.pop_front() {
                Some(event) => self.take_in(&event, &answer.head),
                None => self.read_more(&mut answer).await,
            };
            match reply {
                Ok(Some(reply)) => {
                    self.begin(&answer.head);
                    self.ready.push_back(StreamEvent::End(Box::new(reply)));
                }
                Ok(None) => self.answer = Some(answer),
                Err(error) => return Some(Err(answer.head.mark(error))),
            }
        }
    }

    async fn read_more(&mut self, answer: &mut Answer) -> Result<Option<ChatReply>, LlmError> {
        let chunk = match self.limits.hold(answer.chunk()).await.flatten() {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return self.close(&answer.head).map(Some),
            Err(error) => return self.broke(error, &answer.head).map(Some),
        };
        let bytes = chunk.as_ref();
        if self.start.trim_ascii_start().is_empty()
            && matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'['))
        {
            self.whole = Some(Vec::new());
        }
        if self.start.len() < 1024 {
            self.start.extend_from_slice(&bytes[..bytes.len().min(1024)]);
        }
        self.bytes = self.bytes.saturating_add(bytes.len());
        let held = match &mut self.whole {
            Some(whole) => {
                whole.extend_from_slice(bytes);
                whole.len()
            }
            None => {
                self.parser.push(bytes);
                self.parser.pending()
            }
        };
        if held > MAX_BYTES {
            return Err(http::unreadable("a frame of the stream is longer than 64 MiB", ""));
        }
        if self.bytes > MAX_STREAM_BYTES {
            return Err(http::unreadable("the stream is longer than 256 MiB", ""));
        }
        Ok(None)
    }

    /// The reply, where all of it and its usage came before the connection broke or the time was over.
    fn broke(&mut self, error: LlmError, head: &Head) -> Result<ChatReply, LlmError> {
        let reply = self.frames.finish(End::Closed, head);
        reply.filter(|reply| reply.tokens.is_some()).ok_or(error)
    }

    /// The reply, where the bytes that ended hold one.
    fn close(&mut self, head: &Head) -> Result<ChatReply, LlmError> {
        if let Some(body) = self.whole.take() {
            return self.take_whole(&body, head);
        }
        self.parser.finish();
        while let Some(event) = self.parser.events.pop_front() {
            // What a closed connection left of a frame is no frame.
            let whole =
                event.data.trim() == "[DONE]" || serde_json::from_str::<Value>(&event.data).is_ok();
            if whole && let Some(reply) = self.take_in(&event, head)? {
                return Ok(reply);
            }
        }
        if let Some(reply) = self.frames.finish(End::Closed, head) {
            return Ok(reply);
        }
        let start = String::from_utf8_lossy(&self.start);
        let framed = |line: &str| line.starts_with("data:") || line.starts_with("event:");
        if self.start.is_empty() || start.lines().any(framed) {
            return Err(http::cut_short());
        }
        Err(error::no_answer(&format!("stream of a {}", A::ANSWER), &start, head))
    }

    fn take_whole(&mut self, body: &[u8], head: &Head) -> Result<ChatReply, LlmError> {
        let reply = super::read::<A>(&String::from_utf8_lossy(body), head)?;
        let id = text(&reply.metadata, "id").map(str::to_owned);
        self.started = true;
        self.ready.push_back(StreamEvent::Started { model: reply.model.clone(), id });
        if let Some(text) = reply.content.clone().filter(|text| !text.is_empty()) {
            self.ready.push_back(StreamEvent::Text(text));
        }
        Ok(reply)
    }

    /// The reply, once `event` makes it whole.
    fn take_in(&mut self, event: &Event, head: &Head) -> Result<Option<ChatReply>, LlmError> {
        let raw = event.data.trim();
        if raw == "[DONE]" {
            let used = self.frames.facts().tokens.filter(|_| A::Frames::SAYS_DONE);
            return match self.frames.finish(End::Said, head) {
                Some(reply) => Ok(Some(reply)),
                None if self.started => Err(error::paid(http::cut_short(), used)),
                None => Err(http::unreadable("the stream held no answer", "")),
            };
        }
        if raw.is_empty() {
            return Ok(None);
        }
        let value: Value = serde_json::from_str(raw).map_err(|_| {
            http::unreadable("a frame of the stream is no JSON", &head.redactor.text(raw))
        })?;
        let frame = Frame { name: text(&value, "type").unwrap_or(&event.name), raw, value: &value };
        if frame.name == "error" || event.name == "error" || has_error(&value) {
            return Err(error::from_value(&value, head));
        }
        let Step { text, token, last } = self.frames.take(&frame, head)?;
        let facts = self.frames.facts();
        let used = facts.tokens;
        if token || last || used.is_some() || facts.id.is_some() || facts.model.is_some() {
            self.begin(head);
        }
        if token || last {
            self.limits = self.limits.after_first_token();
        }
        if token && !std::mem::replace(&mut self.spoke, true) && text.is_empty() {
            self.ready.push_back(StreamEvent::Token);
        }
        if !text.is_empty() {
            self.ready.push_back(StreamEvent::Text(text));
        }
        if last {
            return Ok(self.frames.finish(End::Said, head));
        }
        if let Some(tokens) = used.filter(|_| used != self.used) {
            self.used = used;
            self.ready.push_back(StreamEvent::Usage(tokens));
        }
        Ok(None)
    }

    fn begin(&mut self, head: &Head) {
        if !std::mem::replace(&mut self.started, true) {
            let Facts { id, model, .. } = self.frames.facts();
            let clean =
                |fact: &Option<String>| fact.as_deref().map(|fact| head.redactor.text(fact));
            let (model, id) = (clean(model), clean(id));
            self.ready.push_back(StreamEvent::Started { model, id });
        }
    }
}
