//! Searches by time in the local log. They decompress what they find: callers run them where nobody waits for the thread.

use std::ops::ControlFlow;
use std::sync::Arc;

use proto::ids::{Millis, Offset};
use proto::records::validate::DEFAULT_MAX_UNCOMPRESSED;
use proto::records::{BatchRef, find_timestamp, max_timestamp_and_offset};

use super::handle::PartitionHandle;
use super::read::scan;
use super::shared::Shared;
use super::types::{Isolation, ReadError, TimestampAnswer, TimestampOffset};

impl PartitionHandle {
    /// The first visible record with a timestamp at or above `timestamp`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn offset_for_timestamp(
        &self,
        timestamp: Millis,
        isolation: Isolation,
    ) -> Result<TimestampAnswer, ReadError> {
        let offsets = self.offsets();
        if offsets.local_start > offsets.log_start {
            return Ok(TimestampAnswer::Remote);
        }
        let found = self.offset_for_timestamp_local(timestamp, isolation).await?;
        Ok(found.map_or(TimestampAnswer::None, TimestampAnswer::Found))
    }

    /// The same among what is on local disk.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn offset_for_timestamp_local(
        &self,
        timestamp: Millis,
        isolation: Isolation,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        let (from, until) = {
            let inner = self.shared.inner.lock();
            let start = inner.core.offsets().local_start;
            let until = inner.core.visible_end(isolation);
            let segment = inner.core.layout().segments().find(|segment| segment.max_timestamp >= timestamp);
            let Some(segment) = segment else {
                return Ok(None);
            };
            (segment.index.offset_before_time(timestamp).unwrap_or(segment.base).max(start), until)
        };
        first_at(&self.shared, from, until, timestamp).await
    }

    /// The visible record with the greatest timestamp on local disk, the first if there are several (KIP-734).
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn max_timestamp(&self, isolation: Isolation) -> Result<Option<TimestampOffset>, ReadError> {
        let (known, hidden, until) = {
            let inner = self.shared.inner.lock();
            let until = inner.core.visible_end(isolation);
            let layout = inner.core.layout();
            let start = inner.core.offsets().local_start;
            let hidden = layout.newest_hidden(until).map(|segment| {
                let (from, seen) = segment.index.max_timestamp_before(until).unwrap_or((segment.base, -1));
                (from.max(start), seen)
            });
            (layout.max_timestamp(until), hidden, until)
        };
        // While batches are on their way to disk, the newest is never visible yet.
        if let Some((from, seen)) = hidden {
            let newest = self.newest_header(from, until, seen).await?;
            if newest >= 0 && known.is_none_or(|(known, _)| newest > known) {
                return self.offset_for_timestamp_local(newest, isolation).await;
            }
        }
        let Some((_, from)) = known else {
            return Ok(None);
        };
        scan(&self.shared, from, until, |batch| {
            let found = max_timestamp_and_offset(batch, DEFAULT_MAX_UNCOMPRESSED).map_err(corrupt)?;
            Ok(match found {
                Some((timestamp, offset)) => {
                    ControlFlow::Break(TimestampOffset { offset, timestamp, leader_epoch: batch.header.leader_epoch })
                }
                None => ControlFlow::Continue(()),
            })
        })
        .await
    }

    /// The greatest timestamp that the headers of `[from, until)` tell of, or `least`.
    async fn newest_header(&self, from: Offset, until: Offset, least: Millis) -> Result<Millis, ReadError> {
        let mut newest = least;
        let whole: Option<()> = scan(&self.shared, from, until, |batch| {
            newest = newest.max(batch.header.max_timestamp);
            Ok(ControlFlow::Continue(()))
        })
        .await?;
        debug_assert!(whole.is_none(), "nothing ends the scan early");
        Ok(newest)
    }
}

async fn first_at(
    shared: &Arc<Shared>,
    from: Offset,
    until: Offset,
    timestamp: Millis,
) -> Result<Option<TimestampOffset>, ReadError> {
    let start = shared.inner.lock().core.offsets().local_start;
    scan(shared, from, until, |batch: &BatchRef<'_>| {
        if batch.header.max_timestamp < timestamp || batch.header.last_offset() < start {
            return Ok(ControlFlow::Continue(()));
        }
        let found = find_timestamp(batch, timestamp, DEFAULT_MAX_UNCOMPRESSED).map_err(corrupt)?;
        Ok(match found.filter(|(offset, _)| *offset >= start) {
            Some((offset, timestamp)) => {
                ControlFlow::Break(TimestampOffset { offset, timestamp, leader_epoch: batch.header.leader_epoch })
            }
            None => ControlFlow::Continue(()),
        })
    })
    .await
}

fn corrupt(error: proto::records::BatchError) -> ReadError {
    ReadError::Corrupt(error.to_string())
}
