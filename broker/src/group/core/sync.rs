//! SyncGroup and Heartbeat: the generation gets its assignment, and lives.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::types::{GroupError, GroupState, Heartbeat, Sync, Synced};
use super::{Command, Group, Now, Ticket, Write};
use crate::config::GroupConfig;

impl Group {
    pub(super) fn sync(&mut self, now: Now, ticket: Ticket, sync: Sync, out: &mut Vec<Command>) {
        match self.check_sync(&sync) {
            Err(error) => out.push(Command::Synced(ticket, Err(error))),
            Ok(id) if self.state == GroupState::Stable => {
                self.synced(&id);
                if let Some(member) = self.members.get_mut(&id) {
                    member.heard(now);
                }
                out.push(Command::Synced(ticket, Ok(self.assignment_of(&id))));
            }
            Ok(id) => self.wait_for_assignment(now, ticket, &id, sync, out),
        }
    }

    fn check_sync(&self, sync: &Sync) -> Result<String, GroupError> {
        if self.is_dead() {
            return Err(GroupError::NotAvailable);
        }
        let id = self.known_member(&sync.member)?;
        if sync.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let differs = |told: &Option<String>, ours: &Option<String>| told.is_some() && told != ours;
        if differs(&sync.protocol_type, &self.protocol_type) || differs(&sync.protocol, &self.protocol) {
            return Err(GroupError::InconsistentProtocol);
        }
        match self.state {
            GroupState::Empty | GroupState::Dead => Err(GroupError::UnknownMember),
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            GroupState::CompletingRebalance | GroupState::Stable => Ok(id),
        }
    }

    fn wait_for_assignment(&mut self, now: Now, ticket: Ticket, id: &str, sync: Sync, out: &mut Vec<Command>) {
        self.synced(id);
        if let Some(member) = self.members.get_mut(id) {
            member.expires = None;
            if let Some(earlier) = member.syncing.replace(ticket) {
                out.push(Command::Synced(earlier, Err(GroupError::RebalanceInProgress)));
            }
        }
        if !self.is_leader(id) {
            return;
        }
        // Those the leader leaves out get nothing; those it invents are nobody.
        let mut given = sync.assignments;
        let assignments: BTreeMap<String, Bytes> =
            self.members.keys().map(|id| (id.clone(), given.remove(id).unwrap_or_default())).collect();
        let record = self.record(now, Some(&assignments));
        let then = Write::Assignment { generation: self.generation, assignments };
        self.write(vec![record], then, out);
    }

    pub(super) fn assignment_written(
        &mut self,
        config: &GroupConfig,
        now: Now,
        generation: i32,
        mut assignments: BTreeMap<String, Bytes>,
        outcome: Result<(), GroupError>,
        out: &mut Vec<Command>,
    ) {
        if self.state != GroupState::CompletingRebalance || self.generation != generation {
            return;
        }
        if let Err(error) = outcome {
            self.drop_assignments(error, out);
            self.prepare_rebalance(config, now, out);
            return;
        }
        for member in self.members.values_mut() {
            member.assignment = assignments.remove(&member.id).unwrap_or_default();
        }
        self.enter(now, GroupState::Stable);
        for (id, ticket) in self.take_syncs(now) {
            out.push(Command::Synced(ticket, Ok(self.assignment_of(&id))));
        }
    }

    /// Whoever waits for an assignment hears why there is none.
    pub(super) fn drop_assignments(&mut self, error: GroupError, out: &mut Vec<Command>) {
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
            if let Some(ticket) = member.syncing.take() {
                out.push(Command::Synced(ticket, Err(error)));
            }
        }
    }

    fn take_syncs(&mut self, now: Now) -> Vec<(String, Ticket)> {
        self.members
            .values_mut()
            .filter_map(|member| {
                let ticket = member.syncing.take()?;
                member.heard(now);
                Some((member.id.clone(), ticket))
            })
            .collect()
    }

    fn assignment_of(&self, id: &str) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: self.members.get(id).map(|member| member.assignment.clone()).unwrap_or_default(),
        }
    }

    fn synced(&mut self, id: &str) {
        self.unsynced.remove(id);
        if self.unsynced.is_empty() {
            self.sync_deadline = None;
        }
    }

    pub(super) fn heartbeat(&mut self, now: Now, heartbeat: &Heartbeat) -> Result<(), GroupError> {
        if self.is_dead() {
            return Err(GroupError::NotAvailable);
        }
        let id = self.known_member(&heartbeat.member)?;
        if heartbeat.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if let Some(member) = self.members.get_mut(&id)
            && member.joining.is_none()
            && member.syncing.is_none()
        {
            member.heard(now);
        }
        match self.state {
            GroupState::Empty | GroupState::Dead => Err(GroupError::UnknownMember),
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            GroupState::CompletingRebalance | GroupState::Stable => Ok(()),
        }
    }
}
