//! What the log needs to know of a record batch, however it came to know it.

use proto::ids::{LeaderEpoch, Millis, Offset};
use proto::records::{BatchError, BatchInfo, BatchRef, ControlRecord, control_record};

/// The facts of one v2 batch that offsets, producer state and indexes are built from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchMeta {
    /// Bytes of the batch, header included.
    pub size: u32,
    /// Base offset in the header: counts only for what was fetched from a leader or read from disk.
    pub base_offset: Offset,
    /// Offset of the last record less that of the first.
    pub last_offset_delta: i32,
    /// Greatest timestamp of a record, -1 if none has one; the log append time if that is stamped.
    pub max_timestamp: Millis,
    /// Epoch in the header: counts only for what was fetched from a leader or read from disk.
    pub leader_epoch: LeaderEpoch,
    /// -1 for nobody.
    pub producer_id: i64,
    /// -1 for nobody.
    pub producer_epoch: i16,
    /// -1 without idempotence.
    pub base_sequence: i32,
    /// Whether it belongs to a transaction.
    pub transactional: bool,
    /// The marker, if it is a control batch that can be read.
    pub control: Option<ControlRecord>,
}

impl BatchMeta {
    /// From what validation found. `bytes` begin with the batch; they are looked at only if it is a
    /// control batch.
    ///
    /// # Errors
    /// When a control batch's record cannot be read.
    pub fn of(info: &BatchInfo, bytes: &[u8]) -> Result<Self, BatchError> {
        let control = if info.control { control_record(&BatchRef::first(bytes)?)? } else { None };
        Ok(Self {
            size: u32::try_from(info.size).unwrap_or(u32::MAX),
            base_offset: info.base_offset,
            last_offset_delta: info.last_offset_delta,
            max_timestamp: info.max_timestamp,
            leader_epoch: info.leader_epoch,
            producer_id: info.producer_id,
            producer_epoch: info.producer_epoch,
            base_sequence: info.base_sequence,
            transactional: info.transactional,
            control,
        })
    }

    /// From a batch that is in the log.
    ///
    /// # Errors
    /// When a control batch's record cannot be read.
    pub fn of_stored(batch: &BatchRef<'_>) -> Result<Self, BatchError> {
        let header = &batch.header;
        Ok(Self {
            size: u32::try_from(header.size()).unwrap_or(u32::MAX),
            base_offset: header.base_offset,
            last_offset_delta: header.last_offset_delta,
            max_timestamp: header.max_timestamp,
            leader_epoch: header.leader_epoch,
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            transactional: header.is_transactional(),
            control: control_record(batch)?,
        })
    }

    /// The first offset after the batch if it lies at `base`.
    pub const fn end_at(&self, base: Offset) -> Offset {
        base + self.last_offset_delta as i64 + 1
    }
}
