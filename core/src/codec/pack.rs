//! Packs: the payloads of records that were stored together, compressed as one. Prompts and answers of
//! one service repeat each other, and a compressor sees that only where they lie in one frame.
//! Invariant: a payload that is forgotten is gone from its pack; one that has forgotten all is none.

use serde::de::DeserializeOwned;

use super::{PACKED, PLAIN, compressed, plain, read_json, write_json};
use crate::bytes::{Reader, Writer};
use crate::error::{Error, ErrorKind, Result};

/// The form of a pack.
const FORM: u8 = 1;

/// Payloads in one value: each is a line of JSON, in which there is no other line end.
///
/// A store keeps a pack under a number of its own, and for each record that has a payload in it the
/// [`Place`], where it would keep a payload that lies alone.
///
/// # Example: two payloads, of which one is forgotten
/// ```
/// use prompt_engine_core::codec::Pack;
/// let mut pack = Pack::default();
/// assert_eq!((pack.push(&"one")?, pack.push(&"two")?), (0, 1));
/// let kept = Pack::forget(pack.finish(), &[0])?.expect("one is left");
/// let pack = Pack::read(&kept)?;
/// assert_eq!(pack.get::<String>(1)?, "two");
/// assert!(pack.get::<String>(0).is_err());
/// assert_eq!(Pack::forget(kept, &[1])?, None);
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Pack {
    /// The lines, each with its end.
    lines: Vec<u8>,
    /// Where the line ends lie.
    ends: Vec<usize>,
}

impl Pack {
    /// Adds a payload; answers its line.
    ///
    /// # Errors
    /// `Unexpected` if it cannot be written as JSON.
    pub fn push<T: serde::Serialize>(&mut self, payload: &T) -> Result<u32> {
        let (line, from) = (self.len(), self.lines.len());
        if let Err(error) = write_json(&mut self.lines, payload) {
            self.lines.truncate(from);
            return Err(error);
        }
        self.end_line();
        Ok(line)
    }

    fn end_line(&mut self) {
        self.ends.push(self.lines.len());
        self.lines.push(b'\n');
    }

    /// How many lines it has.
    pub fn len(&self) -> u32 {
        u32::try_from(self.ends.len()).unwrap_or(u32::MAX)
    }

    /// Whether it has no line.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// How many bytes its lines have before they are compressed.
    pub fn bytes(&self) -> usize {
        self.lines.len()
    }

    /// The pack as bytes: its form, and the lines as a payload is kept.
    pub fn finish(&self) -> Vec<u8> {
        let mut bytes = vec![FORM];
        bytes.extend(compressed([&[PLAIN], &self.lines[..]].concat()));
        bytes
    }

    /// The only payload of a pack as one that lies alone.
    pub(super) fn alone(mut self) -> Vec<u8> {
        self.lines.pop();
        compressed([&[PLAIN], &self.lines[..]].concat())
    }

    /// The pack that [`Pack::finish`] made `bytes` of.
    ///
    /// # Errors
    /// `Corrupt` if they are no pack; `Unsupported` if they are of a newer form.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let lines = plain(Reader::new(bytes, FORM)?.rest())?.into_owned();
        let ends = lines.iter().zip(0..).filter(|(byte, _)| **byte == b'\n').map(|(_, at)| at);
        Ok(Self { ends: ends.collect(), lines })
    }

    /// The payload of a line.
    ///
    /// # Errors
    /// `Corrupt` if there is none.
    pub fn get<T: DeserializeOwned>(&self, line: u32) -> Result<T> {
        let json = self.line(line);
        read_json(json.ok_or_else(|| Error::corrupt("a payload is not in its pack"))?)
    }

    /// The bytes of a line, if there is one and it was not forgotten.
    fn line(&self, line: u32) -> Option<&[u8]> {
        let line = usize::try_from(line).ok()?;
        let end = *self.ends.get(line)?;
        let start = line.checked_sub(1).map_or(0, |before| self.ends[before] + 1);
        (start < end).then(|| &self.lines[start..end])
    }

    /// The pack of `bytes` without `lines`; `None` where nothing is left. One that is damaged, so that
    /// nobody can read it, is forgotten as a whole and reported: it must not be in the way of all others.
    ///
    /// # Errors
    /// `Unsupported` if it is of a newer form.
    pub fn forget(bytes: Vec<u8>, lines: &[u32]) -> Result<Option<Vec<u8>>> {
        if lines.is_empty() {
            return Ok(Some(bytes));
        }
        match Self::without(&bytes, lines) {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::warn!(error = error.chain(), "a damaged pack of payloads is deleted");
                Ok(None)
            }
            kept => kept,
        }
    }

    fn without(bytes: &[u8], lines: &[u32]) -> Result<Option<Vec<u8>>> {
        let old = Self::read(bytes)?;
        let mut kept = Self::default();
        for line in 0..old.len() {
            if let Some(json) = old.line(line).filter(|_| !lines.contains(&line)) {
                kept.lines.extend(json);
            }
            kept.end_line();
        }
        let is_empty = (0..kept.len()).all(|line| kept.line(line).is_none());
        Ok((!is_empty).then(|| kept.finish()))
    }
}

/// Where a payload lies: the number of its pack, and its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The number of the pack.
    pub pack: u64,
    /// The line in it.
    pub line: u32,
}

impl Place {
    /// The place as bytes, to be kept where a payload would be.
    pub fn encode(self) -> Vec<u8> {
        let mut bytes = Writer::new(PACKED);
        bytes.number(self.pack);
        bytes.number(self.line.into());
        bytes.finish()
    }

    /// The place that is kept in `bytes`; `None` where they are a payload itself. Whoever deletes what
    /// cannot be read takes it for none.
    ///
    /// # Errors
    /// `Corrupt` if they begin like a place and are none.
    pub fn of(bytes: &[u8]) -> Result<Option<Self>> {
        if bytes.first() != Some(&PACKED) {
            return Ok(None);
        }
        let mut reader = Reader::new(bytes, PACKED)?;
        let place = Self { pack: reader.number()?, line: reader.small()? };
        reader.finish()?;
        Ok(Some(place))
    }
}

/// Reads payloads, alone or in a pack. It remembers the last pack: those of neighbours lie in one.
#[derive(Debug, Default)]
pub struct Packs {
    last: Option<(u64, Pack)>,
}

impl Packs {
    /// The payload that is kept as `bytes`; `load` reads the pack of a number, if it is needed.
    ///
    /// # Errors
    /// As [`decode`](super::decode) and [`Pack::get`], and those of `load`.
    pub fn decode<T: DeserializeOwned, E: From<Error>>(
        &mut self,
        bytes: &[u8],
        load: impl FnOnce(u64) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<T, E> {
        let Some(Place { pack, line }) = Place::of(bytes)? else {
            return Ok(super::decode(bytes)?);
        };
        let known = self.last.take().filter(|(last, _)| *last == pack);
        let found = match known {
            Some((_, found)) => found,
            None => {
                let bytes = load(pack)?;
                Pack::read(&bytes.ok_or_else(|| Error::corrupt("a pack is not there"))?)?
            }
        };
        let (_, found) = self.last.insert((pack, found));
        Ok(found.get(line)?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_not_forgotten_comes_back(
            texts in prop::collection::vec(any::<(String, bool)>(), 1..40),
            times in 1_usize..40,
        ) {
            let mut pack = Pack::default();
            for (text, _) in &texts {
                pack.push(&text.repeat(times)).unwrap();
            }
            let gone: Vec<u32> =
                (0..).zip(&texts).filter(|(_, (_, gone))| *gone).map(|(line, _)| line).collect();
            let kept = Pack::forget(pack.finish(), &gone).unwrap();
            prop_assert_eq!(kept.is_none(), gone.len() == texts.len());
            for (line, (text, gone)) in (0..).zip(&texts) {
                let found = kept.as_ref().map(|kept| Pack::read(kept).unwrap().get::<String>(line));
                if let Some(found) = found {
                    prop_assert_eq!(found.ok(), (!gone).then(|| text.repeat(times)));
                }
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>(), line in any::<u32>()) {
            let _ = Place::of(&bytes);
            let _ = Pack::forget(bytes.clone(), &[line]);
            let pack = [&[1, 0], &bytes[..]].concat();
            let _ = Pack::read(&pack).and_then(|pack| pack.get::<serde_json::Value>(line));
        }
    }

    #[test]
    fn a_place_comes_back_and_a_payload_is_none() {
        let place = Place { pack: u64::MAX, line: 70_000 };
        assert_eq!(Place::of(&place.encode()).unwrap(), Some(place));
        assert_eq!(Place { pack: 300, line: 2 }.encode(), [2, 0xac, 0x02, 2]);
        assert_eq!(Place::of(&super::super::encode(&"x").unwrap()).unwrap(), None);
        assert_eq!(Place::of(&[2, 1]).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_pack_is_loaded_once_for_its_neighbours() {
        let mut pack = Pack::default();
        pack.push(&"a").unwrap();
        pack.push(&"b").unwrap();
        let (bytes, mut loaded) = (pack.finish(), Vec::new());
        let mut packs = Packs::default();
        for place in [(7, 0), (7, 1), (8, 0), (7, 0)] {
            let place = Place { pack: place.0, line: place.1 }.encode();
            let load = |pack| {
                loaded.push(pack);
                Ok::<_, Error>(Some(bytes.clone()))
            };
            packs.decode::<String, _>(&place, load).unwrap();
        }
        assert_eq!(loaded, [7, 8, 7]);
        let gone =
            packs.decode::<String, Error>(&Place { pack: 9, line: 0 }.encode(), |_| Ok(None));
        assert_eq!(gone.unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_damaged_pack_is_forgotten_as_a_whole() {
        let mut pack = Pack::default();
        pack.push(&"a".repeat(300)).unwrap();
        pack.push(&"b".repeat(300)).unwrap();
        let bytes = pack.finish();
        let damaged = bytes[..bytes.len() - 5].to_vec();
        assert_eq!(Pack::read(&damaged).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(Pack::forget(damaged, &[1]).unwrap(), None);
        let newer = Pack::forget(vec![9, 0, b'1', b'\n'], &[1]).unwrap_err();
        assert_eq!(newer.kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn a_byte_that_changed_is_found() {
        let text: String = (0..200).map(|n| format!("{n} ")).collect();
        let mut pack = Pack::default();
        pack.push(&text).unwrap();
        let bytes = pack.finish();
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            let read = Pack::read(&changed).and_then(|pack| pack.get::<String>(0));
            assert!(read.is_err_and(|error| error.kind() != ErrorKind::Invalid), "byte {place}");
        }
    }

    #[test]
    fn repeated_prompts_take_their_space_once() {
        let prompt: String = (0..400).map(|n| format!("rule {} ", n * n)).collect();
        let mut pack = Pack::default();
        let mut alone = 0;
        for n in 0..20 {
            let payload = format!("{prompt}{n}");
            alone += super::super::encode(&payload).unwrap().len();
            pack.push(&payload).unwrap();
        }
        assert!(pack.finish().len() * 8 < alone);
    }
}
