//! The real disk, through rustix.
//!
//! Calls that may wait for the device run on the blocking pool, except those that by contract run on a
//! thread of their own ([`DiskFile::write_sync_at`]).

use std::io::{IoSlice, IoSliceMut};
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

use super::{BLOCK, DirEntry, Disk, DiskError, DiskFile, EntryKind, OpenMode, Operation, Space};

/// Most pieces one vectored call takes (`IOV_MAX`).
const MAX_PIECES: usize = 1024;
/// Zeros are written in pieces of this size.
const ZEROS: usize = 1 << 20;
/// A write of at least this much goes past the page cache: see [`write_bulk`].
const BULK: usize = 128 << 10;
/// `RWF_DONTCACHE` (Linux 6.14).
const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);
/// A read from the page cache takes memory first, so it asks for this much at most.
const MAX_NOWAIT: usize = 4 << 20;

/// The machine's file system.
#[derive(Debug, Clone)]
pub struct LocalDisk {
    blocking: Handle,
}

impl LocalDisk {
    /// A disk whose waiting calls run on the blocking pool of `blocking`.
    pub const fn new(blocking: Handle) -> Self {
        Self { blocking }
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
            uncached: Arc::new(AtomicBool::new(true)),
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
    /// Whether the file system still is believed to take writes that leave nothing in the page cache.
    uncached: Arc<AtomicBool>,
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
        self.run(Operation::Read, move |fd| read_full(fd, offset, len)).await
    }

    fn read_at_nowait(&self, offset: u64, len: usize) -> Result<Option<Bytes>, DiskError> {
        let mut memory = vec![0; len.min(MAX_NOWAIT)];
        let mut into = [IoSliceMut::new(&mut memory)];
        match rustix::io::preadv2(&self.fd, &mut into, offset, ReadWriteFlags::NOWAIT) {
            Ok(read) => {
                memory.truncate(read);
                Ok(Some(memory.into()))
            }
            // The last two: a file system without it never has an answer without waiting.
            Err(Errno::AGAIN | Errno::INTR | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(None),
            Err(errno) => Err(DiskError::new(Operation::Read, &self.path, errno)),
        }
    }

    async fn write_at(&self, offset: u64, data: Vec<Bytes>) -> Result<(), DiskError> {
        let uncached = Arc::clone(&self.uncached);
        self.run(Operation::Write, move |fd| {
            let pieces: Vec<&[u8]> = data.iter().map(AsRef::as_ref).collect();
            write_bulk(fd, offset, &pieces, &uncached)
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

fn read_full(fd: &OwnedFd, offset: u64, len: usize) -> Result<Bytes, Errno> {
    // Asking for more than there is must not reserve memory for it.
    let size = u64::try_from(rustix::fs::fstat(fd)?.st_size).unwrap_or(0);
    let there = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
    let len = len.min(there);
    let mut memory: Vec<u8> = Vec::with_capacity(len);
    while memory.len() < len {
        let at = offset + memory.len() as u64;
        let left = len - memory.len();
        // The vector may own a little more than was asked for; the copy of the tail is bounded by it.
        match rustix::io::pread(fd, rustix::buffer::spare_capacity(&mut memory), at) {
            Ok(0) => break,
            Ok(read) if read > left => memory.truncate(len),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(memory.into())
}

/// Writes much without leaving it in the page cache (`RWF_DONTCACHE`). What was just written is read from the
/// tail cache; filling fresh pages with it costs several times the write itself, and makes the kernel
/// write back in bursts. The last, partial block stays cached: the next write begins in it.
fn write_bulk(fd: &OwnedFd, offset: u64, pieces: &[&[u8]], uncached: &AtomicBool) -> Result<(), Errno> {
    let total: usize = pieces.iter().map(|piece| piece.len()).sum();
    let end = offset + total as u64;
    if total < BULK || !uncached.load(Ordering::Relaxed) {
        return write_all(fd, offset, pieces, ReadWriteFlags::empty());
    }
    let whole = total - usize::try_from(end % BLOCK as u64).unwrap_or(0);
    let (body, rest) = split(pieces, whole);
    match write_all(fd, offset, &body, DONTCACHE) {
        Ok(()) => write_all(fd, offset + whole as u64, &rest, ReadWriteFlags::empty()),
        // Refused as a whole, before anything was written.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
            uncached.store(false, Ordering::Relaxed);
            write_all(fd, offset, pieces, ReadWriteFlags::empty())
        }
        Err(errno) => Err(errno),
    }
}

/// The first `at` bytes of `pieces`, and the rest.
fn split<'a>(pieces: &[&'a [u8]], mut at: usize) -> (Vec<&'a [u8]>, Vec<&'a [u8]>) {
    let (mut before, mut after) = (Vec::with_capacity(pieces.len()), Vec::new());
    for piece in pieces {
        let (head, tail) = piece.split_at(at.min(piece.len()));
        at -= head.len();
        before.extend((!head.is_empty()).then_some(head));
        after.extend((!tail.is_empty()).then_some(tail));
    }
    (before, after)
}

fn write_all(fd: &OwnedFd, mut offset: u64, pieces: &[&[u8]], flags: ReadWriteFlags) -> Result<(), Errno> {
    for window in pieces.chunks(MAX_PIECES) {
        let mut slices: Vec<IoSlice<'_>> = window.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut left = slices.as_mut_slice();
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match rustix::io::pwritev2(fd, left, offset, flags) {
                Ok(0) => return Err(Errno::IO),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut left, written);
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
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
