//! Payloads in the form that stores keep them in: a byte that says how, then JSON, plain or compressed.
//! Pure functions that every backend on disk calls, so that a payload can be moved between them as it is.
//! Invariant: whatever was encoded decodes to the same; the codes are added to, never changed.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::sync::mpsc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zstd::bulk::Compressor;

use crate::error::{Error, ErrorKind, Result};
use crate::record::Record;

/// JSON follows.
const PLAIN: u8 = 0;
/// JSON compressed with zstd follows.
const ZSTD: u8 = 1;
/// JSON shorter than this is not worth compressing.
const SMALL: usize = 128;
/// Level 1: 27 to 32 µs for a typical call, and less than half its size.
const LEVEL: i32 = 1;

/// How many encode the chunks of one batch: compressing takes longer than writing.
const ENCODERS: usize = 2;
/// Records encoded at a time: about as long as a writer takes to begin.
const CHUNK: usize = 32;

thread_local! {
    /// Kept because its tables cost more than compressing a payload does.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
}

/// A record and its payload as bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// The record, whose payload was taken out.
    pub record: Record,
    /// The payload.
    pub payload: Option<Vec<u8>>,
}

/// Records that are encoded on a thread of their own, in order, ahead of whoever takes them: so that a
/// writer writes while the next are being compressed. As many come out as went in, or an error.
pub struct Encoding {
    /// Those who encode; they take turns with the chunks, and the first has the next.
    encoders: VecDeque<mpsc::Receiver<Result<Vec<Encoded>>>>,
    chunk: std::vec::IntoIter<Encoded>,
    left: usize,
}

impl fmt::Debug for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoding").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Iterator for Encoding {
    type Item = Result<Encoded>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        if let Some(encoded) = self.chunk.next() {
            self.left -= 1;
            return Some(Ok(encoded));
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
    fn end(&mut self, error: Error) -> Option<Result<Encoded>> {
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
fn start(share: Vec<Vec<Record>>) -> mpsc::Receiver<Result<Vec<Encoded>>> {
    let (sender, chunks) = mpsc::channel();
    tokio::task::spawn_blocking(move || {
        for chunk in share {
            let chunk: Result<Vec<_>> = chunk.into_iter().map(encoded).collect();
            let failed = chunk.is_err();
            // Nobody takes them any more where the writer gave up.
            if sender.send(chunk).is_err() || failed {
                return;
            }
        }
    });
    chunks
}

fn encoded(mut record: Record) -> Result<Encoded> {
    let payload = match &mut record {
        Record::Usage(usage) => usage.payload.take().map(|payload| encode(&payload)),
        Record::Execution(execution) => execution.payload.take().map(|payload| encode(&payload)),
    };
    Ok(Encoded { payload: payload.transpose()?, record })
}

/// `payload` as bytes.
///
/// # Errors
/// `Unexpected` if it cannot be written as JSON.
///
/// # Example: there and back
/// ```
/// use prompt_engine_core::{UsagePayload, codec};
/// let payload = UsagePayload { content: "Hello\0 ".repeat(100), ..Default::default() };
/// let bytes = codec::encode(&payload)?;
/// assert!(bytes.len() < 200);
/// assert_eq!(codec::decode::<UsagePayload>(&bytes)?, payload);
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
pub fn encode<T: Serialize>(payload: &T) -> Result<Vec<u8>> {
    let mut plain = vec![PLAIN];
    serde_json::to_writer(&mut plain, payload).map_err(|source| {
        Error::new(ErrorKind::Unexpected, "a payload cannot be written as JSON").with_source(source)
    })?;
    if plain.len() <= SMALL {
        return Ok(plain);
    }
    let compressed = COMPRESSOR.with_borrow_mut(|kept| {
        let compressor = match kept {
            Some(compressor) => compressor,
            None => kept.insert(Compressor::new(LEVEL)?),
        };
        compressor.compress(&plain[1..])
    });
    // Compressing cannot fail but for want of memory, and plain is as good.
    Ok(match compressed {
        Ok(mut compressed) if compressed.len() + 1 < plain.len() => {
            compressed.insert(0, ZSTD);
            compressed
        }
        _ => plain,
    })
}

/// The payload that [`encode`] made `bytes` of.
///
/// # Errors
/// `Corrupt` if the bytes are no such thing; `Unsupported` if they are of a newer form.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let json = |plain: &[u8]| {
        serde_json::from_slice(plain)
            .map_err(|source| Error::corrupt("a payload is no JSON of ours").with_source(source))
    };
    match bytes.split_first() {
        Some((&PLAIN, plain)) => json(plain),
        Some((&ZSTD, compressed)) => {
            let plain = zstd::stream::decode_all(compressed).map_err(|source| {
                Error::corrupt("a payload cannot be decompressed").with_source(source)
            })?;
            json(&plain)
        }
        Some((form, _)) => Err(Error::new(
            ErrorKind::Unsupported,
            format!("a payload has the form {form}, which this build does not know"),
        )),
        None => Err(Error::corrupt("a payload has no bytes")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_comes_back(text in any::<String>(), times in 1_usize..200) {
            let text = text.repeat(times);
            prop_assert_eq!(decode::<String>(&encode(&text).unwrap()).unwrap(), text);
        }

        #[test]
        fn any_number_comes_back(number in any::<f64>().prop_filter("JSON", |n| n.is_finite())) {
            prop_assert_eq!(decode::<f64>(&encode(&number).unwrap()).unwrap(), number);
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in any::<Vec<u8>>()) {
            let _ = decode::<serde_json::Value>(&bytes);
        }
    }

    #[test]
    fn a_small_payload_stays_plain_and_a_long_one_is_compressed() {
        assert_eq!(encode(&"x").unwrap(), b"\0\"x\"");
        let long = encode(&"x".repeat(10_000)).unwrap();
        assert_eq!(long[0], ZSTD);
        assert!(long.len() < 100);
    }

    #[test]
    fn a_newer_form_is_refused_by_name() {
        let error = decode::<String>(&[9, 1, 2]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}
