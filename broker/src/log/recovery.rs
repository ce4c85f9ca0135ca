//! Opening a data directory: each partition's log as it was acknowledged, nothing more and nothing less.
//!
//! 1. The checkpoint says how much of each partition's segments is durable; what lies behind is cut, except
//!    in logs that are scanned ([`Recovery::Scan`]), which keep whatever batches hold together by CRC and offset.
//! 2. Producers, epochs and the index come from the last state saved and the batches after it.
//! 3. The journal's records that the checkpoint does not cover are repeated, in order.
//! 4. All of that is synced, a checkpoint that covers it is stored, and the journal starts empty.

mod rebuild;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use proto::ids::{Offset, TopicPartition};
use proto::planted::{Bug, planted};

use super::dir::{LogDir, Sink};
use super::folder::{Folder, Recovery};
use super::life::{Life, Stop};
use crate::disk::{DiskError, EntryKind};
use crate::journal::{self, Checkpoint, CheckpointError, Journal, Lsn, Mark, OpenError, OwnedRecord};
use crate::partition::core::Restored;
use rebuild::Rebuild;

/// What a folder is called, appended to its name, while it is being removed.
pub const DELETED: &str = ".deleted";
/// Folders looked at, or synced, at the same time.
const AT_ONCE: usize = 16;
/// Replayed bytes that are held back to be written in larger pieces.
const HELD_BYTES: usize = 32 << 20;

/// Why a data directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// The checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A partition's files do not add up to what the checkpoint says of them.
    #[error("partition {tp} in {folder}: {what}")]
    Damaged {
        /// Which.
        tp: TopicPartition,
        /// Where.
        folder: String,
        /// What is wrong.
        what: String,
    },
}

/// A partition that was found.
#[derive(Debug)]
pub struct Found {
    /// Which.
    pub tp: TopicPartition,
    /// Its topic's name, if the folder says it.
    pub topic: Option<String>,
    /// Its log.
    pub log: Restored,
    /// What its folder says of recovery; none if it has none.
    pub described: Option<Recovery>,
    /// Its records in the journal are reflected up to here.
    pub lsn: Lsn,
}

/// A directory that was opened.
#[derive(Debug)]
pub struct Opened {
    /// Its partitions.
    pub partitions: Vec<Found>,
    /// The checkpoint that stands now.
    pub checkpoint: Checkpoint,
    /// Records that were repeated from the journal.
    pub replayed: u64,
    /// How the last life of the directory ended.
    pub stop: Stop,
}

/// Recovers `dir` and starts its journal, in the boot `boot` of the machine.
///
/// # Errors
/// See [`RecoveryError`]. The directory is as it was, or further on the same way.
pub(crate) async fn open(dir: &Arc<LogDir>, config: journal::Config, boot: &str) -> Result<Opened, RecoveryError> {
    let disk = dir.disk();
    // The last process may have been killed in the middle of storing it.
    disk.sync_dir(dir.path()).await?;
    let checkpoint = Checkpoint::load(&**disk, dir.path(), dir.id()).await?;
    let logs = load_folders(dir, &checkpoint).await?;
    let life = Life::load(&**disk, dir.path()).await?;
    let blank = logs.is_empty() && checkpoint.partitions.is_empty();
    let missing = checkpoint.partitions.keys().filter(|tp| !logs.contains_key(tp)).copied().collect();
    let mut replay = Journal::open(Arc::clone(disk), dir.path(), dir.id(), config, checkpoint.clone()).await?;
    let mut repeating = Repeating { dir: Arc::clone(dir), logs, missing, checkpoint: checkpoint.clone() };
    let mut held = 0;
    while let Some((lsn, record)) = replay.next().await? {
        held += repeating.repeat(lsn, record).await?;
        if held > HELD_BYTES {
            for log in repeating.logs.values_mut() {
                log.flush().await?;
            }
            held = 0;
        }
    }
    let mut logs = repeating.logs;
    if let Some(tp) = repeating.missing.first() {
        let folder = dir.path().join(Folder::name(*tp)).display().to_string();
        return Err(RecoveryError::Damaged { tp: *tp, folder, what: "the folder, or the log's begin, is gone".into() });
    }
    if let Some(broken) = logs.values().find_map(Rebuild::broken) {
        return Err(broken);
    }
    futures::stream::iter(logs.values_mut().map(Ok)).try_for_each_concurrent(AT_ONCE, Rebuild::finish).await?;
    let replayed = replay.replayed();
    let journal = replay.start(Arc::new(Sink(Arc::downgrade(dir)))).await?;
    let next = journal.next_lsn();
    let partitions = logs.iter().map(|(tp, log)| (*tp, log.mark(next.previous()))).collect();
    let settled = Checkpoint { replay_from: next, partitions };
    if settled != checkpoint {
        settled.store(&**disk, dir.path(), dir.id()).await?;
    }
    journal.checkpointed(next.previous());
    let stop = Life::stop(life.as_ref(), boot, blank && replayed == 0);
    Life::begin(&**disk, dir.path(), boot).await?;
    dir.started(journal);
    for log in logs.values() {
        log.sweep().await?;
    }
    let partitions = logs.into_values().map(|log| log.into_found(next.previous())).collect();
    Ok(Opened { partitions, checkpoint: settled, replayed, stop })
}

async fn load_folders(
    dir: &Arc<LogDir>,
    checkpoint: &Checkpoint,
) -> Result<BTreeMap<TopicPartition, Rebuild>, RecoveryError> {
    let disk = dir.disk();
    let mut folders = Vec::new();
    for entry in disk.list(dir.path()).await? {
        if entry.kind != EntryKind::Directory {
            continue;
        }
        if entry.name.ends_with(DELETED) {
            disk.remove_dir_all(&entry.path).await?;
        } else if let Some(tp) = Folder::parse_name(&entry.name) {
            folders.push((tp, entry.path));
        }
    }
    let load = |(tp, path)| async move {
        let mark = checkpoint.partitions.get(&tp).copied();
        Rebuild::load(Arc::clone(dir), tp, path, mark).await.map(|log| (tp, log))
    };
    futures::stream::iter(folders).map(load).buffer_unordered(AT_ONCE).try_collect().await
}

/// Repeats the journal's records.
struct Repeating {
    dir: Arc<LogDir>,
    logs: BTreeMap<TopicPartition, Rebuild>,
    /// Named by the checkpoint, and not there: in order only if deleted, or started over, further on.
    missing: BTreeSet<TopicPartition>,
    checkpoint: Checkpoint,
}

impl Repeating {
    /// Repeats one record; answers the bytes that are now held back.
    async fn repeat(&mut self, lsn: Lsn, record: OwnedRecord) -> Result<usize, RecoveryError> {
        let tp = record.tp();
        match record {
            OwnedRecord::Append { batch, .. } => {
                if let Some(log) = self.logs.get_mut(&tp) {
                    return log.append(lsn, batch).await;
                }
                let base = proto::records::BatchHeader::parse(&batch).map_or(-1, |header| header.base_offset);
                if base != 0 || self.missing.contains(&tp) {
                    // A log that no checkpoint names has all its records in the journal, unless the first ones went
                    // past it and were lost with the page cache. Then this one was not acknowledged either.
                    return Ok(0);
                }
                self.fresh(tp, 0).append(lsn, batch).await
            }
            OwnedRecord::TruncateTail { .. } if planted(Bug::ReplaySkipsTruncate) => Ok(0),
            OwnedRecord::TruncateTail { to, .. } => {
                if let Some(log) = self.logs.get_mut(&tp)
                    && let Some(mark) = log.find_cut(lsn, to).await?
                {
                    store(&self.dir, &mut self.checkpoint, tp, mark).await?;
                    log.cut(mark).await?;
                }
                Ok(0)
            }
            OwnedRecord::TrimHead { to, .. } => {
                match self.logs.get_mut(&tp) {
                    Some(log) => log.trim(to).await?,
                    None if self.missing.contains(&tp) => {}
                    None => {
                        let log = Rebuild::lost(Arc::clone(&self.dir), tp, self.folder(tp), to);
                        self.logs.insert(tp, log);
                    }
                }
                Ok(0)
            }
            OwnedRecord::Reset { start, producer_state, .. } => {
                self.missing.remove(&tp);
                if !self.logs.contains_key(&tp) {
                    self.fresh(tp, start);
                }
                if let Some(log) = self.logs.get_mut(&tp) {
                    let mark = log.prepare_reset(lsn, start, &producer_state).await?;
                    store(&self.dir, &mut self.checkpoint, tp, mark).await?;
                    log.reset().await?;
                }
                Ok(0)
            }
            OwnedRecord::Delete { .. } => {
                self.missing.remove(&tp);
                if let Some(log) = self.logs.remove(&tp) {
                    log.delete().await?;
                }
                self.checkpoint.partitions.remove(&tp);
                Ok(0)
            }
        }
    }

    fn fresh(&mut self, tp: TopicPartition, start: Offset) -> &mut Rebuild {
        let log = Rebuild::empty(Arc::clone(&self.dir), tp, self.folder(tp), start);
        self.logs.entry(tp).or_insert(log)
    }

    fn folder(&self, tp: TopicPartition) -> PathBuf {
        self.dir.path().join(Folder::name(tp))
    }
}

/// Before files are cut, the checkpoint must not count on what is going.
async fn store(dir: &LogDir, checkpoint: &mut Checkpoint, tp: TopicPartition, mark: Mark) -> Result<(), DiskError> {
    checkpoint.partitions.insert(tp, mark);
    checkpoint.store(&**dir.disk(), dir.path(), dir.id()).await
}
