//! Reading and writing the primitive values of the durable formats.
//!
//! Fixed-width integers are big endian; variable ones are LEB128, signed ones zigzag. A [`Cursor`]
//! never reads past its bytes, and a count read from them is checked against the bytes that are left
//! before memory is reserved for it.

use uuid::Uuid;

use super::FormatError;

/// Reads values from the front of a slice.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Cursor<'a> {
    /// A cursor over `bytes`; `what` names them in errors.
    pub(crate) const fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    /// The next `len` bytes.
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        let Some((head, rest)) = self.rest.split_at_checked(len) else {
            return Err(FormatError::Truncated { what: self.what });
        };
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(FormatError::Truncated { what: self.what });
        };
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, FormatError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, FormatError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, FormatError> {
        self.array().map(i32::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, FormatError> {
        self.array().map(i64::from_be_bytes)
    }

    pub(crate) fn uuid(&mut self) -> Result<Uuid, FormatError> {
        self.array().map(Uuid::from_bytes)
    }

    /// An unsigned LEB128 integer of at most 64 bits.
    pub(crate) fn varint(&mut self) -> Result<u64, FormatError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.invalid())
    }

    /// A zigzag-encoded signed integer.
    pub(crate) fn zigzag(&mut self) -> Result<i64, FormatError> {
        let raw = self.varint()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// A number of items of at least `item_bytes` bytes each, which must fit into what is left.
    pub(crate) fn count(&mut self, item_bytes: usize) -> Result<usize, FormatError> {
        let count = usize::try_from(self.varint()?).map_err(|_| self.invalid())?;
        if count.saturating_mul(item_bytes.max(1)) > self.rest.len() {
            return Err(FormatError::Truncated { what: self.what });
        }
        Ok(count)
    }

    /// Succeeds if everything was read.
    pub(crate) fn finish(&self) -> Result<(), FormatError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.invalid()) }
    }

    /// The error for a value that cannot be.
    pub(crate) const fn invalid(&self) -> FormatError {
        FormatError::Invalid { what: self.what }
    }
}

/// Appends values to a buffer: the inverse of [`Cursor`].
pub(crate) trait Put {
    fn put_varint(&mut self, value: u64);
    fn put_zigzag(&mut self, value: i64);
    fn put_be<const N: usize>(&mut self, bytes: [u8; N]);
}

impl Put for Vec<u8> {
    fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }

    fn put_zigzag(&mut self, value: i64) {
        self.put_varint(((value << 1) ^ (value >> 63)) as u64);
    }

    fn put_be<const N: usize>(&mut self, bytes: [u8; N]) {
        self.extend_from_slice(&bytes);
    }
}

/// `a + b` for values from outside: an overflow is malformed input, not a panic.
pub(crate) fn add(a: i64, b: i64, what: &'static str) -> Result<i64, FormatError> {
    a.checked_add(b).ok_or(FormatError::Invalid { what })
}

/// `a + b` for unsigned values from outside.
pub(crate) fn add_u64(a: u64, b: u64, what: &'static str) -> Result<u64, FormatError> {
    a.checked_add(b).ok_or(FormatError::Invalid { what })
}
