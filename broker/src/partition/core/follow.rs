//! The other side of replication: what a follower learns from its leader, and where its history leaves the leader's.
//!
//! Logs are cut by leader epochs, never by the high watermark (KIP-101, 279, 320). Two logs whose last records below
//! some offset have the same epoch are the same below it.

use proto::ids::{LeaderEpoch, Offset};

use super::{Command, Core, Leadership};

/// What a leader says beside records. Only an answer that found no divergence counts, to a fetch at the log end: below
/// that the histories are the same then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderSaid {
    /// Its term.
    pub epoch: LeaderEpoch,
    /// Its high watermark.
    pub high_watermark: Offset,
    /// First offset that may be read from it.
    pub log_start: Offset,
}

/// Why a log is cut: what the leader of one term has, and what this replica loses by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The leader's term. In another one the log may not be cut for it: what it lacks may have been committed since.
    pub term: LeaderEpoch,
    /// What goes.
    pub loss: Loss,
}

/// What a replica loses when its log is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// A tail that was never committed.
    Uncommitted,
    /// Records that were committed as far as this replica knows: a leader elected uncleanly does not have them.
    Committed,
}

/// Why a log may not be cut there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uncuttable {
    /// Another term began, or this replica leads.
    Moved,
    /// What lies there is committed.
    Committed,
}

/// What a follower does about the end of an epoch that its leader named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truncation {
    /// There is nothing to cut.
    Agrees,
    /// Cut, then fetch again: the leader may name an earlier epoch (KIP-279).
    Cut {
        /// Where the log is to end.
        to: Offset,
        /// What is lost by that.
        why: Cut,
    },
    /// The histories part below what is on local disk, or what the tier holds.
    StartOver,
}

/// Where the tier ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TierEnd {
    /// First offset that is not in the tier.
    pub offset: Offset,
    /// Epoch of the last record in the tier; -1 if nobody said so.
    pub epoch: LeaderEpoch,
}

/// Whether a log contradicts the tier (TIER-IS-TRUTH).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contradiction {
    /// It goes on where the tier ends.
    None,
    /// It ends before the tier does.
    EndsBefore,
    /// What it holds at the tier's end was written under another epoch.
    OtherEpoch,
    /// The pointer does not say the epoch at its end: the tier's last footer does.
    Unknown,
}

impl Core {
    pub(super) fn leader_said(&mut self, said: LeaderSaid) -> Vec<Command> {
        if self.leadership.leads || said.epoch != self.leadership.epoch || !self.is_good() {
            return Vec::new();
        }
        self.told = self.told.max(said.high_watermark);
        let mut commands = self.advance_high_watermark();
        // What deletions or retention took from the leader's log goes here, too. The log start of a tiered partition is
        // in its pointer, for all replicas alike.
        let start = said.log_start.min(self.synced_end);
        if !self.is_tiered() && start > self.local_start {
            commands.extend(self.raise_high_watermark(start));
            commands.extend(self.delete_to(start));
        }
        commands
    }

    /// Epoch of the last record, if there is one and its epoch is known.
    pub fn last_epoch(&self) -> Option<LeaderEpoch> {
        let end = self.layout.end();
        // An epoch that begins at the log end has written nothing.
        if end > 0 { self.epochs.epoch_at(end - 1) } else { None }
    }

    /// What to do when the leader of `term` says that `leader_epoch`, the greatest it knows up to our last one, ends at
    /// `end` there.
    pub fn truncation_point(&self, term: LeaderEpoch, leader_epoch: LeaderEpoch, end: Offset) -> Truncation {
        let log_end = self.layout.end();
        let parts_at = match self.epochs.end_of(leader_epoch, log_end) {
            Some(ours) if ours.epoch == leader_epoch => ours.end.min(end),
            // The leader has an epoch that we lack: all of ours up to it may be the same, and it is asked again.
            Some(ours) => ours.end,
            None => end,
        };
        let to = parts_at.min(log_end);
        if to >= log_end {
            return Truncation::Agrees;
        }
        if to < self.local_start || to < self.tier_end {
            return Truncation::StartOver;
        }
        let loss = if to < self.high_watermark { Loss::Committed } else { Loss::Uncommitted };
        Truncation::Cut { to, why: Cut { term, loss } }
    }

    /// Whether the log may be cut to end at `to`. What counts as committed here goes only after an unclean election: the
    /// image says that the leader recovers, or the high watermark was learnt under an earlier leader (ACKED).
    ///
    /// # Errors
    /// See [`Uncuttable`].
    pub fn may_cut(&self, to: Offset, why: Cut) -> Result<(), Uncuttable> {
        let Leadership { epoch, leads, recovering, .. } = self.leadership;
        if leads || epoch != why.term {
            return Err(Uncuttable::Moved);
        }
        let unclean = recovering || epoch > self.watermark_epoch;
        let may_lose = why.loss == Loss::Committed && unclean && to >= self.tier_end;
        if to >= self.high_watermark || may_lose { Ok(()) } else { Err(Uncuttable::Committed) }
    }

    /// Whether the log has to start over at the tier's end, or where records can be read again: appended below `log_start`, they would be
    /// acknowledged and gone.
    pub fn contradiction(&self, log_start: Offset, end: TierEnd) -> Contradiction {
        if log_start.max(end.offset) > self.layout.end() {
            return Contradiction::EndsBefore;
        }
        if end.offset <= 0 {
            return Contradiction::None;
        }
        if end.offset <= self.local_start {
            // What lies on disk here goes on behind it: it was put there with the tier's epochs, or the pointer is old.
            return Contradiction::None;
        }
        match self.epochs.epoch_at(end.offset - 1) {
            Some(_) if end.epoch < 0 => Contradiction::Unknown,
            Some(ours) if ours != end.epoch => Contradiction::OtherEpoch,
            _ => Contradiction::None,
        }
    }
}
