//! Rendering a prompt: strict, in one pass, and recorded as one Usage.
//! Invariant: one render is one Usage, however often it is executed.

use std::future::IntoFuture;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::{Map, Value, json};

use super::Engine;
use super::call::Call;
use super::execute::Executor;
use crate::error::{Error, Result};
use crate::id::{ExecutionId, UsageId};
use crate::label::Label;
use crate::llm::{ChatRequest, Message};
use crate::prompt::{Prompt, PromptStatus, PromptVersion};
use crate::record::{Attribution, Usage, UsagePayload};
use crate::recorder::Recorded;
use crate::slug::Slug;
use crate::template::{Params, Template, detect_parameters, resolve};
use crate::time::Timestamp;

/// A render about to be made: set what differs from the prompt, then await it.
///
/// # Errors
/// Awaiting it gives `NotFound` for an unknown prompt or version, and `Invalid`, naming the
/// parameter, for a missing required value, one of the wrong type, or one that breaks a rule.
#[derive(Debug)]
#[must_use = "a render does nothing until it is awaited"]
pub struct Render {
    engine: Engine,
    slug: String,
    params: Params,
    version: Option<u32>,
    status: Option<PromptStatus>,
    model: Option<String>,
    temperature: Option<f64>,
    max_tokens: Option<u32>,
    session: Option<String>,
    user: Option<String>,
    environment: Option<String>,
    metadata: Map<String, Value>,
    fresh: bool,
}

impl Render {
    pub(super) fn new(engine: Engine, slug: String, params: Params) -> Self {
        Self {
            engine,
            slug,
            params,
            version: None,
            status: None,
            model: None,
            temperature: None,
            max_tokens: None,
            session: None,
            user: None,
            environment: None,
            metadata: Map::new(),
            fresh: false,
        }
    }

    /// Renders this version, whatever the status of the prompt, in place of the active one.
    pub fn version(mut self, number: u32) -> Self {
        self.version = Some(number);
        self
    }

    /// Renders the prompt in this status: its active version or, without one, its latest.
    pub fn status(mut self, status: PromptStatus) -> Self {
        self.status = Some(status);
        self
    }

    /// Asks this model in place of the version's.
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// Takes this temperature in place of the version's.
    pub fn temperature(mut self, temperature: f64) -> Self {
        self.temperature = Some(temperature);
        self
    }

    /// Takes this maximum of output tokens in place of the version's.
    pub fn max_tokens(mut self, max_tokens: u32) -> Self {
        self.max_tokens = Some(max_tokens);
        self
    }

    /// The session that the usage belongs to.
    pub fn session(mut self, session: impl Into<String>) -> Self {
        self.session = Some(session.into());
        self
    }

    /// The user that it is done for.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// The environment, in place of the engine's.
    pub fn environment(mut self, environment: impl Into<String>) -> Self {
        self.environment = Some(environment.into());
        self
    }

    /// Adds the fields of a JSON object to the metadata of the usage; anything else is kept as `value`.
    pub fn metadata(mut self, metadata: Value) -> Self {
        extend(&mut self.metadata, metadata);
        self
    }

    /// Reads the prompt from the store even if it was read just now.
    pub fn fresh(mut self) -> Self {
        self.fresh = true;
        self
    }

    async fn run(self) -> Result<RenderedPrompt> {
        let inner = &self.engine.inner;
        let slug = Slug::new(self.slug)?;
        let prompt = inner.cache.prompt(&inner.store, &slug, self.fresh).await?;
        let number = number_of(&prompt, self.version, self.status)?;
        let version = inner.cache.version(&inner.store, &prompt, number).await?;

        let text = (version.content.as_str(), version.system_message.as_deref());
        let parameters = parameters_of(&prompt, number, text);
        let values = resolve(&parameters, self.params)?;
        let content = Template::parse(text.0).render(&values)?;
        let system_message =
            text.1.map(|message| Template::parse(message).render(&values)).transpose()?;

        let attribution = Attribution {
            prompt: prompt.id,
            version: number,
            environment: match self.environment {
                Some(environment) => Label::new(environment)?,
                None => inner.environment.clone(),
            },
            session: self.session.map(Label::new).transpose()?,
            user: self.user.map(Label::new).transpose()?,
        };
        let settings = PromptVersion {
            model: match self.model {
                Some(model) => Some(Label::new(model)?),
                None => version.model.clone(),
            },
            temperature: self.temperature.or(version.temperature),
            max_tokens: self.max_tokens.or(version.max_tokens),
            content: String::new(),
            system_message: None,
            ..(*version).clone()
        };
        settings.validate()?;

        let mut metadata = inner.default_metadata.clone();
        metadata.extend(self.metadata);
        let usage = Usage {
            id: UsageId::new(),
            attribution: attribution.clone(),
            created_at: Timestamp::now(),
            payload: Some(Arc::new(UsagePayload {
                parameters: values.clone().into_iter().collect(),
                content: content.clone(),
                system_message: system_message.clone(),
                metadata,
            })),
        };
        let usage_id = usage.id;
        let recorded = inner.recorder.record(usage.into()).await;
        Ok(RenderedPrompt {
            engine: self.engine,
            usage_id,
            attribution,
            prompt,
            settings,
            parameters: values,
            content,
            system_message,
            recorded,
        })
    }
}

/// The number of the version that is meant.
fn number_of(prompt: &Prompt, number: Option<u32>, status: Option<PromptStatus>) -> Result<u32> {
    if let Some(number) = number {
        return Ok(number);
    }
    let wanted = status.unwrap_or(PromptStatus::Active);
    if prompt.status != wanted {
        return Err(Error::not_found(format!(
            "the prompt `{}` is {}, not {wanted}; ask for one of its versions by number",
            prompt.slug, prompt.status
        )));
    }
    Ok(prompt.active_version.unwrap_or(prompt.latest_version))
}

/// The parameters of a version: as the prompt describes them where it does, else as detected.
fn parameters_of(
    prompt: &Prompt,
    number: u32,
    (content, system_message): (&str, Option<&str>),
) -> Vec<crate::Parameter> {
    if prompt.active_version == Some(number) {
        return prompt.parameters.clone();
    }
    super::prompts::merge(&prompt.parameters, detect_parameters(content, system_message))
}

/// Adds the fields of an object; any other value than null is kept under `value`.
pub(crate) fn extend(metadata: &mut Map<String, Value>, more: Value) {
    match more {
        Value::Object(fields) => metadata.extend(fields),
        Value::Null => {}
        other => {
            metadata.insert("value".to_owned(), other);
        }
    }
}

impl IntoFuture for Render {
    type Output = Result<RenderedPrompt>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// A rendered prompt, recorded as one Usage and ready to be executed.
#[derive(Debug, Clone)]
pub struct RenderedPrompt {
    engine: Engine,
    usage_id: UsageId,
    attribution: Attribution,
    prompt: Arc<Prompt>,
    settings: PromptVersion,
    parameters: Params,
    content: String,
    system_message: Option<String>,
    recorded: Recorded,
}

impl RenderedPrompt {
    /// The id of its Usage.
    pub fn usage_id(&self) -> UsageId {
        self.usage_id
    }

    /// The prompt that was rendered.
    pub fn slug(&self) -> &Slug {
        &self.prompt.slug
    }

    /// The number of the version that was rendered.
    pub fn version(&self) -> u32 {
        self.settings.number
    }

    /// The status of the prompt.
    pub fn status(&self) -> PromptStatus {
        self.prompt.status
    }

    /// The text.
    pub fn content(&self) -> &str {
        &self.content
    }

    /// The system message.
    pub fn system_message(&self) -> Option<&str> {
        self.system_message.as_deref()
    }

    /// The model to ask, if the version or the render names one.
    pub fn model(&self) -> Option<&str> {
        self.settings.model.as_deref()
    }

    /// The sampling temperature.
    pub fn temperature(&self) -> Option<f64> {
        self.settings.temperature
    }

    /// The most output tokens.
    pub fn max_tokens(&self) -> Option<u32> {
        self.settings.max_tokens
    }

    /// The values that were filled in, defaults included.
    pub fn parameters(&self) -> &Params {
        &self.parameters
    }

    /// What became of the Usage.
    pub fn recorded(&self) -> &Recorded {
        &self.recorded
    }

    /// The messages to send: the system message, if there is one, and the text as the user's.
    pub fn messages(&self) -> Vec<Message> {
        let system = self.system_message.as_deref().map(Message::system);
        system.into_iter().chain([Message::user(self.content.as_str())]).collect()
    }

    /// The body of an OpenAI Chat Completions request.
    pub fn to_openai_params(&self) -> Value {
        let mut params = Map::new();
        if let Some(model) = self.model() {
            params.insert("model".to_owned(), model.into());
        }
        let messages = self.messages();
        let messages = messages.iter().map(|m| json!({ "role": m.role, "content": m.content }));
        params.insert("messages".to_owned(), messages.collect());
        if let Some(temperature) = self.temperature() {
            params.insert("temperature".to_owned(), temperature.into());
        }
        if let Some(max_tokens) = self.max_tokens() {
            params.insert("max_tokens".to_owned(), max_tokens.into());
        }
        Value::Object(params)
    }

    /// Sends it to a model: await what this returns, or stream it. With a client that is
    /// [`Execute`](crate::Execute), with a [`Chat`](crate::Chat) it is [`Ask`](crate::Ask),
    /// and the chat's model is asked, not the prompt's.
    pub fn execute_with<'a, E: Executor + ?Sized>(&'a self, executor: &'a E) -> E::Execution<'a> {
        executor.execute(self)
    }

    /// Records that a request is about to be sent.
    pub(crate) async fn begin(
        &self,
        id: ExecutionId,
        provider: Label,
        request: Arc<ChatRequest>,
        metadata: Map<String, Value>,
    ) -> Call {
        let attribution = self.attribution.clone();
        Call::begin(&self.engine, id, self.usage_id, attribution, provider, request, metadata).await
    }
}
