//! A broker's logs on a simulated disk that may lose power, and short cuts to fill and read them.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use proto::host::{Clock, ManualClock, Spawner};
use proto::ids::{DirectoryId, NodeId, Offset, TopicId, TopicPartition, Uuid};
use proto::records::{BatchBuilder, batches};
use tokio::runtime::Handle;

use crate::disk::{Disk, SimDisk};
use crate::journal;
use crate::log::config::LogConfig;
use crate::log::dir::DirConfig;
use crate::log::observer::{Observer, Unobserved};
use crate::partition::*;

pub(super) const NODE: NodeId = NodeId(0);
/// The machine is never started anew, unless a test says so.
const BOOT: &str = "boot";

/// A broker's logs on a simulated disk.
pub(super) struct World {
    pub(super) disk: SimDisk,
    pub(super) clock: Arc<ManualClock>,
    pub(super) partitions: Partitions,
    pub(super) dirs: Vec<DirSpec>,
    epoch: i32,
}

pub(super) fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new(TopicId(Uuid::from_u128(7)), partition)
}

pub(super) fn dirs(count: u32) -> Vec<DirSpec> {
    (0..count)
        .map(|at| DirSpec {
            id: DirectoryId(Uuid::from_u128(100 + u128::from(at))),
            path: PathBuf::from(format!("/data{at}")),
            broken: None,
        })
        .collect()
}

pub(super) fn small_journal() -> journal::Config {
    journal::Config {
        file_bytes: 64 << 10,
        max_bytes: 512 << 10,
        max_group_bytes: 16 << 10,
        block_bytes: 32 << 10,
        pooled_blocks: 2,
        max_unsynced_bytes: 64 << 10,
    }
}

pub(super) fn small_dir() -> DirConfig {
    DirConfig {
        tail_bytes: 16 << 10,
        max_backlog_bytes: 64 << 10,
        backlog_target_bytes: 8 << 10,
        write_bytes: 4 << 10,
        sync_bytes: 16 << 10,
        snapshot_bytes: 6 << 10,
        reserve_bytes: 0,
        settle_ms: 2_000,
        write_ms: 100,
    }
}

/// Small segments, kept for ever, not tiered.
pub(super) fn local() -> LogConfig {
    LogConfig {
        segment_bytes: 4 << 10,
        index_interval_bytes: 256,
        retention_ms: -1,
        remote: false,
        ..LogConfig::default()
    }
}

impl World {
    pub(super) async fn new(seed: u64) -> Self {
        Self::with_dirs(seed, 1).await
    }

    pub(super) async fn with_dirs(seed: u64, count: u32) -> Self {
        let disk = SimDisk::new(seed);
        let dirs = dirs(count);
        for dir in &dirs {
            disk.create_dir_all(&dir.path).await.expect("a fresh disk");
        }
        let clock = Arc::new(ManualClock::new(1_000_000));
        let partitions = open(&disk, &dirs, &clock).await.expect("a fresh disk");
        Self { disk, clock, partitions, dirs, epoch: 0 }
    }

    /// Starts again after the disk was cut off, or after a close.
    pub(super) async fn reopen(&mut self) -> Result<(), NoDirectory> {
        self.disk = self.disk.restart();
        self.partitions = open(&self.disk, &self.dirs, &self.clock).await?;
        self.epoch += 1;
        Ok(())
    }

    /// The partition, led by this broker alone.
    pub(super) async fn lead(&self, index: i32, config: LogConfig) -> PartitionHandle {
        let handle = self.partitions.create(tp(index), "flights", self.dirs[0].id, config).await.expect("online");
        handle.lead(Leadership::alone(NODE, self.epoch));
        handle
    }
}

pub(super) async fn open(
    disk: &SimDisk,
    dirs: &[DirSpec],
    clock: &Arc<ManualClock>,
) -> Result<Partitions, NoDirectory> {
    open_observed(disk, dirs, clock, Arc::new(Unobserved)).await
}

pub(super) async fn open_observed(
    disk: &SimDisk,
    dirs: &[DirSpec],
    clock: &Arc<ManualClock>,
    observer: Arc<dyn Observer>,
) -> Result<Partitions, NoDirectory> {
    open_as(NODE, disk, dirs, clock, observer).await
}

pub(super) async fn open_as(
    node: NodeId,
    disk: &SimDisk,
    dirs: &[DirSpec],
    clock: &Arc<ManualClock>,
    observer: Arc<dyn Observer>,
) -> Result<Partitions, NoDirectory> {
    Partitions::open(Open {
        node,
        disk: Arc::new(disk.clone()),
        dirs: dirs.to_vec(),
        journal: small_journal(),
        dir: small_dir(),
        clock: Arc::<ManualClock>::clone(clock),
        observer,
        boot: BOOT.to_owned(),
        spawner: Spawner::single(Handle::current()),
    })
    .await
}

/// A batch of records with these values, at one millisecond per record from `timestamp` on.
pub(super) fn batch(timestamp: i64, values: &[&[u8]]) -> Bytes {
    let mut builder = BatchBuilder::new();
    for (at, value) in (timestamp..).zip(values) {
        builder.append(at, None, Some(value), &[]);
    }
    builder.build()
}

/// Appends without waiting for the acknowledgement.
pub(super) fn append(world: &World, handle: &PartitionHandle, batches: &Bytes) -> Result<Appended, AppendError> {
    let info = describe(batches).expect("batches that were just built");
    handle.append(Append {
        leader_epoch: None,
        batches: batches.clone(),
        info: &info,
        origin: Origin::Client,
        acks: Acks::All,
        now_ms: world.clock.now_ms(),
        log_append_time: None,
    })
}

/// Appends one batch of values and waits until it is acknowledged; answers its base offset.
pub(super) async fn produce(world: &World, handle: &PartitionHandle, values: &[&[u8]]) -> Offset {
    let appended = append(world, handle, &batch(world.clock.now_ms(), values)).expect("taken");
    appended.acked.await.expect("acknowledged");
    appended.base_offset
}

/// One read's records, whether they are in memory or not.
pub(super) async fn read_once(handle: &PartitionHandle, offset: Offset, max_bytes: usize) -> Result<Chunks, ReadError> {
    let result = handle.read(Read {
        offset,
        max_bytes,
        min_one: true,
        isolation: Isolation::ReadUncommitted,
        leader_epoch: None,
        last_fetched_epoch: None,
        reader: Reader::Consumer,
    })?;
    match result.data {
        ReadData::Empty => Ok(Vec::new()),
        ReadData::Ready(chunks) => Ok(chunks),
        ReadData::Disk(disk) => disk.run().await,
        ReadData::Remote => panic!("offset {offset} is not local"),
    }
}

/// All visible records from `offset` on: (offset, value), offsets checked to be dense.
pub(super) async fn read_all(handle: &PartitionHandle, offset: Offset, max_bytes: usize) -> Vec<(Offset, Vec<u8>)> {
    let mut records = Vec::new();
    let mut next = offset;
    while next < handle.offsets().high_watermark {
        let chunks = read_once(handle, next, max_bytes).await.expect("readable");
        let before = next;
        for chunk in &chunks {
            for batch in batches(chunk) {
                let batch = batch.expect("whole batches");
                assert!(batch.header.last_offset() >= next, "nothing twice");
                assert!(batch.header.base_offset <= next, "nothing is left out before {next}");
                assert_eq!(batch.compute_crc(), batch.header.crc);
                proto::records::for_each_record(&batch, usize::MAX, |record| {
                    if record.offset >= next {
                        records.push((record.offset, record.value.expect("a value").to_vec()));
                    }
                })
                .expect("whole records");
                next = batch.header.last_offset() + 1;
            }
        }
        assert!(next > before, "a read below the high watermark gets on");
    }
    records
}
