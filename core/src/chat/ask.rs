//! A question about to be asked, with a chat or with a rendered prompt and a chat.

use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::channel::mpsc;
use futures::future::BoxFuture;
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::answer::{Answer, AnswerStream, ChatError};
use super::turns::{Output, Turns};
use super::{Chat, Settings};
use crate::attempts::{Attempts, Limits, Recording, Target, Way};
use crate::engine::{Executor, RenderedPrompt, extend};
use crate::llm::{ChatRequest, Message};

/// A question about to be asked: set what differs, then await it, or [`Ask::stream`] it.
///
/// It comes from [`Chat::ask`] and [`Chat::complete`], which let the history of the chat grow, and
/// from [`RenderedPrompt::execute_with`], which leaves the chat as it is and records every physical
/// call as an execution of the one Usage.
#[must_use = "nothing is asked until it is awaited or streamed"]
pub struct Ask<'a> {
    settings: Arc<Settings>,
    history: History<'a>,
    question: Vec<Message>,
    rendered: Option<RenderedPrompt>,
    metadata: Map<String, Value>,
    extra: Map<String, Value>,
    timeout: Option<Duration>,
    first_token: Option<Duration>,
    cancel: watch::Receiver<u64>,
    output: Output<'a>,
}

enum History<'a> {
    /// Of a chat, which grows.
    Kept(&'a mut Vec<Message>),
    /// Of a chat that stays as it is.
    Copied(Vec<Message>),
}

impl<'a> Ask<'a> {
    pub(super) fn of_chat(chat: &'a mut Chat, question: Vec<Message>) -> Self {
        let cancel = chat.canceller.0.subscribe();
        let settings = Arc::clone(&chat.settings);
        Self::new(settings, History::Kept(&mut chat.messages), question, None, cancel)
    }

    fn new(
        settings: Arc<Settings>,
        history: History<'a>,
        question: Vec<Message>,
        rendered: Option<RenderedPrompt>,
        cancel: watch::Receiver<u64>,
    ) -> Self {
        Self {
            settings,
            history,
            question,
            rendered,
            metadata: Map::new(),
            extra: Map::new(),
            timeout: None,
            first_token: None,
            cancel,
            output: Output::default(),
        }
    }

    /// Calls `on_text` with each piece of text as it is made; the answer is then streamed.
    pub fn on_text(mut self, on_text: impl FnMut(&str) + Send + 'a) -> Self {
        self.output.on_text = Some(Box::new(on_text));
        self
    }

    /// Gives up after so long, retries, fallbacks and tools included. The call under way is then
    /// recorded as a timeout.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Gives each streamed call up that has no token after so long, of text or of anything else; it
    /// is recorded as a timeout.
    pub fn first_token_timeout(mut self, timeout: Duration) -> Self {
        self.first_token = Some(timeout);
        self
    }

    /// Passes a field of the provider through as it is: `tool_choice`, `service_tier`, `seed`.
    pub fn option(mut self, name: impl Into<String>, value: Value) -> Self {
        self.extra.insert(name.into(), value);
        self
    }

    /// Adds the fields of a JSON object to the metadata of each execution. Without a rendered
    /// prompt nothing is recorded, and so neither is this.
    pub fn metadata(mut self, metadata: Value) -> Self {
        extend(&mut self.metadata, metadata);
        self
    }

    /// Asks and gives the answer as it is made. Nothing is sent before it is polled.
    pub fn stream(mut self) -> AnswerStream<'a> {
        // Without room, so that what is sent waits for whoever reads.
        let (sender, events) = mpsc::channel(0);
        self.output.events = Some(sender);
        AnswerStream::new(self.run().boxed(), events)
    }

    async fn run(mut self) -> Result<Answer, ChatError> {
        let settings = &*self.settings;
        let rendered = self.rendered.as_ref();
        let mut extra = settings.extra.clone();
        extra.extend(self.extra);
        let request = ChatRequest {
            temperature: settings.temperature.or(rendered.and_then(RenderedPrompt::temperature)),
            max_tokens: settings.max_tokens.or(rendered.and_then(RenderedPrompt::max_tokens)),
            tools: settings.tools.iter().map(|offered| offered.spec.clone()).collect(),
            output_schema: settings.schema.clone(),
            extra,
            ..ChatRequest::default()
        };
        let limits =
            Limits::default().with_cancel(self.cancel).with_timeout(self.timeout, "whole answer");
        let targets = settings.models.iter();
        let attempts = Attempts {
            targets: targets.map(|(client, model)| Target { client, model }).collect(),
            retries: &settings.retries,
            way: if self.output.is_wanted() { Way::Streamed } else { Way::Whole },
            limits: limits.clone(),
            first_token: self.first_token,
            recording: rendered.map(|rendered| Recording { rendered, metadata: self.metadata }),
            listeners: settings.listeners.on_attempt.as_slice().into(),
            turn: 1,
            calls: Vec::new(),
        };
        let history = match &mut self.history {
            History::Kept(messages) => messages,
            History::Copied(messages) => messages,
        };
        let (question, output) = (self.question, self.output);
        Turns { settings, request, history, question, attempts, limits, output }.run().await
    }
}

impl<'a> IntoFuture for Ask<'a> {
    type Output = Result<Answer, ChatError>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.run().boxed()
    }
}

/// Asks the model of the chat, with its instructions and history before the rendered messages.
/// Temperature and maximum of tokens are the prompt's where the chat sets none; the model of the
/// prompt is not asked, since a model belongs to its client. The chat stays as it is.
impl Executor for Chat {
    type Execution<'a> = Ask<'static>;

    fn execute(&self, rendered: &RenderedPrompt) -> Ask<'static> {
        Ask::new(
            Arc::clone(&self.settings),
            History::Copied(self.messages.clone()),
            rendered.messages(),
            Some(rendered.clone()),
            self.canceller.0.subscribe(),
        )
    }
}

impl fmt::Debug for Ask<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask")
            .field("question", &self.question)
            .field("rendered", &self.rendered)
            .finish_non_exhaustive()
    }
}
