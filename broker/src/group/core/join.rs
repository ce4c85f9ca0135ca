//! JoinGroup: who comes in, who has to come back, who takes the place of whom.

use bytes::Bytes;
use proto::ids::Millis;
use uuid::Uuid;

use super::super::types::{GroupError, GroupState, Join, JoinAnswer, JoinRefused, Joined, JoinedMember, MemberRef};
use super::member::{Member, NEW_MEMBER_PATIENCE_MS, PROTOCOL_BYTES};
use super::{Command, Group, Now, Ticket, Write};
use crate::config::GroupConfig;

/// A static member that came back while the group was stable, and how to undo it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Replacement {
    ticket: Ticket,
    /// The member as it was before.
    old: Member,
    new_id: String,
    old_leader: Option<String>,
    generation: i32,
    can_skip_assignment: bool,
}

impl Group {
    pub(super) fn join(
        &mut self,
        config: &GroupConfig,
        now: Now,
        ticket: Ticket,
        join: Join,
        fresh: Uuid,
        out: &mut Vec<Command>,
    ) {
        let member_id = join.member.member_id.clone();
        let refused = |error, member_id| Command::Joined(ticket, Err(JoinRefused { error, member_id }));
        if let Err(error) = self.admits(config, &join) {
            if error == GroupError::MaxSizeReached {
                self.pending.remove(&member_id);
            }
            out.push(refused(error, member_id));
            return;
        }
        if !member_id.is_empty() {
            if let Err(error) = self.join_again(config, now, ticket, &join, out) {
                out.push(refused(error, member_id));
            }
            return;
        }
        let prefix = join.member.instance_id.as_deref().unwrap_or(&join.client_id);
        let new_id = format!("{prefix}-{fresh}");
        let known = join.member.instance_id.as_ref().and_then(|id| self.instances.get(id)).cloned();
        match known {
            Some(old_id) => self.replace_static(config, now, ticket, &join, &old_id, new_id, out),
            None if join.requires_member_id && join.member.instance_id.is_none() => {
                self.pending.insert(new_id.clone(), now.tick + Millis::from(join.session_timeout_ms));
                out.push(refused(GroupError::MemberIdRequired, new_id));
            }
            None => self.add(config, now, ticket, &join, new_id, out),
        }
    }

    /// Checks that need no knowledge of the member.
    fn admits(&self, config: &GroupConfig, join: &Join) -> Result<(), GroupError> {
        let session = config.min_session_timeout_ms..=config.max_session_timeout_ms;
        if !session.contains(&join.session_timeout_ms) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        if self.is_dead() {
            return Err(GroupError::NotAvailable);
        }
        let bytes: usize =
            join.protocols.iter().map(|(name, metadata)| PROTOCOL_BYTES + name.len() + metadata.len()).sum();
        if bytes > config.max_write_bytes {
            // Its generation could not be written down. Kafka finds out when the leader brings the assignment, and keeps it until then.
            return Err(GroupError::TooLarge);
        }
        let has = self.members.get(&join.member.member_id);
        let room = match self.state {
            GroupState::Empty | GroupState::Dead => true,
            // While it rebalances, those who did not come back do not count.
            GroupState::PreparingRebalance => {
                let joining = self.members.values().filter(|member| member.joining.is_some()).count();
                has.is_some_and(|member| member.joining.is_some()) || joining < config.max_size
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                has.is_some() || self.members.len() < config.max_size
            }
        };
        if !room {
            return Err(GroupError::MaxSizeReached);
        }
        if !self.agrees_on(&join.protocol_type, &join.protocols) {
            return Err(GroupError::InconsistentProtocol);
        }
        Ok(())
    }

    /// Whether a member with these protocols leaves one that all support.
    fn agrees_on(&self, protocol_type: &str, protocols: &[(String, Bytes)]) -> bool {
        if self.members.is_empty() {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|(name, _)| self.members.values().all(|member| member.supports(name)))
    }

    /// Someone who has an id.
    fn join_again(
        &mut self,
        config: &GroupConfig,
        now: Now,
        ticket: Ticket,
        join: &Join,
        out: &mut Vec<Command>,
    ) -> Result<(), GroupError> {
        let given = &join.member;
        if given.instance_id.is_none() && self.pending.contains_key(&given.member_id) {
            self.add(config, now, ticket, join, given.member_id.clone(), out);
            return Ok(());
        }
        let id = self.known_member(given)?;
        let unchanged = self.members.get(&id).is_some_and(|member| member.protocols == join.protocols);
        match self.state {
            GroupState::Empty | GroupState::Dead => return Err(GroupError::UnknownMember),
            // It joined this generation before, but the answer may have been lost.
            GroupState::CompletingRebalance if unchanged => {
                out.push(Command::Joined(ticket, Ok(self.joined(&id))));
            }
            // A leader that joins again wants another assignment (KIP-394's group.leader rule).
            GroupState::Stable if unchanged && !self.is_leader(&id) => {
                out.push(Command::Joined(ticket, Ok(self.joined(&id))));
            }
            GroupState::PreparingRebalance | GroupState::CompletingRebalance | GroupState::Stable => {
                self.update(&id, join);
                self.wait_for_rebalance(&id, ticket, out);
                self.prepare_rebalance(config, now, out);
                self.complete_join_if_all_joined(now, out);
                return Ok(());
            }
        }
        if let Some(member) = self.members.get_mut(&id) {
            member.heard(now);
        }
        Ok(())
    }

    /// A new member.
    fn add(&mut self, config: &GroupConfig, now: Now, ticket: Ticket, join: &Join, id: String, out: &mut Vec<Command>) {
        self.pending.remove(&id);
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
        }
        self.leader.get_or_insert_with(|| id.clone());
        if let Some(instance) = &join.member.instance_id {
            self.instances.insert(instance.clone(), id.clone());
        }
        if self.state == GroupState::PreparingRebalance && self.generation == 0 {
            self.newcomers = true;
        }
        let member = Member {
            id: id.clone(),
            instance_id: join.member.instance_id.clone(),
            client_id: join.client_id.clone(),
            client_host: join.client_host.clone(),
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            session_timeout_ms: join.session_timeout_ms,
            protocols: join.protocols.clone(),
            assignment: Bytes::new(),
            joining: Some(ticket),
            syncing: None,
            expires: Some(now.tick + NEW_MEMBER_PATIENCE_MS),
        };
        self.members.insert(id, member);
        self.prepare_rebalance(config, now, out);
        self.complete_join_if_all_joined(now, out);
    }

    fn update(&mut self, id: &str, join: &Join) {
        if let Some(member) = self.members.get_mut(id) {
            member.protocols.clone_from(&join.protocols);
            member.rebalance_timeout_ms = join.rebalance_timeout_ms;
            member.session_timeout_ms = join.session_timeout_ms;
            member.client_id.clone_from(&join.client_id);
            member.client_host.clone_from(&join.client_host);
        }
    }

    /// From here on it waits for us: it need not send heartbeats.
    fn wait_for_rebalance(&mut self, id: &str, ticket: Ticket, out: &mut Vec<Command>) {
        let Some(member) = self.members.get_mut(id) else { return };
        member.expires = None;
        if let Some(earlier) = member.joining.replace(ticket) {
            // It gave up on its earlier request, most likely with the connection.
            let answer = Err(JoinRefused { error: GroupError::RebalanceInProgress, member_id: id.to_owned() });
            out.push(Command::Joined(earlier, answer));
        }
    }

    /// A static member that is known comes with an empty id: another process takes its place (KIP-345).
    #[expect(clippy::too_many_arguments, reason = "each is one fact of the request")]
    fn replace_static(
        &mut self,
        config: &GroupConfig,
        now: Now,
        ticket: Ticket,
        join: &Join,
        old_id: &str,
        new_id: String,
        out: &mut Vec<Command>,
    ) {
        let Some(old) = self.members.get(old_id).cloned() else { return };
        let old_leader = self.leader.clone();
        self.fence(old_id, out);
        self.rename(old_id, &new_id);
        self.update(&new_id, join);
        if let Some(member) = self.members.get_mut(&new_id) {
            member.heard(now);
        }
        if self.state == GroupState::Stable && self.protocol == self.chosen_protocol() {
            // It gets what it had: no rebalance, only the new id has to be written down.
            let replacement = Replacement {
                ticket,
                old,
                new_id,
                old_leader,
                generation: self.generation,
                can_skip_assignment: join.can_skip_assignment,
            };
            let records = vec![self.record(now, None)];
            self.write(records, Write::StaticMember(Box::new(replacement)), out);
            return;
        }
        self.wait_for_rebalance(&new_id, ticket, out);
        self.prepare_rebalance(config, now, out);
        self.complete_join_if_all_joined(now, out);
    }

    /// Tells the process that a member was until now that it is not any more.
    fn fence(&mut self, id: &str, out: &mut Vec<Command>) {
        let Some(member) = self.members.get_mut(id) else { return };
        if let Some(ticket) = member.joining.take() {
            let refused = JoinRefused { error: GroupError::FencedInstance, member_id: id.to_owned() };
            out.push(Command::Joined(ticket, Err(refused)));
        }
        if let Some(ticket) = member.syncing.take() {
            out.push(Command::Synced(ticket, Err(GroupError::FencedInstance)));
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        let Some(mut member) = self.members.remove(from) else { return };
        to.clone_into(&mut member.id);
        if let Some(instance) = &member.instance_id {
            self.instances.insert(instance.clone(), to.to_owned());
        }
        if self.is_leader(from) {
            self.leader = Some(to.to_owned());
        }
        if self.unsynced.remove(from) {
            self.unsynced.insert(to.to_owned());
        }
        self.members.insert(to.to_owned(), member);
    }

    pub(super) fn replacement_written(
        &mut self,
        now: Now,
        replacement: Replacement,
        outcome: Result<(), GroupError>,
        out: &mut Vec<Command>,
    ) {
        let Replacement { ticket, old, new_id, old_leader, generation, can_skip_assignment } = replacement;
        let answer: JoinAnswer = match outcome {
            Ok(()) if !self.members.contains_key(&new_id) => {
                Err(JoinRefused { error: GroupError::FencedInstance, member_id: new_id })
            }
            Ok(()) => {
                let leads = self.is_leader(&new_id);
                let mut joined = self.joined(&new_id);
                joined.generation = generation;
                joined.skip_assignment = leads && can_skip_assignment;
                if !can_skip_assignment {
                    // An older client that is told it leads would make an assignment: it is told that
                    // someone who is gone does (KIP-814).
                    joined.leader = old_leader.unwrap_or_default();
                    joined.members.clear();
                }
                Ok(joined)
            }
            Err(error) => {
                if self.members.contains_key(&new_id) {
                    let old_id = old.id.clone();
                    self.rename(&new_id, &old_id);
                    self.members.insert(old_id.clone(), Member { joining: None, syncing: None, ..old });
                    if let Some(member) = self.members.get_mut(&old_id) {
                        member.heard(now);
                    }
                }
                Err(JoinRefused { error, member_id: String::new() })
            }
        };
        out.push(Command::Joined(ticket, answer));
    }

    /// What a member of the current generation is told.
    pub(super) fn joined(&self, id: &str) -> Joined {
        let members = if self.is_leader(id) { self.members_for_leader() } else { Vec::new() };
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            member_id: id.to_owned(),
            members,
        }
    }

    fn members_for_leader(&self) -> Vec<JoinedMember> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        self.members
            .values()
            .map(|member| JoinedMember {
                member: MemberRef { member_id: member.id.clone(), instance_id: member.instance_id.clone() },
                metadata: member.metadata(protocol),
            })
            .collect()
    }
}
