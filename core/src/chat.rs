//! A conversation with a model: instructions, history, tools, retries and fallbacks over any client.
//! Invariant: a chat sends nothing itself: every physical call is one call of an [`LlmClient`].
//! The surface is RubyLLM's (rubyllm.com), in the words of Rust.

mod answer;
mod ask;
mod listeners;
mod tool;
mod turns;

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::attempts::Attempt;
use crate::llm::{LlmClient, Message, OutputSchema, ToolCall};
use crate::retry::RetryPolicy;

pub use answer::{Answer, AnswerStream, ChatError, ChatEvent};
pub use ask::Ask;
use listeners::Listeners;
use tool::Offered;
pub use tool::{Tool, tool_fn};

/// How many turns of one question may call tools, unless a chat says otherwise.
const TOOL_LIMIT: u32 = 10;

/// A conversation with a model.
///
/// [`Chat::ask`] sends a question after the instructions and all that was said before, calls the
/// tools that the model wants called, in order, and asks again until it calls none. Where a call
/// fails, retries and fallbacks are as set; without them, one call is made. In one question, a
/// model that answered is asked again for the next turn; the next question begins with the first.
///
/// # History
/// The history grows by whole turns: a reply of the model, with the results of all tools that it
/// calls. After a question that failed or was cancelled it holds the question and the turns that
/// were whole; if there was none, not even the question, so that it can be asked again. Where there
/// were some, [`Chat::complete`] goes on from there. What a tool did before it was cancelled is done.
///
/// A reply with neither text nor tool calls (a refusal, an answer that was blocked) is no message:
/// no listener is told of one, and the history goes on from the question. It is all in
/// [`Answer::reply`].
///
/// # Accounting
/// [`Chat::on_attempt`] is told of every physical call, failed and cancelled ones too. To have them
/// recorded, execute a rendered prompt with the chat: `rendered.execute_with(&chat)`. It sends the
/// instructions and the history of the chat, then the rendered messages, and leaves the chat as it
/// is; any number may run at the same time. The model of the chat is asked, not that of the prompt.
///
/// # Example: a question that takes a tool
/// ```
/// use prompt_engine_core::testkit::{self, Act, Scripted};
/// use prompt_engine_core::{Chat, ChatReply, RetryPolicy, ToolCall, ToolSpec, tool_fn};
///
/// // A model that first calls the tool and then answers.
/// let call = ToolCall { id: "c1".into(), name: "weather".into(), arguments: r#"{"city": "Paris"}"#.into(), signature: None };
/// let client = Scripted::new([
///     Act::Reply(ChatReply { tool_calls: vec![call], ..ChatReply::default() }),
///     Act::Reply(testkit::reply("It is sunny in Paris.")),
/// ]);
///
/// let weather = tool_fn(ToolSpec::new("weather", "The weather of a city"), async |arguments| {
///     Ok(format!("sunny in {}", arguments["city"].as_str().ok_or("name the city")?))
/// });
/// let mut chat = Chat::new(client, "gpt-4o-mini")
///     .with_instructions("Be brief.")
///     .with_tool(weather)
///     .with_retries(RetryPolicy::default())
///     .on_attempt(|attempt| println!("turn {}: {:?}", attempt.turn, attempt.latency));
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let answer = chat.ask("What is the weather in Paris?").await?;
/// assert_eq!(answer.text(), "It is sunny in Paris.");
/// assert_eq!(chat.messages().len(), 4); // the question, the call, its result, the answer
/// # Ok::<(), prompt_engine_core::ChatError>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Chat {
    settings: Arc<Settings>,
    messages: Vec<Message>,
    canceller: Canceller,
}

#[derive(Clone)]
struct Settings {
    /// The model to ask, and behind it those to fall back on.
    models: Vec<(Arc<dyn LlmClient>, String)>,
    instructions: Option<String>,
    temperature: Option<f64>,
    max_tokens: Option<u32>,
    schema: Option<OutputSchema>,
    extra: Map<String, Value>,
    tools: Vec<Offered>,
    tool_limit: u32,
    retries: RetryPolicy,
    listeners: Listeners,
}

impl Chat {
    /// A chat with `model`, which `client` asks.
    pub fn new(client: impl LlmClient, model: impl Into<String>) -> Self {
        let settings = Settings {
            models: vec![(Arc::new(client), model.into())],
            instructions: None,
            temperature: None,
            max_tokens: None,
            schema: None,
            extra: Map::new(),
            tools: Vec::new(),
            tool_limit: TOOL_LIMIT,
            retries: RetryPolicy::none(),
            listeners: Listeners::default(),
        };
        let canceller = Canceller(watch::Sender::new(0));
        Self { settings: Arc::new(settings), messages: Vec::new(), canceller }
    }

    fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }

    /// Sends these instructions before everything else, in place of any before.
    #[must_use]
    pub fn with_instructions(self, instructions: impl Into<String>) -> Self {
        self.set(|settings| settings.instructions = Some(instructions.into()))
    }

    /// Asks with this sampling temperature.
    #[must_use]
    pub fn with_temperature(self, temperature: f64) -> Self {
        self.set(|settings| settings.temperature = Some(temperature))
    }

    /// Asks for at most so many output tokens a reply.
    #[must_use]
    pub fn with_max_tokens(self, max_tokens: u32) -> Self {
        self.set(|settings| settings.max_tokens = Some(max_tokens))
    }

    /// Asks for answers that are JSON of this JSON Schema, an object; `name` is what the form is
    /// called. Read them with [`Answer::json`].
    #[must_use]
    pub fn with_schema(self, name: impl Into<String>, schema: Value) -> Self {
        let schema = OutputSchema { name: name.into(), schema };
        self.set(|settings| settings.schema = Some(schema))
    }

    /// Passes a field of the provider through with every request: to every model of the chat,
    /// fallbacks of other providers too.
    #[must_use]
    pub fn with_option(self, name: impl Into<String>, value: Value) -> Self {
        self.set(|settings| drop(settings.extra.insert(name.into(), value)))
    }

    /// Lets the model call a tool; one of the same name is replaced. See [`tool_fn`] for closures.
    #[must_use]
    pub fn with_tool(self, tool: impl Tool) -> Self {
        let spec = tool.spec();
        self.set(|settings| {
            settings.tools.retain(|offered| offered.spec.name != spec.name);
            settings.tools.push(Offered { spec, tool: Arc::new(tool) });
        })
    }

    /// Lets the model call tools in so many turns of one question, 10 unless set. A further turn
    /// that calls some is not taken: the question then fails, and what was said before it is kept.
    #[must_use]
    pub fn with_tool_limit(self, turns: u32) -> Self {
        self.set(|settings| settings.tool_limit = turns)
    }

    /// Makes calls again that fail for a reason that passes.
    #[must_use]
    pub fn with_retries(self, policy: RetryPolicy) -> Self {
        self.set(|settings| settings.retries = policy)
    }

    /// Asks this model where those before it fail for good, with as many retries for it. It is not
    /// asked where it could not help: `invalid_request`, `content_filter`, and calls that were
    /// cancelled or ran out of the time for the whole question.
    ///
    /// It gets the fields of [`Chat::with_option`] and [`Ask::option`], too. One that another
    /// provider does not know may make it refuse the request.
    #[must_use]
    pub fn with_fallback(self, client: impl LlmClient, model: impl Into<String>) -> Self {
        self.set(|settings| settings.models.push((Arc::new(client), model.into())))
    }

    /// Tells `listener` of every physical call once it has ended: retries, fallbacks, turns, those
    /// that failed and those that were cancelled. It is called where the call ends, so it should be
    /// quick; one that panics is reported and harms no call.
    #[must_use]
    pub fn on_attempt(self, listener: impl Fn(&Attempt<'_>) + Send + Sync + 'static) -> Self {
        self.set(|settings| settings.listeners.on_attempt.push(Arc::new(listener)))
    }

    /// Calls `listener` before each message of the model and before each result of a tool.
    #[must_use]
    pub fn before_message(self, listener: impl Fn() + Send + Sync + 'static) -> Self {
        self.set(|settings| settings.listeners.before_message.push(Arc::new(listener)))
    }

    /// Calls `listener` with each message of the model and each result of a tool.
    #[must_use]
    pub fn after_message(self, listener: impl Fn(&Message) + Send + Sync + 'static) -> Self {
        self.set(|settings| settings.listeners.after_message.push(Arc::new(listener)))
    }

    /// Calls `listener` before each call of a tool.
    #[must_use]
    pub fn before_tool_call(self, listener: impl Fn(&ToolCall) + Send + Sync + 'static) -> Self {
        self.set(|settings| settings.listeners.before_tool_call.push(Arc::new(listener)))
    }

    /// Calls `listener` after each call of a tool with what the model is told.
    #[must_use]
    pub fn after_tool_result(
        self,
        listener: impl Fn(&ToolCall, &str) + Send + Sync + 'static,
    ) -> Self {
        self.set(|settings| settings.listeners.after_tool_result.push(Arc::new(listener)))
    }

    /// Asks a question: await what this returns, or stream it. A text is a message of the user;
    /// one with pictures is a [`Message`].
    pub fn ask(&mut self, question: impl Into<Message>) -> Ask<'_> {
        Ask::of_chat(self, vec![question.into()])
    }

    /// Asks the model to go on from the history as it is, without a further question.
    pub fn complete(&mut self) -> Ask<'_> {
        Ask::of_chat(self, Vec::new())
    }

    /// Adds a message to the history.
    pub fn add_message(&mut self, message: Message) {
        self.messages.push(message);
    }

    /// The history, without the instructions.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// What ends the questions of this chat and of its clones from elsewhere.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }
}

impl fmt::Debug for Chat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tools = self.settings.tools.iter().map(|offered| &offered.spec.name);
        f.debug_struct("Chat")
            .field("models", &self.settings.models)
            .field("tools", &tools.collect::<Vec<_>>())
            .field("messages", &self.messages)
            .finish_non_exhaustive()
    }
}

/// Ends what a chat is being asked, from another task. Cloning clones the handle.
///
/// # Example: a question that takes too long
/// ```
/// use prompt_engine_core::testkit::{Act, Scripted};
/// use prompt_engine_core::{Chat, ErrorCategory};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let mut chat = Chat::new(Scripted::new([Act::Hang]), "gpt-4o-mini");
/// let canceller = chat.canceller();
/// let (answer, ()) = futures::join!(chat.ask("Hello?").into_future(), async { canceller.cancel() });
/// assert_eq!(answer.unwrap_err().category(), ErrorCategory::Cancelled);
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct Canceller(watch::Sender<u64>);

impl Canceller {
    /// Cancels all that is asked now: the call under way, a wait before another, a tool. It fails
    /// with the category `cancelled` and is recorded so. What is asked later is not touched.
    pub fn cancel(&self) {
        self.0.send_modify(|times| *times = times.wrapping_add(1));
    }
}
