//! A journal file and the checkpoint beside it. The first byte says which of the two, and whether its checksums are made
//! right first, so that what is behind them is reached; of a file also whether a checkpoint comes before it.
#![no_main]

// The two modules by themselves: the whole broker would take minutes to build.
#[path = "../../broker/src/disk/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the broker needs more of it")]
mod disk;
#[path = "../../broker/src/journal/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the broker needs more of it")]
mod journal;
#[path = "../../proto/tests/codecs/memory.rs"]
mod memory;
mod shared;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use disk::{BLOCK, Disk, OpenMode, SimDisk, read_whole};
use journal::format::{FRAME_HEADER, FileHeader, FrameHeader, decode_frame};
use journal::{
    Checkpoint, Config, EpochStart, Group, GroupSink, Journal, Lsn, Mark, OwnedRecord, Owner, Pressure, Record, Replay,
};
use libfuzzer_sys::fuzz_target;
use memory::peak;
use proto::ids::{DirectoryId, TopicId, TopicPartition, Uuid};
use proto::records::BatchBuilder;
use tokio::runtime::{Builder, Runtime};

const CHECKPOINT: u8 = 1;
const MEND: u8 = 2;
/// The first eight bytes say from where on the file is needed.
const FROM: u8 = 4;
/// What is behind may be past the end after a few more.
const FAR: Lsn = Lsn(Lsn::END.0 - 64);
const DIR: &str = "/data";
const FILE: &str = "/data/journal-0001.firn";
const DIRECTORY: DirectoryId = DirectoryId(Uuid::from_u128(0x000d_1eec));

fuzz_target!(
    init: shared::plant(seeds()),
    |data: &[u8]| {
        let [mode, bytes @ ..] = data else { return };
        if mode & CHECKPOINT != 0 {
            let mut bytes = bytes.to_vec();
            if mode & MEND != 0 {
                mend_checkpoint(&mut bytes);
            }
            checkpoint(&bytes);
            return;
        }
        let (from, bytes) = match bytes.split_first_chunk() {
            Some((from, rest)) if mode & FROM != 0 => (Lsn(u64::from_le_bytes(*from)), rest),
            _ => (Lsn::FIRST, bytes),
        };
        let mut bytes = bytes.to_vec();
        if mode & MEND != 0 {
            mend_file(&mut bytes);
        }
        runtime().block_on(file(bytes, from));
    }
);

/// What comes out is in order, is what the frames hold, and is the same again for whoever starts twice. A journal that
/// goes on from there adds to it and changes nothing.
async fn file(bytes: Vec<u8>, from: Lsn) {
    let needed = Checkpoint { replay_from: from, ..Checkpoint::default() };
    let Ok((_, needed)) = Checkpoint::decode(&needed.encode(DIRECTORY)) else { return };
    let held = held(&bytes);
    let sequence = FileHeader::decode(&bytes).map_or(0, |header| header.sequence);
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new(DIR)).await.expect("an empty disk");
    let file = disk.open(Path::new(FILE), OpenMode::CreateNew).await.expect("a new name");
    file.write_at(0, vec![Bytes::from(bytes)]).await.expect("room");
    file.sync_data().await.expect("a healthy disk");
    let first = replayed(&disk, &needed).await;
    let again = replayed(&disk, &needed).await;
    let ((mut records, _), (same, replay)) = match (first, again) {
        (Ok(first), Ok(again)) => (first, again),
        (first, again) => {
            assert_eq!(again.map(|(records, _)| records), first.map(|(records, _)| records), "reading changes nothing");
            return;
        }
    };
    assert_eq!(same, records, "reading changes nothing");
    assert!(records.is_sorted_by(|(one, _), (next, _)| one < next), "in order");
    for (lsn, record) in &records {
        assert!(*lsn >= from && held.get(lsn).is_some_and(|held| held.contains(record)), "not in the file: {lsn}");
    }
    let journal = replay.start(Arc::new(Nowhere)).await.expect("a healthy disk");
    let owner: Arc<dyn Owner> = Arc::new(Nobody);
    let placed = journal.append(Record::Delete { tp: tp(9) }, &owner).expect("online");
    journal.close().await.expect("a healthy disk");
    if placed.lsn > FAR || sequence > FAR.0 {
        // Where numbers end, nothing more is read back.
        return;
    }
    records.push((placed.lsn, OwnedRecord::Delete { tp: tp(9) }));
    let (read, _) = replayed(&disk, &needed).await.expect("what could be read before");
    assert_eq!(read, records, "the journal goes on where it ended");
}

/// What a replay hands out if it gets to the end, and itself.
async fn replayed(disk: &SimDisk, needed: &Checkpoint) -> Result<(Vec<(Lsn, OwnedRecord)>, Replay), String> {
    let disk = Arc::new(disk.clone());
    let opened = Journal::open(disk, Path::new(DIR), DIRECTORY, small(), needed.clone()).await;
    let mut replay = opened.map_err(|error| error.to_string())?;
    let mut records = Vec::new();
    while let Some(record) = replay.next().await.map_err(|error| error.to_string())? {
        records.push(record);
    }
    Ok((records, replay))
}

/// The records in all blocks of a file at which a frame begins, by position.
fn held(bytes: &[u8]) -> BTreeMap<Lsn, Vec<OwnedRecord>> {
    let mut held = BTreeMap::<_, Vec<_>>::new();
    let Ok(header) = FileHeader::decode(bytes) else { return held };
    assert_eq!(FileHeader::decode(&header.encode()), Ok(header));
    let bytes = Bytes::copy_from_slice(bytes);
    for at in (BLOCK..bytes.len()).step_by(BLOCK) {
        let rest = bytes.slice(at..);
        let Ok(frame) = within_bounds(rest.len(), || decode_frame(&rest, header.seed())) else { continue };
        for (lsn, record) in (frame.header.first_lsn.0..).map(Lsn).zip(frame.records) {
            held.entry(lsn).or_default().push(record);
        }
    }
    held
}

fn checkpoint(bytes: &[u8]) {
    let Ok((directory, checkpoint)) = within_bounds(bytes.len(), || Checkpoint::decode(bytes)) else { return };
    assert_eq!(Checkpoint::decode(&checkpoint.encode(directory)), Ok((directory, checkpoint)));
}

/// What is decoded takes more room than its bytes, but never for what is not there: the densest are records without a
/// payload, three times their size, and lists while they grow.
fn within_bounds<T>(input: usize, decode: impl FnOnce() -> T) -> T {
    let (taken, decoded) = peak(decode);
    assert!(taken <= 6 * input + 1024, "{taken} bytes taken for {input}");
    decoded
}

/// The header as it should be but for its sequence and capacity, and the CRC of whatever is laid out as a frame.
fn mend_file(bytes: &mut [u8]) {
    let number = |at| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let (Some(sequence), Some(capacity)) = (number(32), number(40)) else { return };
    let header = FileHeader { directory: DIRECTORY, sequence, capacity };
    let block = header.encode();
    let length = bytes.len().min(BLOCK);
    bytes[..length].copy_from_slice(&block[..length]);
    for at in (BLOCK..bytes.len()).step_by(BLOCK) {
        let frame = &mut bytes[at..];
        let Ok(peeked) = FrameHeader::peek(frame) else { continue };
        let length = usize::try_from(peeked.length).unwrap_or(usize::MAX);
        if let Some(entries) = frame.get(FRAME_HEADER..length) {
            let head = peeked.encode(header.seed(), entries, &[]);
            frame[..FRAME_HEADER].copy_from_slice(&head);
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

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new(TopicId(Uuid::from_u128(7)), partition)
}

fn runtime() -> Runtime {
    Builder::new_current_thread().build().expect("a runtime without drivers")
}

fn small() -> Config {
    Config { file_bytes: 32 << 10, max_bytes: 1 << 20, max_group_bytes: 8 << 10, ..Config::default() }
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

/// A file, with and without what is needed of it, and checkpoints; each with and without mending.
fn seeds() -> Vec<Vec<u8>> {
    let file = runtime().block_on(written());
    assert!(held(&file).len() >= 10, "the journal wrote what it took");
    let marks = (0..3).map(|at| (tp(at), Mark { segment: 10, position: 100 * at as u64, lsn: Lsn(5) }));
    let some = Checkpoint { replay_from: Lsn(4), partitions: marks.collect() };
    let kinds = [
        (FROM, [&4u64.to_le_bytes(), &file[..]].concat()),
        (0, file),
        (CHECKPOINT, some.encode(DIRECTORY).to_vec()),
        (CHECKPOINT, Checkpoint::default().encode(DIRECTORY).to_vec()),
    ];
    let both = kinds.iter().flat_map(|(kind, bytes)| [*kind, kind | MEND].map(|mode| [&[mode], &bytes[..]].concat()));
    both.collect()
}
