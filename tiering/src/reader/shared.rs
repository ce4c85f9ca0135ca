//! What a reader's streams share: budget, downloads, catalogs, footers, and the streams themselves.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use proto::host::Spawner;
use proto::ids::{Offset, TopicPartition, Uuid};
use proto::metadata::{ObjectFormat, TierPointer};
use tokio::time::Instant;

use super::budget::Budget;
use super::catalog::{Catalog, Catalogs};
use super::download::Downloads;
use super::gather::Suspect;
use super::live::{Ended, Left, Live, Wish};
use super::load::{Load, Loads};
use super::source::{Getter, Name, Span};
use super::stats::Stats;
use super::{Parts, ReaderSettings, RemoteData, RemoteError};
use crate::cache::{BLOCK_BYTES, ChunkCache};
use crate::format::Footer;
use crate::manifest::Entry;
use crate::ports::Pointers;

/// Catalogs kept of partitions that nobody reads from. What they refer to is cached apart.
const MAX_CATALOGS: usize = 256;

/// How often it is looked for such streams, at most.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Streams remembered whose consumers seemed to have left.
const MOST_LEFT: usize = 64;

/// What streams and reader share.
pub(super) struct Shared {
    pub(super) settings: ReaderSettings,
    pub(super) started: Instant,
    pub(super) spawner: Spawner,
    pub(super) stats: Arc<Stats>,
    pub(super) cache: Arc<dyn ChunkCache>,
    getter: Arc<Getter>,
    pub(super) downloads: Arc<Downloads>,
    pub(super) catalogs: Catalogs,
    footers: Loads<(Uuid, u64), Arc<Footer>>,
    pub(super) pointers: Arc<dyn Pointers>,
    pub(super) budget: Mutex<Budget<Weak<Live>>>,
    pub(super) streams: Mutex<Streams>,
    left: Mutex<LeftStreams>,
}

/// Streams whose consumers seemed to have left.
#[derive(Default)]
struct LeftStreams {
    /// When they were looked for last.
    looked: Option<Instant>,
    /// Those that were closed, lately: one who comes back after all only paused, and is waited for longer from then on.
    closed: VecDeque<Left>,
}

#[derive(Default)]
pub(super) struct Streams {
    pub(super) by_partition: BTreeMap<TopicPartition, Vec<Arc<Live>>>,
    pub(super) catalogs: BTreeMap<TopicPartition, Arc<Catalog>>,
    pub(super) count: usize,
    sweeping: bool,
}

impl Shared {
    pub(super) fn new(settings: ReaderSettings, parts: Parts) -> Arc<Self> {
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
        Arc::new(Self {
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
            left: Mutex::default(),
        })
    }

    pub(super) async fn read(
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
                Ok(Ended::Suspect(Suspect { entry, broken })) => {
                    // Seen only by a batch's own CRC, or by what lies between batches: fetched once more.
                    self.close_streams(tp, wish.from);
                    let end = (broken.position + broken.length).min(entry.object.length);
                    self.downloads.purge(&entry, &(broken.position..end));
                    if std::mem::replace(&mut refetched, true) {
                        return Err(RemoteError::corrupt(&entry, broken));
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
    pub(super) async fn catalog(
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
        let mut streams = self.streams.lock();
        let Streams { by_partition, catalogs, .. } = &mut *streams;
        if catalogs.len() >= MAX_CATALOGS {
            catalogs.retain(|tp, _| by_partition.contains_key(tp));
        }
        catalogs.insert(tp, Arc::clone(&catalog));
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
        let pause = self.paused(catalog.tp, from);
        let live = Live::new(self, Arc::clone(catalog), entry, from, place, pause);
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
        let look = end.saturating_sub(position) + 2 * BLOCK_BYTES;
        let position = position.min(entry.object.length);
        (position, look.min(entry.object.length - position))
    }

    /// An entry's footer: here, or on its way from now on.
    pub(super) fn footer(self: &Arc<Self>, entry: &Arc<Entry>) -> Load<Arc<Footer>> {
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
                || u64::from(footer.checksums.chunk_bytes) != BLOCK_BYTES
            {
                return Err(corrupt(&"its footer describes another range"));
            }
            let weight = bytes.len() as u64 + footer_weight(&footer);
            Ok((Arc::new(footer), weight))
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
    pub(super) fn reclaim(&self) {
        self.close_oldest();
    }

    /// Somebody would run further ahead and there is no room: streams that nobody came back to give theirs back, or one
    /// consumer that left would slow the next one down until its stream is idle for long.
    pub(super) fn reclaim_left(&self) {
        let now = Instant::now();
        {
            let mut left = self.left.lock();
            if left.looked.is_some_and(|at| now - at < LOOK_AGAIN) {
                return;
            }
            left.looked = Some(now);
        }
        let share = self.budget.lock().share();
        self.close_where(|live| {
            let Some(gone) = live.is_left(share) else { return false };
            let mut left = self.left.lock();
            left.closed.truncate(MOST_LEFT - 1);
            left.closed.push_front(gone);
            true
        });
    }

    /// How long a consumer that now reads at `from` had paused when its stream was taken for left.
    fn paused(&self, tp: TopicPartition, from: Offset) -> Duration {
        let mut left = self.left.lock();
        let at = left.closed.iter().position(|left| (left.tp, left.next) == (tp, from));
        at.and_then(|at| left.closed.remove(at)).map_or(Duration::ZERO, |left| left.since.elapsed())
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
    pub(super) fn feed_hungry(&self) {
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

/// About what a decoded footer takes beside the bytes it was decoded from.
fn footer_weight(footer: &Footer) -> u64 {
    let entries = footer.offset_index.entries.len() + footer.time_index.entries.len();
    let transactions = footer.aborted.len() + footer.epochs.entries.len();
    (16 * entries + 24 * transactions + 4 * footer.checksums.crcs.len()) as u64
}
