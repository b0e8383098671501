//! The records of a batch with their payloads as bytes, made on a thread of its own. Records come out
//! before their pack is compressed, since where their payloads will lie is known by then: whoever writes
//! them writes rows meanwhile.
//! Invariant: records come out in the order in which they went in, and as many, or an error does.

use std::borrow::Cow;
use std::fmt;
use std::sync::mpsc;

use super::{Pack, Place, encode};
use crate::error::{Error, ErrorKind, Result};
use crate::record::Record;
use crate::status::Status;

/// The most records whose payloads lie in one pack.
const PACK_RECORDS: usize = 128;
/// A pack that has so many bytes takes no more, so that reading one payload stays cheap.
const PACK_BYTES: usize = 512 * 1024;

/// Records, and the pack that their payloads lie in.
#[derive(Debug)]
pub struct Packed {
    /// The records in order.
    pub records: Vec<Encoded>,
    /// The pack, if any of them has a payload in it.
    pub pack: Option<Packing>,
}

/// A pack that may still be being compressed.
#[derive(Debug)]
pub struct Packing(mpsc::Receiver<Vec<u8>>);

impl Packing {
    /// The pack as [`Pack::finish`] makes it; blocks until it is there.
    ///
    /// # Errors
    /// `Unexpected` if whoever compresses it panicked, or the runtime ends.
    pub fn finish(self) -> Result<Vec<u8>> {
        self.0.recv().map_err(|_| not_encoded())
    }
}

fn not_encoded() -> Error {
    Error::new(ErrorKind::Unexpected, "payloads were not encoded")
}

/// A record and its payload as bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// The record, whose payload was taken out.
    pub record: Record,
    /// The payload.
    pub payload: Payload,
}

/// Where the payload of a record is.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// The record has none.
    None,
    /// Here: that of a pending call, which is replaced when the call ends, and that of a failed one, which
    /// is read by itself.
    Alone(Vec<u8>),
    /// On this line of the pack.
    Line(u32),
}

impl Payload {
    /// What is kept of it where its pack has this number.
    pub fn kept(&self, pack: u64) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::None => None,
            Self::Alone(payload) => Some(payload.into()),
            Self::Line(line) => Some(Place { pack, line: *line }.encode().into()),
        }
    }
}

/// Records that are encoded on a thread of their own, in order, ahead of whoever takes them: so that a
/// writer writes while the next are being compressed. As many come out as went in, or an error.
pub struct Encoding {
    packed: mpsc::Receiver<Result<Packed>>,
    /// Records that have not come out.
    left: usize,
}

impl fmt::Debug for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoding").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Iterator for Encoding {
    type Item = Result<Packed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let packed = self.packed.recv().unwrap_or_else(|_| Err(not_encoded()));
        let taken = packed.as_ref().map_or(self.left, |packed| packed.records.len());
        self.left = self.left.saturating_sub(taken);
        Some(packed)
    }
}

/// Checks `records`, and begins to encode their payloads. Must be called on a tokio runtime. Taking
/// the next [`Packed`] blocks until its records are there.
///
/// # Errors
/// `Invalid`, naming the first record that breaks [`Record::validate`].
pub fn encode_ahead(records: &[Record]) -> Result<Encoding> {
    records.iter().try_for_each(Record::validate)?;
    let (left, records) = (records.len(), records.to_vec());
    let (sender, packed) = mpsc::channel();
    tokio::task::spawn_blocking(move || encode_all(records.into_iter(), &sender));
    Ok(Encoding { packed, left })
}

/// Sends all records; stops at an error, and where nobody takes them any more.
fn encode_all(
    mut records: impl ExactSizeIterator<Item = Record>,
    to: &mpsc::Sender<Result<Packed>>,
) {
    while records.len() > 0 {
        let taken = match gathered(&mut records) {
            Ok((records, None)) => to.send(Ok(Packed { records, pack: None })).is_ok(),
            Ok((records, Some(pack))) => {
                let (sender, packing) = mpsc::channel();
                let packing = Some(Packing(packing));
                to.send(Ok(Packed { records, pack: packing })).is_ok()
                    && sender.send(pack.finish()).is_ok()
            }
            Err(error) => {
                // Where nobody takes it, nobody waits for it either.
                let _ = to.send(Err(error));
                false
            }
        };
        if !taken {
            return;
        }
    }
}

/// The next records whose payloads fill a pack, and that. A pack of one is none: its payload lies alone.
fn gathered(from: &mut impl Iterator<Item = Record>) -> Result<(Vec<Encoded>, Option<Pack>)> {
    let (mut records, mut pack) = (Vec::with_capacity(PACK_RECORDS), Pack::default());
    while records.len() < PACK_RECORDS && pack.bytes() < PACK_BYTES {
        let Some(mut record) = from.next() else { break };
        let payload = match &mut record {
            Record::Usage(usage) => match usage.payload.take() {
                Some(payload) => Payload::Line(pack.push(&payload)?),
                None => Payload::None,
            },
            Record::Execution(call) => match call.payload.take() {
                Some(payload) if is_alone(call.status) => Payload::Alone(encode(&payload)?),
                Some(payload) => Payload::Line(pack.push(&payload)?),
                None => Payload::None,
            },
        };
        records.push(Encoded { record, payload });
    }
    if pack.len() > 1 {
        return Ok((records, Some(pack)));
    }
    if let Some(only) = records.iter_mut().find(|of| matches!(of.payload, Payload::Line(_))) {
        only.payload = Payload::Alone(pack.alone());
    }
    Ok((records, None))
}

fn is_alone(status: Status) -> bool {
    !status.is_final() || status.is_failure()
}

#[cfg(all(test, feature = "conformance"))]
mod tests {
    use std::sync::Arc;

    use super::super::Packs;
    use super::*;
    use crate::conformance::arbitrary::Arbitrary;
    use crate::record::UsagePayload;

    #[tokio::test]
    async fn records_come_out_as_they_went_in_whatever_their_lengths() {
        let mut random = Arbitrary::new(5, 1_000);
        let mut records: Vec<Record> = Vec::new();
        while records.len() < 5 * PACK_RECORDS {
            records.extend(random.records());
        }
        records.truncate(5 * PACK_RECORDS - 1);
        let long = (0..PACK_BYTES).map(|_| random.rng.alphabetic()).collect();
        let mut usage = random.usage();
        usage.payload = Some(Arc::new(UsagePayload { content: long, ..UsagePayload::default() }));
        records.insert(PACK_RECORDS + 7, usage.into());
        let (mut found, mut packs) = (Vec::new(), 0);
        for (packed, number) in encode_ahead(&records).unwrap().zip(0..) {
            let Packed { records, pack } = packed.unwrap();
            let pack = pack.map(|pack| pack.finish().unwrap());
            packs += usize::from(pack.is_some());
            let mut read = Packs::default();
            for Encoded { mut record, payload } in records {
                let kept = payload.kept(number);
                let kept = kept.as_deref();
                let load = |_| Ok::<_, Error>(pack.clone());
                match &mut record {
                    Record::Usage(usage) => {
                        usage.payload = kept.map(|kept| read.decode(kept, load).unwrap());
                    }
                    Record::Execution(call) => {
                        call.payload = kept.map(|kept| read.decode(kept, load).unwrap());
                    }
                }
                found.push(record);
            }
        }
        assert_eq!(found, records);
        // Four are full of records, one was cut where a long payload filled it, and one has the rest.
        assert_eq!(packs, 6);
    }
}
