//! Prompts and their versions, in memory.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use async_trait::async_trait;

use super::{MemoryStore, page_of};
use crate::error::Result;
use crate::id::PromptId;
use crate::prompt::{Prompt, PromptVersion};
use crate::query::{Cursor, Page, PageQuery};
use crate::refusal;
use crate::slug::Slug;
use crate::store::PromptStore;

#[async_trait]
impl PromptStore for MemoryStore {
    async fn insert_prompt(&self, prompt: &Prompt, versions: &[PromptVersion]) -> Result<()> {
        let mut state = self.state();
        if state.prompts.contains_key(&prompt.id) {
            return Err(refusal::prompt_id_taken(prompt.id));
        }
        if state.prompts.values().any(|other| other.slug == prompt.slug) {
            return Err(refusal::slug_taken(&prompt.slug));
        }
        let mut numbers = BTreeSet::new();
        if let Some(twice) = versions.iter().find(|version| !numbers.insert(version.number)) {
            return Err(refusal::version_exists(&prompt.slug, twice.number));
        }
        state.prompts.insert(prompt.id, prompt.clone());
        for version in versions {
            state.versions.insert((prompt.id, version.number), version.clone());
        }
        Ok(())
    }

    async fn update_prompt(&self, prompt: &Prompt, version: Option<&PromptVersion>) -> Result<()> {
        let mut state = self.state();
        let Some(stored) = state.prompts.get(&prompt.id) else {
            return Err(refusal::no_prompt(prompt.id));
        };
        refusal::unless_next(prompt, &stored.slug, stored.revision)?;
        if let Some(version) = version
            && state.versions.contains_key(&(prompt.id, version.number))
        {
            return Err(refusal::version_exists(&stored.slug, version.number));
        }
        let prompt =
            Prompt { slug: stored.slug.clone(), created_at: stored.created_at, ..prompt.clone() };
        let id = prompt.id;
        state.prompts.insert(id, prompt);
        if let Some(version) = version {
            state.versions.insert((id, version.number), version.clone());
        }
        Ok(())
    }

    async fn prompt_by_slug(&self, slug: &Slug) -> Result<Option<Prompt>> {
        Ok(self.state().prompts.values().find(|prompt| prompt.slug == *slug).cloned())
    }

    async fn prompt(&self, id: PromptId) -> Result<Option<Prompt>> {
        Ok(self.state().prompts.get(&id).cloned())
    }

    async fn list_prompts(&self, page: &PageQuery) -> Result<Page<Prompt>> {
        let after = match &page.after {
            None => None,
            Some(Cursor::Prompt(slug)) => Some(slug.as_str()),
            Some(other) => return Err(other.foreign()),
        };
        let state = self.state();
        let mut found: Vec<&Prompt> = state
            .prompts
            .values()
            .filter(|prompt| after.is_none_or(|after| prompt.slug.as_str() > after))
            .collect();
        found.sort_by_key(|prompt| prompt.slug.as_str());
        Ok(page_of(found, page.limit, |prompt| Cursor::Prompt(prompt.slug.as_str().to_owned())))
    }

    async fn version(&self, prompt: PromptId, number: u32) -> Result<Option<PromptVersion>> {
        Ok(self.state().versions.get(&(prompt, number)).cloned())
    }

    async fn list_versions(
        &self,
        prompt: PromptId,
        page: &PageQuery,
    ) -> Result<Page<PromptVersion>> {
        let after = match &page.after {
            None => None,
            Some(Cursor::Version(number)) => Some(*number),
            Some(other) => return Err(other.foreign()),
        };
        let state = self.state();
        let mut found: Vec<&PromptVersion> = state
            .versions
            .range((prompt, 0)..=(prompt, u32::MAX))
            .map(|(_, version)| version)
            .filter(|version| after.is_none_or(|after| version.number < after))
            .collect();
        found.sort_by_key(|version| Reverse(version.number));
        Ok(page_of(found, page.limit, |version| Cursor::Version(version.number)))
    }
}
