//! The production cache, on moka.

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::{Chunk, ChunkCache, ChunkKey, Piece};

/// Concurrent cache by weight. Least recently used first out rather than moka's default TinyLFU: a
/// log is read by followers of one another, and admission by frequency would turn away exactly the
/// chunk that the next consumer is about to ask for.
#[derive(Debug)]
pub struct MokaChunks(Cache<ChunkKey, Chunk>);

impl MokaChunks {
    /// Holds about `capacity` bytes; moka evicts a moment after an insertion.
    pub fn new(capacity: u64) -> Self {
        Self(
            Cache::builder()
                .name("chunks")
                .max_capacity(capacity)
                .eviction_policy(EvictionPolicy::lru())
                .weigher(|_, chunk: &Chunk| u32::try_from(chunk.weight()).unwrap_or(u32::MAX))
                .build(),
        )
    }
}

impl ChunkCache for MokaChunks {
    fn get(&self, key: &ChunkKey) -> Option<Chunk> {
        self.0.get(key)
    }

    fn add(&self, key: ChunkKey, piece: Piece) {
        self.0.entry(key).and_upsert_with(|held| held.map_or_else(Chunk::default, moka::Entry::into_value).with(piece));
    }

    fn remove(&self, key: &ChunkKey) {
        self.0.invalidate(key);
    }

    fn weight(&self) -> u64 {
        self.0.run_pending_tasks();
        self.0.weighted_size()
    }
}
