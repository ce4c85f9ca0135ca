//! The handle of a partition: what connections, coordinators and tiering hold. Cheap to clone.
//!
//! One short lock per partition guards its core and its lists; no I/O happens under it except the copy into
//! the journal's buffer. Lock order: partition, then journal or tail cache.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use proto::ids::{LeaderEpoch, Millis, Offset, TopicPartition};
use proto::metadata::TierPointer;
use proto::records::BatchInfo;

use super::core::{Check, Command, Event, Leadership};
use super::following::tier_end;
use super::shared::{FileOp, Inner, OpKind, Shared, Traffic};
use super::types::{
    AckError, AckFuture, Acks, Append, AppendError, Appended, Isolation, Offsets, Origin, Read, ReadError, ReadResult,
    Reader,
};
use super::waiters::FetchWaiter;
use crate::journal::{Journal, Owner, Permit, Record};
use crate::log::batch::BatchMeta;
use crate::log::config::LogConfig;
use crate::log::dir::{DirOffline, LogDir};
use crate::log::epochs::EpochEnd;
use crate::log::layout::SegmentMeta;
use crate::log::observer::Failure;
use crate::log::producers::Producer;

/// A partition's replica on this broker.
#[derive(Clone)]
pub struct PartitionHandle {
    pub(super) shared: Arc<Shared>,
    /// The same, as the journal knows it.
    owner: Arc<dyn Owner>,
}

impl std::fmt::Debug for PartitionHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PartitionHandle").field(&self.shared.tp).finish()
    }
}

/// What [`PartitionHandle::delete_records`] did.
#[derive(Debug)]
pub enum Deletion {
    /// The log start moved. It resolves when that is durable here and no live replica holds the records any more
    /// (KIP-107): bound the wait for it. The new log start beside it.
    Local(AckFuture, Offset),
    /// Nothing yet: the log start of a tiered partition moves with a commit of its pointer to this offset.
    ViaPointer(Offset),
}

impl PartitionHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let owner: Arc<dyn Owner> = Arc::<Shared>::clone(&shared);
        Self { shared, owner }
    }

    /// Which partition it is.
    pub fn tp(&self) -> TopicPartition {
        self.shared.tp
    }

    /// The topic's name.
    pub fn topic(&self) -> Arc<str> {
        Arc::clone(&self.shared.topic.read())
    }

    /// The image says what the topic is called.
    pub(super) fn name(&self, topic: &str) {
        let mut known = self.shared.topic.write();
        if **known != *topic {
            *known = topic.into();
        }
    }

    /// Whether it is here: neither removed nor in a directory that failed.
    pub fn is_here(&self) -> bool {
        self.shared.inner.lock().core.is_good()
    }

    /// What clients brought and took.
    pub fn traffic(&self) -> &Traffic {
        &self.shared.traffic
    }

    /// The data directory it lies in.
    pub fn dir(&self) -> &Arc<LogDir> {
        &self.shared.dir
    }

    /// Waits until `bytes` more may be appended to the partition's data directory. Hold the permit until they
    /// are appended (BOUNDED).
    ///
    /// # Errors
    /// If the directory is, or goes, offline.
    pub async fn admit(&self, bytes: usize) -> Result<Permit, DirOffline> {
        self.shared.dir.admit(bytes).await
    }

    // ---- appending

    /// Appends batches. Never waits: checks, names offsets, copies into the journal's buffer. The
    /// acknowledgement comes through [`Appended::acked`].
    ///
    /// A client's request holds one batch, as Kafka's Produce does; a replica's may hold many.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was appended then, except that of a replica's batches those before the
    /// refused one were.
    pub fn append(&self, request: Append<'_>) -> Result<Appended, AppendError> {
        let shared = &*self.shared;
        if request.origin != Origin::Replica && shared.is_refused() {
            return Err(AppendError::DiskFull);
        }
        let mut inner = shared.inner.lock();
        inner.core.check_writer(request.leader_epoch, request.origin, request.acks == Acks::All)?;
        if inner.truncating {
            return Err(AppendError::NotLeader);
        }
        let journal = shared.dir.journal().map_err(|_| AppendError::Offline)?;
        let mut first = None;
        let mut last_offset = -1;
        let mut rest = &request.batches[..];
        if request.origin == Origin::Client && request.info.len() > 1 {
            return Err(AppendError::Mismatch);
        }
        for info in request.info {
            let Some((batch, after)) = rest.split_at_checked(info.size) else {
                return Err(AppendError::Mismatch);
            };
            rest = after;
            let mut meta = BatchMeta::of(info, batch).map_err(|_| AppendError::Mismatch)?;
            if let Some(stamped) = request.log_append_time {
                meta.max_timestamp = stamped;
            }
            match inner.core.check(&meta, request.origin)? {
                Check::Duplicate(original) => return Ok(inner.duplicate(original, &request)),
                Check::New(base) => {
                    self.place(&mut inner, journal, batch, meta, base, &request)?;
                    first.get_or_insert(base);
                    last_offset = meta.end_at(base) - 1;
                }
            }
        }
        let Some(base_offset) = first else {
            return Err(AppendError::Mismatch);
        };
        if request.origin != Origin::Replica {
            shared.traffic.received(request.batches.len() as u64);
        }
        if inner.readers.wait_at_log_end() {
            inner.tell_readers();
        }
        let acked = inner.wait_acked(last_offset + 1, request.acks);
        Ok(Appended {
            base_offset,
            last_offset,
            log_append_time: request.log_append_time,
            log_start: inner.core.offsets().log_start,
            duplicate: false,
            acked,
        })
    }

    fn place(
        &self,
        inner: &mut Inner,
        journal: &Journal,
        batch: &[u8],
        mut meta: BatchMeta,
        base: Offset,
        request: &Append<'_>,
    ) -> Result<(), AppendError> {
        if request.origin != Origin::Replica {
            meta.leader_epoch = inner.core.leadership().epoch;
        }
        let record = Record::Append { tp: self.shared.tp, base_offset: base, leader_epoch: meta.leader_epoch, batch };
        let loose = inner.core.is_loose();
        let placed =
            if loose { journal.append_unjournaled(record, &self.owner) } else { journal.append(record, &self.owner) };
        let placed = placed.map_err(|offline| {
            self.shared.dir.journal_failed(&offline);
            AppendError::Offline
        })?;
        self.shared.dir.taken(batch.len());
        inner.appended(&meta, base, placed, loose, request.now_ms, self.shared.dir.config());
        Ok(())
    }

    // ---- reading

    /// Reads from memory or the page cache; what needs the device comes back as
    /// [`super::types::ReadData::Disk`].
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(&self, request: Read) -> Result<ReadResult, ReadError> {
        super::read::read(&self.shared, request)
    }

    /// About how many bytes of batches `[offset, visible end)` holds on local disk; exact for what is in memory. None
    /// where `offset` is not local any more.
    pub fn available_bytes(&self, offset: Offset, isolation: Isolation) -> Option<u64> {
        let inner = self.shared.inner.lock();
        if offset < inner.core.offsets().local_start {
            return None;
        }
        let end = inner.core.visible_end(isolation);
        Some(inner.bytes_between(offset, end))
    }

    /// Whether a fetch waits here.
    #[cfg(test)]
    pub fn is_waited_for(&self) -> bool {
        !self.shared.inner.lock().readers.is_empty()
    }

    /// Lets `waiter` wait on this partition. `seen` is [`ReadResult::visible_end`] of the read that found too
    /// little: what became visible since is counted at once, so that nothing slips through in between.
    pub fn subscribe(&self, waiter: &Arc<FetchWaiter>, reader: Reader, isolation: Isolation, seen: Offset) {
        let mut inner = self.shared.inner.lock();
        if !inner.core.is_good() || !inner.core.serves(reader) {
            waiter.wake();
            return;
        }
        let end = inner.core.visible_end(isolation);
        if end > seen && waiter.arrived(inner.bytes_between(seen, end)) {
            return;
        }
        inner.readers.add(waiter, isolation, end.max(seen));
    }

    /// All ends.
    pub fn offsets(&self) -> Offsets {
        self.shared.inner.lock().core.offsets()
    }

    /// Whether this broker leads, and under which epoch.
    pub fn leadership(&self) -> Leadership {
        self.shared.inner.lock().core.leadership().clone()
    }

    /// Checks a client's leader epoch against ours (KIP-320), for requests that do not read.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn check_leader(&self, leader_epoch: Option<LeaderEpoch>) -> Result<(), ReadError> {
        self.shared.inner.lock().core.check_reader(leader_epoch, Reader::Consumer)
    }

    /// Where a leader epoch ended (OffsetForLeaderEpoch, KIP-101, KIP-279); the latest ends at the log end.
    pub fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<EpochEnd> {
        let inner = self.shared.inner.lock();
        let core = &inner.core;
        core.epochs().end_of(epoch, core.layout().end())
    }

    /// The epoch that wrote `offset`, if the local log knows.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.shared.inner.lock().core.epochs().epoch_at(offset)
    }

    /// Bytes of batches on local disk (those still on their way included).
    pub fn size_bytes(&self) -> u64 {
        self.shared.inner.lock().core.layout().bytes()
    }

    /// The local segments, oldest first, the active one last.
    pub fn segments(&self) -> Vec<SegmentMeta> {
        self.shared.inner.lock().core.layout().segments().cloned().collect()
    }

    /// Producers as of the log end (DescribeProducers).
    pub fn producers(&self) -> Vec<(i64, Producer)> {
        let inner = self.shared.inner.lock();
        inner.core.producers().iter().map(|(id, producer)| (id, producer.clone())).collect()
    }

    /// The settings.
    pub fn config(&self) -> LogConfig {
        self.shared.inner.lock().core.config().clone()
    }

    // ---- what changes it

    /// The image says who leads.
    pub fn lead(&self, leadership: Leadership) {
        self.on(Event::Leadership(leadership));
    }

    /// The topic's settings changed.
    pub fn configure(&self, config: LogConfig) {
        let mut inner = self.shared.inner.lock();
        let commands = inner.core.configure(config);
        self.perform(&mut inner, commands);
    }

    /// No less than `least` replicas must be in sync from now on. The rest of the new settings follows
    /// ([`PartitionHandle::configure`]) when it is known who leads and who is in sync as of them.
    pub fn require_in_sync(&self, least: usize) {
        self.shared.inner.lock().core.require_in_sync(least);
    }

    /// The quorum committed a pointer: the log start follows it, and local segments that it covers may go. A follower that
    /// contradicts it takes nothing from it before it has started over.
    pub fn apply_pointer(&self, pointer: &TierPointer, now_ms: Millis) {
        let TierPointer { generation, log_start, .. } = *pointer;
        self.on(Event::Pointer { generation, log_start, end: tier_end(pointer), now_ms });
    }

    /// Drops what retention no longer wants on local disk, and producers that were silent for too long.
    pub fn trim(&self, now_ms: Millis) {
        self.on(Event::Retention(now_ms));
    }

    /// Deletes records below `before` (-1: below the high watermark).
    ///
    /// # Errors
    /// [`ReadError::OffsetOutOfRange`] above the high watermark; others as for readers.
    pub fn delete_records(&self, before: Offset) -> Result<Deletion, ReadError> {
        let mut inner = self.shared.inner.lock();
        inner.core.check_reader(None, Reader::Consumer)?;
        let offsets = inner.core.offsets();
        let to = if before == -1 { offsets.high_watermark } else { before };
        if to < 0 || to > offsets.high_watermark {
            return Err(ReadError::OffsetOutOfRange {
                log_start: offsets.log_start,
                log_end: offsets.log_end,
                high_watermark: offsets.high_watermark,
            });
        }
        if inner.core.config().remote || offsets.tier_end > 0 {
            return Ok(Deletion::ViaPointer(to));
        }
        let commands = inner.core.on(Event::DeleteTo(to));
        let trims = commands.iter().any(|command| matches!(command, Command::TrimHead(_)));
        self.perform(&mut inner, commands);
        let elsewhere = inner.core.low_watermark() < to;
        let done = inner.deletion_done(to, trims, elsewhere);
        let log_start = inner.core.offsets().log_start;
        Ok(Deletion::Local(done, log_start))
    }

    /// The partition leaves this broker: whoever waits is told, and its files go once that is durable.
    pub(super) fn remove(&self) {
        let mut inner = self.shared.inner.lock();
        if inner.core.is_removed() {
            return;
        }
        let commands = inner.core.on(Event::Removed);
        self.perform(&mut inner, commands);
        self.record(&mut inner, Record::Delete { tp: self.shared.tp }, OpKind::Delete);
        if !matches!(inner.ops.back(), Some(FileOp { kind: OpKind::Delete, .. })) {
            self.shared.left.cancel();
        }
    }

    pub(super) fn on(&self, event: Event) {
        let mut inner = self.shared.inner.lock();
        let commands = inner.core.on(event);
        self.perform(&mut inner, commands);
    }

    pub(super) fn perform(&self, inner: &mut Inner, commands: Vec<Command>) {
        for command in commands {
            match inner.perform(command) {
                Some(Command::TrimHead(to)) => {
                    inner.save_fresh_segment();
                    let first = inner.core.layout().first_base();
                    self.record(inner, Record::TrimHead { tp: self.shared.tp, to }, OpKind::Trim { to, first });
                }
                Some(Command::ProposeIsr(proposal)) => self.shared.outbox.put(self.shared.tp, proposal),
                Some(Command::Uncommitted { cut_to, was }) => {
                    let (partition, topic) = (self.shared.tp, self.shared.topic.read().clone());
                    tracing::error!(%partition, %topic, cut_to, was, "committed records were cut: the leader lacks them");
                    self.shared.dir.observer().failed(Failure::Uncommitted);
                }
                Some(_) | None => {}
            }
        }
    }

    /// Journals a change of the files and queues it for the writer, which carries it out once it is durable.
    pub(super) fn record(&self, inner: &mut Inner, record: Record<'_>, kind: OpKind) {
        let dir = &self.shared.dir;
        let Ok(journal) = dir.journal() else {
            inner.fail_ops();
            return;
        };
        match journal.append(record, &self.owner) {
            Ok(placed) => inner.ops.push_back(FileOp { lsn: placed.lsn, kind }),
            Err(offline) => {
                dir.journal_failed(&offline);
                inner.fail_ops();
            }
        }
    }

    /// The space watcher says whether appends are refused.
    pub(super) fn refuse(&self, refuse: bool) {
        self.shared.refused.store(refuse, Ordering::Relaxed);
    }

    /// Bytes that trimming cannot free.
    pub fn untrimmable_bytes(&self) -> u64 {
        self.shared.inner.lock().core.untrimmable_bytes()
    }
}

/// Splits `batches` and describes each, for callers that have only bytes: replicas and coordinators.
///
/// # Errors
/// The first batch that is not whole or does not check out.
pub fn describe(batches: &Bytes) -> Result<Vec<BatchInfo>, proto::records::BatchError> {
    proto::records::batches(batches).map(|batch| proto::records::check(batch?.bytes)).collect()
}

impl Inner {
    pub(super) fn wait_acked(&mut self, end: Offset, acks: Acks) -> AckFuture {
        let offsets = self.core.offsets();
        match acks {
            Acks::None => AckFuture::ready(Ok(())),
            Acks::Leader if end <= offsets.synced_end => AckFuture::ready(Ok(())),
            Acks::All if end <= offsets.high_watermark => AckFuture::ready(Ok(())),
            Acks::Leader => self.leader_acks.wait(end),
            Acks::All => self.all_acks.wait(end),
        }
    }

    fn duplicate(&mut self, original: crate::log::producers::SentBatch, request: &Append<'_>) -> Appended {
        // It is answered when the original is as safe as this request asks for. A waiter may not stand before
        // one with a smaller end, so it waits for all that was appended so far.
        let end = original.last_offset + 1;
        let offsets = self.core.offsets();
        let safe = match request.acks {
            Acks::None => true,
            Acks::Leader => end <= offsets.synced_end,
            Acks::All => end <= offsets.high_watermark,
        };
        let acked = if safe { AckFuture::ready(Ok(())) } else { self.wait_acked(offsets.log_end, request.acks) };
        Appended {
            base_offset: original.first_offset(),
            last_offset: original.last_offset,
            log_append_time: request.log_append_time.map(|_| original.timestamp),
            log_start: offsets.log_start,
            duplicate: true,
            acked,
        }
    }

    fn fail_ops(&mut self) {
        for waiter in self.op_waiters.drain(..) {
            let _ = waiter.1.send(Err(AckError::Offline));
        }
    }
}
