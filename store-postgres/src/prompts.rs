//! Prompts and their versions.
//! Invariant: a prompt is replaced only by its next revision, under the lock of its row.

use std::collections::BTreeSet;

use prompt_engine_core::{
    Cursor, Page, PageQuery, Prompt, PromptId, PromptStatus, PromptStore, PromptVersion, Result,
    Slug, refusal,
};
use serde_json::Value;
use sqlx::postgres::{PgBindIterExt, PgRow};
use sqlx::types::Uuid;
use sqlx::{PgConnection, query, query_as, query_scalar};

use crate::error::{Fault, Outcome};
use crate::rows::{code, get, id, maybe_label, maybe_small, moment, optional, small};
use crate::store::{Hold, PostgresStore, Repeat};
use crate::text::{escaped, unescaped};
use crate::wire::Moment;

macro_rules! select_prompts {
    ($rest:literal) => {
        concat!(
            "SELECT id, slug, name, description, status, parameters::text, active_version, \
             latest_version, revision, created_at, updated_at FROM prompt_engine_prompts ",
            $rest
        )
    };
}

macro_rules! select_versions {
    ($rest:literal) => {
        concat!(
            "SELECT prompt, number, content, system_message, model, temperature, max_tokens, \
             metadata::text, change_description, author, created_at \
             FROM prompt_engine_prompt_versions ",
            $rest
        )
    };
}

const INSERT_PROMPT: &str = "
INSERT INTO prompt_engine_prompts
    (id, slug, name, description, status, parameters, active_version, latest_version, revision,
     created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6::text::json, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING";

const INSERT_VERSIONS: &str = "
INSERT INTO prompt_engine_prompt_versions
    (prompt, number, content, system_message, model, temperature, max_tokens, metadata,
     change_description, author, created_at)
SELECT $1, number, content, system_message, model, temperature, max_tokens, metadata::json,
    change_description, author, created_at
FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::double precision[],
    $7::bigint[], $8::text[], $9::text[], $10::text[], $11::timestamptz[])
    AS new (number, content, system_message, model, temperature, max_tokens, metadata,
            change_description, author, created_at)
ON CONFLICT DO NOTHING RETURNING number";

const UPDATE_PROMPT: &str = "
UPDATE prompt_engine_prompts SET
    name = $2, description = $3, status = $4, parameters = $5::text::json, active_version = $6,
    latest_version = $7, revision = $8, updated_at = $9
WHERE id = $1";

#[async_trait::async_trait]
impl PromptStore for PostgresStore {
    async fn insert_prompt(&self, prompt: &Prompt, versions: &[PromptVersion]) -> Result<()> {
        self.write(Hold::Nothing, Repeat::Uncommitted, |mut conn| async move {
            let done = insert(&mut conn, prompt, versions).await;
            (conn, done)
        })
        .await
    }

    async fn update_prompt(&self, prompt: &Prompt, version: Option<&PromptVersion>) -> Result<()> {
        self.write(Hold::Nothing, Repeat::Uncommitted, |mut conn| async move {
            let done = update(&mut conn, prompt, version).await;
            (conn, done)
        })
        .await
    }

    async fn prompt_by_slug(&self, slug: &Slug) -> Result<Option<Prompt>> {
        let row = self.read(|mut conn| async move {
            let select = query(select_prompts!("WHERE slug = $1")).bind(slug.as_str());
            let row = select.fetch_optional(&mut *conn).await.map_err(Fault::from);
            (conn, row.and_then(|row| optional(row, |row| read_prompt(&row))))
        });
        row.await
    }

    async fn prompt(&self, id: PromptId) -> Result<Option<Prompt>> {
        let row = self.read(|mut conn| async move {
            let select = query(select_prompts!("WHERE id = $1")).bind(uuid(id));
            let row = select.fetch_optional(&mut *conn).await.map_err(Fault::from);
            (conn, row.and_then(|row| optional(row, |row| read_prompt(&row))))
        });
        row.await
    }

    async fn list_prompts(&self, page: &PageQuery) -> Result<Page<Prompt>> {
        let after = match &page.after {
            // No slug is empty.
            None => "",
            // No slug holds NUL: what comes behind such a text comes behind what is before its NUL.
            Some(Cursor::Prompt(slug)) => slug.split('\0').next().unwrap_or_default(),
            Some(other) => return Err(other.foreign()),
        };
        let found = self.read(|mut conn| async move {
            let sql = select_prompts!("WHERE slug > $1 ORDER BY slug LIMIT $2");
            let select = query(sql).bind(after).bind(i64::from(page.limit) + 1);
            let rows = select.fetch_all(&mut *conn).await.map_err(Fault::from);
            (conn, rows.and_then(|rows| rows.iter().map(read_prompt).collect()))
        });
        let cursor = |prompt: &Prompt| Cursor::Prompt(prompt.slug.as_str().to_owned());
        Ok(Page::from_overread(found.await?, page.limit, cursor))
    }

    async fn version(&self, prompt: PromptId, number: u32) -> Result<Option<PromptVersion>> {
        let row = self.read(|mut conn| async move {
            let sql = select_versions!("WHERE prompt = $1 AND number = $2");
            let select = query(sql).bind(uuid(prompt)).bind(i64::from(number));
            let row = select.fetch_optional(&mut *conn).await.map_err(Fault::from);
            (conn, row.and_then(|row| optional(row, |row| read_version(&row))))
        });
        row.await
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
        let found = self.read(|mut conn| async move {
            let sql =
                select_versions!("WHERE prompt = $1 AND number < $2 ORDER BY number DESC LIMIT $3");
            let select = query(sql).bind(uuid(prompt)).bind(before).bind(i64::from(page.limit) + 1);
            let rows = select.fetch_all(&mut *conn).await.map_err(Fault::from);
            (conn, rows.and_then(|rows| rows.iter().map(read_version).collect()))
        });
        let cursor = |version: &PromptVersion| Cursor::Version(version.number);
        Ok(Page::from_overread(found.await?, page.limit, cursor))
    }
}

fn uuid(id: PromptId) -> Uuid {
    Uuid::from_bytes(id.to_bytes())
}

async fn insert(
    conn: &mut PgConnection,
    prompt: &Prompt,
    versions: &[PromptVersion],
) -> Outcome<()> {
    let inserted = query(INSERT_PROMPT)
        .bind(uuid(prompt.id))
        .bind(prompt.slug.as_str())
        .bind(escaped(&prompt.name))
        .bind(prompt.description.as_deref().map(escaped))
        .bind(i16::from(prompt.status.code()))
        .bind(json(&prompt.parameters)?)
        .bind(prompt.active_version.map(i64::from))
        .bind(i64::from(prompt.latest_version))
        .bind(prompt.revision.cast_signed())
        .bind(Moment(prompt.created_at))
        .bind(Moment(prompt.updated_at))
        .execute(&mut *conn)
        .await?;
    if inserted.rows_affected() == 0 {
        let by_id: bool =
            query_scalar("SELECT EXISTS (SELECT 1 FROM prompt_engine_prompts WHERE id = $1)")
                .bind(uuid(prompt.id))
                .fetch_one(conn)
                .await?;
        return Err(Fault::Judged(if by_id {
            refusal::prompt_id_taken(prompt.id)
        } else {
            refusal::slug_taken(&prompt.slug)
        }));
    }
    let mut numbers = BTreeSet::new();
    if let Some(twice) = versions.iter().find(|version| !numbers.insert(version.number)) {
        return Err(Fault::Judged(refusal::version_exists(&prompt.slug, twice.number)));
    }
    insert_versions(conn, prompt.id, versions, &prompt.slug).await
}

async fn update(
    conn: &mut PgConnection,
    prompt: &Prompt,
    version: Option<&PromptVersion>,
) -> Outcome<()> {
    let stored: Option<(i64, String)> =
        query_as("SELECT revision, slug FROM prompt_engine_prompts WHERE id = $1 FOR UPDATE")
            .bind(uuid(prompt.id))
            .fetch_optional(&mut *conn)
            .await?;
    let Some((revision, slug)) = stored else {
        return Err(Fault::Judged(refusal::no_prompt(prompt.id)));
    };
    refusal::unless_next(prompt, &slug, revision.cast_unsigned())?;
    insert_versions(conn, prompt.id, version.map_or(&[], std::slice::from_ref), &slug).await?;
    query(UPDATE_PROMPT)
        .bind(uuid(prompt.id))
        .bind(escaped(&prompt.name))
        .bind(prompt.description.as_deref().map(escaped))
        .bind(i16::from(prompt.status.code()))
        .bind(json(&prompt.parameters)?)
        .bind(prompt.active_version.map(i64::from))
        .bind(i64::from(prompt.latest_version))
        .bind(prompt.revision.cast_signed())
        .bind(Moment(prompt.updated_at))
        .execute(conn)
        .await?;
    Ok(())
}

/// Inserts `versions`, none of which may be there.
async fn insert_versions(
    conn: &mut PgConnection,
    prompt: PromptId,
    versions: &[PromptVersion],
    slug: &str,
) -> Outcome<()> {
    if versions.is_empty() {
        return Ok(());
    }
    let metadata =
        versions.iter().map(|version| json(&version.metadata)).collect::<Outcome<Vec<_>>>()?;
    let escape = |text: fn(&PromptVersion) -> Option<&String>| -> Vec<_> {
        versions.iter().map(|version| text(version).map(|text| escaped(text))).collect()
    };
    let inserted: Vec<i64> = query_scalar(INSERT_VERSIONS)
        .bind(uuid(prompt))
        .bind(versions.iter().map(|version| i64::from(version.number)).bind_iter())
        .bind(escape(|version| Some(&version.content)))
        .bind(escape(|version| version.system_message.as_ref()))
        .bind(versions.iter().map(|version| version.model.as_deref()).bind_iter())
        .bind(versions.iter().map(|version| version.temperature).bind_iter())
        .bind(versions.iter().map(|version| version.max_tokens.map(i64::from)).bind_iter())
        .bind(metadata)
        .bind(escape(|version| version.change_description.as_ref()))
        .bind(escape(|version| version.author.as_ref()))
        .bind(versions.iter().map(|version| Moment(version.created_at)).bind_iter())
        .fetch_all(conn)
        .await?;
    let there = versions.iter().find(|version| !inserted.contains(&i64::from(version.number)));
    match there {
        None => Ok(()),
        Some(version) => Err(Fault::Judged(refusal::version_exists(slug, version.number))),
    }
}

fn json(value: &impl serde::Serialize) -> Outcome<String> {
    serde_json::to_string(value).map_err(|error| Fault::Row(error.to_string()))
}

fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Outcome<T> {
    serde_json::from_str(text).map_err(|error| Fault::Row(error.to_string()))
}

fn read_prompt(row: &PgRow) -> Outcome<Prompt> {
    Ok(Prompt {
        id: PromptId::from_bytes(id(row, 0)?),
        slug: Slug::new(get::<&str>(row, 1)?).map_err(|error| Fault::Row(error.to_string()))?,
        name: unescaped(get(row, 2)?)?,
        description: optional(get(row, 3)?, unescaped)?,
        status: code(row, 4, "status of a prompt", PromptStatus::from_code)?
            .ok_or_else(|| Fault::Row("the status of a prompt is missing".to_owned()))?,
        parameters: parsed(get(row, 5)?)?,
        active_version: maybe_small(row, 6)?,
        latest_version: small(row, 7)?,
        revision: get::<i64>(row, 8)?.cast_unsigned(),
        created_at: moment(row, 9)?,
        updated_at: moment(row, 10)?,
    })
}

fn read_version(row: &PgRow) -> Outcome<PromptVersion> {
    Ok(PromptVersion {
        prompt_id: PromptId::from_bytes(id(row, 0)?),
        number: small(row, 1)?,
        content: unescaped(get(row, 2)?)?,
        system_message: optional(get(row, 3)?, unescaped)?,
        model: maybe_label(row, 4)?,
        temperature: get(row, 5)?,
        max_tokens: maybe_small(row, 6)?,
        metadata: parsed::<Value>(get(row, 7)?)?,
        change_description: optional(get(row, 8)?, unescaped)?,
        author: optional(get(row, 9)?, unescaped)?,
        created_at: moment(row, 10)?,
    })
}
