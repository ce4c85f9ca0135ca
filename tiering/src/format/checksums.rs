//! Section: a CRC-32C for every 64 KiB of data, so that a part of an object can be checked alone.

use super::FormatError;
use super::cursor::{Cursor, Put};

const WHAT: &str = "checksums section";

/// Bytes of data under one checksum; the last chunk of an object is shorter.
pub const CHECKSUM_CHUNK_BYTES: u32 = 64 * 1024;

/// The checksums, in the order of the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksums {
    /// Bytes under one checksum, never 0.
    pub chunk_bytes: u32,
    /// CRC-32C of each chunk.
    pub crcs: Vec<u32>,
}

impl Checksums {
    /// Checks `bytes` that lie at `position` in data of `data_length` bytes. `position` and the end of
    /// `bytes` must be chunk borders (or the data's end): else Invalid.
    pub fn verify(&self, position: u64, bytes: &[u8], data_length: u64) -> Result<(), FormatError> {
        let chunk = u64::from(self.chunk_bytes);
        let end = position.saturating_add(bytes.len() as u64);
        if !position.is_multiple_of(chunk) || (!end.is_multiple_of(chunk) && end != data_length) {
            return Err(FormatError::Invalid { what: WHAT });
        }
        let first = usize::try_from(position / chunk).map_err(|_| FormatError::Invalid { what: WHAT })?;
        for (index, part) in bytes.chunks(self.chunk_bytes as usize).enumerate() {
            if self.crcs.get(first + index) != Some(&crc32c::crc32c(part)) {
                return Err(FormatError::Checksum { what: "data" });
            }
        }
        Ok(())
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_be(self.chunk_bytes.to_be_bytes());
        out.put_varint(self.crcs.len() as u64);
        for crc in &self.crcs {
            out.put_be(crc.to_be_bytes());
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new(bytes, WHAT);
        let chunk_bytes = cursor.u32()?;
        if chunk_bytes == 0 {
            return Err(cursor.invalid());
        }
        let count = cursor.count(4)?;
        let mut crcs = Vec::with_capacity(count);
        for _ in 0..count {
            crcs.push(cursor.u32()?);
        }
        cursor.finish()?;
        Ok(Self { chunk_bytes, crcs })
    }
}
