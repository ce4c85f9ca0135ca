//! A journal file and the checkpoint beside it. The first byte says which of the two, and whether its checksums are made
//! right first, so that what is behind them is reached.
#![no_main]

// The two modules by themselves: the whole broker would take minutes to build.
#[path = "../../broker/src/disk/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the broker needs more of it")]
mod disk;
#[path = "../../broker/src/journal/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the broker needs more of it")]
mod journal;
mod shared;

use std::path::Path;
use std::sync::Arc;

use disk::{BLOCK, Disk, OpenMode, SimDisk, read_whole};
use journal::format::{FRAME_HEADER, FileHeader, FrameHeader, decode_frame};
use journal::{Checkpoint, Config, EpochStart, Group, GroupSink, Journal, Lsn, Mark, Owner, Pressure, Record};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use proto::ids::{DirectoryId, TopicId, TopicPartition, Uuid};
use proto::records::BatchBuilder;
use tokio::runtime::{Builder, Runtime};

const CHECKPOINT: u8 = 1;
const MEND: u8 = 2;
const DIR: &str = "/data";
const FILE: &str = "/data/journal-0001.firn";
const DIRECTORY: DirectoryId = DirectoryId(Uuid::from_u128(0x000d_1eec));

fuzz_target!(
    init: shared::plant(seeds()),
    |data: &[u8]| {
        let [mode, bytes @ ..] = data else { return };
        let mut bytes = bytes.to_vec();
        if mode & CHECKPOINT != 0 {
            if mode & MEND != 0 {
                mend_checkpoint(&mut bytes);
            }
            checkpoint(&bytes);
        } else {
            if mode & MEND != 0 {
                mend_file(&mut bytes);
            }
            runtime().block_on(file(bytes));
        }
    }
);

/// What comes out is in order, is what the frames hold, and is the same again for whoever starts twice.
async fn file(bytes: Vec<u8>) {
    let frames = frames(&bytes);
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new(DIR)).await.expect("an empty disk");
    let file = disk.open(Path::new(FILE), OpenMode::CreateNew).await.expect("a new name");
    file.write_at(0, vec![Bytes::from(bytes)]).await.expect("room");
    let first = replayed(&disk).await;
    assert_eq!(replayed(&disk).await, first, "reading changes nothing");
    if let Some(read) = first {
        assert!(read <= frames, "{read} records of {frames}");
    }
}

/// How many records a replay hands out up to its end or its error; none if it cannot begin.
async fn replayed(disk: &SimDisk) -> Option<u64> {
    let disk = Arc::new(disk.clone());
    let opened = Journal::open(disk, Path::new(DIR), DIRECTORY, small(), Checkpoint::default()).await;
    let mut replay = opened.ok()?;
    let mut last = None;
    while let Ok(Some((lsn, _))) = replay.next().await {
        assert!(last < Some(lsn), "in order");
        last = Some(lsn);
    }
    Some(replay.replayed())
}

/// Records in all blocks of a file at which a frame begins.
fn frames(bytes: &[u8]) -> u64 {
    let Ok(header) = FileHeader::decode(bytes) else { return 0 };
    assert_eq!(FileHeader::decode(&header.encode()), Ok(header));
    let bytes = Bytes::copy_from_slice(bytes);
    let blocks = (BLOCK..bytes.len()).step_by(BLOCK);
    let frames = blocks.filter_map(|at| decode_frame(&bytes.slice(at..), header.seed()).ok());
    frames.map(|frame| frame.records.len() as u64).sum()
}

fn checkpoint(bytes: &[u8]) {
    let Ok((directory, checkpoint)) = Checkpoint::decode(bytes) else { return };
    assert_eq!(Checkpoint::decode(&checkpoint.encode(directory)), Ok((directory, checkpoint)));
}

/// The header as it should be but for its sequence, and the CRC of whatever is laid out as a frame.
fn mend_file(bytes: &mut [u8]) {
    let Some(sequence) = bytes.get(32..40).and_then(|bytes| bytes.try_into().ok()) else { return };
    let header =
        FileHeader { directory: DIRECTORY, sequence: u64::from_le_bytes(sequence), capacity: bytes.len() as u64 };
    let block = header.encode();
    let length = bytes.len().min(BLOCK);
    bytes[..length].copy_from_slice(&block[..length]);
    for frame in bytes.chunks_mut(BLOCK).skip(1).map(|block| block.as_ptr()).collect::<Vec<_>>() {
        let at = frame.addr() - bytes.as_ptr().addr();
        let Ok(peeked) = FrameHeader::peek(&bytes[at..]) else { continue };
        let Some(end) = usize::try_from(peeked.length).ok().and_then(|length| at.checked_add(length)) else { continue };
        if end <= bytes.len() && end - at >= FRAME_HEADER {
            let head = peeked.encode(header.seed(), &bytes[at + FRAME_HEADER..end], &[]);
            bytes[at..at + FRAME_HEADER].copy_from_slice(&head);
        }
    }
}

/// As it is laid out: magic, version, CRC of all that follows it.
fn mend_checkpoint(bytes: &mut [u8]) {
    if bytes.len() > 16 {
        let crc = crc32c::crc32c(&bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().build().expect("a runtime without drivers")
}

fn small() -> Config {
    Config { file_bytes: 48 << 10, max_bytes: 1 << 20, max_group_bytes: 8 << 10, ..Config::default() }
}

struct Nobody;

impl Owner for Nobody {
    fn synced(&self, _up_to: Lsn) {}
    fn failed(&self, _cause: &str) {}
}

#[derive(Debug)]
struct Nowhere;

impl GroupSink for Nowhere {
    fn sealed(&self, _group: Arc<Group>) {}
    fn unjournaled(&self) {}
    fn pressed(&self, _pressure: Pressure) {}
}

/// What a journal writes: records of each kind, in several groups.
async fn written() -> Vec<u8> {
    let disk = SimDisk::new(7);
    disk.create_dir_all(Path::new(DIR)).await.expect("an empty disk");
    let shared = Arc::new(disk.clone());
    let opened = Journal::open(shared, Path::new(DIR), DIRECTORY, small(), Checkpoint::default()).await;
    let journal = opened.expect("nothing there").start(Arc::new(Nowhere)).await.expect("a healthy disk");
    let owner: Arc<dyn Owner> = Arc::new(Nobody);
    let tp = |partition| TopicPartition::new(TopicId(Uuid::from_u128(7)), partition);
    for round in 0..4i64 {
        let mut batch = BatchBuilder::new();
        for at in 0..=round {
            batch.append(1_000 + at, None, Some(&shared::filling(20 + 100 * at as usize)), &[]);
        }
        let batch = batch.build();
        let epochs = [EpochStart { epoch: 1, start: 0 }, EpochStart { epoch: 3, start: round }];
        let records = [
            Record::Append { tp: tp(0), base_offset: 10 * round, leader_epoch: 3, batch: &batch },
            Record::TruncateTail { tp: tp(1), to: round },
            Record::TrimHead { tp: tp(1), to: round },
            Record::Reset { tp: tp(2), start: round, epochs: &epochs, producer_state: b"state" },
            Record::Delete { tp: tp(3) },
        ];
        for record in records.into_iter().skip(round as usize % 3) {
            let _placed = journal.append(record, &owner).expect("online");
        }
        // The journal's task writes what it has so far.
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }
    journal.close().await.expect("a healthy disk");
    read_whole(&disk, Path::new(FILE)).await.expect("readable").expect("it is there").to_vec()
}

/// A file, and checkpoints, each with and without mending.
fn seeds() -> Vec<Vec<u8>> {
    let file = runtime().block_on(written());
    assert!(frames(&file) >= 10, "the journal wrote what it took");
    let marks = (0..3).map(|at| {
        let tp = TopicPartition::new(TopicId(Uuid::from_u128(7)), at);
        (tp, Mark { segment: 10, position: 100 * at as u64, lsn: Lsn(5) })
    });
    let some = Checkpoint { replay_from: Lsn(4), partitions: marks.collect() };
    let kinds = [
        (0, file),
        (CHECKPOINT, some.encode(DIRECTORY).to_vec()),
        (CHECKPOINT, Checkpoint::default().encode(DIRECTORY).to_vec()),
    ];
    let both = kinds.iter().flat_map(|(kind, bytes)| [*kind, kind | MEND].map(|mode| [&[mode], &bytes[..]].concat()));
    both.collect()
}
