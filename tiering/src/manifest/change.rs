//! Changes to a manifest root: `Manifest × Change → Result<Manifest, Violation>`.

use proto::ids::Offset;

use super::invariants::{Invariant, Violation};
use super::{Entry, Leaf, LeafRef, Manifest};

/// What can happen to a root. Everything else is a new object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Entries join at the end.
    Append(Vec<Entry>),
    /// Entries and leaves that end at or below `tier_start` leave. A leaf that reaches beyond stays
    /// whole: the pointer's tier start hides its expired entries.
    Expire {
        /// First offset that stays.
        tier_start: Offset,
    },
    /// The first entries, those that `leaf` covers, are in that leaf from now on.
    Spill {
        /// Reference to the leaf, already stored.
        leaf: LeafRef,
    },
}

impl Manifest {
    /// The root after `change`.
    ///
    /// # Errors
    /// The [`Violation`] that the change would cause; nothing happens then.
    pub fn apply(&self, change: &Change) -> Result<Self, Violation> {
        let mut next = self.clone();
        match change {
            Change::Append(entries) => next.entries.extend(entries.iter().cloned()),
            Change::Expire { tier_start } => {
                next.leaves.retain(|leaf| leaf.end > *tier_start);
                next.entries.retain(|entry| entry.end > *tier_start);
            }
            Change::Spill { leaf } => next.spill(leaf)?,
        }
        next.check()?;
        Ok(next)
    }

    /// The leaf that has to be written before the root can be: the oldest `leaf_entries` entries, if
    /// the root holds that many and one more.
    pub fn full_leaf(&self, leaf_entries: usize) -> Option<Leaf> {
        if self.entries.len() <= leaf_entries {
            return None;
        }
        let entries = self.entries.get(..leaf_entries)?.to_vec();
        (!entries.is_empty()).then_some(Leaf { entries })
    }

    fn spill(&mut self, leaf: &LeafRef) -> Result<(), Violation> {
        let count = leaf.entries as usize;
        let covered = self.entries.get(..count).unwrap_or_default();
        let matches = covered.first().map(|entry| entry.base) == Some(leaf.base)
            && covered.last().map(|entry| entry.end) == Some(leaf.end)
            && covered.iter().map(|entry| entry.object.length).sum::<u64>() == leaf.bytes
            && covered.iter().map(|entry| entry.max_timestamp).max() == Some(leaf.max_timestamp);
        if !matches {
            return Err(Violation::new(
                Invariant::LeafBounds,
                format!("leaf [{}, {}) is not the root's first {count} entries", leaf.base, leaf.end),
            ));
        }
        self.entries.drain(..count);
        self.leaves.push(*leaf);
        Ok(())
    }
}
