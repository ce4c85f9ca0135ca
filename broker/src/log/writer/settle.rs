//! Settling: sync what was written, then move the checkpoint, then let go of what only it needed.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use proto::ids::Offset;
use tokio::task::JoinError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{TICK, Writer};
use crate::disk::{DiskError, DiskFile, Operation};
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

/// What was done to a partition's files and is not durable.
pub(super) struct Unsettled {
    pub(super) partition: Arc<Shared>,
    /// Files written to; the same may be here more than once.
    pub(super) files: Vec<Arc<dyn DiskFile>>,
    /// Names were added to the folder.
    pub(super) names: bool,
    /// The mark once it is settled.
    pub(super) mark: Mark,
    /// Position of the first record in it.
    pub(super) first_lsn: Lsn,
    /// Segments then durably hold everything below this.
    pub(super) end: Offset,
    /// A new start of the log, to be written down.
    pub(super) local_start: Option<Offset>,
    /// Files that nothing needs after that.
    pub(super) unlink: Vec<PathBuf>,
}

impl Unsettled {
    pub(super) fn new(partition: &Arc<Shared>, first_lsn: Lsn) -> Self {
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
            first_lsn,
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
        when_it_fits(dir, || self.describe(dir)).await
    }

    /// The names in its folder, and what that says of itself.
    async fn describe(&self, dir: &LogDir) -> Result<(), DiskError> {
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

impl Writer {
    /// Starts settling if it is time and none is under way.
    pub(super) async fn settle_due(&mut self) -> Result<(), DiskError> {
        if self.settling.as_ref().is_some_and(tokio::task::JoinHandle::is_finished) {
            self.await_settling().await?;
        }
        let config = self.dir.config();
        let old = Duration::from_millis(config.settle_ms);
        let pressed = self.pressed_up_to >= self.checkpoint.replay_from
            && self.dirty.values().all(|dirty| dirty.first_lsn > self.pressed_up_to);
        let due = self.settle_wanted
            || pressed
            || self.unsettled_bytes >= self.sync_bytes()
            || self.unsettled_since.is_some_and(|since| Instant::now().duration_since(since) >= old);
        if due && self.settling.is_none() && (pressed || !self.unsettled.is_empty() || !self.leaving.is_empty()) {
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
    pub(super) fn start_settling(&mut self) {
        let settling = std::mem::take(&mut self.unsettled);
        (self.unsettled_bytes, self.unsettled_since, self.settle_wanted) = (0, None, false);
        let mut checkpoint = self.checkpoint.clone();
        for (tp, unsettled) in &settling {
            checkpoint.partitions.insert(*tp, unsettled.mark);
        }
        // Everything handed over is either in no segment yet, or about to be settled. A partition may already know of
        // something that was not handed over, so that alone says too little.
        let pending = self.dirty.values().map(|dirty| dirty.first_lsn).chain(self.writing);
        let pending = pending.fold(self.last_lsn.next(), Lsn::min);
        checkpoint.replay_from = pending.max(checkpoint.replay_from);
        let dir = Arc::clone(&self.dir);
        let settling: Vec<Unsettled> = settling.into_values().collect();
        let leaving = std::mem::take(&mut self.leaving);
        self.settling = Some(tokio::spawn(async move {
            let settled = settle(dir, settling, checkpoint).await?;
            leaving.iter().for_each(CancellationToken::cancel);
            Ok(settled)
        }));
    }

    /// Settles everything and waits for it.
    pub(super) async fn settle_now(&mut self) -> Result<(), DiskError> {
        self.await_settling().await?;
        self.start_settling();
        self.await_settling().await
    }

    /// Waits for the settling under way, if one is.
    pub(super) async fn await_settling(&mut self) -> Result<(), DiskError> {
        match &mut self.settling {
            Some(task) => {
                let outcome = task.await;
                self.settled(outcome)
            }
            None => Ok(()),
        }
    }

    pub(super) fn settled(
        &mut self,
        outcome: Result<Result<Checkpoint, DiskError>, JoinError>,
    ) -> Result<(), DiskError> {
        self.settling = None;
        self.checkpoint =
            outcome.map_err(|_| DiskError::new(Operation::Sync, self.dir.path(), rustix::io::Errno::CANCELED))??;
        Ok(())
    }
}

/// Waits for room as long as the disk is full; not while the directory is being closed. Syncs do not count as full:
/// what they lost would not be there the next time.
async fn when_it_fits<F>(dir: &LogDir, mut write: impl FnMut() -> F) -> Result<(), DiskError>
where
    F: Future<Output = Result<(), DiskError>>,
{
    loop {
        match write().await {
            Err(error) if error.is_full() && error.operation != Operation::Sync && !dir.is_closing() => {
                tracing::warn!(%error, "no space to settle: waiting");
                tokio::time::sleep(TICK).await;
            }
            outcome => return outcome,
        }
    }
}

async fn settle(dir: Arc<LogDir>, settling: Vec<Unsettled>, checkpoint: Checkpoint) -> Result<Checkpoint, DiskError> {
    let dir_ref = &dir;
    futures::stream::iter(&settling)
        .map(Ok)
        .try_for_each_concurrent(SYNCS_AT_ONCE, |unsettled| unsettled.sync(dir_ref))
        .await?;
    when_it_fits(&dir, || checkpoint.store(&**dir.disk(), dir.path(), dir.id())).await?;
    if let Ok(journal) = dir.journal() {
        journal.checkpointed(checkpoint.replay_from.previous());
    }
    for unsettled in &settling {
        unsettled.partition.tell(Event::Settled(unsettled.end));
    }
    for unsettled in &settling {
        unsettled.let_go(&dir).await?;
    }
    Ok(checkpoint)
}
