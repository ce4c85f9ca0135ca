//! The journal on the simulated disk, where power fails at any moment, and once on the real one.

mod behaviour;
mod formats;
mod power;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use proto::ids::{DirectoryId, TopicId, TopicPartition, Uuid};
use tokio::sync::Notify;

use super::*;
use crate::disk::SimDisk;

const DIR: &str = "/data";
const DIRECTORY: DirectoryId = DirectoryId(Uuid::from_u128(0xd1));

/// Four small files, several groups in each.
fn small() -> Config {
    Config {
        file_bytes: 64 << 10,
        max_bytes: 256 << 10,
        max_group_bytes: 16 << 10,
        block_bytes: 32 << 10,
        pooled_blocks: 2,
        max_unsynced_bytes: 64 << 10,
    }
}

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new(TopicId(Uuid::from_u128(0x7)), partition)
}

/// Something with the header and the CRC of a record batch. `len` is at least 61.
fn batch(len: usize, fill: u8) -> Vec<u8> {
    let mut batch: Vec<u8> = (0..len).map(|index| fill.wrapping_add((index % 241) as u8)).collect();
    batch[23..27].copy_from_slice(&2i32.to_be_bytes());
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

/// What `batch` looks like once it is placed.
fn placed(batch: &[u8], base_offset: i64, leader_epoch: i32) -> Bytes {
    let mut batch = batch.to_vec();
    batch[..8].copy_from_slice(&base_offset.to_be_bytes());
    batch[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
    batch.into()
}

fn append(batch: &[u8], partition: i32, base_offset: i64) -> Record<'_> {
    Record::Append { tp: tp(partition), base_offset, leader_epoch: 4, batch }
}

#[derive(Default)]
struct Sink {
    groups: Mutex<Vec<Arc<Group>>>,
    pressures: Mutex<Vec<Pressure>>,
    loose: AtomicU64,
    moved: Notify,
}

impl GroupSink for Sink {
    fn sealed(&self, group: Arc<Group>) {
        self.groups.lock().push(group);
    }

    fn unjournaled(&self) {
        self.loose.fetch_add(1, Ordering::SeqCst);
    }

    fn pressed(&self, pressure: Pressure) {
        self.pressures.lock().push(pressure);
        self.moved.notify_one();
    }
}

#[derive(Default)]
struct Waiter {
    synced: Mutex<Vec<Lsn>>,
    failures: AtomicU64,
    moved: Notify,
}

impl Waiter {
    fn new() -> (Arc<Self>, Arc<dyn Owner>) {
        let waiter = Arc::new(Self::default());
        let owner = Arc::clone(&waiter) as Arc<dyn Owner>;
        (waiter, owner)
    }

    fn last(&self) -> Lsn {
        self.synced.lock().last().copied().unwrap_or_default()
    }

    fn failures(&self) -> u64 {
        self.failures.load(Ordering::SeqCst)
    }

    /// Waits until `lsn` is durable; `false` if the journal failed first.
    async fn reached(&self, lsn: Lsn) -> bool {
        while self.last() < lsn {
            if self.failures() > 0 {
                return false;
            }
            self.moved.notified().await;
        }
        true
    }
}

impl Owner for Waiter {
    fn synced(&self, up_to: Lsn) {
        self.synced.lock().push(up_to);
        self.moved.notify_one();
    }

    fn failed(&self, _cause: &str) {
        self.failures.fetch_add(1, Ordering::SeqCst);
        self.moved.notify_one();
    }
}

async fn sim(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    disk.create_dir_all(Path::new(DIR)).await.expect("dir");
    disk
}

async fn open(disk: &SimDisk, config: Config) -> Result<Replay, OpenError> {
    let checkpoint = Checkpoint::load(disk, Path::new(DIR), DIRECTORY).await;
    Journal::open(
        Arc::new(disk.clone()),
        Path::new(DIR),
        DIRECTORY,
        config,
        checkpoint.expect("a checkpoint that can be read"),
    )
    .await
}

async fn read_all(replay: &mut Replay) -> Result<Vec<(Lsn, OwnedRecord)>, OpenError> {
    let mut records = Vec::new();
    while let Some(record) = replay.next().await? {
        records.push(record);
    }
    Ok(records)
}

async fn start(disk: &SimDisk, config: Config) -> (Journal, Arc<Sink>) {
    let sink = Arc::new(Sink::default());
    let replay = open(disk, config).await.expect("a healthy journal");
    let journal = replay.start(Arc::clone(&sink) as Arc<dyn GroupSink>).await;
    (journal.expect("started"), sink)
}

/// Settles everything up to and including `up_to`.
async fn settle(disk: &SimDisk, journal: &Journal, up_to: Lsn) -> Result<(), crate::disk::DiskError> {
    let checkpoint = Checkpoint { replay_from: up_to.next(), ..Checkpoint::default() };
    checkpoint.store(disk, Path::new(DIR), DIRECTORY).await?;
    journal.checkpointed(up_to);
    Ok(())
}
