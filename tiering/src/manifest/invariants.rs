//! What must hold of a manifest and of a pointer before it is committed. The names are those that
//! appear in errors, logs and DESIGN.

use std::fmt;

use proto::metadata::TierPointer;
use proto::metadata::tier::{MAX_POINTS, MAX_TAIL_ENTRIES};

use super::{Entry, LeafRef, Manifest, View};

/// A named invariant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// Ranges are not empty and follow on one another without gap or overlap.
    Contiguous,
    /// Points lie in their entry, ascend, and are at most 32.
    Points,
    /// Epochs ascend, cover the entry, and never go back from one entry to the next.
    Epochs,
    /// An object's slice is not empty and its footer does not lie inside the data.
    Slice,
    /// A leaf says of itself what its entries are.
    LeafBounds,
    /// `[tier start, tier end)` is covered exactly by the root's live entries followed by the tail.
    Covered,
    /// Generation, log start, tier start and tier end never go back, the generation goes up by one.
    Forward,
    /// The tail holds at most 16 entries.
    TailBounded,
    /// The pointer's bytes are those of the entries it covers.
    Bytes,
    /// Nothing is expired that may still be read: tier start is not above log start.
    Readable,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Contiguous => "CONTIGUOUS",
            Self::Points => "POINTS",
            Self::Epochs => "EPOCHS",
            Self::Slice => "SLICE",
            Self::LeafBounds => "LEAF-BOUNDS",
            Self::Covered => "COVERED",
            Self::Forward => "FORWARD",
            Self::TailBounded => "TAIL-BOUNDED",
            Self::Bytes => "BYTES",
            Self::Readable => "READABLE",
        })
    }
}

/// An invariant that would not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{invariant}: {detail}")]
pub struct Violation {
    /// Which one.
    pub invariant: Invariant,
    /// Where.
    pub detail: String,
}

impl Violation {
    pub(super) fn new(invariant: Invariant, detail: impl Into<String>) -> Self {
        Self { invariant, detail: detail.into() }
    }
}

fn ensure(holds: bool, invariant: Invariant, detail: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation::new(invariant, detail())) }
}

impl Manifest {
    /// Checks every invariant of a root by itself.
    pub fn check(&self) -> Result<(), Violation> {
        for leaf in &self.leaves {
            check_leaf(leaf)?;
        }
        for (before, after) in self.leaves.iter().zip(self.leaves.iter().skip(1)) {
            contiguous(before.end, after.base)?;
            ensure(before.last_epoch <= after.last_epoch, Invariant::Epochs, || {
                format!("leaf at {} goes back to epoch {}", after.base, after.last_epoch)
            })?;
        }
        if let (Some(leaf), Some(entry)) = (self.leaves.last(), self.entries.first()) {
            contiguous(leaf.end, entry.base)?;
        }
        check_entries(&self.entries)
    }
}

/// Checks entries by themselves and against each other.
pub fn check_entries(entries: &[Entry]) -> Result<(), Violation> {
    for entry in entries {
        check_entry(entry)?;
    }
    for (before, after) in entries.iter().zip(entries.iter().skip(1)) {
        contiguous(before.end, after.base)?;
        let (last, first) = (before.epochs.last(), after.epochs.first());
        ensure(last.map(|(epoch, _)| epoch) <= first.map(|(epoch, _)| epoch), Invariant::Epochs, || {
            format!("entry at {} goes back to an older epoch", after.base)
        })?;
    }
    Ok(())
}

/// Checks what a commit would make of `old`. `root` is the root that `new` names, if there is one.
pub fn check_commit(old: &TierPointer, new: &TierPointer, root: Option<&Manifest>) -> Result<(), Violation> {
    let forward = new.generation == old.generation + 1
        && new.log_start >= old.log_start
        && new.tier_start >= old.tier_start
        && new.tier_end >= old.tier_end;
    ensure(forward, Invariant::Forward, || {
        format!(
            "generation {} [{}, {}) log start {} after generation {} [{}, {}) log start {}",
            new.generation,
            new.tier_start,
            new.tier_end,
            new.log_start,
            old.generation,
            old.tier_start,
            old.tier_end,
            old.log_start
        )
    })?;
    check_pointer(new, root)
}

/// Checks a pointer against the root it names.
pub fn check_pointer(pointer: &TierPointer, root: Option<&Manifest>) -> Result<(), Violation> {
    ensure(pointer.tail.len() <= MAX_TAIL_ENTRIES, Invariant::TailBounded, || {
        format!("{} entries", pointer.tail.len())
    })?;
    ensure(pointer.tier_start <= pointer.log_start, Invariant::Readable, || {
        format!("tier start {} above log start {}", pointer.tier_start, pointer.log_start)
    })?;
    check_entries(&pointer.tail)?;
    if let Some(last) = pointer.tail.last() {
        ensure(last.end == pointer.tier_end, Invariant::Covered, || {
            format!("the tail ends at {}, tier end is {}", last.end, pointer.tier_end)
        })?;
    }
    if let Some(root) = root {
        root.check()?;
    }
    if root.is_none() && pointer.root.is_some() {
        return Ok(());
    }
    check_cover(pointer, root)
}

fn check_cover(pointer: &TierPointer, root: Option<&Manifest>) -> Result<(), Violation> {
    let view = View::new(pointer, root);
    let mut bytes = 0u64;
    let mut at = pointer.tier_start;
    let mut first = true;
    for leaf in view.leaves() {
        // The oldest live leaf may begin below tier start: its first entries are expired.
        let joined = if first { leaf.base <= at } else { leaf.base == at };
        ensure(joined, Invariant::Covered, || format!("leaf at {} does not join at {at}", leaf.base))?;
        bytes = bytes.saturating_add(leaf.bytes);
        at = leaf.end;
        first = false;
    }
    for entry in view.entries() {
        ensure(entry.base == at, Invariant::Covered, || format!("entry at {} does not join at {at}", entry.base))?;
        bytes = bytes.saturating_add(entry.object.length);
        at = entry.end;
    }
    ensure(at == pointer.tier_end, Invariant::Covered, || {
        format!("entries end at {at}, tier end is {}", pointer.tier_end)
    })?;
    let partial = view.leaves().next().is_some();
    let equal = if partial { pointer.bytes <= bytes } else { pointer.bytes == bytes };
    ensure(equal, Invariant::Bytes, || format!("pointer says {}, entries hold {bytes}", pointer.bytes))
}

fn contiguous(end: i64, base: i64) -> Result<(), Violation> {
    ensure(end == base, Invariant::Contiguous, || format!("range ends at {end}, the next begins at {base}"))
}

fn check_leaf(leaf: &LeafRef) -> Result<(), Violation> {
    let sound = leaf.base >= 0 && leaf.end > leaf.base && leaf.entries > 0;
    ensure(sound, Invariant::LeafBounds, || format!("leaf [{}, {}) of {} entries", leaf.base, leaf.end, leaf.entries))
}

fn check_entry(entry: &Entry) -> Result<(), Violation> {
    let at = entry.base;
    ensure(entry.base >= 0 && entry.end > entry.base, Invariant::Contiguous, || {
        format!("empty range [{at}, {})", entry.end)
    })?;
    let slice_end = entry.object.start.checked_add(entry.object.length);
    let sound = entry.object.length > 0 && slice_end.is_some_and(|end| end <= entry.footer_position);
    ensure(sound, Invariant::Slice, || {
        format!(
            "entry at {at}: {} bytes from {}, footer at {}",
            entry.object.length, entry.object.start, entry.footer_position
        )
    })?;
    let ascending = entry
        .epochs
        .iter()
        .zip(entry.epochs.iter().skip(1))
        .all(|(before, after)| before.0 < after.0 && before.1 <= after.1);
    let covering = entry.epochs.first().is_some_and(|(_, start)| *start <= at)
        && entry.epochs.last().is_some_and(|(_, start)| *start < entry.end);
    ensure(ascending && covering, Invariant::Epochs, || format!("entry at {at}: epochs {:?}", entry.epochs))?;
    let ordered = entry.points.iter().zip(entry.points.iter().skip(1)).all(|(before, after)| {
        before.offset < after.offset && before.position < after.position && before.timestamp <= after.timestamp
    });
    let inside = entry
        .points
        .iter()
        .all(|point| (entry.base..entry.end).contains(&point.offset) && point.position < entry.object.length);
    ensure(ordered && inside && entry.points.len() <= MAX_POINTS, Invariant::Points, || format!("entry at {at}"))
}
