//! OffsetFetch: where groups have got to; many groups from version 8 (KIP-709), topic ids from version 10.

use super::Context;
use super::services::Services;
use crate::group::types::{CommittedOffset, NamedPartition, OffsetsWanted};
use indexmap::map::Entry;
use indexmap::{IndexMap, IndexSet};
use proto::errors::ErrorCode;
use proto::ids::TopicId;
use proto::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use proto::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use proto::messages::{OffsetFetchRequest, OffsetFetchResponse};
use proto::metadata::Image;
use uuid::Uuid;

/// From this version on a request names many groups.
const MANY_GROUPS: i16 = 8;
/// From this version on topics are named by id.
const BY_ID: i16 = 10;
/// From this version on the answer has an error code for the group.
const GROUP_ERROR: i16 = 2;

/// Answers the offsets of each group, each once, however often it is named: an offset takes four bytes to ask for, and what was
/// committed with it may be thousands of times as long. There are no transactions yet, so that every offset is stable.
pub(super) async fn handle(context: &Context<'_>, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let version = context.caller.version;
    if version >= MANY_GROUPS {
        // One may ask for some offsets of a group and for all of them.
        let mut wanted: IndexMap<(String, bool), OffsetFetchRequestGroup> =
            IndexMap::with_capacity(request.groups.len());
        for group in request.groups {
            match wanted.entry((group.group_id.clone(), group.topics.is_none())) {
                Entry::Vacant(entry) => {
                    entry.insert(group);
                }
                Entry::Occupied(mut entry) => {
                    if let Some(topics) = &mut entry.get_mut().topics {
                        topics.extend(group.topics.unwrap_or_default());
                    }
                }
            }
        }
        let mut groups = Vec::with_capacity(wanted.len());
        for group in wanted.into_values() {
            groups.push(fetch(context.services, group, version).await);
        }
        return OffsetFetchResponse { groups, ..Default::default() };
    }
    let only = OffsetFetchRequestGroup {
        group_id: request.group_id,
        topics: request.topics.map(|topics| {
            let named = topics.into_iter();
            named
                .map(|topic| OffsetFetchRequestTopics {
                    name: topic.name,
                    partition_indexes: topic.partition_indexes,
                    ..Default::default()
                })
                .collect()
        }),
        ..Default::default()
    };
    let asked = only.topics.clone().unwrap_or_default();
    let mut group = fetch(context.services, only, version).await;
    if version < GROUP_ERROR && group.error_code != ErrorCode::None.code() {
        group.topics = failed(asked, group.error_code);
    }
    single(group)
}

/// The answer of the versions that know one group only.
fn single(group: OffsetFetchResponseGroup) -> OffsetFetchResponse {
    let topics = group.topics.into_iter().map(|topic| OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic
            .partitions
            .into_iter()
            .map(|partition| OffsetFetchResponsePartition {
                partition_index: partition.partition_index,
                committed_offset: partition.committed_offset,
                committed_leader_epoch: partition.committed_leader_epoch,
                metadata: partition.metadata,
                error_code: partition.error_code,
            })
            .collect(),
    });
    OffsetFetchResponse { topics: topics.collect(), error_code: group.error_code, ..Default::default() }
}

/// Version 1 had room for the group's error at its partitions only.
fn failed(asked: Vec<OffsetFetchRequestTopics>, code: i16) -> Vec<OffsetFetchResponseTopics> {
    let partition = |index| OffsetFetchResponsePartitions { error_code: code, ..answer(index, None) };
    asked
        .into_iter()
        .map(|topic| OffsetFetchResponseTopics {
            partitions: topic.partition_indexes.into_iter().map(partition).collect(),
            name: topic.name,
            topic_id: topic.topic_id,
        })
        .collect()
}

async fn fetch(services: &Services, group: OffsetFetchRequestGroup, version: i16) -> OffsetFetchResponseGroup {
    let OffsetFetchRequestGroup { group_id, topics: asked, .. } = group;
    let asked = asked.map(once);
    let image = services.controller.image();
    let by_id = version >= BY_ID;
    let answered = match asked {
        None => services.groups.fetch(&group_id, OffsetsWanted::All).await.map(|all| by_topic(&image, all, by_id)),
        Some(asked) => fetch_some(services, &image, &group_id, asked, by_id).await,
    };
    match answered {
        Ok(topics) => OffsetFetchResponseGroup { group_id, topics, error_code: ErrorCode::None.code() },
        Err(error) => OffsetFetchResponseGroup { group_id, topics: Vec::new(), error_code: error.code().code() },
    }
}

/// Each partition of each topic once.
fn once(asked: Vec<OffsetFetchRequestTopics>) -> Vec<OffsetFetchRequestTopics> {
    let mut topics: IndexMap<(String, Uuid), IndexSet<i32>> = IndexMap::with_capacity(asked.len());
    for topic in asked {
        topics.entry((topic.name, topic.topic_id)).or_default().extend(topic.partition_indexes);
    }
    let topics = topics.into_iter().map(|((name, topic_id), partitions)| OffsetFetchRequestTopics {
        name,
        topic_id,
        partition_indexes: partitions.into_iter().collect(),
    });
    topics.collect()
}

async fn fetch_some(
    services: &Services,
    image: &Image,
    group_id: &str,
    asked: Vec<OffsetFetchRequestTopics>,
    by_id: bool,
) -> Result<Vec<OffsetFetchResponseTopics>, crate::group::types::GroupError> {
    let name_of = |topic: &OffsetFetchRequestTopics| {
        if by_id {
            image.topic(TopicId(topic.topic_id)).map(|topic| topic.name.to_string())
        } else {
            Some(topic.name.clone())
        }
    };
    let named: Vec<(Option<String>, OffsetFetchRequestTopics)> =
        asked.into_iter().map(|topic| (name_of(&topic), topic)).collect();
    let wanted: Vec<NamedPartition> = named
        .iter()
        .filter_map(|(name, topic)| Some((name.as_ref()?, topic)))
        .flat_map(|(name, topic)| topic.partition_indexes.iter().map(|index| (name.clone(), *index)))
        .collect();
    let mut offsets = services.groups.fetch(group_id, OffsetsWanted::Of(wanted)).await?.into_iter();
    let mut topics = Vec::with_capacity(named.len());
    for (name, topic) in named {
        let partitions = topic
            .partition_indexes
            .into_iter()
            .map(|index| match name {
                Some(_) => answer(index, offsets.next().and_then(|(_, offset)| offset)),
                None => OffsetFetchResponsePartitions {
                    error_code: ErrorCode::UnknownTopicId.code(),
                    ..answer(index, None)
                },
            })
            .collect();
        topics.push(OffsetFetchResponseTopics { name: topic.name, topic_id: topic.topic_id, partitions });
    }
    Ok(topics)
}

/// Offsets that come sorted by topic. By id, those of topics that are gone cannot be named.
fn by_topic(
    image: &Image,
    offsets: Vec<(NamedPartition, Option<CommittedOffset>)>,
    by_id: bool,
) -> Vec<OffsetFetchResponseTopics> {
    let mut topics: Vec<(String, OffsetFetchResponseTopics)> = Vec::new();
    for ((name, index), offset) in offsets {
        let partition = answer(index, offset);
        if let Some((_, topic)) = topics.last_mut().filter(|(last, _)| *last == name) {
            topic.partitions.push(partition);
            continue;
        }
        let (shown, topic_id) = match (by_id, image.topic_named(&name)) {
            (true, None) => continue,
            (true, Some(topic)) => (String::new(), topic.id.0),
            (false, _) => (name.clone(), Uuid::nil()),
        };
        topics.push((name, OffsetFetchResponseTopics { name: shown, topic_id, partitions: vec![partition] }));
    }
    topics.into_iter().map(|(_, topic)| topic).collect()
}

fn answer(index: i32, offset: Option<CommittedOffset>) -> OffsetFetchResponsePartitions {
    match offset {
        Some(offset) => OffsetFetchResponsePartitions {
            partition_index: index,
            committed_offset: offset.offset,
            committed_leader_epoch: offset.leader_epoch,
            metadata: Some(offset.metadata),
            error_code: ErrorCode::None.code(),
        },
        None => OffsetFetchResponsePartitions {
            partition_index: index,
            committed_offset: -1,
            committed_leader_epoch: -1,
            metadata: Some(String::new()),
            error_code: ErrorCode::None.code(),
        },
    }
}
