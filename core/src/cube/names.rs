//! Small numbers for the texts and ids that dimensions are told apart by, within one answer or fold.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::error::{Error, Result};
use crate::id::PromptId;
use crate::label::Label;

/// The names met so far. A number is the place of its name.
#[derive(Debug, Default)]
pub(super) struct Names {
    labels: Vec<Label>,
    label_numbers: HashMap<Label, u32, RandomState>,
    prompts: Vec<PromptId>,
    prompt_numbers: HashMap<PromptId, u32, RandomState>,
}

impl Names {
    pub(super) fn label(&mut self, text: &str) -> Result<u32> {
        if let Some(number) = self.label_numbers.get(text) {
            return Ok(*number);
        }
        let label = Label::new(text).map_err(|error| Error::corrupt(error.to_string()))?;
        let number = number(self.labels.len());
        self.labels.push(label.clone());
        self.label_numbers.insert(label, number);
        Ok(number)
    }

    pub(super) fn prompt(&mut self, id: PromptId) -> u32 {
        *self.prompt_numbers.entry(id).or_insert_with(|| {
            self.prompts.push(id);
            number(self.prompts.len() - 1)
        })
    }

    pub(super) fn label_of(&self, number: u32) -> &Label {
        &self.labels[number as usize]
    }

    pub(super) fn prompt_of(&self, number: u32) -> PromptId {
        self.prompts[number as usize]
    }
}

/// There are never four billion names: each takes some bytes of one answer.
fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}
