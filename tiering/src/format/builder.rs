//! Builds an object from the batches of a range, in one pass and without copying them.

use bytes::Bytes;
use proto::ids::{Millis, Offset};
use proto::metadata::TierPoint;

use super::batch::BatchFrame;
use super::{
    AbortedTxn, CHECKSUM_CHUNK_BYTES, Checksums, EpochHistory, Footer, FormatError, INDEX_INTERVAL_BYTES, OffsetIndex,
    OffsetIndexEntry, TimeIndex, TimeIndexEntry,
};

/// Why a range could not become an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// Bytes from the log that are not whole batches.
    #[error("reading the log: {0}")]
    Format(#[from] FormatError),
    /// The log returned a batch that does not follow on the one before.
    #[error("reading the log: expected a batch at or after offset {expected}, got {got}")]
    Order {
        /// End of the batch before.
        expected: Offset,
        /// Base offset found.
        got: Offset,
    },
    /// No batch at all.
    #[error("reading the log: no batch in the range")]
    Empty,
}

/// Takes whole batches in order; the data stays in the chunks it came in.
#[derive(Debug)]
pub struct ObjectBuilder {
    base: Offset,
    end: Offset,
    chunks: Vec<Bytes>,
    data_length: u64,
    offset_index: OffsetIndex,
    time_index: TimeIndex,
    max_timestamp: Millis,
    last_indexed: u64,
    checksums: Vec<u32>,
    /// CRC of the unfinished chunk and how many bytes it covers.
    open_crc: (u32, u32),
}

/// A finished object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// First offset. Inclusive.
    pub base: Offset,
    /// First offset after the last batch. Exclusive.
    pub end: Offset,
    /// Greatest timestamp, -1 if there is none.
    pub max_timestamp: Millis,
    /// Bytes of record batches: where the footer begins.
    pub data_length: u64,
    /// The footer, decoded.
    pub footer: Footer,
    /// Everything to upload, in order: data, then footer.
    pub chunks: Vec<Bytes>,
    /// Length of all chunks.
    pub length: u64,
}

impl ObjectBuilder {
    /// An object whose range begins at `base`. The first batch may begin later (compacted logs have
    /// gaps), or earlier if it holds `base`: DeleteRecords cuts anywhere, and nobody asks for what is below.
    pub const fn new(base: Offset) -> Self {
        Self {
            base,
            end: base,
            chunks: Vec::new(),
            data_length: 0,
            offset_index: OffsetIndex { entries: Vec::new() },
            time_index: TimeIndex { entries: Vec::new() },
            max_timestamp: -1,
            last_indexed: 0,
            checksums: Vec::new(),
            open_crc: (0, 0),
        }
    }

    /// Takes as many whole batches of `chunk` as end at or below `to` and keep the data within
    /// `max_bytes` (the first batch of the object is taken whatever its size). Returns the bytes taken:
    /// less than the chunk's length means that the object is full or reached `to`.
    ///
    /// # Errors
    /// [`BuildError`] if the chunk is not a row of whole batches in order.
    pub fn push(&mut self, chunk: &Bytes, to: Offset, max_bytes: u64) -> Result<usize, BuildError> {
        let mut taken = 0;
        while let Some(rest) = chunk.get(taken..).filter(|rest| !rest.is_empty()) {
            let frame = BatchFrame::parse(rest)?;
            let cut = self.data_length == 0 && frame.end > self.base;
            if frame.base < self.end && !cut {
                return Err(BuildError::Order { expected: self.end, got: frame.base });
            }
            let full = self.data_length > 0 && self.data_length + frame.length as u64 > max_bytes;
            if frame.end > to || full {
                break;
            }
            self.index(&frame);
            self.data_length += frame.length as u64;
            self.end = frame.end;
            taken += frame.length;
        }
        if taken > 0 {
            let data = chunk.slice(..taken);
            self.checksum(&data);
            self.chunks.push(data);
        }
        Ok(taken)
    }

    /// First offset of the object.
    pub const fn base(&self) -> Offset {
        self.base
    }

    /// First offset not in the object yet.
    pub const fn end(&self) -> Offset {
        self.end
    }

    /// Bytes of data so far.
    pub const fn data_length(&self) -> u64 {
        self.data_length
    }

    /// Ends the object. `epochs` and `producers` are the log's as of [`end`](Self::end); `aborted` are
    /// the aborted transactions that overlap the range.
    pub fn seal(
        mut self,
        epochs: EpochHistory,
        mut aborted: Vec<AbortedTxn>,
        producers: Bytes,
    ) -> Result<Sealed, BuildError> {
        if self.data_length == 0 {
            return Err(BuildError::Empty);
        }
        if self.open_crc.1 > 0 {
            self.checksums.push(self.open_crc.0);
        }
        aborted.sort_unstable();
        let footer = Footer {
            base: self.base,
            end: self.end,
            data_length: self.data_length,
            offset_index: self.offset_index,
            time_index: self.time_index,
            epochs,
            aborted,
            producers,
            checksums: Checksums { chunk_bytes: CHECKSUM_CHUNK_BYTES, crcs: self.checksums },
        };
        let encoded = footer.encode();
        let length = self.data_length + encoded.len() as u64;
        self.chunks.push(encoded);
        Ok(Sealed {
            base: self.base,
            end: self.end,
            max_timestamp: self.max_timestamp,
            data_length: self.data_length,
            footer,
            chunks: self.chunks,
            length,
        })
    }

    fn index(&mut self, frame: &BatchFrame) {
        let position = self.data_length;
        if frame.max_timestamp > self.max_timestamp {
            self.max_timestamp = frame.max_timestamp;
        }
        let due = self.offset_index.entries.is_empty() || position - self.last_indexed >= INDEX_INTERVAL_BYTES;
        if !due {
            return;
        }
        self.last_indexed = position;
        let offset = frame.base.max(self.base);
        self.offset_index.entries.push(OffsetIndexEntry { offset, position });
        let risen = self.time_index.entries.last().is_none_or(|last| self.max_timestamp > last.timestamp);
        if risen && self.max_timestamp >= 0 {
            self.time_index.entries.push(TimeIndexEntry { timestamp: self.max_timestamp, offset });
        }
    }

    fn checksum(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let room = (CHECKSUM_CHUNK_BYTES - self.open_crc.1) as usize;
            let (part, rest) = data.split_at(room.min(data.len()));
            self.open_crc.0 = crc32c::crc32c_append(self.open_crc.0, part);
            self.open_crc.1 += part.len() as u32;
            if self.open_crc.1 == CHECKSUM_CHUNK_BYTES {
                self.checksums.push(self.open_crc.0);
                self.open_crc = (0, 0);
            }
            data = rest;
        }
    }
}

impl Sealed {
    /// Up to `max` points, evenly spread over the data, for a manifest entry.
    pub fn points(&self, max: usize) -> Vec<TierPoint> {
        let index = &self.footer.offset_index.entries;
        let step = index.len().div_ceil(max.max(1)).max(1);
        index
            .iter()
            .step_by(step)
            .map(|entry| TierPoint {
                offset: entry.offset,
                timestamp: self.footer.time_index.reached_at(entry.offset),
                position: entry.position,
            })
            .collect()
    }
}
