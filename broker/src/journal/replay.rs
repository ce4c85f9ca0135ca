//! Reading a journal back after a start: what is in it, in order, up to where it was cut off.
//!
//! Replay stops at the first frame that does not validate or does not continue the positions. If any
//! valid frame behind that point says that the point had been durable, it is corruption, and an error; if
//! none does, it was the end, perhaps a torn one. A journal is never continued in a file that was read
//! back.

use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proto::ids::{DirectoryId, TopicPartition};
use tokio::sync::mpsc;

use super::checkpoint::Checkpoint;
use super::files::{self, Files, Slot, Table, Used};
use super::format::FrameError;
use super::reader::{FileReader, ReadError};
use super::record::{Lsn, OwnedRecord};
use super::task::Task;
use super::{Config, GroupSink, Handle, Journal, Shared};
use crate::disk::{Disk, DiskError, EntryKind, OpenMode};

/// Why a journal cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A file is no journal file of this version.
    #[error(transparent)]
    File(#[from] ReadError),
    /// A file of another data directory.
    #[error("journal file {} was made for directory {found}, not for {expected}", path.display())]
    ForeignDirectory {
        /// The file.
        path: PathBuf,
        /// The directory that was opened.
        expected: DirectoryId,
        /// The directory the file was made for.
        found: DirectoryId,
    },
    /// Two files claim the same place in the order.
    #[error("journal files {} and {} have the same sequence", first.display(), second.display())]
    SameSequence {
        /// One.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// Records that were durable cannot be read any more.
    #[error(
        "journal file {} is corrupt at byte {position}: record {lsn} was durable and cannot be \
         read (a later frame says so, in {} at byte {later_position})",
        path.display(), later.display()
    )]
    Corrupt {
        /// The file in which reading stopped.
        path: PathBuf,
        /// Where, in bytes from its start.
        position: u64,
        /// The position of the first record that is missing.
        lsn: Lsn,
        /// The file of the frame that proves it.
        later: PathBuf,
        /// The byte after that frame.
        later_position: u64,
    },
    /// A frame is as it was written, but not understood.
    #[error("journal file {} at byte {position}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The frame, in bytes from the start of the file.
        position: u64,
        /// What is not understood.
        error: FrameError,
    },
    /// The journal starts after the point up to which the checkpoint settled everything: files, or the
    /// checkpoint, are gone.
    #[error(
        "the journal in {} starts at record {found}, but the checkpoint needs it from {expected}",
        directory.display()
    )]
    Missing {
        /// The data directory.
        directory: PathBuf,
        /// What the checkpoint needs.
        expected: Lsn,
        /// What there is.
        found: Lsn,
    },
}

/// A journal being read back.
#[derive(Debug)]
pub struct Replay {
    disk: Arc<dyn Disk>,
    directory_path: PathBuf,
    directory: DirectoryId,
    config: Config,
    checkpoint: Checkpoint,
    table: Table,
    next_sequence: u64,
    next_number: u64,
    /// Files still to be read, the current one first.
    files: VecDeque<Found>,
    /// Position of the next record.
    expected: Lsn,
    pending: VecDeque<(Lsn, OwnedRecord)>,
    replayed: u64,
    /// Where reading stopped, until a following file continues it.
    stopped: Option<(PathBuf, u64)>,
}

#[derive(Debug)]
struct Found {
    reader: FileReader,
    slot: Slot,
    last_lsn: Option<Lsn>,
    partitions: HashSet<TopicPartition>,
}

impl Replay {
    pub(super) async fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        directory: DirectoryId,
        config: Config,
        checkpoint: Checkpoint,
    ) -> Result<Self, OpenError> {
        // Nor must the names be gone that records will go under.
        disk.sync_dir(dir).await?;
        let (mut found, next_number) = find_files(&*disk, dir, directory).await?;
        found.sort_by_key(|file| file.reader.header().sequence);
        for pair in found.windows(2) {
            if let [a, b] = pair
                && a.reader.header().sequence == b.reader.header().sequence
            {
                return Err(OpenError::SameSequence { first: a.slot.path.clone(), second: b.slot.path.clone() });
            }
        }
        let next_sequence = found.last().map_or(1, |file| file.reader.header().sequence + 1);
        let mut replay = Self {
            directory_path: dir.to_owned(),
            directory,
            table: Table::new(config.file_bytes),
            config,
            next_sequence,
            next_number,
            expected: checkpoint.replay_from,
            checkpoint,
            files: found.into(),
            pending: VecDeque::new(),
            replayed: 0,
            stopped: None,
            disk,
        };
        replay.skip_settled().await?;
        Ok(replay)
    }

    /// Passes over files that end before what the checkpoint needs.
    async fn skip_settled(&mut self) -> Result<(), OpenError> {
        let needed = self.checkpoint.replay_from;
        let mut start = None;
        let mut lowest = None;
        for (index, file) in self.files.iter_mut().enumerate() {
            let Some(first) = first_lsn(&mut file.reader).await? else {
                continue;
            };
            lowest = lowest.or(Some(first));
            if first <= needed {
                start = Some((index, first));
            }
        }
        match (start, lowest) {
            (Some((index, first)), _) => {
                self.expected = first;
                for settled in self.files.drain(..index) {
                    self.table.found_free(settled.slot);
                }
                Ok(())
            }
            (None, Some(found)) => {
                Err(OpenError::Missing { directory: self.directory_path.clone(), expected: needed, found })
            }
            (None, None) => Ok(()),
        }
    }

    /// The next record that the checkpoint does not cover, and its position; `None` at the end.
    ///
    /// # Errors
    /// [`OpenError::Corrupt`] if what follows was durable and is damaged. Not to be called again after an error.
    pub async fn next(&mut self) -> Result<Option<(Lsn, OwnedRecord)>, OpenError> {
        loop {
            while let Some((lsn, record)) = self.pending.pop_front() {
                if !self.checkpoint.covers(&record.tp(), lsn) {
                    self.replayed += 1;
                    return Ok(Some((lsn, record)));
                }
            }
            if !self.advance().await? {
                return Ok(None);
            }
        }
    }

    /// How many records [`Replay::next`] has handed out.
    pub const fn replayed(&self) -> u64 {
        self.replayed
    }

    /// The checkpoint it was opened with.
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Reads one frame, or passes on to the next file; `false` at the end.
    async fn advance(&mut self) -> Result<bool, OpenError> {
        let Some(file) = self.files.front_mut() else {
            return Ok(false);
        };
        let position = file.reader.position();
        match file.reader.frame().await? {
            Some(Ok(frame)) if frame.header.first_lsn == self.expected => {
                self.stopped = None;
                let next = frame.header.next_lsn();
                for (lsn, record) in (self.expected.0..).map(Lsn).zip(frame.records) {
                    file.partitions.insert(record.tp());
                    self.pending.push_back((lsn, record));
                }
                if next > self.expected {
                    file.last_lsn = Some(next.previous());
                }
                self.expected = next;
                return Ok(true);
            }
            Some(Err(error @ FrameError::Entry(_))) => {
                return Err(OpenError::Unreadable { path: file.slot.path.clone(), position, error });
            }
            Some(Ok(_) | Err(_)) | None => {}
        }
        // Here it stops, unless the next file goes on at the same point. What lies behind must not
        // contradict that.
        let stopped = self.stopped.get_or_insert_with(|| (file.slot.path.clone(), position));
        file.reader.rewind(position);
        while let Some(later) = file.reader.seek_frame().await? {
            if later.synced_to >= self.expected {
                return Err(OpenError::Corrupt {
                    path: stopped.0.clone(),
                    position: stopped.1,
                    lsn: self.expected,
                    later: file.slot.path.clone(),
                    later_position: file.reader.position(),
                });
            }
        }
        if let Some(done) = self.files.pop_front() {
            match done.last_lsn {
                Some(last_lsn) => {
                    self.table.found_used(Used { slot: done.slot, last_lsn, partitions: done.partitions })
                }
                None => self.table.found_free(done.slot),
            }
        }
        Ok(true)
    }

    /// Reads what is left without looking at it, and opens the journal for new records, in a new file.
    /// Files that were read back stay until [`Journal::checkpointed`] passes them.
    ///
    /// # Errors
    /// As [`Replay::next`].
    pub async fn start(mut self, sink: Arc<dyn GroupSink>) -> Result<Journal, OpenError> {
        while self.advance().await? {
            self.pending.clear();
        }
        let next_lsn = self.expected.max(self.checkpoint.replay_from);
        let shared = Arc::new(Shared::new(self.directory_path, self.config, sink, next_lsn, self.table));
        let (orders, ordered) = mpsc::channel(1);
        let (making, made) = mpsc::channel(1);
        let maker = files::make_files(Arc::clone(&self.disk), Arc::clone(&shared.pool), ordered, making);
        self.disk.dedicate("journal-files", Box::pin(maker))?;
        let mut files =
            Files::new(Arc::clone(&shared), self.directory, self.next_sequence, self.next_number, orders, made);
        files.order_first();
        let task = Task::new(Arc::clone(&shared), files);
        self.disk.dedicate("journal", Box::pin(task.run()))?;
        Ok(Journal { handle: Arc::new(Handle { shared }) })
    }
}

/// The journal files of `dir`, and the number after the highest.
async fn find_files(disk: &dyn Disk, dir: &Path, directory: DirectoryId) -> Result<(Vec<Found>, u64), OpenError> {
    let mut found = Vec::new();
    let mut next_number = 1;
    for entry in disk.list(dir).await? {
        if entry.kind != EntryKind::File {
            continue;
        }
        if files::is_leftover(&entry.name) {
            disk.remove(&entry.path).await?;
            continue;
        }
        let Some(number) = files::file_number(&entry.name) else {
            continue;
        };
        next_number = next_number.max(number + 1);
        // The last process may have been killed with a frame on its way to the device. What is read here will be acted
        // on, so that it must not be gone after a power cut that follows.
        disk.open(&entry.path, OpenMode::Write).await?.sync_data().await?;
        let reader = FileReader::open(disk, &entry.path).await?;
        let header = *reader.header();
        if header.directory != directory {
            return Err(OpenError::ForeignDirectory { path: entry.path, expected: directory, found: header.directory });
        }
        found.push(Found {
            slot: Slot { path: entry.path, capacity: reader.len() },
            reader,
            last_lsn: None,
            partitions: HashSet::new(),
        });
    }
    Ok((found, next_number))
}

/// Position at which the first frame of a file starts, if it validates. Leaves the reader at the start.
async fn first_lsn(reader: &mut FileReader) -> Result<Option<Lsn>, DiskError> {
    let start = reader.position();
    let first = reader.frame().await?;
    reader.rewind(start);
    Ok(match first {
        Some(Ok(frame)) => Some(frame.header.first_lsn),
        Some(Err(_)) | None => None,
    })
}
