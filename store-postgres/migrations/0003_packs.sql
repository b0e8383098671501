-- Schema version 3: packs, in which payloads that were stored together are compressed as one. What is
-- in them is described in docs/payloads.md. Never edited once released: a change is a new file.

CREATE TABLE prompt_engine_payload_packs (
    id   bigint NOT NULL PRIMARY KEY,
    data bytea NOT NULL
);

-- Packs come compressed.
ALTER TABLE prompt_engine_payload_packs ALTER COLUMN data SET STORAGE EXTERNAL;

-- A statement that writes rows, 8,192 at most, draws a block of numbers for the packs of their payloads.
CREATE SEQUENCE prompt_engine_payload_packs_id INCREMENT BY 8192
    OWNED BY prompt_engine_payload_packs.id;
