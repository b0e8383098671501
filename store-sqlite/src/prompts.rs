//! Prompts and their versions.
//! Invariant: a prompt is replaced only by its next revision, in the transaction that looked.

use prompt_engine_core::{
    Cursor, Page, PageQuery, Prompt, PromptId, PromptStatus, PromptStore, PromptVersion, Result,
    Slug, refusal,
};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;

use crate::error::{Fault, Outcome};
use crate::rows::{moment, text};
use crate::store::SqliteStore;

macro_rules! select_prompts {
    ($rest:literal) => {
        concat!(
            "SELECT id, slug, name, description, status, parameters, active_version, \
             latest_version, revision, created_at, updated_at FROM prompt_engine_prompts ",
            $rest
        )
    };
}

macro_rules! select_versions {
    ($rest:literal) => {
        concat!(
            "SELECT prompt, number, content, system_message, model, temperature, max_tokens, \
             metadata, change_description, author, created_at FROM prompt_engine_prompt_versions ",
            $rest
        )
    };
}

#[async_trait::async_trait]
impl PromptStore for SqliteStore {
    async fn insert_prompt(&self, prompt: &Prompt, versions: &[PromptVersion]) -> Result<()> {
        let (prompt, versions) = (prompt.clone(), versions.to_vec());
        self.write(move |_, conn| insert(conn, &prompt, &versions), |_, _, ()| Ok(())).await
    }

    async fn update_prompt(&self, prompt: &Prompt, version: Option<&PromptVersion>) -> Result<()> {
        let (prompt, version) = (prompt.clone(), version.cloned());
        self.write(move |_, conn| update(conn, &prompt, version.as_ref()), |_, _, ()| Ok(())).await
    }

    async fn prompt_by_slug(&self, slug: &Slug) -> Result<Option<Prompt>> {
        let slug = slug.clone();
        self.read(move |_, conn| {
            Ok(list(conn, select_prompts!("WHERE slug = ?"), [slug.as_str()], prompt)?.pop())
        })
        .await
    }

    async fn prompt(&self, id: PromptId) -> Result<Option<Prompt>> {
        self.read(move |_, conn| {
            Ok(list(conn, select_prompts!("WHERE id = ?"), [id.to_bytes()], prompt)?.pop())
        })
        .await
    }

    async fn list_prompts(&self, page: &PageQuery) -> Result<Page<Prompt>> {
        let after = match &page.after {
            // No slug is empty.
            None => String::new(),
            Some(Cursor::Prompt(slug)) => slug.clone(),
            Some(other) => return Err(other.foreign()),
        };
        let limit = page.limit;
        let found = self.read(move |_, conn| {
            let sql = select_prompts!("WHERE slug > ? ORDER BY slug LIMIT ?");
            list(conn, sql, params![after, i64::from(limit) + 1], prompt)
        });
        let cursor = |prompt: &Prompt| Cursor::Prompt(prompt.slug.as_str().to_owned());
        Ok(Page::from_overread(found.await?, limit, cursor))
    }

    async fn version(&self, prompt: PromptId, number: u32) -> Result<Option<PromptVersion>> {
        self.read(move |_, conn| {
            let sql = select_versions!("WHERE prompt = ? AND number = ?");
            Ok(list(conn, sql, params![prompt.to_bytes(), number], version)?.pop())
        })
        .await
    }

    async fn list_versions(
        &self,
        prompt: PromptId,
        page: &PageQuery,
    ) -> Result<Page<PromptVersion>> {
        let before = match &page.after {
            None => i64::MAX,
            Some(Cursor::Version(number)) => i64::from(*number),
            Some(other) => return Err(other.foreign()),
        };
        let limit = page.limit;
        let found = self.read(move |_, conn| {
            let sql =
                select_versions!("WHERE prompt = ? AND number < ? ORDER BY number DESC LIMIT ?");
            let parameters = params![prompt.to_bytes(), before, i64::from(limit) + 1];
            list(conn, sql, parameters, version)
        });
        let cursor = |version: &PromptVersion| Cursor::Version(version.number);
        Ok(Page::from_overread(found.await?, limit, cursor))
    }
}

fn insert(conn: &Connection, prompt: &Prompt, versions: &[PromptVersion]) -> Outcome<()> {
    let id = prompt.id.to_bytes();
    let taken: Option<bool> = conn
        .prepare_cached("SELECT id = ? FROM prompt_engine_prompts WHERE id = ? OR slug = ?")?
        .query_row(params![id, id, prompt.slug.as_str()], |row| row.get(0))
        .optional()?;
    if let Some(by_id) = taken {
        return Err(Fault::Judged(if by_id {
            refusal::prompt_id_taken(prompt.id)
        } else {
            refusal::slug_taken(&prompt.slug)
        }));
    }
    conn.prepare_cached(
        "INSERT INTO prompt_engine_prompts
             (id, slug, name, description, status, parameters, active_version, latest_version,
              revision, created_at, updated_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        id,
        prompt.slug.as_str(),
        prompt.name,
        prompt.description,
        prompt.status.code(),
        json(&prompt.parameters)?,
        prompt.active_version,
        prompt.latest_version,
        prompt.revision.cast_signed(),
        prompt.created_at.as_micros(),
        prompt.updated_at.as_micros(),
    ])?;
    versions.iter().try_for_each(|version| insert_version(conn, prompt, version))
}

fn update(conn: &Connection, prompt: &Prompt, version: Option<&PromptVersion>) -> Outcome<()> {
    let id = prompt.id.to_bytes();
    let stored: Option<(i64, String)> = conn
        .prepare_cached("SELECT revision, slug FROM prompt_engine_prompts WHERE id = ?")?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((revision, slug)) = stored else {
        return Err(Fault::Judged(refusal::no_prompt(prompt.id)));
    };
    refusal::unless_next(prompt, &slug, revision.cast_unsigned())?;
    if let Some(version) = version {
        insert_version(conn, prompt, version)?;
    }
    conn.prepare_cached(
        "UPDATE prompt_engine_prompts SET
             name = ?, description = ?, status = ?, parameters = ?, active_version = ?,
             latest_version = ?, revision = ?, updated_at = ?
         WHERE id = ?",
    )?
    .execute(params![
        prompt.name,
        prompt.description,
        prompt.status.code(),
        json(&prompt.parameters)?,
        prompt.active_version,
        prompt.latest_version,
        prompt.revision.cast_signed(),
        prompt.updated_at.as_micros(),
        id,
    ])?;
    Ok(())
}

fn insert_version(conn: &Connection, prompt: &Prompt, version: &PromptVersion) -> Outcome<()> {
    let inserted = conn
        .prepare_cached(
            "INSERT INTO prompt_engine_prompt_versions
             (prompt, number, content, system_message, model, temperature, max_tokens, metadata,
              change_description, author, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            prompt.id.to_bytes(),
            version.number,
            version.content,
            version.system_message,
            version.model.as_deref(),
            version.temperature,
            version.max_tokens,
            json(&version.metadata)?,
            version.change_description,
            version.author,
            version.created_at.as_micros(),
        ])?;
    if inserted == 0 {
        return Err(Fault::Judged(refusal::version_exists(&prompt.slug, version.number)));
    }
    Ok(())
}

fn json(value: &impl serde::Serialize) -> Outcome<String> {
    serde_json::to_string(value).map_err(|error| Fault::Row(error.to_string()))
}

fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Outcome<T> {
    serde_json::from_str(text).map_err(|error| Fault::Row(error.to_string()))
}

/// The rows of `sql`, each read by `read`.
fn list<T>(
    conn: &Connection,
    sql: &'static str,
    parameters: impl rusqlite::Params,
    read: fn(&Row<'_>) -> Outcome<T>,
) -> Outcome<Vec<T>> {
    let mut select = conn.prepare_cached(sql)?;
    let mut rows = select.query(parameters)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

fn prompt(row: &Row<'_>) -> Outcome<Prompt> {
    let (slug, status): (String, u8) = (row.get(1)?, row.get(4)?);
    Ok(Prompt {
        id: PromptId::from_bytes(row.get(0)?),
        slug: Slug::new(slug).map_err(|error| Fault::Row(error.to_string()))?,
        name: row.get(2)?,
        description: row.get(3)?,
        status: PromptStatus::from_code(status)
            .ok_or_else(|| Fault::Row(format!("{status} is no status of a prompt")))?,
        parameters: parsed(&row.get::<_, String>(5)?)?,
        active_version: row.get(6)?,
        latest_version: row.get(7)?,
        revision: row.get::<_, i64>(8)?.cast_unsigned(),
        created_at: moment(row.get(9)?)?,
        updated_at: moment(row.get(10)?)?,
    })
}

fn version(row: &Row<'_>) -> Outcome<PromptVersion> {
    Ok(PromptVersion {
        prompt_id: PromptId::from_bytes(row.get(0)?),
        number: row.get(1)?,
        content: row.get(2)?,
        system_message: row.get(3)?,
        model: text(row.get_ref(4)?)?,
        temperature: row.get(5)?,
        max_tokens: row.get(6)?,
        metadata: parsed::<Value>(&row.get::<_, String>(7)?)?,
        change_description: row.get(8)?,
        author: row.get(9)?,
        created_at: moment(row.get(10)?)?,
    })
}
