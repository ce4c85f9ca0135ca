//! The file system behind a seam: what the journal and the log need from a disk, the real one, and a
//! simulated one that loses power, fails and fills up on command.
//!
//! Both implementations answer to [`conformance::check`]. Nothing here retries: a failed sync is
//! reported once and for good, because the kernel may have dropped the dirty pages with it.

mod bulk;
pub mod conformance;
mod error;
mod local;
mod lock;
pub mod meta;
pub mod sim;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;

pub use error::{DiskError, Operation, worst};
pub use local::LocalDisk;
pub use lock::{DirectoryGuard, DirectoryLock, LockError};
pub use sim::SimDisk;

/// Alignment in bytes of memory, length and position that [`DiskFile::write_sync_at`] asks for.
pub const BLOCK: usize = 4096;

/// A file system.
///
/// Changes of names (create, rename, remove) are durable after [`Disk::sync_dir`] on the directory
/// that holds the name, contents after [`DiskFile::sync_data`].
#[async_trait]
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Opens a file.
    ///
    /// # Errors
    /// Not found or already there, as `mode` says; or the disk's own.
    async fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>, DiskError>;

    /// Renames a file or directory, replacing a file of that name. Atomic.
    async fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError>;

    /// Removes a file. Open handles stay usable.
    async fn remove(&self, path: &Path) -> Result<(), DiskError>;

    /// Creates a directory and those above it; fine if it is there. Durable on return.
    async fn create_dir_all(&self, path: &Path) -> Result<(), DiskError>;

    /// Removes a directory with all that is in it; fine if it is gone.
    async fn remove_dir_all(&self, path: &Path) -> Result<(), DiskError>;

    /// What is in a directory, ordered by name.
    async fn list(&self, dir: &Path) -> Result<Vec<DirEntry>, DiskError>;

    /// Makes the names in `dir` durable.
    async fn sync_dir(&self, dir: &Path) -> Result<(), DiskError>;

    /// Takes an existing directory for this process, without waiting. It is free again when the guard is dropped or the
    /// process ends, however it ends.
    ///
    /// # Errors
    /// [`LockError::InUse`] if another process, or another guard of this one, holds it.
    async fn lock(&self, dir: &Path) -> Result<Box<dyn DirectoryGuard>, LockError>;

    /// Size and free space of the file system that holds `path`.
    async fn space(&self, path: &Path) -> Result<Space, DiskError>;

    /// Runs `work` where it may block without holding up anybody else: a thread of its own on a real
    /// disk, a task of the current runtime in the simulation.
    ///
    /// # Errors
    /// If the system has no thread to give.
    fn dedicate(&self, name: &str, work: BoxFuture<'static, ()>) -> Result<(), DiskError>;
}

/// An open file. All positions are bytes from its start.
#[async_trait]
pub trait DiskFile: fmt::Debug + Send + Sync + 'static {
    /// The name it was opened under.
    fn path(&self) -> &Path;

    /// Its length in bytes.
    async fn size(&self) -> Result<u64, DiskError>;

    /// Up to `len` bytes from `offset`; fewer only at the end of the file.
    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, DiskError>;

    /// Like [`DiskFile::read_at`] without ever waiting for the device: what is in the page cache right
    /// now, which may be less than asked for, or `None` if the first byte is not. `Some` of nothing
    /// means `offset` is at or past the end.
    fn read_at_nowait(&self, offset: u64, len: usize) -> Result<Option<Bytes>, DiskError>;

    /// Writes `data`, one piece after the other, at `offset`. Not durable.
    async fn write_at(&self, offset: u64, data: Vec<Bytes>) -> Result<(), DiskError>;

    /// Writes `data` and returns when it is durable, by the shortest way the file system has. Blocks
    /// its thread on a real disk: only for work started with [`Disk::dedicate`]. Position, length
    /// and memory of `data` are multiples of [`BLOCK`], and the range was written before
    /// ([`DiskFile::zero_fill`]), so that no metadata has to move.
    ///
    /// # Errors
    /// An invalid argument if misaligned. After any error the contents of the range are unknown.
    async fn write_sync_at(&self, offset: u64, data: Bytes) -> Result<(), DiskError>;

    /// Makes all that was written durable, and the length with it.
    async fn sync_data(&self) -> Result<(), DiskError>;

    /// Cuts the file or extends it with zeros. Durable after [`DiskFile::sync_data`].
    async fn set_len(&self, len: u64) -> Result<(), DiskError>;

    /// Reserves space for `[offset, offset + len)` without changing the length, where the file system
    /// knows how; fine if it does not.
    async fn allocate(&self, offset: u64, len: u64) -> Result<(), DiskError>;

    /// Overwrites `[0, len)` with written (not merely reserved) zeros and makes them durable.
    async fn zero_fill(&self, len: u64) -> Result<(), DiskError>;

    /// Says that this range will not be read soon, so that the page cache can drop it once clean.
    async fn evict(&self, offset: u64, len: u64) -> Result<(), DiskError>;
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, read only.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// A new file, for reading and writing; an error if it exists.
    CreateNew,
    /// For reading and writing, created if it does not exist.
    OpenOrCreate,
    /// An existing file, for [`DiskFile::write_sync_at`] and [`DiskFile::zero_fill`] only: past the page cache
    /// where the file system takes that.
    Direct,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Its path, the directory included.
    pub path: PathBuf,
    /// The name alone; names that are not UTF-8 are not listed, Firn makes none.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else.
    Other,
}

/// Size of a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total: u64,
    /// What this process may still write.
    pub free: u64,
}

/// Replaces the file `name` in `dir` by one that holds `contents`: either the old or the new one is
/// there whenever power fails, and the new one once this returns.
///
/// # Errors
/// The disk's; the old file is then still in place, unless its directory could not be synced. A full disk may be tried
/// again, as everything is written anew.
pub async fn replace(disk: &dyn Disk, dir: &Path, name: &str, contents: Bytes) -> Result<(), DiskError> {
    let temporary = dir.join(format!("{name}.tmp"));
    let file = disk.open(&temporary, OpenMode::OpenOrCreate).await?;
    file.set_len(0).await?;
    file.write_at(0, vec![contents]).await?;
    // Nothing counts on the temporary file: if it cannot be synced, it was not written.
    file.sync_data().await.map_err(|error| DiskError { operation: Operation::Write, ..error })?;
    disk.rename(&temporary, &dir.join(name)).await?;
    disk.sync_dir(dir).await
}

/// The whole contents of a file, or `None` if there is no such file.
///
/// # Errors
/// The disk's.
pub async fn read_whole(disk: &dyn Disk, path: &Path) -> Result<Option<Bytes>, DiskError> {
    let file = match disk.open(path, OpenMode::Read).await {
        Ok(file) => file,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let len = usize::try_from(file.size().await?).unwrap_or(usize::MAX);
    file.read_at(0, len).await.map(Some)
}
