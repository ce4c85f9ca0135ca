//! DescribeLogDirs (KIP-113, KIP-827): what lies in which data directory; and AlterReplicaLogDirs, which moves nothing: a replica stays in
//! the directory it was made in.

use super::Context;
use proto::errors::ErrorCode;
use proto::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use proto::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use proto::messages::{
    AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse, DescribeLogDirsRequest, DescribeLogDirsResponse,
};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Answers every data directory with the partitions asked for: all of them when the list is null.
pub(super) async fn handle(context: &Context<'_>, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let services = context.services;
    let image = services.controller.image();
    let wanted = request.topics.map(|topics| {
        let mut wanted: HashMap<String, HashSet<i32>> = HashMap::new();
        for topic in topics {
            wanted.entry(topic.topic).or_default().extend(topic.partitions);
        }
        wanted
    });
    let mut results = Vec::new();
    for directory in services.partitions.directories().await {
        let mut topics: BTreeMap<String, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
        for partition in &directory.partitions {
            let tp = partition.tp();
            let Some(topic) = image.topic(tp.topic) else { continue };
            let asked = wanted.as_ref().is_none_or(|wanted| {
                wanted.get(&*topic.name).is_some_and(|partitions| partitions.contains(&tp.partition))
            });
            if asked {
                topics.entry(topic.name.to_string()).or_default().push(DescribeLogDirsPartition {
                    partition_index: tp.partition,
                    partition_size: i64::try_from(partition.size_bytes()).unwrap_or(i64::MAX),
                    offset_lag: 0,
                    is_future_key: false,
                });
            }
        }
        let error = if directory.online { ErrorCode::None } else { ErrorCode::KafkaStorageError };
        results.push(DescribeLogDirsResult {
            error_code: error.code(),
            log_dir: directory.path,
            topics: topics
                .into_iter()
                .map(|(name, mut partitions)| {
                    partitions.sort_by_key(|partition| partition.partition_index);
                    DescribeLogDirsTopic { name, partitions }
                })
                .collect(),
            total_bytes: directory.total_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
            usable_bytes: directory.usable_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
            ..Default::default()
        });
    }
    DescribeLogDirsResponse { results, ..Default::default() }
}

/// Says of each replica that it is where it is asked to be, or why it does not go there.
pub(super) async fn alter(context: &Context<'_>, request: AlterReplicaLogDirsRequest) -> AlterReplicaLogDirsResponse {
    let services = context.services;
    let image = services.controller.image();
    let directories = services.partitions.directories().await;
    let mut results: BTreeMap<String, Vec<AlterReplicaLogDirPartitionResult>> = BTreeMap::new();
    for dir in request.dirs {
        let known = directories.iter().find(|directory| directory.path == dir.path);
        for topic in dir.topics {
            let id = image.topic_named(&topic.name).map(|topic| topic.id);
            let answers = topic.partitions.into_iter().map(|partition| {
                let is_here = |directory: &crate::partition::Directory| {
                    directory.partitions.iter().any(|p| Some(p.tp().topic) == id && p.tp().partition == partition)
                };
                let error = match known {
                    None => ErrorCode::LogDirNotFound,
                    Some(directory) if is_here(directory) => ErrorCode::None,
                    Some(_) if directories.iter().any(is_here) => ErrorCode::PolicyViolation,
                    Some(_) => ErrorCode::ReplicaNotAvailable,
                };
                AlterReplicaLogDirPartitionResult { partition_index: partition, error_code: error.code() }
            });
            results.entry(topic.name).or_default().extend(answers);
        }
    }
    let result = |(topic_name, partitions)| AlterReplicaLogDirTopicResult { topic_name, partitions };
    AlterReplicaLogDirsResponse { results: results.into_iter().map(result).collect(), ..Default::default() }
}
