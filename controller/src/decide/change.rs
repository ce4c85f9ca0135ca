//! The only way a partition's state changes: what an event does to its replicas and in-sync replicas goes in, the whole
//! next state comes out.
//!
//! The rules are those of KIP-966 in the order in which Kafka's controller applies them. While fewer than
//! `min.insync.replicas` are in sync nothing new is committed, so a replica that leaves then still holds all that was:
//! it stays *eligible*. The in-sync set may become empty, unlike before KIP-966. The last leader may lead again when both
//! sets are used up, which happens only when replicas are known to have lost records: what it then has is taken for the
//! truth, and the state says so ([`Recovery::Recovering`]).

use proto::ids::{DirectoryId, NodeId};
use proto::metadata::{Image, PartitionState, Recovery};
use proto::planted::{Bug, planted};

/// What is to become of a partition. Made by [`Change::of`], adjusted by whoever knows what happened, settled by
/// [`Change::finish`].
#[derive(Debug, Clone)]
pub(super) struct Change<'a> {
    image: &'a Image,
    old: &'a PartitionState,
    /// `min.insync.replicas` of the topic, not clamped yet.
    min_in_sync: usize,
    /// In-sync replicas to be, as far as the event says it.
    pub(super) isr: Vec<NodeId>,
    /// Replicas to be, while a reassignment is under way those that go included.
    pub(super) replicas: Vec<NodeId>,
    /// Those of them that a reassignment adds.
    pub(super) adding: Vec<NodeId>,
    /// Those of them that go when it is complete.
    pub(super) removing: Vec<NodeId>,
    /// Directories of replicas where they are new or have changed.
    pub(super) places: Vec<(NodeId, DirectoryId)>,
    /// Replicas that may lack records they once had.
    pub(super) lost: Vec<(NodeId, Loss)>,
    /// The broker that has a new process: what it leads gets a new epoch, even if it leads on.
    pub(super) new_process: Option<NodeId>,
    /// Who should lead.
    pub(super) want: Want,
    /// The leader has settled what it has after an unclean election.
    pub(super) recovered: bool,
}

/// Who should lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// Whoever does, if it can.
    Keep,
    /// The first replica, if it can.
    Preferred,
    /// Whoever does, if it can; if nobody can, anybody that is there.
    Unclean,
}

/// What a replica lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// Maybe the last of what it had: its machine went down before it was synced.
    Tail,
    /// All: its disk was replaced.
    Disk,
}

impl<'a> Change<'a> {
    /// A change of `old` that changes nothing yet.
    pub(super) fn of(image: &'a Image, old: &'a PartitionState, min_in_sync: usize) -> Self {
        Self {
            image,
            old,
            min_in_sync,
            isr: old.isr.clone(),
            replicas: old.replicas.clone(),
            adding: old.adding.clone(),
            removing: old.removing.clone(),
            places: Vec::new(),
            lost: Vec::new(),
            new_process: None,
            want: Want::Keep,
            recovered: false,
        }
    }

    /// How many of the replicas have to be in sync.
    pub(super) fn required(&self) -> usize {
        self.min_in_sync.min(self.replicas.len())
    }

    /// The next state, none if nothing changes.
    pub(super) fn finish(mut self) -> Option<PartitionState> {
        self.isr.retain(|id| self.replicas.contains(id) && !self.lost.iter().any(|(lost, _)| lost == id));
        self.complete_reassignment();
        let mut new = self.old.clone();
        new.directories = self.replicas.iter().map(|id| self.directory(*id)).collect();
        new.elr = self.eligible();
        new.replicas = std::mem::take(&mut self.replicas);
        new.isr = std::mem::take(&mut self.isr);
        new.adding = std::mem::take(&mut self.adding);
        new.removing = std::mem::take(&mut self.removing);
        if self.recovered {
            new.recovery = Recovery::Recovered;
        }
        self.elect(&mut new);
        if new.isr.len() >= self.min_in_sync.min(new.replicas.len()) {
            new.elr.clear();
        }
        new.last_known_leader = self.last_known_leader(&new);
        self.settle_epochs(new)
    }

    /// A reassignment is complete when all that it adds are in sync and what is left of the in-sync replicas is enough: it
    /// never takes a partition below `min.insync.replicas` by itself, nor its last replica in sync.
    fn complete_reassignment(&mut self) {
        if self.adding.is_empty() && self.removing.is_empty() {
            return;
        }
        let target: Vec<NodeId> = self.replicas.iter().copied().filter(|id| !self.removing.contains(id)).collect();
        let kept: Vec<NodeId> = self.isr.iter().copied().filter(|id| target.contains(id)).collect();
        let enough = kept.len() == self.isr.len() || kept.len() >= self.min_in_sync.min(target.len());
        if kept.is_empty() || !enough || !self.adding.iter().all(|id| kept.contains(id)) {
            return;
        }
        (self.replicas, self.isr) = (target, kept);
        self.adding.clear();
        self.removing.clear();
    }

    fn directory(&self, id: NodeId) -> DirectoryId {
        let placed = self.places.iter().find(|(replica, _)| *replica == id).map(|(_, directory)| *directory);
        placed.unwrap_or_else(|| directory_of(self.old, id))
    }

    /// Replicas that are not in sync any more, but hold all that is committed.
    fn eligible(&self) -> Vec<NodeId> {
        if self.isr.len() >= self.required() {
            return Vec::new();
        }
        let were = |id: &NodeId| self.old.isr.contains(id) || self.old.elr.contains(id);
        let lost = |id: &NodeId| self.lost.iter().any(|(lost, _)| lost == id);
        self.replicas.iter().copied().filter(|id| were(id) && !self.isr.contains(id) && !lost(id)).collect()
    }

    /// Who leads `new`, and what follows from it for the sets.
    fn elect(&self, new: &mut PartitionState) {
        let fit = |id: NodeId| {
            let eligible = new.elr.contains(&id) || planted(Bug::ElrIgnored);
            let holds_all = new.isr.contains(&id) || (new.isr.is_empty() && eligible);
            holds_all && can_lead(self.image, new, id)
        };
        let preferred = || new.replicas.first().copied().filter(|id| self.want == Want::Preferred && fit(*id));
        let stays = || self.old.leader.filter(|id| fit(*id));
        let clean = || new.replicas.iter().copied().find(|id| fit(*id));
        // It is on its way out, but nobody else can: it serves until it is gone.
        let lasts = || self.old.leader.filter(|id| new.isr.contains(id) && serves(self.image, new, *id));
        if let Some(leader) = preferred().or_else(stays).or_else(clean).or_else(lasts) {
            new.leader = Some(leader);
            if !new.isr.contains(&leader) {
                new.isr = vec![leader];
                new.elr.retain(|id| *id != leader);
            }
            return;
        }
        new.leader = self.unclean(new);
        if let Some(leader) = new.leader {
            new.isr = vec![leader];
            new.elr.clear();
            new.recovery = Recovery::Recovering;
        }
    }

    /// Who leads although it may lack records.
    fn unclean(&self, new: &PartitionState) -> Option<NodeId> {
        let fit = |id: &NodeId| new.replicas.contains(id) && can_lead(self.image, new, *id);
        let used_up = new.isr.is_empty() && new.elr.is_empty();
        if used_up && let Some(last) = self.last_known_leader(new).filter(fit) {
            return Some(last);
        }
        if self.want != Want::Unclean {
            return None;
        }
        // Eligible ones are better than others, and one that is known to be empty is the worst.
        let rank = |id: &NodeId| {
            let empty = directory_of(new, *id) == DirectoryId::UNASSIGNED;
            (!new.isr.contains(id), !new.elr.contains(id), empty)
        };
        new.replicas.iter().copied().filter(fit).min_by_key(rank)
    }

    /// Who led last, once nobody is in sync any more. A leader whose disk was replaced has nothing to go back to, unless
    /// there is no other replica.
    fn last_known_leader(&self, new: &PartitionState) -> Option<NodeId> {
        if !new.isr.is_empty() {
            return None;
        }
        let last = self.old.leader.or(self.old.last_known_leader)?;
        let empty = self.lost.contains(&(last, Loss::Disk)) && new.replicas.len() > 1;
        (!empty && new.replicas.contains(&last)).then_some(last)
    }

    fn settle_epochs(&self, mut new: PartitionState) -> Option<PartitionState> {
        let old = self.old;
        if self.image.level() < 1 {
            new.last_known_leader = None;
            new.recovery = Recovery::Recovered;
        }
        let replica_left = old.replicas.iter().any(|id| !new.replicas.contains(id));
        let begins_anew = self.new_process.is_some() && self.new_process == new.leader;
        if new.leader != old.leader || replica_left || begins_anew {
            new.leader_epoch = new.leader_epoch.saturating_add(1);
        }
        if new == *old {
            return None;
        }
        new.partition_epoch = new.partition_epoch.saturating_add(1);
        Some(new)
    }
}

/// Directory of the replica of `id`, [`DirectoryId::UNASSIGNED`] if it has none yet.
fn directory_of(state: &PartitionState, id: NodeId) -> DirectoryId {
    let index = state.replicas.iter().position(|replica| *replica == id);
    index.and_then(|index| state.directories.get(index).copied()).unwrap_or(DirectoryId::UNASSIGNED)
}

/// Whether `id` can serve its replica: in service, and the replica's directory online.
pub(super) fn serves(image: &Image, state: &PartitionState, id: NodeId) -> bool {
    let Some(broker) = image.broker(id) else {
        return false;
    };
    let directory = directory_of(state, id);
    !broker.fenced && (directory == DirectoryId::UNASSIGNED || broker.directories.contains(&directory))
}

/// Whether `id` may be made leader.
pub(crate) fn can_lead(image: &Image, state: &PartitionState, id: NodeId) -> bool {
    serves(image, state, id) && image.broker(id).is_some_and(|broker| broker.is_active())
}
