//! A plain LRU: no clock, no thread, no hash seed, so that a simulation replays it exactly.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::{Chunk, ChunkCache, ChunkKey, Piece};

/// Least recently used first out, exact to the byte.
#[derive(Debug)]
pub struct LruChunks {
    capacity: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Rises with each use; the place in `by_use`.
    uses: u64,
    weight: u64,
    chunks: BTreeMap<ChunkKey, (u64, Chunk)>,
    by_use: BTreeMap<u64, ChunkKey>,
}

impl LruChunks {
    /// Holds at most `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        Self { capacity, state: Mutex::default() }
    }
}

impl State {
    fn take(&mut self, key: &ChunkKey) -> Option<Chunk> {
        let (used, chunk) = self.chunks.remove(key)?;
        self.by_use.remove(&used);
        self.weight -= chunk.weight();
        Some(chunk)
    }

    fn put(&mut self, key: ChunkKey, chunk: Chunk) {
        self.uses += 1;
        self.weight += chunk.weight();
        self.by_use.insert(self.uses, key);
        self.chunks.insert(key, (self.uses, chunk));
    }
}

impl ChunkCache for LruChunks {
    fn get(&self, key: &ChunkKey) -> Option<Chunk> {
        let mut state = self.state.lock();
        let chunk = state.take(key)?;
        state.put(*key, chunk.clone());
        Some(chunk)
    }

    fn add(&self, key: ChunkKey, piece: Piece) {
        let mut state = self.state.lock();
        let chunk = state.take(&key).unwrap_or_default().with(piece);
        state.put(key, chunk);
        while state.weight > self.capacity {
            let Some((_, oldest)) = state.by_use.first_key_value() else {
                break;
            };
            let oldest = *oldest;
            state.take(&oldest);
        }
    }

    fn remove(&self, key: &ChunkKey) {
        self.state.lock().take(key);
    }

    fn weight(&self) -> u64 {
        self.state.lock().weight
    }
}
