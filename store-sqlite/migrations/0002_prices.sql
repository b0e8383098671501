-- Schema version 2: prices with rules, tiers, windows and history; the service tier of a call; the
-- costs that a call had before. Never edited once released: a change is a new file.

ALTER TABLE prompt_engine_cost_configs ADD COLUMN match_rule TEXT;
ALTER TABLE prompt_engine_cost_configs ADD COLUMN tiers TEXT;
ALTER TABLE prompt_engine_cost_configs ADD COLUMN windows TEXT;
ALTER TABLE prompt_engine_cost_configs ADD COLUMN replaced_at INTEGER;

ALTER TABLE prompt_engine_llm_executions ADD COLUMN service_tier INTEGER;

CREATE TABLE prompt_engine_cost_revisions (
    created_at   INTEGER NOT NULL,
    id           BLOB NOT NULL,
    number       INTEGER NOT NULL,
    replaced_at  INTEGER NOT NULL,
    cost_kind    INTEGER NOT NULL,
    cost_reason  INTEGER,
    cost_pico    INTEGER,
    cost_config  INTEGER,
    priced_model INTEGER,
    PRIMARY KEY (created_at, id, number)
) STRICT, WITHOUT ROWID;

DROP VIEW prompt_engine_calls;

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
    CAST(st.value AS TEXT) AS service_tier,
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
LEFT JOIN prompt_engine_terms AS dt ON dt.key = e.priced_model
LEFT JOIN prompt_engine_terms AS st ON st.key = e.service_tier;
