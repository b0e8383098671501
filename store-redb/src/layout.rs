//! The tables and their keys: see `docs/redb-format.md`.
//! Invariant: the order of keys is the order of what they mean, so a range of keys is a range of time.

use std::ops::Bound;

use prompt_engine_core::cube::{self, CellKey};
use prompt_engine_core::{BucketWidth, Cube, Order, TimeRange, Timestamp};
use redb::TableDefinition;

use crate::error::{Fault, Outcome};

/// The version of the format.
pub(crate) const FORMAT: i64 = 3;
/// The last version of the format that had no cells.
pub(crate) const WITHOUT_CELLS: i64 = 1;
/// The last version of the format that had no packs.
pub(crate) const WITHOUT_PACKS: i64 = 2;
/// The version of each value.
pub(crate) const VERSION: u8 = 1;

/// The 16 bytes of an id.
pub(crate) type Id = [u8; 16];
/// Start time and id: what records are ordered by.
pub(crate) type RowKey = [u8; 24];
/// The key of a past cost: that of the execution, and a number.
pub(crate) type PastKey = [u8; 28];
/// A prompt and the number of a version.
pub(crate) type VersionKey = [u8; 20];
/// The number of a pack of payloads, and that of a piece of it.
pub(crate) type PieceKey = (u64, u32);
/// What the longest piece of a pack has: with its key of 12 bytes and the 8 that redb adds it fills a
/// leaf of 4,096 bytes, so that none is left half empty.
pub(crate) const PIECE_BYTES: usize = 4_096 - 12 - 8;
/// A table of rows, or of payloads.
pub(crate) type Rows = TableDefinition<'static, RowKey, &'static [u8]>;
/// A table of ids, which answers when their records started.
pub(crate) type Ids = TableDefinition<'static, Id, &'static [u8]>;
/// A table of cells, or of their histograms.
pub(crate) type Cells = TableDefinition<'static, &'static [u8], &'static [u8]>;
/// A set of index keys.
pub(crate) type Index = TableDefinition<'static, &'static [u8], ()>;

pub(crate) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
pub(crate) const TERMS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("terms");
pub(crate) const PAST_COSTS: TableDefinition<'_, PastKey, &[u8]> =
    TableDefinition::new("past_costs");
pub(crate) const PROMPTS: TableDefinition<'_, Id, &[u8]> = TableDefinition::new("prompts");
pub(crate) const PROMPT_SLUGS: TableDefinition<'_, &str, &[u8]> =
    TableDefinition::new("prompt_slugs");
pub(crate) const PROMPT_VERSIONS: TableDefinition<'_, VersionKey, &[u8]> =
    TableDefinition::new("prompt_versions");
pub(crate) const PRICES: TableDefinition<'_, Id, &[u8]> = TableDefinition::new("prices");
pub(crate) const PAYLOAD_PACKS: TableDefinition<'_, PieceKey, &[u8]> =
    TableDefinition::new("payload_packs");
pub(crate) const CHANGES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("changes");
pub(crate) const CELLS: Cells = TableDefinition::new("cells");
pub(crate) const CELL_DURATIONS: Cells = TableDefinition::new("cell_durations");

/// The four tables of a kind of record.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) rows: Rows,
    pub(crate) ids: Ids,
    pub(crate) index: Index,
    pub(crate) payloads: Rows,
}

pub(crate) const USAGES: Kind = Kind {
    rows: TableDefinition::new("usages"),
    ids: TableDefinition::new("usage_ids"),
    index: TableDefinition::new("usage_index"),
    payloads: TableDefinition::new("usage_payloads"),
};

pub(crate) const EXECUTIONS: Kind = Kind {
    rows: TableDefinition::new("executions"),
    ids: TableDefinition::new("execution_ids"),
    index: TableDefinition::new("execution_index"),
    payloads: TableDefinition::new("execution_payloads"),
};

/// A number whose bytes are ordered as numbers are.
fn ordered(number: i64) -> [u8; 8] {
    (number.cast_unsigned() ^ 1 << 63).to_be_bytes()
}

fn number(bytes: [u8; 8]) -> i64 {
    (u64::from_be_bytes(bytes) ^ 1 << 63).cast_signed()
}

/// The moment of stored microseconds.
pub(crate) fn moment(micros: i64) -> Outcome<Timestamp> {
    Timestamp::from_micros(micros).map_err(|error| Fault::Row(error.to_string()))
}

/// Where a record of this start and id lies.
pub(crate) fn row_key(at: Timestamp, id: Id) -> RowKey {
    let mut row_key = [0; 24];
    row_key[..8].copy_from_slice(&ordered(at.as_micros()));
    row_key[8..].copy_from_slice(&id);
    row_key
}

/// The first row key of a moment.
pub(crate) fn first_of(at: Timestamp) -> RowKey {
    row_key(at, [0; 16])
}

/// The start time and the id of a row key.
pub(crate) fn split(row_key: RowKey) -> Outcome<(Timestamp, Id)> {
    let [a, b, c, d, e, f, g, h, id @ ..] = row_key;
    let at = moment(number([a, b, c, d, e, f, g, h]))?;
    Ok((at, id))
}

/// A number as a value.
pub(crate) fn number_value(number: i64) -> [u8; 9] {
    let mut value = [VERSION; 9];
    value[1..].copy_from_slice(&ordered(number));
    value
}

/// The number of a value.
pub(crate) fn number_of(value: &[u8]) -> Outcome<i64> {
    match value.split_first() {
        Some((&VERSION, rest)) => rest
            .try_into()
            .map(number)
            .map_err(|_| Fault::Row("a number has not eight bytes".to_owned())),
        Some((&found, _)) => Err(Fault::Version { found, known: VERSION }),
        None => Err(Fault::Row("a number has no bytes".to_owned())),
    }
}

/// The row key of a record of this `id`, whose entry in the table of ids is `value`.
pub(crate) fn row_key_of(id: Id, value: &[u8]) -> Outcome<RowKey> {
    let at = moment(number_of(value)?)?;
    Ok(row_key(at, id))
}

pub(crate) fn past_key(row_key: RowKey, number: u32) -> PastKey {
    let mut key = [0; 28];
    key[..24].copy_from_slice(&row_key);
    key[24..].copy_from_slice(&number.to_be_bytes());
    key
}

pub(crate) fn version_key(prompt: Id, number: u32) -> VersionKey {
    let mut key = [0; 20];
    key[..16].copy_from_slice(&prompt);
    key[16..].copy_from_slice(&number.to_be_bytes());
    key
}

/// What an index is asked for: the start of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry<'a> {
    Prompt(u32),
    Model(u32),
    Status(u8),
    Session(&'a str),
    User(&'a str),
    Usage(Id),
}

impl Entry<'_> {
    /// The bytes before the row key.
    pub(crate) fn prefix(self) -> Vec<u8> {
        let text = |letter: u8, text: &str| [&[letter], text.as_bytes(), &[0]].concat();
        match self {
            Self::Prompt(term) => [&b"p"[..], &term.to_be_bytes()].concat(),
            Self::Model(term) => [&b"m"[..], &term.to_be_bytes()].concat(),
            Self::Status(code) => vec![b't', code],
            Self::Session(session) => text(b's', session),
            Self::User(user) => text(b'u', user),
            Self::Usage(id) => [&b"c"[..], &id].concat(),
        }
    }

    /// The key of the record at `row_key`.
    pub(crate) fn key(self, row_key: RowKey) -> Vec<u8> {
        let mut key = self.prefix();
        key.extend(row_key);
        key
    }
}

/// The row key at the end of an index key.
pub(crate) fn row_key_in(key: &[u8]) -> Outcome<RowKey> {
    key.last_chunk().copied().ok_or_else(|| Fault::Row("an index key is too short".to_owned()))
}

/// The start of the keys of the cells of a cube and a width that start at `start`.
pub(crate) fn cell_prefix(cube: Cube, width: BucketWidth, start: i64) -> [u8; 10] {
    let mut key = [cube.code(), width.code(), 0, 0, 0, 0, 0, 0, 0, 0];
    key[2..].copy_from_slice(&ordered(start));
    key
}

/// Where a cell lies.
pub(crate) fn cell_key(key: &CellKey) -> Vec<u8> {
    let CellKey { cube, width, start, lead } = key;
    [&cell_prefix(*cube, *width, *start)[..], lead].concat()
}

/// When the cell of a key starts, and its lead.
pub(crate) fn cell_of_key(key: &[u8]) -> Outcome<(i64, &[u8])> {
    match key {
        [_, _, a, b, c, d, e, f, g, h, lead @ ..] => {
            Ok((number([*a, *b, *c, *d, *e, *f, *g, *h]), lead))
        }
        _ => Err(Fault::Row("the key of a cell is too short".to_owned())),
    }
}

/// A stretch of row keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretch {
    pub(crate) from: Bound<RowKey>,
    pub(crate) to: Bound<RowKey>,
}

impl Stretch {
    /// The row keys of `range` that come behind `after` in this order.
    pub(crate) fn new(range: &TimeRange, order: Order, after: Option<RowKey>) -> Self {
        let mut from = range.from.map_or(Bound::Unbounded, |from| Bound::Included(first_of(from)));
        let mut to = range.to.map_or(Bound::Unbounded, |to| Bound::Excluded(first_of(to)));
        if let Some(after) = after {
            match order {
                Order::OldestFirst if inner(from).is_none_or(|from| from <= after) => {
                    from = Bound::Excluded(after);
                }
                Order::NewestFirst if inner(to).is_none_or(|to| after < to) => {
                    to = Bound::Excluded(after);
                }
                Order::OldestFirst | Order::NewestFirst => {}
            }
        }
        Self { from, to }
    }

    /// The row keys of a stretch of time.
    pub(crate) fn of_time(of: cube::Stretch) -> Self {
        let first = |micros: i64| {
            let mut row_key = [0; 24];
            row_key[..8].copy_from_slice(&ordered(micros));
            row_key
        };
        Self { from: Bound::Included(first(of.from)), to: Bound::Excluded(first(of.to)) }
    }

    /// Whether no row key can lie in it; a tree must not be asked for such a range.
    pub(crate) fn is_empty(&self) -> bool {
        match (self.from, self.to) {
            (Bound::Included(from), Bound::Excluded(to)) => from >= to,
            (Bound::Excluded(from), Bound::Excluded(to)) => from >= to,
            _ => false,
        }
    }

    /// Leaves of it no more than `row_key`.
    pub(crate) fn narrow_to(&mut self, row_key: RowKey) {
        let behind = match self.from {
            Bound::Included(from) => from <= row_key,
            Bound::Excluded(from) => from < row_key,
            Bound::Unbounded => true,
        };
        let before = match self.to {
            Bound::Included(to) => row_key <= to,
            Bound::Excluded(to) => row_key < to,
            Bound::Unbounded => true,
        };
        if behind && before {
            (self.from, self.to) = (Bound::Included(row_key), Bound::Included(row_key));
        } else {
            self.narrow_to_nothing();
        }
    }

    /// Leaves nothing of it.
    pub(crate) fn narrow_to_nothing(&mut self) {
        (self.from, self.to) = (Bound::Excluded([0; 24]), Bound::Excluded([0; 24]));
    }

    /// The index keys of `prefix` whose row keys lie in it.
    pub(crate) fn of_index(&self, prefix: &[u8]) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        let key = |row_key: RowKey| [prefix, &row_key].concat();
        let from = match self.from {
            Bound::Included(from) => Bound::Included(key(from)),
            Bound::Excluded(from) => Bound::Excluded(key(from)),
            Bound::Unbounded => Bound::Included(key([0; 24])),
        };
        let to = match self.to {
            Bound::Included(to) => Bound::Included(key(to)),
            Bound::Excluded(to) => Bound::Excluded(key(to)),
            Bound::Unbounded => Bound::Included(key([0xff; 24])),
        };
        (from, to)
    }
}

fn inner(bound: Bound<RowKey>) -> Option<RowKey> {
    match bound {
        Bound::Included(row_key) | Bound::Excluded(row_key) => Some(row_key),
        Bound::Unbounded => None,
    }
}
