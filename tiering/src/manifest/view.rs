//! Looking things up in what a pointer covers.

use proto::ids::{LeaderEpoch, Millis, Offset};
use proto::metadata::TierPointer;

use super::{Entry, LeafRef, Manifest};

/// A pointer together with the root it names. What lies below the pointer's tier start is expired and
/// not seen through a view, even if the root still lists it.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pointer: &'a TierPointer,
    root: Option<&'a Manifest>,
}

/// Where a lookup leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'a> {
    /// The entry itself.
    Entry(&'a Entry),
    /// Somewhere in this leaf: load it and ask its entries with the function of the same name.
    Leaf(&'a LeafRef),
    /// Not in the tier.
    Nowhere,
}

impl<'a> View<'a> {
    /// `root` must be the root that `pointer` names, none if it names none.
    pub const fn new(pointer: &'a TierPointer, root: Option<&'a Manifest>) -> Self {
        Self { pointer, root }
    }

    /// Leaves with live entries, ascending.
    pub fn leaves(&self) -> impl DoubleEndedIterator<Item = &'a LeafRef> + use<'a> {
        let from = self.pointer.tier_start;
        let leaves = self.root.map_or(&[][..], |root| &root.leaves);
        leaves.iter().filter(move |leaf| leaf.end > from)
    }

    /// Live entries of the root and then of the tail, ascending; those in leaves are not among them.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &'a Entry> + use<'a> {
        let (root, tail) = self.slices();
        root.iter().chain(tail)
    }

    /// The entry that holds `offset`.
    pub fn by_offset(&self, offset: Offset) -> Found<'a> {
        if !(self.pointer.tier_start..self.pointer.tier_end).contains(&offset) {
            return Found::Nowhere;
        }
        self.first(|leaf| leaf.end > offset, |entries| by_offset(entries, offset))
    }

    /// The first entry, ascending, that holds a record with a timestamp at or after `timestamp`. A leaf
    /// whose only such entries are expired may be returned: then go on with [`View::by_timestamp_after`].
    pub fn by_timestamp(&self, timestamp: Millis) -> Found<'a> {
        self.by_timestamp_after(timestamp, self.pointer.tier_start)
    }

    /// Like [`View::by_timestamp`], among entries that end above `from`.
    pub fn by_timestamp_after(&self, timestamp: Millis, from: Offset) -> Found<'a> {
        let from = from.max(self.pointer.tier_start);
        self.first(
            |leaf| leaf.end > from && leaf.max_timestamp >= timestamp,
            |entries| by_timestamp(entries, timestamp, from),
        )
    }

    /// The first entry in which an epoch above `epoch` begins or continues: the offset where that epoch
    /// begins is where `epoch` ends (KIP-320).
    pub fn by_epoch_above(&self, epoch: LeaderEpoch) -> Found<'a> {
        self.first(|leaf| leaf.last_epoch > epoch, |entries| by_epoch_above(entries, epoch))
    }

    /// Number of live entries, counting a leaf's as live if any of them is.
    pub fn count(&self) -> u64 {
        let (root, tail) = self.slices();
        let leaves: u64 = self.leaves().map(|leaf| u64::from(leaf.entries)).sum();
        leaves + (root.len() + tail.len()) as u64
    }

    fn slices(&self) -> (&'a [Entry], &'a [Entry]) {
        let from = self.pointer.tier_start;
        let live = |entries: &'a [Entry]| -> &'a [Entry] {
            let at = entries.partition_point(|entry| entry.end <= from);
            entries.get(at..).unwrap_or_default()
        };
        (live(self.root.map_or(&[][..], |root| &root.entries)), live(&self.pointer.tail))
    }

    fn first(
        &self,
        in_leaf: impl Fn(&LeafRef) -> bool,
        in_entries: impl Fn(&'a [Entry]) -> Option<&'a Entry>,
    ) -> Found<'a> {
        if let Some(leaf) = self.leaves().find(|leaf| in_leaf(leaf)) {
            return Found::Leaf(leaf);
        }
        let (root, tail) = self.slices();
        in_entries(root).or_else(|| in_entries(tail)).map_or(Found::Nowhere, Found::Entry)
    }
}

/// The entry among contiguous `entries` that holds `offset`.
pub fn by_offset(entries: &[Entry], offset: Offset) -> Option<&Entry> {
    let at = entries.partition_point(|entry| entry.end <= offset);
    entries.get(at).filter(|entry| entry.base <= offset)
}

/// The first entry that ends above `from` and has a record with a timestamp at or after `timestamp`.
pub fn by_timestamp(entries: &[Entry], timestamp: Millis, from: Offset) -> Option<&Entry> {
    entries.iter().find(|entry| entry.end > from && entry.max_timestamp >= timestamp)
}

/// The first entry in which an epoch above `epoch` begins or continues.
pub fn by_epoch_above(entries: &[Entry], epoch: LeaderEpoch) -> Option<&Entry> {
    let above = |entry: &Entry| entry.epochs.last().is_some_and(|(last, _)| *last > epoch);
    entries.get(entries.partition_point(|entry| !above(entry)))
}
