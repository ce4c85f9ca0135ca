//! What a partition decides: which batches it takes, what they are called, when they are safe, who may see
//! them, what may be trimmed. Events in, commands out; no clock, no I/O, no lock.
//!
//! Ends ascend: `high_watermark <= synced_end <= log_end`, `last_stable <= high_watermark`. A batch is
//! safe here when the journal says so, or, with `firn.flush = os`, when it is written to its segment. What was
//! written under `os` has no journal behind it, so that a batch journaled after it counts as safe only once
//! that part is *settled* (synced in its segment): after a power cut replay could not bridge the gap.

use std::collections::{BTreeMap, VecDeque};

use proto::ids::{LeaderEpoch, Millis, NodeId, Offset};

use super::types::{AckError, AppendError, Isolation, Offsets, Origin, ReadError};
use crate::journal::Lsn;
use crate::log::batch::BatchMeta;
use crate::log::config::{Flush, LogConfig};
use crate::log::epochs::EpochCache;
use crate::log::layout::{Layout, Place, TrimRule};
use crate::log::producers::{Producers, SentBatch, Verdict};
use crate::log::snapshot::Snapshot;

/// Who leads, as the metadata image says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    /// The leader's term.
    pub epoch: LeaderEpoch,
    /// Whether it is this broker.
    pub leads: bool,
    /// Replicas in sync, the leader included.
    pub isr: Vec<NodeId>,
    /// How many replicas there are, in sync or not.
    pub replicas: usize,
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
    /// A replica durably holds everything below this.
    ReplicaSynced(NodeId, Offset),
    /// The image says who leads.
    Leadership(Leadership),
    /// The quorum committed a pointer.
    Pointer {
        /// Which of the pointers.
        generation: u64,
        /// First readable offset.
        log_start: Offset,
        /// End of the tier, exclusive.
        tier_end: Offset,
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
}

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pending {
    end: Offset,
    safe: Safe,
    /// Segments must be settled up to here first.
    settled: Offset,
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
    /// Synced ends of the other replicas, as their fetches tell.
    replicas: BTreeMap<NodeId, Offset>,
    /// First readable offset.
    log_start: Offset,
    /// First offset on local disk.
    local_start: Offset,
    tier_end: Offset,
    pointer_generation: u64,
    synced_end: Offset,
    high_watermark: Offset,
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

/// Marks of time kept at most; reaching it, every other one is dropped.
const MAX_TIME_MARKS: usize = 1024;
/// Distance of marks of time, in milliseconds.
const TIME_MARK_MS: Millis = 1_000;

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
            leadership: Leadership { epoch: -1, leads: false, isr: Vec::new(), replicas: 0 },
            replicas: BTreeMap::new(),
            log_start: log.local_start,
            local_start: log.local_start,
            tier_end: 0,
            pointer_generation: 0,
            synced_end: end,
            // With more replicas than one it is learnt again from their fetches; below it nothing is known.
            high_watermark: log.local_start,
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

    // ---- appending

    /// Whether a batch may be appended, and what it would be called. Changes nothing.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn check(&self, batch: &BatchMeta, origin: Origin) -> Result<Check, AppendError> {
        let end = self.layout.end();
        if origin == Origin::Replica {
            if batch.base_offset < end {
                return Err(AppendError::OutOfOrderOffset { expected: end, got: batch.base_offset });
            }
            return Ok(Check::New(batch.base_offset));
        }
        Ok(match self.producers.check(batch, origin)? {
            Verdict::New => Check::New(end),
            Verdict::Duplicate(original) => Check::Duplicate(original),
        })
    }

    /// Whether this writer may append at all now.
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
            Some(epoch) if epoch < current => return Err(AppendError::FencedLeaderEpoch { current }),
            Some(epoch) if epoch > current => return Err(AppendError::UnknownLeaderEpoch { current }),
            _ => {}
        }
        if self.leadership.leads == (origin == Origin::Replica) {
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

    // ---- events

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
            Event::ReplicaSynced(replica, end) => {
                self.replicas.insert(replica, end);
                self.advance_high_watermark()
            }
            Event::Leadership(leadership) => self.lead(leadership),
            Event::Pointer { generation, log_start, tier_end, now_ms } => {
                self.pointed(now_ms, generation, log_start, tier_end)
            }
            Event::DeleteTo(offset) => self.delete_to(offset),
            Event::Retention(now_ms) => {
                self.producers.expire(now_ms, self.config.producer_expiration_ms);
                self.trim(now_ms)
            }
            Event::Offline => self.stop(Health::Offline, AckError::Offline),
            Event::Removed => self.stop(Health::Removed, AckError::Deleted),
        }
    }

    fn advance_synced(&mut self) -> Vec<Command> {
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

    /// `min.insync.replicas`, but never more than there are replicas, as in Kafka: a cluster-wide 2 does not make topics of one
    /// replica useless.
    fn required_in_sync(&self) -> usize {
        self.config.min_insync_replicas.min(self.leadership.replicas)
    }

    fn advance_high_watermark(&mut self) -> Vec<Command> {
        let leadership = &self.leadership;
        if !leadership.leads || leadership.isr.len() < self.required_in_sync() {
            return Vec::new();
        }
        let end_of = |replica: &NodeId| {
            if *replica == self.node { self.synced_end } else { self.replicas.get(replica).copied().unwrap_or(0) }
        };
        // A leader whose own id is not in the set yet counts nevertheless.
        let safe = leadership.isr.iter().map(end_of).fold(self.synced_end, Offset::min);
        if safe <= self.high_watermark {
            return Vec::new();
        }
        self.high_watermark = safe;
        self.producers.replicated(safe);
        self.update_last_stable();
        vec![Command::AckAll(safe), Command::Visible]
    }

    fn update_last_stable(&mut self) {
        let unstable = self.producers.first_unstable().unwrap_or(Offset::MAX);
        self.last_stable = self.last_stable.max(unstable.min(self.high_watermark));
    }

    fn lead(&mut self, leadership: Leadership) -> Vec<Command> {
        if leadership.epoch < self.leadership.epoch {
            return Vec::new();
        }
        let new_term = leadership.epoch > self.leadership.epoch;
        let lost = self.leadership.leads && (new_term || !leadership.leads);
        self.leadership = leadership;
        let mut commands = Vec::new();
        if new_term {
            self.replicas.clear();
            if self.leadership.leads {
                self.epochs.assign(self.leadership.epoch, self.layout.end());
            }
        }
        if lost && !self.leadership.leads {
            commands.push(Command::FailAcks(AckError::NotLeader));
            commands.push(Command::WakeReaders);
        }
        commands.extend(self.advance_high_watermark());
        commands
    }

    fn pointed(&mut self, now_ms: Millis, generation: u64, log_start: Offset, tier_end: Offset) -> Vec<Command> {
        // Whoever commits one tells at once, the image follows: an older one may come after it.
        if generation < self.pointer_generation {
            return Vec::new();
        }
        self.pointer_generation = generation;
        self.tier_end = self.tier_end.max(tier_end);
        // The tier holds only what was committed.
        let mut commands = self.raise_high_watermark(self.tier_end);
        // Before anything is tiered or deleted a pointer says 0, whatever the local log lost meanwhile.
        let before = self.log_start;
        let floor = if self.tier_end > 0 { 0 } else { self.local_start };
        self.log_start = log_start.max(floor);
        if self.log_start != before {
            commands.push(Command::WakeReaders);
        }
        commands.extend(self.trim(now_ms));
        commands
    }

    fn raise_high_watermark(&mut self, to: Offset) -> Vec<Command> {
        let to = to.min(self.synced_end);
        if to <= self.high_watermark {
            return Vec::new();
        }
        self.high_watermark = to;
        self.producers.replicated(to);
        self.update_last_stable();
        vec![Command::AckAll(to), Command::Visible]
    }

    fn delete_to(&mut self, offset: Offset) -> Vec<Command> {
        let to = offset.min(self.high_watermark);
        if to <= self.local_start {
            return Vec::new();
        }
        self.move_local_start(to);
        self.log_start = self.log_start.max(to);
        vec![Command::TrimHead(to), Command::WakeReaders]
    }

    /// Drops whole segments that retention no longer wants here; those of a tiered partition only once
    /// the committed pointer covers them (POINTED, NO-GAP).
    fn trim(&mut self, now_ms: Millis) -> Vec<Command> {
        if self.health != Health::Good {
            return Vec::new();
        }
        let tiered = self.config.remote || self.tier_end > 0;
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

    fn stop(&mut self, health: Health, error: AckError) -> Vec<Command> {
        if self.health == Health::Good {
            self.health = health;
        }
        vec![Command::FailAcks(error), Command::WakeReaders]
    }

    // ---- cutting and starting over

    /// The log ends at `state.offset` from here on; `state` is what was known there.
    ///
    /// # Panics
    /// If that lies below the high watermark: what readers saw is never taken back by this path.
    pub fn truncate(&mut self, state: Snapshot) -> Vec<Command> {
        assert!(state.offset >= self.high_watermark, "committed records are never cut");
        self.layout.truncate(state.offset, state.segment_base, state.position);
        self.pending.retain(|pending| pending.end <= state.offset);
        self.appended_at.retain(|(base, _)| *base < state.offset);
        self.epochs.truncate_tail(state.offset);
        self.producers = state.producers;
        let end = state.offset;
        self.synced_end = self.synced_end.min(end);
        self.written_end = self.written_end.min(end);
        self.settled_end = self.settled_end.min(end);
        self.loose_end = self.loose_end.min(end);
        vec![Command::FailAcks(AckError::NotLeader), Command::WakeReaders]
    }

    /// Drops the local log: it begins, and ends, at `state.offset` with the epochs and producers of `state`
    /// (TIER-IS-TRUTH, KIP-1023).
    pub fn reset(&mut self, now_ms: Millis, state: Snapshot) -> Vec<Command> {
        let start = state.offset;
        self.layout = Layout::new(start, now_ms, &self.config);
        self.appended_at.clear();
        self.pending.clear();
        self.epochs = state.epochs;
        self.producers = state.producers;
        self.local_start = start;
        (self.synced_end, self.written_end, self.settled_end, self.loose_end) = (start, start, start, start);
        (self.high_watermark, self.last_stable) = (start, start);
        self.producers.replicated(start);
        if self.leadership.leads {
            self.epochs.assign(self.leadership.epoch, start);
        }
        vec![Command::FailAcks(AckError::NotLeader), Command::WakeReaders]
    }

    // ---- reading

    /// Whether this reader may read at all now.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn check_reader(&self, leader_epoch: Option<LeaderEpoch>) -> Result<(), ReadError> {
        match self.health {
            Health::Good => {}
            Health::Offline => return Err(ReadError::Offline),
            Health::Removed => return Err(ReadError::Deleted),
        }
        let current = self.leadership.epoch;
        match leader_epoch {
            Some(epoch) if epoch < current => return Err(ReadError::FencedLeaderEpoch { current }),
            Some(epoch) if epoch > current => return Err(ReadError::UnknownLeaderEpoch { current }),
            _ => {}
        }
        if !self.leadership.leads {
            return Err(ReadError::NotLeader);
        }
        Ok(())
    }

    /// Where a reader's view ends, exclusive.
    pub fn visible_end(&self, isolation: Isolation) -> Offset {
        match isolation {
            Isolation::ReadUncommitted => self.high_watermark,
            Isolation::ReadCommitted => self.last_stable,
            Isolation::LogEnd => self.layout.end(),
        }
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

    /// Changes the settings.
    pub fn configure(&mut self, config: LogConfig) {
        self.config = config;
    }

    /// Who leads.
    pub const fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// Whether appends go past the journal.
    pub fn is_loose(&self) -> bool {
        self.config.flush == Flush::Os
    }

    /// Whether some batch waits for its segment to be settled before it counts as safe.
    pub fn waits_for_settling(&self) -> bool {
        self.pending.front().is_some_and(|pending| pending.settled > self.settled_end)
    }

    /// Whether the data directory has not failed and the partition is here.
    pub fn is_good(&self) -> bool {
        self.health == Health::Good
    }

    /// Whether the partition was removed.
    pub fn is_removed(&self) -> bool {
        self.health == Health::Removed
    }

    /// Bytes that no trim can free: those not in the tier of a tiered log, all of one that is not.
    pub fn untrimmable_bytes(&self) -> u64 {
        if !self.config.remote {
            return self.layout.bytes();
        }
        self.layout.from(self.tier_end).filter(|segment| segment.end > self.tier_end).map(|s| s.bytes).sum()
    }
}

#[cfg(test)]
#[path = "core/tests.rs"]
mod tests;
