//! DescribeLogDirs (KIP-113, KIP-827): what lies in which data directory.

use super::Context;
use proto::errors::ErrorCode;
use proto::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use proto::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
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
