//! The leader-epoch cache: which leader epoch wrote which range of offsets (KIP-101, 279, 320).
//!
//! Entries ascend strictly in both epoch and start offset. The cache holds no clock and does no
//! I/O; it is made durable as a part of [`crate::log::snapshot`].

use proto::ids::{LeaderEpoch, Offset};

/// The epoch number that means "unknown" (Kafka's `UNDEFINED_EPOCH`).
pub const UNKNOWN_EPOCH: LeaderEpoch = -1;

/// A leader epoch and the first offset written under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEntry {
    /// The leader's term.
    pub epoch: LeaderEpoch,
    /// First offset of that term, inclusive.
    pub start: Offset,
}

/// Where an epoch ended: the answer to OffsetForLeaderEpoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEnd {
    /// Greatest known epoch that is not above the one asked for.
    pub epoch: LeaderEpoch,
    /// First offset that is not of that epoch, exclusive end.
    pub end: Offset,
}

/// Leader epochs of one partition, from the log start to its end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EpochCache {
    entries: Vec<EpochEntry>,
}

impl EpochCache {
    /// A cache of these entries; `None` if epochs or starts do not ascend strictly.
    pub fn from_entries(entries: Vec<EpochEntry>) -> Option<Self> {
        let ascending = entries.iter().zip(entries.iter().skip(1)).all(|(a, b)| a.epoch < b.epoch && a.start < b.start);
        let valid = entries.iter().all(|e| e.epoch >= 0 && e.start >= 0);
        (ascending && valid).then_some(Self { entries })
    }

    /// All entries, ascending.
    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    /// The epoch that wrote last, if any did.
    pub fn latest(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|entry| entry.epoch)
    }

    /// Notes that `epoch` writes from `start` on; answers whether that was news. Entries that
    /// contradict it (later epoch, or same or later start) give way, as they describe content that
    /// is being overwritten, or a term that wrote nothing: the epoch before it may go on where it stood.
    pub fn assign(&mut self, epoch: LeaderEpoch, start: Offset) -> bool {
        if epoch < 0 || start < 0 {
            return false;
        }
        if let Some(last) = self.entries.last()
            && last.epoch == epoch
            && last.start <= start
        {
            return false;
        }
        self.entries.retain(|entry| entry.epoch <= epoch && entry.start < start);
        if self.latest() != Some(epoch) {
            self.entries.push(EpochEntry { epoch, start });
        }
        true
    }

    /// Where `epoch` ended, `log_end` being the end of the latest one. `None` when nothing can be
    /// said: no epoch is known, or `epoch` is later than every known one. An epoch before the
    /// first known one ends where that begins.
    pub fn end_of(&self, epoch: LeaderEpoch, log_end: Offset) -> Option<EpochEnd> {
        let latest = self.latest()?;
        if epoch < 0 || epoch > latest {
            return None;
        }
        if epoch == latest {
            return Some(EpochEnd { epoch, end: log_end });
        }
        let next = self.entries.partition_point(|entry| entry.epoch <= epoch);
        let end = self.entries.get(next)?.start;
        let floor = next.checked_sub(1).and_then(|at| self.entries.get(at));
        Some(EpochEnd { epoch: floor.map_or(epoch, |entry| entry.epoch), end })
    }

    /// The epoch that wrote `offset`, if known.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let next = self.entries.partition_point(|entry| entry.start <= offset);
        let at = next.checked_sub(1)?;
        self.entries.get(at).map(|entry| entry.epoch)
    }

    /// The entries that describe `[from, to)`, the first one starting at or below `from`.
    pub fn range(&self, from: Offset, to: Offset) -> Vec<EpochEntry> {
        let first = self.entries.partition_point(|entry| entry.start <= from).saturating_sub(1);
        self.entries.iter().skip(first).take_while(|entry| entry.start < to).copied().collect()
    }

    /// Forgets what lies at or above `end`.
    pub fn truncate_tail(&mut self, end: Offset) {
        self.entries.retain(|entry| entry.start < end);
    }

    /// Forgets what lies below `start`; the epoch that `start` belongs to then begins there.
    pub fn truncate_head(&mut self, start: Offset) {
        let below = self.entries.partition_point(|entry| entry.start <= start);
        if let Some(keep) = below.checked_sub(1) {
            self.entries.drain(..keep);
            if let Some(first) = self.entries.first_mut() {
                first.start = start;
            }
        }
    }
}

#[cfg(test)]
#[path = "epochs/tests.rs"]
mod tests;
