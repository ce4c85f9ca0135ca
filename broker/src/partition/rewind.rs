//! Rebuilding what was known at an earlier offset, cutting the tail, and starting over.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use proto::ids::{LeaderEpoch, Offset};

use super::core::{Cut, Uncuttable};
use super::handle::PartitionHandle;
use super::read::scan;
use super::shared::{Inner, OpKind, SavePoint, Shared};
use super::types::{AckError, AppendError, Origin, ReadError};
use crate::journal::{EpochStart, Record};
use crate::log::batch::BatchMeta;
use crate::log::epochs::EpochEntry;
use crate::log::segment::{FileKind, Segment, file_name, parse_file_name};
use crate::log::snapshot::{FormatError, Snapshot};

/// Why a log was not cut or started over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RewindError {
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The data directory failed, the partition went away, or the term is over in which it was to be cut.
    #[error(transparent)]
    Lost(#[from] AckError),
    /// What was committed is not cut.
    #[error("offset {to} is below the high watermark {high_watermark}")]
    Committed {
        /// Where to cut.
        to: Offset,
        /// Where that is not allowed.
        high_watermark: Offset,
    },
    /// The state handed in is not one.
    #[error("producer state: {0}")]
    State(#[from] FormatError),
}

/// What a log starts over with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Anew<'a> {
    /// Where it begins, and ends.
    pub start: Offset,
    /// First offset that can be read from then on; below `start` in the tier.
    pub log_start: Offset,
    /// The tier's leader epochs.
    pub epochs: &'a [EpochEntry],
    /// Producers as of the tier's end, as its last footer has them; empty if none are known.
    pub producers: &'a [u8],
}

impl PartitionHandle {
    /// What is known at `offset`, a batch border on local disk: epochs, producers, open transactions; with the
    /// place of `offset` in the segments.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn state_at(&self, offset: Offset) -> Result<Snapshot, ReadError> {
        let shared = &self.shared;
        let mut state = self.nearest_state(offset).await?;
        // Epochs are never cut apart: the whole history is known here.
        state.epochs = shared.inner.lock().core.epochs().clone();
        state.epochs.truncate_tail(offset);
        let now_ms = shared.dir.now_ms();
        let (mut producers, from) = (std::mem::take(&mut state.producers), state.offset);
        let mut found = None;
        scan(shared, from, offset, |batch| {
            let meta = BatchMeta::of_stored(batch).map_err(|error| ReadError::Corrupt(error.to_string()))?;
            producers.apply(&meta, meta.base_offset, now_ms);
            found = Some(batch.header.last_offset() + 1);
            Ok(ControlFlow::<()>::Continue(()))
        })
        .await?;
        state.producers = producers;
        if from < offset && found != Some(offset) {
            return Err(ReadError::Corrupt(format!("offset {offset} is no batch border")));
        }
        (state.segment_base, state.position) = self.place_of(offset).await?;
        state.offset = offset;
        Ok(state)
    }

    /// The last state saved at or before `offset`; an empty one at the log's begin if there is none.
    async fn nearest_state(&self, offset: Offset) -> Result<Snapshot, ReadError> {
        let shared = &self.shared;
        let (first, pending) = {
            let inner = shared.inner.lock();
            let first = inner.core.layout().first_base();
            // What is older than the first segment was trimmed before it was saved.
            let pending = inner.save_points.iter().rev().find(|point| (first..=offset).contains(&point.offset));
            (first, pending.map(|point| point.snapshot.clone()))
        };
        if let Some(state) = pending.and_then(|bytes| Snapshot::decode(&bytes).ok()) {
            return Ok(state);
        }
        let disk = shared.dir.disk();
        let entries = match disk.list(&shared.folder).await {
            Ok(entries) => entries,
            Err(error) if error.is_not_found() => Vec::new(),
            Err(error) => return Err(shared.read_failed(&error)),
        };
        let names = entries.iter().rev().filter_map(|entry| parse_file_name(&entry.name));
        let mut saved: Vec<Offset> = names.filter(|(_, kind)| *kind == FileKind::Snapshot).map(|(at, _)| at).collect();
        saved.retain(|at| (first..=offset).contains(at));
        saved.sort_unstable_by(|a, b| b.cmp(a));
        for at in saved {
            let path = shared.folder.join(file_name(at, FileKind::Snapshot));
            // Trimmed since, or torn by a crash: an earlier one does as well.
            let found = crate::disk::read_whole(&**disk, &path).await;
            let bytes = found.map_err(|error| shared.read_failed(&error))?;
            if let Some(state) = bytes.and_then(|bytes| Snapshot::decode(&bytes).ok()) {
                return Ok(state);
            }
        }
        if first > 0 {
            tracing::warn!(partition = %shared.tp, offset, "no state saved: producers that wrote before {first} are not known");
        }
        Ok(Snapshot { offset: first, segment_base: first, ..Snapshot::default() })
    }

    /// Segment and position of a batch border.
    async fn place_of(&self, offset: Offset) -> Result<(Offset, u64), ReadError> {
        let (segment, from) = {
            let inner = self.shared.inner.lock();
            let at = inner.tail.partition_point(|entry| entry.base < offset);
            if let Some(entry) = inner.tail.get(at).filter(|entry| entry.base == offset) {
                return Ok((entry.segment, entry.position));
            }
            let layout = inner.core.layout();
            if offset >= layout.end() {
                return Ok((layout.active().base, layout.active().bytes));
            }
            let Some(segment) = layout.find(offset) else {
                return Err(ReadError::Corrupt(format!("offset {offset} is not here")));
            };
            let (at, position) = segment.index.floor_entry(offset).unwrap_or((segment.base, 0));
            (segment.base, (at, position))
        };
        let mut position = from.1;
        scan(&self.shared, from.0, offset, |batch| {
            position += batch.bytes.len() as u64;
            Ok(ControlFlow::<()>::Continue(()))
        })
        .await?;
        Ok((segment, position))
    }

    /// Cuts the log to end at `to`, a batch border; durable on return. For a follower, whose leader's history says so
    /// ([`PartitionHandle::truncation_point`]): nobody else may append meanwhile. Only in the term that it was decided in,
    /// and below the high watermark only after an unclean election.
    ///
    /// # Errors
    /// See [`RewindError`]; nothing is cut then, unless the directory failed.
    pub async fn truncate(&self, to: Offset, why: Cut) -> Result<(), RewindError> {
        {
            let mut inner = self.shared.inner.lock();
            if to >= inner.core.offsets().log_end {
                return Ok(());
            }
            inner.may_cut(to, why)?;
            inner.truncating = true;
        }
        let state = self.state_at(to).await;
        let done = {
            let mut inner = self.shared.inner.lock();
            inner.truncating = false;
            let state = state?;
            // What was committed meanwhile stays, too.
            inner.may_cut(to, why)?;
            let segment = state.segment_base;
            let kind = OpKind::Cut { end: to, segment, position: state.position };
            self.record(&mut inner, Record::TruncateTail { tp: self.tp(), to }, kind);
            let done = inner.op_durable();
            let commands = inner.core.truncate(state, why);
            inner.cut_tail(to, segment);
            self.perform(&mut inner, commands);
            done
        };
        Ok(done.await?)
    }

    /// Drops the local log and starts over; durable on return. Only where this replica does not lead, and only in the
    /// `term` that it was decided in: in another one, or in another life of the partition, the log is not what it was.
    ///
    /// # Errors
    /// See [`RewindError`]; the log is as it was then, unless the directory failed.
    pub async fn reset(&self, term: LeaderEpoch, anew: Anew<'_>) -> Result<(), RewindError> {
        let Anew { start, log_start, epochs, producers } = anew;
        let mut state = if producers.is_empty() { Snapshot::default() } else { Snapshot::decode(producers)? };
        if let Some(epochs) = crate::log::epochs::EpochCache::from_entries(epochs.to_vec()) {
            state.epochs = epochs;
        }
        (state.offset, state.segment_base, state.position) = (start, start, 0);
        let done = {
            let mut inner = self.shared.inner.lock();
            // Before anything of it is journaled, under the same lock.
            inner.core.may_rewind(term)?;
            let snapshot = self.record_reset(&mut inner, &state);
            let done = inner.op_durable();
            let commands = inner.core.reset(self.shared.dir.now_ms(), log_start, state);
            inner.restart_tail(&self.shared, start, snapshot);
            self.perform(&mut inner, commands);
            done
        };
        Ok(done.await?)
    }

    /// Lets a log without records begin at `base`, if that lies before its start. What comes next in the journal is what is
    /// appended there, so that nothing has to be waited for.
    pub(super) fn begin_before(&self, base: Offset, leader_epoch: LeaderEpoch) -> Result<(), AppendError> {
        let mut inner = self.shared.inner.lock();
        inner.core.check_writer(Some(leader_epoch), Origin::Replica, false)?;
        if inner.truncating || !inner.core.is_blank() || base >= inner.core.offsets().local_start {
            return Ok(());
        }
        let mut epochs = inner.core.epochs().clone();
        epochs.truncate_tail(base);
        let producers = inner.core.producers().clone();
        let state = Snapshot { offset: base, segment_base: base, position: 0, epochs, producers };
        let snapshot = self.record_reset(&mut inner, &state);
        inner.core.begin_before(self.shared.dir.now_ms(), state);
        inner.restart_tail(&self.shared, base, snapshot);
        Ok(())
    }

    /// Journals that the log starts over with `state`; answers that, encoded.
    fn record_reset(&self, inner: &mut Inner, state: &Snapshot) -> Bytes {
        let snapshot: Bytes = state.encode();
        let start = state.offset;
        let starts: Vec<EpochStart> =
            state.epochs.entries().iter().map(|entry| EpochStart { epoch: entry.epoch, start: entry.start }).collect();
        let record = Record::Reset { tp: self.tp(), start, epochs: &starts, producer_state: &snapshot };
        self.record(inner, record, OpKind::Reset { start, snapshot: snapshot.clone() });
        snapshot
    }
}

impl Inner {
    fn may_cut(&self, to: Offset, why: Cut) -> Result<(), RewindError> {
        self.core.may_rewind(why.term)?;
        let high_watermark = self.core.offsets().high_watermark;
        self.core.may_cut(to, why).map_err(|refused| match refused {
            Uncuttable::Moved => RewindError::Lost(AckError::NotLeader),
            Uncuttable::Committed => RewindError::Committed { to, high_watermark },
        })
    }

    /// Forgets batches at or above `end`, and files after that of `segment`: one of the same name may come again,
    /// and is another file.
    fn cut_tail(&mut self, end: Offset, segment: Offset) {
        while self.tail.back().is_some_and(|entry| entry.base >= end) {
            self.tail.pop_back();
        }
        self.written = self.written.min(self.tail.len());
        self.files.retain(|base, _| *base <= segment);
        self.save_points.retain(|point| point.offset <= end);
        self.generation += 1;
        self.forget_hints();
    }

    /// Forgets all batches and files; what is known is the state at `start`.
    fn restart_tail(&mut self, shared: &Shared, start: Offset, snapshot: Bytes) {
        self.tail.clear();
        self.written = 0;
        self.save_points.clear();
        self.save_points.push_back(SavePoint { offset: start, segment: start, position: 0, snapshot, summary: None });
        self.generation += 1;
        self.forget_hints();
        let segment: Arc<Segment> = Segment::new(&shared.folder, start);
        self.files.clear();
        self.files.insert(start, segment);
    }
}
