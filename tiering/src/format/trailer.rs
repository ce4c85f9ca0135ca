//! The last bytes of a footer: which version it is, what range it describes, where its directory lies.

use proto::ids::Offset;

use super::FormatError;
use super::cursor::{Cursor, Put};

/// Version written by this code.
pub const VERSION: u16 = 1;

/// Last bytes of every object.
pub const MAGIC: [u8; 8] = *b"FIRN.SEG";

/// Length of an encoded trailer.
pub const TRAILER_BYTES: usize = 2 + 2 + 8 + 8 + 8 + 8 + 4 + 4 + 4 + 8;

/// The fixed-size end of a footer.
///
/// `{version u16, flags u16 (0), base i64, end i64, data length u64, directory position u64, directory
/// length u32, directory crc32c u32, crc32c of all before u32, magic}`. Because the directory's CRC is
/// here, the sections' CRCs are in the directory and the data's CRCs are in a section, two objects with
/// equal trailers and equal sizes have equal content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// First offset of the range. Inclusive.
    pub base: Offset,
    /// First offset after the range. Exclusive.
    pub end: Offset,
    /// Bytes of record batches.
    pub data_length: u64,
    /// Where the directory begins, in bytes from the start of the footer.
    pub directory_position: u64,
    /// Length of the directory in bytes.
    pub directory_length: u32,
    /// CRC-32C of the directory.
    pub directory_crc: u32,
}

impl Trailer {
    /// Appends the encoded trailer.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let from = out.len();
        out.put_be(VERSION.to_be_bytes());
        out.put_be(0u16.to_be_bytes());
        out.put_be(self.base.to_be_bytes());
        out.put_be(self.end.to_be_bytes());
        out.put_be(self.data_length.to_be_bytes());
        out.put_be(self.directory_position.to_be_bytes());
        out.put_be(self.directory_length.to_be_bytes());
        out.put_be(self.directory_crc.to_be_bytes());
        let crc = crc32c::crc32c(out.get(from..).unwrap_or_default());
        out.put_be(crc.to_be_bytes());
        out.put_be(MAGIC);
    }

    /// Decodes exactly [`TRAILER_BYTES`] bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        const WHAT: &str = "object trailer";
        if bytes.len() != TRAILER_BYTES {
            return Err(FormatError::Truncated { what: WHAT });
        }
        if !bytes.ends_with(&MAGIC) {
            return Err(FormatError::Magic { what: WHAT });
        }
        let mut cursor = Cursor::new(bytes, WHAT);
        let version = cursor.u16()?;
        let checked = bytes.get(..TRAILER_BYTES - 12).unwrap_or_default();
        let mut at_crc = Cursor::new(bytes.get(TRAILER_BYTES - 12..).unwrap_or_default(), WHAT);
        if at_crc.u32()? != crc32c::crc32c(checked) {
            return Err(FormatError::Checksum { what: WHAT });
        }
        if version != VERSION {
            return Err(FormatError::Version { what: WHAT, version });
        }
        let _flags = cursor.u16()?;
        let trailer = Self {
            base: cursor.i64()?,
            end: cursor.i64()?,
            data_length: cursor.u64()?,
            directory_position: cursor.u64()?,
            directory_length: cursor.u32()?,
            directory_crc: cursor.u32()?,
        };
        if trailer.base < 0 || trailer.end <= trailer.base {
            return Err(FormatError::Invalid { what: WHAT });
        }
        Ok(trailer)
    }
}
