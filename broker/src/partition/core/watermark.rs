//! The high watermark: what is safe on every replica in sync, and who may see how far (ACKED).
//!
//! The leader takes the least synced end over the *maximal* set of replicas in sync: those of the image and those it
//! proposed to let join, as the controller may believe them in sync already. Whoever it proposed to drop counts until
//! the image says otherwise (KIP-497). A follower takes what its leader says, as far as it is synced here.

use proto::ids::{LeaderEpoch, NodeId, Offset};
use proto::planted::{Bug, planted};

use super::super::types::{Isolation, ReadError, Reader};
use super::{Command, Core, Health};

impl Core {
    /// `min.insync.replicas`, but never more than there are replicas, as in Kafka: a cluster-wide 2 does not make topics
    /// of one replica useless.
    pub(super) fn required_in_sync(&self) -> usize {
        self.config.min_insync_replicas.min(self.leadership.replicas.len())
    }

    /// Moves the high watermark as far as it may go.
    pub(super) fn advance_high_watermark(&mut self) -> Vec<Command> {
        if self.health != Health::Good {
            return Vec::new();
        }
        if !self.leadership.leads {
            return self.raise_high_watermark(self.told);
        }
        if self.leadership.isr.len() < self.required_in_sync() && !planted(Bug::HwBelowMinIsr) {
            return Vec::new();
        }
        if planted(Bug::AckBeforeReplication) {
            return self.raise_high_watermark(self.own_end());
        }
        // A leader whose own id is not in the set yet counts nevertheless.
        let safe = self.maximal_isr().map(|replica| self.synced_end_of(replica)).fold(self.own_end(), Offset::min);
        self.raise_high_watermark(safe)
    }

    fn maximal_isr(&self) -> impl Iterator<Item = NodeId> + '_ {
        let joining = self.proposed.iter().flat_map(|proposed| proposed.joining.iter());
        self.leadership.isr.iter().chain(joining).copied()
    }

    /// End of what is durable here.
    fn own_end(&self) -> Offset {
        if planted(Bug::AckBeforeSync) { self.layout.end() } else { self.synced_end }
    }

    fn synced_end_of(&self, replica: NodeId) -> Offset {
        if replica == self.node {
            return self.own_end();
        }
        // Who has not fetched in this term may hold anything.
        self.replicas.get(&replica).map_or(0, |replica| replica.end)
    }

    pub(super) fn raise_high_watermark(&mut self, to: Offset) -> Vec<Command> {
        let to = to.min(self.own_end());
        if to <= self.high_watermark {
            return Vec::new();
        }
        self.high_watermark = to;
        self.watermark_epoch = self.leadership.epoch;
        self.producers.replicated(to);
        self.update_last_stable();
        if self.leadership.leads { vec![Command::AckAll(to), Command::Visible] } else { vec![Command::Visible] }
    }

    fn update_last_stable(&mut self) {
        let unstable = self.producers.first_unstable().unwrap_or(Offset::MAX);
        self.last_stable = self.last_stable.max(unstable.min(self.high_watermark));
    }

    /// Whether the high watermark of this leader is what it was before it led: until it reaches the start of its term
    /// the last one may have told readers of more (KIP-207). False where others lead.
    pub fn watermark_is_known(&self) -> bool {
        self.leadership.leads && self.high_watermark >= self.term_start
    }

    /// Whether this reader may read at all now.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn check_reader(&self, leader_epoch: Option<LeaderEpoch>, reader: Reader) -> Result<(), ReadError> {
        match self.health {
            Health::Good => {}
            Health::Offline => return Err(ReadError::Offline),
            Health::Removed => return Err(ReadError::Deleted),
        }
        let current = self.leadership.epoch;
        match leader_epoch {
            Some(epoch) if epoch < current && !planted(Bug::OlderLeaderEpochAccepted) => {
                return Err(ReadError::FencedLeaderEpoch { current });
            }
            Some(epoch) if epoch > current => return Err(ReadError::UnknownLeaderEpoch { current }),
            _ => {}
        }
        if !self.serves(reader) {
            return Err(ReadError::NotLeader);
        }
        Ok(())
    }

    /// Whether this reader is served here: a replica that follows serves who asks for the nearest (KIP-392).
    pub fn serves(&self, reader: Reader) -> bool {
        self.leadership.leads || (reader == Reader::NearConsumer && self.leadership.epoch >= 0)
    }

    /// Where a reader's view ends, exclusive.
    pub fn visible_end(&self, isolation: Isolation) -> Offset {
        match isolation {
            Isolation::ReadUncommitted if planted(Bug::FetchAboveHw) => self.layout.end(),
            Isolation::ReadUncommitted => self.high_watermark,
            Isolation::ReadCommitted => self.last_stable,
            Isolation::LogEnd => self.layout.end(),
        }
    }
}
