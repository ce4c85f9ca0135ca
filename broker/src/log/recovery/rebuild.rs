//! Rebuilding one partition's log.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use proto::ids::{Millis, Offset, TopicPartition};
use proto::planted::{Bug, planted};
use proto::records::BatchRef;

use super::{Found, RecoveryError};
use crate::disk::{self, DiskError, DiskFile, OpenMode};
use crate::journal::{Lsn, Mark};
use crate::log::batch::BatchMeta;
use crate::log::config::LogConfig;
use crate::log::dir::LogDir;
use crate::log::epochs::EpochCache;
use crate::log::folder::{self, Folder, Recovery};
use crate::log::index::SegmentSummary;
use crate::log::layout::{Layout, Place};
use crate::log::producers::Producers;
use crate::log::scan::walk;
use crate::log::segment::{FileKind, file_name, parse_file_name};
use crate::log::snapshot::{self, Snapshot};
use crate::partition::core::Restored;

/// Replayed bytes worth a write of their own.
const WRITE_BYTES: usize = 1 << 20;

/// One partition's log while its directory is being opened.
pub(super) struct Rebuild {
    dir: Arc<LogDir>,
    tp: TopicPartition,
    folder: PathBuf,
    described: Option<Folder>,
    /// Its folder is there.
    on_disk: bool,
    config: LogConfig,
    now_ms: Millis,
    local_start: Offset,
    layout: Layout,
    epochs: EpochCache,
    producers: Producers,
    /// Replayed, not written: consecutive bytes of one segment.
    held: Option<(Place, Vec<Bytes>, usize)>,
    open: BTreeMap<Offset, Arc<dyn DiskFile>>,
    /// Something was replayed, or files changed.
    touched: bool,
    /// Segments from here on have no index of theirs on disk.
    first_changed: Offset,
    /// Records are missing before one that was replayed: fatal, unless the log is dropped further on.
    broken: Option<String>,
}

impl Rebuild {
    /// A log without records, of which no file is looked at.
    pub(super) fn empty(dir: Arc<LogDir>, tp: TopicPartition, folder: PathBuf, start: Offset) -> Self {
        let config = LogConfig::default();
        let now_ms = dir.now_ms();
        Self {
            dir,
            tp,
            folder,
            described: None,
            on_disk: false,
            now_ms,
            local_start: start,
            layout: Layout::new(start, now_ms, &config),
            config,
            epochs: EpochCache::default(),
            producers: Producers::default(),
            held: None,
            open: BTreeMap::new(),
            touched: false,
            first_changed: start,
            broken: None,
        }
    }

    /// A log of which nothing is left but where it starts: all that was in it went past the journal and was lost.
    pub(super) fn lost(dir: Arc<LogDir>, tp: TopicPartition, folder: PathBuf, start: Offset) -> Self {
        let mut log = Self::empty(dir, tp, folder, start);
        log.described = Some(Folder { tp, topic: String::new(), local_start: start, recovery: Recovery::Scan });
        log.touched = true;
        log
    }

    /// The log in `folder` as far as it is to be trusted without the journal.
    pub(super) async fn load(
        dir: Arc<LogDir>,
        tp: TopicPartition,
        folder: PathBuf,
        mark: Option<Mark>,
    ) -> Result<Self, RecoveryError> {
        let mut log = Self::empty(dir, tp, folder, 0);
        log.on_disk = true;
        log.described = log.read_description().await?;
        let names = log.names().await?;
        let recovery = log.described.as_ref().map_or(Recovery::Journal, |folder| folder.recovery);
        let mut files: BTreeMap<Offset, u64> = BTreeMap::new();
        for (offset, _) in names.iter().filter(|(_, kind)| *kind == FileKind::Log) {
            files.insert(*offset, log.len_of(*offset).await?);
        }
        log.local_start = match (&log.described, mark) {
            (Some(folder), Some(_)) => folder.local_start,
            (Some(folder), None) if recovery == Recovery::Scan => folder.local_start,
            (None, Some(_)) => files.keys().next().copied().unwrap_or(0),
            (_, None) => 0,
        };
        let trusted = log.trust(&mut files, mark, recovery)?;
        log.load_state(&names, &files, trusted, recovery).await?;
        // What is not trusted must not be mistaken for part of the log later.
        log.first_changed = log.layout.active().base;
        log.sweep().await?;
        let active = log.layout.active();
        let (base, bytes) = (active.base, active.bytes);
        if names.contains(&(base, FileKind::Log)) && log.len_of(base).await? > bytes {
            log.cut_file(base, bytes).await?;
        }
        Ok(log)
    }

    async fn read_description(&self) -> Result<Option<Folder>, RecoveryError> {
        let Some(bytes) = disk::read_whole(&**self.dir.disk(), &self.folder.join(folder::NAME)).await? else {
            return Ok(None);
        };
        let folder = Folder::decode(&bytes).map_err(|error| self.damaged(format!("{}: {error}", folder::NAME)))?;
        if folder.tp != self.tp {
            return Err(self.damaged(format!("{} belongs to {}", folder::NAME, folder.tp)));
        }
        Ok(Some(folder))
    }

    async fn names(&self) -> Result<Vec<(Offset, FileKind)>, RecoveryError> {
        let entries = self.dir.disk().list(&self.folder).await?;
        Ok(entries.iter().filter_map(|entry| parse_file_name(&entry.name)).collect())
    }

    /// Leaves in `files` what may be part of the log, and says where the durable part ends.
    fn trust(
        &self,
        files: &mut BTreeMap<Offset, u64>,
        mark: Option<Mark>,
        recovery: Recovery,
    ) -> Result<Mark, RecoveryError> {
        let mark = mark.unwrap_or_else(|| {
            let segment = if recovery == Recovery::Scan { files.keys().next().copied() } else { None };
            Mark { segment: segment.unwrap_or(self.local_start), position: 0, lsn: Lsn(0) }
        });
        // The segment that the mark names may be fresh, and its file not there yet.
        let len = *files.entry(mark.segment).or_insert(0);
        if len < mark.position {
            let name = file_name(mark.segment, FileKind::Log);
            return Err(self.damaged(format!("{name} has {len} bytes, {} were durable", mark.position)));
        }
        if recovery == Recovery::Journal {
            files.retain(|base, _| *base <= mark.segment);
            files.insert(mark.segment, mark.position);
        }
        // Segments that a trim has dropped, which were not unlinked in time.
        while let (Some(first), Some(second)) = (files.keys().next().copied(), files.keys().nth(1).copied())
            && second <= self.local_start.min(mark.segment)
        {
            files.remove(&first);
        }
        Ok(mark)
    }

    /// Indexes of all segments, and producers and epochs as of the end.
    async fn load_state(
        &mut self,
        names: &[(Offset, FileKind)],
        files: &BTreeMap<Offset, u64>,
        trusted: Mark,
        recovery: Recovery,
    ) -> Result<(), RecoveryError> {
        let state = self.best_snapshot(names, files, trusted).await?;
        let snapshot_at = state.as_ref().map(|state| (state.segment_base, state.position));
        if let Some(state) = state {
            (self.epochs, self.producers) = (state.epochs, state.producers);
        }
        let bases: Vec<Offset> = files.keys().copied().collect();
        let mut summaries = Vec::new();
        for (at, base) in bases.iter().enumerate().take_while(|(_, base)| **base < trusted.segment) {
            let next = bases.get(at + 1).copied().unwrap_or(trusted.segment);
            let len = files.get(base).copied().unwrap_or(0);
            let from = match snapshot_at {
                Some((segment, position)) if segment == *base => position,
                Some((segment, _)) if segment > *base => len,
                _ => 0,
            };
            summaries.push(self.load_sealed(*base, next, len, from).await?);
        }
        let fresh = SegmentSummary {
            base: trusted.segment,
            end: trusted.segment,
            bytes: 0,
            max_timestamp: -1,
            max_timestamp_offset: trusted.segment,
            last_append_ms: self.now_ms,
            index: Layout::new(0, 0, &self.config).active().index.clone(),
        };
        let indexed = self.read_summary(trusted.segment).await?.filter(|found| found.bytes <= trusted.position);
        summaries.push(indexed.unwrap_or(fresh));
        self.layout = Layout::of_summaries(summaries).ok_or_else(|| self.damaged("segments leave a gap"))?;
        let state_from = match snapshot_at {
            Some((segment, position)) if segment == trusted.segment => position,
            _ => 0,
        };
        let reached = self.load_active(trusted, trusted.position, state_from, false).await?;
        if reached != trusted.position {
            let name = file_name(trusted.segment, FileKind::Log);
            return Err(self.damaged(format!("{name}: byte {reached} is no batch, {} were durable", trusted.position)));
        }
        if recovery == Recovery::Scan {
            self.scan_on(files, trusted).await?;
        }
        Ok(())
    }

    /// The last state saved that lies within what is trusted.
    async fn best_snapshot(
        &self,
        names: &[(Offset, FileKind)],
        files: &BTreeMap<Offset, u64>,
        trusted: Mark,
    ) -> Result<Option<Snapshot>, RecoveryError> {
        for (offset, _) in names.iter().rev().filter(|(_, kind)| *kind == FileKind::Snapshot) {
            let path = self.folder.join(file_name(*offset, FileKind::Snapshot));
            let Some(bytes) = disk::read_whole(&**self.dir.disk(), &path).await? else {
                continue;
            };
            // One that was being written when power failed is passed over.
            let Ok(snapshot) = Snapshot::decode(&bytes) else {
                continue;
            };
            let within = (snapshot.segment_base, snapshot.position) <= (trusted.segment, trusted.position);
            if within && snapshot.offset == *offset && files.contains_key(&snapshot.segment_base) {
                return Ok(Some(snapshot));
            }
        }
        Ok(None)
    }

    async fn read_summary(&self, base: Offset) -> Result<Option<SegmentSummary>, RecoveryError> {
        let path = self.folder.join(file_name(base, FileKind::Index));
        let bytes = disk::read_whole(&**self.dir.disk(), &path).await?;
        Ok(bytes.and_then(|bytes| SegmentSummary::decode(&bytes).ok()).filter(|summary| summary.base == base))
    }

    /// A segment before the last: its index, and its batches from byte `state_from` on into the state.
    async fn load_sealed(
        &mut self,
        base: Offset,
        next: Offset,
        len: u64,
        state_from: u64,
    ) -> Result<SegmentSummary, RecoveryError> {
        let known = self.read_summary(base).await?.filter(|known| known.bytes == len && known.end == next);
        if let Some(known) = &known
            && state_from >= len
        {
            return Ok(known.clone());
        }
        let from = if known.is_some() { state_from } else { 0 };
        let file = self.reader(base).await?;
        let mut layout = Layout::new(base, self.now_ms, &self.config);
        let rebuild = known.is_none();
        let walked = walk(&*file, from, len, false, |position, batch| {
            let Ok(meta) = BatchMeta::of_stored(batch) else {
                return ControlFlow::Break(());
            };
            if rebuild {
                let place = Place { segment: base, position, rolled: false };
                layout.append(&meta, meta.base_offset, place, &self.config, self.now_ms);
            }
            if position >= state_from {
                apply(&mut self.epochs, &mut self.producers, &meta, self.now_ms);
            }
            ControlFlow::Continue(())
        })
        .await?;
        let summary = known.unwrap_or_else(|| layout.active().summary());
        if !walked.complete || summary.end > next {
            let name = file_name(base, FileKind::Log);
            return Err(self.damaged(format!("{name}: byte {} is no batch of it", walked.position)));
        }
        // The last batches of a compacted segment may be gone; the next segment says where it ended.
        Ok(SegmentSummary { end: next, ..summary })
    }

    /// Batches of the last segment up to byte `limit`: into the index what that lacks, into the state what lies
    /// from `state_from` on. Answers the byte it got to.
    async fn load_active(
        &mut self,
        trusted: Mark,
        limit: u64,
        state_from: u64,
        check: bool,
    ) -> Result<u64, RecoveryError> {
        let base = trusted.segment;
        let from = self.layout.active().bytes.min(state_from);
        if from >= limit {
            return Ok(limit);
        }
        let file = self.reader(base).await?;
        let walked = walk(&*file, from, limit, check, |position, batch| {
            let Ok(meta) = BatchMeta::of_stored(batch) else {
                return ControlFlow::Break(());
            };
            if position >= self.layout.active().bytes {
                if check && meta.base_offset != self.layout.end() {
                    return ControlFlow::Break(());
                }
                let place = Place { segment: base, position, rolled: false };
                self.layout.append(&meta, meta.base_offset, place, &self.config, self.now_ms);
            }
            if position >= state_from {
                apply(&mut self.epochs, &mut self.producers, &meta, self.now_ms);
            }
            ControlFlow::Continue(())
        })
        .await?;
        Ok(walked.position)
    }

    /// Beyond what is known to be durable: whatever holds together. It is in the page cache at least, and is made
    /// durable in the end.
    async fn scan_on(&mut self, files: &BTreeMap<Offset, u64>, trusted: Mark) -> Result<(), RecoveryError> {
        let mut mark = trusted;
        loop {
            let len = files.get(&mark.segment).copied().unwrap_or(0);
            let reached = self.load_active(mark, len, mark.position, true).await?;
            if reached > mark.position {
                self.touched = true;
                self.file(mark.segment).await?;
            }
            let end = self.layout.end();
            if reached < len || end == mark.segment || !files.contains_key(&end) {
                return Ok(());
            }
            self.layout.roll(&self.config, self.now_ms);
            // The log may be trimmed to here one day.
            self.save_state().await?;
            mark = Mark { segment: end, position: 0, lsn: mark.lsn };
        }
    }

    // ---- the journal's records

    /// Repeats an append; answers the bytes that are now held back.
    pub(super) async fn append(&mut self, lsn: Lsn, bytes: Bytes) -> Result<usize, RecoveryError> {
        let what = |error| format!("journal record {lsn}: {error}");
        let batch = BatchRef::first(&bytes).map_err(|error| self.damaged(what(error)))?;
        let meta = BatchMeta::of_stored(&batch).map_err(|error| self.damaged(what(error)))?;
        let end = self.layout.end();
        if meta.end_at(meta.base_offset) <= end {
            return Ok(0);
        }
        if meta.base_offset != end {
            // In a log that is scanned, what came before went past the journal and was lost with the page
            // cache. Nothing from here on was acknowledged: that waits until what came before is settled.
            if !(self.is_scanned() && meta.base_offset > end) {
                let what = format!("journal record {lsn} begins at offset {}, the log ends at {end}", meta.base_offset);
                self.broken.get_or_insert(what);
            }
            return Ok(0);
        }
        let place = self.layout.next_place(&meta, &self.config, self.now_ms);
        self.layout.append(&meta, meta.base_offset, place, &self.config, self.now_ms);
        apply(&mut self.epochs, &mut self.producers, &meta, self.now_ms);
        self.touched = true;
        self.hold(place, bytes).await
    }

    fn is_scanned(&self) -> bool {
        self.described.as_ref().is_some_and(|folder| folder.recovery == Recovery::Scan)
    }

    async fn hold(&mut self, place: Place, bytes: Bytes) -> Result<usize, RecoveryError> {
        let size = bytes.len();
        if let Some((held, pieces, total)) = &mut self.held
            && held.segment == place.segment
        {
            pieces.push(bytes);
            *total += size;
            if *total >= WRITE_BYTES {
                self.flush().await?;
                return Ok(0);
            }
            return Ok(size);
        }
        self.flush().await?;
        self.held = Some((place, vec![bytes], size));
        Ok(size)
    }

    /// Writes what is held back.
    pub(super) async fn flush(&mut self) -> Result<(), RecoveryError> {
        if let Some((place, pieces, _)) = self.held.take() {
            self.make_folder().await?;
            self.file(place.segment).await?.write_at(place.position, pieces).await?;
        }
        Ok(())
    }

    /// Where the log is to be cut so that it ends at `to`; what lies before is durable. `None` if it ends there
    /// already, or before.
    pub(super) async fn find_cut(&mut self, lsn: Lsn, to: Offset) -> Result<Option<Mark>, RecoveryError> {
        if to >= self.layout.end() || self.broken.is_some() {
            return Ok(None);
        }
        if to < self.layout.first_base() {
            return Err(self.damaged(format!("journal record {lsn} cuts to {to}, before the log's start")));
        }
        self.flush().await?;
        for file in self.open.values() {
            file.sync_data().await?;
        }
        self.describe().await?;
        let (segment, bytes) = self.layout.find(to).map_or((0, 0), |segment| (segment.base, segment.bytes));
        let file = self.reader(segment).await?;
        let walked = walk(&*file, 0, bytes, false, |_, batch| {
            if batch.header.base_offset >= to { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .await?;
        // The cut itself is not covered before it is carried out.
        Ok(Some(Mark { segment, position: walked.position, lsn: lsn.previous() }))
    }

    /// Cuts the log at `mark`, which the checkpoint names by now.
    pub(super) async fn cut(&mut self, mark: Mark) -> Result<(), RecoveryError> {
        let mut files: BTreeMap<Offset, u64> = BTreeMap::new();
        for segment in self.layout.segments().filter(|segment| segment.base < mark.segment) {
            files.insert(segment.base, segment.bytes);
        }
        files.insert(mark.segment, mark.position);
        self.cut_file(mark.segment, mark.position).await?;
        self.open.retain(|base, _| *base <= mark.segment);
        (self.epochs, self.producers) = (EpochCache::default(), Producers::default());
        self.touched = true;
        self.first_changed = self.first_changed.min(mark.segment);
        let names = self.names().await?;
        // Not as a scan: everything up to the mark is there.
        Box::pin(self.load_state(&names, &files, mark, Recovery::Journal)).await?;
        self.sweep().await
    }

    async fn cut_file(&mut self, base: Offset, bytes: u64) -> Result<(), RecoveryError> {
        let file = self.file(base).await?;
        file.set_len(bytes).await?;
        file.sync_data().await?;
        Ok(())
    }

    /// Repeats a move of the start.
    pub(super) async fn trim(&mut self, to: Offset) -> Result<(), RecoveryError> {
        if to <= self.local_start || self.broken.is_some() {
            return Ok(());
        }
        let end = self.layout.end();
        if to > end {
            if !self.is_scanned() {
                self.broken.get_or_insert(format!("the log ends at {end}, it was to start at {to}"));
                return Ok(());
            }
            // What lay between went past the journal and was lost. What lies below was deleted: it stays so.
            self.held = None;
            self.open.clear();
            self.layout = Layout::new(to, self.now_ms, &self.config);
            self.first_changed = to;
        } else if to == end {
            self.layout.roll(&self.config, self.now_ms);
        }
        if to >= end {
            // Nothing that lies before it will be there to learn the state from.
            self.make_folder().await?;
            self.save_state().await?;
        }
        self.local_start = to;
        self.layout.trim_head(to);
        self.producers.truncate_head(to);
        self.touched = true;
        Ok(())
    }

    /// Prepares a new beginning at `start`; the checkpoint is to name the mark answered before it is carried
    /// out.
    pub(super) async fn prepare_reset(
        &mut self,
        lsn: Lsn,
        start: Offset,
        state: &Bytes,
    ) -> Result<Mark, RecoveryError> {
        let snapshot = Snapshot::decode(state)
            .map_err(|error| self.damaged(format!("journal record {lsn}: producer state: {error}")))?;
        self.held = None;
        self.open.clear();
        self.broken = None;
        self.layout = Layout::new(start, self.now_ms, &self.config);
        (self.epochs, self.producers) = (snapshot.epochs, snapshot.producers);
        self.local_start = start;
        (self.touched, self.first_changed) = (true, start);
        self.make_folder().await?;
        self.write_small(&file_name(start, FileKind::Snapshot), state.clone()).await?;
        self.describe().await?;
        Ok(Mark { segment: start, position: 0, lsn: lsn.previous() })
    }

    /// Carries it out.
    pub(super) async fn reset(&mut self) -> Result<(), RecoveryError> {
        let start = self.local_start;
        for (offset, kind) in self.names().await? {
            if (offset, kind) != (start, FileKind::Snapshot) {
                self.dir.disk().remove(&self.folder.join(file_name(offset, kind))).await?;
            }
        }
        Ok(())
    }

    /// The folder goes: first its name, then its contents.
    pub(super) async fn delete(self) -> Result<(), RecoveryError> {
        let disk = self.dir.disk();
        let mut name = self.folder.clone().into_os_string();
        name.push(super::DELETED);
        let gone = PathBuf::from(name);
        match disk.rename(&self.folder, &gone).await {
            Ok(()) => {}
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        disk.sync_dir(self.dir.path()).await?;
        Ok(disk.remove_dir_all(&gone).await?)
    }

    // ---- the end

    /// Makes all of it durable.
    pub(super) async fn finish(&mut self) -> Result<(), RecoveryError> {
        self.flush().await?;
        if !self.touched {
            return Ok(());
        }
        self.make_folder().await?;
        self.save_state().await?;
        let changed: Vec<(Offset, Bytes)> = self
            .layout
            .segments()
            .filter(|segment| segment.base >= self.first_changed && !segment.is_empty())
            .map(|segment| (segment.base, segment.summary().encode()))
            .collect();
        for (base, summary) in changed {
            self.write_small(&file_name(base, FileKind::Index), summary).await?;
        }
        for file in self.open.values() {
            file.sync_data().await?;
        }
        self.describe().await
    }

    /// Saves the state at the end, durably but for its name.
    async fn save_state(&self) -> Result<(), DiskError> {
        let active = self.layout.active();
        let (end, base, bytes) = (active.end, active.base, active.bytes);
        let name = file_name(end, FileKind::Snapshot);
        let disk = self.dir.disk();
        let path = self.folder.join(&name);
        if snapshot::is_saved(&**disk, &path, end, base, bytes).await? {
            disk.open(&path, OpenMode::Write).await?.sync_data().await
        } else {
            let state = snapshot::encode_parts(end, base, bytes, &self.epochs, &self.producers);
            self.write_small(&name, state).await
        }
    }

    async fn write_small(&self, name: &str, contents: Bytes) -> Result<(), DiskError> {
        let file = self.dir.disk().open(&self.folder.join(name), OpenMode::OpenOrCreate).await?;
        file.set_len(0).await?;
        file.write_at(0, vec![contents]).await?;
        file.sync_data().await
    }

    /// Writes `partition.firn`, and makes it and the folder's other names durable.
    async fn describe(&mut self) -> Result<(), RecoveryError> {
        let before = self.described.take();
        let recovery = before.as_ref().map_or(Recovery::Journal, |folder| folder.recovery);
        let topic = before.map(|folder| folder.topic).unwrap_or_default();
        let described = Folder { tp: self.tp, topic, local_start: self.local_start, recovery };
        disk::replace(&**self.dir.disk(), &self.folder, folder::NAME, described.encode()).await?;
        self.described = Some(described);
        Ok(())
    }

    /// Why it cannot be what was acknowledged, if so.
    pub(super) fn broken(&self) -> Option<RecoveryError> {
        self.broken.as_ref().map(|what| self.damaged(what.clone()))
    }

    /// What the checkpoint says of it from now on.
    pub(super) fn mark(&self, lsn: Lsn) -> Mark {
        Mark { segment: self.layout.active().base, position: self.layout.active().bytes, lsn }
    }

    /// Unlinks files that are no part of the log; nothing refers to them any more.
    pub(super) async fn sweep(&self) -> Result<(), RecoveryError> {
        let (first, end) = (self.layout.first_base(), self.layout.end());
        for (offset, kind) in self.names().await? {
            let stays = match kind {
                FileKind::Snapshot => (first..=end).contains(&offset),
                FileKind::Log | FileKind::Index => self.layout.segments().any(|segment| segment.base == offset),
            };
            if !stays {
                self.dir.disk().remove(&self.folder.join(file_name(offset, kind))).await?;
            }
        }
        Ok(())
    }

    pub(super) fn into_found(self, lsn: Lsn) -> Found {
        Found {
            tp: self.tp,
            topic: self.described.as_ref().map(|folder| folder.topic.clone()).filter(|topic| !topic.is_empty()),
            log: Restored {
                local_start: self.local_start,
                layout: self.layout,
                epochs: self.epochs,
                producers: if planted(Bug::DuplicateSequence) { Default::default() } else { self.producers },
            },
            described: self.described.map(|folder| folder.recovery),
            lsn,
        }
    }

    async fn make_folder(&mut self) -> Result<(), RecoveryError> {
        if !self.on_disk {
            self.dir.disk().create_dir_all(&self.folder).await?;
            self.on_disk = true;
        }
        Ok(())
    }

    async fn len_of(&self, base: Offset) -> Result<u64, DiskError> {
        let path = self.folder.join(file_name(base, FileKind::Log));
        let file = self.dir.disk().open(&path, OpenMode::Read).await?;
        file.size().await
    }

    async fn reader(&self, base: Offset) -> Result<Arc<dyn DiskFile>, DiskError> {
        if let Some(file) = self.open.get(&base) {
            return Ok(Arc::clone(file));
        }
        self.dir.disk().open(&self.folder.join(file_name(base, FileKind::Log)), OpenMode::Read).await
    }

    /// A file to be written to; synced in the end.
    async fn file(&mut self, base: Offset) -> Result<Arc<dyn DiskFile>, RecoveryError> {
        if let Some(file) = self.open.get(&base) {
            return Ok(Arc::clone(file));
        }
        let path = self.folder.join(file_name(base, FileKind::Log));
        let file = self.dir.disk().open(&path, OpenMode::OpenOrCreate).await?;
        self.open.insert(base, Arc::clone(&file));
        Ok(file)
    }

    fn damaged(&self, what: impl Into<String>) -> RecoveryError {
        RecoveryError::Damaged { tp: self.tp, folder: self.folder.display().to_string(), what: what.into() }
    }
}

fn apply(epochs: &mut EpochCache, producers: &mut Producers, meta: &BatchMeta, now_ms: Millis) {
    epochs.assign(meta.leader_epoch, meta.base_offset);
    producers.apply(meta, meta.base_offset, now_ms);
}
