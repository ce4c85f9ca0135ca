//! The files of a journal: which hold what, which are free, and the making of new ones ahead of need.

use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proto::ids::{DirectoryId, TopicPartition};
use tokio::sync::mpsc;

use super::buffer::Pool;
use super::format::FileHeader;
use super::record::Lsn;
use super::{Pressure, Shared};
use crate::disk::{BLOCK, Disk, DiskError, DiskFile, OpenMode};

/// How often a full disk is looked at again: whoever else makes room there does not say so.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Files of a journal are named `journal-<number>.firn`; the order is in their headers.
const PREFIX: &str = "journal-";
const SUFFIX: &str = ".firn";

/// The name of file `number`.
pub(super) fn file_name(number: u64) -> String {
    format!("{PREFIX}{number:04}{SUFFIX}")
}

/// The number of a journal file's name, if it is one.
pub(super) fn file_number(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()
}

/// Whether a name is what a crash left of the making of a file.
pub(super) fn is_leftover(name: &str) -> bool {
    name.strip_suffix(".tmp").is_some_and(|name| file_number(name).is_some())
}

/// A file by name and length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) path: PathBuf,
    pub(super) capacity: u64,
}

/// A file that is full, or was found at the start.
#[derive(Debug)]
pub(super) struct Used {
    pub(super) slot: Slot,
    pub(super) last_lsn: Lsn,
    pub(super) partitions: HashSet<TopicPartition>,
}

/// All files but the one being written and the one being made.
#[derive(Debug)]
pub(super) struct Table {
    file_bytes: u64,
    used: VecDeque<Used>,
    free: VecDeque<Slot>,
    /// Of odd size: removed with the next order.
    doomed: Vec<Slot>,
    /// All files that stay or are being made.
    bytes: u64,
}

impl Table {
    pub(super) fn new(file_bytes: u64) -> Self {
        Self { file_bytes, used: VecDeque::new(), free: VecDeque::new(), doomed: Vec::new(), bytes: 0 }
    }

    /// Takes in a file found on disk that holds records.
    pub(super) fn found_used(&mut self, used: Used) {
        self.bytes += used.slot.capacity;
        self.used.push_back(used);
    }

    /// Takes in a file found on disk that holds nothing that matters.
    pub(super) fn found_free(&mut self, slot: Slot) {
        self.bytes += slot.capacity;
        self.release(slot);
    }

    /// Frees what holds nothing newer than `up_to`; whether that was anything.
    pub(super) fn settle(&mut self, up_to: Lsn) -> bool {
        let before = self.used.len();
        while self.used.front().is_some_and(|used| used.last_lsn <= up_to) {
            if let Some(used) = self.used.pop_front() {
                self.release(used.slot);
            }
        }
        self.used.len() < before
    }

    fn release(&mut self, slot: Slot) {
        if slot.capacity == self.file_bytes {
            self.free.push_back(slot);
        } else {
            self.bytes -= slot.capacity;
            self.doomed.push(slot);
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.used.iter().map(|used| used.slot.capacity).sum()
    }

    fn is_half_full(&self, max_bytes: u64) -> bool {
        self.used_bytes() >= max_bytes / 2
    }

    /// What holds the oldest file, if there is one.
    fn pressure(&self, max_bytes: u64) -> Option<Pressure> {
        let oldest = self.used.front()?;
        let mut partitions: Vec<_> = oldest.partitions.iter().copied().collect();
        partitions.sort_unstable();
        Some(Pressure { up_to: oldest.last_lsn, partitions, used_bytes: self.used_bytes(), max_bytes })
    }
}

/// A file to be made ready.
#[derive(Debug)]
pub(super) struct Order {
    slot: Slot,
    /// Whether it exists and is written over, or has to be made.
    reuse: bool,
    header: FileHeader,
    remove: Vec<Slot>,
}

/// A file that is ready: header written, zeros (or an earlier use's frames) behind it, name durable.
#[derive(Debug)]
pub(super) struct Ready {
    slot: Slot,
    header: FileHeader,
    file: Arc<dyn DiskFile>,
}

/// The outcome of an order.
pub(super) type Made = Result<Ready, (Slot, DiskError)>;

/// Makes files as they are ordered, until nobody orders any more.
pub(super) async fn make_files(
    disk: Arc<dyn Disk>,
    pool: Arc<Pool>,
    mut orders: mpsc::Receiver<Order>,
    made: mpsc::Sender<Made>,
) {
    while let Some(order) = orders.recv().await {
        let slot = order.slot.clone();
        let answer = make(&*disk, &pool, order).await;
        if made.send(answer.map_err(|error| (slot, error))).await.is_err() {
            return;
        }
    }
}

async fn make(disk: &dyn Disk, pool: &Arc<Pool>, order: Order) -> Result<Ready, DiskError> {
    for slot in order.remove {
        disk.remove(&slot.path).await?;
    }
    let block = pool.take(BLOCK).begin(BLOCK).close(BLOCK).0;
    let header = block.finish(&order.header.encode());
    let Slot { path, capacity } = order.slot;
    let file = if order.reuse {
        let file = disk.open(&path, OpenMode::Direct).await?;
        file.write_sync_at(0, header).await?;
        file
    } else {
        let mut unfinished = path.clone().into_os_string();
        unfinished.push(".tmp");
        let unfinished = PathBuf::from(unfinished);
        let made = match create(disk, &unfinished, capacity, header).await {
            Ok(()) => disk.rename(&unfinished, &path).await,
            Err(error) => Err(error),
        };
        if let Err(error) = made {
            // As good as it goes: a full disk gets its space back now rather than at the next start.
            let _ = disk.remove(&unfinished).await;
            return Err(error);
        }
        disk.sync_dir(path.parent().unwrap_or(Path::new("."))).await?;
        disk.open(&path, OpenMode::Direct).await?
    };
    Ok(Ready { slot: Slot { path, capacity }, header: order.header, file })
}

async fn create(disk: &dyn Disk, path: &Path, capacity: u64, header: bytes::Bytes) -> Result<(), DiskError> {
    disk.open(path, OpenMode::OpenOrCreate).await?;
    let file = disk.open(path, OpenMode::Direct).await?;
    file.zero_fill(capacity).await?;
    file.write_sync_at(0, header).await
}

/// The file being written, and the one after it.
#[derive(Debug)]
pub(super) struct Files {
    shared: Arc<Shared>,
    directory: DirectoryId,
    next_sequence: u64,
    next_number: u64,
    orders: mpsc::Sender<Order>,
    made: mpsc::Receiver<Made>,
    ahead: Ahead,
    active: Option<Active>,
}

#[derive(Debug)]
enum Ahead {
    Nothing,
    Ordered,
    Ready(Ready),
}

/// The file being written.
#[derive(Debug)]
pub(super) struct Active {
    slot: Slot,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) header: FileHeader,
    /// Where the next frame goes.
    pub(super) position: u64,
    last_lsn: Option<Lsn>,
    partitions: HashSet<TopicPartition>,
}

impl Active {
    /// Says that a frame of `bytes` was written.
    pub(super) fn wrote(&mut self, bytes: u64, last_lsn: Lsn, partitions: impl Iterator<Item = TopicPartition>) {
        self.position += bytes;
        self.last_lsn = Some(last_lsn);
        self.partitions.extend(partitions);
    }

    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.position + bytes <= self.slot.capacity
    }
}

/// Why there is no file to write to.
#[derive(Debug, Clone)]
pub(super) enum NoFile {
    Disk(DiskError),
    /// Nobody waits for it any more.
    Abandoned,
}

impl From<DiskError> for NoFile {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

impl Files {
    /// Files that continue after those numbered and sequenced below the given ones.
    pub(super) fn new(
        shared: Arc<Shared>,
        directory: DirectoryId,
        next_sequence: u64,
        next_number: u64,
        orders: mpsc::Sender<Order>,
        made: mpsc::Receiver<Made>,
    ) -> Self {
        Self { shared, directory, next_sequence, next_number, orders, made, ahead: Ahead::Nothing, active: None }
    }

    /// The file being written, if it was begun.
    pub(super) fn active(&mut self) -> Option<&mut Active> {
        self.active.as_mut()
    }

    /// Orders the first file, if there may be one before something is settled, and does not wait for it: a start is
    /// not the time to write zeros. Whatever is wrong with the disk, the first write finds it.
    pub(super) fn order_first(&mut self) {
        self.order_next();
    }

    /// Orders nothing more, and waits until whoever makes the files is done with the one at hand: the directory may be
    /// opened again after this.
    pub(super) async fn end(&mut self) {
        let (nobody, _) = mpsc::channel(1);
        self.orders = nobody;
        while self.made.recv().await.is_some() {}
    }

    /// Orders the next file when the one at hand is half full. Never waits.
    pub(super) fn look_ahead(&mut self) {
        if let (Ahead::Ordered, Ok(made)) = (&self.ahead, self.made.try_recv()) {
            // A failure here is no failure yet: the order is repeated when the file is needed.
            self.ahead = match made {
                Ok(ready) => Ahead::Ready(ready),
                Err((slot, _)) => {
                    self.give_up(&slot);
                    return;
                }
            };
        }
        let half_full = self.active.as_ref().is_some_and(|active| active.position >= active.slot.capacity / 2);
        if half_full && matches!(self.ahead, Ahead::Nothing) {
            self.order_next();
        }
    }

    /// The file that has room for a frame of `bytes`. Waits for one to be made, or freed, or for room on the disk, if it
    /// must.
    ///
    /// # Errors
    /// The disk's; a full disk only of a journal that is being closed.
    pub(super) async fn room(&mut self, bytes: u64) -> Result<&mut Active, NoFile> {
        let fits = |active: &Active| active.has_room(bytes);
        if !self.active.as_ref().is_some_and(fits) {
            self.retire();
            let capacity = bytes.saturating_add(BLOCK as u64);
            let ready = if capacity <= self.shared.config.file_bytes {
                self.next_ready().await?
            } else {
                self.oversized(capacity).await?
            };
            self.begin(ready);
        }
        Ok(self.active.as_mut().expect("begun just above"))
    }

    /// Moves the file being written to those that wait to be settled.
    fn retire(&mut self) {
        let Some(active) = self.active.take() else {
            return;
        };
        let mut table = self.shared.table.lock();
        match active.last_lsn {
            Some(last_lsn) => table.used.push_back(Used { slot: active.slot, last_lsn, partitions: active.partitions }),
            None => table.release(active.slot),
        }
    }

    fn begin(&mut self, ready: Ready) {
        self.active = Some(Active {
            slot: ready.slot,
            file: ready.file,
            header: ready.header,
            position: BLOCK as u64,
            last_lsn: None,
            partitions: HashSet::new(),
        });
        let max_bytes = self.shared.config.max_bytes;
        let pressure = {
            let table = self.shared.table.lock();
            table.is_half_full(max_bytes).then(|| table.pressure(max_bytes)).flatten()
        };
        if let Some(pressure) = pressure {
            self.shared.sink.pressed(pressure);
        }
    }

    async fn next_ready(&mut self) -> Result<Ready, NoFile> {
        loop {
            match std::mem::replace(&mut self.ahead, Ahead::Nothing) {
                Ahead::Ready(ready) => return Ok(ready),
                Ahead::Ordered => match self.receive().await? {
                    Ok(ready) => return Ok(ready),
                    Err(error) => self.wait_for_room(error).await?,
                },
                Ahead::Nothing => {
                    if !self.order_next() {
                        self.wait_for_files().await?;
                    }
                }
            }
        }
    }

    /// A file of its own for a frame that fits in no other.
    async fn oversized(&mut self, capacity: u64) -> Result<Ready, NoFile> {
        // The one made ahead has a lower sequence and may not be used after this one: it goes back.
        match std::mem::replace(&mut self.ahead, Ahead::Nothing) {
            Ahead::Ready(ready) => self.shared.table.lock().release(ready.slot),
            Ahead::Ordered => {
                if let Ok(ready) = self.receive().await? {
                    self.shared.table.lock().release(ready.slot);
                }
            }
            Ahead::Nothing => {}
        }
        let max_bytes = self.shared.config.max_bytes;
        loop {
            let used = self.shared.table.lock().used_bytes();
            if used > 0 && used.saturating_add(capacity) > max_bytes {
                self.wait_for_files().await?;
                continue;
            }
            let slot = self.new_slot(capacity);
            self.order(slot, false);
            match self.receive().await? {
                Ok(ready) => return Ok(ready),
                Err(error) => self.wait_for_room(error).await?,
            }
        }
    }

    /// The answer to the order given last.
    async fn receive(&mut self) -> Result<Result<Ready, DiskError>, NoFile> {
        match self.made.recv().await {
            Some(Ok(ready)) => {
                self.ahead = Ahead::Nothing;
                Ok(Ok(ready))
            }
            Some(Err((slot, error))) => {
                self.give_up(&slot);
                Ok(Err(error))
            }
            None => Err(NoFile::Abandoned),
        }
    }

    /// Forgets a file that could not be made.
    fn give_up(&mut self, slot: &Slot) {
        self.ahead = Ahead::Nothing;
        self.shared.table.lock().bytes -= slot.capacity;
    }

    /// Orders the next file if the bound allows one; whether it did.
    fn order_next(&mut self) -> bool {
        let config = &self.shared.config;
        let (free, may_grow) = {
            let mut table = self.shared.table.lock();
            let free = table.free.pop_front();
            // With nothing to wait for, one more file is better than standing still.
            let may_grow = table.bytes.saturating_add(config.file_bytes) <= config.max_bytes || table.used.is_empty();
            (free, may_grow)
        };
        match free {
            Some(slot) => self.order(slot, true),
            None if may_grow => {
                let slot = self.new_slot(config.file_bytes);
                self.order(slot, false);
            }
            None => return false,
        }
        true
    }

    fn new_slot(&mut self, capacity: u64) -> Slot {
        let path = self.shared.directory.join(file_name(self.next_number));
        self.next_number += 1;
        let capacity = capacity.next_multiple_of(BLOCK as u64);
        self.shared.table.lock().bytes += capacity;
        Slot { path, capacity }
    }

    fn order(&mut self, slot: Slot, reuse: bool) {
        let header = FileHeader { directory: self.directory, sequence: self.next_sequence, capacity: slot.capacity };
        self.next_sequence += 1;
        let remove = std::mem::take(&mut self.shared.table.lock().doomed);
        let order = Order { slot, reuse, header, remove };
        // There is never more than one order out. If the maker is gone, `receive` says so.
        let _ = self.orders.try_send(order);
        self.ahead = Ahead::Ordered;
    }

    /// A file could not be made: if that was for want of space, waits until it is worth another try. Whoever closes the
    /// journal does not wait for somebody to make room.
    async fn wait_for_room(&self, error: DiskError) -> Result<(), NoFile> {
        if !error.is_full() || self.shared.is_closing() {
            return Err(error.into());
        }
        tracing::warn!(%error, "no space for a journal file: waiting");
        self.wait_for_files().await
    }

    /// Asks for the oldest file to be settled, and waits until some are, or for a while.
    async fn wait_for_files(&self) -> Result<(), NoFile> {
        if self.shared.is_ending() {
            return Err(NoFile::Abandoned);
        }
        let pressure = self.shared.table.lock().pressure(self.shared.config.max_bytes);
        if let Some(pressure) = pressure {
            self.shared.sink.pressed(pressure);
        }
        // Either way it is looked at again.
        let _ = tokio::time::timeout(LOOK_AGAIN, self.shared.freed.notified()).await;
        Ok(())
    }
}
