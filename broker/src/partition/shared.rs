//! What the handles of a partition, the journal and the writer share.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use proto::ids::{Millis, Offset, TopicPartition};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::core::{Command, Core, Event};
use super::isr::Outbox;
use super::types::{AckError, AckFuture};
use super::waiters::{AckWaiters, DeleteWaiters, Readers, Told};
use crate::journal::{GroupSeq, Lsn, Owner, Placed, Slice};
use crate::log::batch::BatchMeta;
use crate::log::dir::{DirConfig, LogDir};
use crate::log::folder::{Folder, Recovery};
use crate::log::index::SegmentSummary;
use crate::log::segment::Segment;
use crate::log::snapshot;

/// One partition. Handles and the journal hold it.
pub(crate) struct Shared {
    pub(crate) tp: TopicPartition,
    /// The topic's name; a folder that was never described does not know it.
    pub(crate) topic: RwLock<Arc<str>>,
    pub(crate) dir: Arc<LogDir>,
    pub(crate) folder: PathBuf,
    pub(crate) inner: Mutex<Inner>,
    /// Where proposals for the controller go.
    pub(super) outbox: Arc<Outbox>,
    /// What clients brought and took.
    pub(super) traffic: Traffic,
    /// Appends are refused for want of space.
    pub(super) refused: AtomicBool,
    /// Cancelled once it was removed and neither its files nor the checkpoint speak of it, or the directory is offline.
    pub(crate) left: CancellationToken,
}

/// Bytes of batches that clients of a partition brought and took, since the process began.
#[derive(Debug, Default)]
pub struct Traffic {
    brought: AtomicU64,
    taken: AtomicU64,
}

impl Traffic {
    /// Bytes that producers brought.
    pub fn brought(&self) -> u64 {
        self.brought.load(Ordering::Relaxed)
    }

    /// Bytes that consumers took.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// A producer brought `bytes`.
    pub(super) fn received(&self, bytes: u64) {
        self.brought.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Consumers are sent `bytes`.
    pub(crate) fn sent(&self, bytes: u64) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A batch that is in memory, or was not long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TailEntry {
    pub(crate) base: Offset,
    /// Exclusive.
    pub(crate) end: Offset,
    pub(crate) lsn: Lsn,
    /// Whether it went past the journal.
    pub(crate) loose: bool,
    pub(crate) slice: Slice,
    /// Base of the segment it goes to.
    pub(crate) segment: Offset,
    /// Its first byte there.
    pub(crate) position: u64,
    /// Its first byte in the log ([`crate::log::layout::SegmentMeta::log_position`]).
    pub(crate) log_position: u64,
}

/// State of the log at one offset, to be saved once segments reach it.
#[derive(Debug, Clone)]
pub(crate) struct SavePoint {
    pub(crate) offset: Offset,
    /// The segment it belongs to.
    pub(crate) segment: Offset,
    /// Its byte there.
    pub(crate) position: u64,
    /// An encoded [`snapshot::Snapshot`].
    pub(crate) snapshot: Bytes,
    /// The index so far of the segment that ends, or goes on, here; none if that was dropped.
    pub(crate) summary: Option<SegmentSummary>,
}

/// A change of files, journaled at `lsn`.
#[derive(Debug, Clone)]
pub(crate) struct FileOp {
    pub(crate) lsn: Lsn,
    pub(crate) kind: OpKind,
}

#[derive(Debug, Clone)]
pub(crate) enum OpKind {
    /// The log starts at `to`, in the segment `first`. Later trims may have moved on in memory, but only what their own
    /// records made durable may go.
    Trim { to: Offset, first: Offset },
    /// The log ends at `end`, at byte `position` of `segment`.
    Cut { end: Offset, segment: Offset, position: u64 },
    /// The log starts anew at `start`; its state there, encoded.
    Reset { start: Offset, snapshot: Bytes },
    /// The partition is gone.
    Delete,
}

type OpWaiter = (Lsn, oneshot::Sender<Result<(), AckError>>);

pub(crate) struct Inner {
    pub(crate) core: Core,
    /// Batches in memory, ascending; entries of evicted groups are popped when they are met.
    pub(crate) tail: VecDeque<TailEntry>,
    /// How many entries at the front of `tail` are written to segments.
    pub(crate) written: usize,
    pub(crate) leader_acks: AckWaiters,
    pub(crate) all_acks: AckWaiters,
    pub(crate) deletes: DeleteWaiters,
    pub(crate) readers: Readers,
    /// Segment files there are, or will be, by base offset.
    pub(crate) files: BTreeMap<Offset, Arc<Segment>>,
    pub(crate) ops: VecDeque<FileOp>,
    pub(super) op_waiters: Vec<OpWaiter>,
    pub(crate) save_points: VecDeque<SavePoint>,
    /// Log position of the last save point.
    saved_position: u64,
    /// Position of the last record that its files reflect.
    pub(crate) processed_lsn: Lsn,
    /// Up to where segments hold it: (segment, byte). What the core says is ahead of it, by batches and by changes
    /// that are not durable.
    pub(crate) reached: (Offset, u64),
    /// The local start as of there: the core's may be ahead of what is durable.
    pub(crate) processed_start: Offset,
    /// What its folder says of recovery; none if there is no folder yet.
    pub(crate) described: Option<Recovery>,
    /// Offset of the state last saved, and whether that lies inside a segment.
    pub(crate) saved: Option<(Offset, bool)>,
    /// Cuts and resets so far: a write that was planned before one does not count.
    pub(crate) generation: u64,
    /// A cut is being prepared; appends wait outside.
    pub(super) truncating: bool,
    /// Where sequential readers stopped: (offset, segment, position).
    hints: [(Offset, Offset, u64); 8],
    next_hint: usize,
}

impl Shared {
    pub(crate) fn new(
        tp: TopicPartition,
        topic: Arc<str>,
        dir: Arc<LogDir>,
        core: Core,
        outbox: Arc<Outbox>,
    ) -> Arc<Self> {
        let folder = dir.path().join(Folder::name(tp));
        let files =
            core.layout().segments().map(|segment| (segment.base, Segment::new(&folder, segment.base))).collect();
        let saved_position = core.layout().end_position();
        let processed_start = core.offsets().local_start;
        let reached = (core.layout().active().base, core.layout().active().bytes);
        Arc::new(Self {
            tp,
            topic: RwLock::new(topic),
            dir,
            folder,
            outbox,
            traffic: Traffic::default(),
            refused: AtomicBool::new(false),
            left: CancellationToken::new(),
            inner: Mutex::new(Inner {
                core,
                tail: VecDeque::new(),
                written: 0,
                leader_acks: AckWaiters::default(),
                all_acks: AckWaiters::default(),
                deletes: DeleteWaiters::default(),
                readers: Readers::default(),
                files,
                ops: VecDeque::new(),
                op_waiters: Vec::new(),
                save_points: VecDeque::new(),
                saved_position,
                processed_lsn: Lsn(0),
                reached,
                processed_start,
                described: None,
                saved: None,
                generation: 0,
                truncating: false,
                hints: [(-1, 0, 0); 8],
                next_hint: 0,
            }),
        })
    }

    pub(super) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed) || self.dir.is_full()
    }

    /// Runs an event that asks for nothing but telling people.
    pub(crate) fn tell(&self, event: Event) {
        let mut told = Vec::new();
        {
            let mut inner = self.inner.lock();
            for command in inner.core.on(event) {
                inner.perform_into(command, &mut told);
            }
        }
        for (sender, outcome) in told {
            let _ = sender.send(outcome);
        }
    }

    pub(crate) fn offline(&self) {
        self.tell(Event::Offline);
        self.left.cancel();
        let waiters = std::mem::take(&mut self.inner.lock().op_waiters);
        for (_, waiter) in waiters {
            let _ = waiter.send(Err(AckError::Offline));
        }
    }
}

impl Owner for Shared {
    fn synced(&self, up_to: Lsn) {
        let mut told = Vec::new();
        let mut settle = false;
        {
            let mut inner = self.inner.lock();
            for command in inner.core.on(Event::Synced(up_to)) {
                inner.perform_into(command, &mut told);
            }
            inner.deletes.synced(up_to, &mut told);
            settle |= inner.core.waits_for_settling();
            let mut at = 0;
            while let Some((lsn, _)) = inner.op_waiters.get(at) {
                if *lsn <= up_to {
                    told.push((inner.op_waiters.swap_remove(at).1, Ok(())));
                } else {
                    at += 1;
                }
            }
        }
        for (sender, outcome) in told {
            let _ = sender.send(outcome);
        }
        if settle {
            self.dir.settle_soon(self.tp);
        }
    }

    fn failed(&self, cause: &str) {
        self.dir.fail(cause);
        self.offline();
    }
}

impl Inner {
    /// Takes note of a batch the journal has placed.
    pub(super) fn appended(
        &mut self,
        meta: &BatchMeta,
        base: Offset,
        placed: Placed,
        loose: bool,
        now_ms: Millis,
        config: &DirConfig,
    ) {
        let next = self.core.layout().next_place(meta, self.core.config(), now_ms);
        let log_position = self.core.layout().end_position();
        let due = log_position.saturating_sub(self.saved_position) >= config.snapshot_bytes;
        if next.rolled || (due && next.position > 0) {
            self.save_point(next.segment, next.position);
        }
        let lsn = (!loose).then_some(placed.lsn);
        let place = self.core.appended(meta, base, lsn, now_ms);
        self.tail.push_back(TailEntry {
            base,
            end: meta.end_at(base),
            lsn: placed.lsn,
            loose,
            slice: placed.slice,
            segment: place.segment,
            position: place.position,
            log_position,
        });
    }

    /// Remembers the state at the log end, which lies at `position` of `segment`.
    pub(crate) fn save_point(&mut self, segment: Offset, position: u64) {
        let core = &self.core;
        let offset = core.layout().end();
        self.save_points.push_back(SavePoint {
            offset,
            segment,
            position,
            snapshot: snapshot::encode_parts(offset, segment, position, core.epochs(), core.producers()),
            summary: Some(core.layout().active().summary()).filter(|summary| summary.bytes > 0),
        });
        self.saved_position = core.layout().end_position();
    }

    /// Makes sure that the state at the begin of a fresh segment will be saved: recovery starts there.
    pub(super) fn save_fresh_segment(&mut self) {
        let active = self.core.layout().active();
        let (base, fresh) = (active.base, active.is_empty());
        if fresh && self.save_points.back().is_none_or(|point| point.offset != base) {
            self.save_point(base, 0);
        }
    }

    /// Carries out a command; what only a handle can is answered.
    pub(super) fn perform(&mut self, command: Command) -> Option<Command> {
        let mut told = Vec::new();
        let left = self.perform_into(command, &mut told);
        for (sender, outcome) in told {
            let _ = sender.send(outcome);
        }
        left
    }

    fn perform_into(&mut self, command: Command, told: &mut Told) -> Option<Command> {
        match command {
            Command::AckLeader(end) => self.leader_acks.take(end, told),
            Command::AckAll(end) => self.all_acks.take(end, told),
            Command::FailAcks(error) => {
                self.leader_acks.take_all(error, told);
                self.all_acks.take_all(error, told);
                self.deletes.take_all(error, told);
            }
            Command::Visible => {
                self.readers.watermark_moved();
                self.tell_readers();
            }
            Command::WakeReaders => self.readers.wake_all(),
            Command::CompleteDeletes(least) => self.deletes.reached(least, told),
            Command::TrimHead(_) | Command::ProposeIsr(_) | Command::Uncommitted { .. } => return Some(command),
        }
        None
    }

    /// Tells readers what became visible to them.
    pub(super) fn tell_readers(&mut self) {
        if self.readers.is_empty() {
            return;
        }
        let mut readers = std::mem::take(&mut self.readers);
        readers.advance(|isolation| self.core.visible_end(isolation), |from, to| self.bytes_between(from, to));
        self.readers = readers;
    }

    /// Resolves when records below `to` are deleted for good: durably here, if that was journaled last, and `elsewhere`.
    pub(super) fn deletion_done(&mut self, to: Offset, journaled: bool, elsewhere: bool) -> AckFuture {
        if !self.core.is_good() {
            return AckFuture::ready(Err(AckError::Offline));
        }
        let lsn = if journaled { self.ops.back().map(|op| op.lsn) } else { None };
        if lsn.is_none() && !elsewhere {
            return AckFuture::ready(Ok(()));
        }
        self.deletes.wait(to, lsn, elsewhere)
    }

    /// Resolves when the operation journaled last is durable.
    pub(super) fn op_durable(&mut self) -> AckFuture {
        let Some(op) = self.ops.back().filter(|_| self.core.is_good()) else {
            return AckFuture::ready(Err(AckError::Offline));
        };
        let (sender, receiver) = oneshot::channel();
        self.op_waiters.push((op.lsn, sender));
        AckFuture::waiting(receiver)
    }

    /// About how many bytes of batches lie in `[from, to)`.
    pub(super) fn bytes_between(&self, from: Offset, to: Offset) -> u64 {
        if from >= to {
            return 0;
        }
        self.log_position(to).saturating_sub(self.log_position(from))
    }

    fn log_position(&self, offset: Offset) -> u64 {
        let layout = self.core.layout();
        if offset >= layout.end() {
            return layout.end_position();
        }
        let at = self.tail.partition_point(|entry| entry.end <= offset);
        if let Some(entry) = self.tail.get(at)
            && entry.base <= offset
        {
            return entry.log_position;
        }
        layout.find(offset).map_or(0, |segment| segment.log_position + segment.index.floor(offset))
    }

    /// Where a reader that stopped at `offset` goes on, if it is remembered.
    pub(super) fn hint(&self, offset: Offset, segment: Offset) -> Option<u64> {
        self.hints.iter().find(|hint| hint.0 == offset && hint.1 == segment).map(|hint| hint.2)
    }

    pub(super) fn remember(&mut self, offset: Offset, segment: Offset, position: u64) {
        if let Some(slot) = self.hints.get_mut(self.next_hint) {
            *slot = (offset, segment, position);
        }
        self.next_hint = (self.next_hint + 1) % self.hints.len();
    }

    pub(super) fn forget_hints(&mut self) {
        self.hints = [(-1, 0, 0); 8];
    }

    /// Whether its removal is durable, the journal being durable up to `sealed`: nothing of it needs to be written any
    /// more. Before that it may yet be found again by recovery, and is written like any other.
    pub(crate) fn is_gone(&self, sealed: Lsn) -> bool {
        let in_flight = || self.ops.iter().any(|op| matches!(op.kind, OpKind::Delete) && op.lsn > sealed);
        self.core.is_removed() && !in_flight()
    }

    /// The next state to be saved, if segments have reached it.
    pub(crate) fn save_point_due(&self) -> Option<&SavePoint> {
        let reached = self.tail.get(self.written).map_or_else(|| self.core.layout().end(), |entry| entry.base);
        self.save_points.front().filter(|point| point.offset <= reached)
    }

    /// Drops entries of groups below `first`, which the tail cache has let go; they are in segments.
    pub(crate) fn pop_evicted(&mut self, first: GroupSeq) {
        while self.written > 0 && self.tail.front().is_some_and(|entry| entry.slice.group < first) {
            self.tail.pop_front();
            self.written -= 1;
        }
    }
}
