//! What the journal promises to whoever appends, and how it fails.

use std::sync::atomic::Ordering;

use futures::FutureExt;
use rustix::io::Errno;
use tokio::runtime::Handle;

use super::super::format::FileHeader;
use super::*;
use crate::disk::sim::Fault;
use crate::disk::{BLOCK, LocalDisk, OpenMode, Operation};

fn fault(operation: Operation, skip: u64, errno: Errno) -> Fault {
    Fault { operation, path: "journal-".into(), skip, times: u64::MAX, errno }
}

/// Appends batches of `len` bytes one by one, waiting for each. Returns the last position.
async fn append_each(journal: &Journal, count: usize, len: usize) -> Lsn {
    let (waiter, owner) = Waiter::new();
    let mut last = Lsn(0);
    for index in 0..count {
        let batch = batch(len, index as u8);
        let record = append(&batch, 0, index as i64);
        last = journal.append(record, &owner).expect("online").lsn;
        assert!(waiter.reached(last).await);
    }
    last
}

/// Flips a bit at `position` of the journal file `name`.
fn damage(disk: &SimDisk, name: &str, position: usize) {
    let path = Path::new(DIR).join(name);
    disk.corrupt(&path, position as u64, 0x10).expect("there");
}

#[tokio::test]
async fn what_queues_up_during_a_sync_goes_down_with_the_next() {
    let disk = sim(1).await;
    let (journal, sink) = start(&disk, small()).await;
    let owners = [Waiter::new(), Waiter::new()];
    for index in 0..10 {
        let batch = batch(100, index as u8);
        let owner = &owners[index % 2].1;
        journal.append(append(&batch, index as i32 % 2, index as i64), owner).expect("online");
    }
    journal.close().await.expect("clean");
    let groups = sink.groups.lock();
    assert_eq!(groups.len(), 1, "the thread had not begun: one group");
    let group = &groups[0];
    assert_eq!((group.first_lsn, group.last_lsn), (Lsn(1), Lsn(10)));
    assert!(group.journaled);
    assert_eq!(*owners[0].0.synced.lock(), [Lsn(9)], "each owner once");
    assert_eq!(*owners[1].0.synced.lock(), [Lsn(10)]);
    let entry = &group.entries[3];
    assert_eq!((entry.base_offset, entry.last_offset), (3, 5));
    assert_eq!(group.payload(entry), placed(&batch(100, 3), 3, 4));
    assert_eq!(group.bytes() % BLOCK, 0);
}

#[tokio::test]
async fn what_is_not_synced_yet_can_be_read() {
    let disk = sim(2).await;
    let (journal, sink) = start(&disk, small()).await;
    let (waiter, owner) = Waiter::new();
    let batch = batch(200, 1);
    let first = journal.append(append(&batch, 0, 7), &owner).expect("online");
    assert_eq!(journal.pending(&first.slice), Some(placed(&batch, 7, 4)));
    assert!(waiter.reached(first.lsn).await);
    assert_eq!(journal.pending(&first.slice), None, "the sink has it");
    let group = Arc::clone(&sink.groups.lock()[0]);
    assert_eq!(group.seq, first.slice.group);
    assert_eq!(group.slice(first.slice.range()), placed(&batch, 7, 4));
    let loose = journal.append_unjournaled(append(&batch, 1, 9), &owner);
    let loose = loose.expect("online");
    assert_eq!(journal.pending(&loose.slice), Some(placed(&batch, 9, 4)));
}

#[tokio::test]
async fn unjournaled_records_are_grouped_until_they_are_taken() {
    let disk = sim(3).await;
    let (journal, sink) = start(&disk, small()).await;
    let (waiter, owner) = Waiter::new();
    let batch = batch(300, 1);
    for offset in 0..4 {
        let record = append(&batch, 0, offset);
        journal.append_unjournaled(record, &owner).expect("online");
    }
    assert_eq!(sink.loose.load(Ordering::SeqCst), 1, "told once per group");
    assert_eq!(journal.usage().unsynced_bytes, 1200);
    let taken = journal.take_unjournaled();
    assert_eq!(taken.len(), 1);
    assert!(!taken[0].journaled);
    assert_eq!(taken[0].entries.len(), 4);
    let entry = &taken[0].entries[2];
    assert_eq!(taken[0].payload(entry), placed(&batch, 2, 4));
    assert_eq!(journal.usage().unsynced_bytes, 0);
    assert_eq!(journal.take_unjournaled().len(), 0);
    journal.close().await.expect("clean");
    assert_eq!(waiter.last(), Lsn(0), "the journal knows nothing of them");
    let mut replay = open(&disk, small()).await.expect("healthy");
    assert_eq!(read_all(&mut replay).await, Ok(vec![]));
}

#[tokio::test]
async fn a_failed_sync_is_final() {
    let disk = sim(4).await;
    let (journal, sink) = start(&disk, small()).await;
    assert_eq!(append_each(&journal, 2, 100).await, Lsn(2));
    disk.inject(fault(Operation::WriteSync, 0, Errno::IO));
    let (waiter, owner) = Waiter::new();
    let batch = batch(100, 1);
    for offset in 2..5 {
        journal.append(append(&batch, 0, offset), &owner).expect("online");
    }
    let permit = journal.admit(64 << 10).now_or_never();
    assert!(permit.is_none(), "more than is allowed with those three");
    let waiting = journal.clone();
    let waiting = tokio::spawn(async move { waiting.admit(64 << 10).await.map(drop) });
    assert!(!waiter.reached(Lsn(5)).await);
    assert_eq!((waiter.failures(), waiter.last()), (1, Lsn(0)));
    let refused = waiting.await.expect("no panic").expect_err("offline");
    assert_eq!(
        refused.to_string(),
        "journal of /data is offline: cannot write and sync /data/journal-0001.firn: \
         Input/output error (os error 5)"
    );
    journal.append(append(&batch, 0, 9), &owner).expect_err("offline");
    journal.admit(1).await.expect_err("offline");
    journal.close().await.expect_err("not all of it is durable");
    assert_eq!(sink.groups.lock().len(), 2);
    assert_eq!(journal.synced(), Lsn(2));
}

#[tokio::test]
async fn who_settles_the_journal_can_take_it_offline() {
    let disk = sim(17).await;
    let (journal, sink) = start(&disk, small()).await;
    append_each(&journal, 1, 100).await;
    // More than it may hold: it stands still until the rest is settled.
    let (waiter, owner) = Waiter::new();
    let large = batch(300_000, 9);
    journal.append(append(&large, 1, 5), &owner).expect("online");
    let (other, loose_owner) = Waiter::new();
    let loose = append(&large, 2, 6);
    journal.append_unjournaled(loose, &loose_owner).expect("online");
    sink.moved.notified().await;
    journal.take_offline("a segment could not be synced");
    let error = journal.close().await.expect_err("offline");
    let message = "journal of /data is offline: a segment could not be synced";
    assert_eq!(error.to_string(), message);
    assert_eq!((waiter.failures(), waiter.last()), (1, Lsn(0)));
    assert_eq!(other.failures(), 1, "nor will the unjournaled ones be written");
    let refused = journal.append(append(&large, 1, 7), &owner).expect_err("offline");
    assert_eq!(refused.to_string(), message);
}

#[tokio::test]
async fn admission_bounds_what_is_not_durable() {
    let disk = sim(5).await;
    let (journal, _sink) = start(&disk, small()).await;
    let (_, owner) = Waiter::new();
    let large = journal.admit(1 << 30).await.expect("alone, anything goes");
    assert!(journal.admit(1).now_or_never().is_none());
    drop(large);
    let permit = journal.admit(60 << 10).await.expect("room");
    let batch = batch(60 << 10, 1);
    journal.append(append(&batch, 0, 0), &owner).expect("online");
    drop(permit);
    // Nothing has run since: those bytes are in flight.
    assert!(journal.admit(8 << 10).now_or_never().is_none());
    let permit = journal.admit(8 << 10).await.expect("once they are durable");
    drop(permit);
    assert_eq!(journal.usage().unsynced_bytes, 0);
    assert_eq!(journal.usage().reserved_bytes, 0);
}

#[tokio::test]
async fn a_full_journal_waits_until_it_is_settled() {
    let disk = sim(6).await;
    let (journal, sink) = start(&disk, small()).await;
    let (waiter, owner) = Waiter::new();
    let batch = batch(12_000, 1);
    let appender = async {
        for offset in 0..40 {
            let permit = journal.admit(batch.len()).await.expect("online");
            let partition = (offset / 10) as i32;
            journal.append(append(&batch, partition, offset), &owner).expect("online");
            drop(permit);
        }
    };
    tokio::pin!(appender);
    // Runs until nothing moves any more: only the appender is left waiting, with nobody to wake it.
    for _ in 0..10_000 {
        if appender.as_mut().now_or_never().is_some() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let usage = journal.usage();
    assert!(usage.file_bytes <= small().max_bytes, "{usage:?}");
    let stuck = journal.synced();
    assert!(stuck < Lsn(40), "it cannot all fit");
    let first = sink.pressures.lock().first().cloned().expect("pressed");
    assert_eq!(first.used_bytes, 128 << 10, "at half");
    assert_eq!(first.partitions, [tp(0)]);
    assert!(first.up_to < Lsn(10));
    settle(&disk, &journal, stuck).await.expect("stored");
    appender.await;
    let settled = journal.synced();
    settle(&disk, &journal, settled).await.expect("stored");
    assert!(waiter.reached(Lsn(40)).await);
    journal.close().await.expect("clean");
    let names = disk.list(Path::new(DIR)).await.expect("list");
    assert_eq!(names.len(), 5, "four files, recycled, and the checkpoint");
    let mut replay = open(&disk, small()).await.expect("healthy");
    let read = read_all(&mut replay).await.expect("healthy");
    assert_eq!(read.first().map(|(lsn, _)| *lsn), Some(settled.next()));
    assert_eq!(read.last().map(|(lsn, _)| *lsn), Some(Lsn(40)));
}

#[tokio::test]
async fn a_partitions_mark_hides_what_it_covers() {
    let disk = sim(7).await;
    let (journal, _sink) = start(&disk, small()).await;
    let (_, owner) = Waiter::new();
    for partition in [0, 1, 0, 1] {
        journal.append(Record::Delete { tp: tp(partition) }, &owner).expect("online");
    }
    journal.close().await.expect("clean");
    let mark = Mark { segment: 0, position: 0, lsn: Lsn(3) };
    let checkpoint = Checkpoint { replay_from: Lsn(2), partitions: [(tp(0), mark)].into() };
    checkpoint.store(&disk, Path::new(DIR), DIRECTORY).await.expect("stored");
    let mut replay = open(&disk, small()).await.expect("healthy");
    let read = read_all(&mut replay).await.expect("healthy");
    let lsns: Vec<_> = read.into_iter().map(|(lsn, _)| lsn.0).collect();
    assert_eq!(lsns, [2, 4]);
}

#[tokio::test]
async fn damage_before_what_was_durable_is_corruption() {
    let disk = sim(8).await;
    let (journal, _sink) = start(&disk, small()).await;
    append_each(&journal, 5, 100).await;
    drop(journal);
    let disk = disk.restart();
    // One block per frame, after the header's.
    damage(&disk, "journal-0001.firn", 3 * BLOCK + 100);
    let mut replay = open(&disk, small()).await.expect("the first frame is well");
    let mut read = Vec::new();
    let error = loop {
        match replay.next().await {
            Ok(Some((lsn, _))) => read.push(lsn.0),
            Ok(None) => panic!("the damage was not noticed"),
            Err(error) => break error,
        }
    };
    assert_eq!(read, [1, 2]);
    assert_eq!(
        error.to_string(),
        "journal file /data/journal-0001.firn is corrupt at byte 12288: record 3 was durable and \
         cannot be read (a later frame says so, in /data/journal-0001.firn at byte 20480)"
    );
}

#[tokio::test]
async fn damage_is_found_across_files() {
    let disk = sim(9).await;
    let (journal, _sink) = start(&disk, small()).await;
    append_each(&journal, 8, 12_000).await;
    drop(journal);
    let disk = disk.restart();
    // The fourth of five frames of three blocks is hit, and all of the first file behind it.
    for block in 10..16 {
        damage(&disk, "journal-0001.firn", block * BLOCK + 5);
    }
    let mut replay = open(&disk, small()).await.expect("the first frame is well");
    let error = read_all(&mut replay).await.expect_err("corrupt");
    let OpenError::Corrupt { lsn, later, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(*lsn, Lsn(4));
    assert!(later.ends_with("journal-0002.firn"), "{error}");
}

#[tokio::test]
async fn a_damaged_end_is_torn_unless_the_journal_was_closed() {
    for close in [false, true] {
        let disk = sim(10).await;
        let (journal, _sink) = start(&disk, small()).await;
        append_each(&journal, 3, 100).await;
        if close {
            journal.close().await.expect("clean");
        }
        drop(journal);
        let disk = disk.restart();
        damage(&disk, "journal-0001.firn", 3 * BLOCK + 1);
        let mut replay = open(&disk, small()).await.expect("the first frame is well");
        let read = read_all(&mut replay).await;
        if close {
            assert!(matches!(read, Err(OpenError::Corrupt { lsn: Lsn(3), .. })));
            continue;
        }
        assert_eq!(read.expect("cut").len(), 2);
        let sink = Arc::new(Sink::default());
        let journal = replay.start(sink).await.expect("started");
        assert_eq!(journal.next_lsn(), Lsn(3), "goes on where it was cut");
        append_each(&journal, 2, 100).await;
        journal.close().await.expect("clean");
        let mut replay = open(&disk, small()).await.expect("healthy");
        assert_eq!(read_all(&mut replay).await.expect("healthy").len(), 4);
    }
}

#[tokio::test]
async fn missing_files_are_noticed() {
    let disk = sim(11).await;
    let (journal, _sink) = start(&disk, small()).await;
    append_each(&journal, 8, 12_000).await;
    journal.close().await.expect("clean");
    disk.remove(&Path::new(DIR).join("journal-0001.firn")).await.expect("there");
    // Whoever still makes files ahead ends here.
    let disk = disk.restart_process();
    let error = open(&disk, small()).await.expect_err("its start is gone");
    assert!(matches!(error, OpenError::Missing { expected: Lsn(1), .. }), "{error}");
}

#[tokio::test]
async fn foreign_and_unreadable_files_are_refused() {
    let disk = sim(12).await;
    let (journal, _sink) = start(&disk, small()).await;
    journal.close().await.expect("clean");
    let other = DirectoryId(Uuid::from_u128(0xff));
    let opened = Journal::open(Arc::new(disk.clone()), Path::new(DIR), other, small(), Checkpoint::default());
    let error = opened.await.expect_err("foreign");
    assert!(matches!(error, OpenError::ForeignDirectory { .. }), "{error}");
    damage(&disk, "journal-0001.firn", 20);
    let error = open(&disk, small()).await.expect_err("damaged");
    assert_eq!(error.to_string(), "journal file /data/journal-0001.firn: its header is damaged");
}

#[tokio::test]
async fn a_file_counts_with_the_length_it_has() {
    let disk = sim(22).await;
    let (journal, _sink) = start(&disk, small()).await;
    append_each(&journal, 1, 100).await;
    journal.close().await.expect("clean");
    let path = Path::new(DIR).join("journal-0001.firn");
    // Its checksum holds, and yet its length is a lie.
    let header = FileHeader { directory: DIRECTORY, sequence: 1, capacity: u64::MAX };
    let file = disk.open(&path, OpenMode::Write).await.expect("there");
    file.write_at(0, vec![Bytes::copy_from_slice(&header.encode())]).await.expect("written");
    let (journal, _sink) = start(&disk, small()).await;
    let Usage { used_file_bytes, file_bytes, .. } = journal.usage();
    assert_eq!((used_file_bytes, file_bytes), (64 << 10, 128 << 10));
    append_each(&journal, 1, 100).await;
    journal.close().await.expect("clean");
    let mut replay = open(&disk, small()).await.expect("healthy");
    assert_eq!(read_all(&mut replay).await.expect("healthy").len(), 2);
}

#[tokio::test]
async fn a_full_disk_stops_growth_but_not_the_journal() {
    let disk = sim(13).await;
    disk.set_capacity(150 << 10);
    let (journal, sink) = start(&disk, small()).await;
    let (waiter, owner) = Waiter::new();
    let batch = batch(12_000, 1);
    let mut last = Lsn(0);
    for offset in 0..12 {
        last = journal.append(append(&batch, 0, offset), &owner).expect("online").lsn;
    }
    // Two files fit. Settling what was written lets it go on in them.
    while waiter.last() < last {
        let synced = journal.synced();
        journal.checkpointed(synced);
        tokio::task::yield_now().await;
        assert_eq!(waiter.failures(), 0, "a full disk is no failure while files can be freed");
    }
    journal.close().await.expect("clean");
    let names = disk.list(Path::new(DIR)).await.expect("list");
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(!sink.groups.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_journal_without_room_for_a_file_waits_for_it_unless_it_is_closed() {
    let disk = sim(14).await;
    disk.set_capacity(60 << 10);
    let (journal, _sink) = start(&disk, small()).await;
    let (waiter, owner) = Waiter::new();
    let batch = batch(12_000, 1);
    let first = journal.append(append(&batch, 0, 0), &owner).expect("online").lsn;
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert_eq!((waiter.last(), waiter.failures()), (Lsn(0), 0));
    // Nobody says that there is room.
    disk.set_capacity(65 << 10);
    assert!(waiter.reached(first).await);
    for offset in 1..7 {
        journal.append(append(&batch, 0, offset), &owner).expect("online");
    }
    let error = journal.close().await.expect_err("not all of it found room");
    assert!(error.to_string().contains("No space left"), "{error}");
    assert_eq!(waiter.failures(), 1);
}

#[tokio::test]
async fn a_batch_larger_than_a_file_gets_one_of_its_own() {
    let disk = sim(15).await;
    let (journal, sink) = start(&disk, small()).await;
    let first = append_each(&journal, 1, 100).await;
    // Beyond what the journal may hold: alone, when all before it is settled.
    let (waiter, owner) = Waiter::new();
    let large = batch(300_000, 9);
    let second = journal.append(append(&large, 1, 5), &owner).expect("online").lsn;
    sink.moved.notified().await;
    let pressure = sink.pressures.lock().pop().expect("asked for");
    assert_eq!((pressure.up_to, pressure.partitions), (first, vec![tp(0)]));
    assert_eq!(waiter.last(), Lsn(0));
    settle(&disk, &journal, first).await.expect("stored");
    assert!(waiter.reached(second).await);
    append_each(&journal, 3, 10_000).await;
    drop(journal);

    let disk = disk.restart();
    let mut replay = open(&disk, small()).await.expect("healthy");
    let read = read_all(&mut replay).await.expect("healthy");
    assert_eq!(read.len(), 4);
    let expected = OwnedRecord::Append { tp: tp(1), batch: placed(&large, 5, 4) };
    assert_eq!(read.first(), Some(&(second, expected)));
    let journal = replay.start(Arc::new(Sink::default())).await.expect("started");
    settle(&disk, &journal, second).await.expect("stored");
    append_each(&journal, 6, 10_000).await;
    assert!(journal.usage().file_bytes <= small().max_bytes, "it is gone");
    journal.close().await.expect("clean");
}

#[tokio::test]
async fn a_dropped_journal_ends_and_says_so() {
    let disk = sim(16).await;
    let (journal, _sink) = start(&disk, small()).await;
    let (waiter, owner) = Waiter::new();
    journal.append(Record::Delete { tp: tp(0) }, &owner).expect("online");
    drop(journal);
    while waiter.failures() == 0 && waiter.last() == Lsn(0) {
        waiter.moved.notified().await;
    }
    assert_eq!(waiter.failures() + waiter.last().0, 1, "told exactly once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_works_on_a_real_disk_with_a_thread_of_its_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk::new(Handle::current()));
    let open = || {
        let disk = Arc::clone(&disk);
        Journal::open(disk, dir.path(), DIRECTORY, small(), Checkpoint::default())
    };
    let replay = open().await.expect("empty");
    let config = small();
    let journal = replay.start(Arc::new(Sink::default())).await.expect("started");
    let tasks: Vec<_> = (0..4)
        .map(|partition| {
            let journal = journal.clone();
            tokio::spawn(async move {
                let (waiter, owner) = Waiter::new();
                for offset in 0..10 {
                    let batch = batch(1000 + offset as usize, partition as u8);
                    let permit = journal.admit(batch.len()).await.expect("online");
                    let placed = journal.append(append(&batch, partition, offset), &owner);
                    drop(permit);
                    assert!(waiter.reached(placed.expect("online").lsn).await);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("all were told");
    }
    journal.close().await.expect("clean");
    assert!(journal.usage().file_bytes <= config.max_bytes);
    let mut replay = open().await.expect("healthy");
    let mut next = [0i64; 4];
    while let Some((_, record)) = replay.next().await.expect("healthy") {
        let OwnedRecord::Append { tp, batch: read } = record else {
            panic!("only batches were appended");
        };
        let offset = &mut next[tp.partition as usize];
        let written = batch(1000 + *offset as usize, tp.partition as u8);
        assert_eq!(read, placed(&written, *offset, 4));
        *offset += 1;
    }
    assert_eq!(next, [10; 4]);
}
