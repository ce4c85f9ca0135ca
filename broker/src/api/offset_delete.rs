//! OffsetDelete (KIP-496): a group forgets offsets of topics it does not read any more.

use super::Context;
use super::partitions::topic_named;
use crate::group::types::{GroupError, NamedPartition};
use proto::errors::ErrorCode;
use proto::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use proto::messages::{OffsetDeleteRequest, OffsetDeleteResponse};
use std::collections::HashMap;

/// Answers for each partition, or for the group as a whole.
pub(super) async fn handle(context: &Context<'_>, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let image = context.services.controller.image();
    let exists =
        |(name, index): &NamedPartition| topic_named(&image, name).is_ok_and(|topic| topic.partition(*index).is_some());
    let asked: Vec<NamedPartition> = request
        .topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|one| (topic.name.clone(), one.partition_index)))
        .collect();
    let known = asked.iter().filter(|partition| exists(partition)).cloned().collect();
    let answers: HashMap<NamedPartition, Result<(), GroupError>> =
        match context.services.groups.delete_offsets(&request.group_id, known).await {
            Ok(answers) => answers.into_iter().collect(),
            Err(error) => return OffsetDeleteResponse { error_code: error.code().code(), ..Default::default() },
        };
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|one| {
            let code = match answers.get(&(topic.name.clone(), one.partition_index)) {
                Some(answer) => answer.map_or_else(GroupError::code, |()| ErrorCode::None),
                None => ErrorCode::UnknownTopicOrPartition,
            };
            OffsetDeleteResponsePartition { partition_index: one.partition_index, error_code: code.code() }
        });
        OffsetDeleteResponseTopic { partitions: partitions.collect(), name: topic.name.clone() }
    });
    OffsetDeleteResponse { topics: topics.collect(), ..Default::default() }
}
