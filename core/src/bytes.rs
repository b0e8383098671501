//! The elements that stored values are made of, written and read.
//! Invariant: reading never panics and never reads on; what is not as it was written is an error.

use crate::error::{Error, ErrorKind, Result};

/// Writes a value, element by element.
///
/// # Example: there and back
/// ```
/// use prompt_engine_core::bytes::{Reader, Writer};
/// let mut writer = Writer::new(1);
/// writer.number(300);
/// writer.text("é");
/// let bytes = writer.finish();
/// assert_eq!(bytes, [1, 0xac, 0x02, 2, 0xc3, 0xa9]);
/// let mut reader = Reader::new(&bytes, 1)?;
/// assert_eq!((reader.number()?, reader.text()?), (300, "é"));
/// reader.finish()?;
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// A value of this `version`, its first byte.
    pub fn new(version: u8) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.push(version);
        Self(bytes)
    }

    /// One byte.
    pub fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    /// The 16 bytes of an id.
    pub fn id(&mut self, id: [u8; 16]) {
        self.0.extend(id);
    }

    /// A number without sign: seven bits a byte, the lowest first, the top bit set on all but the last.
    pub fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
    }

    /// The same of up to 128 bits.
    pub fn wide(&mut self, mut number: u128) {
        while number >= 0x80 {
            self.0.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
    }

    /// A number with sign, which takes the lowest bit.
    pub fn signed(&mut self, number: i64) {
        self.number((number << 1 ^ number >> 63).cast_unsigned());
    }

    /// The same of up to 128 bits.
    pub fn signed_wide(&mut self, number: i128) {
        self.wide((number << 1 ^ number >> 127).cast_unsigned());
    }

    /// A text: its length in bytes, and the bytes.
    pub fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend(text.as_bytes());
    }

    /// Whether there is a value, and then what `write` makes of it.
    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.byte(value.is_some().into());
        if let Some(value) = value {
            write(self, value);
        }
    }

    /// All that another wrote.
    pub fn append(&mut self, other: &Self) {
        self.0.extend(&other.0);
    }

    /// The bytes.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads a value, element by element, each as [`Writer`] wrote it.
///
/// Every method fails with `Corrupt` where the bytes are no such element.
#[derive(Debug, Clone)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// A value that must be of this `version`.
    ///
    /// # Errors
    /// `Unsupported` if it is of another, `Corrupt` if it is of none.
    pub fn new(bytes: &'a [u8], version: u8) -> Result<Self> {
        let mut reader = Self(bytes);
        match reader.byte()? {
            found if found == version => Ok(reader),
            found => Err(Error::new(
                ErrorKind::Unsupported,
                format!("a value has the form {found}, and this build knows {version}"),
            )),
        }
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or_else(short)?;
        self.0 = rest;
        Ok(taken)
    }

    /// See [`Writer::byte`].
    pub fn byte(&mut self) -> Result<u8> {
        let (first, rest) = self.0.split_first().ok_or_else(short)?;
        self.0 = rest;
        Ok(*first)
    }

    /// See [`Writer::id`].
    pub fn id(&mut self) -> Result<[u8; 16]> {
        self.take(16)?.try_into().map_err(|_| short())
    }

    /// See [`Writer::number`].
    #[inline]
    pub fn number(&mut self) -> Result<u64> {
        // Most numbers are small.
        if let Some((first, rest)) = self.0.split_first()
            && *first < 0x80
        {
            self.0 = rest;
            return Ok(u64::from(*first));
        }
        match self.within_a_word() {
            Some(number) => Ok(number),
            None => u64::try_from(self.bytewise()?).map_err(|_| long()),
        }
    }

    /// See [`Writer::wide`].
    #[inline]
    pub fn wide(&mut self) -> Result<u128> {
        match self.within_a_word() {
            Some(number) => Ok(number.into()),
            None => self.bytewise(),
        }
    }

    /// A number of at most eight bytes where eight are left: without a branch for each of them, which a
    /// processor could not foresee.
    #[inline]
    fn within_a_word(&mut self) -> Option<u64> {
        const TOPS: u64 = 0x8080_8080_8080_8080;
        let word = u64::from_le_bytes(*self.0.first_chunk()?);
        let last = !word & TOPS;
        if last == 0 {
            return None;
        }
        self.0 = &self.0[(last.trailing_zeros() as usize + 1) / 8..];
        // Up to the first byte whose top bit is not set: seven bits of eight, then 14 of 16, 28 of 32.
        let number = word & (last ^ (last - 1)) & !TOPS;
        let number = number & 0x007f_007f_007f_007f | (number & 0x7f00_7f00_7f00_7f00) >> 1;
        let number = number & 0x0000_3fff_0000_3fff | (number & 0x3fff_0000_3fff_0000) >> 2;
        Some(number & 0x0fff_ffff | (number & 0x0fff_ffff_0000_0000) >> 4)
    }

    fn bytewise(&mut self) -> Result<u128> {
        let mut number = 0_u128;
        for shift in (0..128).step_by(7) {
            let byte = self.byte()?;
            let bits = u128::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(long())
    }

    /// A number that is a key or a count of at most 32 bits.
    pub fn small(&mut self) -> Result<u32> {
        let number = self.number()?;
        u32::try_from(number).map_err(|_| Error::corrupt(format!("{number} is too large")))
    }

    /// How many elements follow, which must be at least a byte each.
    pub fn count(&mut self) -> Result<usize> {
        let count = usize::try_from(self.number()?).map_err(|_| short())?;
        if count > self.0.len() { Err(short()) } else { Ok(count) }
    }

    /// See [`Writer::signed`].
    pub fn signed(&mut self) -> Result<i64> {
        let number = self.number()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    /// See [`Writer::signed_wide`].
    pub fn signed_wide(&mut self) -> Result<i128> {
        let number = self.wide()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    /// See [`Writer::text`].
    pub fn text(&mut self) -> Result<&'a str> {
        let bytes = usize::try_from(self.number()?).map_err(|_| short())?;
        std::str::from_utf8(self.take(bytes)?).map_err(|_| Error::corrupt("a text is no UTF-8"))
    }

    /// See [`Writer::option`].
    pub fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        match self.byte()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            other => Err(Error::corrupt(format!("{other} says neither none nor some"))),
        }
    }

    /// What is left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Checks that nothing is left.
    pub fn finish(self) -> Result<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Error::corrupt(format!("a value has {} bytes too many", self.0.len())))
        }
    }
}

fn short() -> Error {
    Error::corrupt("a value ends too early")
}

fn long() -> Error {
    Error::corrupt("a number is too long")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_comes_back() {
        let numbers = [0, 1, 127, 128, 16_383, 16_384, u64::MAX / 2, u64::MAX];
        let signed = [0, -1, 1, -64, 64, i64::MIN, i64::MAX];
        let wide = [0, -1, 1, i128::MIN, i128::MAX];
        let mut writer = Writer::new(1);
        numbers.iter().for_each(|number| writer.number(*number));
        signed.iter().for_each(|number| writer.signed(*number));
        wide.iter().for_each(|number| writer.signed_wide(*number));
        writer.wide(u128::MAX);
        writer.text("a\0é");
        writer.id([7; 16]);
        writer.option(Some(9), Writer::number);
        writer.option(None, Writer::number);
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes, 1).unwrap();
        assert_eq!(numbers.map(|_| reader.number().unwrap()), numbers);
        assert_eq!(signed.map(|_| reader.signed().unwrap()), signed);
        assert_eq!(wide.map(|_| reader.signed_wide().unwrap()), wide);
        assert_eq!(reader.wide().unwrap(), u128::MAX);
        assert_eq!(reader.text().unwrap(), "a\0é");
        assert_eq!(reader.id().unwrap(), [7; 16]);
        assert_eq!(reader.option(Reader::number).unwrap(), Some(9));
        assert_eq!(reader.option(Reader::number).unwrap(), None);
        reader.finish().unwrap();
    }

    #[test]
    fn a_number_of_any_length_comes_back_whatever_follows() {
        for bits in 0..128 {
            for number in [(1_u128 << bits) - 1, 1 << bits] {
                for behind in [0, 1, 20] {
                    let mut writer = Writer::new(1);
                    writer.wide(number);
                    let whole = writer.0.len();
                    writer.0.extend(vec![0x5a; behind]);
                    let mut reader = Reader::new(&writer.0, 1).unwrap();
                    assert_eq!(reader.clone().number().ok(), u64::try_from(number).ok());
                    assert_eq!(reader.wide().unwrap(), number);
                    assert_eq!(reader.0.len(), behind);
                    assert!(Reader(&writer.0[1..whole - 1]).wide().is_err());
                }
            }
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_documents() {
        let mut writer = Writer::new(1);
        writer.number(300);
        writer.wide(300);
        writer.signed(-1);
        writer.signed_wide(1);
        writer.text("é");
        writer.option(Some(5), Writer::byte);
        writer.option(None, Writer::byte);
        let expected = [1, 0xac, 0x02, 0xac, 0x02, 1, 2, 2, 0xc3, 0xa9, 1, 5, 0];
        assert_eq!(writer.finish(), expected);
    }

    #[test]
    fn what_is_not_as_it_was_written_is_refused() {
        assert_eq!(Reader::new(&[], 1).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(Reader::new(&[2], 1).unwrap_err().kind(), ErrorKind::Unsupported);
        let fails = |bytes: &[u8], read: fn(&mut Reader<'_>) -> bool| read(&mut Reader(bytes));
        assert!(fails(&[0x80], |r| r.number().is_err()));
        assert!(fails(&[0xff; 11], |r| r.number().is_err()));
        assert!(fails(&[0xff; 20], |r| r.wide().is_err()));
        assert!(fails(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2], |r| r
            .number()
            .is_err()));
        assert!(fails(&[0x80, 0x80, 0x80, 0x80, 0x10], |r| r.small().is_err()));
        assert!(fails(&[2, 0], |r| r.count().is_err()));
        assert!(fails(&[3, b'a'], |r| r.text().is_err()));
        assert!(fails(&[1, 0xff], |r| r.text().is_err()));
        assert!(fails(&[0; 15], |r| r.id().is_err()));
        assert!(fails(&[2, 0], |r| r.option(Reader::byte).is_err()));
        assert!(Reader(&[0]).finish().is_err());
    }
}
