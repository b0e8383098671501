-- Schema version 3: cells, which keep measures pre-added, and the changes that have yet to be added
-- to them. Their values are described in docs/cubes.md. Never edited once released: a change is a
-- new file.

CREATE TABLE prompt_engine_changes (
    id      INTEGER PRIMARY KEY,
    changes INTEGER NOT NULL,
    data    BLOB NOT NULL
) STRICT;

CREATE TABLE prompt_engine_cells (
    cube  INTEGER NOT NULL,
    width INTEGER NOT NULL,
    start INTEGER NOT NULL,
    lead  BLOB NOT NULL,
    sums  BLOB NOT NULL,
    PRIMARY KEY (cube, width, start, lead)
) STRICT, WITHOUT ROWID;

CREATE TABLE prompt_engine_cell_durations (
    cube      INTEGER NOT NULL,
    width     INTEGER NOT NULL,
    start     INTEGER NOT NULL,
    lead      BLOB NOT NULL,
    durations BLOB NOT NULL,
    PRIMARY KEY (cube, width, start, lead)
) STRICT, WITHOUT ROWID;
