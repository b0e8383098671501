//! Prompts and versions that were read, so that a render seldom waits for the store.
//! Invariant: a prompt is fresh for a while, then served as it was while a newer one is fetched
//! beside; a version never changes and is kept. The lock is never held over an await.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};
use crate::id::PromptId;
use crate::prompt::{Prompt, PromptVersion};
use crate::slug::Slug;
use crate::store::Store;

/// More prompts or versions than this are not kept: the cache starts anew.
const MOST: usize = 10_000;
/// A prompt that nobody asked for so long after it was fresh is read before it is served again.
const STALE: Duration = Duration::from_secs(60);
/// How long a render waits for that, at most.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub(super) struct PromptCache {
    ttl: Duration,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    prompts: HashMap<Slug, (Arc<Prompt>, Instant)>,
    refreshing: HashSet<Slug>,
    /// Counts the changes made here: what was read before one is not kept after it.
    changes: u64,
    versions: HashMap<(PromptId, u32), Arc<PromptVersion>>,
}

impl PromptCache {
    pub(super) fn new(ttl: Duration) -> Self {
        Self { ttl, state: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The prompt of `slug`; `fresh` reads the store whatever is known.
    pub(super) async fn prompt(
        &self,
        store: &Arc<dyn Store>,
        slug: &Slug,
        fresh: bool,
    ) -> Result<Arc<Prompt>> {
        if !fresh {
            let known = self.lock().prompts.get(slug).cloned();
            if let Some((prompt, read_at)) = known {
                let age = read_at.elapsed();
                if age >= self.ttl + STALE {
                    return Ok(self.fetch_or(store, slug, prompt).await);
                }
                if age >= self.ttl {
                    self.refresh_beside(store, slug);
                }
                return Ok(prompt);
            }
        }
        self.fetch(store, slug).await
    }

    /// The prompt as it is now or, where the store does not say at once, as it was `last` read.
    async fn fetch_or(
        &self,
        store: &Arc<dyn Store>,
        slug: &Slug,
        last: Arc<Prompt>,
    ) -> Arc<Prompt> {
        match tokio::time::timeout(PATIENCE, self.fetch(store, slug)).await {
            Ok(Ok(prompt)) => return prompt,
            Ok(Err(error)) => served_stale(slug, &error),
            Err(_) => served_stale(slug, &Error::new(ErrorKind::Unavailable, "no answer in time")),
        }
        last
    }

    async fn fetch(&self, store: &Arc<dyn Store>, slug: &Slug) -> Result<Arc<Prompt>> {
        let changes = self.lock().changes;
        let Some(prompt) = store.prompt_by_slug(slug).await? else {
            self.lock().prompts.remove(slug);
            return Err(Error::not_found(format!("there is no prompt `{slug}`")));
        };
        let prompt = Arc::new(prompt);
        let mut state = self.lock();
        if state.changes != changes {
            return Ok(prompt);
        }
        if state.prompts.len() >= MOST {
            state.prompts.clear();
        }
        state.prompts.insert(slug.clone(), (Arc::clone(&prompt), Instant::now()));
        Ok(prompt)
    }

    fn refresh_beside(&self, store: &Arc<dyn Store>, slug: &Slug) {
        if !self.lock().refreshing.insert(slug.clone()) {
            return;
        }
        let (refresh, store) = (Refresh(self.clone(), slug.clone()), Arc::clone(store));
        tokio::spawn(async move {
            let Refresh(cache, slug) = &refresh;
            if let Err(error) = cache.fetch(&store, slug).await {
                served_stale(slug, &error);
            }
        });
    }

    /// Forgets what is known of `slug`, after it was changed.
    pub(super) fn forget(&self, slug: &Slug) {
        let mut state = self.lock();
        state.changes += 1;
        state.prompts.remove(slug);
    }

    /// A version of `prompt`.
    pub(super) async fn version(
        &self,
        store: &Arc<dyn Store>,
        prompt: &Prompt,
        number: u32,
    ) -> Result<Arc<PromptVersion>> {
        let key = (prompt.id, number);
        if let Some(version) = self.lock().versions.get(&key) {
            return Ok(Arc::clone(version));
        }
        let version = store.version(prompt.id, number).await?.ok_or_else(|| {
            Error::not_found(format!("the prompt `{}` has no version {number}", prompt.slug))
        })?;
        let version = Arc::new(version);
        let mut state = self.lock();
        if state.versions.len() >= MOST {
            state.versions.clear();
        }
        state.versions.insert(key, Arc::clone(&version));
        Ok(version)
    }
}

fn served_stale(slug: &Slug, error: &Error) {
    tracing::warn!(prompt = %slug, error = %error.chain(), "a prompt is served as it was last read");
}

/// A refresh under way. However it ends, by a panic or with its runtime too, the next may start.
struct Refresh(PromptCache, Slug);

impl Drop for Refresh {
    fn drop(&mut self) {
        self.0.lock().refreshing.remove(&self.1);
    }
}
