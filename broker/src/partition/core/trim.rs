//! What leaves the front of the log: by retention, by request, by what the tier holds.

use proto::ids::{Millis, Offset};
use proto::planted::{Bug, planted};

use super::follow::{Contradiction, TierEnd};
use super::{Command, Core};
use crate::log::layout::TrimRule;

impl Core {
    /// The quorum committed a pointer. A follower whose log contradicts it takes nothing from it: it starts over first, and
    /// is told again then. Otherwise it would count what it holds as committed.
    pub(super) fn pointed(&mut self, now_ms: Millis, generation: u64, log_start: Offset, end: TierEnd) -> Vec<Command> {
        // Whoever commits one tells at once, the image follows: an older one may come after it.
        if generation < self.pointer_generation {
            return Vec::new();
        }
        let contradiction = self.contradiction(log_start, end);
        let contradicts = matches!(contradiction, Contradiction::EndsBefore | Contradiction::OtherEpoch);
        if contradicts && !self.leadership.leads {
            return Vec::new();
        }
        self.pointer_generation = generation;
        self.tier_end = self.tier_end.max(end.offset);
        // The tier holds only what was committed.
        let known = self.leadership.leads || contradiction == Contradiction::None;
        let mut commands = if known { self.raise_high_watermark(self.tier_end) } else { Vec::new() };
        // Before anything is tiered or deleted a pointer says 0, whatever the local log lost meanwhile.
        let before = self.log_start;
        let floor = if self.tier_end > 0 { 0 } else { self.local_start };
        self.log_start = log_start.max(floor);
        if planted(Bug::TierStartBack) && self.leadership.epoch > 0 {
            self.log_start = 0;
        }
        if self.log_start != before {
            commands.push(Command::WakeReaders);
        }
        commands.extend(self.trim(now_ms));
        commands
    }

    /// Deletes what lies below `to`, which is at most the high watermark.
    pub(super) fn delete_to(&mut self, to: Offset) -> Vec<Command> {
        if to <= self.local_start {
            return Vec::new();
        }
        self.move_local_start(to);
        self.log_start = self.log_start.max(to);
        vec![Command::TrimHead(to), Command::WakeReaders]
    }

    /// Drops whole segments that retention no longer wants here; those of a tiered partition only once
    /// the committed pointer covers them (POINTED, NO-GAP).
    pub(super) fn trim(&mut self, now_ms: Millis) -> Vec<Command> {
        if !self.is_good() {
            return Vec::new();
        }
        let tiered = self.is_tiered();
        let (max_age_ms, max_bytes) =
            if self.config.delete || tiered { self.config.local_limits() } else { (None, None) };
        let limit = if tiered { self.tier_end.min(self.high_watermark) } else { self.high_watermark };
        let rule = TrimRule { limit, log_start: self.log_start, max_age_ms, max_bytes };
        let Some(target) = self.layout.trim_target(now_ms, &rule).filter(|target| *target > self.local_start) else {
            return Vec::new();
        };
        if target == self.layout.end() {
            self.layout.roll(&self.config, now_ms);
        }
        self.move_local_start(target);
        let mut commands = vec![Command::TrimHead(target)];
        if !tiered {
            self.log_start = self.log_start.max(target);
            commands.push(Command::WakeReaders);
        }
        commands
    }

    fn move_local_start(&mut self, to: Offset) {
        self.local_start = to;
        self.layout.trim_head(to);
        while self.appended_at.get(1).is_some_and(|(base, _)| *base <= to) {
            self.appended_at.pop_front();
        }
        self.producers.truncate_head(to);
        if self.tier_end == 0 {
            self.epochs.truncate_head(to);
        }
    }

    /// Bytes that no trim can free: those not in the tier of a tiered log, all of one that is not.
    pub fn untrimmable_bytes(&self) -> u64 {
        if !self.config.remote {
            return self.layout.bytes();
        }
        self.layout.from(self.tier_end).filter(|segment| segment.end > self.tier_end).map(|s| s.bytes).sum()
    }
}
