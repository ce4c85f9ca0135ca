//! Everything that is asked of the tier besides records: offsets by timestamp, ends of epochs, aborted
//! transactions, and what a replica that starts at the tier's end has to know.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use proto::ids::{LeaderEpoch, Millis, Offset, TopicPartition};
use proto::metadata::TierPointer;
use proto::records::{BatchRef, batches, find_timestamp, for_each_record};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::catalog::Catalogs;
use super::download::{Sink, Wanted};
use super::gather::overlapping;
use super::load::Load;
use super::shared::Shared;
use super::walk::{self, Ask, Stop};
use super::{RemoteError, RemoteReader};
use crate::cache::{BLOCK_BYTES, Piece};
use crate::format::{AbortedTxn, EpochHistory, Footer};
use crate::manifest::Entry;

/// Bytes read at first to look for a record. The time index is at most a few blocks off.
const SEARCH_BYTES: u64 = 256 << 10;
/// What a batch may decompress to. It was held against the topic's own limit when it was appended.
const MAX_UNCOMPRESSED: usize = 256 << 20;

/// A record found by its timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundTimestamp {
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp.
    pub timestamp: Millis,
    /// Leader epoch of its batch.
    pub leader_epoch: LeaderEpoch,
}

/// Where an epoch ends (KIP-101).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEnd {
    /// The greatest epoch in the tier that is not above the one asked for.
    pub epoch: LeaderEpoch,
    /// First offset after it; the tier's end if the epoch may go on in the local log.
    pub end: Offset,
    /// Whether the epoch reaches the tier's end: only the local log knows where it ends.
    pub open: bool,
}

/// What a log that starts at the tier's end begins with (KIP-1023).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierEnd {
    /// The tier's end: first offset not tiered.
    pub end: Offset,
    /// The leader epochs up to there.
    pub epochs: EpochHistory,
    /// The producer snapshot at `end`, as the broker wrote it; empty if there was none.
    pub producers: Bytes,
}

impl RemoteReader {
    /// The first record at or above the log's start with a timestamp at or after `timestamp` (Unix ms);
    /// none if the tier has none.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn offset_for_timestamp(
        &self,
        tp: TopicPartition,
        pointer: &TierPointer,
        timestamp: Millis,
    ) -> Result<Option<FoundTimestamp>, RemoteError> {
        let look = |pointer| self.0.find_timestamp(tp, pointer, timestamp);
        self.0.reloading(tp, pointer, look).await
    }

    /// The first record with the tier's greatest timestamp (KIP-734); none if no record has one.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn max_timestamp(
        &self,
        tp: TopicPartition,
        pointer: &TierPointer,
    ) -> Result<Option<FoundTimestamp>, RemoteError> {
        let look = |pointer| self.0.find_max_timestamp(tp, pointer);
        self.0.reloading(tp, pointer, look).await
    }

    /// Where `epoch` ends in the tier; none if the tier begins with a later epoch or is empty.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn epoch_end(
        &self,
        tp: TopicPartition,
        pointer: &TierPointer,
        epoch: LeaderEpoch,
    ) -> Result<Option<EpochEnd>, RemoteError> {
        let look = |pointer| self.0.find_epoch_end(tp, pointer, epoch);
        self.0.reloading(tp, pointer, look).await
    }

    /// Aborted transactions that overlap `[from, to)`, ascending by first offset.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn aborted(
        &self,
        tp: TopicPartition,
        pointer: &TierPointer,
        range: Range<Offset>,
    ) -> Result<Vec<AbortedTxn>, RemoteError> {
        let look = |pointer| self.0.list_aborted(tp, pointer, range.clone());
        self.0.reloading(tp, pointer, look).await
    }

    /// Epochs and producers at the tier's end; none if nothing is tiered.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn tier_end(&self, tp: TopicPartition, pointer: &TierPointer) -> Result<Option<TierEnd>, RemoteError> {
        let look = |pointer| self.0.load_tier_end(tp, pointer);
        self.0.reloading(tp, pointer, look).await
    }
}

impl Shared {
    /// Bounds a lookup in time, and does it once more with a fresh pointer if an object is gone.
    async fn reloading<T, F: Future<Output = Result<T, RemoteError>>>(
        &self,
        tp: TopicPartition,
        pointer: &TierPointer,
        look: impl Fn(TierPointer) -> F,
    ) -> Result<T, RemoteError> {
        let deadline = Instant::now() + self.settings.read_timeout;
        let all = async {
            match look(pointer.clone()).await {
                Err(RemoteError::Missing { .. }) => {
                    self.catalogs.forget(pointer);
                    let fresh = self.pointers.read_fresh(tp).await?;
                    look(fresh).await
                }
                result => result,
            }
        };
        tokio::time::timeout_at(deadline, all).await.unwrap_or(Err(RemoteError::TimedOut))
    }

    async fn find_timestamp(
        self: &Arc<Self>,
        tp: TopicPartition,
        pointer: TierPointer,
        timestamp: Millis,
    ) -> Result<Option<FoundTimestamp>, RemoteError> {
        if pointer.is_empty() {
            return Ok(None);
        }
        let catalog = self.catalog(tp, &pointer, pointer.tier_start).await?;
        let mut from = pointer.tier_start.max(pointer.log_start);
        while let Some(entry) = self.catalogs.by_timestamp(&catalog, timestamp, from).await? {
            if let Some(found) = self.search(&entry, timestamp, from).await? {
                return Ok(Some(found));
            }
            from = entry.end;
        }
        Ok(None)
    }

    async fn find_max_timestamp(
        self: &Arc<Self>,
        tp: TopicPartition,
        pointer: TierPointer,
    ) -> Result<Option<FoundTimestamp>, RemoteError> {
        if pointer.is_empty() {
            return Ok(None);
        }
        let catalog = self.catalog(tp, &pointer, pointer.tier_start).await?;
        let max = Catalogs::max_timestamp(&catalog);
        if max < 0 {
            return Ok(None);
        }
        let whole = self.find_timestamp(tp, pointer.clone(), max).await?;
        if whole.is_some() {
            return Ok(whole);
        }
        // The record that has it lies below the log's start, or is a marker. Rare, so that a search by halves will do:
        // there is nothing at or after `above`, and `greatest` is the first record at or after what was asked last.
        let (mut greatest, mut least, mut above) = (None, 0, max);
        while least < above {
            let middle = least + (above - least) / 2;
            match self.find_timestamp(tp, pointer.clone(), middle).await? {
                Some(found) => {
                    least = found.timestamp + 1;
                    greatest = Some(found);
                }
                None => above = middle,
            }
        }
        Ok(greatest)
    }

    async fn find_epoch_end(
        self: &Arc<Self>,
        tp: TopicPartition,
        pointer: TierPointer,
        epoch: LeaderEpoch,
    ) -> Result<Option<EpochEnd>, RemoteError> {
        if pointer.is_empty() {
            return Ok(None);
        }
        let catalog = self.catalog(tp, &pointer, pointer.tier_start).await?;
        let above = self.catalogs.by_epoch_above(&catalog, epoch).await?;
        let end = above.and_then(|entry| {
            let later = entry.epochs.iter().find(|(later, _)| *later > epoch)?;
            Some(later.1)
        });
        let open = end.is_none();
        let end = end.unwrap_or(pointer.tier_end);
        if end <= pointer.tier_start {
            return Ok(None);
        }
        let last = self.catalogs.locate(&catalog, end - 1).await?;
        let floor = last.and_then(|entry| {
            let mut known = entry.epochs.iter().rev();
            known.find(|(known, _)| *known <= epoch).map(|(known, _)| *known)
        });
        Ok(floor.map(|epoch| EpochEnd { epoch, end, open }))
    }

    async fn list_aborted(
        self: &Arc<Self>,
        tp: TopicPartition,
        pointer: TierPointer,
        range: Range<Offset>,
    ) -> Result<Vec<AbortedTxn>, RemoteError> {
        let mut from = range.start.max(pointer.tier_start);
        let to = range.end.min(pointer.tier_end);
        let mut aborted = Vec::new();
        if from >= to {
            return Ok(aborted);
        }
        let catalog = self.catalog(tp, &pointer, from).await?;
        while from < to {
            let Some(entry) = self.catalogs.locate(&catalog, from).await? else {
                break;
            };
            if entry.has_aborted {
                let footer = self.footer(&entry).wait().await?;
                aborted.extend(overlapping(&footer, from, to));
            }
            from = entry.end;
        }
        aborted.sort_unstable();
        aborted.dedup();
        Ok(aborted)
    }

    async fn load_tier_end(
        self: &Arc<Self>,
        tp: TopicPartition,
        pointer: TierPointer,
    ) -> Result<Option<TierEnd>, RemoteError> {
        if pointer.is_empty() {
            return Ok(None);
        }
        let last = pointer.tier_end - 1;
        let catalog = self.catalog(tp, &pointer, last).await?;
        let Some(entry) = self.catalogs.locate(&catalog, last).await? else {
            return Ok(None);
        };
        let footer = self.footer(&entry).wait().await?;
        Ok(Some(TierEnd { end: footer.end, epochs: footer.epochs.clone(), producers: footer.producers.clone() }))
    }

    /// The first record in `entry` at or above `from` with a timestamp at or after `timestamp`.
    async fn search(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        timestamp: Millis,
        from: Offset,
    ) -> Result<Option<FoundTimestamp>, RemoteError> {
        let mut coming = self.footer(entry);
        let footer = coming.wait().await?;
        let start = footer.time_index.search_from(timestamp).unwrap_or(entry.base);
        let start = start.max(from);
        let mut at = footer.offset_index.floor(start).map_or(0, |at| at.position);
        let mut size = SEARCH_BYTES;
        let length = entry.object.length;
        while at < length {
            let block = at - at % BLOCK_BYTES;
            let end = (at + size).next_multiple_of(BLOCK_BYTES).min(length);
            let pieces = self.bytes(entry, &footer, block..end).await?;
            let pieces: Vec<Piece> = pieces.iter().filter_map(|piece| piece.part(at, end)).collect();
            let ask = Ask { from: start, max_bytes: u64::MAX, min_one: true, left: length - at, end: entry.end };
            let taken = walk::take(&pieces, &ask).map_err(|broken| RemoteError::corrupt(entry, broken))?;
            for batch in batches(&walk::joined(&taken.chunks)) {
                let found = batch.and_then(|batch| in_batch(&batch, timestamp, from));
                if let Some(found) = found.map_err(|error| RemoteError::corrupt(entry, error))? {
                    return Ok(Some(found));
                }
            }
            let passed = taken.skipped + taken.bytes;
            match taken.stop {
                Stop::End => return Ok(None),
                Stop::Need(bytes) if passed == 0 => size = bytes.max(size * 2),
                Stop::Need(_) | Stop::Full => at += passed,
            }
        }
        Ok(None)
    }

    /// Bytes of an entry, from the cache or the store, in order.
    async fn bytes(
        &self,
        entry: &Arc<Entry>,
        footer: &Arc<Footer>,
        range: Range<u64>,
    ) -> Result<Vec<Piece>, RemoteError> {
        let collector = Arc::new(Collector {
            missing: Mutex::new(Ok((range.end - range.start, Vec::new()))),
            changed: Notify::new(),
        });
        let sink: Arc<dyn Sink> = Arc::<Collector>::clone(&collector);
        let wanted = Wanted { entry: Arc::clone(entry), range, footer: Load::Here(Arc::clone(footer)) };
        self.downloads.fetch(&wanted, &sink);
        loop {
            let changed = collector.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match &mut *collector.missing.lock() {
                Ok((0, pieces)) => {
                    let mut pieces = std::mem::take(pieces);
                    pieces.sort_unstable_by_key(|piece| piece.at);
                    return Ok(pieces);
                }
                Ok(_) => {}
                Err(error) => return Err(error.clone()),
            }
            changed.await;
        }
    }
}

fn in_batch(
    batch: &BatchRef<'_>,
    timestamp: Millis,
    from: Offset,
) -> Result<Option<FoundTimestamp>, proto::records::BatchError> {
    let header = &batch.header;
    if header.is_control() {
        return Ok(None);
    }
    let found = |(offset, timestamp)| FoundTimestamp { offset, timestamp, leader_epoch: header.leader_epoch };
    match find_timestamp(batch, timestamp, MAX_UNCOMPRESSED)? {
        Some((offset, _)) if offset < from => {
            // The log begins within this batch: the first one that is still readable.
            let mut first = None;
            for_each_record(batch, MAX_UNCOMPRESSED, |record| {
                if first.is_none() && record.offset >= from && record.timestamp >= timestamp {
                    first = Some((record.offset, record.timestamp));
                }
            })?;
            Ok(first.map(found))
        }
        hit => Ok(hit.map(found)),
    }
}

/// Collects the pieces of one range.
struct Collector {
    /// Bytes still missing and what came, or why nothing more comes.
    missing: Mutex<Result<(u64, Vec<Piece>), RemoteError>>,
    changed: Notify,
}

impl Sink for Collector {
    fn arrived(&self, piece: Piece) {
        if let Ok((missing, pieces)) = &mut *self.missing.lock() {
            *missing = missing.saturating_sub(piece.bytes.len() as u64);
            pieces.push(piece);
        }
        self.changed.notify_waiters();
    }

    fn failed(&self, _range: Range<u64>, error: RemoteError) {
        *self.missing.lock() = Err(error);
        self.changed.notify_waiters();
    }

    fn first_byte(&self, _after: Duration) {}

    fn troubled(&self, _error: RemoteError) {}
}
