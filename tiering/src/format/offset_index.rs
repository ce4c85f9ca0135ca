//! Section: where batches begin, about one for every 16 KiB of data.

use proto::ids::Offset;

use super::FormatError;
use super::cursor::{Cursor, Put, add, add_u64};

const WHAT: &str = "offset index section";

/// Bytes of data between two entries, at least.
pub const INDEX_INTERVAL_BYTES: u64 = 16 * 1024;

/// Base offset of a batch and its byte position from the start of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetIndexEntry {
    /// Base offset of the batch.
    pub offset: Offset,
    /// First byte of the batch.
    pub position: u64,
}

/// Sparse, ascending in both fields; the first entry is the first batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OffsetIndex {
    /// The entries.
    pub entries: Vec<OffsetIndexEntry>,
}

impl OffsetIndex {
    /// The last entry at or before `offset`: from its position on one finds the batch with `offset`.
    /// None if `offset` lies before the first batch.
    pub fn floor(&self, offset: Offset) -> Option<OffsetIndexEntry> {
        let after = self.entries.partition_point(|entry| entry.offset <= offset);
        self.entries.get(after.checked_sub(1)?).copied()
    }

    /// The first entry behind `position`: data up to its position holds whole batches only.
    pub fn ceiling_position(&self, position: u64) -> Option<OffsetIndexEntry> {
        let at = self.entries.partition_point(|entry| entry.position <= position);
        self.entries.get(at).copied()
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.entries.len() as u64);
        let (mut offset, mut position) = (0, 0);
        for entry in &self.entries {
            out.put_varint((entry.offset - offset) as u64);
            out.put_varint(entry.position - position);
            (offset, position) = (entry.offset, entry.position);
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new(bytes, WHAT);
        let count = cursor.count(2)?;
        let mut entries: Vec<OffsetIndexEntry> = Vec::with_capacity(count);
        let (mut offset, mut position) = (0i64, 0u64);
        for _ in 0..count {
            let delta = i64::try_from(cursor.varint()?).map_err(|_| cursor.invalid())?;
            let bytes = cursor.varint()?;
            if !entries.is_empty() && (delta == 0 || bytes == 0) {
                return Err(cursor.invalid());
            }
            offset = add(offset, delta, WHAT)?;
            position = add_u64(position, bytes, WHAT)?;
            entries.push(OffsetIndexEntry { offset, position });
        }
        cursor.finish()?;
        Ok(Self { entries })
    }
}
