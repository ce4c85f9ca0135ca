//! Room for the quorum's store on a disk that is full: a few MiB beside it, given up piece by piece.
//!
//! redb cannot be used any more once a write failed, and openraft ends with it. So whoever fills the disk must not be
//! met by a write of ours: where one finds no room, a piece of the slack is freed and the write repeated. Until the
//! slack is whole again, commands that make the metadata grow are refused.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::{BackendError, StorageBackend};
use rustix::fs::fstatvfs;

/// Its length when it is whole, in bytes.
const WHOLE: u64 = 4 << 20;
/// What is freed at a time.
const PIECE: u64 = 512 << 10;

/// How much there is for writes that find no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Too little for anything that can wait.
    Low,
    /// Some was given up: only what makes room, or cannot wait.
    Some,
    /// All of it.
    Whole,
}

/// The slack. Its file holds nothing.
#[derive(Debug)]
pub(crate) struct Slack {
    file: File,
    /// Bytes of it. Locked while it grows or shrinks: a write that finds no room meanwhile waits, and gets what is there.
    held: Mutex<u64>,
}

impl Slack {
    /// The slack in the file at `path`, made as far as there is room. Blocks.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let held = file.metadata()?.len();
        let slack = Self { file, held: Mutex::new(held) };
        slack.refill();
        Ok(slack)
    }

    /// How much is left.
    pub(crate) fn level(&self) -> Level {
        match *self.held.lock() {
            held if held >= WHOLE => Level::Whole,
            held if held >= WHOLE / 2 => Level::Some,
            _ => Level::Low,
        }
    }

    /// Takes back what was given up, if the disk has room for all of it and as much again; answers what there is then. Blocks.
    pub(crate) fn refill(&self) -> Level {
        // Written, not only reserved by length: a sparse file frees nothing.
        let zeros = vec![0; PIECE as usize];
        while self.level() != Level::Whole {
            let mut held = self.held.lock();
            let missing = WHOLE.saturating_sub(*held);
            // Others must not meet a disk that is full because of it.
            let room = fstatvfs(&self.file).map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
            if room < 2 * missing {
                break;
            }
            let piece = zeros.get(..missing.min(PIECE) as usize).unwrap_or(&zeros);
            if let Err(error) = self.file.write_all_at(piece, *held) {
                tracing::debug!(%error, "no room for the slack of the metadata store");
                let _ = self.file.set_len(*held);
                break;
            }
            *held += piece.len() as u64;
        }
        self.level()
    }

    /// Gives up a piece; whether there was one.
    pub(super) fn give_up(&self) -> bool {
        let mut held = self.held.lock();
        let left = held.saturating_sub(PIECE);
        if *held == 0 || self.file.set_len(left).is_err() {
            return false;
        }
        *held = left;
        tracing::warn!(left_bytes = left, "the disk of the metadata store is full: using its slack");
        true
    }
}

/// A file of redb's whose writes find room as long as there is slack.
#[derive(Debug)]
pub(super) struct Cushioned<B> {
    inner: B,
    slack: Arc<Slack>,
}

impl<B> Cushioned<B> {
    pub(super) fn new(inner: B, slack: Arc<Slack>) -> Self {
        Self { inner, slack }
    }

    /// Repeats what found no room; positions are absolute, so that it may be.
    fn with_room(&self, mut act: impl FnMut() -> io::Result<()>) -> io::Result<()> {
        loop {
            match act() {
                Err(error) if is_full(&error) && self.slack.give_up() => {}
                done => return done,
            }
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl<B: StorageBackend> StorageBackend for Cushioned<B> {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with_room(|| self.inner.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        // A sync that failed is never repeated.
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with_room(|| self.inner.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
