//! From what a request names to the partition that serves it.

use super::services::Services;
use crate::partition::PartitionHandle;
use proto::errors::ErrorCode;
use proto::ids::{DirectoryId, NodeId, TopicId, TopicPartition};
use proto::metadata::{Image, PartitionState, Topic};
use std::sync::Arc;
use uuid::Uuid;

/// A topic by name.
pub(super) fn topic_named<'a>(image: &'a Image, name: &str) -> Result<&'a Arc<Topic>, ErrorCode> {
    image.topic_named(name).ok_or(ErrorCode::UnknownTopicOrPartition)
}

/// A topic by id.
pub(super) fn topic_with_id(image: &Image, id: Uuid) -> Result<&Arc<Topic>, ErrorCode> {
    image.topic(TopicId(id)).ok_or(ErrorCode::UnknownTopicId)
}

/// The partition of a topic that exists, if this broker holds it.
pub(super) fn held(services: &Services, topic: &Topic, partition: i32) -> Result<PartitionHandle, ErrorCode> {
    let state = topic.partition(partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let tp = TopicPartition { topic: topic.id, partition };
    services.partitions.get(tp).ok_or_else(|| match directory_of(services.node_id, state) {
        Some(directory) if !services.partitions.online_directories().contains(&directory) => {
            ErrorCode::KafkaStorageError
        }
        Some(_) | None => ErrorCode::NotLeaderOrFollower,
    })
}

/// The data directory in which `node` keeps a partition; none if it does not.
pub(crate) fn directory_of(node: NodeId, state: &PartitionState) -> Option<DirectoryId> {
    let at = state.replicas.iter().position(|replica| *replica == node)?;
    state.directories.get(at).copied()
}
