//! The records of a batch with their payloads as bytes, made on threads of their own.
//! Invariant: records come out in the order in which they went in, and as many, or an error does.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::sync::mpsc;

use super::{Pack, Place, encode};
use crate::error::{Error, ErrorKind, Result};
use crate::record::Record;
use crate::status::Status;

/// How many encode the chunks of one batch: compressing takes longer than writing.
const ENCODERS: usize = 2;
/// Records encoded at a time, in one pack unless they are long: about as long as a writer takes to begin.
const CHUNK: usize = 128;
/// A pack that has so many bytes takes no more, so that reading one payload stays cheap.
const PACK_BYTES: usize = 512 * 1024;

/// Records, and the pack that their payloads lie in.
#[derive(Debug, Clone, PartialEq)]
pub struct Packed {
    /// The records in order.
    pub records: Vec<Encoded>,
    /// The pack, if any of them has a payload in it.
    pub pack: Option<Vec<u8>>,
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
    /// Those who encode; they take turns with the chunks, and the first has the next.
    encoders: VecDeque<mpsc::Receiver<Result<Vec<Packed>>>>,
    chunk: std::vec::IntoIter<Packed>,
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
        if let Some(packed) = self.chunk.next() {
            self.left = self.left.saturating_sub(packed.records.len());
            return Some(Ok(packed));
        }
        self.encoders.rotate_left(1.min(self.encoders.len()));
        match self.encoders.back().map(mpsc::Receiver::recv) {
            Some(Ok(Ok(chunk))) => {
                self.chunk = chunk.into_iter();
                self.next()
            }
            Some(Ok(Err(error))) => self.end(error),
            // Whoever encodes ended before he was done: he panicked, or the runtime ends.
            _ => self.end(Error::new(ErrorKind::Unexpected, "payloads were not encoded")),
        }
    }
}

impl Encoding {
    fn end(&mut self, error: Error) -> Option<Result<Packed>> {
        self.left = 0;
        Some(Err(error))
    }
}

/// Checks `records`, and begins to encode their payloads. Must be called on a tokio runtime. Taking
/// a record blocks until it is there.
///
/// # Errors
/// `Invalid`, naming the first record that breaks [`Record::validate`].
pub fn encode_ahead(records: &[Record]) -> Result<Encoding> {
    records.iter().try_for_each(Record::validate)?;
    let mut shares: [Vec<Vec<Record>>; ENCODERS] = Default::default();
    for (number, chunk) in records.chunks(CHUNK).enumerate() {
        shares[number % ENCODERS].push(chunk.to_vec());
    }
    let encoders = shares.into_iter().filter(|share| !share.is_empty()).map(start).collect();
    Ok(Encoding { encoders, chunk: Vec::new().into_iter(), left: records.len() })
}

/// Encodes the chunks of a share one after the other, on a thread of its own.
fn start(share: Vec<Vec<Record>>) -> mpsc::Receiver<Result<Vec<Packed>>> {
    let (sender, chunks) = mpsc::channel();
    tokio::task::spawn_blocking(move || {
        for chunk in share {
            let chunk = packed(chunk);
            let failed = chunk.is_err();
            // Nobody takes them any more where the writer gave up.
            if sender.send(chunk).is_err() || failed {
                return;
            }
        }
    });
    chunks
}

/// The records of a chunk in packs, more than one where their payloads are long.
fn packed(chunk: Vec<Record>) -> Result<Vec<Packed>> {
    let (mut done, mut records, mut pack) = (Vec::new(), Vec::new(), Pack::default());
    for mut record in chunk {
        if pack.bytes() >= PACK_BYTES {
            done.push(sealed(std::mem::take(&mut records), std::mem::take(&mut pack)));
        }
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
    done.push(sealed(records, pack));
    Ok(done)
}

fn is_alone(status: Status) -> bool {
    !status.is_final() || status.is_failure()
}

/// A pack of one is none: that payload lies alone.
fn sealed(mut records: Vec<Encoded>, pack: Pack) -> Packed {
    if pack.len() > 1 {
        return Packed { records, pack: Some(pack.finish()) };
    }
    if let Some(only) = records.iter_mut().find(|of| matches!(of.payload, Payload::Line(_))) {
        only.payload = Payload::Alone(pack.alone());
    }
    Packed { records, pack: None }
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
        while records.len() < 5 * CHUNK {
            records.extend(random.records());
        }
        records.truncate(5 * CHUNK - 1);
        let long = (0..PACK_BYTES).map(|_| random.rng.alphabetic()).collect();
        let mut usage = random.usage();
        usage.payload = Some(Arc::new(UsagePayload { content: long, ..UsagePayload::default() }));
        records.insert(CHUNK + 7, usage.into());
        let (mut found, mut packs) = (Vec::new(), 0);
        for (packed, number) in encode_ahead(&records).unwrap().zip(0..) {
            let Packed { records, pack } = packed.unwrap();
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
        // Five chunks, one of which is cut where a long payload filled its pack.
        assert_eq!(packs, 6);
    }
}
