//! The real disk, through rustix.
//!
//! Calls that may wait for the device run on the blocking pool, except those that by contract run on a
//! thread of their own ([`DiskFile::write_sync_at`]).

use std::io::IoSlice;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use rustix::fs::{Advice, AtFlags, CWD, Dir, FallocateFlags, FileType, Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags};
use tokio::runtime::Handle;

use super::bulk::{Bulk, Memory, write_all};
use super::{
    BLOCK, DirEntry, DirectoryGuard, DirectoryLock, Disk, DiskError, DiskFile, EntryKind, LockError, OpenMode,
    Operation, Space,
};

/// Zeros are written in pieces of this size.
const ZEROS: usize = 1 << 20;
/// A read from the page cache takes memory first, so it asks for this much at most.
const MAX_NOWAIT: usize = 4 << 20;

/// The machine's file system.
#[derive(Debug, Clone)]
pub struct LocalDisk {
    blocking: Handle,
    /// Of reads, of all files together.
    memory: Arc<Memory>,
}

impl LocalDisk {
    /// A disk whose waiting calls run on the blocking pool of `blocking`.
    pub fn new(blocking: Handle) -> Self {
        Self { blocking, memory: Arc::default() }
    }

    async fn run<T: Send + 'static>(
        &self,
        operation: Operation,
        path: &Path,
        call: impl FnOnce(&Path) -> Result<T, Errno> + Send + 'static,
    ) -> Result<T, DiskError> {
        let path = path.to_owned();
        run(&self.blocking, operation, path, call).await
    }
}

/// Runs `call` on the blocking pool. A runtime that is being torn down answers "interrupted".
async fn run<T: Send + 'static>(
    blocking: &Handle,
    operation: Operation,
    path: PathBuf,
    call: impl FnOnce(&Path) -> Result<T, Errno> + Send + 'static,
) -> Result<T, DiskError> {
    let inside = path.clone();
    match blocking.spawn_blocking(move || call(&inside)).await {
        Ok(answer) => answer.map_err(|errno| DiskError::new(operation, &path, errno)),
        Err(_) => Err(DiskError::new(operation, &path, Errno::INTR)),
    }
}

#[async_trait]
impl Disk for LocalDisk {
    async fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>, DiskError> {
        let operation = match mode {
            OpenMode::CreateNew => Operation::Create,
            OpenMode::Read | OpenMode::Write | OpenMode::OpenOrCreate | OpenMode::Direct => Operation::Open,
        };
        let fd = self.run(operation, path, move |path| open(path, mode)).await?;
        Ok(Arc::new(LocalFile {
            fd: Arc::new(fd),
            path: path.to_owned(),
            dsync: AtomicBool::new(true),
            bulk: Bulk::new(&self.memory),
            blocking: self.blocking.clone(),
        }))
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        let to = to.to_owned();
        self.run(Operation::Rename, from, move |from| rustix::fs::rename(from, &to)).await
    }

    async fn remove(&self, path: &Path) -> Result<(), DiskError> {
        self.run(Operation::Remove, path, |path| rustix::fs::unlink(path)).await
    }

    async fn create_dir_all(&self, path: &Path) -> Result<(), DiskError> {
        self.run(Operation::Create, path, create_dir_all).await
    }

    async fn remove_dir_all(&self, path: &Path) -> Result<(), DiskError> {
        self.run(Operation::Remove, path, |path| match remove_tree(path) {
            Err(Errno::NOENT) => Ok(()),
            other => other,
        })
        .await
    }

    async fn list(&self, dir: &Path) -> Result<Vec<DirEntry>, DiskError> {
        self.run(Operation::List, dir, list).await
    }

    async fn sync_dir(&self, dir: &Path) -> Result<(), DiskError> {
        self.run(Operation::SyncDir, dir, sync_dir).await
    }

    async fn lock(&self, dir: &Path) -> Result<Box<dyn DirectoryGuard>, LockError> {
        let directory = dir.to_owned();
        match self.blocking.spawn_blocking(move || DirectoryLock::acquire(&directory)).await {
            Ok(lock) => Ok(Box::new(lock?)),
            Err(_) => Err(LockError::Refused { directory: dir.to_owned(), errno: Errno::INTR }),
        }
    }

    async fn space(&self, path: &Path) -> Result<Space, DiskError> {
        self.run(Operation::Inspect, path, |path| {
            let found = rustix::fs::statvfs(path)?;
            Ok(Space {
                total: found.f_blocks.saturating_mul(found.f_frsize),
                free: found.f_bavail.saturating_mul(found.f_frsize),
            })
        })
        .await
    }

    fn dedicate(&self, name: &str, work: BoxFuture<'static, ()>) -> Result<(), DiskError> {
        let runtime = self.blocking.clone();
        // Linux shows 15 bytes of a thread's name; the rest would be cut anyway.
        std::thread::Builder::new()
            .name(name.chars().take(15).collect())
            .spawn(move || runtime.block_on(work))
            .map(drop)
            .map_err(|_| DiskError::new(Operation::Dedicate, Path::new(name), Errno::AGAIN))
    }
}

fn open(path: &Path, mode: OpenMode) -> Result<OwnedFd, Errno> {
    let plain = OFlags::RDWR | OFlags::CLOEXEC;
    let flags = match mode {
        OpenMode::Read => OFlags::RDONLY | OFlags::CLOEXEC,
        OpenMode::Write => plain,
        OpenMode::CreateNew => plain | OFlags::CREATE | OFlags::EXCL,
        OpenMode::OpenOrCreate => plain | OFlags::CREATE,
        OpenMode::Direct => {
            match rustix::fs::open(path, plain | OFlags::DIRECT, Mode::empty()) {
                Ok(fd) => return Ok(fd),
                // tmpfs and some network and stacked file systems have no direct access.
                Err(Errno::INVAL | Errno::OPNOTSUPP) => plain,
                Err(errno) => return Err(errno),
            }
        }
    };
    rustix::fs::open(path, flags, Mode::from_raw_mode(0o644))
}

fn create_dir_all(path: &Path) -> Result<(), Errno> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let found = rustix::fs::stat(path)?;
            return match FileType::from_raw_mode(found.st_mode) {
                FileType::Directory => Ok(()),
                _ => Err(Errno::NOTDIR),
            };
        }
        Err(Errno::NOENT) => {
            create_dir_all(path.parent().ok_or(Errno::NOENT)?)?;
            return create_dir_all(path);
        }
        Err(errno) => return Err(errno),
    }
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync_dir(Path::new(".")),
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}

fn remove_tree(path: &Path) -> Result<(), Errno> {
    for entry in list(path)? {
        match entry.kind {
            EntryKind::Directory => remove_tree(&entry.path)?,
            EntryKind::File | EntryKind::Other => rustix::fs::unlink(&entry.path)?,
        }
    }
    rustix::fs::rmdir(path)
}

fn list(dir: &Path) -> Result<Vec<DirEntry>, Errno> {
    let fd = open_dir(dir)?;
    let mut entries = Vec::new();
    for entry in Dir::read_from(&fd)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        if name == "." || name == ".." {
            continue;
        }
        let path = dir.join(name);
        let kind = match entry.file_type() {
            // Some file systems do not say; only then it is worth a call.
            FileType::Unknown => {
                let found = rustix::fs::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(found.st_mode)
            }
            known => known,
        };
        entries.push(DirEntry {
            name: name.to_owned(),
            kind: match kind {
                FileType::RegularFile => EntryKind::File,
                FileType::Directory => EntryKind::Directory,
                _ => EntryKind::Other,
            },
            path,
        });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn open_dir(dir: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn sync_dir(dir: &Path) -> Result<(), Errno> {
    rustix::fs::fsync(open_dir(dir)?)
}

/// An open file of the machine.
#[derive(Debug)]
struct LocalFile {
    fd: Arc<OwnedFd>,
    path: PathBuf,
    /// Whether the file system still is believed to take a synced write in one call.
    dsync: AtomicBool,
    bulk: Arc<Bulk>,
    blocking: Handle,
}

impl LocalFile {
    async fn run<T: Send + 'static>(
        &self,
        operation: Operation,
        call: impl FnOnce(&OwnedFd) -> Result<T, Errno> + Send + 'static,
    ) -> Result<T, DiskError> {
        let fd = Arc::clone(&self.fd);
        run(&self.blocking, operation, self.path.clone(), move |_| call(&fd)).await
    }

    /// The blocking body of [`DiskFile::write_sync_at`].
    fn write_sync(&self, mut offset: u64, mut data: &[u8]) -> Result<(), Errno> {
        if !is_aligned(offset, data) {
            return Err(Errno::INVAL);
        }
        while !data.is_empty() && self.dsync.load(Ordering::Relaxed) {
            let pieces = [IoSlice::new(data)];
            match rustix::io::pwritev2(&self.fd, &pieces, offset, ReadWriteFlags::DSYNC) {
                Ok(0) => return Err(Errno::IO),
                // A short direct write can end off a block; what follows is then refused as
                // misaligned, which is as loud as it should be.
                Ok(written) => {
                    data = data.get(written..).ok_or(Errno::IO)?;
                    offset += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.dsync.store(false, Ordering::Relaxed),
                Err(errno) => return Err(errno),
            }
        }
        if data.is_empty() {
            return Ok(());
        }
        write_all(&self.fd, offset, &[data], ReadWriteFlags::empty())?;
        rustix::fs::fdatasync(&self.fd)
    }
}

#[async_trait]
impl DiskFile for LocalFile {
    fn path(&self) -> &Path {
        &self.path
    }

    async fn size(&self) -> Result<u64, DiskError> {
        // Answered from memory: not worth a trip to the pool.
        let found =
            rustix::fs::fstat(&self.fd).map_err(|errno| DiskError::new(Operation::Inspect, &self.path, errno))?;
        Ok(u64::try_from(found.st_size).unwrap_or(0))
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, DiskError> {
        let bulk = Arc::clone(&self.bulk);
        self.run(Operation::Read, move |fd| bulk.read(fd, offset, len)).await
    }

    fn read_at_nowait(&self, offset: u64, len: usize) -> Result<Option<Bytes>, DiskError> {
        let read = self.bulk.read_now(&self.fd, offset, len.min(MAX_NOWAIT));
        read.map_err(|errno| DiskError::new(Operation::Read, &self.path, errno))
    }

    async fn write_at(&self, offset: u64, data: Vec<Bytes>) -> Result<(), DiskError> {
        let bulk = Arc::clone(&self.bulk);
        self.run(Operation::Write, move |fd| {
            let pieces: Vec<&[u8]> = data.iter().map(AsRef::as_ref).collect();
            bulk.write(fd, offset, &pieces)
        })
        .await
    }

    async fn write_sync_at(&self, offset: u64, data: Bytes) -> Result<(), DiskError> {
        self.write_sync(offset, &data).map_err(|errno| DiskError::new(Operation::WriteSync, &self.path, errno))
    }

    async fn sync_data(&self) -> Result<(), DiskError> {
        self.run(Operation::Sync, |fd| rustix::fs::fdatasync(fd)).await
    }

    async fn set_len(&self, len: u64) -> Result<(), DiskError> {
        self.run(Operation::Resize, move |fd| rustix::fs::ftruncate(fd, len)).await
    }

    async fn allocate(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        self.run(Operation::Resize, move |fd| match rustix::fs::fallocate(fd, FallocateFlags::KEEP_SIZE, offset, len) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            other => other,
        })
        .await
    }

    async fn zero_fill(&self, len: u64) -> Result<(), DiskError> {
        self.run(Operation::Write, move |fd| zero_fill(fd, len)).await
    }

    async fn evict(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        self.run(Operation::Inspect, move |fd| match NonZeroU64::new(len) {
            Some(len) => rustix::fs::fadvise(fd, offset, Some(len), Advice::DontNeed),
            None => Ok(()),
        })
        .await
    }
}

fn is_aligned(offset: u64, data: &[u8]) -> bool {
    offset.is_multiple_of(BLOCK as u64)
        && data.len().is_multiple_of(BLOCK)
        && data.as_ptr().addr().is_multiple_of(BLOCK)
}

fn zero_fill(fd: &OwnedFd, len: u64) -> Result<(), Errno> {
    match rustix::fs::fallocate(fd, FallocateFlags::empty(), 0, len) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
        Err(errno) => return Err(errno),
    }
    // Direct access wants aligned memory; a little too much of it always has an aligned part.
    let memory = vec![0u8; ZEROS + BLOCK];
    let skip = memory.as_ptr().align_offset(BLOCK).min(BLOCK);
    let zeros = memory.get(skip..skip + ZEROS).unwrap_or(&memory);
    let mut at = 0;
    while at < len {
        let piece = usize::try_from(len - at).map_or(ZEROS, |left| left.min(ZEROS));
        write_all(fd, at, &[zeros.get(..piece).unwrap_or(zeros)], ReadWriteFlags::empty())?;
        at += piece as u64;
    }
    rustix::fs::fsync(fd)
}
