//! The 61 byte header of a magic-2 batch, and the walk over consecutive batches.
//!
//! Layout (big endian): base offset i64, length i32 (of what follows it), partition leader epoch i32,
//! magic i8, CRC-32C u32 (over everything from attributes on), attributes i16, last offset delta i32,
//! base timestamp i64, max timestamp i64, producer id i64, producer epoch i16, base sequence i32, record
//! count i32, then the records.

use super::codec::Codec;
use super::error::BatchError;
use crate::ids::{LeaderEpoch, Millis, Offset};

/// Size of the batch header, in bytes.
pub const HEADER_LEN: usize = 61;
/// Size of base offset and length, which the length field does not count, in bytes.
pub const LENGTH_PREFIX: usize = 12;
/// Producer id of a batch from a producer that is not idempotent.
pub const NO_PRODUCER_ID: i64 = -1;
/// Producer epoch that goes with [`NO_PRODUCER_ID`].
pub const NO_PRODUCER_EPOCH: i16 = -1;
/// Base sequence that goes with [`NO_PRODUCER_ID`].
pub const NO_SEQUENCE: i32 = -1;
/// The timestamp of a record that has none.
pub const NO_TIMESTAMP: Millis = -1;

pub(super) const AT_LENGTH: usize = 8;
pub(super) const AT_LEADER_EPOCH: usize = 12;
pub(super) const AT_MAGIC: usize = 16;
pub(super) const AT_CRC: usize = 17;
pub(super) const AT_ATTRIBUTES: usize = 21;
pub(super) const AT_MAX_TIMESTAMP: usize = 35;
pub(super) const AT_PRODUCER_ID: usize = 43;

pub(super) const CODEC_MASK: i16 = 0b111;
pub(super) const LOG_APPEND_TIME: i16 = 1 << 3;
pub(super) const TRANSACTIONAL: i16 = 1 << 4;
pub(super) const CONTROL: i16 = 1 << 5;
pub(super) const DELETE_HORIZON: i16 = 1 << 6;

/// Who set the timestamps of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TimestampType {
    /// The producer, one per record.
    #[default]
    CreateTime,
    /// The broker, one for the batch (its max timestamp).
    LogAppendTime,
}

/// The header of a batch, all fields as they stand in the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Bytes after the length field itself; at least 49.
    pub length: i32,
    /// Epoch of the leader that appended the batch; -1 from a producer.
    pub leader_epoch: LeaderEpoch,
    /// Message format; always 2 in a parsed header.
    pub magic: i8,
    /// CRC-32C over everything from `attributes` on.
    pub crc: u32,
    /// Codec, timestamp type and flags.
    pub attributes: i16,
    /// Offset of the last record less `base_offset`. Compaction may drop records but keeps it.
    pub last_offset_delta: i32,
    /// Timestamp the records' deltas count from (or the delete horizon), Unix ms.
    pub base_timestamp: Millis,
    /// Largest timestamp of the batch, Unix ms.
    pub max_timestamp: Millis,
    /// Producer id, or [`NO_PRODUCER_ID`].
    pub producer_id: i64,
    /// Producer epoch, or [`NO_PRODUCER_EPOCH`].
    pub producer_epoch: i16,
    /// Sequence of the first record, or [`NO_SEQUENCE`].
    pub base_sequence: i32,
    /// Number of records.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`. The body need not be there, and nothing beyond the
    /// length and the magic is judged.
    ///
    /// # Errors
    /// [`BatchError::Truncated`], [`BatchError::Length`] or [`BatchError::Magic`].
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        // The magic sits at the same place in all formats; judge it first, so that an old, shorter
        // message set is named for what it is.
        if let Some(&magic) = bytes.get(AT_MAGIC)
            && magic != 2
        {
            return Err(BatchError::Magic(magic.cast_signed()));
        }
        let Some(head) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(BatchError::Truncated { need: HEADER_LEN, have: bytes.len() });
        };
        let header = Self::from_array(head);
        if header.length < (HEADER_LEN - LENGTH_PREFIX) as i32 {
            return Err(BatchError::Length(header.length));
        }
        Ok(header)
    }

    fn from_array(head: &[u8; HEADER_LEN]) -> Self {
        Self {
            base_offset: i64::from_be_bytes(field(head, 0)),
            length: i32::from_be_bytes(field(head, AT_LENGTH)),
            leader_epoch: i32::from_be_bytes(field(head, AT_LEADER_EPOCH)),
            magic: i8::from_be_bytes(field(head, AT_MAGIC)),
            crc: u32::from_be_bytes(field(head, AT_CRC)),
            attributes: i16::from_be_bytes(field(head, AT_ATTRIBUTES)),
            last_offset_delta: i32::from_be_bytes(field(head, 23)),
            base_timestamp: i64::from_be_bytes(field(head, 27)),
            max_timestamp: i64::from_be_bytes(field(head, AT_MAX_TIMESTAMP)),
            producer_id: i64::from_be_bytes(field(head, AT_PRODUCER_ID)),
            producer_epoch: i16::from_be_bytes(field(head, 51)),
            base_sequence: i32::from_be_bytes(field(head, 53)),
            record_count: i32::from_be_bytes(field(head, 57)),
        }
    }

    /// The header's bytes, all fields as they stand.
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&self.base_offset.to_be_bytes());
        put(&self.length.to_be_bytes());
        put(&self.leader_epoch.to_be_bytes());
        put(&self.magic.to_be_bytes());
        put(&self.crc.to_be_bytes());
        put(&self.attributes.to_be_bytes());
        put(&self.last_offset_delta.to_be_bytes());
        put(&self.base_timestamp.to_be_bytes());
        put(&self.max_timestamp.to_be_bytes());
        put(&self.producer_id.to_be_bytes());
        put(&self.producer_epoch.to_be_bytes());
        put(&self.base_sequence.to_be_bytes());
        put(&self.record_count.to_be_bytes());
        out
    }

    /// Size of the whole batch with its header, in bytes.
    pub fn size(&self) -> usize {
        // `parse` refuses negative lengths; a hand-made header with one counts as empty.
        LENGTH_PREFIX + usize::try_from(self.length).unwrap_or(0)
    }

    /// Offset of the last record, inclusive. Saturates rather than overflows on a hostile header.
    pub fn last_offset(&self) -> Offset {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// Offset after the last record.
    pub fn next_offset(&self) -> Offset {
        self.last_offset().saturating_add(1)
    }

    /// The codec of the records.
    ///
    /// # Errors
    /// [`BatchError::UnknownCodec`] for the numbers 5, 6 and 7.
    pub fn codec(&self) -> Result<Codec, BatchError> {
        Codec::from_number((self.attributes & CODEC_MASK) as u8)
    }

    /// Who set the timestamps.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & LOG_APPEND_TIME == 0 { TimestampType::CreateTime } else { TimestampType::LogAppendTime }
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether the batch holds a broker's control record rather than data.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// When tombstones of this compacted batch may go, Unix ms, if the cleaner stamped it (KIP-534).
    pub fn delete_horizon(&self) -> Option<Millis> {
        (self.attributes & DELETE_HORIZON != 0).then_some(self.base_timestamp)
    }

    /// Whether an idempotent or transactional producer wrote it.
    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// Sequence of the last record, or [`NO_SEQUENCE`] without one.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence == NO_SEQUENCE {
            NO_SEQUENCE
        } else {
            add_sequence(self.base_sequence, self.last_offset_delta)
        }
    }
}

/// `sequence + by` in the producer's sequence space, which wraps from `i32::MAX` to 0. Both are taken as
/// non-negative.
pub fn add_sequence(sequence: i32, by: i32) -> i32 {
    ((i64::from(sequence) + i64::from(by)) & i64::from(i32::MAX)) as i32
}

/// The `N` bytes at `at`; callers pass constants inside the header.
fn field<const N: usize>(head: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&head[at..at + N]);
    out
}

/// One whole batch inside a larger slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchRef<'a> {
    /// Its header.
    pub header: BatchHeader,
    /// All its bytes, header included; as long as `header.size()`.
    pub bytes: &'a [u8],
}

impl<'a> BatchRef<'a> {
    /// Takes the batch at the start of `bytes`; what follows it is left alone.
    ///
    /// # Errors
    /// As [`BatchHeader::parse`], and [`BatchError::Truncated`] when the body is not all there.
    pub fn first(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        match bytes.get(..header.size()) {
            Some(bytes) => Ok(Self { header, bytes }),
            None => Err(BatchError::Truncated { need: header.size(), have: bytes.len() }),
        }
    }

    /// The records' bytes, compressed or not.
    pub fn body(&self) -> &'a [u8] {
        self.bytes.get(HEADER_LEN..).unwrap_or_default()
    }

    /// CRC-32C over what the header's `crc` covers.
    pub fn compute_crc(&self) -> u32 {
        crc32c::crc32c(self.bytes.get(AT_ATTRIBUTES..).unwrap_or_default())
    }
}

/// Walks the consecutive batches in `bytes`; see [`Batches`].
pub fn batches(bytes: &[u8]) -> Batches<'_> {
    Batches { rest: bytes, position: 0, failed: false }
}

/// Iterator over consecutive batches. Yields an error once and then ends: a cut tail as
/// [`BatchError::Truncated`] (of a Fetch response, simply stop there), anything else as what it is.
#[derive(Debug, Clone)]
pub struct Batches<'a> {
    rest: &'a [u8],
    position: usize,
    failed: bool,
}

impl<'a> Batches<'a> {
    /// Byte position of the next batch, which is also the number of good bytes so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The bytes not yet walked.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<BatchRef<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.rest.is_empty() {
            return None;
        }
        let batch = BatchRef::first(self.rest);
        match &batch {
            Ok(batch) => {
                let (_, rest) = self.rest.split_at(batch.bytes.len());
                self.rest = rest;
                self.position += batch.bytes.len();
            }
            Err(_) => self.failed = true,
        }
        Some(batch)
    }
}
