//! The sparse index of one segment: some batches' offsets, positions and times.
//!
//! One entry serves both look-ups: its time is the greatest of all batches up to and including its own, so
//! that times ascend as offsets do. At most [`MAX_ENTRIES`] per segment are kept, the interval grows with
//! the segment: memory stays in proportion to the number of segments, not of bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use proto::ids::{Millis, Offset};

use super::snapshot::FormatError;

/// Entries a segment has at most; reaching it, every other one is dropped and the interval doubled.
pub const MAX_ENTRIES: usize = 8192;

const MAGIC: &[u8; 8] = b"FIRNIDX1";
const ENTRY_BYTES: usize = 24;

/// A batch that can be found directly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// Its base offset.
    pub offset: Offset,
    /// Its first byte in the segment.
    pub position: u64,
    /// Greatest timestamp in the segment up to and including this batch, -1 if there is none.
    pub timestamp: Millis,
}

/// The index of a segment that grows at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SparseIndex {
    interval_bytes: u64,
    entries: Vec<IndexEntry>,
}

impl SparseIndex {
    /// An empty index with an entry about every `interval_bytes`.
    pub const fn new(interval_bytes: u64) -> Self {
        Self { interval_bytes, entries: Vec::new() }
    }

    /// Considers the batch at `entry.position`; it gets an entry if the last one is far enough back.
    pub fn offer(&mut self, entry: IndexEntry) {
        let due = match self.entries.last() {
            None => true,
            Some(last) => entry.position >= last.position.saturating_add(self.interval_bytes),
        };
        if !due {
            return;
        }
        if self.entries.len() >= MAX_ENTRIES {
            let mut at = 0;
            self.entries.retain(|_| {
                at += 1;
                at % 2 == 1
            });
            self.interval_bytes = self.interval_bytes.max(1).saturating_mul(2);
        }
        self.entries.push(entry);
    }

    /// Where to begin reading to find the batch that holds `offset`: the last known position at or
    /// before it, 0 if none is known.
    pub fn floor(&self, offset: Offset) -> u64 {
        let next = self.entries.partition_point(|entry| entry.offset <= offset);
        next.checked_sub(1).and_then(|at| self.entries.get(at)).map_or(0, |entry| entry.position)
    }

    /// The last entry at or before `offset`: (offset, position).
    pub fn floor_entry(&self, offset: Offset) -> Option<(Offset, u64)> {
        let next = self.entries.partition_point(|entry| entry.offset <= offset);
        let entry = self.entries.get(next.checked_sub(1)?)?;
        Some((entry.offset, entry.position))
    }

    /// An offset before which no batch has a timestamp at or above `timestamp`; none if the segment's start is
    /// all that is known.
    pub fn offset_before_time(&self, timestamp: Millis) -> Option<Offset> {
        let next = self.entries.partition_point(|entry| entry.timestamp < timestamp);
        self.entries.get(next.checked_sub(1)?).map(|entry| entry.offset)
    }

    /// The last entry before `offset`: its offset, and the greatest timestamp of the batches up to it, itself included.
    pub fn max_timestamp_before(&self, offset: Offset) -> Option<(Offset, Millis)> {
        let next = self.entries.partition_point(|entry| entry.offset < offset);
        self.entries.get(next.checked_sub(1)?).map(|entry| (entry.offset, entry.timestamp))
    }

    /// Forgets batches at or above `end`.
    pub fn truncate(&mut self, end: Offset) {
        self.entries.retain(|entry| entry.offset < end);
    }

    /// All entries, ascending.
    pub fn entries(&self) -> &[IndexEntry] {
        &self.entries
    }

    /// Gives back memory that growing left unused.
    pub fn shrink(&mut self) {
        self.entries.shrink_to_fit();
    }
}

/// What is written beside a segment when it is rolled, so that opening it needs no scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentSummary {
    /// First offset, inclusive; part of the names.
    pub base: Offset,
    /// End, exclusive.
    pub end: Offset,
    /// Length of the segment file in bytes.
    pub bytes: u64,
    /// Greatest timestamp in it, -1 if none.
    pub max_timestamp: Millis,
    /// Base offset of the batch that has it, `base` if none has.
    pub max_timestamp_offset: Offset,
    /// When the last batch was appended, by this broker's clock.
    pub last_append_ms: Millis,
    /// Its index.
    pub index: SparseIndex,
}

impl SegmentSummary {
    /// The contents of an index file: magic, seven fixed fields, entries, CRC-32C of all before it.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(80 + self.index.entries.len() * ENTRY_BYTES);
        out.put_slice(MAGIC);
        out.put_i64(self.base);
        out.put_i64(self.end);
        out.put_u64(self.bytes);
        out.put_i64(self.max_timestamp);
        out.put_i64(self.max_timestamp_offset);
        out.put_i64(self.last_append_ms);
        out.put_u64(self.index.interval_bytes);
        out.put_u32(u32::try_from(self.index.entries.len()).unwrap_or(u32::MAX));
        for entry in &self.index.entries {
            out.put_i64(entry.offset);
            out.put_u64(entry.position);
            out.put_i64(entry.timestamp);
        }
        out.put_u32(crc32c::crc32c(&out));
        out.freeze()
    }

    /// Reads what [`SegmentSummary::encode`] wrote.
    ///
    /// # Errors
    /// Anything that differs; the segment is then scanned instead.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut body, crc) = bytes.split_last_chunk::<4>().ok_or(FormatError::Truncated)?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
            return Err(FormatError::Crc);
        }
        body = body.strip_prefix(MAGIC.as_slice()).ok_or(FormatError::Magic)?;
        let base = body.try_get_i64()?;
        let end = body.try_get_i64()?;
        let bytes = body.try_get_u64()?;
        let max_timestamp = body.try_get_i64()?;
        let max_timestamp_offset = body.try_get_i64()?;
        let last_append_ms = body.try_get_i64()?;
        let interval_bytes = body.try_get_u64()?;
        let count = body.try_get_u32()? as usize;
        if body.len() != count.saturating_mul(ENTRY_BYTES) {
            return Err(FormatError::Invalid("index entries"));
        }
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            entries.push(IndexEntry {
                offset: body.try_get_i64()?,
                position: body.try_get_u64()?,
                timestamp: body.try_get_i64()?,
            });
        }
        let ascending = entries
            .iter()
            .zip(entries.iter().skip(1))
            .all(|(a, b)| a.offset < b.offset && a.position < b.position && a.timestamp <= b.timestamp);
        let inside = entries.iter().all(|e| (base..end).contains(&e.offset) && e.position < bytes);
        if !ascending || !inside || base < 0 || end < base {
            return Err(FormatError::Invalid("index order"));
        }
        let index = SparseIndex { interval_bytes, entries };
        Ok(Self { base, end, bytes, max_timestamp, max_timestamp_offset, last_append_ms, index })
    }
}

#[cfg(test)]
#[path = "index/tests.rs"]
mod tests;
