//! The cold part of a fetch: partitions whose next records are in the remote tier.
//!
//! Downloads belong to the reader of the tier: a fetch that stops waiting cancels none, and the next one finds them done. What is
//! hot does not wait for what is cold: with enough bytes at hand only cold records that are there already are taken along,
//! and room that was promised to cold reads goes to hot ones when nothing came of it.

use super::super::services::Services;
use super::engine::{Aborted, LEAST_ROOM_BYTES, Limits, Local, Pass, Target, failed, read_local};
use crate::metrics::SourceLabel;
use crate::telemetry::SPANS;
use futures::future::{FutureExt, join_all};
use proto::errors::ErrorCode;
use proto::ids::{Offset, TopicPartition};
use tiering::ports::PointerError;
use tiering::reader::{RemoteData, RemoteError};
use tokio::time::Instant;
use tracing::Instrument;

/// A read of the remote tier that is still to be waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cold {
    /// Its place among the targets.
    pub at: usize,
    pub tp: TopicPartition,
    pub from: Offset,
    pub max_bytes: usize,
    pub min_one: bool,
}

/// The hot part of the same fetch.
pub(super) struct Hot<'a> {
    pub targets: &'a [Target],
    /// Bytes that memory was taken for.
    pub room: usize,
    /// There was no memory at all.
    pub denied: bool,
    /// Places of hot targets that got less than they could, because room was promised to cold reads.
    pub cut: Vec<usize>,
}

/// Reads the cold partitions side by side, and then the hot ones further if room is left.
pub(super) async fn with_cold(
    services: &Services,
    hot: Hot<'_>,
    cold: Vec<Cold>,
    limits: Limits,
    deadline: Instant,
    pass: &mut Pass,
) {
    let satisfied = |pass: &Pass| pass.bytes > 0 && pass.bytes >= limits.min_bytes;
    let until = if satisfied(pass) || !hot.cut.is_empty() { Instant::now() } else { deadline };
    let mut pending = read(services, hot.targets, cold, until, pass).await;
    fill_up(&hot, limits, pass).await;
    if pending.is_empty() || satisfied(pass) || pass.urgent || Instant::now() >= deadline {
        return;
    }
    let mut left = limits.max_bytes.saturating_sub(pass.bytes);
    let mut min_one = pass.bytes == 0;
    for read in &mut pending {
        read.max_bytes = read.max_bytes.min(left);
        read.min_one = std::mem::take(&mut min_one);
        left -= read.max_bytes;
    }
    pending.retain(|read| read.max_bytes > 0 || read.min_one);
    read(services, hot.targets, pending, deadline, pass).await;
    fill_up(&hot, limits, pass).await;
}

/// Reads what is cold until `until`; answers what did not come in time.
async fn read(services: &Services, targets: &[Target], cold: Vec<Cold>, until: Instant, pass: &mut Pass) -> Vec<Cold> {
    let image = services.controller.image();
    // As with hot records: readers who do not take their answers slow the others down, but do not shut them out.
    let share = (services.cold_memory.free_bytes() / 4).max(LEAST_ROOM_BYTES);
    let reads = cold.iter().map(|read| {
        let pointer = image.tier(read.tp).cloned();
        async move {
            let pointer = pointer?;
            let span = tracing::info_span!(target: SPANS, "remote tier", partition = %read.tp, offset = read.from);
            let data = services.remote.read(read.tp, &pointer, read.from, read.max_bytes.min(share), read.min_one);
            Some(data.instrument(span).await)
        }
    });
    let reads = join_all(reads.map(|read| tokio::time::timeout_at(until, read).map(|done| done.ok().flatten())));
    let outcomes = reads.await;
    let mut pending = Vec::new();
    for (read, outcome) in cold.into_iter().zip(outcomes) {
        match outcome {
            // Not there yet: the download goes on, and the next fetch asks again.
            None => pending.push(read),
            Some(Ok(data)) => take(services, read, data, until, pass).await,
            Some(Err(error)) => {
                tracing::warn!(partition = %read.tp, offset = read.from, %error, "reading from the remote tier failed");
                pass.urgent = true;
                if let (Some(found), Some(target)) = (pass.found.get_mut(read.at), targets.get(read.at)) {
                    *found = failed(code(&error), target);
                }
            }
        }
    }
    pending
}

/// Takes cold records along. While they are sent they pin what they are slices of, be it gone from the cache: that has a
/// budget of its own, so that readers of cold records who are slow do not take the memory of those at the tail.
async fn take(services: &Services, read: Cold, data: RemoteData, until: Instant, pass: &mut Pass) {
    let Some(found) = pass.found.get_mut(read.at) else { return };
    let bytes = usize::try_from(data.bytes).unwrap_or(usize::MAX);
    if bytes > 0 {
        let grant = tokio::time::timeout_at(until, services.cold_memory.admit(bytes)).await;
        let Ok(grant) = grant else { return };
        pass.grants.push(grant);
    }
    pass.bytes += bytes;
    services.metrics.remote_bytes_served.inc_by(data.bytes);
    let source = SourceLabel { source: "remote" };
    services.metrics.fetched_bytes.get_or_create(&source).inc_by(data.bytes);
    found.records = data.chunks.into();
    found.cold = true;
    if let Some(aborted) = &mut found.aborted {
        aborted.clear();
        let cold = data.aborted.iter();
        aborted.extend(cold.map(|txn| Aborted { producer_id: txn.producer_id, first_offset: txn.first_offset }));
    }
}

/// Reads hot partitions again that had to leave room for cold ones, if room is left.
async fn fill_up(hot: &Hot<'_>, limits: Limits, pass: &mut Pass) {
    if hot.denied {
        return;
    }
    for at in &hot.cut {
        let (Some(target), Some(found)) = (hot.targets.get(*at), pass.found.get_mut(*at)) else { continue };
        let has = found.records.len();
        let others = pass.bytes - has;
        let room = hot.room.saturating_sub(others);
        let max_bytes = limits.max_bytes.saturating_sub(others).min(target.max_bytes()).min(room);
        let min_one = others == 0;
        if max_bytes <= has && !(min_one && has == 0) {
            continue;
        }
        // What has become of it meanwhile is the next fetch's business.
        let Ok((result, Local::Records(records))) = read_local(target, max_bytes, min_one, limits).await else {
            continue;
        };
        if records.len() > has {
            pass.bytes = others + records.len();
            found.records = records;
            if let Some(aborted) = &mut found.aborted {
                aborted.clear();
                let more = result.aborted.iter();
                aborted
                    .extend(more.map(|txn| Aborted { producer_id: txn.producer_id, first_offset: txn.first_offset }));
            }
        }
    }
}

/// Kafka's codes for a remote tier that does not answer: the client asks again.
fn code(error: &RemoteError) -> ErrorCode {
    match error {
        RemoteError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        RemoteError::Pointer(PointerError::Gone) => ErrorCode::UnknownTopicOrPartition,
        RemoteError::Unavailable { .. }
        | RemoteError::TimedOut
        | RemoteError::Corrupt { .. }
        | RemoteError::Missing { .. }
        | RemoteError::Unsupported(_)
        | RemoteError::Pointer(PointerError::Unavailable(_)) => ErrorCode::KafkaStorageError,
    }
}
