//! Offsets: committed, deleted, expired; and the end of a group.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proto::ids::Millis;

use super::super::records::{GroupRecord, MemberRecord, MetadataRecord, subscribed_topics};
use super::super::types::{Commit, CommittedOffset, GroupError, GroupState, NamedPartition};
use super::member::Member;
use super::{Command, Group, Now, Ticket, Write};
use crate::config::GroupConfig;

/// Protocol type of groups whose members say which topics they read.
const CONSUMER: &str = "consumer";

impl Group {
    pub(super) fn commit(
        &mut self,
        config: &GroupConfig,
        now: Now,
        ticket: Ticket,
        commit: Commit,
        out: &mut Vec<Command>,
    ) {
        if let Err(error) = self.check_commit(now, &commit) {
            let answer = commit.offsets.into_iter().map(|(partition, _)| (partition, Err(error))).collect();
            out.push(Command::Committed(ticket, answer));
            return;
        }
        let mut offsets = BTreeMap::new();
        let mut answer = Vec::with_capacity(commit.offsets.len());
        for (partition, asked) in commit.offsets {
            if asked.metadata.len() > config.offset_metadata_max_bytes {
                answer.push((partition, Err(GroupError::OffsetMetadataTooLarge)));
                continue;
            }
            let committed = CommittedOffset {
                offset: asked.offset,
                leader_epoch: asked.leader_epoch,
                metadata: asked.metadata,
                commit_timestamp: now.wall,
                expire_timestamp: commit.retention_ms.map(|keep| now.wall.saturating_add(keep)),
            };
            offsets.insert(partition.clone(), committed);
            answer.push((partition, Ok(())));
        }
        if offsets.is_empty() {
            out.push(Command::Committed(ticket, answer));
            return;
        }
        let records = offsets
            .iter()
            .map(|((topic, partition), offset)| GroupRecord::Offset {
                group: self.id.clone(),
                topic: topic.clone(),
                partition: *partition,
                offset: Some(offset.clone()),
            })
            .collect();
        self.write(records, Write::Offsets { ticket: Some((ticket, answer)), offsets }, out);
    }

    fn check_commit(&mut self, now: Now, commit: &Commit) -> Result<(), GroupError> {
        if self.is_dead() {
            return Err(GroupError::NotAvailable);
        }
        // Who manages its partitions itself may commit while nobody shares them.
        if commit.generation < 0 && self.state == GroupState::Empty {
            return Ok(());
        }
        let id = self.known_member(&commit.member)?;
        if commit.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if self.state == GroupState::CompletingRebalance {
            return Err(GroupError::RebalanceInProgress);
        }
        if let Some(member) = self.members.get_mut(&id)
            && member.joining.is_none()
        {
            member.heard(now);
        }
        Ok(())
    }

    pub(super) fn delete_offsets(&mut self, ticket: Ticket, asked: Vec<NamedPartition>, out: &mut Vec<Command>) {
        let in_use = match self.offsets_in_use() {
            Ok(in_use) => in_use,
            Err(error) => {
                out.push(Command::OffsetsDeleted(ticket, Err(error)));
                return;
            }
        };
        let answer: Vec<_> = asked
            .into_iter()
            .map(|partition| {
                let used = in_use.contains(&partition.0);
                (partition, if used { Err(GroupError::SubscribedToTopic) } else { Ok(()) })
            })
            .collect();
        let gone: BTreeSet<NamedPartition> = answer
            .iter()
            .filter(|(partition, one)| one.is_ok() && self.has_offset(partition))
            .map(|(partition, _)| partition.clone())
            .collect();
        if gone.is_empty() {
            out.push(Command::OffsetsDeleted(ticket, Ok(answer)));
            return;
        }
        self.forget_offsets(gone, Some((ticket, answer)), out);
    }

    /// Topics whose offsets may not be deleted because members read them.
    fn offsets_in_use(&self) -> Result<BTreeSet<String>, GroupError> {
        if self.is_dead() {
            return Err(GroupError::NotFound);
        }
        if self.state == GroupState::Empty {
            return Ok(BTreeSet::new());
        }
        match self.subscribed() {
            Some(topics) => Ok(topics),
            None => Err(GroupError::NotEmpty),
        }
    }

    /// Topics that members of a consumer group read, as far as they can be told.
    fn subscribed(&self) -> Option<BTreeSet<String>> {
        if self.protocol_type.as_deref() != Some(CONSUMER) {
            return None;
        }
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            for (_, metadata) in &member.protocols {
                topics.extend(subscribed_topics(metadata.clone())?);
            }
        }
        Some(topics)
    }

    /// Whether an offset is committed, or on its way to be.
    fn has_offset(&self, partition: &NamedPartition) -> bool {
        self.offsets.contains_key(partition)
            || self.writes.values().any(|write| match write {
                Write::Offsets { offsets, .. } => offsets.contains_key(partition),
                _ => false,
            })
    }

    fn forget_offsets(
        &mut self,
        partitions: BTreeSet<NamedPartition>,
        ticket: Option<(Ticket, super::PerPartition)>,
        out: &mut Vec<Command>,
    ) {
        let records = self.offset_tombstones(&partitions);
        self.write(records, Write::OffsetsGone { ticket, partitions }, out);
    }

    fn offset_tombstones(&self, partitions: &BTreeSet<NamedPartition>) -> Vec<GroupRecord> {
        partitions
            .iter()
            .map(|(topic, partition)| GroupRecord::Offset {
                group: self.id.clone(),
                topic: topic.clone(),
                partition: *partition,
                offset: None,
            })
            .collect()
    }

    /// Offsets that are committed or on their way to be.
    fn all_offsets(&self) -> BTreeSet<NamedPartition> {
        let pending = self.writes.values().flat_map(|write| match write {
            Write::Offsets { offsets, .. } => offsets.keys().cloned().collect::<Vec<_>>(),
            _ => Vec::new(),
        });
        self.offsets.keys().cloned().chain(pending).collect()
    }

    pub(super) fn delete(&mut self, ticket: Ticket, out: &mut Vec<Command>) {
        let refused = if self.is_dead() {
            Some(GroupError::NotFound)
        } else if self.state != GroupState::Empty {
            Some(GroupError::NotEmpty)
        } else {
            None
        };
        match refused {
            Some(error) => out.push(Command::Deleted(ticket, Err(error))),
            None => self.end(Some(ticket), out),
        }
    }

    fn end(&mut self, ticket: Option<Ticket>, out: &mut Vec<Command>) {
        let mut records = self.offset_tombstones(&self.all_offsets());
        records.push(GroupRecord::Metadata { group: self.id.clone(), metadata: None });
        self.deleting = true;
        self.write(records, Write::Gone { ticket }, out);
    }

    pub(super) fn topics_deleted(&mut self, topics: &BTreeSet<String>, out: &mut Vec<Command>) {
        let gone: BTreeSet<NamedPartition> =
            self.all_offsets().into_iter().filter(|(topic, _)| topics.contains(topic)).collect();
        if !gone.is_empty() {
            self.forget_offsets(gone, None, out);
        }
    }

    /// Offsets expire some time after the group lost its last member, or, if nobody reads their topic
    /// any more, after they were committed (KIP-211, KIP-496). A group with neither members nor offsets ends.
    pub(super) fn expire(&mut self, config: &GroupConfig, now: Now, out: &mut Vec<Command>) {
        if self.is_dead() || !self.writes.is_empty() {
            return;
        }
        let subscribed = self.subscribed().unwrap_or_default();
        let expired: BTreeSet<NamedPartition> = self
            .offsets
            .iter()
            .filter(|((topic, _), offset)| {
                let since = self.unused_since(&subscribed, topic, offset);
                offset.expire_timestamp.map_or_else(
                    || since.is_some_and(|since| now.wall.saturating_sub(since) >= config.offsets_retention_ms),
                    |at| since.is_some() && now.wall >= at,
                )
            })
            .map(|(partition, _)| partition.clone())
            .collect();
        if self.state == GroupState::Empty && self.pending.is_empty() && expired.len() == self.offsets.len() {
            self.end(None, out);
        } else if !expired.is_empty() {
            self.forget_offsets(expired, None, out);
        }
    }

    /// Since when nobody needs an offset; none while someone does.
    fn unused_since(&self, subscribed: &BTreeSet<String>, topic: &str, offset: &CommittedOffset) -> Option<Millis> {
        match (self.state, self.protocol_type.as_deref()) {
            // Committed by one that manages its partitions itself.
            (GroupState::Empty, None) => Some(offset.commit_timestamp),
            (GroupState::Empty, Some(_)) => Some(self.since.max(offset.commit_timestamp)),
            (GroupState::Stable, Some(CONSUMER)) if !subscribed.is_empty() && !subscribed.contains(topic) => {
                Some(offset.commit_timestamp)
            }
            _ => None,
        }
    }

    /// The record that tells of this group, with these assignments or else those its members have.
    pub(super) fn record(&self, now: Now, assignments: Option<&BTreeMap<String, Bytes>>) -> GroupRecord {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self
            .members
            .values()
            .map(|member| MemberRecord {
                member: member.reference(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                session_timeout_ms: member.session_timeout_ms,
                subscription: member.metadata(protocol),
                assignment: assignments
                    .map_or_else(|| Some(member.assignment.clone()), |given| given.get(&member.id).cloned())
                    .unwrap_or_default(),
            })
            .collect();
        GroupRecord::Metadata {
            group: self.id.clone(),
            metadata: Some(MetadataRecord {
                protocol_type: self.protocol_type.clone().unwrap_or_default(),
                generation: self.generation,
                protocol: self.protocol.clone(),
                leader: self.leader.clone(),
                since: now.wall,
                members,
            }),
        }
    }

    /// A group as its record tells it. Members have a whole session to be heard of.
    pub(crate) fn load(id: String, metadata: MetadataRecord, now: Now) -> Self {
        let mut group = Self::new(id, now);
        let protocol = metadata.protocol.clone().unwrap_or_default();
        for record in metadata.members {
            let MemberRecord { member, client_id, client_host, .. } = record;
            if let Some(instance) = &member.instance_id {
                group.instances.insert(instance.clone(), member.member_id.clone());
            }
            let loaded = Member {
                id: member.member_id.clone(),
                instance_id: member.instance_id,
                client_id,
                client_host,
                rebalance_timeout_ms: record.rebalance_timeout_ms,
                session_timeout_ms: record.session_timeout_ms,
                protocols: vec![(protocol.clone(), record.subscription)],
                assignment: record.assignment,
                joining: None,
                syncing: None,
                expires: Some(now.tick + Millis::from(record.session_timeout_ms)),
            };
            group.members.insert(member.member_id, loaded);
        }
        group.state = if group.members.is_empty() { GroupState::Empty } else { GroupState::Stable };
        group.since = metadata.since;
        group.generation = metadata.generation;
        group.protocol_type = Some(metadata.protocol_type).filter(|kind| !kind.is_empty());
        group.protocol = metadata.protocol;
        group.leader = metadata.leader;
        group
    }

    /// An offset as its record tells it.
    pub(crate) fn load_offset(&mut self, partition: NamedPartition, offset: CommittedOffset) {
        self.offsets.insert(partition, offset);
    }
}
