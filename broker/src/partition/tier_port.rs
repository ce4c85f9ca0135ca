//! What tiering asks of the local logs.

use async_trait::async_trait;
use bytes::Bytes;
use proto::ids::{Offset, TopicPartition};
use proto::metadata::TierPointer;
use tiering::format::{AbortedTxn, EpochHistory};
use tiering::ports::{LocalError, LocalLog, LocalSections, LocalState, SegmentBounds, TierSettings};

use super::core::Core;
use super::read::read_range;
use super::registry::Partitions;
use super::types::ReadError;

#[async_trait]
impl LocalLog for Partitions {
    fn led(&self) -> Vec<TopicPartition> {
        let mut led = Vec::new();
        for partition in self.all() {
            let inner = partition.shared.inner.lock();
            let core = &inner.core;
            if core.is_good() && core.leadership().leads && (core.config().remote || core.offsets().tier_end > 0) {
                led.push(partition.tp());
            }
        }
        led
    }

    fn state(&self, tp: TopicPartition) -> Option<LocalState> {
        let partition = self.get(tp)?;
        let inner = partition.shared.inner.lock();
        inner.core.is_good().then(|| state_of(&inner.core))
    }

    async fn read(
        &self,
        tp: TopicPartition,
        from: Offset,
        to: Offset,
        max_bytes: usize,
    ) -> Result<Vec<Bytes>, LocalError> {
        let partition = self.get(tp).ok_or(LocalError::OutOfRange)?;
        if from < partition.offsets().local_start {
            return Err(LocalError::OutOfRange);
        }
        if from >= to {
            return Ok(Vec::new());
        }
        read_range(&partition.shared, from, to, max_bytes).await.map_err(local_error)
    }

    async fn sections(&self, tp: TopicPartition, from: Offset, to: Offset) -> Result<LocalSections, LocalError> {
        let partition = self.get(tp).ok_or(LocalError::OutOfRange)?;
        let aborted = partition.shared.inner.lock().core.producers().aborted_in(from, to);
        let state = partition.state_at(to).await.map_err(local_error)?;
        Ok(LocalSections {
            epochs: EpochHistory {
                entries: state.epochs.entries().iter().map(|entry| (entry.epoch, entry.start)).collect(),
            },
            aborted: aborted
                .iter()
                .map(|txn| AbortedTxn {
                    first_offset: txn.first_offset,
                    last_offset: txn.last_offset,
                    producer_id: txn.producer_id,
                })
                .collect(),
            producers: state.encode(),
        })
    }

    fn committed(&self, tp: TopicPartition, pointer: &TierPointer) {
        if let Some(partition) = self.get(tp) {
            partition.apply_pointer(pointer, partition.dir().now_ms());
        }
    }
}

fn state_of(core: &Core) -> LocalState {
    let offsets = core.offsets();
    let layout = core.layout();
    let active = layout.active().base;
    let rolled = layout.segments().filter(|segment| segment.base != active).map(|segment| SegmentBounds {
        base: segment.base,
        end: segment.end,
        bytes: segment.bytes,
        max_timestamp: segment.max_timestamp,
    });
    let untiered = layout.segments().filter(|segment| segment.end > offsets.tier_end);
    let untiered_bytes = untiered
        .map(|segment| {
            if segment.base >= offsets.tier_end {
                segment.bytes
            } else {
                segment.bytes - segment.index.floor(offsets.tier_end).min(segment.bytes)
            }
        })
        .sum();
    let config = core.config();
    let limit = |value: i64| (config.delete && value >= 0).then_some(value);
    LocalState {
        leader_epoch: core.leadership().epoch,
        is_leader: core.leadership().leads,
        log_start: offsets.log_start,
        local_start: offsets.local_start,
        last_stable: offsets.last_stable,
        high_watermark: offsets.high_watermark,
        log_end: offsets.log_end,
        rolled: rolled.collect(),
        untiered_bytes,
        oldest_untiered_ms: core.append_time(offsets.tier_end.max(offsets.local_start)),
        settings: TierSettings {
            enabled: config.remote && config.remote_copy,
            segment_bytes: config.segment_bytes,
            max_lag_ms: config.tier_max_lag_ms,
            retention_ms: limit(config.retention_ms),
            retention_bytes: limit(config.retention_bytes).and_then(|bytes| u64::try_from(bytes).ok()),
        },
    }
}

fn local_error(error: ReadError) -> LocalError {
    match error {
        ReadError::OffsetOutOfRange { .. } | ReadError::Deleted => LocalError::OutOfRange,
        ReadError::NotLeader
        | ReadError::FencedLeaderEpoch { .. }
        | ReadError::UnknownLeaderEpoch { .. }
        | ReadError::OffsetNotAvailable
        | ReadError::Offline
        | ReadError::Busy
        | ReadError::Corrupt(_) => LocalError::Io(error.to_string()),
    }
}
