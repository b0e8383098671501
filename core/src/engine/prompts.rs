//! Creating and changing prompts: every change of text makes the next version.
//! Invariant: versions never change; of two writers who saw the same prompt one gets a `Conflict`.

use std::slice;

use serde_json::{Map, Value};

use super::Engine;
use crate::error::{Error, Result};
use crate::id::PromptId;
use crate::label::Label;
use crate::parameter::Parameter;
use crate::prompt::{Prompt, PromptStatus, PromptVersion};
use crate::query::PageQuery;
use crate::slug::Slug;
use crate::template::detect_parameters;
use crate::time::Timestamp;

/// The prompts of a store. Get it from [`Engine::prompts`].
#[derive(Debug, Clone)]
pub struct Prompts {
    engine: Engine,
}

/// A prompt to be created.
#[derive(Debug, Clone, PartialEq)]
pub struct NewPrompt {
    /// Its slug, unique for ever.
    pub slug: Slug,
    /// Its name; the slug, unless set.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Whether it stays a draft, without an active version.
    pub draft: bool,
    /// Its first version.
    pub version: VersionDraft,
}

impl NewPrompt {
    /// An active prompt that is named after its slug.
    pub fn new(slug: Slug, version: VersionDraft) -> Self {
        Self { name: slug.to_string(), slug, description: None, draft: false, version }
    }
}

/// What a version says. Parameters are detected from its texts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VersionDraft {
    /// The text, with `{{name}}` where a value goes.
    pub content: String,
    /// The system message, with values likewise.
    pub system_message: Option<String>,
    /// The model to ask.
    pub model: Option<Label>,
    /// The sampling temperature, 0 to 2.
    pub temperature: Option<f64>,
    /// The most output tokens.
    pub max_tokens: Option<u32>,
    /// Anything else.
    pub metadata: Map<String, Value>,
    /// What changed.
    pub change_description: Option<String>,
    /// Who changed it.
    pub author: Option<String>,
}

impl From<PromptVersion> for VersionDraft {
    fn from(version: PromptVersion) -> Self {
        Self {
            content: version.content,
            system_message: version.system_message,
            model: version.model,
            temperature: version.temperature,
            max_tokens: version.max_tokens,
            metadata: match version.metadata {
                Value::Object(metadata) => metadata,
                _ => Map::new(),
            },
            change_description: version.change_description,
            author: version.author,
        }
    }
}

impl VersionDraft {
    fn numbered(self, prompt_id: PromptId, number: u32, created_at: Timestamp) -> PromptVersion {
        PromptVersion {
            prompt_id,
            number,
            content: self.content,
            system_message: self.system_message,
            model: self.model,
            temperature: self.temperature,
            max_tokens: self.max_tokens,
            metadata: Value::Object(self.metadata),
            change_description: self.change_description,
            author: self.author,
            created_at,
        }
    }
}

/// Whether a new version is the one that is rendered from now on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Activation {
    /// It is.
    #[default]
    Activate,
    /// It waits until it is activated.
    Draft,
}

/// What to change of a prompt besides its versions; `None` leaves a field as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PromptUpdate {
    /// Its name.
    pub name: Option<String>,
    /// What it is for; `Some(None)` takes it away.
    pub description: Option<Option<String>>,
    /// Its parameters.
    pub parameters: Option<Vec<Parameter>>,
}

impl Prompts {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    /// Creates a prompt with its first version, active unless it is a draft.
    ///
    /// # Errors
    /// `Conflict` if the slug is taken; `Invalid`, naming what breaks a rule.
    pub async fn create(&self, new: NewPrompt) -> Result<(Prompt, PromptVersion)> {
        let now = Timestamp::now();
        let id = PromptId::new();
        let version = new.version.numbered(id, 1, now);
        let prompt = Prompt {
            id,
            slug: new.slug,
            name: new.name,
            description: new.description,
            status: if new.draft { PromptStatus::Draft } else { PromptStatus::Active },
            parameters: detect_parameters(&version.content, version.system_message.as_deref()),
            active_version: (!new.draft).then_some(1),
            latest_version: 1,
            revision: 1,
            created_at: now,
            updated_at: now,
        };
        prompt.validate()?;
        version.validate()?;
        self.engine.store().insert_prompt(&prompt, slice::from_ref(&version)).await?;
        self.engine.inner.cache.forget(&prompt.slug);
        Ok((prompt, version))
    }

    /// The prompt of `slug`, as it is now.
    ///
    /// # Errors
    /// `NotFound`, naming the slug.
    pub async fn get(&self, slug: &Slug) -> Result<Prompt> {
        let found = self.engine.store().prompt_by_slug(slug).await?;
        found.ok_or_else(|| Error::not_found(format!("there is no prompt `{slug}`")))
    }

    /// All prompts, by slug.
    pub async fn list(&self) -> Result<Vec<Prompt>> {
        let mut prompts = Vec::new();
        let mut page = PageQuery { limit: 1_000, after: None };
        loop {
            let next = self.engine.store().list_prompts(&page).await?;
            prompts.extend(next.items);
            match next.next {
                Some(cursor) => page.after = Some(cursor),
                None => return Ok(prompts),
            }
        }
    }

    /// One version of a prompt.
    ///
    /// # Errors
    /// `NotFound`, naming the prompt or the number.
    pub async fn version(&self, slug: &Slug, number: u32) -> Result<PromptVersion> {
        let prompt = self.get(slug).await?;
        self.version_of(&prompt, number).await
    }

    async fn version_of(&self, prompt: &Prompt, number: u32) -> Result<PromptVersion> {
        let found = self.engine.store().version(prompt.id, number).await?;
        found.ok_or_else(|| {
            Error::not_found(format!("the prompt `{}` has no version {number}", prompt.slug))
        })
    }

    /// All versions of a prompt, newest first.
    ///
    /// # Errors
    /// `NotFound`, naming the slug.
    pub async fn versions(&self, slug: &Slug) -> Result<Vec<PromptVersion>> {
        let prompt = self.get(slug).await?;
        let mut versions = Vec::new();
        let mut page = PageQuery { limit: 1_000, after: None };
        loop {
            let next = self.engine.store().list_versions(prompt.id, &page).await?;
            versions.extend(next.items);
            match next.next {
                Some(cursor) => page.after = Some(cursor),
                None => return Ok(versions),
            }
        }
    }

    /// Makes the next version. Parameters that its texts name for the first time are added with
    /// an inferred type; those they no longer name are dropped; the others stay as they are.
    ///
    /// # Errors
    /// `Conflict` if somebody else changed the prompt in between.
    pub async fn add_version(
        &self,
        slug: &Slug,
        draft: VersionDraft,
        activation: Activation,
    ) -> Result<(Prompt, PromptVersion)> {
        let prompt = self.get(slug).await?;
        self.add_version_to(prompt, draft, activation).await
    }

    /// The same, to the prompt as the caller saw it: of two callers who saw the same, one wins.
    ///
    /// # Errors
    /// `Conflict` if somebody else changed the prompt since.
    pub async fn add_version_to(
        &self,
        prompt: Prompt,
        draft: VersionDraft,
        activation: Activation,
    ) -> Result<(Prompt, PromptVersion)> {
        let number = prompt.latest_version.checked_add(1).ok_or_else(|| {
            Error::invalid(format!("the prompt `{}` has no version number left", prompt.slug))
        })?;
        let version = draft.numbered(prompt.id, number, Timestamp::now());
        version.validate()?;
        let mut prompt = prompt;
        let detected = detect_parameters(&version.content, version.system_message.as_deref());
        let known = std::mem::take(&mut prompt.parameters);
        prompt.parameters = match activation {
            Activation::Activate => merge(&known, detected),
            Activation::Draft => known,
        };
        prompt.latest_version = number;
        if activation == Activation::Activate {
            prompt.active_version = Some(number);
            prompt.status = PromptStatus::Active;
        }
        let prompt = self.write(prompt, Some(&version)).await?;
        Ok((prompt, version))
    }

    /// Changes name, description or parameters.
    ///
    /// # Errors
    /// `Conflict` if somebody else changed the prompt in between; `Invalid`, naming what breaks a rule.
    pub async fn update(&self, slug: &Slug, update: PromptUpdate) -> Result<Prompt> {
        let mut prompt = self.get(slug).await?;
        let PromptUpdate { name, description, parameters } = update;
        prompt.name = name.unwrap_or(prompt.name);
        prompt.description = description.unwrap_or(prompt.description);
        prompt.parameters = parameters.unwrap_or(prompt.parameters);
        self.write(prompt, None).await
    }

    /// Makes version `number` the one that is rendered: an older one is a rollback.
    ///
    /// # Errors
    /// `NotFound`, naming the prompt or the number.
    pub async fn activate(&self, slug: &Slug, number: u32) -> Result<Prompt> {
        let mut prompt = self.get(slug).await?;
        let version = self.version_of(&prompt, number).await?;
        let detected = detect_parameters(&version.content, version.system_message.as_deref());
        prompt.parameters = merge(&prompt.parameters, detected);
        prompt.active_version = Some(number);
        prompt.status = PromptStatus::Active;
        self.write(prompt, None).await
    }

    /// Makes a new version that says what version `number` said, and activates it.
    ///
    /// # Errors
    /// `NotFound`, naming the prompt or the number.
    pub async fn restore(&self, slug: &Slug, number: u32) -> Result<(Prompt, PromptVersion)> {
        let prompt = self.get(slug).await?;
        let old = self.version_of(&prompt, number).await?;
        let draft = VersionDraft {
            change_description: Some(format!("Restored from version {number}")),
            ..old.into()
        };
        self.add_version_to(prompt, draft, Activation::Activate).await
    }

    /// Puts a prompt away: it is no longer rendered, except by version. Activating brings it back.
    ///
    /// # Errors
    /// `NotFound`, naming the slug.
    pub async fn archive(&self, slug: &Slug) -> Result<Prompt> {
        let mut prompt = self.get(slug).await?;
        prompt.status = PromptStatus::Archived;
        self.write(prompt, None).await
    }

    async fn write(&self, mut prompt: Prompt, version: Option<&PromptVersion>) -> Result<Prompt> {
        prompt.revision += 1;
        prompt.updated_at = Timestamp::now();
        prompt.validate()?;
        self.engine.store().update_prompt(&prompt, version).await?;
        self.engine.inner.cache.forget(&prompt.slug);
        Ok(prompt)
    }
}

/// The detected parameters in their order, each as it is known where it is.
pub(super) fn merge(known: &[Parameter], detected: Vec<Parameter>) -> Vec<Parameter> {
    let as_known = |parameter: Parameter| {
        let position = parameter.position;
        let known = known.iter().find(|known| known.name == parameter.name).cloned();
        Parameter { position, ..known.unwrap_or(parameter) }
    };
    detected.into_iter().map(as_known).collect()
}
