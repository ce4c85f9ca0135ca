//! The leader's book of the other replicas, and which of them should be in sync.
//!
//! A replica is in sync while it reached the log end, as it was at its previous fetch, within
//! `replica.lag.time.max.ms`. Changes are proposed to the controller, one at a time; the image alone makes them true
//! (KIP-497). A fetch counts only if it is of a replica of the image, of its current incarnation (KIP-903), and of one
//! whose history is ours.

use proto::ids::{LeaderEpoch, Millis, NodeId, Offset};
use proto::planted::{Bug, planted};

use super::{Command, Core};

/// A replica's fetch, as far as its leader's book is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaFetched {
    /// Who fetches.
    pub replica: NodeId,
    /// Epoch of its registration, -1 if it does not say.
    pub broker_epoch: i64,
    /// Where it goes on: it durably holds everything below.
    pub offset: Offset,
    /// Epoch of its last record, if it has one and says so.
    pub last_fetched_epoch: Option<LeaderEpoch>,
    /// First offset it has not deleted.
    pub log_start: Offset,
    /// Milliseconds of a clock that never steps.
    pub now_ms: Millis,
}

/// A change of the replicas in sync, to be asked of the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsrProposal {
    /// Term of the leader that asks.
    pub leader_epoch: LeaderEpoch,
    /// Version of the partition it is planned on.
    pub partition_epoch: i32,
    /// Replicas in sync from there on, the leader included, each with the broker epoch known of it (-1: none).
    pub isr: Vec<(NodeId, i64)>,
    /// A leader that was elected uncleanly is followed again.
    pub recovered: bool,
}

/// Why the controller did not change the replicas in sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsrRefused {
    /// The partition has gone on from the version that it was planned on: the image will tell. If the proposal was asked
    /// before, with no known outcome, it may be what the partition went on by.
    Outdated,
    /// It was planned on the version that stood, and may not be: nothing was done, and nothing will be, as the partition has gone on to
    /// another version by that.
    Ineligible,
    /// It may or may not have been carried out: to be asked again as it is, as that cannot succeed twice.
    Unknown,
}

/// What is known of another replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Replica {
    broker_epoch: i64,
    /// It durably holds everything below.
    pub(super) end: Offset,
    log_start: Offset,
    last_fetch: Millis,
    /// When it last had all that there was.
    caught_up: Millis,
    /// Our log end at its last fetch.
    end_at_last_fetch: Offset,
}

/// A proposal that the image has not answered yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proposed {
    proposal: IsrProposal,
    /// Those it lets in: they hold the high watermark back already.
    pub(super) joining: Vec<NodeId>,
}

/// A replica, for metrics and for those who choose the nearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaView {
    /// The broker.
    pub id: NodeId,
    /// Whether the image counts it as in sync.
    pub in_sync: bool,
    /// It durably holds everything below; none if it has not fetched in this term.
    pub synced_end: Option<Offset>,
    /// First offset it has not deleted, likewise.
    pub log_start: Option<Offset>,
    /// For how long it has lagged, in milliseconds: 0 for the leader and for who has all there is; likewise.
    pub lag_ms: Option<Millis>,
}

impl Core {
    pub(super) fn replica_fetched(&mut self, fetched: &ReplicaFetched) -> Vec<Command> {
        let Some(info) = self.leadership.replica(fetched.replica) else {
            return Vec::new();
        };
        let told = fetched.broker_epoch;
        let known = self.replicas.get(&fetched.replica).copied();
        let newest = known.map_or(info.broker_epoch, |known| known.broker_epoch.max(info.broker_epoch));
        let old_incarnation = told >= 0 && told < newest && !planted(Bug::ZombieNotFenced);
        if !self.leadership.leads || fetched.replica == self.node || old_incarnation || !self.agrees(fetched) {
            return Vec::new();
        }
        let (now, end) = (fetched.now_ms, self.layout.end());
        let mut replica =
            known.filter(|known| known.broker_epoch == told || planted(Bug::ZombieNotFenced)).unwrap_or(Replica {
                broker_epoch: told,
                end: 0,
                log_start: 0,
                last_fetch: Millis::MIN,
                caught_up: Millis::MIN,
                end_at_last_fetch: Offset::MAX,
            });
        if fetched.offset >= end {
            replica.caught_up = replica.caught_up.max(now);
        } else if fetched.offset >= replica.end_at_last_fetch {
            replica.caught_up = replica.caught_up.max(replica.last_fetch);
        }
        replica.end = replica.end.max(fetched.offset);
        replica.log_start = replica.log_start.max(fetched.log_start);
        replica.last_fetch = now;
        replica.end_at_last_fetch = end;
        self.replicas.insert(fetched.replica, replica);
        let mut commands = self.let_join(fetched.replica);
        commands.extend(self.advance_high_watermark());
        commands.extend(self.advance_deletes());
        commands
    }

    /// Whether what the replica has is ours: one that has yet to cut its log holds something else below its end.
    fn agrees(&self, fetched: &ReplicaFetched) -> bool {
        let end = self.layout.end();
        let same_history = |epoch| {
            let ours = self.epochs.end_of(epoch, end);
            ours.is_some_and(|ours| ours.epoch == epoch && ours.end >= fetched.offset)
        };
        fetched.offset <= end && fetched.last_fetched_epoch.is_none_or(same_history)
    }

    /// Proposes to let a replica join that has caught up.
    fn let_join(&mut self, id: NodeId) -> Vec<Command> {
        let leadership = &self.leadership;
        let (Some(info), Some(replica)) = (leadership.replica(id), self.replicas.get(&id)) else {
            return Vec::new();
        };
        let current =
            replica.broker_epoch < 0 || replica.broker_epoch == info.broker_epoch || planted(Bug::ZombieNotFenced);
        let caught_up = replica.end >= self.high_watermark.max(self.term_start);
        if leadership.isr.contains(&id) || !info.eligible || !current || !caught_up {
            return Vec::new();
        }
        let isr = leadership.isr.iter().copied().chain([id]).collect();
        let commands = self.propose(isr, vec![id]);
        if let (false, Some(replica)) = (commands.is_empty(), self.replicas.get_mut(&id)) {
            // Having what is committed is enough to join: the time to reach the log end begins here.
            replica.caught_up = replica.caught_up.max(replica.last_fetch);
        }
        commands
    }

    /// Proposes to drop those from the replicas in sync that lag.
    pub(super) fn look_at_lag(&mut self, now_ms: Millis) -> Vec<Command> {
        if !self.leadership.leads {
            return Vec::new();
        }
        self.refused = false;
        let since = *self.watched_since.get_or_insert(now_ms);
        let lags = |id: &NodeId| {
            // Who was in sync when the term began counts as caught up then.
            let caught_up = self.replicas.get(id).map_or(since, |replica| replica.caught_up.max(since));
            *id != self.node && now_ms.saturating_sub(caught_up) > self.config.replica_lag_max_ms
        };
        let isr = &self.leadership.isr;
        let stay: Vec<NodeId> = isr.iter().copied().filter(|id| !lags(id)).collect();
        if stay.len() == isr.len() {
            return Vec::new();
        }
        self.propose(stay, Vec::new())
    }

    fn propose(&mut self, isr: Vec<NodeId>, joining: Vec<NodeId>) -> Vec<Command> {
        if self.proposed.is_some() || self.refused {
            return Vec::new();
        }
        if planted(Bug::IsrWithoutController) && joining.is_empty() {
            self.leadership.isr = isr;
            return self.advance_high_watermark();
        }
        let epoch_of = |id: NodeId| {
            let fetched = self.replicas.get(&id).map(|replica| replica.broker_epoch).filter(|epoch| *epoch >= 0);
            let known = || self.leadership.replica(id).map_or(-1, |info| info.broker_epoch);
            (id, fetched.unwrap_or_else(known))
        };
        let proposal = IsrProposal {
            leader_epoch: self.leadership.epoch,
            partition_epoch: self.leadership.partition_epoch,
            isr: isr.into_iter().map(epoch_of).collect(),
            recovered: self.leadership.recovering && !joining.is_empty(),
        };
        self.proposed = Some(Proposed { proposal: proposal.clone(), joining });
        vec![Command::ProposeIsr(proposal)]
    }

    /// The controller answered. That it agreed changes nothing: the image is on its way.
    pub(super) fn isr_answered(&mut self, partition_epoch: i32, outcome: Result<(), IsrRefused>) -> Vec<Command> {
        let asked = |proposed: &&Proposed| proposed.proposal.partition_epoch == partition_epoch;
        let Some(proposed) = self.proposed.as_ref().filter(asked) else {
            return Vec::new();
        };
        match outcome {
            // Whom it lets in may be in: the image says so, or that it is not.
            Ok(()) | Err(IsrRefused::Outdated) => Vec::new(),
            Err(IsrRefused::Unknown) => vec![Command::ProposeIsr(proposed.proposal.clone())],
            Err(IsrRefused::Ineligible) => {
                self.proposed = None;
                self.refused = true;
                self.advance_high_watermark()
            }
        }
    }

    /// What an incarnation told that is over by the image counts no more: the next one may have less.
    pub(super) fn forget_incarnations(&mut self) {
        let leadership = &self.leadership;
        self.replicas.retain(|id, replica| {
            let current = leadership.replica(*id).map(|info| info.broker_epoch);
            let newest = |current| replica.broker_epoch < 0 || replica.broker_epoch >= current;
            current.is_some_and(|current| newest(current) || planted(Bug::ZombieNotFenced))
        });
    }

    /// First offset that some live replica has not deleted (Kafka's low watermark). A live replica that was not heard of
    /// in this term may hold anything.
    pub fn low_watermark(&self) -> Offset {
        let others = self.leadership.replicas.iter().filter(|info| info.eligible && info.id != self.node);
        let start_of = |id| self.replicas.get(&id).map_or(0, |replica| replica.log_start);
        others.map(|info| start_of(info.id)).fold(self.log_start, Offset::min)
    }

    pub(super) fn advance_deletes(&mut self) -> Vec<Command> {
        if !self.is_followed() {
            return Vec::new();
        }
        let least = self.low_watermark();
        if least <= self.least_start {
            return Vec::new();
        }
        self.least_start = least;
        vec![Command::CompleteDeletes(least)]
    }

    /// What this leader knows of the replicas, itself included, in the order of the image; nothing where others lead.
    pub fn replica_views(&self, now_ms: Millis) -> Vec<ReplicaView> {
        if !self.leadership.leads {
            return Vec::new();
        }
        // Who has not caught up yet in this term lags at least since that is looked at.
        let since = self.watched_since.unwrap_or(now_ms);
        let view = |id: NodeId| {
            let in_sync = self.leadership.isr.contains(&id);
            if id == self.node {
                let (end, start) = (Some(self.synced_end), Some(self.log_start));
                return ReplicaView { id, in_sync, synced_end: end, log_start: start, lag_ms: Some(0) };
            }
            let replica = self.replicas.get(&id);
            let lag = |replica: &Replica| {
                if replica.end >= self.layout.end() {
                    0
                } else {
                    now_ms.saturating_sub(replica.caught_up.max(since)).max(0)
                }
            };
            ReplicaView {
                id,
                in_sync,
                synced_end: replica.map(|replica| replica.end),
                log_start: replica.map(|replica| replica.log_start),
                lag_ms: replica.map(lag),
            }
        };
        self.leadership.replicas.iter().map(|info| view(info.id)).collect()
    }
}
