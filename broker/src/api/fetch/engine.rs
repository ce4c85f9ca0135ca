//! Gathers records for one fetch: from memory and disk at once, from the remote tier side by side, within the request's limits.
//!
//! Limits are those of KIP-74: no partition gets more than its own maximum, all together no more than the request's, except that
//! the first batch of the first partition that has any is sent whatever its size. Memory is admitted before it is filled. Downloads
//! belong to the reader of the tier: a fetch that stops waiting cancels none, and the next one finds them done.

use super::super::errors::read_code;
use super::super::partitions::{held, topic_named, topic_with_id};
use super::super::services::Services;
use super::session::{Key, TopicRef, Wanted};
use crate::log::epochs::EpochEnd;
use crate::metrics::SourceLabel;
use crate::net::budget::Grant;
use crate::partition::PartitionHandle;
use crate::partition::types::{Isolation, Read, ReadData, ReadError, ReadResult};
use crate::partition::waiters::FetchWaiter;
use crate::telemetry::SPANS;
use futures::future::{FutureExt, join_all};
use proto::errors::ErrorCode;
use proto::ids::{LeaderEpoch, NodeId, Offset, TopicPartition};
use proto::messages::FetchRequest;
use proto::metadata::Image;
use proto::wire::RecordChunks;
use std::time::Duration;
use tiering::ports::PointerError;
use tiering::reader::RemoteError;
use tokio::time::Instant;
use tracing::Instrument;

/// What bounds a fetch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub max_wait: Duration,
    pub min_bytes: usize,
    pub max_bytes: usize,
    pub isolation: Isolation,
}

impl Limits {
    /// As the client asked; `fetch.max.bytes` of the broker bounds the answer in any case.
    pub(super) fn of(request: &FetchRequest, broker_max_bytes: usize) -> Limits {
        let max_bytes = usize::try_from(request.max_bytes).unwrap_or(0).min(broker_max_bytes);
        Limits {
            max_wait: Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)),
            min_bytes: usize::try_from(request.min_bytes).unwrap_or(0).min(max_bytes),
            max_bytes,
            isolation: if request.isolation_level == 1 { Isolation::ReadCommitted } else { Isolation::ReadUncommitted },
        }
    }
}

/// A partition to read, or why it cannot be.
pub(super) struct Target {
    wanted: Wanted,
    tp: Option<TopicPartition>,
    partition: Result<PartitionHandle, ErrorCode>,
    leader: Option<(NodeId, LeaderEpoch)>,
}

/// A transaction whose records the reader must skip, from `first_offset` to its marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Aborted {
    pub producer_id: i64,
    pub first_offset: Offset,
}

/// What was found of one partition.
#[derive(Debug)]
pub(super) struct Found {
    pub error: ErrorCode,
    pub high_watermark: Offset,
    pub last_stable: Offset,
    pub log_start: Offset,
    pub records: RecordChunks,
    /// Null unless the reader asked for committed records only.
    pub aborted: Option<Vec<Aborted>>,
    pub diverging: Option<EpochEnd>,
    /// Whom to ask instead, with an error that says so.
    pub leader: Option<(NodeId, LeaderEpoch)>,
}

/// What a fetch answers, and the memory it pins.
pub(super) struct Gathered {
    pub partitions: Vec<Found>,
    pub grant: Option<Grant>,
}

/// Finds the partition that `key` names.
pub(super) fn resolve(services: &Services, image: &Image, key: &Key, wanted: &Wanted) -> Target {
    let topic = match &key.topic {
        TopicRef::Name(name) => topic_named(image, name),
        TopicRef::Id(id) => topic_with_id(image, *id),
    };
    let state = topic.ok().and_then(|topic| topic.partition(key.partition));
    Target {
        wanted: wanted.clone(),
        tp: topic.ok().map(|topic| TopicPartition { topic: topic.id, partition: key.partition }),
        leader: state.and_then(|state| Some((state.leader?, state.leader_epoch))),
        partition: topic.and_then(|topic| held(services, topic, key.partition)),
    }
}

/// Reads until `min_bytes` are found, something is worth answering at once, or `max_wait` has passed.
pub(super) async fn gather(services: &Services, targets: Vec<Target>, limits: Limits) -> Gathered {
    let deadline = Instant::now() + limits.max_wait;
    loop {
        let Pass { found, seen, bytes, urgent, grant } = pass(services, &targets, limits, deadline).await;
        if urgent || bytes >= limits.min_bytes || targets.is_empty() || Instant::now() >= deadline {
            return Gathered { partitions: found, grant };
        }
        // Records that wait with us are read again then; their memory is not held meanwhile.
        drop((found, grant));
        let waiter = FetchWaiter::new(limits.min_bytes - bytes);
        for (target, seen) in targets.iter().zip(seen) {
            if let (Ok(partition), Some(seen)) = (&target.partition, seen) {
                partition.subscribe(&waiter, limits.isolation, seen);
            }
        }
        // At the deadline the last pass answers what is there.
        let _ = tokio::time::timeout_at(deadline, waiter.wait()).await;
    }
}

struct Pass {
    found: Vec<Found>,
    /// The end that bounded each local read: what becomes visible beyond it is news.
    seen: Vec<Option<Offset>>,
    bytes: usize,
    /// Something must be answered now: an error, a divergence.
    urgent: bool,
    grant: Option<Grant>,
}

/// A read of the remote tier that is still to be waited for.
struct Cold {
    at: usize,
    tp: TopicPartition,
    from: Offset,
    max_bytes: usize,
    min_one: bool,
}

async fn pass(services: &Services, targets: &[Target], limits: Limits, deadline: Instant) -> Pass {
    let grant = admit(services, targets, limits).await;
    let mut pass = Pass { found: Vec::new(), seen: Vec::new(), bytes: 0, urgent: false, grant };
    let mut cold = Vec::new();
    // Bytes promised to cold reads count, or together they would pass max.bytes.
    let mut promised = 0;
    for (at, target) in targets.iter().enumerate() {
        let left = limits.max_bytes.saturating_sub(pass.bytes + promised);
        let min_one = pass.bytes + promised == 0;
        let max_bytes = left.min(usize::try_from(target.wanted.max_bytes).unwrap_or(0));
        let read = read_local(target, max_bytes, min_one, limits.isolation).await;
        pass.seen.push(read.as_ref().ok().map(|(result, _)| result.visible_end));
        let found = match read {
            Err(code) => failed(code, target),
            Ok((result, Local::Records(records))) => {
                let source = SourceLabel { source: "local" };
                services.metrics.fetched_bytes.get_or_create(&source).inc_by(records.len() as u64);
                pass.bytes += records.len();
                from_result(result, records, limits.isolation)
            }
            Ok((result, Local::Remote)) => {
                if let Some(tp) = target.tp
                    && (max_bytes > 0 || min_one)
                {
                    cold.push(Cold { at, tp, from: target.wanted.offset, max_bytes, min_one });
                    promised += max_bytes;
                }
                from_result(result, RecordChunks::new(), limits.isolation)
            }
        };
        pass.urgent |= found.error != ErrorCode::None || found.diverging.is_some();
        pass.found.push(found);
    }
    if !cold.is_empty() {
        read_cold(services, targets, cold, limits, deadline, &mut pass).await;
    }
    if let Some(grant) = &mut pass.grant {
        grant.shrink_to(pass.bytes);
    }
    pass
}

/// Takes memory for what the answer may hold. An estimate from above is enough: it shrinks to what was read.
async fn admit(services: &Services, targets: &[Target], limits: Limits) -> Option<Grant> {
    let mut bytes = 0;
    for target in targets {
        let Ok(partition) = &target.partition else { continue };
        let max = usize::try_from(target.wanted.max_bytes).unwrap_or(0);
        let available = partition.available_bytes(target.wanted.offset, limits.isolation);
        bytes += usize::try_from(available).unwrap_or(usize::MAX).min(max);
    }
    match bytes.min(limits.max_bytes) {
        0 => None,
        bytes => Some(services.fetch_memory.admit(bytes).await),
    }
}

enum Local {
    Records(RecordChunks),
    Remote,
}

async fn read_local(
    target: &Target,
    max_bytes: usize,
    min_one: bool,
    isolation: Isolation,
) -> Result<(ReadResult, Local), ErrorCode> {
    let partition = target.partition.as_ref().map_err(|code| *code)?;
    let wanted = &target.wanted;
    let known = |epoch: LeaderEpoch| (epoch >= 0).then_some(epoch);
    let read = Read {
        offset: wanted.offset,
        max_bytes,
        min_one,
        isolation,
        leader_epoch: known(wanted.current_leader_epoch),
        last_fetched_epoch: known(wanted.last_fetched_epoch),
        replica: None,
    };
    let mut result = partition.read(read).map_err(|error| code_of(&error, partition))?;
    let local = match std::mem::replace(&mut result.data, ReadData::Empty) {
        ReadData::Empty => Local::Records(RecordChunks::new()),
        ReadData::Ready(chunks) => Local::Records(chunks.into_iter().collect()),
        ReadData::Disk(read) => {
            let chunks = read.run().await.map_err(|error| code_of(&error, partition))?;
            Local::Records(chunks.into_iter().collect())
        }
        ReadData::Remote => Local::Remote,
    };
    Ok((result, local))
}

fn code_of(error: &ReadError, partition: &PartitionHandle) -> ErrorCode {
    if let ReadError::Corrupt(what) = error {
        tracing::error!(partition = %partition.tp(), %what, "a segment cannot be read");
    }
    read_code(error)
}

/// Reads the cold partitions side by side. What is hot is not kept waiting: with enough bytes at hand, only cold records that are
/// there already are taken along.
async fn read_cold(
    services: &Services,
    targets: &[Target],
    cold: Vec<Cold>,
    limits: Limits,
    deadline: Instant,
    pass: &mut Pass,
) {
    let image = services.controller.image();
    let reads = cold.iter().map(|read| {
        let pointer = image.tier(read.tp).cloned();
        async move {
            let pointer = pointer?;
            let span = tracing::info_span!(target: SPANS, "remote tier", partition = %read.tp, offset = read.from);
            let data = services.remote.read(read.tp, &pointer, read.from, read.max_bytes, read.min_one);
            Some(data.instrument(span).await)
        }
    });
    let enough = pass.bytes > 0 && pass.bytes >= limits.min_bytes;
    let until = if enough { Instant::now() } else { deadline };
    let reads = join_all(reads.map(|read| tokio::time::timeout_at(until, read).map(|done| done.ok().flatten())));
    for (read, outcome) in cold.iter().zip(reads.await) {
        let Some(found) = pass.found.get_mut(read.at) else { continue };
        match outcome {
            // Not there yet: the download goes on, and the next fetch asks again.
            None => {}
            Some(Ok(data)) => {
                pass.bytes += usize::try_from(data.bytes).unwrap_or(usize::MAX);
                services.metrics.remote_bytes_served.inc_by(data.bytes);
                let source = SourceLabel { source: "remote" };
                services.metrics.fetched_bytes.get_or_create(&source).inc_by(data.bytes);
                found.records = data.chunks.into();
                if let Some(aborted) = &mut found.aborted {
                    aborted.clear();
                    let cold = data.aborted.iter();
                    aborted.extend(
                        cold.map(|txn| Aborted { producer_id: txn.producer_id, first_offset: txn.first_offset }),
                    );
                }
            }
            Some(Err(error)) => {
                let code = remote_code(&error);
                tracing::warn!(partition = %read.tp, offset = read.from, %error, "reading from the remote tier failed");
                pass.urgent = true;
                if let Some(target) = targets.get(read.at) {
                    *found = failed(code, target);
                }
            }
        }
    }
}

/// Kafka's codes for a remote tier that does not answer: the client asks again.
fn remote_code(error: &RemoteError) -> ErrorCode {
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

fn failed(error: ErrorCode, target: &Target) -> Found {
    let elsewhere = matches!(error, ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch);
    Found {
        error,
        high_watermark: -1,
        last_stable: -1,
        log_start: -1,
        records: RecordChunks::new(),
        aborted: None,
        diverging: None,
        leader: target.leader.filter(|_| elsewhere),
    }
}

fn from_result(result: ReadResult, records: RecordChunks, isolation: Isolation) -> Found {
    Found {
        error: ErrorCode::None,
        high_watermark: result.high_watermark,
        last_stable: result.last_stable,
        log_start: result.log_start,
        records,
        aborted: (isolation == Isolation::ReadCommitted).then(|| {
            let hot = result.aborted.iter();
            hot.map(|txn| Aborted { producer_id: txn.producer_id, first_offset: txn.first_offset }).collect()
        }),
        diverging: result.diverging,
        leader: None,
    }
}
