//! Retention over the whole log: tiered entries first, then local segments that never got tiered.

use proto::ids::{Millis, Offset};
use proto::metadata::TierPointer;

use crate::manifest::Entry;
use crate::plan::next_base;
use crate::ports::{LocalState, TierSettings};

/// What the pointer is to forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// New first readable offset.
    pub log_start: Offset,
    /// New first tiered offset.
    pub tier_start: Offset,
    /// New end of the tier: moved only when nothing is left in it.
    pub tier_end: Offset,
    /// How many of the entries looked at are dropped.
    pub dropped: usize,
    /// Bytes of data in them.
    pub dropped_bytes: u64,
}

/// What decides whether the oldest entry is expired: enough to know without reading the manifest that
/// nothing is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// First offset: the pointer's tier start as long as this is the oldest entry.
    pub base: Offset,
    /// End. Exclusive.
    pub end: Offset,
    /// Greatest timestamp.
    pub max_timestamp: Millis,
    /// Bytes of data.
    pub bytes: u64,
}

impl From<&Entry> for Head {
    fn from(entry: &Entry) -> Self {
        Self { base: entry.base, end: entry.end, max_timestamp: entry.max_timestamp, bytes: entry.object.length }
    }
}

/// Whether entries that were looked at are all there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// There are more behind them.
    Partial,
    /// These are all.
    All,
}

/// Bounds of retention at one moment.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    settings: TierSettings,
    now: Millis,
    total: u64,
    log_start: Offset,
}

impl Bounds {
    fn new(local: &LocalState, pointer: &TierPointer, now: Millis) -> Self {
        Self {
            settings: local.settings,
            now,
            total: pointer.bytes.saturating_add(local.untiered_bytes),
            log_start: pointer.log_start,
        }
    }

    /// Kafka's rules: a piece goes when its newest record is older than `retention.ms`, or when what
    /// remains without it is still at least `retention.bytes`; and when all of it is below log start.
    fn expired(&self, end: Offset, max_timestamp: Millis, bytes: u64) -> bool {
        let by_time = self
            .settings
            .retention_ms
            .is_some_and(|keep| max_timestamp >= 0 && max_timestamp < self.now.saturating_sub(keep));
        let by_size = self
            .settings
            .retention_bytes
            .is_some_and(|keep| self.total.saturating_sub(bytes) >= keep && self.total > keep);
        end <= self.log_start || by_time || by_size
    }

    fn drop(&mut self, end: Offset, bytes: u64) {
        self.total = self.total.saturating_sub(bytes);
        self.log_start = self.log_start.max(end);
    }
}

/// Whether the oldest entry is expired: then [`expire`] is worth reading the manifest for.
pub fn head_expired(local: &LocalState, pointer: &TierPointer, head: &Head, now: Millis) -> bool {
    Bounds::new(local, pointer, now).expired(head.end, head.max_timestamp, head.bytes)
}

/// What to expire. `heads` are the oldest live entries, ascending from the pointer's tier start;
/// `extent` says whether they are all. None if nothing is to do. Only a leader expires.
pub fn expire<'a>(
    local: &LocalState,
    pointer: &TierPointer,
    heads: impl Iterator<Item = &'a Entry>,
    extent: Extent,
    now: Millis,
) -> Option<Expiry> {
    if !local.is_leader {
        return None;
    }
    let mut bounds = Bounds::new(local, pointer, now);
    let mut expiry = Expiry {
        log_start: pointer.log_start,
        tier_start: pointer.tier_start,
        tier_end: pointer.tier_end,
        dropped: 0,
        dropped_bytes: 0,
    };
    let mut emptied = extent == Extent::All;
    for entry in heads {
        let bytes = entry.object.length;
        if !bounds.expired(entry.end, entry.max_timestamp, bytes) {
            emptied = false;
            break;
        }
        bounds.drop(entry.end, bytes);
        expiry.tier_start = entry.end;
        expiry.dropped += 1;
        expiry.dropped_bytes += bytes;
    }
    if emptied {
        expire_local(local, pointer, &mut bounds);
        if bounds.log_start > expiry.tier_end {
            expiry.tier_start = bounds.log_start;
            expiry.tier_end = bounds.log_start;
        }
    }
    expiry.log_start = bounds.log_start;
    let moved = expiry.log_start != pointer.log_start || expiry.tier_start != pointer.tier_start;
    moved.then_some(expiry)
}

/// Whole local segments above the tier that retention allows to forget before they are ever uploaded.
fn expire_local(local: &LocalState, pointer: &TierPointer, bounds: &mut Bounds) {
    let from = next_base(local, pointer);
    let untiered = local.rolled.iter().filter(|segment| segment.base >= from);
    for segment in untiered {
        let whole = segment.end <= local.last_stable;
        if !whole || !bounds.expired(segment.end, segment.max_timestamp, segment.bytes) {
            return;
        }
        bounds.drop(segment.end, segment.bytes);
    }
}
