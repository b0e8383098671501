-- Schema version 2: cells, which keep measures pre-added, and the changes that have yet to be added
-- to them. Their values are described in docs/cubes.md. Never edited once released: a change is a
-- new file. See docs/postgres-format.md.

-- Every row is deleted soon after it came, so dead ones are what there is to clean up.
CREATE TABLE prompt_engine_changes (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    changes bigint NOT NULL,
    data    bytea NOT NULL
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500,
    autovacuum_vacuum_cost_delay = 0, toast.autovacuum_vacuum_scale_factor = 0,
    toast.autovacuum_vacuum_threshold = 500, toast.autovacuum_vacuum_cost_delay = 0
);

-- A histogram of some kB is kept beside the table by itself, and is not read unless it is asked for.
CREATE TABLE prompt_engine_cells (
    start     bigint NOT NULL,
    cube      smallint NOT NULL,
    width     smallint NOT NULL,
    lead      bytea NOT NULL,
    sums      bytea NOT NULL,
    durations bytea NOT NULL,
    PRIMARY KEY (cube, width, start, lead)
) WITH (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
    toast.autovacuum_vacuum_scale_factor = 0.02, toast.autovacuum_vacuum_threshold = 1000
);

-- The values are packed already.
ALTER TABLE prompt_engine_changes ALTER COLUMN data SET STORAGE EXTERNAL;
ALTER TABLE prompt_engine_cells ALTER COLUMN sums SET STORAGE EXTERNAL;
ALTER TABLE prompt_engine_cells ALTER COLUMN durations SET STORAGE EXTERNAL;
