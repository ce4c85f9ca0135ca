//! Remote reads: consumers that are behind the local log read from the object store as if it were near.
//!
//! - A *read stream* ([`stream`]) per consumer lives from fetch to fetch and downloads ahead of it, across
//!   the borders of objects, as far as its speed times the store's latency asks for ([`pace`]).
//! - Downloads ([`download`]) are tasks shared by all who want the same bytes; a caller that goes away
//!   cancels nothing. What came is kept in the [chunk cache](crate::cache).
//! - The entry's points let the first data GET leave at once, with the footer's beside it. Checksums are
//!   compared once on the way in; before the footer is there, each batch's own CRC is.
//! - What streams hold together is bounded in bytes ([`budget`]), shared fairly; the GETs that run at a
//!   time are bounded in number. Everything runs on the cold runtime.
//!
//! Invariants: BOUNDED, ISOLATED. Corrupt bytes are never served. An object that is gone is an error only
//! if a fresh pointer still names it.

mod budget;
mod catalog;
mod download;
mod error;
mod gather;
mod live;
mod load;
mod lookup;
mod pace;
mod pool;
mod shared;
mod source;
mod stats;
mod store_source;
mod stream;
#[cfg(test)]
mod tests;
mod walk;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proto::host::{Entropy, Spawner};
use proto::ids::{Offset, TopicPartition};
use proto::metadata::TierPointer;
use tokio::time::Instant;

pub use self::catalog::{NoRootStore, RootStore};
pub use self::error::RemoteError;
use self::live::Wish;
pub use self::lookup::{EpochEnd, FoundTimestamp, TierEnd};
pub use self::pace::WindowSettings;
use self::shared::Shared;
pub use self::source::{Body, Name, Patience, RangeSource, SourceError, Span};
pub use self::stats::StatsSnapshot;
pub use self::store_source::StoreSource;
pub use self::stream::{Command, Core, Event, ExtentId, Run};
use crate::cache::ChunkCache;
use crate::format::AbortedTxn;
use crate::ports::Pointers;

/// Bounds of a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReaderSettings {
    /// Window and GET sizes of each stream.
    pub window: WindowSettings,
    /// What all streams together may hold or have on their way, in bytes. The chunk cache is beside it.
    pub window_budget: u64,
    /// GETs at a time.
    pub max_gets: usize,
    /// Streams at a time; the one unused the longest makes room.
    pub max_streams: usize,
    /// A stream that nobody read from for so long is given up.
    pub idle: Duration,
    /// Longest wait of one read.
    pub read_timeout: Duration,
    /// Timeouts and retries of GETs.
    pub patience: Patience,
    /// Bytes of footers, of roots and of leaves kept (each).
    pub index_bytes: u64,
    /// Bytes of unused buffers kept for the next downloads.
    pub pool_bytes: u64,
}

impl Default for ReaderSettings {
    fn default() -> Self {
        Self {
            window: WindowSettings::default(),
            window_budget: 128 << 20,
            max_gets: 64,
            max_streams: 4096,
            idle: Duration::from_secs(30),
            read_timeout: Duration::from_secs(30),
            patience: Patience::default(),
            index_bytes: 16 << 20,
            pool_bytes: 16 << 20,
        }
    }
}

/// What a read gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RemoteData {
    /// Whole batches, in order: slices of the downloaded chunks, not copied. Where a batch spans two
    /// chunks, so do the slices.
    pub chunks: Vec<Bytes>,
    /// Their bytes.
    pub bytes: u64,
    /// First offset after the last batch; where to go on. Equal to the offset asked for if there are no
    /// batches because the first one exceeds the limit.
    pub next: Offset,
    /// Aborted transactions that overlap the batches, ascending by first offset.
    pub aborted: Vec<AbortedTxn>,
}

impl RemoteData {
    fn empty(next: Offset) -> Self {
        Self { next, ..Self::default() }
    }
}

/// Reads tiered data. Cheap to clone.
#[derive(Clone)]
pub struct RemoteReader(Arc<Shared>);

impl fmt::Debug for RemoteReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteReader").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

/// What a reader is made of.
pub struct Parts {
    /// The object store.
    pub source: Arc<dyn RangeSource>,
    /// The chunk cache.
    pub cache: Arc<dyn ChunkCache>,
    /// Copies of roots on local disk.
    pub roots: Arc<dyn RootStore>,
    /// Pointers, to look again when an object is gone.
    pub pointers: Arc<dyn Pointers>,
    /// Downloads run on its cold runtime.
    pub spawner: Spawner,
    /// For the jitter of retries.
    pub entropy: Arc<dyn Entropy>,
}

impl RemoteReader {
    /// A reader over `parts`.
    pub fn new(settings: ReaderSettings, parts: Parts) -> Self {
        Self(Shared::new(settings, parts))
    }

    /// Whole batches of `tp` from the one that holds `from` on, at most `max_bytes` of them; if `min_one`
    /// the first batch comes whatever its size (KIP-74). Answers with what is at hand as soon as that is
    /// one batch: less than `max_bytes` does not mean that there is no more. Dropping the future cancels
    /// no download.
    ///
    /// # Errors
    /// [`RemoteError`]; see [`RemoteError::is_retriable`].
    pub async fn read(
        &self,
        tp: TopicPartition,
        pointer: &TierPointer,
        from: Offset,
        max_bytes: usize,
        min_one: bool,
    ) -> Result<RemoteData, RemoteError> {
        let wish = Wish { from, max_bytes: max_bytes as u64, min_one };
        self.0.stats.asked(wish.max_bytes);
        let deadline = Instant::now() + self.0.settings.read_timeout;
        let result = self.0.read(tp, pointer, wish, deadline).await;
        if let Ok(data) = &result {
            self.0.stats.served(data.bytes);
        }
        result
    }

    /// Counters and present sizes.
    pub fn stats(&self) -> StatsSnapshot {
        StatsSnapshot {
            window_bytes: self.0.budget.lock().held(),
            cache_bytes: self.0.cache.weight(),
            streams: self.0.streams.lock().count as u64,
            ..self.0.stats.snapshot()
        }
    }

    /// Lets go of what is held for a partition that is no longer served here.
    pub fn forget(&self, tp: TopicPartition) {
        let mut streams = self.0.streams.lock();
        streams.catalogs.remove(&tp);
        let gone = streams.by_partition.remove(&tp).unwrap_or_default();
        streams.count -= gone.len();
        drop(streams);
        for live in gone {
            live.close(&self.0);
        }
        self.0.feed_hungry();
    }
}
