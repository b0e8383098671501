//! The elements that values are made of, written and read: see `docs/redb-format.md`.
//! Invariant: reading never panics and never reads on; what is not as it was written is a fault.

use crate::error::{Fault, Outcome};

/// Writes a value, element by element.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// A value of this `version`.
    pub(crate) fn new(version: u8) -> Self {
        Self(vec![version])
    }

    pub(crate) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(crate) fn id(&mut self, id: [u8; 16]) {
        self.0.extend(id);
    }

    /// A number without sign: `n`.
    pub(crate) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
    }

    /// A number with sign: `z`.
    pub(crate) fn signed(&mut self, number: i64) {
        self.number((number << 1 ^ number >> 63).cast_unsigned());
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend(text.as_bytes());
    }

    /// `x?`: whether there is a value, and then what `write` makes of it.
    pub(crate) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.byte(value.is_some().into());
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads a value, element by element.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// A value that must be of this `version`.
    pub(crate) fn new(bytes: &'a [u8], version: u8) -> Outcome<Self> {
        let mut reader = Self(bytes);
        match reader.byte()? {
            found if found == version => Ok(reader),
            found => Err(Fault::Version { found, known: version }),
        }
    }

    fn take(&mut self, bytes: usize) -> Outcome<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or_else(short)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn byte(&mut self) -> Outcome<u8> {
        let (first, rest) = self.0.split_first().ok_or_else(short)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn id(&mut self) -> Outcome<[u8; 16]> {
        self.take(16)?.try_into().map_err(|_| short())
    }

    pub(crate) fn number(&mut self) -> Outcome<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Fault::Row("a number is too long".to_owned()))
    }

    /// A number that is a key or a count of at most 32 bits.
    pub(crate) fn small(&mut self) -> Outcome<u32> {
        let number = self.number()?;
        u32::try_from(number).map_err(|_| Fault::Row(format!("{number} is too large")))
    }

    pub(crate) fn signed(&mut self) -> Outcome<i64> {
        let number = self.number()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    pub(crate) fn text(&mut self) -> Outcome<&'a str> {
        let bytes = usize::try_from(self.number()?).map_err(|_| short())?;
        std::str::from_utf8(self.take(bytes)?)
            .map_err(|_| Fault::Row("a text is no UTF-8".to_owned()))
    }

    pub(crate) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Outcome<T>,
    ) -> Outcome<Option<T>> {
        match self.byte()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            other => Err(Fault::Row(format!("{other} says neither none nor some"))),
        }
    }

    /// Checks that nothing is left.
    pub(crate) fn finish(self) -> Outcome<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Fault::Row(format!("{} bytes too many", self.0.len())))
        }
    }
}

fn short() -> Fault {
    Fault::Row("it ends too early".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn every_element_comes_back() {
        let numbers = [0, 1, 127, 128, 16_383, 16_384, u64::MAX / 2, u64::MAX];
        let signed = [0, -1, 1, -64, 64, i64::MIN, i64::MAX];
        let mut writer = Writer::new(1);
        numbers.iter().for_each(|number| writer.number(*number));
        signed.iter().for_each(|number| writer.signed(*number));
        writer.text("a\0é");
        writer.id([7; 16]);
        writer.option(Some(9), Writer::number);
        writer.option(None, Writer::number);
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes, 1).unwrap();
        assert_eq!(numbers.map(|_| reader.number().unwrap()), numbers);
        assert_eq!(signed.map(|_| reader.signed().unwrap()), signed);
        assert_eq!(reader.text().unwrap(), "a\0é");
        assert_eq!(reader.id().unwrap(), [7; 16]);
        assert_eq!(reader.option(Reader::number).unwrap(), Some(9));
        assert_eq!(reader.option(Reader::number).unwrap(), None);
        reader.finish().unwrap();
    }

    #[test]
    fn the_bytes_are_those_of_the_document() {
        let mut writer = Writer::new(1);
        writer.number(300);
        writer.signed(-1);
        writer.signed(1);
        writer.text("é");
        writer.option(Some(5), Writer::byte);
        writer.option(None, Writer::byte);
        assert_eq!(writer.finish(), [1, 0xac, 0x02, 1, 2, 2, 0xc3, 0xa9, 1, 5, 0]);
    }

    #[test]
    fn what_is_not_as_it_was_written_is_refused() {
        assert!(Reader::new(&[], 1).is_err());
        assert!(matches!(Reader::new(&[2], 1), Err(Fault::Version { found: 2, known: 1 })));
        let fails = |bytes: &[u8], read: fn(&mut Reader<'_>) -> bool| read(&mut Reader(bytes));
        assert!(fails(&[0x80], |r| r.number().is_err()));
        assert!(fails(&[0xff; 11], |r| r.number().is_err()));
        assert!(fails(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2], |r| r
            .number()
            .is_err()));
        assert!(fails(&[0x80, 0x80, 0x80, 0x80, 0x10], |r| r.small().is_err()));
        assert!(fails(&[3, b'a'], |r| r.text().is_err()));
        assert!(fails(&[1, 0xff], |r| r.text().is_err()));
        assert!(fails(&[0; 15], |r| r.id().is_err()));
        assert!(fails(&[2, 0], |r| r.option(Reader::byte).is_err()));
        assert!(Reader(&[0]).finish().is_err());
    }
}
