//! Payloads in the form that stores keep them in: a byte that says how, then JSON, plain or compressed.
//! Pure functions that every backend on disk calls, so that a payload can be moved between them as it is.
//! Invariant: whatever was encoded decodes to the same; the codes are added to, never changed.

mod ahead;
mod pack;

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zstd::bulk::Compressor;

use crate::error::{Error, ErrorKind, Result};

pub use ahead::{Encoded, Encoding, Packed, Packing, Payload, encode_ahead};
pub use pack::{Pack, Packs, Place};

/// JSON follows.
const PLAIN: u8 = 0;
/// JSON compressed with zstd follows.
const ZSTD: u8 = 1;
/// The place in a pack follows.
const PACKED: u8 = 2;
/// JSON shorter than this is not worth compressing.
const SMALL: usize = 128;
/// Level 2: about 30 µs for a call of 4.5 kB, and 5 % less than level 1 in packs.
const LEVEL: i32 = 2;

thread_local! {
    /// Kept because its tables cost more than compressing a payload does.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
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
    write_json(&mut plain, payload)?;
    Ok(compressed(plain))
}

fn write_json<T: Serialize>(to: &mut Vec<u8>, payload: &T) -> Result<()> {
    serde_json::to_writer(to, payload).map_err(|source| {
        Error::new(ErrorKind::Unexpected, "a payload cannot be written as JSON").with_source(source)
    })
}

/// `plain`, which begins with its form, or the same compressed if that is shorter.
fn compressed(plain: Vec<u8>) -> Vec<u8> {
    if plain.len() <= SMALL {
        return plain;
    }
    let compressed = COMPRESSOR.with_borrow_mut(|kept| {
        let compressor = match kept {
            Some(compressor) => compressor,
            None => kept.insert(compressor()?),
        };
        compressor.compress(&plain[1..])
    });
    // Compressing cannot fail but for want of memory, and plain is as good.
    match compressed {
        Ok(mut compressed) if compressed.len() + 1 < plain.len() => {
            compressed.insert(0, ZSTD);
            compressed
        }
        _ => plain,
    }
}

/// Its frames have a checksum: not every store has one for its pages.
fn compressor() -> io::Result<Compressor<'static>> {
    let mut compressor = Compressor::new(LEVEL)?;
    compressor.include_checksum(true)?;
    Ok(compressor)
}

/// The payload that [`encode`] made `bytes` of.
///
/// # Errors
/// `Corrupt` if the bytes are no such thing; `Unsupported` if they are of a newer form.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    read_json(&plain(bytes)?)
}

/// What [`compressed`] made `bytes` of, without its form.
fn plain(bytes: &[u8]) -> Result<Cow<'_, [u8]>> {
    match bytes.split_first() {
        Some((&PLAIN, plain)) => Ok(plain.into()),
        Some((&ZSTD, compressed)) => {
            let plain = zstd::stream::decode_all(compressed).map_err(|source| {
                Error::corrupt("a payload cannot be decompressed").with_source(source)
            })?;
            Ok(plain.into())
        }
        Some((&PACKED, _)) => Err(Error::corrupt("a payload lies in a pack that is not there")),
        Some((form, _)) => Err(Error::new(
            ErrorKind::Unsupported,
            format!("a payload has the form {form}, which this build does not know"),
        )),
        None => Err(Error::corrupt("a payload has no bytes")),
    }
}

fn read_json<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    serde_json::from_slice(json)
        .map_err(|source| Error::corrupt("a payload is no JSON of ours").with_source(source))
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
