//! The next pointer, from the one before and what was done.

use std::collections::BTreeMap;

use proto::ids::Offset;
use proto::metadata::tier::{MAX_POINTS, MAX_TAIL_ENTRIES};
use proto::metadata::{RootRef, TierPoint, TierPointer};
use uuid::Uuid;

use crate::manifest::{Change, Entry, Manifest, Violation};
use crate::plan::Expiry;

/// Points that an entry keeps while it is in the pointer, which lives in the quorum's memory.
pub const POINTER_POINTS: usize = 8;

/// Whether `more` entries still fit into the pointer itself. If not, a root has to be written first.
pub fn fits_tail(pointer: &TierPointer, more: usize) -> bool {
    pointer.tail.len() + more <= MAX_TAIL_ENTRIES
}

/// The pointer after `entries` were appended, with `root` as its new root that holds all of them and
/// the tail; without one they join the tail. `base` is where the first of them begins.
pub fn appended(old: &TierPointer, entries: &[Entry], base: Offset, root: Option<RootRef>) -> TierPointer {
    let mut next = TierPointer { generation: old.generation + 1, ..old.clone() };
    if old.is_empty() {
        next.tier_start = base;
        next.log_start = old.log_start.max(base);
        next.tail.clear();
        next.root = None;
    }
    if root.is_some() {
        next.root = root;
        next.tail.clear();
    } else {
        next.tail
            .extend(entries.iter().map(|entry| Entry { points: thin(&entry.points, POINTER_POINTS), ..entry.clone() }));
    }
    if let Some(last) = entries.last() {
        next.tier_end = last.end;
        next.end_epoch = last.epochs.last().map_or(-1, |(epoch, _)| *epoch);
    }
    next.bytes += entries.iter().map(|entry| entry.object.length).sum::<u64>();
    next
}

/// The pointer after an expiry.
pub fn expired(old: &TierPointer, expiry: &Expiry) -> TierPointer {
    let mut next = TierPointer {
        generation: old.generation + 1,
        log_start: expiry.log_start,
        tier_start: expiry.tier_start,
        tier_end: expiry.tier_end,
        bytes: old.bytes.saturating_sub(expiry.dropped_bytes),
        ..old.clone()
    };
    if expiry.tier_start >= root_end(old) {
        next.root = None;
    }
    next.tail.retain(|entry| entry.end > expiry.tier_start);
    if next.is_empty() {
        // Its end is no record's any more: replicas would compare theirs with one that is gone.
        next.end_epoch = -1;
    }
    next
}

/// The root that holds all of `root`'s live entries, the pointer's tail and `entries`. `points` has the
/// full points of entries whose place in the pointer keeps only a few.
pub fn folded(
    root: &Manifest,
    old: &TierPointer,
    entries: &[Entry],
    points: &BTreeMap<Uuid, Vec<TierPoint>>,
) -> Result<Manifest, Violation> {
    let tail = old.tail.iter().cloned().map(|mut entry| {
        if let Some(full) = points.get(&entry.object.key.uuid) {
            entry.points = thin(full, MAX_POINTS);
        }
        entry
    });
    let appended = tail.chain(entries.iter().cloned()).collect();
    root.apply(&Change::Expire { tier_start: old.tier_start })?.apply(&Change::Append(appended))
}

/// First offset that the root does not hold.
pub fn root_end(pointer: &TierPointer) -> Offset {
    pointer.tail.first().map_or(pointer.tier_end, |entry| entry.base)
}

/// At most `max` of the points, evenly chosen.
fn thin(points: &[TierPoint], max: usize) -> Vec<TierPoint> {
    let step = points.len().div_ceil(max).max(1);
    points.iter().step_by(step).copied().collect()
}
