//! Cutting the tail of the log, and starting over.

use proto::ids::{Millis, Offset};

use super::super::types::AckError;
use super::follow::Cut;
use super::{Command, Core};
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

    /// Drops the local log: it begins, and ends, at `state.offset` with the epochs and producers of `state`
    /// (TIER-IS-TRUTH, KIP-1023). Of one that is not tiered nothing below can be read any more.
    pub fn reset(&mut self, now_ms: Millis, state: Snapshot) -> Vec<Command> {
        let start = state.offset;
        self.begin_at(now_ms, state);
        if !self.is_tiered() {
            self.log_start = start;
        }
        if self.leadership.leads {
            self.term_start = start;
            self.epochs.assign(self.leadership.epoch, start);
        }
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
