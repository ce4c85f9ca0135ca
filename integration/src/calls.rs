//! The requests that suites make all the time, about one partition each, with Kafka's error codes as errors.

use crate::client::{Client, ClientError};
use bytes::Bytes;
use proto::errors::ErrorCode;
use proto::ids::Offset;
use proto::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use proto::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use proto::messages::delete_topics_request::DeleteTopicState;
use proto::messages::describe_quorum_request::{PartitionData, TopicData};
use proto::messages::describe_quorum_response;
use proto::messages::fetch_request::{FetchPartition, FetchTopic};
use proto::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use proto::messages::metadata_request::MetadataRequestTopic;
use proto::messages::metadata_response::MetadataResponsePartition;
use proto::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use proto::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use proto::messages::produce_request::{PartitionProduceData, TopicProduceData};
use proto::messages::update_features_request::FeatureUpdateKey;
use proto::messages::{
    ApiVersionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, DescribeQuorumRequest,
    FetchRequest, FindCoordinatorRequest, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest,
    OffsetCommitRequest, OffsetFetchRequest, ProduceRequest, ProduceResponse, UpdateFeaturesRequest,
};
use std::collections::BTreeMap;

/// ListOffsets: the end of what may be read.
pub const LATEST: i64 = -1;
/// ListOffsets: the log start.
pub const EARLIEST: i64 = -2;
/// ListOffsets: the first offset on local disk (KIP-405).
pub const EARLIEST_LOCAL: i64 = -4;
/// ListOffsets: the last offset in the tier, -1 if there is none (KIP-1005).
pub const LATEST_TIERED: i64 = -5;

/// The last version of Produce that names topics instead of giving their ids.
pub const PRODUCE_BY_NAME: i16 = 12;
/// The last version of Fetch that does.
pub const FETCH_BY_NAME: i16 = 12;
/// The last version of OffsetCommit and OffsetFetch that does.
const OFFSETS_BY_NAME: i16 = 9;
/// A version of ApiVersions that tells of features.
const FEATURES_SINCE: i16 = 4;
/// A version of UpdateFeatures that answers once for all.
const RAISED_ALL_OR_NONE: i16 = 2;

/// Acks of a produce request that waits for the in-sync replicas.
pub const ACKS_ALL: i16 = -1;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The answer is an error.
    #[error("{} ({message})", code.name())]
    Refused {
        /// Which.
        code: ErrorCode,
        /// Said with it.
        message: String,
    },
    /// The answer does not speak of what was asked.
    #[error("the answer says nothing of {0}")]
    Missing(String),
}

impl CallError {
    /// The error code, if the broker answered with one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            CallError::Refused { code, .. } => Some(*code),
            CallError::Client(_) | CallError::Missing(_) => None,
        }
    }
}

/// Who leads what, and where they listen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leaders {
    /// Broker → `host:port`.
    pub brokers: BTreeMap<i32, String>,
    /// Topic and partition → broker; negative if nobody leads.
    pub partitions: BTreeMap<(String, i32), i32>,
}

impl Leaders {
    /// Where the leader of a partition listens, if there is one.
    pub fn address(&self, topic: &str, partition: i32) -> Option<&str> {
        let leader = self.partitions.get(&(topic.to_owned(), partition))?;
        self.brokers.get(leader).map(String::as_str)
    }
}

/// A partition, as a broker knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionView {
    /// Who leads; negative if nobody does.
    pub leader: i32,
    /// Who has a replica, the preferred leader first.
    pub replicas: Vec<i32>,
    /// Whose replica is in sync, ascending.
    pub in_sync: Vec<i32>,
}

/// What a fetch brought.
#[derive(Debug)]
pub struct Fetched {
    /// End of what may be read.
    pub high_watermark: Offset,
    /// First offset of the partition.
    pub log_start: Offset,
    /// Whole batches, one after the other.
    pub records: Bytes,
}

fn judge(code: i16, message: Option<&str>) -> Result<(), CallError> {
    match ErrorCode::from_code(code) {
        Some(ErrorCode::None) => Ok(()),
        Some(code) => Err(CallError::Refused { code, message: message.unwrap_or_default().to_owned() }),
        None => Err(CallError::Missing(format!("a known error code: {code}"))),
    }
}

fn first<T>(found: Vec<T>, what: &str) -> Result<T, CallError> {
    found.into_iter().next().ok_or_else(|| CallError::Missing(what.to_owned()))
}

/// One batch for one partition.
pub fn produce_request(topic: &str, partition: i32, acks: i16, batch: Bytes) -> ProduceRequest {
    ProduceRequest {
        acks,
        timeout_ms: 120_000,
        topic_data: vec![TopicProduceData {
            name: topic.to_owned(),
            partition_data: vec![PartitionProduceData { index: partition, records: Some(batch) }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// The base offset that a produce request of one batch was answered with.
///
/// # Errors
/// See [`CallError`].
pub fn produced(answer: ProduceResponse) -> Result<Offset, CallError> {
    let topic = first(answer.responses, "the topic")?;
    let partition = first(topic.partition_responses, "the partition")?;
    judge(partition.error_code, partition.error_message.as_deref())?;
    Ok(partition.base_offset)
}

/// Reads one partition from `offset` on, without a session.
pub fn fetch_request(topic: &str, partition: i32, offset: Offset, max_bytes: i32) -> FetchRequest {
    FetchRequest {
        replica_id: -1,
        max_wait_ms: 10_000,
        min_bytes: 1,
        max_bytes,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: topic.to_owned(),
            partitions: vec![FetchPartition {
                partition,
                current_leader_epoch: -1,
                fetch_offset: offset,
                last_fetched_epoch: -1,
                log_start_offset: -1,
                partition_max_bytes: max_bytes,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

impl Client {
    /// Produces one batch with acks=all; its base offset.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn produce(&mut self, topic: &str, partition: i32, batch: Bytes) -> Result<Offset, CallError> {
        let request = produce_request(topic, partition, ACKS_ALL, batch);
        produced(self.call_in(&request, PRODUCE_BY_NAME).await?)
    }

    /// Reads batches from `offset` on, waiting up to 10 s for the first.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        offset: Offset,
        max_bytes: i32,
    ) -> Result<Fetched, CallError> {
        let answer = self.call_in(&fetch_request(topic, partition, offset, max_bytes), FETCH_BY_NAME).await?;
        judge(answer.error_code, None)?;
        let topic = first(answer.responses, "the topic")?;
        let partition = first(topic.partitions, "the partition")?;
        judge(partition.error_code, None)?;
        Ok(Fetched {
            high_watermark: partition.high_watermark,
            log_start: partition.log_start_offset,
            records: partition.records.unwrap_or_default().to_bytes(),
        })
    }

    /// The offset that ListOffsets names for `timestamp`, which may be one of the special ones.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn offset(&mut self, topic: &str, partition: i32, timestamp: i64) -> Result<Offset, CallError> {
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: topic.to_owned(),
                partitions: vec![ListOffsetsPartition {
                    partition_index: partition,
                    current_leader_epoch: -1,
                    timestamp,
                }],
            }],
            timeout_ms: 30_000,
            ..Default::default()
        };
        let answer = self.call_in(&request, 10).await?;
        let partition = first(first(answer.topics, "the topic")?.partitions, "the partition")?;
        judge(partition.error_code, None)?;
        Ok(partition.offset)
    }

    /// Creates a topic of one replica.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn create_topic(
        &mut self,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> Result<(), CallError> {
        self.create_replicated_topic(name, partitions, 1, configs).await
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn create_replicated_topic(
        &mut self,
        name: &str,
        partitions: i32,
        replication_factor: i16,
        configs: &[(&str, &str)],
    ) -> Result<(), CallError> {
        let configs = configs
            .iter()
            .map(|(name, value)| CreatableTopicConfig { name: (*name).to_owned(), value: Some((*value).to_owned()) });
        let topic = CreatableTopic {
            name: name.to_owned(),
            num_partitions: partitions,
            replication_factor,
            configs: configs.collect(),
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, validate_only: false };
        let created = first(self.call(&request).await?.topics, "the topic")?;
        judge(created.error_code, created.error_message.as_deref())
    }

    /// Deletes a topic.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn delete_topic(&mut self, name: &str) -> Result<(), CallError> {
        let topics = vec![DeleteTopicState { name: Some(name.to_owned()), ..Default::default() }];
        let request = DeleteTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
        let deleted = first(self.call(&request).await?.responses, "the topic")?;
        judge(deleted.error_code, deleted.error_message.as_deref())
    }

    /// Where the brokers listen, by id, and who leads each partition of `topics`: topic, partition, broker, which is negative if
    /// nobody does.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn leaders(&mut self, topics: &[&str]) -> Result<Leaders, CallError> {
        let topics =
            topics.iter().map(|name| MetadataRequestTopic { name: Some((*name).to_owned()), ..Default::default() });
        let request =
            MetadataRequest { topics: Some(topics.collect()), allow_auto_topic_creation: false, ..Default::default() };
        let answer = self.call(&request).await?;
        let brokers =
            answer.brokers.into_iter().map(|broker| (broker.node_id, format!("{}:{}", broker.host, broker.port)));
        let mut partitions = BTreeMap::new();
        for topic in answer.topics {
            let name = topic.name.unwrap_or_default();
            for partition in topic.partitions {
                partitions.insert((name.clone(), partition.partition_index), partition.leader_id);
            }
        }
        Ok(Leaders { brokers: brokers.collect(), partitions })
    }

    /// The partitions of one topic, in their order.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn partitions(&mut self, topic: &str) -> Result<Vec<PartitionView>, CallError> {
        let name = MetadataRequestTopic { name: Some(topic.to_owned()), ..Default::default() };
        let request =
            MetadataRequest { topics: Some(vec![name]), allow_auto_topic_creation: false, ..Default::default() };
        let topic = first(self.call(&request).await?.topics, "the topic")?;
        judge(topic.error_code, None)?;
        let mut partitions = topic.partitions;
        partitions.sort_by_key(|partition| partition.partition_index);
        let view = |partition: MetadataResponsePartition| {
            let mut in_sync = partition.isr_nodes;
            in_sync.sort_unstable();
            PartitionView { leader: partition.leader_id, replicas: partition.replica_nodes, in_sync }
        };
        Ok(partitions.into_iter().map(view).collect())
    }

    /// The leader of the metadata quorum and its epoch.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn quorum_leader(&mut self) -> Result<(i32, i32), CallError> {
        let partition = self.quorum().await?;
        Ok((partition.leader_id, partition.leader_epoch))
    }

    /// What the leader of the metadata quorum says of it.
    async fn quorum(&mut self) -> Result<describe_quorum_response::PartitionData, CallError> {
        let partitions = vec![PartitionData { partition_index: 0 }];
        let topics = vec![TopicData { topic_name: "__cluster_metadata".to_owned(), partitions }];
        let answer = self.call(&DescribeQuorumRequest { topics }).await?;
        judge(answer.error_code, answer.error_message.as_deref())?;
        let partition = first(first(answer.topics, "the topic")?.partitions, "the partition")?;
        judge(partition.error_code, partition.error_message.as_deref())?;
        Ok(partition)
    }

    /// Ids of the nodes that vote in the metadata quorum, in order.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn voters(&mut self) -> Result<Vec<i32>, CallError> {
        let partition = self.quorum().await?;
        let mut voters: Vec<i32> = partition.current_voters.iter().map(|voter| voter.replica_id).collect();
        voters.sort_unstable();
        Ok(voters)
    }

    /// Names of all topics.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn topics(&mut self) -> Result<Vec<String>, CallError> {
        let answer = self
            .call(&MetadataRequest { topics: None, allow_auto_topic_creation: false, ..Default::default() })
            .await?;
        Ok(answer.topics.into_iter().filter_map(|topic| topic.name).collect())
    }

    /// Deletes all records of a partition below `offset`; the log start afterwards.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn delete_records(&mut self, topic: &str, partition: i32, offset: Offset) -> Result<Offset, CallError> {
        let partitions = vec![DeleteRecordsPartition { partition_index: partition, offset }];
        let topics = vec![DeleteRecordsTopic { name: topic.to_owned(), partitions }];
        let answer = self.call(&DeleteRecordsRequest { topics, timeout_ms: 30_000 }).await?;
        let partition = first(first(answer.topics, "the topic")?.partitions, "the partition")?;
        judge(partition.error_code, None)?;
        Ok(partition.low_watermark)
    }

    /// A producer id and epoch for an idempotent producer.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn producer_id(&mut self) -> Result<(i64, i16), CallError> {
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: 60_000,
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        };
        let answer = self.call_in(&request, 4).await?;
        judge(answer.error_code, None)?;
        Ok((answer.producer_id, answer.producer_epoch))
    }

    /// Has the coordinator of a group found, and what it keeps made if this is the first group.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn find_coordinator(&mut self, group: &str) -> Result<(), CallError> {
        self.coordinator(group).await.map(drop)
    }

    /// Where the coordinator of a group listens: `host:port`.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn coordinator(&mut self, group: &str) -> Result<String, CallError> {
        let request = FindCoordinatorRequest { coordinator_keys: vec![group.to_owned()], ..Default::default() };
        let found = first(self.call_in(&request, 4).await?.coordinators, "the group")?;
        judge(found.error_code, found.error_message.as_deref())?;
        Ok(format!("{}:{}", found.host, found.port))
    }

    /// Commits an offset for a group without members, at its coordinator.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn commit_offset(
        &mut self,
        group: &str,
        topic: &str,
        partition: i32,
        offset: Offset,
    ) -> Result<(), CallError> {
        let partition =
            OffsetCommitRequestPartition { partition_index: partition, committed_offset: offset, ..Default::default() };
        let topic =
            OffsetCommitRequestTopic { name: topic.to_owned(), partitions: vec![partition], ..Default::default() };
        let request = OffsetCommitRequest { group_id: group.to_owned(), topics: vec![topic], ..Default::default() };
        let answer = self.call_in(&request, OFFSETS_BY_NAME).await?;
        let partition = first(first(answer.topics, "the topic")?.partitions, "the partition")?;
        judge(partition.error_code, None)
    }

    /// The offset that a group has committed, -1 if there is none, from its coordinator.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn committed_offset(&mut self, group: &str, topic: &str, partition: i32) -> Result<Offset, CallError> {
        let topic = OffsetFetchRequestTopics {
            name: topic.to_owned(),
            partition_indexes: vec![partition],
            ..Default::default()
        };
        let group = OffsetFetchRequestGroup {
            group_id: group.to_owned(),
            member_epoch: -1,
            topics: Some(vec![topic]),
            ..Default::default()
        };
        let request = OffsetFetchRequest { groups: vec![group], ..Default::default() };
        let group = first(self.call_in(&request, OFFSETS_BY_NAME).await?.groups, "the group")?;
        judge(group.error_code, None)?;
        let partition = first(first(group.topics, "the topic")?.partitions, "the partition")?;
        judge(partition.error_code, None)?;
        Ok(partition.committed_offset)
    }

    /// The newest level of a feature that the broker understands, and the level that the cluster has: 0 without.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn feature(&mut self, name: &str) -> Result<(i16, i16), CallError> {
        let request = ApiVersionsRequest {
            client_software_name: "integration".to_owned(),
            client_software_version: "1".to_owned(),
        };
        let answer = self.call_in(&request, FEATURES_SINCE).await?;
        judge(answer.error_code, None)?;
        let newest = answer.supported_features.iter().find(|known| known.name == name);
        let level = answer.finalized_features.iter().find(|known| known.name == name);
        Ok((newest.map_or(0, |known| known.max_version), level.map_or(0, |known| known.max_version_level)))
    }

    /// Raises a feature of the cluster to a level.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn raise_feature(&mut self, name: &str, level: i16) -> Result<(), CallError> {
        let update = FeatureUpdateKey { feature: name.to_owned(), max_version_level: level, ..Default::default() };
        let request = UpdateFeaturesRequest { feature_updates: vec![update], ..Default::default() };
        let answer = self.call_in(&request, RAISED_ALL_OR_NONE).await?;
        judge(answer.error_code, answer.error_message.as_deref())
    }
}
