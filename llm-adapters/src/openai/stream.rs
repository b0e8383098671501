//! A streamed answer, frame by frame, as [`StreamEvent`]s.
//! Invariant: ends with exactly one `End` or one error. `[DONE]` or a finish reason makes an answer
//! whole; bytes that end without either are a broken connection. Nothing runs once it is dropped.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::{Stream, stream};
use prompt_engine_core::{LlmError, StreamEvent};
use serde_json::Value;

use super::Limits;
use super::error::{self, Redactor};
use super::reply::{self, Facts, Tools};
use super::sse::{Event, Parser};
use super::transport::{Answer, MAX_BYTES};

/// The events of `answer`.
pub(super) fn events(
    answer: Answer,
    limits: Limits,
    redactor: Arc<Redactor>,
) -> impl Stream<Item = Result<StreamEvent, LlmError>> + Send + 'static {
    let reader = Reader {
        answer: Some(answer),
        limits,
        redactor,
        parser: Parser::default(),
        start: Vec::new(),
        ready: VecDeque::new(),
        started: false,
        answered: false,
        text: None,
        tools: Tools::default(),
        facts: Facts::default(),
        finish_reason: None,
    };
    stream::unfold(reader, |mut reader| async move {
        let event = reader.next().await?;
        Some((event, reader))
    })
}

struct Reader {
    /// Gone once the answer is whole or has failed.
    answer: Option<Answer>,
    limits: Limits,
    redactor: Arc<Redactor>,
    parser: Parser,
    /// The first bytes, to quote where they are no stream of events.
    start: Vec<u8>,
    ready: VecDeque<StreamEvent>,
    started: bool,
    /// Whether any frame held a choice.
    answered: bool,
    text: Option<String>,
    tools: Tools,
    facts: Facts,
    finish_reason: Option<String>,
}

impl Reader {
    async fn next(&mut self) -> Option<Result<StreamEvent, LlmError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            let mut answer = self.answer.take()?;
            let step = match self.parser.events.pop_front() {
                Some(event) => self.take_in(event, &answer),
                None if answer.is_json() => self.read_whole(&mut answer).await,
                None => self.read_more(&mut answer).await,
            };
            match step {
                Ok(Step::More) => self.answer = Some(answer),
                Ok(Step::Whole) => self.end(&answer),
                Ok(Step::Ended) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    async fn read_more(&mut self, answer: &mut Answer) -> Result<Step, LlmError> {
        if let Some(chunk) = self.limits.hold(answer.chunk()).await?? {
            let bytes = chunk.as_ref();
            if self.start.len() < 1024 {
                self.start.extend_from_slice(&bytes[..bytes.len().min(1024)]);
            }
            self.parser.push(bytes);
            if self.parser.pending() > MAX_BYTES {
                return Err(error::unreadable("a frame of the stream is longer than 64 MiB", ""));
            }
            return Ok(Step::More);
        }
        self.parser.finish();
        while let Some(event) = self.parser.events.pop_front() {
            // What a closed connection left of a frame is no frame.
            let whole =
                event.data.trim() == "[DONE]" || serde_json::from_str::<Value>(&event.data).is_ok();
            if whole && matches!(self.take_in(event, answer)?, Step::Whole) {
                return Ok(Step::Whole);
            }
        }
        if self.finish_reason.is_some() {
            return Ok(Step::Whole);
        }
        let start = String::from_utf8_lossy(&self.start);
        if self.started || self.start.is_empty() || start.lines().any(|l| l.starts_with("data:")) {
            return Err(error::cut_short());
        }
        let message = "the server's answer is no stream of chat completions";
        Err(error::unreadable(message, &self.redactor.text(&start)).with_http_status(200))
    }

    /// A server that does not stream answers with one JSON value.
    async fn read_whole(&mut self, answer: &mut Answer) -> Result<Step, LlmError> {
        let body = self.limits.hold(answer.text()).await??;
        let reply = reply::parse(&body, answer.headers(), &self.redactor)?;
        let id = reply.metadata.get("id").and_then(Value::as_str).map(str::to_owned);
        self.ready.push_back(StreamEvent::Started { model: reply.model.clone(), id });
        if let Some(text) = reply.content.clone().filter(|text| !text.is_empty()) {
            self.ready.push_back(StreamEvent::Text(text));
        }
        self.ready.push_back(StreamEvent::End(Box::new(reply)));
        Ok(Step::Ended)
    }

    fn take_in(&mut self, event: Event, answer: &Answer) -> Result<Step, LlmError> {
        let data = event.data.trim();
        if data == "[DONE]" {
            if self.answered {
                return Ok(Step::Whole);
            }
            return Err(error::unreadable("the stream held no answer", ""));
        }
        if data.is_empty() {
            return Ok(Step::More);
        }
        let frame: Value = serde_json::from_str(data).map_err(|_| {
            error::unreadable("a frame of the stream is no JSON", &self.redactor.text(data))
        })?;
        if event.name == "error" || reply::has_error(&frame) {
            return Err(error::from_frame(&frame, answer.headers(), &self.redactor));
        }
        self.facts.note(&frame, data);
        let choices = frame.get("choices").and_then(Value::as_array);
        if !self.started && (self.facts.id.is_some() || choices.is_some_and(|c| !c.is_empty())) {
            self.started = true;
            let (model, id) = (self.facts.model.clone(), self.facts.id.clone());
            self.ready.push_back(StreamEvent::Started { model, id });
        }
        // Further choices are asked for with `n`; the first is the answer.
        let first = |choice: &&Value| choice.get("index").and_then(Value::as_u64).unwrap_or(0) == 0;
        for choice in choices.into_iter().flatten().filter(first) {
            if reply::has_error(choice) {
                return Err(error::from_frame(choice, answer.headers(), &self.redactor));
            }
            self.take_choice(choice);
        }
        Ok(Step::More)
    }

    fn take_choice(&mut self, choice: &Value) {
        self.answered = true;
        if let Some(reason) = reply::text(choice, "finish_reason") {
            self.finish_reason = Some(reason.to_owned());
        }
        let Some(delta) = choice.get("delta") else { return };
        let mut token = ["reasoning", "reasoning_content"]
            .iter()
            .any(|name| reply::text(delta, name).is_some());
        if let Some(text) = reply::content(delta).filter(|text| !text.is_empty()) {
            self.text.get_or_insert_default().push_str(&text);
            self.ready.push_back(StreamEvent::Text(text));
            token = true;
        }
        if let Some(refusal) = reply::text(delta, "refusal") {
            self.facts.refusal.get_or_insert_default().push_str(refusal);
            token = true;
        }
        self.tools.note(delta);
        if token || !self.tools.is_empty() {
            self.limits = self.limits.after_first_token();
        }
    }

    fn end(&mut self, answer: &Answer) {
        let facts = std::mem::take(&mut self.facts);
        let tools = std::mem::take(&mut self.tools);
        let reason = self.finish_reason.as_deref();
        let reply = facts.reply(self.text.take(), tools, reason, answer.headers());
        self.ready.push_back(StreamEvent::End(Box::new(reply)));
    }
}

/// How an answer stands after a frame.
enum Step {
    /// It goes on.
    More,
    /// It is whole, and its end is not yet handed out.
    Whole,
    /// Its end is handed out.
    Ended,
}
