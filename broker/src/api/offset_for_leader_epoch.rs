//! OffsetForLeaderEpoch (KIP-101, KIP-320): where a leader epoch ends, so that a reader can tell whether its history is ours.

use super::Context;
use super::errors::read_code;
use super::partitions::{held, topic_named};
use proto::errors::ErrorCode;
use proto::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use proto::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

/// Answers the end of each epoch asked for; -1 where the epoch is not known.
pub(super) async fn handle(
    context: &Context<'_>,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let services = context.services;
    let image = services.controller.image();
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let topic = topic_named(&image, &asked.topic);
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for wanted in asked.partitions {
            let known = (wanted.current_leader_epoch >= 0).then_some(wanted.current_leader_epoch);
            let end = topic.and_then(|topic| held(services, topic, wanted.partition)).and_then(|partition| {
                partition.check_leader(known).map_err(|error| read_code(&error))?;
                Ok(partition.end_of_epoch(wanted.leader_epoch))
            });
            partitions.push(match end {
                Ok(end) => EpochEndOffset {
                    partition: wanted.partition,
                    leader_epoch: end.map_or(-1, |end| end.epoch),
                    end_offset: end.map_or(-1, |end| end.end),
                    ..Default::default()
                },
                Err(code) => EpochEndOffset { error_code: code.code(), partition: wanted.partition, ..unknown() },
            });
        }
        topics.push(OffsetForLeaderTopicResult { topic: asked.topic, partitions });
    }
    OffsetForLeaderEpochResponse { topics, ..Default::default() }
}

fn unknown() -> EpochEndOffset {
    EpochEndOffset { error_code: ErrorCode::None.code(), leader_epoch: -1, end_offset: -1, ..Default::default() }
}
