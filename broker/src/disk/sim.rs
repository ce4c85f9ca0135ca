//! A disk in memory that loses what was not synced, tears what was being written, fails and fills up on
//! command. The same seed and the same calls give the same disk.
//!
//! What survives a power cut, per file: everything up to its last sync, and of each later write nothing,
//! all, the first sectors or any sectors (512 bytes each). Names: all that was synced, and of the later
//! changes the first few, in order. After an injected failure of a sync, what it should have made durable
//! never will be, although it can still be read: that is what kernels do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use proto::host::{Entropy, SeededEntropy};
use rustix::io::Errno;

use super::{
    BLOCK, DirEntry, DirectoryGuard, Disk, DiskError, DiskFile, EntryKind, LockError, OpenMode, Operation, Space,
};

/// What a device writes whole or not at all, in bytes.
const SECTOR: usize = 512;

/// A simulated disk. Clones are the same disk, up to its next restart.
#[derive(Debug, Clone)]
pub struct SimDisk {
    world: Arc<Mutex<World>>,
    /// Which boot of the machine this belongs to; what an earlier one left running gets errors.
    boot: u64,
}

/// An error to be injected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which operation fails.
    pub operation: Operation,
    /// Only on paths that contain this; the empty string is in every path.
    pub path: String,
    /// How many matching ones succeed first.
    pub skip: u64,
    /// How many fail then.
    pub times: u64,
    /// With what.
    pub errno: Errno,
}

#[derive(Debug)]
struct World {
    names: BTreeMap<PathBuf, Node>,
    /// The names that survive whatever happens.
    durable_names: BTreeMap<PathBuf, Node>,
    /// Changes of names since, in order.
    name_changes: Vec<NameChange>,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    entropy: SeededEntropy,
    faults: Vec<Fault>,
    capacity: u64,
    read_only: bool,
    /// The longest an operation takes, in microseconds.
    latency_us: u64,
    /// Operations that change something, so far.
    changes: u64,
    cut_at: Option<u64>,
    powered: bool,
    /// How often power came back.
    boots: u64,
    /// Directories that a process of the present boot holds.
    held: BTreeSet<PathBuf>,
    fingerprint: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    File(u64),
    Directory,
}

#[derive(Debug, Clone)]
enum NameChange {
    Put(PathBuf, Node),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

#[derive(Debug, Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// What happened since `durable`, in order.
    pending: Vec<Pending>,
}

#[derive(Debug)]
struct Pending {
    change: Change,
    /// Durable already; it waits only for earlier ones that are not.
    synced: bool,
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, data: Bytes },
    Resize(usize),
}

impl SimDisk {
    /// An empty disk without limits.
    pub fn new(seed: u64) -> Self {
        let root = BTreeMap::from([(PathBuf::from("/"), Node::Directory), (PathBuf::new(), Node::Directory)]);
        Self {
            world: Arc::new(Mutex::new(World {
                names: root.clone(),
                durable_names: root,
                name_changes: Vec::new(),
                inodes: BTreeMap::new(),
                next_inode: 1,
                entropy: SeededEntropy::new(seed),
                faults: Vec::new(),
                capacity: u64::MAX,
                read_only: false,
                latency_us: 0,
                changes: 0,
                cut_at: None,
                powered: true,
                boots: 0,
                held: BTreeSet::new(),
                fingerprint: 0,
            })),
            boot: 0,
        }
    }

    /// Limits what all files together may hold, in bytes.
    pub fn set_capacity(&self, bytes: u64) {
        self.world.lock().capacity = bytes;
    }

    /// Refuses every change from here on, or no longer.
    pub fn set_read_only(&self, read_only: bool) {
        self.world.lock().read_only = read_only;
    }

    /// Lets every operation take up to `latency` from here on; none takes any time before that.
    pub fn set_latency(&self, latency: Duration) {
        self.world.lock().latency_us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    }

    /// Adds an error to be injected.
    pub fn inject(&self, fault: Fault) {
        self.world.lock().faults.push(fault);
    }

    /// Forgets all errors that were to be injected.
    pub fn heal(&self) {
        self.world.lock().faults.clear();
    }

    /// How many operations changed, or tried to change, something.
    pub fn changes(&self) -> u64 {
        self.world.lock().changes
    }

    /// Cuts power *during* change number `change` (counted as by [`SimDisk::changes`], from 0): it fails, and so does
    /// everything after it, until [`SimDisk::restart`].
    pub fn cut_power_at(&self, change: u64) {
        self.world.lock().cut_at = Some(change);
    }

    /// Cuts power now.
    pub fn cut_power(&self) {
        self.world.lock().powered = false;
    }

    /// Whether the power is on.
    pub fn is_powered(&self) -> bool {
        self.world.lock().powered
    }

    /// Brings power back (cutting it first if it is on) and decides what survived. Only what this returns
    /// sees the disk from here on: the processes that held the others are gone, and their files.
    #[must_use]
    pub fn restart(&self) -> Self {
        let mut world = self.world.lock();
        world.restart();
        Self { world: Arc::clone(&self.world), boot: world.boots }
    }

    /// Ends whoever uses the disk, and nothing else: what was written is still in the page cache, synced or not.
    /// Only what this returns sees the disk from here on. After [`SimDisk::cut_power_at`] it means that the
    /// process was killed during that change.
    #[must_use]
    pub fn restart_process(&self) -> Self {
        let mut world = self.world.lock();
        world.boot();
        Self { world: Arc::clone(&self.world), boot: world.boots }
    }

    /// A checksum over everything that was asked and answered.
    pub fn fingerprint(&self) -> u32 {
        self.world.lock().fingerprint
    }

    /// Flips the bits of `mask` in one byte of a file, durably, as a failing device would.
    ///
    /// # Errors
    /// If there is no such file, or byte.
    pub fn corrupt(&self, path: &Path, position: u64, mask: u8) -> Result<(), DiskError> {
        let failed = |errno| DiskError::new(Operation::Write, path, errno);
        let mut world = self.world.lock();
        let id = world.file(path).map_err(failed)?;
        let inode = world.inode(id);
        let position = usize::try_from(position).map_err(|_| failed(Errno::INVAL))?;
        for bytes in [&mut inode.now, &mut inode.durable] {
            *bytes.get_mut(position).ok_or(failed(Errno::INVAL))? ^= mask;
        }
        Ok(())
    }

    /// Lets other tasks run first, as many times, or as long, as the seed says.
    async fn pause(&self) {
        let latency_us = self.world.lock().latency_us;
        if latency_us > 0 {
            let wait = self.world.lock().entropy.next_u64() % latency_us;
            return tokio::time::sleep(Duration::from_micros(wait)).await;
        }
        let turns = self.world.lock().entropy.next_u64() % 3;
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }

    /// Runs one operation.
    fn run<T>(
        &self,
        operation: Operation,
        path: &Path,
        act: impl FnOnce(&mut World) -> Result<T, Errno>,
    ) -> Result<T, DiskError> {
        let mut world = self.world.lock();
        let answer = world.admit(operation, path, self.boot).and_then(|fate| {
            let answer = act(&mut world);
            match fate {
                Fate::Done => answer,
                Fate::Cut => {
                    world.powered = false;
                    Err(Errno::IO)
                }
            }
        });
        world.note(operation, path, answer.as_ref().err());
        answer.map_err(|errno| DiskError::new(operation, path, errno))
    }
}

/// Whether an operation that is carried out is also reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    /// Power fails during it.
    Cut,
}

impl World {
    fn admit(&mut self, operation: Operation, path: &Path, boot: u64) -> Result<Fate, Errno> {
        if !self.powered || boot != self.boots {
            return Err(Errno::IO);
        }
        let changes = is_change(operation);
        if changes && self.read_only {
            return Err(Errno::ROFS);
        }
        let name = path.to_string_lossy();
        for fault in &mut self.faults {
            if fault.operation != operation || fault.times == 0 || !name.contains(&fault.path) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            fault.times -= 1;
            let errno = fault.errno;
            if operation == Operation::Sync
                && let Ok(id) = self.file(path)
            {
                self.inode(id).pending.clear();
            }
            return Err(errno);
        }
        if !changes {
            return Ok(Fate::Done);
        }
        let number = self.changes;
        self.changes += 1;
        if self.cut_at == Some(number) { Ok(Fate::Cut) } else { Ok(Fate::Done) }
    }

    /// Whether power is about to fail during the change that was admitted last.
    fn is_cut(&self) -> bool {
        self.cut_at.is_some() && self.cut_at == self.changes.checked_sub(1)
    }

    fn note(&mut self, operation: Operation, path: &Path, error: Option<&Errno>) {
        let line = format!("{operation} {} {error:?}", path.display());
        self.fingerprint = crc32c::crc32c_append(self.fingerprint, line.as_bytes());
    }

    fn inode(&mut self, id: u64) -> &mut Inode {
        self.inodes.entry(id).or_default()
    }

    fn file(&self, path: &Path) -> Result<u64, Errno> {
        match self.names.get(path) {
            Some(Node::File(id)) => Ok(*id),
            Some(Node::Directory) => Err(Errno::ISDIR),
            None => Err(Errno::NOENT),
        }
    }

    fn is_directory(&self, path: &Path) -> Result<(), Errno> {
        match self.names.get(path) {
            Some(Node::Directory) => Ok(()),
            Some(Node::File(_)) => Err(Errno::NOTDIR),
            None => Err(Errno::NOENT),
        }
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }

    fn used(&self) -> u64 {
        let lengths = self.names.values().filter_map(|node| match node {
            Node::File(id) => self.inodes.get(id).map(|inode| inode.now.len() as u64),
            Node::Directory => None,
        });
        lengths.sum()
    }

    fn open(&mut self, path: &Path, mode: OpenMode) -> Result<u64, Errno> {
        let may_create = matches!(mode, OpenMode::CreateNew | OpenMode::OpenOrCreate);
        if self.read_only && mode != OpenMode::Read {
            return Err(Errno::ROFS);
        }
        match self.file(path) {
            Ok(_) if mode == OpenMode::CreateNew => Err(Errno::EXIST),
            Ok(id) => Ok(id),
            Err(Errno::NOENT) if may_create => {
                self.is_directory(path.parent().ok_or(Errno::NOENT)?)?;
                let id = self.next_inode;
                self.next_inode += 1;
                self.inodes.insert(id, Inode::default());
                self.change_name(NameChange::Put(path.to_owned(), Node::File(id)));
                Ok(id)
            }
            Err(errno) => Err(errno),
        }
    }

    fn create_dir_all(&mut self, path: &Path) -> Result<(), Errno> {
        let mut missing = Vec::new();
        for above in path.ancestors() {
            match self.is_directory(above) {
                Ok(()) => break,
                Err(Errno::NOENT) => missing.push(above.to_owned()),
                Err(errno) => return Err(errno),
            }
        }
        for path in missing.into_iter().rev() {
            self.change_name(NameChange::Put(path.clone(), Node::Directory));
            if !self.is_cut() {
                self.sync_dir(path.parent().unwrap_or(Path::new("")));
            }
        }
        Ok(())
    }

    fn sync_dir(&mut self, dir: &Path) {
        let durable = &mut self.durable_names;
        self.name_changes.retain(|change| {
            let concerned = change.touches(dir);
            if concerned {
                change.apply(durable);
            }
            !concerned
        });
    }

    /// Applies a change to a file, refusing what does not fit on the disk.
    fn change(&mut self, id: u64, change: Change, synced: bool) -> Result<(), Errno> {
        let used = self.used();
        let capacity = self.capacity;
        let inode = self.inode(id);
        let grows = match &change {
            Change::Write { offset, data } => (offset + data.len()).saturating_sub(inode.now.len()),
            Change::Resize(len) => len.saturating_sub(inode.now.len()),
        };
        if grows > 0 && used.saturating_add(grows as u64) > capacity {
            return Err(Errno::NOSPC);
        }
        change.apply(&mut inode.now);
        if synced && inode.pending.is_empty() {
            change.apply(&mut inode.durable);
        } else {
            inode.pending.push(Pending { change, synced });
        }
        Ok(())
    }

    fn sync(&mut self, id: u64) {
        let inode = self.inode(id);
        for pending in std::mem::take(&mut inode.pending) {
            pending.change.apply(&mut inode.durable);
        }
    }

    fn restart(&mut self) {
        let survivors = below(&self.entropy, self.name_changes.len() + 1);
        for change in self.name_changes.drain(..).take(survivors) {
            change.apply(&mut self.durable_names);
        }
        self.names = self.durable_names.clone();
        for inode in self.inodes.values_mut() {
            for pending in std::mem::take(&mut inode.pending) {
                if pending.synced {
                    pending.change.apply(&mut inode.durable);
                } else {
                    pending.change.survive(&self.entropy, &mut inode.durable);
                }
            }
            inode.now = inode.durable.clone();
        }
        self.boot();
    }

    fn boot(&mut self) {
        self.powered = true;
        self.cut_at = None;
        self.boots += 1;
        self.held.clear();
    }
}

const fn is_change(operation: Operation) -> bool {
    match operation {
        Operation::Create
        | Operation::Write
        | Operation::Sync
        | Operation::WriteSync
        | Operation::Resize
        | Operation::Rename
        | Operation::Remove
        | Operation::SyncDir => true,
        Operation::Open | Operation::Read | Operation::List | Operation::Inspect | Operation::Dedicate => false,
    }
}

/// A number in `0..bound`.
fn below(entropy: &SeededEntropy, bound: usize) -> usize {
    usize::try_from(entropy.next_u64() % (bound.max(1) as u64)).unwrap_or(0)
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Self::Put(path, node) => {
                names.insert(path.clone(), *node);
            }
            Self::Remove(path) => names.retain(|name, _| !name.starts_with(path)),
            Self::Rename(from, to) => {
                let moved: Vec<_> = names
                    .iter()
                    .filter(|(name, _)| name.starts_with(from))
                    .map(|(name, node)| (name.clone(), *node))
                    .collect();
                for (name, node) in moved {
                    names.remove(&name);
                    let below = name.strip_prefix(from).unwrap_or(Path::new(""));
                    let renamed = if below.as_os_str().is_empty() { to.clone() } else { to.join(below) };
                    names.insert(renamed, node);
                }
            }
        }
    }

    fn touches(&self, dir: &Path) -> bool {
        let inside = |path: &Path| path.parent() == Some(dir);
        match self {
            Self::Put(path, _) | Self::Remove(path) => inside(path),
            Self::Rename(from, to) => inside(from) || inside(to),
        }
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { offset, data } => write(bytes, *offset, data),
            Self::Resize(len) => bytes.resize(*len, 0),
        }
    }

    /// Applies as much of it as a power cut left.
    fn survive(&self, entropy: &SeededEntropy, bytes: &mut Vec<u8>) {
        let fate = below(entropy, 4);
        let Self::Write { offset, data } = self else {
            if fate < 2 {
                self.apply(bytes);
            }
            return;
        };
        let sectors = data.len().div_ceil(SECTOR);
        let prefix = below(entropy, sectors + 1);
        for (index, sector) in data.chunks(SECTOR).enumerate() {
            let survives = match fate {
                0 => false,
                1 => true,
                2 => index < prefix,
                _ => below(entropy, 2) == 0,
            };
            if survives {
                write(bytes, offset + index * SECTOR, sector);
            }
        }
    }
}

fn write(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

#[async_trait]
impl Disk for SimDisk {
    async fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>, DiskError> {
        self.pause().await;
        let operation = match mode {
            OpenMode::CreateNew | OpenMode::OpenOrCreate => Operation::Create,
            OpenMode::Read | OpenMode::Write | OpenMode::Direct => Operation::Open,
        };
        let id = self.run(operation, path, |world| world.open(path, mode))?;
        Ok(Arc::new(SimFile { disk: self.clone(), path: path.to_owned(), id, mode }))
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        self.pause().await;
        self.run(Operation::Rename, from, |world| {
            if !world.names.contains_key(from) {
                return Err(Errno::NOENT);
            }
            world.is_directory(to.parent().ok_or(Errno::NOENT)?)?;
            world.change_name(NameChange::Rename(from.to_owned(), to.to_owned()));
            Ok(())
        })
    }

    async fn remove(&self, path: &Path) -> Result<(), DiskError> {
        self.pause().await;
        self.run(Operation::Remove, path, |world| {
            world.file(path)?;
            world.change_name(NameChange::Remove(path.to_owned()));
            Ok(())
        })
    }

    async fn create_dir_all(&self, path: &Path) -> Result<(), DiskError> {
        self.pause().await;
        self.run(Operation::Create, path, |world| world.create_dir_all(path))
    }

    async fn remove_dir_all(&self, path: &Path) -> Result<(), DiskError> {
        self.pause().await;
        self.run(Operation::Remove, path, |world| {
            match world.is_directory(path) {
                Ok(()) => world.change_name(NameChange::Remove(path.to_owned())),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
            Ok(())
        })
    }

    async fn list(&self, dir: &Path) -> Result<Vec<DirEntry>, DiskError> {
        self.pause().await;
        self.run(Operation::List, dir, |world| {
            world.is_directory(dir)?;
            let inside = world.names.iter().filter_map(|(path, node)| {
                if path.parent() != Some(dir) {
                    return None;
                }
                Some(DirEntry {
                    path: path.clone(),
                    name: path.file_name()?.to_str()?.to_owned(),
                    kind: match node {
                        Node::File(_) => EntryKind::File,
                        Node::Directory => EntryKind::Directory,
                    },
                })
            });
            Ok(inside.collect())
        })
    }

    async fn sync_dir(&self, dir: &Path) -> Result<(), DiskError> {
        self.pause().await;
        self.run(Operation::SyncDir, dir, |world| {
            world.is_directory(dir)?;
            if !world.is_cut() {
                world.sync_dir(dir);
            }
            Ok(())
        })
    }

    async fn lock(&self, dir: &Path) -> Result<Box<dyn DirectoryGuard>, LockError> {
        self.pause().await;
        let refused = |error: DiskError| LockError::Refused { directory: dir.to_owned(), errno: error.errno };
        let free = self.run(Operation::Open, dir, |world| {
            world.is_directory(dir)?;
            Ok(world.held.insert(dir.to_owned()))
        });
        if free.map_err(refused)? {
            Ok(Box::new(SimGuard { disk: self.clone(), directory: dir.to_owned() }))
        } else {
            Err(LockError::InUse { directory: dir.to_owned() })
        }
    }

    async fn space(&self, path: &Path) -> Result<Space, DiskError> {
        self.pause().await;
        self.run(Operation::Inspect, path, |world| {
            Ok(Space { total: world.capacity, free: world.capacity.saturating_sub(world.used()) })
        })
    }

    fn dedicate(&self, name: &str, work: BoxFuture<'static, ()>) -> Result<(), DiskError> {
        self.run(Operation::Dedicate, Path::new(name), |_| Ok(()))?;
        tokio::spawn(work);
        Ok(())
    }
}

/// A directory of a simulated disk that a process holds.
#[derive(Debug)]
struct SimGuard {
    disk: SimDisk,
    directory: PathBuf,
}

impl DirectoryGuard for SimGuard {}

impl Drop for SimGuard {
    fn drop(&mut self) {
        let mut world = self.disk.world.lock();
        if world.boots == self.disk.boot {
            world.held.remove(&self.directory);
        }
    }
}

/// An open file of a simulated disk.
#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    path: PathBuf,
    id: u64,
    mode: OpenMode,
}

impl SimFile {
    async fn run<T>(
        &self,
        operation: Operation,
        act: impl FnOnce(&mut World) -> Result<T, Errno>,
    ) -> Result<T, DiskError> {
        self.disk.pause().await;
        self.run_now(operation, act)
    }

    fn run_now<T>(
        &self,
        operation: Operation,
        act: impl FnOnce(&mut World) -> Result<T, Errno>,
    ) -> Result<T, DiskError> {
        if is_change(operation) && self.mode == OpenMode::Read {
            return Err(DiskError::new(operation, &self.path, Errno::BADF));
        }
        self.disk.run(operation, &self.path, act)
    }

    fn read(&self, world: &mut World, offset: u64, len: usize) -> Bytes {
        let now = &world.inode(self.id).now;
        let start = usize::try_from(offset).map_or(now.len(), |start| start.min(now.len()));
        let end = start.saturating_add(len).min(now.len());
        Bytes::copy_from_slice(&now[start..end])
    }
}

/// A position in memory.
fn place(offset: u64) -> Result<usize, Errno> {
    usize::try_from(offset).map_err(|_| Errno::FBIG)
}

#[async_trait]
impl DiskFile for SimFile {
    fn path(&self) -> &Path {
        &self.path
    }

    async fn size(&self) -> Result<u64, DiskError> {
        self.run(Operation::Inspect, |world| Ok(world.inode(self.id).now.len() as u64)).await
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, DiskError> {
        self.run(Operation::Read, |world| Ok(self.read(world, offset, len))).await
    }

    fn read_at_nowait(&self, offset: u64, len: usize) -> Result<Option<Bytes>, DiskError> {
        self.run_now(Operation::Read, |world| {
            let cached = below(&world.entropy, 4) > 0;
            Ok(cached.then(|| self.read(world, offset, len)))
        })
    }

    async fn write_at(&self, offset: u64, data: Vec<Bytes>) -> Result<(), DiskError> {
        self.run(Operation::Write, |world| {
            let mut offset = place(offset)?;
            for data in data {
                let len = data.len();
                world.change(self.id, Change::Write { offset, data }, false)?;
                offset += len;
            }
            Ok(())
        })
        .await
    }

    async fn write_sync_at(&self, offset: u64, data: Bytes) -> Result<(), DiskError> {
        self.run(Operation::WriteSync, |world| {
            let aligned = offset.is_multiple_of(BLOCK as u64)
                && data.len().is_multiple_of(BLOCK)
                && data.as_ptr().addr().is_multiple_of(BLOCK);
            if !aligned {
                return Err(Errno::INVAL);
            }
            // A write that was torn is as good as one that was not synced.
            let synced = !world.is_cut();
            let offset = place(offset)?;
            world.change(self.id, Change::Write { offset, data }, synced)
        })
        .await
    }

    async fn sync_data(&self) -> Result<(), DiskError> {
        self.run(Operation::Sync, |world| {
            if !world.is_cut() {
                world.sync(self.id);
            }
            Ok(())
        })
        .await
    }

    async fn set_len(&self, len: u64) -> Result<(), DiskError> {
        self.run(Operation::Resize, |world| world.change(self.id, Change::Resize(place(len)?), false)).await
    }

    async fn allocate(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        self.run(Operation::Resize, |world| {
            let there = world.inode(self.id).now.len() as u64;
            let more = offset.saturating_add(len).saturating_sub(there);
            if world.used().saturating_add(more) > world.capacity {
                return Err(Errno::NOSPC);
            }
            Ok(())
        })
        .await
    }

    async fn zero_fill(&self, len: u64) -> Result<(), DiskError> {
        self.run(Operation::Write, |world| {
            let synced = !world.is_cut();
            let data = Bytes::from(vec![0; place(len)?]);
            world.change(self.id, Change::Write { offset: 0, data }, synced)
        })
        .await
    }

    async fn evict(&self, _offset: u64, _len: u64) -> Result<(), DiskError> {
        self.run(Operation::Inspect, |_| Ok(())).await
    }
}
