//! A classic group: the state machine behind JoinGroup, SyncGroup, Heartbeat, LeaveGroup and the offset
//! requests. Pure: time and fresh ids come in with the events, what is to be answered and written goes
//! out as commands.
//!
//! ```text
//!            join                     all joined              leader's assignment written
//!  Empty ───────────▶ Preparing ───────────────▶ Completing ───────────────────────────▶ Stable
//!    ▲                 │  ▲  ▲                       │                                      │
//!    └─────────────────┘  │  └── join, leave, silence ┴──────────────────────────────────────┘
//!       nobody joined     └── once more while nobody but static members is known
//! ```
//!
//! What a client is told rests on what is written: an assignment is handed out, an offset shown and a
//! group forgotten only after its records are acknowledged ([`Event::Written`]). Whoever waits for that for too long is told to try
//! again, and does not learn whether it came to be.

mod join;
mod leave;
mod member;
mod offsets;
mod rebalance;
mod sync;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use proto::ids::Millis;
use uuid::Uuid;

pub(super) use member::{Member, member_bytes};

use super::records::GroupRecord;
use super::types::{
    Commit, CommittedOffset, DeleteOffsetsAnswer, GroupDescription, GroupError, GroupListing, GroupState, Heartbeat,
    Join, JoinAnswer, LeaveAnswer, MemberDescription, MemberRef, NamedPartition, PerPartition, Sync, Synced,
};
use crate::config::GroupConfig;

/// Names a request that waits for its answer.
pub(crate) type Ticket = u64;

/// Names something to be written, within a group.
pub(crate) type WriteId = u64;

/// A moment: timers go by `tick`, which never steps back; records carry `wall`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    /// Milliseconds of a clock that only goes forward.
    pub(crate) tick: Millis,
    /// Unix ms.
    pub(crate) wall: Millis,
}

/// What happens to a group.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// Someone joins. `fresh` makes an id for who has none.
    Join { ticket: Ticket, join: Join, fresh: Uuid },
    /// Someone wants its assignment, the leader brings it.
    Sync { ticket: Ticket, sync: Sync },
    /// Someone is alive.
    Heartbeat { ticket: Ticket, heartbeat: Heartbeat },
    /// Some leave.
    Leave { ticket: Ticket, members: Vec<MemberRef> },
    /// Someone commits offsets.
    Commit { ticket: Ticket, commit: Commit },
    /// Someone forgets offsets.
    DeleteOffsets { ticket: Ticket, partitions: Vec<NamedPartition> },
    /// Someone forgets the group.
    Delete { ticket: Ticket },
    /// Topics are gone, and with them their offsets.
    TopicsDeleted(BTreeSet<String>),
    /// It is time to look for offsets that nobody needs any more.
    Expire,
    /// A deadline may have come.
    Tick,
    /// What a [`Command::Write`] asked for is written, or is not.
    Written { id: WriteId, outcome: Result<(), GroupError> },
}

/// What a group wants done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Command {
    /// Answer a join.
    Joined(Ticket, JoinAnswer),
    /// Answer a sync.
    Synced(Ticket, Result<Synced, GroupError>),
    /// Answer a heartbeat.
    Beaten(Ticket, Result<(), GroupError>),
    /// Answer a leave.
    Left(Ticket, LeaveAnswer),
    /// Answer a commit.
    Committed(Ticket, PerPartition),
    /// Answer an offset deletion.
    OffsetsDeleted(Ticket, DeleteOffsetsAnswer),
    /// Answer a group deletion.
    Deleted(Ticket, Result<(), GroupError>),
    /// Write these records together and tell with [`Event::Written`].
    Write { id: WriteId, records: Vec<GroupRecord> },
}

/// What is to be done once something is written.
#[derive(Debug, Clone, PartialEq)]
enum Write {
    /// Hand out the assignment, if the group is still waiting for that of this generation.
    Assignment { generation: i32, assignments: BTreeMap<String, bytes::Bytes> },
    /// Answer a static member that came back without a rebalance, or undo that.
    StaticMember(Box<join::Replacement>),
    /// Nothing: the next state does not depend on it.
    Noted,
    /// Show the offsets and answer, unless that was given up.
    Offsets { ticket: Option<(Ticket, PerPartition)>, offsets: BTreeMap<NamedPartition, CommittedOffset> },
    /// Forget the offsets and answer, if someone waits for it.
    OffsetsGone { ticket: Option<(Ticket, PerPartition)>, partitions: BTreeSet<NamedPartition> },
    /// The group is gone; answer, if someone waits for it.
    Gone { ticket: Option<Ticket> },
}

/// A rebalance under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rebalance {
    /// When it ends without those who have not joined.
    deadline: Millis,
    /// Of the first rebalance of a group: how much longer it may be put off for newcomers.
    initial_left_ms: Option<Millis>,
}

/// What an id that waits for its member takes beside its text, about.
const PENDING_BYTES: usize = 64;

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Group {
    id: String,
    state: GroupState,
    /// When it came into this state, Unix ms.
    since: Millis,
    generation: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Instance id → member id.
    instances: BTreeMap<String, String>,
    /// Ids given to members that have not come back with them, and until when they may.
    pending: BTreeMap<String, Millis>,
    rebalance: Option<Rebalance>,
    /// Whether someone joined since the first rebalance was last put off.
    newcomers: bool,
    /// Members of this generation that have not asked for their assignment, and until when they may.
    unsynced: BTreeSet<String>,
    sync_deadline: Option<Millis>,
    offsets: BTreeMap<NamedPartition, CommittedOffset>,
    writes: BTreeMap<WriteId, Write>,
    next_write: WriteId,
    /// Until when somebody waits for a write, by the tick clock. Later writes have later times.
    patience: BTreeMap<WriteId, Millis>,
    /// Whether the record that deletes it is on its way.
    deleting: bool,
}

impl Group {
    /// A group that nobody has heard of yet.
    pub(crate) fn new(id: String, now: Now) -> Self {
        Self {
            id,
            state: GroupState::Empty,
            since: now.wall,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            pending: BTreeMap::new(),
            rebalance: None,
            newcomers: false,
            unsynced: BTreeSet::new(),
            sync_deadline: None,
            offsets: BTreeMap::new(),
            writes: BTreeMap::new(),
            next_write: 0,
            patience: BTreeMap::new(),
            deleting: false,
        }
    }

    /// Memory that its members take, and the ids it gave to those who have not come back with them, about.
    pub(crate) fn members_bytes(&self) -> usize {
        let members = self.members.values().map(Member::bytes);
        let pending = self.pending.keys().map(|id| PENDING_BYTES + id.len());
        members.chain(pending).sum()
    }

    /// The same of one member, nothing if it is none.
    pub(crate) fn member_bytes(&self, member_id: &str) -> usize {
        self.members.get(member_id).map_or(0, Member::bytes)
    }

    /// Carries out one event.
    pub(crate) fn on(&mut self, config: &GroupConfig, now: Now, event: Event) -> Vec<Command> {
        let mut out = Vec::new();
        let first = self.next_write;
        match event {
            Event::Join { ticket, join, fresh } => self.join(config, now, ticket, join, fresh, &mut out),
            Event::Sync { ticket, sync } => self.sync(now, ticket, sync, &mut out),
            Event::Heartbeat { ticket, heartbeat } => {
                let answer = self.heartbeat(now, &heartbeat);
                out.push(Command::Beaten(ticket, answer));
            }
            Event::Leave { ticket, members } => self.leave(config, now, ticket, members, &mut out),
            Event::Commit { ticket, commit } => self.commit(config, now, ticket, commit, &mut out),
            Event::DeleteOffsets { ticket, partitions } => self.delete_offsets(ticket, partitions, &mut out),
            Event::Delete { ticket } => self.delete(ticket, &mut out),
            Event::TopicsDeleted(topics) => self.topics_deleted(&topics, &mut out),
            Event::Expire => self.expire(config, now, &mut out),
            Event::Tick => self.tick(config, now, &mut out),
            Event::Written { id, outcome } => self.written(config, now, id, outcome, &mut out),
        }
        let until = now.tick.saturating_add(config.offsets_commit_timeout_ms);
        self.patience.extend((first..self.next_write).map(|id| (id, until)));
        out
    }

    /// When it wants to hear [`Event::Tick`], by the tick clock.
    pub(crate) fn deadline(&self) -> Option<Millis> {
        let members = self.members.values().filter_map(|member| member.expires);
        let pending = self.pending.values().copied();
        let rebalance = self.rebalance.map(|rebalance| rebalance.deadline);
        let write = self.patience.values().next().copied();
        members.chain(pending).chain(rebalance).chain(self.sync_deadline).chain(write).min()
    }

    /// Whether nothing would be lost if it were forgotten.
    pub(crate) fn is_trivial(&self) -> bool {
        let quiet = self.members.is_empty() && self.pending.is_empty() && self.writes.is_empty();
        let unwritten = self.state == GroupState::Empty && self.generation == 0 && self.offsets.is_empty();
        quiet && (unwritten || self.state == GroupState::Dead)
    }

    /// Its state.
    pub(crate) fn state(&self) -> GroupState {
        self.state
    }

    /// Committed offset of a partition.
    pub(crate) fn offset(&self, partition: &NamedPartition) -> Option<&CommittedOffset> {
        self.offsets.get(partition)
    }

    /// All committed offsets.
    pub(crate) fn offsets(&self) -> &BTreeMap<NamedPartition, CommittedOffset> {
        &self.offsets
    }

    /// Itself in a list of groups.
    pub(crate) fn listing(&self) -> GroupListing {
        GroupListing {
            group_id: self.id.clone(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            state: self.state,
        }
    }

    /// Itself in detail.
    pub(crate) fn description(&self) -> GroupDescription {
        let stable = self.state == GroupState::Stable;
        let protocol = self.protocol.as_deref().filter(|_| stable).unwrap_or_default();
        let members = self
            .members
            .values()
            .map(|member| MemberDescription {
                member: member.reference(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                metadata: if stable { member.metadata(protocol) } else { bytes::Bytes::new() },
                assignment: if stable { member.assignment.clone() } else { bytes::Bytes::new() },
            })
            .collect();
        GroupDescription {
            group_id: self.id.clone(),
            state: self.state,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: protocol.to_owned(),
            members,
        }
    }

    /// Finds out which member is meant, and whether it is who it says it is.
    fn known_member(&self, member: &MemberRef) -> Result<String, GroupError> {
        match &member.instance_id {
            Some(instance) => match self.instances.get(instance) {
                None => Err(GroupError::UnknownMember),
                Some(current) if *current != member.member_id => Err(GroupError::FencedInstance),
                Some(current) => Ok(current.clone()),
            },
            None if self.members.contains_key(&member.member_id) => Ok(member.member_id.clone()),
            None => Err(GroupError::UnknownMember),
        }
    }

    fn is_dead(&self) -> bool {
        self.deleting || self.state == GroupState::Dead
    }

    fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    fn enter(&mut self, now: Now, state: GroupState) {
        self.state = state;
        self.since = now.wall;
    }

    fn write(&mut self, records: Vec<GroupRecord>, then: Write, out: &mut Vec<Command>) {
        let id = self.next_write;
        self.next_write += 1;
        self.writes.insert(id, then);
        out.push(Command::Write { id, records });
    }

    fn written(
        &mut self,
        config: &GroupConfig,
        now: Now,
        id: WriteId,
        outcome: Result<(), GroupError>,
        out: &mut Vec<Command>,
    ) {
        self.patience.remove(&id);
        let Some(write) = self.writes.remove(&id) else { return };
        match write {
            Write::Assignment { generation, assignments } => {
                self.assignment_written(config, now, generation, assignments, outcome, out);
            }
            Write::StaticMember(replacement) => self.replacement_written(now, *replacement, outcome, out),
            Write::Noted => {}
            Write::Offsets { ticket, offsets } => {
                if outcome.is_ok() {
                    self.offsets.extend(offsets);
                }
                out.extend(ticket.map(|(ticket, answer)| committed(ticket, answer, outcome)));
            }
            Write::OffsetsGone { ticket, partitions } => {
                if outcome.is_ok() {
                    self.offsets.retain(|partition, _| !partitions.contains(partition));
                }
                if let Some((ticket, answer)) = ticket {
                    out.push(Command::OffsetsDeleted(ticket, outcome.map(|()| answer)));
                }
            }
            Write::Gone { ticket } => {
                self.deleting = false;
                if outcome.is_ok() {
                    self.offsets.clear();
                    self.enter(now, GroupState::Dead);
                }
                out.extend(ticket.map(|ticket| Command::Deleted(ticket, outcome)));
            }
        }
    }

    /// Nobody waits any longer for what is being written (`offsets.commit.timeout.ms`). It may be written yet: offsets are shown then. An
    /// assignment is given up, as its members do not wait for it any more.
    fn give_up(&mut self, config: &GroupConfig, now: Now, id: WriteId, out: &mut Vec<Command>) {
        let late = GroupError::NotAvailable;
        match self.writes.get_mut(&id) {
            Some(Write::Assignment { .. } | Write::StaticMember(_)) => self.written(config, now, id, Err(late), out),
            Some(Write::Offsets { ticket, .. }) => {
                out.extend(ticket.take().map(|(ticket, answer)| committed(ticket, answer, Err(late))));
            }
            Some(Write::OffsetsGone { ticket, .. }) => {
                out.extend(ticket.take().map(|(ticket, _)| Command::OffsetsDeleted(ticket, Err(late))));
            }
            Some(Write::Gone { ticket }) => {
                out.extend(ticket.take().map(|ticket| Command::Deleted(ticket, Err(late))));
            }
            Some(Write::Noted) | None => {}
        }
    }

    /// Whoever has been silent for too long is out; a rebalance that took too long goes on; nobody waits for ever for what is written.
    fn tick(&mut self, config: &GroupConfig, now: Now, out: &mut Vec<Command>) {
        self.pending.retain(|_, until| *until > now.tick);
        while let Some((&id, _)) = self.patience.first_key_value().filter(|(_, until)| **until <= now.tick) {
            self.patience.remove(&id);
            self.give_up(config, now, id, out);
        }
        let silent: Vec<String> = self
            .members
            .values()
            .filter(|member| member.expires.is_some_and(|at| at <= now.tick))
            .map(|member| member.id.clone())
            .collect();
        for member_id in silent {
            self.remove_member(config, now, &member_id, out);
        }
        if self.sync_deadline.is_some_and(|at| at <= now.tick) {
            self.sync_expired(config, now, out);
        }
        if self.rebalance.is_some_and(|rebalance| rebalance.deadline <= now.tick) {
            self.rebalance_expired(config, now, out);
        }
        // Fewer may be waited for than before.
        self.complete_join_if_all_joined(now, out);
    }
}

/// The answer to a commit, whose offsets that were taken are all written or all not.
fn committed(ticket: Ticket, mut answer: PerPartition, outcome: Result<(), GroupError>) -> Command {
    for (_, one) in answer.iter_mut().filter(|(_, one)| one.is_ok()) {
        *one = outcome;
    }
    Command::Committed(ticket, answer)
}
