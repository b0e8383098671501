//! A streamed answer, frame by frame, as [`StreamEvent`]s.
//! Invariant: ends with exactly one `End` or one error. A last frame or a finish reason makes an
//! answer whole; bytes that end without either are a broken connection. Nothing runs once it is dropped.
//!
//! genai is the pump: it sends the request and cuts the answer into frames, which a sink of ours
//! collects. What genai makes of a frame is not looked at.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use futures::{Stream, StreamExt, stream};
use genai::Error as GenAiError;
use genai::chat::{ChatOptions, ChatStream, ChatStreamEvent};
use prompt_engine_core::{LlmError, StreamEvent};
use serde_json::Value;

use super::error::Judge;
use super::reply::{Reader, Step};
use super::unlogged;
use crate::http::{self, Limits};
use crate::json::has_error;

/// One event of the server: its name, empty if it has none, and its data.
#[derive(Debug)]
struct Frame {
    name: String,
    data: String,
}

/// The frames that genai has cut and nobody has read.
#[derive(Debug, Clone, Default)]
pub(super) struct Frames(Arc<Mutex<VecDeque<Frame>>>);

impl Frames {
    /// Frames, and `options` with which genai collects them.
    pub(super) fn tap(options: ChatOptions) -> (Self, ChatOptions) {
        let frames = Self::default();
        let sink = frames.clone();
        let options = options.with_raw_frame_fn(move |_, frame| {
            let name = frame.event.unwrap_or_default().to_owned();
            sink.with(|queue| queue.push_back(Frame { name, data: frame.data.to_owned() }));
        });
        (frames, options)
    }

    fn pop(&self) -> Option<Frame> {
        self.with(VecDeque::pop_front)
    }

    fn is_empty(&self) -> bool {
        self.with(|queue| queue.is_empty())
    }

    fn with<T>(&self, work: impl FnOnce(&mut VecDeque<Frame>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(super) struct Pump {
    /// Gone once the answer is whole or has failed.
    answer: Option<ChatStream>,
    frames: Frames,
    reader: Box<dyn Reader>,
    limits: Limits,
    judge: Judge,
    ready: VecDeque<StreamEvent>,
    started: bool,
    /// Whether a token was handed out, text or not.
    spoke: bool,
    /// Whether the bytes held something that is no event.
    odd: bool,
    /// A frame that ends in the middle: the last one of a connection that broke.
    half: Option<String>,
}

impl Pump {
    pub(super) fn new(
        answer: ChatStream,
        frames: Frames,
        reader: Box<dyn Reader>,
        limits: Limits,
        judge: Judge,
    ) -> Self {
        Self {
            answer: Some(answer),
            frames,
            reader,
            limits,
            judge,
            ready: VecDeque::new(),
            started: false,
            spoke: false,
            odd: false,
            half: None,
        }
    }

    /// Sends the request, and hands out the events once the first is there.
    pub(super) async fn start(
        mut self,
    ) -> Result<impl Stream<Item = Result<StreamEvent, LlmError>> + Send + 'static, LlmError> {
        let first = self.next().await.transpose()?;
        let rest = stream::unfold(self, |mut pump| async move {
            let event = pump.next().await?;
            Some((event, pump))
        });
        Ok(stream::iter(first.map(Ok)).chain(rest))
    }

    async fn next(&mut self) -> Option<Result<StreamEvent, LlmError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            let mut answer = self.answer.take()?;
            match self.step(&mut answer).await {
                Ok(true) => self.end(),
                Ok(false) => self.answer = Some(answer),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Reads on; answers whether the answer is whole.
    async fn step(&mut self, answer: &mut ChatStream) -> Result<bool, LlmError> {
        let frames = &self.frames;
        // genai reads several frames before it says anything of them.
        let said = poll_fn(|context| match answer.poll_next_unpin(context) {
            Poll::Pending if !frames.is_empty() => Poll::Ready(Said::Nothing),
            said => said.map(Said::from),
        });
        let said = self.limits.hold(unlogged(said)).await?;
        let mut read = false;
        while let Some(frame) = self.frames.pop() {
            read = true;
            if self.take_in(&frame)? {
                return Ok(true);
            }
        }
        match said {
            Said::Nothing => Ok(false),
            Said::End if self.reader.draft().finish_reason.is_some() => Ok(true),
            Said::End if self.odd && !self.started => {
                Err(self.judge.unreadable("the server's answer is no stream of events", ""))
            }
            Said::End => Err(http::cut_short()),
            // What a frame held was judged above, more leniently.
            Said::Failed(why) if read && !matches!(*why, GenAiError::WebStream { .. }) => Ok(false),
            Said::Failed(why) => Err(self.judge.of_call(*why)),
        }
    }

    fn take_in(&mut self, frame: &Frame) -> Result<bool, LlmError> {
        let data = frame.data.trim();
        if data.is_empty() || data == "[DONE]" {
            self.odd |= data.is_empty() && frame.name.is_empty();
            return Ok(false);
        }
        let no_json = |data: &str| self.judge.unreadable("a frame of the stream is no JSON", data);
        if let Some(half) = &self.half {
            return Err(no_json(half));
        }
        let value: Value = match serde_json::from_str(data) {
            Ok(value) => value,
            Err(why) if why.is_eof() => {
                self.half = Some(data.to_owned());
                return Ok(false);
            }
            Err(_) => return Err(no_json(data)),
        };
        if frame.name == "error" || has_error(&value) {
            return Err(self.judge.of_value(&value));
        }
        let Step { text, token, last } = self.reader.frame(&value);
        let draft = self.reader.draft();
        if token || draft.id.is_some() || draft.model.is_some() {
            self.begin();
        }
        if token {
            self.limits = self.limits.after_first_token();
            if !std::mem::replace(&mut self.spoke, true) && text.is_empty() {
                self.ready.push_back(StreamEvent::Token);
            }
        }
        if !text.is_empty() {
            self.ready.push_back(StreamEvent::Text(text));
        }
        Ok(last)
    }

    fn begin(&mut self) {
        if !std::mem::replace(&mut self.started, true) {
            let draft = self.reader.draft();
            let (model, id) = (draft.model.clone(), draft.id.clone());
            self.ready.push_back(StreamEvent::Started { model, id });
        }
    }

    fn end(&mut self) {
        self.begin();
        self.ready.push_back(StreamEvent::End(Box::new(self.reader.reply())));
    }
}

/// What genai says when it is asked for more.
enum Said {
    /// Nothing of weight; frames may have come.
    Nothing,
    /// There are no more bytes.
    End,
    Failed(Box<GenAiError>),
}

impl From<Option<Result<ChatStreamEvent, GenAiError>>> for Said {
    fn from(item: Option<Result<ChatStreamEvent, GenAiError>>) -> Self {
        match item {
            None => Self::End,
            Some(Ok(_)) => Self::Nothing,
            Some(Err(why)) => Self::Failed(Box::new(why)),
        }
    }
}
