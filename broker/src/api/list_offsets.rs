//! ListOffsets: where a partition begins and ends, and where a time lies in it (KIP-79, KIP-405, KIP-734, KIP-1005).

use super::Context;
use super::errors::read_code;
use super::partitions::{held, topic_named};
use super::services::Services;
use crate::partition::PartitionHandle;
use crate::partition::types::{Isolation, ReadError, TimestampAnswer, TimestampOffset};
use proto::errors::ErrorCode;
use proto::ids::{LeaderEpoch, Millis, Offset};
use proto::messages::list_offsets_request::ListOffsetsPartition;
use proto::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use proto::messages::{ListOffsetsRequest, ListOffsetsResponse};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The end of what the reader may see.
const LATEST: Millis = -1;
/// The first offset that can be read.
const EARLIEST: Millis = -2;
/// The record with the largest timestamp (KIP-734), from version 7.
const MAX_TIMESTAMP: Millis = -3;
/// The first offset on local disk (KIP-405), from version 8.
const EARLIEST_LOCAL: Millis = -4;
/// The last offset in the remote tier (KIP-1005), from version 9.
const LATEST_TIERED: Millis = -5;
/// From this version on an answer carries the leader epoch of the record found (KIP-320).
const NAMES_EPOCH: i16 = 4;
/// From this version on a client knows that a new leader may not know its end yet (KIP-207).
const KNOWS_UNAVAILABLE: i16 = 5;
/// From this version on a request says how long to wait for the remote tier.
const WAITS: i16 = 10;

/// Answers one offset per partition asked for.
pub(super) async fn handle(context: &Context<'_>, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let services = context.services;
    let image = services.controller.image();
    let isolation = if request.isolation_level == 1 { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
    let mut topics = Vec::with_capacity(request.topics.len());
    let deadline = deadline(context.caller.version, request.timeout_ms);
    let twice = named_twice(&request);
    for asked in request.topics {
        let topic = topic_named(&image, &asked.name).cloned();
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for wanted in asked.partitions {
            let found = match &topic {
                _ if twice.contains(&(asked.name.clone(), wanted.partition_index)) => Err(ErrorCode::InvalidRequest),
                Ok(topic) => match held(services, topic, wanted.partition_index) {
                    Ok(partition) => {
                        let ask = Ask { isolation, version: context.caller.version, deadline };
                        one(services, &partition, &wanted, ask).await
                    }
                    Err(code) => Err(code),
                },
                Err(code) => Err(*code),
            };
            partitions.push(answer(wanted.partition_index, found, context.caller.version));
        }
        topics.push(ListOffsetsTopicResponse { name: asked.name, partitions });
    }
    ListOffsetsResponse { topics, ..Default::default() }
}

/// Partitions that a request names more than once: which of the answers were whose, nobody could tell.
fn named_twice(request: &ListOffsetsRequest) -> HashSet<(String, i32)> {
    let mut seen = HashSet::new();
    let mut twice = HashSet::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            if !seen.insert((topic.name.as_str(), partition.partition_index)) {
                twice.insert((topic.name.clone(), partition.partition_index));
            }
        }
    }
    twice
}

/// Offset, timestamp and leader epoch; -1 where there is none.
struct Listed {
    offset: Offset,
    timestamp: Millis,
    leader_epoch: LeaderEpoch,
}

/// How a client asks.
#[derive(Clone, Copy)]
struct Ask {
    isolation: Isolation,
    version: i16,
    /// Until when it waits for the remote tier.
    deadline: Option<Instant>,
}

/// Until when a request waits for the remote tier (KIP-1075); until it answers, if the client does not say.
fn deadline(version: i16, timeout_ms: i32) -> Option<Instant> {
    let timeout = u64::try_from(timeout_ms).ok().filter(|ms| *ms > 0 && version >= WAITS)?;
    Some(Instant::now() + Duration::from_millis(timeout))
}

/// What the remote tier answers in time.
async fn in_time<T>(deadline: Option<Instant>, remote: impl Future<Output = T>) -> Result<T, ErrorCode> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, remote).await.map_err(|_| ErrorCode::RequestTimedOut),
        None => Ok(remote.await),
    }
}

/// Searches the local log on the cold runtime: what is found has to be decompressed, and produce and tail reads do not
/// queue behind that.
async fn search<T: Send + 'static>(
    services: &Services,
    search: impl Future<Output = Result<T, ReadError>> + Send + 'static,
) -> Result<T, ErrorCode> {
    match services.spawner.spawn_cold(search).await {
        Ok(found) => found.map_err(|error| read_code(&error)),
        Err(_) => Err(ErrorCode::UnknownServerError),
    }
}

async fn one(
    services: &Arc<Services>,
    partition: &PartitionHandle,
    wanted: &ListOffsetsPartition,
    ask: Ask,
) -> Result<Listed, ErrorCode> {
    let Ask { isolation, version, .. } = ask;
    let known = (wanted.current_leader_epoch >= 0).then_some(wanted.current_leader_epoch);
    partition.check_leader(known).map_err(|error| read_code(&error))?;
    let ends = partition.offsets();
    let at = |offset: Offset| Listed { offset, timestamp: -1, leader_epoch: partition.epoch_at(offset).unwrap_or(-1) };
    let supported = match wanted.timestamp {
        MAX_TIMESTAMP => version >= 7,
        EARLIEST_LOCAL => version >= 8,
        LATEST_TIERED => version >= 9,
        timestamp => timestamp >= EARLIEST,
    };
    if !supported {
        return Err(ErrorCode::UnsupportedVersion);
    }
    // The last leader may have shown more than this one knows to be committed.
    let settled = |listed: Listed| {
        if (listed.offset >= 0 && wanted.timestamp != LATEST) || partition.watermark_is_known() {
            return Ok(listed);
        }
        let known = version >= KNOWS_UNAVAILABLE;
        Err(if known { ErrorCode::OffsetNotAvailable } else { ErrorCode::LeaderNotAvailable })
    };
    Ok(match wanted.timestamp {
        LATEST if isolation == Isolation::ReadCommitted => settled(at(ends.last_stable))?,
        LATEST => settled(at(ends.high_watermark))?,
        EARLIEST => at(ends.log_start),
        EARLIEST_LOCAL => at(ends.local_start.max(ends.log_start)),
        LATEST_TIERED if ends.tier_end > ends.log_start => at(ends.tier_end - 1),
        LATEST_TIERED => Listed { offset: -1, timestamp: -1, leader_epoch: -1 },
        MAX_TIMESTAMP => settled(found(newest(services, partition, ask).await?))?,
        timestamp => settled(found(first_since(services, partition, timestamp, ask).await?))?,
    })
}

fn found(record: Option<TimestampOffset>) -> Listed {
    record.map_or(Listed { offset: -1, timestamp: -1, leader_epoch: -1 }, |record| Listed {
        offset: record.offset,
        timestamp: record.timestamp,
        leader_epoch: record.leader_epoch,
    })
}

/// The first record at or after `timestamp`, in the tier or on disk.
async fn first_since(
    services: &Arc<Services>,
    partition: &PartitionHandle,
    timestamp: Millis,
    ask: Ask,
) -> Result<Option<TimestampOffset>, ErrorCode> {
    let isolation = ask.isolation;
    let log = partition.clone();
    let local = search(services, async move { log.offset_for_timestamp(timestamp, isolation).await }).await?;
    match local {
        TimestampAnswer::Found(record) => return Ok(Some(record)),
        TimestampAnswer::None => return Ok(None),
        TimestampAnswer::Remote => {}
    }
    let tp = partition.tp();
    if let Some(pointer) = services.controller.image().tier(tp).cloned() {
        let cold = services.remote.offset_for_timestamp(tp, &pointer, timestamp);
        let cold = in_time(ask.deadline, cold).await?.map_err(|error| {
            tracing::warn!(partition = %tp, %error, "searching the remote tier by time failed");
            ErrorCode::KafkaStorageError
        })?;
        if let Some(record) = cold {
            return Ok(Some(TimestampOffset {
                offset: record.offset,
                timestamp: record.timestamp,
                leader_epoch: record.leader_epoch,
            }));
        }
    }
    let log = partition.clone();
    search(services, async move { log.offset_for_timestamp_local(timestamp, isolation).await }).await
}

/// The record with the largest timestamp; of several, the first.
async fn newest(
    services: &Arc<Services>,
    partition: &PartitionHandle,
    ask: Ask,
) -> Result<Option<TimestampOffset>, ErrorCode> {
    let log = partition.clone();
    let local = search(services, async move { log.max_timestamp(ask.isolation).await }).await?;
    let tp = partition.tp();
    let Some(pointer) = services.controller.image().tier(tp).cloned() else { return Ok(local) };
    let cold_max = in_time(ask.deadline, services.remote.max_timestamp(tp, &pointer)).await?;
    let Some(cold_max) = cold_max.map_err(|_| ErrorCode::KafkaStorageError)? else { return Ok(local) };
    if local.is_some_and(|record| record.timestamp > cold_max.timestamp) {
        return Ok(local);
    }
    Ok(Some(TimestampOffset {
        offset: cold_max.offset,
        timestamp: cold_max.timestamp,
        leader_epoch: cold_max.leader_epoch,
    }))
}

fn answer(partition_index: i32, found: Result<Listed, ErrorCode>, version: i16) -> ListOffsetsPartitionResponse {
    match found {
        Ok(listed) => ListOffsetsPartitionResponse {
            partition_index,
            error_code: 0,
            timestamp: listed.timestamp,
            offset: listed.offset,
            leader_epoch: if version >= NAMES_EPOCH { listed.leader_epoch } else { -1 },
        },
        Err(code) => ListOffsetsPartitionResponse {
            partition_index,
            error_code: code.code(),
            timestamp: -1,
            offset: -1,
            leader_epoch: -1,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::wire::Encoder;

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_the_tier_as_long_as_it_says() {
        let late = || tokio::time::sleep(Duration::from_secs(60));
        assert_eq!(in_time(deadline(10, 59_000), late()).await, Err(ErrorCode::RequestTimedOut));
        assert_eq!(in_time(deadline(10, 61_000), late()).await, Ok(()));
        assert_eq!(in_time(deadline(10, 0), late()).await, Ok(()), "it did not say");
        assert_eq!(in_time(deadline(9, 1), late()).await, Ok(()), "it could not say");
    }

    #[test]
    fn an_answer_fits_the_version_it_is_asked_in() {
        for version in 1..=10 {
            let listed = Listed { offset: 7, timestamp: 9, leader_epoch: 3 };
            let partitions = vec![answer(0, Ok(listed), version)];
            assert_eq!(partitions[0].leader_epoch, if version >= 4 { 3 } else { -1 });
            let topics = vec![ListOffsetsTopicResponse { name: "t".to_owned(), partitions }];
            let response = ListOffsetsResponse { topics, ..Default::default() };
            response.encode(&mut Encoder::frame(), version).expect("every version can be written");
        }
    }
}
