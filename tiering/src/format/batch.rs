//! The few fields of a batch header that the footer is built from.
//!
//! The batch was validated when it was appended; here only its frame is read.

use super::FormatError;
use super::cursor::Cursor;
use proto::ids::{Millis, Offset};

const WHAT: &str = "record batch";
/// Bytes before and including the length field.
const FRAME_BYTES: usize = 12;
/// Bytes up to the end of the maximum timestamp.
const NEEDED_BYTES: usize = 43;

/// Frame of one magic-2 batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchFrame {
    pub(super) base: Offset,
    /// First offset after the batch.
    pub(super) end: Offset,
    pub(super) max_timestamp: Millis,
    /// Whole length in bytes.
    pub(super) length: usize,
}

impl BatchFrame {
    /// Reads the frame of the batch that `bytes` begins with; all of the batch must be there.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new(bytes, WHAT);
        let base = cursor.i64()?;
        let length = usize::try_from(cursor.i32()?).map_err(|_| cursor.invalid())? + FRAME_BYTES;
        if length < NEEDED_BYTES {
            return Err(cursor.invalid());
        }
        if length > bytes.len() {
            return Err(FormatError::Truncated { what: WHAT });
        }
        let _leader_epoch = cursor.i32()?;
        let magic = cursor.u8()?;
        let _crc = cursor.u32()?;
        let _attributes = cursor.u16()?;
        let last_offset_delta = i64::from(cursor.i32()?);
        let _base_timestamp = cursor.i64()?;
        let max_timestamp = cursor.i64()?;
        if magic != 2 || base < 0 || last_offset_delta < 0 {
            return Err(cursor.invalid());
        }
        Ok(Self { base, end: base.checked_add(last_offset_delta + 1).ok_or(cursor.invalid())?, max_timestamp, length })
    }
}
