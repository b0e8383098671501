-- Schema version 1. Never edited once released: a change is a new file. See docs/sqlite-format.md.

CREATE TABLE prompt_engine_meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE prompt_engine_terms (
    key   INTEGER PRIMARY KEY,
    kind  INTEGER NOT NULL,
    value BLOB NOT NULL,
    UNIQUE (kind, value)
) STRICT;

CREATE TABLE prompt_engine_payloads (
    id   INTEGER PRIMARY KEY,
    data BLOB NOT NULL
) STRICT;

CREATE TABLE prompt_engine_usages (
    created_at  INTEGER NOT NULL,
    id          BLOB NOT NULL,
    prompt      INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    environment INTEGER NOT NULL,
    session     TEXT,
    user        TEXT,
    payload     INTEGER,
    PRIMARY KEY (created_at, id)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX prompt_engine_usages_id ON prompt_engine_usages (id);
CREATE INDEX prompt_engine_usages_session
    ON prompt_engine_usages (session, created_at, id) WHERE session IS NOT NULL;
CREATE INDEX prompt_engine_usages_user
    ON prompt_engine_usages (user, created_at, id) WHERE user IS NOT NULL;

CREATE TABLE prompt_engine_llm_executions (
    created_at     INTEGER NOT NULL,
    id             BLOB NOT NULL,
    usage_id       BLOB NOT NULL,
    prompt         INTEGER NOT NULL,
    version        INTEGER NOT NULL,
    environment    INTEGER NOT NULL,
    session        TEXT,
    user           TEXT,
    provider       INTEGER NOT NULL,
    model          INTEGER NOT NULL,
    response_model INTEGER,
    priced_model   INTEGER,
    status         INTEGER NOT NULL,
    error_category INTEGER,
    http_status    INTEGER,
    input          INTEGER,
    output         INTEGER,
    cache_read     INTEGER,
    cache_write    INTEGER,
    cache_write_1h INTEGER,
    reasoning      INTEGER,
    audio_input    INTEGER,
    audio_output   INTEGER,
    cost_kind      INTEGER,
    cost_reason    INTEGER,
    cost_pico      INTEGER,
    cost_config    INTEGER,
    latency_ms     INTEGER,
    time_to_first_token_ms INTEGER,
    completed_at   INTEGER,
    payload        INTEGER,
    PRIMARY KEY (created_at, id)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX prompt_engine_llm_executions_id ON prompt_engine_llm_executions (id);
CREATE INDEX prompt_engine_llm_executions_usage
    ON prompt_engine_llm_executions (usage_id, created_at, id);
CREATE INDEX prompt_engine_llm_executions_session
    ON prompt_engine_llm_executions (session, created_at, id) WHERE session IS NOT NULL;
CREATE INDEX prompt_engine_llm_executions_user
    ON prompt_engine_llm_executions (user, created_at, id) WHERE user IS NOT NULL;
CREATE INDEX prompt_engine_llm_executions_pending
    ON prompt_engine_llm_executions (created_at, id) WHERE status = 0;
CREATE INDEX prompt_engine_llm_executions_failed
    ON prompt_engine_llm_executions (created_at, id) WHERE status IN (2, 3);

CREATE TABLE prompt_engine_cost_configs (
    id           BLOB NOT NULL PRIMARY KEY,
    origin       INTEGER NOT NULL,
    provider     TEXT NOT NULL,
    rule         INTEGER NOT NULL,
    model        TEXT NOT NULL,
    service_tier TEXT,
    valid_from   INTEGER,
    valid_to     INTEGER,
    rates        TEXT NOT NULL,
    per_request  TEXT,
    source       TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE prompt_engine_prompts (
    id             BLOB NOT NULL PRIMARY KEY,
    slug           TEXT NOT NULL UNIQUE,
    name           TEXT NOT NULL,
    description    TEXT,
    status         INTEGER NOT NULL,
    parameters     TEXT NOT NULL,
    active_version INTEGER,
    latest_version INTEGER NOT NULL,
    revision       INTEGER NOT NULL,
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE prompt_engine_prompt_versions (
    prompt             BLOB NOT NULL REFERENCES prompt_engine_prompts (id),
    number             INTEGER NOT NULL,
    content            TEXT NOT NULL,
    system_message     TEXT,
    model              TEXT,
    temperature        REAL,
    max_tokens         INTEGER,
    metadata           TEXT NOT NULL,
    change_description TEXT,
    author             TEXT,
    created_at         INTEGER NOT NULL,
    UNIQUE (prompt, number)
) STRICT;

CREATE VIEW prompt_engine_calls AS
SELECT
    strftime('%Y-%m-%dT%H:%M:%S', (e.created_at - (e.created_at % 1000000 + 1000000) % 1000000) / 1000000, 'unixepoch')
        || printf('.%06dZ', (e.created_at % 1000000 + 1000000) % 1000000) AS created_at,
    lower(substr(hex(e.id), 1, 8) || '-' || substr(hex(e.id), 9, 4) || '-' || substr(hex(e.id), 13, 4)
        || '-' || substr(hex(e.id), 17, 4) || '-' || substr(hex(e.id), 21)) AS id,
    lower(substr(hex(e.usage_id), 1, 8) || '-' || substr(hex(e.usage_id), 9, 4) || '-' || substr(hex(e.usage_id), 13, 4)
        || '-' || substr(hex(e.usage_id), 17, 4) || '-' || substr(hex(e.usage_id), 21)) AS usage_id,
    p.slug AS prompt,
    lower(substr(hex(pt.value), 1, 8) || '-' || substr(hex(pt.value), 9, 4) || '-' || substr(hex(pt.value), 13, 4)
        || '-' || substr(hex(pt.value), 17, 4) || '-' || substr(hex(pt.value), 21)) AS prompt_id,
    e.version,
    CAST(et.value AS TEXT) AS environment,
    e.session,
    e.user,
    CAST(vt.value AS TEXT) AS provider,
    CAST(mt.value AS TEXT) AS model,
    CAST(rt.value AS TEXT) AS response_model,
    CAST(dt.value AS TEXT) AS priced_model,
    CASE e.status WHEN 0 THEN 'pending' WHEN 1 THEN 'success' WHEN 2 THEN 'error'
        WHEN 3 THEN 'timeout' WHEN 4 THEN 'cancelled' END AS status,
    CASE e.error_category WHEN 0 THEN 'rate_limit' WHEN 1 THEN 'authentication'
        WHEN 2 THEN 'permission' WHEN 3 THEN 'billing' WHEN 4 THEN 'context_length'
        WHEN 5 THEN 'invalid_request' WHEN 6 THEN 'content_filter' WHEN 7 THEN 'timeout'
        WHEN 8 THEN 'network' WHEN 9 THEN 'overloaded' WHEN 10 THEN 'server'
        WHEN 11 THEN 'cancelled' WHEN 12 THEN 'other' END AS error_category,
    e.http_status,
    e.input AS input_tokens,
    e.output AS output_tokens,
    e.cache_read AS cache_read_tokens,
    e.cache_write AS cache_write_tokens,
    e.reasoning AS reasoning_tokens,
    CASE WHEN e.cost_pico IS NOT NULL
        THEN printf('%d.%012d', e.cost_pico / 1000000000000, e.cost_pico % 1000000000000) END AS cost_usd,
    CASE e.cost_reason WHEN 0 THEN 'unknown_model' WHEN 1 THEN 'missing_rate' WHEN 2 THEN 'no_usage'
        WHEN 3 THEN 'inconsistent_usage' WHEN 4 THEN 'overflow' END AS unpriced_reason,
    e.latency_ms,
    e.time_to_first_token_ms,
    strftime('%Y-%m-%dT%H:%M:%S', (e.completed_at - (e.completed_at % 1000000 + 1000000) % 1000000) / 1000000, 'unixepoch')
        || printf('.%06dZ', (e.completed_at % 1000000 + 1000000) % 1000000) AS completed_at
FROM prompt_engine_llm_executions AS e
LEFT JOIN prompt_engine_terms AS pt ON pt.key = e.prompt
LEFT JOIN prompt_engine_prompts AS p ON p.id = pt.value
LEFT JOIN prompt_engine_terms AS et ON et.key = e.environment
LEFT JOIN prompt_engine_terms AS vt ON vt.key = e.provider
LEFT JOIN prompt_engine_terms AS mt ON mt.key = e.model
LEFT JOIN prompt_engine_terms AS rt ON rt.key = e.response_model
LEFT JOIN prompt_engine_terms AS dt ON dt.key = e.priced_model;
