//! OffsetCommit: a group's positions; from version 10 by topic ids (KIP-848).

use super::Context;
use super::partitions::{topic_named, topic_with_id};
use crate::group::types::{Commit, GroupError, MemberRef, NamedPartition, OffsetToCommit};
use proto::errors::ErrorCode;
use proto::messages::offset_commit_request::OffsetCommitRequestTopic;
use proto::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use proto::messages::{OffsetCommitRequest, OffsetCommitResponse};
use proto::metadata::{Image, Topic};
use std::collections::HashMap;
use std::sync::Arc;

/// From this version on topics are named by id.
const BY_ID: i16 = 10;
/// From this version on a client that claims a generation of a group nobody knows is told so (KIP-848).
const NOT_FOUND: i16 = 9;

/// Answers for each partition, once its offset is as safe as an acknowledged record.
pub(super) async fn handle(context: &Context<'_>, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let image = context.services.controller.image();
    let by_id = context.caller.version >= BY_ID;
    let mut offsets = Vec::new();
    let mut refused: HashMap<(usize, i32), ErrorCode> = HashMap::new();
    let mut names = Vec::with_capacity(request.topics.len());
    for (at, asked) in request.topics.iter().enumerate() {
        let topic = find(&image, asked, by_id);
        names.push(topic.as_ref().map_or_else(|_| asked.name.clone(), |topic| topic.name.to_string()));
        for partition in &asked.partitions {
            let index = partition.partition_index;
            let exists = topic.and_then(|topic| topic.partition(index).ok_or(ErrorCode::UnknownTopicOrPartition));
            match (exists, names.last()) {
                (Ok(_), Some(name)) => offsets.push((
                    (name.clone(), index),
                    OffsetToCommit {
                        offset: partition.committed_offset,
                        leader_epoch: partition.committed_leader_epoch,
                        metadata: partition.committed_metadata.clone().unwrap_or_default(),
                    },
                )),
                (exists, _) => {
                    refused.insert((at, index), exists.err().unwrap_or(ErrorCode::UnknownServerError));
                }
            }
        }
    }
    let commit = Commit {
        member: MemberRef { member_id: request.member_id, instance_id: request.group_instance_id },
        generation: request.generation_id_or_member_epoch,
        retention_ms: Some(request.retention_time_ms).filter(|keep| *keep >= 0),
        offsets,
    };
    let answers: HashMap<NamedPartition, Result<(), GroupError>> =
        context.services.groups.commit(&request.group_id, commit).await.into_iter().collect();
    let topics = request.topics.iter().zip(names).enumerate().map(|(at, (asked, name))| {
        let partitions = asked.partitions.iter().map(|partition| {
            let index = partition.partition_index;
            let code =
                refused.get(&(at, index)).copied().unwrap_or_else(|| match answers.get(&(name.clone(), index)) {
                    Some(Err(GroupError::NotFound)) if context.caller.version < NOT_FOUND => {
                        ErrorCode::IllegalGeneration
                    }
                    Some(Err(GroupError::TooLarge)) => ErrorCode::InvalidCommitOffsetSize,
                    Some(answer) => answer.map_or_else(GroupError::code, |()| ErrorCode::None),
                    None => ErrorCode::UnknownServerError,
                });
            OffsetCommitResponsePartition { partition_index: index, error_code: code.code() }
        });
        OffsetCommitResponseTopic {
            partitions: partitions.collect(),
            name: asked.name.clone(),
            topic_id: asked.topic_id,
        }
    });
    OffsetCommitResponse { topics: topics.collect(), ..Default::default() }
}

fn find<'a>(image: &'a Image, asked: &OffsetCommitRequestTopic, by_id: bool) -> Result<&'a Arc<Topic>, ErrorCode> {
    if by_id { topic_with_id(image, asked.topic_id) } else { topic_named(image, &asked.name) }
}
