//! New batches, and the same batch under another codec.

use bytes::Bytes;

use super::codec::{Codec, Compression, Limited, Reader};
use super::encode::{self, Bounded};
use super::error::BatchError;
use super::header::{
    AT_ATTRIBUTES, BatchHeader, BatchRef, CODEC_MASK, CONTROL, HEADER_LEN, LENGTH_PREFIX, LOG_APPEND_TIME,
    NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP, TRANSACTIONAL,
};
use super::validate::Limits;
use super::varint;
use crate::ids::{LeaderEpoch, Millis, Offset};

/// A record header to be written: key (UTF-8 by convention) and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Key.
    pub key: &'a [u8],
    /// Value, null or bytes.
    pub value: Option<&'a [u8]>,
}

/// Builds one batch record by record. Offsets count up from the base offset unless given.
///
/// ```
/// use proto::records::{BatchBuilder, Codec};
/// let mut batch = BatchBuilder::new().codec(Codec::Lz4);
/// batch.append(1_700_000_000_000, Some(b"key"), Some(b"value"), &[]);
/// let bytes = batch.build();
/// assert_eq!(bytes[16], 2);
/// ```
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    base_offset: Offset,
    leader_epoch: LeaderEpoch,
    compression: Compression,
    attributes: i16,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    base_timestamp: Option<Millis>,
    max_timestamp: Millis,
    next_delta: i32,
    count: i32,
    last_delta_at_least: i32,
    /// Room for the header, then the records.
    out: Vec<u8>,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    /// An empty batch at offset 0, uncompressed, from no particular producer.
    pub fn new() -> Self {
        Self {
            base_offset: 0,
            leader_epoch: -1,
            compression: Compression::default(),
            attributes: 0,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            base_sequence: NO_SEQUENCE,
            base_timestamp: None,
            max_timestamp: NO_TIMESTAMP,
            next_delta: 0,
            count: 0,
            last_delta_at_least: -1,
            out: vec![0; HEADER_LEN],
        }
    }

    /// Sets the offset of the first record. Call it before the first [`append_at`](Self::append_at).
    #[must_use]
    pub fn base_offset(mut self, offset: Offset) -> Self {
        self.base_offset = offset;
        self
    }

    /// Sets the epoch of the leader that appends it.
    #[must_use]
    pub fn leader_epoch(mut self, epoch: LeaderEpoch) -> Self {
        self.leader_epoch = epoch;
        self
    }

    /// Sets how the records are compressed, with or without a level.
    #[must_use]
    pub fn codec(mut self, compression: impl Into<Compression>) -> Self {
        self.compression = compression.into();
        self
    }

    /// Sets producer id, epoch and the sequence of the first record.
    #[must_use]
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.producer_id = id;
        self.producer_epoch = epoch;
        self.base_sequence = base_sequence;
        self
    }

    /// Marks it as part of a transaction.
    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.attributes |= TRANSACTIONAL;
        self
    }

    /// Marks it as a control batch.
    #[must_use]
    pub fn control(mut self) -> Self {
        self.attributes |= CONTROL;
        self
    }

    /// Gives all records the broker's time `now`, Unix ms.
    #[must_use]
    pub fn log_append_time(mut self, now: Millis) -> Self {
        self.attributes |= LOG_APPEND_TIME;
        self.max_timestamp = now;
        self
    }

    /// Makes the batch span offsets up to `last` (inclusive) even if its last records are gone, as
    /// compaction leaves it.
    #[must_use]
    pub fn last_offset_at_least(mut self, last: Offset) -> Self {
        self.last_delta_at_least = delta(self.base_offset, last);
        self
    }

    /// Appends a record at the next offset.
    pub fn append(&mut self, timestamp: Millis, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header<'_>]) {
        let delta = self.next_delta;
        self.append_delta(delta, timestamp, key, value, headers);
    }

    /// Appends a record at `offset`, which must not lie before the previous one's successor.
    ///
    /// # Panics
    /// If it does, or if it is further than `i32::MAX` from the base offset.
    pub fn append_at(
        &mut self,
        offset: Offset,
        timestamp: Millis,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) {
        let delta = delta(self.base_offset, offset);
        assert!(delta >= self.next_delta, "offset {offset} does not follow the last record");
        self.append_delta(delta, timestamp, key, value, headers);
    }

    fn append_delta(
        &mut self,
        delta: i32,
        timestamp: Millis,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) {
        let base = *self.base_timestamp.get_or_insert(timestamp);
        let timestamp_delta = timestamp.wrapping_sub(base);
        if self.attributes & LOG_APPEND_TIME == 0 {
            self.max_timestamp = self.max_timestamp.max(timestamp);
        }
        varint::put(&mut self.out, body_len(timestamp_delta, delta, key, value, headers) as i64);
        self.out.push(0);
        varint::put(&mut self.out, timestamp_delta);
        varint::put(&mut self.out, i64::from(delta));
        put_nullable(&mut self.out, key);
        put_nullable(&mut self.out, value);
        varint::put(&mut self.out, headers.len() as i64);
        for header in headers {
            put_nullable(&mut self.out, Some(header.key));
            put_nullable(&mut self.out, header.value);
        }
        self.next_delta = delta.saturating_add(1);
        self.count += 1;
    }

    /// Number of records so far.
    pub fn len(&self) -> usize {
        self.count.unsigned_abs() as usize
    }

    /// Whether no record was appended yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Size of the batch so far, before compression, in bytes.
    pub fn size(&self) -> usize {
        self.out.len()
    }

    /// What [`size`](Self::size) would be with one more record at the next offset.
    pub fn size_with(
        &self,
        timestamp: Millis,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> usize {
        let timestamp_delta = timestamp.wrapping_sub(self.base_timestamp.unwrap_or(timestamp));
        let body = body_len(timestamp_delta, self.next_delta, key, value, headers);
        self.size() + varint::len(body as i64) + body
    }

    /// Seals the batch.
    ///
    /// # Panics
    /// If an encoder fails on memory, which none does with a level from [`Compression`]'s range, or if the
    /// batch passes 2 GiB.
    pub fn build(mut self) -> Bytes {
        let attributes = self.attributes | i16::from(self.compression.codec.number());
        if self.compression.codec != Codec::None {
            let mut packed = Bounded::new(vec![0; HEADER_LEN], usize::MAX);
            let mut raw = &self.out[HEADER_LEN..];
            let size = raw.len() as u64;
            encode::compress(self.compression, &mut raw, Some(size), &mut packed)
                .expect("encoders that write to memory do not fail");
            self.out = packed.bytes;
        }
        let header = BatchHeader {
            base_offset: self.base_offset,
            length: 0,
            leader_epoch: self.leader_epoch,
            magic: 2,
            crc: 0,
            attributes,
            last_offset_delta: (self.next_delta - 1).max(self.last_delta_at_least),
            base_timestamp: self.base_timestamp.unwrap_or(NO_TIMESTAMP),
            max_timestamp: self.max_timestamp,
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            base_sequence: self.base_sequence,
            record_count: self.count,
        };
        seal(header, self.out)
    }

    /// A control batch that ends `producer_id`'s transaction.
    pub fn end_transaction(
        producer_id: i64,
        producer_epoch: i16,
        commit: bool,
        coordinator_epoch: i32,
        now: Millis,
    ) -> Bytes {
        let mut batch = Self::new().producer(producer_id, producer_epoch, NO_SEQUENCE).transactional().control();
        let mut key = [0; 4];
        key[2..].copy_from_slice(&i16::from(commit).to_be_bytes());
        let mut value = [0; 6];
        value[2..].copy_from_slice(&coordinator_epoch.to_be_bytes());
        batch.append(now, Some(&key), Some(&value), &[]);
        batch.build()
    }
}

/// The same batch with its records under another codec; all else but length and CRC stays. It streams: no more than
/// the new batch is held in memory, and that only up to `limits.max_batch_bytes`.
///
/// # Errors
/// [`BatchError::TooLarge`] when the new batch passes that limit, [`BatchError::Bomb`] when the records pass
/// `limits.max_uncompressed_bytes`, and [`BatchError::Compression`] when they cannot be read.
pub fn recompress(batch: &BatchRef<'_>, to: Compression, limits: &Limits) -> Result<Bytes, BatchError> {
    let from = batch.header.codec()?;
    let mut out = Bounded::new(vec![0; HEADER_LEN], limits.max_batch_bytes);
    let result = if from == Codec::None {
        let mut raw = batch.body();
        let size = raw.len() as u64;
        encode::compress(to, &mut raw, Some(size), &mut out)
    } else {
        let reader = Reader::new(from, batch.body(), limits.max_uncompressed_bytes)?;
        let mut raw = Limited::new(reader, limits.max_uncompressed_bytes);
        encode::compress(to, &mut raw, None, &mut out)
    };
    if out.is_full() {
        // How large it would have become is not known; it is at least one byte more.
        let max = limits.max_batch_bytes;
        return Err(BatchError::TooLarge { size: max.saturating_add(1), max });
    }
    result.map_err(|error| BatchError::from_decoder(from, &error))?;
    let mut header = batch.header;
    header.attributes = (header.attributes & !CODEC_MASK) | i16::from(to.codec.number());
    Ok(seal(header, out.bytes))
}

/// Writes `header` with the right length and CRC over the first bytes of `out`.
fn seal(mut header: BatchHeader, mut out: Vec<u8>) -> Bytes {
    header.length = i32::try_from(out.len() - LENGTH_PREFIX).expect("a batch stays far below 2 GiB");
    out[..HEADER_LEN].copy_from_slice(&header.to_bytes());
    header.crc = crc32c::crc32c(&out[AT_ATTRIBUTES..]);
    out[..HEADER_LEN].copy_from_slice(&header.to_bytes());
    Bytes::from(out)
}

fn delta(base: Offset, offset: Offset) -> i32 {
    i32::try_from(offset - base).expect("offsets of one batch lie within 2^31")
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            varint::put(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
        None => varint::put(out, -1),
    }
}

fn nullable_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varint::len(bytes.len() as i64) + bytes.len())
}

/// Bytes of a record behind its length.
fn body_len(
    timestamp_delta: i64,
    delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[Header<'_>],
) -> usize {
    let headers_len: usize =
        headers.iter().map(|header| nullable_len(Some(header.key)) + nullable_len(header.value)).sum();
    1 + varint::len(timestamp_delta)
        + varint::len(i64::from(delta))
        + nullable_len(key)
        + nullable_len(value)
        + varint::len(headers.len() as i64)
        + headers_len
}
