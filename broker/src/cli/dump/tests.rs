//! Segments, objects and journals, sound and damaged.

use super::*;
use crate::disk::{Disk, LocalDisk};
use crate::journal::{Checkpoint, Config, Group, GroupSink, Journal, Lsn, Owner, Pressure, Record};
use bytes::Bytes;
use parking_lot::Mutex;
use proto::ids::{DirectoryId, TopicId, TopicPartition, Uuid};
use proto::records::BatchBuilder;
use std::io::Cursor;
use std::sync::Arc;
use tiering::format::{EpochHistory, ObjectBuilder};
use tokio::runtime::Handle;
use tokio::sync::Notify;

const PLAIN: Options = Options { records: true, json: false };
const JSON: Options = Options { records: true, json: true };

fn batch(base: i64) -> Vec<u8> {
    let mut builder = BatchBuilder::new().base_offset(base);
    builder.append(1, Some(b"k"), Some(b"v"), &[]);
    builder.append(2, None, None, &[]);
    builder.build().to_vec()
}

fn dumped_as(bytes: &[u8], options: Options) -> (String, Result<(), String>) {
    let mut out = Vec::new();
    let outcome = dump(&mut Cursor::new(bytes), options, &mut out).map_err(|failed| match failed {
        Failed::Io(error) => error.to_string(),
        Failed::Damaged { at, why } => format!("{at}: {why}"),
    });
    (String::from_utf8(out).expect("text"), outcome)
}

/// As [`dumped_as`] text; what it prints as JSON must be JSON, and the outcome the same.
fn dumped(bytes: &[u8]) -> (String, Result<(), String>) {
    let (json, same) = dumped_as(bytes, JSON);
    for line in json.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(value.is_object(), "{line}");
    }
    let (text, outcome) = dumped_as(bytes, PLAIN);
    assert_eq!(outcome, same);
    (text, outcome)
}

#[test]
fn a_segment_is_printed_batch_by_batch() {
    let (text, outcome) = dumped(&[batch(5), batch(7)].concat());
    assert_eq!(outcome, Ok(()));
    assert!(text.contains("offsets 5..=6, 2 records") && text.contains("offsets 7..=8"), "{text}");
    assert!(text.contains(r#""key":"k""#), "{text}");
}

#[test]
fn damage_is_named_with_its_place() {
    let good = batch(5);
    let mut bad = batch(7);
    *bad.last_mut().expect("not empty") ^= 1;
    let (text, outcome) = dumped(&[good.clone(), bad].concat());
    assert!(text.contains("offsets 5..=6"));
    assert!(outcome.expect_err("damaged").starts_with(&format!("{}: the CRC", good.len())));
    let (_, gap) = dumped(&[good, batch(9)].concat());
    assert!(gap.expect_err("a gap").contains("7 was expected"));
}

/// An object of three batches, offsets 5 to 10, and where its footer begins.
fn object() -> (Vec<u8>, usize) {
    let mut builder = ObjectBuilder::new(5);
    for base in [5, 7, 9] {
        let chunk = Bytes::from(batch(base));
        assert_eq!(builder.push(&chunk, i64::MAX, u64::MAX).expect("in order"), chunk.len());
    }
    let epochs = EpochHistory { entries: vec![(0, 5)] };
    let sealed = builder.seal(epochs, Vec::new(), Bytes::new()).expect("not empty");
    let footer_at = usize::try_from(sealed.data_length).expect("small");
    (sealed.chunks.iter().flat_map(|chunk| chunk.to_vec()).collect(), footer_at)
}

#[test]
fn an_object_is_known_by_its_end_and_its_footer_verified() {
    let (object, footer_at) = object();
    let (text, outcome) = dumped(&object);
    assert_eq!(outcome, Ok(()));
    assert!(
        text.starts_with(&format!("object of offsets 5..=10: {footer_at} bytes of records under 1 checksums")),
        "{text}"
    );
    assert!(text.contains("offsets 9..=10, 2 records") && text.ends_with("on was verified\n"), "{text}");
}

#[test]
fn no_byte_of_an_object_can_be_another() {
    let (object, _) = object();
    for at in 0..object.len() {
        let mut bad = object.clone();
        bad[at] ^= 0x10;
        assert!(dumped_as(&bad, PLAIN).1.is_err(), "byte {at} of {}", object.len());
    }
}

struct Ignored;

impl GroupSink for Ignored {
    fn sealed(&self, _group: Arc<Group>) {}
    fn unjournaled(&self) {}
    fn pressed(&self, _pressure: Pressure) {}
}

#[derive(Default)]
struct Synced {
    up_to: Mutex<Lsn>,
    moved: Notify,
}

impl Owner for Synced {
    fn synced(&self, up_to: Lsn) {
        *self.up_to.lock() = up_to;
        self.moved.notify_one();
    }

    fn failed(&self, cause: &str) {
        panic!("{cause}");
    }
}

/// The first file of a journal that was really written: five frames of one record each, and where each begins.
async fn journal_file() -> (Vec<u8>, Vec<usize>) {
    let home = tempfile::tempdir().expect("a directory");
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk::new(Handle::current()));
    let config = Config {
        file_bytes: 64 << 10,
        max_bytes: 256 << 10,
        max_group_bytes: 16 << 10,
        block_bytes: 32 << 10,
        pooled_blocks: 2,
        max_unsynced_bytes: 64 << 10,
    };
    let directory = DirectoryId(Uuid::from_u128(0xd1));
    let replay =
        Journal::open(disk, home.path(), directory, config, Checkpoint::default()).await.expect("an empty one");
    let journal = replay.start(Arc::new(Ignored)).await.expect("started");
    let synced = Arc::new(Synced::default());
    let owner = Arc::clone(&synced) as Arc<dyn Owner>;
    let tp = TopicPartition::new(TopicId(Uuid::from_u128(7)), 0);
    for at in 0..5 {
        let batch = batch(at * 2);
        let permit = journal.admit(batch.len()).await.expect("room");
        let record = Record::Append { tp, base_offset: at * 2, leader_epoch: 4, batch: &batch };
        let placed = journal.append(record, &owner).expect("online");
        drop(permit);
        while *synced.up_to.lock() < placed.lsn {
            synced.moved.notified().await;
        }
    }
    journal.close().await.expect("clean");
    let file = std::fs::read_dir(home.path()).expect("listed").filter_map(Result::ok).find_map(|entry| {
        let bytes = std::fs::read(entry.path()).ok()?;
        let first = FileHeader::decode(&bytes).is_ok_and(|header| header.sequence == 1);
        first.then_some(bytes)
    });
    // One block per frame, after the header's.
    (file.expect("a first file"), (1..=5).map(|frame| frame * BLOCK).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_journal_is_printed_to_its_end() {
    let (file, frames) = journal_file().await;
    let (text, outcome) = dumped(&file);
    assert_eq!(outcome, Ok(()));
    for (at, lsn) in frames.iter().zip(1..) {
        assert!(text.contains(&format!("frame at {at}: lsn {lsn}.., 1 records")), "{text}");
    }
    assert!(text.contains("append: offsets 8..=9, 2 records"), "{text}");
    assert!(text.lines().last().is_some_and(|line| line.starts_with("end at byte ")), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_in_mid_journal_is_corruption() {
    let (file, frames) = journal_file().await;
    for damaged in [0, 2] {
        let mut bad = file.clone();
        bad[frames[damaged] + 100] ^= 1;
        let (text, outcome) = dumped(&bad);
        assert_eq!(text.matches("frame at").count(), damaged, "{text}");
        let why = outcome.expect_err("corrupt");
        assert!(why.starts_with(&format!("{}: ", frames[damaged])) && why.contains("it was durable"), "{why}");
    }
    let mut gone = file;
    gone[frames[1]..frames[2]].fill(0);
    assert!(dumped(&gone).1.expect_err("corrupt").starts_with(&format!("{}: ", frames[1])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_end_of_a_journal_is_its_end() {
    let (mut file, frames) = journal_file().await;
    // As if the power had gone while the last frame was written, before anything later was.
    file[frames[4] + 100] ^= 1;
    file[frames[4] + BLOCK..].fill(0);
    let (text, outcome) = dumped(&file);
    assert_eq!(outcome, Ok(()));
    let end = format!("end at byte {}: what follows is torn, or of an earlier use of the file", frames[4]);
    assert_eq!(text.lines().last(), Some(end.as_str()));
}

#[test]
fn a_journal_whose_start_is_damaged_is_not_taken_for_a_segment() {
    let header = FileHeader { directory: DirectoryId(Uuid::from_u128(1)), sequence: 3, capacity: 1 << 20 };
    let mut file = header.encode().to_vec();
    file[20] ^= 1;
    assert_eq!(dumped(&file).1, Err("0: its header is damaged".to_owned()));
}
