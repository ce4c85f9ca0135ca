//! The port to the partition in which groups are written down, and its implementation over a partition of
//! this broker.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use proto::host::Clock;
use proto::ids::{LeaderEpoch, Offset};
use std::sync::Arc;

use super::types::GroupError;
use crate::partition::{
    AckError, Acks, Append, AppendError, Isolation, Origin, PartitionHandle, Read, ReadData, ReadError, Reader,
    describe,
};

/// Resolves when what was appended is as safe as an acknowledged record.
pub type Acked = BoxFuture<'static, Result<(), GroupError>>;

/// A log of batches that this broker leads.
#[async_trait]
pub trait GroupLog: Send + Sync + 'static {
    /// Appends a batch. Its place in the log is fixed when this returns, its safety when what it returns
    /// resolves. If it is dropped before it returns, nothing was appended.
    ///
    /// # Errors
    /// Nothing was appended.
    async fn append(&self, batch: Bytes) -> Result<Acked, GroupError>;

    /// Reads whole batches from `offset` on, or from the first one if `offset` is none: the batches, back
    /// to back. Empty at the end of the log.
    ///
    /// # Errors
    /// The log cannot be read.
    async fn read(&self, offset: Option<Offset>) -> Result<Bytes, GroupError>;
}

/// Bytes asked for in one read while loading.
const READ_BYTES: usize = 1 << 20;

/// A partition of `__consumer_offsets` under one leader epoch of this broker.
pub struct PartitionLog {
    partition: PartitionHandle,
    leader_epoch: LeaderEpoch,
    clock: Arc<dyn Clock>,
}

impl PartitionLog {
    /// The log of `partition` while this broker leads it under `leader_epoch`.
    pub fn new(partition: PartitionHandle, leader_epoch: LeaderEpoch, clock: Arc<dyn Clock>) -> Self {
        Self { partition, leader_epoch, clock }
    }
}

#[async_trait]
impl GroupLog for PartitionLog {
    async fn append(&self, batch: Bytes) -> Result<Acked, GroupError> {
        let info = describe(&batch).map_err(|_| GroupError::Unstorable)?;
        let _permit = self.partition.admit(batch.len()).await.map_err(|_| GroupError::NotAvailable)?;
        let appended = self
            .partition
            .append(Append {
                leader_epoch: Some(self.leader_epoch),
                batches: batch,
                info: &info,
                origin: Origin::Coordinator,
                acks: Acks::All,
                now_ms: self.clock.now_ms(),
                log_append_time: None,
            })
            .map_err(|error| append_error(&error))?;
        Ok(appended.acked.map(|acked| acked.map_err(ack_error)).boxed())
    }

    async fn read(&self, offset: Option<Offset>) -> Result<Bytes, GroupError> {
        let ends = self.partition.offsets();
        let offset = offset.unwrap_or(ends.log_start).max(ends.log_start);
        if offset >= ends.log_end {
            return Ok(Bytes::new());
        }
        let read = Read {
            offset,
            max_bytes: READ_BYTES,
            min_one: true,
            isolation: Isolation::LogEnd,
            leader_epoch: Some(self.leader_epoch),
            last_fetched_epoch: None,
            reader: Reader::Consumer,
        };
        let chunks = match self.partition.read(read).map_err(|error| read_error(&error))?.data {
            ReadData::Empty => return Ok(Bytes::new()),
            ReadData::Ready(chunks) => chunks,
            ReadData::Disk(read) => read.run().await.map_err(|error| read_error(&error))?,
            // Internal topics are never tiered.
            ReadData::Remote => return Err(GroupError::NotAvailable),
        };
        let mut bytes = BytesMut::new();
        for chunk in chunks {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }
}

fn append_error(error: &AppendError) -> GroupError {
    match error {
        AppendError::NotLeader
        | AppendError::FencedLeaderEpoch { .. }
        | AppendError::UnknownLeaderEpoch { .. }
        | AppendError::Deleted => GroupError::NotCoordinator,
        AppendError::NotEnoughReplicas { .. } | AppendError::Offline | AppendError::DiskFull => {
            GroupError::NotAvailable
        }
        AppendError::InvalidProducerEpoch { .. }
        | AppendError::OutOfOrderSequence { .. }
        | AppendError::InvalidTxnState { .. }
        | AppendError::CoordinatorFenced { .. }
        | AppendError::OutOfOrderOffset { .. }
        | AppendError::Corrupt(_)
        | AppendError::Mismatch => GroupError::Unstorable,
    }
}

fn ack_error(error: AckError) -> GroupError {
    match error {
        AckError::Offline => GroupError::NotAvailable,
        AckError::NotLeader | AckError::Deleted => GroupError::NotCoordinator,
    }
}

fn read_error(error: &ReadError) -> GroupError {
    match error {
        ReadError::NotLeader
        | ReadError::FencedLeaderEpoch { .. }
        | ReadError::UnknownLeaderEpoch { .. }
        | ReadError::OffsetOutOfRange { .. }
        | ReadError::Deleted => GroupError::NotCoordinator,
        ReadError::OffsetNotAvailable | ReadError::Offline | ReadError::Busy | ReadError::Corrupt(_) => {
            GroupError::NotAvailable
        }
    }
}
