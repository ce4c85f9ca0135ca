//! Cutting the tail of the log, and starting over.

use proto::ids::{LeaderEpoch, Millis, Offset};

use super::super::types::AckError;
use super::follow::Cut;
use super::{Command, Core, Health};
use crate::log::layout::Layout;
use crate::log::snapshot::Snapshot;

impl Core {
    /// The log ends at `state.offset` from here on; `state` is what was known there.
    ///
    /// # Panics
    /// If [`Core::may_cut`] refuses: what readers saw is not taken back.
    pub fn truncate(&mut self, state: Snapshot, why: Cut) -> Vec<Command> {
        let (end, was) = (state.offset, self.high_watermark);
        assert_eq!(self.may_cut(end, why), Ok(()), "committed records are not cut (ACKED)");
        self.layout.truncate(end, state.segment_base, state.position);
        self.pending.retain(|pending| pending.end <= end);
        self.appended_at.retain(|(base, _)| *base < end);
        self.epochs.truncate_tail(end);
        self.producers = state.producers;
        self.synced_end = self.synced_end.min(end);
        self.written_end = self.written_end.min(end);
        self.settled_end = self.settled_end.min(end);
        self.loose_end = self.loose_end.min(end);
        self.high_watermark = was.min(end);
        self.last_stable = self.last_stable.min(end);
        self.producers.replicated(self.high_watermark);
        let mut commands = vec![Command::FailAcks(AckError::NotLeader), Command::WakeReaders];
        if end < was {
            commands.push(Command::Uncommitted { cut_to: end, was });
        }
        commands
    }

    /// Whether the log may be cut or started over for what was found in `term`: it is here, nobody else may have appended to
    /// it or taken it for what it was, as this replica does not lead, and the term goes on.
    ///
    /// # Errors
    /// What stands against it.
    pub fn may_rewind(&self, term: LeaderEpoch) -> Result<(), AckError> {
        match self.health {
            Health::Removed => Err(AckError::Deleted),
            Health::Offline => Err(AckError::Offline),
            Health::Good if self.leadership.leads || self.leadership.epoch != term => Err(AckError::NotLeader),
            Health::Good => Ok(()),
        }
    }

    /// Drops the local log: it begins, and ends, at `state.offset` with the epochs and producers of `state`
    /// (TIER-IS-TRUTH, KIP-1023). `log_start` is the first offset that can be read from then on: below `state.offset` in
    /// the tier.
    ///
    /// # Panics
    /// If this replica leads, or is not here any more ([`Core::may_rewind`]).
    pub fn reset(&mut self, now_ms: Millis, log_start: Offset, state: Snapshot) -> Vec<Command> {
        let term = self.leadership.epoch;
        assert_eq!(self.may_rewind(term), Ok(()), "only a log that nobody appends to starts over");
        self.begin_at(now_ms, state);
        self.log_start = log_start;
        vec![Command::FailAcks(AckError::NotLeader), Command::WakeReaders]
    }

    /// Lets a log without records begin at `state.offset`, the base of a batch that holds its first readable offset
    /// (KAFKA-6975).
    ///
    /// # Panics
    /// If there are records.
    pub fn begin_before(&mut self, now_ms: Millis, state: Snapshot) {
        assert!(self.is_blank() && state.offset < self.local_start, "an empty log begins at an earlier offset");
        self.begin_at(now_ms, state);
    }

    /// Whether there are no records on local disk.
    pub fn is_blank(&self) -> bool {
        self.local_start >= self.layout.end()
    }

    fn begin_at(&mut self, now_ms: Millis, state: Snapshot) {
        let start: Offset = state.offset;
        self.layout = Layout::new(start, now_ms, &self.config);
        self.appended_at.clear();
        self.pending.clear();
        self.epochs = state.epochs;
        self.producers = state.producers;
        self.local_start = start;
        (self.synced_end, self.written_end, self.settled_end, self.loose_end) = (start, start, start, start);
        (self.high_watermark, self.last_stable) = (start, start);
        self.watermark_epoch = self.leadership.epoch;
        self.producers.replicated(start);
    }
}
