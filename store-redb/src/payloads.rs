//! Where payloads lie: alone, or in a pack with those that were stored together; see `docs/payloads.md`.
//! Invariants: a pack holds the payloads whose places are kept, and no others; its pieces are numbered
//! from 0 without a gap, and all but the last are full.

use prompt_engine_core::codec::{self, Pack, Packs};
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, Table, WriteTransaction};
use serde::de::DeserializeOwned;

use crate::error::{Fault, Outcome};
use crate::layout::{Kind, PAYLOAD_PACKS, PIECE_BYTES, PieceKey, RowKey};

/// Writes the packs of one transaction.
pub(crate) struct PackWriter<'t> {
    pieces: Table<'t, PieceKey, &'static [u8]>,
    next: u64,
}

impl<'t> PackWriter<'t> {
    pub(crate) fn open(txn: &'t WriteTransaction) -> Outcome<Self> {
        let pieces = txn.open_table(PAYLOAD_PACKS)?;
        let last = pieces.last()?.map_or(0, |(key, _)| key.value().0);
        Ok(Self { pieces, next: behind(last)? })
    }

    /// The number that the next pack gets.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Keeps `pack` under the next number, without the lines of records that were there before.
    pub(crate) fn insert(&mut self, pack: Vec<u8>, unused: &[u32]) -> Outcome<()> {
        let Some(pack) = Pack::forget(pack, unused)? else { return Ok(()) };
        write(&mut self.pieces, self.next, &pack)?;
        self.next = behind(self.next)?;
        Ok(())
    }
}

fn behind(number: u64) -> Outcome<u64> {
    number.checked_add(1).ok_or_else(|| Fault::Row("a pack has the last number of all".to_owned()))
}

/// Takes payloads that were deleted out of their packs.
pub(crate) fn forget(txn: &WriteTransaction, mut places: Vec<codec::Place>) -> Outcome<()> {
    places.sort_unstable();
    let mut pieces = txn.open_table(PAYLOAD_PACKS)?;
    for of_one in places.chunk_by(|a, b| a.pack == b.pack) {
        let number = of_one[0].pack;
        let pack = match read(&pieces, number) {
            // Nobody can read a pack that lacks a piece: it is damaged.
            Err(Fault::Row(_)) => Vec::new(),
            Ok(Some(pack)) => pack,
            // A pack that is not there has forgotten them.
            Ok(None) => continue,
            Err(fault) => return Err(fault),
        };
        let lines: Vec<u32> = of_one.iter().map(|place| place.line).collect();
        let left = Pack::forget(pack, &lines)?.unwrap_or_default();
        let end = write(&mut pieces, number, &left)?;
        pieces.retain_in((number, end)..=(number, u32::MAX), |_, _| false)?;
    }
    Ok(())
}

/// Writes the pieces of a pack; answers the number behind the last.
fn write(
    pieces: &mut Table<'_, PieceKey, &'static [u8]>,
    number: u64,
    pack: &[u8],
) -> Outcome<u32> {
    let mut end = 0;
    for piece in pack.chunks(PIECE_BYTES) {
        pieces.insert((number, end), piece)?;
        end += 1;
    }
    Ok(end)
}

/// The pack of this number.
fn read(
    pieces: &impl ReadableTable<PieceKey, &'static [u8]>,
    number: u64,
) -> Outcome<Option<Vec<u8>>> {
    let mut pack = None;
    for (entry, expected) in pieces.range((number, 0)..=(number, u32::MAX))?.zip(0..) {
        let (key, piece) = entry?;
        if key.value().1 != expected {
            return Err(Fault::Row("a pack lacks a piece".to_owned()));
        }
        pack.get_or_insert_with(Vec::new).extend(piece.value());
    }
    Ok(pack)
}

/// Reads the payloads of one kind of record in one query.
pub(crate) struct PayloadReader {
    kept: ReadOnlyTable<RowKey, &'static [u8]>,
    pieces: ReadOnlyTable<PieceKey, &'static [u8]>,
    packs: Packs,
}

impl PayloadReader {
    pub(crate) fn open(txn: &ReadTransaction, kind: &Kind) -> Outcome<Self> {
        Ok(Self {
            kept: txn.open_table(kind.payloads)?,
            pieces: txn.open_table(PAYLOAD_PACKS)?,
            packs: Packs::default(),
        })
    }

    /// The payload of the record at `row_key`.
    pub(crate) fn read<T: DeserializeOwned>(&mut self, row_key: RowKey) -> Outcome<Option<T>> {
        let Some(kept) = self.kept.get(row_key)? else { return Ok(None) };
        let payload = self.packs.decode(kept.value(), |number| read(&self.pieces, number))?;
        Ok(Some(payload))
    }
}
