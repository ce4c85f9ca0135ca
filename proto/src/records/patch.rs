//! The header fields a broker may change in a batch that it otherwise keeps verbatim.
//!
//! Base offset and leader epoch lie before the CRC's range and cost nothing; the rest lies inside it, so
//! that the CRC is computed anew over the whole batch.

use super::error::BatchError;
use super::header::{
    AT_ATTRIBUTES, AT_CRC, AT_LEADER_EPOCH, AT_MAX_TIMESTAMP, AT_PRODUCER_ID, BatchHeader, BatchRef, LOG_APPEND_TIME,
};
use crate::ids::{LeaderEpoch, Millis, Offset};

/// Writes base offset and leader epoch. Neither is covered by the CRC, which stays as it is.
///
/// # Panics
/// If `batch` is shorter than a header: callers pass batches they validated.
pub fn patch_base_offset_and_epoch(batch: &mut [u8], base: Offset, epoch: LeaderEpoch) {
    put(batch, 0, &base.to_be_bytes());
    put(batch, AT_LEADER_EPOCH, &epoch.to_be_bytes());
}

/// Makes `now` (Unix ms) the timestamp of all records of the one batch in `batch`, as topics with
/// `message.timestamp.type=LogAppendTime` want it.
///
/// # Errors
/// As [`BatchRef::first`]; the bytes are then unchanged.
pub fn set_log_append_time(batch: &mut [u8], now: Millis) -> Result<(), BatchError> {
    let header = whole(batch)?;
    put(batch, AT_ATTRIBUTES, &(header.attributes | LOG_APPEND_TIME).to_be_bytes());
    put(batch, AT_MAX_TIMESTAMP, &now.to_be_bytes());
    reseal(batch, header.size());
    Ok(())
}

/// Writes the true largest timestamp (Unix ms) where a producer claimed another, as Kafka does.
///
/// # Errors
/// As [`BatchRef::first`]; the bytes are then unchanged.
pub fn set_max_timestamp(batch: &mut [u8], max: Millis) -> Result<(), BatchError> {
    let header = whole(batch)?;
    put(batch, AT_MAX_TIMESTAMP, &max.to_be_bytes());
    reseal(batch, header.size());
    Ok(())
}

/// Gives the batch another producer id, epoch and base sequence.
///
/// # Errors
/// As [`BatchRef::first`]; the bytes are then unchanged.
pub fn patch_producer(batch: &mut [u8], id: i64, epoch: i16, base_sequence: i32) -> Result<(), BatchError> {
    let header = whole(batch)?;
    put(batch, AT_PRODUCER_ID, &id.to_be_bytes());
    put(batch, AT_PRODUCER_ID + 8, &epoch.to_be_bytes());
    put(batch, AT_PRODUCER_ID + 10, &base_sequence.to_be_bytes());
    reseal(batch, header.size());
    Ok(())
}

fn whole(batch: &[u8]) -> Result<BatchHeader, BatchError> {
    Ok(BatchRef::first(batch)?.header)
}

/// Computes the CRC of the batch of `size` bytes at the start of `batch` anew. `size` was checked.
fn reseal(batch: &mut [u8], size: usize) {
    let crc = crc32c::crc32c(&batch[AT_ATTRIBUTES..size]);
    put(batch, AT_CRC, &crc.to_be_bytes());
}

fn put(batch: &mut [u8], at: usize, bytes: &[u8]) {
    batch[at..at + bytes.len()].copy_from_slice(bytes);
}
