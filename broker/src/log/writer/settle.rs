//! Settling: sync what was written, then move the checkpoint, then let go of what only it needed.
//!
//! A sync that fails is final. A disk without room for a description or the checkpoint is not: what was to be settled
//! is then unsettled again, together with what came after it, and the checkpoint stays where it was, so that the next
//! one covers all of it or none.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use parking_lot::Mutex;
use proto::ids::{Offset, TopicPartition};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Writer;
use crate::disk::{DiskError, DiskFile, Operation, worst};
use crate::journal::{Checkpoint, Lsn, Mark};
use crate::log::dir::LogDir;
use crate::log::folder::{self, Folder, Recovery};
use crate::partition::core::Event;
use crate::partition::shared::Shared;

/// Partitions synced at the same time: file systems commit them together.
const SYNCS_AT_ONCE: usize = 16;
/// Bytes of one partition that are worth a sync of their own.
const WORTH_A_SYNC: u64 = 128 << 10;
/// However many partitions there are, no more than so many times as much waits for a sync.
const SYNC_FACTOR: u64 = 3;
/// A settling that found no room is tried again after this, then after twice as long, up to `LAST_RETRY`.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(4);

/// What was done to a partition's files and is not durable.
pub(super) struct Unsettled {
    pub(super) partition: Arc<Shared>,
    /// Files written to; the same may be here more than once.
    pub(super) files: Vec<Arc<dyn DiskFile>>,
    /// Names were added to the folder.
    pub(super) names: bool,
    /// The mark once it is settled.
    pub(super) mark: Mark,
    /// Segments then durably hold everything below this.
    pub(super) end: Offset,
    /// A new start of the log, to be written down.
    pub(super) local_start: Option<Offset>,
    /// Files that nothing needs after that.
    pub(super) unlink: Vec<PathBuf>,
}

impl Unsettled {
    pub(super) fn new(partition: &Arc<Shared>) -> Self {
        let (segment, position, lsn) = {
            let inner = partition.inner.lock();
            let (segment, position) = inner.reached;
            (segment, position, inner.processed_lsn)
        };
        Self {
            partition: Arc::clone(partition),
            files: Vec::new(),
            names: false,
            mark: Mark { segment, position, lsn },
            end: 0,
            local_start: None,
            unlink: Vec::new(),
        }
    }

    /// Makes it durable.
    async fn sync(&self, dir: &LogDir) -> Result<(), DiskError> {
        let mut synced: BTreeSet<PathBuf> = BTreeSet::new();
        for file in &self.files {
            if synced.insert(file.path().to_owned()) {
                // Never again after a failure, whatever it was.
                file.sync_data().await?;
            }
        }
        let folder = &self.partition.folder;
        if let Some(local_start) = self.local_start {
            let recovery = self.partition.inner.lock().described.unwrap_or(Recovery::Journal);
            let topic = self.partition.topic.read().to_string();
            let described = Folder { tp: self.partition.tp, topic, local_start, recovery };
            dir.disk().create_dir_all(folder).await?;
            crate::disk::replace(&**dir.disk(), folder, folder::NAME, described.encode()).await?;
        } else if self.names {
            dir.disk().sync_dir(folder).await?;
        }
        Ok(())
    }

    /// Takes in what was to be settled before this and was not.
    fn absorb(&mut self, before: Self) {
        self.files.extend(before.files);
        let mut names = BTreeSet::new();
        self.files.retain(|file| names.insert(file.path().to_owned()));
        self.names |= before.names;
        // Since then the log only grew, or was trimmed: a cut or reset does not begin before settling has ended.
        self.end = self.end.max(before.end);
        self.local_start = self.local_start.or(before.local_start);
        self.unlink.extend(before.unlink);
    }

    async fn let_go(&self, dir: &LogDir) -> Result<(), DiskError> {
        for path in &self.unlink {
            match dir.disk().remove(path).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// A settling that is under way.
pub(super) struct Settling {
    task: JoinHandle<Ended>,
    bytes: u64,
    since: Option<Instant>,
    /// Of partitions that no checkpoint speaks of afterwards.
    leaving: Vec<CancellationToken>,
}

impl Settling {
    pub(super) fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    pub(super) async fn ended(&mut self) -> Result<Ended, JoinError> {
        (&mut self.task).await
    }
}

/// How a settling ended.
pub(super) struct Ended {
    /// The checkpoint that is stored now.
    checkpoint: Checkpoint,
    /// What is not settled, or not let go of, and why.
    left: Option<(BTreeMap<TopicPartition, Unsettled>, DiskError)>,
}

/// The last settling found no room.
pub(super) struct Stall {
    error: DiskError,
    /// When it is tried again, and after how long that was.
    again: Instant,
    after: Duration,
}

impl Writer {
    /// Starts settling if it is time and none is under way.
    pub(super) async fn settle_due(&mut self) -> Result<(), DiskError> {
        if self.settling.as_ref().is_some_and(Settling::is_finished) {
            self.await_settling().await?;
        }
        let config = self.dir.config();
        let now = Instant::now();
        let old = Duration::from_millis(config.settle_ms);
        let pressed = self.pressed_up_to >= self.checkpoint.replay_from
            && self.dirty.values().all(|dirty| dirty.first_lsn > self.pressed_up_to);
        let due = self.settle_wanted
            || pressed
            || self.unsettled_bytes >= self.sync_bytes()
            || self.unsettled_since.is_some_and(|since| now.duration_since(since) >= old);
        let may = self.settling.is_none() && self.stall.as_ref().is_none_or(|stall| stall.again <= now);
        if due && may && (pressed || !self.unsettled.is_empty() || !self.leaving.is_empty()) {
            self.start_settling();
        }
        Ok(())
    }

    /// Settling pays once this much is written. Little in each of many files takes as many syncs as much
    /// would, so with many it waits for more.
    pub(super) fn sync_bytes(&self) -> u64 {
        let least = self.dir.config().sync_bytes;
        let files = self.unsettled.len() as u64;
        (files * WORTH_A_SYNC).clamp(least, SYNC_FACTOR * least)
    }

    /// Settles all that is unsettled, beside whatever else happens.
    fn start_settling(&mut self) {
        let settling = std::mem::take(&mut self.unsettled);
        let bytes = std::mem::take(&mut self.unsettled_bytes);
        let since = self.unsettled_since.take();
        self.settle_wanted = false;
        let mut checkpoint = self.checkpoint.clone();
        for (tp, unsettled) in &settling {
            checkpoint.partitions.insert(*tp, unsettled.mark);
        }
        // Everything handed over is either in no segment yet, or about to be settled. A partition may already know of
        // something that was not handed over, so that alone says too little.
        let pending = self.dirty.values().map(|dirty| dirty.first_lsn).chain(self.writing);
        let pending = pending.fold(self.last_lsn.next(), Lsn::min);
        checkpoint.replay_from = pending.max(checkpoint.replay_from);
        let leaving = std::mem::take(&mut self.leaving);
        let task = tokio::spawn(settle(Arc::clone(&self.dir), settling, self.checkpoint.clone(), checkpoint));
        self.settling = Some(Settling { task, bytes, since, leaving });
    }

    /// Settles everything and waits for it.
    ///
    /// # Errors
    /// The disk's; if that is full, all of it is still to be settled.
    pub(super) async fn settle_now(&mut self) -> Result<(), DiskError> {
        self.await_settling().await?;
        self.start_settling();
        self.await_settling().await?;
        match &self.stall {
            Some(stall) => Err(stall.error.clone()),
            None => Ok(()),
        }
    }

    /// Waits for the settling under way, if one is. Afterwards none is; if the disk was too full for it, its work is
    /// unsettled as before.
    ///
    /// # Errors
    /// Those that are final.
    pub(super) async fn await_settling(&mut self) -> Result<(), DiskError> {
        match &mut self.settling {
            Some(settling) => {
                let outcome = settling.ended().await;
                self.settled(outcome)
            }
            None => Ok(()),
        }
    }

    pub(super) fn settled(&mut self, outcome: Result<Ended, JoinError>) -> Result<(), DiskError> {
        let Some(Settling { bytes, since, leaving, .. }) = self.settling.take() else {
            return Ok(());
        };
        let ended =
            outcome.map_err(|_| DiskError::new(Operation::Sync, self.dir.path(), rustix::io::Errno::CANCELED))?;
        self.checkpoint = ended.checkpoint;
        let Some((left, error)) = ended.left else {
            self.stall = None;
            leaving.iter().for_each(CancellationToken::cancel);
            return Ok(());
        };
        if !error.is_full() {
            return Err(error);
        }
        let after = self.stall.as_ref().map_or(FIRST_RETRY, |stall| LAST_RETRY.min(stall.after * 2));
        if self.stall.is_none() {
            tracing::warn!(%error, "no space to settle: trying again");
        }
        self.stall = Some(Stall { error, again: Instant::now() + after, after });
        for (tp, before) in left {
            match self.unsettled.entry(tp) {
                Entry::Occupied(mut since) => since.get_mut().absorb(before),
                Entry::Vacant(none) => {
                    none.insert(before);
                }
            }
        }
        self.leaving.extend(leaving);
        self.unsettled_bytes += bytes;
        self.unsettled_since = since.or(self.unsettled_since);
        self.settle_wanted = true;
        Ok(())
    }
}

/// Settles, so that `next` may stand in the place of the checkpoint `standing`.
async fn settle(
    dir: Arc<LogDir>,
    settling: BTreeMap<TopicPartition, Unsettled>,
    standing: Checkpoint,
    next: Checkpoint,
) -> Ended {
    if let Err(error) = make_durable(&dir, &settling, &next).await {
        return Ended { checkpoint: standing, left: Some((settling, error)) };
    }
    if let Ok(journal) = dir.journal() {
        journal.checkpointed(next.replay_from.previous());
    }
    for unsettled in settling.values() {
        unsettled.partition.tell(Event::Settled(unsettled.end));
    }
    for unsettled in settling.values() {
        if let Err(error) = unsettled.let_go(&dir).await {
            return Ended { checkpoint: next, left: Some((settling, error)) };
        }
    }
    Ended { checkpoint: next, left: None }
}

async fn make_durable(
    dir: &LogDir,
    settling: &BTreeMap<TopicPartition, Unsettled>,
    checkpoint: &Checkpoint,
) -> Result<(), DiskError> {
    // Each of them to its end: a sync that fails says so once, and to nobody if nobody waits.
    let outcomes = Mutex::new(Vec::new());
    futures::stream::iter(settling.values())
        .for_each_concurrent(SYNCS_AT_ONCE, |unsettled| async {
            let outcome = unsettled.sync(dir).await;
            outcomes.lock().push(outcome);
        })
        .await;
    worst(outcomes.into_inner())?;
    checkpoint.store(&**dir.disk(), dir.path(), dir.id()).await
}
