//! The writer of a data directory: settles in segments what the journal made durable.
//!
//! Groups stay in memory (*pinned*) until all their records are in segments. Each partition's share is
//! gathered until it is worth a write, or pins the oldest group while too much is pinned, or is old. Written
//! is not durable: from time to time the files written to are synced, *then* the checkpoint moves, *then* journal
//! files are free and files that retention dropped are unlinked. One settling runs at a time, beside writing.
//!
//! A failed write or sync takes the directory offline; only a full disk is waited for, as a write (other than a
//! sync) that did not fit may be tried again. What is to be done is remembered until it is done: batches, changes of
//! files and what is to be settled all stay in their lists, and hold the checkpoint back. What frees space goes on
//! meanwhile.

mod files;
mod settle;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proto::ids::TopicPartition;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::dir::{Inbox, LogDir};
use crate::disk::DiskError;
use crate::journal::{Checkpoint, Group, GroupSeq, Kind, Lsn};
use crate::partition::core::Event;
use crate::partition::shared::Shared;
use settle::{Settling, Stall, Unsettled};

/// How often the writer looks at what grew old, and at a full disk again.
const TICK: Duration = Duration::from_millis(250);

impl Drop for Writer {
    /// Nobody is left to settle what is sealed, and whoever reads is sent to the segments, or away.
    fn drop(&mut self) {
        self.dir.tail().close();
        *self.dir.inbox.lock() = Inbox::default();
    }
}

/// A partition with records that are in no segment.
struct Dirty {
    partition: Arc<Shared>,
    bytes: usize,
    /// Group of the oldest such record.
    oldest: GroupSeq,
    /// Its position in the journal.
    first_lsn: Lsn,
    since: Instant,
    /// Does not wait to grow: files change, or acknowledgements depend on it.
    urgent: bool,
    /// Nothing can be done before more is sealed: it is in order behind something that is not durable.
    blocked: bool,
}

impl Dirty {
    fn new(partition: Arc<Shared>, group: GroupSeq, lsn: Lsn) -> Self {
        Self {
            partition,
            bytes: 0,
            oldest: group,
            first_lsn: lsn,
            since: Instant::now(),
            urgent: false,
            blocked: false,
        }
    }
}

pub(crate) struct Writer {
    dir: Arc<LogDir>,
    dirty: BTreeMap<TopicPartition, Dirty>,
    by_age: BTreeSet<(GroupSeq, TopicPartition)>,
    unsettled: BTreeMap<TopicPartition, Unsettled>,
    unsettled_bytes: u64,
    unsettled_since: Option<Instant>,
    checkpoint: Checkpoint,
    /// The last journaled record that was handed over.
    last_lsn: Lsn,
    /// The first group that was not handed over. Those that pass the journal by come when they are taken, perhaps
    /// long before earlier ones that are being synced.
    next_group: GroupSeq,
    /// Groups after it that were.
    ahead: BTreeSet<GroupSeq>,
    settling: Option<Settling>,
    /// Of partitions that were removed since settling began last.
    leaving: Vec<CancellationToken>,
    settle_wanted: bool,
    stall: Option<Stall>,
    /// First position of the partition that is being written.
    writing: Option<Lsn>,
    pressed_up_to: Lsn,
}

impl Writer {
    /// A writer for `dir`, whose `checkpoint` covers all that its journal held.
    pub(crate) fn new(dir: Arc<LogDir>, checkpoint: Checkpoint) -> Self {
        let last_lsn = checkpoint.replay_from.previous();
        Self {
            dir,
            dirty: BTreeMap::new(),
            by_age: BTreeSet::new(),
            unsettled: BTreeMap::new(),
            unsettled_bytes: 0,
            unsettled_since: None,
            checkpoint,
            last_lsn,
            next_group: GroupSeq(1),
            ahead: BTreeSet::new(),
            settling: None,
            leaving: Vec::new(),
            settle_wanted: false,
            stall: None,
            writing: None,
            pressed_up_to: Lsn(0),
        }
    }

    /// Works until the directory is closed or fails; whoever waits on its partitions is told in the latter
    /// case. The checkpoint it ends with is stored.
    pub(crate) async fn run(mut self) {
        if let Err(error) = self.work().await {
            self.dir.fail(error.to_string());
        }
        if self.dir.is_offline() {
            for partition in self.dir.members() {
                partition.offline();
            }
        }
    }

    async fn work(&mut self) -> Result<(), DiskError> {
        loop {
            let close = self.ingest();
            if self.dir.is_offline() {
                return Ok(());
            }
            if close {
                return self.close().await;
            }
            self.write_due().await?;
            self.settle_due().await?;
            if self.may_wait() {
                self.wait().await?;
            }
        }
    }

    /// Whether nothing is in the inbox. From then on little is gathered there until the next tick, if there
    /// is one: waking for each group would cost more than the rest of what is done for it.
    fn may_wait(&self) -> bool {
        let mut inbox = self.dir.inbox.lock();
        let empty = inbox.sealed.is_empty() && !inbox.loose && !inbox.close && inbox.settle.is_empty();
        let config = self.dir.config();
        let patience = config.write_bytes.min(config.backlog_target_bytes / 2);
        inbox.patience_bytes = if empty && self.is_timed() { patience } else { 0 };
        empty
    }

    /// Whether there is something to look at again after a while.
    fn is_timed(&self) -> bool {
        let has_work = !self.dirty.is_empty() || !self.unsettled.is_empty() || !self.leaving.is_empty();
        has_work || self.stall.is_some()
    }

    /// Waits for something to do: work, the end of a settling, or time.
    async fn wait(&mut self) -> Result<(), DiskError> {
        let timed = self.is_timed();
        let settled = {
            let settling = async {
                match &mut self.settling {
                    Some(settling) => Some(settling.ended().await),
                    None => std::future::pending().await,
                }
            };
            let tick = async {
                if timed {
                    tokio::time::sleep(TICK).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                outcome = settling => outcome,
                () = self.dir.work.notified() => None,
                () = tick => None,
            }
        };
        match settled {
            Some(outcome) => self.settled(outcome),
            None => Ok(()),
        }
    }

    // ---- taking in

    /// Takes what waits in the inbox; answers whether to close.
    fn ingest(&mut self) -> bool {
        let Inbox { sealed, loose, pressure, settle, close, .. } = std::mem::take(&mut *self.dir.inbox.lock());
        for group in sealed {
            self.ingest_group(&group);
        }
        if (loose || close)
            && let Ok(journal) = self.dir.journal()
        {
            for group in journal.take_unjournaled() {
                self.dir.tail().insert(Arc::clone(&group));
                self.ingest_group(&group);
            }
        }
        if let Some(pressure) = pressure {
            self.pressed_up_to = self.pressed_up_to.max(pressure.up_to);
        }
        for tp in settle {
            self.settle_wanted = true;
            if let Some(dirty) = self.dirty.get_mut(&tp) {
                dirty.urgent = true;
            }
        }
        close
    }

    fn ingest_group(&mut self, group: &Arc<Group>) {
        if group.journaled {
            self.last_lsn = self.last_lsn.max(group.last_lsn);
        }
        self.ahead.insert(group.seq);
        while self.ahead.remove(&self.next_group) {
            self.next_group = GroupSeq(self.next_group.0 + 1);
        }
        for entry in &group.entries {
            let owner: Arc<dyn Any + Send + Sync> = Arc::<dyn crate::journal::Owner>::clone(&entry.owner);
            let Ok(partition) = owner.downcast::<Shared>() else {
                continue;
            };
            let dirty = self.dirty_of(partition, group.seq, entry.lsn);
            dirty.first_lsn = dirty.first_lsn.min(entry.lsn);
            dirty.bytes += entry.range.len();
            dirty.blocked = false;
            dirty.urgent |= entry.kind != Kind::Append || !group.journaled;
        }
    }

    /// What is known of a partition of which the record at `lsn`, in `group`, was handed over.
    fn dirty_of(&mut self, partition: Arc<Shared>, group: GroupSeq, lsn: Lsn) -> &mut Dirty {
        let tp = partition.tp;
        let dirty = self.dirty.entry(tp).or_insert_with(|| {
            self.by_age.insert((group, tp));
            Dirty::new(partition, group, lsn)
        });
        if group < dirty.oldest {
            self.by_age.remove(&(dirty.oldest, tp));
            self.by_age.insert((group, tp));
            dirty.oldest = group;
        }
        dirty
    }

    // ---- writing

    /// Writes whatever should not wait any longer.
    async fn write_due(&mut self) -> Result<(), DiskError> {
        let mut unfit = BTreeSet::new();
        while let Some(tp) = self.next_due(&unfit) {
            if self.dirty.get(&tp).is_some_and(|dirty| dirty.partition.inner.lock().described.is_none()) {
                match self.prepare_folders().await {
                    // Written to or not, that is found again below, and waited for.
                    Err(error) if error.is_full() => {}
                    other => other?,
                }
            }
            if !self.write_partition(tp).await? {
                // The disk is full: what is pinned stays, and admission waits. Others may be about to free space.
                unfit.insert(tp);
                continue;
            }
            self.release();
            // Keeps the kernel from having to write back too much at once while a sync runs.
            if self.unsettled_bytes > 2 * self.sync_bytes() {
                self.settle_due().await?;
                self.await_settling().await?;
                if self.stall.is_some() {
                    tokio::time::sleep(TICK).await;
                    break;
                }
            }
        }
        self.release();
        if !unfit.is_empty() {
            tokio::time::sleep(TICK).await;
        }
        Ok(())
    }

    /// A partition that should be written now, other than those that did not fit on the disk.
    fn next_due(&self, unfit: &BTreeSet<TopicPartition>) -> Option<TopicPartition> {
        let config = self.dir.config();
        let now = Instant::now();
        let patience = Duration::from_millis(config.write_ms);
        let may = |tp: &TopicPartition| !unfit.contains(tp);
        if self.dir.tail().pinned_bytes() > config.backlog_target_bytes
            && let Some((_, tp)) =
                self.by_age.iter().find(|(_, tp)| may(tp) && self.dirty.get(tp).is_some_and(|dirty| !dirty.blocked))
        {
            return Some(*tp);
        }
        let due = |dirty: &Dirty| {
            let worth = dirty.urgent || dirty.bytes >= config.write_bytes || dirty.first_lsn <= self.pressed_up_to;
            !dirty.blocked && (worth || now.duration_since(dirty.since) >= patience)
        };
        self.dirty.iter().find(|(tp, dirty)| may(tp) && due(dirty)).map(|(tp, _)| *tp)
    }

    /// Writes all that a partition has; false if the disk is full.
    async fn write_partition(&mut self, tp: TopicPartition) -> Result<bool, DiskError> {
        let Some(dirty) = self.dirty.remove(&tp) else {
            return Ok(true);
        };
        self.writing = Some(dirty.first_lsn);
        let partition = Arc::clone(&dirty.partition);
        let outcome = self.write_all(&partition).await;
        self.writing = None;
        self.by_age.remove(&(dirty.oldest, tp));
        match outcome {
            Ok(()) => {
                self.requeue(dirty, true);
                Ok(true)
            }
            Err(error) if error.is_full() => {
                tracing::warn!(%error, "no space for segments: waiting");
                self.requeue(dirty, false);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps a partition in the list if something of it that is sealed is left: what is blocked until more comes, or
    /// what the disk had no room for.
    fn requeue(&mut self, mut dirty: Dirty, blocked: bool) {
        let tp = dirty.partition.tp;
        let keep = {
            let inner = dirty.partition.inner.lock();
            let gone = inner.is_gone(self.last_lsn);
            let left = || inner.tail.iter().skip(if gone { usize::MAX } else { inner.written });
            let next = left().next();
            // What is sealed after it brings it back.
            let has_batch = next.is_some_and(|next| self.dir.tail().get(next.slice.group).is_some());
            let has_op = inner.ops.front().is_some_and(|op| op.lsn <= self.last_lsn);
            let has_state = !blocked && !gone && inner.save_point_due().is_some();
            let waiting = inner.ops.front().map(|op| op.lsn);
            // The journal need not hold a state that is to be saved.
            dirty.first_lsn = left().map(|entry| entry.lsn).chain(waiting).min().unwrap_or(Lsn(u64::MAX));
            // Around a change of `firn.flush` the groups of a log are not in its order.
            let groups = left().map(|entry| entry.slice.group);
            dirty.oldest = groups.min().unwrap_or(self.next_group);
            dirty.bytes = left().map(|entry| entry.slice.len as usize).sum();
            has_batch || has_op || has_state
        };
        dirty.blocked = blocked;
        dirty.since = Instant::now();
        if keep {
            self.by_age.insert((dirty.oldest, tp));
            self.dirty.insert(tp, dirty);
        }
    }

    /// Lets go of groups that nobody needs any more.
    fn release(&mut self) {
        let floor = self.by_age.first().map_or(self.next_group, |(group, _)| *group.min(&self.next_group));
        // What is not durable yet lies in such groups, too: both together stay within the bound.
        let coming = self.dir.journal().map_or(0, |journal| journal.usage().unsynced_bytes);
        let room = self.dir.config().tail_bytes.saturating_sub(coming);
        let (gone, first) = self.dir.tail().unpin(floor, room);
        self.dir.made_room();
        let mut last: Option<TopicPartition> = None;
        for entry in gone.iter().flat_map(|group| &group.entries) {
            if last.replace(entry.tp) == Some(entry.tp) {
                continue;
            }
            let owner: Arc<dyn Any + Send + Sync> = Arc::<dyn crate::journal::Owner>::clone(&entry.owner);
            if let Ok(partition) = owner.downcast::<Shared>() {
                partition.inner.lock().pop_evicted(first);
            }
        }
    }

    // ---- closing

    /// Everything into segments, synced, and a checkpoint that leaves nothing to replay or to scan.
    async fn close(&mut self) -> Result<(), DiskError> {
        self.await_settling().await?;
        for partition in self.dir.members() {
            let mut inner = partition.inner.lock();
            let active = inner.core.layout().active();
            let (segment, position, end) = (active.base, active.bytes, active.end);
            let saved = inner.save_points.back().map(|point| point.offset).or(inner.saved.map(|(offset, _)| offset));
            if !inner.core.is_removed() && saved.map_or(!inner.core.layout().is_blank(), |saved| saved != end) {
                inner.save_point(segment, position);
            }
        }
        let all: Vec<Arc<Shared>> = self.dir.members();
        for partition in all {
            // A cut or reset settles in between: the checkpoint must not pass what is not written yet.
            self.writing = self.dirty.remove(&partition.tp).map(|dirty| dirty.first_lsn);
            self.write_all(&partition).await?;
        }
        self.writing = None;
        self.dirty.clear();
        self.by_age.clear();
        self.settle_now().await
    }

    fn tell_written(partition: &Shared, end: proto::ids::Offset) {
        partition.tell(Event::Written(end));
    }
}
