-- Schema version 4: packs, in which payloads that were stored together are compressed as one. What is
-- in them is described in docs/payloads.md. Never edited once released: a change is a new file.

CREATE TABLE prompt_engine_payload_packs (
    id   INTEGER PRIMARY KEY,
    data BLOB NOT NULL
) STRICT;
