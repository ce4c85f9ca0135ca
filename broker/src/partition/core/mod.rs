//! What a partition decides: which batches it takes, what they are called, when they are safe, who may see
//! them, what may be trimmed, who is in sync. Events in, commands out; no clock, no I/O, no lock.
//!
//! Ends ascend: `high_watermark <= synced_end <= log_end`, `last_stable <= high_watermark`. A batch is
//! safe here when the journal says so, or, with `firn.flush = os`, when it is written to its segment. What was
//! written under `os` has no journal behind it, so that a batch journaled after it counts as safe only once
//! that part is *settled* (synced in its segment): after a power cut replay could not bridge the gap.
//!
//! `append` names batches and learns when they are safe here; `watermark` when they are safe everywhere; `isr` keeps
//! the leader's book of the other replicas; `follow` is the other side of it; `trim` and `rewind` take away.

mod append;
mod follow;
mod isr;
mod rewind;
mod trim;
mod watermark;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use proto::ids::{LeaderEpoch, Millis, NodeId, Offset};
use proto::planted::{Bug, planted};

use super::types::{AckError, Offsets};
use crate::journal::Lsn;
use crate::log::config::{Flush, LogConfig};
use crate::log::epochs::EpochCache;
use crate::log::layout::Layout;
use crate::log::producers::Producers;
pub use append::Check;
use append::Pending;
pub use follow::{Contradiction, Cut, LeaderSaid, Loss, TierEnd, Truncation, Uncuttable};
pub use isr::{IsrProposal, IsrRefused, ReplicaFetched, ReplicaView};
use isr::{Proposed, Replica};

/// Who leads and who holds replicas, as the metadata image says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    /// The leader's term. A term has one leader: whoever leads next has a greater one.
    pub epoch: LeaderEpoch,
    /// Version of the partition's state in the image; what is proposed is proposed on it.
    pub partition_epoch: i32,
    /// Who leads; nobody while no replica may.
    pub leader: Option<NodeId>,
    /// Whether it is this broker.
    pub leads: bool,
    /// Replicas in sync, the leader included.
    pub isr: Vec<NodeId>,
    /// All replicas, in sync or not, preferred leader first.
    pub replicas: Vec<ReplicaInfo>,
    /// The leader was elected uncleanly and nobody has followed it yet: what was committed may be cut.
    pub recovering: bool,
}

/// What the image says of a broker that holds a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaInfo {
    /// The broker.
    pub id: NodeId,
    /// Epoch of its registration, -1 if it has none: tells its incarnations apart (KIP-903).
    pub broker_epoch: i64,
    /// Whether it may join the replicas in sync: neither fenced nor shutting down.
    pub eligible: bool,
    /// Its failure domain, if told.
    pub rack: Option<Arc<str>>,
}

impl Leadership {
    /// Nobody leads, and nothing is known of others.
    pub const fn none() -> Self {
        Self {
            epoch: -1,
            partition_epoch: -1,
            leader: None,
            leads: false,
            isr: Vec::new(),
            replicas: Vec::new(),
            recovering: false,
        }
    }

    /// What the image says of a replica.
    pub fn replica(&self, id: NodeId) -> Option<&ReplicaInfo> {
        self.replicas.iter().find(|replica| replica.id == id)
    }
}

#[cfg(test)]
impl Leadership {
    /// `node` leads a partition of these replicas, all of them eligible with broker epoch 1, with `isr` in sync.
    pub(crate) fn of(node: NodeId, epoch: LeaderEpoch, isr: &[NodeId], replicas: &[NodeId]) -> Self {
        let info = |id: &NodeId| ReplicaInfo { id: *id, broker_epoch: 1, eligible: true, rack: None };
        Self {
            epoch,
            partition_epoch: 0,
            leader: Some(node),
            leads: true,
            isr: isr.to_vec(),
            replicas: replicas.iter().map(info).collect(),
            recovering: false,
        }
    }

    /// `node` leads the only replica.
    pub(crate) fn alone(node: NodeId, epoch: LeaderEpoch) -> Self {
        Self::of(node, epoch, &[node], &[node])
    }
}

/// All that can happen to a partition, appends apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The journal is durable up to and including this position.
    Synced(Lsn),
    /// Segments hold (perhaps only in the page cache) everything below this.
    Written(Offset),
    /// Segments durably hold everything below this.
    Settled(Offset),
    /// A replica fetches from us, who lead.
    ReplicaFetched(ReplicaFetched),
    /// Our leader answered a fetch of ours.
    LeaderSaid(LeaderSaid),
    /// A look at who lags; milliseconds of a clock that never steps, the same as in [`ReplicaFetched`].
    IsrTick {
        /// Now.
        now_ms: Millis,
    },
    /// The controller answered a proposal.
    IsrAnswered {
        /// The version that it was proposed on.
        partition_epoch: i32,
        /// What it said.
        outcome: Result<(), IsrRefused>,
    },
    /// The image says who leads.
    Leadership(Leadership),
    /// The quorum committed a pointer.
    Pointer {
        /// Which of the pointers.
        generation: u64,
        /// First readable offset.
        log_start: Offset,
        /// Where the tier ends.
        end: TierEnd,
        /// Wall clock.
        now_ms: Millis,
    },
    /// An operator asked to delete what lies below (not tiered).
    DeleteTo(Offset),
    /// A look at retention; the wall clock.
    Retention(Millis),
    /// The data directory failed.
    Offline,
    /// The partition left this broker.
    Removed,
}

/// All that a partition can ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Acknowledge what waits for the leader and ends at or below this.
    AckLeader(Offset),
    /// Acknowledge what waits for all replicas and ends at or below this.
    AckAll(Offset),
    /// Nothing that waits will be acknowledged.
    FailAcks(AckError),
    /// Readers may see more.
    Visible,
    /// Readers should look again whatever they wait for.
    WakeReaders,
    /// Journal that the local log begins here; unlink files after that.
    TrimHead(Offset),
    /// Ask the controller to change who is in sync.
    ProposeIsr(IsrProposal),
    /// No live replica holds anything below this any more: deletions up to here are done (KIP-107).
    CompleteDeletes(Offset),
    /// What counted as committed was cut off, as a leader elected uncleanly does not have it.
    Uncommitted {
        /// Where the log ends now.
        cut_to: Offset,
        /// The high watermark before.
        was: Offset,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Good,
    Offline,
    Removed,
}

/// The state of one replica of a partition.
#[derive(Debug, Clone)]
pub struct Core {
    node: NodeId,
    config: LogConfig,
    health: Health,
    leadership: Leadership,
    /// Log end when the term began, or when this broker began to lead in it: what the leader of it appended lies at or above.
    term_start: Offset,
    /// The other replicas, as their fetches of this term tell.
    replicas: BTreeMap<NodeId, Replica>,
    /// A change of the replicas in sync that the image has not answered yet.
    proposed: Option<Proposed>,
    /// Nothing is proposed until the image changes, or the next look: the last proposal was refused.
    refused: bool,
    /// Since when, by the clock of [`Event::IsrTick`], the term is watched.
    watched_since: Option<Millis>,
    /// Least log start of the live replicas when it was last told.
    least_start: Offset,
    /// High watermark of the leader of this term, as it said last.
    told: Offset,
    /// First readable offset.
    log_start: Offset,
    /// First offset on local disk.
    local_start: Offset,
    tier_end: Offset,
    pointer_generation: u64,
    synced_end: Offset,
    high_watermark: Offset,
    /// The term in which the high watermark was learnt, -1 if it was found on disk.
    watermark_epoch: LeaderEpoch,
    last_stable: Offset,
    written_end: Offset,
    settled_end: Offset,
    /// End of the last batch that went past the journal.
    loose_end: Offset,
    synced_lsn: Lsn,
    pending: VecDeque<Pending>,
    epochs: EpochCache,
    producers: Producers,
    layout: Layout,
    /// When offsets were appended, coarsely: (first offset, broker's time), ascending.
    appended_at: VecDeque<(Offset, Millis)>,
}

/// A log as it was found, or an empty one.
#[derive(Debug, Clone)]
pub struct Restored {
    /// First offset on local disk.
    pub local_start: Offset,
    /// Its segments.
    pub layout: Layout,
    /// Leader epochs of it.
    pub epochs: EpochCache,
    /// Producers as of its end.
    pub producers: Producers,
}

impl Restored {
    /// A log without records that begins at `start`.
    pub fn empty(start: Offset, now_ms: Millis, config: &LogConfig) -> Self {
        Self {
            local_start: start,
            layout: Layout::new(start, now_ms, config),
            epochs: EpochCache::default(),
            producers: Producers::default(),
        }
    }
}

impl Core {
    /// A partition whose log is `log`, all of it durable; nobody leads it yet.
    pub fn new(node: NodeId, config: LogConfig, log: Restored) -> Self {
        let end = log.layout.end();
        let appended_at = log.layout.segments().map(|segment| (segment.base, segment.created_ms)).collect();
        Self {
            node,
            config,
            health: Health::Good,
            leadership: Leadership::none(),
            term_start: end,
            replicas: BTreeMap::new(),
            proposed: None,
            refused: false,
            watched_since: None,
            least_start: 0,
            told: 0,
            log_start: log.local_start,
            local_start: log.local_start,
            tier_end: 0,
            pointer_generation: 0,
            synced_end: end,
            // With more replicas than one it is learnt again from their fetches; below it nothing is known.
            high_watermark: log.local_start,
            watermark_epoch: -1,
            last_stable: log.local_start,
            written_end: end,
            settled_end: end,
            loose_end: 0,
            synced_lsn: Lsn(0),
            pending: VecDeque::new(),
            epochs: log.epochs,
            producers: log.producers,
            layout: log.layout,
            appended_at,
        }
    }

    /// Takes note of what happened and says what is to be done about it.
    pub fn on(&mut self, event: Event) -> Vec<Command> {
        match event {
            Event::Synced(lsn) => {
                self.synced_lsn = self.synced_lsn.max(lsn);
                self.advance_synced()
            }
            Event::Written(end) => {
                self.written_end = self.written_end.max(end.min(self.layout.end()));
                self.advance_synced()
            }
            Event::Settled(end) => {
                self.settled_end = self.settled_end.max(end.min(self.layout.end()));
                self.advance_synced()
            }
            Event::ReplicaFetched(fetched) => self.replica_fetched(&fetched),
            Event::LeaderSaid(said) => self.leader_said(said),
            Event::IsrTick { now_ms } => self.look_at_lag(now_ms),
            Event::IsrAnswered { partition_epoch, outcome } => self.isr_answered(partition_epoch, outcome),
            Event::Leadership(leadership) => self.lead(leadership),
            Event::Pointer { generation, log_start, end, now_ms } => self.pointed(now_ms, generation, log_start, end),
            Event::DeleteTo(offset) => self.delete_to(offset.min(self.high_watermark)),
            Event::Retention(now_ms) => {
                self.producers.expire(now_ms, self.config.producer_expiration_ms);
                self.trim(now_ms)
            }
            Event::Offline => self.stop(Health::Offline, AckError::Offline),
            Event::Removed => self.stop(Health::Removed, AckError::Deleted),
        }
    }

    /// The image goes on. What comes late changes nothing, nor does a second leader of one term (ONE-LEADER); what the
    /// image says of the replicas' brokers may change without a new version of the partition.
    fn lead(&mut self, leadership: Leadership) -> Vec<Command> {
        let known = &self.leadership;
        let late = (leadership.epoch, leadership.partition_epoch) < (known.epoch, known.partition_epoch);
        let second = leadership.epoch == known.epoch && known.leader.is_some() && leadership.leader != known.leader;
        if late || second {
            return Vec::new();
        }
        let new_term = leadership.epoch > known.epoch;
        let lost = known.leads && (new_term || !leadership.leads);
        // Within its term, too: a log that is to be led may have to start over before.
        let begins = new_term || (leadership.leads && !known.leads);
        let settled = new_term || leadership.partition_epoch > known.partition_epoch;
        // A version that changes nothing is how the controller refuses: what was planned on the one before comes too late.
        let refused =
            settled && leadership == Leadership { partition_epoch: leadership.partition_epoch, ..known.clone() };
        self.leadership = leadership;
        // Only the image says who is in sync, and what became of a proposal (ISR-BY-IMAGE).
        self.refused = refused;
        if settled {
            self.proposed = None;
        }
        if begins {
            self.begin_term();
        }
        self.forget_incarnations();
        let mut commands = Vec::new();
        if lost && !self.leadership.leads {
            commands.push(Command::FailAcks(AckError::NotLeader));
            commands.push(Command::WakeReaders);
        }
        commands.extend(self.advance_high_watermark());
        commands.extend(self.advance_deletes());
        commands
    }

    fn begin_term(&mut self) {
        self.term_start = self.layout.end();
        self.replicas.clear();
        self.watched_since = None;
        self.least_start = 0;
        self.told = 0;
        if self.leadership.leads {
            self.epochs.assign(self.leadership.epoch, self.term_start);
            if planted(Bug::ProducersLostOnFailover) {
                self.producers = Default::default();
            }
        }
    }

    fn stop(&mut self, health: Health, error: AckError) -> Vec<Command> {
        if self.health == Health::Good {
            self.health = health;
        }
        vec![Command::FailAcks(error), Command::WakeReaders]
    }

    /// All ends.
    pub fn offsets(&self) -> Offsets {
        Offsets {
            log_start: self.log_start,
            local_start: self.local_start,
            tier_end: self.tier_end,
            synced_end: self.synced_end,
            high_watermark: self.high_watermark,
            last_stable: self.last_stable,
            log_end: self.layout.end(),
        }
    }

    /// Leader epochs of the log.
    pub const fn epochs(&self) -> &EpochCache {
        &self.epochs
    }

    /// Producers as of the log end.
    pub const fn producers(&self) -> &Producers {
        &self.producers
    }

    /// The segments.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The settings.
    pub const fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Changes the settings. What follows from them now is to be asked for: a lower `min.insync.replicas` lets the high
    /// watermark move without a new append.
    pub fn configure(&mut self, config: LogConfig) -> Vec<Command> {
        self.config = config;
        self.advance_high_watermark()
    }

    /// Raises `min.insync.replicas` to `least`, if it is lower: from there on less is committed, never more.
    pub fn require_in_sync(&mut self, least: usize) {
        self.config.min_insync_replicas = self.config.min_insync_replicas.max(least);
    }

    /// Who leads.
    pub const fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// Whether appends go past the journal.
    pub fn is_loose(&self) -> bool {
        self.config.flush == Flush::Os
    }

    /// Whether the data directory has not failed and the partition is here.
    pub fn is_good(&self) -> bool {
        self.health == Health::Good
    }

    /// Whether the partition was removed.
    pub fn is_removed(&self) -> bool {
        self.health == Health::Removed
    }

    /// Whether other replicas fetch from here.
    pub fn is_followed(&self) -> bool {
        self.leadership.leads && self.leadership.replicas.len() > 1
    }

    /// Whether part of its history is, or will be, in the tier.
    fn is_tiered(&self) -> bool {
        self.config.remote || self.tier_end > 0
    }
}

#[cfg(test)]
mod tests;
