//! The chunk cache: bytes of tiered data kept in memory, bounded by weight.
//!
//! The unit is a chunk of 1 MiB of one entry's data, counted from where that data begins in its
//! object. A chunk may be held in part (the first GET of a read is smaller than a chunk), as
//! [`Piece`]s on a grid of 64 KiB blocks, the unit of the footer's checksums.
//!
//! The cache stores; it does not download. That one GET serves everybody who waits for the same
//! blocks is the business of `reader::download`, which asks here first.

mod lru;
mod moka;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use proto::ids::Uuid;

pub use self::lru::LruChunks;
pub use self::moka::MokaChunks;

/// Bytes in a block: what one checksum of the footer covers.
pub const BLOCK_BYTES: u64 = 64 << 10;
/// Bytes in a chunk: what the cache counts in.
pub const CHUNK_BYTES: u64 = 1 << 20;

/// Names a chunk: objects never change once named, so neither does what this key stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkKey {
    /// The object's unique id.
    pub object: Uuid,
    /// Where the entry's data begins in the object, in bytes: objects can be shared by entries.
    pub start: u64,
    /// Index of the chunk within the entry's data.
    pub index: u32,
}

/// Contiguous bytes of an entry's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Position of the first byte, relative to the start of the entry's data.
    pub at: u64,
    /// The bytes.
    pub bytes: Bytes,
    /// Whether the footer's checksums were found to match. Otherwise whoever serves the bytes has
    /// to check the batches in them.
    pub checked: bool,
}

impl Piece {
    /// Position of the byte after the last.
    pub fn end(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }

    /// The part of this piece in `[from, to)`, none if they do not overlap. Shares the memory.
    pub fn part(&self, from: u64, to: u64) -> Option<Self> {
        let (low, high) = (from.max(self.at), to.min(self.end()));
        (low < high).then(|| Self {
            at: low,
            bytes: self.bytes.slice((low - self.at) as usize..(high - self.at) as usize),
            checked: self.checked,
        })
    }
}

/// What is known of one chunk: pieces in ascending order that do not overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chunk(Arc<[Piece]>);

impl Chunk {
    /// The pieces, ascending.
    pub fn pieces(&self) -> &[Piece] {
        &self.0
    }

    /// Bytes held.
    pub fn weight(&self) -> u64 {
        self.0.iter().map(|piece| piece.bytes.len() as u64).sum()
    }

    /// This chunk with what `piece` adds to it. Bytes already held stay, unless only the new ones
    /// are checked.
    pub fn with(&self, piece: Piece) -> Self {
        let kept = |old: &&Piece| old.checked || !piece.checked;
        let mut all = Vec::with_capacity(self.0.len() + 1);
        let mut next = piece.at;
        for old in self.0.iter().filter(kept) {
            all.extend(piece.part(next, old.at));
            next = next.max(old.end());
        }
        all.extend(piece.part(next, piece.end()));
        for old in self.0.iter() {
            if kept(&old) {
                all.push(old.clone());
            } else {
                all.extend(old.part(0, piece.at));
                all.extend(old.part(piece.end(), u64::MAX));
            }
        }
        all.sort_by_key(|piece| piece.at);
        Self(all.into())
    }
}

/// Keeps chunks, forgets the least recently used ones above its capacity.
pub trait ChunkCache: Send + Sync {
    /// What is held of a chunk.
    fn get(&self, key: &ChunkKey) -> Option<Chunk>;

    /// Adds a piece that lies within the chunk `key`.
    fn add(&self, key: ChunkKey, piece: Piece);

    /// Forgets a chunk (its bytes proved wrong).
    fn remove(&self, key: &ChunkKey);

    /// Bytes held. May lag behind a little.
    fn weight(&self) -> u64;
}
