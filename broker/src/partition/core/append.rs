//! Appending: offsets, duplicates, and when a batch is safe here.

use proto::ids::{LeaderEpoch, Millis, Offset};
use proto::planted::{Bug, planted};

use super::super::types::{AppendError, Origin};
use super::{Command, Core, Health};
use crate::journal::Lsn;
use crate::log::batch::BatchMeta;
use crate::log::layout::Place;
use crate::log::producers::{SentBatch, Verdict};

/// What an append of one batch would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// It gets this base offset.
    New(Offset),
    /// It was appended before.
    Duplicate(SentBatch),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Safe {
    /// When the journal is durable up to here.
    Journaled(Lsn),
    /// When it is written to its segment.
    Written,
}

/// A batch that is not safe here yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) end: Offset,
    safe: Safe,
    /// Segments must be settled up to here first.
    settled: Offset,
}

/// Marks of time kept at most; reaching it, every other one is dropped.
const MAX_TIME_MARKS: usize = 1024;
/// Distance of marks of time, in milliseconds.
const TIME_MARK_MS: Millis = 1_000;

impl Core {
    /// Whether a batch may be appended, and what it would be called. Changes nothing.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn check(&self, batch: &BatchMeta, origin: Origin) -> Result<Check, AppendError> {
        let end = self.layout.end();
        if origin == Origin::Replica {
            // No gap and no overlap: offsets are the leader's, and dense (ORDER).
            if batch.base_offset != end {
                return Err(AppendError::OutOfOrderOffset { expected: end, got: batch.base_offset });
            }
            return Ok(Check::New(batch.base_offset));
        }
        Ok(match self.producers.check(batch, origin)? {
            Verdict::New => Check::New(end),
            Verdict::Duplicate(original) => Check::Duplicate(original),
        })
    }

    /// Whether this writer may append at all now. A leader that we follow has to say which it is.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn check_writer(
        &self,
        leader_epoch: Option<LeaderEpoch>,
        origin: Origin,
        all_acks: bool,
    ) -> Result<(), AppendError> {
        match self.health {
            Health::Good => {}
            Health::Offline => return Err(AppendError::Offline),
            Health::Removed => return Err(AppendError::Deleted),
        }
        let current = self.leadership.epoch;
        match leader_epoch {
            Some(epoch) if epoch < current && !planted(Bug::OlderLeaderEpochAccepted) => {
                return Err(AppendError::FencedLeaderEpoch { current });
            }
            Some(epoch) if epoch > current => return Err(AppendError::UnknownLeaderEpoch { current }),
            _ => {}
        }
        let follows = origin == Origin::Replica;
        if self.leadership.leads == follows || (follows && leader_epoch.is_none()) {
            return Err(AppendError::NotLeader);
        }
        let (in_sync, required) = (self.leadership.isr.len(), self.required_in_sync());
        if all_acks && in_sync < required {
            return Err(AppendError::NotEnoughReplicas { in_sync, required });
        }
        Ok(())
    }

    /// Takes note of a batch that was appended with base offset `base` and will be safe when `lsn` is
    /// (`None`: when it is written). Answers where it goes.
    pub fn appended(&mut self, batch: &BatchMeta, base: Offset, lsn: Option<Lsn>, now_ms: Millis) -> Place {
        assert!(base >= self.layout.end(), "offsets only grow (ORDER)");
        let place = self.apply(batch, base, now_ms);
        let end = self.layout.end();
        let pending = match lsn {
            Some(lsn) => {
                let settled = if self.loose_end > self.settled_end { self.loose_end } else { 0 };
                Pending { end, safe: Safe::Journaled(lsn), settled }
            }
            None => {
                self.loose_end = end;
                Pending { end, safe: Safe::Written, settled: 0 }
            }
        };
        self.pending.push_back(pending);
        place
    }

    fn apply(&mut self, batch: &BatchMeta, base: Offset, now_ms: Millis) -> Place {
        let place = self.layout.next_place(batch, &self.config, now_ms);
        self.layout.append(batch, base, place, &self.config, now_ms);
        if batch.leader_epoch >= 0 {
            self.epochs.assign(batch.leader_epoch, base);
        }
        self.producers.apply(batch, base, now_ms);
        self.mark_time(base, now_ms);
        place
    }

    fn mark_time(&mut self, base: Offset, now_ms: Millis) {
        let due = self.appended_at.back().is_none_or(|(_, at)| now_ms.saturating_sub(*at) >= TIME_MARK_MS);
        if !due {
            return;
        }
        if self.appended_at.len() >= MAX_TIME_MARKS {
            let mut at = 0;
            self.appended_at.retain(|_| {
                at += 1;
                at % 2 == 1
            });
        }
        self.appended_at.push_back((base, now_ms));
    }

    /// When the record at `offset` was appended, by this broker's clock; early by as much as the marks are
    /// apart. `None` at the log end.
    pub fn append_time(&self, offset: Offset) -> Option<Millis> {
        if offset >= self.layout.end() {
            return None;
        }
        let next = self.appended_at.partition_point(|(base, _)| *base <= offset);
        self.appended_at.get(next.saturating_sub(1)).map(|(_, at)| *at)
    }

    pub(super) fn advance_synced(&mut self) -> Vec<Command> {
        let mut end = self.synced_end;
        while let Some(pending) = self.pending.front() {
            let safe = match pending.safe {
                Safe::Journaled(lsn) => lsn <= self.synced_lsn,
                Safe::Written => pending.end <= self.written_end,
            };
            if !safe || pending.settled > self.settled_end {
                break;
            }
            end = pending.end;
            self.pending.pop_front();
        }
        if end == self.synced_end || self.health != Health::Good {
            return Vec::new();
        }
        self.synced_end = end;
        let mut commands = vec![Command::AckLeader(end)];
        commands.extend(self.advance_high_watermark());
        commands
    }

    /// Whether some batch waits for its segment to be settled before it counts as safe.
    pub fn waits_for_settling(&self) -> bool {
        self.pending.front().is_some_and(|pending| pending.settled > self.settled_end)
    }
}
