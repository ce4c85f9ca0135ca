//! The groups of one partition of `__consumer_offsets`. Pure, like the groups in it.

use std::collections::{BTreeMap, BTreeSet};

use proto::ids::Millis;

use super::core::{Command, Event, Group, Now, member_bytes};
use super::records::{GroupRecord, MetadataRecord};
use super::room::MemberRoom;
use super::types::{
    CommittedOffset, FetchedOffsets, GroupDescription, GroupError, GroupListing, GroupState, JoinRefused,
    NamedPartition, OffsetsWanted,
};
use crate::config::GroupConfig;

/// How often it is said that there is no room.
const SAY_AGAIN_MS: Millis = 60_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Shard {
    groups: BTreeMap<String, Group>,
    /// When groups want to be woken, by the tick clock.
    deadlines: BTreeSet<(Millis, String)>,
    /// The same by group.
    scheduled: BTreeMap<String, Millis>,
    room: MemberRoom,
    /// What the room was told of each group.
    held: BTreeMap<String, usize>,
    /// When it was last said that there is no room, by the tick clock.
    refused: Option<Millis>,
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.room.moved(self.held.values().sum(), 0);
    }
}

impl Shard {
    /// Without groups.
    pub(super) fn new(room: MemberRoom) -> Self {
        Self {
            groups: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            scheduled: BTreeMap::new(),
            room,
            held: BTreeMap::new(),
            refused: None,
        }
    }

    /// Carries out an event of one group.
    pub(super) fn on(&mut self, config: &GroupConfig, now: Now, group_id: &str, event: Event) -> Vec<Command> {
        if let Some(refused) = self.lacks_room(now, group_id, &event) {
            return vec![refused];
        }
        let moves_members = !matches!(event, Event::Heartbeat { .. } | Event::Commit { .. } | Event::Expire);
        if !self.groups.contains_key(group_id) {
            if let Some(answer) = without_group(&event) {
                return answer;
            }
            self.groups.insert(group_id.to_owned(), Group::new(group_id.to_owned(), now));
        }
        let Some(group) = self.groups.get_mut(group_id) else { return Vec::new() };
        let commands = group.on(config, now, event);
        let deadline = group.deadline();
        let bytes = moves_members.then(|| group.members_bytes());
        if group.is_trivial() {
            self.groups.remove(group_id);
            self.schedule(group_id, None);
            self.holds(group_id, 0);
        } else {
            self.schedule(group_id, deadline);
            if let Some(bytes) = bytes {
                self.holds(group_id, bytes);
            }
        }
        commands
    }

    /// Refuses a member that would bring more than there is room for. It may come again: others leave.
    fn lacks_room(&mut self, now: Now, group_id: &str, event: &Event) -> Option<Command> {
        let Event::Join { ticket, join, .. } = event else { return None };
        let member_id = &join.member.member_id;
        let has = self.groups.get(group_id).map_or(0, |group| group.member_bytes(member_id));
        let brings = member_bytes(&join.protocols);
        if brings <= has || self.room.fits(brings - has) {
            return None;
        }
        if self.refused.is_none_or(|last| now.tick - last >= SAY_AGAIN_MS) {
            self.refused = Some(now.tick);
            let (held, limit) = (self.room.held(), self.room.limit());
            tracing::warn!(group_id, held, limit, "no memory for more members of groups: firn.request.memory.bytes");
        }
        let refused = JoinRefused { error: GroupError::NotAvailable, member_id: member_id.clone() };
        Some(Command::Joined(*ticket, Err(refused)))
    }

    fn holds(&mut self, group_id: &str, bytes: usize) {
        let before = self.held.get(group_id).copied().unwrap_or(0);
        if before == bytes {
            return;
        }
        self.room.moved(before, bytes);
        if bytes == 0 {
            self.held.remove(group_id);
        } else {
            self.held.insert(group_id.to_owned(), bytes);
        }
    }

    fn schedule(&mut self, group_id: &str, deadline: Option<Millis>) {
        if self.scheduled.get(group_id).copied() == deadline {
            return;
        }
        if let Some(old) = self.scheduled.remove(group_id) {
            self.deadlines.remove(&(old, group_id.to_owned()));
        }
        if let Some(at) = deadline {
            self.deadlines.insert((at, group_id.to_owned()));
            self.scheduled.insert(group_id.to_owned(), at);
        }
    }

    /// When the next group wants to be woken.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Groups that want to be woken by now.
    pub(super) fn due(&self, now: Now) -> Vec<String> {
        let due = self.deadlines.iter().take_while(|(at, _)| *at <= now.tick);
        due.map(|(_, group)| group.clone()).collect()
    }

    /// All groups.
    pub(super) fn ids(&self) -> Vec<String> {
        self.groups.keys().cloned().collect()
    }

    /// All groups that are not on their way out.
    pub(super) fn list(&self) -> Vec<GroupListing> {
        self.groups.values().map(Group::listing).collect()
    }

    /// A group in detail.
    pub(super) fn describe(&self, group_id: &str) -> Option<GroupDescription> {
        let group = self.groups.get(group_id).filter(|group| group.state() != GroupState::Dead);
        group.map(Group::description)
    }

    /// Committed offsets. Who has no group has committed nothing.
    pub(super) fn fetch(&self, group_id: &str, wanted: OffsetsWanted) -> FetchedOffsets {
        let group = self.groups.get(group_id);
        match wanted {
            OffsetsWanted::All => {
                let offsets = group.into_iter().flat_map(Group::offsets);
                offsets.map(|(partition, offset)| (partition.clone(), Some(offset.clone()))).collect()
            }
            OffsetsWanted::Of(partitions) => partitions
                .into_iter()
                .map(|partition| {
                    let offset = group.and_then(|group| group.offset(&partition)).cloned();
                    (partition, offset)
                })
                .collect(),
        }
    }
}

/// The answer to an event of a group that does not exist, unless the event makes it.
fn without_group(event: &Event) -> Option<Vec<Command>> {
    let unknown = GroupError::UnknownMember;
    let answer = match event {
        Event::Join { join, .. } if join.member.member_id.is_empty() => return None,
        Event::Join { ticket, join, .. } => {
            let member_id = join.member.member_id.clone();
            Command::Joined(*ticket, Err(JoinRefused { error: unknown, member_id }))
        }
        Event::Sync { ticket, .. } => Command::Synced(*ticket, Err(unknown)),
        Event::Heartbeat { ticket, .. } => Command::Beaten(*ticket, Err(unknown)),
        Event::Leave { ticket, members } => {
            let answers = members.iter().map(|member| (member.clone(), Err(unknown))).collect();
            Command::Left(*ticket, Ok(answers))
        }
        Event::Commit { commit, .. } if commit.generation < 0 => return None,
        Event::Commit { ticket, commit } => {
            let refused = |(partition, _): &(NamedPartition, _)| (partition.clone(), Err(GroupError::NotFound));
            Command::Committed(*ticket, commit.offsets.iter().map(refused).collect())
        }
        Event::DeleteOffsets { ticket, .. } => Command::OffsetsDeleted(*ticket, Err(GroupError::NotFound)),
        Event::Delete { ticket } => Command::Deleted(*ticket, Err(GroupError::NotFound)),
        Event::TopicsDeleted(_) | Event::Expire | Event::Tick | Event::Written { .. } => return Some(Vec::new()),
    };
    Some(vec![answer])
}

/// Records of a partition on their way to become a shard: the last one of each key counts.
#[derive(Debug, Default)]
pub(super) struct Loader {
    groups: BTreeMap<String, MetadataRecord>,
    offsets: BTreeMap<String, BTreeMap<NamedPartition, CommittedOffset>>,
}

impl Loader {
    /// Takes the next record.
    pub(super) fn replay(&mut self, record: GroupRecord) {
        match record {
            GroupRecord::Metadata { group, metadata: Some(metadata) } => {
                self.groups.insert(group, metadata);
            }
            GroupRecord::Metadata { group, metadata: None } => {
                self.groups.remove(&group);
            }
            GroupRecord::Offset { group, topic, partition, offset: Some(offset) } => {
                self.offsets.entry(group).or_default().insert((topic, partition), offset);
            }
            GroupRecord::Offset { group, topic, partition, offset: None } => {
                if let Some(offsets) = self.offsets.get_mut(&group) {
                    offsets.remove(&(topic, partition));
                    if offsets.is_empty() {
                        self.offsets.remove(&group);
                    }
                }
            }
        }
    }

    /// The groups as of `now`.
    pub(super) fn finish(mut self, now: Now, room: MemberRoom) -> Shard {
        let mut shard = Shard::new(room);
        let only_offsets: Vec<String> =
            self.offsets.keys().filter(|id| !self.groups.contains_key(*id)).cloned().collect();
        let simple = only_offsets.into_iter().map(|id| (Group::new(id.clone(), now), id));
        let written: Vec<_> = std::mem::take(&mut self.groups)
            .into_iter()
            .map(|(id, metadata)| (Group::load(id.clone(), metadata, now), id))
            .collect();
        for (mut group, id) in simple.chain(written) {
            for (partition, offset) in self.offsets.remove(&id).unwrap_or_default() {
                group.load_offset(partition, offset);
            }
            shard.schedule(&id, group.deadline());
            shard.holds(&id, group.members_bytes());
            shard.groups.insert(id, group);
        }
        shard
    }
}
