//! What a broker checks before it appends a batch.
//!
//! The rules are those of Kafka's log validator. Where Kafka repairs silently, so does [`BatchInfo`] tell what
//! to repair (a wrong max timestamp). Where Kafka is lax by accident, Firn is strict: offset deltas of
//! uncompressed records and reserved attribute bits are checked as well.

use super::codec::Codec;
use super::error::{BatchError, RecordFault};
use super::header::{
    BatchHeader, BatchRef, CODEC_MASK, CONTROL, DELETE_HORIZON, LOG_APPEND_TIME, NO_PRODUCER_ID, NO_SEQUENCE,
    NO_TIMESTAMP, TRANSACTIONAL, TimestampType, add_sequence,
};
use super::walk::{Fields, walk};
use crate::ids::{LeaderEpoch, Millis, Offset};

/// Uncompressed bytes a batch may have unless told otherwise: 256 MiB. Validation streams, so this bounds
/// time rather than memory.
pub const DEFAULT_MAX_UNCOMPRESSED: usize = 256 << 20;

/// What a topic allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest batch with its header, as sent (inclusive, bytes): `max.message.bytes`.
    pub max_batch_bytes: usize,
    /// Largest size of the records once decompressed (inclusive, bytes).
    pub max_uncompressed_bytes: usize,
    /// Earliest and latest timestamp a producer may set (inclusive, Unix ms); `None` for topics with
    /// `LogAppendTime`, where the broker sets them.
    pub timestamps: Option<(Millis, Millis)>,
    /// Whether each record needs a key (`cleanup.policy` has `compact`).
    pub needs_key: bool,
    /// Whether zstd may be used: not by Produce below version 7.
    pub zstd: bool,
}

impl Default for Limits {
    /// Any timestamp, any key, batches of Kafka's default size.
    fn default() -> Self {
        Self {
            max_batch_bytes: 1_048_588,
            max_uncompressed_bytes: DEFAULT_MAX_UNCOMPRESSED,
            timestamps: Some((Millis::MIN, Millis::MAX)),
            needs_key: false,
            zstd: true,
        }
    }
}

impl Limits {
    /// The range `now - before ..= now + after` that `message.timestamp.before.max.ms` and
    /// `message.timestamp.after.max.ms` draw.
    pub fn timestamp_range(now: Millis, before_max_ms: i64, after_max_ms: i64) -> (Millis, Millis) {
        (now.saturating_sub(before_max_ms), now.saturating_add(after_max_ms))
    }
}

/// What a log needs to know of a batch it appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchInfo {
    /// Bytes of the whole batch.
    pub size: usize,
    /// As found: 0 from a producer, the real one from a leader.
    pub base_offset: Offset,
    /// As found: -1 from a producer, the real one from a leader.
    pub leader_epoch: LeaderEpoch,
    /// Offsets the batch takes, less one.
    pub last_offset_delta: i32,
    /// Number of records.
    pub record_count: i32,
    /// Codec of the records.
    pub codec: Codec,
    /// Who set the timestamps.
    pub timestamp_type: TimestampType,
    /// Whether it belongs to a transaction.
    pub transactional: bool,
    /// Whether it holds a control record.
    pub control: bool,
    /// Producer id, or [`NO_PRODUCER_ID`].
    pub producer_id: i64,
    /// Producer epoch, or -1.
    pub producer_epoch: i16,
    /// Sequence of the first record, or -1.
    pub base_sequence: i32,
    /// Timestamp of the first record, Unix ms.
    pub base_timestamp: Millis,
    /// Largest timestamp of the records, Unix ms. From [`validate()`] it is the true one.
    pub max_timestamp: Millis,
    /// The header claims another max timestamp: pass `max_timestamp` to
    /// [`set_max_timestamp`](super::set_max_timestamp) before appending.
    pub fix_max_timestamp: bool,
}

impl BatchInfo {
    fn from_header(header: &BatchHeader, codec: Codec) -> Self {
        Self {
            size: header.size(),
            base_offset: header.base_offset,
            leader_epoch: header.leader_epoch,
            last_offset_delta: header.last_offset_delta,
            record_count: header.record_count,
            codec,
            timestamp_type: header.timestamp_type(),
            transactional: header.is_transactional(),
            control: header.is_control(),
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            base_timestamp: header.base_timestamp,
            max_timestamp: header.max_timestamp,
            fix_max_timestamp: false,
        }
    }

    /// Whether an idempotent or transactional producer wrote it.
    pub fn has_producer_id(&self) -> bool {
        self.producer_id != NO_PRODUCER_ID
    }

    /// Sequence of the last record, or -1 without one.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence == NO_SEQUENCE {
            NO_SEQUENCE
        } else {
            add_sequence(self.base_sequence, self.last_offset_delta)
        }
    }

    /// Offset of the last record, inclusive, as found.
    pub fn last_offset(&self) -> Offset {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }
}

/// Checks the one batch in `batch` from a leader or from disk: sizes, magic, CRC, and that the header's
/// numbers are possible. Records are not looked at.
///
/// # Errors
/// [`BatchError::Trailing`] when more than the batch is there, and whatever is wrong with it.
pub fn check(batch: &[u8]) -> Result<BatchInfo, BatchError> {
    let batch = only(batch)?;
    check_crc(&batch)?;
    let header = &batch.header;
    if header.last_offset_delta < 0 || header.record_count < 0 {
        return Err(count(header));
    }
    Ok(BatchInfo::from_header(header, header.codec()?))
}

/// Checks the `records` field of one partition in a Produce request: exactly one batch, as
/// [`validate`] wants it.
///
/// # Errors
/// [`BatchError::Empty`], [`BatchError::ManyBatches`], [`BatchError::BaseOffset`], or as [`validate`].
pub fn validate_produce(records: &[u8], limits: &Limits) -> Result<BatchInfo, BatchError> {
    if records.is_empty() {
        return Err(BatchError::Empty);
    }
    let batch = BatchRef::first(records)?;
    if let Some(rest) = records.get(batch.bytes.len()..)
        && !rest.is_empty()
    {
        return Err(match BatchRef::first(rest) {
            Ok(_) => BatchError::ManyBatches,
            Err(_) => BatchError::Trailing(rest.len()),
        });
    }
    if batch.header.base_offset != 0 {
        return Err(BatchError::BaseOffset(batch.header.base_offset));
    }
    validate(records, limits)
}

/// Checks the one batch in `batch` as it comes from a client: header, CRC, and every record in it.
/// Compressed records are decompressed through a small window. Nothing is allocated for uncompressed ones.
///
/// # Errors
/// The first thing wrong, judged in Kafka's order: size, CRC, header, records.
pub fn validate(batch: &[u8], limits: &Limits) -> Result<BatchInfo, BatchError> {
    let batch = only(batch)?;
    if batch.bytes.len() > limits.max_batch_bytes {
        return Err(BatchError::TooLarge { size: batch.bytes.len(), max: limits.max_batch_bytes });
    }
    check_crc(&batch)?;
    let codec = check_header(&batch.header, limits)?;
    let max = check_records(&batch, limits)?;
    let mut info = BatchInfo::from_header(&batch.header, codec);
    info.fix_max_timestamp = max != info.max_timestamp;
    info.max_timestamp = max;
    Ok(info)
}

fn only(bytes: &[u8]) -> Result<BatchRef<'_>, BatchError> {
    let batch = BatchRef::first(bytes)?;
    match bytes.len() - batch.bytes.len() {
        0 => Ok(batch),
        more => Err(BatchError::Trailing(more)),
    }
}

fn check_crc(batch: &BatchRef<'_>) -> Result<(), BatchError> {
    let (stored, computed) = (batch.header.crc, batch.compute_crc());
    if stored != computed {
        return Err(BatchError::Crc { stored, computed });
    }
    Ok(())
}

fn count(header: &BatchHeader) -> BatchError {
    BatchError::Count { count: header.record_count, last_offset_delta: header.last_offset_delta }
}

const KNOWN_ATTRIBUTES: i16 = CODEC_MASK | LOG_APPEND_TIME | TRANSACTIONAL | CONTROL | DELETE_HORIZON;

fn check_header(header: &BatchHeader, limits: &Limits) -> Result<Codec, BatchError> {
    if header.record_count <= 0 || header.last_offset_delta.checked_add(1) != Some(header.record_count) {
        return Err(count(header));
    }
    if header.is_control() {
        return Err(BatchError::Control);
    }
    // The delete horizon is the cleaner's stamp: it would give the base timestamp another meaning.
    if header.attributes & (!KNOWN_ATTRIBUTES | DELETE_HORIZON) != 0 {
        return Err(BatchError::Attributes(header.attributes));
    }
    if header.timestamp_type() == TimestampType::LogAppendTime {
        return Err(BatchError::TimestampType);
    }
    let codec = header.codec()?;
    if codec == Codec::Zstd && !limits.zstd {
        return Err(BatchError::CodecNotAllowed(codec));
    }
    check_producer(header)?;
    Ok(codec)
}

/// An idempotent producer sends id, epoch and sequence; any other sends none of them, and has no transaction.
fn check_producer(header: &BatchHeader) -> Result<(), BatchError> {
    let fits = if header.producer_id == NO_PRODUCER_ID {
        !header.is_transactional()
    } else {
        header.producer_id >= 0 && header.producer_epoch >= 0 && header.base_sequence >= 0
    };
    if fits {
        return Ok(());
    }
    Err(BatchError::Producer { id: header.producer_id, epoch: header.producer_epoch, sequence: header.base_sequence })
}

/// The records that `limits` refuse, in order and at most `most` of them: a Produce answer names them all
/// (`record_errors`), where [`validate`] stops at the first. The batch must be well-formed apart from them; the list
/// ends where it is not.
pub fn refused_records(batch: &[u8], limits: &Limits, most: usize) -> Vec<BatchError> {
    let mut refused = Vec::new();
    let Ok(batch) = only(batch) else { return refused };
    let walked = walk(&batch, limits.max_uncompressed_bytes, |record| match judge(&record, &batch.header, limits) {
        Ok(_) => Ok(()),
        Err(error) if refused.len() < most => {
            refused.push(error);
            Ok(())
        }
        Err(error) => Err(error),
    });
    // Why the walk ended was told by whoever validated the batch.
    drop(walked);
    refused
}

/// Walks the records; the largest timestamp among them.
fn check_records(batch: &BatchRef<'_>, limits: &Limits) -> Result<Millis, BatchError> {
    let mut largest = NO_TIMESTAMP;
    walk(batch, limits.max_uncompressed_bytes, |record| {
        largest = largest.max(judge(&record, &batch.header, limits)?);
        Ok(())
    })?;
    Ok(largest)
}

/// Whether one record may be in the batch; its timestamp.
#[inline]
fn judge(record: &Fields, header: &BatchHeader, limits: &Limits) -> Result<Millis, BatchError> {
    let index = record.index;
    let fault = |why| BatchError::Record { index, why };
    if record.offset_delta.cast_unsigned() != index {
        return Err(fault(RecordFault::OffsetDelta));
    }
    let timestamp = header.base_timestamp.checked_add(record.timestamp_delta).ok_or(fault(RecordFault::Timestamp))?;
    if let Some((min, max)) = limits.timestamps
        && timestamp != NO_TIMESTAMP
        && !(min..=max).contains(&timestamp)
    {
        return Err(BatchError::Timestamp { index, timestamp, min, max });
    }
    if limits.needs_key && !record.has_key {
        return Err(BatchError::NoKey(index));
    }
    Ok(timestamp)
}
