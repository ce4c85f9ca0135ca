//! Reading batches: from memory where they still are, else from segments, across their borders.
//!
//! A read is planned under the partition's lock (which slices, which parts of which files) and carried out
//! without it. A batch is never split, nothing at or above the bound is handed out, and the byte limit holds
//! but for a first batch that alone exceeds it (KIP-74).

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use proto::ids::Offset;
use proto::records::{BatchHeader, BatchRef, HEADER_LEN};

use super::shared::{Inner, Shared, TailEntry};
use super::types::{Chunks, DiskRead, Isolation, Read, ReadData, ReadError, ReadResult};
use crate::disk::{DiskError, DiskFile};
use crate::journal::{Group, GroupSeq};
use crate::log::dir::LogDir;
use crate::log::observer::Failure;
use crate::log::segment::Segment;

/// Bytes read from a segment at once.
const CHUNK_BYTES: usize = 1 << 20;

/// One run of batches.
#[derive(Debug, Clone)]
enum Part {
    Memory {
        bytes: Bytes,
        end: Offset,
    },
    /// Bytes `[position, limit)` of a segment; begins at or before the offset wanted.
    File {
        segment: Arc<Segment>,
        position: u64,
        limit: u64,
    },
}

/// What bounds a read.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    from: Offset,
    /// Exclusive.
    until: Offset,
    max_bytes: usize,
    min_one: bool,
}

/// See [`super::handle::PartitionHandle::read`].
pub(super) fn read(shared: &Arc<Shared>, request: Read) -> Result<ReadResult, ReadError> {
    let mut result;
    let cursor = {
        let inner = shared.inner.lock();
        inner.core.check_reader(request.leader_epoch, request.reader)?;
        let offsets = inner.core.offsets();
        let end = inner.core.visible_end(request.isolation);
        result = ReadResult {
            data: ReadData::Empty,
            high_watermark: offsets.high_watermark,
            last_stable: offsets.last_stable,
            log_start: offsets.log_start,
            aborted: Vec::new(),
            diverging: None,
            visible_end: end,
        };
        if let Some(epoch) = request.last_fetched_epoch {
            result.diverging = inner.diverging(epoch, request.offset)?;
            if result.diverging.is_some() {
                return Ok(result);
            }
        }
        // A follower may not have what its leader showed this reader already.
        if request.offset > offsets.log_end && !inner.core.leadership().leads {
            return Err(ReadError::OffsetNotAvailable);
        }
        if request.offset < offsets.log_start || request.offset > offsets.log_end {
            return Err(ReadError::OffsetOutOfRange {
                log_start: offsets.log_start,
                log_end: offsets.log_end,
                high_watermark: offsets.high_watermark,
            });
        }
        if request.offset < offsets.local_start {
            result.data = ReadData::Remote;
            return Ok(result);
        }
        if request.offset >= end {
            return Ok(result);
        }
        if request.isolation == Isolation::ReadCommitted {
            result.aborted = inner.core.producers().aborted_in(request.offset, end);
        }
        let bounds =
            Bounds { from: request.offset, until: end, max_bytes: request.max_bytes, min_one: request.min_one };
        Cursor::new(inner.plan(&shared.dir, bounds), bounds)
    };
    result.data = run_now(shared, cursor, &mut result.aborted)?;
    Ok(result)
}

/// Carries a read out as far as that goes without waiting.
fn run_now(
    shared: &Arc<Shared>,
    mut cursor: Cursor,
    aborted: &mut Vec<super::types::AbortedTxn>,
) -> Result<ReadData, ReadError> {
    let blocked = loop {
        let Some(want) = cursor.next() else {
            break false;
        };
        let Some(file) = want.segment.opened() else {
            break true;
        };
        match file.read_at_nowait(want.position, want.len) {
            Ok(Some(bytes)) if bytes.len() >= want.least => {
                cursor.feed(&bytes).map_err(|error| shared.blame(error))?;
            }
            Ok(_) => break true,
            Err(error) => return Err(shared.read_failed(&error)),
        }
    };
    if blocked && cursor.taken == 0 {
        let shared = Arc::clone(shared);
        return Ok(ReadData::Disk(DiskRead::new(async move {
            cursor.run(&shared.dir).await.map_err(|error| shared.blame(error))?;
            shared.served(&cursor);
            Ok(cursor.chunks)
        })));
    }
    aborted.retain(|txn| txn.first_offset < cursor.at);
    shared.served(&cursor);
    Ok(if cursor.chunks.is_empty() { ReadData::Empty } else { ReadData::Ready(cursor.chunks) })
}

/// Reads whole batches of `[from, until)`, waiting for the device; at most `max_bytes`, but at least one
/// batch if there is one. For tiering, look-ups by time and rebuilding state: who leads does not matter.
///
/// # Errors
/// [`ReadError::OffsetOutOfRange`] if `from` is not local; what the device says.
pub(super) async fn read_range(
    shared: &Arc<Shared>,
    from: Offset,
    until: Offset,
    max_bytes: usize,
) -> Result<Chunks, ReadError> {
    let mut cursor = {
        let inner = shared.inner.lock();
        let offsets = inner.core.offsets();
        // What DeleteRecords hid within a segment is still there, and states are rebuilt from it.
        if from < inner.core.layout().first_base() || from > offsets.log_end {
            return Err(ReadError::OffsetOutOfRange {
                log_start: offsets.local_start,
                log_end: offsets.log_end,
                high_watermark: offsets.high_watermark,
            });
        }
        let until = until.min(offsets.log_end);
        let bounds = Bounds { from, until, max_bytes, min_one: true };
        Cursor::new(inner.plan(&shared.dir, bounds), bounds)
    };
    cursor.run(&shared.dir).await.map_err(|error| shared.blame(error))?;
    shared.inner.lock().note(&cursor);
    Ok(cursor.chunks)
}

/// Shows every batch from the one that holds `from` up to `until` to `look`, until that breaks.
///
/// # Errors
/// As [`read_range`].
pub(super) async fn scan<B>(
    shared: &Arc<Shared>,
    from: Offset,
    until: Offset,
    mut look: impl FnMut(&BatchRef<'_>) -> Result<ControlFlow<B>, ReadError> + Send,
) -> Result<Option<B>, ReadError> {
    let mut at = from;
    while at < until {
        let chunks = read_range(shared, at, until, CHUNK_BYTES).await?;
        let before = at;
        for chunk in &chunks {
            for batch in proto::records::batches(chunk) {
                let batch = batch.map_err(|error| ReadError::Corrupt(error.to_string()))?;
                at = batch.header.last_offset() + 1;
                if let ControlFlow::Break(found) = look(&batch)? {
                    return Ok(Some(found));
                }
            }
        }
        if at == before {
            break;
        }
    }
    Ok(None)
}

impl Shared {
    /// A read failed: the directory is not to be trusted any more, unless it was not the disk's fault.
    pub(super) fn read_failed(&self, error: &DiskError) -> ReadError {
        if error.is_shortage() {
            tracing::warn!(partition = %self.tp, %error, "a read has to be repeated");
            return ReadError::Busy;
        }
        self.dir.fail(error.to_string());
        ReadError::Offline
    }

    /// A reader got what the cursor took.
    fn served(&self, cursor: &Cursor) {
        self.inner.lock().note(cursor);
        if cursor.taken > 0 {
            self.dir.observer().read(cursor.from_memory, cursor.taken - cursor.from_memory);
        }
    }

    fn blame(&self, error: CursorError) -> ReadError {
        match error {
            CursorError::Corrupt(what) => {
                self.dir.observer().failed(Failure::Corrupt);
                tracing::error!(partition = %self.tp, topic = %self.topic.read(), what, "segment is corrupt");
                ReadError::Corrupt(what)
            }
            CursorError::Failed(error) => self.read_failed(&error),
        }
    }
}

impl Inner {
    /// Where the history of a reader that has `epoch` up to `offset` leaves ours (KIP-595).
    fn diverging(
        &self,
        epoch: proto::ids::LeaderEpoch,
        offset: Offset,
    ) -> Result<Option<crate::log::epochs::EpochEnd>, ReadError> {
        let offsets = self.core.offsets();
        let out_of_range = ReadError::OffsetOutOfRange {
            log_start: offsets.log_start,
            log_end: offsets.log_end,
            high_watermark: offsets.high_watermark,
        };
        let end = self.core.epochs().end_of(epoch, offsets.log_end).ok_or(out_of_range)?;
        Ok((end.epoch != epoch || end.end < offset).then_some(end))
    }

    /// Which slices and which parts of files hold what is wanted.
    fn plan(&self, dir: &LogDir, bounds: Bounds) -> Vec<Part> {
        dir.tail().with(|group| {
            let lookup = |at: usize, entry: &TailEntry| self.slice(dir, group, at, entry);
            let mut parts = Vec::new();
            let mut room = bounds.max_bytes as u64;
            let mut offset = bounds.from;
            let mut at = self.tail.partition_point(|entry| entry.end <= offset);
            while offset < bounds.until && (room > 0 || parts.is_empty()) {
                let entry = self.tail.get(at).filter(|entry| entry.base <= offset);
                if let Some(bytes) = entry.and_then(|entry| lookup(at, entry)) {
                    room = room.saturating_sub(bytes.len() as u64);
                    offset = entry.map_or(offset, |entry| entry.end);
                    parts.push(Part::Memory { bytes, end: offset });
                    at += 1;
                    continue;
                }
                let next = (at..self.tail.len()).find_map(|at| {
                    let entry = self.tail.get(at).filter(|entry| entry.base > offset)?;
                    lookup(at, entry).map(|_| (at, *entry))
                });
                room = self.plan_files(offset, next.map(|(_, entry)| entry), room, &mut parts);
                match next {
                    Some((next, entry)) => (at, offset) = (next, entry.base),
                    None => break,
                }
            }
            parts
        })
    }

    /// The parts of segments from `offset` up to the batch `stop`, or to the end; answers the room left.
    fn plan_files(&self, offset: Offset, stop: Option<TailEntry>, mut room: u64, parts: &mut Vec<Part>) -> u64 {
        for segment in self.core.layout().from(offset) {
            let stop_here = stop.filter(|stop| stop.segment == segment.base);
            let limit = stop_here.map_or(segment.bytes, |stop| stop.position);
            let position = self.hint(offset, segment.base).unwrap_or_else(|| segment.index.floor(offset)).min(limit);
            if let Some(file) = self.files.get(&segment.base)
                && position < limit
            {
                parts.push(Part::File { segment: Arc::clone(file), position, limit });
                room = room.saturating_sub(limit - position);
            }
            if stop_here.is_some() || room == 0 {
                break;
            }
        }
        room
    }

    fn slice(
        &self,
        dir: &LogDir,
        group: &dyn Fn(GroupSeq) -> Option<Arc<Group>>,
        at: usize,
        entry: &TailEntry,
    ) -> Option<Bytes> {
        if let Some(group) = group(entry.slice.group) {
            return Some(group.slice(entry.slice.range()));
        }
        // Not sealed yet: only replicas read that far.
        if at >= self.written { dir.journal().ok()?.pending(&entry.slice) } else { None }
    }

    fn note(&mut self, cursor: &Cursor) {
        if let Some((offset, segment, position)) = cursor.stopped {
            self.remember(offset, segment, position);
        }
    }
}

/// What the cursor needs next.
struct Want {
    segment: Arc<Segment>,
    position: u64,
    len: usize,
    /// Fewer bytes than this are of no use.
    least: usize,
}

#[derive(Debug)]
enum CursorError {
    Corrupt(String),
    Failed(DiskError),
}

impl From<CursorError> for ReadError {
    fn from(error: CursorError) -> Self {
        match error {
            CursorError::Corrupt(what) => Self::Corrupt(what),
            CursorError::Failed(error) => Self::Corrupt(error.to_string()),
        }
    }
}

/// Walks the parts of a plan: says what to read, takes batches out of what was read.
struct Cursor {
    parts: std::vec::IntoIter<Part>,
    file: Option<(Arc<Segment>, u64, u64)>,
    /// Next offset wanted.
    at: Offset,
    bounds: Bounds,
    left: usize,
    taken: usize,
    /// Bytes of these that were in memory.
    from_memory: usize,
    /// Size of the batch that did not fit into the last piece.
    need: usize,
    done: bool,
    chunks: Chunks,
    stopped: Option<(Offset, Offset, u64)>,
}

impl Cursor {
    fn new(parts: Vec<Part>, bounds: Bounds) -> Self {
        Self {
            parts: parts.into_iter(),
            file: None,
            at: bounds.from,
            bounds,
            left: bounds.max_bytes,
            taken: 0,
            from_memory: 0,
            need: HEADER_LEN,
            done: false,
            chunks: Vec::new(),
            stopped: None,
        }
    }

    fn fits(&self, size: usize) -> bool {
        size <= self.left || (self.taken == 0 && self.bounds.min_one)
    }

    fn take(&mut self, bytes: Bytes) {
        self.left = self.left.saturating_sub(bytes.len());
        self.taken += bytes.len();
        self.chunks.push(bytes);
    }

    /// Takes what is in memory; answers what has to be read from a file next.
    fn next(&mut self) -> Option<Want> {
        while !self.done {
            match &self.file {
                Some((_, position, limit)) if position >= limit => self.file = None,
                Some((segment, position, limit)) => {
                    let rest = usize::try_from(limit - position).unwrap_or(usize::MAX);
                    let len = self.left.clamp(HEADER_LEN, CHUNK_BYTES).max(self.need).min(rest);
                    let least = self.need.min(rest);
                    return Some(Want { segment: Arc::clone(segment), position: *position, len, least });
                }
                None => match self.parts.next() {
                    None => self.done = true,
                    Some(Part::File { segment, position, limit }) => {
                        self.need = HEADER_LEN;
                        self.file = Some((segment, position, limit));
                    }
                    Some(Part::Memory { bytes, end }) => {
                        if !self.fits(bytes.len()) {
                            self.done = true;
                        } else {
                            self.at = end;
                            self.stopped = None;
                            self.from_memory += bytes.len();
                            self.take(bytes);
                        }
                    }
                },
            }
        }
        None
    }

    /// Takes batches out of the piece that [`Cursor::next`] asked for.
    fn feed(&mut self, piece: &Bytes) -> Result<(), CursorError> {
        let Some((segment, position, limit)) = self.file.take() else {
            return Ok(());
        };
        let mut begin = 0;
        let mut end = 0;
        let mut room = self.left;
        loop {
            let rest = piece.get(end..).unwrap_or_default();
            if rest.len() < HEADER_LEN {
                if limit.saturating_sub(position + end as u64) < HEADER_LEN as u64 && position + (end as u64) < limit {
                    return Err(beyond(&segment, limit));
                }
                self.need = HEADER_LEN;
                break;
            }
            let header = BatchHeader::parse(rest).map_err(|error| {
                let at = position + end as u64;
                CursorError::Corrupt(format!("{} at byte {at}: {error}", segment.path().display()))
            })?;
            let size = header.size();
            if position + (end + size) as u64 > limit {
                return Err(beyond(&segment, limit));
            }
            if header.base_offset >= self.bounds.until {
                self.done = true;
                break;
            }
            if header.last_offset() < self.at && end == begin {
                // Before the offset wanted; may even reach beyond the piece.
                (begin, end) = (end + size, end + size);
                self.need = HEADER_LEN;
                if end >= piece.len() {
                    break;
                }
                continue;
            }
            let first = self.taken == 0 && end == begin;
            if size > room && !(first && self.bounds.min_one) {
                self.done = true;
                break;
            }
            if size > rest.len() {
                self.need = size;
                break;
            }
            end += size;
            room = room.saturating_sub(size);
            self.at = header.last_offset() + 1;
        }
        let next = position + end as u64;
        if end > begin {
            self.stopped = Some((self.at, segment.base, next));
            self.take(piece.slice(begin..end));
        }
        self.file = Some((segment, next, limit));
        Ok(())
    }

    /// Carries it out to the end, waiting for the device.
    async fn run(&mut self, dir: &LogDir) -> Result<(), CursorError> {
        while let Some(want) = self.next() {
            let file: Arc<dyn DiskFile> = match want.segment.open(&**dir.disk()).await {
                Ok(file) => file,
                // Trimmed or removed since it was planned: whoever reads on is told then where to go.
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) => return Err(CursorError::Failed(error)),
            };
            let piece = file.read_at(want.position, want.len).await.map_err(CursorError::Failed)?;
            if piece.len() < want.least {
                let path = want.segment.path().display();
                return Err(CursorError::Corrupt(format!(
                    "{path} ends at byte {}",
                    want.position + piece.len() as u64
                )));
            }
            self.feed(&piece)?;
        }
        Ok(())
    }
}

fn beyond(segment: &Segment, limit: u64) -> CursorError {
    CursorError::Corrupt(format!("{}: a batch reaches beyond byte {limit}", segment.path().display()))
}
