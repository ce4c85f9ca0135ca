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
mod live;
mod load;
mod lookup;
mod pace;
mod pool;
mod source;
mod stats;
mod store_source;
mod stream;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use proto::host::{Entropy, Spawner};
use proto::ids::{Offset, TopicPartition, Uuid};
use proto::metadata::{ObjectFormat, TierPointer};
use tokio::time::Instant;

use self::budget::Budget;
use self::catalog::{Catalog, Catalogs};
pub use self::catalog::{NoRootStore, RootStore};
use self::download::Downloads;
use self::live::{Ended, Live, Wish};
use self::load::{Load, Loads};
pub use self::lookup::{EpochEnd, FoundTimestamp, TierEnd};
pub use self::pace::WindowSettings;
use self::source::Getter;
pub use self::source::{Body, Name, Patience, RangeSource, SourceError, Span};
use self::stats::Stats;
pub use self::stats::StatsSnapshot;
pub use self::store_source::StoreSource;
pub use self::stream::{Command, Core, Event, ExtentId, Run};
use crate::cache::{CHUNK_BYTES, ChunkCache};
use crate::format::{AbortedTxn, Footer};
use crate::manifest::Entry;
use crate::ports::{PointerError, Pointers};

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

/// Why a read failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// The offset is not in the tier.
    #[error("offset {offset} is not in the tier, which has [{start}, {end})")]
    OutOfRange {
        /// Asked for.
        offset: Offset,
        /// First offset in the tier. Inclusive.
        start: Offset,
        /// First offset after the tier. Exclusive.
        end: Offset,
    },
    /// The store does not answer as it should; asking again later may help.
    #[error("the object store: {reason}")]
    Unavailable {
        /// What it said last.
        reason: Arc<str>,
    },
    /// No bytes came in time; they may still come. Ask again.
    #[error("the object store did not deliver in time")]
    TimedOut,
    /// Bytes are not those that were uploaded, even when fetched again.
    #[error("{object} is corrupt: {reason}")]
    Corrupt {
        /// Which object.
        object: String,
        /// What is wrong.
        reason: String,
    },
    /// An object is gone that the newest pointer names.
    #[error("{object} is missing from the object store")]
    Missing {
        /// Which object.
        object: String,
    },
    /// An object in a format that cannot be read.
    #[error("objects of format {0:?} cannot be read")]
    Unsupported(ObjectFormat),
    /// The partition's pointer could not be read again.
    #[error(transparent)]
    Pointer(#[from] PointerError),
}

impl RemoteError {
    /// Whether asking again later may help.
    pub const fn is_retriable(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::TimedOut => true,
            Self::Pointer(PointerError::Unavailable(_)) => true,
            Self::Pointer(PointerError::Gone)
            | Self::OutOfRange { .. }
            | Self::Corrupt { .. }
            | Self::Missing { .. }
            | Self::Unsupported(_) => false,
        }
    }

    fn closed() -> Self {
        Self::Unavailable { reason: "the reader was closed".into() }
    }

    fn missing(name: &Name) -> Self {
        Self::Missing { object: describe(name) }
    }

    fn corrupt(entry: &Entry, reason: impl fmt::Display) -> Self {
        Self::corrupt_object(&Name::Data(entry.object.key, entry.format), reason)
    }

    fn corrupt_object(name: &Name, reason: impl fmt::Display) -> Self {
        Self::Corrupt { object: describe(name), reason: reason.to_string() }
    }
}

fn describe(name: &Name) -> String {
    match name {
        Name::Data(key, _) => format!("object {} of {}", key.uuid, key.owner),
        Name::Root(tp, root) => format!("manifest root {} of {tp}", root.uuid),
        Name::Leaf(tp, leaf) => format!("manifest leaf {} of {tp}", leaf.uuid),
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

/// What streams and reader share.
struct Shared {
    settings: ReaderSettings,
    started: Instant,
    spawner: Spawner,
    stats: Arc<Stats>,
    cache: Arc<dyn ChunkCache>,
    getter: Arc<Getter>,
    downloads: Arc<Downloads>,
    catalogs: Catalogs,
    footers: Loads<(Uuid, u64), Arc<Footer>>,
    pointers: Arc<dyn Pointers>,
    budget: Mutex<Budget<Weak<Live>>>,
    streams: Mutex<Streams>,
}

#[derive(Default)]
struct Streams {
    by_partition: BTreeMap<TopicPartition, Vec<Arc<Live>>>,
    catalogs: BTreeMap<TopicPartition, Arc<Catalog>>,
    count: usize,
    sweeping: bool,
}

impl RemoteReader {
    /// A reader over `parts`.
    pub fn new(settings: ReaderSettings, parts: Parts) -> Self {
        let stats = Arc::new(Stats::default());
        let getter = Arc::new(Getter::new(
            parts.source,
            settings.max_gets,
            settings.patience,
            parts.entropy,
            Arc::clone(&stats),
        ));
        let downloads = Arc::new(Downloads::new(
            Arc::clone(&getter),
            Arc::clone(&parts.cache),
            settings.pool_bytes,
            parts.spawner.clone(),
            Arc::clone(&stats),
        ));
        let catalogs = Catalogs::new(Arc::clone(&getter), parts.roots, settings.index_bytes, &parts.spawner);
        Self(Arc::new(Shared {
            settings,
            started: Instant::now(),
            footers: Loads::new(settings.index_bytes, parts.spawner.clone()),
            spawner: parts.spawner,
            stats,
            cache: parts.cache,
            getter,
            downloads,
            catalogs,
            pointers: parts.pointers,
            budget: Mutex::new(Budget::new(settings.window_budget)),
            streams: Mutex::default(),
        }))
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

impl Shared {
    async fn read(
        self: &Arc<Self>,
        tp: TopicPartition,
        pointer: &TierPointer,
        wish: Wish,
        deadline: Instant,
    ) -> Result<RemoteData, RemoteError> {
        let mut reloaded: Option<TierPointer> = None;
        let mut refetched = false;
        loop {
            let pointer = reloaded.as_ref().unwrap_or(pointer);
            let error = match self.read_once(tp, pointer, wish, deadline).await {
                Ok(Ended::Data(data)) => return Ok(data),
                Ok(Ended::Elsewhere) => continue,
                Ok(Ended::Suspect(entry, at, reason)) => {
                    // The batch's own CRC, or what lies between batches: fetched once more.
                    self.close_streams(tp, wish.from);
                    let chunk = at - at % CHUNK_BYTES;
                    let length = entry.object.length;
                    let range = chunk..(chunk + 2 * CHUNK_BYTES).min(length.max(chunk));
                    self.downloads.purge(&entry, &range);
                    if std::mem::replace(&mut refetched, true) {
                        return Err(RemoteError::corrupt(&entry, reason));
                    }
                    continue;
                }
                Err(error) => error,
            };
            if !matches!(error, RemoteError::Missing { .. }) || reloaded.is_some() {
                return Err(error);
            }
            // Rewritten or expired meanwhile? Only what a fresh pointer names has to be there.
            self.close_streams(tp, wish.from);
            self.catalogs.forget(pointer);
            let fresh = self.pointers.read_fresh(tp);
            let fresh = tokio::time::timeout_at(deadline, fresh).await.map_err(|_| RemoteError::TimedOut)??;
            reloaded = Some(fresh);
        }
    }

    async fn read_once(
        self: &Arc<Self>,
        tp: TopicPartition,
        pointer: &TierPointer,
        wish: Wish,
        deadline: Instant,
    ) -> Result<Ended, RemoteError> {
        let open = async {
            let catalog = self.catalog(tp, pointer, wish.from).await?;
            let live = match self.stream_at(tp, wish.from) {
                Some(live) => live,
                None => self.begin(&catalog, wish.from).await?,
            };
            Ok::<_, RemoteError>((catalog, live))
        };
        let (catalog, live) = tokio::time::timeout_at(deadline, open).await.unwrap_or(Err(RemoteError::TimedOut))?;
        live.read(self, &catalog, wish, deadline).await
    }

    /// The catalog of `pointer`; made once per generation.
    async fn catalog(
        &self,
        tp: TopicPartition,
        pointer: &TierPointer,
        from: Offset,
    ) -> Result<Arc<Catalog>, RemoteError> {
        if !(pointer.tier_start..pointer.tier_end).contains(&from) {
            return Err(RemoteError::OutOfRange { offset: from, start: pointer.tier_start, end: pointer.tier_end });
        }
        let known = self.streams.lock().catalogs.get(&tp).cloned();
        if let Some(known) = known.filter(|known| known.serves(pointer, from)) {
            return Ok(known);
        }
        let catalog = Arc::new(self.catalogs.open(tp, pointer, from).await?);
        self.streams.lock().catalogs.insert(tp, Arc::clone(&catalog));
        Ok(catalog)
    }

    fn stream_at(&self, tp: TopicPartition, from: Offset) -> Option<Arc<Live>> {
        let streams = self.streams.lock();
        let of_partition = streams.by_partition.get(&tp)?;
        of_partition.iter().find(|live| live.serves(from)).cloned()
    }

    /// A new stream for a consumer at `from`.
    async fn begin(self: &Arc<Self>, catalog: &Arc<Catalog>, from: Offset) -> Result<Arc<Live>, RemoteError> {
        let entry = self.catalogs.locate(catalog, from).await?.ok_or(RemoteError::OutOfRange {
            offset: from,
            start: catalog.pointer.tier_start,
            end: catalog.pointer.tier_end,
        })?;
        if entry.format != ObjectFormat::Segment {
            return Err(RemoteError::Unsupported(entry.format));
        }
        let place = self.place(&entry, from);
        self.make_room();
        let live = Live::new(self, Arc::clone(catalog), entry, from, place);
        let mut streams = self.streams.lock();
        // Somebody else may have begun at the same offset meanwhile.
        let of_partition = streams.by_partition.entry(catalog.tp).or_default();
        if let Some(other) = of_partition.iter().find(|other| other.serves(from)).cloned() {
            drop(streams);
            live.close(self);
            return Ok(other);
        }
        of_partition.push(Arc::clone(&live));
        streams.count += 1;
        let sweep = !std::mem::replace(&mut streams.sweeping, true);
        drop(streams);
        if sweep {
            self.sweep();
        }
        Ok(live)
    }

    /// Where to begin in `entry` to find `from`, and within how many bytes it is found: by the footer's
    /// index if that is here, by the entry's points otherwise.
    fn place(&self, entry: &Entry, from: Offset) -> (u64, u64) {
        let key = (entry.object.key.uuid, entry.footer_position);
        let (position, next) = match self.footers.peek(&key) {
            Some(footer) => {
                let position = footer.offset_index.floor(from).map_or(0, |at| at.position);
                let next = footer.offset_index.ceiling_position(position);
                (position, next.map(|next| next.position))
            }
            None => {
                let after = entry.points.partition_point(|point| point.offset <= from);
                let floor = after.checked_sub(1).and_then(|at| entry.points.get(at));
                let next = entry.points.get(after);
                (floor.map_or(0, |point| point.position), next.map(|point| point.position))
            }
        };
        let end = next.unwrap_or(entry.object.length);
        // The batch that holds the offset may begin right before the next point.
        let look = end.saturating_sub(position) + 2 * crate::cache::BLOCK_BYTES;
        let position = position.min(entry.object.length);
        (position, look.min(entry.object.length - position))
    }

    /// An entry's footer: here, or on its way from now on.
    fn footer(self: &Arc<Self>, entry: &Arc<Entry>) -> Load<Arc<Footer>> {
        let getter = Arc::clone(&self.getter);
        let key = (entry.object.key.uuid, entry.footer_position);
        let entry = Arc::clone(entry);
        self.footers.get(key, move || async move {
            let name = Name::Data(entry.object.key, entry.format);
            let bytes = getter.fetch(&name, Span::From(entry.footer_position)).await?;
            let corrupt = |reason: &dyn fmt::Display| RemoteError::corrupt(&entry, reason);
            let footer = Footer::decode(&bytes).map_err(|error| corrupt(&error))?;
            if footer.data_length != entry.object.length
                || (footer.base, footer.end) != (entry.base, entry.end)
                || u64::from(footer.checksums.chunk_bytes) != crate::cache::BLOCK_BYTES
            {
                return Err(corrupt(&"its footer describes another range"));
            }
            Ok((Arc::new(footer), bytes.len() as u64))
        })
    }

    /// Gives up a partition's streams at `from`.
    fn close_streams(&self, tp: TopicPartition, from: Offset) {
        self.close_where(|live| live.tp == tp && live.serves(from));
        self.streams.lock().catalogs.remove(&tp);
    }

    fn close_where(&self, gone: impl Fn(&Live) -> bool) {
        let mut closed = Vec::new();
        {
            let mut streams = self.streams.lock();
            streams.by_partition.retain(|_, of_partition| {
                of_partition.retain(|live| {
                    let gone = gone(live);
                    if gone {
                        closed.push(Arc::clone(live));
                    }
                    !gone
                });
                !of_partition.is_empty()
            });
            streams.count -= closed.len();
        }
        for live in &closed {
            live.close(self);
        }
        if !closed.is_empty() {
            self.feed_hungry();
        }
    }

    /// Closes the stream unused the longest if there are as many as there may be.
    fn make_room(&self) {
        if self.streams.lock().count >= self.settings.max_streams {
            self.close_oldest();
        }
    }

    /// Somebody waits and there is no room: streams that only run ahead for nobody give theirs back.
    /// What they had downloaded stays in the cache as long as that sees fit.
    fn reclaim(&self) {
        self.close_oldest();
    }

    fn close_oldest(&self) {
        let oldest = {
            let streams = self.streams.lock();
            let all = streams.by_partition.values().flatten();
            let idle = all.filter_map(|live| Some((live.idle_since()?, live)));
            idle.min_by_key(|(since, _)| *since).map(|(_, live)| Arc::clone(live))
        };
        if let Some(oldest) = oldest {
            self.close_where(|live| std::ptr::eq(live, &*oldest));
        }
    }

    /// Lets those go on who waited for room.
    fn feed_hungry(&self) {
        let waiting = self.budget.lock().take_hungry();
        for live in waiting.iter().filter_map(Weak::upgrade) {
            live.room();
        }
    }

    /// Gives up idle streams from time to time, as long as there are streams.
    fn sweep(self: &Arc<Self>) {
        let (weak, period) = (Arc::downgrade(self), self.settings.idle / 2);
        self.spawner.spawn_cold(async move {
            loop {
                tokio::time::sleep(period).await;
                let Some(shared) = weak.upgrade() else {
                    return;
                };
                let now = Instant::now();
                let idle = shared.settings.idle;
                shared.close_where(|live| live.idle_since().is_some_and(|since| now - since >= idle));
                let mut streams = shared.streams.lock();
                let Streams { by_partition, catalogs, .. } = &mut *streams;
                catalogs.retain(|tp, _| by_partition.contains_key(tp));
                if streams.count == 0 {
                    streams.sweeping = false;
                    return;
                }
            }
        });
    }
}
