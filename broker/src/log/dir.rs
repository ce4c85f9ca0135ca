//! One data directory: its journal, its tail cache, and what its writer has to do.
//!
//! A directory fails as a whole and for good: [`LogDir::fail`] is called once by whoever finds out, and takes
//! the directory's partitions offline with it; other directories go on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use proto::host::Clock;
use proto::ids::{DirectoryId, TopicPartition};
use tokio::sync::Notify;

use super::observer::{Failure, Observer};
use super::tail::TailCache;
use crate::disk::{Disk, Space};
use crate::journal::{Group, GroupSink, Journal, Kind, Offline, Permit, Pressure};
use crate::partition::shared::Shared;

/// Sizes of a data directory's memory and pace, all in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirConfig {
    /// The tail cache keeps groups that are in segments up to this.
    pub tail_bytes: usize,
    /// Admission waits while this much is sealed and not in segments.
    pub max_backlog_bytes: usize,
    /// The writer begins to write what pins the oldest group above this.
    pub backlog_target_bytes: usize,
    /// One partition's share that is worth a write of its own.
    pub write_bytes: usize,
    /// Segments are synced whenever this much was written to them.
    pub sync_bytes: u64,
    /// Producer state and index are saved within a segment whenever it grew by this.
    pub snapshot_bytes: u64,
    /// Free space that is never given to records.
    pub reserve_bytes: u64,
    /// What is written to segments is synced at the latest after this, in milliseconds.
    pub settle_ms: u64,
    /// What is sealed is written to segments at the latest after this, in milliseconds.
    pub write_ms: u64,
}

impl Default for DirConfig {
    fn default() -> Self {
        Self {
            tail_bytes: 64 << 20,
            max_backlog_bytes: 64 << 20,
            backlog_target_bytes: 16 << 20,
            write_bytes: 1 << 20,
            sync_bytes: 32 << 20,
            snapshot_bytes: 32 << 20,
            reserve_bytes: 64 << 20,
            settle_ms: 30_000,
            write_ms: 1_000,
        }
    }
}

/// What waits for the writer.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// Sealed groups, oldest first. Bounded by admission.
    pub(crate) sealed: VecDeque<Arc<Group>>,
    /// Bytes of these.
    pub(crate) sealed_bytes: usize,
    /// The writer looks in by itself soon: it is not to be woken for less than this many bytes.
    pub(crate) patience_bytes: usize,
    /// Unjournaled records can be taken.
    pub(crate) loose: bool,
    /// What holds the journal's oldest file.
    pub(crate) pressure: Option<Pressure>,
    /// Partitions to settle soon: a trim waits for it, or an acknowledgement.
    pub(crate) settle: BTreeSet<TopicPartition>,
    /// Write and settle everything, then stop.
    pub(crate) close: bool,
}

/// Why a directory is offline.
#[derive(Debug, Clone, thiserror::Error)]
#[error("data directory {} is offline: {cause}", path.display())]
pub struct DirOffline {
    /// The directory.
    pub path: PathBuf,
    /// What happened.
    pub cause: String,
}

/// A data directory. Shared by its partitions, its journal and its writer.
pub struct LogDir {
    id: DirectoryId,
    path: PathBuf,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn Observer>,
    config: DirConfig,
    journal: OnceLock<Journal>,
    tail: TailCache,
    pub(crate) inbox: Mutex<Inbox>,
    pub(crate) work: Notify,
    /// The backlog shrank, or the directory failed.
    room: Notify,
    offline: AtomicBool,
    closing: AtomicBool,
    cause: OnceLock<DirOffline>,
    /// Bytes of records that may still be taken before free space is looked at again.
    allowance: AtomicI64,
    space: Mutex<Option<Space>>,
    /// Partitions in it; those that left are swept out when it is looked through.
    members: Mutex<BTreeMap<TopicPartition, Weak<Shared>>>,
}

impl fmt::Debug for LogDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogDir").field("id", &self.id).field("path", &self.path).finish_non_exhaustive()
    }
}

impl LogDir {
    /// The directory at `path`, whose journal is still to be opened.
    pub fn new(
        id: DirectoryId,
        path: PathBuf,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn Observer>,
        config: DirConfig,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            path,
            disk,
            clock,
            observer,
            config,
            journal: OnceLock::new(),
            tail: TailCache::default(),
            inbox: Mutex::default(),
            work: Notify::new(),
            room: Notify::new(),
            offline: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            cause: OnceLock::new(),
            allowance: AtomicI64::new(i64::MAX),
            space: Mutex::new(None),
            members: Mutex::default(),
        })
    }

    /// Gives it its journal, once recovery is done.
    pub(crate) fn started(&self, journal: Journal) {
        assert!(self.journal.set(journal).is_ok(), "a directory is started once");
    }

    /// Its id.
    pub const fn id(&self) -> DirectoryId {
        self.id
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The disk it is on.
    pub const fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Wall clock.
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Who counts what happens.
    pub fn observer(&self) -> &dyn Observer {
        &*self.observer
    }

    /// The settings.
    pub const fn config(&self) -> &DirConfig {
        &self.config
    }

    /// The groups in memory.
    pub const fn tail(&self) -> &TailCache {
        &self.tail
    }

    /// The journal.
    ///
    /// # Errors
    /// If the directory was never started, or failed.
    pub fn journal(&self) -> Result<&Journal, DirOffline> {
        if self.is_offline() {
            return Err(self.offline());
        }
        self.journal.get().ok_or_else(|| self.offline())
    }

    /// Waits until `bytes` more may be appended to partitions of this directory: until segments and journal
    /// keep up. Hold the permit until they are appended.
    ///
    /// # Errors
    /// If the directory is, or goes, offline.
    pub async fn admit(&self, bytes: usize) -> Result<Permit, DirOffline> {
        loop {
            let room = self.room.notified();
            let journal = self.journal()?;
            if self.tail.pinned_bytes() < self.config.max_backlog_bytes {
                return journal.admit(bytes).await.map_err(|offline| self.journal_failed(&offline));
            }
            room.await;
        }
    }

    /// Tells those who wait for room to look again.
    pub(crate) fn made_room(&self) {
        self.room.notify_waiters();
    }

    /// Whether it failed.
    pub fn is_offline(&self) -> bool {
        self.offline.load(Ordering::Acquire)
    }

    /// Why it is offline.
    pub fn offline(&self) -> DirOffline {
        let unstarted = || DirOffline { path: self.path.clone(), cause: "it is not started".into() };
        self.cause.get().cloned().unwrap_or_else(unstarted)
    }

    /// Takes the directory offline, for good, and its journal with it, so that whoever waits there is told. The first
    /// cause stands.
    pub fn fail(&self, cause: impl Into<String>) -> DirOffline {
        let offline = DirOffline { path: self.path.clone(), cause: cause.into() };
        if self.cause.set(offline).is_ok() {
            self.observer.failed(Failure::Directory);
            tracing::error!(directory = %self.path.display(), cause = %self.offline().cause, "data directory failed");
        }
        self.offline.store(true, Ordering::Release);
        let offline = self.offline();
        if let Some(journal) = self.journal.get() {
            journal.take_offline(&offline.cause);
        }
        self.work.notify_one();
        self.made_room();
        offline
    }

    /// The journal takes nothing more: the directory failed, unless it is being closed.
    pub(crate) fn journal_failed(&self, offline: &Offline) -> DirOffline {
        if self.closing.load(Ordering::Acquire) {
            return DirOffline { path: self.path.clone(), cause: "it is being closed".into() };
        }
        self.fail(offline.cause.to_string())
    }

    /// From here on nothing more is appended.
    pub(crate) fn begin_close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Whether no partition of it may grow, for want of space.
    pub fn is_full(&self) -> bool {
        self.allowance.load(Ordering::Relaxed) <= 0
    }

    /// Size and free space when it was last looked at.
    pub fn space(&self) -> Option<Space> {
        *self.space.lock()
    }

    /// Bytes of records that are accepted and lie in no segment: each will need room there.
    pub(crate) fn owed_bytes(&self) -> u64 {
        let in_journal = self.journal.get().map_or(0, |journal| {
            let usage = journal.usage();
            usage.unsynced_bytes + usage.reserved_bytes
        });
        (self.tail.pinned_bytes() + in_journal) as u64
    }

    /// Free space was looked at: records may take `allowance` bytes of it until the next look.
    pub(crate) fn set_space(&self, space: Space, allowance: u64) {
        *self.space.lock() = Some(space);
        self.allowance.store(i64::try_from(allowance).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// Records of so many bytes were taken: a burst between two looks must not fill the disk.
    pub(crate) fn taken(&self, bytes: usize) {
        self.allowance.fetch_sub(bytes as i64, Ordering::Relaxed);
    }

    /// Takes a partition in.
    pub(crate) fn join(&self, partition: &Arc<Shared>) {
        self.members.lock().insert(partition.tp, Arc::downgrade(partition));
    }

    /// The partitions in it.
    pub(crate) fn members(&self) -> Vec<Arc<Shared>> {
        let mut members = self.members.lock();
        members.retain(|_, partition| partition.strong_count() > 0);
        members.values().filter_map(Weak::upgrade).collect()
    }

    /// Asks the writer to settle a partition soon.
    pub(crate) fn settle_soon(&self, tp: TopicPartition) {
        self.inbox.lock().settle.insert(tp);
        self.work.notify_one();
    }
}

/// Where the journal hands its groups: into the tail cache and to the writer. The directory owns its journal, so this
/// must not own the directory; there is nobody to hand anything to once that is gone.
#[derive(Debug)]
pub(crate) struct Sink(pub(crate) Weak<LogDir>);

impl GroupSink for Sink {
    fn sealed(&self, group: Arc<Group>) {
        let Some(dir) = self.0.upgrade() else { return };
        let bytes = group.entries.last().map_or(0, |entry| entry.range.end as usize);
        dir.observer.synced(bytes, group.sync_time);
        dir.tail.insert(Arc::clone(&group));
        let wake = {
            let mut inbox = dir.inbox.lock();
            inbox.sealed_bytes += group.bytes();
            let urgent = group.entries.iter().any(|entry| entry.kind != Kind::Append);
            inbox.sealed.push_back(group);
            urgent || inbox.sealed_bytes > inbox.patience_bytes
        };
        if wake {
            dir.work.notify_one();
        }
    }

    fn unjournaled(&self) {
        let Some(dir) = self.0.upgrade() else { return };
        dir.inbox.lock().loose = true;
        dir.work.notify_one();
    }

    fn pressed(&self, pressure: Pressure) {
        let Some(dir) = self.0.upgrade() else { return };
        dir.inbox.lock().pressure = Some(pressure);
        dir.work.notify_one();
    }
}
