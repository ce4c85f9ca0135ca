//! Carrying out what a partition has for its files: batches, saved state, cuts, resets, removal.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use proto::ids::Offset;

use super::{Unsettled, Writer};
use crate::disk::{DirEntry, DiskError, DiskFile, OpenMode, worst};
use crate::journal::{Lsn, Mark};
use crate::log::dir::LogDir;
use crate::log::folder::{self, Folder, Recovery};
use crate::log::segment::{FileKind, Segment, file_name, parse_file_name};
use crate::log::snapshot;
use crate::partition::shared::{FileOp, Inner, OpKind, SavePoint, Shared};

/// Folders made at the same time.
const FOLDERS_AT_ONCE: usize = 32;
/// Bytes gathered for one turn at most.
const TURN_BYTES: usize = 8 << 20;

/// Consecutive batches of one segment.
struct Run {
    segment: Arc<Segment>,
    position: u64,
    pieces: Vec<Bytes>,
    bytes: u64,
}

struct Batches {
    runs: Vec<Run>,
    count: usize,
    end: Offset,
    last_lsn: Lsn,
    loose: bool,
    generation: u64,
}

enum Turn {
    Write(Batches),
    Op(FileOp),
    Nothing,
}

impl Writer {
    /// Writes all sealed batches of a partition and does what its files are due for.
    pub(super) async fn write_all(&mut self, partition: &Arc<Shared>) -> Result<(), DiskError> {
        loop {
            let turn = next_turn(partition, self.last_lsn);
            match turn {
                Turn::Nothing => return self.save_state(partition).await,
                Turn::Write(batches) => self.write_batches(partition, batches).await?,
                Turn::Op(op) => {
                    self.save_state_before(partition, &op).await?;
                    let lsn = op.lsn;
                    self.change_files(partition, op).await?;
                    // Only now: the disk may have had no room for all of it.
                    let mut inner = partition.inner.lock();
                    inner.processed_lsn = inner.processed_lsn.max(lsn);
                    if inner.ops.front().is_some_and(|op| op.lsn == lsn) {
                        inner.ops.pop_front();
                    }
                }
            }
        }
    }

    async fn write_batches(&mut self, partition: &Arc<Shared>, batches: Batches) -> Result<(), DiskError> {
        self.prepare_folder(partition, batches.loose).await?;
        let disk = Arc::clone(self.dir.disk());
        let mut files: Vec<Arc<dyn DiskFile>> = Vec::new();
        let mut written = 0;
        let mut reached = (0, 0);
        let segments: Vec<Arc<Segment>> = batches.runs.iter().map(|run| Arc::clone(&run.segment)).collect();
        for run in batches.runs {
            reached = (run.segment.base, run.position + run.bytes);
            let file = run.segment.create(&*disk).await?;
            file.write_at(run.position, run.pieces).await?;
            written += run.bytes;
            files.push(file);
        }
        // Asked only once all of it is written: else it is written again, and asked again.
        let mut names = false;
        for segment in segments {
            names |= segment.is_new_name();
        }
        let current = {
            let mut inner = partition.inner.lock();
            let current = inner.generation == batches.generation;
            if current {
                inner.reached = reached;
                inner.written += batches.count;
                inner.processed_lsn = inner.processed_lsn.max(batches.last_lsn);
            }
            current
        };
        self.unsettled_bytes += written;
        let unsettled = self.unsettled(partition);
        unsettled.names |= names;
        unsettled.files.extend(files);
        // If the log was cut or started over meanwhile, what was written may not be what is there by these offsets now:
        // what is still to stay is written again, before that change is carried out.
        if current {
            let lsn = unsettled.mark.lsn.max(batches.last_lsn);
            unsettled.mark = Mark { segment: reached.0, position: reached.1, lsn };
            unsettled.end = unsettled.end.max(batches.end);
            Self::tell_written(partition, batches.end);
        }
        Ok(())
    }

    /// What is to be settled of a partition, created if there is nothing yet.
    pub(super) fn unsettled(&mut self, partition: &Arc<Shared>) -> &mut Unsettled {
        self.unsettled_since.get_or_insert_with(tokio::time::Instant::now);
        self.unsettled.entry(partition.tp).or_insert_with(|| Unsettled::new(partition))
    }

    /// Makes the folders of all dirty partitions that have none, side by side: what they wait for is the disk's
    /// syncs, and those of many take hardly longer than those of one.
    pub(super) async fn prepare_folders(&mut self) -> Result<(), DiskError> {
        // As for a single one.
        self.await_settling().await?;
        let bare: Vec<(Arc<Shared>, Offset, Recovery)> = self
            .dirty
            .iter()
            .filter(|(tp, dirty)| !dirty.blocked && !self.unsettled.contains_key(tp))
            .filter_map(|(_, dirty)| {
                let inner = dirty.partition.inner.lock();
                // What is next may also be its removal, or nothing.
                let entry = inner.tail.get(inner.written).filter(|_| !inner.core.is_removed())?;
                let recovery = if entry.loose { Recovery::Scan } else { Recovery::Journal };
                inner.described.is_none().then(|| (Arc::clone(&dirty.partition), inner.processed_start, recovery))
            })
            .collect();
        let dir = &*self.dir;
        let outcomes = Mutex::new(Vec::new());
        // Each of them to its end: one that was left half way would meet its own second try.
        futures::stream::iter(&bare)
            .for_each_concurrent(FOLDERS_AT_ONCE, |(partition, local_start, recovery)| async {
                let made = async {
                    dir.disk().create_dir_all(&partition.folder).await?;
                    describe(dir, partition, *local_start, *recovery).await
                };
                let outcome = made.await;
                outcomes.lock().push(outcome);
            })
            .await;
        worst(outcomes.into_inner())
    }

    /// Makes the folder, and its description if that is not there or out of date.
    async fn prepare_folder(&mut self, partition: &Arc<Shared>, loose: bool) -> Result<(), DiskError> {
        let recovery = if loose { Recovery::Scan } else { Recovery::Journal };
        let (described, local_start) = {
            let inner = partition.inner.lock();
            (inner.described, inner.processed_start)
        };
        // A log that was ever loose is scanned: what was written then stays in it.
        if described == Some(recovery) || described == Some(Recovery::Scan) {
            return Ok(());
        }
        // What is being settled may be about to describe it, too.
        self.await_settling().await?;
        if loose && self.unsettled.contains_key(&partition.tp) {
            // See `changed`.
            self.settle_now().await?;
        }
        let disk = Arc::clone(self.dir.disk());
        disk.create_dir_all(&partition.folder).await?;
        describe(&self.dir, partition, local_start, recovery).await
    }

    /// Saves what must be saved before a change of files: it may take what would be needed to tell later.
    async fn save_state_before(&mut self, partition: &Arc<Shared>, op: &FileOp) -> Result<(), DiskError> {
        let enough = match op.kind {
            // What a reset leaves is saved with it, and by it.
            OpKind::Reset { .. } | OpKind::Delete => return Ok(()),
            OpKind::Trim { first, .. } => partition.inner.lock().saved.is_some_and(|(saved, _)| saved >= first),
            OpKind::Cut { .. } => false,
        };
        match self.save_state(partition).await {
            // Trimming is what makes room, so it waits for none that it does not need.
            Err(error) if error.is_full() && enough => Ok(()),
            saved => saved,
        }
    }

    /// Saves the states that segments have reached.
    async fn save_state(&mut self, partition: &Arc<Shared>) -> Result<(), DiskError> {
        loop {
            let due = {
                let mut inner = partition.inner.lock();
                if inner.is_gone(self.last_lsn) {
                    inner.save_points.clear();
                }
                if inner.ops.iter().any(|op| matches!(op.kind, OpKind::Reset { .. })) {
                    return Ok(());
                }
                inner.save_point_due().cloned()
            };
            let Some(point) = due else {
                return Ok(());
            };
            let offset = point.offset;
            self.save_point(partition, point).await?;
            // Only now, so that whoever wants the state at that offset finds it here or on disk.
            let mut inner = partition.inner.lock();
            if inner.save_points.front().is_some_and(|front| front.offset == offset) {
                inner.save_points.pop_front();
            }
        }
    }

    async fn save_point(&mut self, partition: &Arc<Shared>, point: SavePoint) -> Result<(), DiskError> {
        self.prepare_folder(partition, false).await?;
        let path = partition.folder.join(file_name(point.offset, FileKind::Snapshot));
        let disk = &**self.dir.disk();
        let saved = snapshot::is_saved(disk, &path, point.offset, point.segment, point.position).await?;
        let file = if saved {
            disk.open(&path, OpenMode::Write).await?
        } else {
            self.write_small(&path, point.snapshot).await?
        };
        let mut files = vec![file];
        if let Some(summary) = &point.summary {
            let index = partition.folder.join(file_name(summary.base, FileKind::Index));
            files.push(self.write_small(&index, summary.encode()).await?);
        }
        // Within a segment only the newest state is of use, and the one it begins with.
        let saved = Some((point.offset, point.offset != point.segment));
        let before = std::mem::replace(&mut partition.inner.lock().saved, saved);
        let unsettled = self.unsettled(partition);
        unsettled.names = true;
        unsettled.files.extend(files);
        if let Some((stale, true)) = before.filter(|(stale, _)| *stale != point.offset) {
            unsettled.unlink.push(partition.folder.join(file_name(stale, FileKind::Snapshot)));
        }
        Ok(())
    }

    async fn write_small(&self, path: &std::path::Path, contents: Bytes) -> Result<Arc<dyn DiskFile>, DiskError> {
        let file = self.dir.disk().open(path, OpenMode::OpenOrCreate).await?;
        file.set_len(0).await?;
        file.write_at(0, vec![contents]).await?;
        Ok(file)
    }

    /// Carries out a change whose journal record is durable, all batches before it being written.
    /// May be repeated after it failed.
    async fn change_files(&mut self, partition: &Arc<Shared>, op: FileOp) -> Result<(), DiskError> {
        match op.kind {
            OpKind::Trim { to, first } => {
                self.trim(partition, op.lsn, to, first);
                Ok(())
            }
            OpKind::Cut { end, segment, position } => self.cut(partition, op.lsn, end, segment, position).await,
            OpKind::Reset { start, snapshot } => self.reset(partition, op.lsn, start, snapshot).await,
            OpKind::Delete => {
                self.delete(partition).await?;
                // It may come again once no stored checkpoint speaks of what it was.
                self.leaving.push(partition.left.clone());
                self.settle_wanted = true;
                Ok(())
            }
        }
    }

    /// Files go once the checkpoint does not need them: recovery begins at its mark.
    fn trim(&mut self, partition: &Arc<Shared>, lsn: Lsn, to: Offset, first: Offset) {
        let (dropped, reached) = {
            let mut inner = partition.inner.lock();
            if inner.reached.0 < first {
                inner.reached = (first, 0);
            }
            let keep = inner.files.split_off(&first);
            inner.processed_start = to;
            let dropped: Vec<Offset> = std::mem::replace(&mut inner.files, keep).into_keys().collect();
            (dropped, inner.reached)
        };
        let folder = &partition.folder;
        let unsettled = self.unsettled(partition);
        unsettled.mark = Mark { segment: reached.0, position: reached.1, lsn: unsettled.mark.lsn.max(lsn) };
        unsettled.local_start = Some(to);
        for base in dropped {
            let kinds = [FileKind::Log, FileKind::Index, FileKind::Snapshot];
            unsettled.unlink.extend(kinds.map(|kind| folder.join(file_name(base, kind))));
        }
        self.settle_wanted = true;
    }

    /// The checkpoint first stops trusting what is to be cut, then the files are cut.
    async fn cut(
        &mut self,
        partition: &Arc<Shared>,
        lsn: Lsn,
        end: Offset,
        segment: Offset,
        position: u64,
    ) -> Result<(), DiskError> {
        // The checkpoint may only name what has a folder, even if all that was ever appended is cut.
        self.prepare_folder(partition, false).await?;
        self.await_settling().await?;
        partition.inner.lock().reached = (segment, position);
        let unsettled = self.unsettled(partition);
        // The cut itself is not covered yet: if the file is not cut in time, recovery repeats it.
        unsettled.mark = Mark { segment, position, lsn: lsn.previous() };
        unsettled.end = end;
        self.settle_now().await?;
        let disk = Arc::clone(self.dir.disk());
        let file = partition.inner.lock().files.get(&segment).cloned();
        if let Some(file) = file
            && self.names(partition).await?.iter().any(|entry| entry.path == file.path())
        {
            let file: Arc<dyn DiskFile> = file.create(&*disk).await?;
            if file.size().await? > position {
                file.set_len(position).await?;
                file.sync_data().await?;
            }
        }
        self.remove_where(partition, |offset, kind| match kind {
            FileKind::Log => offset > segment,
            // The index of the segment that was cut speaks of what is gone.
            FileKind::Index => offset >= segment,
            FileKind::Snapshot => offset > end,
        })
        .await?;
        self.changed(partition, lsn).await
    }

    /// A cut or reset is carried out. In a log that is scanned it may not be repeated: what is written from here on
    /// would go with it, and is not in the journal.
    async fn changed(&mut self, partition: &Arc<Shared>, lsn: Lsn) -> Result<(), DiskError> {
        self.unsettled(partition).mark.lsn = lsn;
        let scanned = partition.inner.lock().described == Some(Recovery::Scan);
        if scanned { self.settle_now().await } else { Ok(()) }
    }

    async fn reset(
        &mut self,
        partition: &Arc<Shared>,
        lsn: Lsn,
        start: Offset,
        snapshot: Bytes,
    ) -> Result<(), DiskError> {
        self.await_settling().await?;
        {
            let mut inner = partition.inner.lock();
            (inner.reached, inner.processed_start) = ((start, 0), start);
            inner.saved = Some((start, false));
        }
        let disk = Arc::clone(self.dir.disk());
        disk.create_dir_all(&partition.folder).await?;
        // Should this be the last that happens, recovery repeats the reset from the journal.
        let path = partition.folder.join(file_name(start, FileKind::Snapshot));
        self.write_small(&path, snapshot).await?.sync_data().await?;
        disk.sync_dir(&partition.folder).await?;
        let unsettled = self.unsettled(partition);
        unsettled.mark = Mark { segment: start, position: 0, lsn: lsn.previous() };
        unsettled.local_start = Some(start);
        unsettled.end = start;
        self.settle_now().await?;
        self.remove_where(partition, |offset, kind| (offset, kind) != (start, FileKind::Snapshot)).await?;
        self.changed(partition, lsn).await
    }

    /// Journal record first, then the name, then the contents: a folder under its own name is a whole one.
    async fn delete(&mut self, partition: &Arc<Shared>) -> Result<(), DiskError> {
        self.await_settling().await?;
        self.unsettled.remove(&partition.tp);
        self.checkpoint.partitions.remove(&partition.tp);
        let disk = Arc::clone(self.dir.disk());
        let mut name = partition.folder.clone().into_os_string();
        name.push(crate::log::recovery::DELETED);
        let gone = std::path::PathBuf::from(name);
        match disk.rename(&partition.folder, &gone).await {
            Ok(()) => disk.sync_dir(self.dir.path()).await?,
            // Nothing was ever written to it, or it got this far before.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        disk.remove_dir_all(&gone).await
    }

    /// What lies in a partition's folder: nothing if no record ever got that far.
    async fn names(&self, partition: &Shared) -> Result<Vec<DirEntry>, DiskError> {
        match self.dir.disk().list(&partition.folder).await {
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            listed => listed,
        }
    }

    async fn remove_where(
        &self,
        partition: &Arc<Shared>,
        goes: impl Fn(Offset, FileKind) -> bool,
    ) -> Result<(), DiskError> {
        let disk = self.dir.disk();
        let mut removed = false;
        for entry in self.names(partition).await? {
            if let Some((offset, kind)) = parse_file_name(&entry.name)
                && goes(offset, kind)
            {
                disk.remove(&entry.path).await?;
                removed = true;
            }
        }
        if removed { disk.sync_dir(&partition.folder).await } else { Ok(()) }
    }
}

/// Writes `partition.firn`, durably.
async fn describe(dir: &LogDir, partition: &Shared, local_start: Offset, recovery: Recovery) -> Result<(), DiskError> {
    let topic = partition.topic.read().to_string();
    let folder = Folder { tp: partition.tp, topic, local_start, recovery };
    crate::disk::replace(&**dir.disk(), &partition.folder, folder::NAME, folder.encode()).await?;
    partition.inner.lock().described = Some(recovery);
    Ok(())
}

/// What comes next for a partition's files, in the order in which it happened. All up to `sealed` is durable, whether
/// the partition was told or not.
fn next_turn(partition: &Arc<Shared>, sealed: Lsn) -> Turn {
    let mut inner = partition.inner.lock();
    let gone = inner.is_gone(sealed);
    if gone {
        // What went before the removal need not be done: batches are not written any more either.
        let removal = inner.ops.iter().position(|op| matches!(op.kind, OpKind::Delete));
        inner.ops.drain(..removal.unwrap_or(0));
    }
    let barrier = inner.ops.front().map(|op| op.lsn);
    if !gone && let Some(batches) = gather(partition, &mut inner, barrier) {
        return Turn::Write(batches);
    }
    let before_barrier =
        barrier.is_some_and(|barrier| !gone && inner.tail.get(inner.written).is_some_and(|entry| entry.lsn < barrier));
    if before_barrier || barrier.is_none_or(|barrier| barrier > sealed) {
        return Turn::Nothing;
    }
    // It stays in the list until it is carried out.
    inner.ops.front().cloned().map_or(Turn::Nothing, Turn::Op)
}

fn gather(partition: &Shared, inner: &mut Inner, barrier: Option<Lsn>) -> Option<Batches> {
    let mut batches =
        Batches { runs: Vec::new(), count: 0, end: 0, last_lsn: Lsn(0), loose: false, generation: inner.generation };
    let mut total = 0;
    let Inner { tail, written, files, .. } = inner;
    partition.dir.tail().with(|group| {
        for entry in tail.iter().skip(*written) {
            if total >= TURN_BYTES || barrier.is_some_and(|barrier| entry.lsn >= barrier) {
                break;
            }
            let Some(group) = group(entry.slice.group) else {
                break;
            };
            let bytes = group.slice(entry.slice.range());
            total += bytes.len();
            let len = bytes.len() as u64;
            match batches.runs.last_mut().filter(|run| run.segment.base == entry.segment) {
                Some(run) => {
                    run.pieces.push(bytes);
                    run.bytes += len;
                }
                None => {
                    let segment =
                        files.entry(entry.segment).or_insert_with(|| Segment::new(&partition.folder, entry.segment));
                    let segment = Arc::clone(segment);
                    batches.runs.push(Run { segment, position: entry.position, pieces: vec![bytes], bytes: len });
                }
            }
            batches.count += 1;
            batches.end = entry.end;
            batches.last_lsn = batches.last_lsn.max(entry.lsn);
            batches.loose |= entry.loose;
        }
    });
    (batches.count > 0).then_some(batches)
}
