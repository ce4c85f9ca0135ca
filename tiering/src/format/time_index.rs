//! Section: from which batch on timestamps become how great.

use proto::ids::{Millis, Offset};

use super::FormatError;
use super::cursor::{Cursor, Put, add};

const WHAT: &str = "time index section";

/// The greatest timestamp in the data up to and including the batch at `offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeIndexEntry {
    /// Greatest timestamp so far.
    pub timestamp: Millis,
    /// Base offset of an indexed batch: the maximum was reached in it or since the indexed batch before.
    pub offset: Offset,
}

/// Sparse; strictly ascending in both fields, because only a new maximum makes an entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TimeIndex {
    /// The entries.
    pub entries: Vec<TimeIndexEntry>,
}

impl TimeIndex {
    /// Offset from which to search for the first record with a timestamp at or after `timestamp`: no
    /// batch before it holds one. None if the search has to begin at the start of the range.
    pub fn search_from(&self, timestamp: Millis) -> Option<Offset> {
        let after = self.entries.partition_point(|entry| entry.timestamp < timestamp);
        self.entries.get(after.checked_sub(1)?).map(|entry| entry.offset)
    }

    /// The greatest timestamp in the data up to and including the last indexed batch at or before
    /// `offset`; -1 if none has one.
    pub fn reached_at(&self, offset: Offset) -> Millis {
        let after = self.entries.partition_point(|entry| entry.offset <= offset);
        after.checked_sub(1).and_then(|at| self.entries.get(at)).map_or(-1, |entry| entry.timestamp)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.entries.len() as u64);
        let (mut timestamp, mut offset) = (0, 0);
        for entry in &self.entries {
            out.put_zigzag(entry.timestamp.wrapping_sub(timestamp));
            out.put_varint((entry.offset - offset) as u64);
            (timestamp, offset) = (entry.timestamp, entry.offset);
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new(bytes, WHAT);
        let count = cursor.count(2)?;
        let mut entries: Vec<TimeIndexEntry> = Vec::with_capacity(count);
        let (mut timestamp, mut offset) = (0i64, 0i64);
        for _ in 0..count {
            let next = timestamp.wrapping_add(cursor.zigzag()?);
            let delta = i64::try_from(cursor.varint()?).map_err(|_| cursor.invalid())?;
            if !entries.is_empty() && (next <= timestamp || delta == 0) {
                return Err(cursor.invalid());
            }
            timestamp = next;
            offset = add(offset, delta, WHAT)?;
            entries.push(TimeIndexEntry { timestamp, offset });
        }
        cursor.finish()?;
        Ok(Self { entries })
    }
}
