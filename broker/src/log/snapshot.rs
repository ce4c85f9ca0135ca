//! What a log knows at one offset beyond its bytes: leader epochs, producers, transactions.
//!
//! Written when a segment is rolled and every few tens of MiB within one, so that recovery and truncation
//! replay little; also carried in Reset records and in the footers of tiered objects. The encoding is
//! explicit, versioned and checked by a CRC.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use bytes::{Buf, BufMut, Bytes, BytesMut, TryGetError};
use proto::ids::Offset;

use super::epochs::{EpochCache, EpochEntry};
use super::producers::{AbortedTxn, DecidedTxn, Producer, Producers, REMEMBERED_BATCHES, SentBatch};
use crate::disk::{self, Disk, DiskError};

const MAGIC: &[u8; 8] = b"FIRNSNP1";

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// They end too early.
    #[error("truncated")]
    Truncated,
    /// They are something else, or a version from the future.
    #[error("unknown magic or version")]
    Magic,
    /// They were damaged.
    #[error("checksum mismatch")]
    Crc,
    /// They contradict themselves.
    #[error("invalid {0}")]
    Invalid(&'static str),
}

impl From<TryGetError> for FormatError {
    fn from(_: TryGetError) -> Self {
        Self::Truncated
    }
}

/// The state of a log as of `offset`: everything below it is in, nothing at or above it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Where.
    pub offset: Offset,
    /// Base offset of the segment that `offset` belongs to (or begins).
    pub segment_base: Offset,
    /// Byte of that segment at which `offset` begins.
    pub position: u64,
    /// Leader epochs up to `offset`.
    pub epochs: EpochCache,
    /// Producers as of `offset`.
    pub producers: Producers,
}

impl Snapshot {
    /// Magic, offset, segment base, position, epochs, producers, CRC-32C of all before it.
    pub fn encode(&self) -> Bytes {
        encode_parts(self.offset, self.segment_base, self.position, &self.epochs, &self.producers)
    }

    /// Reads what [`Snapshot::encode`] wrote.
    ///
    /// # Errors
    /// Anything that differs.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut body, crc) = bytes.split_last_chunk::<4>().ok_or(FormatError::Truncated)?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
            return Err(FormatError::Crc);
        }
        body = body.strip_prefix(MAGIC.as_slice()).ok_or(FormatError::Magic)?;
        let offset = body.try_get_i64()?;
        let segment_base = body.try_get_i64()?;
        let position = body.try_get_u64()?;
        let epochs = decode_epochs(&mut body)?;
        let producers = decode_producers(&mut body)?;
        if !body.is_empty() {
            return Err(FormatError::Invalid("length"));
        }
        Ok(Self { offset, segment_base, position, epochs, producers })
    }
}

/// Whether the file at `path` holds the state at this place already. It is then left alone: writing it anew could
/// tear the only copy.
///
/// # Errors
/// The disk's.
pub async fn is_saved(
    disk: &dyn Disk,
    path: &Path,
    offset: Offset,
    segment_base: Offset,
    position: u64,
) -> Result<bool, DiskError> {
    let bytes = disk::read_whole(disk, path).await?;
    let saved = bytes.and_then(|bytes| Snapshot::decode(&bytes).ok());
    let place = saved.map(|saved| (saved.offset, saved.segment_base, saved.position));
    Ok(place == Some((offset, segment_base, position)))
}

/// [`Snapshot::encode`] of borrowed parts.
pub fn encode_parts(
    offset: Offset,
    segment_base: Offset,
    position: u64,
    epochs: &EpochCache,
    producers: &Producers,
) -> Bytes {
    let mut out = BytesMut::with_capacity(64 + epochs.entries().len() * 12 + producers.len() * 96);
    out.put_slice(MAGIC);
    out.put_i64(offset);
    out.put_i64(segment_base);
    out.put_u64(position);
    put_len(&mut out, epochs.entries().len());
    for entry in epochs.entries() {
        out.put_i32(entry.epoch);
        out.put_i64(entry.start);
    }
    encode_producers(&mut out, producers);
    out.put_u32(crc32c::crc32c(&out));
    out.freeze()
}

fn put_len(out: &mut BytesMut, len: usize) {
    out.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
}

/// A count from the bytes, which must still hold that many items of at least `item_bytes`.
fn get_len(body: &mut &[u8], item_bytes: usize) -> Result<usize, FormatError> {
    let count = body.try_get_u32()? as usize;
    if count.saturating_mul(item_bytes) > body.len() {
        return Err(FormatError::Truncated);
    }
    Ok(count)
}

fn decode_epochs(body: &mut &[u8]) -> Result<EpochCache, FormatError> {
    let count = get_len(body, 12)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        entries.push(EpochEntry { epoch: body.try_get_i32()?, start: body.try_get_i64()? });
    }
    EpochCache::from_entries(entries).ok_or(FormatError::Invalid("epochs"))
}

fn encode_producers(out: &mut BytesMut, producers: &Producers) {
    put_len(out, producers.len());
    for (id, producer) in producers.iter() {
        out.put_i64(id);
        out.put_i16(producer.epoch);
        out.put_i32(producer.coordinator_epoch);
        out.put_i64(producer.last_seen_ms);
        out.put_i64(producer.txn_first_offset.unwrap_or(-1));
        out.put_u8(u8::try_from(producer.batches.len()).unwrap_or(u8::MAX));
        for batch in &producer.batches {
            out.put_i32(batch.last_sequence);
            out.put_i64(batch.last_offset);
            out.put_i32(batch.offset_delta);
            out.put_i64(batch.timestamp);
        }
    }
    put_len(out, producers.unreplicated().len());
    for txn in producers.unreplicated() {
        out.put_i64(txn.first_offset);
        out.put_i64(txn.last_offset);
    }
    put_len(out, producers.aborted().len());
    for txn in producers.aborted() {
        out.put_i64(txn.producer_id);
        out.put_i64(txn.first_offset);
        out.put_i64(txn.last_offset);
        out.put_i64(txn.last_stable);
    }
}

fn decode_producers(body: &mut &[u8]) -> Result<Producers, FormatError> {
    let mut known = BTreeMap::new();
    for _ in 0..get_len(body, 31)? {
        let id = body.try_get_i64()?;
        let producer = decode_producer(body)?;
        if known.insert(id, producer).is_some() {
            return Err(FormatError::Invalid("producers"));
        }
    }
    let count = get_len(body, 16)?;
    let mut unreplicated = Vec::with_capacity(count);
    for _ in 0..count {
        unreplicated.push(DecidedTxn { first_offset: body.try_get_i64()?, last_offset: body.try_get_i64()? });
    }
    let count = get_len(body, 32)?;
    let mut aborted = VecDeque::with_capacity(count);
    for _ in 0..count {
        aborted.push_back(AbortedTxn {
            producer_id: body.try_get_i64()?,
            first_offset: body.try_get_i64()?,
            last_offset: body.try_get_i64()?,
            last_stable: body.try_get_i64()?,
        });
    }
    Ok(Producers::restore(known, unreplicated, aborted))
}

fn decode_producer(body: &mut &[u8]) -> Result<Producer, FormatError> {
    let epoch = body.try_get_i16()?;
    let coordinator_epoch = body.try_get_i32()?;
    let last_seen_ms = body.try_get_i64()?;
    let first = body.try_get_i64()?;
    let count = usize::from(body.try_get_u8()?);
    if count > REMEMBERED_BATCHES {
        return Err(FormatError::Invalid("producer batches"));
    }
    let mut batches = VecDeque::with_capacity(REMEMBERED_BATCHES);
    for _ in 0..count {
        batches.push_back(SentBatch {
            last_sequence: body.try_get_i32()?,
            last_offset: body.try_get_i64()?,
            offset_delta: body.try_get_i32()?,
            timestamp: body.try_get_i64()?,
        });
    }
    let txn_first_offset = (first >= 0).then_some(first);
    Ok(Producer { epoch, coordinator_epoch, last_seen_ms, txn_first_offset, batches })
}

#[cfg(test)]
#[path = "snapshot/tests.rs"]
mod tests;
