//! Prompts and their versions.
//! Invariant: a prompt is replaced only by its next revision, in the transaction that looked.

use std::ops::Bound;

use prompt_engine_core::{
    Cursor, Page, PageQuery, Prompt, PromptId, PromptStore, PromptVersion, Result, Slug, codec,
    refusal,
};
use redb::{ReadableTable, WriteTransaction};

use crate::error::{Fault, Outcome};
use crate::layout::{Id, PROMPT_SLUGS, PROMPT_VERSIONS, PROMPTS, VERSION, version_key};
use crate::store::RedbStore;

#[async_trait::async_trait]
impl PromptStore for RedbStore {
    async fn insert_prompt(&self, prompt: &Prompt, versions: &[PromptVersion]) -> Result<()> {
        let (prompt, versions) = (prompt.clone(), versions.to_vec());
        self.write(move |txn| insert(txn, &prompt, &versions)).await
    }

    async fn update_prompt(&self, prompt: &Prompt, version: Option<&PromptVersion>) -> Result<()> {
        let (prompt, version) = (prompt.clone(), version.cloned());
        self.write(move |txn| update(txn, &prompt, version.as_ref())).await
    }

    async fn prompt_by_slug(&self, slug: &Slug) -> Result<Option<Prompt>> {
        let slug = slug.clone();
        self.read(move |txn, _| {
            let slugs = txn.open_table(PROMPT_SLUGS)?;
            let Some(id) = slugs.get(slug.as_str())? else { return Ok(None) };
            let id = id_of(id.value())?;
            find(&txn.open_table(PROMPTS)?, id)
        })
        .await
    }

    async fn prompt(&self, id: PromptId) -> Result<Option<Prompt>> {
        self.read(move |txn, _| find(&txn.open_table(PROMPTS)?, id.to_bytes())).await
    }

    async fn list_prompts(&self, page: &PageQuery) -> Result<Page<Prompt>> {
        let after = match &page.after {
            // No slug is empty.
            None => String::new(),
            Some(Cursor::Prompt(slug)) => slug.clone(),
            Some(other) => return Err(other.foreign()),
        };
        let limit = page.limit;
        let found = self.read(move |txn, _| {
            let prompts = txn.open_table(PROMPTS)?;
            let slugs = txn.open_table(PROMPT_SLUGS)?;
            let behind = (Bound::Excluded(after.as_str()), Bound::Unbounded);
            let mut found = Vec::new();
            for entry in slugs.range::<&str>(behind)?.take(one_longer(limit)) {
                let id = id_of(entry?.1.value())?;
                let prompt = find(&prompts, id)?;
                found.push(prompt.ok_or_else(|| Fault::Row("a slug names no prompt".to_owned()))?);
            }
            Ok(found)
        });
        let cursor = |prompt: &Prompt| Cursor::Prompt(prompt.slug.as_str().to_owned());
        Ok(Page::from_overread(found.await?, limit, cursor))
    }

    async fn version(&self, prompt: PromptId, number: u32) -> Result<Option<PromptVersion>> {
        let key = version_key(prompt.to_bytes(), number);
        self.read(move |txn, _| {
            let version = txn.open_table(PROMPT_VERSIONS)?.get(key)?;
            Ok(version.map(|version| codec::decode(version.value())).transpose()?)
        })
        .await
    }

    async fn list_versions(
        &self,
        prompt: PromptId,
        page: &PageQuery,
    ) -> Result<Page<PromptVersion>> {
        let prompt = prompt.to_bytes();
        let to = match &page.after {
            None => Bound::Included(version_key(prompt, u32::MAX)),
            Some(Cursor::Version(number)) => Bound::Excluded(version_key(prompt, *number)),
            Some(other) => return Err(other.foreign()),
        };
        let limit = page.limit;
        let found = self.read(move |txn, _| {
            let versions = txn.open_table(PROMPT_VERSIONS)?;
            // Versions count from 1, so that a range is never turned round.
            let from = Bound::Included(version_key(prompt, 0));
            versions
                .range((from, to))?
                .rev()
                .take(one_longer(limit))
                .map(|entry| Ok(codec::decode(entry?.1.value())?))
                .collect()
        });
        let cursor = |version: &PromptVersion| Cursor::Version(version.number);
        Ok(Page::from_overread(found.await?, limit, cursor))
    }
}

fn one_longer(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1)
}

fn id_of(value: &[u8]) -> Outcome<Id> {
    match value {
        [VERSION, id @ ..] => {
            id.try_into().map_err(|_| Fault::Row("a slug names no id".to_owned()))
        }
        [found, ..] => Err(Fault::Version { found: *found, known: VERSION }),
        [] => Err(Fault::Row("a slug names nothing".to_owned())),
    }
}

fn find(prompts: &impl ReadableTable<Id, &'static [u8]>, id: Id) -> Outcome<Option<Prompt>> {
    let prompt = prompts.get(id)?;
    Ok(prompt.map(|prompt| codec::decode(prompt.value())).transpose()?)
}

fn insert(txn: &WriteTransaction, prompt: &Prompt, versions: &[PromptVersion]) -> Outcome<()> {
    let id = prompt.id.to_bytes();
    let mut prompts = txn.open_table(PROMPTS)?;
    if prompts.insert(id, &*codec::encode(prompt)?)?.is_some() {
        return Err(Fault::Judged(refusal::prompt_id_taken(prompt.id)));
    }
    let value = [&[VERSION][..], &id].concat();
    if txn.open_table(PROMPT_SLUGS)?.insert(prompt.slug.as_str(), &*value)?.is_some() {
        return Err(Fault::Judged(refusal::slug_taken(&prompt.slug)));
    }
    versions.iter().try_for_each(|version| insert_version(txn, prompt, version))
}

fn update(txn: &WriteTransaction, prompt: &Prompt, version: Option<&PromptVersion>) -> Outcome<()> {
    let id = prompt.id.to_bytes();
    let mut prompts = txn.open_table(PROMPTS)?;
    let Some(stored) = find(&prompts, id)? else {
        return Err(Fault::Judged(refusal::no_prompt(prompt.id)));
    };
    let Prompt { slug, revision, created_at, .. } = stored;
    refusal::unless_next(prompt, &slug, revision)?;
    // Its slug and its creation never change.
    let prompt = Prompt { slug, created_at, ..prompt.clone() };
    prompts.insert(id, &*codec::encode(&prompt)?)?;
    version.map_or(Ok(()), |version| insert_version(txn, &prompt, version))
}

fn insert_version(txn: &WriteTransaction, prompt: &Prompt, version: &PromptVersion) -> Outcome<()> {
    let key = version_key(prompt.id.to_bytes(), version.number);
    let taken = txn.open_table(PROMPT_VERSIONS)?.insert(key, &*codec::encode(version)?)?.is_some();
    if taken {
        return Err(Fault::Judged(refusal::version_exists(&prompt.slug, version.number)));
    }
    Ok(())
}
