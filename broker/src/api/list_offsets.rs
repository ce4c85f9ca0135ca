//! ListOffsets: where a partition begins and ends, and where a time lies in it (KIP-79, KIP-405, KIP-734, KIP-1005).

use super::Context;
use super::errors::read_code;
use super::partitions::{held, topic_named};
use super::services::Services;
use crate::partition::PartitionHandle;
use crate::partition::types::{Isolation, TimestampAnswer, TimestampOffset};
use proto::errors::ErrorCode;
use proto::ids::{LeaderEpoch, Millis, Offset};
use proto::messages::list_offsets_request::ListOffsetsPartition;
use proto::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use proto::messages::{ListOffsetsRequest, ListOffsetsResponse};
use std::collections::HashSet;
use std::sync::Arc;

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

/// Answers one offset per partition asked for.
pub(super) async fn handle(context: &Context<'_>, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let services = context.services;
    let image = services.controller.image();
    let isolation = if request.isolation_level == 1 { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
    let mut topics = Vec::with_capacity(request.topics.len());
    let twice = named_twice(&request);
    for asked in request.topics {
        let topic = topic_named(&image, &asked.name).cloned();
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for wanted in asked.partitions {
            let found = match &topic {
                _ if twice.contains(&(asked.name.clone(), wanted.partition_index)) => Err(ErrorCode::InvalidRequest),
                Ok(topic) => match held(services, topic, wanted.partition_index) {
                    Ok(partition) => one(services, &partition, &wanted, isolation, context.caller.version).await,
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

async fn one(
    services: &Arc<Services>,
    partition: &PartitionHandle,
    wanted: &ListOffsetsPartition,
    isolation: Isolation,
    version: i16,
) -> Result<Listed, ErrorCode> {
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
    Ok(match wanted.timestamp {
        LATEST if isolation == Isolation::ReadCommitted => at(ends.last_stable),
        LATEST => at(ends.high_watermark),
        EARLIEST => at(ends.log_start),
        EARLIEST_LOCAL => at(ends.local_start.max(ends.log_start)),
        LATEST_TIERED if ends.tier_end > ends.log_start => at(ends.tier_end - 1),
        LATEST_TIERED => Listed { offset: -1, timestamp: -1, leader_epoch: -1 },
        MAX_TIMESTAMP => found(newest(services, partition, isolation).await?),
        timestamp => found(first_since(services, partition, timestamp, isolation).await?),
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
    isolation: Isolation,
) -> Result<Option<TimestampOffset>, ErrorCode> {
    let local = partition.offset_for_timestamp(timestamp, isolation).await.map_err(|error| read_code(&error))?;
    match local {
        TimestampAnswer::Found(record) => return Ok(Some(record)),
        TimestampAnswer::None => return Ok(None),
        TimestampAnswer::Remote => {}
    }
    let tp = partition.tp();
    if let Some(pointer) = services.controller.image().tier(tp).cloned() {
        let cold = services.remote.offset_for_timestamp(tp, &pointer, timestamp).await.map_err(|error| {
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
    partition.offset_for_timestamp_local(timestamp, isolation).await.map_err(|error| read_code(&error))
}

/// The record with the largest timestamp; of several, the first.
async fn newest(
    services: &Arc<Services>,
    partition: &PartitionHandle,
    isolation: Isolation,
) -> Result<Option<TimestampOffset>, ErrorCode> {
    let local = partition.max_timestamp(isolation).await.map_err(|error| read_code(&error))?;
    let tp = partition.tp();
    let Some(pointer) = services.controller.image().tier(tp).cloned() else { return Ok(local) };
    let Some(cold_max) = services.remote.max_timestamp(tp, &pointer).await.map_err(|_| ErrorCode::KafkaStorageError)?
    else {
        return Ok(local);
    };
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
