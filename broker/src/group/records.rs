//! What groups keep in `__consumer_offsets`, in Kafka's own schemas, so that tools which read that topic
//! keep working.

use std::collections::BTreeSet;

use bytes::Bytes;
use proto::ids::Millis;
use proto::messages::consumer_protocol_subscription::ConsumerProtocolSubscription;
use proto::messages::records::group_metadata_key::GroupMetadataKey;
use proto::messages::records::group_metadata_value::{GroupMetadataValue, MemberMetadata};
use proto::messages::records::legacy_offset_commit_key::LegacyOffsetCommitKey;
use proto::messages::records::offset_commit_key::OffsetCommitKey;
use proto::messages::records::offset_commit_value::OffsetCommitValue;
use proto::messages::records::{RecordKey, RecordValue, split_prefix};
use proto::wire::{Decoder, WireError};

use super::types::{CommittedOffset, MemberRef};

/// Version of group records: static members, not flexible; what Kafka writes.
const GROUP_VERSION: i16 = 3;
/// Version of offset records: leader epoch.
const OFFSET_VERSION: i16 = 3;
/// Version of offset records that carry a time of expiry: the only one that has room for it.
const EXPIRING_OFFSET_VERSION: i16 = 1;

/// A record; without a value it deletes what it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GroupRecord {
    /// The group itself.
    Metadata { group: String, metadata: Option<MetadataRecord> },
    /// A committed offset.
    Offset { group: String, topic: String, partition: i32, offset: Option<CommittedOffset> },
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct MetadataRecord {
    pub(crate) protocol_type: String,
    pub(crate) generation: i32,
    pub(crate) protocol: Option<String>,
    pub(crate) leader: Option<String>,
    /// When it came into its state, Unix ms.
    pub(crate) since: Millis,
    pub(crate) members: Vec<MemberRecord>,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct MemberRecord {
    pub(crate) member: MemberRef,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) session_timeout_ms: i32,
    pub(crate) subscription: Bytes,
    pub(crate) assignment: Bytes,
}

impl GroupRecord {
    /// Key and value.
    ///
    /// # Errors
    /// A string is longer than the schema has room for.
    pub(crate) fn encode(&self) -> Result<(Bytes, Option<Bytes>), WireError> {
        match self {
            Self::Metadata { group, metadata } => {
                let key = GroupMetadataKey { group: group.clone() }.to_bytes()?;
                let value = metadata.as_ref().map(|metadata| group_value(metadata).to_bytes(GROUP_VERSION));
                Ok((key, value.transpose()?))
            }
            Self::Offset { group, topic, partition, offset } => {
                let key = OffsetCommitKey { group: group.clone(), topic: topic.clone(), partition: *partition };
                let value = offset.as_ref().map(|offset| {
                    let version = match offset.expire_timestamp {
                        Some(_) => EXPIRING_OFFSET_VERSION,
                        None => OFFSET_VERSION,
                    };
                    offset_value(offset, version).to_bytes(version)
                });
                Ok((key.to_bytes()?, value.transpose()?))
            }
        }
    }

    /// The record of a key and a value; none if it is not about classic groups.
    ///
    /// # Errors
    /// The bytes are not of Kafka's schemas, or of newer ones.
    pub(crate) fn decode(key: Bytes, value: Option<Bytes>) -> Result<Option<Self>, WireError> {
        let (kind, body) = split_prefix(key)?;
        // Key types 0 and 1 have the same fields.
        let (group, topic, partition) = match kind {
            LegacyOffsetCommitKey::RECORD_TYPE => {
                let key = LegacyOffsetCommitKey::from_body(body)?;
                (key.group, key.topic, key.partition)
            }
            OffsetCommitKey::RECORD_TYPE => {
                let key = OffsetCommitKey::from_body(body)?;
                (key.group, key.topic, key.partition)
            }
            GroupMetadataKey::RECORD_TYPE => {
                let key = GroupMetadataKey::from_body(body)?;
                let value = value.map(GroupMetadataValue::from_bytes).transpose()?;
                return Ok(Some(Self::Metadata { group: key.group, metadata: value.map(metadata_record) }));
            }
            _ => return Ok(None),
        };
        let value = value.map(OffsetCommitValue::from_bytes).transpose()?;
        Ok(Some(Self::Offset { group, topic, partition, offset: value.map(committed_offset) }))
    }
}

fn group_value(metadata: &MetadataRecord) -> GroupMetadataValue {
    GroupMetadataValue {
        protocol_type: metadata.protocol_type.clone(),
        generation: metadata.generation,
        protocol: metadata.protocol.clone(),
        leader: metadata.leader.clone(),
        current_state_timestamp: metadata.since,
        members: metadata
            .members
            .iter()
            .map(|member| MemberMetadata {
                member_id: member.member.member_id.clone(),
                group_instance_id: member.member.instance_id.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                rebalance_timeout: member.rebalance_timeout_ms,
                session_timeout: member.session_timeout_ms,
                subscription: member.subscription.clone(),
                assignment: member.assignment.clone(),
            })
            .collect(),
    }
}

fn metadata_record(value: GroupMetadataValue) -> MetadataRecord {
    MetadataRecord {
        protocol_type: value.protocol_type,
        generation: value.generation,
        protocol: value.protocol,
        leader: value.leader,
        since: value.current_state_timestamp,
        members: value
            .members
            .into_iter()
            .map(|member| MemberRecord {
                member: MemberRef { member_id: member.member_id, instance_id: member.group_instance_id },
                client_id: member.client_id,
                client_host: member.client_host,
                // Version 0 had one timeout for both.
                rebalance_timeout_ms: match member.rebalance_timeout {
                    -1 => member.session_timeout,
                    timeout => timeout,
                },
                session_timeout_ms: member.session_timeout,
                subscription: member.subscription,
                assignment: member.assignment,
            })
            .collect(),
    }
}

fn offset_value(offset: &CommittedOffset, version: i16) -> OffsetCommitValue {
    OffsetCommitValue {
        offset: offset.offset,
        leader_epoch: if version == EXPIRING_OFFSET_VERSION { -1 } else { offset.leader_epoch },
        metadata: offset.metadata.clone(),
        commit_timestamp: offset.commit_timestamp,
        expire_timestamp: offset.expire_timestamp.unwrap_or(-1),
        ..OffsetCommitValue::default()
    }
}

fn committed_offset(value: OffsetCommitValue) -> CommittedOffset {
    CommittedOffset {
        offset: value.offset,
        leader_epoch: value.leader_epoch,
        metadata: value.metadata,
        commit_timestamp: value.commit_timestamp,
        expire_timestamp: Some(value.expire_timestamp).filter(|at| *at >= 0),
    }
}

/// The topics in a consumer's metadata; none if it is not what consumers send.
pub(crate) fn subscribed_topics(metadata: Bytes) -> Option<BTreeSet<String>> {
    let (version, body) = split_prefix(metadata).ok()?;
    // Later versions only add fields behind those of the last one we know.
    let known = version.min(ConsumerProtocolSubscription::VERSIONS.max);
    let subscription = ConsumerProtocolSubscription::decode(&mut Decoder::new(body), known).ok()?;
    Some(subscription.topics.into_iter().collect())
}

/// The partition of `__consumer_offsets` that a group's records are in: Java's `String.hashCode`, made
/// positive as Kafka does, modulo the number of partitions.
pub fn partition_for(group_id: &str, partitions: i32) -> i32 {
    let hash = group_id.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    let positive = if hash == i32::MIN { 0 } else { hash.abs() };
    positive % partitions.max(1)
}

#[cfg(test)]
mod tests;
