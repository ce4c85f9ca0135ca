//! The journal of one data directory: every partition's records, made durable together.
//!
//! Appending copies a record into the open group and returns at once; one thread writes whatever queued
//! up while it wrote the last group, with one sync, and then tells each owner (group commit). No lock
//! is held during I/O. What is not yet synced is bounded: callers [`Journal::admit`] bytes before they
//! append them, and wait there when the disk, or the log that settles the journal, falls behind.
//!
//! A failed write or sync is never retried: nothing that waits for it is acknowledged, and the journal is
//! [`Offline`] for good. Reading back after a crash is [`Replay`]; the bytes are described in
//! [`mod@format`].
//!
//! It does not know what a segment is: the [`GroupSink`] gets the groups, settles them, stores a
//! [`Checkpoint`] and says so with [`Journal::checkpointed`], which frees files for reuse.

mod buffer;
pub mod checkpoint;
mod files;
pub mod format;
mod group;
mod lane;
mod reader;
mod record;
mod replay;
mod task;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use proto::ids::{DirectoryId, TopicPartition};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, oneshot, watch};

pub use checkpoint::{Checkpoint, CheckpointError, Mark};
pub use group::{Group, GroupEntry, GroupSeq, Slice};
pub use reader::FileReader;
pub use record::{EpochStart, Kind, Lsn, OwnedRecord, Owner, Record};
pub use replay::{OpenError, Replay};

use crate::disk::Disk;
use buffer::Pool;
use files::Table;
use lane::{Lane, Purpose};

/// Sizes of a journal, all in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Length of a journal file.
    pub file_bytes: u64,
    /// All files together; a record that does not fit in a file of `file_bytes` may go beyond for a while.
    pub max_bytes: u64,
    /// A group takes no further record that would bring it over this.
    pub max_group_bytes: usize,
    /// Groups lie in blocks of memory of this size, several in one if they are small.
    pub block_bytes: usize,
    /// Blocks, in use or idle, up to which idle ones are kept for reuse.
    pub pooled_blocks: usize,
    /// Bytes appended but not yet durable; [`Journal::admit`] waits above it.
    pub max_unsynced_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            file_bytes: 64 << 20,
            max_bytes: 1 << 30,
            max_group_bytes: 4 << 20,
            block_bytes: 8 << 20,
            pooled_blocks: 16,
            max_unsynced_bytes: 64 << 20,
        }
    }
}

/// Where groups go; as a rule the log writer and its tail cache. Called from the journal's thread
/// (`unjournaled` from whoever appends): must be quick and must not wait.
pub trait GroupSink: Send + Sync + 'static {
    /// `group` is durable. Called in order, and before its owners are told.
    fn sealed(&self, group: Arc<Group>);

    /// Records wait that pass the journal by: [`Journal::take_unjournaled`] gets them. Called for the first
    /// one of a group; taking them only when the last ones are written is what makes groups grow.
    fn unjournaled(&self);

    /// Settling these partitions up to `pressure.up_to` frees the journal's oldest file. Called whenever a new
    /// file is begun while it is half full or more, and when it stands still until one is freed.
    fn pressed(&self, pressure: Pressure);
}

/// What holds the oldest file of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pressure {
    /// Position of the last record in it.
    pub up_to: Lsn,
    /// The partitions that have records in it, in order.
    pub partitions: Vec<TopicPartition>,
    /// Bytes of journal files in use.
    pub used_bytes: u64,
    /// The journal's bound.
    pub max_bytes: u64,
}

/// Where an appended record went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Its position. Of an unjournaled record: the last position given out before it.
    pub lsn: Lsn,
    /// Its payload.
    pub slice: Slice,
}

/// The journal takes nothing any more: its disk failed, or it was closed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("journal of {} is offline: {cause}", directory.display())]
pub struct Offline {
    /// The data directory.
    pub directory: Arc<Path>,
    /// What happened.
    pub cause: Arc<str>,
}

/// A journal. Cheap to clone; when the last clone is dropped its thread ends after the group at hand.
#[derive(Debug, Clone)]
pub struct Journal {
    handle: Arc<Handle>,
}

/// Lets the thread know when nobody is left to append.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.leave(Phase::Abandoned);
    }
}

/// What handles and the thread share.
struct Shared {
    directory: Arc<Path>,
    config: Config,
    pool: Arc<Pool>,
    sink: Arc<dyn GroupSink>,
    state: Mutex<State>,
    table: Mutex<Table>,
    /// Something to write, or a change of phase.
    work: Notify,
    /// Files were freed, or a change of phase.
    freed: Notify,
    ended: watch::Sender<bool>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("directory", &self.directory)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct State {
    phase: Phase,
    next_lsn: Lsn,
    next_group: GroupSeq,
    synced: Lsn,
    journaled: Lane,
    loose: Lane,
    /// The group that is being written: its number and its entries' bytes, which start after its head.
    writing: Option<(GroupSeq, Bytes)>,
    /// Bytes appended and not durable; unjournaled ones until they are taken.
    unsynced: usize,
    /// Bytes admitted and not yet appended.
    reserved: usize,
    waiting: VecDeque<Waiter>,
    /// The thread sleeps and wants to be woken.
    idle: bool,
}

#[derive(Debug, Clone)]
enum Phase {
    Running,
    /// Writes what there is, then ends.
    Closing,
    /// Ends without waiting for anything.
    Abandoned,
    Offline(Offline),
}

impl Phase {
    /// A journal only ever moves to a phase of higher rank.
    const fn rank(&self) -> u8 {
        match self {
            Self::Running => 0,
            Self::Closing => 1,
            Self::Abandoned => 2,
            Self::Offline(_) => 3,
        }
    }
}

#[derive(Debug)]
struct Waiter {
    bytes: usize,
    grant: oneshot::Sender<Permit>,
}

/// Room for bytes that are about to be appended. Drop it once they are.
#[derive(Debug)]
#[must_use = "dropping it gives the room back"]
pub struct Permit {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.bytes > 0 {
            let mut state = self.shared.state.lock();
            state.reserved -= self.bytes;
            Shared::grant(&self.shared, &mut state);
        }
    }
}

impl Journal {
    /// Looks at what a data directory's journal holds. The answer is read to its end, applied, and then
    /// started: [`Replay::next`], [`Replay::start`].
    ///
    /// # Errors
    /// See [`OpenError`]; damage further on is found by [`Replay::next`].
    pub async fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        directory: DirectoryId,
        config: Config,
        checkpoint: Checkpoint,
    ) -> Result<Replay, OpenError> {
        Replay::open(disk, dir, directory, config, checkpoint).await
    }

    /// Waits until `bytes` more may be appended. More than the journal ever allows at once is let through
    /// alone.
    ///
    /// # Errors
    /// If the journal is, or goes, offline.
    pub async fn admit(&self, bytes: usize) -> Result<Permit, Offline> {
        let granted = {
            let shared = &self.handle.shared;
            let mut state = shared.state.lock();
            state.check(&shared.directory)?;
            if state.waiting.is_empty() && state.fits(bytes, &shared.config) {
                return Ok(Shared::permit(shared, &mut state, bytes));
            }
            let (grant, granted) = oneshot::channel();
            state.waiting.push_back(Waiter { bytes, grant });
            granted
        };
        granted.await.map_err(|_| self.offline())
    }

    /// Records something. Returns at once; `owner` is told when it is durable.
    ///
    /// # Errors
    /// If the journal is offline; the record is then not recorded.
    ///
    /// # Panics
    /// If a batch is shorter than a batch header: it must have been validated.
    pub fn append(&self, record: Record<'_>, owner: &Arc<dyn Owner>) -> Result<Placed, Offline> {
        let shared = &self.handle.shared;
        let mut state = shared.state.lock();
        state.check(&shared.directory)?;
        let lsn = state.next_lsn;
        let seq = state.next_group;
        let placed = state.journaled.place(&record, owner, lsn, seq, &shared.config, &shared.pool);
        state.count(&placed);
        state.next_lsn = lsn.next();
        let wake = std::mem::take(&mut state.idle);
        drop(state);
        if wake {
            shared.work.notify_one();
        }
        Ok(Placed { lsn, slice: placed.slice })
    }

    /// Places a record in memory only, for topics that are acknowledged from the page cache
    /// (`firn.flush = os`). The sink is told and takes it; its owner is never called about it by the journal,
    /// except when the journal goes offline first. A partition that changes over from the journal first
    /// waits until what it appended there is synced: the two kinds of groups have no common order.
    ///
    /// # Errors
    /// As [`Journal::append`].
    ///
    /// # Panics
    /// As [`Journal::append`].
    pub fn append_unjournaled(&self, record: Record<'_>, owner: &Arc<dyn Owner>) -> Result<Placed, Offline> {
        let shared = &self.handle.shared;
        let mut state = shared.state.lock();
        state.check(&shared.directory)?;
        let lsn = state.next_lsn.previous();
        let seq = state.next_group;
        let placed = state.loose.place(&record, owner, lsn, seq, &shared.config, &shared.pool);
        state.count(&placed);
        drop(state);
        if placed.started {
            shared.sink.unjournaled();
        }
        Ok(Placed { lsn, slice: placed.slice })
    }

    /// The unjournaled groups so far, in order. From here on they are the caller's to bound.
    pub fn take_unjournaled(&self) -> Vec<Arc<Group>> {
        let shared = &self.handle.shared;
        let mut taken = Vec::new();
        {
            let mut state = shared.state.lock();
            while let Some(sealed) = state.loose.next() {
                state.unsynced -= sealed.charge;
                taken.push(sealed);
            }
            Shared::grant(shared, &mut state);
        }
        taken.into_iter().map(|sealed| Arc::new(task::group_of(sealed, &[], None))).collect()
    }

    /// The bytes of a record whose group has not reached the sink yet.
    pub fn pending(&self, slice: &Slice) -> Option<Bytes> {
        let state = self.handle.shared.state.lock();
        let in_lanes = || state.journaled.view(slice).or_else(|| state.loose.view(slice));
        match &state.writing {
            Some((group, entries)) if *group == slice.group => {
                let range = slice.range();
                let start = range.start.checked_sub(format::FRAME_HEADER)?;
                (start + range.len() <= entries.len()).then(|| entries.slice(start..start + range.len()))
            }
            _ => in_lanes(),
        }
    }

    /// Everything up to and including `up_to` is durable elsewhere, and a [`Checkpoint`] that says so is stored:
    /// files that hold nothing newer are recycled.
    pub fn checkpointed(&self, up_to: Lsn) {
        let shared = &self.handle.shared;
        if shared.table.lock().settle(up_to) {
            shared.freed.notify_one();
        }
    }

    /// The last position that is durable.
    pub fn synced(&self) -> Lsn {
        self.handle.shared.state.lock().synced
    }

    /// The position the next record will get.
    pub fn next_lsn(&self) -> Lsn {
        self.handle.shared.state.lock().next_lsn
    }

    /// What it holds right now.
    pub fn usage(&self) -> Usage {
        let shared = &self.handle.shared;
        let (unsynced_bytes, reserved_bytes) = {
            let state = shared.state.lock();
            (state.unsynced, state.reserved)
        };
        let table = shared.table.lock();
        Usage { unsynced_bytes, reserved_bytes, used_file_bytes: table.used_bytes(), file_bytes: table.bytes() }
    }

    /// The directory it lies in.
    pub fn directory(&self) -> &Path {
        &self.handle.shared.directory
    }

    /// Takes the journal offline for a reason that lies elsewhere, such as a segment that could not be synced:
    /// whatever waits fails, as if the journal's own disk had.
    pub fn take_offline(&self, cause: &str) {
        let shared = &self.handle.shared;
        let directory = Arc::clone(&shared.directory);
        shared.leave(Phase::Offline(Offline { directory, cause: cause.into() }));
    }

    /// Takes nothing more, writes what was appended, and ends.
    ///
    /// # Errors
    /// If not all of it could be made durable.
    pub async fn close(&self) -> Result<(), Offline> {
        let shared = &self.handle.shared;
        shared.leave(Phase::Closing);
        let mut ended = shared.ended.subscribe();
        // An error would mean that `shared` is gone, which we hold.
        let _ = ended.wait_for(|ended| *ended).await;
        match &shared.state.lock().phase {
            Phase::Offline(offline) => Err(offline.clone()),
            Phase::Running | Phase::Closing | Phase::Abandoned => Ok(()),
        }
    }

    fn offline(&self) -> Offline {
        let shared = &self.handle.shared;
        match shared.state.lock().check(&shared.directory) {
            Err(offline) => offline,
            Ok(()) => closed(&shared.directory),
        }
    }
}

/// What a journal holds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Appended and not durable yet.
    pub unsynced_bytes: usize,
    /// Admitted and not appended yet.
    pub reserved_bytes: usize,
    /// Files whose records are not settled, the one being written not counted.
    pub used_file_bytes: u64,
    /// All files.
    pub file_bytes: u64,
}

fn closed(directory: &Arc<Path>) -> Offline {
    Offline { directory: Arc::clone(directory), cause: "it was closed".into() }
}

impl State {
    fn new(next_lsn: Lsn) -> Self {
        Self {
            phase: Phase::Running,
            next_lsn,
            next_group: GroupSeq(1),
            synced: next_lsn.previous(),
            journaled: Lane::new(Purpose::Journal),
            loose: Lane::new(Purpose::Loose),
            writing: None,
            unsynced: 0,
            reserved: 0,
            waiting: VecDeque::new(),
            idle: false,
        }
    }

    fn check(&self, directory: &Arc<Path>) -> Result<(), Offline> {
        match &self.phase {
            Phase::Running => Ok(()),
            Phase::Closing | Phase::Abandoned => Err(closed(directory)),
            Phase::Offline(offline) => Err(offline.clone()),
        }
    }

    fn fits(&self, bytes: usize, config: &Config) -> bool {
        let held = self.unsynced + self.reserved;
        held == 0 || held.saturating_add(bytes) <= config.max_unsynced_bytes
    }

    fn count(&mut self, placed: &lane::PlacedIn) {
        self.unsynced += placed.charge;
        if placed.started {
            self.next_group.0 += 1;
        }
    }
}

impl Shared {
    fn new(directory: PathBuf, config: Config, sink: Arc<dyn GroupSink>, next_lsn: Lsn, table: Table) -> Self {
        Self {
            directory: directory.into(),
            pool: Pool::new(config.block_bytes, config.pooled_blocks),
            config,
            sink,
            state: Mutex::new(State::new(next_lsn)),
            table: Mutex::new(table),
            work: Notify::new(),
            freed: Notify::new(),
            ended: watch::Sender::new(false),
        }
    }

    fn permit(shared: &Arc<Self>, state: &mut State, bytes: usize) -> Permit {
        state.reserved += bytes;
        Permit { shared: Arc::clone(shared), bytes }
    }

    /// Lets in whoever waits, in order, as far as there is room.
    fn grant(shared: &Arc<Self>, state: &mut State) {
        while let Some(waiter) = state.waiting.front() {
            // One who left needs no room, whatever it asked for.
            if !waiter.grant.is_closed() && !state.fits(waiter.bytes, &shared.config) {
                return;
            }
            let Some(waiter) = state.waiting.pop_front() else {
                return;
            };
            let permit = Self::permit(shared, state, waiter.bytes);
            if let Err(mut refused) = waiter.grant.send(permit) {
                // Its drop would want the lock that we hold.
                state.reserved -= std::mem::take(&mut refused.bytes);
            }
        }
    }

    /// Moves on to a later phase; offline is the last.
    fn leave(&self, to: Phase) {
        {
            let mut state = self.state.lock();
            if state.phase.rank() < to.rank() {
                state.phase = to;
            }
            state.idle = false;
            state.waiting.clear();
        }
        self.work.notify_one();
        self.freed.notify_one();
    }
}
