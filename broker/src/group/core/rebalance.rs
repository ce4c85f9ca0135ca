//! The rebalance: from the first who joins to the next generation.

use std::collections::BTreeMap;

use proto::ids::Millis;

use super::super::types::{GroupError, GroupState};
use super::{Command, Group, Now, Rebalance, Write};
use crate::config::GroupConfig;

impl Group {
    /// Starts a rebalance unless one is under way.
    pub(super) fn prepare_rebalance(&mut self, config: &GroupConfig, now: Now, out: &mut Vec<Command>) {
        match self.state {
            GroupState::PreparingRebalance | GroupState::Dead => return,
            GroupState::CompletingRebalance => self.drop_assignments(GroupError::RebalanceInProgress, out),
            GroupState::Empty | GroupState::Stable => {}
        }
        self.unsynced.clear();
        self.sync_deadline = None;
        let timeout = self.rebalance_timeout_ms();
        self.rebalance = Some(if self.state == GroupState::Empty {
            // The members of a group that just starts tend to come one after the other.
            let delay = Millis::from(config.initial_rebalance_delay_ms).max(0);
            self.newcomers = false;
            Rebalance { deadline: now.tick + delay, initial_left_ms: Some((timeout - delay).max(0)) }
        } else {
            Rebalance { deadline: now.tick + timeout, initial_left_ms: None }
        });
        self.enter(now, GroupState::PreparingRebalance);
    }

    /// The group waits as long as its most patient member.
    fn rebalance_timeout_ms(&self) -> Millis {
        let longest = self.members.values().map(|member| member.rebalance_timeout_ms).max();
        Millis::from(longest.unwrap_or(0))
    }

    /// Ends the rebalance if there is nobody left to wait for. The first rebalance of a group goes by
    /// its delay alone.
    pub(super) fn complete_join_if_all_joined(&mut self, now: Now, out: &mut Vec<Command>) {
        let Some(rebalance) = self.rebalance else { return };
        let delayed = rebalance.initial_left_ms.is_some() && rebalance.deadline > now.tick;
        let all = self.members.values().all(|member| member.joining.is_some());
        if all && self.pending.is_empty() && !delayed {
            self.complete_join(now, out);
        }
    }

    pub(super) fn rebalance_expired(&mut self, config: &GroupConfig, now: Now, out: &mut Vec<Command>) {
        let Some(rebalance) = self.rebalance else { return };
        if let Some(left) = rebalance.initial_left_ms
            && self.newcomers
            && left > 0
        {
            let delay = Millis::from(config.initial_rebalance_delay_ms).min(left);
            self.newcomers = false;
            self.rebalance =
                Some(Rebalance { deadline: now.tick + delay, initial_left_ms: Some((left - delay).max(0)) });
            return;
        }
        self.complete_join(now, out);
    }

    fn complete_join(&mut self, now: Now, out: &mut Vec<Command>) {
        // Static members may be away for as long as their session lasts.
        let gone: Vec<String> = self
            .members
            .values()
            .filter(|member| member.joining.is_none() && member.instance_id.is_none())
            .map(|member| member.id.clone())
            .collect();
        for id in gone {
            self.forget(&id, out);
        }
        if !self.members.is_empty() && !self.elect_joined_leader() {
            // Only static members are known and none of them is back: wait on.
            let deadline = now.tick + self.rebalance_timeout_ms();
            self.rebalance = Some(Rebalance { deadline, initial_left_ms: None });
            return;
        }
        self.rebalance = None;
        self.newcomers = false;
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        if self.members.is_empty() {
            self.protocol = None;
            self.leader = None;
            self.enter(now, GroupState::Empty);
            let record = self.record(now, None);
            self.write(vec![record], Write::Noted, out);
            return;
        }
        self.protocol = self.chosen_protocol();
        self.enter(now, GroupState::CompletingRebalance);
        self.answer_joins(now, out);
        self.unsynced = self.members.keys().cloned().collect();
        self.sync_deadline = Some(now.tick + self.rebalance_timeout_ms());
    }

    fn answer_joins(&mut self, now: Now, out: &mut Vec<Command>) {
        let waiting: Vec<(String, u64)> = self
            .members
            .values_mut()
            .filter_map(|member| {
                let ticket = member.joining.take()?;
                member.heard(now);
                Some((member.id.clone(), ticket))
            })
            .collect();
        for (id, ticket) in waiting {
            out.push(Command::Joined(ticket, Ok(self.joined(&id))));
        }
    }

    /// Whether the leader is among those who joined, or someone who did could take its place.
    fn elect_joined_leader(&mut self) -> bool {
        let joined = |id: &String| self.members.get(id).is_some_and(|member| member.joining.is_some());
        if self.leader.as_ref().is_some_and(joined) {
            return true;
        }
        let next = self.members.values().find(|member| member.joining.is_some());
        match next.map(|member| member.id.clone()) {
            Some(id) => {
                self.leader = Some(id);
                true
            }
            None => false,
        }
    }

    /// The protocol that most members like best of those that all support.
    pub(super) fn chosen_protocol(&self) -> Option<String> {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        let common = |name: &str| self.members.values().all(|member| member.supports(name));
        for member in self.members.values() {
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| common(name)) {
                *votes.entry(name).or_insert(0) += 1;
            }
        }
        let most = votes.values().copied().max()?;
        votes.into_iter().find(|(_, count)| *count == most).map(|(name, _)| name.to_owned())
    }

    /// Whoever did not ask for its assignment in time is out.
    pub(super) fn sync_expired(&mut self, config: &GroupConfig, now: Now, out: &mut Vec<Command>) {
        self.sync_deadline = None;
        let late = std::mem::take(&mut self.unsynced);
        for id in &late {
            self.forget(id, out);
        }
        if !late.is_empty() {
            self.prepare_rebalance(config, now, out);
            self.complete_join_if_all_joined(now, out);
        }
    }
}
