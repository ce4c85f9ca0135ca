//! LeaveGroup, and everyone else who goes.

use super::super::types::{GroupError, GroupState, JoinRefused, MemberRef};
use super::{Command, Group, Now, Ticket};
use crate::config::GroupConfig;

impl Group {
    pub(super) fn leave(
        &mut self,
        config: &GroupConfig,
        now: Now,
        ticket: Ticket,
        members: Vec<MemberRef>,
        out: &mut Vec<Command>,
    ) {
        if self.is_dead() {
            out.push(Command::Left(ticket, Err(GroupError::NotAvailable)));
            return;
        }
        let answers = members
            .into_iter()
            .map(|member| {
                let answer = self.leave_one(config, now, &member, out);
                (member, answer)
            })
            .collect();
        out.push(Command::Left(ticket, Ok(answers)));
    }

    fn leave_one(
        &mut self,
        config: &GroupConfig,
        now: Now,
        member: &MemberRef,
        out: &mut Vec<Command>,
    ) -> Result<(), GroupError> {
        let id = match &member.instance_id {
            // An administrator removes a static member without knowing its id.
            Some(instance) if member.member_id.is_empty() => {
                self.instances.get(instance).cloned().ok_or(GroupError::UnknownMember)?
            }
            None if self.pending.remove(&member.member_id).is_some() => {
                self.complete_join_if_all_joined(now, out);
                return Ok(());
            }
            _ => self.known_member(member)?,
        };
        self.remove_member(config, now, &id, out);
        Ok(())
    }

    /// Someone is gone: the others share what it had.
    pub(super) fn remove_member(&mut self, config: &GroupConfig, now: Now, id: &str, out: &mut Vec<Command>) {
        self.forget(id, out);
        match self.state {
            GroupState::Empty | GroupState::Dead => {}
            GroupState::Stable | GroupState::CompletingRebalance => self.prepare_rebalance(config, now, out),
            GroupState::PreparingRebalance => {}
        }
        self.complete_join_if_all_joined(now, out);
    }

    pub(super) fn forget(&mut self, id: &str, out: &mut Vec<Command>) {
        let Some(member) = self.members.remove(id) else { return };
        if let Some(instance) = &member.instance_id {
            self.instances.remove(instance);
        }
        self.unsynced.remove(id);
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        if let Some(ticket) = member.joining {
            let refused = JoinRefused { error: GroupError::UnknownMember, member_id: id.to_owned() };
            out.push(Command::Joined(ticket, Err(refused)));
        }
        if let Some(ticket) = member.syncing {
            out.push(Command::Synced(ticket, Err(GroupError::UnknownMember)));
        }
    }
}
