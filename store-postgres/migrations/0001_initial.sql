-- Schema version 1. Never edited once released: a change is a new file. See docs/postgres-format.md.

CREATE TABLE prompt_engine_meta (
    name  text COLLATE "C" NOT NULL PRIMARY KEY,
    value bigint NOT NULL
);

INSERT INTO prompt_engine_meta (name, value) VALUES ('price_generation', 0);

CREATE TABLE prompt_engine_usages (
    created_at  timestamptz NOT NULL,
    id          uuid NOT NULL PRIMARY KEY,
    prompt      uuid NOT NULL,
    version     bigint NOT NULL,
    environment text COLLATE "C" NOT NULL,
    session     text COLLATE "C",
    user_id     text COLLATE "C"
);

CREATE INDEX prompt_engine_usages_time ON prompt_engine_usages (created_at, id);
CREATE INDEX prompt_engine_usages_session
    ON prompt_engine_usages (session, created_at, id) WHERE session IS NOT NULL;
CREATE INDEX prompt_engine_usages_user
    ON prompt_engine_usages (user_id, created_at, id) WHERE user_id IS NOT NULL;

CREATE TABLE prompt_engine_llm_executions (
    created_at     timestamptz NOT NULL,
    id             uuid NOT NULL PRIMARY KEY,
    usage_id       uuid NOT NULL,
    prompt         uuid NOT NULL,
    cost_config    uuid,
    version        bigint NOT NULL,
    input          bigint,
    output         bigint,
    cache_read     bigint,
    cache_write    bigint,
    cache_write_1h bigint,
    reasoning      bigint,
    audio_input    bigint,
    audio_output   bigint,
    cost_pico      bigint,
    latency_ms     bigint,
    time_to_first_token_ms bigint,
    completed_at   timestamptz,
    http_status    integer,
    status         smallint NOT NULL,
    error_category smallint,
    cost_kind      smallint,
    cost_reason    smallint,
    environment    text COLLATE "C" NOT NULL,
    session        text COLLATE "C",
    user_id        text COLLATE "C",
    provider       text COLLATE "C" NOT NULL,
    model          text COLLATE "C" NOT NULL,
    response_model text COLLATE "C",
    priced_model   text COLLATE "C",
    service_tier   text COLLATE "C"
);

CREATE INDEX prompt_engine_llm_executions_time ON prompt_engine_llm_executions (created_at, id);
CREATE INDEX prompt_engine_llm_executions_usage
    ON prompt_engine_llm_executions (usage_id, created_at, id);
CREATE INDEX prompt_engine_llm_executions_session
    ON prompt_engine_llm_executions (session, created_at, id) WHERE session IS NOT NULL;
CREATE INDEX prompt_engine_llm_executions_user
    ON prompt_engine_llm_executions (user_id, created_at, id) WHERE user_id IS NOT NULL;
CREATE INDEX prompt_engine_llm_executions_pending
    ON prompt_engine_llm_executions (created_at, id) WHERE status = 0;
CREATE INDEX prompt_engine_llm_executions_failed
    ON prompt_engine_llm_executions (created_at, id) WHERE status IN (2, 3);

CREATE TABLE prompt_engine_usage_payloads (
    created_at timestamptz NOT NULL,
    id         uuid NOT NULL,
    data       bytea NOT NULL,
    PRIMARY KEY (created_at, id)
);

CREATE TABLE prompt_engine_llm_execution_payloads (
    created_at timestamptz NOT NULL,
    id         uuid NOT NULL,
    data       bytea NOT NULL,
    PRIMARY KEY (created_at, id)
);

-- Payloads come compressed.
ALTER TABLE prompt_engine_usage_payloads ALTER COLUMN data SET STORAGE EXTERNAL;
ALTER TABLE prompt_engine_llm_execution_payloads ALTER COLUMN data SET STORAGE EXTERNAL;

CREATE TABLE prompt_engine_cost_revisions (
    created_at   timestamptz NOT NULL,
    id           uuid NOT NULL,
    number       bigint NOT NULL,
    replaced_at  timestamptz NOT NULL,
    cost_kind    smallint NOT NULL,
    cost_reason  smallint,
    cost_pico    bigint,
    cost_config  uuid,
    priced_model text COLLATE "C",
    PRIMARY KEY (created_at, id, number)
);

CREATE TABLE prompt_engine_cost_configs (
    id           uuid NOT NULL PRIMARY KEY,
    origin       smallint NOT NULL,
    provider     text COLLATE "C" NOT NULL,
    rule         smallint NOT NULL,
    model        text COLLATE "C" NOT NULL,
    match_rule   json,
    service_tier text COLLATE "C",
    valid_from   timestamptz,
    valid_to     timestamptz,
    replaced_at  timestamptz,
    rates        json NOT NULL,
    tiers        json,
    windows      json,
    per_request  numeric,
    source       text
);

CREATE TABLE prompt_engine_prompts (
    id             uuid NOT NULL PRIMARY KEY,
    slug           text COLLATE "C" NOT NULL UNIQUE,
    name           text NOT NULL,
    description    text,
    status         smallint NOT NULL,
    parameters     json NOT NULL,
    active_version bigint,
    latest_version bigint NOT NULL,
    revision       bigint NOT NULL,
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL
);

CREATE TABLE prompt_engine_prompt_versions (
    prompt             uuid NOT NULL REFERENCES prompt_engine_prompts (id),
    number             bigint NOT NULL,
    content            text NOT NULL,
    system_message     text,
    model              text COLLATE "C",
    temperature        double precision,
    max_tokens         bigint,
    metadata           json NOT NULL,
    change_description text,
    author             text,
    created_at         timestamptz NOT NULL,
    PRIMARY KEY (prompt, number)
);

CREATE VIEW prompt_engine_calls AS
SELECT
    e.created_at,
    e.id,
    e.usage_id,
    p.slug AS prompt,
    e.prompt AS prompt_id,
    e.version,
    e.environment,
    e.session,
    e.user_id,
    e.provider,
    e.model,
    e.response_model,
    e.priced_model,
    e.service_tier,
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
    e.cache_write_1h AS cache_write_1h_tokens,
    e.reasoning AS reasoning_tokens,
    e.audio_input AS audio_input_tokens,
    e.audio_output AS audio_output_tokens,
    CASE e.cost_kind WHEN 0 THEN 'priced' WHEN 1 THEN 'reported' WHEN 2 THEN 'unpriced'
        WHEN 3 THEN 'local_cache' END AS cost_kind,
    e.cost_pico * 0.000000000001 AS cost_usd,
    CASE e.cost_reason WHEN 0 THEN 'unknown_model' WHEN 1 THEN 'missing_rate' WHEN 2 THEN 'no_usage'
        WHEN 3 THEN 'inconsistent_usage' WHEN 4 THEN 'overflow' END AS unpriced_reason,
    e.latency_ms,
    e.time_to_first_token_ms,
    e.completed_at
FROM prompt_engine_llm_executions AS e
LEFT JOIN prompt_engine_prompts AS p ON p.id = e.prompt;
