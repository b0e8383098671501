//! The options that say what a version of a prompt is to be.

use std::io::Read;

use clap::Args;
use prompt_engine::{
    Label, Parameter, ParameterType, Prompt, PromptEngine, PromptUpdate, PromptVersion,
    VersionDraft, detect_parameters,
};
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::filters::parse_object;

/// What a version says.
#[derive(Debug, Args)]
#[command(next_help_heading = "The version")]
pub(super) struct VersionArgs {
    /// The text, with {{name}} where a value goes.
    #[arg(long, value_name = "TEXT", conflicts_with = "content_file", allow_hyphen_values = true)]
    content: Option<String>,
    /// The file that holds the text; - is standard input.
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    content_file: Option<String>,
    /// The system message; an empty text takes it away.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,
    /// The model to ask; an empty text takes it away.
    #[arg(long, value_name = "NAME")]
    model: Option<Label>,
    /// How freely the model picks, 0 to 2.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// The most tokens the model may answer with.
    #[arg(long, value_name = "NUMBER")]
    max_tokens: Option<u32>,
    /// Anything else, as a JSON object.
    #[arg(long, value_name = "JSON", value_parser = parse_object)]
    metadata: Option<Map<String, Value>>,
    /// Why this version is made.
    #[arg(long, value_name = "TEXT")]
    change: Option<String>,
    /// Who makes it.
    #[arg(long, value_name = "NAME")]
    author: Option<String>,
    /// The type of a parameter, and whether it is needed: count:integer, or count:integer:optional:3.
    #[arg(long, value_name = "NAME:TYPE[:required|optional[:DEFAULT]]", value_parser = parse_parameter)]
    parameter: Vec<Parameter>,
}

impl VersionArgs {
    /// The text, if there is one.
    fn text(&self) -> Result<Option<String>, Failure> {
        match &self.content_file {
            Some(file) => read_text(file).map(Some),
            None => Ok(self.content.clone()),
        }
    }

    /// Whether a text is given.
    pub(super) fn has_text(&self) -> bool {
        self.content.is_some() || self.content_file.is_some()
    }

    /// Whether a parameter is given.
    pub(super) fn has_parameters(&self) -> bool {
        !self.parameter.is_empty()
    }

    /// Whether nothing of a version is given.
    pub(super) fn is_empty(&self) -> bool {
        let Self {
            content,
            content_file,
            system,
            model,
            temperature,
            max_tokens,
            metadata,
            change,
            author,
            parameter: _,
        } = self;
        content.is_none()
            && content_file.is_none()
            && system.is_none()
            && model.is_none()
            && temperature.is_none()
            && max_tokens.is_none()
            && metadata.is_none()
            && change.is_none()
            && author.is_none()
    }

    /// The version that `base` becomes.
    pub(super) fn draft(&self, base: VersionDraft) -> Result<VersionDraft, Failure> {
        Ok(VersionDraft {
            content: self.text()?.unwrap_or(base.content),
            system_message: match &self.system {
                Some(text) => (!text.is_empty()).then(|| text.clone()),
                None => base.system_message,
            },
            model: match &self.model {
                Some(model) => (!model.is_empty()).then(|| model.clone()),
                None => base.model,
            },
            temperature: self.temperature.or(base.temperature),
            max_tokens: self.max_tokens.or(base.max_tokens),
            metadata: self.metadata.clone().unwrap_or(base.metadata),
            change_description: self.change.clone(),
            author: self.author.clone(),
        })
    }

    /// Refuses parameters that break a rule, or that no text of the version names.
    pub(super) fn check_parameters(&self, draft: &VersionDraft) -> Result<(), Failure> {
        let named = detect_parameters(&draft.content, draft.system_message.as_deref());
        for given in &self.parameter {
            given.validate()?;
            if !named.iter().any(|parameter| parameter.name == given.name) {
                let name = &given.name;
                return Err(Failure::failed(format!(
                    "--parameter: the text has no {{{{{name}}}}} for a parameter {name}"
                )));
            }
        }
        Ok(())
    }

    /// Gives the parameters of `prompt` the types that were asked for.
    pub(super) async fn set_parameters(
        &self,
        engine: &PromptEngine,
        prompt: Prompt,
    ) -> Result<Prompt, Failure> {
        if self.parameter.is_empty() {
            return Ok(prompt);
        }
        let mut parameters = prompt.parameters.clone();
        for given in &self.parameter {
            if let Some(old) = parameters.iter_mut().find(|old| old.name == given.name) {
                let position = old.position;
                *old = Parameter { position, ..given.clone() };
            }
        }
        let update = PromptUpdate { parameters: Some(parameters), ..PromptUpdate::default() };
        Ok(engine.prompts().update(&prompt.slug, update).await?)
    }
}

fn read_text(file: &str) -> Result<String, Failure> {
    let cannot = |error| Failure::failed(format!("cannot read {file}: {error}"));
    // One byte more than a text may have, so that the prompt refuses it by its length.
    let most = u64::try_from(PromptVersion::MAX_TEXT_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    if file == "-" {
        std::io::stdin().lock().take(most).read_to_end(&mut bytes).map_err(cannot)?;
    } else {
        let opened = std::fs::File::open(file).map_err(cannot)?;
        opened.take(most).read_to_end(&mut bytes).map_err(cannot)?;
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::failed(format!("{file} is no UTF-8 text: byte {at} is wrong"))
    })
}

fn parse_parameter(text: &str) -> Result<Parameter, String> {
    let mut parts = text.splitn(4, ':');
    let (Some(name), Some(kind)) = (parts.next(), parts.next()) else {
        return Err("write NAME:TYPE, such as count:integer".to_owned());
    };
    let kind: ParameterType =
        kind.parse().map_err(|error: prompt_engine::Error| error.to_string())?;
    let required = match parts.next() {
        None | Some("required") => true,
        Some("optional") => false,
        Some(other) => return Err(format!("{other:?} is neither required nor optional")),
    };
    let mut parameter = Parameter { kind, required, ..Parameter::infer(name, 0) };
    if let Some(default) = parts.next() {
        let value = parameter.parse_text(default).map_err(|error| error.chain())?;
        parameter.default = Some(value);
    }
    Ok(parameter)
}
