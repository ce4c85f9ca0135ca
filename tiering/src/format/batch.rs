//! The frame of a batch: all that the footer is built from. The batch itself was validated when it was
//! appended.

use proto::ids::{Millis, Offset};
use proto::records::BatchHeader;

use super::FormatError;

const WHAT: &str = "record batch";

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
        let invalid = FormatError::Invalid { what: WHAT };
        let header = BatchHeader::parse(bytes).map_err(|_| invalid)?;
        if header.size() > bytes.len() {
            return Err(FormatError::Truncated { what: WHAT });
        }
        if header.base_offset < 0 || header.last_offset_delta < 0 {
            return Err(invalid);
        }
        Ok(Self {
            base: header.base_offset,
            end: header.base_offset.checked_add(i64::from(header.last_offset_delta) + 1).ok_or(invalid)?,
            max_timestamp: header.max_timestamp,
            length: header.size(),
        })
    }
}
