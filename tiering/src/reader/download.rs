//! Downloads: one GET for everybody who wants its blocks, run as a task that nobody can cancel.
//!
//! What is wanted is compared block by block (64 KiB) with the cache and with what is already on its
//! way; only the rest is asked from the store. A body is delivered chunk by chunk as it streams in, its
//! checksums compared with the footer's if that is here by then.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use proto::host::Spawner;
use tokio::time::Instant;

use super::RemoteError;
use super::load::Load;
use super::pool::Pool;
use super::source::{Getter, Name, SourceError, Span};
use super::stats::Stats;
use crate::cache::{BLOCK_BYTES, CHUNK_BYTES, ChunkCache, ChunkKey, Piece};
use crate::format::Footer;
use crate::manifest::Entry;

/// Blocks of a chunk, one bit each.
type Blocks = u16;

/// Receives what it asked for, piece by piece, in any order.
pub(super) trait Sink: Send + Sync {
    /// Bytes came. They may be more or fewer than one request's; they never overlap.
    fn arrived(&self, piece: Piece);
    /// The bytes in `range` will not come.
    fn failed(&self, range: Range<u64>, error: RemoteError);
    /// A GET on behalf of this sink showed its first byte.
    fn first_byte(&self, after: Duration);
    /// An attempt failed; another one follows.
    fn troubled(&self, error: RemoteError);
}

/// What to download.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) entry: Arc<Entry>,
    /// Relative to the start of the entry's data, begins on a block; ends on one or with the data.
    pub(super) range: Range<u64>,
    /// With the checksums, if known.
    pub(super) footer: Load<Arc<Footer>>,
}

struct Flight {
    blocks: Blocks,
    sinks: Vec<(Blocks, Arc<dyn Sink>)>,
}

/// The table of downloads.
pub(super) struct Downloads {
    getter: Arc<Getter>,
    cache: Arc<dyn ChunkCache>,
    flights: Mutex<HashMap<ChunkKey, Vec<Flight>>>,
    pool: Arc<Pool>,
    spawner: Spawner,
    stats: Arc<Stats>,
    /// Least first-byte latency seen lately.
    latency: Mutex<Option<Duration>>,
}

impl Downloads {
    pub(super) fn new(
        getter: Arc<Getter>,
        cache: Arc<dyn ChunkCache>,
        pool_bytes: u64,
        spawner: Spawner,
        stats: Arc<Stats>,
    ) -> Self {
        Self {
            getter,
            cache,
            flights: Mutex::default(),
            pool: Pool::new(pool_bytes),
            spawner,
            stats,
            latency: Mutex::default(),
        }
    }

    /// First-byte latency of the store as seen lately, none before the first GET.
    pub(super) fn latency(&self) -> Option<Duration> {
        *self.latency.lock()
    }

    /// Brings `wanted` to `sink`. Returns at once; what is in the cache has arrived by then.
    pub(super) fn fetch(self: &Arc<Self>, wanted: &Wanted, sink: &Arc<dyn Sink>) {
        let mut here = Vec::new();
        let mut gets: Vec<Range<u64>> = Vec::new();
        {
            let mut flights = self.flights.lock();
            for (key, range) in chunks(&wanted.entry, &wanted.range) {
                let base = u64::from(key.index) * CHUNK_BYTES;
                let mut left = mask(range.start - base..range.end - base);
                for piece in self.cached(&key, &range) {
                    left &= !mask(piece.at - base..piece.end() - base);
                    here.push(piece);
                }
                let flying = flights.entry(key).or_default();
                for flight in flying.iter_mut() {
                    let shared = left & flight.blocks;
                    if shared != 0 {
                        flight.sinks.push((shared, Arc::clone(sink)));
                        self.stats.shared(u64::from(shared.count_ones()) * BLOCK_BYTES);
                        left &= !shared;
                    }
                }
                for blocks in runs(left) {
                    flying.push(Flight { blocks, sinks: vec![(blocks, Arc::clone(sink))] });
                    let span = span(blocks, base, range.end);
                    match gets.last_mut() {
                        Some(last) if last.end == span.start => last.end = span.end,
                        Some(_) | None => gets.push(span),
                    }
                }
                if flying.is_empty() {
                    flights.remove(&key);
                }
            }
        }
        for piece in here {
            self.stats.cached(piece.bytes.len() as u64);
            sink.arrived(piece);
        }
        for range in gets {
            let downloads = Arc::clone(self);
            let wanted = Wanted { range, ..wanted.clone() };
            self.spawner.spawn_cold(async move {
                downloads.run(wanted).await;
            });
        }
    }

    /// Forgets cached bytes of `range` that proved wrong.
    pub(super) fn purge(&self, entry: &Entry, range: &Range<u64>) {
        self.stats.corrupt();
        for (key, _) in chunks(entry, range) {
            self.cache.remove(&key);
        }
    }

    /// Whole blocks of `range` that the cache has.
    fn cached(&self, key: &ChunkKey, range: &Range<u64>) -> Vec<Piece> {
        let Some(chunk) = self.cache.get(key) else {
            return Vec::new();
        };
        let whole = |piece: &Piece| {
            let from = piece.at.next_multiple_of(BLOCK_BYTES);
            let to = if piece.end() >= range.end { range.end } else { piece.end() / BLOCK_BYTES * BLOCK_BYTES };
            piece.part(from.max(range.start), to)
        };
        chunk.pieces().iter().filter_map(whole).collect()
    }

    /// One GET with its retries; each resumes where the one before broke off.
    async fn run(&self, wanted: Wanted) {
        let mut done = wanted.range.start;
        let mut attempt = 0;
        let mut mismatches = 0;
        loop {
            let before = done;
            let failure = match self.attempt(&wanted, &mut done).await {
                Ok(()) => return,
                Err(failure) => failure,
            };
            let (error, again) = match failure {
                Failure::Source(SourceError::NotFound) => (RemoteError::missing(&name(&wanted.entry)), false),
                Failure::Source(SourceError::Permanent(reason)) => (RemoteError::Unavailable { reason }, false),
                Failure::Source(SourceError::Transient(reason)) => {
                    attempt = if done > before { 1 } else { attempt + 1 };
                    let again = attempt < self.getter.patience().attempts;
                    (RemoteError::Unavailable { reason }, again)
                }
                Failure::Checksum => {
                    self.stats.corrupt();
                    mismatches += 1;
                    (RemoteError::corrupt(&wanted.entry, "checksum"), mismatches < 2)
                }
            };
            let rest = done..wanted.range.end;
            if !again {
                for (sink, range) in self.land(&wanted.entry, &rest) {
                    sink.failed(range, error.clone());
                }
                return;
            }
            for sink in self.sinks(&wanted.entry, &rest) {
                sink.troubled(error.clone());
            }
            self.getter.back_off(attempt.max(1)).await;
        }
    }

    /// Streams `[done, end)`; moves `done` over each chunk delivered.
    async fn attempt(&self, wanted: &Wanted, done: &mut u64) -> Result<(), Failure> {
        let start = wanted.entry.object.start;
        let span = Span::Range(start + *done..start + wanted.range.end);
        let asked = Instant::now();
        let mut open = self.getter.open(&name(&wanted.entry), span).await?;
        let mut first = true;
        let mut filling = self.pool.take();
        while let Some(mut bytes) = open.next().await? {
            if std::mem::take(&mut first) {
                self.first_byte(wanted, *done, asked.elapsed());
            }
            while !bytes.is_empty() && *done < wanted.range.end {
                let part = *done..end_of_chunk(*done).min(wanted.range.end);
                let length = (part.end - part.start) as usize;
                let whole = if filling.is_empty() && bytes.len() >= length {
                    Some(bytes.split_to(length))
                } else {
                    let more = bytes.len().min(length - filling.len());
                    filling.extend(bytes.get(..more).unwrap_or_default(), length);
                    bytes.advance(more);
                    (filling.len() == length).then(|| std::mem::replace(&mut filling, self.pool.take()).freeze())
                };
                if let Some(whole) = whole {
                    self.deliver(wanted, part.start, whole)?;
                    *done = part.end;
                }
            }
        }
        if *done < wanted.range.end {
            return Err(SourceError::Transient("the response ended early".into()).into());
        }
        Ok(())
    }

    fn first_byte(&self, wanted: &Wanted, at: u64, after: Duration) {
        {
            let mut latency = self.latency.lock();
            // Forget a lucky one in time: a tenth towards what is seen now.
            *latency = Some(latency.map_or(after, |least| (least + (after.saturating_sub(least)) / 10).min(after)));
        }
        for sink in self.sinks(&wanted.entry, &(at..at + 1)) {
            sink.first_byte(after);
        }
    }

    fn deliver(&self, wanted: &Wanted, at: u64, bytes: Bytes) -> Result<(), Failure> {
        let checked = match wanted.footer.now() {
            Some(footer) => {
                let length = wanted.entry.object.length;
                if footer.checksums.verify(at, &bytes, length).is_err() {
                    return Err(Failure::Checksum);
                }
                true
            }
            None => false,
        };
        let piece = Piece { at, bytes, checked };
        let key = key(&wanted.entry, at);
        let range = at..piece.end();
        // In the cache first: whoever comes in between finds it there or in flight, never in neither.
        self.cache.add(key, piece.clone());
        for (sink, part) in self.land(&wanted.entry, &range) {
            if let Some(piece) = piece.part(part.start, part.end) {
                sink.arrived(piece);
            }
        }
        Ok(())
    }

    /// Takes the flights of `range` off the table: who waited, and for which bytes.
    fn land(&self, entry: &Entry, range: &Range<u64>) -> Vec<(Arc<dyn Sink>, Range<u64>)> {
        let mut waited = Vec::new();
        let mut flights = self.flights.lock();
        for (key, range) in chunks(entry, range) {
            let base = u64::from(key.index) * CHUNK_BYTES;
            let landed = mask(range.start - base..range.end - base);
            let Some(flying) = flights.get_mut(&key) else {
                continue;
            };
            flying.retain_mut(|flight| {
                if flight.blocks & landed == 0 {
                    return true;
                }
                for (blocks, sink) in &flight.sinks {
                    for run in runs(blocks & landed) {
                        waited.push((Arc::clone(sink), span(run, base, range.end)));
                    }
                }
                false
            });
            if flying.is_empty() {
                flights.remove(&key);
            }
        }
        waited
    }

    /// Who waits for bytes of `range`, each once.
    fn sinks(&self, entry: &Entry, range: &Range<u64>) -> Vec<Arc<dyn Sink>> {
        let mut sinks: Vec<Arc<dyn Sink>> = Vec::new();
        let flights = self.flights.lock();
        for (key, range) in chunks(entry, range) {
            let base = u64::from(key.index) * CHUNK_BYTES;
            let wanted = mask(range.start - base..range.end - base);
            for flight in flights.get(&key).into_iter().flatten() {
                for (blocks, sink) in &flight.sinks {
                    if blocks & wanted != 0 && !sinks.iter().any(|known| Arc::ptr_eq(known, sink)) {
                        sinks.push(Arc::clone(sink));
                    }
                }
            }
        }
        sinks
    }
}

enum Failure {
    Source(SourceError),
    Checksum,
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

fn name(entry: &Entry) -> Name {
    Name::Data(entry.object.key, entry.format)
}

fn key(entry: &Entry, at: u64) -> ChunkKey {
    ChunkKey {
        object: entry.object.key.uuid,
        start: entry.object.start,
        index: u32::try_from(at / CHUNK_BYTES).unwrap_or(u32::MAX),
    }
}

fn end_of_chunk(at: u64) -> u64 {
    (at / CHUNK_BYTES + 1) * CHUNK_BYTES
}

/// `range` cut at the borders of chunks.
fn chunks(entry: &Entry, range: &Range<u64>) -> impl Iterator<Item = (ChunkKey, Range<u64>)> {
    let template = key(entry, 0);
    let (mut at, end) = (range.start, range.end);
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let part = at..end_of_chunk(at).min(end);
        at = part.end;
        let index = u32::try_from(part.start / CHUNK_BYTES).unwrap_or(u32::MAX);
        Some((ChunkKey { index, ..template }, part))
    })
}

/// The blocks that a range within a chunk touches.
fn mask(range: Range<u64>) -> Blocks {
    let first = range.start / BLOCK_BYTES;
    let last = range.end.div_ceil(BLOCK_BYTES).min(16);
    (first..last).fold(0, |mask, block| mask | 1 << block)
}

/// Runs of adjacent blocks, each as a mask, ascending.
fn runs(mut blocks: Blocks) -> impl Iterator<Item = Blocks> {
    std::iter::from_fn(move || {
        if blocks == 0 {
            return None;
        }
        let low = blocks.trailing_zeros();
        let count = (blocks >> low).trailing_ones();
        let run = (((1u32 << count) - 1) << low) as Blocks;
        blocks &= !run;
        Some(run)
    })
}

/// The bytes of a run of blocks in the chunk that begins at `base`; the data ends at `end` or later.
fn span(run: Blocks, base: u64, end: u64) -> Range<u64> {
    let from = base + u64::from(run.trailing_zeros()) * BLOCK_BYTES;
    let to = base + u64::from(16 - run.leading_zeros()) * BLOCK_BYTES;
    from..to.min(end)
}
